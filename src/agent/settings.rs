//! What the agent's parts are told of the configuration and of the machine.

use std::{
    collections::BTreeMap,
    net::{IpAddr, UdpSocket},
    path::Path,
};

use super::{
    cgroups::NodeCgroups,
    cluster::node::{MachineFacts, PressureSources},
    log_rotation::RotationSettings,
};
use crate::{
    config::{AgentConfig, CgroupDriver},
    host::{
        capacity::file_system_use,
        cgroup::{CgroupMounts, Cgroups},
        identity::Identity,
        machine::Machine,
    },
    policy::{
        allocatable::{NodeResources, Reservations, allocatable},
        cgroup::CgroupLayout,
        fit::NodeRoom,
        node::NodeSettings,
        node_affinity::node_labels,
        node_status::{NodeTemplate, SystemFacts, resources},
        pod_cgroup::{NodeCapacity, reserved_values},
        pressure::{EvictionSettings, Pressures},
        qos::QosClass,
        resources::ResourceSettings,
        security::SecuritySettings,
        sysctls::AllowedSysctls,
    },
};

/// `None` where rotation is turned off.
pub(super) fn rotation_settings(config: &AgentConfig) -> Option<RotationSettings> {
    Some(RotationSettings {
        pod_logs: config.pod_logs_dir.clone(),
        max_size: config.container_log_max_size?,
        max_files: config.container_log_max_files,
        workers: config.container_log_max_workers,
        interval: config.container_log_monitor_interval,
    })
}

pub(super) fn node_settings(config: &AgentConfig, machine: &Machine, cgroups: &CgroupMounts) -> NodeSettings {
    let none = BTreeMap::new();
    let capacity = NodeResources {
        milli_cpu: i64::from(machine.cpus).saturating_mul(1000),
        memory_bytes: machine.memory_bytes,
        ephemeral_storage_bytes: told(
            "the disk's size",
            file_system_use(&config.root_dir).map(|used| used.bytes),
        ),
    };
    let hugepage_bytes =
        machine.hugepage_bytes.values().fold(0, |sum: u64, bytes| sum.saturating_add(*bytes));
    let reserved = Reservations {
        kube: config.kubelet.kube_reserved.as_ref().unwrap_or(&none),
        system: config.kubelet.system_reserved.as_ref().unwrap_or(&none),
        system_cpus: config.kubelet.reserved_system_cpus.as_deref().unwrap_or_default(),
        hugepage_bytes: i64::try_from(hugepage_bytes).unwrap_or(i64::MAX),
        eviction_hard: config.kubelet.eviction_hard.as_ref().unwrap_or(&none),
    };
    let allocatable = allocatable(capacity, &reserved);
    NodeSettings {
        name: config.node_name.clone(),
        host_ips: host_ips(&config.node_ips),
        container_gc: config.container_gc,
        cluster_dns: config.cluster_dns.clone(),
        cluster_domain: config.cluster_domain.clone(),
        hostname_override: config.feature_gates.enabled("HostnameOverride"),
        resources: ResourceSettings {
            node_memory_bytes: machine.memory_bytes,
            node_swap_bytes: machine.swap_bytes,
            cpu_cfs_quota: config.cpu_cfs_quota,
            cpu_cfs_period_micros: i64::try_from(config.cpu_cfs_quota_period.as_micros()).unwrap_or(i64::MAX),
            cgroup_v2: cgroups.is_v2(),
            swap_controller: cgroups.limits_swap(),
            limited_swap: config.limited_swap,
            single_process_oom_kill: config.single_process_oom_kill,
            hugepage_sizes: machine.hugepage_bytes.keys().copied().collect(),
            pod_pids_limit: config.pod_pids_limit,
        },
        capacity,
        allocatable,
        room: room(config, machine, capacity, allocatable),
        // Without a cloud the node is named as its host.
        labels: node_labels(&config.node_name, std::env::consts::ARCH, &config.node_labels),
        env_files: config.feature_gates.enabled("EnvFiles"),
        in_place_resize: config.feature_gates.enabled("InPlacePodVerticalScaling"),
        security: security_settings(config),
    }
}

/// What pods may request together. What the machine did not tell of is not counted.
fn room(
    config: &AgentConfig,
    machine: &Machine,
    capacity: NodeResources,
    allocatable: NodeResources,
) -> NodeRoom {
    let by_cores =
        config.pods_per_core.map(|pods| pods.saturating_mul(machine.cpus)).filter(|most| *most > 0);
    let mut room = NodeRoom {
        pods: Some(by_cores.map_or(config.max_pods, |most| most.min(config.max_pods))),
        amounts: [
            ("cpu", capacity.milli_cpu, allocatable.milli_cpu),
            ("memory", capacity.memory_bytes, allocatable.memory_bytes),
            ("ephemeral-storage", capacity.ephemeral_storage_bytes, allocatable.ephemeral_storage_bytes),
        ]
        .into_iter()
        .filter(|(_, capacity, _)| *capacity > 0)
        .map(|(name, _, amount)| (name.to_owned(), amount))
        .collect(),
    };
    room.add_hugepages(&machine.hugepage_bytes);
    room
}

/// What the machine tells, or nothing where it does not.
fn told(what: &str, answer: std::io::Result<i64>) -> i64 {
    answer.unwrap_or_else(|error| {
        tracing::warn!("cannot find out {what}, which containers without a limit are told: {error}");
        0
    })
}

