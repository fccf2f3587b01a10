//! What the runtime was seen to hold of one pod: the input of every decision. An observation is never
//! changed; the PLEG writes a newer one in its place.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use jiff::Timestamp;

use super::{
    fingerprint::Fingerprint,
    ids::{ContainerId, PodFullName, PodUid, SandboxId},
    labels,
};

/// A sandbox's state in the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SandboxState {
    /// Its processes and network are up.
    Ready,
    /// Stopped, or half made.
    NotReady,
}

/// A container's state in the runtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContainerState {
    /// Made and not yet started.
    Created,
    /// Its process runs.
    Running,
    /// Its process ended.
    Exited,
    /// The runtime lost track of it; it is treated as dead after being stopped.
    Unknown,
}

/// A sandbox as observed.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedSandbox {
    /// The runtime's id.
    pub id: SandboxId,
    /// The attempt number in the sandbox's metadata: 0 for a pod's first.
    pub attempt: u32,
    /// State.
    pub state: SandboxState,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its addresses, the primary one first; empty on the host's network.
    pub ips: Vec<IpAddr>,
    /// Whether it is on the host's network.
    pub host_network: bool,
    /// The sandbox fields in force, where we made it.
    pub fingerprint: Option<Fingerprint>,
    /// The handler of the runtime class.
    pub runtime_handler: Arc<str>,
}

/// A container as observed.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedContainer {
    /// The runtime's id.
    pub id: ContainerId,
    /// The name in the pod's spec.
    pub name: Arc<str>,
    /// The sandbox it is in.
    pub sandbox_id: SandboxId,
    /// The attempt number in its metadata, which equals the restart count.
    pub attempt: u32,
    /// How often it was started again, from kubelet's annotation; else the attempt.
    pub restart_count: u32,
    /// State.
    pub state: ContainerState,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its process started.
    pub started_at: Option<Timestamp>,
    /// When its process ended.
    pub finished_at: Option<Timestamp>,
    /// The exit code of an ended container; 128 + n after signal n.
    pub exit_code: i32,
    /// The runtime's reason, e.g. `Completed`, `Error`, `OOMKilled`, `StartError`.
    pub reason: String,
    /// The runtime's message, and after it what the container said itself when it ended.
    pub message: String,
    /// The image as asked for.
    pub image: String,
    /// The image's id or repository digest as the runtime reports it.
    pub image_ref: String,
    /// Where the runtime writes the log.
    pub log_path: String,
    /// The file on the host in which it may leave its last words; empty if none is mounted.
    pub termination_file: String,
    /// kubelet's hash annotation, parsed.
    pub kubelet_hash: Option<u32>,
    /// The container fields in force, where we made it.
    pub fingerprint: Option<Fingerprint>,
    /// The restart delay in seconds that applies after this container's end, where we made it.
    pub restart_delay_seconds: Option<u64>,
    /// The pod's termination grace period in seconds, as annotated.
    pub pod_grace_seconds: Option<i64>,
    /// Whether it was made as a sidecar.
    pub sidecar: bool,
}

/// Everything the runtime holds of one pod at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct PodObservation {
    /// The pod's UID, from the labels.
    pub uid: PodUid,
    /// The pod's name, from the labels.
    pub full_name: PodFullName,
    /// Sandboxes, the newest (highest attempt, then latest made) first.
    pub sandboxes: Vec<ObservedSandbox>,
    /// Containers, the newest first.
    pub containers: Vec<ObservedContainer>,
    /// When the runtime was asked.
    pub observed_at: Timestamp,
}

impl PodObservation {
    /// An observation that found nothing.
    pub fn empty(uid: PodUid, full_name: PodFullName, observed_at: Timestamp) -> Self {
        Self { uid, full_name, sandboxes: Vec::new(), containers: Vec::new(), observed_at }
    }

    /// Whether the runtime holds nothing of the pod.
    pub fn is_gone(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }

    /// The newest sandbox.
    pub fn newest_sandbox(&self) -> Option<&ObservedSandbox> {
        self.sandboxes.first()
    }

    /// The newest container of a name, in whatever sandbox.
    pub fn latest(&self, name: &str) -> Option<&ObservedContainer> {
        self.containers.iter().find(|c| &*c.name == name)
    }

    /// The newest container of a name in a given sandbox.
    pub fn latest_in(&self, name: &str, sandbox: &SandboxId) -> Option<&ObservedContainer> {
        self.containers.iter().find(|c| &*c.name == name && &c.sandbox_id == sandbox)
    }

    /// The container before the newest of a name, for `lastState`.
    pub fn previous(&self, name: &str) -> Option<&ObservedContainer> {
        self.containers.iter().filter(|c| &*c.name == name).nth(1)
    }

    /// Whether any process of the pod may be alive: a container that is not known to have ended, or a
    /// ready sandbox.
    pub fn has_live_parts(&self) -> bool {
        self.containers.iter().any(|c| matches!(c.state, ContainerState::Running | ContainerState::Unknown))
            || self.sandboxes.iter().any(|s| s.state == SandboxState::Ready)
    }

    /// Puts sandboxes and containers into their documented order.
    pub fn sort(&mut self) {
        self.sandboxes
            .sort_by(|a, b| (b.attempt, b.created_at, &b.id).cmp(&(a.attempt, a.created_at, &a.id)));
        self.containers
            .sort_by(|a, b| (b.created_at, b.attempt, &b.id).cmp(&(a.created_at, a.attempt, &a.id)));
    }

    /// Whether two observations say the same of the pod, whatever their time.
    pub fn same_as(&self, other: &Self) -> bool {
        self.sandboxes == other.sandboxes && self.containers == other.containers
    }
}

/// What a container's annotations say, as [`ObservedContainer`] keeps it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ContainerMarks {
    /// See [`ObservedContainer::restart_count`].
    pub restart_count: Option<u32>,
    /// See [`ObservedContainer::kubelet_hash`].
    pub kubelet_hash: Option<u32>,
    /// See [`ObservedContainer::fingerprint`].
    pub fingerprint: Option<Fingerprint>,
    /// See [`ObservedContainer::restart_delay_seconds`].
    pub restart_delay_seconds: Option<u64>,
    /// See [`ObservedContainer::pod_grace_seconds`].
    pub pod_grace_seconds: Option<i64>,
    /// See [`ObservedContainer::sidecar`].
    pub sidecar: bool,
}

impl ContainerMarks {
    /// Reads them; a malformed one is as if absent.
    pub fn read<'a>(annotations: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let all: BTreeMap<&str, &str> =
            annotations.into_iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let get = |key: &str| all.get(key).copied();
        Self {
            restart_count: get(labels::CONTAINER_RESTART_COUNT).and_then(|v| v.parse().ok()),
            kubelet_hash: get(labels::CONTAINER_HASH).and_then(|v| u32::from_str_radix(v, 16).ok()),
            fingerprint: get(labels::CONTAINER_FINGERPRINT).and_then(Fingerprint::parse),
            restart_delay_seconds: get(labels::RESTART_DELAY).and_then(|v| v.parse().ok()),
            pod_grace_seconds: get(labels::POD_TERMINATION_GRACE_PERIOD).and_then(|v| v.parse().ok()),
            sidecar: get(labels::SIDECAR) == Some("true"),
        }
    }
}
