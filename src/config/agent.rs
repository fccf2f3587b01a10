//! The agent's configuration: resolved, typed, and read by the rest of nodectl only from here.
//!
//! What the agent uses all the time is a field of [`AgentConfig`]; the whole defaulted
//! [`KubeletConfiguration`] stays beside it, for what later work comes to need.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;

use crate::api::pod_resources::Amounts;

use super::credential_providers::CredentialProvider;
use super::gates::FeatureGates;
use super::secret::{HeaderMap, SecretUrl};
use super::types::KubeletConfiguration;

/// How cgroups are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupDriver {
    /// By writing below /sys/fs/cgroup.
    Cgroupfs,
    /// By asking systemd for slices and scopes.
    Systemd,
}

/// A cgroup of `enforceNodeAllocatable`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservedCgroup {
    /// Its path.
    pub cgroup: String,
    /// What is reserved for it.
    pub amounts: Amounts,
    /// Whether CPU time alone is enforced.
    pub compressible: bool,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// A line of text for each message.
    Text,
    /// A JSON object for each message.
    Json,
}

/// How many images are pulled at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImagePulls {
    /// One at a time.
    Serial,
    /// At once, up to a bound if there is one.
    Parallel {
        /// Most pulls at once; `None` is no bound.
        limit: Option<u32>,
    },
}

/// Which dead containers of living pods are kept (`--minimum-container-ttl-duration`,
/// `--maximum-dead-containers-per-container`, `--maximum-dead-containers`). The defaults are kubelet's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContainerGcSettings {
    /// Time since its making before which none is removed.
    pub min_age: Duration,
    /// Most dead ones of one container; `None` is no bound.
    pub max_per_container: Option<u32>,
    /// Most dead ones on the node; `None` is no bound.
    pub max_total: Option<u32>,
}

impl Default for ContainerGcSettings {
    fn default() -> Self {
        Self { min_age: Duration::ZERO, max_per_container: Some(1), max_total: None }
    }
}

/// Which pods of the API server start while it is not heard (`--offline-pods`, nodectl's own).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfflinePods {
    /// Those whose toleration of an unreachable node has not run out.
    Tolerated,
    /// All.
    Always,
}

/// How the agent is a node of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterNode {
    /// Whether the agent makes the Node object (`registerNode`); else somebody else does.
    pub register: bool,
    /// Taints that a new Node has (`registerWithTaints`).
    pub taints: Vec<Taint>,
    /// The machine's identity at its cloud provider (`providerID`).
    pub provider_id: Option<String>,
    /// Whether a cloud controller tells addresses and takes the first taint away (`--cloud-provider=external`).
    pub external_cloud: bool,
    /// Whether controllers attach and detach volumes (`enableControllerAttachDetach`).
    pub controller_attaches: bool,
    /// Port of the node's API, as the Node tells it (`port`).
    pub port: u16,
    /// Time between two looks at what the Node's status should be (`nodeStatusUpdateFrequency`).
    pub status_update: Duration,
    /// Time after which an unchanged status is sent again (`nodeStatusReportFrequency`).
    pub status_report: Duration,
    /// How long the lease is good for after a renewal (`nodeLeaseDurationSeconds`).
    pub lease: Duration,
    /// Most images in the status (`nodeStatusMaxImages`); `None` is no bound.
    pub max_images: Option<usize>,
    /// How long a pressure is told after it was last seen (`evictionPressureTransitionPeriod`).
    pub pressure_transition: Duration,
    /// The node's pod addresses where there is no cluster to tell them (`podCIDR`).
    pub pod_cidr: Option<String>,
}

/// Who may use the node's API (`authorization.mode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authorization {
    /// Whoever is authenticated.
    AlwaysAllow,
    /// Whom the API server allows to (SubjectAccessReview).
    Webhook {
        /// How long a yes is believed (`cacheAuthorizedTTL`).
        allowed: Duration,
        /// How long a no is believed (`cacheUnauthorizedTTL`).
        denied: Duration,
    },
}

