//! Container logs on disk. The runtime writes them; the agent makes the folders, and the links by which log
//! collectors find a log from a container's name.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, symlink},
    path::Path,
};

use k8s_openapi::api::core::v1::Pod;

use super::pods::paths::NodePaths;
use crate::{
    api::{ObservedContainer, PodFullName},
    host::log_file::LogRoot,
};

/// Log folders are readable by log collectors.
const LOG_DIR_MODE: u32 = 0o755;

/// Makes the log folders of a pod and its containers. Blocks on the file system.
///
/// # Errors
/// As `mkdir`.
pub fn set_up<'a>(pod: &Pod, containers: impl Iterator<Item = &'a str>, paths: &NodePaths) -> io::Result<()> {
    let folder = paths.pod_log(pod);
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(LOG_DIR_MODE);
    builder.create(&folder)?;
    for container in containers {
        builder.create(folder.join(container))?;
    }
    builder.create(&paths.container_logs)
}

/// Links a container's log. Blocks on the file system.
///
/// # Errors
/// As `symlink`; a link that is there is fine, for its name holds the container's id.
pub fn link(log: &Path, link: &Path) -> io::Result<()> {
    match symlink(log, link) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Removes a container's log, what was rotated from it, and its link. A log outside the node's log folder is
/// not ours to remove. Blocks on the file system.
///
/// # Errors
/// As `unlink`; what is gone is fine.
pub fn remove(pod: &PodFullName, container: &ObservedContainer, paths: &NodePaths) -> io::Result<()> {
    gone(fs::remove_file(paths.container_log_link(pod, &container.name, container.id.as_str())))?;
    let Ok(below) = Path::new(&container.log_path).strip_prefix(&paths.pod_logs) else { return Ok(()) };
    let Some(root) = LogRoot::open(&paths.pod_logs)? else { return Ok(()) };
    root.log(below)?.map_or(Ok(()), |log| log.remove_all())
}

/// Removes links below the link folder whose log, one of ours, is no more. Those of containers that run
/// stay: their log is away for a moment when it is rotated. Blocks on the file system.
///
/// # Errors
/// As `readdir` and `unlink`.
pub fn sweep_links(paths: &NodePaths, runs: impl Fn(&str) -> bool) -> io::Result<()> {
    let entries = match fs::read_dir(&paths.container_logs) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let link = entry?.path();
        let dangling =
            fs::read_link(&link).is_ok_and(|log| log.starts_with(&paths.pod_logs) && !log.exists());
        if dangling && !container_of(&link).is_some_and(&runs) {
            gone(fs::remove_file(&link))?;
        }
    }
    Ok(())
}

/// The container's id in a link's name, see [`NodePaths::container_log_link`].
fn container_of(link: &Path) -> Option<&str> {
    link.file_stem()?.to_str()?.rsplit_once('-').map(|(_, id)| id)
}

fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dangling_links_of_ours_are_swept() {
        let root = tempfile::tempdir().unwrap();
        let paths = NodePaths {
            root: root.path().join("root"),
            pod_logs: root.path().join("pods"),
            container_logs: root.path().join("links"),
        };
        sweep_links(&paths, |_| false).unwrap();
        fs::create_dir_all(&paths.pod_logs).unwrap();
        fs::create_dir_all(&paths.container_logs).unwrap();
        let live = paths.pod_logs.join("live.log");
        fs::write(&live, "x").unwrap();
        for (name, target) in [
            ("live", live.clone()),
            ("dead", paths.pod_logs.join("dead.log")),
            ("pod_ns_c-0123.log", paths.pod_logs.join("moved.log")),
            ("pod_ns_c-4567.log", paths.pod_logs.join("moved.log")),
            ("foreign", root.path().join("elsewhere.log")),
        ] {
            link(&target, &paths.container_logs.join(name)).unwrap();
        }
        link(&live, &paths.container_logs.join("live")).unwrap();
        sweep_links(&paths, |id| id == "0123").unwrap();
        let left: Vec<_> = ["live", "dead", "foreign", "pod_ns_c-0123.log", "pod_ns_c-4567.log"]
            .into_iter()
            .filter(|name| paths.container_logs.join(name).symlink_metadata().is_ok())
            .collect();
        assert_eq!(left, ["live", "foreign", "pod_ns_c-0123.log"]);
    }
}
