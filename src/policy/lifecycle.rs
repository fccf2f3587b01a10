//! A pod's way through the agent as a state machine.
//!
//! kubelet's pod workers know three phases (sync, terminating, terminated) as time stamps in one struct,
//! whose combinations are partly meaningless. Here a phase is a value that carries what belongs to it, and
//! a step that makes no sense is refused by name.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Why a pod is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StopReason {
    /// All containers ended and none is started again. The pod stays wanted: its status and logs are kept.
    Completed,
    /// It ran for longer than `activeDeadlineSeconds`. Its status and logs are kept.
    DeadlineExceeded,
    /// It made room for a critical one. Its status and logs are kept.
    Preempted,
    /// The node does not take it. Nothing of it was ever made.
    Rejected,
    /// The API server has it deleted, and forgets it once it hears that nothing of the pod runs any more. What has
    /// ended is kept until then: the last status is made of it.
    Deleted,
    /// Its source no longer names it.
    Removed,
    /// The runtime holds it and no source names it.
    Orphaned,
}

impl StopReason {
    /// Whether nothing of the pod is to be left.
    pub fn is_removal(self) -> bool {
        matches!(self, Self::Removed | Self::Orphaned)
    }

    /// The reason that counts after another: a removal outweighs a deletion, and that an end by itself.
    #[must_use]
    pub fn after(self, old: Self) -> Self {
        let weight = |reason: Self| match reason {
            Self::Completed | Self::DeadlineExceeded | Self::Preempted | Self::Rejected => 0,
            Self::Deleted => 1,
            Self::Removed | Self::Orphaned => 2,
        };
        if weight(self) > 0 && weight(self) >= weight(old) { self } else { old }
    }
}

/// Where a pod is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum PodLifecycle {
    /// Wanted; it may not start yet, for another pod of its name is not gone.
    Pending,
    /// What is wanted and what runs are brought together.
    Syncing,
    /// Containers are stopped; after the deadline they are killed.
    Terminating {
        /// Until when containers may take.
        deadline: Timestamp,
        /// Why.
        reason: StopReason,
    },
    /// No process of it is left. Unless the reason is a removal, its remains are kept for status and logs.
    Terminated {
        /// Why.
        reason: StopReason,
    },
    /// Nothing of it is left.
    Finished,
}

/// What happens to a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifecycleInput {
    /// Nothing stands in its way any more.
    Start,
    /// It is to stop within the given time.
    Stop {
        /// Why.
        reason: StopReason,
        /// How long its containers may take, from now.
        grace: Duration,
    },
    /// Its processes were all seen to have ended.
    Stopped,
    /// Its sandboxes, containers, volumes and folders were seen to be gone.
    Cleaned,
}

/// What follows from a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifecycleEffect {
    /// The state is to be written to disk.
    Persist,
    /// Containers already being stopped are to be stopped again with the nearer deadline.
    Hasten,
    /// Its checkpoint and its place in the agent's tables go.
    Forget,
}

/// A step that makes no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a pod in state {state:?} cannot take the step {input:?}")]
pub struct IllegalStep {
    state: PodLifecycle,
    input: LifecycleInput,
}

impl PodLifecycle {
    /// Takes a step.
    ///
    /// # Errors
    /// For a pair that makes no sense, such as starting a pod that is being stopped: UIDs are not reused.
    pub fn step(
        self,
        input: LifecycleInput,
        now: Timestamp,
    ) -> Result<(Self, Vec<LifecycleEffect>), IllegalStep> {
        use LifecycleEffect::{Forget, Hasten, Persist};
        use LifecycleInput::{Cleaned, Start, Stop, Stopped};
        Ok(match (self, input) {
            (Self::Pending | Self::Syncing, Start) => (Self::Syncing, vec![]),
            (Self::Pending | Self::Syncing, Stop { reason, grace }) => {
                (Self::Terminating { deadline: after(now, grace), reason }, vec![Persist])
            }
            (Self::Terminating { deadline, reason: old }, Stop { reason, grace }) => {
                // A nearer deadline counts, a later one does not.
                let nearer = after(now, grace).min(deadline);
                let reason = reason.after(old);
                let mut effects = vec![];
                if nearer < deadline || reason != old {
                    effects.push(Persist);
                }
                if nearer < deadline {
                    effects.push(Hasten);
                }
                (Self::Terminating { deadline: nearer, reason }, effects)
            }
            // A pod that is to go altogether is found again by what is left of it.
            (Self::Terminating { reason, .. }, Stopped) => {
                (Self::Terminated { reason }, if reason.is_removal() { vec![] } else { vec![Persist] })
            }
            (Self::Terminated { reason: old }, Stop { reason, .. }) => {
                let reason = reason.after(old);
                (Self::Terminated { reason }, if reason == old { vec![] } else { vec![Persist] })
            }
            (Self::Terminated { reason }, Cleaned) if reason.is_removal() => (Self::Finished, vec![Forget]),
            (Self::Finished, Stop { .. }) => (Self::Finished, vec![]),
            (state, input) => return Err(IllegalStep { state, input }),
        })
    }

