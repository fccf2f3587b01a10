//! The node itself: what the steps of a plan are done to, taken back and verified on.
//!
//! Each action has a file of its own. All waits are bounded, all programs are found on the path and started without
//! a shell, and whatever is as wished already is left alone, so that a step can be done again after a crash.

mod agent;
mod back;
mod beforehand;
mod cluster;
#[cfg(test)]
mod cluster_tests;
mod cni;
mod ctr;
mod docker_pods;
mod dump;
mod images;
mod new_pods;
mod old_pods;
mod others;
mod program;
mod runtime;
mod sandbox;
mod shims;
#[cfg(test)]
mod tests;
mod units;

use std::path::{Path, PathBuf};

pub use back::gone;
pub use beforehand::try_out;
pub use cluster::in_the_way;
pub(super) use images::normalized;

use super::{
    file_steps,
    rooted::Rooted,
    steps::{Action, Before, Step},
    transaction::World,
};
use crate::{
    cri::{CriClient, CriTimeouts, RuntimeEndpoint},
    host::systemd::Systemd,
    kube::Cordon,
};

/// Who is told what is being done. Nothing of it is secret.
pub trait Report {
    /// A step begins, or is begun to be taken back.
    fn step(&mut self, step: &Step, undone: bool);

    /// Something did not go as it should, and the change goes on all the same.
    fn warn(&mut self, text: &str);

    /// What is waited for, and why it takes its time. Every few seconds at most.
    fn waits(&mut self, text: &str);

    /// How far the images are. Several times a second at most.
    fn carried(&mut self, progress: &Carried<'_>);
}

/// How far the images are that go from Docker to containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carried<'a> {
    /// The one on its way, as Docker has it.
    pub image: &'a str,
    /// Its number, from 1.
    pub number: usize,
    /// Of how many.
    pub of: usize,
    /// Bytes of it that containerd has taken so far.
    pub bytes: u64,
    /// Whether it is there: this one is told last. One that was there before has 0 bytes.
    pub done: bool,
}

/// Where things are on the node, if not where they are on all nodes.
#[derive(Debug, Clone)]
pub struct Paths {
    /// `containerd`; `None` for the one on the path.
    pub containerd: Option<PathBuf>,
    /// `ctr`; `None` for the one beside containerd or on the path.
    pub ctr: Option<PathBuf>,
    /// The snapshotter that CRI is configured to have, into which images are unpacked. With `None` it is containerd's
    /// default one, if that works here; else images are unpacked when their first container is made.
    pub snapshotter: Option<String>,
    /// Where libcni keeps what it did, for all its users: the folders above `results`.
    pub cni_caches: Vec<PathBuf>,
    /// Where the plugin `host-local` keeps the addresses that it gave: a folder for each network.
    pub cni_networks: PathBuf,
    /// The cgroup of the sandbox that is tested with, a plain name.
    pub cgroup: String,
    /// Where processes are seen.
    pub proc: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Self {
            containerd: None,
            ctr: None,
            snapshotter: None,
            // That of dockershim and cri-dockerd (`--cni-cache-dir`), and that of libcni where it is told none.
            cni_caches: ["/var/lib/cni/cache", "/var/lib/cni"].map(PathBuf::from).into(),
            cni_networks: "/var/lib/cni/networks".into(),
            cgroup: "nodectlswitch".to_owned(),
            proc: "/proc".into(),
        }
    }
}

/// The node.
pub struct Node<R> {
    report: R,
    paths: Paths,
    files: Rooted,
    /// When a unit was last started here: what the API server hears of the agent after that is new.
    restarted: Option<jiff::Timestamp>,
    /// systemd, if it is not to be connected to for each action.
    systemd: Option<Systemd>,
}

impl<R: Report> Node<R> {
    /// The node that this program runs on.
    pub fn new(report: R, paths: Paths) -> Self {
        Self { report, paths, files: Rooted::node(), restarted: None, systemd: None }
    }

    /// With this connection to systemd for all that is done.
    #[must_use]
    pub fn with_systemd(mut self, systemd: Systemd) -> Self {
        self.systemd = Some(systemd);
        self
    }

    /// A connection for each action: in between, the bus or systemd may have been restarted.
    async fn systemd(&self) -> Result<Systemd, String> {
        if let Some(systemd) = &self.systemd {
            return Ok(systemd.clone());
        }
        Systemd::connect().await.map_err(|error| error.to_string())
    }
}

/// A client of a CRI endpoint, v1 or v1alpha2.
fn cri(endpoint: &str, timeouts: CriTimeouts) -> Result<CriClient, String> {
    let endpoint: RuntimeEndpoint = endpoint.parse().map_err(|error| format!("{error}"))?;
    Ok(CriClient::connect_lazy_to_any(endpoint, None, timeouts))
}

