//! All workers: one a pod UID, and of static pods that share a full name only one at a time.
//!
//! An edited manifest is a new pod with a new UID and the old name: it waits until nothing of the old one is
//! left. A manifest that is removed and put back is the same UID again: it starts anew when the first life
//! has ended. Pods of the API server have their names for themselves: one that is forced out of the server may still
//! be ending when another comes under its name, and both are there for that time, as with kubelet
//! (pkg/kubelet/pod_workers.go, `allowPodStart`).

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    env::{PodEnv, PodRecord},
    mailbox::Mailbox,
    worker::{PodWorker, WorkerStart},
};
use crate::{
    api::{PodExt as _, PodFullName, PodObservation, PodUid},
    policy::{
        grace::{orphan_grace, pod_grace},
        lifecycle::StopReason,
    },
};

/// A worker that panicked is put in its place again after this time.
const RESPAWN_DELAY: Duration = Duration::from_secs(1);

/// For a pod whose specification is not known: the API's default.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// How a worker's task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerEnd {
    /// The pod is gone.
    Gone,
    /// The agent stops.
    Stopped,
    /// A bug: the pod is still there.
    Panicked,
}

/// The workers.
pub struct PodWorkers {
    env: Arc<PodEnv>,
    stop: CancellationToken,
    tasks: TaskTracker,
    ends: mpsc::UnboundedSender<(PodUid, WorkerEnd)>,
    state: Mutex<State>,
    /// Whether all sources were read, so that a pod that none of them names may go.
    removals: AtomicBool,
}

#[derive(Default)]
struct State {
    workers: HashMap<PodUid, Handle>,
    /// Who has a full name, and who waits for it.
    names: HashMap<NameKey, NameQueue>,
    /// Checkpoints of an earlier agent that nobody has asked for yet.
    records: HashMap<PodUid, PodRecord>,
}

/// What only one pod has at a time: a full name, of the API server's pods with the UID.
type NameKey = (PodFullName, Option<PodUid>);

struct Handle {
    mailbox: Arc<Mailbox>,
    full_name: PodFullName,
    key: NameKey,
    pod: Option<Arc<Pod>>,
    /// Told to stop for good.
    removing: Option<(StopReason, Duration)>,
    /// Wanted again while it was on its way out.
    again: Option<Arc<Pod>>,
}

impl Handle {
    /// How long the pod has to stop.
    fn grace(&self) -> Duration {
        self.pod.as_deref().map_or(DEFAULT_GRACE, pod_grace)
    }

    /// Has the pod stopped, and nothing of it left.
    fn remove(&mut self, reason: StopReason, grace: Duration) {
        self.removing = Some((reason, grace));
        self.mailbox.stop(reason, grace);
    }
}

#[derive(Default)]
struct NameQueue {
    holder: Option<PodUid>,
    waiting: VecDeque<PodUid>,
}

