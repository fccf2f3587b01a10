//! How long a pod takes to start, as Kubernetes' pod start-up latency counts it
//! (kubelet's `kubelet_pod_start_sli_duration_seconds`).

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::PodStatus;

/// A time from and to.
pub type Span = (Timestamp, Timestamp);

/// Whether all the pod's containers are told to run. One that has ended already keeps the pod from being counted, as
/// with kubelet.
#[must_use]
pub fn all_run(status: &PodStatus) -> bool {
    let mut containers = status.container_statuses.iter().flatten().peekable();
    containers.peek().is_some()
        && containers.all(|container| container.state.as_ref().is_some_and(|state| state.running.is_some()))
}

/// When init containers ran that have ended.
pub fn init_runs(status: &PodStatus) -> impl Iterator<Item = Span> {
    status.init_container_statuses.iter().flatten().filter_map(|container| {
        let ended = container.state.as_ref()?.terminated.as_ref()?;
        Some((ended.started_at.as_ref()?.0, ended.finished_at.as_ref()?.0))
    })
}

/// How much time the spans cover together; what is in several counts once.
#[must_use]
pub fn covered(mut spans: Vec<Span>) -> SignedDuration {
    spans.sort_unstable();
    let mut until = Timestamp::MIN;
    let mut all = SignedDuration::ZERO;
    for (from, to) in spans {
        let from = from.max(until);
        if to > from {
            all = all.saturating_add(to.duration_since(from));
            until = to;
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(json: serde_json::Value) -> PodStatus {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_pod_has_started_when_each_of_its_containers_runs() {
        let running = serde_json::json!({"state": {"running": {"startedAt": "2026-01-01T00:00:05Z"}}});
        let waiting = serde_json::json!({"state": {"waiting": {"reason": "ContainerCreating"}}});
        let of = |states: &[&serde_json::Value]| {
            let all: Vec<_> = states
                .iter()
                .map(|state| {
                    let mut one = (*state).clone();
                    for (key, value) in serde_json::json!({"name": "a", "image": "i", "imageID": "i", "ready": true, "restartCount": 0})
                        .as_object()
                        .unwrap()
                    {
                        one[key] = value.clone();
                    }
                    one
                })
                .collect();
            status(serde_json::json!({ "containerStatuses": all }))
        };
        assert!(all_run(&of(&[&running, &running])));
        assert!(!all_run(&of(&[&running, &waiting])));
        assert!(!all_run(&of(&[])));
    }

    #[test]
    fn time_that_is_in_two_spans_counts_once() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let covered = |spans: &[(i64, i64)]| {
            covered(spans.iter().map(|(from, to)| (at(*from), at(*to))).collect()).as_secs()
        };
        assert_eq!(covered(&[]), 0);
        assert_eq!(covered(&[(10, 15)]), 5);
        assert_eq!(covered(&[(20, 22), (10, 15), (12, 17), (13, 14)]), 9);
        // A clock that was set back.
        assert_eq!(covered(&[(15, 10)]), 0);
    }

    #[test]
    fn an_init_container_counts_from_its_start_to_its_end() {
        let status = status(serde_json::json!({ "initContainerStatuses": [
            {"name": "a", "image": "i", "imageID": "i", "ready": true, "restartCount": 0,
             "state": {"terminated": {"exitCode": 0, "startedAt": "2026-01-01T00:00:05Z", "finishedAt": "2026-01-01T00:00:08Z"}}},
            {"name": "sidecar", "image": "i", "imageID": "i", "ready": true, "restartCount": 0,
             "state": {"running": {"startedAt": "2026-01-01T00:00:08Z"}}},
        ]}));
        assert_eq!(covered(init_runs(&status).collect()).as_secs(), 3);
    }
}
