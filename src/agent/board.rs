//! What the agent shows of its pods. Workers write, the operator's socket reads; neither waits for the
//! other longer than a copy takes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::api::{PodExt as _, PodUid, view::PodView};

/// The pods as last told.
#[derive(Default)]
pub struct Board(Mutex<HashMap<PodUid, Arc<PodView>>>);

impl Board {
    fn lock(&self) -> MutexGuard<'_, HashMap<PodUid, Arc<PodView>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a pod's view in place of the last.
    pub fn post(&self, view: PodView) {
        self.lock().insert(view.uid.clone(), Arc::new(view));
    }

    /// Takes a pod off.
    pub fn remove(&self, uid: &PodUid) {
        self.lock().remove(uid);
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
