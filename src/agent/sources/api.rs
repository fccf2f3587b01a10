//! Pods of the API server: a watch on those that are bound to this node.
//!
//! What is published is always a whole list or what followed it without a gap. A server that is away, slow or has
//! forgotten where the watch was leaves the last word standing; only a complete list can take a pod away.
//!
//! The pods go two ways. The sync loop gets those that it is to run, and a new version of one only where something
//! changed that it acts on: that the status it has written itself comes back is no news. Who writes statuses gets every
//! version ([`ServerPods`]), and the mirrors of static pods, which the loop is never told of.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt as _;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::{
    Api,
    runtime::watcher::{self, Event},
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Clock, PodSource, SourceProblem, SourceSnapshot};
use crate::{
    agent::cluster::{
        offline::{Offline, SERVER_WAIT},
        retry::{RETRY, words},
        watching::{Watching, is_heard},
    },
    api::{PodExt as _, PodFullName, PodUid, labels},
    kube::{ApiServer, Clients},
    policy::status::{is_ours, is_terminal},
};

/// How long a first list waits for what pods are judged by, where the server does not have it.
const PATIENCE: Duration = Duration::from_secs(10);

/// The pods of this node as the server has them.
#[derive(Debug, Clone, Default)]
pub struct ServerPods {
    /// Whether they were ever listed.
    pub listed: bool,
    /// How often they were listed, from 1.
    pub lists: u64,
    /// The pods to run.
    pub pods: HashMap<PodUid, Arc<Pod>>,
    /// The mirrors of static pods, by name.
    pub mirrors: HashMap<PodFullName, Arc<Pod>>,
}

/// The source. See the module.
pub struct ApiSource {
    api: ApiServer,
    node_name: Arc<str>,
    clock: Clock,
    snapshots: watch::Sender<Arc<SourceSnapshot>>,
    server: watch::Sender<Arc<ServerPods>>,
    /// As last told to the loop.
    told: BTreeMap<PodUid, Arc<Pod>>,
    /// What is kept for when the server is away.
    kept: Option<Arc<Offline>>,
    /// Whether what is kept was told, and no list since.
    offline: bool,
    problem: Option<String>,
}

/// What a source gives.
pub struct ApiReceivers {
    /// The pods to run.
    pub snapshots: watch::Receiver<Arc<SourceSnapshot>>,
    /// All, as they are at the server.
    pub server: watch::Receiver<Arc<ServerPods>>,
}

impl ApiSource {
    /// A source that has not begun; `clock` is for the annotation that says when a pod was first seen.
    /// What is `kept` is told where the server is not heard within [`SERVER_WAIT`].
    pub fn new(
        api: ApiServer,
        node_name: Arc<str>,
        clock: Clock,
        kept: Option<Arc<Offline>>,
    ) -> (Self, ApiReceivers) {
        let (snapshots, told) = watch::channel(Arc::new(SourceSnapshot::unknown(PodSource::Api)));
        let (server, all) = watch::channel(Arc::new(ServerPods::default()));
        let told_last = BTreeMap::new();
        let source = Self {
            api,
            node_name,
            clock,
            snapshots,
            server,
            told: told_last,
            kept,
            offline: false,
            problem: None,
        };
        (source, ApiReceivers { snapshots: told, server: all })
    }

    /// Watches until stopped. `ready` is waited for before the first list is told, but not for ever: what pods are
    /// judged by is there then.
    pub async fn run(mut self, ready: impl Future<Output = ()>, stop: CancellationToken) {
        let mut replaced = self.api.replaced();
        let mut ready = pin!(ready.fuse());
        let mut waiting = true;
        let mut patience = None;
        let mut seen = Seen::default();
        let mut alone = pin!(alone(self.kept.clone()).fuse());
        loop {
            let clients = loop {
                tokio::select! {
                    clients = self.api.clients() => break clients,
                    () = &mut alone => self.begin_offline(&seen),
                    () = stop.cancelled() => return,
                }
            };
            replaced.mark_unchanged();
            let mut events = self.watch(&clients);
            loop {
                let event = tokio::select! {
                    event = events.next() => event,
                    Ok(()) = replaced.changed() => break,
                    () = &mut ready, if waiting => {
                        waiting = false;
                        self.publish(&seen);
                        continue;
                    }
                    () = until(patience), if waiting => {
                        waiting = false;
                        self.publish(&seen);
                        continue;
                    }
                    () = &mut alone => {
                        self.begin_offline(&seen);
                        continue;
                    }
                    () = stop.cancelled() => return,
                };
                let mut next = Some(event);
                // What has come together is told together.
                while let Some(event) = next {
                    next = match event {
                        Ok(event) => {
                            if is_heard(&event) {
                                self.problem = None;
                            }
                            seen.take(event);
                            events.next().now_or_never()
                        }
                        Err(error) => {
                            self.problem = Some(words(&error));
                            None
                        }
                    };
                }
                if waiting && patience.is_none() && seen.lists > 0 {
                    patience = Some(Instant::now() + PATIENCE);
                }
                if !waiting || (self.offline && seen.lists == 0) {
                    self.publish(&seen);
                }
            }
        }
    }

