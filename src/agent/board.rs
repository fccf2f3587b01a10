//! What the agent shows of its pods. Workers write, the operator's socket reads; neither waits for the
//! other longer than a copy takes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use tokio::sync::mpsc;

use crate::api::{PodExt as _, PodUid, view::PodView};

/// The pods as last told.
#[derive(Default)]
pub struct Board {
    views: Mutex<HashMap<PodUid, Arc<PodView>>>,
    news: OnceLock<mpsc::UnboundedSender<PodUid>>,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, HashMap<PodUid, Arc<PodView>>> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a pod's view in place of the last.
    pub fn post(&self, view: PodView) {
        let (uid, view) = (view.uid.clone(), Arc::new(view));
        let old = self.lock().insert(uid.clone(), Arc::clone(&view));
        // Most that is posted is told to the operator alone.
        let same = old.is_some_and(|old| {
            Arc::ptr_eq(&old.status, &view.status)
                && Arc::ptr_eq(&old.pod, &view.pod)
                && old.end == view.end
                && old.observed == view.observed
        });
        if !same {
            self.tell(uid);
        }
    }

    /// Has a follower told of each pod whose status, specification or end is another, or that is taken off. There is
    /// one: a second call is told nothing. What is told is a UID, so that whoever is slow finds the latest.
    pub fn follow(&self) -> mpsc::UnboundedReceiver<PodUid> {
        let (news, told) = mpsc::unbounded_channel();
        // Of a second one nothing is kept, and its receiver ends at once.
        drop(self.news.set(news));
        told
    }

    fn tell(&self, uid: PodUid) {
        if let Some(news) = self.news.get() {
            // It has ended, and so does the agent.
            news.send(uid).ok();
        }
    }

    /// Takes a pod off.
    pub fn remove(&self, uid: &PodUid) {
        self.lock().remove(uid);
        self.tell(uid.clone());
    }

    /// A pod's last view.
    pub fn get(&self, uid: &PodUid) -> Option<Arc<PodView>> {
        self.lock().get(uid).cloned()
    }

    /// All pods' UIDs.
    pub fn uids(&self) -> Vec<PodUid> {
        self.lock().keys().cloned().collect()
    }

    /// All pods in order of namespace, name and UID.
    pub fn all(&self) -> Vec<PodView> {
        let mut views: Vec<Arc<PodView>> = self.lock().values().cloned().collect();
        views.sort_by_cached_key(|view| (view.pod.full_name(), view.uid.clone()));
        views.into_iter().map(|view| (*view).clone()).collect()
    }
}
