//! The values of pods' cgroups, from specifications.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::api::quantity::Quantity;

fn settings() -> ResourceSettings {
    ResourceSettings {
        node_memory_bytes: 8 << 30,
        cpu_cfs_quota: true,
        cpu_cfs_period_micros: 100_000,
        hugepage_sizes: vec![2 << 20, 1 << 30],
        pod_pids_limit: Some(500),
        ..ResourceSettings::default()
    }
}

fn pod(spec: Value) -> Pod {
    let mut pod = json!({"metadata": {"name": "p", "uid": "u"}});
    pod["spec"] = spec;
    serde_json::from_value(pod).unwrap()
}

fn container(name: &str, requests: Value, limits: Value) -> Value {
    let mut container = json!({"name": name});
    container["resources"]["requests"] = requests;
    container["resources"]["limits"] = limits;
    container
}

/// Shares, quota and memory.
fn short(values: &CgroupValues) -> (u64, Option<u64>, Option<u64>) {
    let of = |limit: Option<Limit>| match limit {
        Some(Limit::Of(value)) => Some(value),
        Some(Limit::Unlimited) => None,
        None => panic!("left as it is"),
    };
    (values.cpu_shares.unwrap(), of(values.cpu_quota_micros), of(values.memory_bytes))
}

fn values(spec: Value) -> (u64, Option<u64>, Option<u64>) {
    short(&pod_values(&pod(spec), &settings()))
}

#[test]
fn a_pod_has_the_sum_of_its_containers() {
    let full = json!({"cpu": "500m", "memory": "64Mi"});
    let guaranteed = json!([container("a", full.clone(), full.clone()), container("b", full.clone(), full)]);
    assert_eq!(values(json!({"containers": guaranteed})), (1024, Some(100_000), Some(128 << 20)));
    assert_eq!(values(json!({"containers": [{"name": "a"}]})), (2, None, None));
}

#[test]
fn what_one_container_leaves_open_is_open_for_the_pod() {
    let a = container("a", json!({"cpu": "250m"}), json!({"cpu": "1", "memory": "64Mi"}));
    let b = container("b", json!({}), json!({"memory": "64Mi"}));
    assert_eq!(values(json!({"containers": [a, b]})), (256, None, Some(128 << 20)));
    // An init container counts as well.
    let open = json!({"containers": [a], "initContainers": [{"name": "i"}]});
    assert_eq!(values(open), (256, None, None));
    // The pod's own limit closes it.
    let own = json!({"limits": {"cpu": "2"}, "requests": {"cpu": "2"}});
    assert_eq!(
        values(json!({"containers": [a, b], "resources": own})),
        (2048, Some(200_000), Some(128 << 20))
    );
}

#[test]
fn the_overhead_is_the_pods() {
    let full = json!({"cpu": "500m", "memory": "64Mi"});
    let with = json!({"containers": [container("a", full.clone(), full)],
        "overhead": {"cpu": "250m", "memory": "16Mi"}});
    assert_eq!(values(with.clone()), (768, Some(75_000), Some(80 << 20)));
    let with = pod(with);
    // The sandbox is told both apart.
    let (own, over) = (sandbox_resources(&with, &settings()), sandbox_overhead(&with, &settings()));
    assert_eq!((own.cpu_shares, own.cpu_quota, own.memory_limit_in_bytes), (512, 50_000, 64 << 20));
    assert_eq!((over.cpu_shares, over.cpu_quota, over.memory_limit_in_bytes), (256, 25_000, 16 << 20));
    let none = pod(json!({"containers": [{"name": "a"}]}));
    assert_eq!(sandbox_overhead(&none, &settings()), LinuxContainerResources::default());
}

#[test]
fn switched_off_quotas_and_pids() {
    let full = json!({"cpu": "500m", "memory": "64Mi"});
    let pod = pod(json!({"containers": [container("a", full.clone(), full)]}));
    let mut settings = settings();
    assert_eq!(pod_values(&pod, &settings).pids, Some(Limit::Of(500)));
    settings.cpu_cfs_quota = false;
    settings.pod_pids_limit = None;
    let values = pod_values(&pod, &settings);
    assert_eq!((values.cpu_quota_micros, values.pids), (Some(Limit::Unlimited), Some(Limit::Unlimited)));
}

