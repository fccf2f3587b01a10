//! What a change of the node is made of: steps that can each be done again and taken back.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::files::{self, Saved};

/// A file as it was when a change was planned: what somebody has written there since is not written over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen {
    /// It was not there.
    Nothing,
    /// It had a text with this SHA-256, in hex.
    Text(String),
}

impl Seen {
    /// Of a text.
    pub fn of(text: Option<&str>) -> Self {
        text.map_or(Self::Nothing, |text| Self::Text(hex::encode(Sha256::digest(text))))
    }
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Action {
    /// A file is to have this text.
    WriteFile {
        /// Where, with no link in it.
        path: PathBuf,
        /// What.
        text: String,
        /// The access rights of a file that is not there yet; one that is keeps its own.
        mode: u32,
        /// How it was when this was planned; `None` for what is ours alone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seen: Option<Seen>,
    },
    /// A file is to be gone.
    RemoveFile {
        /// Where.
        path: PathBuf,
    },
    /// A unit is not to run.
    StopUnit {
        /// Its name.
        unit: String,
    },
    /// A unit is to run, begun anew if it does.
    RestartUnit {
        /// Its name.
        unit: String,
    },
    /// A unit is not to be started with the node.
    DisableUnit {
        /// Its name.
        unit: String,
    },
    /// A unit is to be started with the node.
    EnableUnit {
        /// Its name.
        unit: String,
    },
    /// systemd is to read its files. So it is when this is taken back: a plan has one before it changes units'
    /// files too.
    ReloadUnits,
    /// Images go from Docker to containerd's namespace `k8s.io`, streamed. Taken back: those that were not there
    /// before go.
    CarryImages {
        /// Docker's API.
        docker: PathBuf,
        /// containerd's API.
        containerd: PathBuf,
        /// `NAME:TAG`, as Docker has them.
        images: Vec<String>,
    },
    /// Containers of pods in Docker are to end: through cri-dockerd where that is the runtime, else through Docker,
    /// and their network is taken down as the CNI cache tells. Which they are is looked up when it is done. Taken
    /// back, nothing: the kubelet starts its pods.
    StopDockerPods {
        /// Docker's API.
        docker: PathBuf,
        /// cri-dockerd's endpoint, `unix://…`, if the pods are its.
        cri: Option<String>,
        /// The folders of CNI plugins.
        cni_bin_dirs: Vec<PathBuf>,
    },
    /// Nothing is done. Taken back, pods that the new runtime got since are stopped and removed, so that the old one
    /// has their ports and data.
    StopPodsWhenUndone {
        /// The new runtime's endpoint, `unix://…`.
        endpoint: String,
    },
    /// Nothing is done. Taken back, those of these units that ran before any of them was stopped run again, the first
    /// first: a service ends with the socket that it requires, so that when its own turn comes it does not run any more.
    StartWhenUndone {
        /// Their names, sockets before their services.
        units: Vec<String>,
    },
    /// containerd is to make of its files what was wished: read back with `containerd config dump`.
    CheckContainerdConfig {
        /// The main file.
        config: PathBuf,
        /// Keys as TOML paths (`plugins."io.containerd.grpc.v1.cri".sandbox_image`) and their values as TOML has them.
        expected: Vec<(String, String)>,
    },
    /// The runtime is to answer, with RuntimeReady and, if wished, NetworkReady, and its CRI plugins to be there.
    VerifyRuntime {
        /// Its endpoint, `unix://…`.
        endpoint: String,
        /// Whether pods' network must be ready.
        network: bool,
        /// Seconds it may take.
        timeout: u64,
    },
    /// A sandbox is to start and stop.
    TestSandbox {
        /// The runtime's endpoint, `unix://…`.
        endpoint: String,
        /// Whether it has a network of its own, else the host's.
        network: bool,
        /// The cgroup driver that both sides have, for the parent of its cgroup.
        cgroup_driver: String,
    },
    /// The agent is to be healthy, and the static pods to run in the runtime.
    VerifyAgent {
        /// Its unit, which must stay active.
        unit: String,
        /// Its healthz, `HOST:PORT`; `None` if it has none.
        healthz: Option<String>,
        /// The runtime's endpoint, `unix://…`.
        endpoint: String,
        /// Static pods, `NAMESPACE/NAME`.
        static_pods: Vec<String>,
        /// Seconds it may take.
        timeout: u64,
    },
    /// Nothing is done. Taken back, it is the last to be: the agent must be healthy again, and the static pods run in
    /// the runtime that they ran in.
    VerifyWhenUndone {
        /// The agent's unit, which must stay active.
        unit: String,
        /// Its healthz, `HOST:PORT`; `None` if it has none.
        healthz: Option<String>,
        /// Docker's API, if the pods are Docker's.
        docker: Option<PathBuf>,
        /// The runtime's endpoint, `unix://…`, if they are a CRI runtime's.
        endpoint: Option<String>,
        /// Static pods, `NAMESPACE/NAME`.
        static_pods: Vec<String>,
        /// Seconds it may take.
        timeout: u64,
    },
    /// The node is to take no new pods. Taken back, it takes them, unless it did not before.
    Cordon {
        /// Credentials.
        kubeconfig: PathBuf,
        /// The node's name.
        node: String,
    },
    /// Its pods are to be elsewhere, evicted within their disruption budgets.
    Drain {
        /// Credentials.
        kubeconfig: PathBuf,
        /// The node's name.
        node: String,
        /// Seconds it may take.
        timeout: u64,
        /// Whether pods that nothing would make again are evicted too.
        unmanaged: bool,
        /// Whether pods with emptyDir volumes are evicted too.
        delete_emptydir_data: bool,
    },
    /// The node is to take new pods again, if it did before `Cordon`.
    Uncordon {
        /// Credentials.
        kubeconfig: PathBuf,
        /// The node's name.
        node: String,
    },
    /// The node's annotation `kubeadm.alpha.kubernetes.io/cri-socket` is to name a runtime. Taken back, it has the
    /// value it had.
    AnnotateNode {
        /// Credentials.
        kubeconfig: PathBuf,
        /// The node's name.
        node: String,
        /// The runtime's endpoint, `unix://…`.
        endpoint: String,
    },
    /// The API server is to see the node Ready.
    VerifyNode {
        /// Credentials.
        kubeconfig: PathBuf,
        /// The node's name.
        node: String,
        /// Seconds it may take.
        timeout: u64,
    },
    /// Nothing is done. Taken back, it is waited until the API server sees the node Ready again; if it does not, that is
    /// told and no failure, as all that was changed is as before by then.
    NodeReadyWhenUndone {
        /// Credentials.
        kubeconfig: PathBuf,
        /// The node's name.
        node: String,
        /// Seconds it may take.
        timeout: u64,
    },
    /// What the pods left with Docker goes: their containers, dockershim's state, addresses of theirs that a CNI
    /// plugin still holds. Nothing of it is needed to go back: the kubelet makes its containers anew.
    RemoveOldPods {
        /// Docker's API.
        docker: PathBuf,
        /// Whether Docker is to be stopped behind it; it is started for this if need be.
        stop_docker: bool,
        /// dockershim's folder, or cri-dockerd's.
        dockershim: PathBuf,
    },
}

/// A step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What it is for, in a sentence.
    pub why: String,
    /// Whether a failure of it is told and the change goes on: what comes when the node serves already.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lenient: bool,
    /// What it does.
    #[serde(flatten)]
    pub action: Action,
}

