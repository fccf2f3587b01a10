//! Volumes: made before a pod's containers, removed after its last one. So far `emptyDir` on disk,
//! `hostPath`, and what a pod is told of itself; a pod that asks for another kind is refused before it comes here.

pub mod downward;

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{Container, HostPathVolumeSource, Pod, Volume};
use thiserror::Error;

use super::pods::paths::NodePaths;
use crate::api::{PodExt, cri::Mount};

/// Folders of the agent: for root and its group.
const AGENT_DIR_MODE: u32 = 0o750;
/// An emptyDir is for whatever user the container runs as.
const EMPTY_DIR_MODE: u32 = 0o777;

/// Why a volume cannot be had.
#[derive(Debug, Error)]
pub enum VolumeError {
    /// A folder or file could not be made or looked at.
    #[error("volume {volume:?}: {path}: {source}", path = path.display())]
    Io {
        /// The volume's name.
        volume: String,
        /// The path concerned.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// A hostPath of a type finds something else, or nothing.
    #[error("volume {volume:?}: hostPath type check failed: {path} is not a {wanted}", path = path.display())]
    WrongType {
        /// The volume's name.
        volume: String,
        /// The path concerned.
        path: PathBuf,
        /// What the specification says that it is.
        wanted: &'static str,
    },
    /// What is to be in it cannot be had or written.
    #[error("volume {volume:?}: {why}")]
    Content {
        /// The volume's name.
        volume: String,
        /// Why not.
        why: String,
    },
    /// A kind that this agent does not make.
    #[error("volume {volume:?} is of a kind that nodectl does not provide")]
    Unsupported {
        /// The volume's name.
        volume: String,
    },
    /// A mount names a volume that the pod has not.
    #[error("container {container:?} mounts volume {volume:?}, which the pod does not have")]
    Missing {
        /// The container's name.
        container: String,
        /// The volume's name.
        volume: String,
    },
}

/// Makes what a pod's volumes need. Doing it twice does no harm. Blocks on the file system.
///
/// # Errors
/// When a volume cannot be made; what was made before stays and is made use of by the next try.
pub fn set_up(pod: &Pod, paths: &NodePaths) -> Result<(), VolumeError> {
    for volume in pod.spec().volumes.iter().flatten() {
        let at = source_path(pod, volume, paths)?;
        let io_error = |source| VolumeError::Io { volume: volume.name.clone(), path: at.clone(), source };
        if volume.empty_dir.is_some() {
            if let Some(parent) = at.parent() {
                make_agent_dir(parent).map_err(io_error)?;
            }
            make_dir(&at, EMPTY_DIR_MODE).map_err(io_error)?;
        } else if let Some(host_path) = &volume.host_path {
            check_host_path(&volume.name, host_path)?;
        }
    }
    Ok(())
}

/// The mounts of a container, as the runtime is asked for them.
///
/// # Errors
/// When a mount names a volume that is not there or not supported.
pub fn mounts(pod: &Pod, container: &Container, paths: &NodePaths) -> Result<Vec<Mount>, VolumeError> {
    let volumes = pod.spec().volumes.as_deref().unwrap_or_default();
    container
        .volume_mounts
        .iter()
        .flatten()
        .map(|mount| {
            let volume = volumes.iter().find(|volume| volume.name == mount.name).ok_or_else(|| {
                VolumeError::Missing { container: container.name.clone(), volume: mount.name.clone() }
            })?;
            // A relative path is taken from the container's root.
            let container_path = match mount.mount_path.strip_prefix('/') {
                Some(_) => mount.mount_path.clone(),
                None => format!("/{}", mount.mount_path),
            };
            Ok(Mount {
                container_path,
                host_path: source_path(pod, volume, paths)?.to_string_lossy().into_owned(),
                readonly: mount.read_only.unwrap_or(false) || downward::is_downward(volume),
                ..Mount::default()
            })
        })
        .collect()
}

/// Where on the host a volume's content is.
fn source_path(pod: &Pod, volume: &Volume, paths: &NodePaths) -> Result<PathBuf, VolumeError> {
    let unsupported = || VolumeError::Unsupported { volume: volume.name.clone() };
    if volume.empty_dir.is_some() {
        paths.empty_dir(&pod.uid(), &volume.name).ok_or_else(unsupported)
    } else if let Some(host_path) = &volume.host_path {
        Ok(PathBuf::from(&host_path.path))
    } else {
        downward::folder(pod, volume, paths).ok_or_else(unsupported)
    }
}

/// Makes a folder of the agent's with its parents.
///
/// # Errors
/// As `mkdir`.
pub fn make_agent_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(AGENT_DIR_MODE).create(path)
}

