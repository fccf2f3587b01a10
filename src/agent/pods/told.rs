//! What of a pod becomes an Event.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{failures::StepError, worker::PodWorker};
use crate::{
    api::{ContainerId, ContainerState, PodObservation},
    policy::{
        events::{Words, back_off, container_failure, killing, pod_failure},
        pod_actions::{PodActions, StopCause},
    },
};

impl PodWorker {
    /// Something happened to the pod.
    pub(super) fn tell(&self, words: Words) {
        match &self.pod {
            Some(pod) => self.env.events.pod(pod, words),
            None => self.env.events.pod(&self.nameplate(), words),
        }
    }

    /// Something happened to one of its containers.
    pub(super) fn tell_of(&self, container: &str, words: Words) {
        match &self.pod {
            Some(pod) => self.env.events.container(pod, container, words),
            None => self.env.events.container(&self.nameplate(), container, words),
        }
    }

    /// A step of the pod failed. That the runtime does not answer is the node's event.
    pub(super) fn tell_pod_failure(&self, error: &StepError) {
        if let Some(words) = pod_failure(error.reason, &error.message).filter(|_| !error.runtime_down) {
            self.tell(words);
        }
    }

    /// A container could not be started.
    pub(super) fn tell_container_failure(&self, container: &str, error: &StepError) {
        if !error.runtime_down {
            self.tell_of(container, container_failure(error.reason, &error.message, container));
        }
    }

    /// A container that runs is about to be stopped. It is told once, however often the stop is tried.
    pub(super) fn tell_killing(&self, seen: &PodObservation, id: &ContainerId, cause: StopCause) {
        let running = seen.containers.iter().find(|c| c.id == *id && c.state == ContainerState::Running);
        if let Some(container) = running.filter(|_| !self.stops.has_begun(id)) {
            self.tell_of(&container.name, killing(&container.name, cause));
        }
    }

    /// Containers that wait out a crash-loop delay, each once for a crash. Forgets those that do not.
    pub(super) fn tell_back_offs(&mut self, actions: &PodActions, pod: &Pod) {
        let told = std::mem::take(&mut self.told.back_offs);
        for waiting in &actions.waiting {
            if told.get(&waiting.name) != Some(&waiting.until) {
                let words = back_off(&waiting.name, &self.full_name, &self.uid);
                self.env.events.container(pod, &waiting.name, words);
            }
            self.told.back_offs.insert(waiting.name.clone(), waiting.until);
        }
    }

    /// A sandbox replaces another.
    pub(super) fn tell_sandbox_changed(&mut self, attempt: u32) {
        if self.told.sandbox.replace(attempt) != Some(attempt) {
            let message = "Pod sandbox changed, it will be killed and re-created.";
            self.tell(Words::normal("SandboxChanged", message));
        }
    }
}

/// What was told and is not to be told again.
#[derive(Default)]
pub(super) struct Told {
    /// Until when containers wait.
    back_offs: std::collections::BTreeMap<String, Timestamp>,
    /// The attempt number of the sandbox that replaces another.
    sandbox: Option<u32>,
}
