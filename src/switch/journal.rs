//! The journal of a change: the whole plan first, then a line before and after each step, each on the disk before
//! anything goes on. Whatever ends the program, the next one reads there how far it came.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufRead as _, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::libc::{O_CLOEXEC, O_NOFOLLOW};
use rustix::{fs::FallocateFlags, io::Errno};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::steps::{Before, Step};

/// The form of the file.
const VERSION: u32 = 1;
/// Bytes of a journal.
const MAX: u64 = 256 << 20;
/// Bytes set aside for what follows the plan: a disk that fills up on the way is in the way of neither end.
const ROOM: u64 = 1 << 20;
const FILE: &str = "journal";
const COPIES: &str = "copies";

/// A line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", deny_unknown_fields)]
enum Line {
    Begin { version: u32, nodectl: String, steps: Vec<Step> },
    Doing { step: usize, before: Before },
    Done { step: usize },
    RollingBack { why: String },
    Undone { step: usize },
    Ended { outcome: Outcome },
}

/// How a change ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// All steps are done.
    Done,
    /// All steps are taken back.
    RolledBack,
}

/// How far a step came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Nothing of it was done.
    Waiting,
    /// It was begun, and may be done.
    Begun(Before),
    /// It is done.
    Done(Before),
    /// It was done, and is taken back.
    Undone(Before),
}

/// A journal that cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// Its file or folder.
    #[error("cannot {what} the journal {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It is not what it should be.
    #[error("the journal {path} cannot be understood: {why}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// Line and what is wrong there.
        why: String,
    },
}

/// A change and how far it came.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    file: File,
    /// Bytes of its whole lines.
    length: u64,
    /// Whether there may be something behind them, of a line that was cut: it goes before the next one is written.
    torn: bool,
    steps: Vec<Step>,
    progress: Vec<Progress>,
    rolling_back: Option<String>,
    outcome: Option<Outcome>,
}

