//! Stops one container: its preStop hook, its turn, then the runtime's own asking and killing, all within one
//! deadline that may move nearer (kubelet's `killContainer`).
//!
//! Hooks of all containers begin at once, sidecars' too; what waits for its turn is the stop after it, as with
//! kubelet. A hook counts within the grace period and is cut at the deadline. One that has begun is not begun
//! again by this agent, nor cut by anything but the deadline: a stop that is given up for another, or tried
//! again, leaves it running, and the next waits for its end. An agent after it runs it again, as kubelet does.
//!
//! Nor does a later stop give more time than one that has begun: a container that is stopped for its probe, in
//! the probe's own time, has no more of it because its pod is removed meanwhile. containerd asks a container
//! to end only once, so that one which did not hear would live on for all of the pod's time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;

use super::{hooks::Hook, pace::Pace, worker::PodWorker};
use crate::{
    agent::{clock::Clock, events::EventRecorder},
    api::{ContainerId, PodFullName, PodObservation},
    cri::{Cri, CriError},
    policy::{events::Words, grace::remaining_seconds},
};

/// Every container gets at least so long to end by itself, whatever its pod's grace period says or has left
/// (kubelet's `minimumGracePeriodInSeconds`).
const MIN_SECONDS: i64 = 2;

/// The stops that this agent has begun.
#[derive(Clone, Default)]
pub(super) struct Stops(Arc<Mutex<HashMap<ContainerId, Begun>>>);

struct Begun {
    /// The nearest of the deadlines it was given.
    deadline: Timestamp,
    /// Its preStop hook.
    hook: Option<BegunHook>,
}

struct BegunHook {
    done: watch::Receiver<bool>,
    /// Ends with the pod's worker.
    task: AbortOnDropHandle<()>,
}

impl Stops {
    fn lock(&self) -> MutexGuard<'_, HashMap<ContainerId, Begun>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a deadline of a container's stop that begins, and answers the nearest of all.
    fn nearest(&self, id: &ContainerId, deadline: Timestamp) -> Timestamp {
        let mut stops = self.lock();
        let begun = stops.entry(id.clone()).or_insert(Begun { deadline, hook: None });
        begun.deadline = begun.deadline.min(deadline);
        begun.deadline
    }

    /// Whether a container's stop has begun.
    pub(super) fn has_begun(&self, id: &ContainerId) -> bool {
        self.lock().contains_key(id)
    }

    /// A container's hook that was begun: turns true at its end.
    fn hook(&self, id: &ContainerId) -> Option<watch::Receiver<bool>> {
        self.lock().get(id)?.hook.as_ref().map(|hook| hook.done.clone())
    }

    /// Begins the hook of a container whose stop has begun.
    fn begin(
        &self,
        hook: Hook,
        cri: &Arc<dyn Cri>,
        pod: &PodFullName,
        id: &ContainerId,
        failed: impl FnOnce() + Send + 'static,
    ) -> watch::Receiver<bool> {
        tracing::info!(%pod, %id, "preStop hook begins");
        let (sender, done) = watch::channel(false);
        let (cri, pod, id_of_task) = (Arc::clone(cri), pod.clone(), id.clone());
        let task = tokio::spawn(async move {
            let id = id_of_task;
            match hook.run(&*cri, &id).await {
                Ok(()) => tracing::info!(%pod, %id, "preStop hook done"),
                Err(why) => {
                    tracing::warn!(%pod, %id, "FailedPreStopHook: {why}; stopping the container");
                    failed();
                }
            }
            sender.send_replace(true);
        });
        if let Some(begun) = self.lock().get_mut(id) {
            begun.hook = Some(BegunHook { done: done.clone(), task: AbortOnDropHandle::new(task) });
        }
        done
    }

    /// Ends a hook that has taken all the time. It stays noted.
    fn cut(&self, id: &ContainerId) {
        if let Some(hook) = self.lock().get(id).and_then(|begun| begun.hook.as_ref()) {
            hook.task.abort();
        }
    }

    /// Forgets containers that are gone.
    pub(super) fn retain(&self, keep: impl Fn(&ContainerId) -> bool) {
        self.lock().retain(|id, _| keep(id));
    }
}

