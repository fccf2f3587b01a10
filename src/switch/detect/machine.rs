//! The machine itself: process 1, control groups, the pods' network, room on disks, programs.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{Look, Notes, option_values};
use crate::{
    host::{cgroup::CgroupMounts, systemd::Systemd},
    switch::{
        facts::{CniFacts, DiskFacts, Facts, Init},
        systemd::flags,
    },
};

/// The bit of CAP_SYS_RESOURCE (capabilities(7)).
const SYS_RESOURCE: u64 = 1 << 24;
/// A process that is in no user namespace but the first has all of its numbers.
const ALL_USERS: &str = "4294967295";
const CNI_CONF: &str = "/etc/cni/net.d";
/// Where kubelet, Debian's and other packages have the plugins.
const CNI_BIN: [&str; 3] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];
/// Where a change keeps its journal and the copies of files.
const STATE: &str = "/var/lib/nodectl";
const TOOLS: [&str; 4] = ["containerd", "ctr", "docker", "kubelet"];

pub(super) fn detect(look: &Look<'_>, systemd: Option<&Systemd>, facts: &mut Facts, notes: &mut Notes) {
    if look.live {
        facts.init = init(systemd, notes);
        facts.oom_score_restricted = oom_score_restricted();
        match CgroupMounts::find(Path::new("/proc/self/mountinfo")) {
            Ok(mounts) => facts.cgroup_version = Some(if mounts.is_v2() { 2 } else { 1 }),
            Err(error) => notes.problem(format!("the version of control groups is not known: {error}")),
        }
    }
    if let Some(docker) = &mut facts.docker
        && docker.cgroup_driver.is_none()
        && let Some(version) = facts.cgroup_version
    {
        // dockerd's own choice, since 20.10.
        let systemd = version == 2 && facts.init.name == "systemd";
        docker.cgroup_driver = Some(if systemd { "systemd" } else { "cgroupfs" }.to_owned());
    }
    facts.cni = cni(look, facts, notes);
    facts.tools = TOOLS.iter().map(|name| ((*name).to_owned(), look.program(name))).collect();
    let folders = [
        facts.docker.as_ref().map(|docker| docker.data_root.clone()),
        facts.containerd.as_ref().map(|containerd| containerd.data_root.clone()),
        Some(PathBuf::from(STATE)),
    ];
    for path in folders.into_iter().flatten() {
        match look.rooted.room(&path) {
            Ok(room) => facts.disks.push(DiskFacts {
                path,
                available: room.available,
                total: room.total,
                device: room.device,
            }),
            Err(error) => notes.problem(format!("the free space is not known: {error}")),
        }
    }
}

fn init(systemd: Option<&Systemd>, notes: &mut Notes) -> Init {
    let name = std::fs::read_to_string("/proc/1/comm").unwrap_or_else(|error| {
        notes.problem(format!("what runs as process 1 is not known: /proc/1/comm: {error}"));
        String::new()
    });
    Init { name: name.trim().to_owned(), version: systemd.map(|systemd| systemd.version().to_owned()) }
}

/// Whether the kernel refuses a lower score: it asks for the capability in the first user namespace.
fn oom_score_restricted() -> bool {
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    restricts(&text("/proc/self/status"), &text("/proc/self/uid_map"), nix::unistd::geteuid().is_root())
}

pub(super) fn restricts(status: &str, uid_map: &str, root: bool) -> bool {
    let has = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        // Without an answer nothing is restricted.
        line.and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
            .is_none_or(|set| set & SYS_RESOURCE != 0)
    };
    let elsewhere = !uid_map.is_empty() && uid_map.split_whitespace().nth(2) != Some(ALL_USERS);
    // What somebody who is not root has says nothing of the node's services.
    elsewhere || !has("CapBnd") || (root && !has("CapEff"))
}

/// The node's name as the kubelet makes it.
pub(super) fn node_name(look: &Look<'_>, notes: &mut Notes) -> String {
    let unit = notes.unit(look, "kubelet.service");
    let told = flags::value(&unit, "hostname-override").filter(|name| !name.trim().is_empty());
    let name = told.or_else(|| {
        if look.live {
            return nix::unistd::gethostname().ok()?.into_string().ok();
        }
        // hostname(5): the first line that is no comment.
        let text = notes.read(look, Path::new("/etc/hostname"))?;
        notes.files.remove(Path::new("/etc/hostname"));
        let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
        line.map(str::to_owned)
    });
    if name.is_none() {
        notes.problem("the node's name is not known: neither --hostname-override nor a host name is there");
    }
    name.unwrap_or_default().trim().to_lowercase()
}

fn cni(look: &Look<'_>, facts: &Facts, notes: &mut Notes) -> CniFacts {
    let shim = notes.unit(look, "cri-docker.service");
    let shim: Vec<String> = shim.arguments.into_iter().map(|argument| argument.text).collect();
    // dockershim's flags, and those of cri-dockerd, which has taken them over.
    let told = |name: &str| -> Option<String> {
        let kubelet = facts.kubelet.as_ref().and_then(|kubelet| flags::value(&kubelet.unit, name));
        kubelet.or_else(|| option_values(&shim, &[name]).pop()).filter(|value| !value.trim().is_empty())
    };
    let conf_dir = PathBuf::from(told("cni-conf-dir").unwrap_or_else(|| CNI_CONF.to_owned()));
    let bin_dirs: Vec<PathBuf> = match told("cni-bin-dir") {
        Some(list) => list.split(',').map(|dir| PathBuf::from(dir.trim())).collect(),
        None => {
            let there: Vec<PathBuf> =
                CNI_BIN.iter().map(PathBuf::from).filter(|dir| look.rooted.exists(dir)).collect();
            if there.is_empty() { vec![PathBuf::from(CNI_BIN[0])] } else { there }
        }
    };
    let is_config =
        |name: &String| [".conf", ".conflist", ".json"].iter().any(|suffix| name.ends_with(suffix));
    let configs: Vec<String> = notes.list(look, &conf_dir).into_iter().filter(is_config).collect();
    let mut missing_plugins = Vec::new();
    if let Some(first) = configs.first() {
        let path = conf_dir.join(first);
        match plugins(look, &path) {
            Ok(plugins) => {
                let there =
                    |name: &String| bin_dirs.iter().any(|dir| look.rooted.is_program(&dir.join(name)));
                missing_plugins = plugins.into_iter().filter(|name| !there(name)).collect();
            }
            Err(why) => notes.problem(format!("{}: {why}", path.display())),
        }
    }
    CniFacts { conf_dir, configs, bin_dirs, missing_plugins }
}

/// The programs that a network's configuration names.
fn plugins(look: &Look<'_>, path: &Path) -> Result<BTreeSet<String>, String> {
    /// libcni's limit.
    const MAX: u64 = 2 << 20;
    let bytes = look.rooted.bytes(path, MAX).map_err(|error| error.to_string())?.unwrap_or_default();
    let config: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|error| format!("is no network configuration: {error}"))?;
    let listed = config.get("plugins").and_then(serde_json::Value::as_array);
    let all: Vec<&serde_json::Value> = match listed {
        Some(listed) => listed.iter().collect(),
        None => vec![&config],
    };
    let mut names = BTreeSet::new();
    for plugin in all {
        for kind in [plugin.get("type"), plugin.get("ipam").and_then(|ipam| ipam.get("type"))] {
            let name = kind.and_then(serde_json::Value::as_str);
            // libcni takes no path either.
            names.extend(name.filter(|name| !name.is_empty() && !name.contains('/')).map(str::to_owned));
        }
    }
    Ok(names)
}
