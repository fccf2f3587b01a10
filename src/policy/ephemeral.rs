//! Which ephemeral containers have been started: each is once, and never again, whatever became of it.
//!
//! Kubelet goes by the runtime's record, and starts a container again whose record is gone. Here whoever knows of
//! one is believed: the runtime, the pod's status as the API server has it, the pod's checkpoint.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::api::{ContainerState, PodExt as _, PodObservation};

/// The names of the pod's ephemeral containers that were started at any time, those `known` before among them.
pub fn begun(pod: &Pod, seen: &PodObservation, known: &BTreeSet<String>) -> BTreeSet<String> {
    let told = pod.status.as_ref().and_then(|status| status.ephemeral_container_statuses.as_deref());
    let told = told.unwrap_or_default();
    let in_runtime = |name: &str| seen.latest(name).is_some_and(|c| c.state != ContainerState::Created);
    let names = pod.spec().ephemeral_containers.iter().flatten().map(|container| &container.name);
    names
        .filter(|name| {
            known.contains(*name) || in_runtime(name) || told.iter().any(|s| s.name == **name && has_run(s))
        })
        .cloned()
        .collect()
}

fn has_run(status: &ContainerStatus) -> bool {
    let states = [&status.state, &status.last_state];
    states.into_iter().flatten().any(|state| state.running.is_some() || state.terminated.is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::testing::{container, exited, observed, pod, sandbox};

    #[test]
    fn whoever_knows_of_a_start_is_believed() {
        let mut pod = pod(&["a"]);
        let names = ["told", "ended", "waits", "here", "made", "kept", "new"];
        let all = names.map(|name| json!({ "name": name }));
        pod.spec.as_mut().unwrap().ephemeral_containers = serde_json::from_value(json!(all)).unwrap();
        let status = |name: &str, state: serde_json::Value| json!({ "name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state });
        pod.status = serde_json::from_value(json!({ "ephemeralContainerStatuses": [
            status("told", json!({ "running": {} })),
            status("ended", json!({ "terminated": { "exitCode": 0 } })),
            status("waits", json!({ "waiting": { "reason": "ContainerCreating" } })),
        ]}))
        .unwrap();
        let mut made = container("made", "s");
        made.state = ContainerState::Created;
        let seen =
            observed(vec![sandbox("s", 0)], vec![exited("here", "s", 1, 5), container("a", "s"), made]);
        let known = ["kept".to_owned(), "gone".to_owned()].into();
        assert_eq!(begun(&pod, &seen, &known), ["told", "ended", "here", "kept"].map(str::to_owned).into());
    }
}
