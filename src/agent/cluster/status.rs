//! What the agent writes of pods: their statuses, the mirrors of static pods, and the last word on deleted ones.
//!
//! One task decides for every pod what is to be written next, from the pod as the agent shows it now and as the server
//! has it; a request a pod at a time, some pods at once. Nothing queues: who was busy or could not be reached finds the
//! latest state when its turn comes, so that many changes are one request. Workers never wait for any of it.
//!
//! What the server has is its watch's last word, or the answer to the last write where that is newer. A status that
//! does not differ is not written, and one that the server did not take as it was sent is not sent again.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::{Node, Pod, PodStatus};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{mirror, retry::jitter};
use crate::{
    agent::{pods::env::PodEnv, sources::api::ServerPods},
    api::{
        PodExt as _, PodFullName, PodUid,
        view::{PodEnd, PodView},
    },
    kube::{ApiServer, Clients, told},
    policy::{
        backoff::RetryBackoff,
        status::{dropped, merge_status, our_part, status_patch, was_sent, without},
    },
    telemetry::metrics,
};

/// Requests at once.
const AT_ONCE: usize = 8;
/// Between tries for one pod. Tried for as long as the pod is there.
const RETRY: RetryBackoff = RetryBackoff::new(Duration::from_millis(500), Duration::from_secs(30));

/// How long a pod that the server says it has not may still be in what its watch has told.
const WATCH_LAG: Duration = Duration::from_secs(30);

/// The task. See the module.
pub struct StatusWriter {
    api: ApiServer,
    env: Arc<PodEnv>,
    node_name: Arc<str>,
    server: watch::Receiver<Arc<ServerPods>>,
    /// Whether all other sources were read, so that a mirror that no static pod is behind may go.
    static_pods_known: Box<dyn Fn() -> bool + Send + Sync>,
    pods: HashMap<PodUid, Entry>,
    /// Static pods by name, so that their mirrors are found.
    names: HashMap<PodFullName, PodUid>,
    /// Fields that the server does not know.
    dropped: BTreeSet<String>,
    lists: u64,
    busy: JoinSet<(PodUid, Done)>,
    due: BTreeSet<(Instant, PodUid)>,
}

/// What is known of the writing for one pod.
#[derive(Default)]
struct Entry {
    /// A request is under way.
    busy: bool,
    /// The answer to the last write.
    answer: Option<Arc<Pod>>,
    /// What the server has no more, though its watch may not have told so yet, and when it said so.
    gone: Option<(PodUid, Instant)>,
    /// Our part as it was sent last, and as the server had it after that.
    sent: Option<(Value, Value)>,
    backoff: Option<RetryBackoff>,
    /// Since when it differs from what the server has.
    changed: Option<Instant>,
    /// As last told, so that it is told once.
    problem: Option<String>,
}

impl Entry {
    /// Whether the server has said that it has this pod no more. If its watch still has it long after, it was not so:
    /// what stands before a server that starts answers so as well.
    fn is_gone(&self, uid: &PodUid) -> bool {
        self.gone.as_ref().is_some_and(|(gone, at)| gone == uid && at.elapsed() < WATCH_LAG)
    }
}

/// A request.
#[derive(Debug, Clone, PartialEq)]
enum Write {
    /// Of the status: the patch, and our part of it as it is to be.
    Status { of: Target, patch: Value, wanted: Value },
    /// The last of a deleted pod, or a mirror that is none any more.
    Delete(Target),
    /// The mirror of a static pod.
    Create(Box<Pod>),
}

/// A pod at the server.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    name: PodFullName,
    uid: PodUid,
}

/// How a request ended.
enum Done {
    Written { patch: Value, wanted: Value, answer: Box<Pod> },
    Created(Box<Pod>),
    Gone(PodUid),
    Failed(String),
}

