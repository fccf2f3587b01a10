//! A container's resources in the kernel's units. The conversions are kubelet's
//! (pkg/kubelet/cm/helpers_linux.go, pkg/kubelet/qos/policy.go,
//! pkg/kubelet/kuberuntime/kuberuntime_container_linux.go).

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Pod},
    apimachinery::pkg::api::resource::Quantity as ApiQuantity,
};

use super::{
    qos::{QosClass, qos_class},
    swap,
};
use crate::api::{
    ContainerKind, PodExt,
    cgroup::hugepage_size_name,
    cri::{HugepageLimit, LinuxContainerResources},
    pod::init_kind,
    pod_resources::{self, Side, is_hugepages},
    quantity::Quantity,
};

const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const SHARES_PER_CPU: i64 = 1024;
const MIN_QUOTA_MICROS: i64 = 1000;
/// No limit, where one may have been.
const UNLIMITED: i64 = -1;
/// Containers of a Guaranteed pod, and of a node-critical one.
const GUARANTEED_OOM_SCORE: i64 = -997;
const BEST_EFFORT_OOM_SCORE: i64 = 1000;

/// The node's facts and settings that resources depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceSettings {
    /// The node's memory in bytes.
    pub node_memory_bytes: i64,
    /// The node's swap in bytes.
    pub node_swap_bytes: i64,
    /// `cpuCFSQuota`: whether CPU limits are enforced.
    pub cpu_cfs_quota: bool,
    /// `cpuCFSQuotaPeriod` in microseconds.
    pub cpu_cfs_period_micros: i64,
    /// Whether cgroups are v2 alone.
    pub cgroup_v2: bool,
    /// Whether the kernel can limit the swap of a cgroup.
    pub swap_controller: bool,
    /// `memorySwap.swapBehavior` is `LimitedSwap`.
    pub limited_swap: bool,
    /// `singleProcessOOMKill`: absent is kubelet's default, by the cgroup version.
    pub single_process_oom_kill: Option<bool>,
    /// Sizes of huge pages that the kernel knows, bytes.
    pub hugepage_sizes: Vec<u64>,
    /// `podPidsLimit`: most processes and threads of a pod.
    pub pod_pids_limit: Option<u64>,
}

/// CPU shares for a request in thousandths of a CPU: 1024 a CPU, from 2 to 262144.
pub fn cpu_shares(milli_cpu: i64) -> i64 {
    if milli_cpu <= 0 {
        return MIN_SHARES;
    }
    (milli_cpu.saturating_mul(SHARES_PER_CPU) / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

/// CFS quota in microseconds for a limit in thousandths of a CPU; at least 1000, and 0 for no limit.
pub fn cpu_quota(milli_cpu: i64, period_micros: i64) -> i64 {
    if milli_cpu <= 0 {
        return 0;
    }
    (milli_cpu.saturating_mul(period_micros) / 1000).max(MIN_QUOTA_MICROS)
}

/// A resource's amount in one of the two maps.
fn amount<'a>(map: Option<&'a BTreeMap<String, ApiQuantity>>, name: &str) -> Option<&'a ApiQuantity> {
    map?.get(name)
}

fn quantity(text: Option<&ApiQuantity>) -> Option<Quantity> {
    text.and_then(|text| Quantity::parse(&text.0).ok())
}

fn bytes(text: Option<&ApiQuantity>) -> i64 {
    quantity(text).map_or(0, Quantity::value)
}

/// The bytes of memory that a container requests.
fn memory_request(container: &Container) -> i64 {
    bytes(amount(container.resources.as_ref().and_then(|r| r.requests.as_ref()), "memory"))
}

