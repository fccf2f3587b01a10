//! Reading files that containers could write, or could have put something else in place of: a path is
//! resolved by the kernel within a folder and never out of it (openat2), what is no regular file is not
//! opened for reading, and no more is read than a bound.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::fd::AsRawFd as _,
    path::Path,
};

use nix::{
    fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2},
    sys::stat::{Mode, SFlag, fstat},
};

use super::beneath::persistently;

/// What becomes of symbolic links below the folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// They are followed as if the folder were the root of all.
    Within,
    /// They are an error.
    Refused,
}

/// Opens a regular file below a folder. The folder itself may be reached over links. Blocks on the file
/// system, but not on a pipe or a device.
///
/// # Errors
/// As `openat2`; `InvalidInput` for what is no regular file, `WouldBlock` where something is renamed on the
/// way all the time.
pub fn open_below(folder: &Path, path: &Path, links: Links) -> io::Result<File> {
    let folder = open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlag::RESOLVE_NO_MAGICLINKS
        | match links {
            Links::Within => ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_XDEV,
            Links::Refused => ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS,
        };
    // To open a device for reading may do something already: it is looked at first.
    let how = || OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(resolve);
    let found = persistently(|| openat2(&folder, path, how()))?;
    if SFlag::from_bits_truncate(fstat(&found)?.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    // The same file, whatever the path has come to mean.
    File::open(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

/// The first bytes of a file.
///
/// # Errors
/// As `read`; `FileTooLarge` if there are more than `limit`.
pub fn read_whole(file: &File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("the file is longer than {limit} bytes"),
        ));
    }
    Ok(bytes)
}

/// The last bytes of a file, and whether these are all of it.
///
/// # Errors
/// As `read`.
pub fn read_end(mut file: &File, limit: u64) -> io::Result<(Vec<u8>, bool)> {
    let start = file.metadata()?.len().saturating_sub(limit);
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok((bytes, start == 0))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use nix::unistd::mkfifo;

    use super::*;

    fn text(folder: &Path, path: &str, links: Links) -> io::Result<String> {
        let file = open_below(folder, Path::new(path), links)?;
        Ok(String::from_utf8(read_whole(&file, 100)?).unwrap())
    }

    #[test]
    fn nothing_outside_is_read() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("folder");
        fs::create_dir_all(folder.join("sub")).unwrap();
        fs::write(root.path().join("secret"), "secret").unwrap();
        fs::write(folder.join("sub/plain"), "plain").unwrap();
        symlink("sub/plain", folder.join("inner")).unwrap();
        symlink("/sub/plain", folder.join("absolute")).unwrap();
        symlink("../secret", folder.join("outer")).unwrap();
        symlink(root.path().join("secret"), folder.join("host")).unwrap();
        symlink("/proc/self/root", folder.join("magic")).unwrap();
        for path in ["sub/plain", "inner", "absolute", "sub/../sub/plain", "../sub/plain"] {
            assert_eq!(text(&folder, path, Links::Within).unwrap(), "plain", "{path}");
        }
        for path in ["outer", "host", "../secret", "magic/etc/hostname", "absent"] {
            assert!(text(&folder, path, Links::Within).is_err(), "{path}");
        }
        assert_eq!(text(&folder, "sub/plain", Links::Refused).unwrap(), "plain");
        for path in ["inner", "absolute", "outer", "../secret", "/sub/plain"] {
            assert!(text(&folder, path, Links::Refused).is_err(), "{path}");
        }
    }

    #[test]
    fn only_regular_files_are_opened() {
        let root = tempfile::tempdir().unwrap();
        mkfifo(&root.path().join("pipe"), Mode::S_IRWXU).unwrap();
        fs::create_dir(root.path().join("folder")).unwrap();
        for path in ["pipe", "folder"] {
            let error = open_below(root.path(), Path::new(path), Links::Refused).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path}: {error}");
        }
    }

    #[test]
    fn no_more_is_read_than_wanted() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("f"), "0123456789").unwrap();
        let open = || open_below(root.path(), Path::new("f"), Links::Refused).unwrap();
        assert_eq!(read_end(&open(), 4).unwrap(), (b"6789".to_vec(), false));
        assert_eq!(read_end(&open(), 10).unwrap(), (b"0123456789".to_vec(), true));
        assert_eq!(read_whole(&open(), 10).unwrap(), b"0123456789");
        assert_eq!(read_whole(&open(), 9).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
