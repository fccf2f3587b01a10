//! The streams of a command in a container, of its main process, and of a port in a pod.
//!
//! A runtime answers Exec, Attach and PortForward with a URL of its streaming server, which is good for one
//! connection. That is HTTP/1.1 upgraded to SPDY/3.1 ([`spdy`]) or to a WebSocket ([`websocket`]): containerd,
//! CRI-O and cri-dockerd speak both. On either there are numbered channels ([`Connection`]), in order and held
//! back by TCP alone; what they mean is in [`remote_command`] and [`port_forward`].
//!
//! SPDY comes first unless told otherwise: there the end of the input can be told, which a WebSocket before
//! `v5.channel.k8s.io` cannot, and containerd 2.1 has no v5. Where a server refuses the one, the other is tried
//! with a new URL.

mod dial;
pub mod port_forward;
pub mod remote_command;
mod spdy;
#[cfg(test)]
mod test_server;
mod tls;
mod websocket;

pub use dial::Dialer;
pub use tls::TlsOptions;

use hyper::body::Bytes;
use hyper_util::rt::TokioIo;

/// An upgraded connection.
type Io = TokioIo<hyper::upgrade::Upgraded>;

/// What the connection is upgraded to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// SPDY/3.1.
    Spdy,
    /// A WebSocket.
    WebSocket,
}

impl Transport {
    /// What is tried if nothing else is wanted, in this order.
    pub const ANY: &[Self] = &[Self::Spdy, Self::WebSocket];
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Spdy => "SPDY",
            Self::WebSocket => "WebSocket",
        })
    }
}

/// Why streams cannot be had, or have ended before their time.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// What the runtime gave is no URL to connect to.
    #[error("the URL that the runtime gave for the streams, {url:?}, cannot be used: {problem}")]
    Url {
        /// Scheme and host of it; the rest is a secret.
        url: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A certificate or key that was given cannot be used.
    #[error("{0}")]
    Credentials(String),
    /// Nobody answers there.
    #[error("the runtime's streaming server at {address} cannot be reached: {problem}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// Why not.
        problem: String,
    },
    /// The server does not want to speak it.
    #[error("the runtime's streaming server refuses {transport}: {problem}")]
    Refused {
        /// What was asked for.
        transport: Transport,
        /// Its words, or what was wrong with them.
        problem: String,
    },
    /// It speaks otherwise than it should.
    #[error("the runtime's streaming server breaks the protocol: {0}")]
    Protocol(String),
    /// The connection is gone.
    #[error("the connection to the runtime's streaming server broke: {0}")]
    Broken(String),
    /// The runtime could not do what was asked for, in its own words.
    #[error("{0}")]
    Failed(String),
}

impl StreamError {
    #[allow(clippy::needless_pass_by_value, reason = "for map_err")]
    fn broken(error: std::io::Error) -> Self {
        Self::Broken(error.to_string())
    }

    fn broken_off(when: &str) -> Self {
        Self::Broken(format!("it ended {when}"))
    }
}

/// What comes on a connection.
#[derive(Debug, PartialEq, Eq)]
enum Event {
    /// Data on a channel, never none.
    Data(u8, Bytes),
    /// A channel has ended. Not every transport tells.
    End(u8),
    /// To be given back to [`Writer::pong`].
    Ping(u32),
}

/// What is wanted of a connection.
struct Wanted<'a> {
    /// The versions to offer by SPDY, the best one first.
    spdy: &'a [&'a str],
    /// The same by WebSocket.
    websocket: &'a [&'a str],
    /// The channels, in the order of their numbers, and what SPDY's streams are called; a WebSocket's have no
    /// names.
    channels: Vec<(u8, Vec<(&'a str, &'a str)>)>,
}

/// Channels on one connection.
#[derive(Debug)]
struct Connection {
    reader: Reader,
    writer: Writer,
    /// The version that the server chose.
    version: String,
}

#[derive(Debug)]
enum Reader {
    Spdy(spdy::Reader),
    WebSocket(websocket::Reader),
}

