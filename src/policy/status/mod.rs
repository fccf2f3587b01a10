//! A pod's v1 status, as a function of its specification and of what was observed.
//!
//! The rules are kubelet's (`pkg/kubelet/kubelet_pods.go`, `pkg/kubelet/status`): [`containers`] turns what
//! the runtime holds into container statuses, [`phase`] sums them up, [`conditions`] judges them. Kubelet's
//! version leans on what it remembers and gives another answer when asked a second time in some corners;
//! here the answer, fed back as `previous`, comes out again unchanged. That keeps the status writer quiet
//! while nothing happens, and it lets a restarted agent, which remembers nothing, report the same pod with
//! the same times as far as the runtime's own records tell them.

mod conditions;
mod containers;
mod merge;
#[cfg(test)]
mod merge_tests;
mod phase;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};

pub use merge::{dropped, is_ours, merge_status, our_part, status_patch, was_sent, without};
pub use phase::PodPhase;

use super::{
    qos::qos_class,
    resize::ResizeStatus,
    restart::{RestartDecision, may_restart_all, should_restart},
};
use crate::api::{ContainerState, PodExt, PodObservation, SandboxState};

/// The reason of a pod that ends for a critical one, and of the event that tells it.
pub const PREEMPTING: &str = "Preempting";
/// What is said of it, in kubelet's words.
pub const PREEMPTED: &str = "Preempted in order to admit critical pod";

/// Why a container waits, in the executor's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingReason {
    /// A CamelCase reason: `ErrImagePull`, `ImagePullBackOff`, `CreateContainerError`, `CrashLoopBackOff`, …
    pub reason: String,
    /// The cause in words; may be empty.
    pub message: String,
}

/// Why a pod as a whole has failed, whatever its containers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFailure {
    /// A CamelCase reason: `Evicted`, `DeadlineExceeded`, `OutOfcpu`, …
    pub reason: String,
    /// The cause in words; may be empty.
    pub message: String,
}

/// What probes and hooks say of a running container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeState {
    /// Its postStart hook is done and its startup probe has passed, where it has them.
    pub started: bool,
    /// Its readiness probe passes, where it has one. Nothing is ready that has not started.
    pub ready: bool,
}

/// All that a pod's status depends on.
#[derive(Debug, Clone, Copy)]
pub struct StatusInput<'a> {
    /// The pod as wanted. The status of a pod from the API server counts too: its terminal phase binds, and
    /// the conditions in it that others own are kept.
    pub pod: &'a Pod,
    /// What the runtime holds of it.
    pub observation: &'a PodObservation,
    /// The status as computed last. Without it that of the API server's pod stands in; without both, times
    /// come from the runtime's records.
    pub previous: Option<&'a PodStatus>,
    /// By container name: why it waits, if it waits. Entries of running containers, and of ended ones that
    /// are not started again, have no effect.
    pub waiting: &'a BTreeMap<String, WaitingReason>,
    /// Why the pod as a whole has failed. It binds unless the pod is in a terminal phase already.
    pub terminal: Option<&'a PodFailure>,
    /// By container name: what probes say. A running container that is not listed is started and ready.
    pub probes: &'a BTreeMap<String, ProbeState>,
    /// Whether everything of the pod has been stopped for good. A pod from the API server then gets a
    /// terminal phase; a static pod keeps its own, as with kubelet.
    pub lifecycle_done: bool,
    /// The node's addresses, the primary one first; its family is the one that pods show first.
    pub host_ips: &'a [IpAddr],
    /// When the agent took the pod on.
    pub started_at: Option<Timestamp>,
    /// The runtime's name as it reports it: the scheme of container ids.
    pub runtime_name: &'a str,
    /// Where a change of its resources is.
    pub resize: &'a ResizeStatus,
    /// Whether the pod's runtime handler can make mounts read-only recursively.
    pub recursive_read_only: bool,
    /// The present.
    pub now: Timestamp,
}

