//! Files of the node, changed whole or not at all, and put back as they were: text, mode, owner, times and
//! SELinux label.

use std::{
    ffi::OsStr,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

/// Bytes of a file that is edited: configurations are far smaller.
pub const MAX_FILE: u64 = 4 << 20;

/// Where the kernel keeps a file's SELinux label.
const LABEL: &str = "security.selinux";
/// Bytes of a label.
const MAX_LABEL: usize = 4096;

/// A copy of a file, and what the file was like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Saved {
    /// The copy's name in the folder of copies.
    pub copy: String,
    mode: u32,
    user: u32,
    group: u32,
    /// Seconds and nanoseconds since 1970.
    modified: (i64, u32),
    #[serde(default, skip_serializing_if = "Option::is_none")]
    label: Option<Vec<u8>>,
}

impl Saved {
    /// Whether the file is its owner's alone to read.
    pub fn is_private(&self) -> bool {
        self.mode & 0o077 == 0
    }
}

/// A file's text; `None` if it is not there.
///
/// # Errors
/// When it cannot be read, is no file, is not UTF-8, or has more than [`MAX_FILE`] bytes.
pub fn read(path: &Path) -> io::Result<Option<String>> {
    // A pipe would not answer.
    let mut options = OpenOptions::new();
    let file = match options.read(true).custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_CLOEXEC).open(path)
    {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is no regular file"));
    }
    let mut text = String::new();
    if file.take(MAX_FILE + 1).read_to_string(&mut text)? as u64 > MAX_FILE {
        return Err(io::Error::other(format!("has more than {} MiB", MAX_FILE >> 20)));
    }
    Ok(Some(text))
}

/// Copies a file into a folder under a name, flushed to the disk; `None` if it is not there.
///
/// # Errors
/// As [`read`], and when the copy cannot be written.
pub fn save(path: &Path, folder: &Path, name: &str) -> io::Result<Option<Saved>> {
    let Some(text) = read(path)? else { return Ok(None) };
    let like = fs::metadata(path)?;
    let label = label_of(path);
    // Whatever was at stake in the file's rights is at stake in its copy's.
    write_new(folder, name, &text, |file| file.set_permissions(fs::Permissions::from_mode(0o600)))
        .and_then(|()| flush(folder))
        .map_err(|error| {
            io::Error::new(error.kind(), format!("its copy {}: {error}", folder.join(name).display()))
        })?;
    Ok(Some(Saved {
        copy: name.to_owned(),
        mode: like.mode() & 0o7777,
        user: like.uid(),
        group: like.gid(),
        modified: (like.mtime(), u32::try_from(like.mtime_nsec()).unwrap_or(0)),
        label,
    }))
}

/// The text of a saved file's copy.
///
/// # Errors
/// When it is not there or cannot be read. A copy is a file in the folder and nothing else: the name comes from a journal,
/// which somebody else may have written where a folder holds the node.
pub fn read_copy(saved: &Saved, folder: &Path) -> io::Result<String> {
    let name = Path::new(&saved.copy);
    let copy = folder.join(name);
    if name.file_name() != Some(name.as_os_str())
        || fs::symlink_metadata(&copy).is_ok_and(|like| !like.is_file())
    {
        return Err(io::Error::other(format!("{} is no copy of a file", copy.display())));
    }
    read(&copy)?.ok_or_else(|| io::Error::other("its copy is gone"))
}

/// Puts a saved file back where it was. One that is as it was is not written: that nothing could be written there may be
/// what it is put back for.
///
/// # Errors
/// As [`read_copy`], and when the file cannot be written.
pub fn restore(path: &Path, saved: &Saved, folder: &Path) -> io::Result<()> {
    let text = read_copy(saved, folder)?;
    if is_as(path, saved, &text) {
        return Ok(());
    }
    replace(path, &text, |file| {
        std::os::unix::fs::fchown(file, Some(saved.user), Some(saved.group))?;
        file.set_permissions(fs::Permissions::from_mode(saved.mode))?;
        put_label(file, saved.label.as_deref())?;
        let (seconds, nanoseconds) = saved.modified;
        let since = Duration::new(seconds.unsigned_abs(), nanoseconds);
        file.set_modified(SystemTime::UNIX_EPOCH + since)
    })
}

/// Whether a file is as it was saved.
fn is_as(path: &Path, saved: &Saved, text: &str) -> bool {
    // A link would be replaced.
    let Ok(like) = fs::symlink_metadata(path) else { return false };
    let modified = (like.mtime(), u32::try_from(like.mtime_nsec()).unwrap_or(0));
    like.is_file()
        && (like.mode() & 0o7777, like.uid(), like.gid(), modified)
            == (saved.mode, saved.user, saved.group, saved.modified)
        && label_of(path) == saved.label
        && read(path).is_ok_and(|found| found.as_deref() == Some(text))
}

/// Gives a file a text. One that is there keeps its rights, owner and label; a new one gets `mode` and belongs to
/// root. Answers whether anything changed.
///
/// # Errors
/// When it cannot be written.
pub fn write(path: &Path, text: &str, mode: u32) -> io::Result<bool> {
    let like = match fs::metadata(path) {
        Ok(like) => Some(like),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    if like.is_some() && read(path)?.as_deref() == Some(text) {
        return Ok(false);
    }
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    }
    let label = label_of(path);
    replace(path, text, |file| {
        if let Some(like) = &like {
            std::os::unix::fs::fchown(file, Some(like.uid()), Some(like.gid()))?;
        }
        let mode = like.as_ref().map_or(mode, |like| like.mode() & 0o7777);
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        put_label(file, label.as_deref())
    })?;
    Ok(true)
}

