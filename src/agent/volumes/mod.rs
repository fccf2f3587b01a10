//! Volumes: made before a pod's containers, removed after its last one. A file for each kind; a pod that
//! asks for a kind that is not here is refused before it comes here.

mod clean_up;
mod empty_dir;
pub mod files;
mod host_path;
mod sub_path;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, HostPathVolumeSource, ImageVolumeSource, Pod, Volume, VolumeMount,
};
use thiserror::Error;

pub use self::clean_up::unmount_all;
use self::sub_path::OpenPart;
use super::pods::paths::NodePaths;
use crate::{
    api::{
        PodExt,
        cri::{ImageSpec, Mount, MountPropagation},
    },
    host::{beneath::Owner, mounts::Sharing},
    policy::{
        env::ConfigError,
        given::Given,
        node::NodeSettings,
        volume_files::is_written,
        volumes::{propagation, recursive_read_only, sub_path as sub_path_of},
    },
};

/// Folders of the agent: for root and its group.
const AGENT_DIR_MODE: u32 = 0o750;

/// Why a volume cannot be had.
#[derive(Debug, Error)]
pub enum VolumeError {
    /// A folder or file could not be made, mounted or looked at.
    #[error("volume {volume:?}: {path}: {source}", path = path.display())]
    Io {
        /// The volume's name.
        volume: String,
        /// The path concerned.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
    /// A part of a volume could not be mounted.
    #[error("volume {volume:?}: cannot mount subPath {path:?}: {source}")]
    SubPath {
        /// The volume's name.
        volume: String,
        /// The part.
        path: String,
        /// The system's words.
        source: io::Error,
    },
    /// A hostPath of a type finds something else.
    #[error(
        "volume {volume:?}: hostPath type check failed: {path} is not a {wanted}, it is a {found}",
        path = path.display()
    )]
    WrongType {
        /// The volume's name.
        volume: String,
        /// The path concerned.
        path: PathBuf,
        /// What the specification says that it is.
        wanted: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// A hostPath of a type finds nothing.
    #[error(
        "volume {volume:?}: hostPath type check failed: {wanted} {path} does not exist",
        path = path.display()
    )]
    NotThere {
        /// The volume's name.
        volume: String,
        /// The path concerned.
        path: PathBuf,
        /// What the specification says that it is.
        wanted: &'static str,
    },
    /// What the specification says cannot be had.
    #[error("volume {volume:?}: {source}")]
    Config {
        /// The volume's name.
        volume: String,
        /// What is wrong.
        source: ConfigError,
    },
    /// The same of a mount.
    #[error("container {container:?}: {source}")]
    MountConfig {
        /// The container's name.
        container: String,
        /// What is wrong.
        source: ConfigError,
    },
    /// What is to be in it cannot be had or written. The words are kubelet's, which people and tools look for.
    #[error("MountVolume.SetUp failed for volume {volume:?} : {why}")]
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

/// What the making of a pod's volumes depends on.
#[derive(Debug, Clone, Copy)]
pub struct VolumeContext<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The node's folders.
    pub paths: &'a NodePaths,
    /// Where to look for mounts.
    pub mountinfo: &'a Path,
    /// The node.
    pub node: &'a NodeSettings,
    /// What the pod is given by the API server.
    pub given: &'a Given,
}

/// What a container's mounts depend on besides.
#[derive(Debug, Clone, Copy)]
pub struct MountContext<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// Its environment.
    pub env: &'a [(String, String)],
    /// The images of its image volumes by the volumes' names.
    pub images: &'a BTreeMap<String, ImageSpec>,
    /// The parts of hostPath volumes that it mounts.
    pub host_parts: &'a HostParts,
    /// Whether the runtime can make a mount read-only with all below it.
    pub can_recursive_read_only: bool,
    /// The node's folders.
    pub paths: &'a NodePaths,
    /// Where to look for mounts.
    pub mountinfo: &'a Path,
}