    fn watch(&self, clients: &Clients) -> Watching<Pod> {
        let config = watcher::Config::default().fields(&format!("spec.nodeName={}", self.node_name));
        Watching::new(Api::all(clients.objects.clone()), config, RETRY)
    }

    /// The server was not heard: tells what was last known.
    fn begin_offline(&mut self, seen: &Seen) {
        if let Some(kept) = self.kept.as_ref().filter(|_| seen.lists == 0) {
            self.told = kept.begin();
            self.offline = true;
            self.publish(seen);
        }
    }

    fn publish(&mut self, seen: &Seen) {
        if seen.lists > 0 {
            self.tell(seen);
        }
        let problems: Vec<_> = self
            .problem
            .iter()
            .map(|message| SourceProblem { origin: "API server".to_owned(), message: message.clone() })
            .collect();
        let before = Arc::clone(&self.snapshots.borrow());
        if before.problems != problems {
            match problems.first() {
                Some(problem) if before.problems.is_empty() => {
                    tracing::warn!(source = %PodSource::Api, "cannot watch the pods of this node: {}", problem.message);
                }
                Some(_) => {}
                None => tracing::info!(source = %PodSource::Api, "the pods of this node are watched again"),
            }
        }
        let pods: Vec<_> = self.told.values().cloned().collect();
        let same = before.pods.len() == pods.len()
            && before.pods.iter().zip(&pods).all(|(old, new)| Arc::ptr_eq(old, new));
        let delivered = seen.lists > 0;
        let offline = self.offline;
        if same && (before.delivered, before.offline) == (delivered, offline) && before.problems == problems {
            return;
        }
        if delivered && !before.delivered {
            tracing::info!(source = %PodSource::Api, pods = pods.len(), "pod source delivered for the first time");
        }
        let unknown = SourceSnapshot::unknown(PodSource::Api);
        let pods = if same { before.pods.clone() } else { pods };
        self.snapshots.send_replace(Arc::new(SourceSnapshot {
            delivered,
            offline,
            pods,
            problems,
            ..unknown
        }));
    }

    /// Takes what was seen over what was told before.
    fn tell(&mut self, seen: &Seen) {
        let mut server = ServerPods { listed: true, lists: seen.lists, ..ServerPods::default() };
        let mut told = BTreeMap::new();
        for (uid, pod) in &seen.pods {
            if pod.annotation(labels::CONFIG_MIRROR).is_some() {
                server.mirrors.insert(pod.full_name(), Arc::clone(pod));
                continue;
            }
            server.pods.insert(uid.clone(), Arc::clone(pod));
            let kept = match self.told.get(uid) {
                // Each that was begun offline is told anew, so that it looks at what it waited for.
                Some(old) if !self.offline && !is_news(old, pod) => Arc::clone(old),
                old => Arc::new(marked(pod, old.map(|old| &**old), &self.clock)),
            };
            told.insert(uid.clone(), kept);
        }
        self.told = told;
        self.offline = false;
        if let Some(kept) = &self.kept {
            kept.heard(&self.told);
        }
        self.server.send_replace(Arc::new(server));
    }
}

/// The pods of the watch so far.
#[derive(Default)]
struct Seen {
    pods: BTreeMap<PodUid, Arc<Pod>>,
    listing: BTreeMap<PodUid, Arc<Pod>>,
    lists: u64,
}

impl Seen {
    fn take(&mut self, event: Event<Pod>) {
        match event {
            Event::Init => self.listing.clear(),
            Event::InitApply(pod) => {
                let pod = tidied(pod);
                self.listing.insert(pod.uid(), pod);
            }
            Event::InitDone => {
                self.pods = std::mem::take(&mut self.listing);
                self.lists += 1;
            }
            Event::Apply(pod) => {
                let pod = tidied(pod);
                self.pods.insert(pod.uid(), pod);
            }
            Event::Delete(pod) => {
                self.pods.remove(&pod.uid());
            }
        }
    }
}

