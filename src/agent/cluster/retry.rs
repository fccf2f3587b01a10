//! What goes on talking to the API server has in common: when to try again, and how to tell of an error.

use std::time::Duration;

use kube::runtime::watcher;

use crate::{kube::told, policy::backoff::RetryBackoff};

/// Between tries to reach the server.
pub(crate) const RETRY: RetryBackoff = RetryBackoff::new(Duration::from_millis(500), Duration::from_secs(30));

/// Half of it to all of it, so that the nodes of a cluster whose server comes back do not come all at once.
#[must_use]
pub(crate) fn jitter(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(0.5..=1.0))
}

/// An error of a watch in words.
#[must_use]
pub(crate) fn words(error: &watcher::Error) -> String {
    use watcher::Error::{InitialListFailed, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(error) | WatchStartFailed(error) | WatchFailed(error) => told(error),
        WatchError(status) => format!("the API server ends the watch: {}", status.message),
        other @ watcher::Error::NoResourceVersion => crate::error::chain(other),
    }
}