/// How willingly the kernel kills the container when memory runs out: -997 for Guaranteed and node-critical
/// pods, 1000 for BestEffort, and between 3 and 999 for Burstable by its share of the node's memory. What a
/// pod requests for itself beyond its containers counts for each of them alike, and a sidecar is not killed
/// before the container that it serves.
pub fn oom_score_adj(pod: &Pod, container: &Container, settings: &ResourceSettings) -> i64 {
    if is_node_critical(pod) {
        return GUARANTEED_OOM_SCORE;
    }
    match qos_class(pod) {
        QosClass::Guaranteed => GUARANTEED_OOM_SCORE,
        QosClass::BestEffort => BEST_EFFORT_OOM_SCORE,
        QosClass::Burstable => {
            let beyond = request_beyond_containers(pod);
            let score_of = |request: i64| {
                let request = i128::from(request) + i128::from(beyond);
                let share = request * 1000 / i128::from(settings.node_memory_bytes.max(1));
                i64::try_from(1000 - share).unwrap_or(0)
            };
            let mut score = score_of(memory_request(container));
            if is_sidecar(pod, container) {
                let served = pod.spec().containers.iter().map(memory_request).min().unwrap_or(0);
                score = score.min(score_of(served));
            }
            // Below 3 are Guaranteed pods; 1000 is BestEffort.
            score.clamp(1000 + GUARANTEED_OOM_SCORE, BEST_EFFORT_OOM_SCORE - 1)
        }
    }
}

fn is_sidecar(pod: &Pod, container: &Container) -> bool {
    let mut init = pod.spec().init_containers.iter().flatten();
    init.any(|c| c.name == container.name && init_kind(c) == ContainerKind::Sidecar)
}

/// Each container's part of the memory that the pod requests for itself and its containers do not.
fn request_beyond_containers(pod: &Pod) -> i64 {
    let spec = pod.spec();
    let own = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    let own = bytes(amount(own, "memory"));
    if own == 0 {
        return 0;
    }
    let containers = pod_resources::of_containers(spec, Side::Requests);
    let left = own.saturating_sub(pod_resources::amount(&containers, "memory").value());
    let count = spec.containers.len() + spec.init_containers.as_ref().map_or(0, Vec::len);
    left / i64::try_from(count).unwrap_or(i64::MAX).max(1)
}

/// CPU and memory as the runtime is told. Without a CPU request the limit stands for it.
pub fn cpu_and_memory(
    cpu_request: Option<Quantity>,
    cpu_limit: Option<Quantity>,
    memory_limit: i64,
    settings: &ResourceSettings,
) -> LinuxContainerResources {
    let in_milli = |quantity: Option<Quantity>| quantity.map_or(0, Quantity::milli_value);
    let mut linux = LinuxContainerResources {
        cpu_shares: cpu_shares(in_milli(cpu_request.or(cpu_limit))),
        memory_limit_in_bytes: memory_limit,
        ..LinuxContainerResources::default()
    };
    if settings.cpu_cfs_quota {
        linux.cpu_quota = cpu_quota(in_milli(cpu_limit), settings.cpu_cfs_period_micros);
        linux.cpu_period = settings.cpu_cfs_period_micros;
    }
    // With v2 the kernel kills a container whole, unless told otherwise.
    if settings.cgroup_v2 && !settings.single_process_oom_kill.unwrap_or(false) {
        linux.unified.insert("memory.oom.group".to_owned(), "1".to_owned());
    }
    linux
}

/// What the runtime is asked to set on a container's cgroup. A container without a limit of its own has the
/// pod's.
pub fn linux_resources(
    pod: &Pod,
    container: &Container,
    settings: &ResourceSettings,
) -> LinuxContainerResources {
    let resources = container.resources.as_ref();
    let requests = resources.and_then(|r| r.requests.as_ref());
    let limits = resources.and_then(|r| r.limits.as_ref());
    let pod_limits = pod.spec().resources.as_ref().and_then(|r| r.limits.as_ref());
    let limit = |name: &str| {
        let own = quantity(amount(limits, name)).filter(|limit| !limit.is_zero());
        own.or_else(|| quantity(amount(pod_limits, name)))
    };
    let memory_limit = limit("memory").map_or(0, Quantity::value);
    let mut linux = cpu_and_memory(quantity(amount(requests, "cpu")), limit("cpu"), memory_limit, settings);
    linux.oom_score_adj = oom_score_adj(pod, container, settings);
    linux.hugepage_limits = hugepage_limits(pod_limits, limits, settings);
    swap::configure(&mut linux, pod, container, settings);
    linux
}

