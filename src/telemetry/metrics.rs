//! The agent's own figures, under kubelet's names (`pkg/kubelet/metrics`), so that dashboards and alerts go on working.
//!
//! They are of the process and kept for as long as it runs. What a scrape asks of the agent's state is not kept here
//! but told by whoever serves it. Of a pod or container nothing is kept: there is a bounded number of series.

use std::{sync::OnceLock, time::Duration};

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry, TextEncoder,
    core::Collector, exponential_buckets, proto::MetricFamily,
};

static METRICS: OnceLock<Metrics> = OnceLock::new();

/// Go's `DefBuckets`, seconds.
const DEFAULT: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

struct Metrics {
    registry: Registry,
    operations: IntCounterVec,
    operation_errors: IntCounterVec,
    operation_seconds: HistogramVec,
    relist_seconds: Histogram,
    relist_interval: Histogram,
    relist_seen: Gauge,
    requests: IntCounterVec,
}

/// Begins to keep figures; before, and in processes that do not, nothing is noted.
///
/// # Errors
/// When the library refuses one of them.
pub fn init() -> Result<(), prometheus::Error> {
    if METRICS.get().is_none() {
        // A second one that comes at the same time is dropped.
        METRICS.set(Metrics::new()?).ok();
    }
    Ok(())
}

impl Metrics {
    fn new() -> Result<Self, prometheus::Error> {
        let made = Self {
            registry: Registry::new(),
            operations: IntCounterVec::new(
                Opts::new("kubelet_runtime_operations_total", "Calls of the container runtime by operation."),
                &["operation_type"],
            )?,
            operation_errors: IntCounterVec::new(
                Opts::new(
                    "kubelet_runtime_operations_errors_total",
                    "Calls of the container runtime that failed, by operation.",
                ),
                &["operation_type"],
            )?,
            operation_seconds: HistogramVec::new(
                HistogramOpts::new(
                    "kubelet_runtime_operations_duration_seconds",
                    "Duration in seconds of calls of the container runtime by operation.",
                )
                .buckets(exponential_buckets(0.005, 2.5, 14)?),
                &["operation_type"],
            )?,
            relist_seconds: seconds(
                "kubelet_pleg_relist_duration_seconds",
                "Duration in seconds of asking the runtime for all pods.",
            )?,
            relist_interval: seconds(
                "kubelet_pleg_relist_interval_seconds",
                "Seconds between two times of asking the runtime for all pods.",
            )?,
            relist_seen: Gauge::new(
                "kubelet_pleg_last_seen_seconds",
                "When the runtime was last asked for all pods, in seconds since 1970.",
            )?,
            requests: IntCounterVec::new(
                Opts::new("kubelet_http_requests_total", "Requests to the node's API."),
                &["method", "path", "server_type", "long_running"],
            )?,
        };
        let all: [Box<dyn Collector>; 7] = [
            Box::new(made.operations.clone()),
            Box::new(made.operation_errors.clone()),
            Box::new(made.operation_seconds.clone()),
            Box::new(made.relist_seconds.clone()),
            Box::new(made.relist_interval.clone()),
            Box::new(made.relist_seen.clone()),
            Box::new(made.requests.clone()),
        ];
        all.into_iter().try_for_each(|collector| made.registry.register(collector))?;
        Ok(made)
    }
}

fn seconds(name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(DEFAULT.to_vec()))
}