impl Journal {
    /// Begins one in a new folder, which root alone can look into.
    ///
    /// # Errors
    /// [`JournalError::Io`], also when the folder is there, or when there is no room for all that it will say. Then
    /// nothing of it is left.
    pub fn begin(folder: &Path, steps: Vec<Step>) -> Result<Self, JournalError> {
        let io = |what| move |source| JournalError::Io { what, path: folder.to_path_buf(), source };
        if let Some(above) = folder.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(above).map_err(io("make the folder of"))?;
        }
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        builder.create(folder).map_err(io("make"))?;
        let begun = Self::begin_in(folder, steps);
        if begun.is_err() {
            fs::remove_dir_all(folder).ok();
        }
        begun
    }

    fn begin_in(folder: &Path, steps: Vec<Step>) -> Result<Self, JournalError> {
        let io = |what| move |source| JournalError::Io { what, path: folder.to_path_buf(), source };
        DirBuilder::new().mode(0o700).create(folder.join(COPIES)).map_err(io("make"))?;
        let mut options = OpenOptions::new();
        let file =
            options.append(true).create_new(true).mode(0o600).open(folder.join(FILE)).map_err(io("make"))?;
        let mut journal = Self {
            folder: folder.to_path_buf(),
            file,
            length: 0,
            torn: false,
            progress: vec![Progress::Waiting; steps.len()],
            steps,
            rolling_back: None,
            outcome: None,
        };
        let nodectl = env!("CARGO_PKG_VERSION").to_owned();
        journal.append(&Line::Begin { version: VERSION, nodectl, steps: journal.steps.clone() })?;
        journal.set_aside(ROOM)?;
        for folder in [Some(folder), folder.parent()].into_iter().flatten() {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("write"))?;
        }
        Ok(journal)
    }

    /// Opens one that was begun; `None` if it was cut in its first line, before anything was done. Nothing is changed
    /// by that: whoever only looks has no lock, and what looks cut may be a line that is being written.
    ///
    /// # Errors
    /// [`JournalError`]. A last line that was cut is none. In a folder that holds a node the journal is whoever's made
    /// the folder: links in it would lead to files of this machine, and are refused.
    pub fn open(folder: &Path) -> Result<Option<Self>, JournalError> {
        let path = folder.join(FILE);
        let io = |what| {
            let path = path.clone();
            move |source| JournalError::Io { what, path, source }
        };
        let broken = |number: usize, why: String| JournalError::Broken {
            path: path.clone(),
            why: format!("line {}: {why}", number + 1),
        };
        let open = |write| {
            OpenOptions::new().read(true).append(write).custom_flags(O_NOFOLLOW | O_CLOEXEC).open(&path)
        };
        let file = match open(true) {
            // To be looked at only.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => open(false),
            opened => opened,
        };
        let file = file.map_err(io("open"))?;
        let (mut lines, mut whole) = (Vec::new(), 0_u64);
        let mut reader = io::BufReader::new((&file).take(MAX));
        let cut = loop {
            let mut bytes = Vec::new();
            let read = reader.read_until(b'\n', &mut bytes).map_err(io("read"))?;
            if bytes.last() != Some(&b'\n') {
                break read > 0;
            }
            whole += read as u64;
            let line: Line =
                serde_json::from_slice(&bytes).map_err(|error| broken(lines.len(), error.to_string()))?;
            lines.push(line);
        };
        let mut lines = lines.into_iter();
        let steps = match lines.next() {
            None => return Ok(None),
            Some(Line::Begin { version: VERSION, steps, .. }) => steps,
            Some(Line::Begin { version, nodectl, .. }) => {
                return Err(broken(
                    0,
                    format!(
                        "it is of version {version}, written by nodectl {nodectl}, whose it is to go on with or take back"
                    ),
                ));
            }
            Some(_) => return Err(broken(0, "it does not begin with a plan".to_owned())),
        };
        let copies = folder.join(COPIES);
        if !fs::symlink_metadata(&copies).is_ok_and(|like| like.is_dir()) {
            return Err(broken(
                0,
                format!("the copies that belong to it are not there: no folder {}", copies.display()),
            ));
        }
        let progress = vec![Progress::Waiting; steps.len()];
        let folder = folder.to_path_buf();
        let mut journal = Self {
            folder,
            file,
            length: whole,
            torn: cut,
            steps,
            progress,
            rolling_back: None,
            outcome: None,
        };
        for (number, line) in lines.enumerate() {
            if !journal.take_in(line) {
                return Err(broken(number + 1, "it does not follow from the lines before".to_owned()));
            }
        }
        Ok(Some(journal))
    }

    /// The folder of files' copies.
    pub fn copies(&self) -> PathBuf {
        self.folder.join(COPIES)
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The plan.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// How far each step came.
    pub fn progress(&self) -> &[Progress] {
        &self.progress
    }

    /// Why the change is being taken back, if it is.
    pub fn rolling_back(&self) -> Option<&str> {
        self.rolling_back.as_deref()
    }

    /// How it ended, if it did.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome
    }

    /// A step is about to be done.
    ///
    /// # Errors
    /// [`JournalError::Io`]; then it must not be done.
    pub fn doing(&mut self, step: usize, before: Before) -> Result<(), JournalError> {
        self.record(Line::Doing { step, before })
    }

    /// A step is done.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn done(&mut self, step: usize) -> Result<(), JournalError> {
        self.record(Line::Done { step })
    }

    /// The change is about to be taken back.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn roll_back(&mut self, why: &str) -> Result<(), JournalError> {
        self.record(Line::RollingBack { why: why.to_owned() })
    }

    /// A step is taken back.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn undone(&mut self, step: usize) -> Result<(), JournalError> {
        self.record(Line::Undone { step })
    }

    /// All is done, or taken back.
    ///
    /// # Errors
    /// [`JournalError::Io`].
    pub fn end(&mut self, outcome: Outcome) -> Result<(), JournalError> {
        self.record(Line::Ended { outcome })
    }

    fn record(&mut self, line: Line) -> Result<(), JournalError> {
        self.append(&line)?;
        if !self.take_in(line) {
            let why = "a step is told out of its order".to_owned();
            return Err(JournalError::Broken { path: self.folder.join(FILE), why });
        }
        Ok(())
    }

    fn append(&mut self, line: &Line) -> Result<(), JournalError> {
        let mut text = serde_json::to_vec(line).map_err(io::Error::from).map_err(|e| self.cannot_write(e))?;
        text.push(b'\n');
        if self.torn {
            self.file.set_len(self.length).map_err(|error| self.cannot_write(error))?;
        }
        // Until it is known to be whole.
        self.torn = true;
        let written = self.file.write_all(&text).and_then(|()| self.file.sync_data());
        written.map_err(|error| self.cannot_write(error))?;
        self.torn = false;
        self.length += text.len() as u64;
        Ok(())
    }

    /// Keeps room on the disk behind what is written, where the file system can.
    fn set_aside(&self, bytes: u64) -> Result<(), JournalError> {
        match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, self.length, bytes) {
            Err(error @ (Errno::NOSPC | Errno::DQUOT)) => Err(self.cannot_write(error.into())),
            _ => Ok(()),
        }
    }

    fn cannot_write(&self, source: io::Error) -> JournalError {
        JournalError::Io { what: "write", path: self.folder.join(FILE), source }
    }

    /// Takes a line in, and answers whether it follows from those before.
    fn take_in(&mut self, line: Line) -> bool {
        match line {
            Line::Begin { .. } => return false,
            Line::RollingBack { why } => {
                self.rolling_back = Some(why);
                // One that was done is not any more.
                self.outcome = None;
            }
            Line::Ended { outcome } => self.outcome = Some(outcome),
            Line::Doing { step, before } => {
                return self.advance(step, |old| match old {
                    // Begun once more after a crash: how it was before is what the first time saw.
                    Progress::Begun(first) => Some(Progress::Begun(first)),
                    Progress::Waiting | Progress::Undone(_) => Some(Progress::Begun(before)),
                    Progress::Done(_) => None,
                });
            }
            Line::Done { step } => {
                return self.advance(step, |old| match old {
                    Progress::Begun(before) => Some(Progress::Done(before)),
                    _ => None,
                });
            }
            Line::Undone { step } => {
                return self.advance(step, |old| match old {
                    Progress::Begun(before) | Progress::Done(before) => Some(Progress::Undone(before)),
                    _ => None,
                });
            }
        }
        true
    }

    fn advance(&mut self, step: usize, next: impl FnOnce(Progress) -> Option<Progress>) -> bool {
        let Some(progress) = self.progress.get_mut(step) else { return false };
        match next(progress.clone()) {
            Some(next) => *progress = next,
            None => return false,
        }
        true
    }
}

/// The journals below a folder, by their names, the last begun last.
///
/// # Errors
/// When the folder cannot be read; one that is not there has none.
pub fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() && fs::symlink_metadata(path.join(FILE)).is_ok() {
            found.push(path);
        }
    }
    found.sort_by_key(|folder| order(folder));
    Ok(found)
}

/// What journals' folders are sorted by: the time in the name, and the number behind it.
pub fn order(folder: &Path) -> (String, u32) {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let numbered = name.rsplit_once('-').and_then(|(name, number)| Some((name, number.parse().ok()?)));
    numbered.map_or_else(|| (name.to_string(), 1), |(name, number)| (name.to_owned(), number))
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