#[test]
fn huge_pages_are_denied_unless_asked_for() {
    let huge = json!({"hugepages-2Mi": "8Mi", "memory": "1Mi"});
    let pod = pod(json!({"containers": [container("a", huge.clone(), huge)]}));
    let values = pod_values(&pod, &settings());
    assert_eq!(values.hugepage_bytes, [(2 << 20, Limit::Of(8 << 20)), (1 << 30, Limit::Of(0))].into());
    let classes = best_effort_values(&settings());
    assert!(classes.hugepage_bytes.values().all(|limit| *limit == Limit::Unlimited));
}

#[test]
fn the_classes_share_by_requests() {
    let burstable = |cpu: &str| pod(json!({"containers": [container("a", json!({"cpu": cpu}), json!({}))]}));
    let full = json!({"cpu": "4", "memory": "1Gi"});
    let guaranteed = pod(json!({"containers": [container("a", full.clone(), full)]}));
    let pods = [burstable("500m"), guaranteed, burstable("1")];
    assert_eq!(burstable_values(&pods, &settings()).cpu_shares, Some(1536));
    assert_eq!(burstable_values([], &settings()).cpu_shares, Some(2));
    assert_eq!(best_effort_values(&settings()).cpu_shares, Some(2));
    // What an administrator set on a class otherwise stays.
    assert_eq!(best_effort_values(&settings()).memory_bytes, None);
}

#[test]
fn all_pods_have_what_is_not_reserved() {
    let quantity = |text: &str| Quantity::parse(text).unwrap();
    let node = NodeCapacity {
        cpus: 4,
        pids: 32_768,
        hugepage_bytes: [(2 << 20, 1 << 30)].into(),
        reserved: [
            ("cpu".to_owned(), quantity("500m")),
            ("memory".to_owned(), quantity("1Gi")),
            ("pid".to_owned(), quantity("768")),
        ]
        .into(),
    };
    let values = all_pods_values(&node, &settings());
    assert_eq!(values.cpu_shares, Some(3584));
    // Huge pages are no less of it.
    assert_eq!(values.memory_bytes, Some(Limit::Of(7 << 30)));
    assert_eq!(values.pids, Some(Limit::Of(32_000)));
    assert_eq!(values.hugepage_bytes, [(2 << 20, Limit::Of(1 << 30))].into());
    assert_eq!(values.cpu_quota_micros, None);
}

#[test]
fn what_is_reserved_for_is_held_to_it() {
    let reserved: Amounts = [("cpu", "500m"), ("memory", "1Gi"), ("ephemeral-storage", "1Gi")]
        .map(|(name, text)| (name.to_owned(), Quantity::parse(text).unwrap()))
        .into();
    let values = reserved_values(&reserved, false);
    assert_eq!((values.cpu_shares, values.memory_bytes), (Some(512), Some(Limit::Of(1 << 30))));
    assert_eq!(values.pids, None);
    let only_cpu = CgroupValues { cpu_shares: Some(512), ..CgroupValues::default() };
    assert_eq!(reserved_values(&reserved, true), only_cpu);
}

proptest! {
    #[test]
    fn values_stay_in_the_kernels_range(requests in prop::collection::vec((any::<u32>(), any::<u32>()), 1..4)) {
        let containers: Vec<Value> = requests.iter().enumerate().map(|(n, (cpu, memory))| {
            let limits = json!({"cpu": format!("{cpu}m"), "memory": memory.to_string()});
            container(&format!("c{n}"), limits.clone(), limits)
        }).collect();
        let values = pod_values(&pod(json!({"containers": containers})), &settings());
        prop_assert!((2..=262_144).contains(&values.cpu_shares.unwrap()));
        if let Some(Limit::Of(quota)) = values.cpu_quota_micros {
            prop_assert!(quota >= 1000);
        }
    }
}