/// The same for a container that runs: a limit that is no more is told as -1, for 0 leaves it as it was.
pub fn update_resources(
    pod: &Pod,
    container: &Container,
    settings: &ResourceSettings,
) -> LinuxContainerResources {
    let mut linux = linux_resources(pod, container, settings);
    if linux.cpu_period > 0 && linux.cpu_quota == 0 {
        linux.cpu_quota = UNLIMITED;
    }
    if linux.memory_limit_in_bytes == 0 {
        linux.memory_limit_in_bytes = UNLIMITED;
        if settings.swap_controller && !settings.cgroup_v2 {
            linux.memory_swap_limit_in_bytes = UNLIMITED;
        }
    }
    linux
}

/// A limit for each size of huge pages that the kernel knows: none where nothing is asked for.
fn hugepage_limits(
    of_pod: Option<&BTreeMap<String, ApiQuantity>>,
    of_container: Option<&BTreeMap<String, ApiQuantity>>,
    settings: &ResourceSettings,
) -> Vec<HugepageLimit> {
    let mut asked = BTreeMap::new();
    for (name, text) in of_pod.into_iter().flatten().chain(of_container.into_iter().flatten()) {
        if let Some(size) = hugepage_size(name) {
            asked.insert(size, u64::try_from(bytes(Some(text))).unwrap_or(0));
        }
    }
    settings
        .hugepage_sizes
        .iter()
        .map(|size| HugepageLimit {
            page_size: hugepage_size_name(*size),
            limit: asked.get(size).copied().unwrap_or(0),
        })
        .collect()
}

/// The size in bytes that a resource's name tells: `hugepages-2Mi`.
pub fn hugepage_size(name: &str) -> Option<u64> {
    let text = name.strip_prefix("hugepages-").filter(|_| is_hugepages(name))?;
    u64::try_from(Quantity::parse(text).ok()?.value()).ok()
}

/// Whether the node itself depends on the pod: a critical one of that class. Its priority alone does not
/// tell, as with kubelet.
fn is_node_critical(pod: &Pod) -> bool {
    is_critical(pod) && pod.spec().priority_class_name.as_deref() == Some("system-node-critical")
}

