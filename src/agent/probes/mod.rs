//! Runs the probes of all pods: one task that waits for the next that is due, and a short task for each run
//! under way, of which there are only so many at once. Between its runs a probe is an entry of a few hundred
//! bytes in a map. Workers say what is wanted and read what came of it; see [`crate::policy::probe`] for what
//! that means.

mod grpc;
pub(crate) mod http;
mod run;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

pub(crate) use run::request;

use super::{clock::Clock, pods::mailbox::Mailbox};
use crate::{
    api::{ContainerId, PodExt as _, PodUid},
    cri::Cri,
    policy::probe::{Kept, ProbeKind, ProbeResult, ProbeRow, Verdicts, WantedProbe, first_run, period},
};

/// What the agent calls itself to those it probes.
pub(crate) const PROBE_AGENT: &str = "kube-probe/1.36";
/// Runs at once of each class: those through the runtime, and those over the network. A runtime that hangs
/// holds up no others.
const AT_ONCE: [usize; 2] = [16, 64];

/// All probes.
pub struct Prober {
    cri: Arc<dyn Cri>,
    clock: Clock,
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    pods: HashMap<PodUid, PodProbes>,
    /// What is due when; the number keeps apart what is due at once.
    queue: BTreeMap<(Instant, u64), Key>,
    serial: u64,
    busy: [usize; 2],
    waiting: [VecDeque<Key>; 2],
}

#[derive(Default)]
struct PodProbes {
    verdicts: BTreeMap<ContainerId, Verdicts>,
    probes: BTreeMap<(ContainerId, ProbeKind), Entry>,
}

struct Entry {
    pod: Arc<Pod>,
    wanted: WantedProbe,
    mailbox: Arc<Mailbox>,
    row: ProbeRow,
    /// Tells it from another of the same key that was there before.
    serial: u64,
    /// Its place in the queue; none while it runs, waits for a free place, or is on hold.
    place: Option<(Instant, u64)>,
    due: Instant,
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
        let place = (due, self.serial);
        if let Some(entry) = self.entry(&key) {
            entry.place = Some(place);
            entry.due = due;
            self.queue.insert(place, key);
        }
    }

    /// Takes an entry out of a pod's probes, and its place out of the queue.
    fn take(&mut self, uid: &PodUid, probe: &(ContainerId, ProbeKind)) {
        let entry = self.pods.get_mut(uid).and_then(|pod| pod.probes.remove(probe));
        if let Some(place) = entry.and_then(|entry| entry.place) {
            self.queue.remove(&place);
        }
    }
}

impl Prober {
    /// With nothing to probe. Nothing runs before [`Prober::run`].
    pub fn new(cri: Arc<dyn Cri>, clock: Clock) -> Arc<Self> {
        Arc::new(Self { cri, clock, state: Mutex::default(), news: Notify::new() })
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
            place: None,
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
        for place in pod.probes.into_values().filter_map(|entry| entry.place) {
            state.queue.remove(&place);
        }
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

    /// Begins all that is due, and answers when the next is.
    fn begin_due(self: &Arc<Self>) -> Option<Instant> {
        let mut state = self.state();
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

    /// Begins a run, or has it wait for a free place.
    fn begin(self: &Arc<Self>, state: &mut State, key: Key) {
        let Some(entry) = state.entry(&key) else { return };
        entry.place = None;
        let (pod, wanted) = (Arc::clone(&entry.pod), entry.wanted.clone());
        let probe = wanted.container(&pod).and_then(|container| wanted.kind.of(container));
        let class = usize::from(probe.is_some_and(|probe| probe.exec.is_none()));
        if state.busy[class] >= AT_ONCE[class] {
            state.waiting[class].push_back(key);
            return;
        }
        state.busy[class] += 1;
        let (this, slot) = (Arc::clone(self), Slot { prober: Arc::clone(self), class });
        tokio::spawn(async move {
            if let Some(container) = wanted.container(&pod)
                && let Some(probe) = wanted.kind.of(container)
            {
                let run = Box::pin(run::run(&*this.cri, probe, container, wanted.id.as_str(), wanted.ip));
                let result = run.await;
                this.done(&key, &pod, &wanted, result);
            }
            drop(slot);
        });
    }

    fn done(&self, key: &Key, pod: &Pod, wanted: &WantedProbe, result: ProbeResult) {
        let Some(container) = wanted.container(pod) else { return };
        let Some(probe) = wanted.kind.of(container) else { return };
        let (name, kind) = (&container.name, wanted.kind.as_str());
        let mut state = self.state();
        let Some(entry) = state.entry(key) else { return };
        let next = (entry.due + period(probe)).max(Instant::now());
        let before = entry.row;
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
        if !over {
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

/// A place among the runs under way; whatever becomes of the run, it is given on.
struct Slot {
    prober: Arc<Prober>,
    class: usize,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.prober.state();
        state.busy[self.class] -= 1;
        while state.busy[self.class] < AT_ONCE[self.class]
            && let Some(key) = state.waiting[self.class].pop_front()
        {
            self.prober.begin(&mut state, key);
        }
    }
}

#[cfg(test)]
#[path = "prober_tests.rs"]
mod tests;
