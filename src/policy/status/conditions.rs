//! A pod's conditions: kubelet's `pkg/kubelet/status/generate.go`, and the times at which they changed.
//!
//! A condition keeps its time while its status stays the same. Where the last status does not tell (the
//! agent was restarted), the time is taken from the runtime's records: a pod became ready when the last of
//! its containers started. A change that was watched happening and that records do not date, a probe's
//! verdict say, happened now.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ContainerStatus, PodCondition, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{Context, PREEMPTING, PodPhase, condition, containers::since, find, may_restart_all};
use crate::api::{ContainerKind, PodExt, SandboxState, pod::init_kind};

pub(super) const ALL_CONTAINERS_RESTARTING: &str = "AllContainersRestarting";
/// The conditions that are ours; all others in the API server's pod belong to somebody else and are kept.
pub(super) const OURS: [&str; 8] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "PodResizePending",
    "PodResizeInProgress",
    ALL_CONTAINERS_RESTARTING,
];
/// Why the pod is being ended from outside; set once, at that event, and kept.
const DISRUPTION_TARGET: &str = "DisruptionTarget";

/// The reason of one that the node ends.
const BY_NODE: &str = "TerminationByKubelet";

/// Whether the condition says that the node ends the pod: one that others write too, with other reasons.
pub(super) fn ends_here(condition: &PodCondition) -> bool {
    condition.type_ == DISRUPTION_TARGET && condition.reason.as_deref() == Some(BY_NODE)
}

/// What is to be said of one condition.
struct Verdict {
    holds: bool,
    reason: Option<&'static str>,
    message: Option<String>,
    /// Since when, as far as the records tell.
    since: Option<Timestamp>,
}

impl Verdict {
    fn yes(since: Option<Timestamp>) -> Self {
        Self { holds: true, reason: None, message: None, since }
    }

    fn no(reason: &'static str, since: Option<Timestamp>) -> Self {
        Self { holds: false, reason: Some(reason), message: None, since }
    }
}

/// All conditions: first those of others, then ours in kubelet's order.
pub(super) fn all(cx: &Context<'_>, status: &PodStatus, phase: PodPhase) -> Vec<PodCondition> {
    let pod = cx.input.pod;
    let from_api = if pod.is_static() { None } else { pod.status.as_ref() };
    let mut all: Vec<PodCondition> = from_api
        .and_then(|s| s.conditions.as_ref())
        .into_iter()
        .flatten()
        .filter(|c| !OURS.contains(&c.type_.as_str()))
        .cloned()
        .collect();
    if let Some(target) = cx.previous.and_then(|s| condition(s, DISRUPTION_TARGET)) {
        all.retain(|c| c.type_ != DISRUPTION_TARGET);
        all.push(target.clone());
    }
    let preempted = cx.input.terminal.is_some_and(|why| why.reason == PREEMPTING);
    if preempted && !all.iter().any(ends_here) {
        all.retain(|c| c.type_ != DISRUPTION_TARGET);
        let message = "Pod was preempted by Kubelet to accommodate a critical pod.";
        let verdict = Verdict { message: Some(message.to_owned()), ..Verdict::yes(None) };
        let verdict = Verdict { reason: Some(BY_NODE), ..verdict };
        all.push(settle(cx, DISRUPTION_TARGET, verdict));
    }
    let containers_ready = containers_ready(cx, status, phase);
    let ready = ready(cx, &containers_ready, &all);
    let ours = [
        ("PodReadyToStartContainers", sandbox_ready(cx)),
        ("Initialized", initialized(cx, status, phase)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Verdict::yes(Some(cx.start_time))),
    ];
    all.extend(ours.into_iter().map(|(type_, verdict)| settle(cx, type_, verdict)));
    let resize = cx.input.resize;
    if let Some((pending, generation)) = &resize.pending {
        let verdict = Verdict {
            reason: Some(pending.reason()),
            message: Some(pending.message.clone()),
            ..Verdict::yes(None)
        };
        all.push(PodCondition {
            observed_generation: *generation,
            ..settle(cx, "PodResizePending", verdict)
        });
    }
    if let Some((generation, error)) = &resize.in_progress {
        let reason = error.is_some().then_some("Error");
        let verdict = Verdict { reason, message: error.clone(), ..Verdict::yes(None) };
        all.push(PodCondition {
            observed_generation: *generation,
            ..settle(cx, "PodResizeInProgress", verdict)
        });
    }
    if may_restart_all(pod.spec()) {
        all.push(settle(cx, ALL_CONTAINERS_RESTARTING, restarting_all(cx, phase)));
    }
    all
}

