//! The pod lifecycle event generator: keeps what the runtime was last seen to hold of every pod, and tells
//! the sync loop which pods changed. It alone writes observations.
//!
//! There are three ways in. A *relist* asks for everything and is the safety net; an *inspection* asks for
//! one pod and follows at once after the agent's own actions and after an event of the runtime; an *event*
//! is only a hint for an inspection. List calls tell states, status calls tell details (addresses, exit
//! codes): a status call is made only for what is new or changed its state, so a node at rest costs two
//! calls a relist.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{
    sync::{Mutex as AsyncMutex, mpsc, watch},
    time::Instant,
};

use super::{clock::Clock, pods::paths::NodePaths, termination};
use crate::{
    api::{
        ContainerState, ObservedContainer, ObservedSandbox, PodFullName, PodObservation, PodUid,
        SandboxState,
        cri::{self, Container, ContainerFilter, ContainerStatus, PodSandbox, PodSandboxFilter},
        labels,
    },
    cri::{Cri, CriError, EventKind, RuntimeEvent, observe},
    telemetry::metrics::relisted,
};

/// After an event said that a container ended, its status is asked for until it shows that: containerd 1.6
/// tells of an exit 25 to 100 ms before its CRI part has noted it.
const STALE_STATUS_CHECK: Duration = Duration::from_millis(10);
/// After so many checks the relist is left to find out.
const STALE_STATUS_CHECKS: u32 = 100;

/// Wait at least so long between two relists that events about unknown containers ask for.
const EVENT_RELIST_GAP: Duration = Duration::from_millis(200);

/// What is known of the runtime's contents.
pub struct Pleg {
    cri: Arc<dyn Cri>,
    clock: Clock,
    paths: NodePaths,
    state: Mutex<State>,
    changed: mpsc::UnboundedSender<PodUid>,
    primed: watch::Sender<bool>,
    /// Held during a relist: two at a time would double the runtime's work and tell nothing more.
    relisting: AsyncMutex<()>,
}

#[derive(Default)]
struct State {
    pods: HashMap<PodUid, Entry>,
    owners: HashMap<Arc<str>, PodUid>,
    /// Pods that an inspection found gone, and when it asked: the answer to an older question, which may
    /// come later, does not bring them back. Emptied by relists.
    gone: HashMap<PodUid, Instant>,
    relisted: Option<Instant>,
    /// Pods whose events are followed now, and whether another came meanwhile.
    following: HashMap<PodUid, bool>,
    /// Pods whose worker looks for itself.
    muted: HashSet<PodUid>,
}

struct Entry {
    observation: Arc<PodObservation>,
    /// When the question was sent whose answer this is; an answer to an older question is dropped.
    asked: Instant,
}

