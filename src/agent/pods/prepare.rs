//! What a pod needs before its sandbox and its containers are made: folders, volumes, log folders.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::{failures::StepError, worker::PodWorker};
use crate::{
    agent::{
        logs,
        volumes::{self, make_agent_dir},
    },
    api::{PodExt as _, view::PodStep},
    policy::security::has_user_namespace,
};

impl PodWorker {
    /// Makes the pod's folders and volumes, once for a specification.
    pub(super) async fn prepare(&mut self, pod: &Arc<Pod>) -> Result<(), StepError> {
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
            let user_namespace = has_user_namespace(&pod)
                .then(|| env.user_namespaces.of_pod(&env.paths, &folder))
                .transpose()
                .map_err(|why| StepError::new("FailedCreatePodSandBox", why))?;
            let names = pod.all_containers();
            logs::set_up(&pod, names.iter().map(|(_, c)| c.name.as_str()), &env.paths).map_err(|error| {
                let folder = env.paths.pod_log(&pod);
                StepError::new(
                    "FailedCreateLogDirectory",
                    format!("cannot make log folder {}: {error}", folder.display()),
                )
            })?;
            Ok(user_namespace)
        })
        .await;
        self.user_namespace =
            made.unwrap_or_else(|error| Err(StepError::new("FailedMount", error.to_string())))?;
        self.prepared = true;
        Ok(())
    }
}
