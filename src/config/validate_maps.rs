//! Rules for reservations, eviction thresholds and CPU lists.

use std::collections::{BTreeMap, BTreeSet};

use crate::api::quantity::Quantity;
use crate::api::suggest::nearest;
use crate::api::sysctl;

use super::duration::GoDuration;
use super::keys::quoted;
use super::types::KubeletConfiguration;
use super::validate::Findings;

/// Signals that kubelet knows for eviction.
const SIGNALS: [&str; 10] = [
    "allocatableMemory.available",
    "containerfs.available",
    "containerfs.inodesFree",
    "imagefs.available",
    "imagefs.inodesFree",
    "memory.available",
    "nodefs.available",
    "nodefs.inodesFree",
    "pid.available",
    "allocatableNodeFs.available",
];

/// Resources that can be reserved.
const RESERVABLE: [&str; 4] = ["cpu", "memory", "ephemeral-storage", "pid"];

pub(super) fn validate(config: &KubeletConfiguration, out: &mut Findings) {
    enforcement(config, out);
    reservations(config, out);
    eviction(config, out);
    reserved_memory(config, out);
    sysctls(config, out);
}

/// Only what a namespace of the pod holds may be allowed: anything else is the host's.
fn sysctls(config: &KubeletConfiguration, out: &mut Findings) {
    const KEY: &str = "allowedUnsafeSysctls";
    for pattern in config.allowed_unsafe_sysctls.iter().flatten() {
        if !sysctl::is_pattern(pattern) {
            out.add(
                KEY,
                format!("{pattern:?} is no name of a kernel setting, nor a beginning with * behind"),
            );
            continue;
        }
        let dotted = sysctl::dotted(pattern);
        if sysctl::namespace(dotted.trim_end_matches('*')).is_none() {
            out.add(KEY, format!("{pattern:?} is not known to be namespaced: pods would change the host"));
        }
    }
}

fn enforcement(config: &KubeletConfiguration, out: &mut Findings) {
    const KEY: &str = "enforceNodeAllocatable";
    const LEVELS: [&str; 6] = [
        "none",
        "pods",
        "system-reserved",
        "system-reserved-compressible",
        "kube-reserved",
        "kube-reserved-compressible",
    ];
    let levels = config.enforce_node_allocatable.as_deref().unwrap_or(&[]);
    let mut seen = BTreeSet::new();
    for level in levels {
        if !seen.insert(level.as_str()) {
            out.add(KEY, format!("{level:?} is there twice"));
        } else if !LEVELS.contains(&level.as_str()) {
            out.add(KEY, format!("{level:?} is not one of {}", quoted(&LEVELS)));
        } else if level == "none" {
            if levels.len() > 1 {
                out.add(KEY, "\"none\" cannot be set beside others");
            }
        } else if config.cgroups_per_qos == Some(false) {
            out.add_beside(KEY, "cgroupsPerQOS", format!("{level:?} needs cgroupsPerQOS"));
        }
    }
    for (prefix, cgroup, key) in [
        ("system-reserved", &config.system_reserved_cgroup, "systemReservedCgroup"),
        ("kube-reserved", &config.kube_reserved_cgroup, "kubeReservedCgroup"),
    ] {
        let compressible = format!("{prefix}-compressible");
        let both = (seen.contains(prefix), seen.contains(compressible.as_str()));
        if both == (true, true) {
            out.add(KEY, format!("{prefix:?} and {compressible:?} cannot be set together"));
        }
        if both != (false, false) && cgroup.as_ref().is_none_or(String::is_empty) {
            out.add(KEY, format!("{prefix:?} needs {key}"));
        }
    }
}

