//! Spreads out what would otherwise reach one pod's shim all at once.
//!
//! A pod's containers are stopped side by side, for each may take the whole grace period. But containerd's
//! shim (1.6 at least) has room for the ends of some thirty processes that it has not yet dealt with, `runc`
//! calls among them; while that is full it takes one in a second. Two hundred containers told at the same
//! moment did not end within minutes; eight at a time, they end as fast as they were started. So a few calls
//! begin at once, and the next begin as soon as one of these ends, or has been under way for so long that it
//! most likely waits for a container that takes its time. Pods of up to that many containers notice nothing.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use tokio::sync::Semaphore;

/// How many calls begin at once.
const AT_ONCE: usize = 8;
/// How long a call counts as one that begins.
const BEGINNING: Duration = Duration::from_secs(1);

/// The place where calls of one pod wait for their turn to begin. Clones share it.
#[derive(Debug, Clone)]
pub struct Pace(Arc<Semaphore>);

impl Default for Pace {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Pace {
    /// Waits for the turn to begin, then makes the call and waits for its end. `call` is asked for the call
    /// when its turn has come, so that it may reckon with the time that is left then.
    pub async fn run<F: Future>(&self, call: impl FnOnce() -> F) -> F::Output {
        // Never closed.
        let turn = self.0.acquire().await;
        let mut call = pin!(call());
        if let Ok(output) = tokio::time::timeout(BEGINNING, &mut call).await {
            return output;
        }
        drop(turn);
        call.await
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        task::JoinSet,
        time::{Instant, sleep},
    };

    use super::*;

    /// When each of some calls began and ended, in milliseconds, if each takes so long.
    async fn calls(count: usize, takes: Duration) -> Vec<(u128, u128)> {
        let (pace, begun, mut set) = (Pace::default(), Instant::now(), JoinSet::new());
        for _ in 0..count {
            let pace = pace.clone();
            set.spawn(async move {
                pace.run(|| async {
                    let at = begun.elapsed().as_millis();
                    sleep(takes).await;
                    (at, begun.elapsed().as_millis())
                })
                .await
            });
        }
        let mut all = set.join_all().await;
        all.sort_unstable();
        all
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_begin_at_once() {
        assert!(calls(AT_ONCE, Duration::from_secs(30)).await.iter().all(|(begin, _)| *begin == 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_long_does_not_hold_up_the_others() {
        let all = calls(3 * AT_ONCE, Duration::from_secs(30)).await;
        for (place, (begin, end)) in all.iter().enumerate() {
            let turn = u128::try_from(place / AT_ONCE).unwrap() * BEGINNING.as_millis();
            assert!((turn..turn + 10).contains(begin) && *end < turn + 30_010, "{place}: {begin} {end}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_ends_soon_makes_room_at_once() {
        let all = calls(3 * AT_ONCE, Duration::from_millis(50)).await;
        assert!(all.iter().all(|(begin, end)| *begin <= 110 && *end <= 160), "{all:?}");
    }
}
