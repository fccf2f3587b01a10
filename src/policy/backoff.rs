//! How long to wait before doing again what failed.
//!
//! kubelet keeps crash-loop delays in memory and forgets them when it restarts. Here the delay that applies
//! after a container's end stands on the container itself (annotation `nodectl.dev/restart-delay-seconds`),
//! so the next start is a function of what is observed.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::api::ObservedContainer;

/// Crash-loop delays: none after a first crash, then `initial`, doubling up to `max`; a container that ran
/// for `reset_after` starts over. kubelet: 10 s, 300 s, 10 min (pkg/kubelet/kubelet.go, `backOffPeriod`,
/// `MaxContainerBackOff`, `containerBackOffExpired`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartBackoff {
    /// The first delay.
    pub initial: Duration,
    /// The longest delay.
    pub max: Duration,
    /// A container that ran this long did not crash in a loop.
    pub reset_after: Duration,
}

impl Default for RestartBackoff {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(10),
            max: Duration::from_secs(300),
            reset_after: Duration::from_secs(600),
        }
    }
}

/// When a dead container may be started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPlan {
    /// Not before this time.
    pub not_before: Timestamp,
    /// The delay that leads to it, for messages.
    pub delay: Duration,
    /// What the new container's annotation says: the delay in seconds that applies after *its* end.
    pub next_delay_seconds: u64,
}

impl RestartBackoff {
    /// With a configured maximum (`crashLoopBackOff.maxContainerRestartPeriod`); a maximum below the first
    /// delay lowers that too.
    pub fn with_max(max: Duration) -> Self {
        let default = Self::default();
        Self { initial: default.initial.min(max), max, ..default }
    }

    /// The plan for the successor of an ended container.
    pub fn plan(&self, dead: &ObservedContainer, now: Timestamp) -> RestartPlan {
        let ended = dead.finished_at.unwrap_or(dead.created_at).min(now);
        let begun = dead.started_at.unwrap_or(dead.created_at);
        let ran = ended.duration_since(begun);
        let delay = if ran >= signed(self.reset_after) {
            Duration::ZERO
        } else {
            match dead.restart_delay_seconds {
                Some(seconds) => Duration::from_secs(seconds).min(self.max),
                // Made by another agent: it crashed before if it is not the first of its name.
                None if dead.restart_count == 0 => Duration::ZERO,
                None => self.initial,
            }
        };
        RestartPlan {
            not_before: ended.checked_add(signed(delay)).unwrap_or(now),
            delay,
            next_delay_seconds: self.next(delay).as_secs(),
        }
    }

    /// The delay after the given one.
    pub fn next(&self, delay: Duration) -> Duration {
        if delay.is_zero() { self.initial } else { delay.saturating_mul(2).clamp(self.initial, self.max) }
    }
}

/// Doubling delay between tries of one operation that failed; in memory, since it is about the runtime or
/// the host and not about the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryBackoff {
    initial: Duration,
    max: Duration,
    current: Duration,
}

impl RetryBackoff {
    /// Starts at `initial`, doubles up to `max`.
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, current: Duration::ZERO }
    }

    /// Counts a failure and answers how long to wait now.
    pub fn fail(&mut self) -> Duration {
        self.current =
            if self.current.is_zero() { self.initial } else { self.current.saturating_mul(2).min(self.max) };
        self.current
    }

    /// Forgets the failures.
    pub fn reset(&mut self) {
        self.current = Duration::ZERO;
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::container;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    /// A container that ran from `begun` to `ended`.
    fn dead(begun: i64, ended: i64, delay: Option<u64>, restarts: u32) -> ObservedContainer {
        ObservedContainer {
            created_at: at(begun),
            started_at: Some(at(begun)),
            finished_at: Some(at(ended)),
            restart_delay_seconds: delay,
            restart_count: restarts,
            ..container("c", "s")
        }
    }

    #[test]
    fn a_crash_loop_slows_down_as_kubelets_does() {
        let backoff = RestartBackoff::default();
        let mut delay = 0;
        let mut seen = Vec::new();
        for restarts in 0..8 {
            let plan = backoff.plan(&dead(100, 101, Some(delay), restarts), at(200));
            seen.push(plan.delay.as_secs());
            assert_eq!(plan.not_before, at(101 + i64::try_from(plan.delay.as_secs()).unwrap()));
            delay = plan.next_delay_seconds;
        }
        assert_eq!(seen, [0, 10, 20, 40, 80, 160, 300, 300]);
    }

    #[test]
    fn ten_minutes_of_running_reset_it() {
        let backoff = RestartBackoff::default();
        let plan = backoff.plan(&dead(0, 600, Some(300), 9), at(600));
        assert_eq!((plan.delay, plan.next_delay_seconds), (Duration::ZERO, 10));
        let plan = backoff.plan(&dead(0, 599, Some(300), 9), at(600));
        assert_eq!(plan.delay, Duration::from_secs(300));
    }

    #[test]
    fn a_configured_maximum_holds_for_containers_made_before_it() {
        let backoff = RestartBackoff::with_max(Duration::from_secs(5));
        assert_eq!(backoff.initial, Duration::from_secs(5));
        let plan = backoff.plan(&dead(0, 1, Some(160), 4), at(1));
        assert_eq!((plan.delay.as_secs(), plan.next_delay_seconds), (5, 5));
    }

    #[test]
    fn another_agents_container_counts_its_restarts() {
        let backoff = RestartBackoff::default();
        assert_eq!(backoff.plan(&dead(0, 1, None, 0), at(1)).delay, Duration::ZERO);
        assert_eq!(backoff.plan(&dead(0, 1, None, 3), at(1)).delay, Duration::from_secs(10));
    }

    #[test]
    fn an_end_in_the_future_does_not_hold_a_container_back() {
        // The clock was set back by an hour while the container ran.
        let plan = RestartBackoff::default().plan(&dead(4000, 4001, Some(10), 1), at(400));
        assert_eq!(plan.not_before, at(410));
    }

    #[test]
    fn retries_double_and_reset() {
        let mut backoff = RetryBackoff::new(Duration::from_secs(1), Duration::from_secs(3));
        assert_eq!([backoff.fail(), backoff.fail(), backoff.fail()].map(|d| d.as_secs()), [1, 2, 3]);
        backoff.reset();
        assert_eq!(backoff.fail().as_secs(), 1);
    }
}
