//! How long containers may take to stop.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use crate::api::{PodExt, PodObservation};

/// The time a pod has to stop: what its deletion says, else its spec, else the default of 30 s; never under
/// one second, as kubelet has it (pkg/kubelet/pod_workers.go, `calculateEffectiveGracePeriod`).
pub fn pod_grace(pod: &Pod) -> Duration {
    match pod.metadata.deletion_grace_period_seconds {
        Some(seconds) => Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1)),
        None => pod.grace_period(),
    }
}

/// The time that a pod without a spec has to stop: what its containers' annotations say, else 30 s.
pub fn orphan_grace(observation: &PodObservation) -> Duration {
    observation
        .containers
        .iter()
        .find_map(|container| container.pod_grace_seconds)
        .map_or(Duration::from_secs(30), |s| Duration::from_secs(u64::try_from(s).unwrap_or(0).max(1)))
}

/// Whole seconds from now to the deadline, rounded up, for CRI's StopContainer; 0 kills at once.
pub fn remaining_seconds(deadline: Timestamp, now: Timestamp) -> i64 {
    let left = deadline.duration_since(now);
    if left <= SignedDuration::ZERO {
        return 0;
    }
    left.as_secs() + i64::from(left.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{container, observed, pod};

    #[test]
    fn deletion_overrides_the_spec() {
        let mut p = pod(&["a"]);
        assert_eq!(pod_grace(&p), Duration::from_secs(30));
        p.spec.as_mut().unwrap().termination_grace_period_seconds = Some(5);
        assert_eq!(pod_grace(&p), Duration::from_secs(5));
        p.metadata.deletion_grace_period_seconds = Some(0);
        assert_eq!(pod_grace(&p), Duration::from_secs(1));
    }

    #[test]
    fn an_orphan_stops_by_its_annotation() {
        let mut c = container("a", "s");
        assert_eq!(orphan_grace(&observed(vec![], vec![c.clone()])), Duration::from_secs(30));
        c.pod_grace_seconds = Some(7);
        assert_eq!(orphan_grace(&observed(vec![], vec![c])), Duration::from_secs(7));
    }

    #[test]
    fn seconds_left_round_up_and_never_go_below_zero() {
        let t = |ms| Timestamp::from_millisecond(ms).unwrap();
        assert_eq!(remaining_seconds(t(10_000), t(8_999)), 2);
        assert_eq!(remaining_seconds(t(10_000), t(9_000)), 1);
        assert_eq!(remaining_seconds(t(10_000), t(10_000)), 0);
        assert_eq!(remaining_seconds(t(10_000), t(90_000)), 0);
    }
}