/// The stop of a container.
pub(super) struct Stop {
    cri: Arc<dyn Cri>,
    clock: Clock,
    pod: PodFullName,
    stops: Stops,
    id: ContainerId,
    hook: Option<Hook>,
    /// Who is told that the hook has failed, and of whom.
    told: (EventRecorder, Option<Arc<Pod>>, Arc<str>),
    pace: Pace,
    /// Until when it may take.
    pub(super) deadline: watch::Receiver<Timestamp>,
    /// It is stopped once this is as far as its place.
    pub(super) turn: (watch::Receiver<usize>, usize),
}

impl PodWorker {
    /// The stop of a container, at once unless given another turn.
    pub(super) fn stop_of(
        &self,
        seen: &PodObservation,
        id: &ContainerId,
        deadline: watch::Receiver<Timestamp>,
        pace: &Pace,
    ) -> Stop {
        let container = seen.containers.iter().find(|container| container.id == *id);
        let name = container.map(|container| Arc::clone(&container.name)).unwrap_or_default();
        Stop {
            cri: Arc::clone(&self.env.cri),
            clock: self.env.clock,
            pod: self.full_name.clone(),
            stops: self.stops.clone(),
            id: id.clone(),
            hook: self.pre_stop(seen, id),
            told: (self.env.events.clone(), self.pod.clone(), name),
            pace: pace.clone(),
            deadline,
            turn: (watch::channel(0).1, 0),
        }
    }
}

impl Stop {
    /// Stops it and waits for its end.
    ///
    /// # Errors
    /// As the runtime's.
    pub(super) async fn run(mut self) -> (ContainerId, Result<(), CriError>) {
        if let Some(hook) = self.hook.take() {
            self.run_hook(hook).await;
        }
        let (turn, place) = &mut self.turn;
        // Whoever gives the turns is gone only with this task.
        turn.wait_for(|turn| *turn >= *place).await.ok();
        let mut calls: JoinSet<Result<(), CriError>> = JoinSet::new();
        loop {
            // A nearer deadline is told too; the first telling stays, for a call that is given up may leave
            // a container running.
            let deadline = self.nearest();
            let (cri, id, pace) = (Arc::clone(&self.cri), self.id.clone(), self.pace.clone());
            let clock = self.clock;
            calls.spawn(async move {
                let stop = || {
                    let seconds = remaining_seconds(deadline, clock.now()).max(MIN_SECONDS);
                    cri.stop_container(id.as_str(), seconds)
                };
                pace.run(stop).await
            });
            loop {
                tokio::select! {
                    joined = calls.join_next() => match joined {
                        Some(Ok(stopped)) => return (self.id, stopped),
                        Some(Err(error)) => tracing::error!(pod = %self.pod, id = %self.id, "a stop failed: {error}"),
                        None => break,
                    },
                    Ok(()) = self.deadline.changed() => break,
                }
            }
        }
    }

    async fn run_hook(&mut self, hook: Hook) {
        let deadline = self.nearest();
        let (pod, id) = (self.pod.clone(), self.id.clone());
        let mut done = match self.stops.hook(&id) {
            Some(done) => done,
            None if remaining_seconds(deadline, self.clock.now()) == 0 => {
                tracing::info!(%pod, %id, "no time is left for the preStop hook");
                return;
            }
            None => {
                let (events, of, container) = self.told.clone();
                self.stops.begin(hook, &self.cri, &pod, &id, move || {
                    if let Some(pod) = of {
                        let words = Words::warning("FailedPreStopHook", "PreStopHook failed");
                        events.container(&pod, &container, words);
                    }
                })
            }
        };
        tokio::select! {
            // One that was cut ends without a word.
            _ = done.wait_for(|done| *done) => {}
            () = self.passed() => {
                tracing::warn!(%pod, %id, "FailedPreStopHook: not done within the grace period; stopping the container");
                self.stops.cut(&id);
            }
        }
    }

    fn nearest(&mut self) -> Timestamp {
        let deadline = *self.deadline.borrow_and_update();
        self.stops.nearest(&self.id, deadline)
    }

    /// Waits until the deadline has passed, wherever it moves.
    async fn passed(&mut self) {
        loop {
            let deadline = self.nearest();
            let at = self.clock.instant_of(deadline);
            tokio::select! {
                () = tokio::time::sleep_until(at) => return,
                Ok(()) = self.deadline.changed() => {}
            }
        }
    }
}
