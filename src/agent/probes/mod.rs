//! Runs the probes of all pods: one task that waits for the next that is due, and a task for each run under way.
//! Between its runs a probe is an entry of a few hundred bytes in a map. Workers say what is wanted and read what
//! came of it; see [`crate::policy::probe`] for what that means.
//!
//! Only so many runs begin at once. One counts as beginning until it ends or has been under way for a second:
//! nothing bounds a probe's time, and the commands of one pod that hang must not keep the others from being
//! probed. What runs longer is bounded all the same: a probe has one run at a time, which keeps no more than the
//! begin of what a container says, and which ends with its container.

mod grpc;
pub(crate) mod http;
mod lookup;
mod run;

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

pub(crate) use run::{cut, request};

use super::{clock::Clock, events::EventRecorder, pods::mailbox::Mailbox};
use crate::{
    api::{ContainerId, PodExt as _, PodUid},
    cri::Cri,
    policy::{
        events::{probe_errored, probe_failed, probe_warning},
        probe::{Kept, ProbeKind, ProbeResult, ProbeRow, Verdicts, WantedProbe, first_run, period},
    },
    telemetry::metrics::{self, ProbeOf, ProbeOutcome},
};

/// What the agent calls itself to those it probes.
pub(crate) const PROBE_AGENT: &str = "kube-probe/1.36";
/// Runs of each class that begin at once: those through the runtime, and those over the network. A runtime that
/// hangs holds up no others.
const AT_ONCE: [usize; 2] = [16, 64];
/// How long a run counts as one that begins.
const BEGINNING: Duration = Duration::from_secs(1);

/// All probes.
pub struct Prober {
    cri: Arc<dyn Cri>,
    clock: Clock,
    events: EventRecorder,
    state: Mutex<State>,
    /// Places for runs that begin.
    places: [Arc<Semaphore>; 2],
    news: Arc<Notify>,
}

#[derive(Default)]
struct State {
    pods: HashMap<PodUid, PodProbes>,
    /// What is due when; the number keeps apart what is due at once.
    queue: BTreeMap<(Instant, u64), Key>,
    serial: u64,
    /// What is due and waits for others to have begun, by turn. Pods take turns: one that has much waiting is
    /// served no more often than one that has little.
    waiting: [BTreeMap<(u64, u64), Key>; 2],
    /// The last turn served.
    turn: [u64; 2],
}

#[derive(Default)]
struct PodProbes {
    verdicts: BTreeMap<ContainerId, Verdicts>,
    probes: BTreeMap<(ContainerId, ProbeKind), Entry>,
    /// The turn of the last that began to wait.
    turn: [u64; 2],
}

struct Entry {
    pod: Arc<Pod>,
    wanted: WantedProbe,
    mailbox: Arc<Mailbox>,
    row: ProbeRow,
    /// Tells it from another of the same key that was there before.
    serial: u64,
    place: Place,
    due: Instant,
}

/// Where an entry's probe is.
enum Place {
    /// In the queue.
    Due(Instant, u64),
    /// Among the waiting of a class.
    Waits(usize, (u64, u64)),
    /// Its task, which ends with the entry.
    Runs { _task: AbortOnDropHandle<()> },
    /// It is over, or about to be put somewhere.
    Nowhere,
}

#[derive(Clone)]
struct Key {
    uid: PodUid,
    probe: (ContainerId, ProbeKind),
    serial: u64,
}

impl State {
    fn entry(&mut self, key: &Key) -> Option<&mut Entry> {
        let entry = self.pods.get_mut(&key.uid)?.probes.get_mut(&key.probe)?;
        (entry.serial == key.serial).then_some(entry)
    }

    fn enqueue(&mut self, key: Key, due: Instant) {
        self.serial += 1;
        let serial = self.serial;
        if let Some(entry) = self.entry(&key) {
            entry.place = Place::Due(due, serial);
            entry.due = due;
            self.queue.insert((due, serial), key);
        }
    }

