//! A pod in one row, by the rules of `kubectl get pods`: operators read `Init:0/1` and `CrashLoopBackOff`
//! without thinking, so the words and their precedence are kubectl's.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, PodStatus};

use crate::api::{
    labels,
    pod::{ContainerKind, PodExt},
    view::{PodStep, PodView},
};

/// The row's cells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodSummary {
    /// Ready containers, sidecars included.
    pub ready: usize,
    /// Containers that should be ready, sidecars included.
    pub total: usize,
    /// The STATUS column.
    pub status: String,
    /// Restarts of the containers that count at this time.
    pub restarts: i64,
    /// When the last of those restarts' containers ended.
    pub last_restart: Option<Timestamp>,
    /// When the pod was made, or first seen.
    pub created: Option<Timestamp>,
    /// Where the pod comes from: `file`, `http`, `api`.
    pub source: String,
}

/// Sums a pod up.
pub fn summarize(view: &PodView) -> PodSummary {
    let status = &*view.status;
    let sidecars = sidecar_names(view);
    let is_sidecar = |container: &&ContainerStatus| sidecars.contains(&container.name.as_str());
    let init = status.init_container_statuses.as_deref().unwrap_or_default();
    let regular = status.container_statuses.as_deref().unwrap_or_default();

    let phase = status.phase.as_deref().unwrap_or("Pending");
    let mut reason = status.reason.clone().filter(|r| !r.is_empty()).unwrap_or_else(|| phase.to_owned());
    let init_count = view.pod.spec().init_containers.as_ref().map_or(init.len(), Vec::len);
    let initializing = init.iter().enumerate().find_map(|(index, container)| {
        init_reason(container, sidecars.contains(&container.name.as_str()), index, init_count)
    });
    let initialized = condition(status, "Initialized");
    let ready_sidecars =
        init.iter().filter(is_sidecar).filter(|c| c.started == Some(true) && c.ready).count();

    let mut counted: Vec<&ContainerStatus> = init.iter().collect();
    let mut ready = ready_sidecars;
    if let Some(init_reason) = &initializing {
        reason.clone_from(init_reason);
    }
    if initializing.is_none() || initialized {
        counted.retain(is_sidecar);
        counted.extend(regular);
        let mut running = false;
        // From the last to the first: the first container's trouble is the one that is shown.
        for container in regular.iter().rev() {
            if let Some(why) = stopped_reason(container.state.as_ref()) {
                reason = why;
            } else if container.ready && container.state.as_ref().is_some_and(|s| s.running.is_some()) {
                running = true;
                ready += 1;
            }
        }
        if reason == "Completed" && running {
            reason = if condition(status, "Ready") { "Running" } else { "NotReady" }.to_owned();
        }
    }
    reason = overridden(view, phase, reason);

    let total = view.pod.spec().containers.len().max(regular.len()) + sidecars.len();
    let ended =
        |c: &&ContainerStatus| Some(c.last_state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0);
    PodSummary {
        ready,
        total,
        status: reason,
        restarts: counted.iter().map(|c| i64::from(c.restart_count)).sum(),
        last_restart: counted.iter().filter_map(ended).max(),
        created: created(view),
        source: view.pod.annotation(labels::CONFIG_SOURCE).unwrap_or("api").to_owned(),
    }
}

fn sidecar_names(view: &PodView) -> Vec<&str> {
    view.pod
        .all_containers()
        .into_iter()
        .filter(|(kind, _)| *kind == ContainerKind::Sidecar)
        .map(|(_, container)| container.name.as_str())
        .collect()
}

/// What keeps the pod initializing at this init container, if it does.
fn init_reason(container: &ContainerStatus, sidecar: bool, index: usize, count: usize) -> Option<String> {
    let state = container.state.as_ref();
    let terminated = state.and_then(|state| state.terminated.as_ref());
    let waiting = state.and_then(|state| state.waiting.as_ref()?.reason.as_deref());
    if terminated.is_some_and(|end| end.exit_code == 0) || (sidecar && container.started == Some(true)) {
        return None;
    }
    Some(match (terminated, waiting) {
        (Some(end), _) => format!("Init:{}", end_reason(end)),
        (None, Some(reason)) if !reason.is_empty() && reason != "PodInitializing" => format!("Init:{reason}"),
        _ => format!("Init:{index}/{count}"),
    })
}

/// Why a regular container does not run; `None` if it does.
fn stopped_reason(state: Option<&ContainerState>) -> Option<String> {
    let state = state?;
    let waiting = state.waiting.as_ref().and_then(|w| w.reason.clone()).filter(|reason| !reason.is_empty());
    waiting.or_else(|| state.terminated.as_ref().map(end_reason))
}

fn end_reason(end: &ContainerStateTerminated) -> String {
    match (end.reason.as_deref(), end.signal) {
        (Some(reason), _) if !reason.is_empty() => reason.to_owned(),
        (_, Some(signal)) if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", end.exit_code),
    }
}

fn condition(status: &PodStatus, type_: &str) -> bool {
    status.conditions.iter().flatten().any(|condition| condition.type_ == type_ && condition.status == "True")
}

/// A static pod has no deletion timestamp when its manifest goes, and a refused one no container: the step
/// tells what kubectl reads from the API object.
fn overridden(view: &PodView, phase: &str, reason: String) -> String {
    let ended = matches!(phase, "Succeeded" | "Failed");
    let leaving = matches!(view.progress.step, PodStep::Terminating | PodStep::CleaningUp)
        || view.pod.metadata.deletion_timestamp.is_some();
    if leaving && !ended {
        return "Terminating".to_owned();
    }
    if view.progress.step == PodStep::Rejected && reason == phase {
        return view.progress.last_error.as_ref().map_or("Rejected", |error| &error.reason).to_owned();
    }
    reason
}

fn created(view: &PodView) -> Option<Timestamp> {
    let seen = || view.pod.annotation(labels::CONFIG_SEEN)?.parse().ok();
    let made = view.pod.metadata.creation_timestamp.as_ref().or(view.status.start_time.as_ref());
    made.map(|time| time.0).or_else(seen)
}

#[cfg(test)]
#[path = "pod_summary_tests.rs"]
mod tests;
