//! A pod's phase, from its container statuses: kubelet's `getPhase`.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, PodStatus};

use super::{Context, containers::RESTARTING_ALL, find, should_restart};
use crate::api::{ContainerKind, PodExt};

/// A pod's phase, in the order in which they follow one another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PodPhase {
    /// Something has not been started yet.
    Pending,
    /// Everything has been started, and something runs or will run again.
    Running,
    /// Everything ended well and stays ended.
    Succeeded,
    /// Everything ended and stays ended, something of it badly; or the pod was given up.
    Failed,
}

impl PodPhase {
    /// The API's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
        }
    }

    /// Reads the API's text; `None` for `Unknown` and whatever else.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Pending, Self::Running, Self::Succeeded, Self::Failed].into_iter().find(|p| p.as_str() == text)
    }

    /// Whether it is never left.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

/// How a container that does not run came to its end: it shows it, or it waits to run again after it.
fn end(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    let state = status.state.as_ref()?;
    match &state.terminated {
        Some(terminated) => Some(terminated),
        None if state.waiting.is_some() => status.last_state.as_ref()?.terminated.as_ref(),
        None => None,
    }
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|s| s.running.is_some())
}

/// The phase that the container statuses in `status` amount to.
pub(super) fn compute(cx: &Context<'_>, status: &PodStatus) -> PodPhase {
    let pod = cx.input.pod;
    let policy = pod.restart_policy();
    let (mut initializing, mut init_failed, mut sidecars_pending) = (false, false, false);
    let (mut running, mut waiting, mut stopped, mut staying, mut succeeded) = (0, 0, 0, 0, 0);

    for (kind, container) in pod.all_containers() {
        let list = match kind {
            ContainerKind::Regular => status.container_statuses.as_deref(),
            ContainerKind::Init | ContainerKind::Sidecar => status.init_container_statuses.as_deref(),
            ContainerKind::Ephemeral => continue,
        };
        let Some(status) = find(list, &container.name) else { continue };
        let stays = |end: &ContainerStateTerminated| {
            !cx.restarting
                && end.reason.as_deref() != Some(RESTARTING_ALL)
                && !should_restart(policy, container, kind, end.exit_code).runs_again()
        };
        match (kind, end(status)) {
            (ContainerKind::Init, Some(end)) => init_failed |= end.exit_code != 0 && stays(end),
            (ContainerKind::Init, None) => initializing = true,
            // A sidecar that ended holds nothing up: it is started again beside the rest.
            (ContainerKind::Sidecar, Some(_)) => {}
            (ContainerKind::Sidecar, None) if is_running(status) => {
                running += 1;
                sidecars_pending |= status.started != Some(true);
            }
            (ContainerKind::Sidecar, None) => {
                waiting += 1;
                sidecars_pending = true;
            }
            (ContainerKind::Regular, Some(end)) => {
                stopped += 1;
                staying += i32::from(stays(end));
                // Where it waits to run again, its success is not the last word.
                let ended = status.state.as_ref().is_some_and(|s| s.terminated.is_some());
                succeeded += i32::from(ended && end.exit_code == 0);
            }
            (ContainerKind::Ephemeral, _) => {}
            (ContainerKind::Regular, None) if is_running(status) => running += 1,
            (ContainerKind::Regular, None) => waiting += 1,
        }
    }

    let done = if stopped == succeeded { PodPhase::Succeeded } else { PodPhase::Failed };
    if init_failed {
        PodPhase::Failed
    } else if initializing || waiting > 0 || (sidecars_pending && !cx.regular_created) {
        PodPhase::Pending
    } else if running > 0 {
        PodPhase::Running
    } else if stopped == 0 {
        PodPhase::Pending
    } else if cx.input.lifecycle_done && !pod.is_static() {
        done
    } else if staying < stopped {
        PodPhase::Running
    } else {
        done
    }
}
