//! How long containers may take to stop.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use crate::api::{
    ContainerId, ContainerKind, ContainerState, ObservedContainer, PodExt, PodObservation, pod::init_kind,
};

/// Longer than anybody waits. A runtime reckons in nanoseconds, and kills at once when they overflow.
const MAX_GRACE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// The time a pod has to stop: what its deletion says, else its spec, else the default of 30 s; never under
/// one second, as kubelet has it (pkg/kubelet/pod_workers.go, `calculateEffectiveGracePeriod`).
pub fn pod_grace(pod: &Pod) -> Duration {
    let grace = match pod.metadata.deletion_grace_period_seconds {
        Some(seconds) => Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1)),
        None => pod.grace_period(),
    };
    grace.min(MAX_GRACE)
}

/// The time that a pod without a spec has to stop: what its containers' annotations say, else 30 s.
pub fn orphan_grace(observation: &PodObservation) -> Duration {
    observation
        .containers
        .iter()
        .find_map(|container| container.pod_grace_seconds)
        .map_or(Duration::from_secs(30), |s| Duration::from_secs(u64::try_from(s).unwrap_or(0).max(1)))
        .min(MAX_GRACE)
}

/// Whole seconds from now to the deadline, rounded up, for CRI's StopContainer; 0 kills at once.
pub fn remaining_seconds(deadline: Timestamp, now: Timestamp) -> i64 {
    let left = deadline.duration_since(now);
    if left <= SignedDuration::ZERO {
        return 0;
    }
    left.as_secs() + i64::from(left.subsec_nanos() > 0)
}

/// The containers that may be alive, in the order in which they are stopped: all but the sidecars at once,
/// then each sidecar, the last of the specification first. Without a specification the sidecars are known
/// by their annotation and go by age, the youngest first.
pub fn stop_order(pod: Option<&Pod>, observation: &PodObservation) -> Vec<Vec<ContainerId>> {
    let place = |container: &ObservedContainer| match pod {
        Some(pod) => pod
            .spec()
            .init_containers
            .iter()
            .flatten()
            .position(|c| c.name == *container.name && init_kind(c) == ContainerKind::Sidecar),
        None => container.sidecar.then_some(0),
    };
    let live = observation
        .containers
        .iter()
        .filter(|c| matches!(c.state, ContainerState::Running | ContainerState::Unknown));
    let (mut sidecars, others): (Vec<_>, Vec<_>) =
        live.map(|container| (place(container), container)).partition(|(place, _)| place.is_some());
    // Containers are listed youngest first, and the sort is stable.
    sidecars.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
    let first: Vec<_> = others.into_iter().map(|(_, container)| container.id.clone()).collect();
    let rest = sidecars.into_iter().map(|(_, container)| vec![container.id.clone()]);
    std::iter::once(first).filter(|group| !group.is_empty()).chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{container, exited, observed, pod, spec};

    #[test]
    fn sidecars_stop_last_and_in_reverse() {
        let mut p = pod(&["a", "b"]);
        let sidecar = |name: &str| k8s_openapi::api::core::v1::Container {
            restart_policy: Some("Always".into()),
            ..spec(name)
        };
        p.spec.as_mut().unwrap().init_containers = Some(vec![spec("init"), sidecar("s1"), sidecar("s2")]);
        let live = ["s1", "a", "s2", "b"].map(|name| container(name, "s"));
        let mut all = live.to_vec();
        all.push(exited("init", "s", 0, 1));
        let names = |groups: Vec<Vec<ContainerId>>| -> Vec<Vec<String>> {
            let name = |id: &ContainerId| id.as_str().split('-').nth(1).unwrap_or_default().to_owned();
            groups
                .iter()
                .map(|group| {
                    let mut names: Vec<_> = group.iter().map(name).collect();
                    names.sort();
                    names
                })
                .collect()
        };
        let o = observed(vec![], all);
        let expected = [vec!["a", "b"], vec!["s2"], vec!["s1"]];
        assert_eq!(names(stop_order(Some(&p), &o)), expected);
        assert_eq!(stop_order(Some(&p), &observed(vec![], vec![])), Vec::<Vec<ContainerId>>::new());

        let mut orphan = o;
        for (age, c) in orphan.containers.iter_mut().enumerate() {
            c.sidecar = c.name.starts_with('s');
            c.created_at = Timestamp::from_second(i64::try_from(age).unwrap()).unwrap();
        }
        let groups = names(stop_order(None, &orphan));
        assert_eq!(groups[0], ["a", "b"]);
        assert_eq!(groups.len(), 3);
    }

    #[test]
    fn deletion_overrides_the_spec() {
        let mut p = pod(&["a"]);
        assert_eq!(pod_grace(&p), Duration::from_secs(30));
        p.spec.as_mut().unwrap().termination_grace_period_seconds = Some(5);
        assert_eq!(pod_grace(&p), Duration::from_secs(5));
        p.spec.as_mut().unwrap().termination_grace_period_seconds = Some(i64::MAX);
        assert_eq!(pod_grace(&p), MAX_GRACE);
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
