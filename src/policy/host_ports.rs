//! Ports of the host: no two pods can have the same. The rules are the scheduler's, which kubelet asks again
//! when it takes a pod (pkg/scheduler/framework/types.go and plugins/nodeports): an address of all zeros is
//! every address, protocols are apart. A pod that comes second is refused for good, also when the first is
//! about to end; one that replaces another of its name is judged when that one is gone.

use k8s_openapi::api::core::v1::Pod;

use super::{admission::AdmissionInput, status::PodFailure};
use crate::api::{ContainerKind, PodExt as _, pod::init_kind};

const EVERY_ADDRESS: &str = "0.0.0.0";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HostPort<'a> {
    protocol: &'a str,
    ip: &'a str,
    port: i32,
}

impl HostPort<'_> {
    fn conflicts(&self, other: &Self) -> bool {
        self.protocol == other.protocol
            && self.port == other.port
            && (self.ip == other.ip || [self.ip, other.ip].contains(&EVERY_ADDRESS))
    }
}

/// The ports of the host that a pod takes: those of its regular containers and sidecars.
fn host_ports(pod: &Pod) -> impl Iterator<Item = HostPort<'_>> {
    fn given<'t>(text: Option<&'t str>, otherwise: &'t str) -> &'t str {
        text.filter(|text| !text.is_empty()).unwrap_or(otherwise)
    }
    let spec = pod.spec();
    let sidecars = spec.init_containers.iter().flatten().filter(|c| init_kind(c) == ContainerKind::Sidecar);
    spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten()).filter_map(
        |port| {
            Some(HostPort {
                protocol: given(port.protocol.as_deref(), "TCP"),
                ip: given(port.host_ip.as_deref(), EVERY_ADDRESS),
                port: port.host_port.filter(|port| *port > 0)?,
            })
        },
    )
}

/// Refuses a pod that wants a port of the host which another pod has.
pub(super) fn check(input: &AdmissionInput<'_>) -> Result<(), PodFailure> {
    for wanted in host_ports(input.pod) {
        let holder =
            input.others.iter().find(|other| host_ports(other).any(|taken| taken.conflicts(&wanted)));
        if let Some(holder) = holder {
            let name = holder.full_name();
            return Err(PodFailure {
                reason: "NodePorts".to_owned(),
                message: format!(
                    "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports: \
                     {} {}:{} is taken by pod {}/{}",
                    wanted.protocol, wanted.ip, wanted.port, name.namespace, name.name
                ),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::ContainerPort;

    use super::*;
    use crate::policy::{admission::admit, testing};

    fn pod(name: &str, ports: &[(&str, &str, i32)]) -> Pod {
        let mut pod = testing::pod(&["a"]);
        pod.metadata.name = Some(name.into());
        let ports = ports.iter().map(|(protocol, ip, port)| ContainerPort {
            container_port: 80,
            host_port: Some(*port),
            host_ip: Some((*ip).into()),
            protocol: Some((*protocol).into()),
            ..ContainerPort::default()
        });
        pod.spec.as_mut().unwrap().containers[0].ports = Some(ports.collect());
        pod
    }

    fn refused(pod: &Pod, other: &Pod) -> Option<PodFailure> {
        let others = [Arc::new(testing::pod(&["x"])), Arc::new(other.clone())];
        admit(&AdmissionInput { pod, others: &others, node: &testing::node(), server_node: None }).err()
    }

    #[test]
    fn the_same_port_on_the_same_address() {
        for (ours, theirs, conflict) in [
            (("TCP", "", 80), ("TCP", "", 80), true),
            (("", "", 80), ("TCP", "0.0.0.0", 80), true),
            (("TCP", "", 80), ("UDP", "", 80), false),
            (("TCP", "", 80), ("TCP", "", 81), false),
            (("TCP", "192.0.2.1", 80), ("TCP", "", 80), true),
            (("TCP", "", 80), ("TCP", "192.0.2.1", 80), true),
            (("TCP", "192.0.2.1", 80), ("TCP", "192.0.2.2", 80), false),
            (("TCP", "192.0.2.1", 80), ("TCP", "192.0.2.1", 80), true),
            (("TCP", "", 0), ("TCP", "", 0), false),
        ] {
            let found = refused(&pod("b", &[ours]), &pod("a", &[theirs]));
            assert_eq!(found.is_some(), conflict, "{ours:?} beside {theirs:?}");
        }
        let found = refused(&pod("b", &[("TCP", "", 80)]), &pod("a", &[("TCP", "", 80)])).unwrap();
        assert_eq!(found.reason, "NodePorts");
        assert!(found.message.ends_with("TCP 0.0.0.0:80 is taken by pod default/a"), "{}", found.message);
    }

    #[test]
    fn a_sidecars_port_counts_and_an_init_containers_does_not() {
        let mut sidecar = pod("a", &[("TCP", "", 80)]);
        let spec = sidecar.spec.as_mut().unwrap();
        let mut container = spec.containers[0].clone();
        spec.containers[0].ports = None;
        container.restart_policy = Some("Always".into());
        spec.init_containers = Some(vec![container]);
        let ours = pod("b", &[("TCP", "", 80)]);
        assert!(refused(&ours, &sidecar).is_some());
        sidecar.spec.as_mut().unwrap().init_containers.as_mut().unwrap()[0].restart_policy = None;
        assert!(refused(&ours, &sidecar).is_none());
    }
}
