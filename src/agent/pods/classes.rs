//! A pod's runtime class: which handler of the runtime makes its sandbox, and what overhead it has.
//!
//! A pod of the API server has its class there, and its overhead from the server's admission. A static pod's class is
//! the one in the folder of classes; only one that is not there is looked for at the server.

use std::sync::Arc;

use k8s_openapi::api::{core::v1::Pod, node::v1::RuntimeClass};

use super::{
    failures::StepError,
    host_work::unless_stopped,
    worker::{Next, PodWorker},
};
use crate::{
    agent::{cluster::supplies::ServersClass, runtime_classes::RuntimeClassError},
    api::PodExt as _,
    policy::runtime_class::{class_name, with_overhead},
};

impl PodWorker {
    /// Gives a static pod the overhead of its class, once, before the node takes it. One that runs already,
    /// made by another agent, goes on without.
    pub(super) async fn classify(&mut self, pod: Arc<Pod>) -> Result<Arc<Pod>, Next> {
        let Some(name) = class_name(&pod).filter(|_| !self.classed && pod.is_static()) else {
            return Ok(pod);
        };
        if let Some(at) = self.failures.pod_blocked(self.now()) {
            return Err(self.no_later_than_deadline(&pod, Next::At(at)));
        }
        let runs = self.observation().has_live_parts();
        let class = match self.runtime_class(&pod, name).await {
            Ok(class) => class,
            Err(_) if runs => return Ok(pod),
            Err(error) => {
                let next = self.pod_failed(error);
                return Err(self.no_later_than_deadline(&pod, next));
            }
        };
        match with_overhead(&pod, &class) {
            Ok(pod) => {
                self.classed = true;
                self.keep(&pod);
                Ok(pod)
            }
            Err(_) if runs => Ok(pod),
            Err(refused) => Err(self.rejected(refused)),
        }
    }

    /// The handler to make the pod's sandbox with; the empty one is the runtime's default.
    pub(super) async fn handler(&self, pod: &Pod) -> Result<String, StepError> {
        match class_name(pod) {
            Some(name) => Ok(self.runtime_class(pod, name).await?.handler.clone()),
            None => Ok(String::new()),
        }
    }

    async fn runtime_class(&self, pod: &Pod, name: &str) -> Result<Arc<RuntimeClass>, StepError> {
        let failed = |message: String| StepError::new("RuntimeClassNotFound", message);
        let missing = || format!("runtimeclass.node.k8s.io {name:?} not found");
        if let Some(supplies) = self.env.supplies.as_ref().filter(|_| !pod.is_static()) {
            let asked = supplies.runtime_class(pod, name);
            return match unless_stopped(&self.mailbox, &self.stop, asked).await? {
                ServersClass::Found(class) => Ok(class),
                ServersClass::Missing => Err(failed(missing())),
                ServersClass::Unknown(why) => {
                    Err(failed(format!("runtimeclass.node.k8s.io {name:?}: {why}")))
                }
            };
        }
        let (env, wanted) = (Arc::clone(&self.env), name.to_owned());
        let found = tokio::task::spawn_blocking(move || env.runtime_classes.get(&wanted));
        let error = match found.await.map_err(|error| failed(error.to_string()))? {
            Ok(class) => return Ok(class),
            Err(error) => error,
        };
        let local = StepError { hints: hints(&error), ..failed(error.to_string()) };
        let not_here =
            matches!(error, RuntimeClassError::NotConfigured { .. } | RuntimeClassError::Unknown { .. });
        let Some(supplies) = self.env.supplies.as_ref().filter(|_| not_here) else { return Err(local) };
        let asked = supplies.runtime_class(pod, name);
        let at_server = match unless_stopped(&self.mailbox, &self.stop, asked).await? {
            ServersClass::Found(class) => return Ok(class),
            ServersClass::Missing => missing(),
            ServersClass::Unknown(why) => why,
        };
        Err(StepError { message: format!("{}; at the API server: {at_server}", local.message), ..local })
    }
}

fn hints(error: &RuntimeClassError) -> Vec<String> {
    match error {
        RuntimeClassError::NotConfigured { .. } => {
            vec![
                "start the agent with --runtime-class-path and a folder of RuntimeClass manifests".to_owned(),
            ]
        }
        RuntimeClassError::Unknown { folder, .. } => {
            vec![format!("put a RuntimeClass manifest of that name into {}", folder.display())]
        }
        RuntimeClassError::Folder { .. } | RuntimeClassError::Ambiguous { .. } => Vec::new(),
    }
}
