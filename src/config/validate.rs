//! What values a configuration may have, alone and beside one another.
//!
//! The rules are kubelet's (`ValidateKubeletConfiguration`), with every key named in its place in
//! the file. They run on the complete, defaulted configuration.

use super::duration::GoDuration;
use super::gates::FeatureGates;
use super::keys::quoted;
use super::types::KubeletConfiguration;
use super::validate_maps;

/// What is wrong with a key.
pub(super) struct Finding {
    pub(super) key: String,
    /// The key that it does not go with; the place to name where the first is not set.
    pub(super) beside: Option<&'static str>,
    pub(super) message: String,
}

/// Collects findings under the names of keys.
pub(super) struct Findings(pub(super) Vec<Finding>);

impl Findings {
    pub(super) fn add(&mut self, key: &str, message: impl Into<String>) {
        self.0.push(Finding { key: key.to_owned(), beside: None, message: message.into() });
    }

    /// Two keys that do not go together.
    pub(super) fn add_beside(&mut self, key: &str, beside: &'static str, message: impl Into<String>) {
        self.0.push(Finding { key: key.to_owned(), beside: Some(beside), message: message.into() });
    }

    /// A number that must be in a range, both ends included.
    fn range<T>(&mut self, key: &str, value: Option<T>, low: T, high: T)
    where
        T: PartialOrd + std::fmt::Display + Copy,
    {
        if let Some(value) = value.filter(|value| *value < low || *value > high) {
            self.add(key, format!("{value} is not between {low} and {high}"));
        }
    }

    fn not_negative<T: Into<i64> + Copy>(&mut self, key: &str, value: Option<T>) {
        if let Some(value) = value.map(Into::into).filter(|value| *value < 0) {
            self.add(key, format!("{value} is negative"));
        }
    }
}

/// Checks a complete configuration; the answer names keys by their path.
pub(super) fn validate(config: &KubeletConfiguration, gates: &FeatureGates) -> Vec<Finding> {
    let mut findings = Findings(Vec::new());
    numbers(config, &mut findings);
    images(config, gates, &mut findings);
    durations(config, gates, &mut findings);
    shutdown(config, gates, &mut findings);
    logs(config, gates, &mut findings);
    node(config, gates, &mut findings);
    validate_maps::validate(config, &mut findings);
    findings.0
}

fn numbers(config: &KubeletConfiguration, out: &mut Findings) {
    out.range("port", config.port, 1, 65535);
    out.range("readOnlyPort", config.read_only_port, 0, 65535);
    out.range("healthzPort", config.healthz_port, 0, 65535);
    out.range("oomScoreAdj", config.oom_score_adj, -1000, 1000);
    out.range("iptablesDropBit", config.iptables_drop_bit, 0, 31);
    out.range("iptablesMasqueradeBit", config.iptables_masquerade_bit, 0, 31);
    out.range("nodeLeaseDurationSeconds", config.node_lease_duration_seconds, 1, i32::MAX);
    out.range("nodeStatusMaxImages", config.node_status_max_images, -1, i32::MAX);
    for (key, value) in [
        ("eventBurst", config.event_burst),
        ("eventRecordQPS", config.event_record_qps),
        ("kubeAPIBurst", config.kube_api_burst),
        ("kubeAPIQPS", config.kube_api_qps),
        ("maxPods", config.max_pods),
        ("podsPerCore", config.pods_per_core),
        ("registryBurst", config.registry_burst),
        ("registryPullQPS", config.registry_pull_qps),
    ] {
        out.not_negative(key, value);
    }
    out.not_negative("maxOpenFiles", config.max_open_files);
    if let Some(factor) = config.memory_throttling_factor.filter(|factor| !(*factor > 0.0 && *factor <= 1.0))
    {
        out.add("memoryThrottlingFactor", format!("{factor} is not over 0 and up to 1"));
    }
    if let Some(ids) = config.user_namespaces.as_ref().and_then(|namespaces| namespaces.ids_per_pod)
        && (ids <= 0 || ids % 65536 != 0 || ids >= 1 << 32)
    {
        out.add("userNamespaces.idsPerPod", format!("{ids} is not a multiple of 65536 below 2^32"));
    }
    if let Some(rate) = config.tracing.as_ref().and_then(|tracing| tracing.sampling_rate_per_million) {
        out.range("tracing.samplingRatePerMillion", Some(rate), 0, 1_000_000);
    }
}

