//! The real runtime behind [`Cri`]: one gRPC call per method, with its deadline.

use std::{collections::BTreeMap, future::Future, time::Duration};

use tonic::{Response, Status, async_trait};

use super::{
    ContainerEvents, Cri, CriError, CriErrorKind, Result, RuntimeEndpoint, RuntimeEvents,
    channel::{exec_service, image_service, open_lazily, runtime_service, within},
    content::{self, Arriving},
    dialect::{Dialect, Line},
    exec_output::Shortening,
    follow,
    proto::v1::{image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient},
    watch,
};
use crate::api::cri::*;

/// The largest answer with whole outputs of a command: 16 MiB of each, which no runtime exceeds, and the rest.
const MAX_EXEC_OUTPUT: usize = (32 << 20) + (64 << 10);

/// How long calls may take. The defaults are those of kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CriTimeouts {
    /// Most calls. Stopping a container has its grace period on top, and running a command in one
    /// the command's own limit (none without one).
    pub request: Duration,
    /// Making a sandbox, which waits for the pod's network.
    pub run_sandbox: Duration,
    /// Pulling an image; `None` to wait as long as it takes.
    pub pull: Option<Duration>,
}

impl CriTimeouts {
    /// The limits that follow from kubelet's `runtimeRequestTimeout`: twice as much for making a
    /// sandbox, and none for pulls.
    #[must_use]
    pub fn from_request_timeout(request: Duration) -> Self {
        Self { request, run_sandbox: request.saturating_mul(2), pull: None }
    }
}

impl Default for CriTimeouts {
    /// From kubelet's default `runtimeRequestTimeout`, two minutes.
    fn default() -> Self {
        Self::from_request_timeout(Duration::from_secs(120))
    }
}

/// A runtime behind a unix socket, and perhaps another one for its images.
///
/// Calls share one connection, pulls have a second and events a third, each made on first use: what
/// is long or bursty then never fills the window that short calls are answered through.
#[derive(Debug, Clone)]
pub struct CriClient {
    endpoint: RuntimeEndpoint,
    endpoint_text: String,
    image_endpoint_text: String,
    runtime: RuntimeServiceClient<Line>,
    execs: RuntimeServiceClient<Shortening>,
    images: ImageServiceClient<Line>,
    pulls: ImageServiceClient<Line>,
    timeouts: CriTimeouts,
    dialect: Dialect,
    image_line: Line,
}

impl CriClient {
    /// A client that connects with its first call, so that this neither waits nor fails, and that
    /// connects again by itself. `image_endpoint` is where images are, if not in the runtime.
    ///
    /// Must be called on the async runtime, as it starts the connections' (idle) tasks.
    #[must_use]
    pub fn connect_lazy(
        endpoint: RuntimeEndpoint,
        image_endpoint: Option<RuntimeEndpoint>,
        timeouts: CriTimeouts,
    ) -> Self {
        Self::open(endpoint, image_endpoint, timeouts, &Dialect::default)
    }

    /// [`Self::connect_lazy`] that takes runtimes with CRI v1alpha2 too (containerd 1.5 and before): one that
    /// serves no v1 is spoken to in v1alpha2, whose messages are the same as far as it has them.
    #[must_use]
    pub fn connect_lazy_to_any(
        endpoint: RuntimeEndpoint,
        image_endpoint: Option<RuntimeEndpoint>,
        timeouts: CriTimeouts,
    ) -> Self {
        Self::open(endpoint, image_endpoint, timeouts, &Dialect::either)
    }

    fn open(
        endpoint: RuntimeEndpoint,
        image_endpoint: Option<RuntimeEndpoint>,
        timeouts: CriTimeouts,
        dialect: &dyn Fn() -> Dialect,
    ) -> Self {
        let shared = open_lazily(&endpoint, dialect());
        let image_endpoint = image_endpoint.unwrap_or_else(|| endpoint.clone());
        let images =
            if image_endpoint == endpoint { shared.clone() } else { open_lazily(&image_endpoint, dialect()) };
        Self {
            dialect: shared.dialect.clone(),
            endpoint_text: endpoint.to_string(),
            image_endpoint_text: image_endpoint.to_string(),
            execs: exec_service(shared.clone()),
            runtime: runtime_service(shared),
            pulls: image_service(open_lazily(&image_endpoint, images.dialect.clone())),
            images: image_service(images.clone()),
            image_line: images,
            endpoint,
            timeouts,
        }
    }

