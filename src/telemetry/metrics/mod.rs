//! The agent's own figures, under kubelet's names (`pkg/kubelet/metrics`), so that dashboards and alerts go on working.
//!
//! They are of the process and kept for as long as it runs. What a scrape asks of the agent's state is not kept here
//! but told by whoever serves it. Of a pod or container nothing is kept: there is a bounded number of series.

mod certificates;
mod containers;
mod pods;
mod probes;

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
    TextEncoder, core::Collector, exponential_buckets, proto::MetricFamily,
};

pub use self::{
    certificates::{CertificateOf, certificate, certificate_failed},
    containers::{container_started, image_pulled, sandbox_made},
    pods::{PodSync, pod_ran, pod_started, pod_synced, status_written, worker_started},
    probes::{ProbeOf, ProbeOutcome, forget_probes, probe_text, probed},
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
    request_seconds: HistogramVec,
    requests_now: IntGaugeVec,
    client_requests: IntCounterVec,
    client_seconds: HistogramVec,
    cgroup_seconds: HistogramVec,
    certificates: certificates::Figures,
    containers: containers::Figures,
    pods: pods::Figures,
    probes: probes::Figures,
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
        let registry = Registry::new();
        let to = &registry;
        let operation = &["operation_type"];
        let of_request = &["method", "path", "server_type", "long_running"];
        Ok(Self {
            operations: counters(
                to,
                "kubelet_runtime_operations_total",
                "Calls of the container runtime by operation.",
                operation,
            )?,
            operation_errors: counters(
                to,
                "kubelet_runtime_operations_errors_total",
                "Calls of the container runtime that failed, by operation.",
                operation,
            )?,
            operation_seconds: histograms(
                to,
                "kubelet_runtime_operations_duration_seconds",
                "Duration in seconds of calls of the container runtime by operation.",
                operation,
                &exponential_buckets(0.005, 2.5, 14)?,
            )?,
            relist_seconds: histogram(
                to,
                "kubelet_pleg_relist_duration_seconds",
                "Duration in seconds of asking the runtime for all pods.",
                &DEFAULT,
            )?,
            relist_interval: histogram(
                to,
                "kubelet_pleg_relist_interval_seconds",
                "Seconds between two times of asking the runtime for all pods.",
                &DEFAULT,
            )?,
            relist_seen: registered(
                to,
                Gauge::new(
                    "kubelet_pleg_last_seen_seconds",
                    "When the runtime was last asked for all pods, in seconds since 1970.",
                )?,
            )?,
            requests: counters(to, "kubelet_http_requests_total", "Requests to the node's API.", of_request)?,
            request_seconds: histograms(
                to,
                "kubelet_http_requests_duration_seconds",
                "Duration in seconds of requests to the node's API, until the answer begins.",
                of_request,
                &DEFAULT,
            )?,
            requests_now: registered(
                to,
                IntGaugeVec::new(
                    Opts::new(
                        "kubelet_http_inflight_requests",
                        "Requests to the node's API whose answer has not begun.",
                    ),
                    of_request,
                )?,
            )?,
            client_requests: counters(
                to,
                "rest_client_requests_total",
                "Requests to the API server by answer's code, method and server.",
                &["code", "method", "host"],
            )?,
            client_seconds: histograms(
                to,
                "rest_client_request_duration_seconds",
                "Duration in seconds of requests to the API server, until the answer begins.",
                &["verb", "host"],
                &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0],
            )?,
            cgroup_seconds: histograms(
                to,
                "kubelet_cgroup_manager_duration_seconds",
                "Duration in seconds of making, setting and removing cgroups.",
                operation,
                &DEFAULT,
            )?,
            certificates: certificates::Figures::new(to)?,
            containers: containers::Figures::new(to)?,
            pods: pods::Figures::new(to)?,
            probes: probes::Figures::default(),
            registry,
        })
    }
}

/// Has the registry tell of a figure.
fn registered<C: Collector + Clone + 'static>(to: &Registry, figure: C) -> Result<C, prometheus::Error> {
    to.register(Box::new(figure.clone()))?;
    Ok(figure)
}

