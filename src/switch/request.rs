//! What is asked of a change: the options of `nodectl switch-runtime`, resolved.

use std::{path::PathBuf, time::Duration};

/// Which images come along.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Images {
    /// All that Docker has a name for.
    All,
    /// Those that pods' containers use.
    #[default]
    Running,
    /// None: they are pulled anew.
    None,
}

/// How the cgroup driver is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DriverChoice {
    /// systemd where process 1 is systemd, else cgroupfs.
    #[default]
    Auto,
    /// systemd.
    Systemd,
    /// cgroupfs.
    Cgroupfs,
}

/// What runs the pods afterwards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Agent {
    /// The kubelet, as before.
    #[default]
    Kubelet,
    /// `nodectl run`, in its place.
    Nodectl,
}

/// From what the node is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// Docker through dockershim.
    Docker,
    /// Docker through cri-dockerd.
    CriDockerd,
    /// containerd: its configuration alone is brought up to date.
    Containerd,
}

/// How pods are moved away first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drain {
    /// How long it may take in all.
    pub timeout: Duration,
    /// Whether pods that nothing would make again are evicted too (`kubectl drain --force`).
    pub unmanaged: bool,
    /// Whether pods with emptyDir volumes are evicted too (`kubectl drain --delete-emptydir-data`).
    pub delete_emptydir_data: bool,
}

/// What is asked.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// From what; `None` is whatever the node has.
    pub from: Option<From>,
    /// What runs the pods afterwards.
    pub agent: Agent,
    /// Where this program is on the node, for a unit that runs it.
    pub program: PathBuf,
    /// The image of sandboxes; `None` is the one that the kubelet is told, else containerd's.
    pub pause_image: Option<String>,
    /// The cgroup driver of both sides.
    pub cgroup_driver: DriverChoice,
    /// Mirrors: a registry's host (`docker.io` if none is said) and the mirror's URL.
    pub registry_mirrors: Vec<(String, String)>,
    /// Which images come along.
    pub images: Images,
    /// Whether containerd's configuration begins anew, from its default.
    pub reset_config: bool,
    /// Whether Docker stays as it is: its units are neither disabled nor, after the change, left stopped.
    pub keep_docker: bool,
    /// Whether what only stands in the way of other things on the node is taken.
    pub force: bool,
    /// Credentials of the cluster, to cordon, drain and annotate the node.
    pub kubeconfig: Option<PathBuf>,
    /// Whether and how pods are moved away first.
    pub drain: Option<Drain>,
}