/// The node's API (`enableServer`).
#[derive(Clone, Debug, PartialEq)]
pub struct NodeApiConfig {
    /// Where it is served over HTTPS (`address`, `port`).
    pub address: SocketAddr,
    /// Where a part of it is served to everybody over HTTP (`readOnlyPort`); `None` is nowhere.
    pub read_only: Option<SocketAddr>,
    /// Authorities of client certificates (`authentication.x509.clientCAFile`).
    pub client_ca: Option<PathBuf>,
    /// Whether bearer tokens are shown to the API server, and how long its answer is believed
    /// (`authentication.webhook`).
    pub token_review: Option<Duration>,
    /// Whether who shows nothing is `system:anonymous` (`authentication.anonymous.enabled`).
    pub anonymous: bool,
    /// Who may do what.
    pub authorization: Authorization,
    /// Whether rights may be given for single paths (feature gate `KubeletFineGrainedAuthz`).
    pub fine_grained: bool,
    /// Whether there is more than health, pods and figures (`enableDebuggingHandlers`).
    pub debugging: bool,
    /// Whether the node's log files are served (`enableSystemLogHandler`).
    pub system_logs: bool,
    /// Whether it is told what the agent's threads do (`enableProfilingHandler`).
    pub profiling: bool,
    /// Whether the log's verbosity may be changed (`enableDebugFlagsHandler`).
    pub debug_flags: bool,
    /// Whether containers may be checkpointed (feature gate `ContainerCheckpoint`).
    pub checkpoint: bool,
    /// TLS 1.2 cipher suites by Go's names (`tlsCipherSuites`); empty is all that are safe.
    pub cipher_suites: Vec<String>,
    /// Whether TLS 1.2 is refused (`tlsMinVersion`).
    pub tls13_only: bool,
    /// How long a stream may be silent (`streamingConnectionIdleTimeout`); `None` is for ever.
    pub stream_idle: Option<Duration>,
}

