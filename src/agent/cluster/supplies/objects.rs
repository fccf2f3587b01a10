//! ConfigMaps and Secrets that pods of this node name: each watched for itself, since the server shows a node only
//! those (the Node authorizer), from the first pod that names it to the last.
//!
//! The last word counts while the server is away. An immutable object is not watched once it is known. What changes
//! wakes the pods that name it, and has them try again at once what failed.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::FutureExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret};
use kube::{
    Api, Resource,
    core::NamespaceResourceScope,
    runtime::watcher::{self, Event},
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{
        cluster::{
            offline::Offline,
            retry::{RETRY, jitter, words},
            watching::Watching,
        },
        pods::mailbox::Mailbox,
    },
    api::{PodExt as _, PodUid},
    kube::ApiServer,
    policy::given::{Lookup, ObjectData, ObjectKey, ObjectKind, references},
};

/// See the module.
pub(super) struct Objects {
    api: ApiServer,
    /// Where words are kept for when the server is away.
    offline: Option<Arc<Offline>>,
    stop: CancellationToken,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pods: HashMap<PodUid, Wanted>,
    objects: HashMap<ObjectKey, Entry>,
}

struct Wanted {
    pod: Arc<Pod>,
    objects: BTreeSet<ObjectKey>,
    mailbox: Arc<Mailbox>,
}

