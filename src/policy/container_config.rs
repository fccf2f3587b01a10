//! What the runtime is asked for: the CRI configuration of a pod's sandbox and containers, with the labels
//! and annotations that kubelet puts there (pkg/kubelet/kuberuntime/kuberuntime_sandbox.go and
//! kuberuntime_container.go).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod};

use super::{
    expansion::{environment, expand},
    fingerprints::{container_fingerprint, sandbox_fingerprint},
    pod_actions::StartContainer,
    resources::{ResourceSettings, linux_resources},
};
use crate::api::{
    ContainerKind, PodExt, PodFullName, PodUid,
    container_hash::kubelet_container_hash_text,
    cri::{
        ContainerConfig, ContainerMetadata, ImageSpec, KeyValue, LinuxContainerConfig,
        LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Mount,
        NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol,
        SecurityProfile, security_profile::ProfileType,
    },
    labels,
    pod::init_kind,
};

/// The longest host name that the kernel takes.
const MAX_HOSTNAME: usize = 63;

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

/// The pod's host name: `spec.hostname`, else its name cut to what the kernel takes.
pub fn pod_hostname(pod: &Pod) -> String {
    let name = match pod.spec().hostname.as_deref() {
        Some(hostname) if !hostname.is_empty() => hostname.to_owned(),
        _ => pod.full_name().name.to_string(),
    };
    if name.len() <= MAX_HOSTNAME {
        return name;
    }
    // A pod's name is ASCII; it may be cut anywhere, but must not end in a dash or dot.
    name.chars().take(MAX_HOSTNAME).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}

/// The name of a pod's log folder: `namespace_name_uid`.
pub fn pod_log_dir_name(name: &PodFullName, uid: &PodUid) -> String {
    format!("{}_{}_{uid}", name.namespace, name.name)
}

/// The sandbox's configuration. It is also handed over with each of its containers.
pub fn sandbox_config(pod: &Pod, attempt: u32, log_directory: &str, cgroup_parent: &str) -> PodSandboxConfig {
    let name = pod.full_name();
    let mut annotations = pod.metadata.annotations.clone().unwrap_or_default();
    annotations.insert(labels::SANDBOX_FINGERPRINT.to_owned(), sandbox_fingerprint(pod).to_string());
    let mut all_labels = pod.metadata.labels.clone().unwrap_or_default();
    all_labels.extend(pod_labels(pod));
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name.name.to_string(),
            uid: pod.uid().to_string(),
            namespace: name.namespace.to_string(),
            attempt,
        }),
        // On the host's network the host's name stays.
        hostname: if pod.host_network() { String::new() } else { pod_hostname(pod) },
        log_directory: log_directory.to_owned(),
        port_mappings: port_mappings(pod),
        labels: all_labels,
        annotations,
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: cgroup_parent.to_owned(),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(pod)),
                seccomp: Some(unconfined()),
                ..LinuxSandboxSecurityContext::default()
            }),
            ..LinuxPodSandboxConfig::default()
        }),
        ..PodSandboxConfig::default()
    }
}

/// A container's configuration. `image_ref` is what the runtime called the image when asked for it.
pub fn container_config(
    pod: &Pod,
    container: &Container,
    start: &StartContainer,
    image_ref: &str,
    mounts: Vec<Mount>,
    settings: &ResourceSettings,
) -> ContainerConfig {
    let env = environment(container.env.as_deref().unwrap_or_default());
    let value_of = |name: &str| env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let expanded = |texts: &Option<Vec<String>>| -> Vec<String> {
        texts.iter().flatten().map(|text| expand(text, value_of)).collect()
    };
    let mut all_labels = pod_labels(pod);
    all_labels.insert(labels::CONTAINER_NAME.to_owned(), container.name.clone());
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: container.name.clone(), attempt: start.attempt }),
        image: Some(ImageSpec {
            image: image_ref.to_owned(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..ImageSpec::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: env.iter().map(|(key, value)| KeyValue { key: key.clone(), value: value.clone() }).collect(),
        mounts,
        labels: all_labels,
        annotations: container_annotations(pod, container, start),
        log_path: format!("{}/{}.log", container.name, start.attempt),
        linux: Some(LinuxContainerConfig {
            resources: Some(linux_resources(pod, container, settings)),
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(namespaces(pod)),
                masked_paths: MASKED_PATHS.map(str::to_owned).to_vec(),
                readonly_paths: READONLY_PATHS.map(str::to_owned).to_vec(),
                seccomp: Some(unconfined()),
                ..LinuxContainerSecurityContext::default()
            }),
        }),
        ..ContainerConfig::default()
    }
}