/// The configuration of a running agent.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentConfig {
    /// The configuration file and the drop-ins, in the order they were merged.
    pub config_files: Vec<PathBuf>,
    /// The agent's own files: pods, volumes, checkpoints (`--root-dir`).
    pub root_dir: PathBuf,
    /// The agent's certificates (`--cert-dir`).
    pub cert_dir: PathBuf,
    /// Connection to the API server (`--kubeconfig`); `None` is standalone.
    pub kubeconfig: Option<PathBuf>,
    /// Connection used to obtain the first certificate (`--bootstrap-kubeconfig`).
    pub bootstrap_kubeconfig: Option<PathBuf>,
    /// What is started without the server, and so kept on the disk (`--offline-pods`, nodectl's own); `None` is
    /// nothing.
    pub offline_pods: Option<OfflinePods>,
    /// The node's name: `--hostname-override` or the machine's, in lower case, trimmed.
    pub node_name: String,
    /// What `--hostname-override` said, if anything.
    pub hostname_override: Option<String>,
    /// The node's addresses (`--node-ip`); empty is to be found out.
    pub node_ips: Vec<IpAddr>,
    /// Labels of the node over its own (`--node-labels`).
    pub node_labels: BTreeMap<String, String>,
    /// How the agent is a node of a cluster.
    pub node: ClusterNode,
    /// The node's API; `None` where it is off.
    pub node_api: Option<NodeApiConfig>,
    /// Folder or file of static pod manifests; `None` is no such source.
    pub static_pod_path: Option<PathBuf>,
    /// URL of static pod manifests; `None` is no such source. Printed without credentials.
    pub manifest_url: Option<SecretUrl>,
    /// Headers for [`AgentConfig::manifest_url`]. Values are never printed.
    pub manifest_url_headers: HeaderMap,
    /// Time between two rescans of [`AgentConfig::static_pod_path`].
    pub file_check_frequency: Duration,
    /// Time between two reads of [`AgentConfig::manifest_url`].
    pub http_check_frequency: Duration,
    /// Longest time between two syncs of one pod.
    pub sync_frequency: Duration,
    /// The runtime's CRI endpoint, as a URL or a path.
    pub container_runtime_endpoint: String,
    /// The image service's CRI endpoint; the runtime's unless configured.
    pub image_service_endpoint: String,
    /// Deadline of runtime calls other than pulls and streams.
    pub runtime_request_timeout: Duration,
    /// Cgroup driver to use where the runtime does not say its own.
    pub cgroup_driver: CgroupDriver,
    /// Root cgroup of the pods; empty is the root of the hierarchy.
    pub cgroup_root: String,
    /// Whether pods are below one cgroup per QoS class.
    pub cgroups_per_qos: bool,
    /// What of the node is kept back from pods (`systemReserved` and `kubeReserved` together); empty where
    /// `enforceNodeAllocatable` has no `pods`.
    pub reserved_from_pods: Amounts,
    /// Cgroups that are held to what is reserved for them.
    pub reserved_cgroups: Vec<ReservedCgroup>,
    /// Most processes and threads of a pod; `None` is no limit.
    pub pod_pids_limit: Option<u64>,
    /// Whether containers may use swap (`LimitedSwap`).
    pub limited_swap: bool,
    /// Whether a process that takes too much memory is killed alone and not with its whole container;
    /// `None` is by the cgroup version.
    pub single_process_oom_kill: Option<bool>,
    /// The agent's own oom_score_adj.
    pub oom_score_adj: i32,
    /// Whether CPU limits are enforced by CFS quota.
    pub cpu_cfs_quota: bool,
    /// CFS quota period.
    pub cpu_cfs_quota_period: Duration,
    /// Image pulls at once.
    pub image_pulls: ImagePulls,
    /// Image pulls started per second; `None` is no limit.
    pub registry_pull_qps: Option<u32>,
    /// Burst over [`AgentConfig::registry_pull_qps`].
    pub registry_burst: u32,
    /// Programs that give credentials for registries (`--image-credential-provider-config`).
    pub credential_providers: Vec<CredentialProvider>,
    /// Youngest age at which an unused image is collected.
    pub image_minimum_gc_age: Duration,
    /// Age at which an unused image is collected in any case; `None` is never.
    pub image_maximum_gc_age: Option<Duration>,
    /// Disk use in percent at which images are collected.
    pub image_gc_high_threshold_percent: u8,
    /// Disk use in percent that collecting images aims for.
    pub image_gc_low_threshold_percent: u8,
    /// Time between two rounds of finding out what volumes take; `None` (a negative time) is never.
    pub volume_stats_period: Option<Duration>,
    /// Where the health endpoint listens; `None` is off.
    pub healthz: Option<SocketAddr>,
    /// Longest delay before a crashed container is started again.
    pub max_container_restart_period: Duration,
    /// Root folder of the pods' container logs.
    pub pod_logs_dir: PathBuf,
    /// Folder of the links to container logs by pod and container name (`--container-log-dir`,
    /// nodectl's own; kubelet always uses this default).
    pub container_log_dir: PathBuf,
    /// Folder of runtime class manifests (`--runtime-class-path`, nodectl's own); `None` is no classes.
    pub runtime_class_path: Option<PathBuf>,
    /// Size at which a container log is rotated, bytes; `None` (a negative size) is never.
    pub container_log_max_size: Option<u64>,
    /// Most log files of one container.
    pub container_log_max_files: u32,
    /// Container logs rotated at once.
    pub container_log_max_workers: u32,
    /// Time between two looks at the sizes of container logs.
    pub container_log_monitor_interval: Duration,
    /// Which dead containers are kept.
    pub container_gc: ContainerGcSettings,
    /// Most pods on the node, before [`AgentConfig::pods_per_core`] is looked at.
    pub max_pods: u32,
    /// Most pods per CPU core; `None` is no limit.
    pub pods_per_core: Option<u32>,
    /// The cluster's DNS servers.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster's DNS domain; empty is none.
    pub cluster_domain: String,
    /// Resolver file that pods' DNS settings start from; `None` is no DNS from the host.
    pub resolv_conf: Option<PathBuf>,
    /// Whether [`AgentConfig::resolv_conf`] was configured, and is not just the default.
    pub resolv_conf_given: bool,
    /// Whether containers without a seccomp profile get the runtime's default.
    pub seccomp_default: bool,
    /// Kernel settings beyond the safe ones that pods may have: names, or beginnings that end in `*`.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// How many user and group numbers a pod's own user namespace holds.
    pub ids_per_pod: u32,
    /// Time that a node shutdown waits for all pods.
    pub shutdown_grace_period: Duration,
    /// The part of [`AgentConfig::shutdown_grace_period`] kept for critical pods.
    pub shutdown_grace_period_critical_pods: Duration,
    /// Events created per second; `None` is no limit.
    pub event_record_qps: Option<u32>,
    /// Burst over [`AgentConfig::event_record_qps`].
    pub event_burst: u32,
    /// The agent's own limit of open files.
    pub max_open_files: u64,
    /// The feature gates in force.
    pub feature_gates: FeatureGates,
    /// klog verbosity (`-v`): 0 is information and up.
    pub log_verbosity: u32,
    /// How the log is written.
    pub log_format: LogFormat,
    /// The local operator socket (`--operator-socket`, nodectl's own).
    pub operator_socket: PathBuf,
    /// The whole configuration with defaults.
    pub kubelet: KubeletConfiguration,
}
