//! How much the machine has.

use std::{io, path::Path};

use nix::sys::statvfs::statvfs;

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
        assert!(file_system_bytes(Path::new("/")).unwrap() > 0);
    }
}
