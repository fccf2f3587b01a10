//! What `exec`, `attach` and `port-forward` share: how the streaming server is reached, and what carries the
//! streams to and from this process.

use std::{
    cell::OnceCell,
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    process::ExitCode,
    thread,
};

use clap::{Args, ValueEnum};
use hyper::body::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{
    session::Session,
    terminal::{Input, ending_signals, enter_raw, follow_size},
    terminal_modes::ChangedModes,
};
use crate::{
    cli::output::printable,
    cri::streaming::{
        Dialer, StreamError, TlsOptions, Transport,
        remote_command::{Ended, RemoteCommand, Streams},
    },
    error::CommandError,
};

/// How many pieces of output wait to be written.
const WAITING: usize = 2;

/// How the runtime's streaming server is spoken to.
#[derive(Debug, Clone, Args)]
pub(super) struct StreamArgs {
    /// What to speak; without it SPDY, and WebSocket where the runtime refuses that
    #[arg(short = 'r', long, value_enum)]
    transport: Option<TransportArg>,
    /// The name that the streaming server's certificate must be for
    #[arg(long, visible_alias = "tls-server-name", value_name = "NAME", default_value = "localhost")]
    tls_sni: String,
    /// A file with the certificate of the authority that the streaming server's must be from
    #[arg(long, value_name = "PATH")]
    tls_ca: Option<PathBuf>,
    /// A file with a certificate to show to the streaming server
    #[arg(long, value_name = "PATH", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// A file with that certificate's key
    #[arg(long, value_name = "PATH", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TransportArg {
    Spdy,
    Websocket,
}

impl StreamArgs {
    /// Reads the files that the flags name.
    pub(super) fn dialer(&self, session: &Session) -> Result<Dialer, CommandError> {
        let options = TlsOptions {
            server_name: self.tls_sni.clone(),
            authority: self.tls_ca.clone(),
            certificate: self.tls_cert.clone(),
            key: self.tls_key.clone(),
        };
        Dialer::new(&options, session.timeout()).map_err(|error| CommandError::usage(error.to_string()))
    }

    /// What to try, in this order.
    pub(super) fn transports(&self) -> &'static [Transport] {
        match self.transport {
            None => Transport::ANY,
            Some(TransportArg::Spdy) => &[Transport::Spdy],
            Some(TransportArg::Websocket) => &[Transport::WebSocket],
        }
    }
}

impl From<StreamError> for CommandError {
    fn from(error: StreamError) -> Self {
        let told = Self::failed(printable(&error.to_string()));
        match error {
            StreamError::Unreachable { .. } => told.hint(
                "the runtime chooses that address: stream_server_address in containerd's configuration, \
                 stream_address in CRI-O's",
            ),
            StreamError::Refused { .. } => told.hint("`--transport` chooses another way"),
            _ => told,
        }
    }
}

/// Standard output or error, written by a thread of its own: one that nobody reads holds the streams back and
/// nothing else.
#[derive(Debug)]
pub(super) struct Output {
    pieces: mpsc::Sender<Bytes>,
    done: oneshot::Receiver<io::Result<()>>,
}

impl Output {
    /// Begins to write to what is open there.
    pub(super) fn start(to: impl AsFd, name: &str) -> io::Result<Self> {
        let to: OwnedFd = to.as_fd().try_clone_to_owned()?;
        let (pieces, mut waiting) = mpsc::channel::<Bytes>(WAITING);
        let (tell, done) = oneshot::channel();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            let mut file = File::from(to);
            let mut written = Ok(());
            while let Some(piece) = waiting.blocking_recv() {
                written = file.write_all(&piece);
                if written.is_err() {
                    break;
                }
            }
            drop(waiting);
            // Nobody asks if the program ends for another reason.
            tell.send(written).ok();
        })?;
        Ok(Self { pieces, done })
    }

    /// Where pieces go.
    pub(super) fn pieces(&self) -> mpsc::Sender<Bytes> {
        self.pieces.clone()
    }

    /// Writes a line. If nobody reads any more, it is dropped.
    pub(super) async fn line(&self, text: &str) {
        self.pieces.send(format!("{text}\n").into()).await.ok();
    }

    /// Waits until all is written.
    pub(super) async fn finish(self) -> io::Result<()> {
        drop(self.pieces);
        self.done.await.unwrap_or(Ok(()))
    }
}

