//! Which fields of a pod the agent does not honour yet, and what it says to each.
//!
//! A field that is not honoured must never be dropped in silence. So every field of the types that
//! make up a pod stands in a table below, and a test (`tests/drift/pod_spec.rs`) compares the tables
//! with the types' own lists of fields. To support a field, change its entry to [`Verdict::Honoured`].
//!
//! *Refused* is what would change what the pod does, or what it may do: a security setting that is
//! not applied, a probe that is not run, a volume that is not there. *Warned* is what matters to
//! others only. What kubelet itself ignores for a static pod (affinity to other pods, the scheduler's name) is
//! honoured by doing nothing.

use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::FieldProblem;

/// What becomes of a field that is set.
#[derive(Clone, Copy, Debug)]
pub enum Verdict {
    /// Acted on, or rightly of no effect on a node.
    Honoured,
    /// The pod is refused, for this reason.
    Refuse(&'static str),
    /// Acted on in a pod of the API server; a static pod is refused, for this reason.
    FromApi(&'static str),
    /// Refused, for this reason, as long as there is no API server to give it.
    NeedsApi(&'static str),
    /// The pod runs without it; the reason is told.
    Warn(&'static str),
    /// Refused, unless it has one of these values, which is what the agent does anyway.
    Unless(&'static [&'static str], &'static str),
    /// An object, or a list of objects, with a table of its own.
    Each(&'static Table),
}

/// The verdicts on the fields of one type of the API.
#[derive(Debug)]
pub struct Table {
    /// The type's name in the API.
    pub kind: &'static str,
    /// Every field by its JSON name.
    pub fields: &'static [(&'static str, Verdict)],
}

/// What a pod asks for that it does not get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Support {
    /// Reasons not to run the pod.
    pub refused: Vec<FieldProblem>,
    /// Things to tell.
    pub warnings: Vec<FieldProblem>,
}

use Verdict::{Each, FromApi, Honoured, NeedsApi, Refuse, Unless, Warn};

const API_ONLY: &str = "ignored: only an API server sets it";
const REMOVED: &str = "Kubernetes itself has removed this type of volume";
const MIGRATED: &str = "Kubernetes has left this type of volume to CSI drivers, which need the API server";
const NETWORK: &str =
    "nodectl mounts no network storage: mount it on the host and name its folder in a hostPath volume";

/// `Pod`.
pub static POD: Table = Table {
    kind: "Pod",
    fields: &[
        ("apiVersion", Honoured),
        ("kind", Honoured),
        ("metadata", Each(&METADATA)),
        ("spec", Each(&SPEC)),
        ("status", Warn("ignored: a manifest says what is wanted")),
    ],
};

/// `ObjectMeta`.
pub static METADATA: Table = Table {
    kind: "ObjectMeta",
    fields: &[
        ("annotations", Honoured),
        // Set by every `kubectl get -o yaml`, and of no effect.
        ("creationTimestamp", Honoured),
        ("deletionGracePeriodSeconds", Warn(API_ONLY)),
        ("deletionTimestamp", Warn(API_ONLY)),
        ("finalizers", Warn("ignored: a static pod is removed by removing its manifest")),
        ("generateName", Warn("ignored: a static pod is named by metadata.name")),
        ("generation", Honoured),
        ("labels", Honoured),
        ("managedFields", Honoured),
        ("name", Honoured),
        ("namespace", Honoured),
        ("ownerReferences", Warn("ignored: the node owns a static pod")),
        ("resourceVersion", Honoured),
        ("selfLink", Honoured),
        ("uid", Honoured),
    ],
};

/// `PodSpec`.
pub static SPEC: Table = Table {
    kind: "PodSpec",
    fields: &[
        ("activeDeadlineSeconds", Honoured),
        ("affinity", Honoured),
        // Without a service account there is no token to mount.
        ("automountServiceAccountToken", Honoured),
        ("containers", Each(&CONTAINER)),
        ("dnsConfig", Honoured),
        ("dnsPolicy", Honoured),
        ("enableServiceLinks", Honoured),
        ("ephemeralContainers", NeedsApi("a static pod may not have ephemeral containers")),
        ("hostAliases", Honoured),
        ("hostIPC", Honoured),
        ("hostNetwork", Honoured),
        ("hostPID", Honoured),
        ("hostUsers", Honoured),
        ("hostname", Honoured),
        ("hostnameOverride", Honoured),
        ("imagePullSecrets", FromApi("static pods may not reference secrets")),
        ("initContainers", Each(&CONTAINER)),
        ("nodeName", Honoured),
        ("nodeSelector", Honoured),
        ("os", Honoured),
        ("overhead", Honoured),
        ("preemptionPolicy", Honoured),
        ("priority", Honoured),
        ("priorityClassName", Honoured),
        (
            "readinessGates",
            Warn("without an API server nothing sets these conditions: the pod runs and is never ready"),
        ),
        ("resourceClaims", NeedsApi("static pods may not reference resourceclaims")),
        ("resources", Each(&RESOURCES)),
        ("restartPolicy", Honoured),
        ("runtimeClassName", Honoured),
        ("schedulerName", Honoured),
        ("schedulingGates", Refuse("a gated pod must not run")),
        ("schedulingGroup", Honoured),
        ("securityContext", Each(&POD_SECURITY)),
        ("serviceAccount", FromApi("static pods may not reference serviceaccounts")),
        ("serviceAccountName", FromApi("static pods may not reference serviceaccounts")),
        ("setHostnameAsFQDN", Honoured),
        ("shareProcessNamespace", Honoured),
        ("subdomain", Honoured),
        ("terminationGracePeriodSeconds", Honoured),
        ("tolerations", Honoured),
        ("topologySpreadConstraints", Honoured),
        ("volumes", Each(&VOLUME_TABLE)),
    ],
};

/// `PodSecurityContext`.
pub static POD_SECURITY: Table = Table {
    kind: "PodSecurityContext",
    fields: &[
        ("appArmorProfile", Honoured),
        ("fsGroup", Honoured),
        // It is for volumes that outlive the pod, which a static pod has not.
        ("fsGroupChangePolicy", Honoured),
        ("runAsGroup", Honoured),
        ("runAsNonRoot", Honoured),
        ("runAsUser", Honoured),
        ("seLinuxChangePolicy", Honoured),
        ("seLinuxOptions", Honoured),
        ("seccompProfile", Honoured),
        ("supplementalGroups", Honoured),
        ("supplementalGroupsPolicy", Honoured),
        ("sysctls", Honoured),
        ("windowsOptions", Refuse("this node runs Linux")),
    ],
};

/// `Container`; init containers too.
pub static CONTAINER: Table = Table {
    kind: "Container",
    fields: &[
        ("args", Honoured),
        ("command", Honoured),
        ("env", Each(&ENV)),
        ("envFrom", Each(&ENV_FROM)),
        ("image", Honoured),
        ("imagePullPolicy", Honoured),
        ("lifecycle", Each(&LIFECYCLE)),
        ("livenessProbe", Honoured),
        ("name", Honoured),
        ("ports", Honoured),
        ("readinessProbe", Honoured),
        ("resizePolicy", Warn("ignored: resources of a running static pod are not changed in place")),
        ("resources", Each(&RESOURCES)),
        ("restartPolicy", Honoured),
        ("restartPolicyRules", Honoured),
        ("securityContext", Each(&SECURITY_CONTEXT)),
        ("startupProbe", Honoured),
        ("stdin", Honoured),
        ("stdinOnce", Honoured),
        ("terminationMessagePath", Honoured),
        ("terminationMessagePolicy", Honoured),
        ("tty", Honoured),
        ("volumeDevices", NeedsApi("a block device is a persistent volume, which needs the API server")),
        ("volumeMounts", Each(&VOLUME_MOUNT)),
        ("workingDir", Honoured),
    ],
};

/// `Lifecycle`.
pub static LIFECYCLE: Table = Table {
    kind: "Lifecycle",
    fields: &[("postStart", Each(&HOOK)), ("preStop", Each(&HOOK)), ("stopSignal", Honoured)],
};

/// `LifecycleHandler`.
pub static HOOK: Table = Table {
    kind: "LifecycleHandler",
    fields: &[
        ("exec", Honoured),
        ("httpGet", Honoured),
        ("sleep", Honoured),
        ("tcpSocket", Refuse("no kubelet runs such a hook either: it would always fail")),
    ],
};

/// `EnvVar`.
pub static ENV: Table = Table {
    kind: "EnvVar",
    fields: &[("name", Honoured), ("value", Honoured), ("valueFrom", Each(&ENV_SOURCE))],
};

/// `EnvVarSource`.
pub static ENV_SOURCE: Table = Table {
    kind: "EnvVarSource",
    fields: &[
        ("configMapKeyRef", FromApi("static pods may not reference configmaps")),
        ("fieldRef", Honoured),
        ("fileKeyRef", Honoured),
        ("resourceFieldRef", Honoured),
        ("secretKeyRef", FromApi("static pods may not reference secrets")),
    ],
};

/// `EnvFromSource`. All that it can name is in an API server.
pub static ENV_FROM: Table = Table {
    kind: "EnvFromSource",
    fields: &[
        ("configMapRef", FromApi("static pods may not reference configmaps")),
        ("prefix", FromApi("stands before the names of a ConfigMap or Secret, which need the API server")),
        ("secretRef", FromApi("static pods may not reference secrets")),
    ],
};

/// `ResourceRequirements`.
pub static RESOURCES: Table = Table {
    kind: "ResourceRequirements",
    fields: &[
        ("claims", NeedsApi("static pods may not reference resourceclaims")),
        ("limits", Honoured),
        ("requests", Honoured),
    ],
};

/// `SecurityContext`.
pub static SECURITY_CONTEXT: Table = Table {
    kind: "SecurityContext",
    fields: &[
        ("allowPrivilegeEscalation", Honoured),
        ("appArmorProfile", Honoured),
        ("capabilities", Honoured),
        ("privileged", Honoured),
        ("procMount", Honoured),
        ("readOnlyRootFilesystem", Honoured),
        ("runAsGroup", Honoured),
        ("runAsNonRoot", Honoured),
        ("runAsUser", Honoured),
        ("seLinuxOptions", Honoured),
        ("seccompProfile", Honoured),
        ("windowsOptions", Refuse("this node runs Linux")),
    ],
};

/// `VolumeMount`.
pub static VOLUME_MOUNT: Table = Table {
    kind: "VolumeMount",
    fields: &[
        ("mountPath", Honoured),
        ("mountPropagation", Honoured),
        ("name", Honoured),
        ("readOnly", Honoured),
        ("recursiveReadOnly", Honoured),
        ("subPath", Honoured),
        ("subPathExpr", Honoured),
    ],
};

/// `Volume`.
pub static VOLUME_TABLE: Table = Table {
    kind: "Volume",
    fields: &[
        ("awsElasticBlockStore", Refuse(MIGRATED)),
        ("azureDisk", Refuse(MIGRATED)),
        ("azureFile", Refuse(MIGRATED)),
        ("cephfs", Refuse(REMOVED)),
        ("cinder", Refuse(MIGRATED)),
        ("configMap", FromApi("static pods may not reference configmaps")),
        ("csi", NeedsApi("static pods may not reference csidrivers")),
        ("downwardAPI", Honoured),
        ("emptyDir", Each(&EMPTY_DIR)),
        ("ephemeral", NeedsApi("static pods may not reference persistentvolumeclaims")),
        ("fc", Refuse(NETWORK)),
        ("flexVolume", Refuse("drivers that are programs on the node are not run; CSI has replaced them")),
        ("flocker", Refuse(REMOVED)),
        ("gcePersistentDisk", Refuse(MIGRATED)),
        ("gitRepo", Refuse("cannot be had safely: clone into an emptyDir volume from an init container")),
        ("glusterfs", Refuse(REMOVED)),
        ("hostPath", Honoured),
        ("image", Honoured),
        ("iscsi", Refuse(NETWORK)),
        ("name", Honoured),
        ("nfs", Refuse(NETWORK)),
        ("persistentVolumeClaim", NeedsApi("static pods may not reference persistentvolumeclaims")),
        ("photonPersistentDisk", Refuse(REMOVED)),
        ("portworxVolume", Refuse(MIGRATED)),
        ("projected", Each(&PROJECTED)),
        ("quobyte", Refuse(REMOVED)),
        ("rbd", Refuse(REMOVED)),
        ("scaleIO", Refuse(REMOVED)),
        ("secret", FromApi("static pods may not reference secrets")),
        ("storageos", Refuse(REMOVED)),
        ("vsphereVolume", Refuse(MIGRATED)),
    ],
};

/// `EmptyDirVolumeSource`.
pub static EMPTY_DIR: Table = Table {
    kind: "EmptyDirVolumeSource",
    fields: &[
        ("medium", Honoured),
        ("sizeLimit", Warn("not enforced on disk yet: a volume there may grow beyond it")),
    ],
};

/// `ProjectedVolumeSource`.
pub static PROJECTED: Table = Table {
    kind: "ProjectedVolumeSource",
    fields: &[("defaultMode", Honoured), ("sources", Each(&PROJECTION))],
};

/// `VolumeProjection`.
pub static PROJECTION: Table = Table {
    kind: "VolumeProjection",
    fields: &[
        ("clusterTrustBundle", NeedsApi("static pods may not reference clustertrustbundles")),
        ("configMap", FromApi("static pods may not reference configmaps")),
        ("downwardAPI", Honoured),
        ("podCertificate", NeedsApi("static pods may not reference podcertificaterequests")),
        ("secret", FromApi("static pods may not reference secrets")),
        ("serviceAccountToken", FromApi("static pods may not reference serviceaccounts")),
    ],
};

/// Every table, for the check that none misses a field.
pub static TABLES: [&Table; 17] = [
    &POD,
    &METADATA,
    &SPEC,
    &POD_SECURITY,
    &CONTAINER,
    &LIFECYCLE,
    &HOOK,
    &ENV,
    &ENV_SOURCE,
    &ENV_FROM,
    &RESOURCES,
    &SECURITY_CONTEXT,
    &VOLUME_MOUNT,
    &VOLUME_TABLE,
    &EMPTY_DIR,
    &PROJECTED,
    &PROJECTION,
];

/// Lists what the agent does not honour of this pod. The pod may have its defaults or not.
pub fn check_support(pod: &Pod) -> Support {
    check(pod, false)
}

fn check(pod: &Pod, of_api: bool) -> Support {
    let mut support = Support::default();
    match serde_json::to_value(pod) {
        Ok(value) => walk(&POD, &value, ("", of_api), &mut support),
        // Not reachable for these types; a pod that cannot be looked at must not run.
        Err(error) => support.refused.push(FieldProblem::new("", format!("pod cannot be read: {error}"))),
    }
    support
}

/// What a pod of the API server asks for that it does not get yet: by path, and why. Such a pod waits.
///
/// The rest of what a static pod may not have either has no effect on a node, or is what the server has decided.
pub fn check_api_support(pod: &Pod) -> Vec<FieldProblem> {
    let of_no_effect = |path: &str| {
        ["spec.ephemeralContainers", "spec.schedulingGates"].iter().any(|field| path.starts_with(field))
    };
    let mut refused = check(pod, true).refused;
    refused.retain(|problem| !of_no_effect(&problem.path));
    for problem in &mut refused {
        if let Some(what) = problem.detail.split("may not reference ").nth(1) {
            problem.detail = format!("nodectl does not give pods {what} yet");
        }
    }
    refused
}

fn walk(table: &Table, value: &Value, (path, of_api): (&str, bool), support: &mut Support) {
    let Value::Object(fields) = value else { return };
    for (name, value) in fields.iter().filter(|(_, v)| !is_unset(v)) {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let verdict = table.fields.iter().find(|(field, _)| field == name).map(|(_, verdict)| *verdict);
        match verdict.unwrap_or(Refuse("not known to this release")) {
            Honoured => {}
            FromApi(_) if of_api => {}
            Refuse(reason) | NeedsApi(reason) | FromApi(reason) => {
                support.refused.push(FieldProblem::new(path, reason));
            }
            Warn(reason) => support.warnings.push(FieldProblem::new(path, reason)),
            Unless(allowed, reason) => {
                let text = match value {
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                };
                if !allowed.contains(&text.as_str()) {
                    support.refused.push(FieldProblem::new(path, format!("{text}: {reason}")));
                }
            }
            Each(table) => match value {
                Value::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        walk(table, item, (&format!("{path}[{index}]"), of_api), support);
                    }
                }
                object => walk(table, object, (&path, of_api), support),
            },
        }
    }
}

