//! Follows the runtime's events: CRI's own stream where there is one, else containerd's event
//! service on the same socket, else nothing.
//!
//! One task per receiver, with a connection of its own. A server in Go sends a stream's first bytes
//! with the first event, so an idle stream cannot be told from one that was not answered; a Version
//! call on the same connection, sent after the subscription, tells that the runtime has read both.

use std::{future::Future, time::Duration};

use prost::Message as _;
use tonic::{Code, Response, Status, Streaming};

use super::{
    EventKind, EventSender, EventSource, RuntimeEndpoint, RuntimeEvent, RuntimeEvents,
    channel::{open_lazily, runtime_service, within},
    dialect::{Dialect, Line},
    proto::{
        containerd_events::{Envelope, SubscribeRequest, events_client::EventsClient},
        containerd_payloads::{ContainerCreate, ContainerDelete, TaskDelete, TaskExit, TaskOom, TaskStart},
    },
};
use crate::api::cri::{ContainerEventResponse, ContainerEventType, GetEventsRequest, VersionRequest};

/// The version that kubelet names in its Version call; runtimes do not look at it.
pub(super) const API_VERSION: &str = "0.1.0";

/// Events that may wait for the receiver. A burst of that size means a relist anyway.
const QUEUE: usize = 256;
/// Largest event that is taken; CRI's carry the pod's whole status, which nobody reads here.
const MAX_EVENT: usize = 4 << 20;
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// Short, as trying a dead unix socket costs microseconds and the PLEG polls faster until events are back.
const RETRY_LAST: Duration = Duration::from_secs(1);
/// How often a runtime without events is asked again, as it may have been upgraded meanwhile.
const RECHECK: Duration = Duration::from_secs(120);
/// The limit of the Version call.
const PROBE: Duration = Duration::from_secs(10);
/// Time for "unimplemented" to arrive after the runtime has read the subscription.
const REFUSAL: Duration = Duration::from_millis(50);

/// Why following ended.
#[derive(Debug)]
enum End {
    /// This source does not exist there.
    Unsupported,
    /// It broke; true if it had worked before.
    Lost(bool, String),
    /// The receiver is gone.
    Unwanted,
}

/// Starts the task.
pub(super) fn start(endpoint: RuntimeEndpoint, dialect: Dialect) -> RuntimeEvents {
    let (sender, events) = RuntimeEvents::channel(QUEUE);
    let task = tokio::spawn(async move { follow(&endpoint, &dialect, &sender).await });
    events.fed_by(task.abort_handle())
}

async fn follow(endpoint: &RuntimeEndpoint, dialect: &Dialect, sender: &EventSender) {
    let mut pause = RETRY_FIRST;
    let mut told_unsupported = false;
    loop {
        let end = follow_once(endpoint, dialect, sender).await;
        if !sender.set_source(EventSource::None) {
            return;
        }
        match end {
            End::Unwanted => return,
            End::Unsupported => {
                if !told_unsupported {
                    tracing::info!(%endpoint, "the runtime tells of no events; changes are found by listing");
                    told_unsupported = true;
                }
                tokio::time::sleep(RECHECK).await;
            }
            End::Lost(had_worked, cause) => {
                if had_worked {
                    tracing::warn!(%endpoint, cause, "the runtime's events ended; following them again");
                    pause = RETRY_FIRST;
                    told_unsupported = false;
                } else {
                    tracing::debug!(%endpoint, cause, "cannot follow the runtime's events yet");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_LAST);
            }
        }
    }
}

/// Tries the sources in turn and stays with the first that works until it breaks. The connection
/// lives no longer than this.
async fn follow_once(endpoint: &RuntimeEndpoint, dialect: &Dialect, sender: &EventSender) -> End {
    let line = open_lazily(endpoint, dialect.clone());
    let mut cri = runtime_service(line.clone()).max_decoding_message_size(MAX_EVENT);
    let stream = cri.get_container_events(GetEventsRequest {});
    match read(endpoint, sender, EventSource::Cri, &line, stream, hint_of_cri).await {
        End::Unsupported => {}
        end => return end,
    }
    let mut containerd = EventsClient::new(line.clone()).max_decoding_message_size(MAX_EVENT);
    let stream = containerd.subscribe(SubscribeRequest { filters: filters() });
    read(endpoint, sender, EventSource::Containerd, &line, stream, hint_of_containerd).await
}

