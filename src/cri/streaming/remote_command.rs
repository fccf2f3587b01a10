//! A command in a container, or its main process: input, output and how it ended.

use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, mpsc},
    time::{Duration, timeout},
};

use super::{Connection, Dialer, Event, Reader, StreamError, Transport, Wanted, Writer};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
pub(super) const RESIZE: u8 = 4;

const V5: &str = "v5.channel.k8s.io";
const V4: &str = "v4.channel.k8s.io";
const V3: &str = "v3.channel.k8s.io";
pub(super) const V2: &str = "v2.channel.k8s.io";

/// The longest report of how a command ended.
const MAX_REPORT: usize = 64 << 10;
/// How long a server may take to close what it has no more to say on, after it has told the end.
const LINGER: Duration = Duration::from_secs(10);
/// Pings that wait while a server does not read.
const PINGS: usize = 8;

/// Which streams a command has. There is always one for its output.
#[derive(Debug, Clone, Copy)]
pub struct Wants {
    /// It reads.
    pub stdin: bool,
    /// It has a terminal, and with it no error output of its own.
    pub tty: bool,
}

/// The size of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub width: u16,
    /// Lines.
    pub height: u16,
}

/// Where the streams begin and end on this side. All are bounded, and what is slow holds the other side back.
#[derive(Debug)]
pub struct Streams {
    /// What the command is to read; its end is the input's.
    pub stdin: Option<mpsc::Receiver<Bytes>>,
    /// What it prints.
    pub stdout: mpsc::Sender<Bytes>,
    /// What it prints as errors. If nobody receives, it is dropped.
    pub stderr: mpsc::Sender<Bytes>,
    /// The sizes that the terminal gets.
    pub sizes: Option<mpsc::Receiver<Size>>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The command has ended with this code; 0 for a main process that is left, or has ended.
    Exit(i32),
    /// Nobody wants its output any more. It may go on.
    Unread,
}

/// Streams to a command that has been started, or to a main process.
#[derive(Debug)]
pub struct RemoteCommand {
    connection: Connection,
}

impl RemoteCommand {
    /// Connects to the URL that Exec or Attach gives. `url` is called again if a transport is refused.
    ///
    /// # Errors
    /// What `url` fails with, and [`StreamError`] if the server cannot be reached or refuses.
    pub async fn open<E: From<StreamError>>(
        dialer: &Dialer,
        transports: &[Transport],
        wants: Wants,
        url: impl AsyncFn() -> Result<String, E>,
    ) -> Result<Self, E> {
        let channels = [
            (STDIN, "stdin", wants.stdin),
            (STDOUT, "stdout", true),
            (STDERR, "stderr", !wants.tty),
            (ERROR, "error", true),
            (RESIZE, "resize", wants.tty),
        ];
        let channels = channels.into_iter().filter(|(.., wanted)| *wanted);
        let wanted = Wanted {
            spdy: &[V4, V3, V2],
            websocket: &[V5, V4],
            channels: channels.map(|(channel, name, _)| (channel, vec![("streamtype", name)])).collect(),
        };
        Ok(Self { connection: Connection::open(dialer, transports, &wanted, url).await? })
    }

    /// Whether the command learns that its input has ended.
    #[must_use]
    pub fn can_end_input(&self) -> bool {
        self.connection.writer.can_end()
    }

    /// Carries the streams until the command has ended. Dropping the future closes the connection.
    ///
    /// # Errors
    /// If the connection breaks before the end is told, or the runtime could not run the command.
    pub async fn run(self, streams: Streams) -> Result<Ended, StreamError> {
        let Connection { mut reader, mut writer, version } = self.connection;
        let (pings, pending) = mpsc::channel(PINGS);
        let no_input = Notify::new();
        tokio::select! {
            ended = receive(&mut reader, &version, &streams.stdout, &streams.stderr, &pings, &no_input) => ended,
            never = send(&mut writer, streams.stdin, streams.sizes, pending, &no_input) => match never {},
        }
    }
}