fn counters(
    to: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    registered(to, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn counter(to: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    registered(to, IntCounter::new(name, help)?)
}

fn histogram(to: &Registry, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram, prometheus::Error> {
    registered(to, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
}

fn histograms(
    to: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> Result<HistogramVec, prometheus::Error> {
    let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    registered(to, HistogramVec::new(opts, labels)?)
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

/// Somebody has asked the node's API. All values come from fixed lists. What is returned is to be kept until the
/// answer begins.
pub fn request(method: &'static str, path: &'static str, secure: bool, long_running: bool) -> Option<Asked> {
    let metrics = METRICS.get()?;
    let server = if secure { "readwrite" } else { "readonly" };
    let long = if long_running { "true" } else { "false" };
    let labels = [method, path, server, long];
    metrics.requests.with_label_values(&labels).inc();
    metrics.requests_now.with_label_values(&labels).inc();
    Some(Asked { labels, since: Instant::now() })
}

/// A request that is being answered.
#[derive(Debug)]
pub struct Asked {
    labels: [&'static str; 4],
    since: Instant,
}

impl Drop for Asked {
    fn drop(&mut self) {
        let Some(metrics) = METRICS.get() else { return };
        metrics.requests_now.with_label_values(&self.labels).dec();
        let took = self.since.elapsed().as_secs_f64();
        metrics.request_seconds.with_label_values(&self.labels).observe(took);
    }
}

/// A request to an API server has been answered with a status code, or not at all. `verb` and `method` come from fixed
/// lists; of hosts there are as many as kubeconfigs name.
pub fn server_asked(host: &str, method: &str, verb: &str, code: Option<u16>, took: Duration) {
    let Some(metrics) = METRICS.get() else { return };
    // client-go's word for one that failed without an answer.
    let code = code.map_or_else(|| "<error>".to_owned(), |code| code.to_string());
    metrics.client_requests.with_label_values(&[code.as_str(), method, host]).inc();
    metrics.client_seconds.with_label_values(&[verb, host]).observe(took.as_secs_f64());
}

/// A cgroup was made or set (`update`), or removed (`destroy`).
pub fn cgroup_changed(operation: &'static str, took: Duration) {
    let Some(metrics) = METRICS.get() else { return };
    metrics.cgroup_seconds.with_label_values(&[operation]).observe(took.as_secs_f64());
}

/// All figures in Prometheus' text format, with others that the caller tells.
///
/// # Errors
/// When a figure cannot be written: the library's words.
pub fn text(others: &Registry) -> Result<String, prometheus::Error> {
    let mut all: Vec<MetricFamily> = others.gather();
    if let Some(metrics) = METRICS.get() {
        all.extend(metrics.registry.gather());
        all.extend(metrics.certificates.told()?.gather());
    }
    TextEncoder::new().encode_to_string(&all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_told_and_each_call_has_kubelets_name() {
        init().unwrap();
        init().unwrap();
        runtime_operation("RunPodSandbox", Duration::from_secs(1), false);
        runtime_operation("NoSuchCall", Duration::from_secs(1), true);
        relisted(Duration::from_millis(20), None);
        relisted(Duration::from_millis(20), Some(Duration::from_secs(1)));
        let asked = request("GET", "pods", true, false);
        let now = text(&Registry::new()).unwrap();
        let inflight = "kubelet_http_inflight_requests{long_running=\"false\",method=\"GET\",path=\"pods\",server_type=\"readwrite\"}";
        let value = now.lines().find_map(|line| line.strip_prefix(inflight)?.trim().parse::<f64>().ok());
        assert!(value.is_some_and(|value| value >= 1.0), "{now}");
        drop(asked);
        server_asked("10.0.0.1:6443", "GET", "GET", Some(200), Duration::from_millis(3));
        server_asked("10.0.0.1:6443", "GET", "GET", None, Duration::from_millis(3));
        cgroup_changed("update", Duration::from_millis(1));
        let text = text(&Registry::new()).unwrap();
        let told = |series: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
            value.and_then(|value| value.parse::<f64>().ok())
        };
        // Other tests of this process may have noted some too.
        for (series, at_least) in [
            ("# TYPE kubelet_runtime_operations_total", None),
            ("kubelet_runtime_operations_total{operation_type=\"run_podsandbox\"}", Some(1.0)),
            ("kubelet_runtime_operations_total{operation_type=\"other\"}", Some(1.0)),
            ("kubelet_runtime_operations_errors_total{operation_type=\"run_podsandbox\"}", Some(1.0)),
            (
                "kubelet_runtime_operations_duration_seconds_bucket{operation_type=\"run_podsandbox\",le=\"1.220703125\"}",
                Some(1.0),
            ),
            ("kubelet_pleg_relist_duration_seconds_count", Some(2.0)),
            ("kubelet_pleg_relist_interval_seconds_count", Some(1.0)),
            (
                "kubelet_http_requests_total{long_running=\"false\",method=\"GET\",path=\"pods\",server_type=\"readwrite\"}",
                Some(1.0),
            ),
            (
                "kubelet_http_requests_duration_seconds_count{long_running=\"false\",method=\"GET\",path=\"pods\",server_type=\"readwrite\"}",
                Some(1.0),
            ),
            (
                "kubelet_http_inflight_requests{long_running=\"false\",method=\"GET\",path=\"pods\",server_type=\"readwrite\"}",
                Some(0.0),
            ),
            ("rest_client_requests_total{code=\"200\",host=\"10.0.0.1:6443\",method=\"GET\"}", Some(1.0)),
            ("rest_client_requests_total{code=\"<error>\",host=\"10.0.0.1:6443\",method=\"GET\"}", Some(1.0)),
            ("rest_client_request_duration_seconds_count{host=\"10.0.0.1:6443\",verb=\"GET\"}", Some(2.0)),
            ("kubelet_cgroup_manager_duration_seconds_count{operation_type=\"update\"}", Some(1.0)),
        ] {
            match at_least {
                Some(least) => assert!(told(series).is_some_and(|value| value >= least), "{series}\n{text}"),
                None => {
                    assert!(text.lines().any(|line| line == format!("{series} counter")), "{series}\n{text}");
                }
            }
        }
    }
}
