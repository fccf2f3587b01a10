//! Versioned, checksummed, atomically replaced files, one value each.
//!
//! What the agent must know after a `kill -9` and cannot ask the runtime for stands here. Three things can
//! go wrong with such a file, and each has one answer. The agent dies in the middle of a write: the value
//! is written beside, flushed, and renamed over the old one, so that a reader sees the old or the new value
//! and nothing between. The disk hands back something else than was written, or a newer agent wrote a
//! schema that this one does not know: the file is set aside under another name, told to the caller, and
//! the agent starts without it, since an agent that refuses to start helps no pod. The disk is full or
//! read-only: that is an error of the save, and the old value stays.
//!
//! A file is one header line, `nodectl-checkpoint 1 KIND VERSION SHA256`, and the value as JSON. The
//! checksum covers the header's other words too.
//!
//! All calls block on the disk (a save flushes twice); async callers go through `spawn_blocking`.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    marker::PhantomData,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use nix::fcntl::OFlag;
use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::api::ids::is_safe_path_component;

const MAGIC: &str = "nodectl-checkpoint";
/// The version of the envelope, not of the value in it.
const FORMAT: &str = "1";
const SUFFIX: &str = ".ckpt";
const CORRUPT: &str = ".corrupt-";
const TEMP: &str = ".tmp-";
/// Far above any checkpoint; what is larger was not written by us and is not read into memory.
const MAX_BYTES: u64 = 16 << 20;
/// How many set-aside files a folder keeps; the oldest go first.
const MAX_SET_ASIDE: usize = 16;

/// What a checkpoint holds: both words stand in the file and must match on reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// The kind of value, one word without spaces: `pod`, `node`.
    pub kind: &'static str,
    /// Raised whenever an older or newer program would misread the value.
    pub version: u32,
}

/// A checkpoint could not be written or removed, or its folder not be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The name could leave the folder or is too long.
    #[error("checkpoint name {name:?} is not usable as a file name")]
    Name {
        /// The name as given.
        name: String,
    },
    /// The value does not turn into JSON.
    #[error("checkpoint {path}: the value cannot be written as JSON: {source}")]
    Encode {
        /// The checkpoint's file.
        path: PathBuf,
        /// The cause.
        source: serde_json::Error,
    },
    /// The value is larger than any reader accepts.
    #[error("checkpoint {path}: the value has {bytes} bytes, more than {MAX_BYTES}")]
    TooLarge {
        /// The checkpoint's file.
        path: PathBuf,
        /// The file's size in bytes.
        bytes: u64,
    },
    /// The file system refused: full, read-only, permission.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl StoreError {
    /// Whether the file system is full or over quota, so that a later try may succeed.
    pub fn is_full(&self) -> bool {
        let Self::Io { source, .. } = self else { return false };
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }
}

/// A file that could not be used. The caller logs it; there is nothing else to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// The file (or folder) that could not be used.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
    /// Where it is now; `None` if it could not be moved or not even be read, and is still in place.
    pub moved_to: Option<PathBuf>,
}

impl std::fmt::Display for SetAside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "checkpoint {} is not used: {}", self.path.display(), self.reason)?;
        match &self.moved_to {
            Some(to) => write!(f, "; kept as {}", to.display()),
            None => write!(f, "; left in place"),
        }
    }
}

/// What a load found.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded<T> {
    /// The value; `None` if there is no file or no usable one.
    pub value: Option<T>,
    /// The file that was there and could not be used.
    pub set_aside: Option<SetAside>,
}

/// A folder of checkpoints of one kind, each under a name such as a pod's UID. One process at a time may
/// have it open (see the root-dir lock): opening it removes what an interrupted save left behind.
#[derive(Debug, Clone)]
pub struct CheckpointDir<T> {
    dir: PathBuf,
    schema: Schema,
    value: PhantomData<fn(T) -> T>,
}

