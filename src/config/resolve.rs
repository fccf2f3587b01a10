//! The last step: from a validated [`KubeletConfiguration`] and the flags that have no key to an
//! [`AgentConfig`].

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Taint;

use crate::api::pod_resources::Amounts;
use crate::api::quantity::Quantity;
use crate::api::validation::names::dns1123_subdomain;

use super::agent::{
    AgentConfig, Authorization, CgroupDriver, ClusterNode, ContainerGcSettings, ImagePulls, LogFormat,
    NodeApiConfig, OfflinePods, ReservedCgroup,
};
use super::credential_providers;
use super::duration::GoDuration;
use super::error::{ConfigError, Origin, Problem};
use super::flags::{Flags, Syntax};
use super::flags_value::{addresses, value_of};
use super::gates::FeatureGates;
use super::node::Value;
use super::types::KubeletConfiguration;

/// Kubelet's `DefaultKubeletUserNamespacesIDsPerPod`.
const DEFAULT_IDS_PER_POD: u32 = 65536;
const ROOT_DIR: &str = "/var/lib/kubelet";
const CERT_DIR: &str = "/var/lib/kubelet/pki";
const CONTAINER_LOG_DIR: &str = "/var/log/containers";
const OPERATOR_SOCKET: &str = "/run/nodectl/nodectl.sock";

