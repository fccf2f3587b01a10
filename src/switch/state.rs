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

/// A change whose journal cannot be used.
#[derive(Debug)]
pub struct Damaged {
    /// Its folder.
    pub folder: PathBuf,
    /// What is wrong with it.
    pub why: JournalError,
}

/// The changes of a node, the last begun last.
#[derive(Debug, Default)]
pub struct Changes {
    /// Those that can be read.
    pub journals: Vec<Journal>,
    /// The others. They are in nobody's way as long as nothing of them is left on the node.
    pub damaged: Vec<Damaged>,
}

impl Changes {
    /// The one that has not ended, if there is one.
    pub fn unfinished(&mut self) -> Option<Journal> {
        let at = self.journals.iter().rposition(|journal| journal.outcome().is_none())?;
        Some(self.journals.remove(at))
    }

    /// The last one that is done and not taken back, or the one of a name.
    ///
    /// # Errors
    /// When that is, or may be, one that cannot be read.
    pub fn finished(mut self, name: Option<&str>) -> Result<Option<Journal>, StateError> {
        let wanted = |journal: &Journal| match name {
            Some(name) => entry(journal).name == name,
            None => journal.outcome() == Some(Outcome::Done),
        };
        let at = self.journals.iter().rposition(wanted);
        let after = |damaged: &Damaged| match name {
            Some(name) => folder_name(&damaged.folder) == name,
            // What was done on top of a change has to go before it.
            None => at
                .and_then(|at| self.journals.get(at))
                .is_none_or(|found| journal::order(&damaged.folder) > journal::order(found.folder())),
        };
        if let Some(at) = self.damaged.iter().rposition(after) {
            return Err(self.damaged.swap_remove(at).why.into());
        }
        Ok(at.map(|at| self.journals.remove(at)))
    }

    /// All of them in short, in their order.
    pub fn entries(&self) -> Vec<Entry> {
        let damaged = self.damaged.iter().map(|damaged| Entry {
            name: folder_name(&damaged.folder),
            outcome: None,
            steps: 0,
            done: 0,
            why: None,
            damaged: Some(damaged.why.to_string()),
            at_work: None,
            backup_dir: damaged.folder.clone(),
        });
        let mut all: Vec<Entry> = self.journals.iter().map(entry).chain(damaged).collect();
        all.sort_by_key(|one| journal::order(&one.backup_dir));
        all
    }
}

/// Held while a change is at work.
#[derive(Debug)]
pub struct Lock(File);

