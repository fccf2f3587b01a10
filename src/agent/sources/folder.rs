//! What is known of a manifest folder, and how a look at it changes that. All of it blocks, so it
//! runs on a blocking thread; [`super::file`] decides when.
//!
//! A file is read when its writer has closed it or moved it into place. Where only a look at the
//! folder tells of a change (at start, after lost events, on a file system without them), a file is
//! read once it has not been written for [`SETTLE`], so that nobody's half-written manifest starts
//! half a pod.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{Clock, KeptPod, PodSource, SourceProblem, SourceSnapshot, assemble, keep};
use crate::api::manifest::{MAX_MANIFEST_BYTES, Shape, parse};
use crate::api::uid_hash::HashOrigin;

/// How long a file must not have been written before it is read without word from its writer.
pub(super) const SETTLE: Duration = Duration::from_millis(200);
/// The same for a file that is known to be open: a writer may pause, but not for ever, since a
/// change through `truncate(2)` has no close.
const SETTLE_OPEN: Duration = Duration::from_secs(60);
/// How long a file must be gone before its pod is: editors move a file away and write a new one.
pub(super) const LINGER: Duration = Duration::from_millis(20);

/// What made someone look.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// Look at the whole folder, not only at the names below.
    pub(super) all: bool,
    /// Files that their writer has closed, or that were moved here.
    pub(super) closed: HashSet<OsString>,
    /// Files to which anything else happened.
    pub(super) touched: HashSet<OsString>,
    /// Files that are being written now.
    pub(super) writing: HashSet<OsString>,
}

/// What is known of one file.
#[derive(Debug, Default)]
struct FileState {
    /// How it looked when it was last read.
    fingerprint: Option<Fingerprint>,
    /// SHA-256 of what was last read.
    digest: Option<[u8; 32]>,
    /// The last pod that it gave.
    pod: Option<KeptPod>,
    /// It cannot be read.
    unreadable: Option<String>,
    /// It was read, and makes no pod.
    invalid: Option<String>,
    /// It was there when the folder was first read, and has not given a pod since.
    unknown_before: bool,
    /// When it was first missed.
    missing_since: Option<Instant>,
}

/// What changes when a file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Fingerprint {
    fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

/// The state of one manifest folder, or single manifest file.
pub(super) struct Folder {
    path: PathBuf,
    node_name: String,
    clock: Clock,
    files: BTreeMap<PathBuf, FileState>,
    problem: Option<String>,
    delivered: bool,
    started: Instant,
}

impl Folder {
    pub(super) fn new(path: PathBuf, node_name: String, clock: Clock) -> Self {
        Self {
            path,
            node_name,
            clock,
            files: BTreeMap::new(),
            problem: None,
            delivered: false,
            started: Instant::now(),
        }
    }

    /// Whether the folder itself could be looked at the last time.
    pub(super) fn reachable(&self) -> bool {
        self.problem.is_none()
    }

    /// Looks, and says after what time to look at everything again, if sooner than usual.
    pub(super) fn look(&mut self, look: &Look) -> Option<Duration> {
        let mut again: Option<Duration> = None;
        match self.look_at_all(look, &mut again) {
            Ok(()) => {
                self.problem = None;
                // The first delivery waits a little for files that are being written.
                if again.is_none() || self.started.elapsed() > 5 * SETTLE {
                    self.delivered = true;
                }
            }
            Err(problem) => self.problem = Some(problem),
        }
        again
    }

    fn look_at_all(&mut self, look: &Look, again: &mut Option<Duration>) -> Result<(), String> {
        let meta = match self.stat_root() {
            Err(_) if self.single_file_removed() => {
                self.miss(&self.path.clone(), again);
                return Ok(());
            }
            other => other?,
        };
        let names: Vec<PathBuf> = if meta.is_file() {
            vec![self.path.clone()]
        } else if !meta.is_dir() {
            return Err("manifest path is neither a folder nor a regular file".to_owned());
        } else if look.all {
            let mut names = self.list()?;
            let known = self.files.keys().filter(|k| k.parent() == Some(&self.path)).cloned();
            names.extend(known.collect::<Vec<_>>());
            names.sort();
            names.dedup();
            names
        } else {
            let names = look.closed.iter().chain(&look.touched);
            names.filter(|n| !is_hidden(n)).map(|n| self.path.join(n)).collect()
        };
        // A path that turned from a file into a folder, or back, has no pods of the other kind.
        if look.all {
            let root = self.path.clone();
            self.files.retain(|path, _| (*path == root) == meta.is_file());
        }
        let mut missing = Vec::new();
        for path in names {
            let name = path.file_name().unwrap_or_default();
            let settle = match (look.closed.contains(name), look.writing.contains(name)) {
                (true, _) => Duration::ZERO,
                (false, true) => SETTLE_OPEN,
                (false, false) => SETTLE,
            };
            match self.look_at(&path, settle) {
                Seen::Done => {}
                Seen::Later(wait) => soonest(again, wait),
                Seen::Missing => missing.push(path),
            }
        }
        if !missing.is_empty() {
            // A folder that went away in this moment took its files with it, and says nothing.
            self.stat_root()?;
            for path in missing {
                self.miss(&path, again);
            }
        }
        Ok(())
    }