/// Hands on what comes, until the end.
async fn receive(
    reader: &mut Reader,
    version: &str,
    stdout: &mpsc::Sender<Bytes>,
    stderr: &mpsc::Sender<Bytes>,
    pings: &mpsc::Sender<u32>,
    no_input: &Notify,
) -> Result<Ended, StreamError> {
    let mut report = Vec::new();
    let mut ended = [false; 4];
    let reports = version == V4 || version == V5;
    let told = |report: &[u8]| reports && serde_json::from_slice::<Value>(report).is_ok();
    loop {
        let next = match told(&report) {
            false => reader.next().await,
            true => timeout(LINGER, reader.next()).await.unwrap_or(Ok(None)),
        };
        match next {
            Ok(Some(Event::Data(STDOUT, data))) => {
                if stdout.send(data).await.is_err() {
                    return Ok(Ended::Unread);
                }
            }
            Ok(Some(Event::Data(STDERR, data))) => {
                // Output goes on without it.
                stderr.send(data).await.ok();
            }
            Ok(Some(Event::Data(ERROR, data))) => {
                let room = MAX_REPORT.saturating_sub(report.len());
                report.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
            }
            Ok(Some(Event::Data(..))) => {}
            Ok(Some(Event::End(channel))) => {
                if let Some(ended) = ended.get_mut(usize::from(channel)) {
                    *ended = true;
                }
                if ended[usize::from(STDIN)] {
                    no_input.notify_one();
                }
                if ended[usize::from(ERROR)] && ended[usize::from(STDOUT)] {
                    break;
                }
            }
            Ok(Some(Event::Ping(id))) => {
                // One that finds no room is not answered: the server does not read anyhow.
                pings.try_send(id).ok();
            }
            Ok(None) => break,
            Err(_) if told(&report) => break,
            Err(error) => return Err(error),
        }
    }
    verdict(&report, reports)
}

/// How it ended, from the report: since v4 a Kubernetes Status as JSON, before that words, or none if all went
/// well.
fn verdict(report: &[u8], reports: bool) -> Result<Ended, StreamError> {
    let words = || String::from_utf8_lossy(report).trim().to_owned();
    if report.is_empty() {
        return if reports {
            Err(StreamError::broken_off("before it was told how the command ended"))
        } else {
            Ok(Ended::Exit(0))
        };
    }
    let Some(status) = serde_json::from_slice::<Value>(report).ok().filter(|_| reports) else {
        return Err(StreamError::Failed(words()));
    };
    if status["status"] == "Success" {
        return Ok(Ended::Exit(0));
    }
    if status["reason"] == "NonZeroExitCode" {
        let causes = status["details"]["causes"].as_array().into_iter().flatten();
        let code = causes
            .filter(|cause| cause["reason"] == "ExitCode")
            .find_map(|cause| cause["message"].as_str().and_then(|code| code.parse().ok()));
        if let Some(code) = code {
            return Ok(Ended::Exit(code));
        }
    }
    let message = status["message"].as_str().map_or_else(words, str::to_owned);
    Err(StreamError::Failed(message))
}

/// The next of a channel that may be there; never if it is not.
async fn take<T>(receiver: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match receiver {
        Some(open) => {
            let next = open.recv().await;
            if next.is_none() {
                *receiver = None;
            }
            next
        }
        None => std::future::pending().await,
    }
}

/// Sends input, sizes and answers to pings. Whether the server takes them is for the other side to notice.
async fn send(
    writer: &mut Writer,
    mut stdin: Option<mpsc::Receiver<Bytes>>,
    mut sizes: Option<mpsc::Receiver<Size>>,
    pings: mpsc::Receiver<u32>,
    no_input: &Notify,
) -> std::convert::Infallible {
    let mut pings = Some(pings);
    loop {
        let sent = tokio::select! {
            Some(id) = take(&mut pings) => writer.pong(id).await,
            size = take(&mut sizes) => match size {
                // A line each, in the spelling of the server's type.
                Some(size) => {
                    let size = json!({"Width": size.width, "Height": size.height}).to_string() + "\n";
                    writer.data(RESIZE, size.as_bytes()).await
                }
                None => Ok(()),
            },
            input = take(&mut stdin) => match input {
                Some(data) => writer.data(STDIN, &data).await,
                None => writer.end(STDIN).await,
            },
            () = no_input.notified() => {
                stdin = None;
                Ok(())
            }
        };
        if sent.is_err() {
            break;
        }
    }
    drop(stdin);
    std::future::pending().await
}

#[cfg(test)]
#[path = "remote_command_tests.rs"]
mod tests;
