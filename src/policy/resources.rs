//! A container's resources in the kernel's units. The conversions are kubelet's
//! (pkg/kubelet/cm/helpers_linux.go, pkg/kubelet/qos/policy.go).

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Pod},
    apimachinery::pkg::api::resource::Quantity as ApiQuantity,
};

use super::qos::{QosClass, qos_class};
use crate::api::{PodExt, cri::LinuxContainerResources, quantity::Quantity};

const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;
const SHARES_PER_CPU: i64 = 1024;
const MIN_QUOTA_MICROS: i64 = 1000;
/// Containers of a Guaranteed pod, and of a node-critical one.
const GUARANTEED_OOM_SCORE: i64 = -997;
const BEST_EFFORT_OOM_SCORE: i64 = 1000;
/// Priority from which a pod is node-critical (`system-node-critical` is 2000001000).
const NODE_CRITICAL_PRIORITY: i32 = 2_000_001_000;

/// The node's facts and settings that resources depend on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ResourceSettings {
    /// The node's memory in bytes.
    pub node_memory_bytes: i64,
    /// `cpuCFSQuota`: whether CPU limits are enforced.
    pub cpu_cfs_quota: bool,
    /// `cpuCFSQuotaPeriod` in microseconds.
    pub cpu_cfs_period_micros: i64,
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

fn milli(quantity: Option<&ApiQuantity>) -> i64 {
    quantity.and_then(|q| Quantity::parse(&q.0).ok()).map_or(0, Quantity::milli_value)
}

fn bytes(quantity: Option<&ApiQuantity>) -> i64 {
    quantity.and_then(|q| Quantity::parse(&q.0).ok()).map_or(0, Quantity::value)
}

/// How willingly the kernel kills the container when memory runs out: -997 for Guaranteed and node-critical
/// pods, 1000 for BestEffort, and between 3 and 999 for Burstable by its share of the node's memory.
pub fn oom_score_adj(pod: &Pod, container: &Container, settings: &ResourceSettings) -> i64 {
    if pod.spec().priority.is_some_and(|priority| priority >= NODE_CRITICAL_PRIORITY) {
        return GUARANTEED_OOM_SCORE;
    }
    match qos_class(pod) {
        QosClass::Guaranteed => GUARANTEED_OOM_SCORE,
        QosClass::BestEffort => BEST_EFFORT_OOM_SCORE,
        QosClass::Burstable => {
            let resources = container.resources.as_ref();
            let request = bytes(amount(resources.and_then(|r| r.requests.as_ref()), "memory"));
            let share = i128::from(request) * 1000 / i128::from(settings.node_memory_bytes.max(1));
            let score = i64::try_from(1000 - share).unwrap_or(0);
            // Below 3 are Guaranteed pods; 1000 is BestEffort.
            score.clamp(1000 + GUARANTEED_OOM_SCORE, BEST_EFFORT_OOM_SCORE - 1)
        }
    }
}

/// What the runtime is asked to set on a container's cgroup.
pub fn linux_resources(
    pod: &Pod,
    container: &Container,
    settings: &ResourceSettings,
) -> LinuxContainerResources {
    let resources = container.resources.as_ref();
    let requests = resources.and_then(|r| r.requests.as_ref());
    let limits = resources.and_then(|r| r.limits.as_ref());
    // Without a request the limit stands for it.
    let cpu_request = amount(requests, "cpu").or_else(|| amount(limits, "cpu"));
    let mut linux = LinuxContainerResources {
        cpu_shares: cpu_shares(milli(cpu_request)),
        memory_limit_in_bytes: bytes(amount(limits, "memory")),
        oom_score_adj: oom_score_adj(pod, container, settings),
        ..LinuxContainerResources::default()
    };
    if settings.cpu_cfs_quota {
        linux.cpu_quota = cpu_quota(milli(amount(limits, "cpu")), settings.cpu_cfs_period_micros);
        linux.cpu_period = settings.cpu_cfs_period_micros;
    }
    linux
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ResourceRequirements;
    use proptest::prelude::*;

    use super::*;
    use crate::policy::testing;

    const SETTINGS: ResourceSettings =
        ResourceSettings { node_memory_bytes: 1 << 30, cpu_cfs_quota: true, cpu_cfs_period_micros: 100_000 };

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
        linux_resources(pod, &pod.spec().containers[0], &SETTINGS)
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
        let mut critical = testing::pod(&["a"]);
        critical.spec.as_mut().unwrap().priority = Some(NODE_CRITICAL_PRIORITY);
        assert_eq!(of(&critical).oom_score_adj, -997);
    }

    #[test]
    fn no_quota_where_it_is_switched_off() {
        let pod = with(&[], &[("cpu", "500m")]);
        let settings = ResourceSettings { cpu_cfs_quota: false, ..SETTINGS };
        let linux = linux_resources(&pod, &pod.spec().containers[0], &settings);
        assert_eq!((linux.cpu_quota, linux.cpu_period), (0, 0));
    }

    proptest! {
        #[test]
        fn conversions_stay_in_the_kernels_range(cpu in any::<i64>(), memory in 0i64..=i64::MAX) {
            prop_assert!((MIN_SHARES..=MAX_SHARES).contains(&cpu_shares(cpu)));
            let quota = cpu_quota(cpu, 100_000);
            prop_assert!(quota == 0 || quota >= MIN_QUOTA_MICROS);
            let pod = with(&[("memory", &memory.to_string())], &[]);
            let score = oom_score_adj(&pod, &pod.spec().containers[0], &SETTINGS);
            prop_assert!((3..=1000).contains(&score));
        }
    }
}
