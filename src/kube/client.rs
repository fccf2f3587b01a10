//! The API server over HTTP: one request, one answer.

use std::{fmt::Write as _, path::Path, sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
pub use hyper::Method;
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT},
};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::pki_types::ServerName;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    kubeconfig::{Kubeconfig, KubeconfigError, Token, read_bounded},
    tls,
};

/// For one request, its answer included.
const TIMEOUT: Duration = Duration::from_secs(30);
/// For a connection alone: an address that swallows packets must not cost the whole time.
const CONNECT: Duration = Duration::from_secs(10);
/// Bytes of an answer: a list of all pods of a node has a few.
const MAX_ANSWER: usize = 64 << 20;
/// Bytes of a refusal.
const MAX_REFUSAL: usize = 64 << 10;
const AGENT: &str = concat!("nodectl/", env!("CARGO_PKG_VERSION"));
const JSON: &str = "application/json";

/// Why an API server did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KubeError {
    /// The credentials cannot be used.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// No answer: no connection, none that is trusted, or it broke off.
    #[error("{what}: API server {server} cannot be asked: {cause}")]
    Unreachable {
        /// What was asked, as `GET /api/v1/nodes/a`.
        what: String,
        /// The server's URL.
        server: String,
        /// Why.
        cause: String,
    },
    /// It answered that it does not.
    #[error("{what}: API server {server} refuses: {message} ({code})")]
    Refused {
        /// What was asked.
        what: String,
        /// The server's URL.
        server: String,
        /// HTTP's status code.
        code: u16,
        /// The API's word for it, as `NotFound`; empty if it gave none.
        reason: String,
        /// Its sentence.
        message: String,
        /// When it wants to be asked again.
        retry_after: Option<Duration>,
    },
    /// It answered something that is not what was asked for.
    #[error("{what}: API server {server} gave an answer that cannot be read: {cause}")]
    Answer {
        /// What was asked.
        what: String,
        /// The server's URL.
        server: String,
        /// What is wrong with it.
        cause: String,
    },
}

impl KubeError {
    /// The status code of a refusal.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// Whether there is no such object.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether the same may be answered otherwise a little later: the server starts, is too busy, or its etcd has
    /// no leader.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { code, .. } => matches!(code, 429 | 500..=599),
            _ => false,
        }
    }
}

/// How an object is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patch {
    /// JSON merge patch: null removes.
    Merge,
    /// Kubernetes' own: lists are merged by their keys.
    Strategic,
}

impl Patch {
    fn content_type(self) -> &'static str {
        match self {
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
        }
    }
}

/// A client of one API server. Copies share its connections.
#[derive(Clone)]
pub struct ApiClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    kubeconfig: Arc<Kubeconfig>,
}

impl std::fmt::Debug for ApiClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiClient").field("kubeconfig", &self.kubeconfig).finish_non_exhaustive()
    }
}