/// Makes the condition, with its time.
fn settle(cx: &Context<'_>, type_: &str, verdict: Verdict) -> PodCondition {
    let status = if verdict.holds { "True" } else { "False" };
    let last = cx.previous.and_then(|s| condition(s, type_));
    let last_time = last.and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0);
    let derived = verdict.since.unwrap_or(cx.input.now).min(cx.input.now);
    let time = match (last, last_time) {
        (Some(last), Some(time)) if last.status == status => time,
        // Changes follow one another, whatever the records say.
        (_, Some(time)) => derived.max(time),
        (_, None) => derived,
    };
    PodCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: verdict.reason.map(str::to_owned),
        message: verdict.message,
        last_transition_time: Some(Time(time)),
        observed_generation: cx.input.pod.metadata.generation,
        last_probe_time: None,
    }
}

/// Whether containers can be made: one ready sandbox, the newest, on the right network and with an address.
fn sandbox_ready(cx: &Context<'_>) -> Verdict {
    let host_network = cx.input.pod.host_network();
    let sandboxes = &cx.input.observation.sandboxes;
    let ready = sandboxes.iter().filter(|s| s.state == SandboxState::Ready).count();
    let newest = sandboxes.first();
    let usable = newest.filter(|s| {
        ready == 1
            && s.state == SandboxState::Ready
            && s.host_network == host_network
            && (host_network || !s.ips.is_empty())
    });
    match (usable, newest) {
        (Some(sandbox), _) => Verdict::yes(Some(sandbox.created_at)),
        (None, None) => Verdict { holds: false, ..Verdict::yes(Some(cx.start_time)) },
        (None, Some(newest)) => {
            let ends = cx.input.observation.containers.iter().filter(|c| c.sandbox_id == newest.id);
            Verdict { holds: false, ..Verdict::yes(ends.filter_map(|c| c.finished_at).max()) }
        }
    }
}

fn initialized(cx: &Context<'_>, status: &PodStatus, phase: PodPhase) -> Verdict {
    let spec = cx.input.pod.spec();
    let observation = cx.input.observation;
    let mut incomplete = Vec::new();
    let mut last_done = Some(cx.start_time);
    for container in spec.init_containers.iter().flatten() {
        let Some(status) = find(status.init_container_statuses.as_deref(), &container.name) else { continue };
        let done = match init_kind(container) {
            ContainerKind::Sidecar => status.started == Some(true),
            ContainerKind::Init | ContainerKind::Regular | ContainerKind::Ephemeral => status.ready,
        };
        if done {
            last_done = last_done.zip(since(status, cx.start_time)).map(|(a, b)| a.max(b));
        } else {
            incomplete.push(container.name.as_str());
        }
    }
    // A sidecar may have been started again, and an init container's record be gone, but the regular
    // containers came after all of them.
    let regular = spec.containers.iter();
    let first_regular = regular
        .flat_map(|c| observation.containers.iter().filter(|seen| *seen.name == *c.name))
        .map(|seen| seen.created_at)
        .min();
    let known = if incomplete.is_empty() { last_done } else { None };
    let when = [known, first_regular].into_iter().flatten().min();

    if phase == PodPhase::Succeeded {
        return Verdict { reason: Some("PodCompleted"), ..Verdict::yes(when) };
    }
    let regular_started = status
        .container_statuses
        .iter()
        .flatten()
        .any(|s| s.state.as_ref().is_some_and(|s| s.running.is_some() || s.terminated.is_some()));
    // While all containers are started again, init containers run once more; the pod stays initialized.
    let was = may_restart_all(spec)
        && cx.previous.and_then(|s| condition(s, "Initialized")).is_some_and(|c| c.status == "True");
    if incomplete.is_empty() || regular_started || was {
        return Verdict::yes(when);
    }
    Verdict {
        message: Some(format!("containers with incomplete status: [{}]", incomplete.join(" "))),
        ..Verdict::no("ContainersNotInitialized", Some(cx.start_time))
    }
}

