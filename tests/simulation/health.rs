//! What probes and hooks have told the agents, and what may follow from it: an independent reading of the
//! API. What an agent was never told, because it was killed or gave the call up, does not count.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container, ExecAction, LifecycleHandler, Probe};
use nodectl::api::{PodExt as _, view::PodView};

use crate::world::{Is, Ms, State};

/// An agent that is not kept from looking knows within this time that a container has ended, and one that
/// meets faults after the longest calls have run out.
const NOTICED: [Ms; 2] = [15_000, 300_000];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Startup,
    Liveness,
    Readiness,
    PostStart,
    PreStop,
}

/// What was told of containers, by their ids.
#[derive(Default)]
pub(crate) struct Health(HashMap<String, Told>);

#[derive(Default)]
struct Told {
    /// Results in a row that the present agent was told.
    rows: BTreeMap<Kind, (bool, i32)>,
    /// The present agent knows that it has failed: a startup or liveness probe, or its postStart hook.
    failed: bool,
    /// A probe of it has failed for good, whoever was told.
    ever_failed: bool,
    /// Its startup probe has passed.
    started: bool,
    /// Its readiness probe has passed.
    passed: bool,
    /// It was shown as ready, and its probe has not failed since.
    shown: bool,
    /// Its postStart hook was begun.
    post_start: bool,
    /// When its preStop hook was first begun.
    pre_stop: Option<Ms>,
    /// The present agent has begun the preStop hook.
    pre_stop_begun: bool,
}

impl Health {
    /// A new agent knows nothing but what was shown.
    pub(crate) fn new_agent(&mut self) {
        for told in self.0.values_mut() {
            told.rows.clear();
            told.failed = false;
            told.pre_stop_begun = false;
        }
    }

    /// Whether the present agent has a reason to stop the container.
    pub(crate) fn failed(&self, id: &str) -> bool {
        self.0.get(id).is_some_and(|told| told.failed)
    }

    /// Whether some agent had to stop the container for a probe.
    pub(crate) fn ever_failed(&self, id: &str) -> bool {
        self.0.get(id).is_some_and(|told| told.ever_failed)
    }

    /// When its end began with its hook.
    pub(crate) fn pre_stop(&self, id: &str) -> Option<Ms> {
        self.0.get(id)?.pre_stop
    }
}

fn word(exec: Option<&ExecAction>) -> Option<&str> {
    exec?.command.as_ref()?.first().map(String::as_str)
}

/// Which of a container's commands this is, and how many successes and failures in a row count.
fn kind_of(spec: &Container, command: &str) -> Option<(Kind, i32, i32)> {
    let probes = [
        (Kind::Startup, &spec.startup_probe),
        (Kind::Liveness, &spec.liveness_probe),
        (Kind::Readiness, &spec.readiness_probe),
    ];
    let is = |probe: &Probe| word(probe.exec.as_ref()) == Some(command);
    if let Some((kind, probe)) =
        probes.into_iter().find_map(|(kind, probe)| Some((kind, probe.as_ref().filter(|probe| is(probe))?)))
    {
        let thresholds = (probe.success_threshold.unwrap_or(1), probe.failure_threshold.unwrap_or(3));
        return Some((kind, thresholds.0, thresholds.1));
    }
    let hooks = spec.lifecycle.as_ref()?;
    let is = |hook: &Option<LifecycleHandler>| {
        hook.as_ref().and_then(|hook| word(hook.exec.as_ref())) == Some(command)
    };
    if is(&hooks.post_start) {
        Some((Kind::PostStart, 1, 1))
    } else {
        is(&hooks.pre_stop).then_some((Kind::PreStop, 1, 1))
    }
}

impl State {
    fn spec_of(&self, id: &str) -> Option<Container> {
        let container = self.containers.get(id)?;
        let pod = self.oracle.pod(&container.uid)?;
        pod.all_containers().into_iter().find(|(_, c)| c.name == container.name).map(|(_, c)| c.clone())
    }

