//! The states of a pod and its containers at an event, and whose event it is. CRI tells them with the event;
//! beside an event of containerd's own service they are asked for.
//!
//! What has gone before it could be asked for is told as it was last known, as ended: that is all that can
//! have become of it.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::super::session::Session;
use crate::{
    api::cri::{
        Container, ContainerEventResponse, ContainerEventType, ContainerState, ContainerStatus, PodSandbox,
        PodSandboxState, PodSandboxStatus,
    },
    cri::{ContainerEvent, Cri as _, EventKind},
};

/// How long the runtime's calls have to show what its event service has told, and between two looks.
const SHOWN: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(20);

/// Whose event it is, as far as is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Whose {
    /// The container's name; none for a sandbox.
    pub(super) container: Option<String>,
    pub(super) sandbox: String,
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) uid: String,
}

/// Completes events, and remembers what is there.
pub(super) struct States<'a> {
    session: &'a Session,
    known: Known,
    /// All that is there is still to be noted: the runtime did not answer.
    stale: bool,
}

/// What was last known of sandboxes and of containers, these with their sandboxes.
#[derive(Default)]
struct Known {
    pods: BTreeMap<String, PodSandboxStatus>,
    containers: BTreeMap<String, (String, ContainerStatus)>,
}

/// A change as containerd tells it.
struct Change {
    kind: ContainerEventType,
    id: String,
    at: i64,
    exit_code: Option<i32>,
}

impl<'a> States<'a> {
    pub(super) fn new(session: &'a Session) -> Self {
        Self { session, known: Known::default(), stale: true }
    }

    /// Notes all that is there; forgets what is gone.
    pub(super) async fn remember_all(&mut self) {
        let cri = &self.session.cri;
        let (pods, containers) = tokio::join!(cri.list_pod_sandboxes(None), cri.list_containers(None));
        self.stale = match (pods, containers) {
            (Ok(pods), Ok(containers)) => {
                self.known = Known::new(pods, containers);
                false
            }
            _ => true,
        };
    }

    pub(super) async fn complete(&mut self, event: ContainerEvent) -> (ContainerEventResponse, Whose) {
        if self.stale {
            self.remember_all().await;
        }
        let event = match event {
            ContainerEvent::Cri(event) => *event,
            ContainerEvent::Containerd { kind, id, at, exit_code } => {
                let kind = match kind {
                    EventKind::Created => ContainerEventType::ContainerCreatedEvent,
                    EventKind::Started => ContainerEventType::ContainerStartedEvent,
                    EventKind::Deleted => ContainerEventType::ContainerDeletedEvent,
                    _ => ContainerEventType::ContainerStoppedEvent,
                };
                self.as_cri(Change { kind, id, at, exit_code }).await
            }
        };
        self.known.remember(&event);
        let whose = self.known.whose(&event.container_id);
        if event.container_event_type() == ContainerEventType::ContainerDeletedEvent {
            self.known.pods.remove(&event.container_id);
            self.known.containers.remove(&event.container_id);
        }
        (event, whose)
    }