fn pod_labels(pod: &Pod) -> BTreeMap<String, String> {
    let name = pod.full_name();
    BTreeMap::from([
        (labels::POD_NAME.to_owned(), name.name.to_string()),
        (labels::POD_NAMESPACE.to_owned(), name.namespace.to_string()),
        (labels::POD_UID.to_owned(), pod.uid().to_string()),
    ])
}

fn container_annotations(
    pod: &Pod,
    container: &Container,
    start: &StartContainer,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([
        (labels::CONTAINER_HASH.to_owned(), kubelet_container_hash_text(container)),
        (labels::CONTAINER_RESTART_COUNT.to_owned(), start.attempt.to_string()),
        (
            labels::CONTAINER_TERMINATION_MESSAGE_PATH.to_owned(),
            container.termination_message_path.clone().unwrap_or_default(),
        ),
        (
            labels::CONTAINER_TERMINATION_MESSAGE_POLICY.to_owned(),
            container.termination_message_policy.clone().unwrap_or_default(),
        ),
        (labels::CONTAINER_FINGERPRINT.to_owned(), container_fingerprint(pod, container).to_string()),
        (labels::RESTART_DELAY.to_owned(), start.next_delay_seconds.to_string()),
    ]);
    if let Some(seconds) = pod.spec().termination_grace_period_seconds {
        all.insert(labels::POD_TERMINATION_GRACE_PERIOD.to_owned(), seconds.to_string());
    }
    if let Some(seconds) = pod.metadata.deletion_grace_period_seconds {
        all.insert(labels::POD_DELETION_GRACE_PERIOD.to_owned(), seconds.to_string());
    }
    if start.kind == ContainerKind::Sidecar {
        all.insert(labels::SIDECAR.to_owned(), "true".to_owned());
    }
    let ports: &[ContainerPort] = container.ports.as_deref().unwrap_or_default();
    if !ports.is_empty()
        && let Ok(json) = serde_json::to_string(ports)
    {
        all.insert(labels::CONTAINER_PORTS.to_owned(), json);
    }
    all
}

fn namespaces(pod: &Pod) -> NamespaceOption {
    let spec = pod.spec();
    let node_if = |on: bool, otherwise: NamespaceMode| if on { NamespaceMode::Node } else { otherwise };
    NamespaceOption {
        network: node_if(pod.host_network(), NamespaceMode::Pod).into(),
        pid: node_if(spec.host_pid.unwrap_or(false), NamespaceMode::Container).into(),
        ipc: node_if(spec.host_ipc.unwrap_or(false), NamespaceMode::Pod).into(),
        ..NamespaceOption::default()
    }
}

fn unconfined() -> SecurityProfile {
    SecurityProfile { profile_type: ProfileType::Unconfined.into(), localhost_ref: String::new() }
}

