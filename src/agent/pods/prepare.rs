//! What a pod needs before its sandbox and its containers are made: folders, volumes, log folders, its
//! cgroup.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Pod;

use super::{failures::StepError, host_work::unless_stopped, worker::PodWorker};
use crate::{
    agent::{
        logs,
        volumes::{self, VolumeContext, make_agent_dir},
    },
    api::{PodExt as _, manifest::unsupported, view::PodStep},
    error::chain,
    policy::{
        given::{Given, ObjectKey},
        security::has_user_namespace,
        userns::PodIds,
    },
};

/// How many paths are named.
const SHOWN: usize = 3;

impl PodWorker {
    /// Makes the pod's folders, volumes and cgroup, once for a specification.
    pub(super) async fn prepare(&mut self, pod: &Arc<Pod>) -> Result<(), StepError> {
        if self.prepared {
            return Ok(());
        }
        if !pod.is_static()
            && let Some(first) = unsupported::check_api_support(pod).first()
        {
            return Err(StepError::new("FailedMount", first.to_string()));
        }
        self.check_host_paths(pod).await?;
        self.at(PodStep::PreparingVolumes, "make folders and volumes");
        let given = match self.env.supplies.as_ref().filter(|_| !pod.is_static()) {
            Some(supplies) => {
                let given = supplies.of_volumes(pod, &self.mailbox);
                unless_stopped(&self.mailbox, &self.stop, given).await?
            }
            None => Given::default(),
        };
        let (folders, cgroup) = tokio::join!(self.make_folders(pod, given), self.set_up_cgroup(pod));
        self.user_namespace = folders?;
        cgroup?;
        self.prepared = true;
        Ok(())
    }

    /// Checks and makes what of the host is the pod's volumes.
    async fn check_host_paths(&mut self, pod: &Arc<Pod>) -> Result<(), StepError> {
        let paths = volumes::host_paths(pod);
        if paths.is_empty() {
            return Ok(());
        }
        let pod = Arc::clone(pod);
        let checked =
            self.on_host(PodStep::PreparingVolumes, &paths, move || volumes::check_host_paths(&pod)).await?;
        checked.map_err(|error| StepError::new("FailedMount", error.to_string()))
    }

    /// Does work on paths of the host, which may not answer: that is shown.
    pub(super) async fn on_host<T: Send + 'static>(
        &mut self,
        step: PodStep,
        paths: &[&str],
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StepError> {
        let more = paths.len().saturating_sub(SHOWN);
        let shown = paths[..paths.len() - more].join(", ");
        let shown = if more > 0 { format!("{shown} and {more} more") } else { shown };
        let (env, mailbox, stop) = (Arc::clone(&self.env), Arc::clone(&self.mailbox), self.stop.clone());
        let told = |room: bool| {
            self.show(
                step,
                if room {
                    format!("look at {shown} on the host")
                } else {
                    format!("wait to look at {shown} on the host: too many other hostPaths do not answer")
                },
            );
        };
        env.host_work.run(&mailbox, &stop, told, work).await
    }