impl Drop for Lock {
    /// Closing is not enough: a program that another thread is just starting has the file open until it runs.
    fn drop(&mut self) {
        self.0.unlock().ok();
    }
}

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
    /// Why its journal cannot be used, if it cannot; then nothing else is known of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
    /// The process that is at work on it, if one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_work: Option<String>,
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
                return Err(StateError::Locked(holder(&file)));
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(io)?;
        Ok(Lock(file))
    }

    /// Who is at work, for whoever only looks; `None` if nobody is.
    pub fn at_work(&self) -> Option<String> {
        let mut options = OpenOptions::new();
        options.read(true).custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_CLOEXEC);
        let file = options.open(self.folder.join(LOCK)).ok()?;
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)).then(|| holder(&file))
    }

    /// All changes. A journal that was cut in its first line, before anything was done, is none.
    ///
    /// # Errors
    /// [`StateError::Io`]. A journal that cannot be used is among the changes, with the reason.
    pub fn changes(&self) -> Result<Changes, StateError> {
        let io = |source| StateError::Io { what: "read", path: self.folder.clone(), source };
        let folders = journal::list(&self.folder).map_err(io)?;
        let mut all = Changes::default();
        for folder in folders {
            match Journal::open(&folder) {
                Ok(found) => all.journals.extend(found),
                Err(why) => all.damaged.push(Damaged { folder, why }),
            }
        }
        Ok(all)
    }

    /// A folder for a change that begins now. It comes behind all others, also when the clock was set back.
    pub fn folder_for(&self, now: Timestamp) -> PathBuf {
        let mut folder = self.folder.join(now.strftime("%Y%m%dT%H%M%SZ").to_string());
        let last = journal::list(&self.folder).unwrap_or_default().pop();
        if let Some(last) = last.filter(|last| journal::order(last) >= journal::order(&folder)) {
            folder = last;
        }
        let (name, mut number) = journal::order(&folder);
        while folder.exists() {
            number = number.saturating_add(1);
            folder = self.folder.join(format!("{name}-{number}"));
        }
        folder
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Who has the lock, only to be named.
fn holder(lock: &File) -> String {
    let mut text = String::new();
    lock.take(32).read_to_string(&mut text).ok();
    let text = text.trim();
    if text.is_empty() { "unknown" } else { text }.to_owned()
}

fn folder_name(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A change, in short.
pub fn entry(journal: &Journal) -> Entry {
    let done = journal.progress().iter().filter(|progress| matches!(progress, journal::Progress::Done(_)));
    Entry {
        name: folder_name(journal.folder()),
        outcome: journal.outcome(),
        steps: journal.steps().len(),
        done: done.count(),
        why: journal.rolling_back().map(str::to_owned),
        damaged: None,
        at_work: None,
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
        assert!(state.changes().unwrap().journals.is_empty());
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
        assert!(state.changes().unwrap().finished(None).unwrap().is_none());
        first.doing(0, Before::Nothing).unwrap();
        first.done(0).unwrap();
        assert_eq!(entry(&state.changes().unwrap().unfinished().unwrap()).done, 1);
        first.end(Outcome::Done).unwrap();
        assert!(state.changes().unwrap().unfinished().is_none());
        let mut second = Journal::begin(&state.folder_for(now), steps()).unwrap();
        assert_eq!(entry(&state.changes().unwrap().unfinished().unwrap()).name, format!("{name}-2"));
        second.roll_back("it failed").unwrap();
        second.end(Outcome::RolledBack).unwrap();
        assert_eq!(entry(&state.changes().unwrap().finished(None).unwrap().unwrap()).name, name);
        assert!(state.changes().unwrap().finished(Some("other")).unwrap().is_none());
        // One that was cut in its first line is no change.
        std::fs::create_dir_all(state.folder().join("3")).unwrap();
        std::fs::write(state.folder().join("3/journal"), "{\"event\":\"be").unwrap();
        assert_eq!(state.changes().unwrap().journals.len(), 2);
        std::fs::remove_dir_all(state.folder().join("3")).unwrap();

        // The clock was set back.
        let back = Timestamp::from_second(1_700_000_000).unwrap();
        let mut third = Journal::begin(&state.folder_for(back), steps()).unwrap();
        assert_eq!(entry(&third).name, format!("{name}-3"));
        third.end(Outcome::Done).unwrap();
        for number in 4..12 {
            let journal = Journal::begin(&state.folder_for(back), steps()).unwrap();
            assert_eq!(entry(&journal).name, format!("{name}-{number}"));
        }
        assert_eq!(
            entry(&state.changes().unwrap().unfinished().unwrap()).name,
            format!("{name}-11"),
            "by their numbers, not by their letters"
        );
    }

    #[test]
    fn one_that_cannot_be_read_is_in_the_way_of_what_is_before_it_alone() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::new(folder.path());
        let begin = |second: i64| {
            let at = Timestamp::from_second(second).unwrap();
            Journal::begin(&state.folder_for(at), Vec::new()).unwrap()
        };
        for second in [1_800_000_000, 1_800_000_001] {
            begin(second).end(Outcome::Done).unwrap();
        }
        let list = || journal::list(folder.path()).unwrap();
        let damage = |at: &Path| std::fs::write(at.join("journal"), "[]\n").unwrap();
        damage(&list()[0]);
        let names = |entries: Vec<Entry>| {
            entries.into_iter().map(|entry| entry.damaged.is_some()).collect::<Vec<_>>()
        };
        let mut all = state.changes().unwrap();
        assert!(all.unfinished().is_none());
        assert_eq!(names(all.entries()), [true, false]);
        let first = all.entries()[0].name.clone();
        assert_eq!(all.finished(None).unwrap().unwrap().folder(), list()[1]);
        let told = state.changes().unwrap().finished(Some(&first)).unwrap_err().to_string();
        assert!(told.contains("cannot be understood"), "{told}");

        begin(1_800_000_002).end(Outcome::Done).unwrap();
        damage(&list()[2]);
        let told = state.changes().unwrap().finished(None).unwrap_err().to_string();
        assert!(told.contains(list()[2].to_str().unwrap()), "{told}");
        assert!(state.at_work().is_none());
        let _lock = state.lock().unwrap();
        assert_eq!(state.at_work(), Some(std::process::id().to_string()));
    }
}
