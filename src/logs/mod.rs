//! What a container said, read from its log's files, with all that was rotated: for `nodectl cri logs` and for the
//! node's API.

mod files;
mod follow;
mod line;
mod print;
mod tail;

use std::{io::Write, path::PathBuf};

use jiff::{SignedDuration, Timestamp};

use self::{
    files::{All, Opened, Place, Reading, unreadable},
    print::{Position, Printer, Stop},
    tail::{Packed, Tail},
};
use crate::{
    api::cri::{ContainerState, ContainerStatus},
    error::{CommandError, printable},
};

pub use self::{follow::print_and_follow, line::Stream, print::Choice};

/// Whose log is to be read.
#[derive(Debug)]
pub struct Log {
    /// The container's; empty if the runtime no longer knows it.
    pub id: String,
    /// Where the runtime writes it.
    pub path: PathBuf,
    /// The container's state when it was asked for.
    pub state: ContainerState,
    /// It ended a moment ago, and its last lines may not be in the file yet.
    pub ended_lately: bool,
    /// For messages.
    pub name: String,
}

/// How long after its end a container's last lines may still be on their way.
const LATELY: SignedDuration = SignedDuration::from_secs(5);

impl Log {
    /// That of a container, as the runtime tells of it; `None` of one that was made without.
    pub fn of(id: String, status: &ContainerStatus, name: String, now: Timestamp) -> Option<Self> {
        let path = Some(PathBuf::from(&status.log_path)).filter(|path| !path.as_os_str().is_empty())?;
        let ended = Timestamp::from_nanosecond(status.finished_at.into()).unwrap_or(Timestamp::MIN);
        let ended_lately = now.duration_since(ended) < LATELY;
        Some(Self { id, path, state: status.state(), ended_lately, name })
    }
}

/// Where the container's standard output and its standard error go.
pub type Outputs<'a> = (&'a mut dyn Write, &'a mut dyn Write);

/// Where the log of the attempt before is, of which the runtime no longer knows: kubelet and our agent name
/// logs by their attempts.
pub fn path_before(status: &ContainerStatus) -> Option<PathBuf> {
    let attempt = status.metadata.as_ref()?.attempt;
    let path = PathBuf::from(&status.log_path);
    let named = path.file_stem()?.to_str()? == attempt.to_string();
    let before = attempt.checked_sub(1).filter(|_| named)?;
    let extension = path.extension().map(|text| format!(".{}", text.to_string_lossy())).unwrap_or_default();
    Some(path.with_file_name(format!("{before}{extension}")))
}

/// Prints what there is, of the last `tail` lines or of all; what is to be said of it. Blocks.
///
/// # Errors
/// When there is no log, or it cannot be read or written.
pub fn print_all(
    target: &Log,
    choice: Choice,
    tail: Option<u64>,
    (out, err): Outputs<'_>,
) -> Result<Vec<String>, CommandError> {
    let place = Place::find(&target.path)?;
    let All { files: opened, left_out, .. } = place.open_all()?;
    if opened.is_empty() {
        return Err(missing(target));
    }
    let names: Vec<String> = opened.iter().map(|file| file.name.clone()).collect();
    let (readings, start) = begin(opened, &choice, tail)?;
    let mut printer = Printer::new(choice, out, err);
    printer.start = start;
    let mut notes = left_out_note(left_out);
    let mut chunk = Vec::new();
    let print = || {
        for mut reading in readings {
            // What is written meanwhile is not waited for: a container may never stop.
            let end = reading.file().metadata().map_or(u64::MAX, |metadata| metadata.len());
            let end = if reading.is_packed() { u64::MAX } else { end };
            reading.read_on(end, &mut chunk, &mut printer)?;
            reading.finish(&mut printer)?;
            notes.extend(reading.broken_note());
        }
        Ok(())
    };
    ended(print())?;
    ended(printer.flush())?;
    notes.extend(printer.damage(|file| names.get(file).cloned().unwrap_or_default())?);
    Ok(notes)
}

fn ended(result: Result<(), Stop>) -> Result<(), CommandError> {
    match result {
        Ok(()) | Err(Stop::Enough) => Ok(()),
        Err(Stop::Failed(error)) => Err(error),
    }
}

fn left_out_note(left_out: usize) -> Vec<String> {
    if left_out == 0 { Vec::new() } else { vec![format!("{left_out} rotated files more are left out")] }
}

/// There is no file, and why.
fn missing(target: &Log) -> CommandError {
    let (name, path) = (&target.name, target.path.display());
    if target.state == ContainerState::ContainerCreated {
        let text = format!("{name} has not been started and has no log yet");
        return CommandError::failed(printable(&text)).hint("`-f` waits for it");
    }
    let told = CommandError::failed(printable(&format!("the log of {name} is not there: {path}")));
    match target.state {
        ContainerState::ContainerRunning => told
            .hint("if it was removed, `nodectl cri logs --reopen` makes the runtime write to a new one")
            .hint("a runtime with another log driver than files has it elsewhere, as Docker with journald"),
        _ => told,
    }
}

/// The files that have something of what is wanted, each at the place where that begins.
fn begin(
    opened: Vec<Opened>,
    choice: &Choice,
    tail: Option<u64>,
) -> Result<(Vec<Reading>, [Position; 2]), CommandError> {
    let failed = |name: &str, error: &std::io::Error| unreadable(name.as_ref(), error);
    let last = opened.len().saturating_sub(1);
    let (start, first) = match (tail, choice.since) {
        (Some(lines), _) => {
            let length = |file: &Opened| file.file.metadata().map_or(0, |metadata| metadata.len());
            // A compressed file alone has no end that is known before it is read.
            let end = opened.last().map_or(0, |file| if file.packed { u64::MAX } else { length(file) });
            let mut tail = Tail::new(choice, lines, (last, end));
            for (number, file) in opened.iter().enumerate().rev() {
                let more = if file.packed {
                    tail.file(number, Packed::new(&file.file))
                } else {
                    tail.file(number, &file.file)
                };
                if !more.map_err(|error| failed(&file.name, &error))? {
                    break;
                }
            }
            tail.start()
        }
        (None, Some(since)) => {
            // A file that was last written to before has nothing.
            let old = |file: &&Opened| {
                let end = file.modified.and_then(|time| time.checked_add(tail::SLACK).ok());
                end.is_some_and(|end| end < since)
            };
            let first = opened.iter().take_while(old).count().min(last);
            let at = match opened.get(first) {
                Some(file) if !file.packed => {
                    tail::begin_of(&file.file, since).map_err(|error| failed(&file.name, &error))?
                }
                _ => 0,
            };
            ([(first, at); 2], (first, at))
        }
        (None, None) => ([(0, 0); 2], (0, 0)),
    };
    let mut readings = Vec::new();
    for (number, file) in opened.into_iter().enumerate().skip(first.0) {
        let name = file.name.clone();
        let at = if number == first.0 { first.1 } else { 0 };
        readings.push(Reading::new(number, file, at).map_err(|error| failed(&name, &error))?);
    }
    Ok((readings, start))
}

#[cfg(test)]
#[path = "logs_tests.rs"]
mod tests;