impl<T: Serialize + DeserializeOwned> CheckpointDir<T> {
    /// Opens a folder, makes it (mode 0700, with its parents) where it is missing, and removes unfinished
    /// files.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the folder cannot be made or listed.
    pub fn open(dir: impl Into<PathBuf>, schema: Schema) -> Result<Self, StoreError> {
        let dir = dir.into();
        make_dir(&dir)?;
        let opened = Self { dir, schema, value: PhantomData };
        for name in opened.list().map_err(io_error("list", &opened.dir))? {
            if name.starts_with('.') && name.contains(TEMP) {
                let path = opened.dir.join(&name);
                fs::remove_file(&path).map_err(io_error("remove the unfinished file", &path))?;
            }
        }
        Ok(opened)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Replaces the value of a name. When it returns, the value is on the disk.
    ///
    /// # Errors
    /// On any error the former value is still there, unless only the last flush of the folder failed.
    pub fn save(&self, name: &str, value: &T) -> Result<(), StoreError> {
        let path = self.file(name)?;
        let bytes =
            encode(self.schema, value).map_err(|source| StoreError::Encode { path: path.clone(), source })?;
        let size = bytes.len() as u64;
        if size > MAX_BYTES {
            return Err(StoreError::TooLarge { path, bytes: size });
        }
        let temp = self.dir.join(format!(".{name}{TEMP}{:016x}", rand::random::<u64>()));
        let replaced = write_new(&temp, &bytes)
            .map_err(io_error("write", &temp))
            .and_then(|()| fs::rename(&temp, &path).map_err(io_error("replace", &path)));
        if let Err(error) = replaced {
            // The unfinished file takes room that a full disk needs; if even this fails, the next open
            // removes it.
            drop(fs::remove_file(&temp));
            return Err(error);
        }
        self.flush_dir()
    }

    /// Reads the value of a name. Never fails: what cannot be used is set aside and told.
    pub fn load(&self, name: &str) -> Loaded<T> {
        match self.file(name) {
            Ok(path) => self.load_file(&path),
            Err(error) => Loaded {
                value: None,
                set_aside: Some(SetAside {
                    path: self.dir.join(name),
                    reason: error.to_string(),
                    moved_to: None,
                }),
            },
        }
    }

    /// Reads every value, in order of the names, and tells which files could not be used.
    pub fn load_all(&self) -> (Vec<(String, T)>, Vec<SetAside>) {
        let mut values = Vec::new();
        let mut set_aside = Vec::new();
        let mut names = match self.list() {
            Ok(names) => names,
            Err(error) => {
                let reason = error.to_string();
                set_aside.push(SetAside { path: self.dir.clone(), reason, moved_to: None });
                Vec::new()
            }
        };
        names.sort_unstable();
        for file in &names {
            let Some(name) = file.strip_suffix(SUFFIX).filter(|name| is_safe_path_component(name)) else {
                continue;
            };
            let loaded = self.load_file(&self.dir.join(file));
            values.extend(loaded.value.map(|value| (name.to_owned(), value)));
            set_aside.extend(loaded.set_aside);
        }
        (values, set_aside)
    }

    /// Sets a value aside that was read and is not what its name promises.
    pub fn refuse(&self, name: &str, reason: impl Into<String>) -> SetAside {
        let path = match self.file(name) {
            Ok(path) => path,
            Err(_) => self.dir.join(name),
        };
        let reason = reason.into();
        let set_aside = self.set_aside(&path, reason.clone()).set_aside;
        set_aside.unwrap_or(SetAside { path, reason, moved_to: None })
    }

    /// Removes the values of names that are not kept. Best effort.
    pub fn keep_only(&self, keep: impl Fn(&str) -> bool) {
        for file in self.list().unwrap_or_default() {
            if file.strip_suffix(SUFFIX).is_some_and(|name| !keep(name)) {
                drop(fs::remove_file(self.dir.join(&file)));
            }
        }
    }

    /// Removes the files that were set aside, of names that are not kept. Best effort.
    pub fn clear_set_aside(&self, keep: impl Fn(&str) -> bool) {
        for file in self.list().unwrap_or_default() {
            let name = file.rsplit_once(CORRUPT).and_then(|(file, _)| file.strip_suffix(SUFFIX));
            if name.is_some_and(|name| !keep(name)) {
                drop(fs::remove_file(self.dir.join(&file)));
            }
        }
    }

    /// Removes a name's value; one that is not there is fine.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the file is there and cannot be removed.
    pub fn remove(&self, name: &str) -> Result<(), StoreError> {
        let path = self.file(name)?;
        match fs::remove_file(&path) {
            Ok(()) => self.flush_dir(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(StoreError::Io { action: "remove", path, source }),
        }
    }

    fn file(&self, name: &str) -> Result<PathBuf, StoreError> {
        if is_safe_path_component(name) {
            Ok(self.dir.join(format!("{name}{SUFFIX}")))
        } else {
            Err(StoreError::Name { name: name.to_owned() })
        }
    }

    fn load_file(&self, path: &Path) -> Loaded<T> {
        let bytes = match read_bounded(path) {
            Ok(bytes) => bytes,
            Err(ReadError::Missing) => return Loaded { value: None, set_aside: None },
            Err(ReadError::Unreadable(reason)) => {
                // An input/output error may pass; the file is left for the next start.
                let set_aside = SetAside { path: path.to_owned(), reason, moved_to: None };
                return Loaded { value: None, set_aside: Some(set_aside) };
            }
            Err(ReadError::NotOurs(reason)) => return self.set_aside(path, reason),
        };
        match decode(self.schema, &bytes) {
            Ok(value) => Loaded { value: Some(value), set_aside: None },
            Err(reason) => self.set_aside(path, reason),
        }
    }

    fn set_aside(&self, path: &Path, reason: String) -> Loaded<T> {
        let mut target = path.as_os_str().to_owned();
        // Nanoseconds in a fixed width: the names sort by age.
        target.push(format!("{CORRUPT}{:020}", Timestamp::now().as_nanosecond()));
        let target = PathBuf::from(target);
        let (moved_to, reason) = match fs::rename(path, &target) {
            Ok(()) => (Some(target), reason),
            Err(error) => (None, format!("{reason} (and it cannot be renamed: {error})")),
        };
        self.prune_set_aside();
        Loaded { value: None, set_aside: Some(SetAside { path: path.to_owned(), reason, moved_to }) }
    }

    /// Keeps the newest set-aside files. Best effort: room is all there is to win.
    fn prune_set_aside(&self) {
        let mut aged: Vec<(String, String)> = self
            .list()
            .unwrap_or_default()
            .into_iter()
            .filter_map(|name| {
                let (_, stamp) = name.rsplit_once(&format!("{SUFFIX}{CORRUPT}"))?;
                let is_stamp = !stamp.is_empty() && stamp.bytes().all(|b| b.is_ascii_digit());
                is_stamp.then(|| (stamp.to_owned(), name.clone()))
            })
            .collect();
        aged.sort_unstable();
        let surplus = aged.len().saturating_sub(MAX_SET_ASIDE);
        for (_, name) in aged.drain(..surplus) {
            drop(fs::remove_file(self.dir.join(name)));
        }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            // A name that is not UTF-8 is not ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        Ok(names)
    }

    fn flush_dir(&self) -> Result<(), StoreError> {
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(io_error("flush the folder", &self.dir))
    }
}

/// A single checkpoint in a folder that it may share with others of the same kind.
#[derive(Debug, Clone)]
pub struct Checkpoint<T> {
    dir: CheckpointDir<T>,
    name: String,
}

impl<T: Serialize + DeserializeOwned> Checkpoint<T> {
    /// Opens the folder as [`CheckpointDir::open`] does.
    ///
    /// # Errors
    /// [`StoreError::Io`] for the folder, [`StoreError::Name`] for the name.
    pub fn open(dir: impl Into<PathBuf>, name: &str, schema: Schema) -> Result<Self, StoreError> {
        let dir = CheckpointDir::open(dir, schema)?;
        dir.file(name)?;
        Ok(Self { dir, name: name.to_owned() })
    }

    /// See [`CheckpointDir::save`].
    ///
    /// # Errors
    /// As there.
    pub fn save(&self, value: &T) -> Result<(), StoreError> {
        self.dir.save(&self.name, value)
    }

    /// See [`CheckpointDir::load`].
    pub fn load(&self) -> Loaded<T> {
        self.dir.load(&self.name)
    }

    /// See [`CheckpointDir::remove`].
    ///
    /// # Errors
    /// As there.
    pub fn remove(&self) -> Result<(), StoreError> {
        self.dir.remove(&self.name)
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}

fn make_dir(dir: &Path) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error("make", dir))
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

enum ReadError {
    Missing,
    Unreadable(String),
    NotOurs(String),
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, ReadError> {
    // Neither a link nor a pipe: the first would lead elsewhere, the second would block.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ReadError::Missing),
        Err(error) if error.raw_os_error() == Some(nix::libc::ELOOP) => {
            return Err(ReadError::NotOurs("it is a symbolic link".to_owned()));
        }
        Err(error) => return Err(ReadError::Unreadable(error.to_string())),
    };
    let meta = file.metadata().map_err(|error| ReadError::Unreadable(error.to_string()))?;
    if !meta.is_file() {
        return Err(ReadError::NotOurs("it is not a regular file".to_owned()));
    }
    if meta.len() > MAX_BYTES {
        return Err(ReadError::NotOurs(format!("it has {} bytes, more than {MAX_BYTES}", meta.len())));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or_default());
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|error| ReadError::Unreadable(error.to_string()))?;
    Ok(bytes)
}

fn checksum(schema: Schema, payload: &[u8]) -> String {
    let head = format!("{MAGIC} {FORMAT} {} {}\n", schema.kind, schema.version);
    hex::encode(Sha256::new().chain_update(head).chain_update(payload).finalize())
}

fn encode<T: Serialize>(schema: Schema, value: &T) -> Result<Vec<u8>, serde_json::Error> {
    let payload = serde_json::to_vec(value)?;
    let sum = checksum(schema, &payload);
    let head = format!("{MAGIC} {FORMAT} {} {} {sum}\n", schema.kind, schema.version);
    Ok([head.as_bytes(), &payload].concat())
}

fn decode<T: DeserializeOwned>(schema: Schema, bytes: &[u8]) -> Result<T, String> {
    let end =
        bytes.iter().take(512).position(|&b| b == b'\n').ok_or("it is cut short or not a checkpoint")?;
    let (head, payload) = (&bytes[..end], &bytes[end + 1..]);
    let words: Vec<&str> = std::str::from_utf8(head).unwrap_or_default().split(' ').collect();
    let [MAGIC, format, kind, version, sum] = words[..] else {
        return Err("it does not start like a checkpoint".to_owned());
    };
    if format != FORMAT {
        return Err(format!("its format {format:?} is not known to this version of nodectl"));
    }
    if kind != schema.kind {
        return Err(format!("it holds a {kind:?} and not a {:?}", schema.kind));
    }
    if version != schema.version.to_string() {
        return Err(format!(
            "its version {version:?} is not known to this version of nodectl, which writes {}",
            schema.version
        ));
    }
    if sum != checksum(schema, payload) {
        return Err("its checksum does not match: it is damaged or cut short".to_owned());
    }
    serde_json::from_slice(payload).map_err(|error| format!("its value cannot be read: {error}"))
}

#[cfg(test)]
#[path = "checkpoint_tests.rs"]
mod tests;
