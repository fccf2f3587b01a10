//! What to do next about a pod: the difference between its specification and what the runtime holds.
//!
//! The rules are kubelet's (pkg/kubelet/kuberuntime/kuberuntime_manager.go, `computePodActions`, and
//! kuberuntime_container.go, `computeInitContainerActions`), but for one: of several ready sandboxes the
//! newest is kept and the others go, where kubelet starts the whole pod anew. The answer covers one pass; after
//! it the pod is observed and asked about again, so an order such as "sandbox, then init containers, then
//! the rest" comes out of passes and is stored nowhere.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};

use super::{
    backoff::RestartBackoff,
    fingerprints::{changed_fields, sandbox_fingerprint},
    grace::pod_grace,
    probe::{ProbeKind, ProbeSnapshot, Unhealthy},
    restart::{RestartDecision, should_restart},
};
use crate::api::{
    ContainerId, ContainerKind, ContainerState, ObservedContainer, ObservedSandbox, PodExt, PodObservation,
    RestartPolicy, SandboxId, SandboxState, pod::init_kind,
};

/// One pass's work. The executor does it in the order of the fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodActions {
    /// Containers to stop.
    pub stop: Vec<StopContainer>,
    /// Sandboxes to stop, after the containers.
    pub stop_sandboxes: Vec<SandboxId>,
    /// A sandbox to make.
    pub create_sandbox: Option<CreateSandbox>,
    /// Containers to start in the present sandbox, one after the other.
    pub start: Vec<StartContainer>,
    /// Containers that wait for their time.
    pub waiting: Vec<WaitingContainer>,
    /// Whether all init containers have done their work and all sidecars run.
    pub initialized: bool,
    /// Whether nothing runs that should, and nothing will: the pod has come to its end.
    pub completed: bool,
}

/// A container to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopContainer {
    /// Which.
    pub id: ContainerId,
    /// Its name.
    pub name: String,
    /// Why, for the log.
    pub reason: String,
    /// What kind of reason that is.
    pub cause: StopCause,
    /// How long it has: the pod's time, or that of the probe that it failed.
    pub grace: Duration,
}

/// Why a container is stopped, as it is told to the API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopCause {
    /// The pod ends, or begins anew.
    Pod,
    /// Its specification is another.
    Changed,
    /// The runtime lost track of it.
    Lost,
    /// Its postStart hook failed.
    Hook,
    /// A probe failed.
    Probe {
        /// Which.
        kind: ProbeKind,
        /// Whether another container follows.
        restarted: bool,
    },
}

/// A sandbox to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateSandbox {
    /// Its attempt number.
    pub attempt: u32,
    /// Why, for the log.
    pub reason: String,
}

/// A container to make and start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartContainer {
    /// What kind of container it is.
    pub kind: ContainerKind,
    /// Its place in `initContainers` or `containers`.
    pub index: usize,
    /// Its name.
    pub name: String,
    /// The sandbox it belongs into.
    pub sandbox_id: SandboxId,
    /// The attempt number, which is also the restart count that it carries.
    pub attempt: u32,
    /// The delay in seconds to note on it, see [`super::backoff`].
    pub next_delay_seconds: u64,
    /// A container that was made for this and never started: start it instead of making another.
    pub made: Option<ContainerId>,
}

/// A container that crashed and waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitingContainer {
    /// Its name.
    pub name: String,
    /// When it is started again.
    pub until: Timestamp,
    /// The delay that leads to it.
    pub delay: Duration,
}

impl PodActions {
    /// The first time at which something is due without an event.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.waiting.iter().map(|w| w.until).min()
    }

    /// Whether there is nothing to do but to start ephemeral containers, which nothing of the pod waits for.
    pub fn is_ephemeral(&self) -> bool {
        self.only_starts() && self.start.iter().all(|start| start.kind == ContainerKind::Ephemeral)
    }

    /// Whether there is nothing to do now.
    pub fn is_empty(&self) -> bool {
        self.only_starts() && self.start.is_empty()
    }

    fn only_starts(&self) -> bool {
        self.stop.is_empty() && self.stop_sandboxes.is_empty() && self.create_sandbox.is_none()
    }
}

