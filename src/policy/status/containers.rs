//! Container statuses: what the runtime holds, joined with why a container waits and with what the last
//! status said of containers whose records are gone. Follows kubelet's `convertToAPIContainerStatuses`,
//! its prober's `UpdatePodStatus` and its status manager's `TerminatePod`.
//!
//! Not reported, since the observation has no such fields: `user`, and resources as the runtime has applied them.
//! What it was last told with success stands there, which is what is allocated unless a resize is under way.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, Pod, PodStatus, ResourceRequirements, VolumeMount, VolumeMountStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{Context, ProbeState, WaitingReason, find, should_restart};
use crate::api::{ContainerKind, ContainerState as Observed, ObservedContainer, PodExt, pod::init_kind};

/// The reason of containers that go, or went, because all of the pod's are started again.
pub(super) const RESTARTING_ALL: &str = "RestartingAllContainers";
/// The reason of an end that nobody saw.
const STATUS_UNKNOWN: &str = "ContainerStatusUnknown";
/// The exit code of such an end: as after SIGKILL.
const STATUS_UNKNOWN_CODE: i32 = 137;

/// The most bytes that all containers of a pod may have said together.
const MAX_MESSAGES: usize = 12 << 10;

/// An entry of the pod's specification.
pub(super) struct Entry<'a> {
    name: &'a str,
    image: Option<&'a String>,
    mounts: &'a [VolumeMount],
    resources: Option<&'a ResourceRequirements>,
    /// `None` for an ephemeral container, which is never started again.
    container: Option<(ContainerKind, &'a Container)>,
}

impl<'a> Entry<'a> {
    fn new(kind: ContainerKind, container: &'a Container) -> Self {
        Self {
            name: &container.name,
            image: container.image.as_ref(),
            mounts: container.volume_mounts.as_deref().unwrap_or_default(),
            resources: container.resources.as_ref(),
            container: Some((kind, container)),
        }
    }

    fn kind(&self) -> Option<ContainerKind> {
        self.container.map(|(kind, _)| kind)
    }

    /// The signal that the container was made with: a change of it makes another container.
    fn stop_signal(&self) -> Option<String> {
        self.container.and_then(|(_, container)| container.lifecycle.as_ref()?.stop_signal.clone())
    }
}

/// The regular containers, in the specification's order.
pub(super) fn regular(pod: &Pod) -> impl Iterator<Item = Entry<'_>> {
    pod.spec().containers.iter().map(|c| Entry::new(ContainerKind::Regular, c))
}

/// The init containers and sidecars, in the specification's order.
pub(super) fn init(pod: &Pod) -> impl Iterator<Item = Entry<'_>> {
    pod.spec().init_containers.iter().flatten().map(|c| Entry::new(init_kind(c), c))
}

/// The ephemeral containers, in the specification's order.
pub(super) fn ephemeral(pod: &Pod) -> impl Iterator<Item = Entry<'_>> {
    pod.spec().ephemeral_containers.iter().flatten().map(|c| Entry {
        name: &c.name,
        image: c.image.as_ref(),
        mounts: c.volume_mounts.as_deref().unwrap_or_default(),
        resources: c.resources.as_ref(),
        container: None,
    })
}

/// The statuses of the given entries; `list` picks those that the last status has of them.
pub(super) fn statuses<'a>(
    cx: &Context<'a>,
    entries: impl Iterator<Item = Entry<'a>>,
    list: fn(&PodStatus) -> Option<&[ContainerStatus]>,
) -> Vec<ContainerStatus> {
    entries
        .map(|entry| {
            let previous = find(cx.previous.and_then(list), entry.name);
            let mut status = match cx.input.observation.latest(entry.name) {
                Some(seen) => from_record(cx, &entry, seen, previous),
                None => without_record(cx, &entry, previous),
            };
            status.volume_mounts = mounts(cx, &entry);
            set_readiness(cx, &entry, &mut status);
            status
        })
        .collect()
}