/// A volume by its kind.
#[derive(Debug, Clone, Copy)]
enum Kind<'a> {
    EmptyDir(&'a EmptyDirVolumeSource),
    HostPath(&'a HostPathVolumeSource),
    /// The agent writes its files: `configMap`, `secret`, `downwardAPI`, `projected`.
    Written,
    /// The runtime mounts it.
    Image,
}

impl<'a> Kind<'a> {
    fn of(volume: &'a Volume) -> Result<Self, VolumeError> {
        if let Some(source) = &volume.empty_dir {
            Ok(Self::EmptyDir(source))
        } else if let Some(source) = &volume.host_path {
            Ok(Self::HostPath(source))
        } else if is_written(volume) {
            Ok(Self::Written)
        } else if volume.image.is_some() {
            Ok(Self::Image)
        } else {
            Err(VolumeError::Unsupported { volume: volume.name.clone() })
        }
    }
}

/// The paths of a pod's hostPath volumes.
pub fn host_paths(pod: &Pod) -> Vec<&str> {
    let volumes = pod.spec().volumes.iter().flatten();
    volumes.filter_map(|volume| Some(volume.host_path.as_ref()?.path.as_str())).collect()
}

/// Checks a pod's hostPath volumes, and makes what their types say. Blocks on the file systems that they lead
/// to, which may not answer.
///
/// # Errors
/// When one is not what it is to be.
pub fn check_host_paths(pod: &Pod) -> Result<(), VolumeError> {
    for volume in pod.spec().volumes.iter().flatten() {
        if let Some(source) = &volume.host_path {
            host_path::set_up(&volume.name, source)?;
        }
    }
    Ok(())
}

/// Makes what a pod's volumes need, but for [`check_host_paths`]. Doing it twice does no harm. Blocks on the file system.
///
/// # Errors
/// When a volume cannot be made; what was made before stays and is made use of by the next try.
pub fn set_up(cx: &VolumeContext<'_>) -> Result<(), VolumeError> {
    for volume in cx.pod.spec().volumes.iter().flatten() {
        match Kind::of(volume)? {
            Kind::EmptyDir(source) => empty_dir::set_up(cx, &volume.name, source)?,
            Kind::Written => files::set_up(cx, volume)?,
            // Looked at before: see `check_host_paths`. Images are the runtime's.
            Kind::HostPath(_) | Kind::Image => {}
        }
    }
    Ok(())
}

/// The image volumes that a container mounts, each once.
pub fn image_volumes<'a>(pod: &'a Pod, container: &Container) -> BTreeMap<&'a str, &'a ImageVolumeSource> {
    let mounted = |name: &str| container.volume_mounts.iter().flatten().any(|mount| mount.name == name);
    let volumes = pod.spec().volumes.iter().flatten().filter(|volume| mounted(&volume.name));
    volumes.filter_map(|volume| Some((volume.name.as_str(), volume.image.as_ref()?))).collect()
}

/// The parts of hostPath volumes that a container mounts, opened, by the numbers of the mounts.
#[derive(Debug, Default)]
pub struct HostParts(BTreeMap<usize, OpenPart>);

fn mounts_of_host_parts<'a>(
    pod: &'a Pod,
    container: &'a Container,
) -> impl Iterator<Item = (usize, &'a VolumeMount, &'a str)> {
    let named = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    let mounts = container.volume_mounts.iter().flatten().enumerate();
    mounts.filter(move |(_, mount)| named(&mount.sub_path) || named(&mount.sub_path_expr)).filter_map(
        |(index, mount)| {
            let mut volumes = pod.spec().volumes.iter().flatten();
            let volume = volumes.find(|volume| volume.name == mount.name)?;
            Some((index, mount, volume.host_path.as_ref()?.path.as_str()))
        },
    )
}

/// The paths of the hostPath volumes of which a container mounts a part.
pub fn host_paths_with_parts<'a>(pod: &'a Pod, container: &'a Container) -> Vec<&'a str> {
    mounts_of_host_parts(pod, container).map(|(_, _, path)| path).collect()
}

/// Opens the parts of hostPath volumes that a container mounts. Blocks on the file systems that these lead
/// to, which may not answer.
///
/// # Errors
/// When a part cannot be had.
pub fn open_host_parts(
    pod: &Pod,
    container: &Container,
    env: &[(String, String)],
) -> Result<HostParts, VolumeError> {
    let mut parts = BTreeMap::new();
    for (index, mount, path) in mounts_of_host_parts(pod, container) {
        let config = |source| VolumeError::MountConfig { container: container.name.clone(), source };
        if let Some(part) = sub_path_of(mount, env).map_err(config)? {
            parts.insert(index, open_part(&mount.name, Path::new(path), &part, Owner::Host)?);
        }
    }
    Ok(HostParts(parts))
}

