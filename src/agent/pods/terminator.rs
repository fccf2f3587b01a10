//! The end of a pod: containers stopped in their order within the grace period, the sandbox after them, and
//! when nothing of it is to be left, its records, folders, logs and cgroup.

use std::{io, sync::Arc, time::Duration};

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
        grace::{pod_grace, remaining_seconds, stop_order},
        lifecycle::{LifecycleInput, PodLifecycle},
    },
};

/// A container whose turn comes after the deadline, for the runtime was away or the others took all the
/// time, still gets so long to end by itself, as with kubelet (`minimumGracePeriodInSeconds`).
const MIN_SECONDS: i64 = 2;

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
        let mut turns = stop_order(self.pod.as_deref(), &seen).into_iter();
        let mut late = false;
        while let Some(mut group) = turns.next() {
            // Once the pod's time is over none waits for another any more, as with kubelet: the least that
            // each still has would add up.
            if self.past_stop_deadline() {
                group.extend(turns.by_ref().flatten());
                late = true;
            }
            if !self.stop_group(&group, late).await? {
                return Ok(false);
            }
            late = true;
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

    /// Stops containers at once. When the deadline moves nearer they are told again with the time left; the
    /// first telling stays, for a call that is given up may leave a container running.
    async fn stop_group(&mut self, group: &[ContainerId], late: bool) -> Result<bool, StepError> {
        let mut running: Vec<ContainerId> = group.to_vec();
        let mut calls = tokio::task::JoinSet::new();
        let mut failed = None;
        self.tell_to_stop(&mut calls, &running, late);
        while !running.is_empty() {
            let mailbox = Arc::clone(&self.mailbox);
            tokio::select! {
                joined = calls.join_next() => match joined {
                    Some(Ok((id, Ok(())))) => {
                        running.retain(|other| *other != id);
                        if !running.is_empty() {
                            self.inspect().await?;
                            self.show(PodStep::Terminating, "stop the containers");
                        }
                    }
                    Some(Ok((id, Err(error)))) => {
                        running.retain(|other| *other != id);
                        let what = format!("stop container {id}");
                        failed = Some(self.runtime_error("FailedKillContainer", &what, &error));
                    }
                    Some(Err(error)) => {
                        return Err(StepError::new("FailedKillContainer", error.to_string()));
                    }
                    None => break,
                },
                () = mailbox.stop_told() => {
                    if let Some((reason, grace)) = mailbox.take().stop
                        && self.step(LifecycleInput::Stop { reason, grace })
                    {
                        self.tell_to_stop(&mut calls, &running, late);
                    }
                }
                // The containers go on to their end without us; the next agent finds the deadline on disk.
                () = self.stop.cancelled() => return Ok(false),
            }
        }
        failed.map_or(Ok(true), Err)
    }

    fn tell_to_stop(
        &self,
        calls: &mut tokio::task::JoinSet<(ContainerId, Result<(), crate::cri::CriError>)>,
        containers: &[ContainerId],
        late: bool,
    ) {
        let PodLifecycle::Terminating { deadline, .. } = self.lifecycle else { return };
        // A pod that asks for less than the minimum has it its way, but for its sidecars: their turn comes
        // when the pod's time may be over, whatever it was.
        let own = self.pod.as_deref().map_or(MIN_SECONDS, |pod| whole_seconds(pod_grace(pod)));
        let least = if late { MIN_SECONDS } else { own.min(MIN_SECONDS) };
        let pace = Pace::default();
        for id in containers {
            let (env, pace, id) = (Arc::clone(&self.env), pace.clone(), id.clone());
            calls.spawn(async move {
                let stop = || {
                    let seconds = remaining_seconds(deadline, env.clock.now()).max(least);
                    env.cri.stop_container(id.as_str(), seconds)
                };
                let stopped = pace.run(stop).await;
                (id, stopped)
            });
        }
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

fn whole_seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
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