/// The status of a container that the runtime holds a record of.
fn from_record(
    cx: &Context<'_>,
    entry: &Entry<'_>,
    seen: &ObservedContainer,
    previous: Option<&ContainerStatus>,
) -> ContainerStatus {
    let id = id_text(cx, seen);
    let before = previous.and_then(|previous| end_before(previous, &id, seen));
    let actual = cx.input.resize.actuated.get(entry.name).filter(|own| own.id == seen.id);
    let actual = actual.map(|own| &own.resources);
    let mut status = ContainerStatus {
        name: entry.name.to_owned(),
        image: seen.image.clone(),
        image_id: seen.image_ref.clone(),
        restart_count: restart_count(seen, &id, previous, before.is_some()),
        resources: Some(actual.or(entry.resources).cloned().unwrap_or_default()),
        allocated_resources: entry.resources.and_then(|r| r.requests.clone()),
        last_state: last_end(cx, entry.name, &id, previous, before).map(terminated),
        state: Some(match seen.state {
            Observed::Running => ContainerState {
                running: Some(ContainerStateRunning {
                    started_at: Some(Time(seen.started_at.unwrap_or(seen.created_at))),
                }),
                ..ContainerState::default()
            },
            Observed::Exited => terminated(end_of(cx, seen)),
            Observed::Unknown => match unseen_end(seen, &id, previous) {
                Some(end) => terminated(end),
                None => waiting("ContainerCreating", ""),
            },
            Observed::Created => waiting("ContainerCreating", ""),
        }),
        container_id: Some(id),
        stop_signal: entry.stop_signal(),
        ..ContainerStatus::default()
    };
    let runs_again = match seen.state {
        Observed::Running => false,
        Observed::Created => true,
        Observed::Unknown => !cx.stopping,
        Observed::Exited => !cx.stopping && entry_runs_again(cx, entry, seen.exit_code),
    };
    if let Some(reason) = reason(cx, entry).filter(|_| runs_again) {
        if let Some(end) = status.state.take().and_then(|s| s.terminated) {
            status.last_state = Some(terminated(end));
        }
        status.state = Some(waiting(&reason.reason, &reason.message));
    }
    status
}

/// The status of a container that the runtime holds no record of: not made yet, or its record was removed.
fn without_record(
    cx: &Context<'_>,
    entry: &Entry<'_>,
    previous: Option<&ContainerStatus>,
) -> ContainerStatus {
    let has_init = cx.input.pod.spec().init_containers.as_ref().is_some_and(|list| !list.is_empty());
    let mut status = ContainerStatus {
        name: entry.name.to_owned(),
        image: entry.image.cloned().unwrap_or_default(),
        state: Some(waiting(if has_init { "PodInitializing" } else { "ContainerCreating" }, "")),
        ..ContainerStatus::default()
    };
    // With a regular container in the sandbox, what ran before it is done; unless all runs once more.
    let initialized = entry.kind() == Some(ContainerKind::Init) && cx.regular_created && !cx.restarting;
    let state = previous.and_then(|p| p.state.as_ref());
    if let (Some(previous), Some(state)) = (previous, state) {
        status.restart_count = previous.restart_count;
        status.last_state = previous.last_state.clone();
        if let Some(end) = &state.terminated {
            if cx.restarting {
                restarting_all(&mut status);
            } else if initialized {
                if end.exit_code == 0 {
                    return previous.clone();
                }
            } else if reason(cx, entry).is_some()
                && !cx.stopping
                && (entry.kind() == Some(ContainerKind::Init) || entry_runs_again(cx, entry, end.exit_code))
            {
                status.last_state = Some(terminated(end.clone()));
                status.container_id.clone_from(&previous.container_id);
            } else {
                return previous.clone();
            }
        } else if state.running.is_some() && entry.container.is_none() {
            // Nobody saw how it ended, and none follows.
            status.container_id.clone_from(&previous.container_id);
            status.state = Some(terminated(unseen(previous)));
            return status;
        } else if state.running.is_some() {
            if cx.restarting {
                restarting_all(&mut status);
            } else if !initialized {
                // It ran and is gone, and nobody saw how it ended. It waits, but not as one that never
                // ran: the pod would be Pending again.
                status.last_state = Some(terminated(unseen(previous)));
                status.restart_count += i32::from(cx.input.pod.metadata.deletion_timestamp.is_none());
            }
        } else {
            // The id stays with its end, so that the next container is known to come after it.
            let ended = last_terminated(previous).and_then(|end| end.container_id.as_ref());
            status.container_id = ended.filter(|id| previous.container_id.as_ref() == Some(id)).cloned();
        }
    }
    if initialized && last_terminated(&status).is_some_and(|end| end.exit_code == 0) {
        status.state = status.last_state.take();
    } else if initialized {
        status.container_id = None;
        status.state = Some(terminated(ContainerStateTerminated {
            reason: Some("Completed".to_owned()),
            message: Some(
                "the runtime no longer has the init container; the pod is past it, so it ended well"
                    .to_owned(),
            ),
            ..ContainerStateTerminated::default()
        }));
    } else if let Some(reason) = reason(cx, entry) {
        status.state = Some(waiting(&reason.reason, &reason.message));
    } else if last_terminated(&status).is_some_and(|end| end.reason.as_deref() == Some(RESTARTING_ALL)) {
        status.state = Some(waiting(RESTARTING_ALL, "removed, to be started again with all containers"));
    }
    status
}

