//! What probes and hooks say of containers, which probes are due to run, and what follows from them.
//!
//! The rules are kubelet's (pkg/kubelet/prober): a result counts once it came as often in a row as its
//! threshold says; before the first, a container is alive and not ready; a startup probe holds the others
//! back until it has passed, and is over then; after a failed startup or liveness probe a container is not
//! probed any more, for it is about to end. All is known by container id: a new container begins anew.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use serde::{Deserialize, Serialize};

use super::status::ProbeState;
use crate::api::{
    ContainerId, ContainerKind, ContainerState, ObservedContainer, PodExt as _, PodObservation,
};

/// A container's three probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    /// Has it come up?
    Startup,
    /// Is it to be restarted?
    Liveness,
    /// Can it serve?
    Readiness,
}

impl ProbeKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Startup, Self::Liveness, Self::Readiness];

    /// A container's probe of this kind.
    pub fn of(self, container: &Container) -> Option<&Probe> {
        match self {
            Self::Startup => container.startup_probe.as_ref(),
            Self::Liveness => container.liveness_probe.as_ref(),
            Self::Readiness => container.readiness_probe.as_ref(),
        }
    }

    /// As it stands in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Liveness => "liveness",
            Self::Readiness => "readiness",
        }
    }
}

/// What one run of a probe gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeResult {
    /// It passed; with a word of warning where there is something to say.
    Success(String),
    /// It did not, and why.
    Failure(String),
    /// It could not be run, which says nothing of the container. Does not count, as with kubelet.
    Unknown(String),
}

/// Results in a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ProbeRow {
    last: Option<bool>,
    count: u32,
}

impl ProbeRow {
    /// Whether the last result was a failure.
    pub fn last_failed(&self) -> bool {
        self.last == Some(false)
    }

    /// Takes a result, and answers the verdict if there now are enough of it in a row.
    pub fn step(&mut self, probe: &Probe, passed: bool) -> Option<bool> {
        if self.last == Some(passed) {
            self.count = self.count.saturating_add(1);
        } else {
            *self = Self { last: Some(passed), count: 1 };
        }
        let needed =
            if passed { probe.success_threshold.unwrap_or(1) } else { probe.failure_threshold.unwrap_or(3) };
        (self.count >= u32::try_from(needed.max(1)).unwrap_or(1)).then_some(passed)
    }
}

/// How long the first run waits after the container's start: the probe's delay. A liveness probe, which
/// nothing waits for, begins at a point of its period that `spread` (any number, such as a hash of the id)
/// chooses, so that many containers are not probed all at once; so does every probe of a container that runs
/// for longer than its delay already, for then the agent has just begun.
pub fn first_run(probe: &Probe, kind: ProbeKind, running: Duration, spread: u64) -> Duration {
    let delay = seconds(probe.initial_delay_seconds, 0);
    let left = delay.saturating_sub(running);
    let adopted = running > delay + Duration::from_secs(1);
    if kind == ProbeKind::Liveness || adopted {
        let period = u64::try_from(period(probe).as_millis()).unwrap_or(u64::MAX).max(1);
        return left + Duration::from_millis(spread % period);
    }
    left
}

/// Time between runs.
pub fn period(probe: &Probe) -> Duration {
    seconds(probe.period_seconds, 10).max(Duration::from_secs(1))
}

/// Time for a run.
pub fn timeout(probe: &Probe) -> Duration {
    seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1))
}

fn seconds(given: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(given.map_or(default, |s| u64::try_from(s).unwrap_or(0)))
}

/// How a container's postStart hook stands. One that was done, or that an agent before this one had begun, is
/// not listed: as with kubelet it is not run a second time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostStart {
    /// It runs.
    Running,
    /// It failed, and why.
    Failed(String),
}

/// The verdicts on a container that are kept over a restart of the agent. A failed startup or liveness probe
/// is not: the next agent finds it out again, or finds the container ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its startup probe has passed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub started: bool,
    /// Its readiness probe passes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ready: bool,
}