    fn stat_root(&self) -> Result<Metadata, String> {
        std::fs::metadata(&self.path).map_err(|e| match e.kind() {
            ErrorKind::NotFound => "manifest path does not exist; waiting for it".to_owned(),
            _ => format!("manifest path cannot be looked at: {e}"),
        })
    }

    /// A single manifest that was there has been removed: its folder is there without it.
    fn single_file_removed(&self) -> bool {
        self.files.contains_key(&self.path)
            && std::fs::symlink_metadata(&self.path).is_err_and(|e| e.kind() == ErrorKind::NotFound)
            && self.path.parent().is_some_and(Path::is_dir)
    }

    fn list(&self) -> Result<Vec<PathBuf>, String> {
        let unreadable = |e: std::io::Error| format!("manifest folder cannot be read: {e}");
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(unreadable)? {
            let name = entry.map_err(unreadable)?.file_name();
            if !is_hidden(&name) {
                names.push(self.path.join(name));
            }
        }
        Ok(names)
    }

    fn miss(&mut self, path: &Path, again: &mut Option<Duration>) {
        let Some(state) = self.files.get_mut(path) else { return };
        let since = *state.missing_since.get_or_insert_with(Instant::now);
        match LINGER.checked_sub(since.elapsed()) {
            Some(left) if !left.is_zero() => soonest(again, left),
            _ => {
                tracing::info!(path = %path.display(), "manifest removed");
                self.files.remove(path);
            }
        }
    }

