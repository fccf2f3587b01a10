//! Who gives way to a critical pod.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::policy::testing;

/// A pod of a name with these thousandths of a CPU and MiB of memory, limited to them where it is Guaranteed.
fn pod(name: &str, cpu: u32, memory: u32, guaranteed: bool) -> Arc<Pod> {
    let mut pod = testing::pod(&["a"]);
    pod.metadata.uid = Some(name.into());
    let mut amounts = serde_json::Map::new();
    if cpu > 0 {
        amounts.insert("cpu".into(), json!(format!("{cpu}m")));
    }
    if memory > 0 {
        amounts.insert("memory".into(), json!(format!("{memory}Mi")));
    }
    let mut resources = json!({ "requests": amounts });
    if guaranteed {
        resources["limits"] = json!(amounts);
    }
    pod.spec.as_mut().unwrap().containers[0].resources = Some(serde_json::from_value(resources).unwrap());
    Arc::new(pod)
}

fn with_priority(pod: &Arc<Pod>, priority: i32) -> Arc<Pod> {
    let mut pod = Pod::clone(pod);
    pod.spec.as_mut().unwrap().priority = Some(priority);
    Arc::new(pod)
}

fn critical() -> Arc<Pod> {
    with_priority(&pod("critical", 0, 0, false), 2_000_001_000)
}

fn missing(cpu: i64, memory: i64, pods: i64) -> Vec<Missing> {
    [("cpu", cpu), ("memory", memory << 20), (PODS, pods)]
        .into_iter()
        .filter(|(_, amount)| *amount > 0)
        .map(|(resource, amount)| Missing { resource: resource.into(), amount })
        .collect()
}

fn named(others: &[Arc<Pod>], missing: &[Missing]) -> Vec<String> {
    let found = victims(&critical(), others, missing).unwrap();
    let mut names: Vec<_> = found.iter().map(|pod| pod.uid().to_string()).collect();
    names.sort();
    names
}

#[test]
fn the_better_class_is_spared() {
    let all = [pod("be", 0, 0, false), pod("bu", 300, 0, false), pod("gu", 600, 100, true)];
    for (missing, expected) in [
        (missing(0, 0, 0), &[][..]),
        (missing(0, 0, 1), &["be"]),
        (missing(200, 0, 0), &["bu"]),
        (missing(300, 0, 1), &["bu"]),
        // What the Burstable ones hold is not enough: then they are not needed either.
        (missing(400, 0, 0), &["gu"]),
        (missing(0, 10, 0), &["gu"]),
        (missing(700, 0, 0), &["bu", "gu"]),
        (missing(100, 0, 3), &["be", "bu", "gu"]),
    ] {
        assert_eq!(named(&all, &missing), expected, "{missing:?}");
    }
    let unmet = victims(&critical(), &all, &missing(1000, 0, 0)).unwrap_err();
    assert_eq!(unmet, missing(100, 0, 0));
}

#[test]
fn few_and_small_ones_are_taken() {
    let all =
        [pod("a", 100, 0, false), pod("b", 250, 0, false), pod("c", 400, 0, false), pod("d", 300, 0, false)];
    assert_eq!(named(&all, &missing(250, 0, 0)), ["b"]);
    assert_eq!(named(&all, &missing(260, 0, 0)), ["d"]);
    // The nearest of them, `x`, is made up for by `y` and `z`, which it takes for the rest.
    let all = [pod("x", 60, 60, false), pod("y", 100, 0, false), pod("z", 0, 100, false)];
    assert_eq!(named(&all, &missing(100, 100, 0)), ["y", "z"]);
}

#[test]
fn critical_and_static_pods_stay_and_priorities_count() {
    let same = with_priority(&pod("same", 500, 0, false), 2_000_001_000);
    let above = with_priority(&pod("above", 500, 0, false), 2_000_001_001);
    let below = with_priority(&pod("below", 500, 0, false), 2_000_000_000);
    let mut of_a_manifest = Pod::clone(&pod("static", 500, 0, false));
    of_a_manifest.metadata.annotations =
        Some([(crate::api::labels::CONFIG_SOURCE.to_owned(), "file".to_owned())].into());
    let all = [same, above, Arc::new(of_a_manifest)];
    assert_eq!(victims(&critical(), &all, &missing(1, 0, 0)).unwrap_err(), missing(1, 0, 0));
    // As with kubelet, one of two critical pods gives way by its priority.
    assert_eq!(named(&[below], &missing(1, 0, 0)), ["below"]);
}

proptest! {
    /// No pod that counts as much is ended, enough comes free, and every one of the victims is needed.
    #[test]
    fn enough_and_none_too_many(
        pods in prop::collection::vec((0u32..500, 0u32..500, any::<bool>(), 0u8..6), 0..12),
        cpu in 0i64..1500, memory in 0i64..1500, count in 0i64..4,
    ) {
        let others: Vec<_> = pods
            .iter()
            .enumerate()
            .map(|(place, (cpu, memory, guaranteed, priority))| {
                let one = pod(&format!("p{place}"), *cpu, *memory, *guaranteed);
                let rank = [None, None, Some(0), Some(1000), Some(2_000_001_000), Some(i32::MAX)][usize::from(*priority)];
                rank.map_or(Arc::clone(&one), |rank| with_priority(&one, rank))
            })
            .collect();
        let missing = missing(cpu, memory, count);
        let lower: Vec<_> = others.iter().filter(|p| p.spec().priority.unwrap_or(0) < 2_000_001_000).cloned().collect();
        let meets = |gone: &[Arc<Pod>]| missing.iter().all(|one| {
            let freed: i64 = gone.iter().map(|pod| {
                if one.resource == PODS { 1 } else { amount(&pod_requests_with_overhead(pod.spec()), &one.resource) }
            }).sum();
            freed >= one.amount
        });
        match victims(&critical(), &others, &missing) {
            Err(unmet) => prop_assert!(!meets(&lower) && !unmet.is_empty()),
            Ok(chosen) => {
                prop_assert!(chosen.iter().all(|one| lower.contains(one)));
                prop_assert!(meets(&chosen));
                for spared in 0..chosen.len() {
                    let mut fewer = chosen.clone();
                    fewer.remove(spared);
                    prop_assert!(!meets(&fewer), "one victim is not needed");
                }
            }
        }
    }
}
