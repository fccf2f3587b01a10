//! The pods that the node has taken, and the taking of another: one at a time, so that no two pods can get
//! what only one can have.
//!
//! A critical pod may have others end to make room for it. It has its place from then on, so that no other takes what
//! comes free, and is begun when they have ended. What was decided stands in the checkpoints of those that end, which
//! is written by themselves: an agent that is killed before finds the critical pod not yet taken, judges it again, and
//! comes to the same.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use k8s_openapi::api::core::v1::{Node, Pod};

use super::mailbox::Mailbox;
use crate::{
    api::{PodExt as _, PodFullName, PodUid},
    policy::{
        admission::{AdmissionInput, admit},
        grace::pod_grace,
        lifecycle::StopReason,
        node::NodeSettings,
        resize::{Pending, judge, rank},
        resources::is_critical,
        status::PodFailure,
    },
};

/// The pods that the node has taken and that have not come to their end.
#[derive(Default)]
pub struct Admitted(Mutex<Taken>);

#[derive(Default)]
struct Taken {
    pods: HashMap<PodUid, Arc<Pod>>,
    /// Who waits for what others hold, and who is to hear that it ends.
    mailboxes: HashMap<PodUid, Arc<Mailbox>>,
    /// Pods that end for a critical one.
    preempted: HashSet<PodUid>,
    /// Pods that are on their way to their end, for whatever reason.
    ending: HashSet<PodUid>,
    /// Those of them that their source has no more, whose place nobody has to wait for.
    left: HashSet<PodUid>,
    /// Pods that are begun when others have ended.
    waiting: HashSet<PodUid>,
    /// What pods that run want more, and is not there.
    deferred: HashMap<PodUid, Deferred>,
    /// Counts the changes.
    generation: u64,
    /// Counts what was asked for in place.
    resizes: u64,
}

struct Deferred {
    wanted: Arc<Pod>,
    /// Who has waited longer comes first.
    since: u64,
}

impl Taken {
    fn insert(&mut self, uid: &PodUid, pod: &Arc<Pod>) {
        if self.pods.get(uid).is_none_or(|old| !Arc::ptr_eq(old, pod)) {
            self.pods.insert(uid.clone(), Arc::clone(pod));
            self.generation += 1;
        }
    }

    /// The pods beside one that have a place.
    fn others(&self, uid: &PodUid, but: impl Fn(&PodUid) -> bool) -> Vec<Arc<Pod>> {
        let others = self.pods.iter().filter(|(other, _)| *other != uid && !self.left.contains(*other));
        others.filter(|(other, _)| !but(other)).map(|(_, pod)| Arc::clone(pod)).collect()
    }

    /// Whether the pod has a place that comes free by itself.
    fn comes_free(&self, uid: &PodUid) -> bool {
        !self.left.contains(uid) && (self.preempted.contains(uid) || self.ending.contains(uid))
    }

    fn wake_those_that_wait(&self) {
        self.wake(self.waiting.iter().chain(self.deferred.keys()));
    }

    fn wake<'a>(&self, uids: impl IntoIterator<Item = &'a PodUid>) {
        for uid in uids {
            if let Some(mailbox) = self.mailboxes.get(uid) {
                mailbox.wake();
            }
        }
    }
}

