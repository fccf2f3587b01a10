//! Manifests as JSON values, which tests take apart and change.

use serde_json::{Value, json};

/// The image that every private containerd holds.
pub(crate) const IMAGE: &str = "localhost/nodectl/busybox:1";
/// A script that runs until it is asked to end. (Process 1 of a container ignores what it does not trap.)
pub(crate) const STAY: &str = "trap 'exit 0' TERM; while :; do sleep 1000 & wait $!; done";
/// A script that cannot be asked to end.
pub(crate) const STUBBORN: &str = "trap '' TERM; while :; do sleep 1000; done";

/// A script whose child takes more memory than it may have, and that ends as it. Were it the container's first
/// process that is killed, a runtime on a busy node might hear of its end before it hears of the reason.
pub(crate) const GREEDY: &str = "(x=aaaaaaaa; while :; do x=$x$x; done); code=$?; sleep 5; exit $code";

/// For the configuration of a node of a cluster: the disk of a machine that tests run on may be fuller than a node's
/// should be, and its memory too, which is told and changes what is run there.
pub(crate) const ROOMY: &str = "evictionHard: {memory.available: 1Mi, nodefs.available: 1Mi}\n";

/// A container that runs a shell script.
pub(crate) fn container(name: &str, script: &str) -> Value {
    json!({
        "name": name,
        "image": IMAGE,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", script],
    })
}

/// A pod with these containers and a grace period of one second.
pub(crate) fn pod_of(name: &str, containers: &[Value]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": containers},
    })
}

/// A pod with one container, `main`, that runs a script.
pub(crate) fn pod(name: &str, script: &str) -> Value {
    pod_of(name, &[container("main", script)])
}

/// The same with a restart policy.
pub(crate) fn pod_with_policy(name: &str, policy: &str, script: &str) -> Value {
    let mut pod = pod(name, script);
    pod["spec"]["restartPolicy"] = json!(policy);
    pod
}
