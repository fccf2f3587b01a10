//! Giving a volume to a group (`fsGroup`): every file and folder gets the group and its rights, as kubelet
//! does it (pkg/volume/volume_linux.go). In a volume that is written by the agent alone these are to read.
//!
//! Containers may write to the volume meanwhile. So nothing is done by path: each entry is opened without
//! following a link, and what is open is changed. Other file systems mounted below are not the volume's and
//! stay as they are.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    path::Path,
};

use nix::{
    dir::{Dir, OwningIter},
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::{Mode, SFlag, fchmodat, fstat},
    unistd::{Gid, fchownat},
};

/// Each level on the way down holds an open folder. Nobody nests deeper by intent.
const MAX_DEPTH: usize = 256;
/// What a folder has besides the rights of a file: the group may enter it, and what is made there is the
/// group's.
const FOLDER: u32 = 0o2110;

/// What a group may do with a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupMay {
    /// Its content is not the containers' to change.
    Read,
    /// All.
    Write,
}

impl GroupMay {
    /// The bits of a file's mode that give this to the group; the owner has the same.
    pub fn mode(self) -> u32 {
        match self {
            Self::Read => 0o440,
            Self::Write => 0o660,
        }
    }
}

/// Gives a folder and all below it to a group with these rights; what is made there later belongs to the
/// group as well. Rights that were there stay. Blocks on the file system.
///
/// # Errors
/// As `chown` and `chmod`; what vanishes meanwhile is no error. More than 256 levels of folders are
/// refused.
pub fn give_to_group(folder: &Path, gid: u32, may: GroupMay) -> io::Result<()> {
    let gid = Gid::from_raw(gid);
    let top = open(folder, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut levels: Vec<(OwnedFd, OwningIter)> = Vec::new();
    if let Some(level) = give(&top, gid, may)? {
        levels.push(level);
    }
    while let Some((at, entries)) = levels.last_mut() {
        let Some(entry) = entries.next() else {
            levels.pop();
            continue;
        };
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let Some(file) = reference(at, name)? else { continue };
        if let Some(level) = give(&file, gid, may)? {
            if levels.len() == MAX_DEPTH {
                let message = format!("folders are nested more than {MAX_DEPTH} deep");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            levels.push(level);
        }
    }
    Ok(())
}

/// Refers to an entry itself, whatever it is. `None` for one that is gone, or another file system.
fn reference(at: &OwnedFd, name: &CStr) -> io::Result<Option<OwnedFd>> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_BENEATH);
    match openat2(at, name, how) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::ENOENT | Errno::EXDEV) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Gives one entry to the group. A folder comes back opened, with its entries.
fn give(file: &OwnedFd, gid: Gid, may: GroupMay) -> io::Result<Option<(OwnedFd, OwningIter)>> {
    let stat = fstat(file)?;
    fchownat(file, c"", None, Some(gid), AtFlags::AT_EMPTY_PATH)?;
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    // A link has no mode of its own.
    if kind == SFlag::S_IFLNK {
        return Ok(None);
    }
    let folder = kind == SFlag::S_IFDIR;
    // With the bits that it had before: a change of owner takes some away.
    let more = may.mode() | if folder { FOLDER } else { 0 };
    let mode = Mode::from_bits_truncate(stat.st_mode | more);
    let itself = format!("/proc/self/fd/{}", file.as_raw_fd());
    fchmodat(nix::fcntl::AT_FDCWD, itself.as_str(), mode, nix::sys::stat::FchmodatFlags::FollowSymlink)?;
    if !folder {
        return Ok(None);
    }
    let how = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let reader = Dir::openat(file, c".", how, Mode::empty())?;
    Ok(Some((file.try_clone()?, reader.into_iter())))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    };

    use nix::mount::{MsFlags, mount, umount};

    use super::*;

    #[test]
    fn all_of_the_volume_and_nothing_else_is_the_groups() {
        let root = tempfile::tempdir().unwrap();
        let (volume, other) = (root.path().join("volume"), root.path().join("other"));
        fs::create_dir_all(volume.join("a/b")).unwrap();
        fs::create_dir_all(volume.join("mnt")).unwrap();
        fs::create_dir(&other).unwrap();
        for (file, mode) in [("a/file", 0o600), ("a/b/tool", 0o4755)] {
            fs::write(volume.join(file), "").unwrap();
            fs::set_permissions(volume.join(file), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(volume.join("a"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(other.join("kept"), "").unwrap();
        fs::set_permissions(other.join("kept"), fs::Permissions::from_mode(0o600)).unwrap();
        symlink(other.join("kept"), volume.join("link")).unwrap();
        symlink(&other, volume.join("a/link")).unwrap();
        mount(Some(&other), &volume.join("mnt"), None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .expect("this test mounts, and needs root");
        let result = give_to_group(&volume, 4321, GroupMay::Write);
        umount(&volume.join("mnt")).unwrap();
        result.unwrap();
        let of = |path: &Path| {
            let metadata = fs::symlink_metadata(path).unwrap();
            (metadata.gid(), metadata.mode() & 0o7777)
        };
        assert_eq!(of(&volume.join("a")), (4321, 0o2770));
        assert_eq!(of(&volume.join("a/b")), (4321, 0o2775));
        assert_eq!(of(&volume.join("a/file")), (4321, 0o660));
        assert_eq!(of(&volume.join("a/b/tool")), (4321, 0o4775));
        assert_eq!(of(&volume.join("link")).0, 4321);
        assert_eq!(of(&volume.join("a/link")).0, 4321);
        assert_eq!(fs::metadata(&volume).unwrap().uid(), 0);
        for kept in [&other, &other.join("kept")] {
            assert_ne!(of(kept).0, 4321, "{}", kept.display());
        }
        assert_eq!(of(&other.join("kept")).1, 0o600);

        let (files, file) = (root.path().join("files"), root.path().join("files/d/file"));
        fs::create_dir_all(files.join("d")).unwrap();
        fs::write(&file, "").unwrap();
        for (path, mode) in [(&files, 0o755), (&files.join("d"), 0o700), (&file, 0o400)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        }
        give_to_group(&files, 4321, GroupMay::Read).unwrap();
        assert_eq!(of(&files), (4321, 0o2755));
        assert_eq!(of(&files.join("d")), (4321, 0o2750));
        assert_eq!(of(&file), (4321, 0o440));
    }

    #[test]
    fn depth_is_bounded_and_a_link_for_a_volume_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let (volume, victim) = (root.path().join("volume"), root.path().join("victim"));
        fs::create_dir(&victim).unwrap();
        symlink(&victim, &volume).unwrap();
        give_to_group(&volume, 4321, GroupMay::Write).unwrap();
        assert_ne!(fs::metadata(&victim).unwrap().gid(), 4321);
        let mut deep = victim.clone();
        deep.extend(std::iter::repeat_n("d", MAX_DEPTH - 1));
        fs::create_dir_all(&deep).unwrap();
        give_to_group(&victim, 4321, GroupMay::Write).unwrap();
        assert_eq!(fs::metadata(&deep).unwrap().gid(), 4321);
        fs::create_dir(deep.join("d")).unwrap();
        assert!(give_to_group(&victim, 4321, GroupMay::Write).unwrap_err().to_string().contains("nested"));
    }
}