/// Writes a text into a folder as [`write`] would for a file of a name, and takes it away again.
///
/// # Errors
/// When it cannot be written or taken away.
pub fn try_write(folder: &Path, name: &OsStr, text: &str) -> io::Result<()> {
    let temporary = temporary(name);
    let written = write_new(folder, &temporary, text, |_| Ok(()));
    match fs::remove_file(folder.join(temporary)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => written.and(Err(error)),
        _ => written,
    }
}

/// The name of what becomes a file when it is whole.
fn temporary(name: &OsStr) -> String {
    format!(".{}.nodectl", name.to_string_lossy())
}

/// Removes a file, and those of `folders` that are empty then, the last first. What is gone already is no error.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove(path: &Path, folders: &[PathBuf]) -> io::Result<()> {
    // Asked first: on a file system that is read-only the removal of nothing is refused too.
    match fs::symlink_metadata(path).and_then(|_like| fs::remove_file(path)) {
        Ok(()) => path.parent().map_or(Ok(()), flush)?,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
        Err(error) => return Err(error),
    }
    for folder in folders.iter().rev() {
        // Somebody else may have put something there since.
        if fs::remove_dir(folder).is_err() {
            break;
        }
    }
    Ok(())
}

/// The folders above a file that are not there, the outermost first.
pub fn missing_folders(path: &Path) -> Vec<PathBuf> {
    let mut missing: Vec<PathBuf> =
        path.ancestors().skip(1).take_while(|folder| !folder.exists()).map(Path::to_path_buf).collect();
    missing.reverse();
    missing
}

fn replace(path: &Path, text: &str, dress: impl Fn(&File) -> io::Result<()>) -> io::Result<()> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::other("is no path of a file"));
    };
    let temporary = temporary(name);
    let written =
        write_new(folder, &temporary, text, dress).and_then(|()| fs::rename(folder.join(&temporary), path));
    if written.is_err() {
        // On a disk that is full, too, nothing of it stays.
        fs::remove_file(folder.join(&temporary)).ok();
    }
    written?;
    flush(folder)
}

/// A new file, on the disk. One of that name, which an earlier write that was cut short has left, goes.
fn write_new(
    folder: &Path,
    name: &str,
    text: &str,
    dress: impl Fn(&File) -> io::Result<()>,
) -> io::Result<()> {
    let path = folder.join(name);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o600).open(&path)?;
    file.write_all(text.as_bytes())?;
    dress(&file)?;
    file.sync_all()
}

fn flush(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A file's label; `None` without SELinux.
fn label_of(path: &Path) -> Option<Vec<u8>> {
    let mut label = vec![0; MAX_LABEL];
    let length = rustix::fs::getxattr(path, LABEL, &mut label[..]).ok()?;
    label.truncate(length);
    Some(label)
}

fn put_label(file: &File, label: Option<&[u8]>) -> io::Result<()> {
    let Some(label) = label else { return Ok(()) };
    rustix::fs::fsetxattr(file, LABEL, label, rustix::fs::XattrFlags::empty()).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_put_back_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let (file, copies) = (folder.path().join("a.conf"), folder.path().join("copies"));
        fs::create_dir(&copies).unwrap();
        fs::write(&file, "old\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let then = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 5000);
        File::options().write(true).open(&file).unwrap().set_modified(then).unwrap();
        let saved = save(&file, &copies, "0").unwrap().unwrap();
        let told = serde_json::to_string(&saved).unwrap();
        assert_eq!(serde_json::from_str::<Saved>(&told).unwrap(), saved);

        assert!(write(&file, "new\n", 0o600).unwrap());
        assert!(!write(&file, "new\n", 0o600).unwrap());
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o640);
        fs::remove_file(&file).unwrap();
        restore(&file, &saved, &copies).unwrap();
        let like = fs::metadata(&file).unwrap();
        // What is as it was is left alone.
        restore(&file, &saved, &copies).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().ino(), like.ino());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        restore(&file, &saved, &copies).unwrap();
        let like = fs::metadata(&file).unwrap();
        assert_eq!((like.mode() & 0o7777, like.modified().unwrap()), (0o640, then));
        assert_eq!(fs::read_to_string(&file).unwrap(), "old\n");
        assert_eq!(fs::metadata(copies.join("0")).unwrap().mode() & 0o7777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left");
    }

    #[test]
    fn a_new_file_goes_with_the_folders_that_were_made_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/b/c.conf");
        let missing = missing_folders(&file);
        assert_eq!(missing, [folder.path().join("a"), folder.path().join("a/b")]);
        assert!(write(&file, "x", 0o644).unwrap());
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o644);
        fs::write(folder.path().join("a/other"), "").unwrap();
        remove(&file, &missing).unwrap();
        remove(&file, &missing).unwrap();
        assert!(folder.path().join("a").exists() && !folder.path().join("a/b").exists());
        assert_eq!(save(&file, folder.path(), "0").unwrap(), None);
    }

    #[test]
    fn what_is_no_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).unwrap_err().to_string().contains("no regular file"));
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read(&pipe).is_err());
        let large = folder.path().join("large");
        File::create(&large).unwrap().set_len(MAX_FILE + 1).unwrap();
        assert!(read(&large).unwrap_err().to_string().contains("more than 4 MiB"));
        assert_eq!(read(&large.join("x")).unwrap(), None);
    }
}
