//! A folder of files that changes as a whole: whoever reads it sees all of the old files or all of the new.
//!
//! The layout is kubelet's (pkg/volume/util/atomic_writer.go), which programs know and watch:
//!
//! ```text
//! name    -> ..data/name                     what is asked for, links that never change
//! folder  -> ..data/folder
//! ..data  -> ..2026_03_01_11_58_47.53718     swapped by one rename
//! ..2026_03_01_11_58_47.53718/name           the files
//! ```
//!
//! A writer that is killed anywhere leaves either state, and what is left of the other goes with the next
//! write. The folder is the agent's: containers have it mounted read-only.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::{
        DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown, symlink,
    },
    path::{Component, Path, PathBuf},
};

use thiserror::Error;

use super::{
    regular::{Links, open_below, read_whole},
    remove::remove_tree,
};

const DATA: &str = "..data";
const NEW_DATA: &str = "..data_tmp";
const FOLDER_MODE: u32 = 0o755;
/// The longest name of a file, in bytes.
const MAX_NAME: usize = 255;
/// The longest path below the folder, in bytes.
const MAX_PATH: usize = 4096;

/// A file to write.
#[derive(Clone, PartialEq, Eq)]
pub struct NewFile {
    /// What is in it.
    pub content: Vec<u8>,
    /// Its permissions, whatever the umask.
    pub mode: u32,
    /// The group that it is given to by whoever writes it; `None` for any.
    pub group: Option<u32>,
    /// The user whose it is to be; `None` for the writer's own.
    pub owner: Option<u32>,
}

/// What is in it may be a secret, and is not shown.
impl fmt::Debug for NewFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { content, mode, group, owner } = self;
        write!(f, "NewFile {{ {} bytes, mode: {mode:o}, group: {group:?}, owner: {owner:?} }}", content.len())
    }
}

/// Why the files could not be written.
#[derive(Debug, Error)]
pub enum AtomicDirError {
    /// A path that might lead out of the folder, or hide what holds it together.
    #[error("{path:?} cannot be a file of the volume: {why}")]
    Path {
        /// The path as given.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The system's words, and about which path.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The path concerned.
        path: PathBuf,
        /// The system's words.
        source: io::Error,
    },
}

/// Makes the folder have exactly these files, by their paths below it. `finish` is called with the folder
/// of the new files before anything can be seen of them, to give them to somebody, say; a failure of it
/// leaves the old state. Answers whether anything was written: files that are as wanted stay. Blocks on the
/// file system.
///
/// # Errors
/// See [`AtomicDirError`]; what can be seen is then the old state.
pub fn write(
    folder: &Path,
    files: &BTreeMap<String, NewFile>,
    finish: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<bool, AtomicDirError> {
    let files: BTreeMap<PathBuf, &NewFile> =
        files.iter().map(|(path, file)| Ok((checked(path)?, file))).collect::<Result<_, AtomicDirError>>()?;
    let wanted: BTreeSet<&OsStr> = files.keys().filter_map(|path| path.iter().next()).collect();
    let current = current(folder)?;
    let kept = match &current {
        Some(current) => is_as_wanted(&folder.join(current), &files)?,
        None => false,
    };
    if !kept {
        let made = new_folder(folder)?;
        let written = write_files(&folder.join(&made), &files)
            .and_then(|()| finish(&folder.join(&made)).map_err(at(&folder.join(&made))))
            .and_then(|()| link(folder, &wanted))
            .and_then(|()| swap(folder, &made));
        if let Err(error) = written {
            // It is the next write's if it cannot be removed now.
            remove_tree(&folder.join(&made)).ok();
            return Err(error);
        }
    } else {
        link(folder, &wanted)?;
    }
    sweep(folder, &wanted)?;
    Ok(!kept)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> AtomicDirError {
    let path = path.to_owned();
    move |source| AtomicDirError::Io { path, source }
}

/// The path without its dots, if it stays within the folder and is none of the folder's own names.
fn checked(path: &str) -> Result<PathBuf, AtomicDirError> {
    let wrong = |why| AtomicDirError::Path { path: path.to_owned(), why };
    if path.len() > MAX_PATH {
        return Err(wrong("it is longer than 4096 bytes"));
    }
    if path.contains('\0') {
        return Err(wrong("it has a zero byte"));
    }
    let mut clean = PathBuf::new();
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) if name.len() > MAX_NAME => {
                return Err(wrong("a name in it is longer than 255 bytes"));
            }
            Component::Normal(name) => clean.push(name),
            Component::CurDir => {}
            Component::ParentDir => return Err(wrong("it has a '..'")),
            Component::RootDir | Component::Prefix(_) => return Err(wrong("it is not relative")),
        }
    }
    let first = clean.iter().next().ok_or_else(|| wrong("it is empty"))?;
    if first.as_encoded_bytes().starts_with(b"..") {
        return Err(wrong("it starts with '..'"));
    }
    Ok(clean)
}