/// The verdicts on a container; `None` before the first of a kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdicts {
    /// The startup probe's.
    pub startup: Option<bool>,
    /// The liveness probe's.
    pub liveness: Option<bool>,
    /// The readiness probe's.
    pub readiness: Option<bool>,
    /// What the last failed run of any said.
    pub said: Arc<str>,
}

impl Verdicts {
    /// Notes a verdict. Answers whether it is another than before.
    pub fn set(&mut self, kind: ProbeKind, passed: bool) -> bool {
        let place = match kind {
            ProbeKind::Startup => &mut self.startup,
            ProbeKind::Liveness => &mut self.liveness,
            ProbeKind::Readiness => &mut self.readiness,
        };
        place.replace(passed) != Some(passed)
    }

    /// What is kept of it.
    pub fn kept(&self) -> Kept {
        Kept { started: self.startup == Some(true), ready: self.readiness == Some(true) }
    }
}

impl From<Kept> for Verdicts {
    fn from(kept: Kept) -> Self {
        Self {
            startup: kept.started.then_some(true),
            readiness: kept.ready.then_some(true),
            ..Self::default()
        }
    }
}

/// What probes and hooks say of a pod's containers, by container id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProbeSnapshot {
    /// Verdicts.
    pub verdicts: BTreeMap<ContainerId, Verdicts>,
    /// postStart hooks.
    pub hooks: BTreeMap<ContainerId, PostStart>,
}

/// Why a running container is to be stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unhealthy {
    /// In words, for the log.
    pub reason: String,
    /// The probe that it failed; without one its postStart hook failed.
    pub probe: Option<ProbeKind>,
    /// How long it has to stop, where the probe says so.
    pub grace: Option<Duration>,
    /// Whether a successor is started along with the stop. One whose hook failed waits for the end instead,
    /// and is judged by its exit code, as with kubelet.
    pub restarts: bool,
}

impl ProbeSnapshot {
    /// Whether the container's postStart hook runs.
    pub fn hook_runs(&self, id: &ContainerId) -> bool {
        matches!(self.hooks.get(id), Some(PostStart::Running))
    }

    /// Whether a running container has come up: hook done, startup probe passed.
    pub fn started(&self, container: &Container, id: &ContainerId) -> bool {
        !self.hooks.contains_key(id)
            && (container.startup_probe.is_none()
                || self.verdicts.get(id).is_some_and(|v| v.startup == Some(true)))
    }

    fn ready(&self, container: &Container, id: &ContainerId) -> bool {
        self.started(container, id)
            && (container.readiness_probe.is_none()
                || self.verdicts.get(id).is_some_and(|v| v.readiness == Some(true)))
    }

    /// Why a running container is to be stopped, if it is.
    pub fn unhealthy(&self, container: &Container, id: &ContainerId) -> Option<Unhealthy> {
        if let Some(PostStart::Failed(why)) = self.hooks.get(id) {
            return Some(Unhealthy {
                reason: format!("its postStart hook failed: {why}"),
                probe: None,
                grace: None,
                restarts: false,
            });
        }
        let verdicts = self.verdicts.get(id)?;
        let failed = [(ProbeKind::Liveness, verdicts.liveness), (ProbeKind::Startup, verdicts.startup)];
        let (kind, probe) = failed
            .into_iter()
            .filter(|(_, verdict)| *verdict == Some(false))
            .find_map(|(kind, _)| Some((kind, kind.of(container)?)))?;
        Some(Unhealthy {
            reason: format!("failed {} probe: {}", kind.as_str(), verdicts.said),
            probe: Some(kind),
            grace: probe
                .termination_grace_period_seconds
                .map(|s| Duration::from_secs(u64::try_from(s).unwrap_or(0))),
            restarts: true,
        })
    }

    /// What the status says of each container, by name.
    pub fn states(&self, pod: &Pod, observation: &PodObservation) -> BTreeMap<String, ProbeState> {
        probed(pod, observation)
            .map(|(_, _, container, seen)| {
                let state = ProbeState {
                    started: self.started(container, &seen.id),
                    ready: self.ready(container, &seen.id),
                };
                (container.name.clone(), state)
            })
            .collect()
    }

