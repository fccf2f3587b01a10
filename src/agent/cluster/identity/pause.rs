//! Waiting: for a time that the wall clock has to reach, for files, and after failures.

use std::time::Duration;

use jiff::Timestamp;
use rand::Rng as _;

use super::LOOK;

/// The first pause after a failure and the longest; kubelet's.
const PAUSE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(32));

/// Pauses that grow.
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn new() -> Self {
        Self(PAUSE.0)
    }

    /// All is well again.
    pub(super) fn reset(&mut self) {
        self.0 = PAUSE.0;
    }

    /// The next pause, up to a tenth longer than the last one doubled: nodes that lost their server together do not
    /// come back together.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.0.mul_f64(1.0 + rand::rng().random_range(0.0..0.1));
        self.0 = (self.0 * 2).min(PAUSE.1);
        pause
    }
}

/// Waits until a time has come or something has changed, which is looked for every few seconds. The clock may be
/// set, so the time is looked for likewise.
pub(super) async fn until_changed<F>(until: Option<Timestamp>, mut changed: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    loop {
        let left = until.map(|until| until.duration_since(Timestamp::now()));
        let left = left.map(|left| Duration::try_from(left).unwrap_or(Duration::ZERO));
        match left {
            Some(Duration::ZERO) => return,
            Some(left) => tokio::time::sleep(left.min(LOOK)).await,
            None => tokio::time::sleep(LOOK).await,
        }
        if changed().await {
            return;
        }
    }
}
