//! `emptyDir`: a folder of the pod's own, on disk, in memory or on huge pages
//! (pkg/volume/emptydir/empty_dir.go).
//!
//! Each step may be the last one of an agent that is killed. So a mark beside the volume, where kubelet has
//! it, says that the volume is whole; without it all steps are done again, and a mount that is there is
//! not made twice. Once whole, mode and owner are the pod's to change. Memory does not survive a restart of
//! the machine: then the mount is made anew, mark or not.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::Path,
};

use k8s_openapi::api::core::v1::EmptyDirVolumeSource;

use super::{VolumeContext, VolumeError, make_agent_dir};
use crate::{
    api::PodExt as _,
    host::{
        mounts,
        ownership::{GroupMay, give_to_group},
    },
    policy::volumes::{huge_page_bytes, memory_volume_bytes},
};

/// It is for whatever user the container runs as.
const MODE: u32 = 0o777;

/// What holds the content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Medium {
    Disk,
    Memory { bytes: u64 },
    HugePages { page_bytes: u64 },
}

impl Medium {
    fn of(cx: &VolumeContext<'_>, name: &str, source: &EmptyDirVolumeSource) -> Result<Self, VolumeError> {
        match source.medium.as_deref().unwrap_or_default() {
            "" => Ok(Self::Disk),
            "Memory" => {
                Ok(Self::Memory { bytes: memory_volume_bytes(cx.pod, source.size_limit.as_ref(), cx.node) })
            }
            medium if medium.starts_with("HugePages") => huge_page_bytes(cx.pod, medium)
                .map(|page_bytes| Self::HugePages { page_bytes })
                .map_err(|error| VolumeError::Config { volume: name.to_owned(), source: error }),
            _ => Err(VolumeError::Unsupported { volume: name.to_owned() }),
        }
    }

    /// The file system that is mounted for it.
    fn fs_type(self) -> Option<&'static str> {
        match self {
            Self::Disk => None,
            Self::Memory { .. } => Some("tmpfs"),
            Self::HugePages { .. } => Some("hugetlbfs"),
        }
    }
}

/// Makes the volume, or what of it is missing.
pub(super) fn set_up(
    cx: &VolumeContext<'_>,
    name: &str,
    source: &EmptyDirVolumeSource,
) -> Result<(), VolumeError> {
    let uid = cx.pod.uid();
    let paths = cx.paths.empty_dir(&uid, name).zip(cx.paths.empty_dir_mark(&uid, name));
    let (at, mark) = paths.ok_or_else(|| VolumeError::Unsupported { volume: name.to_owned() })?;
    let io_error = |source| VolumeError::Io { volume: name.to_owned(), path: at.clone(), source };
    let medium = Medium::of(cx, name, source)?;
    let group = cx.pod.spec().security_context.as_ref().and_then(|security| security.fs_group);
    let group = group.and_then(|gid| u32::try_from(gid).ok());

    let mounted = mounts::at(cx.mountinfo, &at).map_err(io_error)?;
    let on_top = mounted.last().map(|mount| mount.fs_type.as_str());
    let in_place = on_top == medium.fs_type();
    let marked = fs::read_to_string(&mark).ok();
    let whole = in_place && marked.is_some() && at.is_dir();
    if whole && is_of(marked.as_deref(), group) {
        return Ok(());
    }
    if !whole {
        // A mark must not outlive what it stands for.
        remove_mark(&mark).map_err(io_error)?;
        make(&at, medium, on_top).map_err(io_error)?;
    }
    if let Some(gid) = group {
        give_to_group(&at, gid, GroupMay::Write).map_err(io_error)?;
    }
    set_mark(&mark, group).map_err(io_error)
}

/// Makes the folder, and mounts what is to be mounted there.
fn make(at: &Path, medium: Medium, on_top: Option<&str>) -> io::Result<()> {
    if on_top.is_some() && on_top == medium.fs_type() {
        return Ok(());
    }
    if on_top.is_some() {
        // The volume was of another medium before.
        mounts::unmount(at)?;
    }
    if let Some(parent) = at.parent() {
        make_agent_dir(parent)?;
    }
    match fs::DirBuilder::new().mode(MODE).create(at) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && at.is_dir() => {}
        made => made?,
    }
    // Whatever the umask. The mount has a mode of its own: anybody's, with the sticky bit.
    fs::set_permissions(at, fs::Permissions::from_mode(MODE))?;
    match medium {
        Medium::Disk => Ok(()),
        Medium::Memory { bytes } => mounts::mount_tmpfs(at, bytes),
        Medium::HugePages { page_bytes } => mounts::mount_huge_pages(at, page_bytes),
    }
}

fn mark_text(group: Option<u32>) -> String {
    group.map_or_else(|| "fsGroup none\n".to_owned(), |gid| format!("fsGroup {gid}\n"))
}

/// Whether the mark is of a volume that was given to this group. kubelet's is empty and says nothing.
fn is_of(mark: Option<&str>, group: Option<u32>) -> bool {
    mark.is_some_and(|text| text.is_empty() || text == mark_text(group))
}

fn set_mark(mark: &Path, group: Option<u32>) -> io::Result<()> {
    if let Some(parent) = mark.parent() {
        make_agent_dir(parent)?;
    }
    // A mark that was written in part is of no group, and the volume is given to its group again.
    fs::write(mark, mark_text(group))
}