pub(super) fn resolve(
    kubelet: KubeletConfiguration,
    feature_gates: FeatureGates,
    flags: &Flags,
    resolv_conf_given: bool,
    config_files: Vec<PathBuf>,
    hostname: &dyn Fn() -> Result<String, String>,
) -> Result<AgentConfig, ConfigError> {
    let config = &kubelet;
    let path = |name: &str, default: &str| PathBuf::from(flags.text(name).unwrap_or(default));
    let optional = |name: &str| flags.text(name).map(PathBuf::from);
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let endpoint = text(&config.container_runtime_endpoint);
    let image_endpoint = config.image_service_endpoint.clone().filter(|endpoint| !endpoint.is_empty());
    Ok(AgentConfig {
        root_dir: path("root-dir", ROOT_DIR),
        cert_dir: path("cert-dir", CERT_DIR),
        kubeconfig: optional("kubeconfig"),
        bootstrap_kubeconfig: optional("bootstrap-kubeconfig"),
        node_name: node_name(flags, hostname)?,
        hostname_override: flags.text("hostname-override").map(str::to_owned),
        node_ips: flags
            .text("node-ip")
            .map(addresses)
            .transpose()
            .map_err(|m| wrong("node-ip", m))?
            .unwrap_or_default(),
        node_labels: labels(flags)?,
        node: cluster_node(config, flags)?,
        node_api: node_api(config, &feature_gates)?,
        offline_pods: offline_pods(flags)?,
        static_pod_path: config.static_pod_path.clone().filter(|path| !path.is_empty()).map(PathBuf::from),
        manifest_url: config.static_pod_url.clone().filter(|url| !url.is_empty()),
        manifest_url_headers: config.static_pod_url_header.clone().unwrap_or_default(),
        file_check_frequency: duration(config.file_check_frequency),
        http_check_frequency: duration(config.http_check_frequency),
        sync_frequency: duration(config.sync_frequency),
        image_service_endpoint: image_endpoint.unwrap_or_else(|| endpoint.clone()),
        container_runtime_endpoint: endpoint,
        runtime_request_timeout: duration(config.runtime_request_timeout),
        cgroup_driver: match config.cgroup_driver.as_deref() {
            Some("systemd") => CgroupDriver::Systemd,
            _ => CgroupDriver::Cgroupfs,
        },
        cgroup_root: text(&config.cgroup_root),
        cgroups_per_qos: config.cgroups_per_qos.unwrap_or(true),
        reserved_from_pods: reserved_from_pods(config),
        reserved_cgroups: reserved_cgroups(config),
        pod_pids_limit: config
            .pod_pids_limit
            .and_then(|most| u64::try_from(most).ok())
            .filter(|most| *most > 0),
        limited_swap: config.memory_swap.swap_behavior.as_deref() == Some("LimitedSwap"),
        single_process_oom_kill: config.single_process_oom_kill,
        oom_score_adj: config.oom_score_adj.unwrap_or_default(),
        cpu_cfs_quota: config.cpu_cfs_quota.unwrap_or(true),
        cpu_cfs_quota_period: duration(config.cpu_cfs_quota_period),
        image_pulls: match config.serialize_image_pulls {
            Some(false) => ImagePulls::Parallel {
                limit: config.max_parallel_image_pulls.and_then(|limit| u32::try_from(limit).ok()),
            },
            _ => ImagePulls::Serial,
        },
        registry_pull_qps: limit(config.registry_pull_qps),
        registry_burst: number(config.registry_burst),
        credential_providers: credential_providers::load(
            flags.text("image-credential-provider-config"),
            flags.text("image-credential-provider-bin-dir"),
        )?,
        image_minimum_gc_age: duration(config.image_minimum_gc_age),
        image_maximum_gc_age: config
            .image_maximum_gc_age
            .map(GoDuration::to_std)
            .filter(|age| !age.is_zero()),
        image_gc_high_threshold_percent: percent(config.image_gc_high_threshold_percent),
        image_gc_low_threshold_percent: percent(config.image_gc_low_threshold_percent),
        volume_stats_period: config
            .volume_stats_agg_period
            .map(GoDuration::to_std)
            .filter(|period| !period.is_zero()),
        healthz: healthz(config)?,
        max_container_restart_period: config
            .crash_loop_back_off
            .max_container_restart_period
            .unwrap_or(super::defaults::MAX_CONTAINER_BACKOFF)
            .to_std(),
        pod_logs_dir: PathBuf::from(text(&config.pod_logs_dir)),
        container_log_dir: path("container-log-dir", CONTAINER_LOG_DIR),
        runtime_class_path: optional("runtime-class-path"),
        container_log_max_size: log_size(config)?,
        container_log_max_files: number(config.container_log_max_files),
        container_log_max_workers: number(config.container_log_max_workers),
        container_log_monitor_interval: duration(config.container_log_monitor_interval),
        container_gc: container_gc(flags)?,
        max_pods: number(config.max_pods),
        pods_per_core: limit(config.pods_per_core),
        cluster_dns: config.cluster_dns.iter().flatten().filter_map(|server| server.parse().ok()).collect(),
        cluster_domain: text(&config.cluster_domain),
        resolv_conf: config.resolv_conf.clone().filter(|path| !path.is_empty()).map(PathBuf::from),
        resolv_conf_given,
        seccomp_default: config.seccomp_default.unwrap_or(false),
        allowed_unsafe_sysctls: config.allowed_unsafe_sysctls.clone().unwrap_or_default(),
        ids_per_pod: config
            .user_namespaces
            .as_ref()
            .and_then(|namespaces| u32::try_from(namespaces.ids_per_pod?).ok())
            .unwrap_or(DEFAULT_IDS_PER_POD),
        shutdown_grace_period: duration(config.shutdown_grace_period),
        shutdown_grace_period_critical_pods: duration(config.shutdown_grace_period_critical_pods),
        event_record_qps: limit(config.event_record_qps),
        event_burst: number(config.event_burst),
        max_open_files: config.max_open_files.and_then(|files| u64::try_from(files).ok()).unwrap_or_default(),
        log_verbosity: config.logging.verbosity.unwrap_or_default(),
        log_format: match config.logging.format.as_deref() {
            Some("json") => LogFormat::Json,
            _ => LogFormat::Text,
        },
        operator_socket: path("operator-socket", OPERATOR_SOCKET),
        config_files,
        feature_gates,
        kubelet,
    })
}

fn wrong(flag: &str, message: impl Into<String>) -> ConfigError {
    ConfigError::Invalid(vec![Problem::new(&Origin::Flag(flag.into()), "", message)])
}

