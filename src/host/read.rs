//! Reads small files whole: never more than a bound, and never from what is no regular file, where a read
//! may wait for ever.

use std::{fs, io, io::Read as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use nix::fcntl::OFlag;

/// Reads a regular file of at most `limit` bytes.
///
/// # Errors
/// As `open` and `read`; and for anything but a regular file, and a larger one.
pub fn read_bounded(path: &Path, limit: usize) -> io::Result<Vec<u8>> {
    // The opening of a pipe would wait for a writer.
    let file = fs::OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_kept_and_a_pipe_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_bounded(&path, 5).unwrap(), b"12345");
        assert_eq!(read_bounded(&path, 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert_eq!(read_bounded(&pipe, 4).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(read_bounded(folder.path(), 4).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
