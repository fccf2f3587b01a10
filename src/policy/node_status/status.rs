//! A Node's status from what is so at the moment, on what the server has.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        ContainerImage, DaemonEndpoint, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
        NodeRuntimeHandler, NodeRuntimeHandlerFeatures, NodeStatus, NodeSwapStatus, NodeSystemInfo,
    },
    apimachinery::pkg::{api::resource::Quantity as ApiQuantity, apis::meta::v1::Time},
};

use super::{NodeFacts, NodeTemplate, RuntimeTold};
use crate::{
    api::{cri::Image, pod_resources::is_extended, quantity::Quantity},
    policy::{node_affinity::go_arch, pressure::Pressure},
};

/// The conditions that are ours, in kubelet's order; all others are somebody else's.
pub(super) const CONDITIONS: [&str; 4] = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];
/// Most names of one image in the status.
const NAMES_PER_IMAGE: usize = 5;
/// The Kubernetes release whose kubelet the agent stands for, and what it is.
const VERSION: &str = concat!("v1.36.0+nodectl.", env!("CARGO_PKG_VERSION"));

/// The images to tell of: the largest `most`, with at most five names each.
pub fn images(all: &[Image], most: Option<usize>) -> Vec<ContainerImage> {
    let mut all: Vec<&Image> = all.iter().collect();
    all.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    all.into_iter()
        .take(most.unwrap_or(usize::MAX))
        .map(|image| ContainerImage {
            names: Some(
                image.repo_digests.iter().chain(&image.repo_tags).take(NAMES_PER_IMAGE).cloned().collect(),
            ),
            size_bytes: Some(i64::try_from(image.size).unwrap_or(i64::MAX)),
        })
        .collect()
}

/// The status as it should be: what the server has, with what is ours as it is.
pub fn status(
    current: &NodeStatus,
    template: &NodeTemplate,
    facts: &NodeFacts,
    now: Timestamp,
) -> NodeStatus {
    let mut status = current.clone();
    addresses(&mut status, template, facts);
    amounts(&mut status, facts);
    info(&mut status, template, facts);
    status.daemon_endpoints =
        Some(NodeDaemonEndpoints { kubelet_endpoint: Some(DaemonEndpoint { port: template.port.into() }) });
    if let Some(images) = &facts.images {
        status.images = Some(images.clone()).filter(|images| !images.is_empty());
    }
    if let Some(runtime) = &facts.runtime {
        handlers(&mut status, runtime);
    }
    let conditions = status.conditions.get_or_insert_default();
    for condition in conditions_of(facts) {
        settle(conditions, condition, now);
    }
    status
}

fn addresses(status: &mut NodeStatus, template: &NodeTemplate, facts: &NodeFacts) {
    if template.external_cloud {
        // The cloud's word stands; until it is heard, what was configured.
        let told = status.addresses.as_ref().is_some_and(|all| !all.is_empty());
        if told || template.given_addresses.is_empty() {
            return;
        }
    }
    // A machine without an address may have had one.
    if facts.addresses.is_empty() {
        return;
    }
    let address = |type_: &str, address: String| NodeAddress { type_: type_.to_owned(), address };
    let mut all: Vec<NodeAddress> =
        facts.addresses.iter().map(|ip| address("InternalIP", ip.to_string())).collect();
    all.push(address("Hostname", template.name.clone()));
    status.addresses = Some(all);
}

/// Resources that others have told of stay; without an allocatable amount they are all for pods.
fn amounts(status: &mut NodeStatus, facts: &NodeFacts) {
    let text = |amounts: &BTreeMap<String, Quantity>| -> BTreeMap<String, ApiQuantity> {
        amounts.iter().map(|(name, amount)| (name.clone(), ApiQuantity(amount.to_string()))).collect()
    };
    let capacity = status.capacity.get_or_insert_default();
    capacity.extend(text(&facts.capacity));
    let allocatable = status.allocatable.get_or_insert_default();
    allocatable.retain(|name, _| capacity.contains_key(name) || !is_extended(name));
    for (name, amount) in &*capacity {
        allocatable.entry(name.clone()).or_insert_with(|| amount.clone());
    }
    allocatable.extend(text(&facts.allocatable));
}

