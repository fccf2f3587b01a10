//! The pods that the node has taken, and the taking of another: one at a time, so that no two pods can get
//! what only one can have.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::core::v1::Pod;

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
pub struct Admitted(Mutex<HashMap<PodUid, Arc<Pod>>>);

impl Admitted {
    fn lock(&self) -> MutexGuard<'_, HashMap<PodUid, Arc<Pod>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a pod if nothing is against it.
    ///
    /// # Errors
    /// Why the node does not take it.
    pub fn admit(&self, uid: &PodUid, pod: &Arc<Pod>, node: &NodeSettings) -> Result<(), PodFailure> {
        let mut taken = self.lock();
        let others: Vec<_> =
            taken.iter().filter(|(other, _)| *other != uid).map(|(_, pod)| Arc::clone(pod)).collect();
        admit(&AdmissionInput { pod, others: &others, node })?;
        taken.insert(uid.clone(), Arc::clone(pod));
        Ok(())
    }

    /// Notes a pod that was taken before: it runs, or an earlier agent took it.
    pub fn keep(&self, uid: &PodUid, pod: &Arc<Pod>) {
        self.lock().insert(uid.clone(), Arc::clone(pod));
    }

    /// A pod has come to its end.
    pub fn release(&self, uid: &PodUid) {
        self.lock().remove(uid);
    }
}