/// Kubelet's rule: the override or the machine's name, without spaces around, in lower case.
fn node_name(flags: &Flags, hostname: &dyn Fn() -> Result<String, String>) -> Result<String, ConfigError> {
    let given = flags.text("hostname-override");
    let name = match given {
        Some(name) => name.to_owned(),
        None => hostname().map_err(|cause| ConfigError::Hostname { cause })?,
    };
    let name = name.trim().to_lowercase();
    // The name becomes an object name and a part of static pods' names, hence a DNS subdomain.
    if dns1123_subdomain(&name).is_none() {
        return Ok(name);
    }
    let cause = format!("{name:?} is not a DNS name");
    Err(if given.is_some() { wrong("hostname-override", cause) } else { ConfigError::Hostname { cause } })
}

fn labels(flags: &Flags) -> Result<BTreeMap<String, String>, ConfigError> {
    const FLAG: &str = "node-labels";
    let Some(text) = flags.text(FLAG) else { return Ok(BTreeMap::new()) };
    let labels: BTreeMap<String, String> = match value_of(Syntax::Map, &[text], &Origin::Flag(FLAG.into())) {
        Ok(Value::Map(map)) => map
            .0
            .into_iter()
            .filter_map(|(name, _, node)| match node.value {
                Value::Str(value) => Some((name, value)),
                _ => None,
            })
            .collect(),
        Ok(_) => BTreeMap::new(),
        Err(message) => return Err(wrong(FLAG, message)),
    };
    let joined = flags.text("kubeconfig").is_some();
    match labels.keys().find(|label| joined && !label_of_node(label)) {
        Some(label) => Err(wrong(
            FLAG,
            format!(
                "a node may not give itself the label {label:?}: of kubernetes.io and k8s.io it may have those \
                 below node.kubernetes.io and kubelet.kubernetes.io, and its host name, region, zone, instance \
                 type, system and architecture"
            ),
        )),
        None => Ok(labels),
    }
}

/// What a kubelet takes, as the API server's NodeRestriction refuses the rest
/// (pkg/apis/core/v1/helper, `kubelet/pkg/apis/well_known_labels.go`).
fn label_of_node(label: &str) -> bool {
    const WELL_KNOWN: [&str; 12] = [
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "node.kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "beta.kubernetes.io/instance-type",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "node.kubernetes.io/windows-build",
    ];
    let within =
        |domain: &str, of: &str| domain == of || domain.strip_suffix(of).is_some_and(|d| d.ends_with('.'));
    let Some((domain, _)) = label.split_once('/') else { return true };
    let restricted = within(domain, "kubernetes.io") || within(domain, "k8s.io");
    let allowed = within(domain, "node.kubernetes.io") || within(domain, "kubelet.kubernetes.io");
    !restricted || allowed || WELL_KNOWN.contains(&label)
}

fn offline_pods(flags: &Flags) -> Result<Option<OfflinePods>, ConfigError> {
    const FLAG: &str = "offline-pods";
    let mode = match flags.text(FLAG) {
        None => return Ok(None),
        Some("tolerated") => OfflinePods::Tolerated,
        Some("always") => OfflinePods::Always,
        Some(other) => return Err(wrong(FLAG, format!("{other:?} is not known (want tolerated or always)"))),
    };
    if flags.text("kubeconfig").is_none() {
        return Err(wrong(FLAG, "without --kubeconfig there is no API server whose pods could be kept"));
    }
    Ok(Some(mode))
}

