//! `nodectl cri logs`: what a container said, read from its files, with all that was rotated.

mod when;

use std::io::Write;

use clap::{Args, ValueEnum};
use jiff::{Timestamp, tz::TimeZone};

use super::{
    hangup::reader_gone,
    lookup::{Inventory, full_name},
    ps::inventory,
    session::Session,
    text::short_id,
};
use crate::{
    api::cri::{Container, ContainerState},
    cli::output::printable,
    cri::Cri as _,
    error::CommandError,
    logs::{Choice, Log, Stream, path_before, print_all, print_and_follow},
};

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
            quiet: false,
        })
    }
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
        let state = || session.try_ask("ContainerStatus", session.cri.container_status(&target.id, false));
        print_and_follow(&target, choice, tail, (out, err), state, reader_gone()).await?
    } else {
        print_all(&target, choice, tail, (out, err))?
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
) -> Result<Log, CommandError> {
    let before = if args.previous { attempt_before(container, all) } else { None };
    let id = &before.unwrap_or(container).id;
    let answer = session.ask("ContainerStatus", session.cri.container_status(id, false)).await?;
    let status = answer.status.unwrap_or_default();
    let name = describe(container, all);
    let log = Log::of(id.clone(), &status, name.clone(), Timestamp::now()).ok_or_else(|| {
        let text = format!("the runtime keeps no log file of {name}: it was made without one");
        CommandError::failed(printable(&text))
    })?;
    if args.previous && before.is_none() {
        let path = path_before(&status).ok_or_else(|| {
            CommandError::failed(printable(&format!("there is no attempt of {name} before this one")))
        })?;
        let (state, name) = (ContainerState::ContainerExited, format!("the attempt before {name}"));
        return Ok(Log { id: String::new(), path, state, ended_lately: false, name });
    }
    Ok(log)
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
