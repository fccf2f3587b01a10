//! Which fields of a pod the agent does not honour yet, and what it says to each.
//!
//! A field that is not honoured must never be dropped in silence. So every field of the types that
//! make up a pod stands in a table below, and a test compares the tables with the types' own lists
//! of fields. To support a field, change its entry to [`Verdict::Honoured`].
//!
//! *Refused* is what would change what the pod does, or what it may do: a security setting that is
//! not applied, a probe that is not run, a volume that is not there. *Warned* is what matters to
//! others only. What kubelet itself ignores for a static pod (affinity, the scheduler's name) is
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

use Verdict::{Each, Honoured, NeedsApi, Refuse, Unless, Warn};

const API_ONLY: &str = "ignored: only an API server sets it";
const VOLUME: &str = "this type of volume is not supported yet; emptyDir and hostPath are";
const SECURITY: &str = "not supported yet, and the pod must not run without it";
const PROBE: &str = "probes are not supported yet, and the pod would never be found unhealthy";

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
        ("dnsConfig", Refuse("not supported yet: the pod would resolve other names")),
        (
            "dnsPolicy",
            Unless(&["ClusterFirst", "Default"], "not supported yet: the pod would resolve other names"),
        ),
        // Services are known from an API server only.
        ("enableServiceLinks", Honoured),
        ("ephemeralContainers", NeedsApi("a static pod may not have ephemeral containers")),
        ("hostAliases", Refuse("not supported yet: /etc/hosts would lack these names")),
        ("hostIPC", Honoured),
        ("hostNetwork", Honoured),
        ("hostPID", Honoured),
        ("hostUsers", Unless(&["true"], SECURITY)),
        ("hostname", Refuse("not supported yet: the pod would have another host name")),
        ("hostnameOverride", Refuse("not supported yet: the pod would have another host name")),
        ("imagePullSecrets", NeedsApi("static pods may not reference secrets")),
        ("initContainers", Each(&CONTAINER)),
        ("nodeName", Honoured),
        ("nodeSelector", Honoured),
        ("os", Honoured),
        ("overhead", Warn("ignored: it is set by a runtime class only")),
        ("preemptionPolicy", Honoured),
        ("priority", Honoured),
        ("priorityClassName", Honoured),
        ("readinessGates", Refuse("not supported yet: the pod would never be ready")),
        ("resourceClaims", NeedsApi("static pods may not reference resourceclaims")),
        ("resources", Refuse("resources of the whole pod are not supported yet; those of containers are")),
        ("restartPolicy", Honoured),
        ("runtimeClassName", Refuse(SECURITY)),
        ("schedulerName", Honoured),
        ("schedulingGates", Refuse("a gated pod must not run")),
        ("schedulingGroup", Honoured),
        ("securityContext", Each(&POD_SECURITY)),
        ("serviceAccount", NeedsApi("static pods may not reference serviceaccounts")),
        ("serviceAccountName", NeedsApi("static pods may not reference serviceaccounts")),
        ("setHostnameAsFQDN", Unless(&["false"], "not supported yet: the pod would have another host name")),
        ("shareProcessNamespace", Unless(&["false"], SECURITY)),
        ("subdomain", Refuse("not supported yet: the pod would have another host name")),
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
        ("appArmorProfile", Refuse(SECURITY)),
        ("fsGroup", Refuse(SECURITY)),
        ("fsGroupChangePolicy", Refuse(SECURITY)),
        ("runAsGroup", Refuse(SECURITY)),
        ("runAsNonRoot", Unless(&["false"], SECURITY)),
        ("runAsUser", Refuse(SECURITY)),
        ("seLinuxChangePolicy", Refuse(SECURITY)),
        ("seLinuxOptions", Refuse(SECURITY)),
        ("seccompProfile", Refuse(SECURITY)),
        ("supplementalGroups", Refuse(SECURITY)),
        ("supplementalGroupsPolicy", Refuse(SECURITY)),
        ("sysctls", Refuse("not supported yet: the pod would run with other kernel settings")),
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
        ("envFrom", Refuse("not supported yet: the container would lack these variables")),
        ("image", Honoured),
        ("imagePullPolicy", Honoured),
        ("lifecycle", Refuse("hooks and stop signals are not supported yet, and would not take effect")),
        ("livenessProbe", Refuse(PROBE)),
        ("name", Honoured),
        ("ports", Honoured),
        ("readinessProbe", Refuse(PROBE)),
        ("resizePolicy", Warn("ignored: resources of a running static pod are not changed in place")),
        ("resources", Each(&RESOURCES)),
        ("restartPolicy", Honoured),
        ("restartPolicyRules", Honoured),
        ("securityContext", Each(&SECURITY_CONTEXT)),
        ("startupProbe", Refuse(PROBE)),
        ("stdin", Unless(&["false"], "not supported yet: nothing could attach to it")),
        ("stdinOnce", Unless(&["false"], "not supported yet: nothing could attach to it")),
        ("terminationMessagePath", Unless(&["/dev/termination-log"], "another path is not supported yet")),
        ("terminationMessagePolicy", Unless(&["File"], "not supported yet: the message would be missing")),
        ("tty", Unless(&["false"], "not supported yet: the container would have no terminal")),
        ("volumeDevices", Refuse("block devices are not supported yet")),
        ("volumeMounts", Each(&VOLUME_MOUNT)),
        ("workingDir", Honoured),
    ],
};

