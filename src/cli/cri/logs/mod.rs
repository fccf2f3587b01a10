//! `nodectl cri logs`: what a container said, read from its files, with all that was rotated.

mod files;
mod follow;
mod line;
mod print;
mod tail;
mod when;

use std::{io::Write, path::PathBuf};

use clap::{Args, ValueEnum};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use self::{
    files::{Opened, Place, Reading, unreadable},
    line::Stream,
    print::{Choice, Position, Printer, Stop},
    tail::{Packed, Tail},
};
use super::{
    lookup::{Inventory, full_name},
    ps::inventory,
    session::Session,
    text::short_id,
};
use crate::{
    api::cri::{Container, ContainerState, ContainerStatus},
    cli::output::printable,
    cri::Cri as _,
    error::CommandError,
};

/// How long after its end a container's last lines may still be on their way.
const LATELY: SignedDuration = SignedDuration::from_secs(5);

/// Arguments of `nodectl cri logs`.
#[derive(Debug, Clone, Args)]
pub(super) struct LogsArgs {
    /// A container: its id or the beginning of it, NAMESPACE/POD/NAME, or its pod if that has no other
    #[arg(value_name = "CONTAINER")]
    id: String,
    /// Go on with what the container says, until it ends
    #[arg(short, long)]
    follow: bool,
    /// The attempt before this one
    #[arg(short, long)]
    previous: bool,
    /// Make the runtime open the log file anew first
    #[arg(short, long)]
    reopen: bool,
    /// Only the last N lines; all if negative
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true)]
    tail: i64,
    /// Only lines from then on: how long ago, as 42m, or a time, as 2026-01-02T15:04:05Z
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    since: Option<String>,
    /// Only lines up to then: how long ago, or a time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    until: Option<String>,
    /// At most so many bytes of output; all if negative
    #[arg(long, value_name = "BYTES", default_value_t = -1, allow_negative_numbers = true)]
    limit_bytes: i64,
    /// Before each line, when it was said
    #[arg(short, long)]
    timestamps: bool,
    /// Only what went to this one
    #[arg(short, long, value_enum)]
    stream: Option<StreamArg>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StreamArg {
    Stdout,
    Stderr,
}

impl LogsArgs {
    fn choice(&self, now: Timestamp) -> Result<Choice, CommandError> {
        let time = |flag: &str, text: &Option<String>| match text.as_deref() {
            None | Some("") => Ok(None),
            Some(text) => when::when(text, now, &TimeZone::system())
                .map(Some)
                .map_err(|error| CommandError::usage(format!("--{flag} {text:?} is no time: {error}"))),
        };
        Ok(Choice {
            since: time("since", &self.since)?,
            until: time("until", &self.until)?,
            stream: self.stream.map(|stream| match stream {
                StreamArg::Stdout => Stream::Stdout,
                StreamArg::Stderr => Stream::Stderr,
            }),
            timestamps: self.timestamps,
            limit: u64::try_from(self.limit_bytes).ok(),
        })
    }
}

/// Whose log is to be read.
struct Target {
    /// Empty if the runtime no longer knows the container.
    id: String,
    path: PathBuf,
    state: ContainerState,
    /// It ended a moment ago, and its last lines may not be in the file yet.
    ended_lately: bool,
    /// For messages.
    name: String,
}

pub(super) async fn run(
    args: &LogsArgs,
    session: &Session,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), CommandError> {
    let choice = args.choice(Timestamp::now())?;
    if choice.since.zip(choice.until).is_some_and(|(since, until)| since > until) {
        return Err(CommandError::usage("--since is later than --until"));
    }
    let all = inventory(session).await?;
    let container = all.container(&args.id)?;
    if args.reopen {
        session.ask("ReopenContainerLog", session.cri.reopen_container_log(&container.id)).await?;
    }
    let target = target(args, container, &all, session).await?;
    let tail = u64::try_from(args.tail).ok();
    let notes = if args.follow {
        follow::run(&target, choice, tail, session, out, err).await?
    } else {
        once(&target, choice, tail, out, err)?
    };
    for note in notes {
        // There is nobody to tell that telling failed.
        writeln!(err, "warning: {}", printable(&note)).ok();
    }
    Ok(())
}

