//! The edge to the container runtime: [`Cri`], what the agent and the inspector ask of one, and
//! [`CriClient`], the gRPC client behind it.
//!
//! Everything above holds an `Arc<dyn Cri>`, so that a simulated runtime can stand in with faults
//! and latency of its own. The trait is thin on purpose: its messages are the interface's own
//! ([`crate::api::cri`]), and what it adds is deadlines, one error type that names the call, the
//! endpoint and what to do, and a stream of wake-ups.
//!
//! Dropping the future of a call gives the call up: the runtime is told and rolls back what it can.
//! After a deadline or a drop a create may nevertheless have happened, so callers look for its
//! result before they create again ([`CriError::name_reserved`]).

mod channel;
mod client;
mod content;
mod descriptors;
mod dialect;
mod endpoint;
mod error;
mod event;
mod exec_output;
mod follow;
pub mod observe;
mod probe;
mod proto;
pub mod streaming;

pub use client::{CriClient, CriTimeouts};
pub use descriptors::DESCRIPTORS;
pub use endpoint::{EndpointError, RuntimeEndpoint, SocketProblem};
pub use error::{CriError, CriErrorKind, NameReserved};
pub use event::{EventKind, EventSender, EventSource, RuntimeEvent, RuntimeEvents};
pub use probe::probe;
pub use tonic::async_trait;

use std::{collections::BTreeMap, time::Duration};

use crate::api::cri::{
    AttachRequest, AuthConfig, Container, ContainerConfig, ContainerFilter, ContainerStats,
    ContainerStatsFilter, ContainerStatusResponse, ExecRequest, ExecSyncResponse, Image, ImageFilter,
    ImageFsInfoResponse, ImageSpec, ImageStatusResponse, LinuxContainerResources, MetricDescriptor,
    PodSandbox, PodSandboxConfig, PodSandboxFilter, PodSandboxMetrics, PodSandboxStats,
    PodSandboxStatsFilter, PodSandboxStatusResponse, RuntimeConfig, RuntimeConfigResponse, StatusResponse,
    VersionResponse,
};

/// What every call gives: its answer, or an error that names the call and the endpoint.
pub type Result<T, E = CriError> = std::result::Result<T, E>;

/// A container runtime, as the container runtime interface (CRI) v1 sees one.
///
/// Every method is one call of that interface. Optional calls that a runtime may lack fail with
/// [`CriErrorKind::Unimplemented`], unless said otherwise. Identifiers may be shortened to an
/// unambiguous prefix where the runtime takes that.
#[async_trait]
pub trait Cri: Send + Sync {
    /// Where the runtime is asked, for messages: `unix:///run/containerd/containerd.sock`.
    fn endpoint(&self) -> &str;

    /// Name and versions of the runtime. The call to find out whether it serves CRI v1 at all.
    async fn version(&self) -> Result<VersionResponse>;

    /// Whether runtime and network are ready, and what its handlers can do; with `verbose` also the
    /// runtime's configuration as JSON.
    async fn status(&self, verbose: bool) -> Result<StatusResponse>;

    /// What the runtime tells the agent to do (the cgroup driver), or `None` of a runtime that
    /// cannot be asked (containerd before 2.0).
    async fn runtime_config(&self) -> Result<Option<RuntimeConfigResponse>>;

    /// Tells the runtime the node's pod address range.
    async fn update_runtime_config(&self, config: RuntimeConfig) -> Result<()>;

    /// Makes and starts a sandbox with the runtime handler of that name (empty: the default one)
    /// and gives its id.
    async fn run_pod_sandbox(&self, config: PodSandboxConfig, handler: &str) -> Result<String>;

    /// Kills what runs in the sandbox and takes its network down. Stopping twice, or one that is
    /// gone, is no error.
    async fn stop_pod_sandbox(&self, sandbox: &str) -> Result<()>;

    /// Removes the sandbox and its containers. Removing one that is gone is no error.
    async fn remove_pod_sandbox(&self, sandbox: &str) -> Result<()>;

    /// The state of one sandbox; `NotFound` if there is none.
    async fn pod_sandbox_status(&self, sandbox: &str, verbose: bool) -> Result<PodSandboxStatusResponse>;

    /// All sandboxes that match.
    async fn list_pod_sandboxes(&self, filter: Option<PodSandboxFilter>) -> Result<Vec<PodSandbox>>;

    /// Tells the runtime the pod's changed resources (optional call, CRI of Kubernetes 1.33).
    async fn update_pod_sandbox_resources(
        &self,
        sandbox: &str,
        overhead: Option<LinuxContainerResources>,
        resources: Option<LinuxContainerResources>,
    ) -> Result<()>;