fn containers_ready(cx: &Context<'_>, status: &PodStatus, phase: PodPhase) -> Verdict {
    // A verdict of probes is dated by its observation; only where none was, the start must do.
    let watched = cx.previous.and_then(|s| condition(s, "ContainersReady")).is_some();
    let mut unready: Vec<(&str, &ContainerStatus)> = Vec::new();
    let mut last_start = Some(cx.start_time);
    for (kind, container) in cx.input.pod.all_containers() {
        let list = match kind {
            ContainerKind::Init | ContainerKind::Ephemeral => continue,
            ContainerKind::Sidecar => status.init_container_statuses.as_deref(),
            ContainerKind::Regular => status.container_statuses.as_deref(),
        };
        let Some(status) = find(list, &container.name) else { continue };
        if status.ready {
            let probed = watched && cx.input.probes.contains_key(&container.name);
            let start = if probed { None } else { since(status, cx.start_time) };
            last_start = last_start.zip(start).map(|(a, b)| a.max(b));
        } else {
            unready.push((&container.name, status));
        }
    }
    // It was over with the first that went; if one of them has no date, neither has the condition.
    let first_loss = || {
        unready
            .iter()
            .map(|(_, status)| {
                let running = status.state.as_ref().is_some_and(|s| s.running.is_some());
                if running && watched { None } else { since(status, cx.start_time) }
            })
            .reduce(|a, b| a.zip(b).map(|(a, b)| a.min(b)))
            .flatten()
    };
    match phase {
        PodPhase::Succeeded => Verdict::no("PodCompleted", first_loss()),
        PodPhase::Failed => Verdict::no("PodFailed", first_loss()),
        PodPhase::Pending | PodPhase::Running if unready.is_empty() => Verdict::yes(last_start),
        PodPhase::Pending | PodPhase::Running => {
            let names: Vec<_> = unready.iter().map(|(name, _)| *name).collect();
            Verdict {
                message: Some(format!("containers with unready status: [{}]", names.join(" "))),
                ..Verdict::no("ContainersNotReady", first_loss())
            }
        }
    }
}

/// Ready: the containers are, and every readiness gate's condition, which others set, is true.
fn ready(cx: &Context<'_>, containers: &Verdict, conditions: &[PodCondition]) -> Verdict {
    if !containers.holds {
        return Verdict {
            holds: false,
            reason: containers.reason,
            message: containers.message.clone(),
            since: containers.since,
        };
    }
    let mut shut = Vec::new();
    let mut opened = containers.since;
    let mut shut_since = None;
    for gate in cx.input.pod.spec().readiness_gates.iter().flatten() {
        let type_ = gate.condition_type.as_str();
        let found = conditions.iter().find(|c| c.type_ == type_);
        let changed = found.and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0);
        match found.map(|c| c.status.as_str()) {
            Some("True") => opened = opened.zip(changed).map(|(a, b)| a.max(b)),
            Some(other) => {
                shut.push(format!("readiness gate \"{type_}\" has status \"{other}\", not \"True\""));
                shut_since = shut_since.max(changed);
            }
            None => shut.push(format!("readiness gate \"{type_}\" has no condition in the pod's status")),
        }
    }
    if shut.is_empty() {
        return Verdict::yes(opened);
    }
    Verdict {
        message: Some(shut.join(", ")),
        ..Verdict::no("ReadinessGatesNotReady", shut_since.or(Some(cx.start_time)))
    }
}

fn restarting_all(cx: &Context<'_>, phase: PodPhase) -> Verdict {
    if cx.restarting && !phase.is_terminal() {
        let ends = cx.input.observation.containers.iter().filter_map(|c| c.finished_at);
        return Verdict {
            reason: Some("RestartAllContainersStarted"),
            message: Some("a container's end called for all containers to be started again".to_owned()),
            ..Verdict::yes(ends.max())
        };
    }
    let watched = cx.previous.and_then(|s| condition(s, ALL_CONTAINERS_RESTARTING)).is_some();
    let reason = match phase {
        PodPhase::Succeeded => Some("PodCompleted"),
        PodPhase::Failed => Some("PodFailed"),
        PodPhase::Pending | PodPhase::Running => None,
    };
    let since = (!watched).then_some(cx.start_time);
    Verdict { holds: false, reason, message: None, since }
}
