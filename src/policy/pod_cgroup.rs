//! What is set on the cgroups over the containers': the pod's, the classes' and the one over all pods
//! (kubelet's pkg/kubelet/cm: `ResourceConfigForPod`, the QoS container manager, node allocatable).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::{
    qos::{QosClass, qos_class},
    resources::{ResourceSettings, cpu_and_memory, cpu_quota, cpu_shares, hugepage_size},
};
use crate::api::{
    PodExt as _,
    cgroup::{CgroupValues, Limit},
    cri::LinuxContainerResources,
    pod_resources::{self as sums, Amounts, amount, pod_limits_with_overhead, pod_requests_with_overhead},
};

/// What the node has, for the cgroup over all pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeCapacity {
    /// CPUs.
    pub cpus: u32,
    /// Processes and threads that the kernel allows; 0 where it is not known.
    pub pids: u64,
    /// Bytes set aside for huge pages, by the size of a page in bytes.
    pub hugepage_bytes: BTreeMap<u64, u64>,
    /// What `systemReserved` and `kubeReserved` keep back together. Empty where `enforceNodeAllocatable`
    /// has no `pods`.
    pub reserved: Amounts,
}

/// The pod's cgroup. Quota and memory are limited where every container limits them, or the pod itself does:
/// else one container's limit would be another's.
pub fn pod_values(pod: &Pod, settings: &ResourceSettings) -> CgroupValues {
    let spec = pod.spec();
    let requests = pod_requests_with_overhead(spec);
    let limits = pod_limits_with_overhead(spec);
    let class = qos_class(pod);
    let shares = match class {
        QosClass::BestEffort => cpu_shares(0),
        QosClass::Burstable | QosClass::Guaranteed => cpu_shares(amount(&requests, "cpu").milli_value()),
    };
    let declared = |name: &str| match class {
        QosClass::Guaranteed => true,
        QosClass::Burstable => all_limit(spec, name),
        QosClass::BestEffort => false,
    };
    let quota = cpu_quota(amount(&limits, "cpu").milli_value(), settings.cpu_cfs_period_micros);
    let limit = |value: i64, holds: bool| match u64::try_from(value) {
        Ok(value) if holds && value > 0 => Limit::Of(value),
        _ => Limit::Unlimited,
    };
    CgroupValues {
        cpu_shares: u64::try_from(shares).ok(),
        cpu_quota_micros: Some(limit(quota, settings.cpu_cfs_quota && declared("cpu"))),
        cpu_period_micros: u64::try_from(settings.cpu_cfs_period_micros).ok().filter(|period| *period > 0),
        memory_bytes: Some(limit(amount(&limits, "memory").value(), declared("memory"))),
        pids: Some(settings.pod_pids_limit.map_or(Limit::Unlimited, Limit::Of)),
        hugepage_bytes: hugepages(&requests, settings),
        unified: BTreeMap::new(),
    }
}

/// The pod's cgroup while its containers change from the one state to the other: what either needs.
pub fn widest_values(pod: &Pod, other: &Pod, settings: &ResourceSettings) -> CgroupValues {
    let (ours, theirs) = (pod_values(pod, settings), pod_values(other, settings));
    let wider = |a: Option<Limit>, b: Option<Limit>| match (a, b) {
        (Some(Limit::Of(a)), Some(Limit::Of(b))) => Some(Limit::Of(a.max(b))),
        (Some(_), Some(_)) => Some(Limit::Unlimited),
        (a, b) => a.or(b),
    };
    CgroupValues {
        cpu_shares: ours.cpu_shares.max(theirs.cpu_shares),
        cpu_quota_micros: wider(ours.cpu_quota_micros, theirs.cpu_quota_micros),
        memory_bytes: wider(ours.memory_bytes, theirs.memory_bytes),
        ..ours
    }
}

/// For each size that the kernel knows what is requested, none if nothing is.
fn hugepages(requests: &Amounts, settings: &ResourceSettings) -> BTreeMap<u64, Limit> {
    let mut limits: BTreeMap<u64, Limit> =
        settings.hugepage_sizes.iter().map(|size| (*size, Limit::Of(0))).collect();
    for (name, bytes) in requests {
        if let Some(limit) = hugepage_size(name).and_then(|size| limits.get_mut(&size)) {
            *limit = Limit::Of(u64::try_from(bytes.value()).unwrap_or(0));
        }
    }
    limits
}

fn all_limit(spec: &PodSpec, name: &str) -> bool {
    let own = sums::amounts(spec.resources.as_ref().and_then(|r| r.limits.as_ref()));
    let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    !amount(&own, name).is_zero()
        || containers.all(|container| {
            let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
            !amount(&sums::amounts(limits), name).is_zero()
        })
}

