//! What a runtime and an agent leave behind, by name, so that a failing test says what leaked and not
//! only how many.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::Containerd;

/// What exists at one moment. Two of them are compared: before a test's work and after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Leaks {
    /// Pod sandboxes that the runtime knows.
    pub(crate) sandboxes: BTreeSet<String>,
    /// Other containers that the runtime knows.
    pub(crate) containers: BTreeSet<String>,
    /// Writable and unpacking snapshots of containers (images' own stay).
    pub(crate) snapshots: BTreeSet<String>,
    /// The rest: what the kernel and the file system hold.
    pub(crate) machine: BTreeSet<String>,
}

impl Leaks {
    /// Counts for a runtime that answers; the agent's folders if there is an agent.
    #[track_caller]
    pub(crate) fn count(containerd: &Containerd, root_dir: Option<&Path>, pod_logs: Option<&Path>) -> Self {
        let list = |arguments: &[&str]| -> BTreeSet<String> {
            containerd.ctr(arguments).lines().map(|line| line.trim().to_owned()).collect()
        };
        let sandbox = r#"labels."io.cri-containerd.kind"==sandbox"#;
        let sandboxes = list(&["containers", "ls", "-q", sandbox]);
        let containers = &list(&["containers", "ls", "-q"]) - &sandboxes;
        let snapshotter = containerd.fact("SNAPSHOTTER");
        let snapshots = containerd
            .ctr(&["snapshots", "--snapshotter", snapshotter, "ls"])
            .lines()
            .filter(|line| line.trim_end().ends_with("Active"))
            .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
            .collect();
        let mut machine = Self::of_machine(containerd);
        for (what, folder) in
            [("pod folder", root_dir.map(|r| r.join("pods"))), ("log folder", pod_logs.map(Into::into))]
        {
            machine.extend(names(folder.as_deref()).map(|name| format!("{what} {name}")));
        }
        Self { sandboxes, containers, snapshots, machine }
    }

    /// What can be seen without asking the runtime: also when it is dead, and after it is gone.
    pub(crate) fn of_machine(containerd: &Containerd) -> BTreeSet<String> {
        let dir = containerd.dir();
        let mut found = BTreeSet::new();
        found.extend(mounts(dir).into_iter().map(|m| format!("mount {m}")));
        let own = containerd.cgroup_root();
        for hierarchy in cgroup_hierarchies() {
            let root = PathBuf::from(format!("{}{own}", hierarchy.display()));
            // The root itself is the harness's, and the classes' cgroups are the node's: they stay, as
            // kubelet's do.
            let of_the_node = ["kubepods", "kubepods/burstable", "kubepods/besteffort"].map(|c| root.join(c));
            let below = folders_below(&root).into_iter().filter(|c| !of_the_node.contains(c));
            found.extend(below.map(|c| format!("cgroup {}", c.display())));
        }
        found.extend(processes(dir).into_iter().map(|p| format!("process {p}")));
        // A port on the bridge is a pod's network.
        let ports = PathBuf::from(format!("/sys/class/net/{}/brif", containerd.fact("BRIDGE")));
        found.extend(names(Some(&ports)).map(|port| format!("bridge port {port}")));
        let leases = dir.join("cni/ipam").join(containerd.fact("NETWORK"));
        found.extend(
            names(Some(&leases))
                .filter(|n| n.starts_with(|c: char| c.is_ascii_digit()))
                .map(|n| format!("address {n}")),
        );
        for shared in ["/var/lib/cni/results", "/var/lib/cni/cache"] {
            let network = containerd.fact("NETWORK");
            found.extend(
                names(Some(Path::new(shared)))
                    .filter(|n| n.starts_with(network))
                    .map(|n| format!("cni result {n}")),
            );
        }
        found
    }

    /// Leaves out what begins so, and with `snapshot` the snapshots: for tests that kill a runtime in the
    /// middle of a call, or the caller. What it had made by then and not yet noted only it could remove.
    pub(crate) fn without(mut self, kinds: &[&str]) -> Self {
        self.machine.retain(|name| !kinds.iter().any(|kind| name.starts_with(kind)));
        if kinds.contains(&"snapshot") {
            self.snapshots.clear();
        }
        self
    }

    /// What is there that was not there `before`, and what has gone, one per line.
    pub(crate) fn difference(&self, before: &Self) -> String {
        let mut lines = Vec::new();
        for (what, now, then) in [
            ("sandbox", &self.sandboxes, &before.sandboxes),
            ("container", &self.containers, &before.containers),
            ("snapshot", &self.snapshots, &before.snapshots),
            ("", &self.machine, &before.machine),
        ] {
            lines.extend(now.difference(then).map(|name| format!("+ {what} {name}")));
            lines.extend(then.difference(now).map(|name| format!("- {what} {name}")));
        }
        lines.join("\n")
    }
}

fn names(folder: Option<&Path>) -> impl Iterator<Item = String> {
    let entries = folder.and_then(|f| fs::read_dir(f).ok());
    entries.into_iter().flatten().filter_map(|e| e.ok()?.file_name().into_string().ok())
}

/// Mount points below a folder, as this process's mount namespace has them.
pub(crate) fn mounts(dir: &Path) -> Vec<String> {
    let below = format!("{}/", dir.display());
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| point.starts_with(&below))
        .map(str::to_owned)
        .collect()
}

/// Where cgroup hierarchies are mounted: one on v2, many on v1.
pub(crate) fn cgroup_hierarchies() -> Vec<PathBuf> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let is_cgroup = |line: &&str| {
        line.split_once(" - ")
            .is_some_and(|(_, rest)| rest.starts_with("cgroup ") || rest.starts_with("cgroup2 "))
    };
    table.lines().filter(is_cgroup).filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from).collect()
}

fn folders_below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
                found.push(entry.path());
            }
        }
    }
    found
}

/// Shims of the containerd in this folder. Other processes there are containerd and the agent
/// themselves, which come and go with the test's own doing.
pub(crate) fn processes(dir: &Path) -> Vec<String> {
    let socket = dir.join("containerd.sock");
    let socket = socket.as_os_str().as_encoded_bytes();
    let mut found = Vec::new();
    for pid in names(Some(Path::new("/proc"))).filter(|n| n.bytes().all(|b| b.is_ascii_digit())) {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|b| *b == 0).collect();
        let shim = words.first().is_some_and(|w| String::from_utf8_lossy(w).contains("containerd-shim"));
        if shim && words.windows(2).any(|w| w[0] == b"-address" && w[1] == socket) {
            found.push(format!("containerd-shim {pid}"));
        }
    }
    found
}
