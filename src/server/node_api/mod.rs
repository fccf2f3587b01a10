//! The node's API on port 10250: what the API server asks a node for (logs, commands, ports), and what collectors of
//! figures do. Its paths, parameters and errors are kubelet's (`pkg/kubelet/server`).
//!
//! Every request but those of the read-only port is authenticated ([`authn`]) and then authorized ([`authz`]) before
//! its path is looked at any further; whoever cannot be judged is refused.

mod authn;
mod authz;
mod cache;
mod cadvisor;
mod debug;
mod families;
mod figures;
mod listing;
mod logs;
mod resource;
mod review;
mod serve;
mod stats;
mod streams;
mod system_logs;
mod tls;

use std::{convert::Infallible, path::PathBuf, sync::Arc};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS},
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ContainerStatus;
use rustls::server::ResolvesServerCert;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub use self::stats::Stats;
use self::{
    authn::Authenticator,
    authz::Authorizer,
    serve::{Body, Peer, Reply},
};
use super::healthz;
use crate::{
    api::{
        ContainerState, PodObservation, PodUid,
        view::{AgentView, PodView},
    },
    config::NodeApiConfig,
    cri::{Cri, streaming::Dialer},
    error::printable,
    kube::ApiServer,
    policy::node_api::{Route, Target, decode, parameters, route, subresources, verb},
    telemetry::metrics,
};

/// What was last seen in the runtime.
pub trait Observed: Send + Sync {
    /// Of a pod.
    fn get(&self, uid: &PodUid) -> Option<Arc<PodObservation>>;
    /// Of all.
    fn all(&self) -> Vec<Arc<PodObservation>>;
}

/// What the API is made of.
pub struct Parts {
    /// The node's name.
    pub node: String,
    /// The agent's pods and health.
    pub view: Arc<dyn AgentView>,
    /// What runs.
    pub observed: Arc<dyn Observed>,
    /// What it uses.
    pub stats: Arc<dyn Stats>,
    /// The runtime.
    pub cri: Arc<dyn Cri>,
    /// Who is asked for users and rights; without credentials nobody can be.
    pub api: ApiServer,
    /// The certificate that is shown.
    pub certificate: Arc<dyn ResolvesServerCert>,
    /// The configuration in force, without secrets, as JSON.
    pub configuration: serde_json::Value,
    /// Where checkpoints of containers are put.
    pub checkpoints: PathBuf,
    /// The node's logs: `/var/log`.
    pub log_folder: PathBuf,
}

/// The node's API. See the module.
pub struct NodeApi {
    node: String,
    config: NodeApiConfig,
    tls: Arc<rustls::ServerConfig>,
    authenticator: Authenticator,
    authorizer: Authorizer,
    view: Arc<dyn AgentView>,
    observed: Arc<dyn Observed>,
    stats: Arc<dyn Stats>,
    cri: Arc<dyn Cri>,
    dialer: Dialer,
    streams: streams::Streams,
    logs: logs::LogReaders,
    configuration: Bytes,
    checkpoints: PathBuf,
    log_folder: PathBuf,
    system_logs: system_logs::Readers,
}

/// An answer that is an error, with its text.
struct Refusal(StatusCode, String);

impl Refusal {
    fn not_found(text: impl Into<String>) -> Self {
        Self(StatusCode::NOT_FOUND, text.into())
    }

    fn bad(text: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, text.into())
    }

    fn failed(text: impl Into<String>) -> Self {
        Self(StatusCode::INTERNAL_SERVER_ERROR, text.into())
    }

    fn reply(self) -> Reply {
        text(self.0, self.1)
    }
}

