//! Does what the policy decided about a running pod: folders and volumes, sandbox, containers.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use tokio::{sync::watch, time::Instant};

use super::{
    failures::StepError,
    pace::Pace,
    worker::{Done, Next, PodWorker},
};
use crate::{
    agent::{logs, termination},
    api::{
        ContainerKind, ContainerState, ObservedContainer, PodExt as _, PodObservation, cri::PodSandboxConfig,
        view::PodStep,
    },
    cri::CriError,
    error::chain,
    policy::{
        container_config::{PodHostname, SandboxInput, sandbox_config},
        container_gc::removable,
        dns::PodDns,
        events::Words,
        pod_actions::{CreateSandbox, PodActions},
        runtime,
    },
    telemetry::metrics,
};

/// How long an old container that may be alive has to end before it is removed: as long as kubelet gives at
/// least.
const UNKNOWN_SECONDS: i64 = 2;

impl PodWorker {
    /// Does a plan in its order.
    pub(super) async fn execute(&mut self, pod: &Arc<Pod>, seen: &PodObservation, plan: &PodActions) -> Done {
        // A sandbox that is down cannot give up its addresses without a network either.
        if plan.create_sandbox.is_some() && plan.stop.is_empty() && self.waits_for_network(pod) {
            return Done::Wait(Next::Told);
        }
        if let Some(create) = plan.create_sandbox.as_ref().filter(|_| !seen.sandboxes.is_empty()) {
            self.tell_sandbox_changed(create.attempt);
        }
        if !plan.stop.is_empty() || !plan.stop_sandboxes.is_empty() {
            self.unseen = true;
            if let Err(error) = self.stop_parts(seen, plan).await {
                return Done::Wait(self.pod_failed(error));
            }
            if self.interrupted() {
                return Done::Wait(Next::Now);
            }
        }
        if let Some(create) = &plan.create_sandbox {
            return match self.create_sandbox(pod, create).await {
                Ok(done) => done,
                Err(error) => Done::Wait(self.failed_or_interrupted(error)),
            };
        }
        // An adopted pod's folders were made by whoever made its sandbox; new containers need them.
        if !plan.start.is_empty()
            && let Err(error) = self.prepare(pod).await
        {
            return Done::Wait(self.failed_or_interrupted(error));
        }
        self.unseen |= !plan.start.is_empty();
        let next = self.start_containers(pod, seen, plan).await;
        match self.inspect().await {
            Ok(_) => next.map_or(Done::Again, Done::Wait),
            Err(error) => Done::Wait(self.pod_failed(error)),
        }
    }

    /// What was given up for news is no failure.
    fn failed_or_interrupted(&mut self, error: StepError) -> Next {
        if self.interrupted() { Next::Now } else { self.pod_failed(error) }
    }

    /// Whether the pod needs a network that is not there; if so, that is where it stands. The sync loop wakes
    /// every worker when the runtime's health changes.
    fn waits_for_network(&mut self, pod: &Pod) -> bool {
        let error = self.env.health.current().network_error.filter(|_| !pod.host_network());
        let Some(error) = error else { return false };
        if self.progress.step != PodStep::WaitingForNetwork {
            let message = format!("network is not ready: container runtime {error}");
            self.tell(Words::warning("NetworkNotReady", message));
        }
        self.at(PodStep::WaitingForNetwork, error);
        true
    }