impl Pleg {
    /// A generator that has seen nothing yet. The receiver gets the UID of each pod whose observation
    /// changed; an entry is a few bytes and is written only on a change, so the channel is not bounded.
    pub fn new(
        cri: Arc<dyn Cri>,
        clock: Clock,
        paths: NodePaths,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<PodUid>) {
        let (changed, receiver) = mpsc::unbounded_channel();
        let pleg = Self {
            cri,
            clock,
            paths,
            state: Mutex::default(),
            changed,
            primed: watch::Sender::new(false),
            relisting: AsyncMutex::default(),
        };
        (Arc::new(pleg), receiver)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change under the lock is whole; a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Turns true with the first complete relist. Before it nobody can know what runs, and nothing may be
    /// made or removed.
    pub fn primed(&self) -> watch::Receiver<bool> {
        self.primed.subscribe()
    }

    /// The last observation of a pod; `None` if the runtime holds nothing of it.
    pub fn get(&self, uid: &PodUid) -> Option<Arc<PodObservation>> {
        self.state().pods.get(uid).map(|entry| Arc::clone(&entry.observation))
    }

    /// The last observations of all pods.
    pub fn all(&self) -> Vec<Arc<PodObservation>> {
        self.state().pods.values().map(|entry| Arc::clone(&entry.observation)).collect()
    }

    /// When the last complete relist was begun.
    pub fn relisted(&self) -> Option<Instant> {
        self.state().relisted
    }

    /// Asks the runtime for everything.
    ///
    /// # Errors
    /// When the runtime does not answer; what was known before stays.
    pub async fn relist(&self) -> Result<(), CriError> {
        let _one_at_a_time = self.relisting.lock().await;
        let asked = Instant::now();
        let (sandboxes, containers) =
            tokio::try_join!(self.cri.list_pod_sandboxes(None), self.cri.list_containers(None))?;
        let mut pods = group(&sandboxes, &containers, self.clock.now());
        for observation in pods.values_mut() {
            self.complete(observation).await?;
        }
        let before = self.relisted();
        let changed = {
            let mut state = self.state();
            let gone: Vec<PodUid> = state
                .pods
                .iter()
                .filter(|(uid, entry)| !pods.contains_key(*uid) && entry.asked < asked)
                .map(|(uid, _)| uid.clone())
                .collect();
            let mut changed: Vec<PodUid> =
                pods.into_values().filter_map(|observation| state.store(observation, asked)).collect();
            state.gone.retain(|_, at| *at > asked);
            for uid in gone {
                state.forget(&uid);
                changed.push(uid);
            }
            state.relisted = Some(asked);
            changed
        };
        self.primed.send_replace(true);
        relisted(asked.elapsed(), before.map(|before| asked.saturating_duration_since(before)));
        changed.into_iter().for_each(|uid| self.tell(uid));
        Ok(())
    }

    /// Asks the runtime for one pod.
    ///
    /// # Errors
    /// When the runtime does not answer; what was known before stays.
    pub async fn inspect(
        &self,
        uid: &PodUid,
        full_name: &PodFullName,
    ) -> Result<Arc<PodObservation>, CriError> {
        let asked = Instant::now();
        let selector = BTreeMap::from([(labels::POD_UID.to_owned(), uid.as_str().to_owned())]);
        let sandboxes = PodSandboxFilter { label_selector: selector.clone(), ..PodSandboxFilter::default() };
        let containers = ContainerFilter { label_selector: selector, ..ContainerFilter::default() };
        let (sandboxes, containers) = tokio::try_join!(
            self.cri.list_pod_sandboxes(Some(sandboxes)),
            self.cri.list_containers(Some(containers))
        )?;
        let now = self.clock.now();
        let mut observation = group(&sandboxes, &containers, now)
            .remove(uid)
            .unwrap_or_else(|| PodObservation::empty(uid.clone(), full_name.clone(), now));
        self.complete(&mut observation).await?;
        let (changed, current) = {
            let mut state = self.state();
            let changed = if observation.is_gone() {
                let newer = state.pods.get(uid).is_some_and(|entry| entry.asked > asked);
                let known = !newer && state.forget(uid);
                if known {
                    state.gone.insert(uid.clone(), asked);
                }
                known.then(|| uid.clone())
            } else {
                state.store(observation.clone(), asked)
            };
            (changed, state.pods.get(uid).map(|entry| Arc::clone(&entry.observation)))
        };
        changed.into_iter().for_each(|uid| self.tell(uid));
        Ok(current.unwrap_or_else(|| Arc::new(observation)))
    }

    /// Stops following events of a pod: its worker is ending it, and looks for itself after every step.
    pub fn mute(&self, uid: &PodUid) {
        self.state().muted.insert(uid.clone());
    }

    /// Follows events of a pod again.
    pub fn unmute(&self, uid: &PodUid) {
        self.state().muted.remove(uid);
    }

    /// Follows a hint of the runtime.
    ///
    /// # Errors
    /// When the runtime does not answer.
    pub async fn follow(&self, event: RuntimeEvent) -> Result<(), CriError> {
        // What is made and started is made and started by the agent, which looks for itself.
        if matches!(event.kind, EventKind::Created | EventKind::Started) {
            return Ok(());
        }
        let all = matches!(event.kind, EventKind::Lagged | EventKind::Reconnected);
        let known = {
            let state = self.state();
            let owner = event.pod_uid.as_deref().map(PodUid::from);
            let uid = owner.as_ref().or_else(|| state.owners.get(&*event.container_id));
            uid.and_then(|uid| state.pods.get(uid)).map(|entry| Arc::clone(&entry.observation))
        };
        let Some(known) = known.filter(|_| !all) else {
            let before = self.relisted();
            if let Some(wait) = before.and_then(|at| EVENT_RELIST_GAP.checked_sub(at.elapsed()))
                && !all
            {
                tokio::time::sleep(wait).await;
                if self.relisted() > before {
                    return Ok(());
                }
            }
            return self.relist().await;
        };
        {
            let mut state = self.state();
            if state.muted.contains(&known.uid) {
                return Ok(());
            }
            // The end of one container is told more than once: whoever is at it looks once more.
            if let Some(again) = state.following.get_mut(&known.uid) {
                *again = true;
                return Ok(());
            }
            state.following.insert(known.uid.clone(), false);
        }
        let mut result = self.look_after(&event, &known).await;
        while result.is_ok() && self.state().following.insert(known.uid.clone(), false) == Some(true) {
            result = self.inspect(&known.uid, &known.full_name).await.map(|_| ());
        }
        self.state().following.remove(&known.uid);
        result
    }

    /// Looks at a pod that an event is about.
    async fn look_after(&self, event: &RuntimeEvent, known: &PodObservation) -> Result<(), CriError> {
        let waits_for_end = event.kind == EventKind::Stopped
            && known
                .containers
                .iter()
                .any(|c| c.id.as_str() == event.container_id && c.state == ContainerState::Running);
        if waits_for_end {
            for _ in 0..STALE_STATUS_CHECKS {
                match self.cri.container_status(&event.container_id, false).await {
                    Ok(answer) if is_running(answer.status.as_ref()) => {
                        tokio::time::sleep(STALE_STATUS_CHECK).await;
                    }
                    _ => break,
                }
            }
        }
        self.inspect(&known.uid, &known.full_name).await.map(|_| ())
    }

    /// Fills in what list calls do not tell, from the last observation where the state is the same, else by
    /// asking. What was removed in between is left out.
    async fn complete(&self, observation: &mut PodObservation) -> Result<(), CriError> {
        let before = self.get(&observation.uid);
        let mut gone: HashSet<String> = HashSet::new();
        for sandbox in &mut observation.sandboxes {
            let old = before.iter().flat_map(|o| &o.sandboxes).find(|old| old.id == sandbox.id);
            match old.filter(|old| details_hold(old, sandbox)) {
                Some(old) => *sandbox = old.clone(),
                None => match self.cri.pod_sandbox_status(sandbox.id.as_str(), false).await {
                    Ok(answer) => {
                        if let Some(status) = &answer.status {
                            observe::complete_sandbox(sandbox, status);
                        }
                    }
                    Err(error) if error.is_not_found() => {
                        gone.insert(sandbox.id.to_string());
                    }
                    Err(error) => return Err(error),
                },
            }
        }
        for container in &mut observation.containers {
            let old = before.iter().flat_map(|o| &o.containers).find(|old| old.id == container.id);
            match old.filter(|old| old.state == container.state) {
                Some(old) => *container = old.clone(),
                None => match self.cri.container_status(container.id.as_str(), false).await {
                    Ok(answer) => {
                        if let Some(status) = &answer.status {
                            observe::complete_container(container, status);
                            self.add_last_words(container, status).await;
                        }
                    }
                    Err(error) if error.is_not_found() => {
                        gone.insert(container.id.to_string());
                    }
                    Err(error) => return Err(error),
                },
            }
        }
        observation.sandboxes.retain(|sandbox| !gone.contains(sandbox.id.as_str()));
        observation.containers.retain(|container| !gone.contains(container.id.as_str()));
        observation.sort();
        Ok(())
    }

    /// Adds to the runtime's message what a container that has ended said itself.
    async fn add_last_words(&self, container: &mut ObservedContainer, status: &ContainerStatus) {
        if container.state != ContainerState::Exited {
            return;
        }
        let (paths, ended, status) = (self.paths.clone(), container.clone(), status.clone());
        let said = tokio::task::spawn_blocking(move || termination::message(&ended, &status, &paths)).await;
        let said = said.unwrap_or_default();
        if !container.message.is_empty() && !said.is_empty() {
            container.message.push_str(": ");
        }
        container.message.push_str(&said);
    }

    fn tell(&self, uid: PodUid) {
        // Nobody listens once the sync loop has ended.
        self.changed.send(uid).ok();
    }
}

/// Whether the old details are still those of a sandbox with the new list entry. An address may come late.
fn details_hold(old: &ObservedSandbox, new: &ObservedSandbox) -> bool {
    old.state == new.state && (old.state != SandboxState::Ready || old.host_network || !old.ips.is_empty())
}

fn is_running(status: Option<&ContainerStatus>) -> bool {
    status.is_some_and(|status| status.state() == cri::ContainerState::ContainerRunning)
}

impl State {
    /// Keeps an observation unless a newer one is there, and answers the UID if it says something new.
    fn store(&mut self, observation: PodObservation, asked: Instant) -> Option<PodUid> {
        let uid = observation.uid.clone();
        if let Some(entry) = self.pods.get_mut(&uid) {
            if entry.asked > asked {
                return None;
            }
            entry.asked = asked;
            if entry.observation.same_as(&observation) {
                return None;
            }
        } else if self.gone.get(&uid).is_some_and(|at| *at >= asked) {
            return None;
        }
        self.disown(&uid);
        for id in ids(&observation) {
            self.owners.insert(id, uid.clone());
        }
        self.pods.insert(uid.clone(), Entry { observation: Arc::new(observation), asked });
        Some(uid)
    }

