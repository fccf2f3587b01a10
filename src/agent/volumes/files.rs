//! Volumes whose files the agent writes: `configMap`, `secret`, `downwardAPI`, and `projected` of such parts. Their
//! files follow the objects, and the pod's labels and annotations, while it runs, all of a volume at once.
//!
//! Secrets and tokens are in a tmpfs and never on the disk, as with kubelet. The rest is on the disk below the pod's
//! folder. An `fsGroup` may read them.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Pod, Volume};

use super::{VolumeContext, VolumeError, make_agent_dir};
use crate::{
    agent::pods::paths::NodePaths,
    api::PodExt as _,
    host::{
        atomic_dir::{self, NewFile},
        mounts,
        ownership::{GroupMay, give_to_group},
    },
    policy::{
        downward::{Downward, MAX_VOLUME_BYTES},
        volume_files::{is_secret, is_written, volume_files},
    },
};

/// Only the agent writes there, and containers have it mounted read-only.
const FOLDER_MODE: u32 = 0o755;
/// Bytes of a file system in memory: the old files and the new, with what the pages round up to.
const MEMORY: u64 = 4 * MAX_VOLUME_BYTES as u64;

/// Whether a pod has such a volume.
pub fn has_any(pod: &Pod) -> bool {
    pod.spec().volumes.iter().flatten().any(is_written)
}

/// Where on the host such a volume is; `None` for another, and for names that cannot be folders.
pub fn folder(pod: &Pod, volume: &Volume, paths: &NodePaths) -> Option<PathBuf> {
    let plugin = if volume.downward_api.is_some() {
        "kubernetes.io~downward-api"
    } else if volume.config_map.is_some() {
        "kubernetes.io~configmap"
    } else if volume.secret.is_some() {
        "kubernetes.io~secret"
    } else {
        volume.projected.as_ref()?;
        "kubernetes.io~projected"
    };
    paths.volume(&pod.uid(), plugin, &volume.name)
}

/// Makes the files of all such volumes what they should be, each for itself.
///
/// # Errors
/// As [`set_up`], of the first that failed.
pub fn refresh(cx: &VolumeContext<'_>) -> Result<(), VolumeError> {
    let volumes = cx.pod.spec().volumes.iter().flatten().filter(|volume| is_written(volume));
    volumes.map(|volume| set_up(cx, volume)).fold(Ok(()), Result::and)
}

/// Makes the files of a volume what they should be. Doing it twice writes nothing. Blocks on the file
/// system.
///
/// # Errors
/// When a text cannot be had or a file not be written; the volume is then as it was.
pub(super) fn set_up(cx: &VolumeContext<'_>, volume: &Volume) -> Result<(), VolumeError> {
    let (pod, paths) = (cx.pod, cx.paths);
    let content = |why: String| VolumeError::Content { volume: volume.name.clone(), why };
    let at =
        folder(pod, volume, paths).ok_or_else(|| VolumeError::Unsupported { volume: volume.name.clone() })?;
    let group = pod.spec().security_context.as_ref().and_then(|security| security.fs_group);
    let group = group.and_then(|gid| u32::try_from(gid).ok());
    let give = |folder: &Path| group.map_or(Ok(()), |gid| give_to_group(folder, gid, GroupMay::Read));
    let more = group.map_or(0, |_| GroupMay::Read.mode());
    let told = Downward { pod, pod_ips: &[], node: cx.node };
    let files = volume_files(volume, &told, cx.given).map_err(|error| content(error.message))?;
    let files = files.into_iter().map(|(path, file)| {
        (path, NewFile { content: file.content, mode: file.mode | more, group, owner: file.owner })
    });
    let made = make_folder(&at, is_secret(volume), cx.mountinfo).and_then(|found| match group {
        // New, or of another group before.
        Some(gid) if found != gid => give(&at),
        _ => Ok(()),
    });
    made.map_err(|source| VolumeError::Io { volume: volume.name.clone(), path: at.clone(), source })?;
    atomic_dir::write(&at, &files.collect(), give).map_err(|error| content(error.to_string()))?;
    Ok(())
}