fn cluster_node(config: &KubeletConfiguration, flags: &Flags) -> Result<ClusterNode, ConfigError> {
    const CLOUD: &str = "cloud-provider";
    let external_cloud = match flags.text(CLOUD).unwrap_or_default() {
        "" => false,
        "external" => true,
        other => return Err(wrong(CLOUD, format!("{other:?} is not known (want external or nothing)"))),
    };
    let taints = config.register_with_taints.iter().flatten().map(|taint| Taint {
        key: taint.key.clone().unwrap_or_default(),
        value: given(&taint.value),
        effect: taint.effect.clone().unwrap_or_default(),
        time_added: None,
    });
    let lease = config.node_lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Ok(ClusterNode {
        register: config.register_node.unwrap_or(true),
        taints: taints.collect(),
        provider_id: given(&config.provider_id),
        external_cloud,
        controller_attaches: config.enable_controller_attach_detach.unwrap_or(true),
        port: config.port.and_then(|port| u16::try_from(port).ok()).unwrap_or_default(),
        status_update: duration(config.node_status_update_frequency),
        status_report: duration(config.node_status_report_frequency),
        lease: Duration::from_secs(lease.unwrap_or_default().max(1)),
        max_images: config.node_status_max_images.and_then(|most| usize::try_from(most).ok()),
        pressure_transition: duration(config.eviction_pressure_transition_period),
        pod_cidr: given(&config.pod_cidr),
    })
}

/// A text that says something.
fn given(text: &Option<String>) -> Option<String> {
    text.clone().filter(|text| !text.is_empty())
}

/// The node's API. What is not said counts as denied.
fn node_api(
    config: &KubeletConfiguration,
    gates: &FeatureGates,
) -> Result<Option<NodeApiConfig>, ConfigError> {
    if config.enable_server == Some(false) {
        return Ok(None);
    }
    let text = config.address.as_deref().filter(|text| !text.is_empty()).unwrap_or("0.0.0.0");
    let address: IpAddr =
        text.parse().map_err(|_not_an_address| wrong("address", format!("{text:?} is not an IP address")))?;
    let port = |port: Option<i32>| port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
    let authentication = &config.authentication;
    let webhook = &authentication.webhook;
    let authorization = match config.authorization.mode.as_deref() {
        Some("AlwaysAllow") => Authorization::AlwaysAllow,
        _ => Authorization::Webhook {
            allowed: duration(config.authorization.webhook.cache_authorized_ttl),
            denied: duration(config.authorization.webhook.cache_unauthorized_ttl),
        },
    };
    let idle = duration(config.streaming_connection_idle_timeout);
    let cipher_suites = config.tls_cipher_suites.clone().unwrap_or_default();
    Ok(port(config.port).map(|secure| NodeApiConfig {
        address: SocketAddr::new(address, secure),
        read_only: port(config.read_only_port).map(|port| SocketAddr::new(address, port)),
        client_ca: given(&authentication.x509.client_ca_file).map(PathBuf::from),
        token_review: webhook.enabled.unwrap_or(false).then(|| duration(webhook.cache_ttl)),
        anonymous: authentication.anonymous.enabled.unwrap_or(false),
        authorization,
        fine_grained: gates.enabled("KubeletFineGrainedAuthz"),
        debugging: config.enable_debugging_handlers.unwrap_or(true),
        system_logs: config.enable_system_log_handler.unwrap_or(true),
        profiling: config.enable_profiling_handler.unwrap_or(true),
        debug_flags: config.enable_debug_flags_handler.unwrap_or(true),
        checkpoint: gates.enabled("ContainerCheckpoint"),
        cipher_suites,
        tls13_only: config.tls_min_version.as_deref() == Some("VersionTLS13"),
        stream_idle: (!idle.is_zero()).then_some(idle),
    }))
}

fn healthz(config: &KubeletConfiguration) -> Result<Option<SocketAddr>, ConfigError> {
    let port = config.healthz_port.and_then(|port| u16::try_from(port).ok()).unwrap_or_default();
    let address = config.healthz_bind_address.as_deref().unwrap_or("127.0.0.1");
    let address: IpAddr = address.parse().map_err(|_not_an_address| {
        wrong("healthz-bind-address", format!("{address:?} is not an IP address"))
    })?;
    Ok((port != 0).then(|| SocketAddr::new(address, port)))
}

/// As with kubelet, a negative size turns rotation off.
fn log_size(config: &KubeletConfiguration) -> Result<Option<u64>, ConfigError> {
    let text = config.container_log_max_size.as_deref().unwrap_or("10Mi");
    let size = Quantity::parse(text).map_err(|error| wrong("container-log-max-size", error.to_string()))?;
    Ok(u64::try_from(size.value()).ok())
}

