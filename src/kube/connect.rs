//! Connections to the API server: kube-rs' client over HTTP/2, with what a node needs of a connection.
//!
//! kube-rs reads kubeconfigs and makes connections too. Both are done here instead, because a node's files are to be
//! read within bounds and with errors that name them, because its certificate changes while it runs, and because a
//! connection whose other end has vanished must be noticed within half a minute: pings are sent on it every ten
//! seconds, and it is given up when one stays without an answer for as long again.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ::kube::client::{Body, Client};
use hyper::{
    Request, Response, StatusCode, Uri,
    body::Incoming,
    header::{AUTHORIZATION, HeaderValue, RETRY_AFTER, USER_AGENT},
};
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::pki_types::ServerName;
use tokio::{sync::watch, time::Instant};
use tower::BoxError;

use super::{
    bounds::{Bounded, WatchPace, is_watch},
    kubeconfig::{Kubeconfig, KubeconfigError, Token, read_bounded},
    tls,
    watches::WatchPool,
};
use crate::{rate::TokenBucket, telemetry::metrics};

/// For a connection alone: an address that swallows packets must not cost the time of the request.
const CONNECT: Duration = Duration::from_secs(10);
/// Between two pings, and for the answer to one.
const PING: Duration = Duration::from_secs(10);
/// For the beginning of an answer.
const ANSWER: Duration = Duration::from_secs(30);
/// How often a request is sent that a busy server wants to be asked again, as with client-go.
const TRIES: u32 = 10;
/// The longest that is waited for it each time.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Bytes that one stream, and all together, may have on their way: a list of pods is not to wait for round trips.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;
const AGENT: &str = concat!("nodectl/", env!("CARGO_PKG_VERSION"));

/// How often a server may be asked; kubelet's `kubeAPIQPS` and `kubeAPIBurst`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rate {
    /// Requests a second; 0 is no bound.
    pub per_second: u32,
    /// Requests at once after a pause.
    pub burst: u32,
}

/// Makes a client that connects with its first request. Must be called on the async runtime. `None` for `rate` is
/// no bound.
///
/// # Errors
/// When a certificate or key of the kubeconfig cannot be used.
pub fn connect(kubeconfig: &Kubeconfig, rate: Option<Rate>) -> Result<Client, KubeconfigError> {
    connect_within(kubeconfig, bucket(rate))
}

/// What several connections may have together.
pub(super) type Bucket = Option<Arc<Mutex<TokenBucket>>>;

fn bucket(rate: Option<Rate>) -> Bucket {
    rate.filter(|rate| rate.per_second > 0)
        .map(|rate| Arc::new(Mutex::new(TokenBucket::new(rate.per_second, rate.burst))))
}

pub(super) fn connect_within(kubeconfig: &Kubeconfig, bucket: Bucket) -> Result<Client, KubeconfigError> {
    let wrong = |problem: String| KubeconfigError { path: kubeconfig.path.clone(), problem };
    let base: Uri = kubeconfig.server.parse().map_err(|_error| wrong("its server is no URL".to_owned()))?;
    let config = tls::client_config(kubeconfig).map_err(wrong)?;
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
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT));
    // Where the server speaks HTTP/1.1 alone, TCP has to notice what pings would.
    connector.set_keepalive(Some(PING));
    connector.set_keepalive_interval(Some(PING / 2));
    connector.set_keepalive_retries(Some(2));
    connector.set_tcp_user_timeout(Some(PING * 2));
    let http = HttpClient::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(Duration::from_secs(90))
        .http2_keep_alive_interval(PING)
        .http2_keep_alive_timeout(PING)
        .http2_keep_alive_while_idle(true)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .build(builder.enable_all_versions().wrap_connector(connector));
    let token = kubeconfig.credentials.token.clone();
    let sender = Arc::new(Sender { http, base, token, bucket, pace: WatchPace::default() });
    let service = tower::service_fn(move |request| {
        let sender = Arc::clone(&sender);
        async move { sender.send(request).await }
    });
    Ok(Client::new(service, "default"))
}

/// A request for the figures of requests.
struct Counted {
    host: String,
    method: &'static str,
    verb: &'static str,
    since: Instant,
}

impl Counted {
    fn of(request: &Request<Body>, is_watch: bool) -> Self {
        const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "DELETE"];
        let method = METHODS.into_iter().find(|own| *own == request.method().as_str()).unwrap_or("other");
        let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let verb = if is_watch { "WATCH" } else { method };
        Self { host, method, verb, since: Instant::now() }
    }

    fn done(self, code: Option<u16>) {
        metrics::server_asked(&self.host, self.method, self.verb, code, self.since.elapsed());
    }
}

struct Sender {
    http: HttpClient<HttpsConnector<HttpConnector>, Body>,
    base: Uri,
    token: Option<Token>,
    bucket: Bucket,
    pace: WatchPace,
}

type Answer = Response<Bounded<Incoming>>;

