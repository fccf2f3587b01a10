//! v1: a hierarchy for each controller, or for several that are mounted together.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{
    CgroupError,
    files::{Once, Setting, make, pids_limit, set, v1_limit},
};
use crate::{
    api::cgroup::{CgroupValues, hugepage_size_name},
    host::mounts::MountInfo,
};

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    pub(super) point: PathBuf,
    /// Its controllers and other mount options.
    options: Vec<String>,
}

impl Hierarchy {
    pub(super) fn has(&self, controller: &str) -> bool {
        self.options.iter().any(|option| option == controller)
    }
}

/// The hierarchies of a mount table. Of one that is mounted at more places the shortest path counts.
pub(super) fn hierarchies(all: &[MountInfo]) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = all
        .iter()
        .filter(|mount| mount.fs_type == "cgroup")
        .map(|mount| Hierarchy {
            point: mount.point.clone(),
            options: mount
                .fs_options
                .split(',')
                .filter(|option| !matches!(*option, "rw" | "ro" | ""))
                .map(str::to_owned)
                .collect(),
        })
        .collect();
    found.sort_by_key(|hierarchy| hierarchy.point.as_os_str().len());
    let mut kept: Vec<Hierarchy> = Vec::new();
    for hierarchy in found {
        if !kept.iter().any(|other| other.options == hierarchy.options) {
            kept.push(hierarchy);
        }
    }
    kept
}

pub(super) fn apply(
    hierarchy: &Hierarchy,
    cgroup: &str,
    values: &CgroupValues,
    once: &Once,
) -> Result<(), CgroupError> {
    let with_cpus = hierarchy.has("cpuset");
    let there = make(&hierarchy.point, cgroup, once, |parent, folder| {
        if with_cpus {
            inherit_cpus(parent, folder);
        }
    })?;
    if there { set(&hierarchy.point.join(cgroup), &settings(hierarchy, values), once) } else { Ok(()) }
}

pub(super) fn is_set(hierarchy: &Hierarchy, cgroup: &str, values: &CgroupValues) -> bool {
    let folder = hierarchy.point.join(cgroup);
    folder.is_dir() && settings(hierarchy, values).iter().all(|setting| setting.is_set(&folder))
}

/// A new group of this controller has no CPUs and no memory, and takes no process before it has.
fn inherit_cpus(parent: &Path, folder: &Path) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let Ok(text) = fs::read_to_string(parent.join(file)) else { continue };
        let empty = fs::read_to_string(folder.join(file)).is_ok_and(|text| text.trim().is_empty());
        if empty && let Err(error) = fs::write(folder.join(file), text.trim()) {
            // The runtime tries the same for each container, and says what is wrong then.
            tracing::debug!(path = %folder.join(file).display(), "cannot inherit CPUs: {error}");
        }
    }
}

/// The files of the hierarchy's controllers.
fn settings(hierarchy: &Hierarchy, values: &CgroupValues) -> Vec<Setting> {
    let mut all = Vec::new();
    if hierarchy.has("cpu") {
        all.extend(values.cpu_shares.map(|shares| Setting::new("cpu.shares", shares.to_string())));
        all.extend(
            values.cpu_period_micros.map(|period| Setting::new("cpu.cfs_period_us", period.to_string())),
        );
        all.extend(values.cpu_quota_micros.map(|quota| Setting::new("cpu.cfs_quota_us", v1_limit(quota))));
    }
    if hierarchy.has("memory") {
        all.extend(values.memory_bytes.map(|most| Setting::new("memory.limit_in_bytes", v1_limit(most))));
    }
    if hierarchy.has("pids") {
        all.extend(values.pids.map(|most| Setting::new("pids.max", pids_limit(most))));
    }
    if hierarchy.has("hugetlb") {
        for (size, most) in &values.hugepage_bytes {
            let (name, most) = (hugepage_size_name(*size), v1_limit(*most));
            all.push(Setting::new(format!("hugetlb.{name}.limit_in_bytes"), most.as_str()));
            all.push(Setting::new(format!("hugetlb.{name}.rsvd.limit_in_bytes"), most).optional());
        }
    }
    all
}