/// The name of the folder that is shown now.
fn current(folder: &Path) -> Result<Option<PathBuf>, AtomicDirError> {
    let data = folder.join(DATA);
    match fs::read_link(&data) {
        Ok(target) => {
            let own = target.iter().count() == 1 && target.as_os_str().as_encoded_bytes().starts_with(b"..");
            Ok((own && target != Path::new("..") && folder.join(&target).is_dir()).then_some(target))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(at(&data)(error)),
    }
}

/// Whether a folder has exactly these files, with their contents and permissions.
fn is_as_wanted(folder: &Path, files: &BTreeMap<PathBuf, &NewFile>) -> Result<bool, AtomicDirError> {
    let mut found = 0;
    let mut folders = vec![PathBuf::new()];
    while let Some(below) = folders.pop() {
        let here = folder.join(&below);
        for entry in fs::read_dir(&here).map_err(at(&here))? {
            let entry = entry.map_err(at(&here))?;
            let path = below.join(entry.file_name());
            if entry.file_type().map_err(at(&here))?.is_dir() {
                if !files.keys().any(|file| file.starts_with(&path)) {
                    return Ok(false);
                }
                folders.push(path);
            } else {
                match files.get(&path) {
                    Some(file) if is_same(folder, &path, file) => found += 1,
                    _ => return Ok(false),
                }
            }
        }
    }
    Ok(found == files.len())
}

/// What cannot be read is not the same.
fn is_same(folder: &Path, path: &Path, wanted: &NewFile) -> bool {
    let Ok(file) = open_below(folder, path, Links::Refused) else { return false };
    let fits = |found: &fs::Metadata| {
        found.mode() & 0o7777 == wanted.mode
            && wanted.group.is_none_or(|group| found.gid() == group)
            && wanted.owner.is_none_or(|owner| found.uid() == owner)
    };
    let limit = u64::try_from(wanted.content.len()).unwrap_or(u64::MAX - 1);
    file.metadata().is_ok_and(|found| fits(&found))
        && read_whole(&file, limit).is_ok_and(|content| content == wanted.content)
}

fn new_folder(folder: &Path) -> Result<PathBuf, AtomicDirError> {
    loop {
        let time = jiff::Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S");
        let name = PathBuf::from(format!("{time}.{}", rand::random::<u32>()));
        let path = folder.join(&name);
        match fs::DirBuilder::new().mode(FOLDER_MODE).create(&path) {
            Ok(()) => {
                fs::set_permissions(&path, fs::Permissions::from_mode(FOLDER_MODE)).map_err(at(&path))?;
                return Ok(name);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(at(&path)(error)),
        }
    }
}

fn write_files(folder: &Path, files: &BTreeMap<PathBuf, &NewFile>) -> Result<(), AtomicDirError> {
    for (path, file) in files {
        let parents: Vec<&Path> = path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect();
        for parent in parents.into_iter().rev().map(|parent| folder.join(parent)) {
            match fs::DirBuilder::new().mode(FOLDER_MODE).create(&parent) {
                Ok(()) => fs::set_permissions(&parent, fs::Permissions::from_mode(FOLDER_MODE)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && parent.is_dir() => Ok(()),
                Err(error) => Err(error),
            }
            .map_err(at(&parent))?;
        }
        let path = folder.join(path);
        let write = || {
            let mut made = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
            made.write_all(&file.content)?;
            if file.owner.is_some() {
                fchown(&made, file.owner, None)?;
            }
            made.set_permissions(fs::Permissions::from_mode(file.mode))
        };
        write().map_err(at(&path))?;
    }
    Ok(())
}

/// Makes the links that are seen. They may lead nowhere until the swap.
fn link(folder: &Path, wanted: &BTreeSet<&OsStr>) -> Result<(), AtomicDirError> {
    for name in wanted {
        let (path, target) = (folder.join(name), Path::new(DATA).join(name));
        match fs::read_link(&path) {
            Ok(there) if there == target => continue,
            Ok(_) => fs::remove_file(&path).map_err(at(&path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // No link: a `subPath` of this name was mounted before there was such a file. Who has it keeps it.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                fs::remove_dir(&path).map_err(at(&path))?;
            }
            Err(error) => return Err(at(&path)(error)),
        }
        symlink(&target, &path).map_err(at(&path))?;
    }
    Ok(())
}

fn swap(folder: &Path, made: &Path) -> Result<(), AtomicDirError> {
    let (new, data) = (folder.join(NEW_DATA), folder.join(DATA));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&new)(error)),
        _ => {}
    }
    symlink(made, &new).and_then(|()| fs::rename(&new, &data)).map_err(at(&data))
}

/// Removes links to what is no longer there, and folders that are not shown.
fn sweep(folder: &Path, wanted: &BTreeSet<&OsStr>) -> Result<(), AtomicDirError> {
    let shown = current(folder)?;
    for entry in fs::read_dir(folder).map_err(at(folder))? {
        let name = entry.map_err(at(folder))?.file_name();
        let path = folder.join(&name);
        let own = name.as_encoded_bytes().starts_with(b"..");
        if name == DATA || shown.as_deref() == Some(Path::new(&name)) || (!own && wanted.contains(&*name)) {
            continue;
        }
        let link = fs::symlink_metadata(&path).map_err(at(&path))?.is_symlink();
        if link {
            fs::remove_file(&path).map_err(at(&path))?;
        } else if own {
            remove_tree(&path).map_err(at(&path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "atomic_dir_tests.rs"]
mod tests;
