//! The KubeletConfiguration v1beta1 as a Rust type.
//!
//! Every key is optional here, so that a file can be read, merged with drop-ins and told apart from
//! its defaults. Field names follow the JSON keys; kubelet's type is `v1beta1.KubeletConfiguration`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::duration::GoDuration;
use super::secret::{HeaderMap, SecretUrl};
use super::types_nested::is_default;
pub use super::types_nested::*;

/// The kubelet's configuration, kubelet.config.k8s.io/v1beta1, with every key up to Kubernetes 1.36.
///
/// A key that is absent is `None`; [`super::defaults::apply`] fills in what kubelet would.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct KubeletConfiguration {
    /// Always `kubelet.config.k8s.io/v1beta1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Always `KubeletConfiguration`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Serve the kubelet API on `port`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_server: Option<bool>,
    /// Folder (or single file) of static pod manifests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub static_pod_path: Option<String>,
    /// Root folder of the pods' container logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_logs_dir: Option<String>,
    /// Longest time between two syncs of a running pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sync_frequency: Option<GoDuration>,
    /// Time between two rescans of `staticPodPath`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_check_frequency: Option<GoDuration>,
    /// Time between two reads of `staticPodURL`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_check_frequency: Option<GoDuration>,
    /// URL that serves static pod manifests.
    #[serde(rename = "staticPodURL", skip_serializing_if = "Option::is_none")]
    pub static_pod_url: Option<SecretUrl>,
    /// HTTP headers sent with requests to `staticPodURL`.
    #[serde(rename = "staticPodURLHeader", skip_serializing_if = "Option::is_none")]
    pub static_pod_url_header: Option<HeaderMap>,
    /// Address that the kubelet API listens on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Port of the kubelet API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i32>,
    /// Port of the unauthenticated read-only API; 0 is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only_port: Option<i32>,
    /// Serving certificate, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cert_file: Option<String>,
    /// Private key of `tlsCertFile`, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_private_key_file: Option<String>,
    /// Allowed TLS 1.2 cipher suites, by Go's names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cipher_suites: Option<Vec<String>>,
    /// Allowed key exchange mechanisms, by Go's CurveID numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_curve_preferences: Option<Vec<i32>>,
    /// Lowest TLS version of the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_min_version: Option<String>,
    /// Renew the client certificate through the API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotate_certificates: Option<bool>,
    /// Ask the API server for the serving certificate.
    #[serde(rename = "serverTLSBootstrap", skip_serializing_if = "Option::is_none")]
    pub server_tls_bootstrap: Option<bool>,
    /// How requests to the kubelet API are authenticated.
    #[serde(skip_serializing_if = "is_default")]
    pub authentication: KubeletAuthentication,
    /// How requests to the kubelet API are authorized.
    #[serde(skip_serializing_if = "is_default")]
    pub authorization: KubeletAuthorization,
    /// Image pulls started per second; 0 is no limit.
    #[serde(rename = "registryPullQPS", skip_serializing_if = "Option::is_none")]
    pub registry_pull_qps: Option<i32>,
    /// Burst over `registryPullQPS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry_burst: Option<i32>,
    /// Which present images need their pull credentials verified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_pull_credentials_verification_policy: Option<String>,
    /// Images exempted from credential verification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preloaded_images_verification_allowlist: Option<Vec<String>>,
    /// Events created per second; 0 is no limit.
    #[serde(rename = "eventRecordQPS", skip_serializing_if = "Option::is_none")]
    pub event_record_qps: Option<i32>,
    /// Burst over `eventRecordQPS`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_burst: Option<i32>,
    /// Serve exec, attach, logs and port-forward.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_debugging_handlers: Option<bool>,
    /// Block profiling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_contention_profiling: Option<bool>,
    /// Port of the local health endpoint; 0 is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthz_port: Option<i32>,
    /// Address of the health endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthz_bind_address: Option<String>,
    /// The agent's own oom_score_adj.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// DNS domain of the cluster, searched by containers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster_domain: Option<String>,
    /// Addresses of the cluster's DNS servers.
    #[serde(rename = "clusterDNS", skip_serializing_if = "Option::is_none")]
    pub cluster_dns: Option<Vec<String>>,
    /// No effect since kubelet stopped proxying streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub streaming_connection_idle_timeout: Option<GoDuration>,
    /// Time between two computations of the node status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_status_update_frequency: Option<GoDuration>,
    /// Longest time between two posts of an unchanged node status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_status_report_frequency: Option<GoDuration>,
    /// Duration of the node lease, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_lease_duration_seconds: Option<i32>,
    /// Youngest age at which an unused image is collected.
    #[serde(rename = "imageMinimumGCAge", skip_serializing_if = "Option::is_none")]
    pub image_minimum_gc_age: Option<GoDuration>,
    /// Age at which an unused image is collected regardless of disk use; 0 is off.
    #[serde(rename = "imageMaximumGCAge", skip_serializing_if = "Option::is_none")]
    pub image_maximum_gc_age: Option<GoDuration>,
    /// Disk use in percent that starts image collection.
    #[serde(rename = "imageGCHighThresholdPercent", skip_serializing_if = "Option::is_none")]
    pub image_gc_high_threshold_percent: Option<i32>,
    /// Disk use in percent that image collection aims for.
    #[serde(rename = "imageGCLowThresholdPercent", skip_serializing_if = "Option::is_none")]
    pub image_gc_low_threshold_percent: Option<i32>,
    /// Time between two measurements of volume use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_stats_agg_period: Option<GoDuration>,
    /// Cgroup for the agent itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubelet_cgroups: Option<String>,
    /// Cgroup for other non-kernel processes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_cgroups: Option<String>,
    /// Root cgroup of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_root: Option<String>,
    /// Put pods under one cgroup per QoS class.
    #[serde(rename = "cgroupsPerQOS", skip_serializing_if = "Option::is_none")]
    pub cgroups_per_qos: Option<bool>,
    /// `cgroupfs` or `systemd`; what the runtime answers comes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_driver: Option<String>,
    /// `none` or `static`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_manager_policy: Option<String>,
    /// Do not set memory.oom.group on container cgroups.
    #[serde(rename = "singleProcessOOMKill", skip_serializing_if = "Option::is_none")]
    pub single_process_oom_kill: Option<bool>,
    /// Options of the CPU manager policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_manager_policy_options: Option<BTreeMap<String, String>>,
    /// Time between two reconciliations of CPU assignments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_manager_reconcile_period: Option<GoDuration>,
    /// Time between two reconciliations of dynamic resources.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dra_manager_reconcile_period: Option<GoDuration>,
    /// `None` or `Static`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_manager_policy: Option<String>,
    /// NUMA alignment policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology_manager_policy: Option<String>,
    /// What NUMA alignment is computed for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology_manager_scope: Option<String>,
    /// Options of the topology manager policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology_manager_policy_options: Option<BTreeMap<String, String>>,
    /// Share of a resource reserved for the Guaranteed class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos_reserved: Option<BTreeMap<String, String>>,
    /// Deadline of runtime calls other than pull, logs, exec and attach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime_request_timeout: Option<GoDuration>,
    /// Had meaning for dockershim's networking only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hairpin_mode: Option<String>,
    /// Most pods on the node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_pods: Option<i32>,
    /// Pod network for standalone use.
    #[serde(rename = "podCIDR", skip_serializing_if = "Option::is_none")]
    pub pod_cidr: Option<String>,
    /// Most processes in one pod; -1 is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod_pids_limit: Option<i64>,
    /// Resolver file that pods' DNS settings start from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolv_conf: Option<String>,
    /// Run the static pods once and exit; no longer supported by kubelet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_once: Option<bool>,
    /// Enforce CPU limits by CFS quota.
    #[serde(rename = "cpuCFSQuota", skip_serializing_if = "Option::is_none")]
    pub cpu_cfs_quota: Option<bool>,
    /// CFS quota period, 1 ms to 1 s.
    #[serde(rename = "cpuCFSQuotaPeriod", skip_serializing_if = "Option::is_none")]
    pub cpu_cfs_quota_period: Option<GoDuration>,
    /// Most images listed in the node status; -1 is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_status_max_images: Option<i32>,
    /// The agent's own limit of open files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_open_files: Option<i64>,
    /// Content type of requests to the API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Requests per second to the API server.
    #[serde(rename = "kubeAPIQPS", skip_serializing_if = "Option::is_none")]
    pub kube_api_qps: Option<i32>,
    /// Burst over `kubeAPIQPS`.
    #[serde(rename = "kubeAPIBurst", skip_serializing_if = "Option::is_none")]
    pub kube_api_burst: Option<i32>,
    /// Pull one image at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serialize_image_pulls: Option<bool>,
    /// Most image pulls at once, where they are not serialized.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_parallel_image_pulls: Option<i32>,
    /// Hard eviction thresholds by signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eviction_hard: Option<BTreeMap<String, String>>,
    /// Soft eviction thresholds by signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eviction_soft: Option<BTreeMap<String, String>>,
    /// How long each soft threshold must hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eviction_soft_grace_period: Option<BTreeMap<String, String>>,
    /// How long a pressure condition stays after the pressure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eviction_pressure_transition_period: Option<GoDuration>,
    /// Longest grace period in soft evictions, seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eviction_max_pod_grace_period: Option<i32>,
    /// Least amount reclaimed by signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eviction_minimum_reclaim: Option<BTreeMap<String, String>>,
    /// Keep the defaults of signals that are not named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub merge_default_eviction_settings: Option<bool>,
    /// Most pods per CPU core; 0 is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods_per_core: Option<i32>,
    /// Leave attaching volumes to the control plane.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_controller_attach_detach: Option<bool>,
    /// Fail where kernel settings differ, instead of changing them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protect_kernel_defaults: Option<bool>,
    /// Make the KUBE-IPTABLES-HINT chain.
    #[serde(rename = "makeIPTablesUtilChains", skip_serializing_if = "Option::is_none")]
    pub make_iptables_util_chains: Option<bool>,
    /// No effect any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iptables_masquerade_bit: Option<i32>,
    /// No effect any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iptables_drop_bit: Option<i32>,
    /// Feature gates by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feature_gates: Option<BTreeMap<String, bool>>,
    /// Refuse to start where swap is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_swap_on: Option<bool>,
    /// Swap of containers.
    #[serde(skip_serializing_if = "is_default")]
    pub memory_swap: MemorySwapConfiguration,
    /// Size at which a container log is rotated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_log_max_size: Option<String>,
    /// Most log files of a container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_log_max_files: Option<i32>,
    /// Log rotations at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_log_max_workers: Option<i32>,
    /// Time between two looks at log sizes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_log_monitor_interval: Option<GoDuration>,
    /// How changes of config maps and secrets are seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map_and_secret_change_detection_strategy: Option<String>,
    /// Resources kept for the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_reserved: Option<BTreeMap<String, String>>,
    /// Resources kept for Kubernetes' own daemons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_reserved: Option<BTreeMap<String, String>>,
    /// CPUs kept for the system and Kubernetes' own daemons.
    #[serde(rename = "reservedSystemCPUs", skip_serializing_if = "Option::is_none")]
    pub reserved_system_cpus: Option<String>,
    /// Release whose hidden metrics are shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub show_hidden_metrics_for_version: Option<String>,
    /// Cgroup that `systemReserved` is enforced on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_reserved_cgroup: Option<String>,
    /// Cgroup that `kubeReserved` is enforced on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_reserved_cgroup: Option<String>,
    /// What the node allocatable is enforced on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforce_node_allocatable: Option<Vec<String>>,
    /// Unsafe sysctls that pods may set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_unsafe_sysctls: Option<Vec<String>>,
    /// Folder of flexvolume plugins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_plugin_dir: Option<String>,
    /// The machine's identity at its cloud provider.
    #[serde(rename = "providerID", skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// Use kernel notifications for memory thresholds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_memcg_notification: Option<bool>,
    /// Logging.
    #[serde(skip_serializing_if = "is_default")]
    pub logging: LoggingConfiguration,
    /// Serve /logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_system_log_handler: Option<bool>,
    /// Serve queries of service logs under /logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_system_log_query: Option<bool>,
    /// Time that a node shutdown waits for pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shutdown_grace_period: Option<GoDuration>,
    /// The part of `shutdownGracePeriod` kept for critical pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shutdown_grace_period_critical_pods: Option<GoDuration>,
    /// Shutdown time by pod priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shutdown_grace_period_by_pod_priority: Option<Vec<ShutdownGracePeriodByPodPriority>>,
    /// Restart delays.
    #[serde(skip_serializing_if = "is_default")]
    pub crash_loop_back_off: CrashLoopBackOffConfig,
    /// Memory reserved by NUMA node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserved_memory: Option<Vec<MemoryReservation>>,
    /// Serve /debug/pprof.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_profiling_handler: Option<bool>,
    /// Serve /debug/flags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_debug_flags_handler: Option<bool>,
    /// RuntimeDefault where a container names no seccomp profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp_default: Option<bool>,
    /// Factor for memory.high, over 0 up to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_throttling_factor: Option<f64>,
    /// Whether memory.min and memory.low are set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_reservation_policy: Option<String>,
    /// Taints put on the node at registration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub register_with_taints: Option<Vec<Taint>>,
    /// Register the node at the API server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub register_node: Option<bool>,
    /// OpenTelemetry tracing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing: Option<TracingConfiguration>,
    /// Account for and limit local ephemeral storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_storage_capacity_isolation: Option<bool>,
    /// The runtime's CRI socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_runtime_endpoint: Option<String>,
    /// The image service's CRI socket; the runtime's if empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_service_endpoint: Option<String>,
    /// Refuse to start on cgroup v1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fail_cgroup_v1: Option<bool>,
    /// User namespaces of pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_namespaces: Option<UserNamespaces>,
}
