//! What Docker was told and nobody else can be told in its stead: named, so that nobody finds out later.

use super::{Carried, options};
use crate::switch::{containerd::Release, facts::Facts};

/// What changes for pods.
const LOST: [(&str, &str); 13] = [
    (
        "default-ulimits",
        "pods get the limits of containerd.service (LimitNOFILE= and others), or those of a `base_runtime_spec` in containerd's configuration",
    ),
    ("default-ulimit", "pods get the limits of containerd.service (LimitNOFILE= and others)"),
    (
        "default-shm-size",
        "/dev/shm of a pod has 64 MiB; an emptyDir of medium Memory mounted there has what it asks for",
    ),
    (
        "seccomp-profile",
        "say it in pods (`seccompProfile`), or as `unset_seccomp_profile` in containerd's configuration",
    ),
    ("no-new-privileges", "say it in pods (`allowPrivilegeEscalation: false`)"),
    ("userns-remap", "pods have user namespaces by `hostUsers: false`, from Kubernetes 1.30 on"),
    ("selinux-enabled", "say `enable_selinux = true` in containerd's configuration"),
    ("cgroup-parent", "the kubelet says where pods' cgroups are (cgroupRoot)"),
    (
        "init",
        "a container that needs an init process has to bring one (`shareProcessNamespace` has one for the pod)",
    ),
    ("authorization-plugins", "containerd has none: its socket is root's alone"),
    ("dns", "pods have what the kubelet's resolvConf, clusterDNS and their dnsPolicy say"),
    ("dns-search", "pods have what the kubelet's resolvConf and their dnsPolicy say"),
    ("max-concurrent-downloads", "say `max_concurrent_downloads` in containerd's configuration"),
];

/// What is about the network that Docker made for containers, and ends with it.
const BRIDGE: [&str; 8] = [
    "bip",
    "fixed-cidr",
    "fixed-cidr-v6",
    "bridge",
    "mtu",
    "default-gateway",
    "default-address-pools",
    "ipv6",
];

/// Storage drivers and what stands for them in containerd. Those without are the default's way of doing it.
const STORAGE: [(&str, Option<&str>); 8] = [
    ("overlay2", None),
    ("overlay", None),
    ("overlayfs", None),
    ("btrfs", Some("btrfs")),
    ("zfs", Some("zfs")),
    ("devicemapper", Some("devmapper")),
    ("vfs", Some("native")),
    ("fuse-overlayfs", Some("fuse-overlayfs")),
];

pub(super) fn name(facts: &Facts, release: Release, carried: &mut Carried) {
    for (option, instead) in LOST {
        if options::is_told(facts, option) {
            carried.warnings.push(format!("Docker's {option} is not carried over: {instead}"));
        }
    }
    let bridge: Vec<&str> = BRIDGE.into_iter().filter(|option| options::is_told(facts, option)).collect();
    if !bridge.is_empty() {
        carried.notes.push(format!(
            "Docker's {} {} for its own bridge: pods' network is the CNI configuration's in {}",
            bridge.join(", "),
            if bridge.len() == 1 { "is" } else { "are" },
            if facts.cni.conf_dir.as_os_str().is_empty() {
                "/etc/cni/net.d".to_owned()
            } else {
                facts.cni.conf_dir.display().to_string()
            }
        ));
    }
    storage(facts, release, carried);
}

fn storage(facts: &Facts, release: Release, carried: &mut Carried) {
    let Some(driver) = options::text(facts, "storage-driver") else { return };
    let instead = STORAGE.iter().find(|(name, _)| *name == driver).map(|(_, instead)| *instead);
    match instead {
        Some(None) => {}
        Some(Some(snapshotter)) => carried.warnings.push(format!(
            "Docker's storage driver {driver} is not carried over: containerd uses overlayfs; where the disk does not bear \
             that, say `snapshotter = \"{snapshotter}\"` in its configuration"
        )),
        None if driver == "aufs" => carried.warnings.push(format!(
            "Docker's storage driver aufs is not carried over: containerd uses overlayfs{}",
            if release.major < 2 { "" } else { ", and has no aufs any more" }
        )),
        None => carried.warnings.push(format!(
            "Docker's storage driver {driver} is not carried over: containerd has no such snapshotter and uses overlayfs"
        )),
    }
}
