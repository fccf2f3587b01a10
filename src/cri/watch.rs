//! The runtime's events as they are, for whoever wants to see each: the source of `nodectl cri events`.
//!
//! Unlike [`RuntimeEvents`](super::RuntimeEvents), whose receiver wants to know that something happened, no
//! event is dropped: a receiver that is slow makes the runtime wait, as far as that does.

use tokio::{sync::mpsc, task::AbortHandle};

use super::{
    EventKind, EventSource, RuntimeEndpoint,
    dialect::Dialect,
    follow::{
        BOTH, End, Listen, RETRY_FIRST, RETRY_LAST, exit_code, follow_once, is_second_end, of_containerd,
    },
    proto::containerd_events::Envelope,
};
use crate::api::cri::ContainerEventResponse;

/// Events that may wait for the receiver.
const QUEUE: usize = 64;

/// What happened to a container or sandbox.
#[derive(Debug, Clone, PartialEq)]
pub enum ContainerEvent {
    /// As CRI tells it, with the state of the pod.
    Cri(Box<ContainerEventResponse>),
    /// As containerd's own event service tells it, in part before CRI's calls show it.
    Containerd {
        /// One of created, started, stopped and deleted.
        kind: EventKind,
        /// Id of the container, or of the sandbox.
        id: String,
        /// When it happened, in nanoseconds since 1970.
        at: i64,
        /// The exit code of what stopped.
        exit_code: Option<i32>,
    },
}

/// What a watch tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Watched {
    /// Events come from here from now on, for the first time or again.
    From(EventSource),
    /// An event.
    Event(ContainerEvent),
    /// The connection broke, for this reason. It is tried again until it works.
    Broken(String),
    /// The runtime tells of no events. Nothing more comes.
    Unsupported,
}

/// The receiving end. Dropping it ends the watch.
#[derive(Debug)]
pub struct ContainerEvents {
    queue: mpsc::Receiver<Watched>,
    task: AbortHandle,
}

impl ContainerEvents {
    /// What comes next; `None` when nothing more will come. Safe to drop in a `select!`.
    pub async fn next(&mut self) -> Option<Watched> {
        self.queue.recv().await
    }
}

impl Drop for ContainerEvents {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Listener(mpsc::Sender<Watched>);

impl Listen for Listener {
    type Event = ContainerEvent;

    fn of_cri(event: ContainerEventResponse) -> Option<ContainerEvent> {
        Some(ContainerEvent::Cri(Box::new(event)))
    }

    fn of_containerd(envelope: Envelope) -> Option<ContainerEvent> {
        if is_second_end(&envelope) {
            return None;
        }
        let (kind, id) = of_containerd(&envelope).filter(|(kind, _)| *kind != EventKind::Oom)?;
        let time = envelope.timestamp.unwrap_or_default();
        let at = time.seconds.saturating_mul(1_000_000_000).saturating_add(time.nanos.into());
        Some(ContainerEvent::Containerd { kind, id, at, exit_code: exit_code(&envelope) })
    }

    async fn source(&self, source: EventSource) -> bool {
        self.0.send(Watched::From(source)).await.is_ok()
    }

    async fn tell(&self, event: ContainerEvent) -> bool {
        self.0.send(Watched::Event(event)).await.is_ok()
    }
}

/// Starts to watch. Must be called on the async runtime.
pub(super) fn start(endpoint: RuntimeEndpoint, dialect: Dialect, own_service: bool) -> ContainerEvents {
    let (sender, queue) = mpsc::channel(QUEUE);
    let sources = if own_service { &[EventSource::Containerd] } else { BOTH };
    let task = tokio::spawn(async move { watch(&endpoint, &dialect, &Listener(sender), sources).await });
    ContainerEvents { queue, task: task.abort_handle() }
}

async fn watch(endpoint: &RuntimeEndpoint, dialect: &Dialect, listener: &Listener, sources: &[EventSource]) {
    let (mut pause, mut worked) = (RETRY_FIRST, false);
    loop {
        let cause = match follow_once(endpoint, dialect, listener, sources).await {
            End::Unwanted => return,
            End::Unsupported if !worked => {
                // Whether anybody hears it is the same.
                listener.0.send(Watched::Unsupported).await.ok();
                return;
            }
            // It is shut down, or comes up and is not ready yet.
            End::Unsupported => "the runtime ended it".to_owned(),
            End::Lost(had_worked, cause) => {
                worked |= had_worked;
                cause
            }
        };
        if listener.0.send(Watched::Broken(cause)).await.is_err() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_LAST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::proto::containerd_payloads::{ContainerCreate, TaskDelete, TaskExit, TaskOom};

    fn told(topic: &str, payload: &impl prost::Message) -> Option<ContainerEvent> {
        Listener::of_containerd(Envelope {
            timestamp: Some(prost_types::Timestamp { seconds: 2, nanos: 5 }),
            namespace: "k8s.io".into(),
            topic: topic.into(),
            event: Some(prost_types::Any { type_url: String::new(), value: payload.encode_to_vec() }),
        })
    }

    #[test]
    fn an_end_is_told_once_and_with_its_time() {
        let exit = |id: &str| TaskExit {
            container_id: "c".into(),
            id: id.into(),
            exit_status: 3,
            ..TaskExit::default()
        };
        let event = |kind, exit_code| {
            Some(ContainerEvent::Containerd { kind, id: "c".into(), at: 2_000_000_005, exit_code })
        };
        assert_eq!(told("/tasks/exit", &exit("c")), event(EventKind::Stopped, Some(3)));
        assert_eq!(told("/tasks/exit", &exit("probe")), None);
        let delete = TaskDelete { container_id: "c".into(), ..TaskDelete::default() };
        assert_eq!(told("/tasks/delete", &delete), None);
        assert_eq!(told("/tasks/oom", &TaskOom { container_id: "c".into() }), None);
        assert_eq!(
            told("/containers/create", &ContainerCreate { id: "c".into() }),
            event(EventKind::Created, None)
        );
    }

    #[tokio::test]
    async fn a_socket_that_is_dead_is_tried_again() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("x.sock");
        let mut events =
            start(path.to_str().expect("utf-8").parse().expect("an endpoint"), Dialect::V1, false);
        for _ in 0..2 {
            let Some(Watched::Broken(cause)) = events.next().await else { panic!("it is broken") };
            assert!(cause.contains("does not exist"), "{cause}");
        }
    }
}
