//! One GET as kubelet's probes and hooks make it (pkg/probe/http): no certificate is verified, no connection
//! is kept, no proxy is asked; redirects are followed on the same host only. Written on hyper's bare
//! connection: a client with its pool would keep more in memory than a probe needs.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header::{ACCEPT, CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, LOCATION, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};
use tokio_rustls::TlsConnector;
use tokio_util::io::InspectReader;

use super::lookup::connect;

/// So much of an answer's body is read.
const MAX_BODY: usize = 10 << 10;
/// The most of an answer's head.
const MAX_HEAD: usize = 64 << 10;
/// The most redirects that are followed; that of Go's client.
const MAX_REDIRECTS: usize = 10;
/// No request takes longer, whoever makes it.
const FOREVER: Duration = Duration::from_secs(365 * 86_400);

/// What to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Get {
    /// Over TLS.
    pub(crate) https: bool,
    /// A name or an address.
    pub(crate) host: String,
    /// The port.
    pub(crate) port: u16,
    /// Path and query as the specification has them.
    pub(crate) path: String,
    /// Headers of the specification.
    pub(crate) headers: Vec<(String, String)>,
    /// What the agent calls itself.
    pub(crate) agent: &'static str,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status code: that of a redirect where it is not followed.
    pub(crate) status: u16,
    /// The begin of the body.
    pub(crate) body: String,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GetError {
    /// No connection, no answer, none in time, none that can be read.
    Failed(String),
    /// Asked over TLS, the server answers with HTTP that is not.
    NoTls(String),
    /// An answer whose body broke off, which kubelet takes for no result at all.
    Body(String),
    /// The request cannot be made as it is specified.
    Request(String),
}

impl std::fmt::Display for GetError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Failed(why) | Self::NoTls(why) | Self::Body(why) | Self::Request(why)) = self;
        f.write_str(why)
    }
}

/// Asks, within the time, redirects and body included.
pub(crate) async fn get(request: &Get, within: Option<Duration>) -> Result<Answer, GetError> {
    let within = within.unwrap_or(FOREVER);
    let deadline = Instant::now() + within;
    let late = || format!("no answer within {} s", within.as_secs());
    let response = timeout_at(deadline, follow(request)).await;
    let response = response.map_err(|_elapsed| GetError::Failed(late()))??;
    let status = response.status().as_u16();
    let body = timeout_at(deadline, read(response.into_body())).await;
    Ok(Answer { status, body: body.map_err(|_elapsed| GetError::Body(late()))?? })
}

async fn read(mut body: Incoming) -> Result<String, GetError> {
    let mut read = Vec::new();
    while read.len() < MAX_BODY {
        match body.frame().await {
            None => break,
            Some(Err(error)) => return Err(GetError::Body(format!("the answer broke off: {error}"))),
            Some(Ok(frame)) => read.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
        }
    }
    read.truncate(MAX_BODY);
    Ok(String::from_utf8_lossy(&read).into_owned())
}

async fn follow(request: &Get) -> Result<Response<Incoming>, GetError> {
    let headers = headers(request)?;
    let mut target = Target {
        https: request.https,
        host: request.host.clone(),
        port: request.port,
        path: path(&request.path),
    };
    let own_host = headers.get(HOST).cloned();
    let mut host = own_host.clone();
    for _ in 0..MAX_REDIRECTS {
        let mut headers = headers.clone();
        if let Some(host) = &host {
            headers.insert(HOST, host.clone());
        } else {
            headers.insert(HOST, target.authority()?);
        }
        let response = target.ask(headers).await?;
        let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok()).map(str::to_owned);
        let redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
        let Some(location) = location.filter(|location| redirect && !location.is_empty()) else {
            return Ok(response);
        };
        let Some(next) = target.redirected(&location) else {
            return Err(GetError::Failed(format!("redirect to an unusable location {location:?}")));
        };
        if next.host != request.host {
            return Ok(response);
        }
        // A host of the specification's own goes along while the redirect names none.
        host = if location.contains("://") || location.starts_with("//") { None } else { own_host.clone() };
        target = next;
    }
    Err(GetError::Failed(format!("stopped after {MAX_REDIRECTS} redirects")))
}

fn headers(request: &Get) -> Result<HeaderMap, GetError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let bad = |what: &str| GetError::Request(format!("header {name:?} {what}"));
        let key: HeaderName = name.parse().map_err(|_invalid| bad("has no valid name"))?;
        let value =
            HeaderValue::from_str(value).map_err(|_invalid| bad("has a value that cannot be sent"))?;
        // An empty host is none.
        if key == HOST && value.is_empty() {
            continue;
        }
        headers.append(key, value);
    }
    if !headers.contains_key(USER_AGENT) {
        headers.insert(USER_AGENT, HeaderValue::from_static(request.agent));
    }
    match headers.get(ACCEPT) {
        None => drop(headers.insert(ACCEPT, HeaderValue::from_static("*/*"))),
        // The way to send none.
        Some(value) if value.is_empty() => drop(headers.remove(ACCEPT)),
        Some(_) => {}
    }
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(headers)
}