/// `EnvVar`.
pub static ENV: Table = Table {
    kind: "EnvVar",
    fields: &[
        ("name", Honoured),
        ("value", Honoured),
        ("valueFrom", Refuse("not supported yet: the container would lack this variable")),
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
        ("allowPrivilegeEscalation", Unless(&["true"], SECURITY)),
        ("appArmorProfile", Refuse(SECURITY)),
        ("capabilities", Refuse(SECURITY)),
        ("privileged", Unless(&["false"], "not supported yet: the container would lack the privileges")),
        ("procMount", Unless(&["Default"], SECURITY)),
        ("readOnlyRootFilesystem", Unless(&["false"], SECURITY)),
        ("runAsGroup", Refuse(SECURITY)),
        ("runAsNonRoot", Unless(&["false"], SECURITY)),
        ("runAsUser", Refuse(SECURITY)),
        ("seLinuxOptions", Refuse(SECURITY)),
        ("seccompProfile", Refuse(SECURITY)),
        ("windowsOptions", Refuse("this node runs Linux")),
    ],
};

/// `VolumeMount`.
pub static VOLUME_MOUNT: Table = Table {
    kind: "VolumeMount",
    fields: &[
        ("mountPath", Honoured),
        ("mountPropagation", Unless(&["None"], "not supported yet: mounts would not show on the other side")),
        ("name", Honoured),
        ("readOnly", Honoured),
        ("recursiveReadOnly", Unless(&["Disabled", "IfPossible"], SECURITY)),
        ("subPath", Refuse("not supported yet: another folder would be mounted")),
        ("subPathExpr", Refuse("not supported yet: another folder would be mounted")),
    ],
};