/// Whether the pod is one that the node cannot do without: kubelet's critical pods.
pub fn is_critical(pod: &Pod) -> bool {
    /// `system-cluster-critical`.
    const CLUSTER_CRITICAL_PRIORITY: i32 = 2_000_000_000;
    pod.is_static() || pod.spec().priority.is_some_and(|priority| priority >= CLUSTER_CRITICAL_PRIORITY)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ResourceRequirements;
    use proptest::prelude::*;

    use super::*;
    use crate::policy::testing;

    fn settings() -> ResourceSettings {
        ResourceSettings {
            node_memory_bytes: 1 << 30,
            cpu_cfs_quota: true,
            cpu_cfs_period_micros: 100_000,
            ..ResourceSettings::default()
        }
    }

    fn with(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Pod {
        let map = |pairs: &[(&str, &str)]| {
            Some(pairs.iter().map(|(k, v)| ((*k).to_owned(), ApiQuantity((*v).to_owned()))).collect())
        };
        let mut pod = testing::pod(&["a"]);
        pod.spec.as_mut().unwrap().containers[0].resources = Some(ResourceRequirements {
            requests: map(requests),
            limits: map(limits),
            ..ResourceRequirements::default()
        });
        pod
    }

    fn of(pod: &Pod) -> LinuxContainerResources {
        linux_resources(pod, &pod.spec().containers[0], &settings())
    }

    #[test]
    fn requests_and_limits_become_kernel_units() {
        let linux = of(&with(&[("cpu", "250m"), ("memory", "256Mi")], &[("cpu", "1"), ("memory", "512Mi")]));
        assert_eq!((linux.cpu_shares, linux.cpu_quota, linux.cpu_period), (256, 100_000, 100_000));
        assert_eq!(linux.memory_limit_in_bytes, 512 << 20);
        assert_eq!(linux.oom_score_adj, 750);
    }

    #[test]
    fn a_limit_alone_is_the_request_too() {
        let linux = of(&with(&[], &[("cpu", "500m")]));
        assert_eq!((linux.cpu_shares, linux.cpu_quota), (512, 50_000));
    }

    #[test]
    fn nothing_asked_is_best_effort() {
        let linux = of(&testing::pod(&["a"]));
        assert_eq!((linux.cpu_shares, linux.cpu_quota, linux.memory_limit_in_bytes), (2, 0, 0));
        assert_eq!(linux.oom_score_adj, 1000);
    }

    #[test]
    fn guaranteed_and_critical_pods_are_killed_last() {
        let all = [("cpu", "1"), ("memory", "1Gi")];
        assert_eq!(of(&with(&all, &all)).oom_score_adj, -997);
        let with_class = |class: Option<&str>, priority: i32, is_static: bool| {
            let mut pod = testing::pod(&["a"]);
            let source = if is_static { "file" } else { "api" };
            let annotations = pod.metadata.annotations.get_or_insert_default();
            annotations.insert("kubernetes.io/config.source".to_owned(), source.to_owned());
            let spec = pod.spec.as_mut().unwrap();
            (spec.priority, spec.priority_class_name) = (Some(priority), class.map(str::to_owned));
            of(&pod).oom_score_adj
        };
        let (node, cluster) = (Some("system-node-critical"), Some("system-cluster-critical"));
        for (class, priority, is_static, score) in [
            (node, 2_000_001_000, false, -997),
            (node, 2_000_000_000, false, -997),
            (node, 0, true, -997),
            (node, 1_999_999_999, false, 1000),
            (None, 2_000_001_000, false, 1000),
            (None, 2_000_001_000, true, 1000),
            (cluster, 2_000_001_000, true, 1000),
        ] {
            let found = with_class(class, priority, is_static);
            assert_eq!(found, score, "{class:?}, priority {priority}, static: {is_static}");
        }
    }

    #[test]
    fn no_quota_where_it_is_switched_off() {
        let pod = with(&[], &[("cpu", "500m")]);
        let settings = ResourceSettings { cpu_cfs_quota: false, ..settings() };
        let linux = linux_resources(&pod, &pod.spec().containers[0], &settings);
        assert_eq!((linux.cpu_quota, linux.cpu_period), (0, 0));
    }

    #[test]
    fn a_limit_that_is_gone_is_told_to_what_runs() {
        let told = |limits: &[(&str, &str)], settings: &ResourceSettings| {
            let pod = with(&[("cpu", "50m")], limits);
            let linux = update_resources(&pod, &pod.spec().containers[0], settings);
            (linux.cpu_quota, linux.memory_limit_in_bytes, linux.memory_swap_limit_in_bytes)
        };
        let limited = [("cpu", "500m"), ("memory", "64Mi")];
        assert_eq!(told(&limited, &settings()), (50_000, 64 << 20, 0));
        assert_eq!(told(&[], &settings()), (-1, -1, 0));
        let swapping = |cgroup_v2| ResourceSettings { swap_controller: true, cgroup_v2, ..settings() };
        assert_eq!(told(&limited, &swapping(false)), (50_000, 64 << 20, 64 << 20));
        assert_eq!(told(&[("cpu", "500m")], &swapping(false)), (50_000, -1, -1));
        assert_eq!(told(&[("memory", "64Mi")], &swapping(true)), (-1, 64 << 20, 0));
        // Quotas that nobody sets are nobody's to take away.
        let without = ResourceSettings { cpu_cfs_quota: false, ..settings() };
        assert_eq!(told(&limited, &without), (0, 64 << 20, 0));
    }

    proptest! {
        #[test]
        fn conversions_stay_in_the_kernels_range(cpu in any::<i64>(), memory in 0i64..=i64::MAX) {
            prop_assert!((MIN_SHARES..=MAX_SHARES).contains(&cpu_shares(cpu)));
            let quota = cpu_quota(cpu, 100_000);
            prop_assert!(quota == 0 || quota >= MIN_QUOTA_MICROS);
            let pod = with(&[("memory", &memory.to_string())], &[]);
            let score = oom_score_adj(&pod, &pod.spec().containers[0], &settings());
            prop_assert!((3..=1000).contains(&score));
        }
    }
}
