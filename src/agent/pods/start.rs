//! Starts one container: its image, its configuration, the calls to the runtime.

use std::{borrow::Cow, collections::BTreeMap, net::IpAddr, path::PathBuf, sync::Arc};

use k8s_openapi::api::core::v1::{Container, Pod};
use tokio::time::Instant;

use super::{failures::StepError, host_work::unless_stopped, worker::PodWorker};
use crate::{
    agent::{
        env_files,
        images::{ImageError, PullPolicy},
        logs, termination,
        volumes::{self, HostParts, MountContext},
    },
    api::{
        ContainerKind, PodExt as _,
        cri::{ImageSpec, Mount, PodSandboxConfig},
        pod::as_container,
        view::PodStep,
    },
    policy::{
        container_config::{ContainerInput, ImageFacts, container_config, target_of},
        env::{ConfigError, EnvFiles, EnvInput, environment, skipped_names},
        events::{Pull, Words, pull_failed, pull_refused, secrets_missing},
        given::{Given, env_references, pull_references},
        keyring::{PullAccess, pull_access},
        pod_actions::StartContainer,
    },
    telemetry::metrics,
};

impl PodWorker {
    /// Makes and starts a container. Answers whether its postStart hook was begun.
    pub(super) async fn start_container(
        &mut self,
        pod: &Arc<Pod>,
        sandbox: &PodSandboxConfig,
        start: &StartContainer,
    ) -> Result<bool, StepError> {
        let container = spec_of(pod, start).ok_or_else(|| {
            StepError::new("CreateContainerConfigError", format!("no container {:?} in the pod", start.name))
        })?;
        let container = &*container;
        let id = match &start.made {
            Some(id) => id.to_string(),
            None => self.create_container(pod, container, sandbox, start).await?,
        };
        self.at(PodStep::StartingContainer, format!("start container {:?}", start.name));
        let started = self.env.cri.start_container(&id).await;
        self.link_log(pod, start, &id);
        started.map_err(|error| {
            self.runtime_error("RunContainerError", &format!("start container {:?}", start.name), &error)
        })?;
        self.tell_of(&start.name, Words::normal("Started", "Container started"));
        tracing::info!(pod = %self.full_name, container = start.name, %id, attempt = start.attempt, "started container");
        Ok(self.begin_post_start(pod, container, &id.into()))
    }

    async fn create_container(
        &mut self,
        pod: &Arc<Pod>,
        container: &Container,
        sandbox: &PodSandboxConfig,
        start: &StartContainer,
    ) -> Result<String, StepError> {
        let image = container.image.clone().unwrap_or_default();
        let policy = PullPolicy::of(container.image_pull_policy.as_deref(), &image);
        let image = self.ensure_image(pod, &container.name, &image, policy, sandbox).await?;
        let images = self.ensure_volume_images(pod, container, sandbox).await?;
        let pod_ips = self.pod_ips(pod);
        let variables = self.environment(pod, container, &pod_ips).await?;
        let target = target_of(pod, &container.name, &self.observation()).map_err(config_error)?;
        let env = Arc::clone(&self.env);
        let input = ContainerInput {
            pod,
            container,
            start,
            image: &image,
            mounts: &Vec::new(),
            env: &variables,
            user_namespace: self.user_namespace,
            target: target.as_ref(),
            node: &env.node,
        };
        let mut mounts = self.mounts(pod, container, Arc::clone(&variables), images).await?;
        mounts.extend(self.hosts_mount(pod, container, &pod_ips).await?);
        mounts.extend(self.termination_mount(container, start).await);
        if let Some(ids) = self.user_namespace {
            ids.map_mounts(&mut mounts);
        }
        let config = container_config(&ContainerInput { mounts: &mounts, ..input }).map_err(config_error)?;
        self.at(PodStep::StartingContainer, format!("make container {:?}", start.name));
        let made = self.env.cri.create_container(start.sandbox_id.as_str(), config, sandbox.clone()).await;
        let made = made.inspect(|_| self.tell_of(&start.name, Words::normal("Created", "Container created")));
        made.map_err(|error| {
            let what = match error.name_reserved() {
                Some(_) => format!("make container {:?}, an earlier call is still at it", start.name),
                None => format!("make container {:?}", start.name),
            };
            self.runtime_error("CreateContainerError", &what, &error)
        })
    }

