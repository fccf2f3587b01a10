//! Wake-ups from the runtime: what happened to which container, as a hint and no more.
//!
//! Nothing may depend on an event: whoever receives one looks at the runtime again. So the queue
//! is bounded and loses events rather than wait or grow, and what it owes for that is one
//! [`EventKind::Lagged`], which means "look at everything".

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
};

/// Who tells of events at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventSource {
    /// Nobody: the runtime is away, or has no events to give. Only listing finds changes.
    None,
    /// The runtime's CRI event stream (containerd 1.7, CRI-O with `enable_pod_events`). Events come
    /// after the change shows in status calls.
    Cri,
    /// containerd's own event service, where its CRI has none (1.6). An exit is told before the
    /// container's status shows it, by 25 to 95 ms as measured: the receiver must look again until
    /// it does. A second [`EventKind::Stopped`] comes some 10 ms before the status changes.
    Containerd,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A container or sandbox was made.
    Created,
    /// It started.
    Started,
    /// Its main process ended.
    Stopped,
    /// It was removed.
    Deleted,
    /// The kernel killed something in it for want of memory. Only from [`EventSource::Containerd`].
    Oom,
    /// Events were lost because the receiver was slow: look at everything.
    Lagged,
    /// Events flow from here on, for the first time or again: look at everything once, as what
    /// happened before was not told.
    Reconnected,
}

/// A hint that something changed in the runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeEvent {
    /// What happened.
    pub kind: EventKind,
    /// Id of the container, or of the sandbox; empty for [`EventKind::Lagged`] and
    /// [`EventKind::Reconnected`].
    pub container_id: String,
    /// UID of the pod, where the source tells it.
    pub pod_uid: Option<String>,
    /// Who told.
    pub source: EventSource,
}

impl RuntimeEvent {
    fn about_all(kind: EventKind, source: EventSource) -> Self {
        Self { kind, container_id: String::new(), pod_uid: None, source }
    }
}

/// The receiving end. Dropping it ends whatever feeds it.
#[derive(Debug)]
pub struct RuntimeEvents {
    queue: mpsc::Receiver<RuntimeEvent>,
    lagged: Arc<AtomicBool>,
    source: watch::Receiver<EventSource>,
    feeder: Option<AbortHandle>,
}

/// The sending end, for whoever plays a runtime.
#[derive(Debug)]
pub struct EventSender {
    queue: mpsc::Sender<RuntimeEvent>,
    lagged: Arc<AtomicBool>,
    source: watch::Sender<EventSource>,
}

impl RuntimeEvents {
    /// Both ends of a queue of `capacity` events, from [`EventSource::None`] until told otherwise.
    #[must_use]
    pub fn channel(capacity: usize) -> (EventSender, Self) {
        let (sender, receiver) = mpsc::channel(capacity.max(1));
        let (source, source_seen) = watch::channel(EventSource::None);
        let lagged = Arc::new(AtomicBool::new(false));
        (
            EventSender { queue: sender, lagged: Arc::clone(&lagged), source },
            Self { queue: receiver, lagged, source: source_seen, feeder: None },
        )
    }

    /// Ties the task that feeds the queue to the receiver's life.
    pub(super) fn fed_by(mut self, feeder: AbortHandle) -> Self {
        self.feeder = Some(feeder);
        self
    }

    /// The next event; `None` when no more will come. After a loss the queue is emptied and one
    /// [`EventKind::Lagged`] stands for all that was in it. Safe to drop in a `select!`.
    pub async fn recv(&mut self) -> Option<RuntimeEvent> {
        let event = self.queue.recv().await?;
        if !self.lagged.swap(false, Ordering::AcqRel) {
            return Some(event);
        }
        while self.queue.try_recv().is_ok() {}
        Some(RuntimeEvent::about_all(EventKind::Lagged, event.source))
    }

    /// Who tells of events at present.
    #[must_use]
    pub fn source(&self) -> EventSource {
        *self.source.borrow()
    }

    /// The same, to wait for changes on.
    #[must_use]
    pub fn watch_source(&self) -> watch::Receiver<EventSource> {
        self.source.clone()
    }
}

impl Drop for RuntimeEvents {
    fn drop(&mut self) {
        if let Some(feeder) = &self.feeder {
            feeder.abort();
        }
    }
}

impl EventSender {
    /// Queues an event, or notes that one was lost if the queue is full; false if nobody listens.
    pub fn send(&self, event: RuntimeEvent) -> bool {
        match self.queue.try_send(event) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.lagged.store(true, Ordering::Release);
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }

    /// Says who tells of events from now on. A source other than `None` also sends
    /// [`EventKind::Reconnected`]. False if nobody listens.
    pub fn set_source(&self, source: EventSource) -> bool {
        self.source.send_replace(source);
        if source == EventSource::None {
            !self.queue.is_closed()
        } else {
            self.send(RuntimeEvent::about_all(EventKind::Reconnected, source))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(id: usize) -> RuntimeEvent {
        RuntimeEvent {
            kind: EventKind::Stopped,
            container_id: id.to_string(),
            pod_uid: None,
            source: EventSource::Cri,
        }
    }

    #[tokio::test]
    async fn a_slow_receiver_learns_once_that_it_must_look_at_everything() {
        let (sender, mut events) = RuntimeEvents::channel(4);
        for id in 0..100 {
            assert!(sender.send(stopped(id)));
        }
        assert_eq!(events.recv().await.map(|event| event.kind), Some(EventKind::Lagged));
        assert!(sender.send(stopped(7)));
        assert_eq!(events.recv().await, Some(stopped(7)));
    }

    #[tokio::test]
    async fn nothing_is_lost_while_there_is_room() {
        let (sender, mut events) = RuntimeEvents::channel(4);
        for round in 0..10 {
            for id in 0..4 {
                assert!(sender.send(stopped(round * 4 + id)));
            }
            for id in 0..4 {
                assert_eq!(events.recv().await, Some(stopped(round * 4 + id)));
            }
        }
        drop(sender);
        assert_eq!(events.recv().await, None);
    }

    #[tokio::test]
    async fn a_new_source_is_told_and_asks_for_a_relist() {
        let (sender, mut events) = RuntimeEvents::channel(4);
        assert_eq!(events.source(), EventSource::None);
        assert!(sender.set_source(EventSource::Containerd));
        assert_eq!(events.source(), EventSource::Containerd);
        assert_eq!(events.recv().await.map(|event| event.kind), Some(EventKind::Reconnected));
        assert!(sender.set_source(EventSource::None));
        assert_eq!(events.source(), EventSource::None);
        drop(events);
        assert!(!sender.set_source(EventSource::Cri));
        assert!(!sender.send(stopped(1)));
    }
}