/// What came of taking a pod.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may be begun.
    Taken,
    /// It has its place, and may be begun when these have ended.
    Waits(Vec<PodFullName>),
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

    /// How a pod is told that others have ended, or that it is to end for another.
    pub fn join(&self, uid: &PodUid, mailbox: &Arc<Mailbox>) {
        self.lock().mailboxes.insert(uid.clone(), Arc::clone(mailbox));
    }

    /// Takes a pod if nothing is against it. A critical one that does not fit waits for others' end: of those that
    /// end already, and of more where these do not hold enough. It waits for none that has no worker: such a pod is
    /// known from the disk alone until the API server is heard, which may be the very pod that is to be begun.
    ///
    /// # Errors
    /// Why the node does not take it.
    pub fn admit(
        &self,
        uid: &PodUid,
        pod: &Arc<Pod>,
        node: &NodeSettings,
        server_node: Option<&Node>,
    ) -> Result<Admission, PodFailure> {
        let mut taken = self.lock();
        let judge = |others: &[Arc<Pod>]| admit(&AdmissionInput { pod, others, node, server_node });
        let staying = || taken.others(uid, |other| taken.comes_free(other));
        let judged = match judge(&taken.others(uid, |_| false)) {
            Ok(victims) if victims.is_empty() => Ok(None),
            Err(refused) if !is_critical(pod) => Err(refused),
            Ok(_) | Err(_) => judge(&staying()).map(Some),
        };
        let new = match judged {
            Ok(None) => {
                taken.waiting.remove(uid);
                taken.insert(uid, pod);
                return Ok(Admission::Taken);
            }
            Ok(Some(new)) => new,
            Err(refused) => {
                drop(taken);
                self.release(uid);
                return Err(refused);
            }
        };
        taken.insert(uid, pod);
        taken.waiting.insert(uid.clone());
        for victim in new {
            let uid = victim.uid();
            if let Some(mailbox) = taken.mailboxes.get(&uid) {
                mailbox.stop(StopReason::Preempted, pod_grace(&victim));
            }
            taken.preempted.insert(uid);
        }
        let awaited =
            taken.pods.iter().filter(|(uid, _)| taken.comes_free(uid) && taken.mailboxes.contains_key(*uid));
        let mut names: Vec<_> = awaited.map(|(_, pod)| pod.full_name()).collect();
        if names.is_empty() {
            taken.waiting.remove(uid);
            return Ok(Admission::Taken);
        }
        names.sort_by_key(ToString::to_string);
        Ok(Admission::Waits(names))
    }

    /// Notes a pod that was taken before: it runs, or an earlier agent took it.
    pub fn keep(&self, uid: &PodUid, pod: &Arc<Pod>) {
        self.lock().insert(uid, pod);
    }

    /// Notes a pod that was seen to run. What it was taken with before counts.
    pub fn keep_running(&self, uid: &PodUid, pod: &Arc<Pod>) {
        let mut taken = self.lock();
        if !taken.pods.contains_key(uid) {
            taken.insert(uid, pod);
        }
    }

    /// Gives a pod that runs what it wants, if that is there for it and for those that come before it. One that is
    /// deferred is woken whenever another gives something back.
    ///
    /// # Errors
    /// Why it is not given.
    pub fn resize(
        &self,
        uid: &PodUid,
        pod: &Arc<Pod>,
        wanted: &Arc<Pod>,
        node: &NodeSettings,
    ) -> Result<(), Pending> {
        let mut taken = self.lock();
        let since = taken.deferred.get(uid).map_or(taken.resizes, |deferred| deferred.since);
        taken.resizes += 1;
        taken.deferred.insert(uid.clone(), Deferred { wanted: Arc::clone(wanted), since });
        let mut pods = taken.pods.clone();
        pods.retain(|other, _| !taken.left.contains(other));
        let others = |pods: &HashMap<PodUid, Arc<Pod>>, uid: &PodUid| -> Vec<Arc<Pod>> {
            pods.iter().filter(|(other, _)| *other != uid).map(|(_, pod)| Arc::clone(pod)).collect()
        };
        let mut queue: Vec<_> = taken.deferred.iter().collect();
        queue.sort_by_cached_key(|(uid, one)| {
            (rank(pods.get(*uid).unwrap_or(&one.wanted), &one.wanted), one.since)
        });
        for (earlier, one) in queue.into_iter().take_while(|(other, _)| *other != uid) {
            let Some(has) = pods.get(earlier) else { continue };
            if judge(has, &one.wanted, &others(&pods, earlier), node).is_ok() {
                pods.insert(earlier.clone(), Arc::clone(&one.wanted));
            }
        }
        let judged = judge(pod, wanted, &others(&pods, uid), node);
        if judged.as_ref().err().is_none_or(|pending| !pending.deferred) {
            taken.deferred.remove(uid);
        }
        if judged.is_ok() {
            taken.insert(uid, wanted);
            taken.wake_those_that_wait();
        }
        judged
    }

    /// A pod wants no other resources any more.
    pub fn forget_resize(&self, uid: &PodUid) {
        self.lock().deferred.remove(uid);
    }

    /// Notes that a pod ends for a critical one: an earlier agent has decided so.
    pub fn preempt(&self, uid: &PodUid) {
        self.lock().preempted.insert(uid.clone());
    }

    /// Whether the pod is to end for a critical one.
    pub fn is_preempted(&self, uid: &PodUid) -> bool {
        self.lock().preempted.contains(uid)
    }

    /// A pod is on its way to its end. Whoever needs room waits for that rather than have another end, and it wants
    /// nothing more itself.
    pub fn ends(&self, uid: &PodUid) {
        let mut taken = self.lock();
        if !taken.pods.contains_key(uid) || !taken.ending.insert(uid.clone()) {
            return;
        }
        if taken.deferred.remove(uid).is_some() {
            taken.wake_those_that_wait();
        }
    }

    /// The API server has the pod no more. What still runs of it takes nobody's place, as with kubelet: whatever has
    /// been bound to the node since was bound without it.
    pub fn leaves(&self, uid: &PodUid) {
        let mut taken = self.lock();
        if taken.pods.get(uid).is_some_and(|pod| !pod.is_static()) && taken.left.insert(uid.clone()) {
            taken.wake_those_that_wait();
        }
    }

    /// A pod has come to its end.
    pub fn release(&self, uid: &PodUid) {
        let mut taken = self.lock();
        taken.mailboxes.remove(uid);
        taken.preempted.remove(uid);
        taken.ending.remove(uid);
        taken.left.remove(uid);
        taken.waiting.remove(uid);
        taken.deferred.remove(uid);
        if taken.pods.remove(uid).is_some() {
            taken.generation += 1;
            taken.wake_those_that_wait();
        }
    }
}

#[cfg(test)]
#[path = "admission_tests.rs"]
mod tests;
