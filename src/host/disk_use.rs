//! What a folder takes on its file system, when containers may change it at any moment: no link is followed and no
//! mount is crossed, and neither depth nor fan-out costs more than a fixed amount of memory and open files.

use std::{
    collections::HashSet,
    ffi::CStr,
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use nix::{
    dir::{Dir, OwningIter},
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::{FileStat, Mode, SFlag, fstat, fstatat},
};

use crate::api::usage::DiskUsage;

const FOLDER: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// How deep it is gone; what is deeper is not counted. Paths that a program can name are no deeper than this in
/// practice, and each level is an open folder.
const MAX_DEPTH: usize = 128;
/// How many files with several names are remembered; those that are found later count with each name.
const MAX_LINKED: usize = 1 << 18;
/// Between two looks at whether to go on.
const STEP: usize = 64;

/// A folder that is being gone through.
struct Level {
    /// To open what is in it.
    folder: OwnedFd,
    entries: OwningIter,
}

impl Level {
    fn new(folder: OwnedFd) -> io::Result<Self> {
        // Another opening, so that reading does not move the first.
        let reader = openat2(&folder, ".", OpenHow::new().flags(FOLDER))?;
        Ok(Self { folder, entries: Dir::from_fd(reader)?.into_iter() })
    }
}

/// Adds up what a folder takes with all below it: blocks and inodes, each inode once. `go_on` is asked every some
/// entries, may take its time, and ends it all with `false`. Blocks on the file system.
///
/// # Errors
/// As `open` and `readdir` of the folder itself, what cannot be looked at below it is left out; `Interrupted` if it
/// was ended.
pub fn measure(folder: &Path, mut go_on: impl FnMut() -> bool) -> io::Result<DiskUsage> {
    let top = open(folder, FOLDER, Mode::empty())?;
    let mut sum = Sum::default();
    let own = fstat(&top)?;
    sum.add(&own);
    let mut levels = vec![Level::new(top)?];
    let mut seen = 0_usize;
    while let Some(level) = levels.last_mut() {
        let Some(entry) = level.entries.next() else {
            levels.pop();
            continue;
        };
        seen += 1;
        if seen.is_multiple_of(STEP) && !go_on() {
            return Err(io::ErrorKind::Interrupted.into());
        }
        // A folder that was removed meanwhile has no more entries.
        let Ok(entry) = entry else {
            levels.pop();
            continue;
        };
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_NO_AUTOMOUNT;
        let Ok(found) = fstatat(&level.folder, name, flags) else { continue };
        if found.st_dev != own.st_dev {
            continue;
        }
        sum.add(&found);
        let below = if is_folder(&found) { enter(level, name) } else { None };
        if let Some(below) = below
            && levels.len() < MAX_DEPTH
        {
            levels.push(below);
        }
    }
    Ok(DiskUsage { bytes: Some(sum.bytes), inodes: Some(sum.inodes) })
}

fn is_folder(found: &FileStat) -> bool {
    SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR
}

fn enter(level: &Level, name: &CStr) -> Option<Level> {
    let resolve =
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    let opened = openat2(level.folder.as_fd(), name, OpenHow::new().flags(FOLDER).resolve(resolve));
    match opened {
        Ok(folder) => Level::new(folder).ok(),
        Err(Errno::ENOENT) => None,
        Err(error) => {
            tracing::trace!("a folder is not counted: {error}");
            None
        }
    }
}

#[derive(Default)]
struct Sum {
    bytes: u64,
    inodes: u64,
    linked: HashSet<(u64, u64)>,
}

impl Sum {
    fn add(&mut self, found: &FileStat) {
        if found.st_nlink > 1 && !is_folder(found) {
            let id = (found.st_dev, found.st_ino);
            if self.linked.contains(&id) {
                return;
            }
            if self.linked.len() < MAX_LINKED {
                self.linked.insert(id);
            }
        }
        self.bytes =
            self.bytes.saturating_add(u64::try_from(found.st_blocks).unwrap_or(0).saturating_mul(512));
        self.inodes = self.inodes.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, process::Command};

    use super::*;

    /// What `du` counts, one file system and no links followed.
    fn du(path: &Path, what: &[&str]) -> u64 {
        let output = Command::new("du").args(["-sx"]).args(what).arg(path).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().next().unwrap().parse().unwrap()
    }

    #[test]
    fn it_counts_as_du_does() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("v");
        fs::create_dir_all(path.join("a/b/c")).unwrap();
        fs::write(path.join("a/file"), vec![1; 300_000]).unwrap();
        fs::write(path.join("a/b/empty"), "").unwrap();
        fs::hard_link(path.join("a/file"), path.join("a/b/c/again")).unwrap();
        fs::File::create(path.join("sparse")).unwrap().set_len(1 << 30).unwrap();
        // Links lead nowhere.
        let big = root.path().join("big");
        fs::create_dir(&big).unwrap();
        fs::write(big.join("file"), vec![1; 3_000_000]).unwrap();
        symlink(&big, path.join("out")).unwrap();
        symlink("..", path.join("a/up")).unwrap();
        for n in 0..500 {
            fs::write(path.join(format!("a/b/{n}")), "x").unwrap();
        }
        let found = measure(&path, || true).unwrap();
        assert_eq!(found.bytes, Some(du(&path, &["--block-size=1"])));
        assert_eq!(found.inodes, Some(du(&path, &["--inodes"])));
        assert!(found.bytes.unwrap() < 3_000_000, "{found:?}");
        assert_eq!(measure(&path, || false).unwrap_err().kind(), io::ErrorKind::Interrupted);
        assert_eq!(measure(&path.join("none"), || true).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(measure(&path.join("out"), || true).is_err(), "a link is no folder");
    }

    #[test]
    fn another_file_system_below_is_not_counted() {
        let root = tempfile::tempdir().unwrap();
        let inner = root.path().join("inner");
        fs::create_dir(&inner).unwrap();
        crate::host::mounts::mount_tmpfs(&inner, 1 << 20).expect("this test mounts, and needs root");
        fs::write(inner.join("file"), vec![1; 100_000]).unwrap();
        let found = measure(root.path(), || true);
        crate::host::mounts::unmount(&inner).unwrap();
        let found = found.unwrap();
        assert_eq!(found.inodes, Some(1));
        assert!(found.bytes.unwrap() < 100_000, "{found:?}");
    }

    #[test]
    fn depth_costs_no_more_than_its_bound() {
        let root = tempfile::tempdir().unwrap();
        let mut at = open(root.path(), FOLDER, Mode::empty()).unwrap();
        for _ in 0..1000 {
            nix::sys::stat::mkdirat(&at, "d", Mode::S_IRWXU).unwrap();
            at = openat2(&at, "d", OpenHow::new().flags(FOLDER)).unwrap();
        }
        drop(at);
        let found = measure(root.path(), || true).unwrap();
        // Of the deepest folder that is entered the one below is seen and not entered.
        assert_eq!(found.inodes, Some(u64::try_from(MAX_DEPTH).unwrap() + 1));
        crate::host::remove::remove_tree(root.path()).unwrap();
    }
}
