//! A running pod's change of its resources: what the node gives, and the way there for its containers and cgroups.
//!
//! The pod that the worker runs has what is allocated in its specification. What the source wants beside it is judged
//! at every look, and again when other pods give something back. Before something else is allocated, what the
//! containers have is noted, and both are on the disk before anything is done: an agent that is killed finds the same
//! difference again, and does what is left of it once more, which changes nothing that is done already.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{
    failures::RETRY,
    worker::{Next, PodWorker},
};
use crate::{
    api::{PodExt as _, PodObservation},
    error::chain,
    policy::{
        backoff::RetryBackoff,
        events::Words,
        resize::{
            Actuated, Pending, ResizePlan, ResizeStatus, actuated_now, container_of, differs,
            forget_replaced, lower_memory_limit, plan, with_actuated, words,
        },
        resources::update_resources,
    },
};

/// Where a pod's resize is.
#[derive(Debug, Default)]
pub(super) struct Resizing {
    /// For the pod's status.
    pub(super) status: ResizeStatus,
    /// Whether the pod's cgroup has room for what was allocated.
    widened: bool,
    /// When what failed is tried again.
    not_before: Option<Timestamp>,
    backoff: Option<RetryBackoff>,
}

impl PodWorker {
    /// Allocates what is wanted, if the node has it. Answers the pod as it is to be run.
    pub(super) async fn allocate(&mut self, pod: Arc<Pod>) -> Arc<Pod> {
        let Some(wanted) = self.wanted.clone().filter(|wanted| differs(&pod, wanted)) else {
            self.wanted = None;
            if self.resizing.status.pending.take().is_some() {
                self.env.admitted.forget_resize(&self.uid);
            }
            return pod;
        };
        let generation = wanted.metadata.generation;
        if let Err(pending) = self.env.admitted.resize(&self.uid, &pod, &wanted, &self.env.node) {
            self.told_pending(&wanted, pending, generation);
            return pod;
        }
        let seen = self.observation();
        self.resizing = Resizing::default();
        self.resizing.status.actuated = actuated_now(&pod, &seen, &self.actuated);
        self.resizing.status.in_progress = Some((generation, None));
        self.actuated.clone_from(&self.resizing.status.actuated);
        self.wanted = None;
        // What failed for want of resources is worth another try.
        self.failures.clear();
        self.keep(&wanted);
        self.saved().await;
        tracing::info!(pod = %self.full_name, uid = %self.uid, ?generation, "the pod's resources change in place");
        self.tell(Words::normal("ResizeStarted", words("started", &wanted, generation, None)));
        // A runtime may take its time.
        self.publish(&Next::Told);
        wanted
    }

    fn told_pending(&mut self, wanted: &Pod, pending: Pending, generation: Option<i64>) {
        let reason = pending.reason();
        let message = pending.message.clone();
        let new = Some((pending, generation));
        if self.resizing.status.pending != new {
            tracing::info!(pod = %self.full_name, uid = %self.uid, reason, "the pod keeps its resources: {message}");
            let words = words(reason, wanted, generation, Some(&message));
            self.tell(Words::warning(format!("Resize{reason}"), words));
            self.resizing.status.pending = new;
        }
    }

    /// What the containers that run are to be given, and whether it may be done now. Does what is done while they run.
    /// Answers what is left: containers to start anew.
    pub(super) async fn actuate(&mut self, pod: &Arc<Pod>, seen: &PodObservation) -> ResizePlan {
        if pod.is_static() {
            return ResizePlan::default();
        }
        forget_replaced(&mut self.actuated, seen);
        let wanted = plan(pod, seen, &self.actuated);
        // Also for containers that do not run: the next that starts has what is allocated now.
        let narrow = self.resizing.status.in_progress.is_some() && !self.resizing.widened;
        if (wanted.is_empty() && !narrow) || self.resizing.not_before.is_some_and(|at| at > self.now()) {
            return ResizePlan::default();
        }
        if self.env.health.current().runtime_error.is_some() {
            return ResizePlan::default();
        }
        if self.resizing.status.in_progress.is_none() {
            // An earlier agent has begun it.
            self.resizing.status.in_progress = Some((pod.metadata.generation, None));
            self.resizing.status.actuated.clone_from(&self.actuated);
        }
        match self.change_running(pod, &wanted).await {
            Ok(()) => {
                (self.resizing.not_before, self.resizing.backoff) = (None, None);
                if let Some((_, error)) = &mut self.resizing.status.in_progress {
                    *error = None;
                }
                ResizePlan { update: Vec::new(), ..wanted }
            }
            Err(why) => {
                self.resize_failed(pod, why);
                ResizePlan::default()
            }
        }
    }

    /// The pod with what its containers have, where that is not what is allocated yet.
    pub(super) fn had(&self, pod: &Pod) -> Pod {
        match self.resizing.status.in_progress {
            Some(_) => with_actuated(pod, &self.actuated),
            None => pod.clone(),
        }
    }