fn open_part(volume: &str, at: &Path, part: &str, owner: Owner) -> Result<OpenPart, VolumeError> {
    sub_path::open(at, Path::new(part), owner).map_err(|source| VolumeError::SubPath {
        volume: volume.to_owned(),
        path: part.to_owned(),
        source,
    })
}

/// The mounts of a container, as the runtime is asked for them; parts of volumes are mounted for it. Blocks
/// on the file system.
///
/// # Errors
/// When a mount names a volume that is not there or not supported, or a part of one that cannot be had.
pub fn mounts(cx: &MountContext<'_>) -> Result<Vec<Mount>, VolumeError> {
    let mounts = cx.container.volume_mounts.iter().flatten().enumerate();
    mounts.map(|(index, mount)| one_mount(cx, index, mount)).collect()
}

fn one_mount(cx: &MountContext<'_>, index: usize, mount: &VolumeMount) -> Result<Mount, VolumeError> {
    let volumes = cx.pod.spec().volumes.as_deref().unwrap_or_default();
    let container = &cx.container.name;
    let volume = volumes
        .iter()
        .find(|volume| volume.name == mount.name)
        .ok_or_else(|| VolumeError::Missing { container: container.clone(), volume: mount.name.clone() })?;
    let config = |source| VolumeError::MountConfig { container: container.clone(), source };
    let part = sub_path_of(mount, cx.env).map_err(config)?;
    let recursive = recursive_read_only(mount, cx.can_recursive_read_only).map_err(config)?;
    let mut made = Mount {
        // A relative path is taken from the container's root.
        container_path: match mount.mount_path.strip_prefix('/') {
            Some(_) => mount.mount_path.clone(),
            None => format!("/{}", mount.mount_path),
        },
        readonly: mount.read_only.unwrap_or(false) || is_written(volume),
        recursive_read_only: recursive,
        propagation: propagation(mount).into(),
        // The host's files keep their labels; what is made for the pod gets the container's. Nothing comes of
        // it where there is no SELinux.
        selinux_relabel: volume.host_path.is_none(),
        ..Mount::default()
    };
    if let Kind::Image = Kind::of(volume)? {
        let image = cx.images.get(&volume.name).cloned();
        made.image = Some(image.ok_or_else(|| VolumeError::Unsupported { volume: volume.name.clone() })?);
        made.image_sub_path = part.unwrap_or_default();
        made.readonly = true;
        return Ok(made);
    }
    let source = source_path(cx.pod, volume, cx.paths)?;
    let source =
        match part {
            None => source,
            Some(part) => {
                let place = cx.paths.volume_sub_path(&cx.pod.uid(), &volume.name, container, index);
                let place = place.ok_or_else(|| VolumeError::Unsupported { volume: volume.name.clone() })?;
                let sharing = match propagation(mount) {
                    MountPropagation::PropagationPrivate => Sharing::Private,
                    MountPropagation::PropagationHostToContainer => Sharing::Slave,
                    MountPropagation::PropagationBidirectional => Sharing::Shared,
                };
                let opened;
                let open = if volume.host_path.is_some() {
                    let missing = || VolumeError::Unsupported { volume: volume.name.clone() };
                    cx.host_parts.0.get(&index).ok_or_else(missing)?
                } else {
                    opened = open_part(&volume.name, &source, &part, Owner::Pod)?;
                    &opened
                };
                sub_path::bind(open, &place, sharing, cx.mountinfo).map_err(|source| {
                    VolumeError::SubPath { volume: volume.name.clone(), path: part.clone(), source }
                })?;
                place
            }
        };
    made.host_path = source.to_string_lossy().into_owned();
    Ok(made)
}

/// Where on the host a volume's content is.
fn source_path(pod: &Pod, volume: &Volume, paths: &NodePaths) -> Result<PathBuf, VolumeError> {
    let unsupported = || VolumeError::Unsupported { volume: volume.name.clone() };
    match Kind::of(volume)? {
        Kind::EmptyDir(_) => paths.empty_dir(&pod.uid(), &volume.name).ok_or_else(unsupported),
        Kind::HostPath(source) => Ok(PathBuf::from(&source.path)),
        Kind::Written => files::folder(pod, volume, paths).ok_or_else(unsupported),
        Kind::Image => Err(unsupported()),
    }
}

/// Makes a folder of the agent's with its parents.
///
/// # Errors
/// As `mkdir`.
pub fn make_agent_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(AGENT_DIR_MODE).create(path)
}
