//! One container's log and the rotated files beside it. Its path comes from the runtime, so it is not
//! trusted: it must lie below the node's log folder, its folder is opened without following a link on the
//! way, and everything after that goes by that open folder and a plain name. Files that are no regular ones
//! are neither read nor moved.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, BufWriter, Read as _, Write as _},
    os::{fd::OwnedFd, unix::fs::PermissionsExt as _},
    path::{Component, Path},
};

use flate2::{Compression, write::GzEncoder};
use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, open, openat, openat2, renameat, renameat2},
    sys::stat::{FileStat, Mode, SFlag, fstatat},
    unistd::{UnlinkatFlags, unlinkat},
};

const FOLDER: OFlag = OFlag::O_DIRECTORY.union(OFlag::O_CLOEXEC);
/// Nothing in the folder is followed, and nothing there can hold up who opens it.
const PLAIN: OFlag = OFlag::O_NOFOLLOW.union(OFlag::O_NONBLOCK).union(OFlag::O_CLOEXEC);
/// How many names of the folder are looked at: many times what rotation leaves.
const MOST_NAMES: usize = 4096;
/// How much is compressed between two looks at whether to go on.
const CHUNK: usize = 64 * 1024;

/// The folder of all container logs, open.
#[derive(Debug)]
pub struct LogRoot {
    folder: OwnedFd,
}

/// A container's log in its folder. Every method blocks on the file system.
#[derive(Debug)]
pub struct LogFile {
    folder: OwnedFd,
    name: String,
}

impl LogRoot {
    /// Opens it; `None` if it is not there.
    ///
    /// # Errors
    /// As `open`.
    pub fn open(root: &Path) -> io::Result<Option<Self>> {
        found(open(root, FOLDER | OFlag::O_PATH, Mode::empty()).map(|folder| Self { folder }))
    }

    /// The log at a path relative to the root; `None` if its folder is not there.
    ///
    /// # Errors
    /// `InvalidInput` for a path that leaves the root or has other than plain parts; as `openat2`, with
    /// `ELOOP` where a link is on the way.
    pub fn log(&self, path: &Path) -> io::Result<Option<LogFile>> {
        let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
        let name = path.file_name().and_then(OsStr::to_str);
        let (Some(name), Some(parent), true) = (name, path.parent(), plain) else {
            let message = format!("not the path of a log: {}", path.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let how = OpenHow::new().flags(FOLDER | OFlag::O_RDONLY).resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_MAGICLINKS,
        );
        let folder = found(openat2(&self.folder, parent, how))?;
        Ok(folder.map(|folder| LogFile { folder, name: name.to_owned() }))
    }
}

impl LogFile {
    /// The log's own name in its folder.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The log's size in bytes; `None` if it is not there.
    ///
    /// # Errors
    /// As `stat`; `InvalidInput` if it is no regular file.
    pub fn size(&self) -> io::Result<Option<u64>> {
        let stat = found(fstatat(&self.folder, self.name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW))?;
        stat.map(|stat| regular(&self.name, &stat)).transpose()
    }