impl ApiClient {
    /// A client that connects with its first request. Must be called on the async runtime.
    ///
    /// # Errors
    /// When a certificate or key of the kubeconfig cannot be used.
    pub fn new(kubeconfig: Kubeconfig) -> Result<Self, KubeconfigError> {
        let wrong = |problem: String| KubeconfigError { path: kubeconfig.path.clone(), problem };
        let config = tls::client_config(&kubeconfig).map_err(wrong)?;
        let builder = HttpsConnectorBuilder::new().with_tls_config(config).https_or_http();
        let builder = match &kubeconfig.server_name {
            Some(name) => {
                let name = ServerName::try_from(name.clone())
                    .map_err(|_error| wrong(format!("tls-server-name {name:?} is no name")))?;
                builder.with_server_name_resolver(FixedServerNameResolver::new(name))
            }
            None => builder,
        };
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT));
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_max_idle_per_host(2).pool_idle_timeout(Duration::from_secs(30));
        let client = client.build(builder.enable_http1().wrap_connector(connector));
        Ok(Self { client, kubeconfig: Arc::new(kubeconfig) })
    }

    /// The same from a kubeconfig file. Blocks shortly on the file system.
    ///
    /// # Errors
    /// As [`Kubeconfig::read`] and [`Self::new`].
    pub fn open(path: &Path) -> Result<Self, KubeconfigError> {
        Self::new(Kubeconfig::read(path)?)
    }

    /// The server's URL.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.kubeconfig.server
    }

    /// Reads an object or a list.
    ///
    /// # Errors
    /// As [`KubeError`] has them.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, KubeError> {
        self.json(Method::GET, path, None).await
    }

    /// Makes an object.
    ///
    /// # Errors
    /// As [`KubeError`] has them.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> Result<T, KubeError> {
        self.json(Method::POST, path, Some((JSON, body))).await
    }

    /// Changes an object.
    ///
    /// # Errors
    /// As [`KubeError`] has them.
    pub async fn patch<T: DeserializeOwned>(
        &self,
        path: &str,
        kind: Patch,
        body: &Value,
    ) -> Result<T, KubeError> {
        self.json(Method::PATCH, path, Some((kind.content_type(), body))).await
    }

    async fn json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<T, KubeError> {
        let what = what(&method, path);
        let whole = async {
            let answer = self.send(method, path, body).await?;
            let bytes = self.collect(&what, answer.into_body(), MAX_ANSWER).await?;
            serde_json::from_slice(&bytes).map_err(|error| self.unreadable(&what, error.to_string()))
        };
        match tokio::time::timeout(TIMEOUT, whole).await {
            Ok(result) => result,
            Err(_elapsed) => {
                Err(self.unreachable(&what, format!("no whole answer within {} s", TIMEOUT.as_secs())))
            }
        }
    }

    /// Sends a request to a path (with its query) and gives the answer, its body not read yet, if it is a success.
    /// The caller bounds the time.
    ///
    /// # Errors
    /// As [`KubeError`] has them.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Response<Incoming>, KubeError> {
        let what = what(&method, path);
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.kubeconfig.server))
            .header(ACCEPT, JSON)
            .header(USER_AGENT, AGENT);
        if let Some(token) = self.authorization().await? {
            request = request.header(AUTHORIZATION, token);
        }
        if let Some((kind, _)) = body {
            request = request.header(CONTENT_TYPE, kind);
        }
        let bytes = body.map_or_else(Bytes::new, |(_, body)| body.to_string().into());
        let request =
            request.body(Full::new(bytes)).map_err(|error| self.unreachable(&what, error.to_string()))?;
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|error| self.unreachable(&what, crate::error::chain(&error)))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let (head, body) = answer.into_parts();
        // Without its words a refusal is one all the same.
        let body = self.collect(&what, body, MAX_REFUSAL).await.unwrap_or_default();
        Err(refusal(what, &self.kubeconfig.server, head.status, &head.headers, &body))
    }

    async fn authorization(&self) -> Result<Option<HeaderValue>, KubeError> {
        let wrong = |problem| KubeconfigError { path: self.kubeconfig.path.clone(), problem };
        let token = match &self.kubeconfig.credentials.token {
            None => return Ok(None),
            Some(Token::Text(text)) => text.clone(),
            Some(Token::File(path)) => {
                let told = |problem: String| wrong(format!("tokenFile {} {problem}", path.display()));
                let file = path.clone();
                let read = tokio::task::spawn_blocking(move || read_bounded(&file)).await;
                let bytes = read.map_err(|error| told(error.to_string()))?.map_err(told)?;
                String::from_utf8(bytes).map_err(|_error| told("is no text".to_owned()))?
            }
        };
        let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim()))
            .map_err(|_error| wrong("its token has characters that cannot be sent".to_owned()))?;
        // Keeps it out of debug output.
        value.set_sensitive(true);
        Ok(Some(value))
    }

    async fn collect(&self, what: &str, body: Incoming, limit: usize) -> Result<Bytes, KubeError> {
        match Limited::new(body, limit).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(self.unreadable(what, format!("it has more than {limit} bytes")))
            }
            Err(error) => Err(self.unreachable(what, format!("the answer broke off: {error}"))),
        }
    }

    fn unreachable(&self, what: &str, cause: String) -> KubeError {
        KubeError::Unreachable { what: what.to_owned(), server: self.kubeconfig.server.clone(), cause }
    }

    fn unreadable(&self, what: &str, cause: String) -> KubeError {
        KubeError::Answer { what: what.to_owned(), server: self.kubeconfig.server.clone(), cause }
    }
}

fn what(method: &Method, path: &str) -> String {
    format!("{method} {}", path.split('?').next().unwrap_or_default())
}

/// A name as a piece of a path, or a value of a query.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _infallible = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// The API's `Status`, as far as it matters here.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    message: String,
    reason: String,
    details: Option<Details>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Details {
    retry_after_seconds: u32,
}

fn refusal(what: String, server: &str, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> KubeError {
    let told: Status = serde_json::from_slice(body).unwrap_or_default();
    let header = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let seconds = told.details.map(|details| u64::from(details.retry_after_seconds)).filter(|&s| s > 0);
    // What stands before an API server, such as a load balancer, says nothing that could be read.
    let message = if told.message.is_empty() {
        status.canonical_reason().unwrap_or("no reason given").to_lowercase()
    } else {
        told.message
    };
    KubeError::Refused {
        what,
        server: server.to_owned(),
        code: status.as_u16(),
        reason: told.reason,
        message,
        retry_after: seconds.or(header).map(Duration::from_secs),
    }
}
