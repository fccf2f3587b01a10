//! File work that may never end. A hostPath may lead to a file system that does not answer, one of a server
//! that is gone, say: the thread that looks there cannot be called back.
//!
//! So no worker waits for it longer than its pod is to run, and it has a bound of its own, which is less than
//! the threads that all file work shares: pods without such volumes go on.

use std::{future::Future, sync::Arc};

use tokio::{sync::Semaphore, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::{failures::StepError, mailbox::Mailbox};

/// How much of it is under way at once: half of the threads (`cli::run`).
const AT_ONCE: usize = 8;

/// Bounds the work. It counts until it really ends, whether somebody waits for it or not.
#[derive(Debug)]
pub struct HostWork {
    room: Arc<Semaphore>,
}

impl Default for HostWork {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

impl HostWork {
    /// Does such work for a pod. `told` is called before, with whether there is room or it waits for some;
    /// then again when the wait is over.
    ///
    /// # Errors
    /// `Interrupted` as soon as the pod or the agent is to stop; work that was begun goes on.
    pub async fn run<T: Send + 'static>(
        &self,
        mailbox: &Mailbox,
        stop: &CancellationToken,
        mut told: impl FnMut(bool),
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StepError> {
        let failed = |why: String| StepError::new("FailedMount", why);
        let room = match Arc::clone(&self.room).try_acquire_owned() {
            Ok(room) => room,
            Err(_) => {
                told(false);
                let room = unless_stopped(mailbox, stop, Arc::clone(&self.room).acquire_owned()).await?;
                room.map_err(|error| failed(error.to_string()))?
            }
        };
        told(true);
        let working = spawn_blocking(move || {
            let done = work();
            drop(room);
            done
        });
        unless_stopped(mailbox, stop, working).await?.map_err(|error| failed(error.to_string()))
    }
}

/// Waits for something until the pod or the agent is to stop. Other news for the pod stay to be read.
///
/// # Errors
/// `Interrupted` if it is to stop.
pub async fn unless_stopped<T>(
    mailbox: &Mailbox,
    stop: &CancellationToken,
    work: impl Future<Output = T>,
) -> Result<T, StepError> {
    let interrupted = |why: &str| Err(StepError::new("Interrupted", why));
    tokio::select! {
        biased;
        () = mailbox.stop_told() => interrupted("the pod is to stop"),
        () = stop.cancelled() => interrupted("the agent is to stop"),
        done = work => Ok(done),
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;
    use crate::policy::lifecycle::StopReason;

    async fn woken(mailbox: &Mailbox) -> bool {
        tokio::time::timeout(Duration::from_millis(1), mailbox.changed()).await.is_ok()
    }

    #[tokio::test]
    async fn work_that_hangs_holds_neither_its_pod_nor_more_than_its_share() {
        let host = Arc::new(HostWork::default());
        let mut ends = Vec::new();
        for _ in 0..AT_ONCE {
            let (begun, begins) = tokio::sync::oneshot::channel();
            let (end, hangs) = mpsc::channel::<()>();
            ends.push(end);
            let (mailbox, host) = (Arc::new(Mailbox::default()), Arc::clone(&host));
            let waiting = tokio::spawn({
                let mailbox = Arc::clone(&mailbox);
                async move {
                    let work = move || {
                        begun.send(()).unwrap();
                        hangs.recv().ok();
                    };
                    host.run(&mailbox, &CancellationToken::new(), |_| {}, work).await
                }
            });
            begins.await.unwrap();
            mailbox.stop(StopReason::Removed, Duration::ZERO);
            assert_eq!(waiting.await.unwrap().unwrap_err().reason, "Interrupted");
            assert!(woken(&mailbox).await, "the stop is still to be read");
        }
        // There is no room, though nobody waits any more for those that hang.
        let (mailbox, stop) = (Mailbox::default(), CancellationToken::new());
        let mut heard = Vec::new();
        let waits = host.run(&mailbox, &stop, |room| heard.push(room), || 1);
        let waited = tokio::time::timeout(Duration::from_millis(10), waits).await;
        assert!(waited.is_err());
        assert_eq!(heard, [false]);
        let cancelled = stop.clone();
        cancelled.cancel();
        assert!(host.run(&mailbox, &stop, |_| {}, || 1).await.is_err());
        // One of them ends.
        ends.pop();
        let done = host.run(&mailbox, &CancellationToken::new(), |_| {}, || 1).await;
        assert_eq!(done.unwrap(), 1);
    }

    #[tokio::test]
    async fn other_news_stay_to_be_read() {
        let (mailbox, stop) = (Mailbox::default(), CancellationToken::new());
        mailbox.wake();
        let done = unless_stopped(&mailbox, &stop, tokio::time::sleep(Duration::from_millis(1))).await;
        assert!(done.is_ok());
        assert!(woken(&mailbox).await);
        let done = unless_stopped(&mailbox, &stop, std::future::ready(1)).await;
        assert_eq!(done.unwrap(), 1);
        assert!(!woken(&mailbox).await, "there was no news");
    }
}