/// The cgroup of Burstable pods: as much CPU time as they request together.
pub fn burstable_values<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    settings: &ResourceSettings,
) -> CgroupValues {
    let milli = pods
        .into_iter()
        .filter(|pod| qos_class(pod) == QosClass::Burstable)
        .map(|pod| amount(&pod_requests_with_overhead(pod.spec()), "cpu").milli_value())
        .fold(0, i64::saturating_add);
    class_values(milli, settings)
}

/// The cgroup of BestEffort pods: the least CPU time.
pub fn best_effort_values(settings: &ResourceSettings) -> CgroupValues {
    class_values(0, settings)
}

fn class_values(milli_cpu: i64, settings: &ResourceSettings) -> CgroupValues {
    CgroupValues {
        cpu_shares: u64::try_from(cpu_shares(milli_cpu)).ok(),
        hugepage_bytes: settings.hugepage_sizes.iter().map(|size| (*size, Limit::Unlimited)).collect(),
        ..CgroupValues::default()
    }
}

/// The cgroup over all pods: what the node has but for what is reserved.
pub fn all_pods_values(node: &NodeCapacity, settings: &ResourceSettings) -> CgroupValues {
    let reserved = |name: &str| amount(&node.reserved, name);
    let left = |has: i64, kept: i64| u64::try_from(has.saturating_sub(kept)).unwrap_or(0);
    let huge = node.hugepage_bytes.iter().map(|(size, bytes)| {
        let kept: i64 = node
            .reserved
            .iter()
            .filter(|(name, _)| hugepage_size(name) == Some(*size))
            .map(|(_, kept)| kept.value())
            .sum();
        (*size, left(i64::try_from(*bytes).unwrap_or(i64::MAX), kept))
    });
    let huge: BTreeMap<u64, u64> = huge.collect();
    // With what is set aside for huge pages, as with kubelet.
    let memory = left(settings.node_memory_bytes, reserved("memory").value());
    let milli = i64::from(node.cpus) * 1000 - reserved("cpu").milli_value();
    let pids = left(i64::try_from(node.pids).unwrap_or(i64::MAX), reserved("pid").value());
    CgroupValues {
        cpu_shares: u64::try_from(cpu_shares(milli)).ok(),
        memory_bytes: (settings.node_memory_bytes > 0).then_some(Limit::Of(memory)),
        pids: (node.pids > 0).then_some(Limit::Of(pids)),
        hugepage_bytes: huge.into_iter().map(|(size, bytes)| (size, Limit::Of(bytes))).collect(),
        ..CgroupValues::default()
    }
}

/// The cgroup of what is reserved for (`enforceNodeAllocatable`: `system-reserved`, `kube-reserved`): no more
/// than that, or of the `compressible` ones CPU time alone.
pub fn reserved_values(reserved: &Amounts, compressible: bool) -> CgroupValues {
    let has = |name: &str| reserved.get(name).filter(|_| !compressible || name == "cpu");
    let limit = |name: &str| has(name).and_then(|bytes| u64::try_from(bytes.value()).ok()).map(Limit::Of);
    let huge = reserved.keys().filter_map(|name| Some((hugepage_size(name)?, limit(name)?)));
    CgroupValues {
        cpu_shares: has("cpu").and_then(|cpu| u64::try_from(cpu_shares(cpu.milli_value())).ok()),
        memory_bytes: limit("memory"),
        pids: limit("pid"),
        hugepage_bytes: huge.collect(),
        ..CgroupValues::default()
    }
}

/// What a runtime whose sandboxes are virtual machines sizes them by: the pod's resources, without its
/// overhead.
pub fn sandbox_resources(pod: &Pod, settings: &ResourceSettings) -> LinuxContainerResources {
    let (requests, limits) = (sums::pod_requests(pod.spec()), sums::pod_limits(pod.spec()));
    let memory = amount(&limits, "memory").value();
    cpu_and_memory(requests.get("cpu").copied(), limits.get("cpu").copied(), memory, settings)
}

/// The pod's overhead: what the sandbox itself takes.
pub fn sandbox_overhead(pod: &Pod, settings: &ResourceSettings) -> LinuxContainerResources {
    let overhead = sums::overhead(pod.spec());
    if overhead.is_empty() {
        return LinuxContainerResources::default();
    }
    let cpu = Some(amount(&overhead, "cpu"));
    cpu_and_memory(cpu, cpu, amount(&overhead, "memory").value(), settings)
}

#[cfg(test)]
#[path = "pod_cgroup_tests.rs"]
mod tests;
