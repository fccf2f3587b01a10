//! The files of a container's log: the one that the runtime writes, and those that were rotated from it by
//! kubelet, by our agent, or by Docker.
//!
//! A log's path may lead over links, as cri-dockerd's does (`0.log` is a link to Docker's own file): they
//! are resolved first, as kubelet resolves them, and the rotated files are those beside the file itself.
//! There, nothing is followed, and only regular files are read.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, BufReader, Read, Seek as _, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use flate2::read::MultiGzDecoder;
use jiff::Timestamp;

use super::{
    line::Parser,
    print::{Printer, Stop},
};
use crate::{
    error::CommandError,
    host::log_file::{LogFile, LogRoot},
    policy::log_rotation::{RotatedFile, by_age},
};

/// The most files of one log; older ones are left out. kubelet keeps 5.
const MOST_FILES: usize = 200;
/// How often a rotation in the middle of opening is put up with.
pub(super) const TRIES: usize = 20;
const CHUNK: usize = 64 << 10;

/// Decompresses a file from its begin.
pub(super) fn unpack(mut file: &File) -> io::Result<MultiGzDecoder<BufReader<&File>>> {
    file.seek(SeekFrom::Start(0))?;
    Ok(MultiGzDecoder::new(BufReader::with_capacity(CHUNK, file)))
}

/// Where a container's log is.
pub(super) struct Place {
    /// The folder, for messages and watches.
    pub(super) folder: PathBuf,
    log: LogFile,
}

/// Which file it is, whatever its name.
pub(super) type Id = (u64, u64);

/// An open file of a log.
pub(super) struct Opened {
    pub(super) name: String,
    pub(super) file: File,
    pub(super) packed: bool,
    pub(super) id: Id,
    pub(super) modified: Option<Timestamp>,
}

/// All files of a log at one moment.
pub(super) struct All {
    /// The oldest first.
    pub(super) files: Vec<Opened>,
    pub(super) rotated: Vec<RotatedFile>,
    /// How many of those are not opened, as they are too many.
    pub(super) left_out: usize,
}

impl Place {
    /// Resolves a log's path. The log itself need not be there.
    pub(super) fn find(path: &Path) -> Result<Self, CommandError> {
        let found = match fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::read_link(path) {
                Ok(target) => {
                    let text =
                        format!("{} is a link to {}, which is not there", path.display(), target.display());
                    return Err(CommandError::failed(text));
                }
                Err(_) => without_log(path),
            },
            other => other,
        };
        let found = found.map_err(|error| unreadable(path, &error))?;
        let (Some(folder), Some(name)) = (found.parent(), found.file_name()) else {
            return Err(unreadable(path, &io::ErrorKind::IsADirectory.into()));
        };
        let log =
            LogRoot::open(folder).and_then(|root| root.map_or(Ok(None), |root| root.log(Path::new(name))));
        match log {
            Ok(Some(log)) => Ok(Self { folder: folder.to_owned(), log }),
            Ok(None) => Err(unreadable(path, &io::ErrorKind::NotFound.into())),
            Err(error) => Err(unreadable(path, &error)),
        }
    }

    /// The log's own name in its folder.
    pub(super) fn name(&self) -> &str {
        self.log.name()
    }

    /// What was rotated, the oldest first; nothing if the folder was removed.
    pub(super) fn rotated(&self) -> Result<Vec<RotatedFile>, CommandError> {
        match self.log.rotated() {
            Ok(names) => Ok(by_age(self.log.name(), &names)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(unreadable(&self.folder, &error)),
        }
    }

    /// Opens a file of the log; `None` if it is not there.
    pub(super) fn open(&self, name: &str, packed: bool) -> Result<Option<Opened>, CommandError> {
        let failed = |error: &io::Error| unreadable(&self.folder.join(name), error);
        let Some(file) = self.log.open(name).map_err(|error| failed(&error))? else { return Ok(None) };
        let metadata = file.metadata().map_err(|error| failed(&error))?;
        let modified = metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
        let id = (metadata.dev(), metadata.ino());
        Ok(Some(Opened { name: name.to_owned(), file, packed, id, modified }))
    }

    /// Opens all as they are at one moment: a rotation meanwhile moves lines from one file to another.
    pub(super) fn open_all(&self) -> Result<All, CommandError> {
        for _ in 0..TRIES {
            let rotated = self.rotated()?;
            let left_out = rotated.len().saturating_sub(MOST_FILES);
            let mut files = Vec::new();
            for file in rotated.iter().skip(left_out) {
                files.extend(self.open(&file.name, file.packed)?);
            }
            let all_there = files.len() == rotated.len() - left_out;
            files.extend(self.open(self.name(), false)?);
            if all_there && self.rotated()? == rotated {
                return Ok(All { files, rotated, left_out });
            }
        }
        let text = format!("the log's files in {} change all the time", self.folder.display());
        Err(CommandError::failed(text))
    }
}