    /// Why it is stopped, if it is and something of it is still there.
    pub fn stop_reason(self) -> Option<StopReason> {
        match self {
            Self::Terminating { reason, .. } | Self::Terminated { reason } => Some(reason),
            Self::Pending | Self::Syncing | Self::Finished => None,
        }
    }

    /// Why nothing of the pod is to be left, if it is on its way to that.
    pub fn removal(self) -> Option<StopReason> {
        self.stop_reason().filter(|reason| reason.is_removal())
    }

    /// Whether the pod is on its way out or gone: nothing of it is started any more.
    pub fn is_stopping(self) -> bool {
        matches!(self, Self::Terminating { .. } | Self::Terminated { .. } | Self::Finished)
    }
}

fn after(now: Timestamp, grace: Duration) -> Timestamp {
    SignedDuration::try_from(grace)
        .ok()
        .and_then(|grace| now.checked_add(grace).ok())
        .unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::{LifecycleEffect::*, LifecycleInput::*, *};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn stop(reason: StopReason, seconds: u64) -> LifecycleInput {
        Stop { reason, grace: Duration::from_secs(seconds) }
    }

    #[test]
    fn a_whole_life() {
        let (state, _) = PodLifecycle::Pending.step(Start, at(0)).unwrap();
        assert_eq!(state, PodLifecycle::Syncing);
        let (state, effects) = state.step(stop(StopReason::Removed, 30), at(10)).unwrap();
        assert_eq!(state, PodLifecycle::Terminating { deadline: at(40), reason: StopReason::Removed });
        assert_eq!(effects, [Persist]);
        let (state, _) = state.step(Stopped, at(12)).unwrap();
        let (state, effects) = state.step(Cleaned, at(12)).unwrap();
        assert_eq!((state, effects), (PodLifecycle::Finished, vec![Forget]));
    }

    #[test]
    fn a_shorter_grace_counts_and_a_longer_does_not() {
        let state = PodLifecycle::Terminating { deadline: at(40), reason: StopReason::Removed };
        let (state, effects) = state.step(stop(StopReason::Removed, 5), at(10)).unwrap();
        assert_eq!(state, PodLifecycle::Terminating { deadline: at(15), reason: StopReason::Removed });
        assert_eq!(effects, [Persist, Hasten]);
        let (same, effects) = state.step(stop(StopReason::Removed, 60), at(11)).unwrap();
        assert_eq!((same, effects), (state, vec![]));
    }

    #[test]
    fn a_completed_pod_keeps_its_remains_until_it_is_removed() {
        let state = PodLifecycle::Terminated { reason: StopReason::Completed };
        assert!(state.step(Cleaned, at(0)).is_err());
        let (state, effects) = state.step(stop(StopReason::Removed, 30), at(0)).unwrap();
        assert_eq!(state, PodLifecycle::Terminated { reason: StopReason::Removed });
        assert_eq!(effects, [Persist]);
        assert!(state.step(Cleaned, at(0)).is_ok());
    }

    #[test]
    fn completion_does_not_undo_a_removal() {
        let state = PodLifecycle::Terminating { deadline: at(40), reason: StopReason::Removed };
        let (state, _) = state.step(stop(StopReason::Completed, 30), at(10)).unwrap();
        assert_eq!(state, PodLifecycle::Terminating { deadline: at(40), reason: StopReason::Removed });
    }

    #[test]
    fn a_deleted_pod_keeps_what_ended_until_the_server_forgets_it() {
        let state = PodLifecycle::Terminating { deadline: at(40), reason: StopReason::Completed };
        let (state, effects) = state.step(stop(StopReason::Deleted, 60), at(10)).unwrap();
        assert_eq!(state, PodLifecycle::Terminating { deadline: at(40), reason: StopReason::Deleted });
        assert_eq!(effects, [Persist]);
        let (state, effects) = state.step(Stopped, at(11)).unwrap();
        assert_eq!(effects, [Persist]);
        let (same, _) = state.step(stop(StopReason::Completed, 0), at(11)).unwrap();
        assert_eq!(same, PodLifecycle::Terminated { reason: StopReason::Deleted });
        assert!(same.step(Cleaned, at(12)).is_err());
        let (state, _) = same.step(stop(StopReason::Removed, 0), at(12)).unwrap();
        assert_eq!(state.step(Cleaned, at(12)).unwrap().0, PodLifecycle::Finished);
    }

    #[test]
    fn nothing_restarts_a_stopping_pod() {
        for state in [
            PodLifecycle::Terminating { deadline: at(1), reason: StopReason::Removed },
            PodLifecycle::Terminated { reason: StopReason::Completed },
            PodLifecycle::Finished,
        ] {
            let error = state.step(Start, at(0)).unwrap_err();
            assert!(error.to_string().contains("Start"), "{error}");
            assert!(state.is_stopping());
        }
    }
}
