//! What a pod needs before its sandbox and its containers are made: folders, volumes, log folders, its
//! cgroup.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::{failures::StepError, worker::PodWorker};
use crate::{
    agent::{
        logs,
        volumes::{self, make_agent_dir},
    },
    api::{PodExt as _, view::PodStep},
    error::chain,
};

impl PodWorker {
    /// Makes the pod's folders, volumes and cgroup, once for a specification.
    pub(super) async fn prepare(&mut self, pod: &Arc<Pod>) -> Result<(), StepError> {
        if self.prepared {
            return Ok(());
        }
        self.at(PodStep::PreparingVolumes, "make folders and volumes");
        let (folders, cgroup) = tokio::join!(self.make_folders(pod), self.set_up_cgroup(pod));
        folders?;
        cgroup?;
        self.prepared = true;
        Ok(())
    }

    /// Has the pod's cgroup as its specification says.
    async fn set_up_cgroup(&self, pod: &Pod) -> Result<(), StepError> {
        let done = self.env.cgroups.set_up(pod, &self.env.admitted).await;
        done.map_err(|error| StepError::new("FailedCreatePodContainer", chain(&error)))
    }

    /// Has the cgroup of a pod that runs already as its specification says: one that an earlier agent made,
    /// or of a specification that changed nothing else. Once for a specification, unless it fails.
    pub(super) async fn adopt_cgroup(&mut self, pod: &Pod) {
        if self.prepared || self.cgroup_adopted {
            return;
        }
        match self.set_up_cgroup(pod).await {
            Ok(()) => self.cgroup_adopted = true,
            Err(error) => {
                tracing::warn!(pod = %self.full_name, "cannot bring the pod's cgroup up to date: {}", error.message);
            }
        }
    }

    async fn make_folders(&self, pod: &Arc<Pod>) -> Result<(), StepError> {
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
        made.unwrap_or_else(|error| Err(StepError::new("FailedMount", error.to_string())))
    }
}
