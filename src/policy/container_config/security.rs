//! The security contexts of sandboxes and containers, and the namespaces that they share.

use k8s_openapi::api::core::v1::{Container, Pod};

use super::ContainerInput;
use crate::{
    api::{
        PodExt as _,
        cri::{
            LinuxContainerSecurityContext, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption,
            SecurityProfile, security_profile::ProfileType,
        },
    },
    policy::node::NodeSettings,
};

/// Paths under /proc and /sys that a container must not see (`procMount: Default`;
/// pkg/securitycontext/util.go).
const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
/// Paths under /proc that a container may only read.
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What the sandbox is confined to.
pub(super) fn sandbox_security(pod: &Pod, _node: &NodeSettings) -> LinuxSandboxSecurityContext {
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(pod, None)),
        supplemental_groups: volume_group(pod),
        seccomp: Some(unconfined()),
        ..LinuxSandboxSecurityContext::default()
    }
}

/// What a container is confined to.
pub(super) fn container_security(input: &ContainerInput<'_>) -> LinuxContainerSecurityContext {
    LinuxContainerSecurityContext {
        namespace_options: Some(namespaces(input.pod, Some(input.container))),
        masked_paths: MASKED_PATHS.map(str::to_owned).to_vec(),
        readonly_paths: READONLY_PATHS.map(str::to_owned).to_vec(),
        supplemental_groups: volume_group(input.pod),
        seccomp: Some(unconfined()),
        ..LinuxContainerSecurityContext::default()
    }
}

/// The group that the pod's volumes belong to (`fsGroup`): all its processes are in it.
fn volume_group(pod: &Pod) -> Vec<i64> {
    pod.spec().security_context.iter().filter_map(|security| security.fs_group).collect()
}

fn namespaces(pod: &Pod, _container: Option<&Container>) -> NamespaceOption {
    let spec = pod.spec();
    let node_if = |on: bool, otherwise: NamespaceMode| if on { NamespaceMode::Node } else { otherwise };
    let shared = spec.share_process_namespace.unwrap_or(false);
    let pid = if shared { NamespaceMode::Pod } else { NamespaceMode::Container };
    NamespaceOption {
        network: node_if(pod.host_network(), NamespaceMode::Pod).into(),
        pid: node_if(spec.host_pid.unwrap_or(false), pid).into(),
        ipc: node_if(spec.host_ipc.unwrap_or(false), NamespaceMode::Pod).into(),
        ..NamespaceOption::default()
    }
}

fn unconfined() -> SecurityProfile {
    SecurityProfile { profile_type: ProfileType::Unconfined.into(), localhost_ref: String::new() }
}
