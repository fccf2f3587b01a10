//! How a pod's worker is told things: the latest wins, nothing queues, and telling never waits.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::Notify;

use crate::policy::lifecycle::StopReason;

/// What has not been read yet.
#[derive(Debug, Clone, Default)]
pub struct Mail {
    /// The specification as now wanted.
    pub pod: Option<Arc<Pod>>,
    /// Nothing stands in its way any more.
    pub start: bool,
    /// What the API server supplies it with has changed.
    pub supplied: bool,
    /// It is to stop.
    pub stop: Option<(StopReason, Duration)>,
}

/// A pod's mailbox.
#[derive(Debug, Default)]
pub struct Mailbox {
    mail: Mutex<Mail>,
    wake: Notify,
    probed: Notify,
    /// Of stops alone: who waits for one takes no waking from who waits for any.
    stopped: Notify,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the worker look again.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Tells that a probe has another verdict.
    pub fn probed(&self) {
        self.probed.notify_one();
        self.wake();
    }

    /// Waits for the next such telling, also where the worker is in the middle of something else.
    pub async fn probe_told(&self) {
        self.probed.notified().await;
    }

    /// Tells of a new specification.
    pub fn update(&self, pod: Arc<Pod>) {
        self.lock().pod = Some(pod);
        self.wake();
    }

    /// Tells that something that the API server supplies the pod with has changed: what failed for want of it is
    /// worth another try.
    pub fn supplied(&self) {
        self.lock().supplied = true;
        self.wake();
    }

    /// Tells that the pod may start.
    pub fn start(&self) {
        self.lock().start = true;
        self.wake();
    }

    /// Tells that the pod is to stop. Of several unread tellings the weightiest reason and the shortest time
    /// count.
    pub fn stop(&self, reason: StopReason, grace: Duration) {
        {
            let mut mail = self.lock();
            mail.stop = Some(match mail.stop {
                Some((old, old_grace)) => (reason.after(old), grace.min(old_grace)),
                None => (reason, grace),
            });
        }
        self.stopped.notify_one();
        self.wake();
    }

    /// Reads and empties it.
    pub fn take(&self) -> Mail {
        std::mem::take(&mut self.lock())
    }

    /// Whether a stop is waiting to be read.
    pub fn has_stop(&self) -> bool {
        self.lock().stop.is_some()
    }

    /// Waits for the next telling or waking.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Waits until a stop is there to be read. Every waking is left for [`Mailbox::changed`].
    pub async fn stop_told(&self) {
        while !self.has_stop() {
            self.stopped.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_specification_and_the_shortest_stop_win() {
        let mailbox = Mailbox::default();
        mailbox.update(Arc::new(Pod::default()));
        let mut second = Pod::default();
        second.metadata.name = Some("second".into());
        mailbox.update(Arc::new(second));
        mailbox.stop(StopReason::Removed, Duration::from_secs(5));
        mailbox.stop(StopReason::Completed, Duration::from_secs(30));
        let mail = mailbox.take();
        assert_eq!(mail.pod.unwrap().metadata.name.as_deref(), Some("second"));
        assert_eq!(mail.stop, Some((StopReason::Removed, Duration::from_secs(5))));
        assert!(!mailbox.has_stop() && mailbox.take().pod.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_stop_is_not_ended_by_a_waking_and_keeps_the_stops_own() {
        let mailbox = Arc::new(Mailbox::default());
        let waiting = tokio::spawn({
            let mailbox = Arc::clone(&mailbox);
            async move { mailbox.stop_told().await }
        });
        mailbox.wake();
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished());
        mailbox.stop(StopReason::Removed, Duration::ZERO);
        waiting.await.unwrap();
        tokio::time::timeout(Duration::from_secs(1), mailbox.changed()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_a_stop_beside_something_else_loses_no_other_news() {
        let mailbox = Mailbox::default();
        // Somebody pulls an image; meanwhile a container ends, which wakes the worker.
        let pull = async {
            mailbox.wake();
            tokio::time::sleep(Duration::from_secs(1)).await;
        };
        tokio::select! {
            () = pull => {}
            () = mailbox.stop_told() => panic!("there is no stop"),
        }
        tokio::time::timeout(Duration::from_secs(1), mailbox.changed()).await.unwrap();
        // One that was read already does not end the next waiting.
        mailbox.stop(StopReason::Removed, Duration::ZERO);
        mailbox.take();
        let waiting = tokio::time::timeout(Duration::from_secs(1), mailbox.stop_told());
        assert!(waiting.await.is_err());
    }
}