    /// Makes a container in the sandbox and gives its id. `sandbox_config` is the configuration
    /// that the sandbox was made with.
    async fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Result<String>;

    /// Starts a created container.
    async fn start_container(&self, container: &str) -> Result<()>;

    /// Asks the container to end, kills it after `grace_seconds` (0: at once) and waits until it
    /// has ended. One that has ended, or is gone, is no error.
    async fn stop_container(&self, container: &str, grace_seconds: i64) -> Result<()>;

    /// Removes the container, by force if it runs. One that is gone is no error.
    async fn remove_container(&self, container: &str) -> Result<()>;

    /// All containers that match.
    async fn list_containers(&self, filter: Option<ContainerFilter>) -> Result<Vec<Container>>;

    /// The state of one container; `NotFound` if there is none.
    async fn container_status(&self, container: &str, verbose: bool) -> Result<ContainerStatusResponse>;

    /// Changes the resources of a container in place.
    async fn update_container_resources(
        &self,
        container: &str,
        resources: LinuxContainerResources,
        annotations: BTreeMap<String, String>,
    ) -> Result<()>;

    /// Makes the runtime open the container's log file anew after it was moved away.
    async fn reopen_container_log(&self, container: &str) -> Result<()>;

    /// Runs a command in the container and gives the begin of its outputs (10 KiB of each) and its exit
    /// code. After `timeout` (whole seconds, rounded up; `None`: no limit) the runtime kills it and
    /// the call fails with [`CriErrorKind::DeadlineExceeded`].
    async fn exec_sync(
        &self,
        container: &str,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<ExecSyncResponse>;

    /// Prepares an interactive command and gives the URL to stream it from.
    async fn exec(&self, request: ExecRequest) -> Result<String>;

    /// Prepares attaching to a container's main process and gives the URL to stream it from.
    async fn attach(&self, request: AttachRequest) -> Result<String>;

    /// Prepares port forwarding into a sandbox and gives the URL to stream it from.
    async fn port_forward(&self, sandbox: &str, ports: Vec<i32>) -> Result<String>;

    /// The resource use of one container.
    async fn container_stats(&self, container: &str) -> Result<Option<ContainerStats>>;

    /// The resource use of all running containers that match.
    async fn list_container_stats(&self, filter: Option<ContainerStatsFilter>)
    -> Result<Vec<ContainerStats>>;

    /// The resource use of one sandbox and its containers (optional call).
    async fn pod_sandbox_stats(&self, sandbox: &str) -> Result<Option<PodSandboxStats>>;

    /// The resource use of all sandboxes that match (optional call).
    async fn list_pod_sandbox_stats(
        &self,
        filter: Option<PodSandboxStatsFilter>,
    ) -> Result<Vec<PodSandboxStats>>;

    /// Writes a container's state to the archive `location` on the node (optional call). The
    /// runtime gives up after `timeout` (whole seconds, rounded up; `None`: its own default).
    async fn checkpoint_container(
        &self,
        container: &str,
        location: &str,
        timeout: Option<Duration>,
    ) -> Result<()>;

    /// Describes the metrics that [`Cri::list_pod_sandbox_metrics`] gives (optional call).
    async fn list_metric_descriptors(&self) -> Result<Vec<MetricDescriptor>>;

    /// The runtime's own metrics of all sandboxes (optional call).
    async fn list_pod_sandbox_metrics(&self) -> Result<Vec<PodSandboxMetrics>>;

    /// All images that match.
    async fn list_images(&self, filter: Option<ImageFilter>) -> Result<Vec<Image>>;

    /// One image; the answer's `image` is `None` if it is not on the node.
    async fn image_status(&self, image: ImageSpec, verbose: bool) -> Result<ImageStatusResponse>;

    /// Pulls an image and gives the reference to start containers from. As long as it takes: the
    /// caller drops the future to give up.
    async fn pull_image(
        &self,
        image: ImageSpec,
        auth: Option<AuthConfig>,
        sandbox_config: Option<PodSandboxConfig>,
    ) -> Result<String>;

    /// Removes an image with all its names. One that is gone is no error.
    async fn remove_image(&self, image: ImageSpec) -> Result<()>;

    /// Where images (and, if told apart, containers) are stored and how much they take.
    async fn image_fs_info(&self) -> Result<ImageFsInfoResponse>;

    /// Starts to follow the runtime's events. It never fails: while the runtime is away, or has no
    /// events to give, none come and [`RuntimeEvents::source`] says so. Ends with the last drop.
    ///
    /// Must be called on the async runtime.
    fn events(&self) -> RuntimeEvents;
}