    /// What CRI would have told. Its calls show a change some milliseconds after containerd has told it.
    async fn as_cri(&mut self, change: Change) -> ContainerEventResponse {
        let until = Instant::now() + SHOWN;
        loop {
            let (pod, containers) = self.ask(&change.id).await;
            let shown = self.known.shows(&change, pod.as_ref(), &containers);
            if shown || Instant::now() >= until {
                return self.known.event(change, pod, containers);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// The pod that something is or belongs to, and its containers. All is listed, so that what comes and goes
    /// while one event is waited for is known when its own turn comes; and first, as the runtime logs an error
    /// for each that it is asked for in vain.
    async fn ask(&mut self, id: &str) -> (Option<PodSandboxStatus>, Vec<ContainerStatus>) {
        let cri = &self.session.cri;
        let (pods, listed) = tokio::join!(cri.list_pod_sandboxes(None), cri.list_containers(None));
        let (Ok(pods), Ok(listed)) = (pods, listed) else { return (None, Vec::new()) };
        let there = Known::new(pods, listed);
        let sandbox = match there.sandbox_of(id) {
            // It may be gone.
            same if same == id => self.known.sandbox_of(id).to_owned(),
            sandbox => sandbox.to_owned(),
        };
        let (mut pod, mut containers) = (None, Vec::new());
        if there.pods.contains_key(&sandbox) {
            pod = cri.pod_sandbox_status(&sandbox, false).await.ok().and_then(|answer| answer.status);
            for (id, _) in there.containers.iter().filter(|(_, (of, _))| *of == sandbox) {
                // One that goes in between has no state.
                let answer = cri.container_status(id, false).await.ok();
                containers.extend(answer.and_then(|answer| answer.status));
            }
        }
        self.known.add(there);
        (pod, containers)
    }
}

impl Known {
    fn new(pods: Vec<PodSandbox>, containers: Vec<Container>) -> Self {
        let pod = |pod: PodSandbox| PodSandboxStatus {
            id: pod.id,
            metadata: pod.metadata,
            state: pod.state,
            created_at: pod.created_at,
            labels: pod.labels,
            annotations: pod.annotations,
            runtime_handler: pod.runtime_handler,
            ..PodSandboxStatus::default()
        };
        let container = |container: Container| {
            let status = ContainerStatus {
                id: container.id,
                metadata: container.metadata,
                state: container.state,
                created_at: container.created_at,
                image: container.image,
                image_ref: container.image_ref,
                labels: container.labels,
                annotations: container.annotations,
                ..ContainerStatus::default()
            };
            (status.id.clone(), (container.pod_sandbox_id, status))
        };
        Self {
            pods: pods.into_iter().map(pod).map(|pod| (pod.id.clone(), pod)).collect(),
            containers: containers.into_iter().map(container).collect(),
        }
    }

    /// Adds what is not known yet.
    fn add(&mut self, there: Self) {
        for (id, pod) in there.pods {
            self.pods.entry(id).or_insert(pod);
        }
        for (id, container) in there.containers {
            self.containers.entry(id).or_insert(container);
        }
    }

    fn remember(&mut self, event: &ContainerEventResponse) {
        let Some(pod) = &event.pod_sandbox_status else { return };
        self.pods.insert(pod.id.clone(), pod.clone());
        for status in &event.containers_statuses {
            self.containers.insert(status.id.clone(), (pod.id.clone(), status.clone()));
        }
    }

    /// The sandbox that something belongs to, or is as far as is known.
    fn sandbox_of<'i>(&'i self, id: &'i str) -> &'i str {
        self.containers.get(id).map_or(id, |(sandbox, _)| sandbox)
    }

    fn whose(&self, id: &str) -> Whose {
        let Some(pod) = self.pods.get(self.sandbox_of(id)) else { return Whose::default() };
        let metadata = pod.metadata.clone().unwrap_or_default();
        let container =
            self.containers.get(id).map(|(_, status)| status.metadata.clone().unwrap_or_default().name);
        Whose {
            container,
            sandbox: pod.id.clone(),
            namespace: metadata.namespace,
            pod: metadata.name,
            uid: metadata.uid,
        }
    }

    /// Whether the runtime's calls show a change, or can no longer.
    fn shows(&self, change: &Change, pod: Option<&PodSandboxStatus>, containers: &[ContainerStatus]) -> bool {
        let pod = pod.filter(|pod| pod.id == change.id);
        let container = containers.iter().find(|container| container.id == change.id);
        let known = self.pods.contains_key(&change.id) || self.containers.contains_key(&change.id);
        if pod.is_none() && container.is_none() {
            return known || change.kind == ContainerEventType::ContainerDeletedEvent;
        }
        match change.kind {
            ContainerEventType::ContainerCreatedEvent => true,
            ContainerEventType::ContainerStartedEvent => {
                container.is_none_or(|c| c.state() != ContainerState::ContainerCreated)
            }
            ContainerEventType::ContainerStoppedEvent => {
                pod.is_none_or(|pod| pod.state() == PodSandboxState::SandboxNotready)
                    && container.is_none_or(|c| c.state() == ContainerState::ContainerExited)
            }
            ContainerEventType::ContainerDeletedEvent => false,
        }
    }

    /// The event, with what is gone already as it was last known.
    fn event(
        &self,
        change: Change,
        pod: Option<PodSandboxStatus>,
        mut containers: Vec<ContainerStatus>,
    ) -> ContainerEventResponse {
        let deleted = change.kind == ContainerEventType::ContainerDeletedEvent;
        let sandbox = self.sandbox_of(&change.id);
        let gone = self.pods.get(sandbox).filter(|_| !(deleted && sandbox == change.id));
        let pod = pod.or_else(|| {
            Some(PodSandboxStatus { state: PodSandboxState::SandboxNotready.into(), ..gone?.clone() })
        });
        if let (ContainerEventType::ContainerStoppedEvent, Some((_, last))) =
            (change.kind, self.containers.get(&change.id))
            && !containers.iter().any(|container| container.id == change.id)
        {
            containers.push(ContainerStatus {
                state: ContainerState::ContainerExited.into(),
                exit_code: change.exit_code.unwrap_or(last.exit_code),
                finished_at: change.at,
                ..last.clone()
            });
        }
        ContainerEventResponse {
            container_id: change.id,
            container_event_type: change.kind.into(),
            created_at: change.at,
            pod_sandbox_status: pod,
            containers_statuses: containers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::cri::{ContainerMetadata, PodSandboxMetadata};
    use ContainerEventType as Type;

    fn known() -> Known {
        let metadata = PodSandboxMetadata {
            name: "web".to_owned(),
            namespace: "default".to_owned(),
            uid: "uid-1".to_owned(),
            attempt: 0,
        };
        let pod = PodSandbox { id: "s".to_owned(), metadata: Some(metadata), ..PodSandbox::default() };
        let container = Container {
            id: "c".to_owned(),
            pod_sandbox_id: "s".to_owned(),
            metadata: Some(ContainerMetadata { name: "main".to_owned(), attempt: 0 }),
            state: ContainerState::ContainerRunning.into(),
            ..Container::default()
        };
        Known::new(vec![pod], vec![container])
    }

    fn change(kind: Type, id: &str) -> Change {
        Change { kind, id: id.to_owned(), at: 7, exit_code: Some(3) }
    }

    #[test]
    fn what_is_told_is_waited_for() {
        let known = known();
        let status = |state: ContainerState| ContainerStatus {
            id: "c".to_owned(),
            state: state.into(),
            ..ContainerStatus::default()
        };
        let pod = |state: PodSandboxState| PodSandboxStatus {
            id: "s".to_owned(),
            state: state.into(),
            ..PodSandboxStatus::default()
        };
        let container = |kind, state| known.shows(&change(kind, "c"), None, &[status(state)]);
        assert!(container(Type::ContainerCreatedEvent, ContainerState::ContainerCreated));
        assert!(!container(Type::ContainerStartedEvent, ContainerState::ContainerCreated));
        assert!(container(Type::ContainerStartedEvent, ContainerState::ContainerExited));
        assert!(!container(Type::ContainerStoppedEvent, ContainerState::ContainerRunning));
        assert!(container(Type::ContainerStoppedEvent, ContainerState::ContainerExited));
        assert!(!container(Type::ContainerDeletedEvent, ContainerState::ContainerExited));
        let sandbox = |kind, state| known.shows(&change(kind, "s"), Some(&pod(state)), &[]);
        assert!(sandbox(Type::ContainerStartedEvent, PodSandboxState::SandboxReady));
        assert!(!sandbox(Type::ContainerStoppedEvent, PodSandboxState::SandboxReady));
        assert!(sandbox(Type::ContainerStoppedEvent, PodSandboxState::SandboxNotready));
        // What was there and is gone will not come; what was never there may.
        assert!(known.shows(&change(Type::ContainerStoppedEvent, "c"), None, &[]));
        assert!(known.shows(&change(Type::ContainerDeletedEvent, "new"), None, &[]));
        assert!(!known.shows(&change(Type::ContainerCreatedEvent, "new"), None, &[]));
    }

    #[test]
    fn what_is_gone_is_told_as_it_ended() {
        let known = known();
        let event = known.event(change(Type::ContainerStoppedEvent, "c"), None, Vec::new());
        let status = &event.containers_statuses[0];
        assert_eq!(
            (status.state(), status.exit_code, status.finished_at),
            (ContainerState::ContainerExited, 3, 7)
        );
        let pod = event.pod_sandbox_status.unwrap();
        assert_eq!(
            (pod.state(), pod.metadata.unwrap().name.as_str()),
            (PodSandboxState::SandboxNotready, "web")
        );
        // Of a container that is deleted there is none, and of a sandbox that is deleted no pod.
        let event = known.event(change(Type::ContainerDeletedEvent, "c"), None, Vec::new());
        assert!(event.containers_statuses.is_empty() && event.pod_sandbox_status.is_some());
        let event = known.event(change(Type::ContainerDeletedEvent, "s"), None, Vec::new());
        assert_eq!(event.pod_sandbox_status, None);
        let event = known.event(change(Type::ContainerStoppedEvent, "other"), None, Vec::new());
        assert_eq!((event.pod_sandbox_status, event.containers_statuses.len()), (None, 0));
    }

    #[test]
    fn whose_it_is_is_remembered() {
        let mut known = known();
        let whose = known.whose("c");
        assert_eq!((whose.container.as_deref(), whose.pod.as_str()), (Some("main"), "web"));
        assert_eq!((known.whose("s").container, known.whose("s").uid.as_str()), (None, "uid-1"));
        assert_eq!(known.whose("other"), Whose::default());
        let mut event = known.event(change(Type::ContainerCreatedEvent, "c2"), None, Vec::new());
        event.pod_sandbox_status = known.pods.get("s").cloned();
        event.containers_statuses =
            vec![ContainerStatus { id: "c2".to_owned(), ..ContainerStatus::default() }];
        known.remember(&event);
        assert_eq!(known.whose("c2").namespace, "default");
    }
}