impl Sender {
    /// Asks, and again after as long as the server says, as client-go does.
    async fn send(&self, mut request: Request<Body>) -> Result<Answer, BoxError> {
        for _ in 1..TRIES {
            let again = copy(&request);
            let answer = self.send_once(request).await?;
            let (Some(again), Some(wait)) = (again, wait_asked_for(&answer)) else { return Ok(answer) };
            drop(answer);
            tokio::time::sleep(wait).await;
            request = again;
        }
        self.send_once(request).await
    }

    async fn send_once(&self, mut request: Request<Body>) -> Result<Answer, BoxError> {
        let is_watch = is_watch(request.uri());
        let pause = self.pace.take(request.uri(), Instant::now());
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        let wait = self
            .bucket
            .as_ref()
            .map(|bucket| bucket.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now()));
        if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
            tokio::time::sleep(wait).await;
        }
        *request.uri_mut() = self.address(request.uri())?;
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(AGENT));
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, authorization(token).await?);
        }
        let counted = Counted::of(&request, is_watch);
        let answered = tokio::time::timeout(ANSWER, self.http.request(request)).await;
        let code = answered.as_ref().ok().and_then(|answer| answer.as_ref().ok());
        counted.done(code.map(|answer| answer.status().as_u16()));
        match answered {
            Ok(answer) => Ok(answer?.map(|body| Bounded::new(body, is_watch))),
            Err(_elapsed) => Err(format!("no answer within {} s", ANSWER.as_secs()).into()),
        }
    }

    /// The request's path behind the server's URL.
    fn address(&self, path: &Uri) -> Result<Uri, BoxError> {
        let behind = path.path_and_query().map_or("/", |path| path.as_str());
        let mut parts = self.base.clone().into_parts();
        let before = self.base.path().trim_end_matches('/');
        parts.path_and_query = Some(format!("{before}{behind}").parse()?);
        Ok(Uri::from_parts(parts)?)
    }
}

/// The same request again; `None` where its body comes only once, and of what has its own pace: a pod that may not be
/// evicted now is waited for by whoever evicts it.
fn copy(request: &Request<Body>) -> Option<Request<Body>> {
    let body = request.body().try_clone().filter(|_| !request.uri().path().ends_with("/eviction"))?;
    let mut copy = Request::new(body);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// How long a server that has too much to do wants not to be asked. One that says longer than is waited for here is
/// answered to whoever asks.
fn wait_asked_for(answer: &Answer) -> Option<Duration> {
    let busy = answer.status() == StatusCode::TOO_MANY_REQUESTS || answer.status().is_server_error();
    let wait = answer.headers().get(RETRY_AFTER).filter(|_| busy)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(wait)).filter(|wait| *wait <= LONGEST_WAIT)
}

async fn authorization(token: &Token) -> Result<HeaderValue, BoxError> {
    let text = match token {
        Token::Text(text) => text.clone(),
        Token::File(path) => {
            let told = |problem: String| format!("tokenFile {} {problem}", path.display());
            let file = path.clone();
            let bytes = tokio::task::spawn_blocking(move || read_bounded(&file)).await?.map_err(told)?;
            String::from_utf8(bytes).map_err(|_error| told("is no text".to_owned()))?
        }
    };
    let mut value = HeaderValue::from_str(&format!("Bearer {}", text.trim()))
        .map_err(|_error| "the token has characters that cannot be sent")?;
    // Keeps it out of debug output.
    value.set_sensitive(true);
    Ok(value)
}

/// Clients of one server, each with a connection of its own, so that none waits behind the others.
#[derive(Clone)]
pub struct Clients {
    /// For the lease and the node's status: never held back.
    pub heartbeat: Client,
    /// For pods and what they name, within the configured rate.
    pub objects: Client,
    /// For events, within a rate of their own.
    pub events: Client,
    /// For watches of single objects, of which there may be many; within the rate of `objects`.
    pub watches: WatchPool,
    /// The server's URL.
    pub server: Arc<str>,
}

impl Clients {
    /// All of them over one client that is there already, without bounds: a simulation's.
    #[must_use]
    pub fn over(client: &Client, server: &str) -> Self {
        let watches = client.clone();
        Self {
            heartbeat: client.clone(),
            objects: client.clone(),
            events: client.clone(),
            watches: WatchPool::by(Box::new(move || Ok(watches.clone()))),
            server: server.into(),
        }
    }
}

/// The rates of [`Clients`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rates {
    /// `kubeAPIQPS` and `kubeAPIBurst`.
    pub objects: Rate,
    /// `eventRecordQPS` and `eventBurst`.
    pub events: Rate,
}

/// The API server as the agent's parts have it: not there before the node has credentials, and with other clients
/// when it gets new ones.
#[derive(Clone)]
pub struct ApiServer {
    rates: Rates,
    clients: watch::Sender<Option<Clients>>,
}

impl ApiServer {
    /// Nobody can be asked yet.
    #[must_use]
    pub fn new(rates: Rates) -> Self {
        Self { rates, clients: watch::Sender::new(None) }
    }

