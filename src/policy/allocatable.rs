//! What of the node is for pods: its capacity without what is reserved, and without what eviction is to keep
//! free (kubelet's pkg/kubelet/cm/node_container_manager_linux.go). A container without a limit is told this
//! as its limit.

use std::collections::BTreeMap;

use crate::api::{cpu_list, quantity::Quantity};

/// Amounts of the resources that a container can be told of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeResources {
    /// CPU in thousandths.
    pub milli_cpu: i64,
    /// Memory in bytes.
    pub memory_bytes: i64,
    /// The disk that holds the agent's folder, in bytes.
    pub ephemeral_storage_bytes: i64,
}

/// What the configuration takes away from pods.
#[derive(Debug, Clone, Copy)]
pub struct Reservations<'a> {
    /// `kubeReserved`: amounts by resource.
    pub kube: &'a BTreeMap<String, String>,
    /// `systemReserved`: the same.
    pub system: &'a BTreeMap<String, String>,
    /// `reservedSystemCPUs`, which stands for the CPU of both; empty if not set.
    pub system_cpus: &'a str,
    /// Memory set aside for huge pages, in bytes: it is nobody's as memory.
    pub hugepage_bytes: i64,
    /// `evictionHard`: thresholds by signal, amounts or percentages.
    pub eviction_hard: &'a BTreeMap<String, String>,
}

/// The capacity without the reservations, never less than nothing.
pub fn allocatable(capacity: NodeResources, reserved: &Reservations<'_>) -> NodeResources {
    let amounts = |name: &str| -> Vec<Quantity> {
        let texts = [reserved.kube, reserved.system].into_iter().filter_map(|map| map.get(name));
        texts.filter_map(|text| Quantity::parse(text).ok()).collect()
    };
    let bytes = |name: &str| -> i64 { amounts(name).into_iter().map(Quantity::value).sum() };
    let milli_cpu = match cpu_list::count(reserved.system_cpus).filter(|cpus| *cpus > 0) {
        Some(cpus) => cpus.saturating_mul(1000),
        None => amounts("cpu").into_iter().map(Quantity::milli_value).sum(),
    };
    let kept_free = |signal: &str, of: i64| threshold(reserved.eviction_hard.get(signal), of);
    let (memory, disk) = (capacity.memory_bytes, capacity.ephemeral_storage_bytes);
    let left = |of: i64, taken: i64| of.saturating_sub(taken).max(0);
    let memory_taken = [bytes("memory"), kept_free("memory.available", memory), reserved.hugepage_bytes];
    NodeResources {
        milli_cpu: left(capacity.milli_cpu, milli_cpu),
        memory_bytes: left(memory, memory_taken.into_iter().fold(0, i64::saturating_add)),
        ephemeral_storage_bytes: left(
            disk,
            bytes("ephemeral-storage").saturating_add(kept_free("nodefs.available", disk)),
        ),
    }
}

/// A threshold's amount; of a percentage, the share of the capacity.
#[allow(clippy::cast_possible_truncation, reason = "a share of a capacity is smaller than it")]
fn threshold(text: Option<&String>, capacity: i64) -> i64 {
    let Some(text) = text else { return 0 };
    match text.strip_suffix('%') {
        Some(percent) => {
            let share = percent.trim().parse::<f64>().ok().filter(|p| (0.0..=100.0).contains(p));
            share.map_or(0, |percent| (capacity as f64 * percent / 100.0) as i64)
        }
        None => Quantity::parse(text).map_or(0, Quantity::value),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CAPACITY: NodeResources =
        NodeResources { milli_cpu: 4000, memory_bytes: 8 << 30, ephemeral_storage_bytes: 100_000 };

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn of(
        kube: &[(&str, &str)],
        system: &[(&str, &str)],
        cpus: &str,
        hard: &[(&str, &str)],
    ) -> NodeResources {
        let (kube, system, eviction_hard) = (map(kube), map(system), map(hard));
        let reserved = Reservations {
            kube: &kube,
            system: &system,
            system_cpus: cpus,
            hugepage_bytes: 1 << 20,
            eviction_hard: &eviction_hard,
        };
        allocatable(CAPACITY, &reserved)
    }

    #[test]
    fn reservations_and_eviction_are_taken_off() {
        assert_eq!(
            of(&[], &[], "", &[]),
            NodeResources { memory_bytes: (8 << 30) - (1 << 20), ..CAPACITY },
            "huge pages alone"
        );
        let hard = [("memory.available", "100Mi"), ("nodefs.available", "10%"), ("imagefs.available", "15%")];
        let left = of(
            &[("cpu", "500m"), ("memory", "1Gi")],
            &[("cpu", "1"), ("ephemeral-storage", "1k")],
            "",
            &hard,
        );
        assert_eq!(left.milli_cpu, 2500);
        assert_eq!(left.memory_bytes, (7 << 30) - (101 << 20));
        assert_eq!(left.ephemeral_storage_bytes, 100_000 - 1000 - 10_000);
    }

    #[test]
    fn reserved_cpus_stand_for_the_amounts() {
        assert_eq!(of(&[("cpu", "3")], &[("cpu", "3")], "0,2-3", &[]).milli_cpu, 1000);
    }

    proptest! {
        #[test]
        fn never_less_than_nothing_nor_more_than_there_is(
            memory in 0i64..1 << 40, percent in 0u32..=100, cpu in 0u32..64,
        ) {
            let left = of(
                &[("memory", &memory.to_string()), ("cpu", &cpu.to_string())],
                &[],
                "",
                &[("memory.available", &format!("{percent}%"))],
            );
            prop_assert!((0..=CAPACITY.memory_bytes).contains(&left.memory_bytes));
            prop_assert!((0..=CAPACITY.milli_cpu).contains(&left.milli_cpu));
        }
    }
}
