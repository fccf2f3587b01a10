//! One sample for all who ask: taken when it is asked for, by one at a time, and good for its time.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How old a sample may be that is served.
pub(super) const FRESH: Duration = Duration::from_secs(10);

struct Kept<T> {
    begun: Instant,
    sample: Arc<T>,
}

/// See the module.
pub(super) struct Cached<T> {
    last: Mutex<Option<Kept<T>>>,
    taking: tokio::sync::Mutex<()>,
}

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self { last: Mutex::default(), taking: tokio::sync::Mutex::default() }
    }
}

impl<T: Send + Sync + 'static> Cached<T> {
    /// The last sample if it is fresh, else one that `take` makes of the one before. Those who come meanwhile wait for
    /// the same. It is made in a task of its own: whoever has asked may go away. `None` if it was not made.
    pub(super) async fn get<F>(
        self: &Arc<Self>,
        take: impl FnOnce(Option<Arc<T>>) -> F + Send + 'static,
    ) -> Option<Arc<T>>
    where
        F: Future<Output = Option<T>> + Send + 'static,
    {
        if let Some(fresh) = self.fresh() {
            return Some(fresh);
        }
        let this = Arc::clone(self);
        let taking = tokio::spawn(async move {
            let _one_at_a_time = this.taking.lock().await;
            if let Some(fresh) = this.fresh() {
                return Some(fresh);
            }
            let begun = Instant::now();
            let sample = Arc::new(take(this.last()).await?);
            *this.kept() = Some(Kept { begun, sample: Arc::clone(&sample) });
            Some(sample)
        });
        taking.await.ok().flatten()
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<Kept<T>>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last(&self) -> Option<Arc<T>> {
        self.kept().as_ref().map(|kept| Arc::clone(&kept.sample))
    }

    fn fresh(&self) -> Option<Arc<T>> {
        let kept = self.kept();
        kept.as_ref().filter(|kept| kept.begun.elapsed() < FRESH).map(|kept| Arc::clone(&kept.sample))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    type Taking = std::pin::Pin<Box<dyn Future<Output = Option<u32>> + Send>>;

    fn take(counter: &Arc<AtomicU32>) -> impl FnOnce(Option<Arc<u32>>) -> Taking + Send + 'static {
        let counter = Arc::clone(counter);
        move |before| {
            Box::pin(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                assert_eq!(before.as_deref().copied().unwrap_or(0), counter.load(Ordering::SeqCst));
                Some(counter.fetch_add(1, Ordering::SeqCst) + 1)
            })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_get_the_same_sample_and_it_is_renewed_after_its_time() {
        let (cached, taken) = (Arc::new(Cached::default()), Arc::new(AtomicU32::new(0)));
        let all: Vec<_> = (0..50)
            .map(|_| {
                let (cached, take) = (Arc::clone(&cached), take(&taken));
                tokio::spawn(async move { cached.get(take).await })
            })
            .collect();
        for one in all {
            assert_eq!(one.await.unwrap().as_deref(), Some(&1));
        }
        // A second of it went by while it was taken.
        tokio::time::advance(Duration::from_millis(8_900)).await;
        assert_eq!(cached.get(take(&taken)).await.as_deref(), Some(&1));
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(cached.get(take(&taken)).await.as_deref(), Some(&2));
        assert_eq!(taken.load(Ordering::SeqCst), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_ends_nothing() {
        let (cached, taken) = (Arc::new(Cached::default()), Arc::new(AtomicU32::new(0)));
        let gone = tokio::time::timeout(Duration::from_millis(10), cached.get(take(&taken))).await;
        assert!(gone.is_err());
        assert_eq!(cached.get(take(&taken)).await.as_deref(), Some(&1));
        assert_eq!(taken.load(Ordering::SeqCst), 1, "the one that was under way");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_made_is_tried_again() {
        let cached = Arc::new(Cached::<u32>::default());
        assert_eq!(cached.get(|_| async { None }).await, None);
        assert_eq!(cached.get(|_| async { Some(3) }).await.as_deref(), Some(&3));
    }
}
