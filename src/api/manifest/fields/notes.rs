//! What there is to say of a field beyond its verdict, for `docs/pod-spec.md`. Paths have `[]` for
//! every element of a list or map; each must be a row of the page.

/// Fields that are rightly done nothing about on a node, with all below them, and who they are for.
pub static NO_EFFECT: &[(&str, &str)] = &[
    ("metadata.creationTimestamp", "set by an API server; removed"),
    ("metadata.generation", "set by an API server; removed"),
    ("metadata.managedFields", "set by an API server; removed"),
    ("metadata.resourceVersion", "set by an API server; removed"),
    ("metadata.selfLink", "set by an API server; removed"),
    ("spec.affinity", "for the scheduler: a static pod runs on the node that reads it"),
    ("spec.automountServiceAccountToken", "a static pod has no service account, and so no token"),
    ("spec.enableServiceLinks", "services are known from an API server only"),
    ("spec.nodeName", "the node that reads the manifest; another name is told as a warning"),
    ("spec.nodeSelector", "for the scheduler"),
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
    ("metadata.name", "the node's name is put behind it"),
    ("metadata.namespace", "`default` if not given"),
    ("metadata.uid", "1 to 128 letters, digits, `-`, `_`, `.`; else a hash of the manifest"),
    ("spec.containers[].env[].value", "`$(NAME)` expanded over the variables before it"),
    ("spec.containers[].imagePullPolicy", "without `imagePullSecrets`"),
    ("spec.containers[].ports[].hostPort", "the runtime's CNI plugins map it"),
    (
        "spec.containers[].resources.limits",
        "`cpu`, `memory`, `hugepages-*`; `ephemeral-storage` is not enforced yet",
    ),
    ("spec.containers[].resources.requests", "`cpu` becomes shares; decides the QoS class"),
    (
        "spec.initContainers",
        "with `restartPolicy: Always` a sidecar; only a sidecar may have probes and hooks",
    ),
    ("spec.os.name", "`linux` only"),
    (
        "spec.securityContext.fsGroupChangePolicy",
        "no volume that a static pod can have takes notice of it, as with kubelet",
    ),
    ("spec.terminationGracePeriodSeconds", "30 if not given"),
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