/// Asks where the log is.
async fn target(
    args: &LogsArgs,
    container: &Container,
    all: &Inventory,
    session: &Session,
) -> Result<Target, CommandError> {
    let before = if args.previous { attempt_before(container, all) } else { None };
    let id = &before.unwrap_or(container).id;
    let answer = session.ask("ContainerStatus", session.cri.container_status(id, false)).await?;
    let status = answer.status.unwrap_or_default();
    let name = describe(container, all);
    if status.log_path.is_empty() {
        let text = format!("the runtime keeps no log file of {name}: it was made without one");
        return Err(CommandError::failed(printable(&text)));
    }
    let path = PathBuf::from(&status.log_path);
    if args.previous && before.is_none() {
        let path = path_before(&status).ok_or_else(|| {
            CommandError::failed(printable(&format!("there is no attempt of {name} before this one")))
        })?;
        let state = ContainerState::ContainerExited;
        return Ok(Target { id: String::new(), path, state, ended_lately: false, name });
    }
    let ended = Timestamp::from_nanosecond(status.finished_at.into()).unwrap_or(Timestamp::MIN);
    let ended_lately = Timestamp::now().duration_since(ended) < LATELY;
    Ok(Target { id: id.clone(), path, state: status.state(), ended_lately, name })
}

fn describe(container: &Container, all: &Inventory) -> String {
    let name = container.metadata.as_ref().map_or("", |metadata| metadata.name.as_str());
    let pod = all.pod_of(container).map(|pod| format!(" of pod {}", full_name(pod.metadata.as_ref())));
    format!("container {} ({name}{})", short_id(&container.id), pod.unwrap_or_default())
}

/// The newest of the attempts before this one that the runtime still has, in whatever sandbox of the pod.
fn attempt_before<'a>(container: &Container, all: &'a Inventory) -> Option<&'a Container> {
    let pod = |container: &Container| {
        let metadata = all.pod_of(container).and_then(|pod| pod.metadata.as_ref());
        metadata.map_or_else(|| container.pod_sandbox_id.clone(), |metadata| metadata.uid.clone())
    };
    let (name, of) = (container.metadata.as_ref()?, pod(container));
    let same = |other: &&Container| {
        let older = other.metadata.as_ref();
        older.is_some_and(|other| other.name == name.name && other.attempt < name.attempt) && pod(other) == of
    };
    let attempt = |other: &&Container| other.metadata.as_ref().map_or(0, |metadata| metadata.attempt);
    all.containers.iter().filter(same).max_by_key(attempt)
}

/// Where the log of the attempt before is, of which the runtime no longer knows: kubelet and our agent name
/// logs by their attempts.
fn path_before(status: &ContainerStatus) -> Option<PathBuf> {
    let attempt = status.metadata.as_ref()?.attempt;
    let path = PathBuf::from(&status.log_path);
    let named = path.file_stem()?.to_str()? == attempt.to_string();
    let before = attempt.checked_sub(1).filter(|_| named)?;
    let extension = path.extension().map(|text| format!(".{}", text.to_string_lossy())).unwrap_or_default();
    Some(path.with_file_name(format!("{before}{extension}")))
}

/// Prints what there is; what is to be said of it.
fn once(
    target: &Target,
    choice: Choice,
    tail: Option<u64>,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Vec<String>, CommandError> {
    let place = Place::find(&target.path)?;
    let (opened, left_out) = place.open_all()?;
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
        printer.flush()
    };
    ended(print())?;
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
fn missing(target: &Target) -> CommandError {
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