struct Entry {
    pods: HashSet<PodUid>,
    /// `None` before the first word.
    value: watch::Sender<Option<Lookup>>,
    stop: CancellationToken,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Objects {
    pub(super) fn new(api: ApiServer, offline: Option<Arc<Offline>>, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self { api, offline, stop, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows what the pod names, and no more what it named before.
    pub(super) fn want(self: &Arc<Self>, pod: &Arc<Pod>, mailbox: &Arc<Mailbox>) {
        let uid = pod.uid();
        let mut state = self.state();
        if state.pods.get(&uid).is_some_and(|wanted| Arc::ptr_eq(&wanted.pod, pod)) {
            return;
        }
        let objects = references(pod);
        for key in &objects {
            if let Some(entry) = state.objects.get_mut(key) {
                entry.pods.insert(uid.clone());
                // What it was told of may have been erased with the last pod that named it.
                if let (Some(offline), Some(word)) = (&self.offline, &*entry.value.borrow()) {
                    offline.object(key, word);
                }
            } else {
                let entry = self.follow(key, &uid);
                state.objects.insert(key.clone(), entry);
            }
        }
        let wanted = Wanted { pod: Arc::clone(pod), objects, mailbox: Arc::clone(mailbox) };
        let before = state.pods.insert(uid.clone(), wanted);
        let before = before.map(|wanted| wanted.objects).unwrap_or_default();
        let State { pods, objects } = &mut *state;
        let now = pods.get(&uid).map(|wanted| &wanted.objects);
        let gone = before.into_iter().filter(|key| now.is_none_or(|now| !now.contains(key)));
        gone.for_each(|key| let_go(objects, &key, &uid));
    }

    pub(super) fn forget(&self, uid: &PodUid) {
        let mut state = self.state();
        if let Some(wanted) = state.pods.remove(uid) {
            wanted.objects.iter().for_each(|key| let_go(&mut state.objects, key, uid));
        }
    }

    /// Has every pod try again what failed: something is there that none of them names.
    pub(super) fn wake_all(&self) {
        self.state().pods.values().for_each(|wanted| wanted.mailbox.supplied());
    }

    /// Waits until there is a word on each.
    pub(super) async fn first_word(&self, keys: &BTreeSet<ObjectKey>) {
        let waited: Vec<_> = {
            let state = self.state();
            keys.iter().filter_map(|key| Some(state.objects.get(key)?.value.subscribe())).collect()
        };
        for mut value in waited {
            // An object that nobody wants any more is not waited for.
            value.wait_for(Option::is_some).await.ok();
        }
    }

    /// Whether there is a word on each.
    pub(super) fn has_word(&self, keys: &BTreeSet<ObjectKey>) -> bool {
        let state = self.state();
        keys.iter().all(|key| state.objects.get(key).is_some_and(|entry| entry.value.borrow().is_some()))
    }

    pub(super) fn known(&self, keys: &BTreeSet<ObjectKey>) -> BTreeMap<ObjectKey, Lookup> {
        let state = self.state();
        let known = |key: &ObjectKey| state.objects.get(key)?.value.borrow().clone();
        let none = || Lookup::Unknown("the API server has not answered yet".to_owned());
        keys.iter().map(|key| (key.clone(), known(key).unwrap_or_else(none))).collect()
    }

    fn follow(self: &Arc<Self>, key: &ObjectKey, uid: &PodUid) -> Entry {
        let stop = self.stop.child_token();
        let follower = Follower { objects: Arc::clone(self), key: key.clone(), stop: stop.clone() };
        let following = match key.kind {
            ObjectKind::ConfigMap => follower.follow::<ConfigMap>().boxed(),
            ObjectKind::Secret => follower.follow::<Secret>().boxed(),
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(following));
        let last = self.offline.as_ref().and_then(|offline| offline.last_object(key));
        Entry { pods: [uid.clone()].into(), value: watch::Sender::new(last), stop }
    }
}

fn let_go(objects: &mut HashMap<ObjectKey, Entry>, key: &ObjectKey, uid: &PodUid) {
    if let Some(entry) = objects.get_mut(key) {
        entry.pods.remove(uid);
        if entry.pods.is_empty() {
            objects.remove(key);
        }
    }
}

/// Follows one object.
struct Follower {
    objects: Arc<Objects>,
    key: ObjectKey,
    stop: CancellationToken,
}

impl Follower {
    /// Until the object is known for good.
    async fn follow<K>(self)
    where
        K: Resource<Scope = NamespaceResourceScope>
            + Into<ObjectData>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + 'static,
        K::DynamicType: Default,
    {
        let api = &self.objects.api;
        let mut replaced = api.replaced();
        let mut backoff = RETRY;
        loop {
            let clients = api.clients().await;
            replaced.mark_unchanged();
            let client = match clients.watches.client() {
                Ok(client) => client,
                Err(error) => {
                    self.failed(&error.to_string());
                    tokio::time::sleep(jitter(backoff.fail())).await;
                    continue;
                }
            };
            let objects: Api<K> = Api::namespaced(client.client(), &self.key.namespace);
            let config = watcher::Config::default().fields(&format!("metadata.name={}", self.key.name));
            let mut events = Watching::new(objects, config, RETRY);
            let mut listed = Lookup::Missing;
            loop {
                let event = tokio::select! {
                    event = events.next() => event,
                    Ok(()) = replaced.changed() => break,
                };
                let found = |object: K| Lookup::Found(Arc::new(object.into()));
                let word = match event {
                    Ok(Event::Init) => {
                        listed = Lookup::Missing;
                        continue;
                    }
                    Ok(Event::InitApply(object)) => {
                        listed = found(object);
                        continue;
                    }
                    Ok(Event::InitDone) => std::mem::replace(&mut listed, Lookup::Missing),
                    Ok(Event::Apply(object)) => found(object),
                    Ok(Event::Delete(_)) => Lookup::Missing,
                    Err(error) => {
                        self.failed(&in_words(&error));
                        continue;
                    }
                };
                let for_good = matches!(&word, Lookup::Found(data) if data.immutable);
                self.tell(word);
                if for_good {
                    tracing::debug!(object = %self.key, "immutable: not watched any more");
                    return;
                }
            }
        }
    }

    /// What was known before counts.
    fn failed(&self, why: &str) {
        tracing::debug!(object = %self.key, "cannot be watched: {why}");
        let known = {
            let state = self.objects.state();
            let value = state.objects.get(&self.key).map(|entry| entry.value.borrow().clone());
            matches!(value.flatten(), Some(Lookup::Found(_) | Lookup::Missing))
        };
        if !known {
            self.tell(Lookup::Unknown(why.to_owned()));
        }
    }

    /// Takes the word, and wakes who it is for.
    fn tell(&self, word: Lookup) {
        let state = self.objects.state();
        // Another may follow the object by now.
        if self.stop.is_cancelled() {
            return;
        }
        if let Some(offline) = &self.objects.offline {
            offline.object(&self.key, &word);
        }
        let Some(entry) = state.objects.get(&self.key) else { return };
        let news = entry.value.send_if_modified(|value| {
            let news = value.as_ref() != Some(&word);
            *value = Some(word);
            news
        });
        if news {
            let pods = entry.pods.iter().filter_map(|uid| state.pods.get(uid));
            pods.for_each(|wanted| wanted.mailbox.supplied());
        }
    }
}

/// An answer that cannot be read is not quoted: it may hold what is secret.
fn in_words(error: &watcher::Error) -> String {
    use kube::Error::SerdeError;
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(SerdeError(_)) | WatchStartFailed(SerdeError(_)) | WatchFailed(SerdeError(_)) => {
            "the API server's answer cannot be read".to_owned()
        }
        other => words(other),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kube::{Rate, Rates};

    fn objects() -> Arc<Objects> {
        let none = Rate { per_second: 0, burst: 0 };
        Objects::new(ApiServer::new(Rates { objects: none, events: none }), None, CancellationToken::new())
    }

    fn pod(uid: &str, maps: &[&str]) -> Arc<Pod> {
        let volumes: Vec<_> =
            maps.iter().map(|name| json!({ "name": name, "configMap": { "name": name } })).collect();
        let pod = json!({
            "metadata": { "name": uid, "namespace": "ns", "uid": uid },
            "spec": { "containers": [], "volumes": volumes },
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey { kind: ObjectKind::ConfigMap, namespace: "ns".into(), name: name.into() }
    }

    fn names(objects: &Objects) -> Vec<String> {
        let mut names: Vec<_> = objects.state().objects.keys().map(|key| key.name.clone()).collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn an_object_is_followed_from_its_first_pod_to_its_last() {
        let objects = objects();
        let mailbox = Arc::new(Mailbox::default());
        objects.want(&pod("1", &["a", "b"]), &mailbox);
        objects.want(&pod("2", &["b"]), &mailbox);
        assert_eq!(names(&objects), ["a", "b"]);
        let stop = objects.state().objects[&key("a")].stop.clone();
        objects.want(&pod("1", &["b", "c"]), &mailbox);
        assert_eq!(names(&objects), ["b", "c"]);
        assert!(stop.is_cancelled());
        objects.forget(&"1".into());
        assert_eq!(names(&objects), ["b"]);
        objects.forget(&"2".into());
        objects.forget(&"2".into());
        assert!(names(&objects).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_names_it_is_woken_by_what_is_new_and_the_last_word_stands_while_the_server_is_away() {
        let objects = objects();
        let (first, other) = (Arc::new(Mailbox::default()), Arc::new(Mailbox::default()));
        objects.want(&pod("1", &["a"]), &first);
        objects.want(&pod("2", &["b"]), &other);
        let keys: BTreeSet<_> = [key("a")].into();
        assert!(matches!(&objects.known(&keys)[&key("a")], Lookup::Unknown(_)));
        let stop = objects.state().objects[&key("a")].stop.clone();
        let follower = Follower { objects: Arc::clone(&objects), key: key("a"), stop };
        follower.failed("no route");
        assert_eq!(objects.known(&keys)[&key("a")], Lookup::Unknown("no route".into()));
        assert!(first.take().supplied && !other.take().supplied);
        let data = Lookup::Found(Arc::new(ObjectData::default()));
        follower.tell(data.clone());
        assert!(first.take().supplied);
        objects.first_word(&keys).await;
        follower.tell(data.clone());
        follower.failed("no route");
        assert!(!first.take().supplied);
        assert_eq!(objects.known(&keys)[&key("a")], data);
        follower.tell(Lookup::Missing);
        assert!(first.take().supplied);
        // Nobody wants it, then somebody does: the first follower has no say any more.
        objects.forget(&"1".into());
        objects.want(&pod("1", &["a"]), &first);
        follower.tell(data);
        assert!(matches!(&objects.known(&keys)[&key("a")], Lookup::Unknown(_)));
    }
}