    /// Has an entry wait for a place among those that begin.
    fn wait(&mut self, key: Key, class: usize) {
        self.serial += 1;
        let (serial, last) = (self.serial, self.turn[class]);
        let Some(pod) = self.pods.get_mut(&key.uid) else { return };
        pod.turn[class] = pod.turn[class].max(last) + 1;
        let turn = (pod.turn[class], serial);
        if let Some(entry) = self.entry(&key) {
            entry.place = Place::Waits(class, turn);
            self.waiting[class].insert(turn, key);
        }
    }

    /// Takes an entry out of a pod's probes, and out of where it waits. What runs of it ends.
    fn take(&mut self, uid: &PodUid, probe: &(ContainerId, ProbeKind)) {
        if let Some(entry) = self.pods.get_mut(uid).and_then(|pod| pod.probes.remove(probe)) {
            self.drop_place(&entry.place);
        }
    }

    fn drop_place(&mut self, place: &Place) {
        match place {
            Place::Due(due, serial) => drop(self.queue.remove(&(*due, *serial))),
            Place::Waits(class, turn) => drop(self.waiting[*class].remove(turn)),
            Place::Runs { .. } | Place::Nowhere => {}
        }
    }
}

impl Prober {
    /// With nothing to probe. Nothing runs before [`Prober::run`].
    pub fn new(cri: Arc<dyn Cri>, clock: Clock, events: EventRecorder) -> Arc<Self> {
        let places = AT_ONCE.map(|count| Arc::new(Semaphore::new(count)));
        Arc::new(Self { cri, clock, events, state: Mutex::default(), places, news: Arc::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over what an earlier agent found.
    pub fn adopt(&self, uid: &PodUid, kept: &BTreeMap<ContainerId, Kept>) {
        if kept.is_empty() {
            return;
        }
        let mut state = self.state();
        let pod = state.pods.entry(uid.clone()).or_default();
        for (id, kept) in kept {
            pod.verdicts.entry(id.clone()).or_insert_with(|| (*kept).into());
        }
    }

    /// What was found of a pod's containers.
    pub fn verdicts(&self, uid: &PodUid) -> BTreeMap<ContainerId, Verdicts> {
        self.state().pods.get(uid).map(|pod| pod.verdicts.clone()).unwrap_or_default()
    }

    /// These probes of a pod are to run from now on, and no others; who reads the mailbox is told of each new
    /// verdict. Verdicts on containers that `known` does not hold are forgotten.
    pub(crate) fn want(
        &self,
        pod: &Arc<Pod>,
        wanted: Vec<WantedProbe>,
        mailbox: &Arc<Mailbox>,
        known: impl Fn(&ContainerId) -> bool,
    ) {
        let uid = pod.uid();
        let mut state = self.state();
        if wanted.is_empty() && !state.pods.contains_key(&uid) {
            return;
        }
        let probes = state.pods.entry(uid.clone()).or_default();
        probes.verdicts.retain(|id, _| known(id));
        let is_wanted =
            |key: &(ContainerId, ProbeKind)| wanted.iter().any(|w| w.kind == key.1 && w.id == key.0);
        let over: Vec<_> = probes.probes.keys().filter(|key| !is_wanted(key)).cloned().collect();
        over.iter().for_each(|key| state.take(&uid, key));
        let mut added = false;
        for wanted in wanted {
            added |= self.add(&mut state, &uid, pod, wanted, mailbox);
        }
        if state.pods.get(&uid).is_some_and(|pod| pod.probes.is_empty() && pod.verdicts.is_empty()) {
            state.pods.remove(&uid);
            metrics::forget_probes(uid.as_str());
        }
        drop(state);
        if added {
            self.news.notify_one();
        }
    }

    fn add(
        &self,
        state: &mut State,
        uid: &PodUid,
        pod: &Arc<Pod>,
        wanted: WantedProbe,
        mailbox: &Arc<Mailbox>,
    ) -> bool {
        let Some(probe) = wanted.container(pod).and_then(|container| wanted.kind.of(container)) else {
            return false;
        };
        let key = (wanted.id.clone(), wanted.kind);
        let running = self.clock.now().duration_since(wanted.started_at);
        let mut hasher = DefaultHasher::new();
        (wanted.id.as_str(), wanted.kind).hash(&mut hasher);
        let first =
            first_run(probe, wanted.kind, Duration::try_from(running).unwrap_or_default(), hasher.finish());
        state.serial += 1;
        let serial = state.serial;
        let Some(probes) = state.pods.get_mut(uid) else { return false };
        if let Some(entry) = probes.probes.get_mut(&key) {
            entry.pod = Arc::clone(pod);
            entry.mailbox = Arc::clone(mailbox);
            entry.wanted = wanted;
            return false;
        }
        let due = Instant::now() + first;
        let entry = Entry {
            pod: Arc::clone(pod),
            wanted,
            mailbox: Arc::clone(mailbox),
            row: ProbeRow::default(),
            serial,
            place: Place::Nowhere,
            due,
        };
        probes.probes.insert(key.clone(), entry);
        state.enqueue(Key { uid: uid.clone(), probe: key, serial }, due);
        true
    }

    /// A pod is gone.
    pub fn forget(&self, uid: &PodUid) {
        let mut state = self.state();
        let Some(pod) = state.pods.remove(uid) else { return };
        metrics::forget_probes(uid.as_str());
        pod.probes.values().for_each(|entry| state.drop_place(&entry.place));
    }

    /// How many probes there are.
    pub fn count(&self) -> usize {
        self.state().pods.values().map(|pod| pod.probes.len()).sum()
    }

    /// Runs what is due until stopped.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let next = self.begin_due();
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.news.notified() => {}
                () = async { match next {
                    Some(due) => tokio::time::sleep_until(due).await,
                    None => std::future::pending().await,
                } } => {}
            }
        }
    }