    /// The names of the files beside the log that begin with its name and a point, in no order.
    ///
    /// # Errors
    /// As `readdir`.
    pub fn rotated(&self) -> io::Result<Vec<String>> {
        let mut folder = Dir::openat(&self.folder, c".", FOLDER | OFlag::O_RDONLY, Mode::empty())?;
        let mut names = Vec::new();
        for entry in folder.iter().take(MOST_NAMES) {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name.strip_prefix(&self.name).is_some_and(|rest| rest.starts_with('.')) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Opens a file of the folder to be read; `None` if it is not there.
    ///
    /// # Errors
    /// As `open`, with `ELOOP` for a link; `InvalidInput` if it is no regular file.
    pub fn open(&self, name: &str) -> io::Result<Option<File>> {
        let opened =
            found(openat(&self.folder, name, PLAIN | OFlag::O_RDONLY, Mode::empty()))?.map(File::from);
        match opened {
            Some(file) if !file.metadata()?.is_file() => Err(not_regular(name)),
            opened => Ok(opened),
        }
    }

    /// Removes a file of the folder; one that is gone is fine.
    ///
    /// # Errors
    /// As `unlink`.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        found(unlinkat(&self.folder, name, UnlinkatFlags::NoRemoveDir)).map(drop)
    }

    /// Removes the log and all that was rotated from it.
    ///
    /// # Errors
    /// As `readdir` and `unlink`.
    pub fn remove_all(&self) -> io::Result<()> {
        for name in self.rotated()? {
            self.remove(&name)?;
        }
        self.remove(&self.name)
    }

    /// Gives a file of the folder another name, which nothing has yet.
    ///
    /// # Errors
    /// As `rename`; `EEXIST` if the name is taken.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        match renameat2(&self.folder, from, &self.folder, to, RenameFlags::RENAME_NOREPLACE) {
            // Not every file system can do that in one step.
            Err(Errno::EINVAL | Errno::ENOSYS) => {
                match fstatat(&self.folder, to, AtFlags::AT_SYMLINK_NOFOLLOW) {
                    Err(Errno::ENOENT) => Ok(renameat(&self.folder, from, &self.folder, to)?),
                    Ok(_) => Err(Errno::EEXIST.into()),
                    Err(error) => Err(error.into()),
                }
            }
            result => Ok(result?),
        }
    }

    /// Compresses a file of the folder with gzip, and removes it once the compressed one is whole and on
    /// disk: `half_made` becomes `to`. Takes little memory however large the file is. Answers false if
    /// `go_on` did before the end; nothing has changed then.
    ///
    /// # Errors
    /// As `open`, `read`, `write` and `rename`; what was half made is removed where that can be done.
    pub fn compress(
        &self,
        from: &str,
        (to, half_made): (&str, &str),
        go_on: &dyn Fn() -> bool,
    ) -> io::Result<bool> {
        let mut source = self.open(from)?.ok_or(Errno::ENOENT)?;
        let metadata = source.metadata()?;
        self.remove(half_made)?;
        let flags = PLAIN | OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let made = File::from(openat(&self.folder, half_made, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        made.set_permissions(std::fs::Permissions::from_mode(metadata.permissions().mode() & 0o7777))?;
        let written = (|| {
            let mut encoder = GzEncoder::new(BufWriter::new(&made), Compression::default());
            let mut chunk = vec![0; CHUNK];
            loop {
                if !go_on() {
                    return Ok(false);
                }
                match source.read(&mut chunk)? {
                    0 => break,
                    length => encoder.write_all(&chunk[..length])?,
                }
            }
            encoder.finish()?.flush()?;
            made.sync_all()?;
            self.rename(half_made, to)?;
            Ok(true)
        })();
        match written {
            Ok(true) => self.remove(from).map(|()| true),
            unfinished => {
                self.remove(half_made)?;
                unfinished
            }
        }
    }
}

/// `None` for what is not there.
fn found<T>(result: nix::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::ENOENT | Errno::ENAMETOOLONG) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn regular(name: &str, stat: &FileStat) -> io::Result<u64> {
    if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG {
        Ok(u64::try_from(stat.st_size).unwrap_or(0))
    } else {
        Err(not_regular(name))
    }
}

fn not_regular(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is not a regular file"))
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::fs::{MetadataExt as _, symlink},
    };

    use flate2::read::GzDecoder;

    use super::*;

    fn folder() -> (tempfile::TempDir, LogFile) {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("pod/c")).unwrap();
        let log = LogRoot::open(root.path()).unwrap().unwrap().log(Path::new("pod/c/0.log")).unwrap();
        (root, log.unwrap())
    }

