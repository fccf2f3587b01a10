//! Files that others write too, read within bounds, and files that are replaced as a whole. A leaf: the edges that
//! need it do not import one another.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

/// Bytes of a kubeconfig, of a certificate, of a token; all are far smaller.
pub(crate) const MAX_BYTES: u64 = 1 << 20;

/// A small regular file.
///
/// # Errors
/// As `open` and `read`; `InvalidInput` for what is no regular file, `FileTooLarge` above [`MAX_BYTES`].
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_with(path).map(|(bytes, _metadata)| bytes)
}

/// A small regular file with what the file system says of it.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_with(path: &Path) -> io::Result<(Vec<u8>, fs::Metadata)> {
    // The opening of a pipe would wait for a writer.
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        let told = format!("it has more than {} MiB", MAX_BYTES >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, told));
    }
    Ok((bytes, metadata))
}

/// Replaces a file, or makes it: whoever reads it, also after a crash, sees all of the old or all of the new.
///
/// # Errors
/// As the calls of the file system; the old file stays then.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file's path"));
    };
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let beside = format!(".{}.{}-{count}.tmp", name.to_string_lossy(), std::process::id());
    let beside = folder.join(beside);
    let written = (|| {
        // A process of this number may have died here.
        fs::remove_file(&beside).or_else(missing)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        flush_folder(folder)
    })();
    if written.is_err() {
        fs::remove_file(&beside).ok();
    }
    written
}

/// Makes the names in a folder last.
///
/// # Errors
/// As `fsync`.
pub(crate) fn flush_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// What is not there is fine.
///
/// # Errors
/// Any other error.
pub(crate) fn missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        replace(&path, b"one", 0o600).unwrap();
        replace(&path, b"two", 0o640).unwrap();
        let (bytes, metadata) = read_with(&path).unwrap();
        assert_eq!((bytes.as_slice(), metadata.mode() & 0o777), (&b"two"[..], 0o640));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside");
        fs::create_dir(folder.path().join("d")).unwrap();
        replace(&folder.path().join("d"), b"x", 0o600).unwrap_err();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn only_small_regular_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        File::create(&path).unwrap().set_len(MAX_BYTES + 1).unwrap();
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(read(folder.path()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(&pipe).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