    /// Begins what waits as far as there are places, then all that is due, and answers when the next is.
    fn begin_due(self: &Arc<Self>) -> Option<Instant> {
        let mut state = self.state();
        for class in 0..AT_ONCE.len() {
            while self.places[class].available_permits() > 0
                && let Some(((turn, _), key)) = state.waiting[class].pop_first()
            {
                state.turn[class] = turn;
                self.begin(&mut state, key);
            }
        }
        let now = Instant::now();
        loop {
            let first = state.queue.first_entry()?;
            if first.key().0 > now {
                return Some(first.key().0);
            }
            let key = first.remove();
            self.begin(&mut state, key);
        }
    }

    /// Begins a run, or has it wait while too many begin.
    fn begin(self: &Arc<Self>, state: &mut State, key: Key) {
        let Some(entry) = state.entry(&key) else { return };
        let (pod, wanted) = (Arc::clone(&entry.pod), entry.wanted.clone());
        let probe = wanted.container(&pod).and_then(|container| wanted.kind.of(container));
        let class = usize::from(probe.is_some_and(|probe| probe.exec.is_none()));
        let Ok(place) = Arc::clone(&self.places[class]).try_acquire_owned() else {
            state.wait(key, class);
            return;
        };
        let beginning = Beginning { place: Some(place), news: Arc::clone(&self.news) };
        let (this, of) = (Arc::clone(self), key.clone());
        let task = tokio::spawn(async move {
            let Some(container) = wanted.container(&pod) else { return };
            let Some(probe) = wanted.kind.of(container) else { return };
            let began = Instant::now();
            let mut run = Box::pin(run::run(&*this.cri, probe, container, wanted.id.as_str(), wanted.ip));
            let soon = tokio::time::timeout(BEGINNING, &mut run).await;
            drop(beginning);
            let result = match soon {
                Ok(result) => result,
                Err(_elapsed) => run.await,
            };
            this.done(&of, (&pod, &wanted), result, began.elapsed());
        });
        if let Some(entry) = state.entry(&key) {
            entry.place = Place::Runs { _task: AbortOnDropHandle::new(task) };
        }
    }

