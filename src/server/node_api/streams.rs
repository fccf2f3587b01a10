//! `/exec`, `/attach` and `/portForward`: the client's upgraded connection is joined to the runtime's streaming
//! server, whatever the two speak on it (SPDY/3.1 or a WebSocket).
//!
//! What one side does not take makes the other one wait: no more than a block of each direction is in memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt as _, Limited};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::Incoming,
    header::{CONNECTION, HeaderName, SEC_WEBSOCKET_PROTOCOL, UPGRADE},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use super::{NodeApi, Refusal, authn::without_token, body, serve::Reply, text};
use crate::{
    api::{
        SandboxState,
        cri::{AttachRequest, ExecRequest},
    },
    cri::{
        CriError,
        streaming::{Dialer, StreamError, TlsOptions},
    },
    policy::node_api::{Target, parameters},
};

/// Streams at a time.
const MOST: usize = 512;
/// How long the runtime's streaming server may take to answer.
const ANSWER: Duration = Duration::from_secs(30);
/// How long the other side may take to end when one has ended.
const ENDING: Duration = Duration::from_secs(30);
/// Bytes that are handed on at a time.
const BLOCK: usize = 16 << 10;
/// Bytes that are passed on of the words with which an upgrade is refused.
const MAX_WORDS: usize = 16 << 10;
/// The most ports of one connection.
const MAX_PORTS: usize = 100;

/// What is passed on of the client's head: what the upgrade is about, and nothing of who asks.
const PASSED: [&str; 8] = [
    "connection",
    "upgrade",
    "x-stream-protocol-version",
    "sec-websocket-key",
    "sec-websocket-version",
    "sec-websocket-protocol",
    "sec-websocket-extensions",
    "origin",
];

/// How runtimes' streaming servers are reached.
pub(super) fn dialer() -> Result<Dialer, StreamError> {
    // As its URL comes from the runtime itself, any certificate of its server is taken; no name is looked at then.
    Dialer::new(&TlsOptions { server_name: "localhost".to_owned(), ..TlsOptions::default() }, ANSWER)
}

/// The streams' bounds.
pub(super) struct Streams {
    places: Arc<Semaphore>,
    /// How long one may be silent.
    idle: Option<Duration>,
}

impl Streams {
    pub(super) fn new(idle: Option<Duration>) -> Self {
        Self { places: Arc::new(Semaphore::new(MOST)), idle }
    }
}

/// Which streams a client wants.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

