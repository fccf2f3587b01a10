//! All objects of a kind that a node may see, which it needs few facts of: services and runtime classes.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kube::{
    Api, Resource, ResourceExt as _,
    runtime::watcher::{self, Event},
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::{
    agent::cluster::{
        retry::{RETRY, words},
        watching::Watching,
    },
    kube::ApiServer,
};

/// Namespace and name.
type Key = (String, String);

/// What is kept of the objects of a kind. The last word counts while the server is away.
pub(super) struct Listed<V> {
    state: Mutex<State<V>>,
    listed: watch::Sender<bool>,
}

struct State<V> {
    items: BTreeMap<Key, V>,
    problem: Option<String>,
}

impl<V: Clone + PartialEq + Send + 'static> Listed<V> {
    pub(super) fn new() -> Arc<Self> {
        let state = State { items: BTreeMap::new(), problem: None };
        Arc::new(Self { state: Mutex::new(state), listed: watch::Sender::new(false) })
    }

    fn state(&self) -> MutexGuard<'_, State<V>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until they were listed once.
    pub(super) async fn first_list(&self) {
        // The sender is this one's own.
        self.listed.subscribe().wait_for(|listed| *listed).await.ok();
    }

    /// Looks at what is known.
    ///
    /// # Errors
    /// Why they were never listed yet.
    pub(super) fn look<T>(&self, look: impl FnOnce(&BTreeMap<Key, V>) -> T) -> Result<T, String> {
        let state = self.state();
        if *self.listed.borrow() {
            return Ok(look(&state.items));
        }
        Err(state.problem.clone().unwrap_or_else(|| "the API server has not answered yet".to_owned()))
    }

    /// Follows the objects for ever, keeping of each what `facts` makes of it. `told` is called after the first list
    /// (with `true`), and then after every change.
    pub(super) async fn follow<K>(
        self: Arc<Self>,
        api: ApiServer,
        facts: fn(K) -> Option<V>,
        told: impl Fn(bool) + Send,
    ) where
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
        K::DynamicType: Default,
    {
        let mut replaced = api.replaced();
        loop {
            let clients = api.clients().await;
            replaced.mark_unchanged();
            let objects: Api<K> = Api::all(clients.objects.clone());
            let mut events = Watching::new(objects, watcher::Config::default(), RETRY);
            let mut listing = BTreeMap::new();
            loop {
                let event = tokio::select! {
                    event = events.next() => event,
                    Ok(()) = replaced.changed() => break,
                };
                match event {
                    Ok(event) => self.take(event, &mut listing, facts, &told),
                    Err(error) => {
                        let why = words(&error);
                        tracing::debug!(kind = %K::kind(&K::DynamicType::default()), "cannot be watched: {why}");
                        self.state().problem = Some(why);
                    }
                }
            }
        }
    }

    fn take<K: Resource>(
        &self,
        event: Event<K>,
        listing: &mut BTreeMap<Key, V>,
        facts: fn(K) -> Option<V>,
        told: &impl Fn(bool),
    ) {
        let key = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
        let changed = match event {
            Event::Init => {
                listing.clear();
                false
            }
            Event::InitApply(object) => {
                let key = key(&object);
                if let Some(facts) = facts(object) {
                    listing.insert(key, facts);
                }
                false
            }
            Event::InitDone => {
                let mut state = self.state();
                let listed = std::mem::take(listing);
                let changed = state.items != listed;
                state.items = listed;
                state.problem = None;
                drop(state);
                if !self.listed.send_replace(true) {
                    told(true);
                    return;
                }
                changed
            }
            Event::Apply(object) => {
                let key = key(&object);
                let mut state = self.state();
                match facts(object) {
                    Some(facts) if state.items.get(&key) == Some(&facts) => false,
                    Some(facts) => {
                        state.items.insert(key, facts);
                        true
                    }
                    None => state.items.remove(&key).is_some(),
                }
            }
            Event::Delete(object) => self.state().items.remove(&key(&object)).is_some(),
        };
        if changed {
            told(false);
        }
    }
}