    /// The same connections with other limits.
    #[must_use]
    pub fn with_timeouts(&self, timeouts: CriTimeouts) -> Self {
        Self { timeouts, ..self.clone() }
    }

    /// Whether the runtime has shown that it serves v1alpha2 alone.
    #[must_use]
    pub fn speaks_v1alpha2(&self) -> bool {
        self.dialect.is_v1alpha2()
    }

    /// What containerd began to fetch at most `since` ago and is still fetching. `None` where that cannot be
    /// asked: CRI has no such call.
    pub async fn arriving(&self, since: Duration) -> Option<Vec<Arriving>> {
        let asking = content::arriving(self.image_line.clone(), since);
        tokio::time::timeout(self.timeouts.request, asking).await.ok().flatten()
    }

    /// [`Cri::exec_sync`] with the whole outputs, for people. containerd gives 16 MiB at most.
    ///
    /// # Errors
    /// As that, and if the runtime answers more.
    pub async fn exec_sync_whole(
        &self,
        container: &str,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<ExecSyncResponse> {
        let (request, limit) = self.exec_sync_call(container, command, timeout);
        let mut runtime = self.runtime().max_decoding_message_size(MAX_EXEC_OUTPUT);
        self.ask_longer("ExecSync", limit, runtime.exec_sync(request)).await
    }

    /// What is asked for, and how long the answer may take.
    fn exec_sync_call(
        &self,
        container: &str,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) -> (ExecSyncRequest, Option<Duration>) {
        let request =
            ExecSyncRequest { container_id: container.to_owned(), cmd: command, timeout: seconds(timeout) };
        (request, timeout.map(|timeout| self.timeouts.request.saturating_add(timeout)))
    }

    fn runtime(&self) -> RuntimeServiceClient<Line> {
        self.runtime.clone()
    }

    fn images(&self) -> ImageServiceClient<Line> {
        self.images.clone()
    }

    async fn ask<T>(
        &self,
        rpc: &'static str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T> {
        within(rpc, &self.endpoint_text, Some(self.timeouts.request), call).await
    }

    async fn ask_longer<T>(
        &self,
        rpc: &'static str,
        limit: Option<Duration>,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T> {
        within(rpc, &self.endpoint_text, limit, call).await
    }

    async fn ask_images<T>(
        &self,
        rpc: &'static str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T> {
        within(rpc, &self.image_endpoint_text, Some(self.timeouts.request), call).await
    }

    /// An empty id or URL in a success would be taken for a thing later on, so it is an error here.
    fn given(&self, rpc: &'static str, what: &str, value: String) -> Result<String> {
        if value.is_empty() {
            let message = format!("the runtime answered with success but gave no {what}");
            return Err(CriError::new(rpc, &self.endpoint_text, CriErrorKind::Other, message));
        }
        Ok(value)
    }
}

/// Whole seconds, rounded up, as the interface takes them; 0 means "none" there.
fn seconds(timeout: Option<Duration>) -> i64 {
    let Some(timeout) = timeout else { return 0 };
    let whole = timeout.as_secs().saturating_add(u64::from(timeout.subsec_nanos() > 0));
    i64::try_from(whole).unwrap_or(i64::MAX).max(1)
}

impl CriClient {
    /// Watches the runtime's events, each of them; with `own_service` only through containerd's own event
    /// service, not CRI's. It never fails; what is wrong is told among the events.
    ///
    /// Must be called on the async runtime.
    #[must_use]
    pub fn watch(&self, own_service: bool) -> ContainerEvents {
        watch::start(self.endpoint.clone(), self.dialect.clone(), own_service)
    }
}

#[async_trait]
impl Cri for CriClient {
    fn endpoint(&self) -> &str {
        &self.endpoint_text
    }

    async fn version(&self) -> Result<VersionResponse> {
        let request = VersionRequest { version: follow::API_VERSION.to_owned() };
        self.ask("Version", self.runtime().version(request)).await
    }

    async fn status(&self, verbose: bool) -> Result<StatusResponse> {
        self.ask("Status", self.runtime().status(StatusRequest { verbose })).await
    }

    async fn runtime_config(&self) -> Result<Option<RuntimeConfigResponse>> {
        match self.ask("RuntimeConfig", self.runtime().runtime_config(RuntimeConfigRequest {})).await {
            Ok(config) => Ok(Some(config)),
            Err(error) if error.is_unimplemented() && !error.is_no_cri_v1() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn update_runtime_config(&self, config: RuntimeConfig) -> Result<()> {
        let request = UpdateRuntimeConfigRequest { runtime_config: Some(config) };
        self.ask("UpdateRuntimeConfig", self.runtime().update_runtime_config(request)).await?;
        Ok(())
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig, handler: &str) -> Result<String> {
        const RPC: &str = "RunPodSandbox";
        let request =
            Box::new(RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() });
        let limit = Some(self.timeouts.run_sandbox);
        let answer = self.ask_longer(RPC, limit, self.runtime().run_pod_sandbox(request)).await?;
        self.given(RPC, "sandbox id", answer.pod_sandbox_id)
    }

    async fn stop_pod_sandbox(&self, sandbox: &str) -> Result<()> {
        let request = StopPodSandboxRequest { pod_sandbox_id: sandbox.to_owned() };
        self.ask("StopPodSandbox", self.runtime().stop_pod_sandbox(request)).await?;
        Ok(())
    }

    async fn remove_pod_sandbox(&self, sandbox: &str) -> Result<()> {
        let request = RemovePodSandboxRequest { pod_sandbox_id: sandbox.to_owned() };
        self.ask("RemovePodSandbox", self.runtime().remove_pod_sandbox(request)).await?;
        Ok(())
    }

    async fn pod_sandbox_status(&self, sandbox: &str, verbose: bool) -> Result<PodSandboxStatusResponse> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: sandbox.to_owned(), verbose };
        Ok(*self.ask("PodSandboxStatus", self.runtime().pod_sandbox_status(request)).await?)
    }

    async fn list_pod_sandboxes(&self, filter: Option<PodSandboxFilter>) -> Result<Vec<PodSandbox>> {
        let request = ListPodSandboxRequest { filter };
        Ok(self.ask("ListPodSandbox", self.runtime().list_pod_sandbox(request)).await?.items)
    }

    async fn update_pod_sandbox_resources(
        &self,
        sandbox: &str,
        overhead: Option<LinuxContainerResources>,
        resources: Option<LinuxContainerResources>,
    ) -> Result<()> {
        let pod_sandbox_id = sandbox.to_owned();
        let request = UpdatePodSandboxResourcesRequest { pod_sandbox_id, overhead, resources };
        self.ask("UpdatePodSandboxResources", self.runtime().update_pod_sandbox_resources(request)).await?;
        Ok(())
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Result<String> {
        const RPC: &str = "CreateContainer";
        let request = Box::new(CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        });
        let answer = self.ask(RPC, self.runtime().create_container(request)).await?;
        self.given(RPC, "container id", answer.container_id)
    }

    async fn start_container(&self, container: &str) -> Result<()> {
        let request = StartContainerRequest { container_id: container.to_owned() };
        self.ask("StartContainer", self.runtime().start_container(request)).await?;
        Ok(())
    }

    async fn stop_container(&self, container: &str, grace_seconds: i64) -> Result<()> {
        let grace = grace_seconds.max(0);
        let request = StopContainerRequest { container_id: container.to_owned(), timeout: grace };
        let limit = self.timeouts.request.saturating_add(Duration::from_secs(grace.unsigned_abs()));
        self.ask_longer("StopContainer", Some(limit), self.runtime().stop_container(request)).await?;
        Ok(())
    }

    async fn remove_container(&self, container: &str) -> Result<()> {
        let request = RemoveContainerRequest { container_id: container.to_owned() };
        self.ask("RemoveContainer", self.runtime().remove_container(request)).await?;
        Ok(())
    }

    async fn list_containers(&self, filter: Option<ContainerFilter>) -> Result<Vec<Container>> {
        let request = ListContainersRequest { filter };
        Ok(self.ask("ListContainers", self.runtime().list_containers(request)).await?.containers)
    }

    async fn container_status(&self, container: &str, verbose: bool) -> Result<ContainerStatusResponse> {
        let request = ContainerStatusRequest { container_id: container.to_owned(), verbose };
        Ok(*self.ask("ContainerStatus", self.runtime().container_status(request)).await?)
    }

    async fn update_container_resources(
        &self,
        container: &str,
        resources: LinuxContainerResources,
        annotations: BTreeMap<String, String>,
    ) -> Result<()> {
        let request = UpdateContainerResourcesRequest {
            container_id: container.to_owned(),
            linux: Some(resources),
            windows: None,
            annotations,
        };
        self.ask("UpdateContainerResources", self.runtime().update_container_resources(request)).await?;
        Ok(())
    }

    async fn reopen_container_log(&self, container: &str) -> Result<()> {
        let request = ReopenContainerLogRequest { container_id: container.to_owned() };
        self.ask("ReopenContainerLog", self.runtime().reopen_container_log(request)).await?;
        Ok(())
    }

    async fn exec_sync(
        &self,
        container: &str,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<ExecSyncResponse> {
        let (request, limit) = self.exec_sync_call(container, command, timeout);
        self.ask_longer("ExecSync", limit, self.execs.clone().exec_sync(request)).await
    }

    async fn exec(&self, request: ExecRequest) -> Result<String> {
        const RPC: &str = "Exec";
        let answer = self.ask(RPC, self.runtime().exec(request)).await?;
        self.given(RPC, "URL", answer.url)
    }

    async fn attach(&self, request: AttachRequest) -> Result<String> {
        const RPC: &str = "Attach";
        let answer = self.ask(RPC, self.runtime().attach(request)).await?;
        self.given(RPC, "URL", answer.url)
    }

    async fn port_forward(&self, sandbox: &str, ports: Vec<i32>) -> Result<String> {
        const RPC: &str = "PortForward";
        let request = PortForwardRequest { pod_sandbox_id: sandbox.to_owned(), port: ports };
        let answer = self.ask(RPC, self.runtime().port_forward(request)).await?;
        self.given(RPC, "URL", answer.url)
    }

    async fn container_stats(&self, container: &str) -> Result<Option<ContainerStats>> {
        let request = ContainerStatsRequest { container_id: container.to_owned() };
        Ok(self.ask("ContainerStats", self.runtime().container_stats(request)).await?.stats)
    }

    async fn list_container_stats(
        &self,
        filter: Option<ContainerStatsFilter>,
    ) -> Result<Vec<ContainerStats>> {
        let request = ListContainerStatsRequest { filter };
        Ok(self.ask("ListContainerStats", self.runtime().list_container_stats(request)).await?.stats)
    }

    async fn pod_sandbox_stats(&self, sandbox: &str) -> Result<Option<PodSandboxStats>> {
        let request = PodSandboxStatsRequest { pod_sandbox_id: sandbox.to_owned() };
        Ok(self.ask("PodSandboxStats", self.runtime().pod_sandbox_stats(request)).await?.stats)
    }

    async fn list_pod_sandbox_stats(
        &self,
        filter: Option<PodSandboxStatsFilter>,
    ) -> Result<Vec<PodSandboxStats>> {
        let request = ListPodSandboxStatsRequest { filter };
        Ok(self.ask("ListPodSandboxStats", self.runtime().list_pod_sandbox_stats(request)).await?.stats)
    }

    async fn checkpoint_container(
        &self,
        container: &str,
        location: &str,
        timeout: Option<Duration>,
    ) -> Result<()> {
        let request = CheckpointContainerRequest {
            container_id: container.to_owned(),
            location: location.to_owned(),
            timeout: seconds(timeout),
        };
        let limit = self.timeouts.request.saturating_add(timeout.unwrap_or_default());
        let mut runtime = self.runtime();
        self.ask_longer("CheckpointContainer", Some(limit), runtime.checkpoint_container(request)).await?;
        Ok(())
    }

    async fn list_metric_descriptors(&self) -> Result<Vec<MetricDescriptor>> {
        let request = ListMetricDescriptorsRequest {};
        let mut runtime = self.runtime();
        let call = runtime.list_metric_descriptors(request);
        Ok(self.ask("ListMetricDescriptors", call).await?.descriptors)
    }

    async fn list_pod_sandbox_metrics(&self) -> Result<Vec<PodSandboxMetrics>> {
        let request = ListPodSandboxMetricsRequest {};
        let mut runtime = self.runtime();
        let call = runtime.list_pod_sandbox_metrics(request);
        Ok(self.ask("ListPodSandboxMetrics", call).await?.pod_metrics)
    }

    async fn list_images(&self, filter: Option<ImageFilter>) -> Result<Vec<Image>> {
        let request = ListImagesRequest { filter };
        Ok(self.ask_images("ListImages", self.images().list_images(request)).await?.images)
    }

    async fn image_status(&self, image: ImageSpec, verbose: bool) -> Result<ImageStatusResponse> {
        let request = ImageStatusRequest { image: Some(image), verbose };
        Ok(*self.ask_images("ImageStatus", self.images().image_status(request)).await?)
    }

    async fn pull_image(
        &self,
        image: ImageSpec,
        auth: Option<AuthConfig>,
        sandbox_config: Option<PodSandboxConfig>,
    ) -> Result<String> {
        const RPC: &str = "PullImage";
        let request = Box::new(PullImageRequest { image: Some(image), auth, sandbox_config });
        let mut pulls = self.pulls.clone();
        let call = pulls.pull_image(request);
        let answer = within(RPC, &self.image_endpoint_text, self.timeouts.pull, call).await?;
        self.given(RPC, "image reference", answer.image_ref)
    }

    async fn remove_image(&self, image: ImageSpec) -> Result<()> {
        let request = RemoveImageRequest { image: Some(image) };
        self.ask_images("RemoveImage", self.images().remove_image(request)).await?;
        Ok(())
    }

    async fn image_fs_info(&self) -> Result<ImageFsInfoResponse> {
        self.ask_images("ImageFsInfo", self.images().image_fs_info(ImageFsInfoRequest {})).await
    }

    fn events(&self) -> RuntimeEvents {
        follow::start(self.endpoint.clone(), self.dialect.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_follow_the_request_timeout() {
        let timeouts = CriTimeouts::default();
        assert_eq!(timeouts.request, Duration::from_secs(120));
        assert_eq!(timeouts.run_sandbox, Duration::from_secs(240));
        assert_eq!(timeouts.pull, None);
        assert_eq!(CriTimeouts::from_request_timeout(Duration::MAX).run_sandbox, Duration::MAX);
    }

    #[test]
    fn a_short_limit_is_not_taken_for_none() {
        assert_eq!(seconds(None), 0);
        assert_eq!(seconds(Some(Duration::ZERO)), 1);
        assert_eq!(seconds(Some(Duration::from_millis(1))), 1);
        assert_eq!(seconds(Some(Duration::from_secs(2))), 2);
        assert_eq!(seconds(Some(Duration::from_millis(2001))), 3);
        assert_eq!(seconds(Some(Duration::MAX)), i64::MAX);
    }

    fn client(path: &std::path::Path, request: Duration) -> CriClient {
        let endpoint = path.to_str().expect("utf-8").parse().expect("an endpoint");
        CriClient::connect_lazy(endpoint, None, CriTimeouts::from_request_timeout(request))
    }

    #[tokio::test]
    async fn a_call_to_a_dead_socket_fails_at_once_and_says_why() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("x.sock");
        let client = client(&path, Duration::from_secs(600));
        let started = std::time::Instant::now();
        let error = client.version().await.expect_err("nobody listens");
        assert!(error.is_unavailable() && error.message().contains("does not exist"), "{error}");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket"));
        let error = client.list_containers(None).await.expect_err("nobody listens");
        assert!(error.is_unavailable() && error.message().contains("nobody listens"), "{error}");
        assert_eq!((error.rpc(), error.endpoint()), ("ListContainers", client.endpoint()));
        assert!(started.elapsed() < Duration::from_secs(60), "no call's limit");
    }

    #[tokio::test]
    async fn a_runtime_that_hangs_costs_a_deadline() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("x.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        let client = client(&path, Duration::from_millis(100));
        let error = client.status(false).await.expect_err("nobody answers");
        assert!(error.is_deadline_exceeded(), "{error}");
        assert_eq!(error.message(), "no answer within 0.1 s");
    }

    #[tokio::test]
    async fn whatever_speaks_no_grpc_is_told_from_a_runtime() {
        use tokio::io::AsyncWriteExt as _;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("x.sock");
        let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("written");
            }
        });
        let error = client(&path, Duration::from_secs(30)).version().await.expect_err("no gRPC");
        assert!(error.is_unavailable(), "{error:?}");
    }
}
