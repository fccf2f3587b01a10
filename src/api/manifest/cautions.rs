//! Values that a pod may have and that do nothing on this node, or not what they seem to: kubelet and the
//! runtimes pass over them without a word, and so they are told as warnings.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::FieldProblem;
use crate::api::{ContainerKind, PodExt as _, pod::init_kind, pod_resources::is_extended};

/// Lists them, by their paths.
pub(super) fn cautions(pod: &Pod) -> Vec<FieldProblem> {
    let mut found = Vec::new();
    let spec = pod.spec();
    for (index, container) in spec.init_containers.iter().flatten().enumerate() {
        let path = format!("spec.initContainers[{index}]");
        of_container(container, &path, &mut found);
        if init_kind(container) == ContainerKind::Sidecar && !pod.host_network() {
            sidecar_ports(container, &path, &mut found);
        }
    }
    for (index, container) in spec.containers.iter().enumerate() {
        of_container(container, &format!("spec.containers[{index}]"), &mut found);
    }
    found
}

fn of_container(container: &Container, path: &str, found: &mut Vec<FieldProblem>) {
    let mut told = BTreeSet::new();
    let resources = container.resources.as_ref();
    for (list, name) in [
        (resources.and_then(|r| r.limits.as_ref()), "limits"),
        (resources.and_then(|r| r.requests.as_ref()), "requests"),
    ] {
        for resource in list.into_iter().flatten().map(|(resource, _)| resource) {
            if is_extended(resource) && told.insert(resource) {
                found.push(FieldProblem::new(
                    format!("{path}.resources.{name}[{resource}]"),
                    "ignored: device plugins are not supported, the container gets no such device",
                ));
            }
        }
    }
    let capabilities = container.security_context.as_ref().and_then(|s| s.capabilities.as_ref());
    for (index, name) in capabilities.and_then(|c| c.add.as_ref()).into_iter().flatten().enumerate() {
        if let Some(bare) = without_prefix(name) {
            found.push(FieldProblem::new(
                format!("{path}.securityContext.capabilities.add[{index}]"),
                format!("{name}: containerd adds no capability that is named with CAP_: write {bare}"),
            ));
        }
    }
}

fn sidecar_ports(container: &Container, path: &str, found: &mut Vec<FieldProblem>) {
    for (index, port) in container.ports.iter().flatten().enumerate() {
        if port.host_port.is_some_and(|port| port > 0) {
            found.push(FieldProblem::new(
                format!("{path}.ports[{index}].hostPort"),
                "ignored: as with kubelet, no port of the host leads to an init container",
            ));
        }
    }
}

/// The name of a capability behind `CAP_`, if it has that.
pub fn without_prefix(name: &str) -> Option<&str> {
    let prefixed = name.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("CAP_"));
    if prefixed { name.get(4..) } else { None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_does_nothing_is_told_by_its_path() {
        let pod = |host_network: bool| -> Pod {
            let ports = json!([{"containerPort": 80}, {"containerPort": 81, "hostPort": 81}]);
            let gpu = json!({"limits": {"example.com/gpu": "1", "cpu": "1"},
                "requests": {"example.com/gpu": "1", "example.com/other": "1"}});
            let add = json!({"capabilities": {"add": ["SYS_TIME", "cap_chown"], "drop": ["CAP_KILL"]}});
            let spec = json!({
                "hostNetwork": host_network,
                "initContainers": [
                    {"name": "i", "ports": ports},
                    {"name": "s", "restartPolicy": "Always", "ports": ports, "securityContext": add},
                ],
                "containers": [{"name": "c", "ports": ports, "resources": gpu}],
            });
            serde_json::from_value(json!({"spec": spec})).unwrap()
        };
        let paths = |pod: &Pod| cautions(pod).into_iter().map(|problem| problem.path).collect::<Vec<_>>();
        let everywhere = [
            "spec.initContainers[1].securityContext.capabilities.add[1]",
            "spec.containers[0].resources.limits[example.com/gpu]",
            "spec.containers[0].resources.requests[example.com/other]",
        ];
        let mut expected = everywhere.to_vec();
        expected.insert(1, "spec.initContainers[1].ports[1].hostPort");
        assert_eq!(paths(&pod(false)), expected);
        assert_eq!(paths(&pod(true)), everywhere);
        let told = cautions(&pod(true)).remove(0).to_string();
        assert!(told.contains("write chown"), "{told}");
    }
}