fn images(config: &KubeletConfiguration, gates: &FeatureGates, out: &mut Findings) {
    let (high, low) = (config.image_gc_high_threshold_percent, config.image_gc_low_threshold_percent);
    out.range("imageGCHighThresholdPercent", high, 0, 100);
    out.range("imageGCLowThresholdPercent", low, 0, 100);
    if let (Some(high), Some(low)) = (high, low)
        && low >= high
    {
        out.add_beside(
            "imageGCLowThresholdPercent",
            "imageGCHighThresholdPercent",
            format!("{low} is not below imageGCHighThresholdPercent, which is {high}"),
        );
    }
    let minimum = config.image_minimum_gc_age.unwrap_or_default();
    let maximum = config.image_maximum_gc_age.unwrap_or_default();
    for (key, age) in [("imageMinimumGCAge", minimum), ("imageMaximumGCAge", maximum)] {
        if age < GoDuration::ZERO {
            out.add(key, format!("{age} is negative"));
        }
    }
    if maximum > GoDuration::ZERO && maximum <= minimum {
        out.add_beside(
            "imageMaximumGCAge",
            "imageMinimumGCAge",
            format!("{maximum} is not over imageMinimumGCAge, which is {minimum}"),
        );
    }
    if let Some(bound) = config.max_parallel_image_pulls {
        if bound < 1 {
            out.add("maxParallelImagePulls", format!("{bound} is not a positive number"));
        } else if bound > 1 && config.serialize_image_pulls == Some(true) {
            out.add("maxParallelImagePulls", format!("{bound} needs serializeImagePulls to be false"));
        }
    }
    let allowlist =
        config.preloaded_images_verification_allowlist.as_ref().is_some_and(|list| !list.is_empty());
    let policy = config.image_pull_credentials_verification_policy.as_deref().unwrap_or("");
    if !gates.enabled("KubeletEnsureSecretPulledImages") {
        if !policy.is_empty() {
            out.add(
                "imagePullCredentialsVerificationPolicy",
                "needs feature gate KubeletEnsureSecretPulledImages",
            );
        }
        if allowlist {
            out.add(
                "preloadedImagesVerificationAllowlist",
                "needs feature gate KubeletEnsureSecretPulledImages",
            );
        }
    } else if allowlist && policy != "NeverVerifyAllowlistedImages" {
        out.add(
            "preloadedImagesVerificationAllowlist",
            "needs imagePullCredentialsVerificationPolicy to be NeverVerifyAllowlistedImages",
        );
    }
}

fn durations(config: &KubeletConfiguration, gates: &FeatureGates, out: &mut Findings) {
    let period = config.cpu_cfs_quota_period.unwrap_or(GoDuration::from_millis(100));
    if gates.enabled("CustomCPUCFSQuotaPeriod") {
        out.range("cpuCFSQuotaPeriod", Some(period), GoDuration::from_millis(1), GoDuration::from_secs(1));
    } else if period != GoDuration::from_millis(100) {
        out.add("cpuCFSQuotaPeriod", format!("{period} needs feature gate CustomCPUCFSQuotaPeriod"));
    }
    let backoff = config.crash_loop_back_off.max_container_restart_period;
    let key = "crashLoopBackOff.maxContainerRestartPeriod";
    if gates.enabled("KubeletCrashLoopBackOffMax") {
        out.range(key, backoff, GoDuration::from_secs(1), GoDuration::from_secs(300));
    } else if backoff.is_some() {
        out.add(key, "needs feature gate KubeletCrashLoopBackOffMax");
    }
    if config.dra_manager_reconcile_period.is_some_and(|period| period <= GoDuration::ZERO) {
        out.add("draManagerReconcilePeriod", "must be over zero");
    }
    // Kubelet starts with these below zero and then spins or never acts; here they are refused.
    for (key, value) in [
        ("syncFrequency", config.sync_frequency),
        ("fileCheckFrequency", config.file_check_frequency),
        ("httpCheckFrequency", config.http_check_frequency),
        ("runtimeRequestTimeout", config.runtime_request_timeout),
    ] {
        if let Some(value) = value.filter(|value| *value <= GoDuration::ZERO) {
            out.add(key, format!("{value} is not over zero"));
        }
    }
}

fn shutdown(config: &KubeletConfiguration, gates: &FeatureGates, out: &mut Findings) {
    let total = config.shutdown_grace_period.unwrap_or_default();
    let critical = config.shutdown_grace_period_critical_pods.unwrap_or_default();
    let second = GoDuration::from_secs(1);
    for (key, period) in [("shutdownGracePeriod", total), ("shutdownGracePeriodCriticalPods", critical)] {
        if !period.is_zero() && !gates.enabled("GracefulNodeShutdown") {
            out.add(key, "needs feature gate GracefulNodeShutdown");
        } else if !period.is_zero() && period < second {
            out.add(key, format!("{period} is neither zero nor at least 1s"));
        }
    }
    if critical > total {
        out.add(
            "shutdownGracePeriodCriticalPods",
            format!("{critical} is more than shutdownGracePeriod, which is {total}"),
        );
    }
    if config.shutdown_grace_period_by_pod_priority.as_ref().is_some_and(|list| !list.is_empty()) {
        let key = "shutdownGracePeriodByPodPriority";
        if !gates.enabled("GracefulNodeShutdownBasedOnPodPriority") {
            out.add(key, "needs feature gate GracefulNodeShutdownBasedOnPodPriority");
        } else if !total.is_zero() || !critical.is_zero() {
            out.add(key, "cannot be set beside shutdownGracePeriod");
        }
    }
}