/// Reads one stream until it ends, passing hints on.
async fn read<T>(
    endpoint: &RuntimeEndpoint,
    sender: &EventSender,
    source: EventSource,
    line: &Line,
    stream: impl Future<Output = Result<Response<Streaming<T>>, Status>>,
    hint: impl Fn(T) -> Option<RuntimeEvent>,
) -> End {
    let up = || {
        tracing::debug!(%endpoint, ?source, "following the runtime's events");
        sender.set_source(source)
    };
    let mut worked = false;
    tokio::pin!(stream);
    let mut stream = {
        let probe = read_by_runtime(endpoint, line);
        tokio::pin!(probe);
        loop {
            // In this order, so that the subscription is on the wire before the probe.
            tokio::select! {
                biased;
                opened = &mut stream => match opened {
                    Ok(opened) => break opened.into_inner(),
                    Err(status) => return end_of(worked, &status),
                },
                probed = &mut probe, if !worked => match probed {
                    Ok(()) => {
                        worked = true;
                        if !up() {
                            return End::Unwanted;
                        }
                    }
                    Err(cause) => return End::Lost(false, cause),
                },
            }
        }
    };
    if !worked && !up() {
        return End::Unwanted;
    }
    loop {
        match stream.message().await {
            Ok(Some(message)) => {
                if let Some(event) = hint(message)
                    && !sender.send(event)
                {
                    return End::Unwanted;
                }
            }
            // CRI-O ends the stream at once, with success, where its events are switched off. A
            // runtime that shuts down may do the same; then the next source cannot be reached.
            Ok(None) => return End::Unsupported,
            Err(status) => return end_of(true, &status),
        }
    }
}

fn end_of(worked: bool, status: &Status) -> End {
    match status.code() {
        Code::Unimplemented => End::Unsupported,
        _ => End::Lost(worked, status.message().to_owned()),
    }
}

/// Waits until the runtime has read all that was sent on `line` before.
async fn read_by_runtime(endpoint: &RuntimeEndpoint, line: &Line) -> Result<(), String> {
    let mut client = runtime_service(line.clone());
    let call = client.version(VersionRequest { version: API_VERSION.to_owned() });
    within("Version", &endpoint.to_string(), Some(PROBE), call).await.map_err(|error| error.to_string())?;
    tokio::time::sleep(REFUSAL).await;
    Ok(())
}

fn hint_of_cri(event: ContainerEventResponse) -> Option<RuntimeEvent> {
    let kind = match event.container_event_type() {
        ContainerEventType::ContainerCreatedEvent => EventKind::Created,
        ContainerEventType::ContainerStartedEvent => EventKind::Started,
        ContainerEventType::ContainerStoppedEvent => EventKind::Stopped,
        ContainerEventType::ContainerDeletedEvent => EventKind::Deleted,
    };
    let pod = event.pod_sandbox_status.and_then(|sandbox| sandbox.metadata);
    Some(RuntimeEvent {
        kind,
        container_id: event.container_id,
        pod_uid: pod.map(|pod| pod.uid).filter(|uid| !uid.is_empty()),
        source: EventSource::Cri,
    })
}

const TASK_START: &str = "/tasks/start";
const TASK_EXIT: &str = "/tasks/exit";
const TASK_OOM: &str = "/tasks/oom";
const TASK_DELETE: &str = "/tasks/delete";
const CONTAINER_CREATE: &str = "/containers/create";
const CONTAINER_DELETE: &str = "/containers/delete";

/// Only what belongs to Kubernetes: Docker's containers live in the same daemon, in a namespace
/// beside it.
fn filters() -> Vec<String> {
    [TASK_START, TASK_EXIT, TASK_OOM, TASK_DELETE, CONTAINER_CREATE, CONTAINER_DELETE]
        .iter()
        .map(|topic| format!("namespace==\"k8s.io\",topic==\"{topic}\""))
        .collect()
}

