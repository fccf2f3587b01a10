//! Where changes of a node are kept: a folder for each under `/var/lib/nodectl/switch`, and the lock that one of them
//! holds while it is at work.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;

use super::journal::{self, Journal, JournalError, Outcome};

/// The lock's file.
const LOCK: &str = "lock";

/// State that cannot be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// A file or folder of it.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Somebody else is at work.
    #[error("another nodectl switch-runtime is at work on this node (process {0})")]
    Locked(String),
    /// A journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// The folder of changes.
#[derive(Debug, Clone)]
pub struct State {
    folder: PathBuf,
}

/// Held while a change is at work.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "held, and let go when this is dropped")] File);

/// A change that was begun.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// The folder's name: when it was begun, in UTC.
    pub name: String,
    /// How it ended; `None` if it did not.
    pub outcome: Option<Outcome>,
    /// How many steps it has.
    pub steps: usize,
    /// How many of them are done.
    pub done: usize,
    /// Why it was taken back, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Its folder, with the journal and the files as they were.
    pub backup_dir: PathBuf,
}

impl State {
    /// In a folder, there or not.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Keeps others away until it is dropped, or the process ends.
    ///
    /// # Errors
    /// [`StateError::Locked`], and when the folder cannot be written.
    pub fn lock(&self) -> Result<Lock, StateError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(|source| StateError::Io { what: "make", path: self.folder.clone(), source })?;
        let path = self.folder.join(LOCK);
        let io = |source| StateError::Io { what: "open", path: path.clone(), source };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        // In a folder that holds a node it is whoever's made that; and it is emptied.
        options.custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC);
        let mut file = options.open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only to name it.
                (&file).take(32).read_to_string(&mut holder).ok();
                let holder = holder.trim();
                let holder = if holder.is_empty() { "unknown" } else { holder };
                return Err(StateError::Locked(holder.to_owned()));
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(io)?;
        Ok(Lock(file))
    }

    /// All changes, the last begun last. A journal that was cut in its first line, before anything was done, is none.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn journals(&self) -> Result<Vec<Journal>, StateError> {
        let folders = journal::list(&self.folder).map_err(|source| StateError::Io {
            what: "read",
            path: self.folder.clone(),
            source,
        })?;
        let mut found = Vec::new();
        for folder in folders {
            found.extend(Journal::open(&folder)?);
        }
        Ok(found)
    }

    /// The change that has not ended, if there is one.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn unfinished(&self) -> Result<Option<Journal>, StateError> {
        Ok(self.journals()?.into_iter().rfind(|journal| journal.outcome().is_none()))
    }

    /// The last change that is done and not taken back, or the one of a name.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn finished(&self, name: Option<&str>) -> Result<Option<Journal>, StateError> {
        let wanted = |journal: &Journal| match name {
            Some(name) => entry(journal).name == name,
            None => journal.outcome() == Some(Outcome::Done),
        };
        Ok(self.journals()?.into_iter().rfind(wanted))
    }

    /// A folder for a change that begins now.
    pub fn folder_for(&self, now: Timestamp) -> PathBuf {
        let name = now.strftime("%Y%m%dT%H%M%SZ").to_string();
        // Two in a second.
        let mut folder = self.folder.join(&name);
        let mut number = 2_u32;
        while folder.exists() {
            folder = self.folder.join(format!("{name}-{number}"));
            number = number.saturating_add(1);
        }
        folder
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// A change, in short.
pub fn entry(journal: &Journal) -> Entry {
    let done = journal.progress().iter().filter(|progress| matches!(progress, journal::Progress::Done(_)));
    Entry {
        name: journal.folder().file_name().unwrap_or_default().to_string_lossy().into_owned(),
        outcome: journal.outcome(),
        steps: journal.steps().len(),
        done: done.count(),
        why: journal.rolling_back().map(str::to_owned),
        backup_dir: journal.folder().to_path_buf(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::switch::steps::{Action, Before, Step};

    #[test]
    fn one_at_a_time_and_the_last_one_counts() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::new(folder.path().join("a/switch"));
        assert!(state.journals().unwrap().is_empty());
        let lock = state.lock().unwrap();
        let refused = state.lock().unwrap_err().to_string();
        assert!(refused.ends_with(&format!("(process {})", std::process::id())), "{refused}");
        drop(lock);
        let _lock = state.lock().unwrap();

        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let steps = || vec![Step { why: "x".to_owned(), lenient: false, action: Action::ReloadUnits }];
        let mut first = Journal::begin(&state.folder_for(now), steps()).unwrap();
        let name = entry(&first).name;
        assert_eq!(name, "20270115T080000Z");
        assert!(state.finished(None).unwrap().is_none());
        first.doing(0, Before::Nothing).unwrap();
        first.done(0).unwrap();
        assert_eq!(entry(&state.unfinished().unwrap().unwrap()).done, 1);
        first.end(Outcome::Done).unwrap();
        assert!(state.unfinished().unwrap().is_none());
        let mut second = Journal::begin(&state.folder_for(now), steps()).unwrap();
        assert_eq!(entry(&state.unfinished().unwrap().unwrap()).name, format!("{name}-2"));
        second.roll_back("it failed").unwrap();
        second.end(Outcome::RolledBack).unwrap();
        assert_eq!(entry(&state.finished(None).unwrap().unwrap()).name, name);
        assert!(state.finished(Some("other")).unwrap().is_none());
        // One that was cut in its first line is no change.
        std::fs::create_dir_all(state.folder().join("3")).unwrap();
        std::fs::write(state.folder().join("3/journal"), "{\"event\":\"be").unwrap();
        assert_eq!(state.journals().unwrap().len(), 2);
    }
}