fn wanted(query: &str) -> Result<Wanted, Refusal> {
    let is = |name| parameters(query, name).next().as_deref() == Some("1");
    let tty = is("tty");
    // A terminal has one output.
    let wanted = Wanted { stdin: is("input"), stdout: is("output"), stderr: is("error") && !tty, tty };
    if !wanted.stdin && !wanted.stdout && !wanted.stderr {
        return Err(Refusal::bad("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(wanted)
}

/// The ports that a client by WebSocket has to name; one by SPDY names them later.
fn ports(query: &str, is_websocket: bool) -> Result<Vec<i32>, Refusal> {
    if !is_websocket {
        return Ok(Vec::new());
    }
    let texts: Vec<String> = parameters(query, "port").collect();
    let ports = texts.iter().flat_map(|text| text.split(',')).take(MAX_PORTS + 1);
    let ports: Result<Vec<i32>, Refusal> = ports
        .map(|text| match text.parse::<u16>() {
            Ok(port) if port > 0 => Ok(i32::from(port)),
            _ => Err(Refusal::bad(format!("unable to parse {text:?} as a port"))),
        })
        .collect();
    match ports? {
        ports if ports.is_empty() => Err(Refusal::bad("query parameter \"port\" is required")),
        ports if ports.len() > MAX_PORTS => Err(Refusal::bad(format!("more than {MAX_PORTS} ports"))),
        ports => Ok(ports),
    }
}

/// What the client wants its connection to become.
fn upgrade_of(headers: &HeaderMap) -> Option<String> {
    let text = |name: &HeaderName| {
        let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.collect::<Vec<_>>().join(",").to_ascii_lowercase()
    };
    let connection = text(&CONNECTION);
    let upgrades = connection.split(',').any(|token| token.trim() == "upgrade");
    Some(text(&UPGRADE)).filter(|upgrade| upgrades && !upgrade.is_empty())
}

/// Why a stream is not there. kubectl reads the answer as YAML first, and would show nothing at all of words with one
/// colon in them, which are a mapping; with two they are none.
fn words(error: &dyn std::fmt::Display) -> String {
    format!("cannot begin the stream: runtime: {error}")
}

fn failed(error: &CriError) -> Refusal {
    if error.is_not_found() { Refusal::not_found(words(error)) } else { Refusal::failed(words(error)) }
}

impl NodeApi {
    /// `/exec`.
    pub(super) async fn exec(
        &self,
        target: &Target,
        query: &str,
        request: &mut Request<Incoming>,
    ) -> Result<Reply, Refusal> {
        let Wanted { stdin, stdout, stderr, tty } = wanted(query)?;
        let container_id = self.container(target)?;
        let cmd = parameters(query, "command").collect();
        let asked = ExecRequest { container_id, cmd, stdin, stdout, stderr, tty, ..ExecRequest::default() };
        let url = self.cri.exec(asked).await.map_err(|error| failed(&error))?;
        self.join(&url, request).await
    }

    /// `/attach`.
    pub(super) async fn attach(
        &self,
        target: &Target,
        query: &str,
        request: &mut Request<Incoming>,
    ) -> Result<Reply, Refusal> {
        let Wanted { stdin, stdout, stderr, tty } = wanted(query)?;
        let container_id = self.container(target)?;
        let asked = AttachRequest { container_id, stdin, stdout, stderr, tty, ..AttachRequest::default() };
        let url = self.cri.attach(asked).await.map_err(|error| failed(&error))?;
        self.join(&url, request).await
    }

    /// `/portForward`.
    pub(super) async fn port_forward(
        &self,
        target: &Target,
        query: &str,
        request: &mut Request<Incoming>,
    ) -> Result<Reply, Refusal> {
        let upgrade = upgrade_of(request.headers()).unwrap_or_default();
        let ports = ports(query, upgrade == "websocket")?;
        let pod = self.known_pod(target)?;
        let observed = self.observed.get(&pod.uid);
        let sandbox = observed.as_ref().and_then(|pod| pod.newest_sandbox());
        let sandbox = sandbox.filter(|sandbox| sandbox.state == SandboxState::Ready);
        let Some(sandbox) = sandbox else {
            let name = format!("{}_{}", target.pod, target.namespace);
            return Err(Refusal::not_found(format!("pod not found ({name:?})")));
        };
        let url = self.cri.port_forward(sandbox.id.as_str(), ports).await.map_err(|error| failed(&error))?;
        self.join(&url, request).await
    }

    /// Joins the client's connection to the runtime's.
    async fn join(&self, url: &str, request: &mut Request<Incoming>) -> Result<Reply, Refusal> {
        if upgrade_of(request.headers()).is_none() {
            return Err(Refusal::bad("Upgrade request required"));
        }
        let place = Arc::clone(&self.streams.places).try_acquire_owned();
        let place = place.map_err(|_none| {
            Refusal(StatusCode::TOO_MANY_REQUESTS, format!("there are {MOST} streams; try again later\n"))
        })?;
        let mut headers = HeaderMap::new();
        for name in PASSED {
            for value in request.headers().get_all(name) {
                let kept =
                    if name == SEC_WEBSOCKET_PROTOCOL { without_token(value) } else { Some(value.clone()) };
                if let Some(kept) = kept {
                    headers.append(HeaderName::from_static(name), kept);
                }
            }
        }
        let answer = self.dialer.forward(url, request.method().clone(), headers).await;
        let answer = answer.map_err(|error| Refusal::failed(words(&error)))?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = answer.status();
            let words = Limited::new(answer.into_body(), MAX_WORDS).collect().await;
            return Ok(text(status, words.map(http_body_util::Collected::to_bytes).unwrap_or_default()));
        }
        let mut reply = Response::new(body(""));
        *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *reply.headers_mut() = answer.headers().clone();
        let client = hyper::upgrade::on(request);
        tokio::spawn(relay(client, hyper::upgrade::on(answer), self.streams.idle, place));
        Ok(reply)
    }
}

/// Hands bytes on in both directions until both have ended.
async fn relay(
    client: hyper::upgrade::OnUpgrade,
    runtime: hyper::upgrade::OnUpgrade,
    idle: Option<Duration>,
    _place: OwnedSemaphorePermit,
) {
    let both = timeout(ANSWER, async { tokio::try_join!(client, runtime) }).await;
    // Else the client left before it was told.
    let Ok(Ok((client, runtime))) = both else { return };
    both_ways(TokioIo::new(client), TokioIo::new(runtime), idle).await;
}

/// Hands bytes on in both directions. When one side has ended the other is told, and has a while to end too. A
/// connection on which nothing comes for as long as `idle` is given up.
async fn both_ways<A, B>(client: A, runtime: B, idle: Option<Duration>)
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let begun = Instant::now();
    let moved = AtomicU64::new(0);
    let (from_client, to_client) = tokio::io::split(client);
    let (from_runtime, to_runtime) = tokio::io::split(runtime);
    let up = one_way(from_client, to_runtime, (&moved, begun));
    let down = one_way(from_runtime, to_client, (&moved, begun));
    let (mut up, mut down) = (std::pin::pin!(up), std::pin::pin!(down));
    let silent = async {
        let Some(idle) = idle else { return std::future::pending().await };
        loop {
            let until = begun + Duration::from_millis(moved.load(Ordering::Relaxed)) + idle;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    };
    tokio::select! {
        () = &mut up => drop(timeout(ENDING, down).await),
        () = &mut down => drop(timeout(ENDING, up).await),
        () = silent => tracing::debug!("a stream was silent for too long and is given up"),
    }
}

async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    (moved, begun): (&AtomicU64, Instant),
) {
    let mut block = vec![0; BLOCK];
    loop {
        let length = match from.read(&mut block).await {
            Ok(0) | Err(_) => break,
            Ok(length) => length,
        };
        let sent = async {
            to.write_all(&block[..length]).await?;
            to.flush().await
        };
        if sent.await.is_err() {
            return;
        }
        let since = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        moved.store(since, Ordering::Relaxed);
    }
    to.shutdown().await.ok();
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn what_a_client_wants_is_read_as_kubelet_reads_it() {
        let read = |query: &str| wanted(query).map_err(|refusal| refusal.1);
        let all = Wanted { stdin: true, stdout: true, stderr: true, tty: false };
        assert_eq!(read("input=1&output=1&error=1"), Ok(all));
        let terminal = Wanted { stdin: true, stdout: true, stderr: false, tty: true };
        assert_eq!(read("input=1&output=1&error=1&tty=1"), Ok(terminal));
        let none = "you must specify at least 1 of stdin, stdout, stderr";
        for query in ["", "output=true", "tty=1&error=1"] {
            assert_eq!(read(query), Err(none.to_owned()), "{query}");
        }
    }

    #[test]
    fn ports_are_named_by_websockets_alone() {
        let read = |query: &str| ports(query, true).map_err(|refusal| refusal.1);
        assert_eq!(ports("port=x", false).map_err(|refusal| refusal.1), Ok(vec![]));
        assert_eq!(read("port=80&port=1,65535"), Ok(vec![80, 1, 65535]));
        assert_eq!(read("x=1"), Err("query parameter \"port\" is required".to_owned()));
        for bad in ["0", "65536", "-1", "", "a"] {
            assert_eq!(read(&format!("port={bad}")), Err(format!("unable to parse {bad:?} as a port")));
        }
        assert_eq!(read(&format!("port={}", ["1"; 101].join(","))), Err("more than 100 ports".to_owned()));
    }

    #[test]
    fn upgrades_are_found_in_any_spelling_and_tokens_are_not_passed_on() {
        let mut headers = HeaderMap::new();
        assert_eq!(upgrade_of(&headers), None);
        headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        assert_eq!(upgrade_of(&headers), None);
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        assert_eq!(upgrade_of(&headers).as_deref(), Some("spdy/3.1"));
        let value =
            HeaderValue::from_static("v4.channel.k8s.io, base64url.bearer.authorization.k8s.io.eA, v5");
        assert_eq!(without_token(&value).unwrap(), "v4.channel.k8s.io, v5");
        assert_eq!(
            without_token(&HeaderValue::from_static("base64url.bearer.authorization.k8s.io.eA")),
            None
        );
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_go_both_ways_until_both_have_ended_or_are_silent() {
        let (mut client, near) = tokio::io::duplex(64);
        let (far, mut runtime) = tokio::io::duplex(64);
        let joined = tokio::spawn(both_ways(near, far, Some(Duration::from_secs(60))));
        client.write_all(b"in").await.unwrap();
        let mut two = [0; 2];
        runtime.read_exact(&mut two).await.unwrap();
        assert_eq!(&two, b"in");
        runtime.write_all(b"ou").await.unwrap();
        client.read_exact(&mut two).await.unwrap();
        assert_eq!(&two, b"ou");
        // The client has said all; the answer still comes.
        client.shutdown().await.unwrap();
        assert_eq!(runtime.read(&mut two).await.unwrap(), 0);
        runtime.write_all(b"ok").await.unwrap();
        client.read_exact(&mut two).await.unwrap();
        drop(runtime);
        joined.await.unwrap();

        let (_client, near) = tokio::io::duplex(64);
        let (far, _runtime) = tokio::io::duplex(64);
        let before = Instant::now();
        both_ways(near, far, Some(Duration::from_secs(60))).await;
        assert_eq!(before.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_side_that_does_not_end_is_not_waited_for_without_end() {
        let (client, near) = tokio::io::duplex(64);
        let (far, _runtime) = tokio::io::duplex(64);
        drop(client);
        let before = Instant::now();
        both_ways(near, far, None).await;
        assert_eq!(before.elapsed(), ENDING);
    }
}