/// Negative numbers are no bound.
fn container_gc(flags: &Flags) -> Result<ContainerGcSettings, ConfigError> {
    let default = ContainerGcSettings::default();
    let count = |name: &str, default: Option<u32>| match flags.text(name) {
        None => Ok(default),
        Some(text) => {
            let count = text.parse::<i32>().map_err(|error| wrong(name, format!("{text:?}: {error}")))?;
            Ok(u32::try_from(count).ok())
        }
    };
    const MIN_AGE: &str = "minimum-container-ttl-duration";
    let min_age = match flags.text(MIN_AGE) {
        None => default.min_age,
        Some(text) => GoDuration::parse(text).map_err(|error| wrong(MIN_AGE, error.to_string()))?.to_std(),
    };
    Ok(ContainerGcSettings {
        min_age,
        max_per_container: count("maximum-dead-containers-per-container", default.max_per_container)?,
        max_total: count("maximum-dead-containers", default.max_total)?,
    })
}

fn amounts(list: Option<&BTreeMap<String, String>>) -> Amounts {
    list.into_iter()
        .flatten()
        .filter_map(|(name, text)| Some((name.clone(), Quantity::parse(text).ok()?)))
        .collect()
}

fn enforces(config: &KubeletConfiguration, level: &str) -> bool {
    config.enforce_node_allocatable.iter().flatten().any(|enforced| enforced == level)
}

fn reserved_from_pods(config: &KubeletConfiguration) -> Amounts {
    let mut sum = Amounts::new();
    if enforces(config, "pods") {
        for list in [&config.system_reserved, &config.kube_reserved] {
            for (name, amount) in amounts(list.as_ref()) {
                sum.entry(name).and_modify(|total| *total = *total + amount).or_insert(amount);
            }
        }
    }
    sum
}

fn reserved_cgroups(config: &KubeletConfiguration) -> Vec<ReservedCgroup> {
    let reserved = [
        ("system-reserved", &config.system_reserved_cgroup, &config.system_reserved),
        ("kube-reserved", &config.kube_reserved_cgroup, &config.kube_reserved),
    ];
    let enforced = reserved.into_iter().filter_map(|(level, cgroup, list)| {
        let compressible = enforces(config, &format!("{level}-compressible"));
        let enforced = compressible || enforces(config, level);
        let cgroup = cgroup.clone().filter(|cgroup| enforced && !cgroup.is_empty())?;
        Some(ReservedCgroup { cgroup, amounts: amounts(list.as_ref()), compressible })
    });
    enforced.collect()
}

fn duration(value: Option<GoDuration>) -> Duration {
    value.unwrap_or_default().to_std()
}

/// A count that validation has found not to be negative.
fn number(value: Option<i32>) -> u32 {
    value.and_then(|value| u32::try_from(value).ok()).unwrap_or_default()
}

/// A limit of which zero says that there is none.
fn limit(value: Option<i32>) -> Option<u32> {
    Some(number(value)).filter(|limit| *limit != 0)
}

fn percent(value: Option<i32>) -> u8 {
    value.and_then(|value| u8::try_from(value).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_kubernetes_are_restricted() {
        for (label, allowed) in [
            ("zone", true),
            ("example.com/zone", true),
            ("kubernetes.io/arch", true),
            ("node.kubernetes.io/anything", true),
            ("of.node.kubernetes.io/anything", true),
            ("kubelet.kubernetes.io/x", true),
            ("topology.kubernetes.io/zone", true),
            ("topology.kubernetes.io/other", false),
            ("node-role.kubernetes.io/control-plane", false),
            ("node-restriction.kubernetes.io/x", false),
            ("k8s.io/x", false),
            ("notkubernetes.io/x", true),
        ] {
            assert_eq!(label_of_node(label), allowed, "{label}");
        }
    }
}