    #[test]
    fn only_plain_paths_below_the_root_are_logs() {
        let (root, log) = folder();
        assert_eq!(log.name(), "0.log");
        let logs = LogRoot::open(root.path()).unwrap().unwrap();
        for path in ["../x/0.log", "/etc/passwd", "pod/../pod/c/0.log", "", "pod/c/.."] {
            let error = logs.log(Path::new(path)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path}");
        }
        symlink("c", root.path().join("pod/link")).unwrap();
        let error = logs.log(Path::new("pod/link/0.log")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::ELOOP as i32));
        assert!(logs.log(Path::new("pod/gone/0.log")).unwrap().is_none());
        assert!(logs.log(Path::new("0.log")).unwrap().is_some());
        assert!(LogRoot::open(&root.path().join("gone")).unwrap().is_none());
    }

    #[test]
    fn sizes_are_those_of_regular_files() {
        let (root, log) = folder();
        let path = root.path().join("pod/c/0.log");
        assert_eq!(log.size().unwrap(), None);
        fs::write(&path, "12345").unwrap();
        assert_eq!(log.size().unwrap(), Some(5));
        fs::remove_file(&path).unwrap();
        symlink("/etc/passwd", &path).unwrap();
        assert!(log.size().is_err());
    }

    #[test]
    fn a_file_is_compressed_whole_with_its_mode() {
        let (root, log) = folder();
        let folder = root.path().join("pod/c");
        let text: String = (0..40_000).map(|line| format!("line {line}\n")).collect();
        fs::write(folder.join("0.log.1"), &text).unwrap();
        fs::set_permissions(folder.join("0.log.1"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(folder.join("0.log.1.tmp"), "of a crash").unwrap();
        assert!(!log.compress("0.log.1", ("0.log.1.gz", "0.log.1.tmp"), &|| false).unwrap());
        assert_eq!(log.rotated().unwrap(), ["0.log.1"]);
        assert!(log.compress("0.log.1", ("0.log.1.gz", "0.log.1.tmp"), &|| true).unwrap());
        assert_eq!(log.rotated().unwrap(), ["0.log.1.gz"]);
        let made = folder.join("0.log.1.gz");
        assert_eq!(fs::metadata(&made).unwrap().mode() & 0o7777, 0o640);
        let mut back = String::new();
        GzDecoder::new(File::open(&made).unwrap()).read_to_string(&mut back).unwrap();
        assert!(back == text && fs::metadata(&made).unwrap().len() < text.len() as u64 / 2);
        // Never over a file that is there, and never through a link.
        fs::write(folder.join("0.log.1"), "more").unwrap();
        assert!(log.compress("0.log.1", ("0.log.1.gz", "0.log.1.tmp"), &|| true).is_err());
        symlink("/etc/passwd", folder.join("0.log.2")).unwrap();
        assert!(log.compress("0.log.2", ("0.log.2.gz", "0.log.2.tmp"), &|| true).is_err());
        let mut left = log.rotated().unwrap();
        left.sort();
        assert_eq!(left, ["0.log.1", "0.log.1.gz", "0.log.2"]);
    }

    #[test]
    fn a_name_that_is_taken_is_not_taken_over() {
        let (root, log) = folder();
        let folder = root.path().join("pod/c");
        fs::write(folder.join("0.log"), "new").unwrap();
        fs::write(folder.join("0.log.1"), "old").unwrap();
        let error = log.rename("0.log.1", "0.log").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        log.rename("0.log", "0.log.2").unwrap();
        assert_eq!(fs::read_to_string(folder.join("0.log.2")).unwrap(), "new");
    }

    #[test]
    fn removing_a_log_takes_what_was_rotated_from_it() {
        let (root, log) = folder();
        let folder = root.path().join("pod/c");
        for name in ["0.log", "0.log.1", "0.log.1.gz", "1.log", "10.log", "0.logs"] {
            fs::write(folder.join(name), "").unwrap();
        }
        log.remove_all().unwrap();
        log.remove_all().unwrap();
        let mut left: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["0.logs", "1.log", "10.log"]);
    }
}
