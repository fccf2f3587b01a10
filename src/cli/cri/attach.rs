//! `nodectl cri attach`: the streams of a container's main process.

use std::process::ExitCode;

use clap::Args;

use super::{
    ps::inventory,
    session::Session,
    streams::{Interaction, Outcome, Outputs, StreamArgs, interact, until_signal},
    terminal,
};
use crate::{
    api::cri::AttachRequest,
    cri::{
        Cri as _,
        streaming::remote_command::{RemoteCommand, Wants},
    },
    error::CommandError,
};

/// Arguments of `nodectl cri attach`.
#[derive(Debug, Clone, Args)]
pub(super) struct AttachArgs {
    /// The container: its id or the beginning of it, NAMESPACE/POD/NAME, or a pod with one container by its UID
    /// or NAMESPACE/NAME
    #[arg(value_name = "CONTAINER")]
    id: String,
    /// Give the main process this process's input
    #[arg(short = 'i', long = "stdin", visible_alias = "interactive")]
    stdin: bool,
    /// The container has a terminal; with -i it is the one that this is typed in, which Ctrl-P Ctrl-Q leaves
    #[arg(short, long)]
    tty: bool,
    #[command(flatten)]
    stream: StreamArgs,
}

pub(super) async fn run(args: &AttachArgs, session: &Session) -> Result<ExitCode, CommandError> {
    let (stdin, tty) = (args.stdin, args.tty);
    if stdin && tty && !terminal::is_terminal() {
        return Err(CommandError::usage("the input is not a terminal").hint("without -t it may be anything"));
    }
    let dialer = args.stream.dialer(session)?;
    let all = inventory(session).await?;
    let id = all.container(&args.id)?.id.clone();
    let outputs = Outputs::start()?;
    let outcome = until_signal(async {
        let url = async || {
            let request = AttachRequest {
                container_id: id.clone(),
                stdin,
                tty,
                stdout: true,
                stderr: !tty,
                ..AttachRequest::default()
            };
            session.ask("Attach", session.cri.attach(request)).await
        };
        let wants = Wants { stdin, tty };
        let command = RemoteCommand::open(&dialer, args.stream.transports(), wants, url).await?;
        let outcome = interact(command, Interaction { stdin, tty, redraw: true }, &outputs).await;
        outputs.finish().await?;
        outcome
    });
    Ok(match outcome.await? {
        // The main process's own code is the container's, which `inspect` shows.
        Outcome::Exit(_) => ExitCode::SUCCESS,
        outcome => outcome.code(),
    })
}
