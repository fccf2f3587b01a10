//! The security contexts of sandboxes and containers, and the namespaces that they share: kubelet's
//! rules (pkg/kubelet/kuberuntime/security_context.go, kuberuntime_sandbox.go).

use k8s_openapi::api::core::v1::{Container, Pod};

use super::{
    ContainerInput, SandboxInput,
    effective::{EffectiveSecurity, verify_non_root},
    ephemeral::target_namespaces,
    profiles::{app_armor, seccomp},
};
use crate::{
    api::{
        PodExt as _,
        cri::{
            Capability, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext,
            NamespaceMode, NamespaceOption, SeLinuxOption, SecurityProfile, SupplementalGroupsPolicy,
            UserNamespace, security_profile::ProfileType,
        },
        manifest::without_prefix,
    },
    policy::{env::ConfigError, userns::PodIds},
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
pub(super) fn sandbox_security(input: &SandboxInput<'_>) -> LinuxSandboxSecurityContext {
    let pod = input.pod;
    let security = pod.spec().security_context.as_ref();
    let user = security.and_then(|s| s.run_as_user);
    LinuxSandboxSecurityContext {
        namespace_options: Some(NamespaceOption {
            userns_options: Some(user_namespace(input.user_namespace)),
            ..namespaces(pod)
        }),
        // A privileged container may only be in a sandbox that is.
        privileged: pod.all_containers().into_iter().any(|(_, container)| is_privileged(container)),
        // Whatever its containers have: the sandbox's own process needs nothing else.
        seccomp: Some(SecurityProfile {
            profile_type: ProfileType::RuntimeDefault.into(),
            localhost_ref: String::new(),
        }),
        run_as_user: user.map(int64),
        // Containerd makes no sandbox with a group and no user.
        run_as_group: security.and_then(|s| s.run_as_group).filter(|_| user.is_some()).map(int64),
        supplemental_groups: supplemental_groups(pod),
        supplemental_groups_policy: groups_policy(pod).into(),
        selinux_options: security.and_then(|s| s.se_linux_options.as_ref()).map(se_linux),
        ..LinuxSandboxSecurityContext::default()
    }
}

/// What a container is confined to.
///
/// # Errors
/// When it must not run as root and would, or a profile is not told.
pub(super) fn container_security(
    input: &ContainerInput<'_>,
) -> Result<LinuxContainerSecurityContext, ConfigError> {
    let ContainerInput { pod, container, image, node, .. } = *input;
    let effective = EffectiveSecurity::of(pod, container);
    verify_non_root(pod, container, &effective, image)?;
    let (user, user_name) = match (effective.run_as_user, image.uid) {
        (Some(user), _) | (None, Some(user)) => (Some(user), ""),
        (None, None) if !image.user_name.is_empty() => (None, image.user_name.as_str()),
        // An image that names no user is root's.
        (None, None) => (Some(0), ""),
    };
    let (masked_paths, readonly_paths) = match effective.proc_mount.as_deref() {
        Some("Unmasked") => (Vec::new(), Vec::new()),
        _ => {
            let masked = MASKED_PATHS.iter().copied().map(str::to_owned);
            let masked = masked.chain(node.security.masked_paths.iter().cloned());
            (masked.collect(), READONLY_PATHS.map(str::to_owned).to_vec())
        }
    };
    let (apparmor, apparmor_text) = app_armor(pod, container)?.unzip();
    #[allow(deprecated, reason = "runtimes before the newer field read the text")]
    Ok(LinuxContainerSecurityContext {
        capabilities: effective.capabilities.as_ref().map(|wanted| Capability {
            // Not to be granted what kubelet's request would not be: as they are written.
            add_capabilities: wanted.add.clone().unwrap_or_default(),
            drop_capabilities: dropped_capabilities(wanted.drop.as_deref()),
            ..Capability::default()
        }),
        privileged: effective.privileged,
        namespace_options: Some(NamespaceOption {
            userns_options: Some(user_namespace(input.user_namespace)),
            ..target_namespaces(namespaces(pod), input.target)
        }),
        selinux_options: effective.se_linux_options.as_ref().map(se_linux),
        run_as_user: user.map(int64),
        run_as_group: effective.run_as_group.map(int64),
        run_as_username: user_name.to_owned(),
        readonly_rootfs: effective.read_only_root_filesystem,
        supplemental_groups: supplemental_groups(pod),
        supplemental_groups_policy: groups_policy(pod).into(),
        no_new_privs: effective.allow_privilege_escalation == Some(false),
        masked_paths,
        readonly_paths,
        seccomp: Some(seccomp(effective.seccomp_profile.as_ref(), &node.security)?),
        apparmor,
        apparmor_profile: apparmor_text.unwrap_or_default(),
        ..LinuxContainerSecurityContext::default()
    })
}

fn namespaces(pod: &Pod) -> NamespaceOption {
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

/// The pod's own user namespace, or the node's said outright: what an unset field means is not the same
/// with every runtime.
fn user_namespace(ids: Option<PodIds>) -> UserNamespace {
    ids.map_or_else(
        || UserNamespace { mode: NamespaceMode::Node.into(), ..UserNamespace::default() },
        PodIds::namespace,
    )
}

fn is_privileged(container: &Container) -> bool {
    container.security_context.as_ref().and_then(|s| s.privileged).unwrap_or(false)
}

/// The group of the pod's volumes first, as kubelet has it.
fn supplemental_groups(pod: &Pod) -> Vec<i64> {
    let Some(security) = &pod.spec().security_context else { return Vec::new() };
    security.fs_group.into_iter().chain(security.supplemental_groups.iter().flatten().copied()).collect()
}

fn groups_policy(pod: &Pod) -> SupplementalGroupsPolicy {
    let policy = pod.spec().security_context.as_ref().and_then(|s| s.supplemental_groups_policy.as_deref());
    match policy {
        Some("Strict") => SupplementalGroupsPolicy::Strict,
        _ => SupplementalGroupsPolicy::Merge,
    }
}

/// Containerd puts `CAP_` before every name and passes over those that the kernel does not have: of a name
/// that came with it the capability would stay.
fn dropped_capabilities(names: Option<&[String]>) -> Vec<String> {
    let bare = |name: &String| without_prefix(name).unwrap_or(name).to_owned();
    names.unwrap_or_default().iter().map(bare).collect()
}

fn se_linux(options: &k8s_openapi::api::core::v1::SELinuxOptions) -> SeLinuxOption {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    SeLinuxOption {
        user: text(&options.user),
        role: text(&options.role),
        r#type: text(&options.type_),
        level: text(&options.level),
    }
}

fn int64(value: i64) -> Int64Value {
    Int64Value { value }
}
