//! Which pods give way to a critical one that does not fit: kubelet's choice (pkg/kubelet/preemption), and of it no
//! more than it takes.
//!
//! Of the classes the Guaranteed pods are spared first, then the Burstable ones. Within a class the pods are taken
//! whose requests come nearest to what is missing, which takes few of them; of those alike the one that requests
//! less. That may take more than is needed, when a later pod alone makes up for earlier ones: those are let go
//! again, which kubelet does not do.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::{
    qos::{QosClass, qos_class},
    resources::is_critical,
};
use crate::api::{
    PodExt as _,
    pod_resources::{Amounts, pod_requests_with_overhead},
    quantity::Quantity,
};

/// The resource of which every pod takes one.
pub(super) const PODS: &str = "pods";

/// An amount of a resource, CPU in thousandths, all else in whole units.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Which.
    pub resource: String,
    /// How much.
    pub amount: i64,
}

/// Whether a running pod may be ended for another: a pod for a critical one, and of two with a priority the lower.
/// A static pod never is: nobody starts it elsewhere, and here it would come back only with another manifest.
pub(super) fn gives_way(other: &Pod, to: &Pod) -> bool {
    !other.is_static() && is_lower(other, to)
}

/// Whether a pod counts less than another.
pub(super) fn is_lower(other: &Pod, to: &Pod) -> bool {
    let priority = |pod: &Pod| pod.spec().priority;
    (is_critical(to) && !is_critical(other))
        || priority(to).zip(priority(other)).is_some_and(|(to, other)| to > other)
}

/// As the scheduler counts: thousandths of CPUs, whole units of all else, rounded up.
pub(super) fn counted(name: &str, amount: Quantity) -> i64 {
    if name == "cpu" { amount.milli_value() } else { amount.value() }
}

/// How much of a resource requests ask for.
pub(super) fn amount(requests: &Amounts, name: &str) -> i64 {
    requests.get(name).map_or(0, |amount| counted(name, *amount))
}

struct Candidate<'a> {
    pod: &'a Arc<Pod>,
    requests: Amounts,
    class: QosClass,
}

impl Candidate<'_> {
    fn frees(&self, resource: &str) -> i64 {
        if resource == PODS { 1 } else { amount(&self.requests, resource) }
    }

    /// Memory counts before CPU; the name makes the choice one.
    fn size(&self) -> (i64, i64, String) {
        (self.frees("memory"), self.frees("cpu"), self.pod.uid().to_string())
    }
}

/// What is still missing when these are gone.
fn left(missing: &[Missing], gone: &[&Candidate<'_>]) -> Vec<Missing> {
    let still = |one: &Missing| {
        let freed = gone.iter().map(|gone| gone.frees(&one.resource));
        let amount = freed.fold(one.amount, i64::saturating_sub);
        (amount > 0).then(|| Missing { resource: one.resource.clone(), amount })
    };
    missing.iter().filter_map(still).collect()
}

/// The pods to end so that this much comes free, none where nothing is missing. `others` are those that are there.
///
/// # Errors
/// What is missing still when all that may be ended are.
pub fn victims(pod: &Pod, others: &[Arc<Pod>], missing: &[Missing]) -> Result<Vec<Arc<Pod>>, Vec<Missing>> {
    let candidates: Vec<Candidate<'_>> = others
        .iter()
        .filter(|other| gives_way(other, pod))
        .map(|pod| Candidate { pod, requests: pod_requests_with_overhead(pod.spec()), class: qos_class(pod) })
        .collect();
    let unmet = left(missing, &candidates.iter().collect::<Vec<_>>());
    if !unmet.is_empty() {
        return Err(unmet);
    }
    let of = |class: QosClass| candidates.iter().filter(move |c| c.class == class).collect::<Vec<_>>();
    let (best_effort, burstable) = (of(QosClass::BestEffort), of(QosClass::Burstable));
    // Of a class what all classes below it would not make up for.
    let below = || best_effort.iter().chain(&burstable).copied();
    let guaranteed = nearest(of(QosClass::Guaranteed), left(missing, &below().collect::<Vec<_>>()));
    let rest = left(missing, &best_effort.iter().chain(&guaranteed).copied().collect::<Vec<_>>());
    let burstable = nearest(burstable, rest);
    let taken: Vec<_> = guaranteed.into_iter().chain(burstable).collect();
    let mut chosen = taken.clone();
    chosen.extend(nearest(best_effort, left(missing, &taken)));
    // The best class first: it is spared first.
    let mut place = 0;
    while place < chosen.len() {
        let others = chosen.iter().enumerate().filter(|(at, _)| *at != place).map(|(_, c)| *c);
        if left(missing, &others.collect::<Vec<_>>()).is_empty() {
            chosen.remove(place);
        } else {
            place += 1;
        }
    }
    Ok(chosen.into_iter().map(|candidate| Arc::clone(candidate.pod)).collect())
}

/// Takes pods until nothing is missing or none is left, each the one that comes nearest to what is missing then.
fn nearest<'a>(mut pods: Vec<&'a Candidate<'a>>, mut missing: Vec<Missing>) -> Vec<&'a Candidate<'a>> {
    let mut taken = Vec::new();
    while !missing.is_empty() {
        let best = (0..pods.len()).min_by(|a, b| {
            let (a, b) = (pods[*a], pods[*b]);
            distance(&missing, a).total_cmp(&distance(&missing, b)).then_with(|| a.size().cmp(&b.size()))
        });
        let Some(best) = best.map(|place| pods.remove(place)) else { break };
        missing = left(&missing, &[best]);
        taken.push(best);
    }
    taken
}

/// How far a pod is from making up for what is missing: each resource counts by the part that stays missing.
#[allow(clippy::cast_precision_loss, reason = "a measure to compare by")]
fn distance(missing: &[Missing], pod: &Candidate<'_>) -> f64 {
    let part = |one: &Missing| {
        let left = one.amount.saturating_sub(pod.frees(&one.resource)).max(0);
        (left as f64 / one.amount as f64).powi(2)
    };
    missing.iter().map(part).sum()
}

#[cfg(test)]
#[path = "preemption_tests.rs"]
mod tests;
