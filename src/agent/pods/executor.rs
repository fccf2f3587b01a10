//! Does what the policy decided about a running pod: folders and volumes, sandbox, containers.

use std::{path::PathBuf, sync::Arc};

use k8s_openapi::api::core::v1::{Container, Pod};

use super::{
    failures::StepError,
    worker::{Done, Next, PodWorker},
};
use crate::{
    agent::{
        images::{ImageError, PullPolicy},
        logs,
        volumes::{self, make_agent_dir},
    },
    api::{ContainerKind, PodExt as _, PodObservation, cri::PodSandboxConfig, view::PodStep},
    policy::{
        container_config::{container_config, sandbox_config},
        container_gc::removable,
        grace::pod_grace,
        pod_actions::{CreateSandbox, PodActions, StartContainer},
    },
};

impl PodWorker {
    /// Does a plan in its order.
    pub(super) async fn execute(&mut self, pod: &Arc<Pod>, seen: &PodObservation, plan: &PodActions) -> Done {
        // A sandbox that is down cannot give up its addresses without a network either.
        if plan.create_sandbox.is_some() && plan.stop.is_empty() && self.waits_for_network(pod) {
            return Done::Wait(Next::Told);
        }
        if !plan.stop.is_empty() || !plan.stop_sandboxes.is_empty() {
            self.unseen = true;
            if let Err(error) = self.stop_parts(pod, plan).await {
                return Done::Wait(self.pod_failed(error));
            }
            if self.interrupted() {
                return Done::Wait(Next::Now);
            }
        }
        if let Some(create) = &plan.create_sandbox {
            return match self.create_sandbox(pod, create).await {
                Ok(done) => done,
                Err(error) => Done::Wait(self.pod_failed(error)),
            };
        }
        // An adopted pod's folders were made by whoever made its sandbox; new containers need them.
        if !plan.start.is_empty()
            && let Err(error) = self.prepare(pod).await
        {
            return Done::Wait(self.pod_failed(error));
        }
        self.unseen |= !plan.start.is_empty();
        let next = self.start_containers(pod, seen, plan).await;
        match self.inspect().await {
            Ok(_) => next.map_or(Done::Again, Done::Wait),
            Err(error) => Done::Wait(self.pod_failed(error)),
        }
    }

    /// Whether the pod needs a network that is not there; if so, that is where it stands. The sync loop wakes
    /// every worker when the runtime's health changes.
    fn waits_for_network(&mut self, pod: &Pod) -> bool {
        let error = self.env.health.current().network_error.filter(|_| !pod.host_network());
        error.map(|error| self.at(PodStep::WaitingForNetwork, error)).is_some()
    }

    async fn stop_parts(&mut self, pod: &Pod, plan: &PodActions) -> Result<(), StepError> {
        let grace = i64::try_from(pod_grace(pod).as_secs()).unwrap_or(i64::MAX);
        for stop in &plan.stop {
            tracing::info!(pod = %self.full_name, container = stop.name, id = %stop.id, "stopping container: {}", stop.reason);
            self.show(PodStep::Retrying, format!("stop container {:?}: {}", stop.name, stop.reason));
        }
        let mut stopping = tokio::task::JoinSet::new();
        for stop in &plan.stop {
            let (cri, id, name) = (Arc::clone(&self.env.cri), stop.id.clone(), stop.name.clone());
            stopping.spawn(async move { (name, cri.stop_container(id.as_str(), grace).await) });
        }
        loop {
            // The end of the pod may come with less time: it stops the same containers its own way.
            let joined = tokio::select! {
                joined = stopping.join_next() => joined,
                () = self.mailbox.stop_told() => return Ok(()),
                () = self.stop.cancelled() => return Ok(()),
            };
            match joined {
                None => break,
                Some(Ok((name, Err(error)))) => {
                    let what = format!("stop container {name:?}");
                    return Err(self.runtime_error("FailedKillContainer", &what, &error));
                }
                Some(Ok((_, Ok(())))) => {}
                Some(Err(error)) => return Err(StepError::new("FailedKillContainer", error.to_string())),
            }
        }
        for id in &plan.stop_sandboxes {
            self.env.cri.stop_pod_sandbox(id.as_str()).await.map_err(|error| {
                self.runtime_error("FailedKillPodSandbox", &format!("stop sandbox {id}"), &error)
            })?;
        }
        Ok(())
    }

    /// Makes the pod's folders and volumes, once for a specification.
    async fn prepare(&mut self, pod: &Arc<Pod>) -> Result<(), StepError> {
        if self.prepared {
            return Ok(());
        }
        self.at(PodStep::PreparingVolumes, "make folders and volumes");
        let (env, pod) = (Arc::clone(&self.env), Arc::clone(pod));
        let made = tokio::task::spawn_blocking(move || {
            let folder = env.paths.pod(&pod.uid()).ok_or_else(|| {
                StepError::new("InvalidPod", format!("the uid {:?} cannot be a folder's name", pod.uid()))
            })?;
            make_agent_dir(&folder).map_err(|error| {
                StepError::new("FailedMount", format!("cannot make folder {}: {error}", folder.display()))
            })?;
            volumes::set_up(&pod, &env.paths)
                .map_err(|error| StepError::new("FailedMount", error.to_string()))?;
            let names = pod.all_containers();
            logs::set_up(&pod, names.iter().map(|(_, c)| c.name.as_str()), &env.paths).map_err(|error| {
                let folder = env.paths.pod_log(&pod);
                StepError::new(
                    "FailedCreateLogDirectory",
                    format!("cannot make log folder {}: {error}", folder.display()),
                )
            })
        })
        .await;
        made.unwrap_or_else(|error| Err(StepError::new("FailedMount", error.to_string())))?;
        self.prepared = true;
        Ok(())
    }