/// The path of a log that is not there, in its resolved folder.
fn without_log(path: &Path) -> io::Result<PathBuf> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    Ok(fs::canonicalize(folder)?.join(path.file_name().unwrap_or(OsStr::new(""))))
}

pub(super) fn unreadable(path: &Path, error: &io::Error) -> CommandError {
    let told = CommandError::failed(format!("cannot read the log {}: {error}", path.display()));
    match error.kind() {
        io::ErrorKind::PermissionDenied => told.hint("run as root"),
        _ => told,
    }
}

enum Input {
    Plain(File),
    Packed(Box<MultiGzDecoder<BufReader<File>>>),
}

/// A file of a log that is being printed.
pub(super) struct Reading {
    number: usize,
    pub(super) name: String,
    pub(super) id: Id,
    input: Input,
    /// Bytes that were read.
    at: u64,
    parser: Parser,
    /// Why a compressed file ends before its time.
    broken: Option<String>,
}

impl Reading {
    /// Begins at a byte at which a line begins.
    pub(super) fn new(number: usize, opened: Opened, at: u64) -> io::Result<Self> {
        let Opened { name, mut file, packed, id, .. } = opened;
        let input = if packed {
            file.seek(SeekFrom::Start(0))?;
            let mut decoder = MultiGzDecoder::new(BufReader::with_capacity(CHUNK, file));
            io::copy(&mut (&mut decoder).take(at), &mut io::sink())?;
            Input::Packed(Box::new(decoder))
        } else {
            file.seek(SeekFrom::Start(at))?;
            Input::Plain(file)
        };
        Ok(Self { number, name, id, input, at, parser: Parser::from(at), broken: None })
    }

    /// The file itself.
    pub(super) fn file(&self) -> &File {
        match &self.input {
            Input::Plain(file) => file,
            Input::Packed(decoder) => decoder.get_ref().get_ref(),
        }
    }

    pub(super) fn is_packed(&self) -> bool {
        matches!(self.input, Input::Packed(_))
    }

    /// Prints what there is, up to byte `end` of it; true if there was something.
    pub(super) fn read_on(
        &mut self,
        end: u64,
        chunk: &mut Vec<u8>,
        printer: &mut Printer<'_>,
    ) -> Result<bool, Stop> {
        chunk.resize(CHUNK, 0);
        let mut some = false;
        while self.at < end && self.broken.is_none() {
            let room = usize::try_from(end - self.at).unwrap_or(usize::MAX).min(CHUNK);
            let read = match &mut self.input {
                Input::Plain(file) => file.read(&mut chunk[..room]),
                Input::Packed(decoder) => decoder.read(&mut chunk[..room]),
            };
            match read {
                Ok(0) if self.was_cut()? => {
                    self.at = 0;
                    self.finish(printer)?;
                    printer.cut(self.number);
                }
                Ok(0) => break,
                Ok(length) => {
                    some = true;
                    self.at += u64::try_from(length).unwrap_or(0);
                    self.parser.feed(&chunk[..length], &mut |piece| printer.piece(self.number, piece))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What comes after is in other files and is whole.
                Err(error) if self.is_packed() => self.broken = Some(error.to_string()),
                Err(error) => return Err(self.failed(&error).into()),
            }
        }
        Ok(some)
    }

    /// Whether somebody has made the file shorter; it is at its begin then.
    fn was_cut(&mut self) -> Result<bool, CommandError> {
        let Input::Plain(file) = &mut self.input else { return Ok(false) };
        let cut = file.metadata().and_then(|metadata| {
            let cut = metadata.len() < self.at;
            if cut { file.seek(SeekFrom::Start(0)).map(|_| true) } else { Ok(false) }
        });
        cut.map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &io::Error) -> CommandError {
        unreadable(Path::new(&self.name), error)
    }

    /// The file is at its end for good, or begins anew at the present byte.
    pub(super) fn finish(&mut self, printer: &mut Printer<'_>) -> Result<(), Stop> {
        self.parser.finish(self.at, &mut |piece| printer.piece(self.number, piece))
    }

    /// What is to be said of a file that is damaged.
    pub(super) fn broken_note(&self) -> Option<String> {
        let broken = self.broken.as_ref()?;
        Some(format!("{} is damaged after {} bytes of text: {broken}", self.name, self.at))
    }
}