/// kubelet's name of a call of CRI.
fn operation(rpc: &str) -> &'static str {
    match rpc {
        "Version" => "version",
        "Status" => "status",
        "RuntimeConfig" => "runtime_config",
        "UpdateRuntimeConfig" => "update_runtime_config",
        "RunPodSandbox" => "run_podsandbox",
        "StopPodSandbox" => "stop_podsandbox",
        "RemovePodSandbox" => "remove_podsandbox",
        "PodSandboxStatus" => "podsandbox_status",
        "ListPodSandbox" => "list_podsandbox",
        "UpdatePodSandboxResources" => "update_podsandbox_resources",
        "CreateContainer" => "create_container",
        "StartContainer" => "start_container",
        "StopContainer" => "stop_container",
        "RemoveContainer" => "remove_container",
        "ListContainers" => "list_containers",
        "ContainerStatus" => "container_status",
        "UpdateContainerResources" => "update_container",
        "ReopenContainerLog" => "reopen_container_log",
        "ExecSync" => "exec_sync",
        "Exec" => "exec",
        "Attach" => "attach",
        "PortForward" => "port_forward",
        "ContainerStats" => "container_stats",
        "ListContainerStats" => "list_container_stats",
        "PodSandboxStats" => "podsandbox_stats",
        "ListPodSandboxStats" => "list_podsandbox_stats",
        "CheckpointContainer" => "checkpoint_container",
        "ListMetricDescriptors" => "list_metric_descriptors",
        "ListPodSandboxMetrics" => "list_podsandbox_metrics",
        "ListImages" => "list_images",
        "ImageStatus" => "image_status",
        "PullImage" => "pull_image",
        "RemoveImage" => "remove_image",
        "ImageFsInfo" => "image_fs_info",
        _ => "other",
    }
}

/// A call of CRI has ended.
pub fn runtime_operation(rpc: &str, took: Duration, well: bool) {
    let Some(metrics) = METRICS.get() else { return };
    let operation = [operation(rpc)];
    metrics.operations.with_label_values(&operation).inc();
    metrics.operation_seconds.with_label_values(&operation).observe(took.as_secs_f64());
    if !well {
        metrics.operation_errors.with_label_values(&operation).inc();
    }
}

/// The runtime was asked for all pods, which took so long; `since` is how long after the time before.
pub fn relisted(took: Duration, since: Option<Duration>) {
    let Some(metrics) = METRICS.get() else { return };
    metrics.relist_seconds.observe(took.as_secs_f64());
    since.into_iter().for_each(|since| metrics.relist_interval.observe(since.as_secs_f64()));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    metrics.relist_seen.set(now.unwrap_or_default().as_secs_f64());
}

/// Somebody has asked the node's API. All values come from fixed lists.
pub fn request(method: &'static str, path: &'static str, secure: bool, long_running: bool) {
    let Some(metrics) = METRICS.get() else { return };
    let server = if secure { "readwrite" } else { "readonly" };
    let long = if long_running { "true" } else { "false" };
    metrics.requests.with_label_values(&[method, path, server, long]).inc();
}

/// All figures in Prometheus' text format, with others that the caller tells.
///
/// # Errors
/// When a figure cannot be written: the library's words.
pub fn text(others: &Registry) -> Result<String, prometheus::Error> {
    let own: Vec<MetricFamily> = METRICS.get().map(|metrics| metrics.registry.gather()).unwrap_or_default();
    let all: Vec<MetricFamily> = own.into_iter().chain(others.gather()).collect();
    TextEncoder::new().encode_to_string(&all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_told_and_each_call_has_kubelets_name() {
        runtime_operation("Version", Duration::from_millis(3), true);
        init().unwrap();
        init().unwrap();
        runtime_operation("RunPodSandbox", Duration::from_secs(1), false);
        runtime_operation("NoSuchCall", Duration::from_secs(1), true);
        relisted(Duration::from_millis(20), None);
        relisted(Duration::from_millis(20), Some(Duration::from_secs(1)));
        request("GET", "pods", true, false);
        let text = text(&Registry::new()).unwrap();
        for line in [
            "# TYPE kubelet_runtime_operations_total counter",
            "kubelet_runtime_operations_total{operation_type=\"run_podsandbox\"} 1",
            "kubelet_runtime_operations_total{operation_type=\"other\"} 1",
            "kubelet_runtime_operations_errors_total{operation_type=\"run_podsandbox\"} 1",
            "kubelet_runtime_operations_duration_seconds_bucket{operation_type=\"run_podsandbox\",le=\"1.220703125\"} 1",
            "kubelet_pleg_relist_duration_seconds_count 2",
            "kubelet_pleg_relist_interval_seconds_count 1",
            "kubelet_http_requests_total{long_running=\"false\",method=\"GET\",path=\"pods\",server_type=\"readwrite\"} 1",
        ] {
            assert!(text.lines().any(|own| own == line), "{line}\n{text}");
        }
        // Before it began nothing was noted.
        assert!(!text.contains("operation_type=\"version\""), "{text}");
    }
}
