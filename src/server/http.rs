//! The bounded HTTP/1.1 server under healthz and the operator socket.
//!
//! Bounds: header bytes and count, time until a request's header is complete, a connection's life, and the
//! number of connections. At the limit a new connection pushes out the oldest, so that clients which hold
//! connections and send nothing cannot lock a probe out. Request bodies are never read.

use std::{
    collections::VecDeque, convert::Infallible, future::Future, io, pin::pin, sync::Arc, time::Duration,
};

use http_body_util::Full;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::{AbortHandle, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

/// A response whose body is at hand.
pub(super) type Answer = Response<Full<Bytes>>;

/// hyper's smallest buffer; a request's header has to fit.
const MAX_HEADER_BYTES: usize = 8 << 10;
const MAX_HEADERS: usize = 64;

/// What a server's clients may cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections at a time.
    pub(super) connections: usize,
    /// From a connection's start (or the previous answer) until the header is complete.
    pub(super) header: Duration,
    /// A connection's whole life; probes connect anew every time.
    pub(super) life: Duration,
}

/// A listening socket.
pub(super) trait Accept {
    /// What it accepts.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// The next connection; `None` for one that was turned away.
    fn accept(&self) -> impl Future<Output = io::Result<Option<Self::Stream>>> + Send;
}

impl Accept for tokio::net::TcpListener {
    type Stream = tokio::net::TcpStream;

    async fn accept(&self) -> io::Result<Option<Self::Stream>> {
        tokio::net::TcpListener::accept(self).await.map(|(stream, _)| Some(stream))
    }
}

/// Serves until `stop`; answers under way then get the rest of their connection's life, at most a second.
pub(super) async fn serve<L, H, F>(listener: &L, limits: Limits, stop: CancellationToken, handler: H)
where
    L: Accept + Sync,
    H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let handler = Arc::new(handler);
    let mut tasks: JoinSet<()> = JoinSet::new();
    let mut order: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(_) = tasks.join_next() => {
                order.retain(|task| !task.is_finished());
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok(Some(stream)) => stream,
            Ok(None) => continue,
            Err(error) => {
                // Out of file descriptors, mostly: trying again at once would only burn a core.
                tracing::warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        order.retain(|task| !task.is_finished());
        if order.len() >= limits.connections
            && let Some(oldest) = order.pop_front()
        {
            oldest.abort();
        }
        let (handler, stop) = (Arc::clone(&handler), stop.clone());
        order.push_back(tasks.spawn(async move { connection(stream, limits, &stop, &*handler).await }));
    }
    let drained = timeout(Duration::from_secs(1), async { while tasks.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tasks.shutdown().await;
    }
}

async fn connection<S, H, F>(stream: S, limits: Limits, stop: &CancellationToken, handler: &H)
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Request<Incoming>) -> F,
    F: Future<Output = Answer>,
{
    let service = service_fn(|request| async { Ok::<_, Infallible>(handler(request).await) });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header)
        .max_buf_size(MAX_HEADER_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    let ended = timeout(limits.life, async {
        tokio::select! {
            ended = serving.as_mut() => ended,
            () = stop.cancelled() => {
                serving.as_mut().graceful_shutdown();
                serving.as_mut().await
            }
        }
    });
    match ended.await {
        Ok(Ok(())) => {}
        // A client's fault, and any local process could fill the log with it.
        Ok(Err(error)) => tracing::debug!(%error, "a connection failed"),
        Err(_) => tracing::debug!("a connection took too long"),
    }
}

/// An answer of a given type.
pub(super) fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// A plain text answer.
pub(super) fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    answer(status, "text/plain; charset=utf-8", body)
}

/// Refuses all methods but GET and HEAD.
pub(super) fn refuse_method(request: &Request<Incoming>) -> Option<Answer> {
    if matches!(*request.method(), hyper::Method::GET | hyper::Method::HEAD) {
        return None;
    }
    let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    Some(refused)
}
