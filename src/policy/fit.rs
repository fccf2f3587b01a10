//! Whether what a pod requests is still there on the node, beside what the pods already taken request. The
//! rules are the scheduler's, which kubelet asks again when it takes a pod
//! (pkg/scheduler/framework/plugins/noderesources/fit.go, pkg/kubelet/lifecycle/predicate.go).
//!
//! A critical pod that does not fit has pods of the API server end that count less ([`super::preemption`]), and is
//! refused where those do not hold enough. To kubelet every static pod is critical too, and gives way to one of a
//! higher priority. Here no static pod is ever ended for another: where that would make room, the new one is taken
//! beside it.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::Pod;

use super::{
    admission::AdmissionInput,
    node::NodeSettings,
    preemption::{Missing, PODS, amount, counted, is_lower, victims},
    resources::is_critical,
    status::PodFailure,
};
use crate::api::{
    PodExt as _,
    cgroup::hugepage_size_name,
    pod_resources::{Amounts, is_extended, pod_requests_with_overhead},
};

/// How much of each resource pods may request together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeRoom {
    /// The most pods; `None` is no bound.
    pub pods: Option<u32>,
    /// Amounts by resource name: CPU in thousandths, all else in whole units. Of the resources of
    /// [`OPTIONAL`], one that is not here is not counted; of any other, there is none.
    pub amounts: BTreeMap<String, i64>,
}

/// Resources that every machine has; absent where the machine did not tell how much.
const OPTIONAL: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

impl NodeRoom {
    /// Adds the memory that is set aside for huge pages, by the bytes of a page.
    pub fn add_hugepages(&mut self, bytes: &BTreeMap<u64, u64>) {
        for (size, amount) in bytes {
            // `2MB` is `2Mi` to the API.
            let name = format!("hugepages-{}i", hugepage_size_name(*size).trim_end_matches('B'));
            self.amounts.insert(name, i64::try_from(*amount).unwrap_or(i64::MAX));
        }
    }

    /// How much there is of it; `None` where it is not counted.
    fn of(&self, name: &str) -> Option<i64> {
        match self.amounts.get(name) {
            Some(amount) => Some(*amount),
            // A resource of a device plugin that the node has not: kubelet lets it pass too.
            None if OPTIONAL.contains(&name) || is_extended(name) => None,
            None => Some(0),
        }
    }
}

/// A resource of which there is too little.
struct Shortage {
    resource: String,
    requested: i64,
    used: i64,
    capacity: i64,
}

impl Shortage {
    /// How much is missing.
    fn missing(&self) -> i64 {
        self.requested.saturating_sub(self.capacity.saturating_sub(self.used))
    }

    /// In the words of kubelet.
    fn message(&self) -> String {
        let Self { resource, requested, used, capacity } = self;
        format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, \
             capacity: {capacity}"
        )
    }
}

fn shortages(input: &AdmissionInput<'_>) -> Vec<Shortage> {
    let others: Vec<Amounts> =
        input.others.iter().map(|pod| pod_requests_with_overhead(pod.spec())).collect();
    let room = &input.node.room;
    let mut found = Vec::new();
    let mut look = |resource: &str, requested: i64, used: i64, capacity: i64| {
        let shortage = Shortage { resource: resource.to_owned(), requested, used, capacity };
        if requested > 0 && shortage.missing() > 0 {
            found.push(shortage);
        }
    };
    if let Some(most) = room.pods {
        look(PODS, 1, i64::try_from(others.len()).unwrap_or(i64::MAX), most.into());
    }
    for (name, requested) in pod_requests_with_overhead(input.pod.spec()) {
        let Some(capacity) = room.of(&name) else { continue };
        let used = others.iter().fold(0_i64, |sum, other| sum.saturating_add(amount(other, &name)));
        look(&name, counted(&name, requested), used, capacity);
    }
    found
}

/// What a pod requests of CPU or memory beyond all that the node has for pods: which, how much, of how much.
pub(super) fn beyond_capacity(pod: &Pod, node: &NodeSettings) -> Option<(&'static str, i64, i64)> {
    let requests = pod_requests_with_overhead(pod.spec());
    ["memory", "cpu"].into_iter().find_map(|name| {
        let (requested, capacity) = (amount(&requests, name), node.room.of(name)?);
        (requested > capacity).then_some((name, requested, capacity))
    })
}

/// What is short when a pod is beside these others, in kubelet's words.
pub(super) fn shortage(pod: &Pod, others: &[Arc<Pod>], node: &NodeSettings) -> Option<String> {
    let found = shortages(&AdmissionInput { pod, others, node, server_node: None });
    found.first().map(Shortage::message)
}

