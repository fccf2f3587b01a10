//! systemd's own socket, for root where there is no bus.
//!
//! There systemd signs its messages as `org.freedesktop.systemd1`. On a bus that is a name that can be owned and not
//! one of a sender, and zbus (5.19) panics over it in its reader. So the name is exchanged for another of the same
//! length on its way in; nobody asks for it, as there is no other sender.

use std::{io, os::fd::OwnedFd, path::Path};

use tokio::net::{
    UnixStream,
    unix::{OwnedReadHalf, OwnedWriteHalf},
};
use tonic::async_trait;
use zbus::{
    Connection,
    connection::{
        Builder,
        socket::{ReadHalf, Socket, Split},
    },
    fdo::ConnectionCredentials,
};

/// Where it is.
pub(crate) const SOCKET: &str = "/run/systemd/private";

/// The field of the sender in a message's head, of either end: its number, its type, its length, and the name.
const LITTLE: &[u8] = b"\x07\x01s\0\x18\0\0\0org.freedesktop.systemd1\0";
const BIG: &[u8] = b"\x07\x01s\0\0\0\0\x18org.freedesktop.systemd1\0";
/// As a name of a sender is.
const NAME: &[u8] = b":org.freedesktop.systemd\0";

/// Connects to systemd's own socket.
///
/// # Errors
/// As `connect`, and when systemd does not take who asks.
pub(crate) async fn connect(path: &Path) -> zbus::Result<Connection> {
    over(UnixStream::connect(path).await.map_err(zbus::Error::from)?).await
}

pub(super) async fn over(stream: UnixStream) -> zbus::Result<Connection> {
    Builder::socket(Private(stream)).p2p().build().await
}

struct Private(UnixStream);

impl Socket for Private {
    type ReadHalf = Renaming;
    type WriteHalf = OwnedWriteHalf;

    fn split(self) -> Split<Renaming, OwnedWriteHalf> {
        let (read, write) = self.0.into_split();
        Split::new(Renaming(read), write)
    }
}

#[derive(Debug)]
struct Renaming(OwnedReadHalf);

#[async_trait]
impl ReadHalf for Renaming {
    /// zbus asks for a message's first 16 bytes and then for all the rest: the field is in the rest, whole unless the
    /// kernel gives less than it was asked for.
    async fn recvmsg(&mut self, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
        let (mut read, mut files) = self.0.recvmsg(buffer).await?;
        while read > 0 && read < buffer.len() && ends_within(&buffer[..read]) {
            let (more, files_more) = self.0.recvmsg(&mut buffer[read..]).await?;
            files.extend(files_more);
            if more == 0 {
                break;
            }
            read += more;
        }
        rename(&mut buffer[..read]);
        Ok((read, files))
    }

    fn can_pass_unix_fd(&self) -> bool {
        true
    }

    async fn peer_credentials(&mut self) -> io::Result<ConnectionCredentials> {
        self.0.peer_credentials().await
    }
}

/// Whether there may be more of the field to come.
fn ends_within(bytes: &[u8]) -> bool {
    [LITTLE, BIG].iter().any(|field| {
        (1..field.len()).any(|length| field.get(..length).is_some_and(|begin| bytes.ends_with(begin)))
    })
}

fn rename(bytes: &mut [u8]) {
    for field in [LITTLE, BIG] {
        let found = memchr::memmem::find(bytes, field);
        if let Some(end) = found.map(|at| at + field.len())
            && let Some(name) = bytes.get_mut(end - NAME.len()..end)
        {
            name.copy_from_slice(NAME);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn the_name_is_exchanged_and_nothing_else() {
        for field in [LITTLE, BIG] {
            let mut bytes = [b"before".as_slice(), field, b"after"].concat();
            rename(&mut bytes);
            assert_eq!(bytes, [b"before", &field[..8], NAME, b"after"].concat());
            for cut in 1..field.len() {
                assert!(ends_within(&[b"x", &field[..cut]].concat()), "{cut}");
            }
        }
        let other = b"\x07\x01s\0\x05\0\0\0:1.42\0";
        let mut bytes = other.to_vec();
        rename(&mut bytes);
        assert_eq!(bytes, other);
        assert!(!ends_within(b"REJECTED\r\n"));
    }

    /// A manager that answers one call as systemd does on its own socket, a few bytes at a time.
    #[tokio::test]
    async fn an_answer_signed_by_the_manager_is_taken() {
        let (ours, mut its) = UnixStream::pair().unwrap();
        let manager = tokio::spawn(async move {
            let mut heard = Vec::new();
            let mut answers = vec![
                ("AUTH EXTERNAL", b"OK 0123456789abcdef0123456789abcdef\r\n".as_slice()),
                ("NEGOTIATE_UNIX_FD", b"AGREE_UNIX_FD\r\n"),
                ("BEGIN\r\n", b""),
                ("Version", b""),
            ]
            .into_iter()
            .peekable();
            while let Some((line, answer)) = answers.peek() {
                if memchr::memmem::find(&heard, line.as_bytes()).is_some() {
                    its.write_all(answer).await.unwrap();
                    answers.next();
                } else {
                    assert!(its.read_buf(&mut heard).await.unwrap() > 0);
                }
            }
            // The call's serial, which the answer names.
            let call = memchr::memmem::find(&heard, b"BEGIN\r\n").unwrap() + b"BEGIN\r\n".len();
            let mut fields = b"\x05\x01u\0".to_vec();
            fields.extend_from_slice(&heard[call + 8..call + 12]);
            fields.extend_from_slice(LITTLE);
            while !fields.len().is_multiple_of(8) {
                fields.push(0);
            }
            fields.extend_from_slice(b"\x08\x01g\0\x01s\0");
            let body = b"\x03\x00\x00\x00252\x00";
            let mut message = vec![b'l', 2, 1, 1];
            for number in [body.len(), 7, fields.len()] {
                message.extend_from_slice(&u32::try_from(number).unwrap().to_le_bytes());
            }
            message.extend_from_slice(&fields);
            while !message.len().is_multiple_of(8) {
                message.push(0);
            }
            message.extend_from_slice(body);
            for piece in message.chunks(11) {
                its.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            its
        });
        let limit = std::time::Duration::from_secs(5);
        let connection = tokio::time::timeout(limit, over(ours)).await.unwrap().unwrap();
        let path = "/org/freedesktop/systemd1";
        let call = connection.call_method(None::<&str>, path, None::<&str>, "Version", &());
        let answer = tokio::time::timeout(limit, call).await.unwrap().unwrap();
        assert_eq!(answer.body().deserialize::<&str>().unwrap(), "252");
        manager.await.unwrap();
    }
}
