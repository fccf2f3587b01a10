//! How often something may be done: so often a second, and so many times at once after a pause. Registries and the
//! API server are both asked within such bounds.

use std::time::Duration;

use tokio::time::Instant;

/// Lets through `rate` a second, and `burst` at once.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    rate: f64,
    burst: f64,
    tokens: f64,
    filled: Instant,
}

impl TokenBucket {
    /// A full one.
    pub(crate) fn new(rate: u32, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self { rate: f64::from(rate.max(1)), burst, tokens: burst, filled: Instant::now() }
    }

    /// Takes a token and answers how long to wait for it.
    pub(crate) fn take(&mut self, now: Instant) -> Duration {
        let gained = now.saturating_duration_since(self.filled).as_secs_f64() * self.rate;
        self.filled = now;
        self.tokens = (self.tokens + gained).min(self.burst) - 1.0;
        Duration::from_secs_f64((-self.tokens / self.rate).max(0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_let_through_and_then_the_rate() {
        let mut bucket = TokenBucket::new(5, 2);
        let now = Instant::now();
        let waits: Vec<u128> = (0..4).map(|_| bucket.take(now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 200, 400]);
        assert_eq!(bucket.take(now + Duration::from_secs(60)), Duration::ZERO);
    }
}
