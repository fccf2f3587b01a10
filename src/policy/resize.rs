//! Resources of a pod that runs, changed in place (KEP-1287): whether the node gives what is asked for now, what
//! that means for each container, and what is told of it. The rules are kubelet's (pkg/kubelet/allocation,
//! pkg/kubelet/kuberuntime `computePodResizeAction`).
//!
//! Three amounts are told apart. What is *wanted* stands in the specification. What is *allocated* is what the node
//! has given: the pod that is run has these amounts in its specification, so that all that is made from it, the
//! cgroups and the sums of what is left among them, goes by them. What a container *has* was allocated when it was
//! made, or is what the runtime was last told.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{
    api::core::v1::{Container, Pod, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as Text,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    fingerprints::resources_fingerprint,
    fit,
    node::NodeSettings,
    qos::{QosClass, qos_class},
    swap,
};
use crate::api::{
    ContainerId, ContainerKind, ContainerState, ObservedContainer, PodExt as _, PodObservation,
    pod::init_kind,
    pod_resources::{amount, amounts, pod_requests},
};

/// What may change in place.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// What a container has, where that is not what it was made with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Actuated {
    /// The container: another one of its name was made with what was allocated then.
    pub id: ContainerId,
    /// Its resources.
    pub resources: ResourceRequirements,
}

/// [`Actuated`] by container name.
pub type AllActuated = BTreeMap<String, Actuated>;

/// Why what is wanted is not allocated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Whether it may be when other pods go; else it never will.
    pub deferred: bool,
    /// In kubelet's words.
    pub message: String,
}

impl Pending {
    fn infeasible(message: impl Into<String>) -> Self {
        Self { deferred: false, message: message.into() }
    }

    /// The reason in condition and event.
    pub fn reason(&self) -> &'static str {
        if self.deferred { "Deferred" } else { "Infeasible" }
    }
}

/// Where a pod's resize is, for its status.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ResizeStatus {
    /// What is wanted and not allocated, and of which generation of the pod.
    pub pending: Option<(Pending, Option<i64>)>,
    /// What is allocated and not done: of which generation, and what went wrong last.
    pub in_progress: Option<(Option<i64>, Option<String>)>,
    /// What containers have where it is not what is allocated.
    pub actuated: AllActuated,
}

/// The containers whose resources may change while they run: all but the init containers that run to their end.
fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec();
    let sidecars = spec.init_containers.iter().flatten().filter(|c| init_kind(c) == ContainerKind::Sidecar);
    sidecars.chain(&spec.containers)
}

/// The containers that resources are allocated to: a change of an init container's is judged as any other, and is
/// what it has when it is started.
fn allocatable(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec();
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

fn side(of: Option<&ResourceRequirements>, requests: bool) -> Option<&BTreeMap<String, Text>> {
    of.and_then(|r| if requests { r.requests.as_ref() } else { r.limits.as_ref() })
}

/// The resources of [`RESIZABLE`] in which two differ.
fn changes(one: Option<&ResourceRequirements>, other: Option<&ResourceRequirements>) -> Vec<&'static str> {
    let differ = |name: &str, requests: bool| {
        let of = |r| amount(&amounts(side(r, requests)), name);
        of(one) != of(other)
    };
    RESIZABLE.into_iter().filter(|name| differ(name, true) || differ(name, false)).collect()
}

fn pod_level_differs(one: &Pod, other: &Pod) -> bool {
    !changes(one.spec().resources.as_ref(), other.spec().resources.as_ref()).is_empty()
}

/// Whether two states of a pod ask for other resources of what may change in place.
pub fn differs(one: &Pod, other: &Pod) -> bool {
    let changed = |own: &Container| {
        let theirs = allocatable(other).find(|c| c.name == own.name);
        theirs.is_some_and(|theirs| !changes(own.resources.as_ref(), theirs.resources.as_ref()).is_empty())
    };
    pod_level_differs(one, other) || allocatable(one).any(changed)
}

/// A pod as its source gives it again, with the resources that it was taken with: others are to be allocated first.
/// A static pod is what its manifest says.
pub fn keep_resources(taken: &Pod, again: Arc<Pod>) -> Arc<Pod> {
    if again.is_static() || !differs(taken, &again) {
        return again;
    }
    let mut kept = Pod::clone(&again);
    let Some(spec) = &mut kept.spec else { return again };
    spec.resources.clone_from(&taken.spec().resources);
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        if let Some(own) = allocatable(taken).find(|own| own.name == container.name) {
            container.resources.clone_from(&own.resources);
        }
    }
    Arc::new(kept)
}

