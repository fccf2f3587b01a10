//! What is shown of a pod: its status, its step, why it waits and what comes next.

use std::sync::Arc;

use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta};

use super::worker::{Next, PodWorker};
use crate::{
    api::{
        PodExt as _, PodObservation,
        view::{ErrorView, NextView, PodEnd, PodStep, PodView},
    },
    policy::{
        lifecycle::PodLifecycle,
        pod_actions::PodActions,
        status::{PodFailure, StatusInput, WaitingReason, pod_status, refused_status},
    },
};

impl PodWorker {
    /// Notes where the pod stands. The time stays while the step does.
    pub(super) fn at(&mut self, step: PodStep, detail: impl Into<String>) {
        let detail = detail.into();
        if self.progress.step != step || self.progress.detail != detail {
            tracing::debug!(pod = %self.full_name, ?step, "{detail}");
            self.progress.since = self.now();
            self.progress.step = step;
            self.progress.detail = detail;
        }
    }

    /// Notes where the pod stands and shows it at once, ahead of something that may take long.
    pub(super) fn show(&mut self, step: PodStep, detail: impl Into<String>) {
        self.at(step, detail);
        self.publish(&Next::Told);
    }

    /// Notes where a pod stands for which nothing is to be done now.
    pub(super) fn at_rest(&mut self, pod: &Pod, observation: &PodObservation, actions: &PodActions) {
        let first = actions.waiting.iter().min_by_key(|waiting| waiting.until);
        if let Some(first) = first {
            self.at(
                PodStep::CrashLoopBackOff,
                format!("container {:?} crashed and is started again after {:?}", first.name, first.delay),
            );
        } else if actions.initialized {
            let unready = self.probes.first_unready(pod, observation);
            self.at(PodStep::Running, unready.unwrap_or_else(|| "all containers run".to_owned()));
        } else {
            let running = pod
                .spec()
                .init_containers
                .iter()
                .flatten()
                .rev()
                .find(|c| observation.latest(&c.name).is_some())
                .map_or("", |c| c.name.as_str());
            self.at(PodStep::Initializing, format!("init container {running:?} runs"));
        }
    }

    /// Keeps which containers wait out their crash-loop delay.
    pub(super) fn note_crash_loops(&mut self, actions: &PodActions, pod: &Pod) {
        self.crash_loops = actions
            .waiting
            .iter()
            .map(|waiting| {
                let message = format!(
                    "back-off {:?} restarting failed container={} pod={}_{}({})",
                    waiting.delay,
                    waiting.name,
                    self.full_name.name,
                    self.full_name.namespace,
                    pod.uid()
                );
                (waiting.name.clone(), WaitingReason { reason: "CrashLoopBackOff".to_owned(), message })
            })
            .collect();
    }

    /// Shows where the pod stands, with a status from what was last seen.
    pub(super) fn publish(&mut self, next: &Next) {
        let pod = self.pod.clone().unwrap_or_else(|| Arc::new(self.nameplate()));
        let health = self.env.health.current();
        let observation = if health.is_named() { self.observation() } else { self.nothing_seen() };
        let mut waiting = self.failures.waiting();
        waiting.extend(self.crash_loops.clone());
        // Whoever looks at the API server has no other place to see what keeps the pod from being started.
        if let Some(problem) = self.failures.of_pod().filter(|_| !pod.is_static()) {
            let init = pod.spec().init_containers.as_ref().is_some_and(|init| !init.is_empty());
            let reason = if init { "PodInitializing" } else { "ContainerCreating" };
            for (_, container) in pod.all_containers() {
                waiting.entry(container.name.clone()).or_insert_with(|| WaitingReason {
                    reason: reason.to_owned(),
                    message: problem.to_owned(),
                });
            }
        }
        let handler = observation.newest_sandbox().map_or("", |sandbox| &sandbox.runtime_handler);
        let terminal = self.failure.as_ref().map(PodFailure::from);
        // Before the runtime was asked, a container that is not seen is not one that is lost: a pod that
        // succeeded would be told as failed, and a phase that is told as the last one stays.
        let asked = health.is_named() && *self.env.pleg.primed().borrow();
        let refused = !self.admitted && self.lifecycle.is_stopping();
        // What the server was told last holds until then: containers that it knows to run would be taken for lost, and
        // a pod that is not restarted would have failed, for good.
        let told = || self.status.as_deref().or(pod.status.as_ref()).filter(|_| !asked && !pod.is_static());
        let status = match (&terminal, told()) {
            (Some(why), _) if refused && observation.is_gone() => refused_status(&pod, why, self.start_time),
            (_, Some(told)) => told.clone(),
            _ => pod_status(&StatusInput {
                pod: &pod,
                observation: &observation,
                previous: self.status.as_deref(),
                waiting: &waiting,
                terminal: terminal.as_ref(),
                probes: &self.probes.states(&pod, &observation),
                lifecycle_done: asked && matches!(self.lifecycle, PodLifecycle::Terminated { .. }),
                host_ips: &self.env.node.host_ips,
                started_at: Some(self.start_time),
                runtime_name: &health.runtime_name,
                resize: &self.resizing.status,
                recursive_read_only: health.facts(handler).can_recursive_read_only(),
                now: self.now(),
            }),
        };
        if self.status.as_deref() != Some(&status) {
            self.env.starts.shown(&self.uid, &status);
            self.status = Some(Arc::new(status));
        }
        let failed = self.failures.shown().map(|failed| failed.error.clone());
        self.progress.last_error = failed.or_else(|| self.last_crash(&observation));
        self.progress.next = self.next_view(next);
        let Some(status) = self.status.clone() else { return };
        let end = self.end();
        let offline =
            self.env.offline.as_ref().is_some_and(|offline| offline.is_offline()) && !pod.is_static();
        self.env.board.post(PodView {
            uid: self.uid.clone(),
            pod,
            status,
            progress: self.progress.clone(),
            end,
            observed: asked,
            offline,
        });
    }

