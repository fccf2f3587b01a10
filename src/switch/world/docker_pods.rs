//! The end of pods' containers in Docker: applications first, in the time that their pods grant, while the network
//! still serves them; then the network, for which the sandbox must still live; then the sandbox. So does kubelet.
//!
//! Without dockershim nobody but the CNI cache knows how the network was made. With cri-dockerd it is asked, as
//! long as it answers.
//!
//! Docker that is down with nothing of it alive has no such pods. With live-restore, or after a crash, containers go
//! on without it; then it is started, as nobody else ends them with their exit told and their mounts undone, and
//! stopped again behind it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::{Node, Report, cni, cri, shims, units};
use crate::{
    api::{cri::ContainerState, labels},
    cri::{Cri as _, CriTimeouts},
    switch::docker::{Docker, DockerError},
};

/// dockershim's and cri-dockerd's label: what a container is to its pod. (pkg/kubelet/dockershim/labels.go)
pub(super) const TYPE: &str = "io.kubernetes.docker.type";
const SANDBOX: &str = "podsandbox";
/// Kubelet's annotations of a container are labels of that prefix in Docker.
const GRACE: &str = "annotation.io.kubernetes.pod.terminationGracePeriod";
/// A pod without one of its own.
const DEFAULT_GRACE: u32 = 30;
/// Nobody waits longer for one pod here.
const MAX_GRACE: u32 = 120;
/// A sandbox has nothing to save.
const SANDBOX_GRACE: u32 = 2;
/// So many containers end at once, and so many networks.
const AT_ONCE: usize = 64;
const NETWORKS_AT_ONCE: usize = 4;
/// Docker that was started takes up its containers first.
const STARTS: Duration = Duration::from_secs(120);
const CRI: Duration = Duration::from_secs(60);
/// Names in a message.
const NAMED: usize = 10;

/// Docker's unit, and the one that starts it when somebody asks.
pub(super) const SERVICE: &str = "docker.service";
pub(super) const SOCKET: &str = "docker.socket";

/// A container of a pod's, as `GET /containers/json` tells of it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Container {
    #[serde(rename = "Id")]
    pub(super) id: String,
    #[serde(default, rename = "Labels")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default, rename = "State")]
    state: String,
}

impl Container {
    pub(super) fn is_sandbox(&self) -> bool {
        self.labels.get(TYPE).is_some_and(|kind| kind == SANDBOX)
    }

    fn lives(&self) -> bool {
        !matches!(self.state.as_str(), "created" | "exited" | "dead" | "removing")
    }

    pub(super) fn runs(&self) -> bool {
        self.state == "running"
    }

    fn grace(&self) -> u32 {
        let told = self.labels.get(GRACE).and_then(|seconds| seconds.parse::<u32>().ok());
        told.unwrap_or(DEFAULT_GRACE).min(MAX_GRACE)
    }

    /// `NAMESPACE/NAME` of its pod.
    pub(super) fn pod(&self) -> String {
        let label = |key: &str| self.labels.get(key).map_or("?", String::as_str);
        format!("{}/{}", label(labels::POD_NAMESPACE), label(labels::POD_NAME))
    }
}

/// A container alone, as `GET /containers/ID/json` tells of it.
#[derive(Deserialize)]
pub(super) struct Inspected {
    #[serde(rename = "State")]
    pub(super) state: InspectedState,
}

#[derive(Deserialize)]
pub(super) struct InspectedState {
    #[serde(rename = "Pid")]
    pub(super) pid: i32,
}

/// The containers of pods, dead ones too.
pub(super) async fn containers(docker: &Docker) -> Result<Vec<Container>, DockerError> {
    let all = all_containers(docker).await?;
    Ok(all.into_iter().filter(|container| container.labels.contains_key(TYPE)).collect())
}

/// All containers, dead ones too.
pub(super) async fn all_containers(docker: &Docker) -> Result<Vec<Container>, DockerError> {
    docker.get_json("/containers/json?all=1").await
}

impl<R: Report> Node<R> {
    /// Ends the containers of all pods.
    pub(super) async fn stop_docker_pods(
        &mut self,
        socket: &Path,
        cri: Option<&str>,
        cni_bin_dirs: &[PathBuf],
    ) -> Result<(), String> {
        let docker = Docker::new(socket);
        match containers(&docker).await {
            Ok(all) => self.end(&docker, all, cri, cni_bin_dirs).await,
            // Whatever is wrong with it: what matters is whether anything lives.
            Err(error) => {
                if shims::alive(&self.paths.proc, "moby", None).is_empty() {
                    return Ok(());
                }
                self.report
                    .warn(&format!("{error}; containers live without it, so it is started to end them"));
                let systemd = self.systemd().await?;
                let socket_ran = units::is_active(&systemd, SOCKET).await?;
                let ended = match self.start_docker(&docker).await {
                    Ok(all) => self.end(&docker, all, cri, cni_bin_dirs).await,
                    Err(error) => Err(error),
                };
                if !socket_ran {
                    units::stop(&systemd, SOCKET).await?;
                }
                units::stop(&systemd, SERVICE).await?;
                ended
            }
        }
    }

