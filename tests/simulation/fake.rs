//! The runtime as the agent sees it: [`Cri`] over the simulated world.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use nodectl::{
    api::cri::{
        AttachRequest, AuthConfig, Container, ContainerConfig, ContainerFilter, ContainerState,
        ContainerStats, ContainerStatsFilter, ContainerStatus, ContainerStatusResponse, ExecRequest,
        ExecSyncResponse, Image, ImageFilter, ImageFsInfoResponse, ImageSpec, ImageStatusResponse,
        LinuxContainerResources, LinuxPodSandboxStatus, MetricDescriptor, Namespace, NamespaceMode,
        NamespaceOption, PodSandbox, PodSandboxConfig, PodSandboxFilter, PodSandboxMetrics,
        PodSandboxNetworkStatus, PodSandboxState, PodSandboxStats, PodSandboxStatsFilter, PodSandboxStatus,
        PodSandboxStatusResponse, RuntimeCondition, RuntimeConfig, RuntimeConfigResponse, RuntimeStatus,
        StatusResponse, VersionResponse,
    },
    cri::{Cri, CriError, CriErrorKind, Result, RuntimeEvents, async_trait},
};

use crate::{
    runtime::{sandbox_name, uid_of},
    world::{Command, Ctr, Failure, Flight, Is, Ms, Sandbox, State, World, time_of},
};

const ENDPOINT: &str = "simulated";

pub(crate) struct FakeRuntime(pub(crate) Arc<World>);

/// Somebody who waits for a command.
struct Waits(Arc<AtomicUsize>);

impl Waits {
    fn new(world: &World) -> Self {
        let count = Arc::clone(&world.lock().waited_for);
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

type Labels = BTreeMap<String, String>;

fn nanos(ms: Ms) -> i64 {
    if ms == 0 { 0 } else { i64::try_from(time_of(ms).as_nanosecond()).unwrap() }
}

fn matches(filter: &Labels, labels: &Labels) -> bool {
    filter.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn sandbox_state(sandbox: &Sandbox) -> PodSandboxState {
    if sandbox.ready { PodSandboxState::SandboxReady } else { PodSandboxState::SandboxNotready }
}

fn container_state(container: &Ctr) -> ContainerState {
    match container.is {
        Is::Created => ContainerState::ContainerCreated,
        Is::Running => ContainerState::ContainerRunning,
        Is::Exited => ContainerState::ContainerExited,
    }
}

fn listed_sandbox(sandbox: &Sandbox) -> PodSandbox {
    PodSandbox {
        id: sandbox.id.clone(),
        metadata: sandbox.config.metadata.clone(),
        state: sandbox_state(sandbox).into(),
        created_at: nanos(sandbox.created),
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        ..PodSandbox::default()
    }
}

fn listed_container(container: &Ctr) -> Container {
    Container {
        id: container.id.clone(),
        pod_sandbox_id: container.sandbox.clone(),
        metadata: container.config.metadata.clone(),
        image: container.config.image.clone(),
        image_ref: "sha256:1".to_owned(),
        state: container_state(container).into(),
        created_at: nanos(container.created),
        labels: container.config.labels.clone(),
        annotations: container.config.annotations.clone(),
        ..Container::default()
    }
}

fn namespaces(config: &PodSandboxConfig) -> Option<NamespaceOption> {
    config.linux.as_ref()?.security_context.as_ref()?.namespace_options.clone()
}

fn on_host(config: &PodSandboxConfig) -> bool {
    namespaces(config).is_some_and(|options| options.network() == NamespaceMode::Node)
}

fn sandbox_status(sandbox: &Sandbox) -> PodSandboxStatusResponse {
    let options = namespaces(&sandbox.config);
    let ip = if on_host(&sandbox.config) || !sandbox.ready { String::new() } else { sandbox.ip.clone() };
    PodSandboxStatusResponse {
        status: Some(PodSandboxStatus {
            id: sandbox.id.clone(),
            metadata: sandbox.config.metadata.clone(),
            state: sandbox_state(sandbox).into(),
            created_at: nanos(sandbox.created),
            network: Some(PodSandboxNetworkStatus { ip, ..PodSandboxNetworkStatus::default() }),
            linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options }) }),
            labels: sandbox.config.labels.clone(),
            annotations: sandbox.config.annotations.clone(),
            ..PodSandboxStatus::default()
        }),
        ..PodSandboxStatusResponse::default()
    }
}