    fn end(&self) -> PodEnd {
        match self.lifecycle {
            PodLifecycle::Terminated { .. } | PodLifecycle::Finished
                if self.released && self.cgroup_removed =>
            {
                PodEnd::Released
            }
            PodLifecycle::Terminated { .. } | PodLifecycle::Finished => PodEnd::Stopped,
            PodLifecycle::Pending | PodLifecycle::Syncing | PodLifecycle::Terminating { .. } => PodEnd::No,
        }
    }

    /// The last end of a container that is in crash-loop back-off.
    fn last_crash(&self, observation: &PodObservation) -> Option<ErrorView> {
        let dead = self.crash_loops.keys().filter_map(|name| observation.latest(name));
        let last = dead.max_by_key(|container| container.finished_at)?;
        let said = if last.message.is_empty() { String::new() } else { format!(": {}", last.message) };
        Some(ErrorView {
            reason: last.reason.clone(),
            message: format!("container {:?} ended with exit code {}{said}", last.name, last.exit_code),
            at: last.finished_at.unwrap_or(last.created_at),
            count: last.restart_count.saturating_add(1),
            hints: vec![format!("its log is {}", last.log_path)],
        })
    }

    fn next_view(&self, next: &Next) -> Option<NextView> {
        let at = match next {
            Next::At(at) => Some(*at),
            Next::Now | Next::Told => None,
        };
        let what = match self.progress.step {
            PodStep::Finished => return None,
            PodStep::Rejected => "stay failed: remove the manifest and give it again when the cause is gone",
            PodStep::WaitingForPredecessor => "start when that pod is gone",
            PodStep::WaitingForRoom => "start when those pods have ended",
            PodStep::WaitingForRuntime => "go on as soon as the runtime answers",
            PodStep::WaitingForServer => "start when the API server is heard and still has the pod",
            PodStep::WaitingForNetwork => "make the sandbox as soon as the network is ready",
            PodStep::PreparingVolumes => "make the sandbox",
            PodStep::CreatingSandbox => "pull images and start containers",
            PodStep::PullingImage => "start the container",
            PodStep::StartingContainer => "start the next container, if any",
            PodStep::Initializing => "go on when the init container has ended",
            PodStep::Running => "act when a container ends or the manifest changes",
            PodStep::CrashLoopBackOff => "start the container again",
            PodStep::Retrying => "try again",
            PodStep::Terminating => "kill what has not ended at the deadline, then remove the sandbox",
            PodStep::CleaningUp if self.lifecycle.removal().is_none() => {
                "forget the pod when the API server does, which is told that nothing of it is left"
            }
            PodStep::CleaningUp => "forget the pod when nothing of it is left",
        };
        let at = match (self.progress.step, self.lifecycle) {
            (PodStep::Terminating, PodLifecycle::Terminating { deadline, .. }) => Some(deadline),
            _ => at,
        };
        Some(NextView { what: what.to_owned(), at })
    }

    /// A pod of which nothing but the name is known.
    pub(super) fn nameplate(&self) -> Pod {
        Pod {
            metadata: ObjectMeta {
                name: Some(self.full_name.name.to_string()),
                namespace: Some(self.full_name.namespace.to_string()),
                uid: Some(self.uid.to_string()),
                ..ObjectMeta::default()
            },
            ..Pod::default()
        }
    }
}