fn hint_of_containerd(envelope: Envelope) -> Option<RuntimeEvent> {
    let payload = envelope.event?.value;
    let payload = payload.as_slice();
    let (kind, container_id) = match envelope.topic.as_str() {
        TASK_START => (EventKind::Started, TaskStart::decode(payload).ok()?.container_id),
        TASK_OOM => (EventKind::Oom, TaskOom::decode(payload).ok()?.container_id),
        TASK_EXIT => {
            let exit = TaskExit::decode(payload).ok()?;
            (EventKind::Stopped, of_main_process(exit.container_id, &exit.id)?)
        }
        TASK_DELETE => {
            let delete = TaskDelete::decode(payload).ok()?;
            (EventKind::Stopped, of_main_process(delete.container_id, &delete.id)?)
        }
        CONTAINER_CREATE => (EventKind::Created, ContainerCreate::decode(payload).ok()?.id),
        CONTAINER_DELETE => (EventKind::Deleted, ContainerDelete::decode(payload).ok()?.id),
        _ => return None,
    };
    Some(RuntimeEvent { kind, container_id, pod_uid: None, source: EventSource::Containerd })
}

/// Every exec probe ends a process of its own in the container, which changes nothing for the pod.
fn of_main_process(container_id: String, process_id: &str) -> Option<String> {
    (process_id.is_empty() || process_id == container_id).then_some(container_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::cri::{PodSandboxMetadata, PodSandboxStatus};

    fn envelope(topic: &str, payload: &impl prost::Message) -> Envelope {
        Envelope {
            timestamp: None,
            namespace: "k8s.io".into(),
            topic: topic.into(),
            event: Some(prost_types::Any { type_url: String::new(), value: payload.encode_to_vec() }),
        }
    }

    fn exit(container: &str, process: &str) -> TaskExit {
        TaskExit { container_id: container.into(), id: process.into(), ..Default::default() }
    }

    #[test]
    fn the_end_of_a_container_is_told_and_that_of_a_probe_is_not() {
        let told = hint_of_containerd(envelope(TASK_EXIT, &exit("c1", "c1")));
        assert_eq!(
            told,
            Some(RuntimeEvent {
                kind: EventKind::Stopped,
                container_id: "c1".into(),
                pod_uid: None,
                source: EventSource::Containerd,
            })
        );
        assert_eq!(hint_of_containerd(envelope(TASK_EXIT, &exit("c1", "probe"))), None);
        let removed = TaskDelete { container_id: "c1".into(), id: "probe".into(), ..Default::default() };
        assert_eq!(hint_of_containerd(envelope(TASK_DELETE, &removed)), None);
    }

    #[test]
    fn other_topics_and_broken_payloads_are_passed_over() {
        assert_eq!(hint_of_containerd(envelope("/tasks/paused", &exit("c1", "c1"))), None);
        let any = prost_types::Any { type_url: String::new(), value: vec![0xff] };
        let broken = Envelope { event: Some(any), ..envelope(TASK_EXIT, &exit("c1", "c1")) };
        assert_eq!(hint_of_containerd(broken), None);
        assert_eq!(hint_of_containerd(Envelope::default()), None);
    }

    #[test]
    fn the_runtimes_own_event_names_the_pod() {
        let event = ContainerEventResponse {
            container_id: "c1".into(),
            container_event_type: ContainerEventType::ContainerDeletedEvent.into(),
            pod_sandbox_status: Some(PodSandboxStatus {
                metadata: Some(PodSandboxMetadata { uid: "u1".into(), ..Default::default() }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let told = hint_of_cri(event).expect("a hint");
        assert_eq!((told.kind, told.pod_uid.as_deref()), (EventKind::Deleted, Some("u1")));
        let bare = hint_of_cri(ContainerEventResponse::default()).expect("a hint");
        assert_eq!((bare.kind, bare.pod_uid), (EventKind::Created, None));
    }
}
