//! To the streaming server: a connection, with TLS if the URL says so, and its upgrade.

use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    body::{Bytes, Incoming},
    header::{CONNECTION, HOST, HeaderName, HeaderValue, UPGRADE},
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{Io, StreamError, TlsOptions, Transport, tls::Tls, websocket};

/// Bytes that the heads of an answer may take.
const MAX_HEAD: usize = 16 << 10;
/// Bytes that are read of the words with which an upgrade is refused.
const MAX_WORDS: usize = 2 << 10;

const STREAM_VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const WS_VERSION: HeaderName = HeaderName::from_static("sec-websocket-version");
const WS_KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const WS_ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
const WS_PROTOCOL: HeaderName = HeaderName::from_static("sec-websocket-protocol");

/// How streaming servers are reached.
#[derive(Debug)]
pub struct Dialer {
    tls: Tls,
    limit: Duration,
}

/// Host and port of a URL, for messages.
pub(super) fn address(url: &str) -> String {
    let uri = url.parse::<Uri>().ok();
    uri.and_then(|uri| Some(uri.authority()?.as_str().to_owned())).unwrap_or_default()
}

impl Dialer {
    /// Reads the files that the options name. `limit` is how long it may take until a stream is open.
    ///
    /// # Errors
    /// [`StreamError::Credentials`] if one of them cannot be used.
    pub fn new(tls: &TlsOptions, limit: Duration) -> Result<Self, StreamError> {
        Ok(Self { tls: Tls::new(tls)?, limit })
    }

    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Whether anybody listens at the URL, without using it: a connection is made and given up.
    ///
    /// # Errors
    /// [`StreamError`] if nobody does, or it is no URL.
    pub async fn reach(&self, url: &str) -> Result<(), StreamError> {
        let target = Target::parse(url)?;
        match tokio::time::timeout(self.limit, target.connect()).await {
            Ok(connected) => connected.map(drop),
            Err(_elapsed) => Err(self.too_slow(target.authority)),
        }
    }

    /// The server has not answered within the limit.
    pub(super) fn too_slow(&self, address: String) -> StreamError {
        let problem = format!("no answer within {} s", self.limit.as_secs_f32());
        StreamError::Unreachable { address, problem }
    }

    /// A connection upgraded to SPDY/3.1, and which of the versions the server chose.
    pub(super) async fn spdy(&self, url: &str, versions: &[&str]) -> Result<(Io, String), StreamError> {
        let refused = |problem: String| StreamError::Refused { transport: Transport::Spdy, problem };
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        for version in versions {
            headers.append(STREAM_VERSION, header(version)?);
        }
        let answer = self.upgrade(url, Transport::Spdy, Method::POST, headers).await?;
        let chosen = chosen(&answer, &STREAM_VERSION, versions).map_err(refused)?;
        Ok((upgraded(answer).await?, chosen))
    }

    /// The same for a WebSocket.
    pub(super) async fn websocket(&self, url: &str, versions: &[&str]) -> Result<(Io, String), StreamError> {
        let refused = |problem: String| StreamError::Refused { transport: Transport::WebSocket, problem };
        let key = websocket::key();
        let mut headers = HeaderMap::new();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(WS_VERSION, HeaderValue::from_static("13"));
        headers.insert(WS_KEY, header(&key)?);
        headers.insert(WS_PROTOCOL, header(&versions.join(", "))?);
        let answer = self.upgrade(url, Transport::WebSocket, Method::GET, headers).await?;
        let accepted = answer.headers().get(WS_ACCEPT).map(HeaderValue::as_bytes);
        if accepted != Some(websocket::accept(&key).as_bytes()) {
            return Err(refused("its answer is no WebSocket's".to_owned()));
        }
        let chosen = chosen(&answer, &WS_PROTOCOL, versions).map_err(refused)?;
        Ok((upgraded(answer).await?, chosen))
    }

