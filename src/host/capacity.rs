//! How much the machine has.

use std::{fs, io, path::Path};

use nix::sys::statvfs::statvfs;

use crate::api::cpu_list;

/// The number of CPUs that are online, from a `cpu/online` file (`/sys/devices/system/cpu/online`).
///
/// # Errors
/// When it cannot be read or understood.
pub fn cpus(online: &Path) -> io::Result<i64> {
    let text = fs::read_to_string(online)?;
    let count = cpu_list::count(&text).filter(|count| *count > 0);
    count.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{text:?} is no list of CPUs")))
}

/// The size in bytes of the file system that a path is on.
///
/// # Errors
/// As `statvfs`.
pub fn file_system_bytes(path: &Path) -> io::Result<i64> {
    let told = statvfs(path)?;
    let bytes = u128::from(told.blocks()) * u128::from(told.fragment_size());
    Ok(i64::try_from(bytes).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_something() {
        assert!(cpus(Path::new("/sys/devices/system/cpu/online")).unwrap() > 0);
        assert!(file_system_bytes(Path::new("/")).unwrap() > 0);
        assert!(cpus(Path::new("/proc/self/comm")).is_err());
    }
}