    /// Refuses to hold the pod to less memory than it uses: its containers may, and what dead ones left counts too.
    async fn check_pod_memory(&self, pod: &Pod) -> Result<(), String> {
        match self.env.cgroups.over_memory(pod).await {
            None => Ok(()),
            Some((limit, used)) => Err(format!(
                "cannot decrease memory limits: attempting to set pod memory limit ({limit}) below current usage \
                 ({used})"
            )),
        }
    }

    async fn change_running(&mut self, pod: &Arc<Pod>, plan: &ResizePlan) -> Result<(), String> {
        for (name, id) in &plan.update {
            let limit = container_of(pod, name).and_then(|c| lower_memory_limit(c, &self.actuated));
            let Some(limit) = limit else { continue };
            let stats = self.env.cri.container_stats(id.as_str()).await;
            let stats = stats.map_err(|error| {
                format!("cannot ask for the memory of container {name:?}: {}", chain(&error))
            })?;
            let memory = stats.and_then(|stats| stats.memory);
            let used = memory.and_then(|memory| memory.usage_bytes.or(memory.working_set_bytes));
            let used = used.map_or(0, |used| used.value);
            if used >= limit {
                return Err(format!(
                    "cannot decrease memory limits: attempting to set container {name:?} memory limit ({limit}) \
                     below current usage ({used})"
                ));
            }
        }
        // A container that is started anew gives back what it uses.
        if plan.restart.is_empty() {
            self.check_pod_memory(pod).await?;
        }
        let before = self.had(pod);
        let widened = self.env.cgroups.set_up_between(pod, &before, &self.env.admitted).await;
        widened.map_err(|error| format!("cannot set the pod's cgroup: {}", chain(&error)))?;
        self.resizing.widened = true;
        for (name, id) in &plan.update {
            let Some(container) = container_of(pod, name) else { continue };
            let resources = update_resources(pod, container, &self.env.node.resources);
            let told =
                self.env.cri.update_container_resources(id.as_str(), resources, Default::default()).await;
            told.map_err(|error| {
                if error.is_unavailable() {
                    self.env.health.doubt();
                }
                format!("cannot change the resources of container {name:?}: {}", chain(&error))
            })?;
            tracing::info!(pod = %self.full_name, container = name, %id, "changed the container's resources");
            let resources = container.resources.clone().unwrap_or_default();
            self.actuated.insert(name.clone(), Actuated { id: id.clone(), resources });
            self.resizing.status.actuated.clone_from(&self.actuated);
            self.save();
        }
        Ok(())
    }

    fn resize_failed(&mut self, pod: &Pod, why: String) {
        let Some((generation, error)) = &self.resizing.status.in_progress else { return };
        let generation = *generation;
        if error.as_ref() != Some(&why) {
            tracing::warn!(pod = %self.full_name, uid = %self.uid, "the resize of the pod does not come on: {why}");
            self.tell(Words::warning("ResizeError", words("error", pod, generation, Some(&why))));
        }
        self.resizing.status.in_progress = Some((generation, Some(why)));
        let mut backoff = self.resizing.backoff.take().unwrap_or(RETRY);
        let wait = jiff::SignedDuration::try_from(backoff.fail()).unwrap_or(jiff::SignedDuration::MAX);
        self.resizing.not_before = self.now().checked_add(wait).ok();
        self.resizing.backoff = Some(backoff);
    }

    /// Nothing is left to do for the containers: the pod's cgroup is brought to what they have, and the resize is over.
    pub(super) async fn end_resize(&mut self, pod: &Arc<Pod>, seen: &PodObservation) {
        let Some((generation, _)) = self.resizing.status.in_progress else { return };
        if !plan(pod, seen, &self.actuated).is_empty()
            || self.resizing.not_before.is_some_and(|at| at > self.now())
        {
            return;
        }
        if let Err(why) = self.check_pod_memory(pod).await {
            return self.resize_failed(pod, why);
        }
        if let Err(error) = self.env.cgroups.set_up(pod, &self.env.admitted).await {
            return self.resize_failed(pod, format!("cannot set the pod's cgroup: {}", chain(&error)));
        }
        let pending = self.resizing.status.pending.take();
        let actuated = actuated_now(pod, seen, &self.actuated);
        self.resizing = Resizing::default();
        self.resizing.status.pending = pending;
        self.resizing.status.actuated.clone_from(&actuated);
        self.actuated = actuated;
        self.save();
        tracing::info!(pod = %self.full_name, uid = %self.uid, "the pod's resources have changed");
        self.tell(Words::normal("ResizeCompleted", words("completed", pod, generation, None)));
    }

    /// When what failed of a resize is tried again. A runtime that comes back wakes every pod.
    pub(super) fn resize_due(&self) -> Option<Timestamp> {
        let down = self.env.health.current().runtime_error.is_some();
        self.resizing.not_before.filter(|_| !down && self.resizing.status.in_progress.is_some())
    }
}
