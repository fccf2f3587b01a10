//! One pod's task: brings what runs to what is wanted, a pass at a time, and tells where it stands.
//!
//! A pass observes, asks the policy what to do, does it, and observes again at once. Nothing of the plan is
//! kept between passes, so a pass may be cut short anywhere: by news for the pod, by an error, by the end
//! of the process. A call that makes something is never given up half way; waiting for a pull or for a
//! container's end is.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio_util::sync::CancellationToken;

use super::{
    admission::Admission,
    env::{Failure, PodEnv, PodRecord},
    failures::{Failures, StepError},
    hooks::RunningHook,
    mailbox::Mailbox,
    resize::Resizing,
    stop::Stops,
    told::Told,
};
use crate::{
    api::{
        ContainerId, ContainerState, PodExt as _, PodFullName, PodObservation, PodUid,
        view::{PodProgress, PodStep},
    },
    cri::CriError,
    error::chain,
    policy::{
        ephemeral::begun,
        events::Words,
        grace::pod_grace,
        lifecycle::{LifecycleEffect, LifecycleInput, PodLifecycle, StopReason},
        pod_actions::{Ledger, PodActions, compute_pod_actions},
        probe::{Kept, ProbeSnapshot, wanted_probes},
        resize::{AllActuated, keep_resources},
        runtime_class::{keep_overhead, same_class},
        status::{PREEMPTED, PREEMPTING, PodFailure, WaitingReason, is_terminal},
        userns::PodIds,
    },
    telemetry::metrics::{self, PodSync},
};

/// A pass that finds more to do after so many rounds ends and is begun anew, so that no pod can spin.
const MAX_ROUNDS: usize = 64;

/// What a worker starts with.
pub struct WorkerStart {
    /// The pod's UID.
    pub uid: PodUid,
    /// Its name.
    pub full_name: PodFullName,
    /// Its specification; none of a pod that only the runtime knows.
    pub pod: Option<Arc<Pod>>,
    /// What its checkpoint says.
    pub record: Option<PodRecord>,
}

/// A pod's task. See the module.
pub struct PodWorker {
    pub(super) env: Arc<PodEnv>,
    pub(super) uid: PodUid,
    pub(super) full_name: PodFullName,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) stop: CancellationToken,
    pub(super) pod: Option<Arc<Pod>>,
    /// The pod as its source has it, where that may ask for other resources than are allocated.
    pub(super) wanted: Option<Arc<Pod>>,
    /// What its containers have since their resources were changed.
    pub(super) actuated: AllActuated,
    /// Where that is.
    pub(super) resizing: Resizing,
    pub(super) lifecycle: PodLifecycle,
    pub(super) failures: Failures,
    /// Whether folders and volumes of the present specification are made.
    pub(super) prepared: bool,
    /// Why the volumes of the running pod were not brought up to date the last time.
    pub(super) stale: Option<String>,
    /// Whether the volumes of the pod, which has come to its end, are unmounted.
    pub(super) released: bool,
    /// Whether the cgroup of the pod, which has come to its end, is removed.
    pub(super) cgroup_removed: bool,
    /// The host's users and groups behind the pod's own; told by preparing.
    pub(super) user_namespace: Option<PodIds>,
    /// Whether the cgroup of a pod that needed nothing made is as the present specification says.
    pub(super) cgroup_adopted: bool,
    /// Whether something was done that no observation is newer than.
    pub(super) unseen: bool,
    /// Whether the pod has the overhead of its runtime class.
    pub(super) classed: bool,
    /// Whether something of a pod that is known from the disk alone was seen to run; `None` before the first look.
    pub(super) going: Option<bool>,
    /// Whether the node has taken the pod.
    pub(super) admitted: bool,
    pub(super) start_time: Timestamp,
    pub(super) failure: Option<Failure>,
    /// What probes and hooks say.
    pub(super) probes: ProbeSnapshot,
    /// postStart hooks under way.
    pub(super) hooks: BTreeMap<ContainerId, RunningHook>,
    /// Stops of containers that were begun.
    pub(super) stops: Stops,
    /// What of the probes is on disk.
    kept: BTreeMap<ContainerId, Kept>,
    /// The ephemeral containers that were started at any time.
    begun: BTreeSet<String>,
    /// Containers in crash-loop back-off.
    pub(super) crash_loops: BTreeMap<String, WaitingReason>,
    /// What the API server was told of that is not to be told again.
    pub(super) told: Told,
    pub(super) status: Option<Arc<PodStatus>>,
    pub(super) progress: PodProgress,
    /// What the next pass is for.
    pass: PodSync,
    saving: Option<tokio::task::JoinHandle<bool>>,
}

