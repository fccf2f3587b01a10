//! Keeps the begin of what a command in a container said.
//!
//! A runtime answers ExecSync with up to 16 MiB of each output, of which nobody needs more than a few lines, and
//! tonic reads an answer whole before it looks at it: a dozen probes that print much would cost more memory than
//! all of the agent. A smaller limit would make errors of such answers and lose their exit codes. So the answer
//! is shortened while it comes in, and tonic is given a short one.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::{
    Request, Response,
    body::{Body as HttpBody, Bytes, Frame},
};
use tonic::{Status, body::Body};
use tower::Service;

use super::{channel::MAX_MESSAGE, dialect::Line};

/// The most bytes of each output that are kept: what kubelet reads of a probe's.
pub(crate) const MAX_OUTPUT: usize = 10 << 10;
/// The most that a shortened answer may come to: the outputs, the exit code, and room for what may come.
const MAX_ANSWER: usize = 4 * MAX_OUTPUT;
/// gRPC puts a byte for compression and the length before a message.
const HEAD: usize = 5;

/// A connection whose answers are shortened.
#[derive(Debug, Clone)]
pub(super) struct Shortening(pub(super) Line);

impl Service<Request<Body>> for Shortening {
    type Response = Response<Shortened<Body>>;
    type Error = tonic::transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::poll_ready(&mut self.0, context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let answer = Service::call(&mut self.0, request);
        Box::pin(async move { Ok(answer.await?.map(|body| Shortened { body, message: Message::default() })) })
    }
}

/// An answer's body on its way.
#[derive(Debug)]
pub(super) struct Shortened<B> {
    body: B,
    message: Message,
}

impl<B: HttpBody<Data = Bytes, Error = Status> + Unpin> HttpBody for Shortened<B> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        loop {
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(context)) else {
                return Poll::Ready(None);
            };
            let data = match frame?.into_data() {
                Ok(data) => data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            };
            let short = self.message.take(&data).map_err(Status::internal)?;
            if !short.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(short.into()))));
            }
        }
    }
}

/// A message of protocol buffers whose long fields are cut while it is read.
#[derive(Debug, Default)]
struct Message {
    at: At,
    /// The head, or a number, as far as it is there.
    part: Vec<u8>,
    /// What of the message is still to come.
    left: usize,
    /// What is kept of it.
    kept: Vec<u8>,
}

/// What comes next.
#[derive(Debug, Clone, Copy, Default)]
enum At {
    #[default]
    Head,
    Tag,
    /// A number that is a value.
    Number,
    /// The length of a value.
    Length,
    /// So many bytes to keep, and then so many to drop.
    Value(usize, usize),
    /// Nothing is shortened: what comes is not for us to judge.
    AsItIs,
}

impl Message {
    /// Takes what has come, and answers what is to go on: nothing before the message is whole.
    fn take(&mut self, mut data: &[u8]) -> Result<Vec<u8>, &'static str> {
        let mut out = Vec::new();
        while !data.is_empty() {
            match self.at {
                At::AsItIs => {
                    out.extend_from_slice(data);
                    data = &[];
                }
                At::Head => {
                    data = self.fill(data, HEAD);
                    if let [flag, length @ ..] = &self.part[..]
                        && let Ok(length) = <[u8; 4]>::try_from(length)
                    {
                        self.left = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                        // One that is compressed or too long is refused by who reads it.
                        self.at = if *flag != 0 || self.left > MAX_MESSAGE { At::AsItIs } else { At::Tag };
                        if matches!(self.at, At::AsItIs) || self.left == 0 {
                            out.append(&mut self.part);
                        }
                        self.part.clear();
                        if self.left == 0 {
                            self.at = At::Head;
                        }
                    }
                }
                At::Value(keep, drop) => {
                    let now = data.len().min(if keep > 0 { keep } else { drop });
                    let (value, rest) = data.split_at(now);
                    self.at = if keep > 0 {
                        self.kept.extend_from_slice(value);
                        At::Value(keep - now, drop)
                    } else {
                        At::Value(0, drop - now)
                    };
                    data = rest;
                    self.left -= now;
                    self.end_value(&mut out)?;
                }
                At::Tag | At::Number | At::Length => {
                    let (byte, rest) = (data[0], &data[1..]);
                    data = rest;
                    self.left -= 1;
                    self.part.push(byte);
                    if byte & 0x80 == 0 {
                        self.number()?;
                        self.end_value(&mut out)?;
                    } else if self.part.len() > 9 || self.left == 0 {
                        return Err("the answer has a number that does not end");
                    }
                }
            }
        }
        Ok(out)
    }

    /// Takes what is missing of a part of the given length.
    fn fill<'d>(&mut self, data: &'d [u8], length: usize) -> &'d [u8] {
        let (part, rest) = data.split_at(data.len().min(length - self.part.len()));
        self.part.extend_from_slice(part);
        rest
    }

    /// A number is whole.
    fn number(&mut self) -> Result<(), &'static str> {
        let part = std::mem::take(&mut self.part);
        let number = part.iter().rev().fold(0_u64, |number, byte| number << 7 | u64::from(byte & 0x7f));
        match self.at {
            At::Length => {
                let length = usize::try_from(number).unwrap_or(usize::MAX);
                if length > self.left {
                    return Err("the answer has a field that is longer than itself");
                }
                let keep = length.min(MAX_OUTPUT);
                put_number(&mut self.kept, keep);
                self.at = At::Value(keep, length - keep);
            }
            At::Tag => {
                self.kept.extend_from_slice(&part);
                self.at = match number & 7 {
                    0 => At::Number,
                    1 if self.left >= 8 => At::Value(8, 0),
                    2 => At::Length,
                    5 if self.left >= 4 => At::Value(4, 0),
                    _ => return Err("the answer has a field of an unknown kind"),
                };
                if self.left == 0 {
                    return Err("the answer ends within a field");
                }
            }
            _ => {
                self.kept.extend_from_slice(&part);
                self.at = At::Value(0, 0);
            }
        }
        Ok(())
    }

    /// Goes on after a value, to what follows it or to the end of the message.
    fn end_value(&mut self, out: &mut Vec<u8>) -> Result<(), &'static str> {
        let At::Value(0, 0) = self.at else { return Ok(()) };
        if self.kept.len() > MAX_ANSWER {
            return Err("the answer has too many fields");
        }
        self.at = At::Tag;
        if self.left == 0 {
            out.push(0);
            let length = u32::try_from(self.kept.len()).unwrap_or(u32::MAX);
            out.extend(length.to_be_bytes());
            out.append(&mut self.kept);
            self.at = At::Head;
        }
        Ok(())
    }
}

