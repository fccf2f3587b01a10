//! Starts one container: its image, its configuration, the calls to the runtime.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use k8s_openapi::api::core::v1::{Container, Pod};

use super::{failures::StepError, worker::PodWorker};
use crate::{
    agent::{
        images::{ImageError, PullPolicy},
        logs, volumes,
    },
    api::{ContainerKind, PodExt as _, cri::PodSandboxConfig, view::PodStep},
    policy::{
        container_config::{ContainerInput, ImageFacts, container_config},
        pod_actions::StartContainer,
    },
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
        let image = self.ensure_image(container, &image, sandbox).await?;
        let mounts = volumes::mounts(pod, container, &self.env.paths)
            .map_err(|error| StepError::new("CreateContainerConfigError", error.to_string()))?;
        let pod_ips = self.pod_ips(pod);
        let config = container_config(&ContainerInput {
            pod,
            container,
            start,
            image: &image,
            mounts: &mounts,
            pod_ips: &pod_ips,
            node: &self.env.node,
        })
        .map_err(|error| StepError {
            hints: error.hints,
            ..StepError::new("CreateContainerConfigError", error.message)
        })?;
        self.at(PodStep::StartingContainer, format!("make container {:?}", start.name));
        let made = self.env.cri.create_container(start.sandbox_id.as_str(), config, sandbox.clone()).await;
        made.map_err(|error| {
            let what = match error.name_reserved() {
                Some(_) => format!("make container {:?}, an earlier call is still at it", start.name),
                None => format!("make container {:?}", start.name),
            };
            self.runtime_error("CreateContainerError", &what, &error)
        })
    }

    async fn ensure_image(
        &mut self,
        container: &Container,
        image: &str,
        sandbox: &PodSandboxConfig,
    ) -> Result<ImageFacts, StepError> {
        let policy = PullPolicy::of(container.image_pull_policy.as_deref(), image);
        let (env, mailbox, stop) = (Arc::clone(&self.env), Arc::clone(&self.mailbox), self.stop.clone());
        let ensured = tokio::select! {
            ensured = env.images.ensure(image, policy, sandbox, || {
                self.show(PodStep::PullingImage, format!("pull image {image:?}"));
            }) => ensured,
            // The pull goes on; nobody waits for it.
            () = mailbox.stop_told() => return Err(StepError::new("Interrupted", "the pod is to stop")),
            () = stop.cancelled() => return Err(StepError::new("Interrupted", "the agent is to stop")),
        };
        ensured.map_err(|error| StepError {
            retry_after: error.retry_after(),
            hints: image_hints(&error),
            ..StepError::new(error.reason(), error.to_string())
        })
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

fn spec_of<'a>(pod: &'a Pod, start: &StartContainer) -> Option<&'a Container> {
    let spec = pod.spec();
    let list = match start.kind {
        ContainerKind::Regular => Some(&spec.containers),
        ContainerKind::Init | ContainerKind::Sidecar => spec.init_containers.as_ref(),
    };
    list?.get(start.index).filter(|container| container.name == start.name)
}

fn image_hints(error: &ImageError) -> Vec<String> {
    match error {
        ImageError::NeverPull { image } => {
            vec![format!("bring the image {image} to the node, or set imagePullPolicy to IfNotPresent")]
        }
        _ => Vec::new(),
    }
}