fn info(status: &mut NodeStatus, template: &NodeTemplate, facts: &NodeFacts) {
    let system = &facts.system;
    let swap = Some(system.swap_bytes).filter(|bytes| *bytes > 0);
    let runtime = match &facts.runtime {
        Some(runtime) => format!("{}://{}", runtime.name, runtime.version),
        // What it was before it stopped answering is what it will be.
        None => {
            status.node_info.as_ref().map(|old| old.container_runtime_version.clone()).unwrap_or_default()
        }
    };
    status.node_info = Some(NodeSystemInfo {
        architecture: go_arch(template.processor).to_owned(),
        boot_id: system.boot_id.clone(),
        container_runtime_version: runtime,
        kernel_version: system.kernel_version.clone(),
        // Nobody here knows of a kube-proxy; kubelets have left this empty since 1.33.
        kube_proxy_version: String::new(),
        kubelet_version: VERSION.to_owned(),
        machine_id: system.machine_id.clone(),
        operating_system: "linux".to_owned(),
        os_image: system.os_image.clone(),
        swap: swap.map(|bytes| NodeSwapStatus { capacity: Some(bytes) }),
        system_uuid: system.system_uuid.clone(),
    });
}

fn handlers(status: &mut NodeStatus, runtime: &RuntimeTold) {
    let mut handlers: Vec<NodeRuntimeHandler> = runtime
        .handlers
        .iter()
        .map(|handler| NodeRuntimeHandler {
            name: Some(handler.name.clone()),
            features: handler.features.map(|features| NodeRuntimeHandlerFeatures {
                recursive_read_only_mounts: Some(features.recursive_read_only_mounts),
                user_namespaces: Some(features.user_namespaces),
            }),
        })
        .collect();
    handlers.sort_by(|a, b| a.name.cmp(&b.name));
    status.runtime_handlers = Some(handlers).filter(|handlers| !handlers.is_empty());
    status.features = runtime.features.map(|features| NodeFeatures {
        supplemental_groups_policy: Some(features.supplemental_groups_policy),
    });
}

/// Type, whether it holds, reason and message.
type Verdict = (&'static str, bool, &'static str, String);

fn conditions_of(facts: &NodeFacts) -> [Verdict; 4] {
    let pressed = |type_, pressure, yes: (&'static str, &str), no: (&'static str, &str)| -> Verdict {
        let holds = facts.pressures.contains(&pressure);
        let (reason, message) = if holds { yes } else { no };
        (type_, holds, reason, message.to_owned())
    };
    let ready = facts.problems.is_empty();
    [
        pressed(
            CONDITIONS[0],
            Pressure::Memory,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        pressed(
            CONDITIONS[1],
            Pressure::Disk,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressed(
            CONDITIONS[2],
            Pressure::Pid,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        (
            CONDITIONS[3],
            ready,
            if ready { "KubeletReady" } else { "KubeletNotReady" },
            match facts.problems.as_slice() {
                [] => "kubelet is posting ready status".to_owned(),
                [one] => one.clone(),
                many => format!("[{}]", many.join(", ")),
            },
        ),
    ]
}

/// Puts a condition in its place. It keeps its time while its status stays the same.
fn settle(all: &mut Vec<NodeCondition>, (type_, holds, reason, message): Verdict, now: Timestamp) {
    let status = if holds { "True" } else { "False" };
    let old = all.iter_mut().find(|condition| condition.type_ == type_);
    let since =
        old.as_ref().filter(|old| old.status == status).and_then(|old| old.last_transition_time.clone());
    let new = NodeCondition {
        type_: type_.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: Some(since.unwrap_or(Time(now))),
    };
    match old {
        Some(old) => *old = new,
        None => all.push(new),
    }
}
