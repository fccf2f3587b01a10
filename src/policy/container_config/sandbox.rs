//! A sandbox's configuration.

use k8s_openapi::api::core::v1::Pod;

use super::{pod_labels, security::sandbox_security};
use crate::{
    api::{
        PodExt as _,
        cri::{
            DnsConfig, LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol,
        },
        labels,
    },
    policy::{
        fingerprints::sandbox_fingerprint,
        node::NodeSettings,
        pod_cgroup::{sandbox_overhead, sandbox_resources},
        sysctls,
        userns::PodIds,
    },
};

/// What a sandbox's configuration depends on.
#[derive(Debug, Clone, Copy)]
pub struct SandboxInput<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The sandbox's attempt number.
    pub attempt: u32,
    /// The pod's log folder.
    pub log_directory: &'a str,
    /// The cgroup to make it under; empty for the runtime's own.
    pub cgroup_parent: &'a str,
    /// The name that the kernel is to have for its host; empty to keep the host's.
    pub hostname: &'a str,
    /// How it resolves names; nothing to leave that to the runtime.
    pub dns: Option<&'a DnsConfig>,
    /// The host's users and groups behind the pod's own, if it has its own.
    pub user_namespace: Option<PodIds>,
    /// The node.
    pub node: &'a NodeSettings,
}

/// The sandbox's configuration. It is also handed over with each of its containers.
pub fn sandbox_config(input: &SandboxInput<'_>) -> PodSandboxConfig {
    let SandboxInput { pod, attempt, log_directory, cgroup_parent, node, .. } = *input;
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
        hostname: if pod.host_network() { String::new() } else { input.hostname.to_owned() },
        dns_config: input.dns.cloned(),
        log_directory: log_directory.to_owned(),
        port_mappings: port_mappings(pod),
        labels: all_labels,
        annotations,
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: cgroup_parent.to_owned(),
            security_context: Some(sandbox_security(input)),
            sysctls: sysctls::of_pod(pod),
            resources: Some(sandbox_resources(pod, &node.resources)),
            overhead: Some(sandbox_overhead(pod, &node.resources)),
        }),
        ..PodSandboxConfig::default()
    }
}

/// The ports of regular containers, for the runtime's port mapping. Those of sidecars are not mapped: kubelet
/// does not either (pkg/kubelet/kuberuntime/kuberuntime_sandbox.go), though it keeps them from other pods.
fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    pod.spec()
        .containers
        .iter()
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