/// When to look again without being told to.
pub(super) enum Next {
    /// At a time.
    At(Timestamp),
    /// At once: something changed.
    Now,
    /// When told.
    Told,
}

impl PodWorker {
    /// Makes the task; nothing happens before [`PodWorker::run`].
    pub fn new(env: Arc<PodEnv>, mailbox: Arc<Mailbox>, stop: CancellationToken, start: WorkerStart) -> Self {
        let now = env.clock.now();
        let record = start.record;
        let pass = if record.is_none() { PodSync::Create } else { PodSync::Sync };
        let lifecycle = record.as_ref().map_or(PodLifecycle::Pending, |record| record.lifecycle);
        let taken = record.as_ref().and_then(|record| record.pod.clone());
        let pod = match (start.pod, &taken) {
            (Some(pod), Some(taken)) => Some(keep_overhead(taken, pod)),
            (pod, taken) => pod.or_else(|| taken.clone()),
        };
        let wanted = pod.clone();
        let pod = match (pod, &record) {
            (Some(pod), Some(record)) if record.is_taken() => Some(
                taken
                    .as_ref()
                    .map_or_else(|| Arc::clone(&pod), |taken| keep_resources(taken, Arc::clone(&pod))),
            ),
            (pod, _) => pod,
        };
        let classed = lifecycle == PodLifecycle::Syncing && same_class(taken.as_deref(), pod.as_deref());
        // What an earlier agent took is not judged again, and has its place before anything new.
        let admitted = record.as_ref().is_some_and(PodRecord::is_taken);
        env.admitted.join(&start.uid, &mailbox);
        if let Some(pod) = pod.as_ref().filter(|_| admitted) {
            env.admitted.keep(&start.uid, pod);
        }
        if lifecycle.stop_reason() == Some(StopReason::Preempted) {
            env.admitted.preempt(&start.uid);
        }
        // What the server was told is not told otherwise: a deadline runs from there.
        let begun = pod.as_deref().filter(|pod| !pod.is_static()).and_then(|pod| pod.status.as_ref());
        let begun = begun.and_then(|status| status.start_time.as_ref()).map_or(now, |time| time.0.min(now));
        let kept = record.as_ref().map(|record| record.probes.clone()).unwrap_or_default();
        env.probes.adopt(&start.uid, &kept);
        let actuated = record.as_ref().map(|record| record.actuated.clone()).unwrap_or_default();
        let ephemeral = record.as_ref().map(|record| record.ephemeral_begun.clone()).unwrap_or_default();
        let probes = ProbeSnapshot { verdicts: env.probes.verdicts(&start.uid), ..ProbeSnapshot::default() };
        Self {
            uid: start.uid,
            full_name: start.full_name,
            mailbox,
            stop,
            pod,
            wanted,
            actuated,
            resizing: Resizing::default(),
            // What was running is compared anew before anything is done about it.
            lifecycle: if lifecycle == PodLifecycle::Syncing { PodLifecycle::Pending } else { lifecycle },
            failures: Failures::default(),
            prepared: false,
            stale: None,
            released: false,
            cgroup_removed: false,
            user_namespace: None,
            cgroup_adopted: false,
            unseen: false,
            admitted,
            going: None,
            classed,
            start_time: record.as_ref().map_or(begun, |record| record.start_time),
            failure: record.and_then(|record| record.failure),
            probes,
            hooks: BTreeMap::new(),
            stops: Stops::default(),
            kept,
            begun: ephemeral,
            crash_loops: BTreeMap::new(),
            told: Told::default(),
            status: None,
            progress: PodProgress {
                step: PodStep::WaitingForRuntime,
                detail: String::new(),
                since: now,
                last_error: None,
                next: None,
            },
            pass,
            saving: None,
            env,
        }
    }