fn container_status(container: &Ctr) -> ContainerStatusResponse {
    let reason = match (container.is, container.exit_code) {
        (Is::Exited, 0) => "Completed",
        (Is::Exited, _) => "Error",
        _ => "",
    };
    ContainerStatusResponse {
        status: Some(ContainerStatus {
            id: container.id.clone(),
            metadata: container.config.metadata.clone(),
            state: container_state(container).into(),
            created_at: nanos(container.created),
            started_at: nanos(container.started),
            finished_at: nanos(container.finished),
            exit_code: container.exit_code,
            reason: reason.to_owned(),
            image: container.config.image.clone(),
            image_ref: "sha256:1".to_owned(),
            labels: container.config.labels.clone(),
            annotations: container.config.annotations.clone(),
            log_path: container.log_path.clone(),
            mounts: container.config.mounts.clone(),
            ..ContainerStatus::default()
        }),
        ..ContainerStatusResponse::default()
    }
}

fn not_found<T>(what: &str) -> std::result::Result<T, Failure> {
    Err((CriErrorKind::NotFound, format!("{what} is not there")))
}

fn lacks<T>(rpc: &'static str) -> Result<T> {
    Err(CriError::new(rpc, ENDPOINT, CriErrorKind::Unimplemented, "not simulated"))
}

impl FakeRuntime {
    async fn call<T: Send + 'static>(
        &self,
        rpc: &'static str,
        key: impl Into<String>,
        act: impl FnOnce(&mut State, bool, &Arc<Flight<T>>) -> Option<std::result::Result<T, Failure>>
        + Send
        + 'static,
    ) -> Result<T> {
        let result = self.0.call(rpc, key.into(), act).await;
        result.map_err(|(kind, message)| CriError::new(rpc, ENDPOINT, kind, message))
    }

    async fn ask<T: Send + Default + 'static>(
        &self,
        rpc: &'static str,
        key: impl Into<String>,
        look: impl FnOnce(&State) -> std::result::Result<T, Failure> + Send + 'static,
    ) -> Result<T> {
        self.call(rpc, key, |state, acts, _| Some(if acts { look(state) } else { Ok(T::default()) })).await
    }

    /// What a call is about, for the trace: the same in every run, unlike an id.
    fn about(&self, id: &str) -> String {
        let state = self.0.lock();
        if let Some(c) = state.containers.get(id) {
            format!("{}/{}.{} {id}", c.uid, c.name, c.attempt)
        } else if let Some(s) = state.sandboxes.get(id) {
            format!("{} {id}", s.uid)
        } else {
            id.to_owned()
        }
    }
}

#[async_trait]
impl Cri for FakeRuntime {
    fn endpoint(&self) -> &str {
        ENDPOINT
    }

    async fn version(&self) -> Result<VersionResponse> {
        self.ask("Version", "", |_| {
            Ok(VersionResponse {
                runtime_name: "simulated".into(),
                runtime_version: "1".into(),
                ..VersionResponse::default()
            })
        })
        .await
    }

    async fn status(&self, _verbose: bool) -> Result<StatusResponse> {
        self.ask("Status", "", |state| {
            let condition = |kind: &str, status: bool| RuntimeCondition {
                r#type: kind.into(),
                status,
                ..RuntimeCondition::default()
            };
            let conditions =
                vec![condition("RuntimeReady", true), condition("NetworkReady", state.network_ready)];
            Ok(StatusResponse { status: Some(RuntimeStatus { conditions }), ..StatusResponse::default() })
        })
        .await
    }

    async fn runtime_config(&self) -> Result<Option<RuntimeConfigResponse>> {
        Ok(None)
    }

    async fn update_runtime_config(&self, _config: RuntimeConfig) -> Result<()> {
        lacks("UpdateRuntimeConfig")
    }

