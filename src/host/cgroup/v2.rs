//! v2: one hierarchy, in which a group's controllers are those that its parent hands down.

use std::{fs, io::Write as _, path::Path};

use super::{
    CgroupError,
    files::{Once, Setting, make, pids_limit, set, v2_limit},
};
use crate::api::cgroup::{CgroupValues, cpu_weight, hugepage_size_name};

/// The controllers without which a group is not fully made.
const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];

pub(super) fn apply(
    root: &Path,
    cgroup: &str,
    values: &CgroupValues,
    once: &Once,
) -> Result<(), CgroupError> {
    if !make(root, cgroup, once, |_, _| {})? {
        return Ok(());
    }
    let folder = root.join(cgroup);
    let has = words(&folder, "cgroup.controllers");
    if !NEEDED.iter().all(|needed| has.iter().any(|name| name == needed)) {
        hand_down(root, cgroup);
    }
    set(&folder, &settings(values), once)
}

pub(super) fn is_set(root: &Path, cgroup: &str, values: &CgroupValues) -> bool {
    let folder = root.join(cgroup);
    folder.is_dir() && settings(values).iter().all(|setting| setting.is_set(&folder))
}

fn words(folder: &Path, file: &str) -> Vec<String> {
    let text = fs::read_to_string(folder.join(file)).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// From the root down, each group over this one hands down all controllers that it has. One that cannot be
/// (it is used by processes of the group itself, or real-time ones) is left out.
fn hand_down(root: &Path, cgroup: &str) {
    let mut folder = root.to_owned();
    for name in cgroup.split('/') {
        let given = words(&folder, "cgroup.subtree_control");
        let missing: Vec<String> = words(&folder, "cgroup.controllers")
            .into_iter()
            .filter(|controller| !given.contains(controller))
            .map(|controller| format!("+{controller}"))
            .collect();
        let file = folder.join("cgroup.subtree_control");
        let write = |text: &str| {
            fs::OpenOptions::new()
                .write(true)
                .open(&file)
                .and_then(|mut file| file.write_all(text.as_bytes()))
        };
        if !missing.is_empty() && write(&missing.join(" ")).is_err() {
            for controller in &missing {
                if let Err(error) = write(controller) {
                    tracing::debug!(path = %file.display(), controller, "cannot hand down: {error}");
                }
            }
        }
        folder.push(name);
    }
}

fn settings(values: &CgroupValues) -> Vec<Setting> {
    let mut all = Vec::new();
    all.extend(values.cpu_shares.map(|shares| Setting::new("cpu.weight", cpu_weight(shares).to_string())));
    if let Some(quota) = values.cpu_quota_micros {
        let text = match values.cpu_period_micros {
            Some(period) => format!("{} {period}", v2_limit(quota)),
            None => v2_limit(quota),
        };
        all.push(Setting::new("cpu.max", text));
    }
    all.extend(values.memory_bytes.map(|most| Setting::new("memory.max", v2_limit(most))));
    all.extend(values.pids.map(|most| Setting::new("pids.max", pids_limit(most))));
    for (size, most) in &values.hugepage_bytes {
        let (name, most) = (hugepage_size_name(*size), v2_limit(*most));
        // The controller is not built into every kernel.
        all.push(Setting::new(format!("hugetlb.{name}.max"), most.as_str()).optional());
        all.push(Setting::new(format!("hugetlb.{name}.rsvd.max"), most).optional());
    }
    let plain = values.unified.iter().filter(|(file, _)| !file.contains('/'));
    all.extend(plain.map(|(file, text)| Setting::new(file.clone(), text.clone())));
    all
}