/// The socket of an endpoint.
fn socket(endpoint: &str) -> Result<PathBuf, String> {
    let endpoint: RuntimeEndpoint = endpoint.parse().map_err(|error| format!("{error}"))?;
    Ok(endpoint.path().to_owned())
}

impl<R: Report> World for Node<R> {
    async fn before(&mut self, action: &Action, step: usize, copies: &Path) -> Result<Before, String> {
        Ok(match action {
            Action::WriteFile { path, seen, .. } => {
                file_steps::before(&self.files, path, seen.as_ref(), step, copies)?
            }
            Action::RemoveFile { path } => file_steps::before(&self.files, path, None, step, copies)?,
            Action::StopUnit { unit } | Action::RestartUnit { unit } => {
                Before::Unit { active: units::is_active(&self.systemd().await?, unit).await? }
            }
            Action::DisableUnit { unit } | Action::EnableUnit { unit } => {
                Before::UnitFile { enabled: units::is_enabled(&self.systemd().await?, unit).await? }
            }
            Action::CarryImages { containerd, .. } => {
                Before::Present { names: self.images_before(containerd).await? }
            }
            Action::StartWhenUndone { units } => {
                let systemd = self.systemd().await?;
                let mut names = Vec::new();
                for unit in units {
                    if units::is_active(&systemd, unit).await? {
                        names.push(unit.clone());
                    }
                }
                Before::Present { names }
            }
            Action::StopPodsWhenUndone { endpoint } => {
                Before::Present { names: self.pods_before(endpoint).await? }
            }
            // Our own cordon, of a run before this one, is to be taken back with this one's.
            Action::Cordon { kubeconfig, node } => {
                Before::Cordoned { cordoned: cluster::cordoned(kubeconfig, node).await? == Cordon::Others }
            }
            Action::Uncordon { kubeconfig, node } => {
                Before::Cordoned { cordoned: cluster::cordoned(kubeconfig, node).await? != Cordon::No }
            }
            Action::AnnotateNode { kubeconfig, node, .. } => {
                Before::Annotation { value: cluster::annotation(kubeconfig, node).await? }
            }
            Action::ReloadUnits
            | Action::StopDockerPods { .. }
            | Action::CheckContainerdConfig { .. }
            | Action::VerifyRuntime { .. }
            | Action::TestSandbox { .. }
            | Action::VerifyAgent { .. }
            | Action::VerifyWhenUndone { .. }
            | Action::Drain { .. }
            | Action::VerifyNode { .. }
            | Action::NodeReadyWhenUndone { .. }
            | Action::RemoveOldPods { .. } => Before::Nothing,
        })
    }