    /// Drops what is said of containers that `keep` does not hold.
    pub fn retain(&mut self, keep: impl Fn(&ContainerId) -> bool) {
        self.verdicts.retain(|id, _| keep(id));
        self.hooks.retain(|id, _| keep(id));
    }

    /// The first running container that is not ready, and why.
    pub fn first_unready(&self, pod: &Pod, observation: &PodObservation) -> Option<String> {
        let (_, _, container, seen) =
            probed(pod, observation).find(|(_, _, container, seen)| !self.ready(container, &seen.id))?;
        let name = &container.name;
        if self.hook_runs(&seen.id) {
            return Some(format!("the postStart hook of container {name:?} runs"));
        }
        let what = if self.started(container, &seen.id) { "ready" } else { "started" };
        let said = self.verdicts.get(&seen.id).map(|v| &*v.said).filter(|said| !said.is_empty());
        Some(match said {
            Some(said) => format!("container {name:?} is not {what}: {said}"),
            None => format!("container {name:?} is not {what} yet by its probe"),
        })
    }
}

/// A probe to be run for as long as it is wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct WantedProbe {
    /// Of which container.
    pub id: ContainerId,
    /// Its place in `initContainers` (a sidecar) or `containers`.
    pub index: usize,
    /// Whether it is a sidecar.
    pub sidecar: bool,
    /// Which of its probes.
    pub kind: ProbeKind,
    /// When the container started.
    pub started_at: Timestamp,
    /// The pod's address.
    pub ip: Option<IpAddr>,
}

impl WantedProbe {
    /// The container in the pod's specification.
    pub fn container<'p>(&self, pod: &'p Pod) -> Option<&'p Container> {
        let spec = pod.spec();
        if self.sidecar {
            spec.init_containers.as_ref()?.get(self.index)
        } else {
            spec.containers.get(self.index)
        }
    }
}

/// The probes that are to run now. Of a pod that is being stopped only readiness is still asked for.
pub fn wanted_probes(
    pod: &Pod,
    observation: &PodObservation,
    snapshot: &ProbeSnapshot,
    host_ips: &[IpAddr],
    stopping: bool,
) -> Vec<WantedProbe> {
    let sandbox = observation.newest_sandbox();
    let ip = if pod.host_network() { host_ips.first() } else { sandbox.and_then(|s| s.ips.first()) };
    let mut wanted = Vec::new();
    for (kind, index, container, seen) in probed(pod, observation) {
        let condemned = snapshot.unhealthy(container, &seen.id).is_some();
        if sandbox.is_none_or(|s| s.id != seen.sandbox_id) || snapshot.hook_runs(&seen.id) {
            continue;
        }
        let started = snapshot.started(container, &seen.id);
        for probe in ProbeKind::ALL {
            let due = probe.of(container).is_some()
                && match probe {
                    ProbeKind::Startup => !started && !condemned && !stopping,
                    ProbeKind::Liveness => started && !condemned && !stopping,
                    ProbeKind::Readiness => started,
                };
            if due {
                wanted.push(WantedProbe {
                    id: seen.id.clone(),
                    index,
                    sidecar: kind == ContainerKind::Sidecar,
                    kind: probe,
                    started_at: seen.started_at.unwrap_or(seen.created_at),
                    ip: ip.copied(),
                });
            }
        }
    }
    wanted
}

/// The running containers that may have probes, each with its kind and its place in its list.
fn probed<'a>(
    pod: &'a Pod,
    observation: &'a PodObservation,
) -> impl Iterator<Item = (ContainerKind, usize, &'a Container, &'a ObservedContainer)> {
    let spec = pod.spec();
    let init = spec.init_containers.iter().flatten().enumerate();
    let sidecars = init
        .filter(|(_, c)| crate::api::pod::init_kind(c) == ContainerKind::Sidecar)
        .map(|(index, c)| (ContainerKind::Sidecar, index, c));
    let regular = spec.containers.iter().enumerate().map(|(index, c)| (ContainerKind::Regular, index, c));
    sidecars.chain(regular).filter_map(|(kind, index, container)| {
        let seen = observation.latest(&container.name)?;
        (seen.state == ContainerState::Running).then_some((kind, index, container, seen))
    })
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
