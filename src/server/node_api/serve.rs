//! Connections of the node's API: HTTP/1.1 and HTTP/2 over TLS, or HTTP/1.1 alone on the read-only port.
//!
//! Whoever has not yet been let in costs little: so many connections of strangers, of which a new one pushes out the
//! oldest; a bounded time for the handshake and for each head; bounded heads; no body is read. Those that have been
//! let in have a bound of their own, which strangers cannot use up.

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    io,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http_body_util::{BodyExt as _, Empty, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response,
    body::{Body as _, Bytes, Incoming},
    header::CONTENT_LENGTH,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use nix::sys::socket::{setsockopt, sockopt};
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// A body that may come in pieces.
pub(super) type Body = UnsyncBoxBody<Bytes, Infallible>;
/// An answer.
pub(super) type Reply = Response<Body>;

/// Connections of those who have not been let in.
const STRANGERS: usize = 64;
/// Connections of those who have been.
const KNOWN: usize = 512;
/// A handshake's time.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// From a connection's start, or the last answer, until the next head is complete.
pub(super) const HEAD: Duration = Duration::from_secs(60);
/// Bytes of a head. A URL of hyper's has 64 KiB at most, and commands come in URLs.
const MAX_HEAD: usize = 96 << 10;
const MAX_HEADERS: usize = 100;
/// Bytes of an answer that wait to be taken on an HTTP/2 stream.
const SEND_BUFFER: usize = 32 << 10;
/// Requests at once on one HTTP/2 connection, as with Go's.
const MAX_STREAMS: u32 = 100;
/// A peer that is gone without a word is noticed after about a minute.
const KEEPALIVE: (u32, u32, u32) = (30, 10, 3);

/// Who is at the other end of a connection.
#[derive(Clone)]
pub(super) struct Peer {
    /// The certificates that the client has shown.
    pub(super) shown: Option<Arc<[CertificateDer<'static>]>>,
    place: Arc<Place>,
}

/// A connection's place among the strangers, or among the known.
struct Place {
    gate: Arc<Gate>,
    number: u64,
    known: Mutex<Option<OwnedSemaphorePermit>>,
}

struct Gate {
    strangers: Mutex<VecDeque<(u64, AbortHandle)>>,
    known: Arc<Semaphore>,
}

impl Gate {
    fn strangers(&self) -> std::sync::MutexGuard<'_, VecDeque<(u64, AbortHandle)>> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    /// The peer has been let in: no stranger pushes it out from here on. False if there are too many of those.
    pub(super) fn let_in(&self) -> bool {
        let mut known = self.place.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            let Ok(permit) = Arc::clone(&self.place.gate.known).try_acquire_owned() else { return false };
            *known = Some(permit);
            self.place.gate.strangers().retain(|(number, _)| *number != self.place.number);
        }
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.strangers().retain(|(number, _)| *number != self.number);
    }
}

/// Serves until `stop`; what is under way then is given up after a second. Without `tls` it is plain HTTP.
pub(super) async fn serve<H, F>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    stop: CancellationToken,
    handler: H,
) where
    H: Fn(Request<Incoming>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let handler = Arc::new(handler);
    let gate = Arc::new(Gate { strangers: Mutex::default(), known: Arc::new(Semaphore::new(KNOWN)) });
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut number = 0;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = tasks.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of the node's API");
                sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        number += 1;
        let place = Arc::new(Place { gate: Arc::clone(&gate), number, known: Mutex::default() });
        let (handler, tls, stop) = (Arc::clone(&handler), tls.clone(), stop.clone());
        let mut strangers = gate.strangers();
        let pushed_out = if strangers.len() >= STRANGERS { strangers.pop_front() } else { None };
        let task = tasks.spawn(async move {
            let ended = connection(stream, tls, place, &stop, handler).await;
            if let Err(error) = ended {
                // A client's fault, and anybody could fill the log with it.
                tracing::debug!("a connection of the node's API failed: {error}");
            }
        });
        strangers.push_back((number, task));
        drop(strangers);
        if let Some((_, oldest)) = pushed_out {
            oldest.abort();
        }
    }
    let drained = timeout(Duration::from_secs(1), async { while tasks.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tasks.shutdown().await;
    }
}

async fn connection<H, F>(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    place: Arc<Place>,
    stop: &CancellationToken,
    handler: Arc<H>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    H: Fn(Request<Incoming>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    tune(&stream)?;
    let Some(tls) = tls else {
        return http(stream, false, Peer { shown: None, place }, stop, handler).await;
    };
    let stream = timeout(HANDSHAKE, tls.accept(stream)).await??;
    let session = stream.get_ref().1;
    let shown =
        session.peer_certificates().map(|shown| shown.iter().map(|c| c.clone().into_owned()).collect());
    let is_h2 = session.alpn_protocol() == Some(b"h2");
    http(stream, is_h2, Peer { shown, place }, stop, handler).await
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    let (idle, interval, count) = KEEPALIVE;
    stream.set_nodelay(true)?;
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &idle)?;
    setsockopt(stream, sockopt::TcpKeepInterval, &interval)?;
    setsockopt(stream, sockopt::TcpKeepCount, &count)?;
    Ok(())
}

/// The answer to HEAD: the length that GET would have, where it is known, and no body. Over HTTP/2 hyper would send one,
/// which clients take for a broken stream.
fn without_body(answer: Reply) -> Reply {
    let (mut head, body) = answer.into_parts();
    if let Some(length) = body.size_hint().exact() {
        head.headers.entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    Response::from_parts(head, Empty::new().boxed_unsync())
}

async fn http<S, H, F>(
    stream: S,
    is_h2: bool,
    peer: Peer,
    stop: &CancellationToken,
    handler: Arc<H>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>, Peer) -> F + Send + Sync + 'static,
    F: Future<Output = Reply> + Send + 'static,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let is_head = request.method() == Method::HEAD;
        let answer = handler(request, peer.clone());
        async move {
            let answer = answer.await;
            Ok::<_, Infallible>(if is_head { without_body(answer) } else { answer })
        }
    });
    if is_h2 {
        let serving = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
            .max_send_buf_size(SEND_BUFFER)
            // Whether the peer is there is TCP's to find out: one that reads slowly answers no ping in between.
            .serve_connection(TokioIo::new(stream), service);
        let mut serving = pin!(serving);
        tokio::select! {
            ended = serving.as_mut() => ended?,
            () = stop.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.as_mut().await?;
            }
        }
    } else {
        let serving = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut serving = pin!(serving);
        tokio::select! {
            ended = serving.as_mut() => ended?,
            () = stop.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.as_mut().await?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
