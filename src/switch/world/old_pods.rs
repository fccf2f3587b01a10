//! What pods left with Docker, once they run elsewhere: dead containers, dockershim's checkpoints, and what CNI still
//! holds for them.

use std::{fs, path::Path};

use futures_util::{StreamExt as _, stream};

use super::{
    Node, Report, cni,
    docker_pods::{Container, SERVICE, SOCKET, containers},
    others, units,
};
use crate::switch::docker::Docker;

/// So many containers are removed at once: Docker's storage has one lock.
const AT_ONCE: usize = 4;
/// Names in a message.
const NAMED: usize = 5;

impl<R: Report> Node<R> {
    /// Removes it.
    pub(super) async fn remove_old_pods(
        &mut self,
        socket: &Path,
        stop_docker: bool,
        dockershim: &Path,
    ) -> Result<(), String> {
        let docker = Docker::new(socket);
        let all = match containers(&docker).await {
            Ok(all) => Ok(all),
            Err(_down) => self.start_docker(&docker).await,
        };
        let removed = match all {
            Ok(all) => remove_containers(&docker, all).await,
            Err(error) => Err(error),
        };
        // Whatever came of it, it is to be down behind it, and not started by whoever asks for it.
        if stop_docker {
            let others = others::running(&docker, &self.paths.proc).await;
            let systemd = self.systemd().await?;
            units::stop(&systemd, SOCKET).await?;
            units::stop(&systemd, SERVICE).await?;
            others::end(others).await?;
        }
        let mut sandboxes = removed?;
        sandboxes.extend(remove_checkpoints(dockershim)?);
        cni::release(&self.paths.cni_networks, &sandboxes)?;
        cni::forget(&self.paths.cni_caches, &sandboxes)
    }
}

/// Removes containers, those of a pod before its sandbox, and gives the sandboxes.
async fn remove_containers(docker: &Docker, all: Vec<Container>) -> Result<Vec<String>, String> {
    let (sandboxes, applications): (Vec<_>, Vec<_>) = all.into_iter().partition(Container::is_sandbox);
    let mut problems = Vec::new();
    for group in [&applications, &sandboxes] {
        let removals: Vec<_> = group.iter().map(|container| docker.remove_container(&container.id)).collect();
        let removed: Vec<_> = stream::iter(removals).buffer_unordered(AT_ONCE).collect().await;
        problems.extend(removed.into_iter().filter_map(Result::err).map(|error| error.to_string()));
    }
    if !problems.is_empty() {
        let named: Vec<&str> = problems.iter().take(NAMED).map(String::as_str).collect();
        return Err(format!("{} containers are not removed: {}", problems.len(), named.join("; ")));
    }
    Ok(sandboxes.into_iter().map(|sandbox| sandbox.id).collect())
}

/// Removes dockershim's checkpoints, a file for each sandbox, and gives the sandboxes.
fn remove_checkpoints(dockershim: &Path) -> Result<Vec<String>, String> {
    let folder = dockershim.join("sandbox");
    // A link there is nobody's doing that we know.
    if !fs::symlink_metadata(&folder).is_ok_and(|found| found.is_dir()) {
        return Ok(Vec::new());
    }
    let told = |error: std::io::Error| format!("{}: {error}", folder.display());
    let mut sandboxes = Vec::new();
    for entry in fs::read_dir(&folder).map_err(told)? {
        let entry = entry.map_err(told)?;
        if entry.file_type().map_err(told)?.is_dir() {
            continue;
        }
        sandboxes.extend(entry.file_name().into_string().ok());
        match fs::remove_file(entry.path()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(told(error)),
            _ => {}
        }
    }
    Ok(sandboxes)
}