/// `Volume`.
pub static VOLUME_TABLE: Table = Table {
    kind: "Volume",
    fields: &[
        ("awsElasticBlockStore", Refuse(VOLUME)),
        ("azureDisk", Refuse(VOLUME)),
        ("azureFile", Refuse(VOLUME)),
        ("cephfs", Refuse(VOLUME)),
        ("cinder", Refuse(VOLUME)),
        ("configMap", NeedsApi("static pods may not reference configmaps")),
        ("csi", NeedsApi("static pods may not reference csidrivers")),
        ("downwardAPI", Refuse(VOLUME)),
        ("emptyDir", Each(&EMPTY_DIR)),
        ("ephemeral", NeedsApi("static pods may not reference persistentvolumeclaims")),
        ("fc", Refuse(VOLUME)),
        ("flexVolume", Refuse(VOLUME)),
        ("flocker", Refuse(VOLUME)),
        ("gcePersistentDisk", Refuse(VOLUME)),
        ("gitRepo", Refuse(VOLUME)),
        ("glusterfs", Refuse(VOLUME)),
        ("hostPath", Honoured),
        ("image", Refuse(VOLUME)),
        ("iscsi", Refuse(VOLUME)),
        ("name", Honoured),
        ("nfs", Refuse(VOLUME)),
        ("persistentVolumeClaim", NeedsApi("static pods may not reference persistentvolumeclaims")),
        ("photonPersistentDisk", Refuse(VOLUME)),
        ("portworxVolume", Refuse(VOLUME)),
        ("projected", Refuse(VOLUME)),
        ("quobyte", Refuse(VOLUME)),
        ("rbd", Refuse(VOLUME)),
        ("scaleIO", Refuse(VOLUME)),
        ("secret", NeedsApi("static pods may not reference secrets")),
        ("storageos", Refuse(VOLUME)),
        ("vsphereVolume", Refuse(VOLUME)),
    ],
};

/// `EmptyDirVolumeSource`.
pub static EMPTY_DIR: Table = Table {
    kind: "EmptyDirVolumeSource",
    fields: &[
        ("medium", Refuse("not supported yet: the volume would be on disk")),
        ("sizeLimit", Warn("not enforced yet: the volume may grow beyond it")),
    ],
};

/// Every table, for the check that none misses a field.
pub static TABLES: [&Table; 11] = [
    &POD,
    &METADATA,
    &SPEC,
    &POD_SECURITY,
    &CONTAINER,
    &ENV,
    &RESOURCES,
    &SECURITY_CONTEXT,
    &VOLUME_MOUNT,
    &VOLUME_TABLE,
    &EMPTY_DIR,
];

/// Lists what the agent does not honour of this pod. The pod may have its defaults or not.
pub fn check_support(pod: &Pod) -> Support {
    let mut support = Support::default();
    match serde_json::to_value(pod) {
        Ok(value) => walk(&POD, &value, "", &mut support),
        // Not reachable for these types; a pod that cannot be looked at must not run.
        Err(error) => support.refused.push(FieldProblem::new("", format!("pod cannot be read: {error}"))),
    }
    support
}

