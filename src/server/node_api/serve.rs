//! Connections of the node's API: HTTP/1.1 and HTTP/2 over TLS, or HTTP/1.1 alone on the read-only port.
//!
//! Whoever has not yet been let in costs little: so many connections of strangers, of which a new one pushes out the
//! oldest; a bounded time for the handshake and for each head; bounded heads; no body is read. Those that have been
//! let in have a bound of their own, which strangers cannot use up.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    future::Future,
    io,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
    sync::{OwnedSemaphorePermit, Semaphore, watch},
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
/// Connections of those who have been. One user has as many at most as are left for others.
const KNOWN: usize = 1024;
/// Requests of one connection that are being judged at a time, before it was let in: their heads are in memory.
const TURNS: usize = 8;
/// How long a connection may be open without a request, as with kubelet.
const IDLE: Duration = Duration::from_secs(90);
/// A handshake's time.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// From a connection's start, or the last answer, until the next head is complete.
pub(super) const HEAD: Duration = Duration::from_secs(60);
/// Bytes of a head. A URL of hyper's has 64 KiB at most, and commands come in URLs.
const MAX_HEAD: usize = 96 << 10;
const MAX_HEADERS: usize = 100;
/// Bytes of a head over HTTP/2, on which nothing is upgraded: a token, and some more.
const MAX_HTTP2_HEAD: u32 = 40 << 10;
/// Bytes of an answer that wait to be taken on an HTTP/2 stream.
const SEND_BUFFER: usize = 32 << 10;
/// Requests at once on one HTTP/2 connection; who has more opens another one, as Go's clients do.
const MAX_STREAMS: u32 = 32;
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
    /// Whose connection it is, once somebody was let in.
    known: Mutex<Option<String>>,
    turns: Arc<Semaphore>,
}

struct Gate {
    strangers: Mutex<VecDeque<(u64, AbortHandle)>>,
    known: Mutex<Known>,
}

/// Connections of those who have been let in.
#[derive(Default)]
struct Known {
    all: usize,
    of_user: HashMap<String, usize>,
}

impl Known {
    /// Counts one more connection of a user, if there is a place. However many one user has, there are places left
    /// for another.
    fn add(&mut self, user: &str) -> bool {
        let own = self.of_user.get(user).copied().unwrap_or(0);
        if own >= KNOWN.saturating_sub(self.all) {
            return false;
        }
        self.all += 1;
        self.of_user.insert(user.to_owned(), own + 1);
        true
    }

    fn remove(&mut self, user: &str) {
        self.all = self.all.saturating_sub(1);
        match self.of_user.get_mut(user) {
            Some(own) if *own > 1 => *own -= 1,
            _ => drop(self.of_user.remove(user)),
        }
    }
}

impl Gate {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn strangers(&self) -> MutexGuard<'_, VecDeque<(u64, AbortHandle)>> {
        self.strangers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peer {
    /// A user has been let in on this connection: no stranger pushes it out from here on. False if there are too many
    /// of those.
    pub(super) fn let_in(&self, user: &str) -> bool {
        let mut known = self.place.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.is_none() {
            if !self.place.gate.known().add(user) {
                return false;
            }
            *known = Some(user.to_owned());
            self.place.gate.strangers().retain(|(number, _)| *number != self.place.number);
        }
        true
    }

    /// Whether somebody was let in on this connection.
    pub(super) fn is_known(&self) -> bool {
        self.place.known.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// A turn to be judged; `None` while too many requests of this connection are.
    pub(super) fn turn(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.place.turns).try_acquire_owned().ok()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(user) = self.known.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            self.gate.known().remove(&user);
        }
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
    let gate = Arc::new(Gate { strangers: Mutex::default(), known: Mutex::default() });
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
        let turns = Arc::new(Semaphore::new(TURNS));
        let place = Arc::new(Place { gate: Arc::clone(&gate), number, known: Mutex::default(), turns });
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

/// How many requests of a connection are being answered, to the end of each answer.
#[derive(Clone)]
struct Activity(Arc<watch::Sender<usize>>);

/// One of them.
struct Active(Activity);

impl Activity {
    fn begin(&self) -> Active {
        self.0.send_modify(|count| *count += 1);
        Active(self.clone())
    }

    /// Until there has been none for so long.
    async fn idle(&self, so_long: Duration) {
        let mut count = self.0.subscribe();
        loop {
            // The sender is here.
            if count.wait_for(|count| *count == 0).await.is_err() {
                return;
            }
            if timeout(so_long, count.wait_for(|count| *count > 0)).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

/// Keeps the request among those being answered until its answer has been taken.
fn until_its_end(mut answer: Reply, active: Active) -> Reply {
    if let Some(length) = answer.body().size_hint().exact().filter(|_| !answer.status().is_informational()) {
        answer.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| length.into());
    }
    answer.map(|body| {
        let with_it = move |frame| {
            let _active = &active;
            frame
        };
        body.map_frame(with_it).boxed_unsync()
    })
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
    let activity = Activity(Arc::new(watch::Sender::new(0)));
    let counted = activity.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (is_head, active) = (request.method() == Method::HEAD, counted.begin());
        let answer = handler(request, peer.clone());
        async move {
            let answer = answer.await;
            let answer = if is_head { without_body(answer) } else { answer };
            Ok::<_, Infallible>(until_its_end(answer, active))
        }
    });
    if is_h2 {
        let serving = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HTTP2_HEAD)
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
            // HTTP/1.1 has a time for each head.
            () = activity.idle(IDLE) => {
                serving.as_mut().graceful_shutdown();
                // Who does not take the farewell is left without.
                timeout(HANDSHAKE, serving).await.ok();
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