fn put_number(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or(0));
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::api::cri::ExecSyncResponse;

    fn message(answer: &ExecSyncResponse) -> Vec<u8> {
        let body = answer.encode_to_vec();
        let mut whole = vec![0];
        whole.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        whole.extend(body);
        whole
    }

    fn read(bytes: &[u8]) -> ExecSyncResponse {
        assert_eq!(bytes[0], 0);
        assert_eq!(u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize, bytes.len() - 5);
        ExecSyncResponse::decode(&bytes[5..]).unwrap()
    }

    #[test]
    fn outputs_are_cut_and_the_exit_code_stays_however_it_comes_in() {
        for (out, err, exit_code) in
            [(0, 0, 0), (3, 0, 7), (MAX_OUTPUT, 1, -1), (MAX_OUTPUT + 1, 200, 137), (3 << 20, 5 << 20, 1)]
        {
            let answer = ExecSyncResponse { stdout: vec![b'o'; out], stderr: vec![b'e'; err], exit_code };
            let whole = message(&answer);
            for piece in [1, 2, 7, 16 << 10, whole.len()] {
                if piece < 7 && whole.len() > 1 << 20 {
                    continue;
                }
                let (mut shortener, mut short) = (Message::default(), Vec::new());
                for data in whole.chunks(piece) {
                    short.extend(shortener.take(data).unwrap());
                    assert!(shortener.kept.capacity() <= 2 * MAX_ANSWER);
                }
                let expected = ExecSyncResponse {
                    stdout: vec![b'o'; out.min(MAX_OUTPUT)],
                    stderr: vec![b'e'; err.min(MAX_OUTPUT)],
                    exit_code,
                };
                assert!(read(&short) == expected, "{out} {err} {exit_code} by {piece}");
            }
        }
    }

    #[test]
    fn what_is_no_answer_is_an_error_or_left_to_the_reader() {
        for body in [
            &[0x0b][..],
            &[0x0a],
            &[0x0a, 5, 1],
            &[0xff, 0xff],
            &[0x18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x09, 1, 2],
        ] {
            let mut whole = vec![0, 0, 0, 0, u8::try_from(body.len()).unwrap()];
            whole.extend(body);
            let taken = Message::default().take(&whole);
            assert!(taken.as_ref().is_err(), "{body:?}: {taken:?}");
        }
        for head in [[1, 0, 0, 0, 9], [0, 255, 255, 255, 255]] {
            let mut message = Message::default();
            assert_eq!(message.take(&head).unwrap(), head);
            assert_eq!(message.take(b"more").unwrap(), b"more");
        }
    }

    #[test]
    fn many_small_fields_do_not_add_up() {
        let mut message = Message::default();
        message.take(&[0, 0, 0xff, 0xff, 0xff]).unwrap();
        let refused = (0..MAX_ANSWER).find_map(|_| message.take(&[0x0a, 1, b'x']).err());
        assert_eq!(refused, Some("the answer has too many fields"));
    }
}
