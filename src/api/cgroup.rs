//! The values of a cgroup, as decisions give them and the kernel's edge writes them.

use std::collections::BTreeMap;

/// A bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// No bound.
    Unlimited,
    /// The most.
    Of(u64),
}

/// What is to be set on a cgroup. What is absent is left as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CgroupValues {
    /// The share of CPU time in v1's measure: 1024 a CPU, from 2 to 262144.
    pub cpu_shares: Option<u64>,
    /// CPU time for each period, microseconds.
    pub cpu_quota_micros: Option<Limit>,
    /// The period of the quota, microseconds.
    pub cpu_period_micros: Option<u64>,
    /// Memory in bytes.
    pub memory_bytes: Option<Limit>,
    /// Processes and threads.
    pub pids: Option<Limit>,
    /// Bytes of huge pages by the size of a page in bytes.
    pub hugepage_bytes: BTreeMap<u64, Limit>,
    /// Files of cgroup v2 that have no other name here, with their content. Nothing on v1.
    pub unified: BTreeMap<String, String>,
}

/// The kernel's name of a huge page size in bytes, as in `hugetlb.2MB.max`.
pub fn hugepage_size_name(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "KB")];
    let (unit, name) = UNITS.into_iter().find(|(unit, _)| bytes >= *unit).unwrap_or((1, "B"));
    format!("{}{name}", bytes / unit)
}

/// v2's weight, from 1 to 10000, for v1's share of CPU time: kubelet's line for its own cgroups.
pub fn cpu_weight(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + (shares - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{cpu_weight, hugepage_size_name};

    #[test]
    fn sizes_are_named_as_the_kernel_does() {
        for (bytes, name) in [(64 << 10, "64KB"), (2 << 20, "2MB"), (512 << 20, "512MB"), (1 << 30, "1GB")] {
            assert_eq!(hugepage_size_name(bytes), name);
        }
    }

    #[test]
    fn weights_of_known_shares() {
        for (shares, weight) in
            [(0, 1), (2, 1), (1024, 39), (4096, 157), (262_144, 10_000), (u64::MAX, 10_000)]
        {
            assert_eq!(cpu_weight(shares), weight, "{shares}");
        }
    }

    proptest! {
        #[test]
        fn weights_are_in_range_and_grow_with_shares(a in 0u64..300_000, b in 0u64..300_000) {
            let (low, high) = (cpu_weight(a.min(b)), cpu_weight(a.max(b)));
            prop_assert!((1..=10_000).contains(&low) && low <= high && high <= 10_000);
        }
    }
}
