//! What pod workers share: handles and settings, all of them read-only.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    admission::Admitted, host_work::HostWork, paths::NodePaths, starts::Starts, userns::UserNamespaces,
};
use crate::{
    agent::{
        board::Board,
        cgroups::NodeCgroups,
        clock::Clock,
        cluster::{offline::Offline, supplies::Supplies},
        events::EventRecorder,
        health::HealthMonitor,
        images::Images,
        pleg::Pleg,
        probes::Prober,
        resolver::HostNames,
        runtime_classes::RuntimeClasses,
    },
    api::ContainerId,
    cri::Cri,
    policy::{
        backoff::RestartBackoff, lifecycle::PodLifecycle, node::NodeSettings, probe::Kept,
        resize::AllActuated, status::PodFailure,
    },
    store::{CheckpointDir, Schema},
};

/// What is kept on disk of a pod, so that an agent that was killed goes on where it was.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodRecord {
    /// The specification as last accepted; absent of a pod that only the runtime knew.
    pub pod: Option<Arc<Pod>>,
    /// Where it is in its life.
    pub lifecycle: PodLifecycle,
    /// Whether the node has taken it; a pod that is on its way without having been judged is judged again.
    /// Not in the files of the first release, which wrote them of pods that it had taken.
    #[serde(default = "taken")]
    pub admitted: bool,
    /// When the agent took it on.
    pub start_time: Timestamp,
    /// Why it failed as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
    /// What probes had found of its containers: a container that was ready stays so under the next agent
    /// until a probe fails.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub probes: BTreeMap<ContainerId, Kept>,
    /// Its ephemeral containers that were started: none ever is again.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub ephemeral_begun: BTreeSet<String>,
    /// What its containers have since their resources were changed in place.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub actuated: AllActuated,
}

fn taken() -> bool {
    true
}

impl PodRecord {
    /// Whether an earlier agent took the pod and had not begun to stop it.
    pub fn is_taken(&self) -> bool {
        self.admitted && self.lifecycle == PodLifecycle::Syncing
    }
}

/// A [`PodFailure`] on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A CamelCase word.
    pub reason: String,
    /// In words.
    pub message: String,
}

impl From<&Failure> for PodFailure {
    fn from(failure: &Failure) -> Self {
        Self { reason: failure.reason.clone(), message: failure.message.clone() }
    }
}

impl From<PodFailure> for Failure {
    fn from(failure: PodFailure) -> Self {
        Self { reason: failure.reason, message: failure.message }
    }
}

/// The checkpoints of pods.
pub type PodRecords = CheckpointDir<PodRecord>;

/// How a pod's checkpoint is marked.
pub const POD_RECORD: Schema = Schema { kind: "pod", version: 1 };

impl PodEnv {
    /// The node as the API server has it, if it has.
    pub fn server_node(&self) -> Option<Arc<Node>> {
        let node = self.server_node.as_ref().map(|node| Arc::clone(&node.borrow()));
        node.filter(|node| node.metadata.uid.is_some())
    }
}

/// Settings and handles.
pub struct PodEnv {
    /// The runtime.
    pub cri: Arc<dyn Cri>,
    /// What was seen of it.
    pub pleg: Arc<Pleg>,
    /// How it is.
    pub health: Arc<HealthMonitor>,
    /// Images.
    pub images: Images,
    /// The time of day.
    pub clock: Clock,
    /// Folders.
    pub paths: NodePaths,
    /// The cgroups of pods.
    pub cgroups: NodeCgroups,
    /// Where to look for mounts: `/proc/self/mountinfo`.
    pub mountinfo: std::path::PathBuf,
    /// The node's settings.
    pub node: NodeSettings,
    /// The node as the API server has it; without a UID as long as it has none. `None` of an agent that stands alone.
    pub server_node: Option<watch::Receiver<Arc<Node>>>,
    /// What the API server supplies pods with; `None` of a node that stands alone.
    pub supplies: Option<Supplies>,
    /// What is kept of the API server's pods for when it is away; `None` where nothing is.
    pub offline: Option<Arc<Offline>>,
    /// The host's files that pods' name resolution starts from.
    pub host_names: HostNames,
    /// How long pods take to start.
    pub starts: Starts,
    /// Runtime classes.
    pub runtime_classes: RuntimeClasses,
    /// The pods that the node has taken.
    pub admitted: Admitted,
    /// The host's users and groups that pods may have for their own.
    pub user_namespaces: UserNamespaces,
    /// File work on what is the host's.
    pub host_work: HostWork,
    /// Probes.
    pub probes: Arc<Prober>,
    /// Crash-loop delays.
    pub backoff: RestartBackoff,
    /// Where what happens is told.
    pub events: EventRecorder,
    /// What is shown of pods.
    pub board: Board,
    /// Checkpoints.
    pub records: PodRecords,
}
