//! Volumes of what a pod is told of itself: `downwardAPI`, and `projected` with such parts. Their files
//! follow the pod's labels and annotations while it runs, all of them at once.
//!
//! They are on the disk below the pod's folder, where kubelet has a tmpfs; they hold nothing that the
//! manifest does not. An `fsGroup` may read them.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Pod, Volume};

use super::{VolumeError, make_agent_dir};
use crate::{
    agent::pods::paths::NodePaths,
    api::PodExt as _,
    host::{
        atomic_dir::{self, NewFile},
        ownership::{GroupMay, give_to_group},
    },
    policy::{
        downward::{Downward, MAX_VOLUME_BYTES, VolumeFile},
        env::ConfigError,
        node::NodeSettings,
    },
};

/// Only the agent writes there, and containers have it mounted read-only.
const FOLDER_MODE: u32 = 0o755;

/// Whether a volume is one of these: containers have it read-only, whatever the mount says.
pub fn is_downward(volume: &Volume) -> bool {
    volume.downward_api.is_some() || volume.projected.is_some()
}

/// Whether a pod has such a volume.
pub fn has_any(pod: &Pod) -> bool {
    pod.spec().volumes.iter().flatten().any(is_downward)
}

/// Where on the host such a volume is; `None` for another, and for names that cannot be folders.
pub fn folder(pod: &Pod, volume: &Volume, paths: &NodePaths) -> Option<PathBuf> {
    let plugin = if volume.downward_api.is_some() {
        "kubernetes.io~downward-api"
    } else {
        volume.projected.as_ref()?;
        "kubernetes.io~projected"
    };
    paths.volume(&pod.uid(), plugin, &volume.name)
}

/// Makes the files of all such volumes what they should be.
///
/// # Errors
/// As [`set_up`].
pub fn refresh(pod: &Pod, paths: &NodePaths, node: &NodeSettings) -> Result<(), VolumeError> {
    let mut volumes = pod.spec().volumes.iter().flatten().filter(|volume| is_downward(volume));
    volumes.try_for_each(|volume| set_up(pod, volume, paths, node))
}

/// Makes the files of a volume what they should be. Doing it twice writes nothing. Blocks on the file
/// system.
///
/// # Errors
/// When a text cannot be had or a file not be written; the volume is then as it was.
pub(super) fn set_up(
    pod: &Pod,
    volume: &Volume,
    paths: &NodePaths,
    node: &NodeSettings,
) -> Result<(), VolumeError> {
    let content = |why: String| VolumeError::Content { volume: volume.name.clone(), why };
    let at =
        folder(pod, volume, paths).ok_or_else(|| VolumeError::Unsupported { volume: volume.name.clone() })?;
    let group = pod.spec().security_context.as_ref().and_then(|security| security.fs_group);
    let group = group.and_then(|gid| u32::try_from(gid).ok());
    let give = |folder: &Path| group.map_or(Ok(()), |gid| give_to_group(folder, gid, GroupMay::Read));
    let more = group.map_or(0, |_| GroupMay::Read.mode());
    let files = files(pod, volume, node).map_err(|error| content(error.message))?;
    let files = files.into_iter().map(|(path, file)| {
        (path, NewFile { content: file.content.into_bytes(), mode: file.mode | more, group })
    });
    let made = make_folder(&at).and_then(|found| match group {
        // New, or of another group before.
        Some(gid) if found != gid => give(&at),
        _ => Ok(()),
    });
    made.map_err(|source| VolumeError::Io { volume: volume.name.clone(), path: at.clone(), source })?;
    atomic_dir::write(&at, &files.collect(), give).map_err(|error| content(error.to_string()))?;
    Ok(())
}

/// What the files of a volume are to be.
fn files(
    pod: &Pod,
    volume: &Volume,
    node: &NodeSettings,
) -> Result<BTreeMap<String, VolumeFile>, ConfigError> {
    let told = Downward { pod, pod_ips: &[], node };
    let mut room = MAX_VOLUME_BYTES;
    if let Some(source) = &volume.downward_api {
        return told.volume_files(
            source.items.as_deref().unwrap_or_default(),
            source.default_mode,
            &mut room,
        );
    }
    let mut all = BTreeMap::new();
    let Some(projected) = &volume.projected else { return Ok(all) };
    for part in projected.sources.iter().flatten() {
        // A manifest with another source is refused when it is read.
        let Some(source) = &part.downward_api else {
            return Err(ConfigError::new("a source other than downwardAPI needs an API server"));
        };
        let items = source.items.as_deref().unwrap_or_default();
        all.extend(told.volume_files(items, projected.default_mode, &mut room)?);
    }
    Ok(all)
}

/// Has the folder there. Answers its group.
fn make_folder(at: &Path) -> io::Result<u32> {
    if let Some(parent) = at.parent() {
        make_agent_dir(parent)?;
    }
    match fs::DirBuilder::new().mode(FOLDER_MODE).create(at) {
        Ok(()) => fs::set_permissions(at, fs::Permissions::from_mode(FOLDER_MODE))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && at.is_dir() => {}
        Err(error) => return Err(error),
    }
    Ok(fs::metadata(at)?.gid())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodSecurityContext;
    use serde_json::json;

    use super::*;

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

    #[test]
    fn files_follow_the_pod_and_are_its_groups() {
        let root = tempfile::tempdir().unwrap();
        let mut pod = pod(&json!({"name": "v", "downwardAPI": {"defaultMode": 0o440, "items": [
            {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
            {"path": "d/cpu", "mode": 0o400, "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu"}},
        ]}}));
        let write = |pod: &Pod| refresh(pod, &paths(root.path()), &NodeSettings::default());
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
        let write = |pod: &Pod| refresh(pod, &paths(root.path()), &NodeSettings::default());
        write(&volume(&[part("name", "metadata.name"), part("uid", "metadata.uid")])).unwrap();
        let at = root.path().join("pods/u/volumes/kubernetes.io~projected/v");
        assert_eq!(fs::read_to_string(at.join("name")).unwrap(), "p");
        assert_eq!(fs::read_to_string(at.join("uid")).unwrap(), "u");
        assert_eq!(fs::metadata(at.join("uid")).unwrap().permissions().mode() & 0o7777, 0o644);
        write(&volume(&[])).unwrap();
        assert!(!at.join("uid").exists());
        for wrong in
            [part("../x", "metadata.name"), part("x", "metadata.x"), json!({"secret": {"name": "s"}})]
        {
            let error = write(&volume(std::slice::from_ref(&wrong))).unwrap_err();
            assert!(error.to_string().starts_with("volume \"v\": "), "{error}");
        }
    }
}