/// Makes a folder with exactly the given mode, whatever the umask. One that is there keeps its mode: its
/// pod may have changed it.
fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => fs::set_permissions(path, fs::Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Checks and makes as the type says (pkg/volume/hostpath/host_path.go).
fn check_host_path(volume: &str, host_path: &HostPathVolumeSource) -> Result<(), VolumeError> {
    let path = Path::new(&host_path.path);
    let io_error = |source| VolumeError::Io { volume: volume.to_owned(), path: path.into(), source };
    let found = match fs::metadata(path) {
        Ok(metadata) => Some(metadata.file_type()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(io_error(error)),
    };
    let is = |wanted: &'static str, ok: bool| {
        if ok {
            Ok(())
        } else {
            Err(VolumeError::WrongType { volume: volume.to_owned(), path: path.into(), wanted })
        }
    };
    match (host_path.type_.as_deref().unwrap_or_default(), found) {
        ("", _) => Ok(()),
        ("DirectoryOrCreate", None) => {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(path).map_err(io_error)
        }
        ("DirectoryOrCreate" | "Directory", found) => is("directory", found.is_some_and(|t| t.is_dir())),
        ("FileOrCreate", None) => {
            fs::OpenOptions::new().write(true).create_new(true).open(path).map_err(io_error)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o644)).map_err(io_error)
        }
        ("FileOrCreate" | "File", found) => is("file", found.is_some_and(|t| t.is_file())),
        ("Socket", found) => is("socket", found.is_some_and(|t| t.is_socket())),
        ("CharDevice", found) => is("character device", found.is_some_and(|t| t.is_char_device())),
        ("BlockDevice", found) => is("block device", found.is_some_and(|t| t.is_block_device())),
        _ => Err(VolumeError::Unsupported { volume: volume.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, PodSpec, VolumeMount};

    use super::*;

    fn paths(root: &Path) -> NodePaths {
        NodePaths { root: root.into(), pod_logs: root.join("logs"), container_logs: root.join("links") }
    }

    fn pod(volume: Volume) -> Pod {
        let mut pod = Pod { spec: Some(PodSpec::default()), ..Pod::default() };
        pod.metadata.uid = Some("u".into());
        pod.spec.as_mut().unwrap().volumes = Some(vec![volume]);
        pod
    }

    fn host_path(path: &Path, type_: &str) -> Pod {
        pod(Volume {
            name: "v".into(),
            host_path: Some(HostPathVolumeSource {
                path: path.to_string_lossy().into_owned(),
                type_: Some(type_.into()),
            }),
            ..Volume::default()
        })
    }

    #[test]
    fn an_empty_dir_is_open_to_every_user_and_made_once() {
        let root = tempfile::tempdir().unwrap();
        let p = pod(Volume {
            name: "v".into(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        });
        set_up(&p, &paths(root.path())).unwrap();
        let at = root.path().join("pods/u/volumes/kubernetes.io~empty-dir/v");
        assert_eq!(fs::metadata(&at).unwrap().permissions().mode() & 0o7777, 0o777);
        fs::set_permissions(&at, fs::Permissions::from_mode(0o700)).unwrap();
        set_up(&p, &paths(root.path())).unwrap();
        assert_eq!(fs::metadata(&at).unwrap().permissions().mode() & 0o7777, 0o700);

        let container = Container {
            name: "c".into(),
            volume_mounts: Some(vec![VolumeMount {
                name: "v".into(),
                mount_path: "data".into(),
                read_only: Some(true),
                ..VolumeMount::default()
            }]),
            ..Container::default()
        };
        let mounts = mounts(&p, &container, &paths(root.path())).unwrap();
        assert_eq!((mounts[0].container_path.as_str(), mounts[0].readonly), ("/data", true));
        assert_eq!(Path::new(&mounts[0].host_path), at);
    }

    #[test]
    fn host_paths_are_checked_and_made_by_their_type() {
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        let check = |path: &Path, type_: &str| set_up(&host_path(path, type_), &paths(root.path()));
        let new = |name: &str| root.path().join(name);
        check(&new("d/e"), "DirectoryOrCreate").unwrap();
        assert!(new("d/e").is_dir());
        check(&new("f"), "FileOrCreate").unwrap();
        assert!(new("f").is_file());
        check(&new("absent"), "").unwrap();
        check(&file, "File").unwrap();
        check(Path::new("/dev/null"), "CharDevice").unwrap();
        for (path, type_) in [
            (file.as_path(), "Directory"),
            (&file, "DirectoryOrCreate"),
            (&new("absent"), "File"),
            (&new("absent"), "Directory"),
            (&file, "Socket"),
            (&file, "BlockDevice"),
            (root.path(), "FileOrCreate"),
        ] {
            let error = check(path, type_).unwrap_err().to_string();
            assert!(error.contains("type check failed"), "{type_}: {error}");
        }
        assert!(check(&file, "Nonsense").is_err());
    }
}