/// The pod with what its containers have in place of what is allocated.
pub fn with_actuated(pod: &Pod, actuated: &AllActuated) -> Pod {
    let mut had = pod.clone();
    if let Some(spec) = &mut had.spec {
        for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
            if let Some(own) = actuated.get(&container.name) {
                container.resources = Some(own.resources.clone());
            }
        }
    }
    had
}

/// Whether a pod that runs may have what is wanted, beside the others.
///
/// # Errors
/// Why not, or not now.
pub fn judge(taken: &Pod, wanted: &Pod, others: &[Arc<Pod>], node: &NodeSettings) -> Result<(), Pending> {
    if !node.in_place_resize {
        return Err(Pending::infeasible("InPlacePodVerticalScaling is disabled"));
    }
    if wanted.is_static() {
        return Err(Pending::infeasible("In-place resize of static-pods is not supported"));
    }
    if resizes_swap(taken, wanted, node) {
        return Err(Pending::infeasible("In-place resize of containers with swap is not supported."));
    }
    if pod_level_differs(taken, wanted) {
        return Err(Pending::infeasible("InPlacePodLevelResourcesVerticalScaling is disabled"));
    }
    // The server sees to it; the pod's cgroup is in the class's and cannot move.
    if qos_class(taken) != qos_class(wanted) {
        return Err(Pending::infeasible("Pod QOS Class may not change as a result of resizing"));
    }
    if let Some((resource, requested, capacity)) = fit::beyond_capacity(wanted, node) {
        return Err(Pending::infeasible(format!(
            "Node didn't have enough capacity: {resource}, requested: {requested}, capacity: {capacity}"
        )));
    }
    match fit::shortage(wanted, others, node) {
        Some(message) => Err(Pending { deferred: true, message }),
        None => Ok(()),
    }
}

/// A container with swap keeps its memory request, by which its share of the swap is reckoned, unless a change of it
/// starts the container anew.
fn resizes_swap(taken: &Pod, wanted: &Pod, node: &NodeSettings) -> bool {
    resizable(wanted).any(|container| {
        let Some(own) = resizable(taken).find(|own| own.name == container.name) else { return false };
        let request = |c: &Container| amount(&amounts(side(c.resources.as_ref(), true)), "memory");
        let swaps = |pod: &Pod, c: &Container| swap::may_swap(pod, c, &node.resources);
        request(own) != request(container)
            && !restarts(own, "memory")
            && (swaps(wanted, container) || swaps(taken, own))
    })
}

/// Who goes first of those that wait for room: who asks for no more than it has, then by priority, then by class.
pub fn rank(taken: &Pod, wanted: &Pod) -> impl Ord + use<> {
    let (had, asked) = (pod_requests(taken.spec()), pod_requests(wanted.spec()));
    let more = RESIZABLE.into_iter().any(|name| amount(&asked, name) > amount(&had, name));
    let priority = wanted.spec().priority.unwrap_or(0);
    (more, std::cmp::Reverse(priority), qos_class(wanted) != QosClass::Guaranteed)
}

fn restarts(container: &Container, resource: &str) -> bool {
    let mut policies = container.resize_policy.iter().flatten();
    policies.any(|policy| policy.resource_name == resource && policy.restart_policy == "RestartContainer")
}

/// What is to be done so that the containers that run have what is allocated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResizePlan {
    /// Those to start anew.
    pub restart: BTreeSet<ContainerId>,
    /// Those to change while they run, by name: where memory becomes less first, since what it gives back is what
    /// others get.
    pub update: Vec<(String, ContainerId)>,
}

impl ResizePlan {
    /// Whether all containers have what is allocated.
    pub fn is_empty(&self) -> bool {
        self.restart.is_empty() && self.update.is_empty()
    }
}

