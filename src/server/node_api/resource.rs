//! `/metrics/resource`: CPU time, memory and swap of the node, its pods and their containers, which metrics-server
//! reads (`pkg/kubelet/metrics/collectors/resource_metrics.go`).

use prometheus::proto::MetricType::{COUNTER, GAUGE};

use super::families::{Families, Kind, Labels, number, seconds, since_epoch};
use crate::api::usage::{Measured, NodeUsage, PodUsage};

const SCRAPE_ERROR: Kind = ("resource_scrape_error", "1 if the node could not be measured, else 0", GAUGE);
const CONTAINER_START: Kind =
    ("container_start_time_seconds", "When the container was made, in seconds since the Unix epoch", GAUGE);

/// The metrics of a thing: CPU time, memory, swap.
struct Kinds {
    cpu: Kind,
    memory: Kind,
    swap: Kind,
}

const NODE: Kinds = Kinds {
    cpu: ("node_cpu_usage_seconds_total", "CPU time of the node in core-seconds", COUNTER),
    memory: ("node_memory_working_set_bytes", "Working set of the node in bytes", GAUGE),
    swap: ("node_swap_usage_bytes", "Swap in use on the node in bytes", GAUGE),
};
const POD: Kinds = Kinds {
    cpu: ("pod_cpu_usage_seconds_total", "CPU time of the pod in core-seconds", COUNTER),
    memory: ("pod_memory_working_set_bytes", "Working set of the pod in bytes", GAUGE),
    swap: ("pod_swap_usage_bytes", "Swap in use by the pod in bytes", GAUGE),
};
const CONTAINER: Kinds = Kinds {
    cpu: ("container_cpu_usage_seconds_total", "CPU time of the container in core-seconds", COUNTER),
    memory: ("container_memory_working_set_bytes", "Working set of the container in bytes", GAUGE),
    swap: ("container_swap_usage_bytes", "Swap in use by the container in bytes", GAUGE),
};
const SWAP_LIMIT: Kind =
    ("container_swap_limit_bytes", "Swap that the container may use at most in bytes", GAUGE);

/// All of them; without a sample that there is none.
pub(super) fn families(usage: Option<&NodeUsage>) -> Families {
    let mut families = Families::default();
    let root = usage.and_then(|usage| usage.root.as_ref());
    families.add(SCRAPE_ERROR, &[], if root.is_some() { 0.0 } else { 1.0 }, None);
    let Some(usage) = usage else { return families };
    if let Some(root) = root {
        add(&mut families, &NODE, &[], root, false);
    }
    if let Some((used, _free)) = usage.swap {
        families.add(NODE.swap, &[], number(used), Some(usage.at));
    }
    for (n, pod) in usage.pods.iter().enumerate() {
        // Of two of the same name, which the series do not tell apart, the newer one counts. They stand in order.
        if usage.pods.get(n + 1).is_none_or(|next| next.name != pod.name) {
            add_pod(&mut families, pod);
        }
    }
    families
}

fn add_pod(families: &mut Families, pod: &PodUsage) {
    let name = [("namespace", &*pod.name.namespace), ("pod", &*pod.name.name)];
    for container in &pod.containers {
        let labels = [name[0], name[1], ("container", &*container.name)];
        families.add(CONTAINER_START, &labels, since_epoch(container.created), None);
        add(families, &CONTAINER, &labels, &container.measured, true);
        let memory = container.measured.usage.memory.as_ref();
        if let Some(limit) = memory.and_then(|memory| memory.swap.and(memory.swap_limit)) {
            families.add(SWAP_LIMIT, &labels, number(limit), Some(container.measured.at));
        }
    }
    if let Some(measured) = &pod.measured {
        add(families, &POD, &name, measured, true);
        return;
    }
    // Without a cgroup of its own a pod is its containers.
    let Some(at) = pod.containers.iter().map(|container| container.measured.at).max() else { return };
    let usages = || pod.containers.iter().map(|container| &container.measured.usage);
    let cpu = usages().filter_map(|usage| Some(usage.cpu.as_ref()?.total_ns)).reduce(u64::saturating_add);
    let memory =
        usages().filter_map(|usage| Some(usage.memory.as_ref()?.working_set)).reduce(u64::saturating_add);
    let swap = usages().filter_map(|usage| usage.memory.as_ref()?.swap).reduce(u64::saturating_add);
    for (kind, value) in
        [(POD.cpu, cpu.map(seconds)), (POD.memory, memory.map(number)), (POD.swap, swap.map(number))]
    {
        if let Some(value) = value {
            families.add(kind, &name, value, Some(at));
        }
    }
}

fn add(families: &mut Families, kinds: &Kinds, labels: &Labels<'_>, measured: &Measured, with_swap: bool) {
    let at = Some(measured.at);
    if let Some(cpu) = &measured.usage.cpu {
        families.add(kinds.cpu, labels, seconds(cpu.total_ns), at);
    }
    let Some(memory) = &measured.usage.memory else { return };
    families.add(kinds.memory, labels, number(memory.working_set), at);
    if let Some(swap) = memory.swap.filter(|_| with_swap) {
        families.add(kinds.swap, labels, number(swap), at);
    }
}