/// Refuses a pod that requests more than there is left, unless it is a critical one and pods that count less may end
/// for it. Answers which.
pub(super) fn check(input: &AdmissionInput<'_>) -> Result<Vec<Arc<Pod>>, PodFailure> {
    let found = shortages(input);
    let Some(first) = found.first() else { return Ok(Vec::new()) };
    if !is_critical(input.pod) {
        return Err(PodFailure { reason: format!("OutOf{}", first.resource), message: first.message() });
    }
    let lower_statics = input.others.iter().filter(|other| other.is_static() && is_lower(other, input.pod));
    let beside: Vec<Amounts> = lower_statics.map(|pod| pod_requests_with_overhead(pod.spec())).collect();
    let missing: Vec<Missing> = found
        .iter()
        .filter_map(|shortage| {
            let held = if shortage.resource == PODS {
                i64::try_from(beside.len()).unwrap_or(i64::MAX)
            } else {
                beside.iter().fold(0_i64, |sum, one| sum.saturating_add(amount(one, &shortage.resource)))
            };
            let amount = shortage.missing().saturating_sub(held);
            (amount > 0).then(|| Missing { resource: shortage.resource.clone(), amount })
        })
        .collect();
    victims(input.pod, input.others, &missing).map_err(|unmet| {
        let unmet: Vec<String> =
            unmet.iter().map(|one| format!("(res: {}, q: {}), ", one.resource, one.amount)).collect();
        let told: Vec<String> = found.iter().map(Shortage::message).collect();
        PodFailure {
            reason: "UnexpectedAdmissionError".to_owned(),
            message: format!(
                "Unexpected error while attempting to recover from admission failure: preemption: error finding \
                 a set of pods to preempt: no set of running pods found to reclaim resources: [{}]: {}",
                unmet.concat(),
                told.join("; ")
            ),
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        api::labels,
        policy::{admission::admit, testing},
    };

    fn pod(requests: &Value, priority: Option<i32>) -> Pod {
        let mut pod = testing::pod(&["a"]);
        let spec = pod.spec.as_mut().unwrap();
        spec.priority = priority;
        spec.containers[0].resources = Some(serde_json::from_value(json!({"requests": requests})).unwrap());
        pod
    }

    fn of_a_manifest(mut pod: Pod) -> Pod {
        pod.metadata.annotations = Some([(labels::CONFIG_SOURCE.to_owned(), "file".to_owned())].into());
        assert!(pod.is_static());
        pod
    }

    fn node(pods: u32) -> NodeSettings {
        let mut room = NodeRoom {
            pods: Some(pods),
            amounts: [("cpu", 1000), ("memory", 1 << 30)].map(|(name, n)| (name.to_owned(), n)).into(),
        };
        room.add_hugepages(&[(2 << 20, 8 << 20)].into());
        NodeSettings { room, ..testing::node() }
    }

    fn verdict(pod: &Pod, others: &[Pod], node: &NodeSettings) -> Result<(), (String, String)> {
        let others: Vec<_> = others.iter().cloned().map(Arc::new).collect();
        let verdict = admit(&AdmissionInput { pod, others: &others, node, server_node: None });
        verdict.map(|victims| assert!(victims.is_empty())).map_err(|f| (f.reason, f.message))
    }

    #[test]
    fn what_is_left_is_what_others_did_not_ask_for() {
        let half = pod(&json!({"cpu": "500m", "memory": "512Mi"}), None);
        for (asked, reason) in [
            (json!({"cpu": "500m", "memory": "512Mi"}), None),
            (json!({"cpu": "501m"}), Some("OutOfcpu")),
            (json!({"memory": "513Mi"}), Some("OutOfmemory")),
            (json!({"cpu": "0", "memory": "0"}), None),
            (json!({}), None),
            (json!({"hugepages-2Mi": "8Mi"}), None),
            (json!({"hugepages-2Mi": "10Mi"}), Some("OutOfhugepages-2Mi")),
            (json!({"hugepages-1Gi": "1Gi"}), Some("OutOfhugepages-1Gi")),
            (json!({"hugepages-1Gi": "0"}), None),
            // The node did not tell of its disk.
            (json!({"ephemeral-storage": "100Gi"}), None),
            // No plugin told of such devices.
            (json!({"example.com/gpu": "4"}), None),
        ] {
            let found = verdict(&pod(&asked, None), std::slice::from_ref(&half), &node(9));
            assert_eq!(found.as_ref().err().map(|(reason, _)| reason.as_str()), reason, "{asked}: {found:?}");
        }
        let (_, message) =
            verdict(&pod(&json!({"cpu": "600m"}), None), std::slice::from_ref(&half), &node(9)).unwrap_err();
        assert_eq!(
            message,
            "Node didn't have enough resource: cpu, requested: 600, used: 500, capacity: 1000"
        );
    }

    #[test]
    fn the_overhead_counts_and_so_does_the_number_of_pods() {
        let mut heavy = pod(&json!({"cpu": "500m"}), None);
        heavy.spec.as_mut().unwrap().overhead = serde_json::from_value(json!({"cpu": "501m"})).unwrap();
        assert_eq!(verdict(&heavy, &[], &node(9)).unwrap_err().0, "OutOfcpu");
        let light = pod(&json!({}), None);
        assert_eq!(verdict(&light, std::slice::from_ref(&light), &node(2)), Ok(()));
        let (reason, message) = verdict(&light, &[light.clone(), light.clone()], &node(2)).unwrap_err();
        assert_eq!(reason, "OutOfpods");
        assert_eq!(message, "Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2");
    }

    #[test]
    fn a_static_pod_is_refused_in_kubelets_words_unless_lower_ones_hold_enough() {
        let critical = |priority| of_a_manifest(pod(&json!({"cpu": "800m"}), priority));
        let holder = |priority| of_a_manifest(pod(&json!({"cpu": "900m"}), priority));
        let (reason, message) = verdict(&critical(None), &[holder(None)], &node(9)).unwrap_err();
        assert_eq!(reason, "UnexpectedAdmissionError");
        assert!(
            message.contains("no set of running pods found to reclaim resources: [(res: cpu, q: 700), ]")
        );
        assert!(message.contains("cpu, requested: 800, used: 900, capacity: 1000"), "{message}");
        for (ours, theirs, taken) in [
            (Some(2), Some(1), true),
            (Some(1), Some(1), false),
            (Some(1), Some(2), false),
            (Some(2), None, false),
        ] {
            let found = verdict(&critical(ours), &[holder(theirs)], &node(9));
            assert_eq!(found.is_ok(), taken, "{ours:?} beside {theirs:?}: {found:?}");
        }
        // More than the node has is refused whoever runs.
        let huge = of_a_manifest(pod(&json!({"cpu": "2"}), Some(2)));
        assert!(verdict(&huge, &[holder(Some(1))], &node(9)).is_err());
    }

    #[test]
    fn a_critical_pod_has_others_end_and_takes_what_static_ones_hold_as_free() {
        let victims = |pod: &Pod, others: &[&Pod]| {
            let others: Vec<_> = others.iter().map(|other| Arc::new(Pod::clone(other))).collect();
            let input = AdmissionInput { pod, others: &others, node: &node(9), server_node: None };
            admit(&input).map(|victims| victims.len()).map_err(|failure| failure.reason)
        };
        let other = pod(&json!({"cpu": "900m"}), Some(1000));
        let static_one = of_a_manifest(pod(&json!({"cpu": "800m"}), Some(2_000_001_000)));
        let of_api = pod(&json!({"cpu": "800m"}), Some(2_000_000_000));
        assert_eq!(victims(&static_one, &[&other]), Ok(1));
        assert_eq!(victims(&of_api, &[&other]), Ok(1));
        let lower = of_a_manifest(pod(&json!({"cpu": "700m"}), Some(5)));
        let half = pod(&json!({"cpu": "100m"}), None);
        assert_eq!(victims(&of_api, &[&lower, &half]), Ok(0), "the static one holds enough by itself");
        assert_eq!(victims(&of_api, &[&static_one]), Err("UnexpectedAdmissionError".to_owned()));
        // Not for a pod that is refused for something else as well.
        let mut elsewhere = of_api;
        elsewhere.spec.as_mut().unwrap().node_selector = Some([("a".to_owned(), "b".to_owned())].into());
        assert_eq!(victims(&elsewhere, &[&other]), Err("NodeAffinity".to_owned()));
    }

    proptest! {
        /// Pods that are taken never request more together than there is, unless some of a lower priority
        /// are beside.
        #[test]
        fn no_more_is_taken_than_there_is(asked in prop::collection::vec(0u32..700, 1..12)) {
            let node = node(8);
            let mut taken: Vec<Pod> = Vec::new();
            let mut sum = 0;
            for cpu in asked {
                let next = of_a_manifest(pod(&json!({"cpu": format!("{cpu}m")}), Some(1)));
                let fits = taken.len() < 8 && (cpu == 0 || sum + cpu <= 1000);
                prop_assert_eq!(verdict(&next, &taken, &node).is_ok(), fits);
                if fits {
                    sum += cpu;
                    taken.push(next);
                }
            }
        }
    }
}