    /// The container's environment. It may take files and may be large, so it is put together beside the
    /// tasks.
    async fn environment(
        &self,
        pod: &Arc<Pod>,
        container: &Container,
        pod_ips: &[IpAddr],
    ) -> Result<Arc<[(String, String)]>, StepError> {
        let services = self.service_variables(pod).await?;
        let sources = container.env_from.iter().flatten().next();
        if container.env.iter().flatten().next().is_none() && sources.is_none() && services.is_empty() {
            return Ok(Arc::default());
        }
        let given = Given { services, ..self.take_supplies(&env_references(pod, container)).await? };
        let name = self.full_name.clone();
        let (env, pod, container) = (Arc::clone(&self.env), Arc::clone(pod), container.clone());
        let pod_ips = pod_ips.to_vec();
        let made = tokio::task::spawn_blocking(move || {
            let files = if env.node.env_files {
                env_files::read(&pod, &container, &env.paths)
                    .map_err(|why| StepError::new("CreateContainerConfigError", why))?
            } else {
                // Whatever names one is told so.
                EnvFiles::new()
            };
            let (pod, container, files) = (&*pod, &container, &files);
            let input = EnvInput { pod, container, pod_ips: &pod_ips, files, given: &given, node: &env.node };
            for skipped in skipped_names(&input) {
                tracing::warn!(pod = %name, container = container.name, "{skipped}");
                env.events.pod(pod, Words::warning("InvalidEnvironmentVariableNames", skipped));
            }
            environment(&input).map(Arc::from).map_err(config_error)
        });
        made.await
            .unwrap_or_else(|error| Err(StepError::new("CreateContainerConfigError", error.to_string())))
    }

    /// The file for the container's last words. Without one, as on a full disk, the container starts all the
    /// same and leaves none, as on kubelet.
    async fn termination_mount(&self, container: &Container, start: &StartContainer) -> Option<Mount> {
        let (env, uid, container) = (Arc::clone(&self.env), self.uid.clone(), container.clone());
        let (attempt, name) = (start.attempt, &start.name);
        let made = tokio::task::spawn_blocking(move || {
            termination::set_up(&env.paths, &uid, &container, attempt).map_err(|error| error.to_string())
        });
        let made = made.await.unwrap_or_else(|error| Err(error.to_string()));
        let what = "cannot make the file for the container's termination message, going on without";
        made.inspect_err(|why| tracing::warn!(pod = %self.full_name, container = name, "{what}: {why}")).ok()
    }

    /// The images of the volumes that the container mounts, by the volumes' names.
    async fn ensure_volume_images(
        &mut self,
        pod: &Arc<Pod>,
        container: &Container,
        sandbox: &PodSandboxConfig,
    ) -> Result<BTreeMap<String, ImageSpec>, StepError> {
        let mut images = BTreeMap::new();
        for (volume, source) in volumes::image_volumes(pod, container) {
            let reference = source.reference.clone().unwrap_or_default();
            let policy = PullPolicy::of(source.pull_policy.as_deref(), &reference);
            let facts = self.ensure_image(pod, &container.name, &reference, policy, sandbox).await?;
            let spec =
                ImageSpec { image: facts.reference, user_specified_image: reference, ..ImageSpec::default() };
            images.insert(volume.to_owned(), spec);
        }
        Ok(images)
    }

    /// Mounts for the container what is to be mounted on the host.
    async fn mounts(
        &mut self,
        pod: &Arc<Pod>,
        container: &Container,
        variables: Arc<[(String, String)]>,
        images: BTreeMap<String, ImageSpec>,
    ) -> Result<Vec<Mount>, StepError> {
        let host_parts = self.host_parts(pod, container, &variables).await?;
        let (env, pod, container) = (Arc::clone(&self.env), Arc::clone(pod), container.clone());
        let seen = self.observation();
        let handler = seen.newest_sandbox().map_or("", |sandbox| &sandbox.runtime_handler);
        let can_recursive_read_only = self.env.health.current().facts(handler).can_recursive_read_only();
        let made = tokio::task::spawn_blocking(move || {
            volumes::mounts(&MountContext {
                pod: &pod,
                container: &container,
                env: &variables,
                images: &images,
                host_parts: &host_parts,
                can_recursive_read_only,
                paths: &env.paths,
                mountinfo: &env.mountinfo,
            })
            .map_err(|error| StepError::new("CreateContainerConfigError", error.to_string()))
        });
        made.await
            .unwrap_or_else(|error| Err(StepError::new("CreateContainerConfigError", error.to_string())))
    }