/// Empty texts and lists are how the API spells "not given". An empty object is given where its
/// presence means something (`secret: {}`), so it counts, and so do `false` and 0.
fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::defaults::set_pod_defaults;
    use crate::api::manifest::{Shape, parse};

    fn support(spec: &str) -> Support {
        let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspec: {spec}\n");
        let mut pod = parse(text.as_bytes(), Shape::Pod).unwrap_or_else(|e| panic!("{e}")).remove(0).pod;
        set_pod_defaults(&mut pod);
        check_support(&pod)
    }

    fn paths(problems: &[FieldProblem]) -> Vec<&str> {
        problems.iter().map(|p| p.path.as_str()).collect()
    }

    #[test]
    fn what_is_supported_passes_with_its_defaults() {
        let spec = "{resources: {limits: {memory: 1Gi}}, restartPolicy: Never, hostNetwork: true, hostPID: true, hostIPC: true, priority: 5,
            activeDeadlineSeconds: 5, nodeName: n1, shareProcessNamespace: true, runtimeClassName: kata,
            dnsConfig: {}, dnsPolicy: None, hostAliases: [{ip: 192.0.2.1}], hostname: h, subdomain: s,
            setHostnameAsFQDN: true, hostnameOverride: o, overhead: {cpu: 1}, tolerations: [{operator: Exists}], affinity: {},
            priorityClassName: system-node-critical, schedulerName: x, automountServiceAccountToken: false,
            initContainers: [{name: i, image: x, restartPolicy: Always}],
            containers: [{name: c, image: x, command: [a], args: [b], workingDir: /, env: [{name: A, value: b}, {name: F, valueFrom: {fieldRef: {fieldPath: metadata.name}}},
                {name: R, valueFrom: {resourceFieldRef: {resource: limits.cpu}}},
                {name: K, valueFrom: {fileKeyRef: {volumeName: e, path: f, key: K}}}],
              stdin: true, stdinOnce: true, tty: true,
              terminationMessagePath: /tmp/x, terminationMessagePolicy: FallbackToLogsOnError,
              ports: [{containerPort: 1}], resources: {limits: {cpu: 1}}, restartPolicy: Never,
              restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [1]}}],
              livenessProbe: {exec: {command: [a]}}, readinessProbe: {httpGet: {port: 1}},
              startupProbe: {grpc: {port: 1}},
              lifecycle: {postStart: {exec: {command: [a]}}, preStop: {sleep: {seconds: 1}}},
              securityContext: {privileged: true, runAsUser: 1, capabilities: {drop: [ALL]}, procMount: Unmasked},
              volumeMounts: [{name: v, mountPath: /v, readOnly: true,
                recursiveReadOnly: Enabled, subPath: a, mountPropagation: None}]}],
            hostUsers: false,
            securityContext: {runAsUser: 5, sysctls: [{name: kernel.sem, value: '1'}], fsGroup: 5, fsGroupChangePolicy: OnRootMismatch},
            volumes: [{name: v}, {name: h, hostPath: {path: /}}, {name: e, emptyDir: {}},
              {name: d, downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}},
              {name: p, projected: {sources: [{downwardAPI: {}}]}},
              {name: m, emptyDir: {medium: Memory}}, {name: i, image: {reference: x}}]}";
        assert_eq!(support(spec), Support::default());
    }

    #[test]
    fn what_would_change_the_pod_is_refused_by_path() {
        let found = support(
            "{containers: [{name: c, image: x, lifecycle: {postStart: {tcpSocket: {port: 1}}},
              env: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k, optional: true}}}],
              envFrom: [{prefix: P_, configMapRef: {name: m, optional: true}}],
              securityContext: {windowsOptions: {}},
              volumeMounts: [{name: v, mountPath: /v}]}],
            volumes: [{name: v, emptyDir: {sizeLimit: 1Mi}}, {name: s, secret: {}},
              {name: p, projected: {sources: [{downwardAPI: {}}, {serviceAccountToken: {path: t}}]}},
              {name: share, nfs: {server: a, path: /}}]}",
        );
        let mut refused = paths(&found.refused);
        refused.sort_unstable();
        assert_eq!(
            refused,
            [
                "spec.containers[0].envFrom[0].configMapRef",
                "spec.containers[0].envFrom[0].prefix",
                "spec.containers[0].env[0].valueFrom.secretKeyRef",
                "spec.containers[0].lifecycle.postStart.tcpSocket",
                "spec.containers[0].securityContext.windowsOptions",
                "spec.volumes[1].secret",
                "spec.volumes[2].projected.sources[1].serviceAccountToken",
                "spec.volumes[3].nfs",
            ]
        );
        assert_eq!(paths(&found.warnings), ["spec.volumes[0].emptyDir.sizeLimit"]);
    }
}