/// Has the folder there, with a file system in memory if there is to be one. Answers its group.
fn make_folder(at: &Path, in_memory: bool, mountinfo: &Path) -> io::Result<u32> {
    if let Some(parent) = at.parent() {
        make_agent_dir(parent)?;
    }
    match fs::DirBuilder::new().mode(FOLDER_MODE).create(at) {
        Ok(()) => fs::set_permissions(at, fs::Permissions::from_mode(FOLDER_MODE))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && at.is_dir() => {}
        Err(error) => return Err(error),
    }
    if in_memory && mounts::at(mountinfo, at)?.is_empty() {
        mounts::mount_tmpfs(at, MEMORY)?;
        fs::set_permissions(at, fs::Permissions::from_mode(FOLDER_MODE))?;
    }
    Ok(fs::metadata(at)?.gid())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodSecurityContext;
    use serde_json::json;

    use super::*;
    use crate::policy::{given::Given, node::NodeSettings};

    fn pod(volume: &serde_json::Value) -> Pod {
        let pod = json!({
            "metadata": {"name": "p", "uid": "u", "labels": {"app": "web"}},
            "spec": {
                "containers": [{"name": "c", "resources": {"limits": {"cpu": "1500m"}}}],
                "volumes": [volume],
            },
        });
        serde_json::from_value(pod).unwrap()
    }

    fn paths(root: &Path) -> NodePaths {
        NodePaths { root: root.into(), pod_logs: root.join("logs"), container_logs: root.join("links") }
    }

    fn write(root: &Path, pod: &Pod) -> Result<(), VolumeError> {
        refresh(&VolumeContext {
            pod,
            paths: &paths(root),
            mountinfo: "/proc/self/mountinfo".as_ref(),
            node: &NodeSettings::default(),
            given: &Given::default(),
        })
    }

    #[test]
    fn files_follow_the_pod_and_are_its_groups() {
        let root = tempfile::tempdir().unwrap();
        let mut pod = pod(&json!({"name": "v", "downwardAPI": {"defaultMode": 0o440, "items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "d/cpu", "mode": 0o400, "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}},
        ]}}));
        let write = |pod: &Pod| write(root.path(), pod);
        write(&pod).unwrap();
        let at = root.path().join("pods/u/volumes/kubernetes.io~downward-api/v");
        let read = |path: &str| fs::read_to_string(at.join(path)).unwrap();
        assert_eq!((read("labels"), read("d/cpu")), ("app=\"web\"".to_owned(), "2".to_owned()));
        let mode = |path: &str| fs::metadata(at.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(""), mode("labels"), mode("d/cpu")), (0o755, 0o440, 0o400));
        let data = || fs::read_link(at.join("..data")).unwrap();
        let before = data();
        write(&pod).unwrap();
        assert_eq!(data(), before);
        pod.metadata.labels = Some([("app".to_owned(), "db".to_owned())].into());
        pod.spec.as_mut().unwrap().security_context =
            Some(PodSecurityContext { fs_group: Some(4321), ..PodSecurityContext::default() });
        write(&pod).unwrap();
        assert_eq!(read("labels"), "app=\"db\"");
        assert_ne!(data(), before);
        let group = |path: &str| fs::metadata(at.join(path)).unwrap().gid();
        assert_eq!((group(""), group("labels"), group("d/cpu")), (4321, 4321, 4321));
        // The group reads what was root's alone, and writes nothing.
        assert_eq!((mode(""), mode("d"), mode("d/cpu")), (0o2755, 0o2755, 0o440));
        let given = data();
        write(&pod).unwrap();
        assert_eq!(data(), given);
        pod.spec.as_mut().unwrap().security_context.as_mut().unwrap().fs_group = Some(4322);
        write(&pod).unwrap();
        assert_eq!((data(), group(""), group("d/cpu")), (given, 4322, 4322));
        // An agent was killed when it had given away the folder alone.
        nix::unistd::chown(&at.join("d/cpu"), None, Some(4321.into())).unwrap();
        write(&pod).unwrap();
        assert_eq!((group(""), group("d/cpu")), (4322, 4322));
        // Nobody's again: what a group could read is root's alone.
        pod.spec.as_mut().unwrap().security_context = None;
        write(&pod).unwrap();
        assert_eq!(mode("d/cpu"), 0o400);
    }

    #[test]
    fn parts_are_put_together() {
        let root = tempfile::tempdir().unwrap();
        let part = |path: &str, field: &str| json!({"downwardAPI": {"items": [{"path": path, "fieldRef": {"fieldPath": field}}]}});
        let volume =
            |parts: &[serde_json::Value]| pod(&json!({"name": "v", "projected": {"sources": parts}}));
        let write = |pod: &Pod| write(root.path(), pod);
        write(&volume(&[part("name", "metadata.name"), part("uid", "metadata.uid")])).unwrap();
        let at = root.path().join("pods/u/volumes/kubernetes.io~projected/v");
        assert_eq!(fs::read_to_string(at.join("name")).unwrap(), "p");
        assert_eq!(fs::read_to_string(at.join("uid")).unwrap(), "u");
        assert_eq!(fs::metadata(at.join("uid")).unwrap().permissions().mode() & 0o7777, 0o644);
        write(&volume(&[])).unwrap();
        assert!(!at.join("uid").exists());
        for wrong in
            [part("../x", "metadata.name"), part("x", "metadata.x"), json!({"configMap": {"name": "s"}})]
        {
            let error = write(&volume(std::slice::from_ref(&wrong))).unwrap_err();
            assert!(error.to_string().starts_with("MountVolume.SetUp failed for volume \"v\" : "), "{error}");
        }
    }
}
