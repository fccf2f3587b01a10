//! `nodectl cri exec`: a command in a container, or in each of several.

use std::{process::ExitCode, time::Duration};

use clap::Args;
use futures_util::{StreamExt as _, stream::iter};

use super::{
    filter::{ContainerFilter, ContainerStateArg},
    ps::{inventory, selected},
    session::Session,
    streams::{Interaction, Outcome, Outputs, StreamArgs, interact, until_signal},
    terminal,
    text::short_id,
};
use crate::{
    api::cri::ExecRequest,
    cli::output::printable,
    cri::{
        Cri as _, CriErrorKind,
        streaming::{
            Dialer,
            remote_command::{RemoteCommand, Wants},
        },
    },
    error::CommandError,
};

/// How many containers are asked at a time with `--parallel`.
const PARALLEL: usize = 32;

/// Arguments of `nodectl cri exec`.
#[derive(Debug, Clone, Args)]
pub(super) struct ExecArgs {
    /// The container, unless filters choose it (an id or the beginning of one, NAMESPACE/POD/NAME, or a pod with
    /// one container by its UID or NAMESPACE/NAME), and the command with its arguments. Options stand before
    #[arg(value_names = ["CONTAINER", "COMMAND"], num_args = 1.., required = true, trailing_var_arg = true)]
    words: Vec<String>,
    /// Give the command this process's input
    #[arg(short, long, visible_alias = "stdin", conflicts_with = "sync")]
    interactive: bool,
    /// Give the command a terminal; with -i the one that this is typed in, which Ctrl-P Ctrl-Q leaves
    #[arg(short, long, conflicts_with = "sync")]
    tty: bool,
    /// Have the runtime run the command and print its output when it has ended, at most 16 MiB
    #[arg(short, long)]
    sync: bool,
    /// How long the command may take; 0 for as long as it wants. With --sync it is killed then
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    timeout: u32,
    /// In all containers with a name that this regular expression finds something in
    #[arg(long, value_name = "REGEX")]
    name: Option<String>,
    /// In all containers of this pod: its id, the beginning of it, UID, or NAMESPACE/NAME
    #[arg(short, long, value_name = "POD")]
    pod: Option<String>,
    /// In all containers of this image: a name, or the beginning of its id
    #[arg(long, value_name = "IMAGE")]
    image: Option<String>,
    /// In all containers in this state; running ones unless given
    #[arg(long, value_enum, ignore_case = true)]
    state: Option<ContainerStateArg>,
    /// In all containers with this label; may be repeated, and all must fit
    #[arg(long, value_name = "KEY=VALUE", value_delimiter = ',')]
    label: Vec<String>,
    /// In the newest container
    #[arg(short, long)]
    latest: bool,
    /// In the N newest containers; 0 for all
    #[arg(short = 'n', long, value_name = "N")]
    last: Option<usize>,
    /// Do not print the ids of several containers
    #[arg(short, long)]
    quiet: bool,
    /// Exit with 0 whatever happens in the containers
    #[arg(short = 'e', long)]
    ignore_errors: bool,
    /// In several containers at the same time
    #[arg(short = 'x', long)]
    parallel: bool,
    #[command(flatten)]
    stream: StreamArgs,
}

/// What is done in each container.
struct Task<'a> {
    args: &'a ExecArgs,
    command: Vec<String>,
    session: &'a Session,
    dialer: Dialer,
    outputs: Outputs,
}

pub(super) async fn run(args: &ExecArgs, session: &Session) -> Result<ExitCode, CommandError> {
    if args.interactive && args.tty && !terminal::is_terminal() {
        return Err(CommandError::usage("the input is not a terminal").hint("without -t it may be anything"));
    }
    let filter = args.filter();
    let compiled = filter.as_ref().map(ContainerFilter::compile).transpose()?;
    let command = args.command(filter.is_some())?;
    let dialer = args.stream.dialer(session)?;
    let all = inventory(session).await?;
    let ids: Vec<String> = match (&filter, &compiled) {
        (Some(filter), Some(compiled)) => {
            let found = selected(filter, compiled, &all, session).await?;
            found.into_iter().map(|container| container.id.clone()).collect()
        }
        _ => vec![all.container(args.words.first().map_or("", String::as_str))?.id.clone()],
    };
    if ids.is_empty() {
        return Err(CommandError::failed("no container fits").hint("`nodectl cri ps` lists those that run"));
    }
    if ids.len() > 1 && (args.interactive || args.tty) {
        let text = format!("{} containers fit, and -i and -t go with one", ids.len());
        return Err(CommandError::usage(text).hint("narrow it with --pod, --name or --latest"));
    }
    let task = Task { args, command, session, dialer, outputs: Outputs::start()? };
    let outcome = until_signal(async {
        let outcome = task.all(&ids, filter.is_some()).await;
        let written = task.outputs.finish().await;
        // How the command ended says more than that its last words were not heard.
        match outcome {
            Ok(Outcome::Exit(0) | Outcome::Left) => written.and(outcome),
            outcome => outcome,
        }
    });
    Ok(outcome.await?.code())
}