    /// Starts Docker, waits until it answers, and gives the containers of pods.
    pub(super) async fn start_docker(&self, docker: &Docker) -> Result<Vec<Container>, String> {
        units::start(&self.systemd().await?, SERVICE).await?;
        let deadline = Instant::now() + STARTS;
        loop {
            match containers(docker).await {
                Ok(all) => return Ok(all),
                Err(error) if Instant::now() >= deadline => return Err(error.to_string()),
                Err(_not_yet) => sleep(Duration::from_secs(1)).await,
            }
        }
    }

    async fn end(
        &mut self,
        docker: &Docker,
        all: Vec<Container>,
        cri: Option<&str>,
        cni_bin_dirs: &[PathBuf],
    ) -> Result<(), String> {
        let live: Vec<Container> = all.into_iter().filter(Container::lives).collect();
        let (sandboxes, applications): (Vec<_>, Vec<_>) = live.into_iter().partition(Container::is_sandbox);
        self.stop_all(docker, &applications).await;
        let asked = match cri {
            Some(endpoint) if !sandboxes.is_empty() => match stop_sandboxes(endpoint).await {
                Ok(()) => true,
                Err(error) => {
                    self.report.warn(&format!("{error}: pods' networks are taken down by the CNI cache"));
                    false
                }
            },
            _ => false,
        };
        if !asked {
            self.take_networks_down(docker, &sandboxes, cni_bin_dirs).await;
        }
        self.stop_all(docker, &sandboxes).await;
        let left = containers(docker).await.map_err(|error| error.to_string())?;
        let left: Vec<String> = left
            .iter()
            .filter(|container| container.lives())
            .map(|container| {
                format!("{} of pod {}", container.id.get(..12).unwrap_or(&container.id), container.pod())
            })
            .collect();
        if left.is_empty() {
            return Ok(());
        }
        let named: Vec<&str> = left.iter().take(NAMED).map(String::as_str).collect();
        Err(format!(
            "{} containers of pods in Docker do not end: {}. See `docker inspect`, and end their processes",
            left.len(),
            named.join(", ")
        ))
    }

    /// Those that do not end are found out in the end.
    async fn stop_all(&mut self, docker: &Docker, all: &[Container]) {
        let stops = all.iter().map(|container| async {
            let grace = if container.is_sandbox() { SANDBOX_GRACE } else { container.grace() };
            docker.stop_container(&container.id, grace).await
        });
        let stops: Vec<_> = stops.collect();
        let ended: Vec<_> = stream::iter(stops).buffer_unordered(AT_ONCE).collect().await;
        for error in ended.into_iter().filter_map(Result::err) {
            self.report.warn(&error.to_string());
        }
    }

    /// What cannot be taken down is told and left: the pods go all the same.
    async fn take_networks_down(&mut self, docker: &Docker, sandboxes: &[Container], folders: &[PathBuf]) {
        let attachments = cni::attachments(&self.paths.cni_caches);
        let attachments = &attachments;
        let deletes: Vec<_> = sandboxes
            .iter()
            .map(|sandbox| async move {
                let of_pod: Vec<_> =
                    attachments.iter().filter(|found| found.container == sandbox.id).collect();
                // A pod of the host's network has none.
                if of_pod.is_empty() {
                    return Vec::new();
                }
                let path = format!("/containers/{}/json", sandbox.id);
                let pid = docker.get_json::<Inspected>(&path).await.map_or(0, |found| found.state.pid);
                let namespace = (pid > 0).then(|| PathBuf::from(format!("/proc/{pid}/ns/net")));
                let mut problems = Vec::new();
                for attachment in of_pod {
                    problems.extend(attachment.delete(namespace.as_deref(), folders).await.err());
                }
                problems.iter().map(|problem| format!("pod {}: {problem}", sandbox.pod())).collect()
            })
            .collect();
        let problems: Vec<Vec<String>> =
            stream::iter(deletes).buffer_unordered(NETWORKS_AT_ONCE).collect().await;
        for problem in problems.into_iter().flatten() {
            self.report.warn(&format!("the network is not taken down of {problem}"));
        }
    }
}

/// Has cri-dockerd take networks down and end sandboxes; applications that it started meanwhile too.
async fn stop_sandboxes(endpoint: &str) -> Result<(), String> {
    let client = cri(endpoint, CriTimeouts::from_request_timeout(CRI))?;
    let told = |error: crate::cri::CriError| error.to_string();
    for container in client.list_containers(None).await.map_err(told)? {
        if container.state == i32::from(ContainerState::ContainerRunning) {
            client.stop_container(&container.id, 0).await.map_err(told)?;
        }
    }
    let all = client.list_pod_sandboxes(None).await.map_err(told)?;
    let stops: Vec<_> = all.iter().map(|sandbox| client.stop_pod_sandbox(&sandbox.id)).collect();
    let stopped: Vec<_> = stream::iter(stops).buffer_unordered(NETWORKS_AT_ONCE).collect().await;
    stopped.into_iter().collect::<Result<Vec<()>, _>>().map(drop).map_err(told)
}