fn reservations(config: &KubeletConfiguration, out: &mut Findings) {
    for (key, reserved) in
        [("systemReserved", &config.system_reserved), ("kubeReserved", &config.kube_reserved)]
    {
        for (resource, amount) in reserved.iter().flatten() {
            let key = format!("{key}.{resource}");
            if !RESERVABLE.contains(&resource.as_str()) && !resource.starts_with("hugepages-") {
                out.add(&key, format!("cannot be reserved; want {}", quoted(&RESERVABLE)));
            } else if Quantity::parse(amount).is_ok_and(|amount| amount < Quantity::ZERO) {
                out.add(&key, format!("{amount} is negative"));
            }
        }
    }
    for (resource, share) in config.qos_reserved.iter().flatten() {
        let key = format!("qosReserved.{resource}");
        if resource != "memory" {
            out.add(&key, "only memory can be reserved");
        } else if percent(share).is_none() {
            out.add(&key, format!("{share:?} is not a percentage from 0% to 100%"));
        }
    }
    let cpus = config.reserved_system_cpus.as_deref().unwrap_or("");
    if !cpus.is_empty() {
        if !is_cpu_list(cpus) {
            out.add("reservedSystemCPUs", format!("{cpus:?} is not a list of CPUs such as \"0-3,8\""));
        }
        for cgroup in [&config.system_reserved_cgroup, &config.kube_reserved_cgroup] {
            if cgroup.as_ref().is_some_and(|cgroup| !cgroup.is_empty()) {
                out.add(
                    "reservedSystemCPUs",
                    "cannot be set beside systemReservedCgroup or kubeReservedCgroup",
                );
            }
        }
    }
}

/// A percentage with its sign, from 0 to 100.
fn percent(text: &str) -> Option<f64> {
    text.strip_suffix('%')?.parse().ok().filter(|share| (0.0..=100.0).contains(share))
}

fn is_cpu_list(text: &str) -> bool {
    text.split(',').all(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        matches!((first.parse::<u32>(), last.parse::<u32>()), (Ok(first), Ok(last)) if first <= last)
    })
}

fn eviction(config: &KubeletConfiguration, out: &mut Findings) {
    let maps: [(&str, &Option<BTreeMap<String, String>>); 3] = [
        ("evictionHard", &config.eviction_hard),
        ("evictionSoft", &config.eviction_soft),
        ("evictionMinimumReclaim", &config.eviction_minimum_reclaim),
    ];
    for (name, map) in maps {
        for (signal, amount) in map.iter().flatten() {
            let key = format!("{name}.{signal}");
            known_signal(&key, signal, out);
            if amount.ends_with('%') {
                if percent(amount).is_none() {
                    out.add(&key, format!("{amount:?} is not a percentage from 0% to 100%"));
                }
            } else {
                match Quantity::parse(amount) {
                    Ok(amount) if amount < Quantity::ZERO => out.add(&key, format!("{amount} is negative")),
                    Ok(_) => {}
                    Err(error) => out.add(&key, error.to_string()),
                }
            }
        }
    }
    let periods = config.eviction_soft_grace_period.as_ref();
    for (signal, period) in periods.into_iter().flatten() {
        let key = format!("evictionSoftGracePeriod.{signal}");
        known_signal(&key, signal, out);
        match GoDuration::parse(period) {
            Ok(period) if period < GoDuration::ZERO => out.add(&key, format!("{period} is negative")),
            Ok(_) => {}
            Err(error) => out.add(&key, error.to_string()),
        }
    }
    for signal in config.eviction_soft.iter().flatten().map(|(signal, _)| signal) {
        if !periods.is_some_and(|periods| periods.contains_key(signal)) {
            out.add(&format!("evictionSoft.{signal}"), "needs a period in evictionSoftGracePeriod");
        }
    }
}

fn known_signal(key: &str, signal: &str, out: &mut Findings) {
    if !SIGNALS.contains(&signal) {
        let hint =
            nearest(signal, SIGNALS).map(|name| format!(" (did you mean {name:?}?)")).unwrap_or_default();
        out.add(key, format!("unknown eviction signal{hint}"));
    }
}

fn reserved_memory(config: &KubeletConfiguration, out: &mut Findings) {
    let mut seen = BTreeSet::new();
    for (index, reservation) in config.reserved_memory.iter().flatten().enumerate() {
        let numa = reservation.numa_node.unwrap_or_default();
        for (kind, amount) in reservation.limits.iter().flatten() {
            let key = format!("reservedMemory[{index}].limits.{kind}");
            if kind != "memory" && !kind.starts_with("hugepages-") {
                out.add(&key, "want memory or hugepages-SIZE");
            } else if Quantity::parse(amount).is_ok_and(|amount| amount <= Quantity::ZERO) {
                out.add(&key, format!("{amount} is not over zero"));
            } else if !seen.insert((numa, kind.clone())) {
                out.add(&key, format!("reserved twice on NUMA node {numa}"));
            }
        }
    }
}