    /// Drops a pod, and answers whether there was one.
    fn forget(&mut self, uid: &PodUid) -> bool {
        self.disown(uid);
        self.pods.remove(uid).is_some()
    }

    fn disown(&mut self, uid: &PodUid) {
        if let Some(entry) = self.pods.get(uid) {
            for id in ids(&entry.observation) {
                self.owners.remove(&id);
            }
        }
    }
}

fn ids(observation: &PodObservation) -> Vec<Arc<str>> {
    let sandboxes = observation.sandboxes.iter().map(|s| s.id.as_str());
    let containers = observation.containers.iter().map(|c| c.id.as_str());
    sandboxes.chain(containers).map(Arc::from).collect()
}

/// Sorts list entries by pod. What carries no kubelet labels is somebody else's and is not looked at.
fn group(
    sandboxes: &[PodSandbox],
    containers: &[Container],
    now: Timestamp,
) -> HashMap<PodUid, PodObservation> {
    let mut pods: HashMap<PodUid, PodObservation> = HashMap::new();
    for sandbox in sandboxes {
        if let Some((uid, name)) = observe::owner(&sandbox.labels) {
            let pod = pods.entry(uid.clone()).or_insert_with(|| PodObservation::empty(uid, name, now));
            pod.sandboxes.push(observe::sandbox_from_list(sandbox));
        }
    }
    for container in containers {
        if let Some((uid, name)) = observe::owner(&container.labels) {
            let pod = pods.entry(uid.clone()).or_insert_with(|| PodObservation::empty(uid, name, now));
            pod.containers.push(observe::container_from_list(container));
        }
    }
    pods
}
