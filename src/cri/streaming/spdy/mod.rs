//! SPDY/3.1 as the streaming servers of container runtimes speak it: several streams, all opened by the
//! client, on one connection that has been upgraded from HTTP.

pub(super) mod frame;

use std::collections::VecDeque;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};

use self::frame::{Decoder, Encoder, Frame, MAX_PIECE};
use super::{Event, Io, StreamError};

/// How much is read at a time.
const READ: usize = 32 << 10;
/// How much may come before all streams are answered: a little at most, as servers begin after that.
const MAX_EARLY: usize = 1 << 20;

/// The number of the stream that carries a channel: the client's are odd.
fn stream_of(channel: u8) -> u32 {
    u32::from(channel) * 2 + 1
}

fn channel_of(stream: u32) -> Option<u8> {
    if stream % 2 == 1 { u8::try_from(stream / 2).ok() } else { None }
}

/// What comes.
#[derive(Debug)]
pub(super) struct Reader {
    io: ReadHalf<Io>,
    decoder: Decoder,
    /// What came before all streams were answered.
    early: VecDeque<Event>,
}

/// What is sent.
#[derive(Debug)]
pub(super) struct Writer {
    io: WriteHalf<Io>,
}

/// Opens a stream for each channel with the headers that say what it is for, and waits for the answers: what is
/// sent on one that is not answered yet, servers drop.
///
/// # Errors
/// If a stream is refused or the connection breaks.
pub(super) async fn open(
    io: Io,
    streams: Vec<(u8, Vec<(&str, &str)>)>,
) -> Result<(Reader, Writer), StreamError> {
    let (reader, mut writer) = tokio::io::split(io);
    let (mut encoder, mut asked) = (Encoder::default(), Vec::new());
    // Numbers rise, by the protocol; channels are opened in the order of theirs.
    for (channel, headers) in &streams {
        encoder.open(&mut asked, stream_of(*channel), headers);
    }
    writer.write_all(&asked).await.map_err(StreamError::broken)?;
    let mut writer = Writer { io: writer };
    let mut reader = Reader { io: reader, decoder: Decoder::default(), early: VecDeque::new() };
    let mut open: Vec<u8> = streams.iter().map(|(channel, _)| *channel).collect();
    let (mut early, mut held) = (VecDeque::new(), 0);
    while !open.is_empty() {
        let frame = reader.frame().await?.ok_or_else(|| StreamError::broken_off("before it began"))?;
        let refused = match &frame {
            Frame::Reply { stream, fin: false } => {
                open.retain(|channel| stream_of(*channel) != *stream);
                false
            }
            Frame::Reply { fin: true, .. } | Frame::GoAway => true,
            Frame::Reset { stream, .. } => open.iter().any(|channel| stream_of(*channel) == *stream),
            Frame::Ping { id } => {
                writer.pong(*id).await?;
                false
            }
            Frame::Data { data, .. } => {
                held += data.len();
                false
            }
        };
        if refused || held > MAX_EARLY {
            return Err(StreamError::Protocol(
                "the server refuses a stream that it was asked for".to_owned(),
            ));
        }
        early.extend(event(frame));
    }
    reader.early = early;
    Ok((reader, writer))
}

/// What a frame means to whoever uses the streams.
fn event(frame: Frame) -> impl Iterator<Item = Event> {
    let (data, end) = match frame {
        Frame::Data { stream, fin, data } => {
            let channel = channel_of(stream);
            let data = channel.filter(|_| !data.is_empty()).map(|channel| Event::Data(channel, data));
            (data, channel.filter(|_| fin))
        }
        Frame::Reset { stream, .. } => (None, channel_of(stream)),
        Frame::Ping { id } => (Some(Event::Ping(id)), None),
        Frame::Reply { .. } | Frame::GoAway => (None, None),
    };
    data.into_iter().chain(end.map(Event::End))
}

impl Reader {
    async fn frame(&mut self) -> Result<Option<Frame>, StreamError> {
        loop {
            if let Some(frame) = self.decoder.next().map_err(StreamError::Protocol)? {
                return Ok(Some(frame));
            }
            self.decoder.buffer.reserve(READ);
            let read = self.io.read_buf(&mut self.decoder.buffer).await.map_err(StreamError::broken)?;
            if read == 0 {
                return Ok(None);
            }
        }
    }

    /// What comes next; `None` after the connection has ended. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<Option<Event>, StreamError> {
        loop {
            if let Some(event) = self.early.pop_front() {
                return Ok(Some(event));
            }
            let Some(frame) = self.frame().await? else { return Ok(None) };
            self.early.extend(event(frame));
        }
    }
}

impl Writer {
    /// Sends data on a channel.
    pub(super) async fn data(&mut self, channel: u8, data: &[u8]) -> Result<(), StreamError> {
        for piece in data.chunks(MAX_PIECE) {
            self.send(channel, piece, false).await?;
        }
        Ok(())
    }

    /// Says that no more comes on a channel.
    pub(super) async fn end(&mut self, channel: u8) -> Result<(), StreamError> {
        self.send(channel, &[], true).await
    }

    async fn send(&mut self, channel: u8, data: &[u8], fin: bool) -> Result<(), StreamError> {
        let head = Encoder::data_head(stream_of(channel), fin, data.len());
        let sent = async {
            // Head and data in one packet.
            self.io.write_all_buf(&mut tokio_util::bytes::Buf::chain(&head[..], data)).await?;
            self.io.flush().await
        };
        sent.await.map_err(StreamError::broken)
    }

    /// Answers a ping. Those with odd numbers would be answers to ours, of which there are none.
    pub(super) async fn pong(&mut self, id: u32) -> Result<(), StreamError> {
        if id % 2 == 1 {
            return Ok(());
        }
        let sent = async {
            self.io.write_all(&Encoder::pong(id)).await?;
            self.io.flush().await
        };
        sent.await.map_err(StreamError::broken)
    }
}
