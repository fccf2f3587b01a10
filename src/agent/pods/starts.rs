//! How long pods take to start: noted from when a pod is first seen until the API server has that it runs.
//!
//! Only for figures: nothing is decided by it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::time::Instant;

use crate::{
    api::{PodExt as _, PodUid},
    policy::pod_start::{all_run, covered, init_runs},
    telemetry::metrics,
};

/// Pods that are being started. See the module.
#[derive(Default)]
pub struct Starts(Mutex<HashMap<PodUid, Start>>);

struct Start {
    seen: Instant,
    /// By the server; `None` of a static pod, whose start is not part of the indicator.
    created: Option<Timestamp>,
    ran: bool,
    /// From the first image that had to be pulled to the last one that was, with what it took to try again.
    pulls: (Option<Timestamp>, Option<Timestamp>),
}

impl Starts {
    fn all(&self) -> MutexGuard<'_, HashMap<PodUid, Start>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A pod is seen for the first time.
    pub fn begin(&self, pod: &Pod) {
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let created = created.filter(|_| !pod.is_static());
        let start = Start { seen: Instant::now(), created, ran: false, pulls: (None, None) };
        self.all().entry(pod.uid()).or_insert(start);
    }

    /// Its worker goes to work.
    pub fn worker(&self, uid: &PodUid) {
        if let Some(start) = self.all().get(uid) {
            metrics::worker_started(start.seen.elapsed());
        }
    }

    /// An image has to be pulled for it.
    pub fn pulling(&self, uid: &PodUid, now: Timestamp) {
        if let Some(start) = self.all().get_mut(uid) {
            start.pulls.0.get_or_insert(now);
        }
    }

    /// One was pulled.
    pub fn pulled(&self, uid: &PodUid, now: Timestamp) {
        if let Some(start) = self.all().get_mut(uid) {
            start.pulls.1 = Some(now);
        }
    }

    /// The agent shows its status.
    pub fn shown(&self, uid: &PodUid, status: &PodStatus) {
        let mut all = self.all();
        let Some(start) = all.get_mut(uid) else { return };
        match status.phase.as_deref() {
            Some("Running") if !start.ran => {
                start.ran = true;
                metrics::pod_ran(start.seen.elapsed());
                if start.created.is_none() {
                    all.remove(uid);
                }
            }
            Some("Succeeded" | "Failed") => drop(all.remove(uid)),
            _ => {}
        }
    }

    /// The API server has its status.
    pub fn written(&self, uid: &PodUid, status: &PodStatus, now: Timestamp) {
        let mut all = self.all();
        if !all.contains_key(uid) || !all_run(status) {
            return;
        }
        let Some(Start { created: Some(created), pulls, .. }) = all.remove(uid) else { return };
        drop(all);
        let total = now.duration_since(created);
        let elsewhere = covered(pulls.0.zip(pulls.1).into_iter().chain(init_runs(status)).collect());
        let (total, sli) = (total.try_into(), total.saturating_sub(elsewhere).try_into());
        // Neither is there if the server's clock is ahead of the node's.
        if let (Ok(total), Ok(sli)) = (total, sli) {
            metrics::pod_started(total, sli);
        }
    }

    /// It is gone.
    pub fn forget(&self, uid: &PodUid) {
        self.all().remove(uid);
    }
}
