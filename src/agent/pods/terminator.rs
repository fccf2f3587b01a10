//! The end of a pod: containers stopped in their order within the grace period, the sandbox after them, and
//! when nothing of it is to be left, its records, folders, logs and cgroup.

use std::{io, sync::Arc};

use tokio::sync::watch;

use super::{
    env::PodEnv,
    failures::StepError,
    pace::Pace,
    worker::{Next, PodWorker},
};
use crate::{
    agent::{logs, volumes},
    api::{ContainerId, PodFullName, PodObservation, PodUid, SandboxState, view::PodStep},
    error::chain,
    host::{mounts, remove::remove_tree},
    policy::{
        grace::stop_order,
        lifecycle::{LifecycleInput, PodLifecycle},
        pod_actions::StopCause,
    },
};

impl PodWorker {
    /// Stops what runs. Ends in the next state, or with when to try again.
    pub(super) async fn terminate(&mut self) -> Next {
        self.show(PodStep::Terminating, "stop the containers");
        self.env.pleg.mute(&self.uid);
        match self.stop_everything().await {
            Ok(true) => {
                self.step(LifecycleInput::Stopped);
                Next::Now
            }
            Ok(false) => Next::Now,
            Err(error) => {
                let next = self.pod_failed(error);
                self.at(PodStep::Terminating, "stop the containers");
                next
            }
        }
    }

    /// Answers whether nothing runs any more; false if it was interrupted.
    async fn stop_everything(&mut self) -> Result<bool, StepError> {
        let seen = self.inspect().await?;
        // Of the probes only readiness is still asked for.
        self.watch_probes();
        if !self.stop_groups(&seen, &stop_order(self.pod.as_deref(), &seen)).await? {
            return Ok(false);
        }
        for (place, sandbox) in seen.sandboxes.iter().enumerate() {
            if place == 0 || sandbox.state == SandboxState::Ready {
                self.env.cri.stop_pod_sandbox(sandbox.id.as_str()).await.map_err(|error| {
                    let what = format!("stop sandbox {}", sandbox.id);
                    self.runtime_error("FailedKillPod", &what, &error)
                })?;
            }
        }
        let seen = self.inspect().await?;
        if seen.has_live_parts() {
            return Err(StepError::new(
                "FailedKillPod",
                "a container or sandbox still runs after it was stopped",
            ));
        }
        Ok(true)
    }

    fn past_stop_deadline(&self) -> bool {
        matches!(self.lifecycle, PodLifecycle::Terminating { deadline, .. } if deadline <= self.now())
    }

    /// Stops containers, a group after the other. When the deadline moves nearer they are told again with the
    /// time left. Once the pod's time is over none waits for another any more, as with kubelet: the least that
    /// each still has would add up.
    async fn stop_groups(
        &mut self,
        seen: &PodObservation,
        groups: &[Vec<ContainerId>],
    ) -> Result<bool, StepError> {
        let PodLifecycle::Terminating { deadline, .. } = self.lifecycle else { return Ok(false) };
        let (nearer, deadline) = watch::channel(deadline);
        let (turns, turn) = watch::channel(0);
        let (mut calls, pace) = (tokio::task::JoinSet::new(), Pace::default());
        for (place, group) in groups.iter().enumerate() {
            for id in group {
                self.tell_killing(seen, id, StopCause::Pod);
                let mut stop = self.stop_of(seen, id, deadline.clone(), &pace);
                stop.turn = (turn.clone(), place);
                calls.spawn(stop.run());
            }
        }
        let mailbox = Arc::clone(&self.mailbox);
        // How many groups have had their turn, and how many containers of these have not ended.
        let (mut told, mut left) = (0, 0);
        let mut failed = None;
        loop {
            while left == 0 {
                if let Some(error) = failed {
                    return Err(error);
                }
                let next = if self.past_stop_deadline() { groups.len() } else { told + 1 };
                let Some(turn) = groups.get(told..next).filter(|turn| !turn.is_empty()) else {
                    return Ok(true);
                };
                left = turn.iter().map(Vec::len).sum();
                told = next;
                turns.send_replace(told - 1);
            }
            tokio::select! {
                joined = calls.join_next() => match joined {
                    Some(Ok((id, stopped))) => {
                        // None ends before its turn.
                        left -= 1;
                        if let Err(error) = stopped {
                            let what = format!("stop container {id}");
                            failed = Some(self.runtime_error("FailedKillContainer", &what, &error));
                        }
                        if left > 0 || told < groups.len() {
                            // For what is shown alone: the other stops go on without it.
                            if let Err(error) = self.inspect().await {
                                tracing::debug!(pod = %self.full_name, "{}", error.message);
                            }
                            self.show(PodStep::Terminating, "stop the containers");
                        }
                    }
                    Some(Err(error)) => {
                        return Err(StepError::new("FailedKillContainer", error.to_string()));
                    }
                    None => return Ok(true),
                },
                () = mailbox.probe_told() => {
                    self.read_probes().await;
                    self.show(PodStep::Terminating, "stop the containers");
                }
                () = mailbox.stop_told() => {
                    if let Some((reason, grace)) = mailbox.take().stop
                        && self.step(LifecycleInput::Stop { reason, grace })
                        && let PodLifecycle::Terminating { deadline, .. } = self.lifecycle
                    {
                        nearer.send_replace(deadline);
                    }
                }
                // The containers go on to their end without us; the next agent finds the deadline on disk.
                () = self.stop.cancelled() => return Ok(false),
            }
        }
    }