/// Ends on paper whatever waits, once a pod is stopped for good: what may have run is never shown as
/// waiting for a start that will not come. Init containers that the pod never got to stay as they are.
pub(super) fn close(cx: &Context<'_>, status: &mut PodStatus) {
    let began = |status: &ContainerStatus| {
        status.state.as_ref().is_some_and(|s| s.waiting.is_none()) || last_terminated(status).is_some()
    };
    let end = |status: &mut ContainerStatus| {
        if status.state.as_ref().is_none_or(|s| s.waiting.is_none()) {
            return;
        }
        let own = |end: &&ContainerStateTerminated| {
            end.container_id.is_some() && end.container_id == status.container_id
        };
        // What waited after an end of its own shows that end again.
        if last_terminated(status).filter(own).is_some() {
            status.state = status.last_state.take();
        } else {
            status.state = Some(terminated(ContainerStateTerminated {
                container_id: status.container_id.clone(),
                ..unknown_end("the container was not found when the pod was terminated")
            }));
        }
    };
    let init = status.init_container_statuses.as_deref_mut().unwrap_or_default();
    let regular = status.container_statuses.as_deref_mut().unwrap_or_default();
    let init_done = match (init.last(), self::init(cx.input.pod).last().and_then(|entry| entry.kind())) {
        (None, _) => true,
        (Some(last), Some(ContainerKind::Sidecar)) => last.started == Some(true),
        (Some(last), _) => [&last.state, &last.last_state]
            .into_iter()
            .flatten()
            .any(|s| s.terminated.as_ref().is_some_and(|end| end.exit_code == 0)),
    };
    if init_done || regular.iter().any(began) {
        regular.iter_mut().for_each(end);
    }
    let reached = init.iter().rposition(began).map_or(1, |last| last + 1);
    init.iter_mut().take(reached).for_each(end);
    for (entry, status) in self::init(cx.input.pod).zip(init).chain(self::regular(cx.input.pod).zip(regular))
    {
        set_readiness(cx, &entry, status);
    }
}

/// Cuts what containers said at their ends, so that a pod's status stays small whatever they say: each has
/// its share of 12 KiB, as with kubelet's status manager.
pub(super) fn cut_messages(pod: &Pod, status: &mut PodStatus) {
    let ephemeral = pod.spec().ephemeral_containers.as_ref().map_or(0, Vec::len);
    let share = MAX_MESSAGES / (pod.all_containers().len() + ephemeral).max(1);
    let lists = [
        &mut status.init_container_statuses,
        &mut status.container_statuses,
        &mut status.ephemeral_container_statuses,
    ];
    for status in lists.into_iter().flatten().flatten() {
        let states = [&mut status.state, &mut status.last_state];
        for end in states.into_iter().flatten().filter_map(|state| state.terminated.as_mut()) {
            if let Some(message) = &mut end.message {
                let mut end = share.min(message.len());
                while !message.is_char_boundary(end) {
                    end -= 1;
                }
                message.truncate(end);
            }
        }
    }
}