impl ExecArgs {
    /// What chooses the containers, if it is not an id.
    fn filter(&self) -> Option<ContainerFilter> {
        let chosen = self.name.is_some()
            || self.pod.is_some()
            || self.image.is_some()
            || self.state.is_some()
            || !self.label.is_empty()
            || self.latest
            || self.last.is_some();
        chosen.then(|| ContainerFilter {
            name: self.name.clone(),
            pod: self.pod.clone(),
            image: self.image.clone(),
            // Nothing can be run in others.
            state: Some(self.state.unwrap_or(ContainerStateArg::Running)),
            label: self.label.clone(),
            latest: self.latest,
            last: self.last,
            ..ContainerFilter::default()
        })
    }

    /// The command, after the container unless a filter chooses that.
    fn command(&self, filtered: bool) -> Result<Vec<String>, CommandError> {
        let mut words = self.words.get(usize::from(!filtered)..).unwrap_or_default();
        // As kubectl's users write it.
        if let Some(("--", rest)) = words.split_first().map(|(first, rest)| (first.as_str(), rest)) {
            words = rest;
        }
        match words.first() {
            None => {
                Err(CommandError::usage("the command is missing").hint("nodectl cri exec CONTAINER COMMAND"))
            }
            Some(first) if first.starts_with('-') => {
                Err(CommandError::usage(format!("{first:?} cannot be the command"))
                    .hint("options stand before the container"))
            }
            Some(_) => Ok(words.to_vec()),
        }
    }
}

impl Task<'_> {
    /// Runs it in each container. The first exit code that is not 0 counts.
    async fn all(&self, ids: &[String], filtered: bool) -> Result<Outcome, CommandError> {
        let mut worst = 0;
        let tell = filtered && !self.args.quiet && !self.args.parallel;
        let at_once = if self.args.parallel { PARALLEL } else { 1 };
        let several = ids.len() > 1;
        let runs = iter(ids).map(async |id| {
            if tell {
                self.outputs.out.line(&format!("{id}:")).await;
            }
            (id, self.one(id).await)
        });
        let mut runs = std::pin::pin!(runs.buffer_unordered(at_once));
        while let Some((id, outcome)) = runs.next().await {
            match outcome {
                Ok(Outcome::Exit(0)) => {}
                Ok(Outcome::Exit(code)) => {
                    if several {
                        self.outputs.err.line(&format!("{}: exit code {code}", short_id(id))).await;
                    }
                    worst = if worst == 0 { code } else { worst };
                }
                Ok(left) => return Ok(left),
                Err(error) if several || self.args.ignore_errors => {
                    self.outputs.err.line(&format!("error: {}: {error}", short_id(id))).await;
                    worst = if worst == 0 { 1 } else { worst };
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Outcome::Exit(if self.args.ignore_errors { 0 } else { worst }))
    }

    async fn one(&self, id: &str) -> Result<Outcome, CommandError> {
        let limit = Some(self.args.timeout).filter(|limit| *limit > 0);
        let limit = limit.map(|limit| Duration::from_secs(limit.into()));
        if self.args.sync {
            return self.sync(id, limit).await;
        }
        match limit {
            None => self.stream(id).await,
            Some(limit) => match tokio::time::timeout(limit, self.stream(id)).await {
                Ok(outcome) => outcome,
                Err(_elapsed) => {
                    let text = format!("the command has not ended within {} s", limit.as_secs());
                    Err(CommandError::failed(text)
                        .hint("it may go on in the container; --sync has it killed"))
                }
            },
        }
    }

    async fn stream(&self, id: &str) -> Result<Outcome, CommandError> {
        let (stdin, tty) = (self.args.interactive, self.args.tty);
        let url = async || {
            let request = ExecRequest {
                container_id: id.to_owned(),
                cmd: self.command.clone(),
                tty,
                stdin,
                stdout: true,
                stderr: !tty,
                ..ExecRequest::default()
            };
            self.session.ask("Exec", self.session.cri.exec(request)).await
        };
        let wants = Wants { stdin, tty };
        let command = RemoteCommand::open(&self.dialer, self.args.stream.transports(), wants, url).await?;
        interact(command, Interaction { stdin, tty, redraw: false }, &self.outputs).await
    }

    async fn sync(&self, id: &str, limit: Option<Duration>) -> Result<Outcome, CommandError> {
        let call = self.session.cri.exec_sync_whole(id, self.command.clone(), limit);
        let answer = match self.session.try_ask("ExecSync", call).await {
            Ok(answer) => answer,
            Err(error) if error.is_deadline_exceeded() => {
                let text = match limit {
                    Some(limit) => format!("the command has not ended within {} s", limit.as_secs()),
                    None => printable(&error.to_string()),
                };
                return Err(CommandError::failed(text));
            }
            Err(error) => {
                let told = self.session.failed(&error).await;
                let large = error.kind() == CriErrorKind::ResourceExhausted;
                return Err(if large { told.hint("without --sync output has no limit") } else { told });
            }
        };
        // Whoever reads no more of the one may still read the other.
        self.outputs.out.pieces().send(answer.stdout.into()).await.ok();
        self.outputs.err.pieces().send(answer.stderr.into()).await.ok();
        Ok(Outcome::Exit(answer.exit_code))
    }
}