impl StatusWriter {
    /// One that has not begun.
    pub fn new(
        api: ApiServer,
        env: Arc<PodEnv>,
        node_name: Arc<str>,
        server: watch::Receiver<Arc<ServerPods>>,
        static_pods_known: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            api,
            env,
            node_name,
            server,
            static_pods_known: Box::new(static_pods_known),
            pods: HashMap::new(),
            names: HashMap::new(),
            dropped: BTreeSet::new(),
            lists: 0,
            busy: JoinSet::new(),
            due: BTreeSet::new(),
        }
    }

    /// Writes until stopped. Before the server has listed its pods there is nothing to write to.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut news = self.env.board.follow();
        let (mut node, mut owner) = (self.env.server_node.clone(), None);
        let mut known = Arc::clone(&self.server.borrow_and_update());
        loop {
            let due = self.due.first().map(|(at, _)| *at);
            tokio::select! {
                () = stop.cancelled() => return,
                Some(uid) = news.recv() => self.shown(uid, &mut news),
                Ok(()) = self.server.changed() => {
                    let now = Arc::clone(&self.server.borrow_and_update());
                    self.heard(&known, &now);
                    known = now;
                }
                // Mirrors name the node as their owner, and wait for it.
                () = registered(&mut node, &mut owner) => {
                    let all: Vec<PodUid> = self.names.values().cloned().collect();
                    all.into_iter().for_each(|uid| self.look(uid));
                }
                Some(done) = self.busy.join_next() => match done {
                    Ok((uid, done)) => self.done(&uid, done),
                    Err(error) => tracing::error!("writing a pod's status failed, which is a bug of nodectl: {error}"),
                },
                () = until(due) => {}
            }
            self.dispatch();
        }
    }

    /// The agent shows something else of pods.
    fn shown(&mut self, first: PodUid, news: &mut mpsc::UnboundedReceiver<PodUid>) {
        let mut uids = HashSet::from([first]);
        while let Ok(uid) = news.try_recv() {
            uids.insert(uid);
        }
        for uid in uids {
            match self.env.board.get(&uid) {
                Some(view) if view.pod.is_static() => {
                    // The later of two with one name waits until the former is gone.
                    self.names.entry(view.pod.full_name()).or_insert_with(|| uid.clone());
                    self.look(uid);
                }
                Some(_) => self.look(uid),
                None => self.left(&uid),
            }
        }
    }

    /// The agent has nothing of the pod any more.
    fn left(&mut self, uid: &PodUid) {
        if !self.pods.get(uid).is_some_and(|entry| entry.busy) {
            self.pods.remove(uid);
        }
        let name = self.names.iter().find(|(_, holder)| *holder == uid).map(|(name, _)| name.clone());
        let Some(name) = name else { return };
        self.names.remove(&name);
        let next = self.env.board.all().into_iter().find(|v| v.pod.is_static() && v.pod.full_name() == name);
        if let Some(next) = next {
            self.names.insert(name.clone(), next.uid.clone());
            self.look(next.uid);
        }
        let mirror = self.server.borrow().mirrors.get(&name).map(|mirror| mirror.uid());
        if let Some(mirror) = mirror {
            self.look(mirror);
        }
    }

    /// The server tells something else of pods.
    fn heard(&mut self, before: &ServerPods, now: &ServerPods) {
        if now.lists != self.lists {
            // It may be another server, or a newer one, that knows more.
            self.lists = now.lists;
            self.dropped.clear();
        }
        let changed = |uid: &PodUid, pod: &Arc<Pod>| {
            !before.listed || before.pods.get(uid).is_none_or(|old| !Arc::ptr_eq(old, pod))
        };
        let pods = now.pods.iter().filter(|(uid, pod)| changed(uid, pod)).map(|(uid, _)| uid.clone());
        let mut look: Vec<PodUid> = pods.collect();
        for (name, mirror) in &now.mirrors {
            if before.mirrors.get(name).is_none_or(|old| !Arc::ptr_eq(old, mirror)) {
                look.push(self.names.get(name).cloned().unwrap_or_else(|| mirror.uid()));
            }
        }
        let gone = before.mirrors.keys().filter(|name| !now.mirrors.contains_key(name));
        for uid in gone.filter_map(|name| self.names.get(name).cloned()) {
            if let Some(entry) = self.pods.get_mut(&uid) {
                entry.answer = None;
            }
            look.push(uid);
        }
        if !before.listed {
            look.extend(self.names.values().cloned());
        }
        look.into_iter().for_each(|uid| self.look(uid));
    }

    /// Has it decided what to write for a pod, unless it waits for its next try.
    fn look(&mut self, uid: PodUid) {
        let entry = self.pods.entry(uid.clone()).or_default();
        if !entry.busy && entry.backoff.is_none() {
            self.due.insert((Instant::now(), uid));
        }
    }

    fn dispatch(&mut self) {
        let Some(clients) = self.api.current() else { return };
        let now = Instant::now();
        while self.busy.len() < AT_ONCE {
            let Some((at, uid)) = self.due.first().cloned().filter(|(at, _)| *at <= now) else { return };
            self.due.remove(&(at, uid.clone()));
            let write = self.decide(&uid);
            let Some(entry) = self.pods.get_mut(&uid) else { continue };
            if entry.busy {
                continue;
            }
            match write {
                Ok(Some(write)) => {
                    entry.busy = true;
                    entry.changed.get_or_insert(now);
                    let clients = clients.clone();
                    self.busy.spawn(async move { (uid, send(&clients, write).await) });
                }
                Ok(None) if self.env.board.get(&uid).is_none() => {
                    self.pods.remove(&uid);
                }
                Ok(None) => entry.backoff = None,
                Err(retry) => self.retry(&uid, &retry),
            }
        }
    }

    /// What to write for a pod now; an error is why it cannot be told yet.
    fn decide(&self, uid: &PodUid) -> Result<Option<Write>, String> {
        let server = Arc::clone(&self.server.borrow());
        if !server.listed {
            return Ok(None);
        }
        let view = self.env.board.get(uid);
        if let Some(view) = view.filter(|view| view.pod.is_static()) {
            return self.decide_static(&server, &view);
        }
        if let Some(mirror) = server.mirrors.values().find(|mirror| mirror.uid() == *uid) {
            let is_gone = self.pods.get(uid).is_some_and(|entry| entry.is_gone(uid));
            let orphan = !self.names.contains_key(&mirror.full_name());
            return match (orphan && !is_gone, (self.static_pods_known)()) {
                (true, true) => Ok(Some(Write::Delete(target(mirror)))),
                (true, false) => Err(String::new()),
                (false, _) => Ok(None),
            };
        }
        let (Some(there), Some(view)) = (self.newest(uid, server.pods.get(uid)), self.env.board.get(uid))
        else {
            return Ok(None);
        };
        if let Some(write) = self.status(uid, &there, &view) {
            return Ok(Some(write));
        }
        let over = there.metadata.deletion_timestamp.is_some() && view.end == PodEnd::Released;
        Ok(over.then(|| Write::Delete(target(&there))))
    }

    fn decide_static(&self, server: &ServerPods, view: &PodView) -> Result<Option<Write>, String> {
        let name = view.pod.full_name();
        if self.names.get(&name) != Some(&view.uid) {
            return Ok(None);
        }
        let Some(there) = self.newest(&view.uid, server.mirrors.get(&name)) else {
            // One that is there, and not a mirror, is in the way until somebody deletes it.
            let Some(node) = self.env.server_node() else { return Ok(None) };
            return Ok(Some(Write::Create(Box::new(mirror::mirror_of(&view.pod, &self.node_name, &node)))));
        };
        if there.metadata.deletion_timestamp.is_some() || !mirror::is_of(&there, &view.pod) {
            return Ok(Some(Write::Delete(target(&there))));
        }
        Ok(self.status(&view.uid, &there, view))
    }

    /// What the server has, by its watch or by its answer.
    fn newest(&self, uid: &PodUid, there: Option<&Arc<Pod>>) -> Option<Arc<Pod>> {
        let version = |pod: &Pod| pod.metadata.resource_version.as_ref().and_then(|v| v.parse::<u64>().ok());
        let entry = self.pods.get(uid);
        let answer = entry.and_then(|entry| entry.answer.as_ref());
        let is_gone = |pod: &Pod| entry.is_some_and(|entry| entry.is_gone(&pod.uid()));
        match (there.filter(|there| !is_gone(there)), answer) {
            (Some(there), Some(answer)) if version(answer) > version(there) => Some(Arc::clone(answer)),
            (Some(there), _) => Some(Arc::clone(there)),
            // A mirror that was just made.
            (None, answer) => answer.filter(|pod| mirror::is_mirror(pod)).map(Arc::clone),
        }
    }

    /// The change of the status, if there is any that the server would take.
    fn status(&self, uid: &PodUid, there: &Pod, view: &PodView) -> Option<Write> {
        // A pod that runs would be told as one that does not.
        if !view.observed {
            return None;
        }
        let nothing = PodStatus::default();
        let has = there.status.as_ref().unwrap_or(&nothing);
        let part = |status: &PodStatus| {
            let mut part = our_part(status);
            without(&mut part, &self.dropped);
            part
        };
        let (wanted, has) =
            (part(&merge_status(&view.pod, has, &view.status, view.end == PodEnd::No)), part(has));
        let sent = self.pods.get(uid).and_then(|entry| entry.sent.as_ref());
        if sent.is_some_and(|(sent, answer)| *sent == wanted && *answer == has) {
            return None;
        }
        let patch = status_patch(&has, &wanted)?;
        Some(Write::Status { of: target(there), patch, wanted })
    }

    fn done(&mut self, uid: &PodUid, done: Done) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        entry.busy = false;
        match done {
            Done::Written { patch, wanted, mut answer } => {
                answer.metadata.managed_fields = None;
                entry.changed.take().into_iter().for_each(|at| metrics::status_written(at.elapsed()));
                let nothing = PodStatus::default();
                let status = answer.status.as_ref().unwrap_or(&nothing);
                self.env.starts.written(uid, status, self.env.clock.now());
                let mut part = our_part(status);
                for field in dropped(&wanted, &part) {
                    tracing::debug!(field, "the API server does not know a field of a pod's status");
                    self.dropped.insert(field);
                }
                without(&mut part, &self.dropped);
                let mut wanted = wanted;
                without(&mut wanted, &self.dropped);
                // What somebody else has written since the server was last heard is set right with the next one.
                let taken = status_patch(&part, &wanted).is_none_or(|rest| was_sent(&rest, &patch));
                entry.sent = taken.then_some((wanted, part));
                entry.answer = Some(Arc::new(*answer));
                self.well(uid);
            }
            Done::Created(mut answer) => {
                answer.metadata.managed_fields = None;
                entry.answer = Some(Arc::new(*answer));
                self.well(uid);
            }
            Done::Gone(gone) => {
                entry.answer = None;
                entry.sent = None;
                let now = Instant::now();
                entry.gone = Some((gone, now));
                self.due.insert((now + WATCH_LAG, uid.clone()));
                self.well(uid);
            }
            Done::Failed(problem) => self.retry(uid, &problem),
        }
    }

    fn well(&mut self, uid: &PodUid) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        entry.backoff = None;
        entry.problem = None;
        // Also to see whether anything is left to do after it, such as the deletion after the last status.
        self.look(uid.clone());
    }

    fn retry(&mut self, uid: &PodUid, problem: &str) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        if entry.problem.as_deref() != Some(problem) && !problem.is_empty() {
            let name = self.env.board.get(uid).map(|view| view.pod.full_name().to_string());
            tracing::warn!(%uid, pod = name.unwrap_or_default(), "cannot write to the API server, trying again: {problem}");
        }
        entry.problem = Some(problem.to_owned());
        let wait = jitter(entry.backoff.get_or_insert(RETRY).fail());
        self.due.insert((Instant::now() + wait, uid.clone()));
    }
}