/// Comes when the server should have been heard, and what is kept is known; never where nothing is.
async fn alone(kept: Option<Arc<Offline>>) {
    match kept {
        Some(kept) => {
            tokio::time::sleep(SERVER_WAIT).await;
            kept.loaded().await;
        }
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Nobody on a node reads who manages which field, and it is half of a pod.
fn tidied(mut pod: Pod) -> Arc<Pod> {
    pod.metadata.managed_fields = None;
    Arc::new(pod)
}

/// The pod as it is run: with kubelet's marks of where it came from, which a pod cannot set itself.
fn marked(pod: &Pod, before: Option<&Pod>, clock: &Clock) -> Pod {
    let mut pod = pod.clone();
    let seen = before.and_then(|before| before.annotation(labels::CONFIG_SEEN)).map(str::to_owned);
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(labels::CONFIG_SOURCE.to_owned(), PodSource::Api.to_string());
    annotations.insert(labels::CONFIG_SEEN.to_owned(), seen.unwrap_or_else(|| clock().to_string()));
    pod
}

/// Whether anything is another that the node acts on: all but what it writes itself.
fn is_news(old: &Pod, new: &Pod) -> bool {
    let (a, b) = (&old.metadata, &new.metadata);
    let annotations = |pod: &Pod| {
        let mut all = pod.metadata.annotations.clone().unwrap_or_default();
        all.retain(|key, _| key != labels::CONFIG_SOURCE && key != labels::CONFIG_SEEN);
        all
    };
    a.deletion_timestamp != b.deletion_timestamp
        || a.deletion_grace_period_seconds != b.deletion_grace_period_seconds
        || a.generation != b.generation
        || a.labels != b.labels
        || a.owner_references != b.owner_references
        || annotations(old) != annotations(new)
        || old.spec != new.spec
        || of_others(old.status.as_ref()) != of_others(new.status.as_ref())
}

type OfOthers<'a> = (bool, Vec<(&'a str, &'a str)>);

/// What of a status the node does not write, or is bound by.
fn of_others(status: Option<&PodStatus>) -> OfOthers<'_> {
    let conditions = status.into_iter().flat_map(|status| status.conditions.iter().flatten());
    let conditions = conditions.filter(|c| !is_ours(&c.type_)).map(|c| (c.type_.as_str(), c.status.as_str()));
    (status.is_some_and(is_terminal), conditions.collect())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;

    fn pod(uid: &str, status: &Value) -> Pod {
        let pod = json!({
            "metadata": { "name": uid, "namespace": "default", "uid": uid, "managedFields": [{ "manager": "x" }] },
            "spec": { "containers": [{ "name": "main", "image": "web" }] },
            "status": status,
        });
        serde_json::from_value(pod).unwrap()
    }

    fn source() -> (ApiSource, ApiReceivers) {
        let none = crate::kube::Rate { per_second: 0, burst: 0 };
        let api = ApiServer::new(crate::kube::Rates { objects: none, events: none });
        ApiSource::new(api, "n1".into(), Arc::new(|| Timestamp::UNIX_EPOCH), None)
    }

    #[test]
    fn only_a_whole_list_is_told_and_what_the_node_wrote_itself_is_no_news() {
        let (mut source, receivers) = source();
        let mut seen = Seen::default();
        seen.take(Event::Init);
        seen.take(Event::InitApply(pod("a", &json!({ "phase": "Pending" }))));
        source.publish(&seen);
        assert!(!receivers.snapshots.borrow().delivered && !receivers.server.borrow().listed);
        seen.take(Event::InitDone);
        source.publish(&seen);
        let first = Arc::clone(&receivers.snapshots.borrow());
        let told = &first.pods[0];
        assert_eq!((first.delivered, told.metadata.managed_fields.is_none()), (true, true));
        assert_eq!(told.annotation(labels::CONFIG_SOURCE), Some("api"));
        assert!(!told.is_static());

        let ours = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }] });
        seen.take(Event::Apply(pod("a", &ours)));
        source.publish(&seen);
        assert!(Arc::ptr_eq(&receivers.snapshots.borrow(), &first));
        let server = Arc::clone(&receivers.server.borrow());
        assert_eq!(server.pods["a"].status.as_ref().unwrap().phase.as_deref(), Some("Running"));

        let gate =
            json!({ "phase": "Running", "conditions": [{ "type": "example.org/gate", "status": "True" }] });
        seen.take(Event::Apply(pod("a", &gate)));
        source.publish(&seen);
        assert!(!Arc::ptr_eq(&receivers.snapshots.borrow().pods[0], told));

        // A list under way takes nothing away.
        seen.take(Event::Init);
        source.publish(&seen);
        assert_eq!(receivers.snapshots.borrow().pods.len(), 1);
        seen.take(Event::InitDone);
        source.publish(&seen);
        assert!(receivers.snapshots.borrow().pods.is_empty());
    }

    #[test]
    fn mirrors_are_not_run_and_no_pod_can_claim_to_be_static() {
        let (mut source, receivers) = source();
        let mut seen = Seen::default();
        let mut mirror = pod("m", &json!({}));
        let marks = mirror.metadata.annotations.get_or_insert_default();
        marks.insert(labels::CONFIG_MIRROR.to_owned(), "hash".to_owned());
        let mut claims = pod("c", &json!({}));
        let marks = claims.metadata.annotations.get_or_insert_default();
        marks.insert(labels::CONFIG_SOURCE.to_owned(), "file".to_owned());
        seen.take(Event::Init);
        seen.take(Event::InitApply(mirror));
        seen.take(Event::InitApply(claims));
        seen.take(Event::InitDone);
        source.publish(&seen);
        let told = Arc::clone(&receivers.snapshots.borrow());
        assert_eq!(told.pods.len(), 1);
        assert!(!told.pods[0].is_static());
        assert_eq!(receivers.server.borrow().mirrors.len(), 1);
    }
}
