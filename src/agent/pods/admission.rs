//! The pods that the node has taken, and the taking of another: one at a time, so that no two pods can get
//! what only one can have.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::{
    api::PodUid,
    policy::{
        admission::{AdmissionInput, admit},
        node::NodeSettings,
        status::PodFailure,
    },
};

/// The pods that the node has taken and that have not come to their end.
#[derive(Default)]
pub struct Admitted(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    pods: HashMap<PodUid, Arc<Pod>>,
    /// Counts the changes.
    generation: u64,
}

impl Taken {
    fn insert(&mut self, uid: &PodUid, pod: &Arc<Pod>) {
        if self.pods.get(uid).is_none_or(|old| !Arc::ptr_eq(old, pod)) {
            self.pods.insert(uid.clone(), Arc::clone(pod));
            self.generation += 1;
        }
    }
}

impl Admitted {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The pods, and a number that says how many changes they have seen; `None` if that is what it was.
    pub fn changed_since(&self, generation: Option<u64>) -> Option<(u64, Vec<Arc<Pod>>)> {
        let taken = self.lock();
        let changed = generation != Some(taken.generation);
        changed.then(|| (taken.generation, taken.pods.values().map(Arc::clone).collect()))
    }

    /// Takes a pod if nothing is against it.
    ///
    /// # Errors
    /// Why the node does not take it.
    pub fn admit(
        &self,
        uid: &PodUid,
        pod: &Arc<Pod>,
        node: &NodeSettings,
        server_node: Option<&Node>,
    ) -> Result<(), PodFailure> {
        let mut taken = self.lock();
        let others: Vec<_> =
            taken.pods.iter().filter(|(other, _)| *other != uid).map(|(_, pod)| Arc::clone(pod)).collect();
        admit(&AdmissionInput { pod, others: &others, node, server_node })?;
        taken.insert(uid, pod);
        Ok(())
    }

    /// Notes a pod that was taken before: it runs, or an earlier agent took it.
    pub fn keep(&self, uid: &PodUid, pod: &Arc<Pod>) {
        self.lock().insert(uid, pod);
    }

    /// A pod has come to its end.
    pub fn release(&self, uid: &PodUid) {
        let mut taken = self.lock();
        if taken.pods.remove(uid).is_some() {
            taken.generation += 1;
        }
    }
}