    /// Lets go of all that a deleted pod has beside what has ended, and waits for the API server, which is told of
    /// it and forgets the pod. Its source stops naming it then, and the rest goes too.
    pub(super) async fn wait_to_be_forgotten(&mut self) -> Next {
        self.env.admitted.release(&self.uid);
        self.show(PodStep::CleaningUp, "unmount the volumes and remove the cgroup");
        self.release_volumes().await;
        let cgroup = self.remove_cgroup().await;
        self.cgroup_removed = cgroup.is_ok();
        let problem = match cgroup {
            Err(error) => error,
            // It is told by who tried.
            Ok(()) if !self.released => {
                StepError::new("FailedUnmount", "the pod's volumes cannot be unmounted")
            }
            Ok(()) => {
                self.at(PodStep::CleaningUp, "wait until the API server has forgotten the pod");
                return Next::Told;
            }
        };
        let next = self.pod_failed(problem);
        self.at(PodStep::CleaningUp, "unmount the volumes and remove the cgroup");
        next
    }

    /// Removes all that is left of a pod. Ends in the last state, or with when to try again.
    pub(super) async fn clean_up(&mut self) -> Next {
        self.at(PodStep::CleaningUp, "remove sandbox, containers, volumes and folders");
        match self.remove_everything().await {
            Ok(()) => {
                self.step(LifecycleInput::Cleaned);
                Next::Now
            }
            Err(error) => {
                let next = self.pod_failed(error);
                self.at(PodStep::CleaningUp, "remove sandbox, containers, volumes and folders");
                next
            }
        }
    }

    async fn remove_everything(&mut self) -> Result<(), StepError> {
        // An agent that has just started may not have asked the runtime yet: nothing seen is not nothing there.
        let asked = *self.env.pleg.primed().borrow();
        let seen = if asked { self.observation() } else { self.inspect().await? };
        for sandbox in &seen.sandboxes {
            // With a sandbox go its containers.
            self.env.cri.remove_pod_sandbox(sandbox.id.as_str()).await.map_err(|error| {
                let what = format!("remove sandbox {}", sandbox.id);
                self.runtime_error("FailedRemovePod", &what, &error)
            })?;
        }
        let left = if seen.is_gone() { Arc::clone(&seen) } else { self.inspect().await? };
        for container in &left.containers {
            self.env.cri.remove_container(container.id.as_str()).await.map_err(|error| {
                let what = format!("remove container {}", container.id);
                self.runtime_error("FailedRemovePod", &what, &error)
            })?;
        }
        if !left.is_gone() && !self.inspect().await?.is_gone() {
            return Err(StepError::new("FailedRemovePod", "the runtime still holds something of the pod"));
        }
        self.remove_cgroup().await?;
        self.saved().await;
        let (env, uid, name) = (Arc::clone(&self.env), self.uid.clone(), self.full_name.clone());
        let removed = tokio::task::spawn_blocking(move || remove_files(&env, &uid, &name, &seen)).await;
        match removed {
            Ok(result) => result,
            Err(error) => Err(StepError::new("FailedRemovePod", error.to_string())),
        }
    }

    async fn remove_cgroup(&self) -> Result<(), StepError> {
        let removed = self.env.cgroups.remove(&self.uid).await;
        removed.map_err(|error| StepError::new("FailedRemovePod", chain(&error)))
    }
}

/// Removes a pod's folders, logs and checkpoint. Nothing is removed through a mount: what is mounted below
/// the pod's folder when its volumes are unmounted is not the pod's.
fn remove_files(
    env: &PodEnv,
    uid: &PodUid,
    name: &PodFullName,
    seen: &PodObservation,
) -> Result<(), StepError> {
    let failed = |what: &std::path::Path, error: &io::Error| {
        StepError::new("FailedRemovePod", format!("cannot remove {}: {error}", what.display()))
    };
    for container in &seen.containers {
        let link = env.paths.container_log_link(name, &container.name, container.id.as_str());
        logs::remove(name, container, &env.paths).map_err(|error| failed(&link, &error))?;
    }
    if let Some(folder) = env.paths.pod(uid) {
        volumes::unmount_all(&folder, &env.mountinfo).map_err(|(path, error)| {
            StepError::new("FailedUnmount", format!("cannot unmount {}: {error}", path.display()))
        })?;
        let mounted = mounts::below(&env.mountinfo, &folder).map_err(|e| failed(&env.mountinfo, &e))?;
        if let Some(mount) = mounted.first() {
            return Err(StepError::new(
                "FailedRemovePod",
                format!("cannot remove {}: {} is mounted there", folder.display(), mount.display()),
            ));
        }
        remove_tree(&folder).map_err(|error| failed(&folder, &error))?;
        let log = env.paths.pod_log_of(name, uid);
        remove_tree(&log).map_err(|error| failed(&log, &error))?;
        env.records.remove(uid.as_str()).map_err(|error| StepError::new("FailedRemovePod", chain(&error)))?;
    }
    Ok(())
}
