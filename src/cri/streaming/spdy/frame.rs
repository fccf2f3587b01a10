//! The frames of SPDY/3.1, as far as a client of a streaming server sends and reads them.
//!
//! Eight bytes stand before each: a control frame has the highest bit set and then version and kind, a data
//! frame its stream; then flags and 24 bits of length. Data is handed on in pieces as it comes, so that a
//! frame of 16 MiB takes no more memory than one of 32 KiB.
//!
//! Headers are sent as stored blocks of the zlib stream that the protocol wants, which is as valid as squeezed
//! ones; the dictionary is only named. What a server answers with is skipped: its replies have no headers of
//! meaning here, and no other frame depends on having unpacked them.

use tokio_util::bytes::{Buf as _, Bytes, BytesMut};

/// The longest piece of data that is handed on, and the longest that is sent in one frame.
pub(crate) const MAX_PIECE: usize = 32 << 10;
/// The longest control frame that is taken.
const MAX_CONTROL: usize = 64 << 10;
/// What stands before a frame.
const HEAD: usize = 8;
/// The bit of a control frame, and the protocol's version.
const CONTROL: u32 = 0x8003_0000;
/// The flag that says that a side sends no more on a stream.
const FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const SETTINGS: u16 = 4;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;
const WINDOW_UPDATE: u16 = 9;

/// The beginning of a zlib stream (RFC 1950) with a preset dictionary, and the Adler-32 sum of SPDY/3's.
const ZLIB_HEAD: [u8; 6] = [0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2];

/// What a server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// A stream that was asked for is there; with `fin` the server will send nothing on it.
    Reply { stream: u32, fin: bool },
    /// A stream has ended in both directions.
    Reset { stream: u32, status: u32 },
    /// To be sent back as it is.
    Ping { id: u32 },
    /// The server takes no more streams.
    GoAway,
    /// A piece of data; with `fin` the last of its stream.
    Data { stream: u32, fin: bool, data: Bytes },
}

/// The data frame whose payload comes next.
#[derive(Debug, Clone, Copy)]
struct Payload {
    stream: u32,
    fin: bool,
    left: usize,
}

/// Takes bytes and gives frames.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    /// What has come and is no frame yet.
    pub(crate) buffer: BytesMut,
    payload: Option<Payload>,
}

impl Decoder {
    /// The next frame that is whole, or the next piece of one with data; `None` if more bytes are needed.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, String> {
        loop {
            if let Some(payload) = self.payload {
                return Ok(self.piece(payload));
            }
            let Some((head, _)) = self.buffer.split_first_chunk::<HEAD>() else { return Ok(None) };
            let [a, b, c, d, flags, length @ ..] = *head;
            let first = u32::from_be_bytes([a, b, c, d]);
            let length = usize::from(length[0]) << 16 | usize::from(length[1]) << 8 | usize::from(length[2]);
            if first & 0x8000_0000 == 0 {
                if first == 0 {
                    return Err("data of stream 0".to_owned());
                }
                self.buffer.advance(HEAD);
                self.payload = Some(Payload { stream: first, fin: flags & FIN != 0, left: length });
                continue;
            }
            if first & 0xffff_0000 != CONTROL {
                return Err(format!("a frame of version {}", first >> 16 & 0x7fff));
            }
            if length > MAX_CONTROL {
                return Err(format!("a control frame of {length} bytes"));
            }
            if self.buffer.len() < HEAD + length {
                return Ok(None);
            }
            self.buffer.advance(HEAD);
            let body = self.buffer.split_to(length);
            if let Some(frame) = control([c, d], flags, &body)? {
                return Ok(Some(frame));
            }
        }
    }

    fn piece(&mut self, payload: Payload) -> Option<Frame> {
        if self.buffer.is_empty() && payload.left > 0 {
            return None;
        }
        let now = payload.left.min(self.buffer.len()).min(MAX_PIECE);
        let data = self.buffer.split_to(now).freeze();
        let left = payload.left - now;
        self.payload = (left > 0).then_some(Payload { left, ..payload });
        Some(Frame::Data { stream: payload.stream, fin: payload.fin && left == 0, data })
    }
}

/// A control frame; `None` for one that changes nothing here. Windows are among those: these servers take no
/// notice of them and never tell of one, so that none is kept here either; TCP's holds both sides back.
fn control(kind: [u8; 2], flags: u8, body: &[u8]) -> Result<Option<Frame>, String> {
    let kind = u16::from_be_bytes(kind);
    let number = |at: usize| {
        let bytes = body.get(at..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map(|bytes| u32::from_be_bytes(*bytes)).ok_or(format!("a frame of kind {kind} is too short"))
    };
    let stream = || number(0).map(|stream| stream & 0x7fff_ffff);
    Ok(match kind {
        SYN_REPLY => Some(Frame::Reply { stream: stream()?, fin: flags & FIN != 0 }),
        RST_STREAM => Some(Frame::Reset { stream: stream()?, status: number(4)? }),
        PING => Some(Frame::Ping { id: number(0)? }),
        GOAWAY => Some(Frame::GoAway),
        HEADERS if flags & FIN != 0 => Some(Frame::Data { stream: stream()?, fin: true, data: Bytes::new() }),
        HEADERS | SETTINGS | WINDOW_UPDATE => None,
        SYN_STREAM => return Err("the server opens a stream".to_owned()),
        _ => return Err(format!("a frame of unknown kind {kind}")),
    })
}

/// Makes the frames that a client sends.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    /// The zlib stream of headers has begun.
    begun: bool,
}

impl Encoder {
    /// Asks for a stream. Names are lower case, by the protocol.
    pub(crate) fn open(&mut self, out: &mut Vec<u8>, stream: u32, headers: &[(&str, &str)]) {
        let mut block = Vec::new();
        put_length(&mut block, headers.len());
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            put_length(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
        let mut body = Vec::with_capacity(block.len() + 32);
        body.extend(stream.to_be_bytes());
        // No stream that it belongs to, the highest priority, no slot.
        body.extend([0; 6]);
        if !self.begun {
            body.extend(ZLIB_HEAD);
            self.begun = true;
        }
        for stored in block.chunks(0xffff) {
            // At most 65535.
            let length = u16::try_from(stored.len()).unwrap_or(u16::MAX);
            body.push(0);
            body.extend(length.to_le_bytes());
            body.extend((!length).to_le_bytes());
            body.extend_from_slice(stored);
        }
        put_control(out, SYN_STREAM, &body);
    }

    /// A piece of data of at most [`MAX_PIECE`] bytes; with `fin` the last of its stream.
    pub(crate) fn data_head(stream: u32, fin: bool, length: usize) -> [u8; HEAD] {
        debug_assert!(length <= MAX_PIECE);
        let length = u32::try_from(length).unwrap_or(0) & 0x00ff_ffff;
        let [a, b, c, d] = stream.to_be_bytes();
        let [_, e, f, g] = length.to_be_bytes();
        [a, b, c, d, u8::from(fin), e, f, g]
    }

    /// The answer to a ping.
    pub(crate) fn pong(id: u32) -> Vec<u8> {
        let mut out = Vec::new();
        put_control(&mut out, PING, &id.to_be_bytes());
        out
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
}

fn put_control(out: &mut Vec<u8>, kind: u16, body: &[u8]) {
    out.extend((CONTROL | u32::from(kind)).to_be_bytes());
    put_length(out, body.len());
    out.extend_from_slice(body);
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