impl PodWorkers {
    /// No workers yet; `records` are the checkpoints found at start. The receiver is told of each worker's
    /// end and hands it to [`PodWorkers::ended`].
    pub fn new(
        env: Arc<PodEnv>,
        stop: CancellationToken,
        records: HashMap<PodUid, PodRecord>,
    ) -> (Self, mpsc::UnboundedReceiver<(PodUid, WorkerEnd)>) {
        let (ends, receiver) = mpsc::unbounded_channel();
        // What an earlier agent took has its place before anything new, whichever source tells it when.
        for (uid, record) in records.iter().filter(|(_, record)| record.is_taken()) {
            if let Some(pod) = &record.pod {
                env.admitted.keep(uid, pod);
            }
        }
        let state = State { records, ..State::default() };
        let workers = Self {
            env,
            stop,
            tasks: TaskTracker::new(),
            ends,
            state: Mutex::new(state),
            removals: AtomicBool::new(false),
        };
        (workers, receiver)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with what an earlier agent had begun to stop. That was decided then and waits for nobody.
    pub fn resume(&self) {
        let mut state = self.state();
        let stopping: Vec<PodUid> = state
            .records
            .iter()
            .filter(|(_, record)| record.lifecycle.removal().is_some())
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in stopping {
            let Some(record) = state.records.remove(&uid) else { continue };
            let full_name = record.pod.as_ref().map_or_else(|| unnamed(&uid), |pod| pod.full_name());
            self.spawn(&mut state, uid, full_name, None, Some(record));
        }
    }

    /// Pods are wanted with these specifications. None is begun before all of them are known: one that runs
    /// has its place before a new one, in whatever order they are told.
    pub fn update(&self, pods: impl IntoIterator<Item = Arc<Pod>>) {
        let mut state = self.state();
        for pod in pods {
            self.want(&mut state, pod);
        }
        drop(state);
        self.admit();
    }

    fn want(&self, state: &mut State, pod: Arc<Pod>) {
        let uid = pod.uid();
        if let Some(handle) = state.workers.get_mut(&uid) {
            if handle.removing.is_some() {
                handle.again = Some(pod);
            } else if handle.full_name != pod.full_name() {
                // Labels, folders and links are made from the name: under another it is another pod.
                handle.remove(StopReason::Removed, handle.grace());
                handle.again = Some(pod);
            } else {
                handle.pod = Some(Arc::clone(&pod));
                handle.mailbox.update(Arc::clone(&pod));
                end_deleted(handle, &pod);
            }
            return;
        }
        let full_name = pod.full_name();
        let record = state.records.remove(&uid);
        let told = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if record.is_none() && told.is_none_or(|phase| phase == "Pending") {
            self.env.starts.begin(&pod);
        }
        self.spawn(state, uid.clone(), full_name, Some(Arc::clone(&pod)), record);
        if let Some(handle) = state.workers.get(&uid) {
            end_deleted(handle, &pod);
        }
    }

    /// A pod is no longer wanted.
    pub fn remove(&self, uid: &PodUid) {
        self.env.admitted.leaves(uid);
        let mut state = self.state();
        if let Some(handle) = state.workers.get_mut(uid) {
            handle.again = None;
            handle.remove(StopReason::Removed, handle.grace());
        }
    }

    /// All sources were read: of what an earlier agent had taken, nothing that none of them names has a place.
    /// `known` tells which UIDs are wanted.
    pub fn disown(&self, known: impl Fn(&PodUid) -> bool) {
        let state = self.state();
        state.records.keys().filter(|uid| !known(uid)).for_each(|uid| self.env.admitted.leaves(uid));
    }

    /// All sources were read: what runs and has no worker is nobody's, and gives way to a pod that is wanted
    /// under its name.
    pub fn allow_removals(&self) {
        if !self.removals.swap(true, Ordering::Relaxed) {
            self.admit();
        }
    }

    /// Starts what may start: the first that waits for a name nobody has. Does nothing before the runtime
    /// was asked what it holds, since that may be a pod of the same name.
    pub fn admit(&self) {
        if !*self.env.pleg.primed().borrow() {
            return;
        }
        let mut state = self.state();
        let free: Vec<NameKey> = state
            .names
            .iter()
            .filter(|(_, queue)| queue.holder.is_none() && !queue.waiting.is_empty())
            .map(|(name, _)| name.clone())
            .collect();
        if free.is_empty() {
            return;
        }
        let running = self.env.pleg.all();
        // What runs is taken before anything new is judged, whoever started it.
        for seen in running.iter().filter(|seen| seen.has_live_parts()) {
            if let Some(pod) = state.workers.get(&seen.uid).and_then(|handle| handle.pod.as_ref()) {
                self.env.admitted.keep_running(&seen.uid, pod);
            }
        }
        for key in free {
            let name = &key.0;
            let predecessor = running
                .iter()
                .filter(|_| key.1.is_none())
                .find(|seen| seen.full_name == *name && !state.workers.contains_key(&seen.uid))
                .cloned();
            if let Some(seen) = predecessor {
                // A source that has yet to be read may name it.
                if !self.removals.load(Ordering::Relaxed) {
                    continue;
                }
                self.stop_orphan(&mut state, &seen.uid, name, Some(&seen));
                continue;
            }
            let Some(queue) = state.names.get_mut(&key) else { continue };
            let Some(uid) = queue.waiting.pop_front() else { continue };
            queue.holder = Some(uid.clone());
            if let Some(handle) = state.workers.get(&uid) {
                handle.mailbox.start();
            }
        }
    }

    /// Stops and removes what nobody wants: pods in the runtime, and checkpoints and folders of pods.
    /// `known` tells which UIDs are wanted.
    pub fn remove_unknown(&self, folders: &[PodUid], known: impl Fn(&PodUid) -> bool) {
        let mut state = self.state();
        for seen in self.env.pleg.all() {
            if !known(&seen.uid) && !state.workers.contains_key(&seen.uid) {
                self.stop_orphan(&mut state, &seen.uid, &seen.full_name, Some(&seen));
            }
        }
        let left: HashSet<PodUid> = state.records.keys().chain(folders).cloned().collect();
        for uid in left {
            if !known(&uid) && !state.workers.contains_key(&uid) {
                let named = state.records.get(&uid).and_then(|r| r.pod.as_ref()).map(|pod| pod.full_name());
                let full_name = named.unwrap_or_else(|| unnamed(&uid));
                self.stop_orphan(&mut state, &uid, &full_name, None);
            }
        }
    }

    fn stop_orphan(
        &self,
        state: &mut State,
        uid: &PodUid,
        full_name: &PodFullName,
        seen: Option<&PodObservation>,
    ) {
        tracing::info!(pod = %full_name, %uid, "removing a pod that no source names");
        let record = state.records.remove(uid);
        let grace = match record.as_ref().and_then(|record| record.pod.as_deref()) {
            Some(pod) => pod_grace(pod),
            None => seen.map_or(Duration::ZERO, orphan_grace),
        };
        self.spawn(state, uid.clone(), full_name.clone(), None, record);
        self.env.admitted.leaves(uid);
        if let Some(handle) = state.workers.get_mut(uid) {
            handle.remove(StopReason::Orphaned, grace);
        }
        // It has its name for as long as it is there, ahead of whoever waits for it.
        let key =
            state.workers.get(uid).map_or_else(|| (full_name.clone(), None), |handle| handle.key.clone());
        let queue = state.names.entry(key).or_default();
        queue.waiting.retain(|waiting| waiting != uid);
        queue.holder.get_or_insert_with(|| uid.clone());
    }

    /// Makes a worker. One whose checkpoint says that it is being removed has its name at once; any other
    /// waits for it.
    fn spawn(
        &self,
        state: &mut State,
        uid: PodUid,
        full_name: PodFullName,
        pod: Option<Arc<Pod>>,
        record: Option<PodRecord>,
    ) {
        let removal = record.as_ref().and_then(|record| record.lifecycle.removal());
        let removing = removal.map(|reason| (reason, DEFAULT_GRACE));
        let again = pod.clone().filter(|_| removing.is_some());
        let pod = pod.filter(|_| removing.is_none());
        let mailbox = Arc::new(Mailbox::default());
        let known = pod.clone().or_else(|| record.as_ref().and_then(|record| record.pod.clone()));
        let of_api = known.as_deref().is_some_and(|pod| !pod.is_static());
        let key = (full_name.clone(), of_api.then(|| uid.clone()));
        let handle = Handle {
            mailbox: Arc::clone(&mailbox),
            full_name: full_name.clone(),
            key: key.clone(),
            pod: known,
            removing,
            again,
        };
        state.workers.insert(uid.clone(), handle);
        let queue = state.names.entry(key).or_default();
        if removing.is_some() && queue.holder.is_none() {
            queue.holder = Some(uid.clone());
        } else {
            queue.waiting.push_back(uid.clone());
        }
        let start = WorkerStart { uid: uid.clone(), full_name, pod, record };
        let worker = PodWorker::new(Arc::clone(&self.env), mailbox, self.stop.clone(), start);
        let (ends, tasks) = (self.ends.clone(), self.tasks.clone());
        self.tasks.spawn(async move {
            let end = match tasks.spawn(worker.run()).await {
                Ok(true) => WorkerEnd::Gone,
                Ok(false) => WorkerEnd::Stopped,
                Err(error) => {
                    tracing::error!(%uid, "the pod's worker failed, which is a bug of nodectl: {error}");
                    tokio::time::sleep(RESPAWN_DELAY).await;
                    WorkerEnd::Panicked
                }
            };
            // Nobody listens once the sync loop has ended.
            ends.send((uid, end)).ok();
        });
    }

    /// Notes that a worker's task has ended, and starts what waited for it.
    pub fn ended(&self, uid: &PodUid, end: WorkerEnd) {
        if end == WorkerEnd::Stopped {
            return;
        }
        let mut state = self.state();
        let Some(handle) = state.workers.remove(uid) else { return };
        if let Some(queue) = state.names.get_mut(&handle.key) {
            queue.waiting.retain(|waiting| waiting != uid);
            if queue.holder.as_ref() == Some(uid) {
                queue.holder = None;
            }
            if queue.holder.is_none() && queue.waiting.is_empty() {
                state.names.remove(&handle.key);
            }
        }
        if end == WorkerEnd::Panicked {
            let record = self.env.records.load(uid.as_str()).value;
            self.spawn(&mut state, uid.clone(), handle.full_name, handle.pod, record);
            if let (Some(new), Some((reason, grace))) = (state.workers.get_mut(uid), handle.removing) {
                new.again = handle.again;
                new.remove(reason, grace);
            }
        } else if let Some(pod) = handle.again {
            drop(state);
            self.update([pod]);
            return;
        }
        drop(state);
        self.admit();
    }

    /// Has a pod's worker look again.
    pub fn wake(&self, uid: &PodUid) {
        if let Some(handle) = self.state().workers.get(uid) {
            handle.mailbox.wake();
        }
    }

    /// Has all workers look again.
    pub fn wake_all(&self) {
        self.state().workers.values().for_each(|handle| handle.mailbox.wake());
    }

    /// Waits until every worker has ended its present step, after the stop was told.
    pub async fn wait(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Has a pod stopped that the API server has deleted. It says how long it may take, also when that becomes less.
fn end_deleted(handle: &Handle, pod: &Pod) {
    if pod.metadata.deletion_timestamp.is_some() && !pod.is_static() {
        handle.mailbox.stop(StopReason::Deleted, pod_grace(pod));
    }
}

/// The name of a pod of which nothing but the UID is left.
fn unnamed(uid: &PodUid) -> PodFullName {
    PodFullName::new("", uid.as_str())
}