    /// Works until the pod is gone or the agent stops. Answers whether the pod is gone.
    pub async fn run(mut self) -> bool {
        self.env.starts.worker(&self.uid);
        loop {
            self.read_mail().await;
            self.read_probes().await;
            let began = tokio::time::Instant::now();
            let next = match self.lifecycle {
                PodLifecycle::Pending => {
                    match self.unknown_runtime() {
                        Some(why) => self.at(PodStep::WaitingForRuntime, why),
                        None => self
                            .at(PodStep::WaitingForPredecessor, "wait for the pod that had this name before"),
                    }
                    Next::Told
                }
                PodLifecycle::Syncing => {
                    let (pass, next) = (std::mem::replace(&mut self.pass, PodSync::Sync), self.sync().await);
                    metrics::pod_synced(pass, began.elapsed());
                    next
                }
                PodLifecycle::Terminating { .. } => {
                    let next = self.terminate().await;
                    metrics::pod_synced(PodSync::Kill, began.elapsed());
                    next
                }
                PodLifecycle::Terminated { reason } if reason.is_removal() => self.clean_up().await,
                PodLifecycle::Terminated { reason: StopReason::Deleted } => self.wait_to_be_forgotten().await,
                PodLifecycle::Terminated { reason: StopReason::Rejected } => {
                    self.env.admitted.release(&self.uid);
                    let why = self.failure.as_ref().map_or_else(String::new, |f| f.message.clone());
                    self.at(PodStep::Rejected, why);
                    Next::Told
                }
                PodLifecycle::Terminated { .. } => {
                    self.env.admitted.release(&self.uid);
                    self.unsupply();
                    self.at(PodStep::Finished, "all containers ended; status and logs are kept");
                    // A pod that never came to rest before its end left more than is kept.
                    self.publish(&Next::Told);
                    self.release_volumes().await;
                    let seen = self.observation();
                    self.collect_garbage(&seen).await;
                    Next::Told
                }
                PodLifecycle::Finished => Next::Told,
            };
            self.watch_probes();
            if self.lifecycle == PodLifecycle::Finished {
                self.env.admitted.release(&self.uid);
                self.unsupply();
                self.env.starts.forget(&self.uid);
                self.env.pleg.unmute(&self.uid);
                self.env.board.remove(&self.uid);
                return true;
            }
            self.publish(&next);
            if self.stop.is_cancelled() {
                self.saved().await;
                return false;
            }
            let due = match next {
                Next::Now => continue,
                Next::At(at) => Some(self.env.clock.instant_of(at)),
                Next::Told => None,
            };
            tokio::select! {
                () = self.mailbox.changed() => {}
                () = sleep_until(due) => {}
                () = self.stop.cancelled() => {}
            }
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.env.clock.now()
    }

    /// Whether the pass under way should end: there is news that changes everything.
    pub(super) fn interrupted(&self) -> bool {
        self.mailbox.has_stop() || self.stop.is_cancelled()
    }

    /// What was last seen of the pod.
    pub(super) fn observation(&self) -> Arc<PodObservation> {
        self.env.pleg.get(&self.uid).unwrap_or_else(|| self.nothing_seen())
    }

    /// What is seen of a pod of which there is nothing.
    pub(super) fn nothing_seen(&self) -> Arc<PodObservation> {
        Arc::new(PodObservation::empty(self.uid.clone(), self.full_name.clone(), self.now()))
    }

    /// Asks the runtime what it holds of the pod now.
    pub(super) async fn inspect(&mut self) -> Result<Arc<PodObservation>, StepError> {
        let seen = self.env.pleg.inspect(&self.uid, &self.full_name).await;
        self.unseen &= seen.is_err();
        seen.map_err(|error| self.runtime_error("RuntimeError", "look at the pod in the runtime", &error))
    }

    /// An error of a call to the runtime. One that does not answer is asked after.
    pub(super) fn runtime_error(&self, reason: &'static str, what: &str, error: &CriError) -> StepError {
        let runtime_down = error.is_unavailable();
        if runtime_down || error.is_deadline_exceeded() {
            self.env.health.doubt();
        }
        StepError { runtime_down, ..StepError::new(reason, format!("cannot {what}: {}", chain(error))) }
    }

    /// A failure of the pod's own steps: noted, told when new, and when to try again.
    pub(super) fn pod_failed(&mut self, error: StepError) -> Next {
        let now = self.now();
        let step = if error.runtime_down { PodStep::WaitingForRuntime } else { PodStep::Retrying };
        let message = error.message.clone();
        self.tell_pod_failure(&error);
        let failed = self.failures.pod_failed(error, now);
        let (at, count) = (failed.not_before, failed.error.count);
        if count == 1 {
            tracing::warn!(pod = %self.full_name, uid = %self.uid, "{message}");
        }
        self.at(step, message);
        Next::At(at)
    }

    async fn read_mail(&mut self) {
        if self.saving.as_ref().is_some_and(tokio::task::JoinHandle::is_finished) && !self.saved().await {
            // The disk was full, say. A pod is looked at every sync period at least.
            self.save();
        }
        let mail = self.mailbox.take();
        if let Some(pod) = mail.pod {
            let pod = match &self.pod {
                Some(taken) => keep_overhead(taken, pod),
                None => pod,
            };
            self.wanted = Some(Arc::clone(&pod));
            let pod = match &self.pod {
                Some(taken) if self.admitted => keep_resources(taken, pod),
                _ => pod,
            };
            self.classed &= same_class(self.pod.as_deref(), Some(&pod));
            let changed = self.pod.as_ref().is_none_or(|old| old.spec != pod.spec);
            if changed && !self.lifecycle.is_stopping() {
                if self.pass == PodSync::Sync {
                    self.pass = PodSync::Update;
                }
                self.failures.clear();
                self.prepared = false;
                self.cgroup_adopted = false;
            }
            if !self.lifecycle.is_stopping() {
                self.pod = Some(pod);
                if changed && self.lifecycle == PodLifecycle::Syncing {
                    self.save();
                }
            }
        }
        if mail.supplied && !self.lifecycle.is_stopping() {
            self.failures.clear();
        }
        if mail.start && self.lifecycle == PodLifecycle::Pending {
            self.step(LifecycleInput::Start);
        }
        match mail.stop {
            Some((StopReason::Preempted, _)) if self.lifecycle.is_stopping() => {}
            Some((StopReason::Preempted, grace)) => self.preempted(grace),
            Some((reason, grace)) => {
                self.step(LifecycleInput::Stop { reason, grace });
            }
            None => {}
        }
    }

    /// Takes a step of the pod's life, and begins to put it on disk where it must not be forgotten. Nobody
    /// waits for the disk: an agent killed before it was written finds out from the sources and the runtime
    /// what to do, and has lost a deadline at worst. Answers whether containers under way to their end must
    /// hurry.
    pub(super) fn step(&mut self, input: LifecycleInput) -> bool {
        let (state, effects) = match self.lifecycle.step(input, self.now()) {
            Ok(step) => step,
            Err(error) => {
                tracing::error!(pod = %self.full_name, uid = %self.uid, "{error}");
                return false;
            }
        };
        if state.is_stopping() {
            self.env.admitted.ends(&self.uid);
        }
        if state != self.lifecycle {
            tracing::info!(pod = %self.full_name, uid = %self.uid, from = ?self.lifecycle, to = ?state, "pod step");
            self.failures.clear();
        }
        self.lifecycle = state;
        let mut hasten = false;
        for effect in effects {
            match effect {
                LifecycleEffect::Persist => self.save(),
                LifecycleEffect::Hasten => hasten = true,
                LifecycleEffect::Forget => {}
            }
        }
        hasten
    }

    /// Takes in what probes and hooks have come to. What the next agent must know is on disk before it is
    /// shown to anyone, so that no restart takes back what was told.
    pub(super) async fn read_probes(&mut self) {
        let seen = self.observation();
        self.settle_hooks(&seen);
        self.probes.verdicts = self.env.probes.verdicts(&self.uid);
        let told = self.probes.verdicts.iter().map(|(id, verdicts)| (id.clone(), verdicts.kept()));
        let kept: BTreeMap<_, _> = told.filter(|(_, kept)| *kept != Kept::default()).collect();
        if kept != self.kept {
            self.kept = kept;
            self.save();
            self.saved().await;
        }
    }

    /// Has those probes run that are due in what is now seen of the pod.
    pub(super) fn watch_probes(&self) {
        let stopping = match self.lifecycle {
            PodLifecycle::Pending => return,
            PodLifecycle::Syncing => false,
            PodLifecycle::Terminating { .. } => true,
            PodLifecycle::Terminated { .. } | PodLifecycle::Finished => {
                self.env.probes.forget(&self.uid);
                return;
            }
        };
        let Some(pod) = self.pod.as_ref().filter(|_| *self.env.pleg.primed().borrow()) else { return };
        let seen = self.observation();
        let wanted = wanted_probes(pod, &seen, &self.probes, &self.env.node.host_ips, stopping);
        self.env.probes.want(pod, wanted, &self.mailbox, |id| seen.containers.iter().any(|c| c.id == *id));
        self.stops.retain(|id| seen.containers.iter().any(|c| c.id == *id));
    }

    /// Begins to write the checkpoint. A pod is not held up by it: what it says can be found out from the
    /// runtime, but for the times.
    pub(super) fn save(&mut self) {
        let record = PodRecord {
            pod: self.pod.clone(),
            lifecycle: self.lifecycle,
            admitted: self.admitted,
            start_time: self.start_time,
            failure: self.failure.clone(),
            probes: self.kept.clone(),
            ephemeral_begun: self.begun.clone(),
            actuated: self.actuated.clone(),
        };
        let (env, uid, before) = (Arc::clone(&self.env), self.uid.clone(), self.saving.take());
        self.saving = Some(tokio::spawn(async move {
            if let Some(before) = before {
                before.await.ok();
            }
            let name = uid.clone();
            let written = tokio::task::spawn_blocking(move || env.records.save(name.as_str(), &record)).await;
            let error = match written {
                Ok(Ok(())) => return true,
                Ok(Err(error)) => chain(&error),
                Err(error) => error.to_string(),
            };
            tracing::error!(%uid, "cannot write the pod's checkpoint, going on without and trying again: {error}");
            false
        }));
    }

    /// Waits until what was begun to be written is written, and answers whether it is.
    pub(super) async fn saved(&mut self) -> bool {
        match self.saving.take() {
            Some(saving) => saving.await.unwrap_or(false),
            None => true,
        }
    }

    /// Brings what runs to what is wanted.
    async fn sync(&mut self) -> Next {
        let Some(pod) = self.pod.clone() else {
            // Only a pod with a specification is ever told to start.
            return Next::Told;
        };
        if let Some(why) = self.unknown_runtime() {
            self.at(PodStep::WaitingForRuntime, why);
            return Next::Told;
        }
        if !pod.is_static() && pod.status.as_ref().is_some_and(is_terminal) {
            // By its last agent's word, or by others': no more of it is ever started.
            self.step(LifecycleInput::Stop { reason: StopReason::Completed, grace: pod_grace(&pod) });
            return Next::Now;
        }
        if let Some(why) = self.refused_offline(&pod) {
            self.at(PodStep::WaitingForServer, why);
            return Next::Told;
        }
        let pod = match self.classify(pod).await {
            Ok(pod) => pod,
            Err(next) => return next,
        };
        if self.env.admitted.is_preempted(&self.uid) {
            // It was decided before this worker could be told.
            self.preempted(pod_grace(&pod));
            return Next::Now;
        }
        match self.admit(&pod) {
            Ok(Admission::Taken) => {}
            Ok(Admission::Waits(others)) => return self.waits_for_room(&pod, &others),
            Err(refused) => return self.rejected(refused),
        }
        let pod = self.allocate(pod).await;
        if let Some(supplies) = &self.env.supplies {
            supplies.want(&pod, &self.mailbox);
        }
        let deadline = self.active_deadline(&pod);
        if deadline.is_some_and(|at| at <= self.now()) {
            return self.past_deadline(&pod);
        }
        for _ in 0..MAX_ROUNDS {
            if self.interrupted() {
                return Next::Now;
            }
            // The last pass ended without a look at what came of it.
            if self.unseen {
                if let Some(next) = self.wait_for_runtime(deadline) {
                    return next;
                }
                if let Err(error) = self.inspect().await {
                    return self.pod_failed(error);
                }
            }
            let now = self.now();
            let observation = self.observation();
            self.note_ephemeral(&pod, &observation);
            let outgrown = self.actuate(&pod, &observation).await.restart;
            let ledger = Ledger { begun: self.begun.clone(), outgrown };
            let (probes, backoff) = (&self.probes, &self.env.backoff);
            let actions = compute_pod_actions(&pod, &observation, probes, &ledger, backoff, now);
            self.note_crash_loops(&actions, &pod);
            self.tell_back_offs(&actions, &pod);
            if actions.completed {
                self.step(LifecycleInput::Stop { reason: StopReason::Completed, grace: pod_grace(&pod) });
                return Next::Now;
            }
            if actions.is_empty() {
                self.end_resize(&pod, &observation).await;
                self.refresh_volumes(&pod).await;
                self.settle(&pod, &observation, &actions).await;
                return [actions.next_due(), deadline, self.resize_due()]
                    .into_iter()
                    .flatten()
                    .min()
                    .map_or(Next::Told, Next::At);
            }
            if let Some(next) = self.wait_for_runtime(deadline) {
                return next;
            }
            match self.execute(&pod, &observation, &actions).await {
                Done::Again => {}
                Done::Wait(next) => {
                    // One that cannot be had must not keep the pod from being looked after.
                    if !self.interrupted() {
                        let seen = self.observation();
                        self.end_resize(&pod, &seen).await;
                    }
                    if actions.is_ephemeral() && !self.interrupted() {
                        if self.failures.of_pod().is_none() {
                            self.at_rest(&pod, &observation, &actions);
                        }
                        self.refresh_volumes(&pod).await;
                        self.look_after(&pod, &observation).await;
                    }
                    let due = [actions.next_due(), deadline, self.resize_due()];
                    return match (next, due.into_iter().flatten().min()) {
                        (Next::At(a), Some(b)) => Next::At(a.min(b)),
                        (Next::Told, Some(b)) => Next::At(b),
                        (next, _) => next,
                    };
                }
            }
        }
        tracing::error!(pod = %self.full_name, uid = %self.uid, "the pod does not come to rest; looking again in a second");
        Next::At(self.now().checked_add(SignedDuration::from_secs(1)).unwrap_or(Timestamp::MAX))
    }

    /// Why it is not known what the runtime holds; `None` once it is.
    fn unknown_runtime(&self) -> Option<String> {
        let health = self.env.health.current();
        let unknown = !health.asked || !health.is_named() || !*self.env.pleg.primed().borrow();
        unknown.then(|| {
            let why = health.runtime_error;
            why.unwrap_or_else(|| "the runtime has not been asked yet what it holds".to_owned())
        })
    }

    /// A runtime that is down or hangs is not asked for more: the health monitor asks it, and the sync loop
    /// wakes every worker when that changes.
    fn wait_for_runtime(&mut self, deadline: Option<Timestamp>) -> Option<Next> {
        let why = self.env.health.current().runtime_error?;
        self.at(PodStep::WaitingForRuntime, why);
        Some(deadline.map_or(Next::Told, Next::At))
    }

    /// Has the node take the pod, once. What runs already was taken, by whoever started it.
    fn admit(&mut self, pod: &Arc<Pod>) -> Result<Admission, PodFailure> {
        let env = &self.env;
        if self.admitted || self.observation().has_live_parts() {
            env.admitted.keep(&self.uid, pod);
        } else {
            let server_node = env.server_node();
            let admission = env.admitted.admit(&self.uid, pod, &env.node, server_node.as_deref())?;
            if admission != Admission::Taken {
                return Ok(admission);
            }
        }
        if !self.admitted {
            self.admitted = true;
            self.save();
        }
        Ok(Admission::Taken)
    }

    /// A critical pod is begun when those have ended that make room for it.
    fn waits_for_room(&mut self, pod: &Pod, others: &[PodFullName]) -> Next {
        let names: Vec<String> = others.iter().map(ToString::to_string).collect();
        let names = names.join(", ");
        if self.progress.step != PodStep::WaitingForRoom {
            tracing::info!(pod = %self.full_name, uid = %self.uid, "pods end to make room for this critical one: {names}");
        }
        self.at(PodStep::WaitingForRoom, format!("wait for the end of {names}"));
        self.no_later_than_deadline(pod, Next::Told)
    }

    /// The pod ends for a critical one, within its own time.
    fn preempted(&mut self, grace: Duration) {
        tracing::warn!(pod = %self.full_name, uid = %self.uid, "{PREEMPTED}");
        self.tell(Words::warning(PREEMPTING, PREEMPTED));
        self.failure = Some(Failure { reason: PREEMPTING.to_owned(), message: PREEMPTED.to_owned() });
        self.step(LifecycleInput::Stop { reason: StopReason::Preempted, grace });
    }

    /// Its containers have ended: nothing that they were given is followed any more.
    fn unsupply(&self) {
        if let Some(supplies) = &self.env.supplies {
            supplies.forget(&self.uid);
        }
    }

    /// Takes the pod as it is now for the one to run.
    pub(super) fn keep(&mut self, pod: &Arc<Pod>) {
        if self.pod.as_ref() != Some(pod) {
            self.pod = Some(Arc::clone(pod));
            self.save();
        }
    }

    pub(super) fn rejected(&mut self, refused: PodFailure) -> Next {
        tracing::warn!(pod = %self.full_name, uid = %self.uid, reason = refused.reason, "the node does not take the pod: {}", refused.message);
        self.tell(Words::warning(refused.reason.clone(), refused.message.clone()));
        self.failure = Some(refused.into());
        self.step(LifecycleInput::Stop { reason: StopReason::Rejected, grace: Duration::ZERO });
        Next::Now
    }

    /// Why the pod, which is known from the disk alone, must not be started. What runs goes on, and is started again
    /// where it ends, as on a node that was running when it lost its server.
    fn refused_offline(&mut self, pod: &Pod) -> Option<String> {
        let offline = self.env.offline.as_ref().filter(|offline| offline.is_offline() && !pod.is_static())?;
        let seen = self.observation();
        let going = match self.going {
            None => seen.has_live_parts(),
            // A sandbox of this agent's own is not the pod's start yet: its images may take long.
            Some(going) => going || seen.containers.iter().any(|c| c.state == ContainerState::Running),
        };
        self.going = Some(going);
        let refused = offline.refuses(pod).filter(|_| !going);
        if let Some(why) = refused.as_ref().filter(|_| self.progress.step != PodStep::WaitingForServer) {
            tracing::warn!(pod = %self.full_name, uid = %self.uid, "not started while offline: {why}");
        }
        refused
    }

    fn active_deadline(&self, pod: &Pod) -> Option<Timestamp> {
        let seconds = pod.spec().active_deadline_seconds?;
        self.start_time.checked_add(SignedDuration::from_secs(seconds)).ok()
    }

    /// When to look again at a pod that cannot be begun, which may come to its deadline meanwhile.
    pub(super) fn no_later_than_deadline(&mut self, pod: &Pod, next: Next) -> Next {
        match (self.active_deadline(pod), next) {
            (Some(deadline), _) if deadline <= self.now() => self.past_deadline(pod),
            (Some(deadline), Next::At(at)) => Next::At(at.min(deadline)),
            (_, next) => next,
        }
    }

    fn past_deadline(&mut self, pod: &Pod) -> Next {
        let message = "Pod was active on the node longer than the specified deadline";
        self.tell(Words::normal("DeadlineExceeded", message));
        self.failure = Some(Failure { reason: "DeadlineExceeded".to_owned(), message: message.to_owned() });
        self.step(LifecycleInput::Stop { reason: StopReason::DeadlineExceeded, grace: pod_grace(pod) });
        Next::Now
    }

    /// Nothing to do now: say so, and clear away what earlier containers left.
    async fn settle(&mut self, pod: &Pod, observation: &PodObservation, actions: &PodActions) {
        self.failures.pod_ok();
        self.at_rest(pod, observation, actions);
        let first = actions.next_due();
        // What is shown must not wait for the clearing.
        self.publish(&first.map_or(Next::Told, Next::At));
        self.look_after(pod, observation).await;
    }

    /// What is done for a pod that runs, beside running it.
    async fn look_after(&mut self, pod: &Pod, observation: &PodObservation) {
        self.adopt_cgroup(pod).await;
        self.collect_garbage(observation).await;
    }

    /// Keeps which ephemeral containers were started, so that none is started again when the runtime has forgotten
    /// it.
    fn note_ephemeral(&mut self, pod: &Pod, observation: &PodObservation) {
        let begun = begun(pod, observation, &self.begun);
        if begun != self.begun {
            self.begun = begun;
            self.save();
        }
    }
}

/// How executing a plan ended.
pub(super) enum Done {
    /// It was done: look again.
    Again,
    /// It could not be done, or not whole.
    Wait(Next),
}

async fn sleep_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