    /// Has the pod's cgroup as its specification says.
    async fn set_up_cgroup(&self, pod: &Pod) -> Result<(), StepError> {
        let before = self.had(pod);
        let done = self.env.cgroups.set_up_between(pod, &before, &self.env.admitted).await;
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

    /// Makes the pod's folders and volumes. Answers its range of users, if it has one.
    async fn make_folders(&self, pod: &Arc<Pod>, given: Given) -> Result<Option<PodIds>, StepError> {
        let (env, pod) = (Arc::clone(&self.env), Arc::clone(pod));
        let made = tokio::task::spawn_blocking(move || {
            let folder = env.paths.pod(&pod.uid()).ok_or_else(|| {
                StepError::new("InvalidPod", format!("the uid {:?} cannot be a folder's name", pod.uid()))
            })?;
            make_agent_dir(&folder).map_err(|error| {
                StepError::new("FailedMount", format!("cannot make folder {}: {error}", folder.display()))
            })?;
            volumes::set_up(&VolumeContext {
                pod: &pod,
                paths: &env.paths,
                mountinfo: &env.mountinfo,
                node: &env.node,
                given: &given,
            })
            .map_err(|error| StepError::new("FailedMount", error.to_string()))?;
            let user_namespace = has_user_namespace(&pod)
                .then(|| env.user_namespaces.of_pod(&env.paths, &folder))
                .transpose()
                .map_err(|why| StepError::new("FailedCreatePodSandBox", why))?;
            let names = pod.all_containers();
            let names = names.iter().map(|(_, c)| c.name.as_str());
            let ephemeral = pod.spec().ephemeral_containers.iter().flatten().map(|c| c.name.as_str());
            logs::set_up(&pod, names.chain(ephemeral), &env.paths).map_err(|error| {
                let folder = env.paths.pod_log(&pod);
                StepError::new(
                    "FailedCreateLogDirectory",
                    format!("cannot make log folder {}: {error}", folder.display()),
                )
            })?;
            Ok(user_namespace)
        })
        .await;
        made.unwrap_or_else(|error| Err(StepError::new("FailedMount", error.to_string())))
    }

    /// What is known of these objects, waited for shortly; nothing where there is no API server.
    pub(super) async fn take_supplies(&self, objects: &BTreeSet<ObjectKey>) -> Result<Given, StepError> {
        match &self.env.supplies {
            Some(supplies) => unless_stopped(&self.mailbox, &self.stop, supplies.objects(objects)).await,
            None => Ok(Given::default()),
        }
    }

    /// The variables that tell the pod of services. A pod of the API server waits shortly for the first list.
    pub(super) async fn service_variables(&self, pod: &Pod) -> Result<BTreeMap<String, String>, StepError> {
        let Some(supplies) = &self.env.supplies else { return Ok(BTreeMap::new()) };
        let known = unless_stopped(&self.mailbox, &self.stop, supplies.service_variables(pod)).await?;
        known.map_err(|why| {
            let what = "services have not yet been read at least once, cannot construct envvars";
            StepError::new("CreateContainerConfigError", format!("{what}: {why}"))
        })
    }

    /// Has the running pod's volumes say what the pod and its objects are now: both may change while it runs. Where
    /// an object is gone or cannot be asked for, the volume stays as it is, and that is told once: the pod runs on.
    pub(super) async fn refresh_volumes(&mut self, pod: &Arc<Pod>) {
        if !volumes::files::has_any(pod) {
            return;
        }
        let given = match self.env.supplies.as_ref().filter(|_| !pod.is_static()) {
            Some(supplies) => supplies.of_volumes_now(pod, &self.mailbox),
            None => Some(Given::default()),
        };
        // The first word is yet to come, and wakes the pod.
        let Some(given) = given else { return };
        let (env, pod) = (Arc::clone(&self.env), Arc::clone(pod));
        let written = tokio::task::spawn_blocking(move || {
            volumes::files::refresh(&VolumeContext {
                pod: &pod,
                paths: &env.paths,
                mountinfo: &env.mountinfo,
                node: &env.node,
                given: &given,
            })
        });
        let written = written.await.map_err(|error| error.to_string());
        let stale = written.and_then(|written| written.map_err(|error| error.to_string())).err();
        if let Some(why) = stale.as_ref().filter(|why| self.stale.as_ref() != Some(*why)) {
            tracing::warn!(pod = %self.full_name, "a volume of the running pod stays as it is: {why}");
        }
        self.stale = stale;
    }

    /// Unmounts the volumes of a pod that has come to its end, so that those in memory take none any more;
    /// kubelet too keeps no volume of such a pod. Tried again at the next look if it fails.
    pub(super) async fn release_volumes(&mut self) {
        if self.released {
            return;
        }
        let (env, uid) = (Arc::clone(&self.env), self.uid.clone());
        let unmounted = tokio::task::spawn_blocking(move || {
            let folder = env.paths.pod(&uid);
            folder.map_or(Ok(()), |folder| volumes::unmount_all(&folder, &env.mountinfo))
        });
        match unmounted.await {
            Ok(Ok(())) => self.released = true,
            Ok(Err((path, error))) => {
                tracing::warn!(pod = %self.full_name, "cannot unmount {}: {error}", path.display());
            }
            Err(error) => tracing::warn!(pod = %self.full_name, "cannot unmount volumes: {error}"),
        }
    }
}