    fn done(&self, key: &Key, (pod, wanted): (&Pod, &WantedProbe), result: ProbeResult, took: Duration) {
        let Some(container) = wanted.container(pod) else { return };
        let Some(probe) = wanted.kind.of(container) else { return };
        let (name, kind) = (&container.name, wanted.kind.as_str());
        let mut state = self.state();
        let Some(entry) = state.entry(key) else { return };
        note(&key.uid, pod, (name, wanted.kind), &result, took);
        let next = (entry.due + period(probe)).max(Instant::now());
        let before = entry.row;
        let words = match &result {
            ProbeResult::Success(said) if said.is_empty() => None,
            ProbeResult::Success(said) => Some(probe_warning(wanted.kind, said)),
            ProbeResult::Failure(said) => Some(probe_failed(wanted.kind, said)),
            ProbeResult::Unknown(said) => Some(probe_errored(wanted.kind, said)),
        };
        words.into_iter().for_each(|words| self.events.container(pod, name, words));
        let (verdict, said) = match result {
            ProbeResult::Success(said) => (entry.row.step(probe, true), said),
            ProbeResult::Failure(said) => (entry.row.step(probe, false), said),
            ProbeResult::Unknown(said) => {
                tracing::debug!(pod = %pod.full_name(), container = name, "{kind} probe could not be run: {said}");
                state.enqueue(key.clone(), next);
                return;
            }
        };
        let mailbox = Arc::clone(&entry.mailbox);
        let passed = !entry.row.last_failed();
        if !passed && !before.last_failed() {
            tracing::info!(pod = %pod.full_name(), container = name, id = %wanted.id, "{kind} probe failed: {said}");
        }
        let Some(pod_probes) = state.pods.get_mut(&key.uid) else { return };
        let verdicts = pod_probes.verdicts.entry(wanted.id.clone()).or_default();
        if passed != verdicts.said.is_empty() {
            verdicts.said = if passed { "".into() } else { said.as_str().into() };
        }
        let changed = verdict.is_some_and(|passed| verdicts.set(wanted.kind, passed));
        let over = verdict.is_some_and(|passed| match wanted.kind {
            ProbeKind::Startup => true,
            ProbeKind::Liveness => !passed,
            ProbeKind::Readiness => false,
        });
        if over {
            if let Some(entry) = state.entry(key) {
                entry.place = Place::Nowhere;
            }
        } else {
            state.enqueue(key.clone(), next);
        }
        drop(state);
        self.news.notify_one();
        if changed {
            if let Some(passed) = verdict {
                tracing::info!(pod = %pod.full_name(), container = name, id = %wanted.id, passed, "{kind} probe's verdict");
            }
            mailbox.probed();
        }
    }
}

/// Counts a run.
fn note(uid: &PodUid, pod: &Pod, (container, kind): (&str, ProbeKind), result: &ProbeResult, took: Duration) {
    let outcome = match result {
        ProbeResult::Success(_) => ProbeOutcome::Successful,
        ProbeResult::Failure(_) => ProbeOutcome::Failed,
        ProbeResult::Unknown(_) => ProbeOutcome::Unknown,
    };
    let name = pod.full_name();
    let kind = match kind {
        ProbeKind::Startup => "Startup",
        ProbeKind::Liveness => "Liveness",
        ProbeKind::Readiness => "Readiness",
    };
    let of = ProbeOf { uid: uid.as_str(), namespace: &name.namespace, pod: &name.name, container, kind };
    metrics::probed(&of, outcome, took);
}

/// A place among the runs that begin; whatever becomes of the run, it is given on.
struct Beginning {
    place: Option<OwnedSemaphorePermit>,
    news: Arc<Notify>,
}

impl Drop for Beginning {
    fn drop(&mut self) {
        self.place.take();
        self.news.notify_one();
    }
}

#[cfg(test)]
#[path = "prober_tests.rs"]
mod tests;
