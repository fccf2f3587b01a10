//! Stops one container: its preStop hook, its turn, then the runtime's own asking and killing, all within one
//! deadline that may move nearer (kubelet's `killContainer`).
//!
//! Hooks of all containers begin at once, sidecars' too; what waits for its turn is the stop after it, as with
//! kubelet. A hook counts within the grace period and is cut at the deadline; one that has ended is not run
//! again by this agent, whatever the stop after it comes to. An agent after it runs it again, as kubelet does.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use jiff::Timestamp;
use tokio::{sync::watch, task::JoinSet};

use super::{hooks::Hook, pace::Pace, worker::PodWorker};
use crate::{
    agent::clock::Clock,
    api::{ContainerId, PodFullName, PodObservation},
    cri::{Cri, CriError},
    policy::grace::remaining_seconds,
};

/// A container whose turn comes after the deadline, for the runtime was away, a hook or the others took all
/// the time, still gets so long to end by itself, as with kubelet (`minimumGracePeriodInSeconds`).
pub(super) const MIN_SECONDS: i64 = 2;

/// The containers whose preStop hook this agent has run.
#[derive(Clone, Default)]
pub(super) struct Hooked(Arc<Mutex<HashSet<ContainerId>>>);

impl Hooked {
    fn has(&self, id: &ContainerId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }

    fn note(&self, id: &ContainerId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
    }

    /// Forgets containers that are gone.
    pub(super) fn retain(&self, keep: impl Fn(&ContainerId) -> bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(keep);
    }
}

/// The stop of a container.
pub(super) struct Stop {
    cri: Arc<dyn Cri>,
    clock: Clock,
    pod: PodFullName,
    hooked: Hooked,
    id: ContainerId,
    hook: Option<Hook>,
    pace: Pace,
    /// Until when it may take.
    pub(super) deadline: watch::Receiver<Timestamp>,
    /// It is stopped once this is as far as its place.
    pub(super) turn: (watch::Receiver<usize>, usize),
    /// So many seconds it has in any case.
    pub(super) least: i64,
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
        let hook = self.pre_stop(seen, id).filter(|_| !self.hooked.has(id));
        Stop {
            cri: Arc::clone(&self.env.cri),
            clock: self.env.clock,
            pod: self.full_name.clone(),
            hooked: self.hooked.clone(),
            id: id.clone(),
            hook,
            pace: pace.clone(),
            deadline,
            turn: (watch::channel(0).1, 0),
            least: MIN_SECONDS,
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
            let (clock, least) = (self.clock, self.least);
            calls.spawn(async move {
                let stop = || {
                    let seconds = remaining_seconds(deadline, clock.now()).max(least);
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
        if remaining_seconds(*self.deadline.borrow(), self.clock.now()) == 0 {
            tracing::info!(%pod, %id, "no time is left for the preStop hook");
            return;
        }
        tracing::info!(%pod, %id, "preStop hook begins");
        tokio::select! {
            ended = hook.run(&*self.cri, id) => match ended {
                Ok(()) => tracing::info!(%pod, %id, "preStop hook done"),
                Err(why) => tracing::warn!(%pod, %id, "FailedPreStopHook: {why}; stopping the container"),
            },
            () = passed(&mut self.deadline, self.clock) => {
                tracing::warn!(%pod, %id, "FailedPreStopHook: not done within the grace period; stopping the container");
            }
        }
        self.hooked.note(&self.id);
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