fn reason<'a>(cx: &Context<'a>, entry: &Entry<'_>) -> Option<&'a WaitingReason> {
    cx.input.waiting.get(entry.name)
}

fn entry_runs_again(cx: &Context<'_>, entry: &Entry<'_>, exit_code: i32) -> bool {
    entry.container.is_some_and(|(kind, container)| {
        should_restart(cx.input.pod.restart_policy(), container, kind, exit_code).runs_again()
    })
}

fn id_text(cx: &Context<'_>, seen: &ObservedContainer) -> String {
    format!("{}://{}", cx.input.runtime_name, seen.id)
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: (!message.is_empty()).then(|| message.to_owned()),
        }),
        ..ContainerState::default()
    }
}

fn terminated(end: ContainerStateTerminated) -> ContainerState {
    ContainerState { terminated: Some(end), ..ContainerState::default() }
}

fn last_terminated(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.last_state.as_ref()?.terminated.as_ref()
}

/// An end as the runtime reports it. As with kubelet, a signal shows in the exit code alone.
fn end_of(cx: &Context<'_>, seen: &ObservedContainer) -> ContainerStateTerminated {
    let reason = match (seen.reason.as_str(), seen.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    ContainerStateTerminated {
        container_id: Some(id_text(cx, seen)),
        exit_code: seen.exit_code,
        reason: Some(reason.to_owned()),
        message: (!seen.message.is_empty()).then(|| seen.message.clone()),
        started_at: seen.started_at.map(Time),
        finished_at: seen.finished_at.map(Time),
        signal: None,
    }
}

fn unknown_end(message: &str) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: STATUS_UNKNOWN_CODE,
        reason: Some(STATUS_UNKNOWN.to_owned()),
        message: Some(message.to_owned()),
        ..ContainerStateTerminated::default()
    }
}

/// The end of a container that was last seen running.
fn unseen(previous: &ContainerStatus) -> ContainerStateTerminated {
    let running = previous.state.as_ref().and_then(|s| s.running.as_ref());
    ContainerStateTerminated {
        container_id: previous.container_id.clone(),
        started_at: running.and_then(|r| r.started_at.clone()),
        ..unknown_end("the container was running, and then the runtime no longer had it")
    }
}

/// The end of a container that the runtime has lost track of; `None` where it never ran as far as known.
fn unseen_end(
    seen: &ObservedContainer,
    id: &str,
    previous: Option<&ContainerStatus>,
) -> Option<ContainerStateTerminated> {
    let same = previous.filter(|p| p.container_id.as_deref() == Some(id));
    if let Some(same) = same {
        let state = same.state.as_ref();
        let known = state.and_then(|s| s.terminated.as_ref()).or_else(|| last_terminated(same));
        if let Some(known) = known.filter(|end| end.container_id.as_deref() == Some(id)) {
            return Some(known.clone());
        }
        if state.is_some_and(|s| s.running.is_some()) {
            return Some(unseen(same));
        }
    }
    seen.started_at.map(|started| ContainerStateTerminated {
        container_id: Some(id.to_owned()),
        started_at: Some(Time(started)),
        ..unknown_end("the runtime does not know what became of the container")
    })
}

/// Where the last status was of another container, which came before this one: how that one ended.
fn end_before(
    previous: &ContainerStatus,
    id: &str,
    seen: &ObservedContainer,
) -> Option<ContainerStateTerminated> {
    let was = previous.container_id.as_ref().filter(|was| was.as_str() != id)?;
    let state = previous.state.as_ref()?;
    let end = if let Some(end) = &state.terminated {
        end.clone()
    } else if state.running.is_some() {
        unseen(previous)
    } else {
        last_terminated(previous).filter(|end| end.container_id.as_ref() == Some(was))?.clone()
    };
    let at = end.finished_at.as_ref().or(end.started_at.as_ref());
    at.is_none_or(|at| at.0 <= seen.created_at).then_some(end)
}

