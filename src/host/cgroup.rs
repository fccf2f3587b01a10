//! The cgroup file systems: v1 hierarchies and v2, wherever they are mounted.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::mounts;

/// The mounted cgroup hierarchies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupMounts(Vec<PathBuf>);

impl CgroupMounts {
    /// Finds them in a `mountinfo` file: `/proc/self/mountinfo` on a node.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn find(mountinfo: &Path) -> io::Result<Self> {
        let all = mounts::read(mountinfo)?;
        let mut points: Vec<PathBuf> = all
            .into_iter()
            .filter(|mount| matches!(mount.fs_type.as_str(), "cgroup" | "cgroup2"))
            .map(|mount| mount.point)
            .collect();
        points.sort();
        points.dedup();
        Ok(Self(points))
    }

    /// Removes an empty cgroup with the empty ones below it from every hierarchy, and answers whether any
    /// was there. Blocks on the file system.
    ///
    /// # Errors
    /// `EBUSY` while a process is in it; a path that is not absolute and plain is refused.
    pub fn remove(&self, cgroup: &str) -> io::Result<bool> {
        let plain = cgroup.starts_with('/')
            && cgroup.len() > 1
            && cgroup[1..].split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !plain {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("not a cgroup: {cgroup:?}")));
        }
        let mut found = false;
        for mount in &self.0 {
            found |= remove_tree(&mount.join(&cgroup[1..]))?;
        }
        Ok(found)
    }
}

/// Removes folders bottom-up; the files in a cgroup folder go with it.
fn remove_tree(folder: &Path) -> io::Result<bool> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        result => result.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_goes_from_every_hierarchy() {
        let root = tempfile::tempdir().unwrap();
        let mountinfo = root.path().join("mountinfo");
        let (cpu, memory) = (root.path().join("cpu"), root.path().join("memory"));
        fs::write(
            &mountinfo,
            format!(
                "1 0 0:1 / {cpu} rw - cgroup cgroup rw,cpu\n2 0 0:2 / {memory} rw shared:1 - cgroup2 x rw\n\
                 3 0 0:3 / /proc rw - proc proc rw\n",
                cpu = cpu.display(),
                memory = memory.display()
            ),
        )
        .unwrap();
        let mounts = CgroupMounts::find(&mountinfo).unwrap();
        for hierarchy in [&cpu, &memory] {
            fs::create_dir_all(hierarchy.join("kubepods/podu/container")).unwrap();
        }
        assert!(mounts.remove("/kubepods/podu").unwrap());
        assert!(!mounts.remove("/kubepods/podu").unwrap());
        assert!(cpu.join("kubepods").is_dir() && !memory.join("kubepods/podu").exists());
        for bad in ["", "/", "kubepods", "/a/../b", "/a//b"] {
            assert!(mounts.remove(bad).is_err(), "{bad}");
        }
    }
}