#[derive(Debug)]
enum Writer {
    Spdy(spdy::Writer),
    WebSocket(websocket::Writer),
}

impl Connection {
    /// Connects by the first of the transports that the server takes. `url` is asked for anew each time.
    async fn open<E: From<StreamError>>(
        dialer: &Dialer,
        transports: &[Transport],
        wanted: &Wanted<'_>,
        url: impl AsyncFn() -> Result<String, E>,
    ) -> Result<Self, E> {
        let mut refused: Vec<String> = Vec::new();
        for (number, transport) in transports.iter().enumerate() {
            match Self::open_by(dialer, *transport, wanted, &url().await?).await {
                Err(StreamError::Refused { transport, problem }) if number + 1 < transports.len() => {
                    refused.push(format!("{problem}; {transport} was refused"));
                }
                Err(StreamError::Refused { transport, problem }) => {
                    refused.insert(0, problem);
                    return Err(StreamError::Refused { transport, problem: refused.join(": ") }.into());
                }
                opened => return opened.map_err(E::from),
            }
        }
        Err(StreamError::Protocol("no transport was allowed".to_owned()).into())
    }

    async fn open_by(
        dialer: &Dialer,
        transport: Transport,
        wanted: &Wanted<'_>,
        url: &str,
    ) -> Result<Self, StreamError> {
        let opening = async {
            match transport {
                Transport::Spdy => {
                    let (io, version) = dialer.spdy(url, wanted.spdy).await?;
                    // SPDY servers of this version refuse the stream of sizes.
                    let old = version == remote_command::V2;
                    let channels = wanted.channels.iter();
                    let channels = channels.filter(|(channel, _)| !old || *channel != remote_command::RESIZE);
                    let (reader, writer) = spdy::open(io, channels.cloned().collect()).await?;
                    Ok(Self { reader: Reader::Spdy(reader), writer: Writer::Spdy(writer), version })
                }
                Transport::WebSocket => {
                    let (io, version) = dialer.websocket(url, wanted.websocket).await?;
                    let (reader, writer) = websocket::open(io, &version).await;
                    let (reader, writer) = (Reader::WebSocket(reader), Writer::WebSocket(writer));
                    Ok(Self { reader, writer, version })
                }
            }
        };
        match tokio::time::timeout(dialer.limit(), opening).await {
            Ok(opened) => opened,
            Err(_elapsed) => {
                let problem = format!("no answer within {} s", dialer.limit().as_secs_f32());
                Err(StreamError::Unreachable { address: dial::address(url), problem })
            }
        }
    }
}

impl Reader {
    /// What comes next; `None` after the connection has ended. May be dropped and called again.
    async fn next(&mut self) -> Result<Option<Event>, StreamError> {
        match self {
            Self::Spdy(reader) => reader.next().await,
            Self::WebSocket(reader) => reader.next().await,
        }
    }
}

impl Writer {
    /// Sends data on a channel; waits while the server does not take it.
    async fn data(&mut self, channel: u8, data: &[u8]) -> Result<(), StreamError> {
        match self {
            Self::Spdy(writer) => writer.data(channel, data).await,
            Self::WebSocket(writer) => writer.data(channel, data).await,
        }
    }

    /// Says that no more comes on a channel, if that can be said.
    async fn end(&mut self, channel: u8) -> Result<(), StreamError> {
        match self {
            Self::Spdy(writer) => writer.end(channel).await,
            Self::WebSocket(writer) => writer.end(channel).await,
        }
    }

    /// Whether [`Self::end`] says anything.
    fn can_end(&self) -> bool {
        match self {
            Self::Spdy(_) => true,
            Self::WebSocket(writer) => writer.can_end(),
        }
    }

    /// Answers a ping.
    async fn pong(&mut self, id: u32) -> Result<(), StreamError> {
        match self {
            Self::Spdy(writer) => writer.pong(id).await,
            // Answered where they are read.
            Self::WebSocket(_) => Ok(()),
        }
    }
}