/// What `lastState` shows: the end of an older container that the runtime still holds, else what is
/// remembered. A container's own end does not count.
fn last_end(
    cx: &Context<'_>,
    name: &str,
    id: &str,
    previous: Option<&ContainerStatus>,
    before: Option<ContainerStateTerminated>,
) -> Option<ContainerStateTerminated> {
    let mut older = cx.input.observation.containers.iter().filter(|c| &*c.name == name).skip(1);
    older
        .find(|c| c.state == Observed::Exited)
        .map(|c| end_of(cx, c))
        .or(before)
        .or_else(|| last_terminated(previous?).filter(|end| end.container_id.as_deref() != Some(id)).cloned())
}

/// The restart count, which never falls: the runtime's record of it begins anew where an older container
/// was removed behind our back.
fn restart_count(
    seen: &ObservedContainer,
    id: &str,
    previous: Option<&ContainerStatus>,
    follows: bool,
) -> i32 {
    let recorded = i32::try_from(seen.restart_count).unwrap_or(i32::MAX);
    let Some(previous) = previous else { return recorded };
    // It was missed for a moment and taken for gone: that was no restart.
    let returned = seen.state == Observed::Running
        && previous.container_id.is_none()
        && last_terminated(previous).is_some_and(|end| {
            end.container_id.as_deref() == Some(id) && end.reason.as_deref() == Some(STATUS_UNKNOWN)
        });
    let known = previous.restart_count;
    if follows && known >= recorded {
        known.saturating_add(1)
    } else {
        recorded.max(if returned { known - 1 } else { known })
    }
}

fn restarting_all(status: &mut ContainerStatus) {
    status.restart_count = status.restart_count.saturating_add(1);
    status.last_state = Some(terminated(ContainerStateTerminated {
        reason: Some(RESTARTING_ALL.to_owned()),
        ..unknown_end("removed, to be started again with all containers")
    }));
}

fn mounts(cx: &Context<'_>, entry: &Entry<'_>) -> Option<Vec<VolumeMountStatus>> {
    let mounts = entry.mounts.iter().map(|mount| {
        let read_only = mount.read_only == Some(true);
        let recursive = cx.input.recursive_read_only
            && matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"))
            && matches!(mount.mount_propagation.as_deref(), None | Some("None"));
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: read_only.then_some(true),
            recursive_read_only: read_only.then(|| if recursive { "Enabled" } else { "Disabled" }.to_owned()),
            volume_status: None,
        }
    });
    (!entry.mounts.is_empty()).then(|| mounts.collect())
}

fn set_readiness(cx: &Context<'_>, entry: &Entry<'_>, status: &mut ContainerStatus) {
    let state = status.state.as_ref();
    let running = state.is_some_and(|s| s.running.is_some());
    let probe = cx.input.probes.get(entry.name).copied();
    let probe = probe.unwrap_or(ProbeState { started: true, ready: true });
    (status.started, status.ready) = match entry.kind() {
        None | Some(ContainerKind::Ephemeral) => (None, false),
        Some(ContainerKind::Init) => {
            let done = state.and_then(|s| s.terminated.as_ref()).is_some_and(|end| end.exit_code == 0);
            (Some(running), done)
        }
        Some(ContainerKind::Sidecar | ContainerKind::Regular) => {
            let started = running && probe.started;
            (Some(started), started && probe.ready)
        }
    };
}

/// When the container came to where it is: its end, or its start while it runs; `None` where that is not
/// known. One that has not run has been as it is since the pod's start.
pub(super) fn since(status: &ContainerStatus, pod_start: Timestamp) -> Option<Timestamp> {
    let state = status.state.as_ref()?;
    if let Some(running) = &state.running {
        return running.started_at.as_ref().map(|t| t.0);
    }
    match state.terminated.as_ref().or_else(|| last_terminated(status)) {
        Some(end) => end.finished_at.as_ref().map(|t| t.0),
        None => Some(pod_start),
    }
}