/// What a running container has; `None` where nobody knows, which is not what is allocated.
fn has<'a>(
    container: &'a Container,
    seen: &ObservedContainer,
    actuated: &'a AllActuated,
) -> Option<Cow<'a, ResourceRequirements>> {
    if let Some(own) = actuated.get(&container.name).filter(|own| own.id == seen.id) {
        return Some(Cow::Borrowed(&own.resources));
    }
    let theirs = seen.fingerprint.as_ref();
    let made_otherwise =
        theirs.is_some_and(|theirs| !resources_fingerprint(container).changed_fields(theirs).is_empty());
    (!made_otherwise).then(|| container.resources.as_ref().map(Cow::Borrowed).unwrap_or_default())
}

fn running<'a>(
    pod: &'a Pod,
    seen: &'a PodObservation,
) -> impl Iterator<Item = (&'a Container, &'a ObservedContainer)> {
    resizable(pod).filter_map(|container| {
        let latest = seen.latest(&container.name).filter(|latest| latest.state == ContainerState::Running)?;
        Some((container, latest))
    })
}

/// Compares what the containers that run have with what is allocated.
pub fn plan(pod: &Pod, seen: &PodObservation, actuated: &AllActuated) -> ResizePlan {
    let mut plan = ResizePlan::default();
    let mut update = Vec::new();
    for (container, latest) in running(pod, seen) {
        let wanted = container.resources.as_ref();
        let own = has(container, latest, actuated);
        let changed = own.as_deref().map_or_else(Vec::new, |own| changes(Some(own), wanted));
        if changed.iter().any(|name| restarts(container, name)) {
            plan.restart.insert(latest.id.clone());
        } else if own.is_none() || !changed.is_empty() {
            let limit = |r| amount(&amounts(side(r, false)), "memory");
            let grows = own.as_deref().is_some_and(|own| limit(wanted) >= limit(Some(own)));
            update.push((grows, (container.name.clone(), latest.id.clone())));
        }
    }
    update.sort_by_key(|(grows, _)| *grows);
    plan.update = update.into_iter().map(|(_, one)| one).collect();
    plan
}

/// What the containers that run have, to be kept when something else is allocated.
pub fn actuated_now(pod: &Pod, seen: &PodObservation, actuated: &AllActuated) -> AllActuated {
    running(pod, seen)
        .filter_map(|(container, latest)| {
            let resources = has(container, latest, actuated)?.into_owned();
            Some((container.name.clone(), Actuated { id: latest.id.clone(), resources }))
        })
        .collect()
}

/// Forgets what containers have had that are not the latest of their name: another one was made with what was
/// allocated then.
pub fn forget_replaced(actuated: &mut AllActuated, seen: &PodObservation) {
    actuated.retain(|name, own| seen.latest(name).is_some_and(|latest| latest.id == own.id));
}

/// A container by name, of those whose resources may change.
pub fn container_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    resizable(pod).find(|container| container.name == name)
}

/// The bytes of memory that a container may have, where that is to become less than it had.
pub fn lower_memory_limit(container: &Container, actuated: &AllActuated) -> Option<u64> {
    let limit = |r: Option<&ResourceRequirements>| amount(&amounts(side(r, false)), "memory").value();
    let (had, wanted) = (
        actuated.get(&container.name).map_or(0, |own| limit(Some(&own.resources))),
        limit(container.resources.as_ref()),
    );
    (wanted > 0 && (had == 0 || wanted < had)).then(|| u64::try_from(wanted).unwrap_or(0))
}

/// What an event says of a resize: kubelet's words with the pod's resources as JSON behind them.
pub fn words(what: &str, pod: &Pod, generation: Option<i64>, error: Option<&str>) -> String {
    let of = |container: &Container| {
        let resources = container.resources.clone().unwrap_or_default();
        json!({ "name": container.name, "resources": resources })
    };
    let spec = pod.spec();
    let init: Vec<Value> = spec.init_containers.iter().flatten().map(of).collect();
    let regular: Vec<Value> = spec.containers.iter().map(of).collect();
    let mut all = Map::new();
    for (key, list) in [("initContainers", init), ("containers", regular)] {
        if !list.is_empty() {
            all.insert(key.to_owned(), Value::Array(list));
        }
    }
    all.insert("generation".to_owned(), json!(generation.unwrap_or(0)));
    if let Some(error) = error.filter(|error| !error.is_empty()) {
        all.insert("error".to_owned(), json!(error));
    }
    format!("Pod resize {what}: {}", Value::Object(all))
}

#[cfg(test)]
#[path = "resize_tests.rs"]
mod tests;