/// Path and query as they can be sent: what may not stand there is escaped, a fragment is cut off.
fn path(given: &str) -> String {
    let given = given.split('#').next().unwrap_or_default();
    let bytes = given.as_bytes();
    let mut out = String::with_capacity(given.len() + 1);
    if !given.starts_with('/') {
        out.push('/');
    }
    for (at, byte) in bytes.iter().enumerate() {
        let escape = bytes.get(at + 1..at + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
        match byte {
            b'%' if escape => out.push('%'),
            b'!' | b'$' | b'&'..=b';' | b'=' | b'?'..=b'Z' | b'[' | b']' | b'_' | b'a'..=b'z' | b'~' => {
                out.push(char::from(*byte));
            }
            _ => {
                let hex = |nibble: u8| char::from(b"0123456789ABCDEF"[usize::from(nibble & 15)]);
                out.extend(['%', hex(byte >> 4), hex(*byte)]);
            }
        }
    }
    out
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    https: bool,
    host: String,
    port: u16,
    path: String,
}

impl Target {
    fn authority(&self) -> Result<HeaderValue, GetError> {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let text = format!("{host}:{}", self.port);
        HeaderValue::try_from(text)
            .map_err(|_invalid| GetError::Request(format!("host {:?} is not valid", self.host)))
    }

    /// Where a redirect leads.
    fn redirected(&self, location: &str) -> Option<Self> {
        let (https, rest) = if let Some(rest) = location.strip_prefix("http://") {
            (false, rest)
        } else if let Some(rest) = location.strip_prefix("https://") {
            (true, rest)
        } else if let Some(rest) = location.strip_prefix("//") {
            (self.https, rest)
        } else {
            if location.split(['/', '?']).next().is_some_and(|first| first.contains(':')) {
                return None;
            }
            let whole = if location.starts_with('/') {
                location.to_owned()
            } else {
                let base = self.path.split('?').next().unwrap_or("/");
                match location.strip_prefix('?') {
                    Some(query) => format!("{base}?{query}"),
                    None => format!("{}/{location}", base.rsplit_once('/').map_or("", |(folder, _)| folder)),
                }
            };
            return Some(Self { path: path(&whole), ..self.clone() });
        };
        let (authority, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        let standard = if https { 443 } else { 80 };
        let (host, port) = if let Some(v6) = authority.strip_prefix('[') {
            let (host, port) = v6.split_once(']')?;
            (host, port.strip_prefix(':'))
        } else {
            authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)))
        };
        let port = match port {
            None | Some("") => standard,
            Some(port) => port.parse().ok()?,
        };
        (!host.is_empty()).then(|| Self { https, host: host.to_owned(), port, path: path(tail) })
    }

    async fn ask(&self, headers: HeaderMap) -> Result<Response<Incoming>, GetError> {
        let failed = |error: &dyn std::fmt::Display| {
            GetError::Failed(format!("cannot reach {} port {}: {error}", self.host, self.port))
        };
        let stream = connect(&self.host, self.port).await.map_err(|error| failed(&error))?;
        if !self.https {
            return self.send(stream, headers).await;
        }
        let name = ServerName::try_from(self.host.clone()).map_err(|error| failed(&error))?;
        let config = tls().map_err(|error| failed(&error))?;
        let begin = Arc::new(OnceLock::new());
        let heard = Arc::clone(&begin);
        let stream = InspectReader::new(stream, move |read: &[u8]| {
            heard.get_or_init(|| read.starts_with(b"HTTP/"));
        });
        match TlsConnector::from(config).connect(name, stream).await {
            Ok(stream) => self.send(stream, headers).await,
            Err(_) if begin.get() == Some(&true) => Err(GetError::NoTls(format!(
                "cannot reach {} port {}: it answers a TLS client with plain HTTP",
                self.host, self.port
            ))),
            Err(error) => Err(failed(&error)),
        }
    }

    async fn send<S>(&self, stream: S, headers: HeaderMap) -> Result<Response<Incoming>, GetError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let broken = |error: hyper::Error| {
            GetError::Failed(format!("no answer of {} port {}: {error}", self.host, self.port))
        };
        let mut request = Request::builder()
            .uri(&self.path)
            .body(Empty::<Bytes>::new())
            .map_err(|error| GetError::Request(format!("path {:?}: {error}", self.path)))?;
        *request.headers_mut() = headers;
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // Handed over before the connection is first read: a server may answer without having been asked.
        let answer = sender.send_request(request);
        // It ends with the answer's body, or when whoever reads that goes.
        tokio::spawn(connection);
        answer.await.map_err(broken)
    }
}

/// The settings of all TLS connections, made by the first.
fn tls() -> Result<Arc<ClientConfig>, TlsError> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(Arc::clone(config));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let made = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate))
        .with_no_client_auth();
    Ok(Arc::clone(CONFIG.get_or_init(|| Arc::new(made))))
}

/// Takes any certificate, as kubelet does: a probe asks whether the container answers, and the pod's address is
/// in no certificate. Nor is it checked that the server has the certificate's key: who is not to be known need
/// not prove who it is, and the check would refuse certificates of version 1 and short RSA keys, which it cannot
/// read.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        use SignatureScheme as S;
        vec![
            S::ECDSA_NISTP256_SHA256,
            S::ECDSA_NISTP384_SHA384,
            S::ECDSA_NISTP521_SHA512,
            S::ED25519,
            S::ED448,
            S::RSA_PSS_SHA256,
            S::RSA_PSS_SHA384,
            S::RSA_PSS_SHA512,
            S::RSA_PKCS1_SHA256,
            S::RSA_PKCS1_SHA384,
            S::RSA_PKCS1_SHA512,
            S::ECDSA_SHA1_Legacy,
            S::RSA_PKCS1_SHA1,
        ]
    }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
