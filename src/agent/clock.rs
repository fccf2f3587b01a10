//! The time of day as the agent's tasks see it. On a node it is the system's; in a simulation it follows
//! tokio's clock, which tests pause and move.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Gives the time of day.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Where tokio's clock stood at a time of day, for simulations.
    base: Option<(Instant, Timestamp)>,
}

impl Clock {
    /// The system's time of day.
    pub fn system() -> Self {
        Self { base: None }
    }

    /// Starts at the given time and goes as tokio's clock does.
    pub fn simulated(start: Timestamp) -> Self {
        Self { base: Some((Instant::now(), start)) }
    }

    /// Now.
    pub fn now(&self) -> Timestamp {
        match self.base {
            None => Timestamp::now(),
            Some((instant, start)) => {
                let gone = SignedDuration::try_from(instant.elapsed()).unwrap_or(SignedDuration::MAX);
                start.checked_add(gone).unwrap_or(Timestamp::MAX)
            }
        }
    }

    /// The instant on tokio's clock at which the given time of day will have come.
    pub fn instant_of(&self, at: Timestamp) -> Instant {
        let left = at.duration_since(self.now());
        Instant::now() + std::time::Duration::try_from(left).unwrap_or_default()
    }
}
