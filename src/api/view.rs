//! What the running agent shows of itself: to `nodectl pods`, `nodectl explain` and healthz. The agent
//! fills these; the server serves them as JSON; the command line reads them back.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde::{Deserialize, Serialize};

use super::ids::PodUid;

/// Where a pod stands on its way. The order is the order in which a pod usually passes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PodStep {
    /// Refused: the specification asks for what this agent does not honour.
    Rejected,
    /// Another pod of the same full name has to go first.
    WaitingForPredecessor,
    /// Other pods end to make room for it.
    WaitingForRoom,
    /// The runtime does not answer, or has not been asked yet.
    WaitingForRuntime,
    /// Known from the disk alone, and not to be started before the API server is heard.
    WaitingForServer,
    /// The runtime says that the pod network is not ready.
    WaitingForNetwork,
    /// Folders and volumes are made.
    PreparingVolumes,
    /// The sandbox is made.
    CreatingSandbox,
    /// An image is pulled.
    PullingImage,
    /// A container is made or started.
    StartingContainer,
    /// Init containers run.
    Initializing,
    /// All that should run runs.
    Running,
    /// A container waits for its next start after a crash.
    CrashLoopBackOff,
    /// A step failed and is tried again later.
    Retrying,
    /// Containers are being stopped.
    Terminating,
    /// Stopped; what is left is being removed.
    CleaningUp,
    /// All containers ended and none is started again.
    Finished,
}

/// An error as the operator should read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ErrorView {
    /// A short CamelCase reason, as in a container's waiting state (`ErrImagePull`, `CreateContainerError`).
    pub reason: String,
    /// What failed, with the original cause in the words of whoever reported it.
    pub message: String,
    /// When it last happened.
    pub at: Timestamp,
    /// How often in a row.
    pub count: u32,
    /// What to do about it, where that is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
}

/// What happens next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NextView {
    /// In words: `start container "web" again`.
    pub what: String,
    /// When, where a time is set; else it waits for an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
}

/// The answer to "where does this pod stand?".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodProgress {
    /// The step it is at.
    pub step: PodStep,
    /// In words, with the object concerned: `pull image "docker.io/library/nginx:1.27"`.
    pub detail: String,
    /// Since when it is at this step.
    pub since: Timestamp,
    /// The last error, until a later step succeeds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<ErrorView>,
    /// What comes next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NextView>,
}

/// How much of a pod is over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PodEnd {
    /// Nothing for certain: something of it may run.
    #[default]
    No,
    /// Nothing of it runs, and nothing will.
    Stopped,
    /// It has no mounts and no cgroup either.
    Released,
}

/// A pod as the agent sees it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodView {
    /// Its UID.
    pub uid: PodUid,
    /// The specification; of a pod that only the runtime knows, just its metadata.
    pub pod: Arc<Pod>,
    /// The status as computed last.
    pub status: Arc<PodStatus>,
    /// Where it stands.
    pub progress: PodProgress,
    /// How much of it is over.
    #[serde(default)]
    pub end: PodEnd,
    /// Whether the status is of what was seen in the runtime, and not from before it was asked.
    #[serde(default)]
    pub observed: bool,
    /// Whether it is as the API server had it when it was last heard, by an agent that has not heard it yet.
    #[serde(default)]
    pub offline: bool,
}

/// One health check's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// The check's name: `ping`, `log`, `syncloop`, `runtime`, `network`, `source:file`, …
    pub name: String,
    /// Whether it is well.
    pub ok: bool,
    /// Whether its failure means that restarting the agent helps; only such checks fail healthz and the
    /// watchdog.
    pub fatal: bool,
    /// What there is to say, in words; never empty for a check that is not well.
    pub message: String,
}

/// What the server and the command line may ask of the running agent. None of it waits for the runtime.
pub trait AgentView: Send + Sync {
    /// Every pod that the agent has to do with, in order of namespace and name.
    fn pods(&self) -> Vec<PodView>;
    /// All health checks, the fatal ones first.
    fn health(&self) -> Vec<HealthCheck>;
    /// Manifests and other inputs that could not be used: origin (path or URL) and reason.
    fn input_problems(&self) -> Vec<(String, String)>;
    /// Time since the node's lease was renewed; `None` before, and without a cluster.
    fn lease_age(&self) -> Option<std::time::Duration> {
        None
    }
}