fn security_settings(config: &AgentConfig) -> SecuritySettings {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    SecuritySettings {
        seccomp_default: config.seccomp_default,
        seccomp_root: config.root_dir.join("seccomp").to_string_lossy().into_owned(),
        sysctls: AllowedSysctls {
            kernel: AllowedSysctls::kernel_version(&read("/proc/sys/kernel/osrelease")),
            unsafe_patterns: config.allowed_unsafe_sysctls.clone(),
        },
        // As the runtimes find it out.
        app_armor: Path::new("/sys/kernel/security/apparmor").exists()
            && read("/sys/module/apparmor/parameters/enabled").starts_with('Y'),
        user_namespaces: config.feature_gates.enabled("UserNamespacesSupport"),
        masked_paths: throttling_counters(Path::new("/sys/devices/system/cpu")),
    }
}

/// The folder of each CPU that has counters of its thermal throttling.
fn throttling_counters(cpus: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(cpus).into_iter().flatten().flatten();
    let mut found: Vec<String> = entries
        .map(|entry| entry.path().join("thermal_throttle"))
        .filter(|path| path.is_dir())
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    found.sort_unstable();
    found
}

pub(super) fn node_cgroups(
    config: &AgentConfig,
    driver: CgroupDriver,
    mounts: CgroupMounts,
    machine: &Machine,
    settings: &ResourceSettings,
) -> NodeCgroups {
    let layout = CgroupLayout { driver, root: config.cgroup_root.clone(), per_qos: config.cgroups_per_qos };
    let capacity = NodeCapacity {
        cpus: machine.cpus,
        pids: machine.pids,
        hugepage_bytes: machine.hugepage_bytes.clone(),
        reserved: config.reserved_from_pods.clone(),
    };
    let reserved = config
        .reserved_cgroups
        .iter()
        .map(|reserved| (reserved.cgroup.clone(), reserved_values(&reserved.amounts, reserved.compressible)));
    let reserved = reserved.collect();
    let cgroups = match driver {
        CgroupDriver::Cgroupfs => Cgroups::with_files(mounts),
        CgroupDriver::Systemd => Cgroups::with_systemd(mounts),
    };
    NodeCgroups::new(layout, cgroups, settings.clone(), capacity, reserved)
}

/// Whether all pods together are held to what is allocatable.
pub(super) fn holds_pods(config: &AgentConfig) -> bool {
    let levels = &config.kubelet.enforce_node_allocatable;
    config.cgroups_per_qos && levels.iter().flatten().any(|level| level == "pods")
}

/// What the Node says whatever happens.
pub(super) fn node_template(config: &AgentConfig, settings: &NodeSettings) -> NodeTemplate {
    NodeTemplate {
        name: config.node_name.clone(),
        labels: settings.labels.clone(),
        processor: std::env::consts::ARCH,
        taints: config.node.taints.clone(),
        provider_id: config.node.provider_id.clone(),
        external_cloud: config.node.external_cloud,
        given_addresses: config.node_ips.iter().filter(|ip| !ip.is_unspecified()).copied().collect(),
        controller_attaches: config.node.controller_attaches,
        port: config.node.port,
    }
}

/// What the Node says of the machine. Blocks on the file system.
pub(super) fn machine_facts(
    config: &AgentConfig,
    machine: &Machine,
    settings: &NodeSettings,
) -> MachineFacts {
    let identity = Identity::read(Path::new("/"));
    let configured = config.node_ips.clone();
    let amounts = |amounts| resources(amounts, settings.room.pods, &machine.hugepage_bytes);
    MachineFacts {
        capacity: amounts(settings.capacity),
        allocatable: amounts(settings.allocatable),
        system: SystemFacts {
            machine_id: identity.machine_id,
            system_uuid: identity.system_uuid,
            boot_id: identity.boot_id,
            kernel_version: identity.kernel_version,
            os_image: identity.os_image,
            swap_bytes: machine.swap_bytes,
        },
        // A machine may get its address after the agent has started.
        addresses: Box::new(move || host_ips(&configured)),
    }
}

/// What the node's pressure is measured by.
pub(super) fn pressure_sources(
    config: &AgentConfig,
    machine: &Machine,
    cgroups: &NodeCgroups,
    mounts: CgroupMounts,
) -> PressureSources {
    let kubelet = &config.kubelet;
    let settings = EvictionSettings {
        hard: kubelet.eviction_hard.as_ref(),
        soft: kubelet.eviction_soft.as_ref(),
        soft_grace: kubelet.eviction_soft_grace_period.as_ref(),
        minimum_reclaim: kubelet.eviction_minimum_reclaim.as_ref(),
        pods_enforced: holds_pods(config),
    };
    PressureSources {
        pressures: Pressures::new(&settings, config.node.pressure_transition),
        cgroups: mounts,
        pods_cgroup: cgroups.layout().class_path(QosClass::Guaranteed),
        root_dir: config.root_dir.clone(),
        memory_bytes: machine.memory_bytes,
        pids: i64::try_from(machine.pids).unwrap_or(i64::MAX),
    }
}

/// The configured addresses, else the one that the machine would speak from: a UDP socket that is connected
/// to a public address, over which nothing is sent, tells it. An unspecified address asks for its family first.
pub fn host_ips(configured: &[IpAddr]) -> Vec<IpAddr> {
    let given: Vec<IpAddr> = configured.iter().filter(|ip| !ip.is_unspecified()).copied().collect();
    if !given.is_empty() {
        return given;
    }
    let speaks_from = |bind: &str, to: &str| {
        let socket = UdpSocket::bind(bind).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    let mut families = [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")];
    if configured.first().is_some_and(IpAddr::is_ipv6) {
        families.reverse();
    }
    families.into_iter().find_map(|(bind, to)| speaks_from(bind, to)).into_iter().collect()
}