/// How it was before a step, enough to take the step back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "was", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Before {
    /// A file that was there, and its copy.
    File {
        /// The copy and what the file was like.
        saved: Saved,
    },
    /// No file.
    NoFile {
        /// The folders above it that were not there either, the outermost first.
        folders: Vec<PathBuf>,
    },
    /// Whether a unit ran.
    Unit {
        /// It ran, or was on its way.
        active: bool,
    },
    /// Whether a unit was started with the node.
    UnitFile {
        /// It was.
        enabled: bool,
    },
    /// The names of images, or the ids of pods, that were there already, or the names of units that ran.
    Present {
        /// Names or ids.
        names: Vec<String>,
    },
    /// Whether the node took no new pods.
    Cordoned {
        /// It did not take them.
        cordoned: bool,
    },
    /// A node's annotation.
    Annotation {
        /// Its value, if it had one.
        value: Option<String>,
    },
    /// There is nothing to keep.
    Nothing,
}

impl Before {
    /// The text that a file had, from its copy in that folder; `None` if there was no file.
    ///
    /// # Errors
    /// When the copy cannot be read.
    pub fn text(&self, copies: &Path) -> io::Result<Option<String>> {
        match self {
            Self::File { saved } => files::read_copy(saved, copies).map(Some),
            _ => Ok(None),
        }
    }
}
