//! What is on the node before anything changes: the one input of a plan beside what is asked, and what
//! `nodectl switch-runtime --detect -o json` prints.
//!
//! Nothing here is secret: texts of files, in which there may be passwords, are kept beside the facts and never
//! printed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{containerd::Release, systemd::unit::Unit};
use crate::host::systemd::UnitState;

/// A node as it is.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// The node's name as its kubelet says it: `--hostname-override`, or the host's name in lower case.
    pub node_name: String,
    /// The folder that holds the node, if that is not the running one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<PathBuf>,
    /// What runs as process 1.
    pub init: Init,
    /// 1 or 2, the version of the kernel's control groups; `None` for a folder.
    pub cgroup_version: Option<u8>,
    /// Whether this node's processes may not lower their `oom_score_adj` (CAP_SYS_RESOURCE is missing, as inside
    /// some containers), so that containerd has to be told.
    pub oom_score_restricted: bool,
    /// The units that matter, by their names, also those that are not there.
    pub units: BTreeMap<String, UnitFacts>,
    /// Docker, if it is installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docker: Option<DockerFacts>,
    /// containerd, if it is installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub containerd: Option<ContainerdFacts>,
    /// The kubelet, if it is installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubelet: Option<KubeletFacts>,
    /// The pods' network.
    pub cni: CniFacts,
    /// Where images are kept, and the room there.
    pub disks: Vec<DiskFacts>,
    /// Programs that steps need, and where they are; `None` for one that is not found.
    pub tools: BTreeMap<String, Option<PathBuf>>,
    /// What could not be found out, a sentence each.
    pub problems: Vec<String>,
    /// Those of them without which nothing can be planned. Not printed a second time.
    #[serde(skip)]
    pub obstacles: Obstacles,
    /// The texts of all files that may have to change, by their paths. One that is not there has no entry.
    #[serde(skip)]
    pub files: BTreeMap<PathBuf, String>,
}

impl Facts {
    /// A unit; one that was not asked for is one that is not there.
    pub fn unit(&self, name: &str) -> UnitFacts {
        self.units.get(name).cloned().unwrap_or_default()
    }

    /// A file's text, if it is there.
    pub fn text(&self, path: impl AsRef<Path>) -> Option<&str> {
        self.files.get(path.as_ref()).map(String::as_str)
    }
}

/// What could not be found out and has to be known before anything changes, or keeps from starting again what runs now:
/// a sentence each, by whose it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Obstacles {
    /// Docker's.
    pub docker: Vec<String>,
    /// containerd's.
    pub containerd: Vec<String>,
    /// The kubelet's.
    pub kubelet: Vec<String>,
}

/// What runs as process 1.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Init {
    /// `systemd`, or the name of another program. Empty for a folder.
    pub name: String,
    /// systemd's version, as it says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// A unit of systemd. The words are systemd's.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnitFacts {
    /// `loaded`, `masked`, …; `not-found` or empty if there is none.
    pub load: String,
    /// `active`, `inactive`, `failed`, `activating`, …
    pub active: String,
    /// `enabled`, `disabled`, `static`, `masked`, …; empty if there is none.
    pub enabled: String,
    /// Its file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fragment: Option<PathBuf>,
    /// Its drop-ins, in the order in which they count.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drop_ins: Vec<PathBuf>,
}

impl From<UnitState> for UnitFacts {
    fn from(state: UnitState) -> Self {
        Self {
            load: state.load,
            active: state.active,
            enabled: state.enabled,
            fragment: state.fragment,
            drop_ins: state.drop_ins,
        }
    }
}

impl UnitFacts {
    /// Whether there is such a unit.
    pub fn exists(&self) -> bool {
        !matches!(self.load.as_str(), "" | "not-found")
    }

    /// Whether it runs, or is on its way.
    pub fn runs(&self) -> bool {
        matches!(self.active.as_str(), "active" | "activating" | "reloading")
    }

    /// Whether it is kept from being started.
    pub fn is_masked(&self) -> bool {
        self.load == "masked" || self.enabled.starts_with("masked")
    }

    /// Whether it is started with the node.
    pub fn is_enabled(&self) -> bool {
        matches!(self.enabled.as_str(), "enabled" | "enabled-runtime" | "linked" | "linked-runtime" | "alias")
    }
}

/// Docker.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DockerFacts {
    /// As in `20.10.24`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Where its API is.
    pub socket: PathBuf,
    /// Whether it answers there.
    pub answers: bool,
    /// Why it does not, if it was asked. It is among the problems.
    #[serde(skip)]
    pub silence: Option<String>,
    /// `systemd` or `cgroupfs`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_driver: Option<String>,
    /// Where it keeps images and containers.
    pub data_root: PathBuf,
    /// Whether containers outlive it.
    pub live_restore: bool,
    /// All containers, running or not; empty if it does not answer.
    pub containers: Vec<ContainerFacts>,
    /// All images; empty if it does not answer.
    pub images: Vec<ImageFacts>,
    /// Its configuration file, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daemon_json: Option<PathBuf>,
    /// The configuration file, parsed; it has no secrets but proxies' passwords, so it is not printed.
    #[serde(skip)]
    pub daemon: serde_json::Map<String, serde_json::Value>,
    /// The command line of dockerd as its unit has it, without the program.
    pub arguments: Vec<String>,
    /// The proxy variables that its unit sets (`HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`, in either case), with their
    /// values: not printed, as there may be passwords in them.
    #[serde(skip)]
    pub proxies: BTreeMap<String, String>,
    /// Registries below `/etc/docker/certs.d`: `HOST` or `HOST:PORT` → the names of the files there.
    pub certificates: BTreeMap<String, Vec<String>>,
    /// Registries that root or the kubelet is logged in to, by the file that says so.
    pub logins: BTreeMap<PathBuf, Vec<String>>,
}