    fn sandbox_config(&self, pod: &Pod, attempt: u32) -> PodSandboxConfig {
        let logs = self.env.paths.pod_log(pod);
        sandbox_config(pod, attempt, &logs.to_string_lossy(), &self.env.cgroups.pod_parent(pod))
    }

    async fn create_sandbox(&mut self, pod: &Arc<Pod>, create: &CreateSandbox) -> Result<Done, StepError> {
        let now = self.now();
        if let Some(at) = self.failures.pod_blocked(now) {
            return Ok(Done::Wait(Next::At(at)));
        }
        if self.waits_for_network(pod) {
            return Ok(Done::Wait(Next::Told));
        }
        self.prepare(pod).await?;
        self.show(PodStep::CreatingSandbox, format!("make sandbox {}: {}", create.attempt, create.reason));
        let config = self.sandbox_config(pod, create.attempt);
        self.unseen = true;
        let made = self.env.cri.run_pod_sandbox(config, "").await;
        if let Err(error) = made {
            // It may be there all the same: after a time-out, or made by a call before this one.
            self.inspect().await?;
            if self.observation().newest_sandbox().is_some_and(|s| s.attempt >= create.attempt) {
                return Ok(Done::Again);
            }
            let what = match error.name_reserved() {
                Some(_) => "make the pod's sandbox, an earlier call is still at it",
                None => "make the pod's sandbox",
            };
            return Err(self.runtime_error("FailedCreatePodSandBox", what, &error));
        }
        self.failures.pod_ok();
        self.inspect().await?;
        Ok(Done::Again)
    }

    /// Starts containers one after the other. One that fails holds back only init containers, which come
    /// one by one anyway. Answers when to look again if any failed or waits.
    async fn start_containers(
        &mut self,
        pod: &Arc<Pod>,
        seen: &PodObservation,
        plan: &PodActions,
    ) -> Option<Next> {
        let attempt = seen.newest_sandbox().map_or(0, |sandbox| sandbox.attempt);
        let sandbox = self.sandbox_config(pod, attempt);
        let mut due = None;
        for start in &plan.start {
            if self.interrupted() {
                return Some(Next::Now);
            }
            let now = self.now();
            let failed_until = match self.failures.container_blocked(&start.name, now) {
                Some(at) => Some(at),
                None => match self.start_container(pod, &sandbox, start).await {
                    Ok(()) => {
                        self.failures.container_ok(&start.name);
                        None
                    }
                    Err(error) if self.interrupted() => {
                        tracing::debug!(pod = %self.full_name, "given up for news: {}", error.message);
                        return Some(Next::Now);
                    }
                    Err(error) => Some(self.container_failed(&start.name, error)),
                },
            };
            due = [due, failed_until].into_iter().flatten().min();
        }
        due.map(Next::At)
    }

    fn container_failed(&mut self, name: &str, error: StepError) -> jiff::Timestamp {
        let now = self.now();
        let step = if error.runtime_down { PodStep::WaitingForRuntime } else { PodStep::Retrying };
        let message = error.message.clone();
        let failed = self.failures.container_failed(name, error, now);
        let (at, count) = (failed.not_before, failed.error.count);
        if count == 1 {
            tracing::warn!(pod = %self.full_name, uid = %self.uid, container = name, "{message}");
        }
        self.at(step, message);
        at
    }

    async fn start_container(
        &mut self,
        pod: &Arc<Pod>,
        sandbox: &PodSandboxConfig,
        start: &StartContainer,
    ) -> Result<(), StepError> {
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
        Ok(())
    }

    async fn create_container(
        &mut self,
        pod: &Arc<Pod>,
        container: &Container,
        sandbox: &PodSandboxConfig,
        start: &StartContainer,
    ) -> Result<String, StepError> {
        let image = container.image.clone().unwrap_or_default();
        let image_ref = self.ensure_image(container, &image, sandbox).await?;
        let mounts = volumes::mounts(pod, container, &self.env.paths)
            .map_err(|error| StepError::new("CreateContainerConfigError", error.to_string()))?;
        let config = container_config(pod, container, start, &image_ref, mounts, &self.env.resources);
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
    ) -> Result<String, StepError> {
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

    /// Removes containers and sandboxes that later ones have replaced, with their logs.
    pub(super) async fn collect_garbage(&mut self, seen: &PodObservation) {
        let found = removable(seen);
        if found.is_empty() {
            return;
        }
        for id in &found.containers {
            if let Err(error) = self.env.cri.remove_container(id.as_str()).await {
                tracing::warn!(pod = %self.full_name, %id, "cannot remove a dead container: {error}");
                return;
            }
            if let Some(container) = seen.containers.iter().find(|c| &c.id == id).cloned() {
                let (env, name) = (Arc::clone(&self.env), self.full_name.clone());
                let removed =
                    tokio::task::spawn_blocking(move || logs::remove(&name, &container, &env.paths)).await;
                if let Ok(Err(error)) = removed {
                    tracing::warn!(pod = %self.full_name, %id, "cannot remove a dead container's log: {error}");
                }
            }
        }
        for id in &found.sandboxes {
            if let Err(error) = self.env.cri.remove_pod_sandbox(id.as_str()).await {
                tracing::warn!(pod = %self.full_name, %id, "cannot remove a replaced sandbox: {error}");
                return;
            }
        }
        if let Err(error) = self.inspect().await {
            tracing::debug!(pod = %self.full_name, "{}", error.message);
        }
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
