//! Figures of pods' workers: passes, starts, statuses.

use std::time::Duration;

use prometheus::{Histogram, HistogramVec, Registry};

use super::{DEFAULT, METRICS, histogram, histograms};

/// kubelet's buckets of how long pods take to start, seconds.
const STARTS: [f64; 25] = [
    0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0,
    480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0, 3600.0,
];

pub(super) struct Figures {
    pass_seconds: HistogramVec,
    worker_start: Histogram,
    run_seconds: Histogram,
    sli_seconds: Histogram,
    total_seconds: Histogram,
    status_seconds: Histogram,
}

impl Figures {
    pub(super) fn new(to: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            pass_seconds: histograms(
                to,
                "kubelet_pod_worker_duration_seconds",
                "Duration in seconds of a worker's pass over its pod, by what it was for.",
                &["operation_type"],
                &DEFAULT,
            )?,
            worker_start: histogram(
                to,
                "kubelet_pod_worker_start_duration_seconds",
                "Seconds from when a pod was first seen until its worker begins.",
                &DEFAULT,
            )?,
            run_seconds: histogram(
                to,
                "kubelet_pod_start_duration_seconds",
                "Seconds from when a pod was first seen until it runs.",
                &STARTS,
            )?,
            sli_seconds: histogram(
                to,
                "kubelet_pod_start_sli_duration_seconds",
                "Seconds from a pod's creation until the API server has that its containers run, without pulling \
                 images and running init containers.",
                &STARTS,
            )?,
            total_seconds: histogram(
                to,
                "kubelet_pod_start_total_duration_seconds",
                "Seconds from a pod's creation until the API server has that its containers run.",
                &STARTS,
            )?,
            status_seconds: histogram(
                to,
                "kubelet_pod_status_sync_duration_seconds",
                "Seconds from a change of a pod's status until the API server has it.",
                &[0.010, 0.050, 0.100, 0.500, 1.0, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0],
            )?,
        })
    }
}

/// What a worker's pass is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PodSync {
    /// The first of a pod that is new.
    Create,
    /// Its specification is another.
    Update,
    /// A look at what runs.
    Sync,
    /// It is to end.
    Kill,
}

/// A worker has gone over its pod.
pub fn pod_synced(kind: PodSync, took: Duration) {
    let Some(metrics) = METRICS.get() else { return };
    let kind = match kind {
        PodSync::Create => "create",
        PodSync::Update => "update",
        PodSync::Sync => "sync",
        PodSync::Kill => "kill",
    };
    metrics.pods.pass_seconds.with_label_values(&[kind]).observe(took.as_secs_f64());
}

/// A pod's worker has begun, so long after the pod was first seen.
pub fn worker_started(after: Duration) {
    let Some(metrics) = METRICS.get() else { return };
    metrics.pods.worker_start.observe(after.as_secs_f64());
}

/// A pod runs, so long after it was first seen.
pub fn pod_ran(after: Duration) {
    let Some(metrics) = METRICS.get() else { return };
    metrics.pods.run_seconds.observe(after.as_secs_f64());
}

/// The API server has that a pod's containers run, so long after its creation; `sli` is without pulling images and
/// running init containers.
pub fn pod_started(total: Duration, sli: Duration) {
    let Some(metrics) = METRICS.get() else { return };
    metrics.pods.total_seconds.observe(total.as_secs_f64());
    metrics.pods.sli_seconds.observe(sli.as_secs_f64());
}

/// The API server has a pod's status, so long after it changed.
pub fn status_written(after: Duration) {
    let Some(metrics) = METRICS.get() else { return };
    metrics.pods.status_seconds.observe(after.as_secs_f64());
}