impl NodeApi {
    /// The API, not yet served.
    ///
    /// # Errors
    /// In words, when the configuration's TLS settings cannot be used.
    pub fn new(config: NodeApiConfig, parts: Parts) -> Result<Arc<Self>, String> {
        let configuration = serde_json::json!({ "kubeletconfig": parts.configuration });
        Ok(Arc::new(Self {
            tls: Arc::new(tls::server_config(&config, parts.certificate)?),
            authenticator: Authenticator::new(
                config.client_ca.clone(),
                config.token_review,
                config.anonymous,
                parts.api.clone(),
            ),
            authorizer: Authorizer::new(config.authorization, parts.node.clone(), parts.api),
            node: parts.node,
            view: parts.view,
            observed: parts.observed,
            stats: parts.stats,
            cri: parts.cri,
            dialer: streams::dialer().map_err(|error| error.to_string())?,
            streams: streams::Streams::new(config.stream_idle),
            logs: logs::LogReaders::default(),
            configuration: Bytes::from(configuration.to_string()),
            checkpoints: parts.checkpoints,
            log_folder: parts.log_folder,
            system_logs: system_logs::Readers::default(),
            config,
        }))
    }

    /// Serves over HTTPS until `stop`.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let tls = TlsAcceptor::from(Arc::clone(&self.tls));
        serve::serve(listener, Some(tls), stop, move |request, peer| {
            let api = Arc::clone(&self);
            async move { api.answer(request, peer).await }
        })
        .await;
    }

    /// Serves what is for everybody over HTTP until `stop`.
    pub async fn serve_read_only(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        serve::serve(listener, None, stop, move |request, _peer| {
            let api = Arc::clone(&self);
            async move {
                match decode(request.uri().path()).map(|path| route(&path)) {
                    Some(route) if route.is_public() => api.dispatch(route, false, request).await,
                    _ => not_found(),
                }
            }
        })
        .await;
    }

    async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Reply {
        // Who is known by a certificate is judged without waiting for the API server, or from what it has said before.
        let _turn = if peer.is_known() || self.authenticator.is_certified(peer.shown.as_deref()).await {
            None
        } else {
            let Some(turn) = peer.turn() else {
                let mut reply = text(StatusCode::TOO_MANY_REQUESTS, "too many requests on this connection\n");
                reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                return reply;
            };
            Some(turn)
        };
        let user = match self.authenticator.authenticate(peer.shown.as_deref(), request.headers()).await {
            Ok(Some(user)) => user,
            Ok(None) => return text(StatusCode::UNAUTHORIZED, "Unauthorized"),
            Err(problem) => {
                // Whoever can connect could fill the log with it.
                tracing::debug!("a request to the node's API is not authenticated: {}", printable(&problem));
                return text(StatusCode::UNAUTHORIZED, "Unauthorized");
            }
        };
        let Some(path) = decode(request.uri().path()) else {
            return text(StatusCode::BAD_REQUEST, "the path is no text\n");
        };
        let verb = verb(request.method().as_str());
        let wanted = subresources(&path, self.config.fine_grained);
        let mut may = false;
        for subresource in &wanted {
            match self.authorizer.may(&user, verb, subresource).await {
                Ok(true) => {
                    may = true;
                    break;
                }
                Ok(false) => {}
                Err(problem) => {
                    let who = printable(&user.name);
                    tracing::warn!(
                        "cannot find out whether {who} may {verb} nodes/{subresource}: {}",
                        printable(&problem)
                    );
                    let words = format!(
                        "Authorization error (user={}, verb={verb}, resource=nodes, subresource={subresource})",
                        user.name
                    );
                    return text(StatusCode::INTERNAL_SERVER_ERROR, words);
                }
            }
        }
        if !may {
            let words = format!(
                "Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{}])\n",
                user.name,
                wanted.join(" ")
            );
            return text(StatusCode::FORBIDDEN, words);
        }
        if !peer.let_in(&user.name) {
            return text(StatusCode::SERVICE_UNAVAILABLE, "there are too many connections\n");
        }
        let route = route(&path);
        if route.is_debugging() && !self.config.debugging {
            return text(StatusCode::METHOD_NOT_ALLOWED, "Debug endpoints are disabled.\n");
        }
        self.dispatch(route, true, request).await
    }

    async fn dispatch(&self, route: Route, secure: bool, mut request: Request<Incoming>) -> Reply {
        let _asked = metrics::request(
            known_method(request.method().as_str()),
            route.name(),
            secure,
            route.is_stream(),
        );
        let methods = route.methods();
        if route != Route::Unknown && !methods.contains(&request.method().as_str()) {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
            if let Ok(allow) = HeaderValue::from_str(&methods.join(", ")) {
                refused.headers_mut().insert(ALLOW, allow);
            }
            return refused;
        }
        let query = request.uri().query().unwrap_or_default().to_owned();
        let answered = match route {
            Route::Health => {
                let path = request.uri().path();
                return healthz::respond(path, Some(&query), &self.view.health())
                    .map(http_body_util::BodyExt::boxed_unsync);
            }
            Route::Pods => self.pods().await,
            Route::RunningPods => self.running_pods().await,
            Route::Configuration => Ok(json(self.configuration.clone())),
            Route::Logs(target) => self.container_logs(&target, &query).await,
            Route::Exec(target) => self.exec(&target, &query, &mut request).await,
            Route::Attach(target) => self.attach(&target, &query, &mut request).await,
            Route::PortForward(target) => self.port_forward(&target, &query, &mut request).await,
            Route::Run(target) => self.run(&target, &query).await,
            Route::Verbosity => self.set_verbosity(&mut request).await,
            Route::Threads => self.threads(&query).await,
            Route::Profile => self.no_profile(),
            Route::SystemLogs(path) => self.system_logs(&path).await,
            Route::Checkpoint(target) => self.checkpoint(&target, &query).await,
            Route::Metrics => self.figures().await,
            Route::ProbeMetrics => figures::of_probes(),
            Route::Summary => self.summary(&query).await,
            Route::ResourceMetrics => self.resource_metrics().await,
            Route::CadvisorMetrics => self.cadvisor_metrics().await,
            Route::Unknown => return not_found(),
        };
        answered.unwrap_or_else(Refusal::reply)
    }

    /// The pod of a name; the newest, if one is being replaced.
    fn pod(&self, target: &Target) -> Option<PodView> {
        let metadata = |view: &PodView| {
            let metadata = &view.pod.metadata;
            metadata.name.as_deref() == Some(&target.pod)
                && metadata.namespace.as_deref().unwrap_or("default") == target.namespace
        };
        let pods = self.view.pods().into_iter().filter(metadata);
        let of_uid = pods.filter(|view| target.uid.as_deref().is_none_or(|uid| uid == view.uid.as_str()));
        of_uid.max_by_key(|view| view.pod.metadata.creation_timestamp.as_ref().map(|time| time.0))
    }

    /// The pod of a name, which is to be there.
    fn known_pod(&self, target: &Target) -> Result<PodView, Refusal> {
        self.pod(target).ok_or_else(|| Refusal::not_found("pod does not exist"))
    }

    /// The id of a pod's container in the runtime. One that has ended is none, as with kubelet.
    fn container_in(&self, pod: &PodView, name: &str) -> Result<String, Refusal> {
        let observed = self.observed.get(&pod.uid);
        let found = observed.as_ref().and_then(|pod| pod.latest(name));
        let found = found.filter(|container| container.state != ContainerState::Exited);
        let id = found.map(|container| container.id.as_str().to_owned());
        id.ok_or_else(|| Refusal::failed(format!("container not found ({name:?})")))
    }

    /// The same of the pod and container that are asked for.
    fn container(&self, target: &Target) -> Result<String, Refusal> {
        self.container_in(&self.known_pod(target)?, &target.container)
    }

    /// `/run`: the output of a command, both streams of it.
    async fn run(&self, target: &Target, query: &str) -> Result<Reply, Refusal> {
        let container = self.container(target)?;
        // Parts of it are separated by single spaces, as ever.
        let command = parameters(query, "cmd").next().unwrap_or_default();
        let command: Vec<String> = command.split(' ').map(str::to_owned).collect();
        let told = command.join(" ");
        let answer = self.cri.exec_sync(&container, command, None).await;
        let answer = answer.map_err(|error| Refusal::failed(error.to_string()))?;
        let mut output = answer.stdout;
        output.extend_from_slice(&answer.stderr);
        if answer.exit_code != 0 {
            let output = String::from_utf8_lossy(&output);
            let words = format!("command '{told}' exited with {}: {output}", answer.exit_code);
            return Err(Refusal::failed(words));
        }
        Ok(json(output))
    }

    /// `/checkpoint`: a container's state in a file on the node.
    async fn checkpoint(&self, target: &Target, query: &str) -> Result<Reply, Refusal> {
        if !self.config.checkpoint {
            return Ok(not_found());
        }
        let timeout = match parameters(query, "timeout").last() {
            None => None,
            Some(text) => {
                let seconds: i64 = text
                    .parse()
                    .map_err(|_no_number| Refusal::not_found("cannot parse value of timeout parameter"))?;
                u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(std::time::Duration::from_secs)
            }
        };
        let pod = self.known_pod(target)?;
        if !has_container(&pod, &target.container) {
            return Err(Refusal::not_found(format!("container {} does not exist", target.container)));
        }
        let container = self.container_in(&pod, &target.container)?;
        let name = format!(
            "checkpoint-{}_{}-{}-{}.tar",
            target.pod,
            target.namespace,
            target.container,
            Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ")
        );
        let (folder, location) = (self.checkpoints.clone(), self.checkpoints.join(name));
        let failed = |problem: &dyn std::fmt::Display| {
            Refusal::failed(format!(
                "checkpointing of {}/{}/{} failed ({problem})",
                target.namespace, target.pod, target.container
            ))
        };
        let made = tokio::task::spawn_blocking(move || {
            use std::os::unix::fs::DirBuilderExt as _;
            // What is in a container's memory is for root alone.
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
        });
        made.await.map_err(|error| failed(&error))?.map_err(|error| failed(&error))?;
        let location = location.to_string_lossy().into_owned();
        let done = self.cri.checkpoint_container(&container, &location, timeout).await;
        done.map_err(|error| failed(&error))?;
        Ok(json(serde_json::json!({ "items": [location] }).to_string()))
    }
}