    async fn stop_parts(&mut self, seen: &PodObservation, plan: &PodActions) -> Result<(), StepError> {
        let now = self.now();
        let (mut stopping, pace) = (tokio::task::JoinSet::new(), Pace::default());
        for stop in &plan.stop {
            tracing::info!(pod = %self.full_name, container = stop.name, id = %stop.id, "stopping container: {}", stop.reason);
            self.show(PodStep::Retrying, format!("stop container {:?}: {}", stop.name, stop.reason));
            self.tell_killing(seen, &stop.id, stop.cause);
            let grace = SignedDuration::try_from(stop.grace).unwrap_or(SignedDuration::MAX);
            let deadline = now.checked_add(grace).unwrap_or(Timestamp::MAX);
            stopping.spawn(self.stop_of(seen, &stop.id, watch::channel(deadline).1, &pace).run());
        }
        let mailbox = Arc::clone(&self.mailbox);
        loop {
            // The end of the pod may come with less time: it stops the same containers its own way. A hook
            // under way goes on meanwhile.
            let joined = tokio::select! {
                joined = stopping.join_next() => joined,
                () = mailbox.probe_told() => {
                    self.read_probes().await;
                    self.publish(&Next::Told);
                    continue;
                }
                () = mailbox.stop_told() => return Ok(()),
                () = self.stop.cancelled() => return Ok(()),
            };
            match joined {
                None => break,
                Some(Ok((id, Err(error)))) => {
                    let what = format!("stop container {id}");
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

    fn sandbox_config(
        &self,
        pod: &Pod,
        attempt: u32,
        hostname: &PodHostname,
        dns: Option<&PodDns>,
    ) -> PodSandboxConfig {
        let logs = self.env.paths.pod_log(pod);
        sandbox_config(&SandboxInput {
            pod,
            attempt,
            log_directory: &logs.to_string_lossy(),
            cgroup_parent: &self.env.cgroups.layout().pod_parent(pod),
            hostname: &hostname.kernel,
            dns: dns.map(|dns| &dns.config),
            user_namespace: self.user_namespace,
            node: &self.env.node,
        })
    }

    async fn create_sandbox(&mut self, pod: &Arc<Pod>, create: &CreateSandbox) -> Result<Done, StepError> {
        let now = self.now();
        if let Some(at) = self.failures.pod_blocked(now) {
            return Ok(Done::Wait(Next::At(at)));
        }
        if self.waits_for_network(pod) {
            return Ok(Done::Wait(Next::Told));
        }
        let (hostname, handler) = (self.hostname(pod)?, self.handler(pod).await?);
        if let Some(unmet) = runtime::unmet(pod, &self.env.health.current().facts(&handler), &self.env.node) {
            let message = format!("{}: {}", unmet.field, unmet.message);
            return Err(StepError::new("RuntimeUnsupported", message));
        }
        let dns = self.dns(pod).await?;
        self.tell_dns_notes(&dns);
        self.prepare(pod).await?;
        self.show(PodStep::CreatingSandbox, format!("make sandbox {}: {}", create.attempt, create.reason));
        let config = self.sandbox_config(pod, create.attempt, &hostname, Some(&dns));
        // The runtime may have kept the pass waiting for long before it came here.
        if self.interrupted() {
            return Ok(Done::Wait(Next::Now));
        }
        self.unseen = true;
        let began = Instant::now();
        let made = self.env.cri.run_pod_sandbox(config, &handler).await;
        metrics::sandbox_made(&handler, began.elapsed(), made.is_ok());
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
        if plan.start.is_empty() {
            return None;
        }
        let hostname = match self.hostname(pod) {
            Ok(hostname) => hostname,
            Err(error) => return Some(self.pod_failed(error)),
        };
        // The sandbox has its resolver: that the host's cannot be read now keeps no container from starting.
        let dns = self.dns(pod).await.ok();
        let sandbox = self.sandbox_config(pod, attempt, &hostname, dns.as_ref());
        let mut due = None;
        for start in &plan.start {
            if self.interrupted() {
                return Some(Next::Now);
            }
            let now = self.now();
            let failed_until = match self.failures.container_blocked(&start.name, now) {
                Some(at) => Some(at),
                None => match self.start_container(pod, &sandbox, start).await {
                    Ok(hook) => {
                        metrics::container_started(kind(start.kind), None);
                        self.failures.container_ok(&start.name);
                        if hook {
                            break;
                        }
                        None
                    }
                    Err(error) if self.interrupted() => {
                        tracing::debug!(pod = %self.full_name, "given up for news: {}", error.message);
                        return Some(Next::Now);
                    }
                    Err(error) => {
                        metrics::container_started(kind(start.kind), Some(error.reason));
                        Some(self.container_failed(&start.name, error))
                    }
                },
            };
            due = [due, failed_until].into_iter().flatten().min();
        }
        due.map(Next::At)
    }

    fn container_failed(&mut self, name: &str, error: StepError) -> Timestamp {
        let now = self.now();
        let step = if error.runtime_down { PodStep::WaitingForRuntime } else { PodStep::Retrying };
        let message = error.message.clone();
        self.tell_container_failure(name, &error);
        let failed = self.failures.container_failed(name, error, now);
        let (at, count) = (failed.not_before, failed.error.count);
        if count == 1 {
            tracing::warn!(pod = %self.full_name, uid = %self.uid, container = name, "{message}");
        }
        self.at(step, message);
        at
    }

    /// Removes containers and sandboxes that later ones have replaced, with their files. What cannot be
    /// removed is tried again with the next look at the pod.
    pub(super) async fn collect_garbage(&mut self, seen: &PodObservation) {
        let found = removable(seen, &self.env.node.container_gc, self.now(), || self.env.pleg.all());
        if found.is_empty() {
            return;
        }
        for container in seen.containers.iter().filter(|c| found.containers.contains(&c.id)) {
            if let Err(why) = self.remove_dead(container).await {
                let id = &container.id;
                tracing::warn!(pod = %self.full_name, %id, "cannot remove a dead container: {why}");
                return;
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

    /// Removes a container that does not run: its log and its last words before the runtime's record, by
    /// which alone they are found. One that the runtime lost track of may be alive all the same.
    async fn remove_dead(&self, container: &ObservedContainer) -> Result<(), String> {
        let told = |error: CriError| chain(&error);
        if container.state == ContainerState::Unknown {
            self.env.cri.stop_container(container.id.as_str(), UNKNOWN_SECONDS).await.map_err(told)?;
        }
        let (env, name, dead) = (Arc::clone(&self.env), self.full_name.clone(), container.clone());
        let removed = tokio::task::spawn_blocking(move || {
            let log = logs::remove(&name, &dead, &env.paths).map_err(|error| format!("its log: {error}"));
            let words = termination::remove(&dead, &env.paths)
                .map_err(|error| format!("its termination message: {error}"));
            let failed: Vec<String> = [log, words].into_iter().filter_map(Result::err).collect();
            if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
        });
        removed.await.unwrap_or_else(|error| Err(error.to_string()))?;
        self.env.cri.remove_container(container.id.as_str()).await.map_err(told)
    }
}

/// What a kind of container is counted as.
fn kind(kind: ContainerKind) -> &'static str {
    match kind {
        ContainerKind::Regular => "container",
        ContainerKind::Init | ContainerKind::Sidecar => "init_container",
        ContainerKind::Ephemeral => "ephemeral_container",
    }
}