    /// Judges the wish to run a command in a container.
    pub(crate) fn check_exec(&mut self, id: &str, command: &str) {
        let Some(spec) = self.spec_of(id) else { return };
        let Some((kind, ..)) = kind_of(&spec, command) else { return };
        let now = self.now();
        let noticed = NOTICED[usize::from(!self.faults.are_none() || self.was_away)];
        let container = &self.containers[id];
        let ended = (container.is == Is::Exited).then(|| now - container.finished);
        let told = self.oracle.health.0.entry(id.to_owned()).or_default();
        let wrong = match kind {
            Kind::Liveness | Kind::Readiness if spec.startup_probe.is_some() && !told.started => {
                Some("is probed before its startup probe has passed")
            }
            Kind::PostStart if std::mem::replace(&mut told.post_start, true) => {
                Some("has its postStart hook run a second time")
            }
            Kind::PreStop if std::mem::replace(&mut told.pre_stop_begun, true) => {
                Some("has its preStop hook begun again")
            }
            Kind::PreStop if ended.is_some_and(|ago| ago > noticed) => {
                Some("has its preStop hook run long after it ended")
            }
            _ => None,
        };
        if kind == Kind::PreStop {
            told.pre_stop.get_or_insert(now);
        }
        if let Some(wrong) = wrong {
            self.blame(format!("container {} {id} {wrong}", spec.name));
        }
        if kind == Kind::PreStop {
            self.check_stop(id);
        }
    }

    /// The agent is told what a command in a container came to; `None` if that is not known.
    pub(crate) fn exec_told(&mut self, id: &str, command: &str, passed: Option<bool>) {
        let Some(spec) = self.spec_of(id) else { return };
        let Some((kind, successes, failures)) = kind_of(&spec, command) else { return };
        let told = self.oracle.health.0.entry(id.to_owned()).or_default();
        match kind {
            Kind::PreStop => return,
            Kind::PostStart => {
                told.failed |= passed != Some(true);
                return;
            }
            Kind::Startup | Kind::Liveness | Kind::Readiness => {}
        }
        let Some(passed) = passed else { return };
        let row = told.rows.entry(kind).or_insert((passed, 0));
        *row = if row.0 == passed { (passed, row.1 + 1) } else { (passed, 1) };
        if row.1 < if passed { successes } else { failures } {
            return;
        }
        match (kind, passed) {
            (Kind::Startup, true) => told.started = true,
            (Kind::Startup | Kind::Liveness, false) => {
                told.failed = true;
                told.ever_failed = true;
            }
            (Kind::Readiness, true) => told.passed = true,
            (Kind::Readiness, false) => told.shown = false,
            _ => {}
        }
    }

    /// Judges what is shown of a pod.
    pub(crate) fn check_shown(&mut self, view: &PodView) {
        let lists = [&view.status.container_statuses, &view.status.init_container_statuses];
        for status in lists.into_iter().flatten().flatten() {
            let id = status.container_id.as_deref().and_then(|id| id.rsplit('/').next()).unwrap_or_default();
            let Some(spec) = self.spec_of(id) else { continue };
            if spec.restart_policy.is_none()
                && view.pod.spec().init_containers.iter().flatten().any(|c| c.name == spec.name)
            {
                continue;
            }
            let runs = self.containers[id].is == Is::Running
                && status.state.as_ref().is_some_and(|state| state.running.is_some());
            let told = self.oracle.health.0.entry(id.to_owned()).or_default();
            let early = spec.readiness_probe.is_some() && !told.passed
                || spec.startup_probe.is_some() && !told.started;
            let wrong = if status.ready && early {
                Some("is shown as ready before its probes have passed")
            } else if !status.ready && runs && told.shown {
                Some("is no longer shown as ready, and its probe has not failed")
            } else {
                None
            };
            told.shown |= status.ready;
            if let Some(wrong) = wrong {
                told.shown = false;
                self.blame(format!("container {} {id} {wrong}", spec.name));
            }
        }
    }
}
