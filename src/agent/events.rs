//! Where the agent's parts leave what is to become an Event. Leaving it takes microseconds and never waits: what
//! does not find room, while the API server is away for long, is counted and dropped, as on kubelet. The writer is
//! [`super::cluster::events`]. An agent that stands alone has nobody to tell: it has the log, where these things
//! stand in its own words, and, with debug messages on, in these too.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use tokio::sync::Notify;

use super::clock::Clock;
use crate::policy::events::{Occurrence, Words, of_container, of_node, of_pod};

/// What waits to be written at most (client-go's `maxQueuedEvents`).
const ROOM: usize = 1000;

/// See the module. Cheap to clone.
#[derive(Clone, Default)]
pub struct EventRecorder(Option<Arc<Queue>>);

struct Queue {
    clock: Clock,
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Occurrence>,
    dropped: u64,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EventRecorder {
    /// For somebody who writes them.
    pub fn queued(clock: Clock) -> Self {
        Self(Some(Arc::new(Queue { clock, state: Mutex::default(), news: Notify::new() })))
    }

    /// Something happened to a pod.
    pub fn pod(&self, pod: &Pod, words: Words) {
        self.record(|| of_pod(pod), words);
    }

    /// Something happened to a pod's container.
    pub fn container(&self, pod: &Pod, name: &str, words: Words) {
        self.record(|| of_container(pod, name), words);
    }

    /// Something happened to the node.
    pub fn node(&self, name: &str, words: Words) {
        self.record(|| of_node(name), words);
    }

    fn record(&self, object: impl FnOnce() -> ObjectReference, words: Words) {
        let Words { reason, message, .. } = &words;
        let Some(queue) = &self.0 else {
            tracing::debug!(%reason, "event: {message}");
            return;
        };
        let object = object();
        tracing::debug!(object = object.name, field = object.field_path, %reason, "event: {message}");
        let mut state = queue.lock();
        if state.waiting.len() < ROOM {
            state.waiting.push_back(Occurrence { object, words, at: queue.clock.now() });
        } else {
            state.dropped += 1;
        }
        drop(state);
        queue.news.notify_one();
    }

    /// The next in line, and how many found no room before this was asked.
    pub(super) async fn next(&self) -> (Occurrence, u64) {
        let Some(queue) = &self.0 else { return std::future::pending().await };
        loop {
            let news = queue.news.notified();
            {
                let mut state = queue.lock();
                if let Some(next) = state.waiting.pop_front() {
                    return (next, std::mem::take(&mut state.dropped));
                }
            }
            news.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_waits_for_who_writes_and_what_finds_no_room_is_counted() {
        let recorder = EventRecorder::queued(Clock::system());
        for number in 0..ROOM + 3 {
            recorder.node("n1", Words::normal("Starting", number.to_string()));
        }
        let (first, dropped) = recorder.next().await;
        assert_eq!((first.words.message.as_str(), dropped), ("0", 3));
        assert_eq!(first.object.kind.as_deref(), Some("Node"));
        recorder.node("n1", Words::normal("Starting", "last"));
        for _ in 1..ROOM {
            assert_eq!(recorder.next().await.1, 0);
        }
        assert_eq!(recorder.next().await.0.words.message, "last");
        // Who waits is woken.
        let (waiting, ()) = tokio::join!(recorder.next(), async {
            tokio::task::yield_now().await;
            recorder.clone().node("n1", Words::normal("Starting", "woken"));
        });
        assert_eq!(waiting.0.words.message, "woken");
    }

    #[test]
    fn alone_there_is_nobody_to_tell() {
        let recorder = EventRecorder::default();
        recorder.pod(&Pod::default(), Words::warning("Failed", "x"));
    }
}
