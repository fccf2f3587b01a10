//! What there is to say of a field beyond its verdict, for `docs/pod-spec.md`. Paths have `[]` for
//! every element of a list or map; each must be a row of the page.

/// Fields that are rightly done nothing about on a node, with all below them, and who they are for.
pub static NO_EFFECT: &[(&str, &str)] = &[
    ("metadata.creationTimestamp", "set by an API server; removed"),
    ("metadata.generation", "set by an API server; removed"),
    ("metadata.managedFields", "set by an API server; removed"),
    ("metadata.resourceVersion", "set by an API server; removed"),
    ("metadata.selfLink", "set by an API server; removed"),
    (
        "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution",
        "for the scheduler: a static pod runs on the node that reads it",
    ),
    ("spec.affinity.podAffinity", "for the scheduler"),
    ("spec.affinity.podAntiAffinity", "for the scheduler"),
    ("spec.automountServiceAccountToken", "a static pod has no service account, and so no token"),
    ("spec.nodeName", "the node that reads the manifest; another name is told as a warning"),
    ("spec.preemptionPolicy", "for the scheduler"),
    ("spec.schedulerName", "for the scheduler"),
    ("spec.schedulingGroup", "for the scheduler"),
    (
        "spec.tolerations",
        "a static pod from a file tolerates every `NoExecute` taint; nothing is evicted for taints yet",
    ),
    ("spec.topologySpreadConstraints", "for the scheduler"),
];

/// Remarks on fields that are honoured.
pub static NOTES: &[(&str, &str)] = &[
    ("kind", "`Pod`; behind a URL also `PodList`"),
    ("metadata.labels", "with `kubernetes.io/os` of another system the pod fails"),
    ("metadata.name", "the node's name is put behind it"),
    ("metadata.namespace", "`default` if not given"),
    ("metadata.uid", "1 to 128 letters, digits, `-`, `_`, `.`; else a hash of the manifest"),
    ("spec.containers[].env[].value", "`$(NAME)` expanded over the variables before it"),
    ("spec.containers[].imagePullPolicy", "an image that is there is used without asking its registry"),
    (
        "spec.containers[].lifecycle.stopSignal",
        "needs containerd 2.3; tested on what the runtime is asked for alone",
    ),
    (
        "spec.containers[].livenessProbe.terminationGracePeriodSeconds",
        "also when the pod is removed meanwhile, where kubelet begins the pod's whole time anew",
    ),
    (
        "spec.containers[].ports[].hostPort",
        "the runtime's CNI plugins map it; of an init container it is not mapped, sidecar or not, as with kubelet",
    ),
    (
        "spec.containers[].resources.limits",
        "`cpu`, `memory`, `hugepages-*`; `ephemeral-storage` is not enforced yet; resources of device plugins \
         (`example.com/gpu`) are passed over with a warning, as by a kubelet without the plugin",
    ),
    (
        "spec.containers[].resources.requests",
        "`cpu` becomes shares; decides the QoS class; a pod that requests more than the pods before it have left \
         fails, as with kubelet, except that no running pod is ended for one of a higher priority: both run",
    ),
    (
        "spec.containers[].securityContext.appArmorProfile.type",
        "but for `Unconfined` the kernel must enforce AppArmor, else the pod fails; tested on what the runtime is \
         asked for alone",
    ),
    (
        "spec.containers[].securityContext.capabilities.add",
        "without `CAP_`: containerd adds nothing for a name that has it, which is told as a warning",
    ),
    (
        "spec.containers[].securityContext.procMount",
        "`Unmasked` needs `hostUsers: false`, and what that needs",
    ),
    (
        "spec.containers[].securityContext.seLinuxOptions.level",
        "without SELinux in the kernel of no effect; tested on what the runtime is asked for alone",
    ),
    (
        "spec.containers[].volumeMounts[].recursiveReadOnly",
        "`Enabled` needs containerd 2.0, runc 1.1 and Linux 5.12",
    ),
    (
        "spec.hostUsers",
        "`false` needs containerd 2.0, runc 1.2 or crun 1.13, and Linux 6.3; without them the pod is not started",
    ),
    (
        "spec.initContainers",
        "with `restartPolicy: Always` a sidecar; only a sidecar may have probes and hooks",
    ),
    (
        "spec.nodeSelector",
        "against the node's own labels and those of `--node-labels`; a pod that does not fit fails (`NodeAffinity`)",
    ),
    (
        "spec.enableServiceLinks",
        "the variables of services on a node of a cluster; a static pod has those of the services that are known when \
         its container starts",
    ),
    ("spec.os.name", "`linux` only"),
    (
        "spec.overhead",
        "that of the pod's runtime class where it has one; without a class as it stands, as with kubelet",
    ),
    (
        "spec.securityContext.fsGroupChangePolicy",
        "no volume that a static pod can have takes notice of it, as with kubelet",
    ),
    ("spec.securityContext.supplementalGroupsPolicy", "`Strict` needs containerd 2.0"),
    ("spec.terminationGracePeriodSeconds", "30 if not given"),
    ("spec.volumes[].image.reference", "needs containerd 2.1"),
];

/// Who a field without effect is for.
pub fn no_effect(path: &str) -> Option<&'static str> {
    find(NO_EFFECT, path)
}

/// The remark on a field.
pub fn note(path: &str) -> Option<&'static str> {
    find(NOTES, path)
}

fn find(list: &[(&str, &'static str)], path: &str) -> Option<&'static str> {
    list.iter().find(|(of, _)| *of == path).map(|(_, text)| *text)
}
