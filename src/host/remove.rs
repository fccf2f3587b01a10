//! Removing a folder that containers could write to: without following a link, without crossing a mount,
//! and without depth or fan-out costing more than two open folders. `std::fs::remove_dir_all` goes down a
//! level with each call and each open file: a tree of some ten thousand levels, which any process in a
//! container can make, ends the process that removes it.

use std::{
    ffi::{CStr, CString},
    fs, io,
    os::fd::OwnedFd,
    path::Path,
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2, renameat},
    sys::stat::Mode,
    unistd::{UnlinkatFlags, unlinkat},
};

const FOLDER: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// How many entries of a folder are read before they are removed.
const BATCH: usize = 1024;

/// Removes a folder with all below it. One that is not there, or whose name is too long to be there, is
/// fine. Blocks on the file system.
///
/// # Errors
/// As `unlink` and `rmdir`; `EXDEV` or `EBUSY` where something is mounted below it, of which nothing is
/// removed.
pub fn remove_tree(folder: &Path) -> io::Result<()> {
    let top = match open(folder, FOLDER | OFlag::O_RDONLY, Mode::empty()) {
        Ok(top) => top,
        Err(Errno::ENOENT | Errno::ENAMETOOLONG) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut names = Names(0);
    while let Some(batch) = entries(&top)? {
        for name in batch {
            if !remove_entry(&top, &name)? {
                raise_children(&top, &name, &mut names)?;
            }
        }
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Removes a file or an empty folder. False for a folder that is not empty.
fn remove_entry(parent: &OwnedFd, name: &CStr) -> io::Result<bool> {
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(true),
        Err(Errno::EISDIR) => {}
        Err(error) => return Err(error.into()),
    }
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Empties a folder right below the top one: its files are removed, and its folders become the top one's.
/// So the tree gets flatter, and is never entered deeper than this.
fn raise_children(top: &OwnedFd, name: &CStr, names: &mut Names) -> io::Result<()> {
    let how = OpenHow::new()
        .flags(FOLDER | OFlag::O_RDONLY)
        .resolve(ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let folder = openat2(top, name, how)?;
    while let Some(batch) = entries(&folder)? {
        for child in batch {
            if remove_entry(&folder, &child)? {
                continue;
            }
            loop {
                match renameat(&folder, child.as_c_str(), top, names.next().as_c_str()) {
                    Ok(()) => break,
                    // The name is taken by what a container called so.
                    Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Ok(())
}

/// Some of a folder's entries; `None` when it is empty.
fn entries(folder: &OwnedFd) -> io::Result<Option<Vec<CString>>> {
    // Opened anew, for a folder that is read while it changes must be read from its beginning.
    let mut reader = Dir::openat(folder, c".", FOLDER | OFlag::O_RDONLY, Mode::empty())?;
    let mut found = Vec::new();
    for entry in reader.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            found.push(name.to_owned());
            if found.len() == BATCH {
                break;
            }
        }
    }
    Ok((!found.is_empty()).then_some(found))
}

/// New names for folders that are moved up.
struct Names(u64);

impl Names {
    fn next(&mut self) -> CString {
        self.0 += 1;
        CString::new(format!(".nodectl-{}", self.0)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::mount::{MsFlags, mount, umount};

    use super::*;

    #[test]
    fn what_is_not_there_is_removed() {
        let root = tempfile::tempdir().unwrap();
        remove_tree(&root.path().join("absent")).unwrap();
        remove_tree(&root.path().join("x".repeat(300))).unwrap();
    }

    #[test]
    fn links_are_removed_and_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let (victim, tree) = (root.path().join("victim"), root.path().join("tree"));
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("kept"), "x").unwrap();
        symlink(&victim, tree.join("link")).unwrap();
        symlink(&victim, tree.join("a/b/link")).unwrap();
        fs::write(tree.join("a/b/c/file"), "x").unwrap();
        fs::write(tree.join(".nodectl-1"), "a container's own").unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && victim.join("kept").exists());
        symlink(&victim, &tree).unwrap();
        assert!(remove_tree(&tree).is_err());
        assert!(victim.join("kept").exists());
    }

    #[test]
    fn depth_and_breadth_are_no_limit() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        fs::create_dir(&tree).unwrap();
        for name in 0..3000 {
            fs::write(tree.join(name.to_string()), "").unwrap();
        }
        // Deeper than a path or a stack is long: made from the bottom up.
        for level in 0..50_000 {
            let (inner, outer) = (root.path().join("inner"), root.path().join("outer"));
            fs::create_dir(&outer).unwrap();
            if level > 0 {
                fs::rename(&inner, outer.join("d")).unwrap();
            }
            fs::rename(&outer, &inner).unwrap();
        }
        fs::rename(root.path().join("inner"), tree.join("deep")).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn nothing_below_a_mount_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let (victim, tree) = (root.path().join("victim"), root.path().join("tree"));
        fs::create_dir_all(tree.join("a/mnt")).unwrap();
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("kept"), "x").unwrap();
        // A bind mount of the same file system, which a comparison of devices would not notice.
        mount(Some(&victim), &tree.join("a/mnt"), None::<&str>, MsFlags::MS_BIND, None::<&str>)
            .expect("this test mounts, and needs root");
        let result = remove_tree(&tree);
        umount(&tree.join("a/mnt")).unwrap();
        let top = tree.read_dir().unwrap().count();
        assert!(result.is_err() && top == 1 && victim.join("kept").exists(), "{result:?}");
        remove_tree(&tree).unwrap();
    }
}