/// Methods as they are counted.
fn known_method(method: &str) -> &'static str {
    const KNOWN: [&str; 8] = ["OPTIONS", "GET", "HEAD", "POST", "PUT", "DELETE", "TRACE", "CONNECT"];
    KNOWN.into_iter().find(|known| *known == method).unwrap_or("other")
}

/// Whether the specification has a container of this name.
fn has_container(view: &PodView, name: &str) -> bool {
    let Some(spec) = &view.pod.spec else { return false };
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|container| &container.name);
    let init = spec.init_containers.iter().flatten().map(|container| &container.name);
    spec.containers
        .iter()
        .map(|container| &container.name)
        .chain(init)
        .chain(ephemeral)
        .any(|own| own == name)
}

/// A container's status, if there is one yet.
fn status_of<'v>(view: &'v PodView, name: &str) -> Option<&'v ContainerStatus> {
    let status = &view.status;
    let all =
        [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    all.into_iter().flatten().flatten().find(|status| status.name == name)
}

fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

fn of_type(status: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Reply {
    let mut answer = Response::new(body(bytes));
    *answer.status_mut() = status;
    let headers: &mut HeaderMap = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

fn text(status: StatusCode, words: impl Into<Bytes>) -> Reply {
    of_type(status, "text/plain; charset=utf-8", words)
}

fn json(bytes: impl Into<Bytes>) -> Reply {
    of_type(StatusCode::OK, "application/json", bytes)
}

fn not_found() -> Reply {
    text(StatusCode::NOT_FOUND, "404 page not found\n")
}