    /// The parts of hostPath volumes that the container mounts.
    async fn host_parts(
        &mut self,
        pod: &Arc<Pod>,
        container: &Container,
        variables: &Arc<[(String, String)]>,
    ) -> Result<HostParts, StepError> {
        let paths = volumes::host_paths_with_parts(pod, container);
        if paths.is_empty() {
            return Ok(HostParts::default());
        }
        let (pod, container, variables) = (Arc::clone(pod), container.clone(), Arc::clone(variables));
        let open = move || volumes::open_host_parts(&pod, &container, &variables);
        let opened = self.on_host(PodStep::StartingContainer, &paths, open).await?;
        opened.map_err(|error| StepError::new("CreateContainerConfigError", error.to_string()))
    }

    /// Has the image on the node, and tells of it as of something that happens to the container.
    async fn ensure_image(
        &mut self,
        pod: &Arc<Pod>,
        container: &str,
        image: &str,
        policy: PullPolicy,
        sandbox: &PodSandboxConfig,
    ) -> Result<ImageFacts, StepError> {
        let (env, mailbox, stop) = (Arc::clone(&self.env), Arc::clone(&self.mailbox), self.stop.clone());
        let asked = Instant::now();
        let access = async {
            // A static pod may name no Secret.
            match env.supplies.as_ref().filter(|_| !pod.is_static()) {
                Some(supplies) => {
                    let access = pull_access(pod, &supplies.objects(&pull_references(pod)).await);
                    secrets_missing(&access.problems)
                        .into_iter()
                        .for_each(|words| env.events.pod(pod, words));
                    access
                }
                None => PullAccess::default(),
            }
        };
        let pull = env.images.ensure(image, policy, sandbox, access, || {
            self.env.starts.pulling(&self.uid, self.now());
            self.show(PodStep::PullingImage, format!("pull image {image:?}"));
            self.tell_of(container, Pull::Begins.words(image));
        });
        // Where the pod is to stop the pull goes on; nobody waits for it.
        let ensured = unless_stopped(&mailbox, &stop, pull).await?;
        match ensured {
            Ok(ready) => {
                let pull = ready.pulled.map_or(Pull::Present, |took| {
                    self.env.starts.pulled(&self.uid, self.now());
                    metrics::image_pulled(ready.bytes, took);
                    let waited = asked.elapsed().max(took);
                    Pull::Done { took, waited, bytes: ready.bytes }
                });
                self.tell_of(container, pull.words(image));
                Ok(ready.facts)
            }
            Err(error) => {
                let words = match &error {
                    ImageError::Pull { cause, .. } => Some(pull_failed(image, cause)),
                    error => pull_refused(error.reason(), image, &error.to_string()),
                };
                words.into_iter().for_each(|words| self.tell_of(container, words));
                Err(StepError {
                    retry_after: error.retry_after(),
                    hints: image_hints(&error),
                    ..StepError::new(error.reason(), error.to_string())
                })
            }
        }
    }

    /// The pod's addresses: those of its sandbox, or the node's on the host's network.
    pub(super) fn pod_ips(&self, pod: &Pod) -> Vec<IpAddr> {
        if pod.host_network() {
            return self.env.node.host_ips.clone();
        }
        self.observation().newest_sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default()
    }

    /// Links the log beside the call that starts the container; nobody waits for it.
    fn link_log(&self, pod: &Pod, start: &StartContainer, id: &str) {
        let paths = &self.env.paths;
        let log: PathBuf = paths.pod_log(pod).join(&start.name).join(format!("{}.log", start.attempt));
        let link = paths.container_log_link(&self.full_name, &start.name, id);
        tokio::task::spawn_blocking(move || {
            if let Err(error) = logs::link(&log, &link) {
                tracing::warn!("cannot link log {} as {}: {error}", log.display(), link.display());
            }
        });
    }
}

fn spec_of<'a>(pod: &'a Pod, start: &StartContainer) -> Option<Cow<'a, Container>> {
    let spec = pod.spec();
    let own = |container: &&Container| container.name == start.name;
    match start.kind {
        ContainerKind::Regular => spec.containers.get(start.index).filter(own).map(Cow::Borrowed),
        ContainerKind::Init | ContainerKind::Sidecar => {
            spec.init_containers.as_ref()?.get(start.index).filter(own).map(Cow::Borrowed)
        }
        ContainerKind::Ephemeral => {
            let container = as_container(spec.ephemeral_containers.as_ref()?.get(start.index)?);
            (container.name == start.name).then_some(Cow::Owned(container))
        }
    }
}

fn config_error(error: ConfigError) -> StepError {
    StepError { hints: error.hints, ..StepError::new("CreateContainerConfigError", error.message) }
}

fn image_hints(error: &ImageError) -> Vec<String> {
    match error {
        ImageError::NeverPull { image } => {
            vec![format!("bring the image {image} to the node, or set imagePullPolicy to IfNotPresent")]
        }
        _ => Vec::new(),
    }
}
