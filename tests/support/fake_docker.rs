//! A Docker daemon that has containers and images in memory, behind a unix socket: what is asked of it changes them
//! as dockerd would.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::UnixListener;

/// A container of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct FakeContainer {
    pub(crate) id: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) running: bool,
    pub(crate) pid: i32,
    /// It survives whatever is done.
    pub(crate) stubborn: bool,
}

impl FakeContainer {
    /// A running one of a pod; `kind` is `podsandbox` or `container`.
    pub(crate) fn of_pod(id: &str, kind: &str, pod: &str) -> Self {
        let (namespace, name) = pod.split_once('/').unwrap();
        let labels = [
            ("io.kubernetes.docker.type", kind),
            ("io.kubernetes.pod.namespace", namespace),
            ("io.kubernetes.pod.name", name),
        ];
        Self {
            id: id.to_owned(),
            labels: labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
            running: true,
            ..Self::default()
        }
    }
}

/// What it has.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) containers: Vec<FakeContainer>,
    /// Archives by names; one that ends with `cut` in its name breaks off in the middle.
    pub(crate) images: BTreeMap<String, Vec<u8>>,
    /// As in `POST /containers/a/stop?t=30`.
    pub(crate) asked: Vec<String>,
}

/// It answers as long as this lives.
pub(crate) struct FakeDocker {
    pub(crate) state: Arc<Mutex<State>>,
    socket: PathBuf,
    runtime: Option<tokio::runtime::Runtime>,
}

impl FakeDocker {
    /// Behind a socket that is made.
    pub(crate) fn start(socket: &Path) -> Self {
        Self::with(socket, Arc::default())
    }

    /// The same with what another one had.
    pub(crate) fn with(socket: &Path, state: Arc<Mutex<State>>) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = {
            let _entered = runtime.enter();
            UnixListener::bind(socket).unwrap()
        };
        runtime.spawn(serve(listener, Arc::clone(&state)));
        Self { state, socket: socket.to_owned(), runtime: Some(runtime) }
    }

    /// What it was asked since the last time.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().asked)
    }
}

impl Drop for FakeDocker {
    fn drop(&mut self) {
        std::fs::remove_file(&self.socket).ok();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(listener: UnixListener, state: Arc<Mutex<State>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let state = Arc::clone(&state);
        let service = service_fn(move |request: Request<Incoming>| {
            let state = Arc::clone(&state);
            async move { Ok::<_, Infallible>(answer(&mut state.lock().unwrap(), &request)) }
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
        );
    }
}

type Answer = Response<BoxBody<Bytes, std::io::Error>>;

fn answer(state: &mut State, request: &Request<Incoming>) -> Answer {
    state.asked.push(format!("{} {}", request.method(), request.uri()));
    let path: Vec<&str> = request.uri().path().split('/').skip(1).collect();
    let query = request.uri().query().unwrap_or_default();
    let known = |id: &str| state.containers.iter().position(|container| container.id == id);
    match (request.method(), path.as_slice()) {
        (&Method::GET, ["containers", "json"]) if query == "all=1" => {
            let all: Vec<_> = state.containers.iter().map(listed).collect();
            told(200, &json!(all))
        }
        (_, ["containers", id, ..]) if known(id).is_none() => {
            told(404, &json!({ "message": format!("No such container: {id}") }))
        }
        (&Method::GET, ["containers", id, "json"]) => {
            let container = &state.containers[known(id).unwrap()];
            let pid = if container.running { container.pid } else { 0 };
            told(200, &json!({ "Id": id, "State": { "Running": container.running, "Pid": pid } }))
        }
        (&Method::POST, ["containers", id, "stop"]) => {
            let number = known(id).unwrap();
            let container = &mut state.containers[number];
            if container.stubborn {
                return told(500, &json!({ "message": format!("cannot stop container: {id}") }));
            }
            let was = std::mem::replace(&mut container.running, false);
            told(if was { 204 } else { 304 }, &json!(null))
        }
        (&Method::DELETE, ["containers", id]) if query == "force=1&v=1" => {
            let number = known(id).unwrap();
            if state.containers[number].stubborn {
                return told(500, &json!({ "message": format!("cannot remove container: {id}") }));
            }
            state.containers.remove(number);
            told(204, &json!(null))
        }
        (&Method::GET, ["images", "get"]) => {
            let name = query.strip_prefix("names=").unwrap_or_default();
            let name = name.replace("%3A", ":").replace("%2F", "/");
            match state.images.get(&name) {
                Some(archive) => streamed(archive, name.ends_with("cut")),
                None => told(404, &json!({ "message": format!("No such image: {name}") })),
            }
        }
        _ => told(404, &json!({ "message": "page not found" })),
    }
}

fn listed(container: &FakeContainer) -> serde_json::Value {
    let state = if container.running { "running" } else { "exited" };
    json!({ "Id": container.id, "Labels": container.labels, "State": state })
}

fn told(code: u16, body: &serde_json::Value) -> Answer {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed();
    Response::builder().status(code).body(body).unwrap()
}

/// In pieces, and slowly enough to be told of.
fn streamed(archive: &[u8], cut: bool) -> Answer {
    let piece = (archive.len() / 3).max(1);
    let mut frames: Vec<_> =
        archive.chunks(piece).map(|piece| Ok(Frame::data(Bytes::copy_from_slice(piece)))).collect();
    if cut {
        frames.truncate(1);
        frames.push(Err(std::io::Error::other("no space left on device")));
    }
    let frames = futures_util::StreamExt::then(futures_util::stream::iter(frames), |frame| async {
        tokio::time::sleep(Duration::from_millis(250)).await;
        frame
    });
    Response::builder().status(200).body(StreamBody::new(frames).boxed()).unwrap()
}