/// What the parts of the computation share.
struct Context<'a> {
    input: &'a StatusInput<'a>,
    previous: Option<&'a PodStatus>,
    start_time: Timestamp,
    /// No ended container is started again.
    stopping: bool,
    /// A rule's RestartAllContainers is under way.
    restarting: bool,
    /// The newest sandbox holds a regular container, so init containers are behind it.
    regular_created: bool,
}

/// Computes a pod's status.
///
/// Fed back as `previous` with all else the same, the result comes out again; and once it says `Failed` or
/// `Succeeded`, it says so for good.
pub fn pod_status(input: &StatusInput<'_>) -> PodStatus {
    let pod = input.pod;
    // A manifest's own `status` is nobody's observation.
    let from_api = if pod.is_static() { None } else { pod.status.as_ref() };
    let previous = input.previous.or(from_api);
    let bound = [from_api, previous].into_iter().flatten().filter_map(phase_of).find(|p| p.is_terminal());
    let start_time = [previous, from_api]
        .into_iter()
        .flatten()
        .find_map(|status| status.start_time.as_ref().map(|time| time.0))
        .or(input.started_at)
        .or_else(|| input.observation.sandboxes.iter().map(|s| s.created_at).min())
        .unwrap_or(input.now);
    let stopping =
        input.lifecycle_done || input.terminal.is_some() || pod.metadata.deletion_timestamp.is_some();
    let cx = Context {
        input,
        previous,
        start_time,
        stopping,
        restarting: !stopping && bound.is_none() && restarting_all(input, previous),
        regular_created: regular_created(input),
    };

    let regular = containers::statuses(&cx, containers::regular(pod), |s| s.container_statuses.as_deref());
    let init = containers::statuses(&cx, containers::init(pod), |s| s.init_container_statuses.as_deref());
    let ephemeral =
        containers::statuses(&cx, containers::ephemeral(pod), |s| s.ephemeral_container_statuses.as_deref());
    let mut status = PodStatus {
        container_statuses: (!regular.is_empty()).then_some(regular),
        init_container_statuses: (!init.is_empty()).then_some(init),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        qos_class: Some(qos_class(pod).as_str().to_owned()),
        observed_generation: pod.metadata.generation,
        start_time: Some(Time(start_time)),
        ..PodStatus::default()
    };
    if input.lifecycle_done {
        containers::close(&cx, &mut status);
    }
    let computed = phase::compute(&cx, &status);
    let phase = match bound {
        Some(bound) => bound,
        None if input.terminal.is_some() => PodPhase::Failed,
        // Whatever has no phase at its end did not come to its end by itself.
        None if input.lifecycle_done && !pod.is_static() && !computed.is_terminal() => PodPhase::Failed,
        None => computed,
    };
    status.phase = Some(phase.as_str().to_owned());
    (status.reason, status.message) = explanation(&cx, phase);
    set_addresses(&cx, &mut status);
    status.conditions = Some(conditions::all(&cx, &status, phase));
    containers::cut_messages(pod, &mut status);
    status
}

/// The status of a pod that the node does not take and of which it has made nothing: no containers and no
/// conditions, as with kubelet (`rejectPod`).
pub fn refused_status(pod: &Pod, why: &PodFailure, taken_on: Timestamp) -> PodStatus {
    PodStatus {
        phase: Some(PodPhase::Failed.as_str().to_owned()),
        reason: Some(why.reason.clone()),
        message: Some(format!("Pod was rejected: {}", why.message)),
        qos_class: Some(qos_class(pod).as_str().to_owned()),
        observed_generation: pod.metadata.generation,
        start_time: Some(Time(taken_on)),
        ..PodStatus::default()
    }
}

/// Whether a status says `Failed` or `Succeeded`.
pub fn is_terminal(status: &PodStatus) -> bool {
    phase_of(status).is_some_and(PodPhase::is_terminal)
}

/// Whether a status says that the pod is ready: all its containers, and its readiness gates.
pub fn all_ready(status: &PodStatus) -> bool {
    condition(status, "Ready").is_some_and(|c| c.status == "True")
}

fn phase_of(status: &PodStatus) -> Option<PodPhase> {
    PodPhase::parse(status.phase.as_deref()?)
}