/// The ports of regular containers and sidecars, for the runtime's port mapping.
fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    let spec = pod.spec();
    let sidecars = spec.init_containers.iter().flatten().filter(|c| init_kind(c) == ContainerKind::Sidecar);
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| container.ports.iter().flatten())
        .map(|port| PortMapping {
            protocol: match port.protocol.as_deref() {
                Some("UDP") => Protocol::Udp,
                Some("SCTP") => Protocol::Sctp,
                _ => Protocol::Tcp,
            }
            .into(),
            container_port: port.container_port,
            host_port: port.host_port.unwrap_or(0),
            host_ip: port.host_ip.clone().unwrap_or_default(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::EnvVar;

    use super::*;
    use crate::policy::testing;

    const SETTINGS: ResourceSettings =
        ResourceSettings { node_memory_bytes: 1 << 30, cpu_cfs_quota: true, cpu_cfs_period_micros: 100_000 };

    fn start(kind: ContainerKind) -> StartContainer {
        StartContainer {
            kind,
            index: 0,
            name: "a".into(),
            sandbox_id: "s".into(),
            attempt: 3,
            next_delay_seconds: 40,
            made: None,
        }
    }

    #[test]
    fn labels_are_kubelets_and_win_over_the_pods_own() {
        let mut pod = testing::pod(&["a"]);
        pod.metadata.labels =
            Some(BTreeMap::from([("app".into(), "x".into()), (labels::POD_UID.into(), "forged".into())]));
        let config = sandbox_config(&pod, 2, "/logs", "/kubepods/x");
        assert_eq!(config.labels[labels::POD_UID], "u");
        assert_eq!(config.labels["app"], "x");
        assert_eq!(config.metadata.as_ref().map(|m| m.attempt), Some(2));
        assert_eq!(config.hostname, "p");
        let container = container_config(
            &pod,
            &pod.spec().containers[0],
            &start(ContainerKind::Regular),
            "sha256:1",
            vec![],
            &SETTINGS,
        );
        // Of the pod's labels none stands on its containers.
        assert_eq!(
            container.labels.keys().collect::<Vec<_>>(),
            [labels::CONTAINER_NAME, labels::POD_NAME, labels::POD_NAMESPACE, labels::POD_UID]
        );
        assert_eq!(container.log_path, "a/3.log");
        assert_eq!(container.image.map(|i| i.user_specified_image), Some(testing::IMAGE.to_owned()));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut pod = testing::pod(&["a"]);
        pod.spec.as_mut().unwrap().termination_grace_period_seconds = Some(7);
        let wanted = &pod.spec().containers[0];
        let config = container_config(&pod, wanted, &start(ContainerKind::Sidecar), "r", vec![], &SETTINGS);
        let marks = crate::api::observation::ContainerMarks::read(&config.annotations);
        assert_eq!(marks.restart_count, Some(3));
        assert_eq!(marks.restart_delay_seconds, Some(40));
        assert_eq!(marks.pod_grace_seconds, Some(7));
        assert!(marks.sidecar);
        assert_eq!(marks.fingerprint, Some(container_fingerprint(&pod, wanted)));
        assert_eq!(marks.kubelet_hash, Some(crate::api::container_hash::kubelet_container_hash(wanted)));
    }

    #[test]
    fn commands_and_arguments_are_expanded() {
        let mut pod = testing::pod(&["a"]);
        let wanted = &mut pod.spec.as_mut().unwrap().containers[0];
        wanted.env = Some(vec![EnvVar { name: "N".into(), value: Some("5".into()), ..EnvVar::default() }]);
        wanted.command = Some(vec!["sleep".into(), "$(N)".into()]);
        wanted.args = Some(vec!["$(M)$$(N)".into()]);
        let config = container_config(
            &pod,
            &pod.spec().containers[0],
            &start(ContainerKind::Regular),
            "r",
            vec![],
            &SETTINGS,
        );
        assert_eq!(
            (config.command, config.args),
            (vec!["sleep".into(), "5".into()], vec!["$(M)$(N)".into()])
        );
    }

    #[test]
    fn host_names_fit_the_kernel() {
        let mut pod = testing::pod(&["a"]);
        pod.metadata.name = Some(format!("{}-.x", "a".repeat(61)));
        assert_eq!(pod_hostname(&pod), "a".repeat(61));
        pod.spec.as_mut().unwrap().hostname = Some("given".into());
        assert_eq!(pod_hostname(&pod), "given");
        pod.spec.as_mut().unwrap().host_network = Some(true);
        assert_eq!(sandbox_config(&pod, 0, "", "").hostname, "");
    }
}