/// A container of Docker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerFacts {
    /// The whole id.
    pub id: String,
    /// Without the leading slash.
    pub name: String,
    /// The image as it was asked for.
    pub image: String,
    /// The image's id, `sha256:…`.
    pub image_id: String,
    /// Whether it runs.
    pub running: bool,
    /// The pod it belongs to (labels `io.kubernetes.pod.*`); `None` for one that is not Kubernetes'.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodFacts>,
    /// Whether it is its pod's sandbox (label `io.kubernetes.docker.type=podsandbox`).
    pub sandbox: bool,
    /// Whether Docker's or dockershim's socket, or a folder that has it, is mounted into it.
    pub mounts_docker_socket: bool,
}

/// A pod that a container belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodFacts {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// An image of Docker.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageFacts {
    /// `sha256:…`.
    pub id: String,
    /// `NAME:TAG`, whole and familiar as Docker has them; none if it has lost its last name.
    pub tags: Vec<String>,
    /// `NAME@sha256:…`.
    pub digests: Vec<String>,
    /// Bytes, unpacked.
    pub size: u64,
}

/// containerd.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerdFacts {
    /// As in `1.6.20`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Major and minor of that; `None` if it could not be found out.
    #[serde(skip)]
    pub release: Option<Release>,
    /// Its program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<PathBuf>,
    /// Where its API is.
    pub socket: PathBuf,
    /// Whether it answers CRI there today.
    pub cri_answers: bool,
    /// `systemd` or `cgroupfs`, of its default runtime: as it runs, else as its files have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_driver: Option<String>,
    /// The pods that run there (their sandboxes are ready); none if it does not answer.
    pub pods: Vec<PodFacts>,
    /// Its main configuration file, there or not.
    pub config: PathBuf,
    /// The configuration files that are there, in the order in which containerd reads them.
    pub config_files: Vec<PathBuf>,
    /// What `containerd config default` prints; `None` if it cannot be run. Not printed.
    #[serde(skip)]
    pub default_config: Option<String>,
    /// Where it keeps images.
    pub data_root: PathBuf,
}

/// The kubelet.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KubeletFacts {
    /// As in `v1.20.2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its minor version, 20 in 1.20.2; `None` if it could not be found out.
    pub minor: Option<u32>,
    /// Its program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<PathBuf>,
    /// Its unit as systemd puts it together. What it comes to is in `arguments`.
    #[serde(skip)]
    pub unit: Unit,
    /// The arguments that follow, without the program.
    pub arguments: Vec<ArgumentFacts>,
    /// The file of `--config`, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_file: Option<PathBuf>,
    /// `/var/lib/kubelet/instance-config.yaml`, which kubeadm lays over the configuration, if it is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance_config: Option<PathBuf>,
    /// The file of `--kubeconfig`, if the kubelet is told one and the file is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
    /// The runtime that it is told today.
    pub runtime: RuntimeKind,
    /// The runtime's endpoint as it is told today; `None` for dockershim.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// `systemd` or `cgroupfs`, from the flag, the configuration or kubelet's default.
    pub cgroup_driver: String,
    /// The folder of static pods, if it is told one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub static_pod_path: Option<PathBuf>,
    /// The names of the static pods there, `NAMESPACE/NAME-NODE` as they run.
    pub static_pods: Vec<String>,
    /// The images that static pods name by digest, as in `busybox@sha256:…`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images_by_digest: Vec<String>,
    /// Where its healthz is, as in `127.0.0.1:10248`; `None` if it is switched off.
    pub healthz: Option<String>,
    /// Where it keeps its state.
    pub root_dir: PathBuf,
}

/// An argument of a command line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ArgumentFacts {
    /// As the program gets it.
    pub text: String,
    /// The file that it comes from; `None` if it is put together from several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
}

/// A runtime that a kubelet can be told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RuntimeKind {
    /// Docker, through the kubelet's own dockershim (before 1.24).
    Docker,
    /// Docker, through cri-dockerd.
    CriDockerd,
    /// containerd.
    Containerd,
    /// CRI-O, or an endpoint that is not known.
    Other,
    /// There is no kubelet.
    #[default]
    None,
}

/// The pods' network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CniFacts {
    /// The folder of its configuration.
    pub conf_dir: PathBuf,
    /// The files there, by their names, the first one counting.
    pub configs: Vec<String>,
    /// The folders of its plugins.
    pub bin_dirs: Vec<PathBuf>,
    /// Plugins that the configuration names and that no such folder has.
    pub missing_plugins: Vec<String>,
}

/// Room on a file system.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskFacts {
    /// A folder on it.
    pub path: PathBuf,
    /// Bytes that root can still write.
    pub available: u64,
    /// Bytes in all.
    pub total: u64,
    /// Which file system it is: two folders with the same number share the room.
    #[serde(skip)]
    pub device: u64,
}
