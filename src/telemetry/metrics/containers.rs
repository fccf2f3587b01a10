//! Figures of making sandboxes and containers and of pulling images.

use std::time::Duration;

use prometheus::{HistogramVec, IntCounter, IntCounterVec, Registry};

use super::{DEFAULT, METRICS, counter, counters, histograms};

const MIB: u64 = 1 << 20;
/// kubelet's classes of images by size: what each is larger than, bytes.
const SIZES: [(u64, &str); 12] = [
    (100 << 30, "GT100GB"),
    (60 << 30, "60GB-100GB"),
    (40 << 30, "40GB-60GB"),
    (30 << 30, "30GB-40GB"),
    (20 << 30, "20GB-30GB"),
    (10 << 30, "10GB-20GB"),
    (5 << 30, "5GB-10GB"),
    (1 << 30, "1GB-5GB"),
    (500 * MIB, "500MB-1GB"),
    (100 * MIB, "100MB-500MB"),
    (10 * MIB, "10MB-100MB"),
    (0, "0-10MB"),
];

pub(super) struct Figures {
    sandboxes: IntCounter,
    sandbox_errors: IntCounter,
    sandbox_seconds: HistogramVec,
    sandbox_errors_by_handler: IntCounterVec,
    containers: IntCounterVec,
    container_errors: IntCounterVec,
    pull_seconds: HistogramVec,
}

impl Figures {
    pub(super) fn new(to: &Registry) -> Result<Self, prometheus::Error> {
        let handler = &["runtime_handler"];
        Ok(Self {
            sandboxes: counter(to, "kubelet_started_pods_total", "Sandboxes that were to be made.")?,
            sandbox_errors: counter(
                to,
                "kubelet_started_pods_errors_total",
                "Sandboxes that could not be made.",
            )?,
            sandbox_seconds: histograms(
                to,
                "kubelet_run_podsandbox_duration_seconds",
                "Duration in seconds of making sandboxes by the runtime class' handler.",
                handler,
                &DEFAULT,
            )?,
            sandbox_errors_by_handler: counters(
                to,
                "kubelet_run_podsandbox_errors_total",
                "Sandboxes that could not be made, by the runtime class' handler.",
                handler,
            )?,
            containers: counters(
                to,
                "kubelet_started_containers_total",
                "Containers that were to be started.",
                &["container_type"],
            )?,
            container_errors: counters(
                to,
                "kubelet_started_containers_errors_total",
                "Containers that could not be started, by the reason that is shown.",
                &["container_type", "code"],
            )?,
            pull_seconds: histograms(
                to,
                "kubelet_image_pull_duration_seconds",
                "Duration in seconds of pulling an image, by its size.",
                &["image_size_in_bytes"],
                &[
                    1.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0,
                    1200.0, 1800.0, 2700.0, 3600.0,
                ],
            )?,
        })
    }
}

/// The runtime was asked for a sandbox. There are as many handlers as runtime classes.
pub fn sandbox_made(handler: &str, took: Duration, well: bool) {
    let Some(metrics) = METRICS.get() else { return };
    let figures = &metrics.containers;
    figures.sandboxes.inc();
    figures.sandbox_seconds.with_label_values(&[handler]).observe(took.as_secs_f64());
    if !well {
        figures.sandbox_errors.inc();
        figures.sandbox_errors_by_handler.with_label_values(&[handler]).inc();
    }
}

/// A container of a kind (`container`, `init_container`, `ephemeral_container`) was to be started, and could not be for
/// a reason.
pub fn container_started(kind: &'static str, failed: Option<&'static str>) {
    let Some(metrics) = METRICS.get() else { return };
    metrics.containers.containers.with_label_values(&[kind]).inc();
    if let Some(reason) = failed {
        metrics.containers.container_errors.with_label_values(&[kind, reason]).inc();
    }
}

/// An image of so many bytes was pulled.
pub fn image_pulled(bytes: u64, took: Duration) {
    let Some(metrics) = METRICS.get() else { return };
    let class = SIZES.iter().find(|(above, _)| bytes > *above).map_or("N/A", |(_, class)| class);
    metrics.containers.pull_seconds.with_label_values(&[class]).observe(took.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_started_and_pulled_is_told_in_kubelets_classes() {
        super::super::init().unwrap();
        sandbox_made("kata-test", Duration::from_millis(300), true);
        sandbox_made("kata-test", Duration::from_millis(300), false);
        container_started("ephemeral_container", None);
        container_started("ephemeral_container", Some("ErrImagePull"));
        for bytes in [0, 1, 10 << 20, (10 << 20) + 1, 200 << 30] {
            image_pulled(bytes, Duration::from_secs(2));
        }
        let text = super::super::text(&Registry::new()).unwrap();
        for line in [
            "kubelet_run_podsandbox_duration_seconds_count{runtime_handler=\"kata-test\"} 2",
            "kubelet_run_podsandbox_errors_total{runtime_handler=\"kata-test\"} 1",
            "kubelet_started_containers_total{container_type=\"ephemeral_container\"} 2",
            "kubelet_started_containers_errors_total{code=\"ErrImagePull\",container_type=\"ephemeral_container\"} 1",
            "kubelet_image_pull_duration_seconds_count{image_size_in_bytes=\"N/A\"} 1",
            "kubelet_image_pull_duration_seconds_count{image_size_in_bytes=\"0-10MB\"} 2",
            "kubelet_image_pull_duration_seconds_count{image_size_in_bytes=\"10MB-100MB\"} 1",
            "kubelet_image_pull_duration_seconds_count{image_size_in_bytes=\"GT100GB\"} 1",
        ] {
            assert!(text.lines().any(|own| own == line), "{line}\n{text}");
        }
    }
}