fn logs(config: &KubeletConfiguration, gates: &FeatureGates, out: &mut Findings) {
    out.range("containerLogMaxWorkers", config.container_log_max_workers, 1, i32::MAX);
    out.range("containerLogMaxFiles", config.container_log_max_files, 2, i32::MAX);
    if let Some(interval) = config.container_log_monitor_interval
        && interval < GoDuration::from_secs(3)
    {
        out.add("containerLogMonitorInterval", format!("{interval} is less than 3s"));
    }
    let dir = config.pod_logs_dir.as_deref().unwrap_or("");
    if !dir.starts_with('/') {
        out.add("podLogsDir", format!("{dir:?} is not an absolute path"));
    } else if !is_clean(dir) {
        out.add("podLogsDir", format!("{dir:?} has empty, \".\" or \"..\" parts or ends in a slash"));
    } else if !dir.is_ascii() {
        out.add("podLogsDir", "has characters other than ASCII");
    }
    let verbose = config.logging.vmodule.as_ref().is_some_and(|modules| !modules.is_empty());
    if verbose && config.logging.format.as_deref() != Some("text") {
        out.add("logging.vmodule", "works with the text format only");
    }
    let query = config.enable_system_log_query == Some(true);
    if query && !gates.enabled("NodeLogQuery") {
        out.add("enableSystemLogQuery", "needs feature gate NodeLogQuery");
    }
    if query && config.enable_system_log_handler == Some(false) {
        out.add("enableSystemLogQuery", "needs enableSystemLogHandler");
    }
}

/// Whether a path is as `filepath.Clean` would leave it.
fn is_clean(path: &str) -> bool {
    path == "/" || path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."))
}

fn node(config: &KubeletConfiguration, gates: &FeatureGates, out: &mut Findings) {
    let set = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    if set(&config.system_cgroups) && !set(&config.cgroup_root) {
        out.add("systemCgroups", "needs cgroupRoot");
    }
    if config.server_tls_bootstrap == Some(true) && !gates.enabled("RotateKubeletServerCertificate") {
        out.add("serverTLSBootstrap", "needs feature gate RotateKubeletServerCertificate");
    }
    if config.run_once == Some(true) {
        out.add("runOnce", "no longer supported by kubelet");
    }
    let tiered = config.memory_reservation_policy.as_deref() == Some("TieredReservation");
    if tiered && !gates.enabled("MemoryQoS") {
        out.add("memoryReservationPolicy", "\"TieredReservation\" needs feature gate MemoryQoS");
    }
    if config.memory_swap.swap_behavior.as_deref() == Some("UnlimitedSwap") {
        let allowed = quoted(&["NoSwap", "LimitedSwap"]);
        out.add(
            "memorySwap.swapBehavior",
            format!("\"UnlimitedSwap\" was removed by Kubernetes 1.30; want {allowed}"),
        );
    }
    for (key, endpoint) in [
        ("containerRuntimeEndpoint", &config.container_runtime_endpoint),
        ("imageServiceEndpoint", &config.image_service_endpoint),
    ] {
        let scheme = endpoint.as_deref().and_then(|text| text.split_once("://")).map(|(scheme, _)| scheme);
        if let Some(scheme) = scheme.filter(|scheme| *scheme != "unix") {
            out.add(key, format!("{scheme:?} is not a scheme for Linux; want unix:///path"));
        }
    }
    if let Some(url) = config.static_pod_url.as_ref().filter(|url| !url.is_empty())
        && !url.expose().starts_with("http://")
        && !url.expose().starts_with("https://")
    {
        out.add("staticPodURL", "want a URL that starts with http:// or https://");
    }
    for (index, server) in config.cluster_dns.iter().flatten().enumerate() {
        if server.parse::<std::net::IpAddr>().is_err() {
            out.add("clusterDNS", format!("entry {index}, {server:?}, is not an IP address"));
        }
    }
    if config.register_with_taints.iter().flatten().any(|taint| taint.time_added.is_some()) {
        out.add("registerWithTaints", "timeAdded cannot be set here");
    }
}