    async fn run_pod_sandbox(&self, config: PodSandboxConfig, _handler: &str) -> Result<String> {
        let metadata = config.metadata.clone().unwrap_or_default();
        let name = sandbox_name(&metadata.name, &metadata.namespace, &metadata.uid, metadata.attempt);
        let (id, reserved, issued) = {
            let mut state = self.0.lock();
            state.check_sandbox_wanted(&uid_of(&config), metadata.attempt);
            let id = state.fresh_id(&name);
            (id.clone(), state.reserve("sandbox", &name, &id), state.now())
        };
        self.call("RunPodSandbox", format!("{}.{}", metadata.uid, metadata.attempt), move |state, acts, _| {
            if let Err(failure) = reserved {
                return Some(Err(failure));
            }
            let failed = !state.network_ready && !on_host(&config);
            if acts && !failed {
                state.make_sandbox(&id, config, issued);
            } else {
                state.release(&name, &id);
            }
            Some(if failed {
                Err((CriErrorKind::Other, "cni plugin not initialized".to_owned()))
            } else {
                Ok(id)
            })
        })
        .await
    }

    async fn stop_pod_sandbox(&self, sandbox: &str) -> Result<()> {
        let (id, about) = (sandbox.to_owned(), self.about(sandbox));
        self.0.lock().check_sandbox_stop(sandbox);
        self.call("StopPodSandbox", about, move |state, acts, _| {
            if acts {
                state.stop_sandbox(&id);
            }
            Some(Ok(()))
        })
        .await
    }

    async fn remove_pod_sandbox(&self, sandbox: &str) -> Result<()> {
        let (id, about) = (sandbox.to_owned(), self.about(sandbox));
        self.0.lock().check_sandbox_removal(sandbox);
        self.call("RemovePodSandbox", about, move |state, acts, _| {
            if acts {
                state.remove_sandbox(&id);
            }
            Some(Ok(()))
        })
        .await
    }

    async fn pod_sandbox_status(&self, sandbox: &str, _verbose: bool) -> Result<PodSandboxStatusResponse> {
        let id = sandbox.to_owned();
        self.ask("PodSandboxStatus", sandbox, move |state| match state.sandboxes.get(&id) {
            Some(sandbox) => Ok(sandbox_status(sandbox)),
            None => not_found(&id),
        })
        .await
    }

    async fn list_pod_sandboxes(&self, filter: Option<PodSandboxFilter>) -> Result<Vec<PodSandbox>> {
        let wanted = filter.unwrap_or_default().label_selector;
        let key = wanted.values().next().cloned().unwrap_or_default();
        self.ask("ListPodSandbox", key, move |state| {
            let all = state.sandboxes.values();
            Ok(all.filter(|s| matches(&wanted, &s.config.labels)).map(listed_sandbox).collect())
        })
        .await
    }

    async fn create_container(
        &self,
        sandbox: &str,
        config: ContainerConfig,
        sandbox_config: PodSandboxConfig,
    ) -> Result<String> {
        let metadata = config.metadata.clone().unwrap_or_default();
        let pod = sandbox_config.metadata.clone().unwrap_or_default();
        let uid = uid_of(&sandbox_config);
        let name =
            format!("{}_{}_{}_{}_{}", metadata.name, pod.name, pod.namespace, pod.uid, metadata.attempt);
        let (id, reserved, issued) = {
            let mut state = self.0.lock();
            state.check_container_wanted(&uid, sandbox, &config);
            let id = state.fresh_id(&name);
            (id.clone(), state.reserve("container", &name, &id), state.now())
        };
        let key = format!("{uid}/{}.{}", metadata.name, metadata.attempt);
        let sandbox = sandbox.to_owned();
        self.call("CreateContainer", key, move |state, acts, _| {
            if let Err(failure) = reserved {
                return Some(Err(failure));
            }
            let made = if acts {
                state.make_container(&id, name.clone(), &sandbox, config, issued)
            } else {
                Err((CriErrorKind::Other, "rolled back".to_owned()))
            };
            if made.is_err() {
                state.release(&name, &id);
            }
            Some(made.map(|()| id))
        })
        .await
    }

    async fn start_container(&self, container: &str) -> Result<()> {
        let (id, about) = (container.to_owned(), self.about(container));
        self.call("StartContainer", about, move |state, acts, flight| {
            Some(if acts { state.start(&id, flight.is_waited_for()) } else { Ok(()) })
        })
        .await
    }