/// What is known of a pod beside what is seen of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Ephemeral containers that were started, see [`super::ephemeral`].
    pub begun: BTreeSet<String>,
    /// Containers whose resources change by starting them anew, see [`super::resize`].
    pub outgrown: BTreeSet<ContainerId>,
}

/// Compares what is wanted with what is there.
pub fn compute_pod_actions(
    pod: &Pod,
    observation: &PodObservation,
    probes: &ProbeSnapshot,
    ledger: &Ledger,
    backoff: &RestartBackoff,
    now: Timestamp,
) -> PodActions {
    let pass = Pass { pod, observation, probes, ledger, backoff, now };
    match sandbox_fault(pod, observation) {
        Some(fault) => pass.without_sandbox(fault),
        None => match observation.newest_sandbox() {
            Some(sandbox) => pass.in_sandbox(sandbox),
            // sandbox_fault answers that there is none.
            None => PodActions::default(),
        },
    }
}

/// Why the newest sandbox cannot be used; `None` if it can.
fn sandbox_fault(pod: &Pod, observation: &PodObservation) -> Option<String> {
    let Some(sandbox) = observation.newest_sandbox() else { return Some("the pod has no sandbox".into()) };
    if sandbox.state != SandboxState::Ready {
        return Some(format!("sandbox {} is not ready", sandbox.id));
    }
    if sandbox.host_network != pod.host_network() {
        return Some("hostNetwork changed".into());
    }
    if !sandbox.host_network && sandbox.ips.is_empty() {
        return Some(format!("sandbox {} has no address", sandbox.id));
    }
    let ours = sandbox_fingerprint(pod);
    let changed = sandbox.fingerprint.as_ref().map(|theirs| ours.changed_fields(theirs)).unwrap_or_default();
    (!changed.is_empty()).then(|| format!("{} changed", changed.join(", ")))
}

struct Pass<'a> {
    pod: &'a Pod,
    observation: &'a PodObservation,
    probes: &'a ProbeSnapshot,
    ledger: &'a Ledger,
    backoff: &'a RestartBackoff,
    now: Timestamp,
}

/// What a container that should run needs.
enum Need {
    Nothing,
    Start(StartContainer),
    Wait(WaitingContainer),
    /// It ended and stays so.
    Done,
}