/// Standard output and error, and the terminal's mode once it is raw: what comes for it while it is so is to be
/// written before it is given back.
#[derive(Debug)]
pub(super) struct Outputs {
    pub(super) out: Output,
    pub(super) err: Output,
    raw: OnceCell<ChangedModes>,
}

impl Outputs {
    pub(super) fn start() -> Result<Self, CommandError> {
        let start = || {
            Ok(Self {
                out: Output::start(io::stdout(), "stdout")?,
                err: Output::start(io::stderr(), "stderr")?,
                raw: OnceCell::new(),
            })
        };
        start().map_err(|error: io::Error| CommandError::failed(format!("the output: {error}")))
    }

    /// Waits until all is written, and gives the terminal back. A reader that has seen enough is no failure.
    pub(super) async fn finish(self) -> Result<(), CommandError> {
        let written = self.out.finish().await;
        // Errors that cannot be printed cannot be told of either.
        self.err.finish().await.ok();
        drop(self.raw);
        match written {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(CommandError::failed(format!("cannot write the output: {error}")))
            }
            _ => Ok(()),
        }
    }
}

/// How the streams of a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The command ended with this code.
    Exit(i32),
    /// The user has left it, or nobody reads its output.
    Left,
    /// This process was told to end.
    Signal(i32),
}

impl Outcome {
    /// The program's exit code: the command's, 0 for one that was left, and that of a shell for a signal.
    pub(super) fn code(self) -> ExitCode {
        let code = match self {
            Self::Exit(code) => code,
            Self::Left => 0,
            Self::Signal(number) => 128 + number,
        };
        ExitCode::from(u8::try_from(code).unwrap_or(1))
    }
}

/// What of this process's own streams a command gets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Interaction {
    /// The standard input.
    pub(super) stdin: bool,
    /// A terminal.
    pub(super) tty: bool,
    /// The command was there before, so that it must be made to paint its screen.
    pub(super) redraw: bool,
}

/// Carries a command's streams until it ends. A terminal is raw from here until the outputs are finished or
/// dropped.
pub(super) async fn interact(
    command: RemoteCommand,
    how: Interaction,
    outputs: &Outputs,
) -> Result<Outcome, CommandError> {
    let failed = |error: io::Error| CommandError::failed(format!("the terminal: {error}"));
    if how.stdin && !how.tty && !command.can_end_input() {
        // Only a note: a closed stderr does not matter.
        writeln!(
            io::stderr(),
            "note: the runtime's streaming server cannot be told the end of the input; a command that waits for \
             it does not end"
        )
        .ok();
    }
    if how.stdin && how.tty {
        // Set once: a terminal goes with one command.
        outputs.raw.set(enter_raw().map_err(failed)?).ok();
    }
    let (stdin, left) = match how.stdin.then(|| Input::start(how.tty)).transpose().map_err(failed)? {
        Some(input) => (Some(input.data), Some(input.left)),
        None => (None, None),
    };
    let (size, sizes) = mpsc::channel(1);
    let streams =
        Streams { stdin, stdout: outputs.out.pieces(), stderr: outputs.err.pieces(), sizes: Some(sizes) };
    let sizes = async {
        if how.tty {
            follow_size(size, how.redraw).await?;
        }
        std::future::pending::<io::Result<()>>().await
    };
    let left = async {
        match left {
            // An end of the input is not the keys.
            Some(left) => match left.await {
                Ok(sender) => sender,
                Err(_ended) => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    };
    Ok(tokio::select! {
        ended = command.run(streams) => match ended? {
            Ended::Exit(code) => Outcome::Exit(code),
            Ended::Unread => Outcome::Left,
        },
        failure = sizes => return Err(failed(failure.err().unwrap_or_else(|| io::Error::other("no signals")))),
        _sender = left => Outcome::Left,
    })
}

/// Does the work until a signal tells this process to end; what the work holds is given back then, a terminal's
/// mode too.
pub(super) async fn until_signal(
    work: impl Future<Output = Result<Outcome, CommandError>>,
) -> Result<Outcome, CommandError> {
    let mut signals = ending_signals().map_err(|error| CommandError::failed(format!("signals: {error}")))?;
    tokio::select! {
        done = work => done,
        number = signals.next() => Ok(Outcome::Signal(number)),
    }
}