    async fn stop_container(&self, container: &str, grace_seconds: i64) -> Result<()> {
        let (id, about) = (container.to_owned(), self.about(container));
        self.0.lock().check_stop(container);
        self.call("StopContainer", format!("{about} in {grace_seconds} s"), move |state, acts, flight| {
            if acts { state.stop(&id, grace_seconds, flight) } else { Some(Ok(())) }
        })
        .await
    }

    async fn remove_container(&self, container: &str) -> Result<()> {
        let (id, about) = (container.to_owned(), self.about(container));
        self.0.lock().check_container_removal(container);
        self.call("RemoveContainer", about, move |state, acts, _| {
            if acts {
                state.remove_container(&id);
            }
            Some(Ok(()))
        })
        .await
    }

    async fn list_containers(&self, filter: Option<ContainerFilter>) -> Result<Vec<Container>> {
        let wanted = filter.unwrap_or_default().label_selector;
        let key = wanted.values().next().cloned().unwrap_or_default();
        self.ask("ListContainers", key, move |state| {
            let all = state.containers.values();
            Ok(all.filter(|c| matches(&wanted, &c.config.labels)).map(listed_container).collect())
        })
        .await
    }

    async fn container_status(&self, container: &str, _verbose: bool) -> Result<ContainerStatusResponse> {
        let id = container.to_owned();
        self.ask("ContainerStatus", container, move |state| match state.containers.get(&id) {
            Some(container) => Ok(container_status(container)),
            None => not_found(&id),
        })
        .await
    }

    async fn image_status(&self, image: ImageSpec, _verbose: bool) -> Result<ImageStatusResponse> {
        self.ask("ImageStatus", image.image.clone(), move |state| {
            let there = state.images.contains(&image.image);
            let image = there.then(|| Image { id: "sha256:1".to_owned(), ..Image::default() });
            Ok(ImageStatusResponse { image, ..ImageStatusResponse::default() })
        })
        .await
    }

    async fn pull_image(
        &self,
        image: ImageSpec,
        _auth: Option<AuthConfig>,
        _sandbox_config: Option<PodSandboxConfig>,
    ) -> Result<String> {
        self.call("PullImage", image.image.clone(), move |state, acts, _| {
            if let Some(left) = state.bad_images.get_mut(&image.image).filter(|left| **left > 0) {
                if *left < u32::MAX {
                    *left -= 1;
                }
                return Some(Err((CriErrorKind::NotFound, format!("no image {}", image.image))));
            }
            if acts {
                state.images.insert(image.image);
            }
            Some(Ok("sha256:1".to_owned()))
        })
        .await
    }

    fn events(&self) -> RuntimeEvents {
        let (sender, receiver) = RuntimeEvents::channel(64);
        let mut state = self.0.lock();
        if !state.down {
            sender.set_source(state.event_source);
        }
        state.events = Some(sender);
        receiver
    }

    async fn update_pod_sandbox_resources(
        &self,
        _sandbox: &str,
        _overhead: Option<LinuxContainerResources>,
        _resources: Option<LinuxContainerResources>,
    ) -> Result<()> {
        lacks("UpdatePodSandboxResources")
    }

    async fn update_container_resources(
        &self,
        container: &str,
        resources: LinuxContainerResources,
        _annotations: Labels,
    ) -> Result<()> {
        let id = container.to_owned();
        self.call("UpdateContainerResources", self.about(container), move |state, acts, _| {
            if !acts {
                return Some(Ok(()));
            }
            Some(match state.containers.get_mut(&id) {
                None => not_found(&id),
                Some(container) if container.is == Is::Running => {
                    container.config.linux.get_or_insert_default().resources = Some(resources);
                    Ok(())
                }
                Some(_) => Err((CriErrorKind::Other, format!("container {id} does not run"))),
            })
        })
        .await
    }

    async fn reopen_container_log(&self, container: &str) -> Result<()> {
        let id = container.to_owned();
        self.ask("ReopenContainerLog", self.about(container), move |state| match state.containers.get(&id) {
            None => not_found(&id),
            Some(container) if container.is == Is::Running => Ok(()),
            Some(_) => Err((CriErrorKind::Other, format!("container {id} does not run"))),
        })
        .await
    }