fn condition<'s>(status: &'s PodStatus, type_: &str) -> Option<&'s PodCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == type_)
}

fn find<'s>(statuses: Option<&'s [ContainerStatus]>, name: &str) -> Option<&'s ContainerStatus> {
    statuses.unwrap_or_default().iter().find(|s| s.name == name)
}

/// The reason and message that go with the phase: those of the failure, else those that stood there while
/// the phase was the same.
fn explanation(cx: &Context<'_>, phase: PodPhase) -> (Option<String>, Option<String>) {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    match (cx.input.terminal, cx.previous) {
        (Some(failure), _) if phase == PodPhase::Failed => (text(&failure.reason), text(&failure.message)),
        (_, Some(previous)) if phase_of(previous) == Some(phase) => {
            (previous.reason.clone(), previous.message.clone())
        }
        _ => (None, None),
    }
}

/// Whether a container's end has set off the restart of all, and its remains are not yet cleared away.
/// The condition of the last status counts only while a container of before it is left, so that it cannot
/// outlive an agent that missed the moment in between.
fn restarting_all(input: &StatusInput<'_>, previous: Option<&PodStatus>) -> bool {
    if !may_restart_all(input.pod.spec()) {
        return false;
    }
    let policy = input.pod.restart_policy();
    let set_off = input.pod.all_containers().into_iter().any(|(kind, container)| {
        input.observation.latest(&container.name).is_some_and(|seen| {
            seen.state == ContainerState::Exited
                && should_restart(policy, container, kind, seen.exit_code)
                    == RestartDecision::RestartAllContainers
        })
    });
    let since = previous
        .and_then(|status| condition(status, conditions::ALL_CONTAINERS_RESTARTING))
        .filter(|c| c.status == "True")
        .and_then(|c| c.last_transition_time.as_ref());
    set_off || since.is_some_and(|since| input.observation.containers.iter().any(|c| c.created_at <= since.0))
}

fn regular_created(input: &StatusInput<'_>) -> bool {
    input.observation.newest_sandbox().is_some_and(|sandbox| {
        input
            .pod
            .spec()
            .containers
            .iter()
            .any(|c| input.observation.latest_in(&c.name, &sandbox.id).is_some())
    })
}

/// The node's addresses and the pod's: on the host's network the former, else those of the newest sandbox
/// while it is ready. A pod whose sandboxes are all down keeps what it had, as with kubelet.
fn set_addresses(cx: &Context<'_>, status: &mut PodStatus) {
    let host = cx.input.host_ips;
    let host_ips: Vec<_> = host.iter().take(2).map(|ip| HostIP { ip: ip.to_string() }).collect();
    status.host_ip = host_ips.first().map(|ip| ip.ip.clone());
    status.host_ips = (!host_ips.is_empty()).then_some(host_ips);

    let sandboxes = &cx.input.observation.sandboxes;
    let found = if cx.input.pod.host_network() {
        one_of_each_family(host, host)
    } else {
        let newest = sandboxes.first().filter(|s| s.state == SandboxState::Ready);
        one_of_each_family(newest.map_or(&[], |s| s.ips.as_slice()), host)
    };
    let any_ready = sandboxes.iter().any(|s| s.state == SandboxState::Ready);
    status.pod_ips = match cx.previous {
        Some(previous) if found.is_empty() && !any_ready => previous.pod_ips.clone(),
        _ => (!found.is_empty()).then(|| found.iter().map(|ip| PodIP { ip: ip.to_string() }).collect()),
    };
    status.pod_ip = status.pod_ips.iter().flatten().next().map(|first| first.ip.clone());
}

/// The pod's addresses as it is told of them: the first of the node's family, then the first of the other.
pub fn one_of_each_family(ips: &[IpAddr], host: &[IpAddr]) -> Vec<IpAddr> {
    let v6_first = host.first().is_some_and(IpAddr::is_ipv6);
    let first = |v6: bool| ips.iter().copied().find(|ip| ip.is_ipv6() == v6);
    [first(v6_first), first(!v6_first)].into_iter().flatten().collect()
}
