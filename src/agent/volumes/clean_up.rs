//! Unmounting what was mounted for a pod's volumes. Which mounts are the pod's is told by where they are and
//! of what type, not by the specification: of a pod that a crash or a restart of the machine orphaned,
//! nothing else is known. Any other mount below the pod's folder is somebody else's, and stays.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::host::mounts;

/// The plugins, by kubelet's names for their folders, whose volumes are file systems in memory.
const IN_MEMORY: [&str; 4] = [
    "kubernetes.io~empty-dir",
    "kubernetes.io~projected",
    "kubernetes.io~downward-api",
    "kubernetes.io~secret",
];
const MEMORY_TYPES: [&str; 2] = ["tmpfs", "hugetlbfs"];

/// Unmounts what of a pod's folder is mounted for its volumes. Blocks on the file system.
///
/// # Errors
/// The path and the system's words; `EBUSY` while a process uses it.
pub fn unmount_all(pod_folder: &Path, mountinfo: &Path) -> Result<(), (PathBuf, io::Error)> {
    let folder = match pod_folder.canonicalize() {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err((pod_folder.to_owned(), error)),
    };
    let read = || mounts::read(mountinfo).map_err(|error| (mountinfo.to_owned(), error));
    let ours = |wanted: fn(&[&str], &str) -> bool| -> Result<Vec<PathBuf>, _> {
        let all = read()?.into_iter().filter(|mount| {
            mount.point.strip_prefix(&folder).is_ok_and(|below| wanted(&parts(below), &mount.fs_type))
        });
        Ok(all.map(|mount| mount.point).collect())
    };
    // Parts of volumes first: they hold the volumes.
    for point in ours(is_sub_path)? {
        mounts::unmount_with_all_below(mountinfo, &point).map_err(|error| (point, error))?;
    }
    let points = read()?;
    for point in ours(is_in_memory)? {
        // What somebody mounted inside is found and named by whoever removes the folder.
        if !points.iter().any(|mount| mount.point != point && mount.point.starts_with(&point)) {
            mounts::unmount(&point).map_err(|error| (point, error))?;
        }
    }
    Ok(())
}

fn parts(path: &Path) -> Vec<&str> {
    path.iter().map(|part| part.to_str().unwrap_or("?")).collect()
}

fn is_sub_path(below: &[&str], _: &str) -> bool {
    matches!(below, ["volume-subpaths", _, _, _])
}

fn is_in_memory(below: &[&str], fs_type: &str) -> bool {
    matches!(below, ["volumes", plugin, _] if IN_MEMORY.contains(plugin)) && MEMORY_TYPES.contains(&fs_type)
}