    /// Sends somebody's request for an upgrade, whatever that is to, and gives the server's answer as it is.
    ///
    /// # Errors
    /// [`StreamError`] if nobody answers.
    pub async fn forward(
        &self,
        url: &str,
        method: Method,
        headers: HeaderMap,
    ) -> Result<Response<Incoming>, StreamError> {
        let asked = self.ask(url, Transport::Spdy, method, headers);
        match tokio::time::timeout(self.limit, asked).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(self.too_slow(address(url))),
        }
    }

    async fn ask(
        &self,
        url: &str,
        transport: Transport,
        method: Method,
        headers: HeaderMap,
    ) -> Result<Response<Incoming>, StreamError> {
        let target = Target::parse(url)?;
        let stream = target.connect().await?;
        // Keys that are typed are not to wait for more of them.
        stream.set_nodelay(true).map_err(StreamError::broken)?;

        let mut request = Request::new(Empty::<Bytes>::new());
        *request.method_mut() = method;
        *request.uri_mut() = target.path;
        *request.headers_mut() = headers;
        request.headers_mut().insert(HOST, header(&target.authority)?);
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        let sent = if target.tls {
            let stream = self.tls.connect(stream).await;
            let unreachable = |problem| StreamError::Unreachable { address: target.authority, problem };
            send(stream.map_err(unreachable)?, request).await
        } else {
            send(stream, request).await
        };
        // A server that does not understand may just hang up.
        sent.map_err(|error| StreamError::Refused { transport, problem: crate::error::chain(&error) })
    }

    /// Sends the request; answers the server's agreement.
    async fn upgrade(
        &self,
        url: &str,
        transport: Transport,
        method: Method,
        headers: HeaderMap,
    ) -> Result<Response<Incoming>, StreamError> {
        let answer = self.ask(url, transport, method, headers).await?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(answer);
        }
        let status = answer.status();
        let words = Limited::new(answer.into_body(), MAX_WORDS).collect().await;
        let words = words.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let words = String::from_utf8_lossy(&words);
        let words = words.trim();
        let problem = if words.is_empty() { status.to_string() } else { format!("{status}: {words}") };
        Err(StreamError::Refused { transport, problem })
    }
}

/// What a URL says.
struct Target {
    tls: bool,
    /// Host and port, as written.
    authority: String,
    host: String,
    port: u16,
    /// All that follows: a secret for as long as nobody has used it.
    path: Uri,
}

impl Target {
    fn parse(url: &str) -> Result<Self, StreamError> {
        let wrong = |problem| {
            let url = url.split_once("//").map_or_else(String::new, |(scheme, rest)| {
                format!("{scheme}//{}", rest.split('/').next().unwrap_or_default())
            });
            StreamError::Url { url, problem }
        };
        let uri: Uri = url.parse().map_err(|_invalid| wrong("it is no URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("it is neither http nor https")),
        };
        let (Some(authority), Some(host)) = (uri.authority(), uri.host()) else {
            return Err(wrong("it has no host"));
        };
        Ok(Self {
            tls,
            authority: authority.as_str().to_owned(),
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            path: uri.path_and_query().cloned().map_or_else(|| Uri::from_static("/"), Uri::from),
        })
    }

    async fn connect(&self) -> Result<TcpStream, StreamError> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await;
        stream.map_err(|error| StreamError::Unreachable {
            address: self.authority.clone(),
            problem: error.to_string(),
        })
    }
}

async fn send(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    request: Request<Empty<Bytes>>,
) -> Result<Response<Incoming>, hyper::Error> {
    let mut http = hyper::client::conn::http1::Builder::new();
    // hyper holds heads and what follows them in one buffer of at least 8 KiB.
    let (mut sender, connection) = http.max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await
}

async fn upgraded(answer: Response<Incoming>) -> Result<Io, StreamError> {
    let upgraded = hyper::upgrade::on(answer).await;
    upgraded.map(TokioIo::new).map_err(|error| StreamError::Broken(error.to_string()))
}

fn header(text: &str) -> Result<HeaderValue, StreamError> {
    HeaderValue::from_str(text).map_err(|error| StreamError::Protocol(error.to_string()))
}

/// Which of the versions that were offered the server chose.
fn chosen(answer: &Response<Incoming>, name: &HeaderName, offered: &[&str]) -> Result<String, String> {
    let chosen = answer.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if offered.contains(&chosen) {
        return Ok(chosen.to_owned());
    }
    Err(format!("it chose {chosen:?} where {} was offered", offered.join(", ")))
}
