//! One connection to a port in a pod.
//!
//! Each has a connection to the streaming server of its own. kubectl and crictl put all on one, where a reader
//! that is slow holds up the others and the end of one may be the end of all.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::mpsc,
};

use super::{Connection, Dialer, Event, Reader, StreamError, Transport, Wanted, Writer};

const DATA: u8 = 0;
const ERROR: u8 = 1;
/// How much is read at a time.
const READ: usize = 32 << 10;
/// The longest report of what went wrong.
const MAX_REPORT: usize = 4 << 10;
/// How long a pod may go on after the end of what it was sent, if it cannot be told of that.
const ANSWER: Duration = Duration::from_secs(10);
/// Pings that wait while a server does not read.
const PINGS: usize = 8;

/// A way to a port that stands open.
#[derive(Debug)]
pub struct Forward {
    connection: Connection,
}

impl Forward {
    /// Connects to the URL that PortForward gives for this port. `url` is called again if a transport is
    /// refused. Whether somebody listens on the port shows later.
    ///
    /// # Errors
    /// What `url` fails with, and [`StreamError`] if the server cannot be reached or refuses.
    pub async fn open<E: From<StreamError>>(
        dialer: &Dialer,
        transports: &[Transport],
        port: u16,
        url: impl AsyncFn() -> Result<String, E>,
    ) -> Result<Self, E> {
        let port = port.to_string();
        let stream = |kind| vec![("streamtype", kind), ("port", port.as_str()), ("requestid", "0")];
        let wanted = Wanted {
            spdy: &["portforward.k8s.io"],
            websocket: &["v4.channel.k8s.io"],
            channels: vec![(DATA, stream("data")), (ERROR, stream("error"))],
        };
        Ok(Self { connection: Connection::open(dialer, transports, &wanted, url).await? })
    }

    /// Carries what is sent both ways until both sides have ended. The end of one side is passed on where the
    /// transport can (SPDY); the other side goes on.
    ///
    /// # Errors
    /// The runtime's words if it cannot reach the port, and what breaks on the way.
    pub async fn run(self, local: TcpStream) -> Result<(), StreamError> {
        let Connection { mut reader, mut writer, .. } = self.connection;
        // A WebSocket begins each channel with the port.
        let preamble = if matches!(reader, Reader::WebSocket(_)) { 2 } else { 0 };
        // Nothing is said on this one from here.
        writer.end(ERROR).await?;
        let (pings, pending) = mpsc::channel(PINGS);
        let (from, mut to) = local.into_split();
        let mut report = Vec::new();
        let download = download(&mut reader, &mut to, &mut report, &pings, preamble);
        let ended = tokio::select! {
            ended = download => ended,
            () = upload(&mut writer, from, pending) => Ok(()),
        };
        let words = String::from_utf8_lossy(&report).trim().to_owned();
        // What is in the way of the port comes before that the connection ends for it.
        if words.is_empty() { ended } else { Err(StreamError::Failed(words)) }
    }
}

/// From the pod.
async fn download(
    reader: &mut Reader,
    to: &mut tokio::net::tcp::OwnedWriteHalf,
    report: &mut Vec<u8>,
    pings: &mpsc::Sender<u32>,
    preamble: usize,
) -> Result<(), StreamError> {
    let mut skip = [preamble; 2];
    let mut ended = [false; 2];
    while ended != [true; 2] {
        match reader.next().await? {
            Some(Event::Data(channel @ (DATA | ERROR), mut data)) => {
                let skip = &mut skip[usize::from(channel)];
                let now = data.len().min(*skip);
                *skip -= now;
                let data = data.split_off(now);
                if channel == ERROR {
                    let room = MAX_REPORT.saturating_sub(report.len());
                    report.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
                } else if to.write_all(&data).await.is_err() {
                    // Who connected has gone, which is no failure.
                    return Ok(());
                }
            }
            Some(Event::End(channel @ (DATA | ERROR))) => {
                ended[usize::from(channel)] = true;
                if channel == DATA {
                    to.shutdown().await.ok();
                }
            }
            Some(Event::Ping(id)) => {
                // One that finds no room is not answered: the server does not read anyhow.
                pings.try_send(id).ok();
            }
            Some(Event::Data(..) | Event::End(_)) => {}
            None => break,
        }
    }
    Ok(())
}

/// To the pod. Whether the server takes it is for the other side to notice, which tells the end. Only where the
/// server cannot be told that no more comes, this ends a while after.
async fn upload(
    writer: &mut Writer,
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut pings: mpsc::Receiver<u32>,
) {
    let mut buffer = vec![0; READ];
    let mut open = true;
    loop {
        let sent = tokio::select! {
            Some(id) = pings.recv() => writer.pong(id).await,
            read = from.read(&mut buffer), if open => match read {
                Ok(0) | Err(_) if !writer.can_end() => return tokio::time::sleep(ANSWER).await,
                Ok(0) | Err(_) => {
                    open = false;
                    writer.end(DATA).await
                }
                Ok(read) => writer.data(DATA, buffer.get(..read).unwrap_or_default()).await,
            },
            else => break,
        };
        if sent.is_err() {
            break;
        }
    }
    std::future::pending().await
}