fn remove_mark(mark: &Path) -> io::Result<()> {
    match fs::remove_file(mark) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use k8s_openapi::api::core::v1::{Pod, Volume};
    use serde_json::json;

    use super::*;
    use crate::{
        agent::volumes::{self, tests as common},
        policy::{given::Given, node::NodeSettings},
    };

    fn pod(empty_dir: &serde_json::Value, group: Option<i64>) -> Pod {
        let volume: Volume = serde_json::from_value(json!({"name": "v", "emptyDir": empty_dir})).unwrap();
        let mut pod = common::pod(volume);
        let spec = pod.spec.as_mut().unwrap();
        spec.security_context = Some(serde_json::from_value(json!({"fsGroup": group})).unwrap());
        pod
    }

    struct Root(tempfile::TempDir);

    impl Root {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn at(&self) -> std::path::PathBuf {
            self.0.path().join("pods/u/volumes/kubernetes.io~empty-dir/v")
        }

        fn set_up(&self, pod: &Pod) -> Result<(), VolumeError> {
            let (paths, node) = (common::paths(self.0.path()), NodeSettings::default());
            volumes::set_up(&VolumeContext {
                pod,
                paths: &paths,
                mountinfo: common::MOUNTINFO.as_ref(),
                node: &node,
                given: &Given::default(),
            })
        }

        fn mode_and_group(&self) -> (u32, u32) {
            let metadata = fs::metadata(self.at()).unwrap();
            (metadata.mode() & 0o7777, metadata.gid())
        }

        fn types(&self) -> Vec<String> {
            let all = mounts::at(common::MOUNTINFO.as_ref(), &self.at()).unwrap();
            all.into_iter().map(|mount| mount.fs_type).collect()
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            while !self.types().is_empty() {
                mounts::unmount(&self.at()).unwrap();
            }
        }
    }

    #[test]
    fn on_disk_it_is_open_to_every_user_and_made_once() {
        let root = Root::new();
        let pod = pod(&json!({}), None);
        // An agent was killed before the folder had its mode.
        make_agent_dir(root.at().parent().unwrap()).unwrap();
        fs::DirBuilder::new().mode(0o755).create(root.at()).unwrap();
        root.set_up(&pod).unwrap();
        assert_eq!(root.mode_and_group().0, 0o777);
        fs::set_permissions(root.at(), fs::Permissions::from_mode(0o700)).unwrap();
        root.set_up(&pod).unwrap();
        assert_eq!(root.mode_and_group().0, 0o700, "what the pod changed stays");
        assert!(root.0.path().join("pods/u/plugins/kubernetes.io~empty-dir/v/ready").exists());
        // Somebody removed it.
        fs::remove_dir(root.at()).unwrap();
        root.set_up(&pod).unwrap();
        assert_eq!(root.mode_and_group().0, 0o777);
    }

    #[test]
    fn a_group_is_given_the_volume_once() {
        let root = Root::new();
        root.set_up(&pod(&json!({}), Some(4321))).unwrap();
        assert_eq!(root.mode_and_group(), (0o2777, 4321));
        nix::unistd::chown(&root.at(), None, Some(77.into())).unwrap();
        root.set_up(&pod(&json!({}), Some(4321))).unwrap();
        assert_eq!(root.mode_and_group().1, 77, "what the pod changed stays");
        root.set_up(&pod(&json!({}), Some(4322))).unwrap();
        assert_eq!(root.mode_and_group().1, 4322, "another group was asked for");
        // kubelet's mark says nothing.
        fs::write(root.0.path().join("pods/u/plugins/kubernetes.io~empty-dir/v/ready"), "").unwrap();
        root.set_up(&pod(&json!({}), Some(4323))).unwrap();
        assert_eq!(root.mode_and_group().1, 4322);
    }

    #[test]
    fn in_memory_it_is_mounted_once_and_again_after_a_restart_of_the_machine() {
        let root = Root::new();
        let pod = pod(&json!({"medium": "Memory", "sizeLimit": "1Mi"}), Some(4321));
        root.set_up(&pod).expect("this test mounts, and needs root");
        fs::write(root.at().join("file"), "x").unwrap();
        root.set_up(&pod).unwrap();
        assert_eq!(root.types(), ["tmpfs"]);
        assert!(root.at().join("file").exists());
        assert_eq!(root.mode_and_group(), (0o3777, 4321));
        let size = nix::sys::statvfs::statvfs(&root.at()).unwrap();
        assert_eq!(size.blocks() * size.fragment_size(), 1 << 20);
        // Killed after the mount.
        remove_mark(&root.0.path().join("pods/u/plugins/kubernetes.io~empty-dir/v/ready")).unwrap();
        root.set_up(&pod).unwrap();
        assert_eq!(root.types(), ["tmpfs"]);
        assert!(root.at().join("file").exists());
        // The mount is gone, the mark is there.
        mounts::unmount(&root.at()).unwrap();
        root.set_up(&pod).unwrap();
        assert_eq!(root.types(), ["tmpfs"]);
        assert_eq!((root.mode_and_group().1, root.at().join("file").exists()), (4321, false));
    }

    #[test]
    fn another_medium_replaces_the_first() {
        let root = Root::new();
        root.set_up(&pod(&json!({"medium": "Memory"}), None)).unwrap();
        assert_eq!(root.mode_and_group().0, 0o1777);
        root.set_up(&pod(&json!({}), None)).unwrap();
        assert_eq!((root.types().len(), root.mode_and_group().0), (0, 0o777));
        let error = root.set_up(&pod(&json!({"medium": "HugePages"}), None)).unwrap_err().to_string();
        assert!(error.contains("huge pages") && error.contains("\"v\""), "{error}");
    }
}