    async fn exec_sync(
        &self,
        container: &str,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<ExecSyncResponse> {
        let (id, word) = (container.to_owned(), command.first().cloned().unwrap_or_default());
        let key = format!("{} {word}", self.about(container));
        let _waits = Waits::new(&self.0);
        self.0.lock().check_exec(container, &word);
        let told = word.clone();
        let result = self
            .call("ExecSync", key, move |state, acts, flight| {
                if !acts {
                    return Some(Ok(ExecSyncResponse::default()));
                }
                if !state.containers.get(&id).is_some_and(|c| c.is == Is::Running) {
                    return Some(not_found(&id));
                }
                match state.commands.get(&word).copied().unwrap_or(Command::Exits(0)) {
                    Command::Exits(exit_code) => {
                        Some(Ok(ExecSyncResponse { exit_code, ..ExecSyncResponse::default() }))
                    }
                    Command::Hangs => {
                        if let Some(timeout) = timeout {
                            let (flight, millis) =
                                (Arc::clone(flight), u64::try_from(timeout.as_millis()).unwrap());
                            let due = state.now() + millis;
                            state.at(due, move |_| {
                                flight.answer(Err((CriErrorKind::DeadlineExceeded, "timed out".to_owned())));
                            });
                        }
                        None
                    }
                    Command::Takes(takes, exit_code) => {
                        let (now, late) = (state.now(), timeout.map(|timeout| timeout.as_millis()));
                        let late = late.map(|late| u64::try_from(late).unwrap()).filter(|late| *late < takes);
                        let flight = Arc::clone(flight);
                        state.at(now + late.unwrap_or(takes), move |state| {
                            let lives = state.containers.get(&id).is_some_and(|c| c.is == Is::Running);
                            let exit_code = if lives { exit_code } else { 137 };
                            flight.answer(match late {
                                Some(_) => Err((CriErrorKind::DeadlineExceeded, "timed out".to_owned())),
                                None => Ok(ExecSyncResponse { exit_code, ..ExecSyncResponse::default() }),
                            });
                        });
                        None
                    }
                }
            })
            .await;
        let passed = match &result {
            Ok(done) => Some(done.exit_code == 0),
            Err(error) => (error.kind() == CriErrorKind::DeadlineExceeded).then_some(false),
        };
        self.0.lock().exec_told(container, &told, passed);
        result
    }

    async fn exec(&self, _request: ExecRequest) -> Result<String> {
        lacks("Exec")
    }

    async fn attach(&self, _request: AttachRequest) -> Result<String> {
        lacks("Attach")
    }

    async fn port_forward(&self, _sandbox: &str, _ports: Vec<i32>) -> Result<String> {
        lacks("PortForward")
    }

    async fn container_stats(&self, _container: &str) -> Result<Option<ContainerStats>> {
        lacks("ContainerStats")
    }

    async fn list_container_stats(
        &self,
        _filter: Option<ContainerStatsFilter>,
    ) -> Result<Vec<ContainerStats>> {
        lacks("ListContainerStats")
    }

    async fn pod_sandbox_stats(&self, _sandbox: &str) -> Result<Option<PodSandboxStats>> {
        lacks("PodSandboxStats")
    }

    async fn list_pod_sandbox_stats(
        &self,
        _filter: Option<PodSandboxStatsFilter>,
    ) -> Result<Vec<PodSandboxStats>> {
        lacks("ListPodSandboxStats")
    }

    async fn checkpoint_container(
        &self,
        _container: &str,
        _location: &str,
        _timeout: Option<Duration>,
    ) -> Result<()> {
        lacks("CheckpointContainer")
    }

    async fn list_metric_descriptors(&self) -> Result<Vec<MetricDescriptor>> {
        lacks("ListMetricDescriptors")
    }

    async fn list_pod_sandbox_metrics(&self) -> Result<Vec<PodSandboxMetrics>> {
        lacks("ListPodSandboxMetrics")
    }

    async fn list_images(&self, _filter: Option<ImageFilter>) -> Result<Vec<Image>> {
        lacks("ListImages")
    }

    async fn remove_image(&self, _image: ImageSpec) -> Result<()> {
        lacks("RemoveImage")
    }

    async fn image_fs_info(&self) -> Result<ImageFsInfoResponse> {
        lacks("ImageFsInfo")
    }
}
