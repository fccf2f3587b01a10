//! What failed, what is shown of it, and when it is tried again.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};

use crate::{
    api::view::ErrorView,
    policy::{backoff::RetryBackoff, status::WaitingReason},
};

/// Between tries of what failed for another reason than an image: kubelet waits 10 s a pod
/// (`backOffPeriod`); a fault that passes by itself should not cost that much.
pub(super) const RETRY: RetryBackoff = RetryBackoff::new(Duration::from_millis(500), Duration::from_secs(10));

/// One thing that failed.
#[derive(Debug, Clone)]
pub struct Failed {
    /// What to show.
    pub error: ErrorView,
    /// Not before this time again.
    pub not_before: Timestamp,
    backoff: RetryBackoff,
}

const BACK_OFF: &str = "ImagePullBackOff";

/// The failures of a pod: of the pod itself (sandbox, volumes) and of its containers by name.
#[derive(Debug, Default)]
pub struct Failures {
    pod: Option<Failed>,
    containers: BTreeMap<String, Failed>,
}

/// A failure as it happened.
#[derive(Debug, Clone)]
pub struct StepError {
    /// A CamelCase reason as in a container's waiting state.
    pub reason: &'static str,
    /// What failed and why.
    pub message: String,
    /// What to do about it.
    pub hints: Vec<String>,
    /// When to try again, where the failure says so itself.
    pub retry_after: Option<Duration>,
    /// Whether the runtime did not answer: no fault of this pod's.
    pub runtime_down: bool,
}

impl StepError {
    /// One with nothing but reason and message.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), hints: Vec::new(), retry_after: None, runtime_down: false }
    }
}

impl Failures {
    /// Notes a failure of the pod itself, and answers what was noted.
    pub fn pod_failed(&mut self, error: StepError, now: Timestamp) -> &Failed {
        let failed = note(self.pod.take(), error, now);
        self.pod.insert(failed)
    }

    /// Notes a failure of a container, and answers what was noted.
    pub fn container_failed(&mut self, name: &str, error: StepError, now: Timestamp) -> &Failed {
        let failed = note(self.containers.remove(name), error, now);
        self.containers.entry(name.to_owned()).or_insert(failed)
    }

    /// The pod's own steps work again.
    pub fn pod_ok(&mut self) {
        self.pod = None;
    }

    /// A container was started.
    pub fn container_ok(&mut self, name: &str) {
        self.containers.remove(name);
    }

    /// Forgets everything: the specification is another, or the runtime is back.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Until when the pod's own steps wait.
    pub fn pod_blocked(&self, now: Timestamp) -> Option<Timestamp> {
        self.pod.as_ref().map(|failed| failed.not_before).filter(|at| *at > now)
    }

    /// Until when a container waits.
    pub fn container_blocked(&self, name: &str, now: Timestamp) -> Option<Timestamp> {
        self.containers.get(name).map(|failed| failed.not_before).filter(|at| *at > now)
    }

    /// What to show first: the pod's own failure, else the latest of a container.
    pub fn shown(&self) -> Option<&Failed> {
        self.pod.as_ref().or_else(|| self.containers.values().max_by_key(|failed| failed.error.at))
    }

    /// The failure of the pod's own steps, in words.
    pub fn of_pod(&self) -> Option<&str> {
        self.pod.as_ref().map(|failed| failed.error.message.as_str())
    }

    /// Why containers wait, by name.
    pub fn waiting(&self) -> BTreeMap<String, WaitingReason> {
        self.containers
            .iter()
            .map(|(name, failed)| {
                let ErrorView { reason, message, .. } = &failed.error;
                (name.clone(), WaitingReason { reason: reason.clone(), message: message.clone() })
            })
            .collect()
    }
}

/// A wait for the next pull is no failure of its own.
fn cause(reason: &str) -> &str {
    if reason == BACK_OFF { "ErrImagePull" } else { reason }
}

fn note(before: Option<Failed>, error: StepError, now: Timestamp) -> Failed {
    let mut backoff = before.as_ref().map_or(RETRY, |failed| failed.backoff);
    let own = backoff.fail();
    let wait = error.retry_after.unwrap_or(own);
    // A pull's back-off repeats the error: the same failure is told once, and counted by its tries.
    let tried = u32::from(error.reason != BACK_OFF);
    let same = before.filter(|failed| cause(&failed.error.reason) == cause(error.reason));
    Failed {
        error: ErrorView {
            reason: error.reason.to_owned(),
            message: error.message,
            at: now,
            count: same.map_or(1, |failed| failed.error.count.saturating_add(tried)),
            hints: error.hints,
        },
        not_before: SignedDuration::try_from(wait)
            .ok()
            .and_then(|wait| now.checked_add(wait).ok())
            .unwrap_or(now),
        backoff,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn tries_get_rarer_and_are_counted() {
        let mut failures = Failures::default();
        let mut now = at(100);
        let mut waits = Vec::new();
        for _ in 0..6 {
            let failed = failures.container_failed("c", StepError::new("CreateContainerError", "no"), now);
            waits.push(failed.not_before.duration_since(now).as_millis());
            now = failed.not_before;
        }
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 10_000]);
        assert_eq!(failures.shown().map(|failed| failed.error.count), Some(6));
        assert_eq!(failures.container_blocked("c", now), None);
        assert_eq!(failures.waiting()["c"].reason, "CreateContainerError");
        failures.container_ok("c");
        assert!(failures.shown().is_none());
    }

    #[test]
    fn waiting_for_a_pull_is_not_counted() {
        let mut failures = Failures::default();
        let counts = ["ErrImagePull", "ImagePullBackOff", "ErrImagePull", "ImagePullBackOff"]
            .map(|reason| failures.container_failed("c", StepError::new(reason, "x"), at(0)).error.count);
        assert_eq!(counts, [1, 1, 2, 2]);
        assert_eq!(failures.waiting()["c"].reason, "ImagePullBackOff");
    }

    #[test]
    fn a_failure_may_set_its_own_time_and_the_pods_is_shown_first() {
        let mut failures = Failures::default();
        let error = StepError {
            retry_after: Some(Duration::from_secs(40)),
            ..StepError::new("ImagePullBackOff", "x")
        };
        failures.container_failed("c", error, at(0));
        assert_eq!(failures.container_blocked("c", at(39)), Some(at(40)));
        failures.pod_failed(StepError::new("FailedCreatePodSandBox", "y"), at(0));
        assert_eq!(failures.shown().map(|f| f.error.message.as_str()), Some("y"));
        assert!(failures.pod_blocked(at(0)).is_some());
        failures.pod_ok();
        assert!(failures.pod_blocked(at(0)).is_none());
    }
}