    fn look_at(&mut self, path: &Path, settle: Duration) -> Seen {
        let meta = match std::fs::metadata(path) {
            Ok(meta) => meta,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                if std::fs::symlink_metadata(path).is_err() {
                    return Seen::Missing;
                }
                return self.unreadable(path, None, "symbolic link points to nothing".to_owned());
            }
            Err(e) => return self.unreadable(path, None, format!("cannot be looked at: {e}")),
        };
        if meta.is_dir() {
            tracing::debug!(path = %path.display(), "subfolder of the manifest folder ignored");
            return Seen::Missing;
        }
        if !meta.is_file() {
            let kind = kind_of(&meta);
            return self.unreadable(path, None, format!("is {kind}, not a regular file"));
        }
        let fingerprint = Fingerprint::of(&meta);
        if let Some(state) = self.files.get_mut(path) {
            state.missing_since = None;
            if state.fingerprint == Some(fingerprint) && !settle.is_zero() {
                return Seen::Done;
            }
        }
        if let Some(left) = unsettled(&meta, settle) {
            // Listed, so that the snapshot is known to lack it.
            self.state(path);
            return Seen::Later(left);
        }
        let bytes = match read_manifest(path) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Seen::Later(SETTLE),
            Err(e) if e.kind() == ErrorKind::NotFound => return Seen::Missing,
            Err(e) => return self.unreadable(path, Some(fingerprint), format!("cannot be read: {e}")),
        };
        self.take(path, fingerprint, &bytes);
        Seen::Done
    }

    fn state(&mut self, path: &Path) -> &mut FileState {
        let unknown_before = !self.delivered;
        self.files
            .entry(path.to_owned())
            .or_insert_with(|| FileState { unknown_before, ..FileState::default() })
    }

    fn unreadable(&mut self, path: &Path, fingerprint: Option<Fingerprint>, why: String) -> Seen {
        let state = self.state(path);
        state.missing_since = None;
        state.fingerprint = fingerprint;
        state.unreadable = Some(why);
        Seen::Done
    }

    fn take(&mut self, path: &Path, fingerprint: Fingerprint, bytes: &[u8]) {
        let digest: [u8; 32] = Sha256::digest(bytes).into();
        let now = (self.clock)();
        let node_name = self.node_name.clone();
        let state = self.state(path);
        state.fingerprint = Some(fingerprint);
        state.unreadable = None;
        if state.digest == Some(digest) {
            return;
        }
        state.digest = Some(digest);
        let before = state.pod.as_slice();
        // A bug that some manifest brings out must cost that manifest and not the source.
        let made = catch_unwind(AssertUnwindSafe(|| make(bytes, path, &node_name, now, before)));
        match made.unwrap_or_else(|_| Err("internal error while reading the manifest".to_owned())) {
            Ok(pod) => {
                tracing::info!(path = %path.display(), pod = pod.full_name(), uid = pod.uid(), "manifest read");
                state.pod = Some(pod);
                state.invalid = None;
                state.unknown_before = false;
            }
            Err(why) => state.invalid = Some(why),
        }
    }

    /// All that is known, to be published.
    pub(super) fn snapshot(&self) -> SourceSnapshot {
        let mut snapshot = SourceSnapshot::unknown(PodSource::File);
        snapshot.delivered = self.delivered;
        if !self.delivered {
            snapshot.problems.extend(self.folder_problem());
            return snapshot;
        }
        snapshot.incomplete = self.files.values().any(|f| f.unknown_before && f.pod.is_none());
        let pods = self.files.iter().filter_map(|(path, state)| Some((shown(path), state.pod.as_ref()?)));
        assemble(pods, &mut snapshot);
        for (path, state) in &self.files {
            if let Some(why) = state.unreadable.as_ref().or(state.invalid.as_ref()) {
                let kept = match &state.pod {
                    Some(pod) => format!("; pod {} stays as it was last given", pod.full_name()),
                    None => String::new(),
                };
                snapshot
                    .problems
                    .push(SourceProblem { origin: shown(path), message: format!("{why}{kept}") });
            }
        }
        snapshot.problems.extend(self.folder_problem());
        snapshot
    }

    fn folder_problem(&self) -> Option<SourceProblem> {
        let message = self.problem.clone()?;
        Some(SourceProblem { origin: shown(&self.path), message })
    }
}

enum Seen {
    Done,
    Later(Duration),
    Missing,
}

fn make(
    bytes: &[u8],
    path: &Path,
    node_name: &str,
    now: Timestamp,
    before: &[KeptPod],
) -> Result<KeptPod, String> {
    let parsed = parse(bytes, Shape::Pod).map_err(|e| e.to_string())?;
    let parsed = parsed.first().ok_or("manifest holds no pod")?;
    keep(parsed, HashOrigin::File(&shown(path)), node_name, now, before).map_err(|e| e.to_string())
}

/// Files with a leading dot are not manifests, as in kubelet; editors keep their own in such ones.
pub(super) fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().first() == Some(&b'.')
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn soonest(again: &mut Option<Duration>, wait: Duration) {
    *again = Some(again.map_or(wait, |a| a.min(wait)));
}

/// How long until a file counts as written, by the time of its last change.
fn unsettled(meta: &Metadata, settle: Duration) -> Option<Duration> {
    // A time in the future is a wrong clock, and no reason to wait.
    let age = SystemTime::now().duration_since(meta.modified().ok()?).ok()?;
    settle.checked_sub(age).filter(|left| !left.is_zero())
}

fn kind_of(meta: &Metadata) -> &'static str {
    let kind = meta.file_type();
    if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

/// Reads a regular file, or nothing if it changed meanwhile.
///
/// What was a regular file a moment ago may be a pipe now, and opening that would block for ever:
/// hence the flag, and the second look at what was opened. At most one byte more than a manifest
/// may have is read.
fn read_manifest(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let flags = nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY | nix::libc::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let before = regular(&file)?;
    let limit = MAX_MANIFEST_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    (&file).take(limit).read_to_end(&mut bytes)?;
    let after = regular(&file)?;
    Ok((before == after).then_some(bytes))
}

fn regular(file: &File) -> std::io::Result<(u64, (i64, i64))> {
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(std::io::Error::other(format!("is {}, not a regular file", kind_of(&meta))));
    }
    Ok((meta.size(), (meta.mtime(), meta.mtime_nsec())))
}