    async fn act(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::WriteFile { path, text, mode, .. } => file_steps::write(&self.files, path, text, *mode),
            Action::RemoveFile { path } => file_steps::remove(&self.files, path),
            Action::StopUnit { unit } => units::stop(&self.systemd().await?, unit).await,
            Action::RestartUnit { unit } => {
                self.restarted = Some(jiff::Timestamp::now());
                units::restart(&self.systemd().await?, unit).await
            }
            Action::DisableUnit { unit } => units::disable(&self.systemd().await?, unit).await,
            Action::EnableUnit { unit } => units::enable(&self.systemd().await?, unit).await,
            Action::ReloadUnits => units::reload(&self.systemd().await?).await,
            Action::CarryImages { docker, containerd, images } => {
                self.carry_images(docker, containerd, images).await
            }
            Action::StopDockerPods { docker, cri, cni_bin_dirs } => {
                Box::pin(self.stop_docker_pods(docker, cri.as_deref(), cni_bin_dirs)).await
            }
            Action::StartWhenUndone { .. }
            | Action::StopPodsWhenUndone { .. }
            | Action::VerifyWhenUndone { .. }
            | Action::NodeReadyWhenUndone { .. } => Ok(()),
            Action::CheckContainerdConfig { config, expected } => {
                self.check_containerd_config(config, expected).await
            }
            Action::VerifyRuntime { endpoint, network, timeout } => {
                self.verify_runtime(endpoint, *network, *timeout).await
            }
            Action::TestSandbox { endpoint, network, cgroup_driver } => {
                Box::pin(self.test_sandbox(endpoint, *network, cgroup_driver)).await
            }
            Action::VerifyAgent { unit, healthz, endpoint, static_pods, timeout } => {
                let pods = agent::Pods { docker: None, endpoint: Some(endpoint), wanted: static_pods };
                agent::verify(&self.systemd().await?, unit, healthz.as_deref(), &pods, *timeout).await
            }
            Action::Cordon { kubeconfig, node } => cluster::cordon(kubeconfig, node).await,
            Action::Drain { kubeconfig, node, timeout, unmanaged, delete_emptydir_data } => {
                self.drain(kubeconfig, node, *timeout, *unmanaged, *delete_emptydir_data).await
            }
            Action::Uncordon { kubeconfig, node } => cluster::uncordon(kubeconfig, node).await,
            Action::AnnotateNode { kubeconfig, node, endpoint } => {
                cluster::annotate(kubeconfig, node, Some(endpoint)).await
            }
            Action::VerifyNode { kubeconfig, node, timeout } => {
                cluster::verify(kubeconfig, node, *timeout, self.restarted).await
            }
            Action::RemoveOldPods { docker, stop_docker, dockershim } => {
                Box::pin(self.remove_old_pods(docker, *stop_docker, dockershim)).await
            }
        }
    }

    async fn keep(&mut self, action: &Action) -> Result<(), String> {
        match action {
            Action::RestartUnit { unit } => units::start(&self.systemd().await?, unit).await,
            other => self.act(other).await,
        }
    }

    async fn undo(&mut self, action: &Action, before: &Before, copies: &Path) -> Result<(), String> {
        match (action, before) {
            (Action::WriteFile { path, .. } | Action::RemoveFile { path }, before) => {
                file_steps::undo(&self.files, path, before, copies)
            }
            (Action::StopUnit { unit } | Action::RestartUnit { unit }, Before::Unit { active }) => {
                let systemd = self.systemd().await?;
                if *active {
                    self.restarted = Some(jiff::Timestamp::now());
                    units::start(&systemd, unit).await
                } else {
                    units::stop(&systemd, unit).await
                }
            }
            (Action::DisableUnit { unit } | Action::EnableUnit { unit }, Before::UnitFile { enabled }) => {
                let systemd = self.systemd().await?;
                if *enabled {
                    units::enable(&systemd, unit).await
                } else {
                    units::disable(&systemd, unit).await
                }
            }
            (Action::ReloadUnits, _) => units::reload(&self.systemd().await?).await,
            (Action::CarryImages { containerd, images, .. }, Before::Present { names }) => {
                self.remove_images(containerd, images, names).await;
                Ok(())
            }
            (Action::StartWhenUndone { .. }, Before::Present { names }) => {
                let systemd = self.systemd().await?;
                for unit in names {
                    units::start(&systemd, unit).await?;
                }
                Ok(())
            }
            (Action::StopPodsWhenUndone { endpoint }, Before::Present { names }) => {
                self.stop_new_pods(endpoint, names).await
            }
            (Action::VerifyWhenUndone { unit, healthz, docker, endpoint, static_pods, timeout }, _) => {
                let pods = agent::Pods {
                    docker: docker.as_deref(),
                    endpoint: endpoint.as_deref(),
                    wanted: static_pods,
                };
                agent::verify(&self.systemd().await?, unit, healthz.as_deref(), &pods, *timeout).await
            }
            (Action::NodeReadyWhenUndone { kubeconfig, node, timeout }, _) => {
                if let Err(problem) = cluster::verify(kubeconfig, node, *timeout, self.restarted).await {
                    self.report.warn(&format!("everything is put back, and {problem}"));
                }
                Ok(())
            }
            (Action::Cordon { kubeconfig, node }, Before::Cordoned { cordoned: false }) => {
                cluster::uncordon(kubeconfig, node).await
            }
            (Action::Uncordon { kubeconfig, node }, Before::Cordoned { cordoned: true }) => {
                cluster::cordon(kubeconfig, node).await
            }
            (Action::AnnotateNode { kubeconfig, node, .. }, Before::Annotation { value }) => {
                cluster::annotate(kubeconfig, node, value.as_deref()).await
            }
            (
                Action::Cordon { .. }
                | Action::Uncordon { .. }
                | Action::StopDockerPods { .. }
                | Action::CheckContainerdConfig { .. }
                | Action::VerifyRuntime { .. }
                | Action::TestSandbox { .. }
                | Action::VerifyAgent { .. }
                | Action::Drain { .. }
                | Action::VerifyNode { .. }
                | Action::RemoveOldPods { .. },
                _,
            ) => Ok(()),
            (_, before) => Err(file_steps::of_another(before)),
        }
    }

    fn tell(&mut self, step: &Step, undone: bool) {
        self.report.step(step, undone);
    }

    fn warn(&mut self, step: &Step, cause: &str) {
        self.report.warn(&format!("{}: {cause}", step.why));
    }
}
