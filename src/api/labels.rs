//! The labels and annotations by which kubelet marks what it makes in a runtime. `crictl`, log collectors
//! and metrics agents read them, and so does an agent that takes over a node's running pods, so the names
//! are kubelet's (pkg/kubelet/kuberuntime/labels.go and k8s.io/kubelet/pkg/types). Ours stand under
//! `nodectl.dev/`.

/// Pod name, on sandboxes and containers.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// Pod namespace, on sandboxes and containers.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// Pod UID, on sandboxes and containers.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// Container name, on containers.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// Hash over the container's name and image, lower-case hex.
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
/// How often the container was started again, decimal.
pub const CONTAINER_RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// The container's termination message path.
pub const CONTAINER_TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// The container's termination message policy.
pub const CONTAINER_TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// The container's ports as a JSON list of v1 ContainerPort.
pub const CONTAINER_PORTS: &str = "io.kubernetes.container.ports";
/// The pod's termination grace period in seconds, decimal; read when the spec is gone.
pub const POD_TERMINATION_GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";
/// The grace period of the pod's deletion in seconds, decimal, where the pod is being deleted.
pub const POD_DELETION_GRACE_PERIOD: &str = "io.kubernetes.pod.deletionGracePeriod";

/// Static pods: the source that named the pod (`file`, `http`, `api`).
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// Static pods: the UID; the mark by which a mirror pod is matched to its manifest.
pub const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Static pods: when the agent first saw the pod. No part of what the pod is.
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";
/// Marks an API object that mirrors a static pod; never stands on the static pod itself.
pub const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";

/// Ours: hashes of the container's fields by name, see [`crate::api::fingerprint`].
pub const CONTAINER_FINGERPRINT: &str = "nodectl.dev/container-fields";
/// Ours: hashes of the sandbox's fields by name, see [`crate::api::fingerprint`].
pub const SANDBOX_FINGERPRINT: &str = "nodectl.dev/sandbox-fields";
/// Ours: how long to wait after this container's end before it is started again, in whole seconds. It
/// stands on the container, so that a restart of the agent forgets no crash loop.
pub const RESTART_DELAY: &str = "nodectl.dev/restart-delay-seconds";
/// Ours: on a sidecar, the marker `true`: its place in the termination order is known when the spec is gone.
pub const SIDECAR: &str = "nodectl.dev/sidecar";
