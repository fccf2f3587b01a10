//! A WebSocket (RFC 6455) whose messages are a channel's number and data, as Kubernetes uses it
//! (`v4.channel.k8s.io`, `v5.channel.k8s.io`).

use base64::Engine as _;
use futures_util::{
    SinkExt as _,
    stream::{SplitSink, SplitStream},
};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio_stream::StreamExt as _;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        error::ProtocolError,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{Event, Io, StreamError};

/// The version in which a side can say that it sends no more on a channel.
const V5: &str = "v5.channel.k8s.io";
/// In place of a channel's number before the number of the channel that has ended.
const CLOSE: u8 = 255;
/// The longest message that is taken; servers send 32 KiB at a time.
const MAX_MESSAGE: usize = 4 << 20;
/// The longest that is sent, with the channel's number.
const MAX_PIECE: usize = 32 << 10;

/// What comes.
#[derive(Debug)]
pub(super) struct Reader {
    socket: SplitStream<WebSocketStream<Io>>,
    v5: bool,
}

/// What is sent.
#[derive(Debug)]
pub(super) struct Writer {
    socket: SplitSink<WebSocketStream<Io>, Message>,
    v5: bool,
}

/// A new key for `Sec-WebSocket-Key`.
pub(super) fn key() -> String {
    base64::engine::general_purpose::STANDARD.encode(rand::random::<[u8; 16]>())
}

/// What a server answers to a key: the mark that it speaks WebSocket and has not merely repeated what it was told.
pub(super) fn accept(key: &str) -> String {
    let told = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    base64::engine::general_purpose::STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, told.as_bytes()))
}

/// Channels on a connection that has been upgraded to this version.
pub(super) async fn open(io: Io, version: &str) -> (Reader, Writer) {
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
    let socket = WebSocketStream::from_raw_socket(io, Role::Client, Some(config)).await;
    let (writer, reader) = futures_util::StreamExt::split(socket);
    let v5 = version == V5;
    (Reader { socket: reader, v5 }, Writer { socket: writer, v5 })
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn broken(error: Error) -> StreamError {
    match error {
        Error::Protocol(problem) => StreamError::Protocol(problem.to_string()),
        Error::Capacity(problem) => StreamError::Protocol(problem.to_string()),
        error => StreamError::Broken(error.to_string()),
    }
}

impl Reader {
    /// What comes next; `None` after the connection has ended. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, StreamError> {
        loop {
            let message = match self.socket.next().await {
                None
                | Some(
                    Err(
                        Error::ConnectionClosed
                        | Error::AlreadyClosed
                        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake),
                    )
                    | Ok(Message::Close(_)),
                ) => return Ok(None),
                Some(message) => message.map_err(broken)?,
            };
            let mut data = match message {
                Message::Binary(data) => data,
                Message::Text(text) => text.into(),
                // Pings are answered by the library.
                _ => continue,
            };
            match (data.first().copied(), data.get(1).copied()) {
                (Some(CLOSE), Some(channel)) if self.v5 => return Ok(Some(Event::End(channel))),
                // Servers open a connection with an empty one.
                (None, _) | (Some(_), None) => {}
                (Some(channel), Some(_)) => return Ok(Some(Event::Data(channel, data.split_off(1)))),
            }
        }
    }
}

impl Writer {
    /// Sends data on a channel.
    pub(super) async fn data(&mut self, channel: u8, data: &[u8]) -> Result<(), StreamError> {
        for piece in data.chunks(MAX_PIECE - 1) {
            let mut message = Vec::with_capacity(piece.len() + 1);
            message.push(channel);
            message.extend_from_slice(piece);
            self.socket.send(Message::Binary(message.into())).await.map_err(broken)?;
        }
        Ok(())
    }

    /// Says that no more comes on a channel; before v5 that cannot be said.
    pub(super) async fn end(&mut self, channel: u8) -> Result<(), StreamError> {
        if !self.v5 {
            return Ok(());
        }
        self.socket.send(Message::Binary(vec![CLOSE, channel].into())).await.map_err(broken)
    }

    /// Whether [`Self::end`] says anything.
    pub(super) fn can_end(&self) -> bool {
        self.v5
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_answered_as_the_rfc_says() {
        // The example of RFC 6455, 1.3.
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!((key().len(), key() == key()), (24, false));
    }
}