/// Waits until the node is another at the server, or there for the first time.
async fn registered(node: &mut Option<watch::Receiver<Arc<Node>>>, owner: &mut Option<String>) {
    let Some(node) = node else { return std::future::pending().await };
    let other = node.wait_for(|node| node.metadata.uid.is_some() && node.metadata.uid != *owner).await;
    let Ok(other) = other.map(|node| node.metadata.uid.clone()) else { return std::future::pending().await };
    *owner = other;
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

fn target(pod: &Pod) -> Target {
    Target { name: pod.full_name(), uid: pod.uid() }
}

async fn send(clients: &Clients, write: Write) -> Done {
    let pods = |name: &PodFullName| Api::<Pod>::namespaced(clients.objects.clone(), &name.namespace);
    let uid = match &write {
        Write::Status { of, .. } | Write::Delete(of) => Some(of.uid.clone()),
        Write::Create(_) => None,
    };
    let answer = match write {
        Write::Status { of, patch, wanted } => {
            // The UID keeps it from another pod that has the name by now.
            let sent = json!({ "metadata": { "uid": of.uid.as_str() }, "status": &patch });
            let params = PatchParams::default();
            let answer = pods(&of.name).patch_status(&of.name.name, &params, &Patch::Strategic(sent)).await;
            answer.map(|answer| Done::Written { patch, wanted, answer: Box::new(answer) })
        }
        Write::Delete(of) => {
            let params = DeleteParams {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions { uid: Some(of.uid.to_string()), resource_version: None }),
                ..DeleteParams::default()
            };
            pods(&of.name).delete(&of.name.name, &params).await.map(|_| Done::Gone(of.uid))
        }
        Write::Create(pod) => {
            let created = pods(&pod.full_name()).create(&PostParams::default(), &pod).await;
            created.map(|created| Done::Created(Box::new(created)))
        }
    };
    match (answer, uid) {
        (Ok(done), _) => done,
        (Err(error), Some(uid)) if is_another(&error) => Done::Gone(uid),
        (Err(error), _) => Done::Failed(told(&error)),
    }
}

/// Whether the pod is not there, or another has its name.
fn is_another(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => {
            status.code == 404 || (status.code == 409 && status.message.contains("Precondition failed"))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_the_server_goes_on_telling_of_is_not_gone() {
        let uid = PodUid::from("1");
        let entry = Entry { gone: Some((uid.clone(), Instant::now())), ..Entry::default() };
        assert!(entry.is_gone(&uid));
        assert!(!entry.is_gone(&"2".into()));
        tokio::time::advance(WATCH_LAG).await;
        assert!(!entry.is_gone(&uid));
    }
}
