//! Answers of the API server that are believed for a while.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Most answers that are kept; whoever asks for more is asked about again.
const MOST: usize = 4096;

/// Answers by what was asked, each until its time has come.
#[derive(Debug)]
pub(super) struct Cache<K, V>(Mutex<HashMap<K, (V, Instant)>>);

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    fn answers(&self) -> std::sync::MutexGuard<'_, HashMap<K, (V, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer, if it is still believed.
    pub(super) fn get(&self, key: &K) -> Option<V> {
        let answers = self.answers();
        answers.get(key).filter(|(_, until)| Instant::now() < *until).map(|(answer, _)| answer.clone())
    }

    /// Believes an answer for so long.
    pub(super) fn put(&self, key: K, answer: V, time: Duration) {
        if time.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut answers = self.answers();
        if answers.len() >= MOST {
            answers.retain(|_, (_, until)| now < *until);
        }
        if answers.len() >= MOST
            && let Some(next) =
                answers.iter().min_by_key(|(_, (_, until))| *until).map(|(key, _)| key.clone())
        {
            answers.remove(&next);
        }
        answers.insert(key, (answer, now + time));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_are_believed_for_their_time_and_are_not_without_number() {
        let cache = Cache::default();
        cache.put(1, "yes", Duration::from_secs(10));
        cache.put(2, "no", Duration::ZERO);
        assert_eq!((cache.get(&1), cache.get(&2)), (Some("yes"), None));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(cache.get(&1), None);
        for key in 0..2 * MOST {
            cache.put(key, "yes", Duration::from_secs(60));
        }
        assert_eq!(cache.answers().len(), MOST);
        assert_eq!(cache.get(&(2 * MOST - 1)), Some("yes"));
    }
}