fn walk(table: &Table, value: &Value, path: &str, support: &mut Support) {
    let Value::Object(fields) = value else { return };
    for (name, value) in fields.iter().filter(|(_, v)| !is_unset(v)) {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let verdict = table.fields.iter().find(|(field, _)| field == name).map(|(_, verdict)| *verdict);
        match verdict.unwrap_or(Refuse("not known to this release")) {
            Honoured => {}
            Refuse(reason) | NeedsApi(reason) => support.refused.push(FieldProblem::new(path, reason)),
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
                        walk(table, item, &format!("{path}[{index}]"), support);
                    }
                }
                object => walk(table, object, &path, support),
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
    use std::collections::BTreeMap;

    use k8s_openapi::api::core::v1 as core;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
    use serde::Deserialize;
    use serde::de::{Deserializer, Visitor, value::Error};

    use super::*;
    use crate::api::defaults::set_pod_defaults;
    use crate::api::manifest::{Shape, parse};

    /// A deserializer that only asks a type for its name and fields.
    struct Fields<'a>(&'a mut Option<(&'static str, &'static [&'static str])>);

    impl<'de> Deserializer<'de> for Fields<'_> {
        type Error = Error;

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            name: &'static str,
            fields: &'static [&'static str],
            _visitor: V,
        ) -> Result<V::Value, Error> {
            *self.0 = Some((name, fields));
            Err(serde::de::Error::custom("asked"))
        }

        fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
            Err(serde::de::Error::custom("no struct"))
        }

        serde::forward_to_deserialize_any! {
            bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
        }
    }

    fn fields_of<T: for<'de> Deserialize<'de>>() -> (&'static str, Vec<&'static str>) {
        let mut found = None;
        assert!(T::deserialize(Fields(&mut found)).is_err());
        let (name, fields) = found.expect("a struct");
        (name, fields.to_vec())
    }

    #[test]
    fn every_field_of_every_type_has_a_verdict() {
        let types: BTreeMap<&str, Vec<&str>> = [
            fields_of::<Pod>(),
            fields_of::<ObjectMeta>(),
            fields_of::<core::PodSpec>(),
            fields_of::<core::PodSecurityContext>(),
            fields_of::<core::Container>(),
            fields_of::<core::EnvVar>(),
            fields_of::<core::ResourceRequirements>(),
            fields_of::<core::SecurityContext>(),
            fields_of::<core::VolumeMount>(),
            fields_of::<core::Volume>(),
            fields_of::<core::EmptyDirVolumeSource>(),
        ]
        .into_iter()
        .collect();
        assert_eq!(types.len(), TABLES.len());
        for table in TABLES {
            let mut want = types[table.kind].clone();
            want.sort_unstable();
            let mut have: Vec<&str> = table.fields.iter().map(|(name, _)| *name).collect();
            have.sort_unstable();
            assert_eq!(have, want, "{}", table.kind);
        }
    }

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
        let spec = "{restartPolicy: Never, hostNetwork: true, hostPID: true, hostIPC: true, priority: 5,
            activeDeadlineSeconds: 5, nodeName: n1, tolerations: [{operator: Exists}], affinity: {},
            priorityClassName: system-node-critical, schedulerName: x, automountServiceAccountToken: false,
            initContainers: [{name: i, image: x, restartPolicy: Always}],
            containers: [{name: c, image: x, command: [a], args: [b], workingDir: /, env: [{name: A, value: b}],
              ports: [{containerPort: 1}], resources: {limits: {cpu: 1}}, restartPolicy: Never,
              restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [1]}}],
              securityContext: {}, volumeMounts: [{name: v, mountPath: /v, readOnly: true}]}],
            volumes: [{name: v}, {name: h, hostPath: {path: /}}, {name: e, emptyDir: {}}]}";
        assert_eq!(support(spec), Support::default());
    }

    #[test]
    fn what_would_change_the_pod_is_refused_by_path() {
        let found = support(
            "{hostUsers: false, shareProcessNamespace: true, runtimeClassName: kata, dnsConfig: {}, dnsPolicy: None,
            securityContext: {runAsUser: 0, runAsNonRoot: false},
            containers: [{name: c, image: x, livenessProbe: {exec: {command: [a]}}, lifecycle: {},
              env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}}}],
              securityContext: {allowPrivilegeEscalation: false, privileged: true, runAsUser: 0},
              volumeMounts: [{name: v, mountPath: /v, subPath: x}], tty: true}],
            volumes: [{name: v, emptyDir: {medium: Memory, sizeLimit: 1Mi}}, {name: s, secret: {}}]}",
        );
        let mut refused = paths(&found.refused);
        refused.sort_unstable();
        assert_eq!(
            refused,
            [
                "spec.containers[0].env[0].valueFrom",
                "spec.containers[0].lifecycle",
                "spec.containers[0].livenessProbe",
                "spec.containers[0].securityContext.allowPrivilegeEscalation",
                "spec.containers[0].securityContext.privileged",
                "spec.containers[0].securityContext.runAsUser",
                "spec.containers[0].tty",
                "spec.containers[0].volumeMounts[0].subPath",
                "spec.dnsConfig",
                "spec.dnsPolicy",
                "spec.hostUsers",
                "spec.runtimeClassName",
                "spec.securityContext.runAsUser",
                "spec.shareProcessNamespace",
                "spec.volumes[0].emptyDir.medium",
                "spec.volumes[1].secret",
            ]
        );
        assert_eq!(paths(&found.warnings), ["spec.volumes[0].emptyDir.sizeLimit"]);
    }
}