    /// Takes these credentials from now on. Requests under way end as they are; the connections of the former
    /// clients close when the last of them is dropped.
    ///
    /// # Errors
    /// As [`connect`]; the former clients stay.
    pub fn use_credentials(&self, kubeconfig: &Kubeconfig) -> Result<(), KubeconfigError> {
        let objects = bucket(Some(self.rates.objects));
        let clients = Clients {
            heartbeat: connect(kubeconfig, None)?,
            objects: connect_within(kubeconfig, objects.clone())?,
            watches: WatchPool::new(kubeconfig, objects),
            events: connect(kubeconfig, Some(self.rates.events))?,
            server: kubeconfig.server().into(),
        };
        self.use_clients(clients);
        Ok(())
    }

    /// The same with clients that were made otherwise.
    pub fn use_clients(&self, clients: Clients) {
        self.clients.send_replace(Some(clients));
    }

    /// The present clients; `None` before there are credentials.
    #[must_use]
    pub fn current(&self) -> Option<Clients> {
        self.clients.borrow().clone()
    }

    /// The present clients, once there are any.
    pub async fn clients(&self) -> Clients {
        let mut clients = self.clients.subscribe();
        loop {
            if let Some(clients) = clients.borrow_and_update().clone() {
                return clients;
            }
            // The sender is ours and lives as long as this.
            if clients.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Tells when the clients are replaced: what holds a watch open begins it anew with the new ones.
    #[must_use]
    pub fn replaced(&self) -> watch::Receiver<Option<Clients>> {
        self.clients.subscribe()
    }
}

/// An error of a request in words: the server's own where it has answered.
#[must_use]
pub fn told(error: &::kube::Error) -> String {
    match error {
        ::kube::Error::Api(status) => {
            let reason =
                if status.reason.is_empty() { String::new() } else { format!("{}, ", status.reason) };
            format!("the API server refuses: {} ({reason}{})", status.message, status.code)
        }
        // What is in it says all; the word for it is kube-rs' own.
        ::kube::Error::Service(error) => crate::error::chain(error.as_ref()),
        other => crate::error::chain(other),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;
    use serde_json::json;

    use super::*;
    use crate::kube::test_server::TestServer;

    #[tokio::test]
    async fn the_server_is_asked_and_its_refusals_are_told() {
        let server = TestServer::start().await;
        server.put("/api/v1/nodes/a", json!({ "metadata": { "name": "a" } }));
        let api = ApiServer::new(Rates {
            objects: Rate { per_second: 0, burst: 0 },
            events: Rate { per_second: 5, burst: 1 },
        });
        assert!(api.current().is_none());
        let waiting = tokio::spawn({
            let api = api.clone();
            async move { api.clients().await.server.to_string() }
        });
        let kubeconfig = Kubeconfig::read(&server.kubeconfig("")).unwrap();
        api.use_credentials(&kubeconfig).unwrap();
        assert_eq!(waiting.await.unwrap(), kubeconfig.server());
        let clients = api.current().unwrap();
        let nodes: ::kube::Api<Node> = ::kube::Api::all(clients.objects);
        assert_eq!(nodes.get("a").await.unwrap().metadata.name.as_deref(), Some("a"));
        let error = told(&nodes.get("b").await.unwrap_err());
        assert!(error.starts_with("the API server refuses: ") && error.ends_with("404)"), "{error}");
        assert_eq!(server.requests()[0].who, "certificate");
    }

    #[tokio::test]
    async fn a_busy_server_is_asked_again_when_it_says() {
        let server = TestServer::start().await;
        server.put("/api/v1/nodes/a", json!({ "metadata": { "name": "a" } }));
        let kubeconfig = Kubeconfig::read(&server.kubeconfig("")).unwrap();
        let nodes: ::kube::Api<Node> = ::kube::Api::all(connect(&kubeconfig, None).unwrap());
        for code in [429, 503] {
            server.refuse_for("GET", "/api/v1/nodes/a", code, "1");
        }
        let before = Instant::now();
        nodes.get("a").await.unwrap();
        assert!(before.elapsed() >= Duration::from_secs(2));
        assert_eq!(server.requests().len(), 3);
        // What it does not say, or too much, is the answer.
        for (code, wait) in [(429, "3600"), (503, "soon"), (404, "1"), (429, "18446744073709551616")] {
            server.refuse_for("GET", "/api/v1/nodes/a", code, wait);
            let error = told(&nodes.get("a").await.unwrap_err());
            assert!(error.contains(&code.to_string()), "{error}");
        }
        server.refuse("GET", "/api/v1/nodes/a", 429, "too many");
        nodes.get("a").await.unwrap_err();
        assert_eq!(server.requests().len(), 8);
        // It does not go on for ever.
        for _ in 0..=TRIES {
            server.refuse_for("GET", "/api/v1/nodes/a", 429, "0");
        }
        nodes.get("a").await.unwrap_err();
        assert_eq!(server.requests().len(), 18);
    }
}