impl Pass<'_> {
    /// No usable sandbox: stop what is left of the old one; make a new one if anything is to run in it.
    fn without_sandbox(&self, fault: String) -> PodActions {
        let mut actions = PodActions { stop: self.stop_live(|_| true, &fault), ..PodActions::default() };
        // A sandbox that is not ready may still hold an address; stopping it twice does no harm.
        actions.stop_sandboxes = self
            .observation
            .sandboxes
            .iter()
            .enumerate()
            .filter(|(place, sandbox)| *place == 0 || sandbox.state == SandboxState::Ready)
            .map(|(_, sandbox)| sandbox.id.clone())
            .collect();
        if self.wants_sandbox() {
            let attempt = self.observation.newest_sandbox().map_or(0, |s| s.attempt.saturating_add(1));
            actions.create_sandbox = Some(CreateSandbox { attempt, reason: fault });
        } else {
            actions.completed = true;
        }
        actions
    }

    /// Whether a pod without a sandbox has anything left to run.
    fn wants_sandbox(&self) -> bool {
        let policy = self.pod.restart_policy();
        let spec = self.pod.spec();
        let ran_before = !self.observation.containers.is_empty();
        let own_policies = spec.containers.iter().any(|c| c.restart_policy.is_some());
        // What a pod that is never restarted had not yet begun when its sandbox died is not begun in
        // another one either.
        if policy == RestartPolicy::Never && ran_before && !own_policies {
            return false;
        }
        let failed_init = spec.init_containers.iter().flatten().any(|container| {
            init_kind(container) == ContainerKind::Init
                && self.observation.latest(&container.name).is_some_and(|latest| {
                    latest.exit_code != 0 && self.is_done(container, ContainerKind::Init, latest)
                })
        });
        !failed_init
            && spec.containers.iter().any(|container| {
                self.observation
                    .latest(&container.name)
                    .is_none_or(|latest| !self.is_done(container, ContainerKind::Regular, latest))
            })
    }

    fn is_done(&self, container: &Container, kind: ContainerKind, latest: &ObservedContainer) -> bool {
        latest.state == ContainerState::Exited
            && should_restart(self.pod.restart_policy(), container, kind, latest.exit_code)
                == RestartDecision::Stay
    }

    fn in_sandbox(&self, sandbox: &ObservedSandbox) -> PodActions {
        let mut actions = PodActions {
            stop: self.stop_live(|c| c.sandbox_id != sandbox.id, "it is in a sandbox that was replaced"),
            stop_sandboxes: self
                .observation
                .sandboxes
                .iter()
                .skip(1)
                .filter(|other| other.state == SandboxState::Ready)
                .map(|other| other.id.clone())
                .collect(),
            ..PodActions::default()
        };
        actions.stop.extend(self.stop_live(
            |c| {
                c.sandbox_id == sandbox.id
                    && self.observation.latest_in(&c.name, &sandbox.id).is_some_and(|l| l.id != c.id)
            },
            "a newer container of its name exists",
        ));
        let init_failed = self.init_containers(sandbox, &mut actions);
        if actions.initialized {
            self.regular_containers(sandbox, &mut actions);
        }
        if init_failed || actions.completed {
            actions.completed = true;
            actions.start.clear();
            actions.waiting.clear();
        } else {
            self.ephemeral_containers(sandbox, &mut actions);
        }
        actions
    }

    /// Goes through the init containers in order, up to the first that is not through. Answers whether one
    /// failed for good.
    fn init_containers(&self, sandbox: &ObservedSandbox, actions: &mut PodActions) -> bool {
        let spec = self.pod.spec();
        let inits = spec.init_containers.as_deref().unwrap_or_default();
        let in_sandbox = |container: &Container| self.observation.latest_in(&container.name, &sandbox.id);
        // Records of ended containers may have been removed. What came after a container proves that it
        // was through.
        let regular_begun = spec.containers.iter().any(|c| in_sandbox(c).is_some());
        let furthest = inits.iter().rposition(|c| in_sandbox(c).is_some());
        for (index, container) in inits.iter().enumerate() {
            let kind = init_kind(container);
            let observed = in_sandbox(container);
            let passed = regular_begun || furthest.is_some_and(|furthest| index < furthest);
            if kind == ContainerKind::Init {
                match observed {
                    None if passed => continue,
                    Some(c) if c.state == ContainerState::Exited && (regular_begun || c.exit_code == 0) => {
                        continue;
                    }
                    _ => {}
                }
            }
            match self.need(sandbox, container, kind, index, actions) {
                // What comes after a sidecar waits until that has started.
                Need::Nothing
                    if kind == ContainerKind::Sidecar
                        && (passed || observed.is_some_and(|c| self.probes.started(container, &c.id))) =>
                {
                    continue;
                }
                Need::Nothing => {}
                Need::Start(start) => actions.start.push(start),
                Need::Wait(waiting) => actions.waiting.push(waiting),
                Need::Done => return true,
            }
            // A sidecar that crashed after the pod was up holds nobody back.
            if !(passed && kind == ContainerKind::Sidecar) {
                return false;
            }
        }
        actions.initialized = true;
        false
    }

    fn regular_containers(&self, sandbox: &ObservedSandbox, actions: &mut PodActions) {
        let containers = &self.pod.spec().containers;
        let mut done = 0;
        // As with kubelet, which waits for a postStart hook before it starts the next container.
        let mut hook_runs = false;
        for (index, container) in containers.iter().enumerate() {
            let latest = self.observation.latest_in(&container.name, &sandbox.id);
            let need = self.need(sandbox, container, ContainerKind::Regular, index, actions);
            hook_runs |= latest.is_some_and(|c| self.probes.hook_runs(&c.id));
            match need {
                Need::Nothing => {}
                Need::Start(_) if hook_runs => {}
                Need::Start(start) => actions.start.push(start),
                Need::Wait(waiting) => actions.waiting.push(waiting),
                Need::Done => done += 1,
            }
        }
        actions.completed = done == containers.len();
    }

    /// Starts the ephemeral containers that never were. They wait for no other but for the one whose processes
    /// they are to see. They come last, so that they hold up nobody: the image of one may be slow to come.
    fn ephemeral_containers(&self, sandbox: &ObservedSandbox, actions: &mut PodActions) {
        for (index, own) in self.pod.spec().ephemeral_containers.iter().flatten().enumerate() {
            let (attempt, made) = match self.observation.latest(&own.name) {
                None if self.ledger.begun.contains(&own.name) => continue,
                None => (0, None),
                Some(c) if c.state == ContainerState::Created && c.sandbox_id == sandbox.id => {
                    (c.attempt, Some(c.id.clone()))
                }
                Some(c) if c.state == ContainerState::Created => (c.attempt.saturating_add(1), None),
                Some(_) => continue,
            };
            let target = own.target_container_name.as_deref().unwrap_or_default();
            let comes = actions.start.iter().any(|start| start.name == target)
                || actions.waiting.iter().any(|waiting| waiting.name == target);
            if !comes {
                actions.start.push(StartContainer {
                    kind: ContainerKind::Ephemeral,
                    index,
                    name: own.name.clone(),
                    sandbox_id: sandbox.id.clone(),
                    attempt,
                    next_delay_seconds: 0,
                    made,
                });
            }
        }
    }

    /// What one container needs in the present sandbox. A running one that no longer is as the
    /// specification says is put on the stop list, and is started anew in the same pass, whatever the
    /// restart policy.
    fn need(
        &self,
        sandbox: &ObservedSandbox,
        container: &Container,
        kind: ContainerKind,
        index: usize,
        actions: &mut PodActions,
    ) -> Need {
        let start = |attempt: u32, next_delay_seconds: u64, made: Option<ContainerId>| {
            Need::Start(StartContainer {
                kind,
                index,
                name: container.name.clone(),
                sandbox_id: sandbox.id.clone(),
                attempt,
                next_delay_seconds,
                made,
            })
        };
        // An init container runs once in every sandbox; a regular one that ended for good does not.
        let latest = match kind {
            ContainerKind::Init => self.observation.latest_in(&container.name, &sandbox.id),
            _ => self
                .observation
                .latest_in(&container.name, &sandbox.id)
                .or_else(|| self.observation.latest(&container.name)),
        };
        let attempt = self
            .observation
            .latest(&container.name)
            .map_or(0, |c| c.attempt.max(c.restart_count).saturating_add(1));
        let Some(latest) = latest else { return start(attempt, 0, None) };
        let here = latest.sandbox_id == sandbox.id;
        match latest.state {
            ContainerState::Running | ContainerState::Unknown if !here => start(attempt, 0, None),
            ContainerState::Created => {
                let unchanged = here && changed_fields(self.pod, container, latest).is_empty();
                let delay = latest.restart_delay_seconds.unwrap_or(0);
                if unchanged && latest.fingerprint.is_some() {
                    start(latest.attempt, delay, Some(latest.id.clone()))
                } else {
                    start(attempt, delay, None)
                }
            }
            ContainerState::Running => {
                let mut changed = changed_fields(self.pod, container, latest);
                if self.ledger.outgrown.contains(&latest.id) {
                    changed.push("resources".to_owned());
                }
                if !changed.is_empty() {
                    let why = format!("{} changed", changed.join(", "));
                    actions.stop.push(self.stop(latest, why, StopCause::Changed));
                    return start(attempt, 0, None);
                }
                // Kubelet starts probes and hooks of regular containers and sidecars only.
                if kind == ContainerKind::Init || !here {
                    return Need::Nothing;
                }
                match self.probes.unhealthy(container, &latest.id) {
                    None => Need::Nothing,
                    Some(unhealthy) => {
                        match self.end_unhealthy(container, kind, latest, &unhealthy, actions) {
                            Some(next_delay_seconds) => start(attempt, next_delay_seconds, None),
                            None => Need::Nothing,
                        }
                    }
                }
            }
            ContainerState::Unknown => {
                let why = "the runtime lost track of it".to_owned();
                actions.stop.push(self.stop(latest, why, StopCause::Lost));
                start(attempt, self.backoff.initial.as_secs(), None)
            }
            ContainerState::Exited => {
                if self.is_done(container, kind, latest) {
                    return Need::Done;
                }
                if !changed_fields(self.pod, container, latest).is_empty() {
                    return start(attempt, 0, None);
                }
                let plan = self.backoff.plan(latest, self.now);
                if plan.not_before > self.now {
                    return Need::Wait(WaitingContainer {
                        name: container.name.clone(),
                        until: plan.not_before,
                        delay: plan.delay,
                    });
                }
                start(attempt, plan.next_delay_seconds, None)
            }
        }
    }

    /// Stops for every container that may be alive and that is meant.
    fn stop_live(&self, meant: impl Fn(&ObservedContainer) -> bool, reason: &str) -> Vec<StopContainer> {
        self.observation
            .containers
            .iter()
            .filter(|c| matches!(c.state, ContainerState::Running | ContainerState::Unknown) && meant(c))
            .map(|c| self.stop(c, reason.to_owned(), StopCause::Pod))
            .collect()
    }

    fn stop(&self, container: &ObservedContainer, reason: String, cause: StopCause) -> StopContainer {
        StopContainer {
            id: container.id.clone(),
            name: container.name.to_string(),
            reason,
            cause,
            grace: pod_grace(self.pod),
        }
    }

    /// Stops a container that failed a probe or its hook. Answers the delay to note on its successor, if one is
    /// to be started in the same pass: whatever its exit code will be, unless nothing is ever restarted or
    /// the crash loop's delay is not over. Then its end is judged as any other.
    fn end_unhealthy(
        &self,
        container: &Container,
        kind: ContainerKind,
        latest: &ObservedContainer,
        unhealthy: &Unhealthy,
        actions: &mut PodActions,
    ) -> Option<u64> {
        let own = container.restart_policy.as_deref().and_then(RestartPolicy::parse);
        let never = kind != ContainerKind::Sidecar
            && own.unwrap_or(self.pod.restart_policy()) == RestartPolicy::Never;
        let again = if never { "" } else { ", will be restarted" };
        // A pod that is deleted has the time that the deletion gives, whatever a probe says.
        let own_grace = unhealthy.grace.filter(|_| self.pod.metadata.deletion_grace_period_seconds.is_none());
        let cause =
            unhealthy.probe.map_or(StopCause::Hook, |kind| StopCause::Probe { kind, restarted: !never });
        actions.stop.push(StopContainer {
            grace: own_grace.unwrap_or_else(|| pod_grace(self.pod)),
            ..self.stop(latest, format!("{}{again}", unhealthy.reason), cause)
        });
        let plan =
            self.backoff.plan(&ObservedContainer { finished_at: Some(self.now), ..latest.clone() }, self.now);
        (unhealthy.restarts && !never && plan.not_before <= self.now).then_some(plan.next_delay_seconds)
    }
}

#[cfg(test)]
#[path = "pod_actions_tests.rs"]
mod tests;
