//! How much the machine has, and how much of it is left.

use std::{fs, io, path::Path};

use nix::sys::statvfs::statvfs;

/// How full a file system is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystemUse {
    /// Its size in bytes.
    pub bytes: i64,
    /// Bytes that are in use.
    pub bytes_used: i64,
    /// Bytes that are left for who is not root.
    pub bytes_left: i64,
    /// How many inodes it has; 0 of one that makes them as they are needed.
    pub inodes: i64,
    /// Inodes that are left.
    pub inodes_left: i64,
}

/// How full the file system is that a path is on. Blocks on the file system.
///
/// # Errors
/// As `statvfs`.
pub fn file_system_use(path: &Path) -> io::Result<FileSystemUse> {
    let told = statvfs(path)?;
    let bytes = |blocks: u64| {
        i64::try_from(u128::from(blocks) * u128::from(told.fragment_size())).unwrap_or(i64::MAX)
    };
    let number = |inodes: u64| i64::try_from(inodes).unwrap_or(i64::MAX);
    Ok(FileSystemUse {
        bytes: bytes(told.blocks()),
        bytes_used: bytes(told.blocks().saturating_sub(told.blocks_free())),
        bytes_left: bytes(told.blocks_available()),
        inodes: number(told.files()),
        inodes_left: number(told.files_free()),
    })
}

/// How many processes and threads there are. Blocks on the file system.
///
/// # Errors
/// When `/proc/loadavg` cannot be read, or has no such number.
pub fn tasks(proc_root: &Path) -> io::Result<i64> {
    // `0.20 0.18 0.12 1/80 11206`: of the tasks before the slash, which run, and all.
    let text = fs::read_to_string(proc_root.join("loadavg"))?;
    let all = text.split_whitespace().nth(3).and_then(|tasks| tasks.split_once('/')?.1.parse().ok());
    all.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no number of tasks in {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_something_left() {
        let used = file_system_use(Path::new("/")).unwrap();
        assert!(
            used.bytes > 0
                && used.bytes_left + used.bytes_used <= used.bytes
                && used.inodes_left <= used.inodes,
            "{used:?}"
        );
        assert!(tasks(Path::new("/proc")).unwrap() > 0);
    }
}
