//! Stops one container: its preStop hook, its turn, then the runtime's own asking and killing, all within one
//! deadline that may move nearer (kubelet's `killContainer`).
//!
//! Hooks of all containers begin at once, sidecars' too; what waits for its turn is the stop after it, as with
//! kubelet. A hook counts within the grace period and is cut at the deadline. One that has begun is not begun
//! again by this agent, nor cut by anything but the deadline: a stop that is given up for another, or tried
//! again, leaves it running, and the next waits for its end. An agent after it runs it again, as kubelet does.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;

use super::{hooks::Hook, pace::Pace, worker::PodWorker};
use crate::{
    agent::clock::Clock,
    api::{ContainerId, PodFullName, PodObservation},
    cri::{Cri, CriError},
    policy::grace::remaining_seconds,
};

/// Every container gets at least so long to end by itself, whatever its pod's grace period says or has left
/// (kubelet's `minimumGracePeriodInSeconds`).
const MIN_SECONDS: i64 = 2;

/// The preStop hooks that this agent has begun.
#[derive(Clone, Default)]
pub(super) struct PreStops(Arc<Mutex<HashMap<ContainerId, Begun>>>);

struct Begun {
    done: watch::Receiver<bool>,
    /// Ends with the pod's worker.
    task: AbortOnDropHandle<()>,
}

impl PreStops {
    fn lock(&self) -> MutexGuard<'_, HashMap<ContainerId, Begun>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A container's hook that was begun: turns true at its end.
    fn begun(&self, id: &ContainerId) -> Option<watch::Receiver<bool>> {
        self.lock().get(id).map(|begun| begun.done.clone())
    }

    fn begin(
        &self,
        hook: Hook,
        cri: &Arc<dyn Cri>,
        pod: &PodFullName,
        id: &ContainerId,
    ) -> watch::Receiver<bool> {
        tracing::info!(%pod, %id, "preStop hook begins");
        let (sender, done) = watch::channel(false);
        let (cri, pod, id_of_task) = (Arc::clone(cri), pod.clone(), id.clone());
        let task = tokio::spawn(async move {
            let id = id_of_task;
            match hook.run(&*cri, &id).await {
                Ok(()) => tracing::info!(%pod, %id, "preStop hook done"),
                Err(why) => tracing::warn!(%pod, %id, "FailedPreStopHook: {why}; stopping the container"),
            }
            sender.send_replace(true);
        });
        self.lock().insert(id.clone(), Begun { done: done.clone(), task: AbortOnDropHandle::new(task) });
        done
    }

    /// Ends a hook that has taken all the time. It stays noted.
    fn cut(&self, id: &ContainerId) {
        if let Some(begun) = self.lock().get(id) {
            begun.task.abort();
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
    pre_stops: PreStops,
    id: ContainerId,
    hook: Option<Hook>,
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
        Stop {
            cri: Arc::clone(&self.env.cri),
            clock: self.env.clock,
            pod: self.full_name.clone(),
            pre_stops: self.pre_stops.clone(),
            id: id.clone(),
            hook: self.pre_stop(seen, id),
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
            let deadline = *self.deadline.borrow_and_update();
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
        let (pod, id) = (&self.pod, &self.id);
        let mut done = match self.pre_stops.begun(id) {
            Some(done) => done,
            None if remaining_seconds(*self.deadline.borrow(), self.clock.now()) == 0 => {
                tracing::info!(%pod, %id, "no time is left for the preStop hook");
                return;
            }
            None => self.pre_stops.begin(hook, &self.cri, pod, id),
        };
        tokio::select! {
            // One that was cut ends without a word.
            _ = done.wait_for(|done| *done) => {}
            () = passed(&mut self.deadline, self.clock) => {
                tracing::warn!(%pod, %id, "FailedPreStopHook: not done within the grace period; stopping the container");
                self.pre_stops.cut(id);
            }
        }
    }
}

/// Waits until the deadline has passed, wherever it moves.
async fn passed(deadline: &mut watch::Receiver<Timestamp>, clock: Clock) {
    loop {
        let at = clock.instant_of(*deadline.borrow_and_update());
        tokio::select! {
            () = tokio::time::sleep_until(at) => return,
            Ok(()) = deadline.changed() => {}
        }
    }
}
