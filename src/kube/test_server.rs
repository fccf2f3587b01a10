//! An API server of the tests: HTTPS, who asks, objects by their paths, merge patches, and refusals by order.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const AUTHORITY: &str = include_str!("../../tests/data/tls-authority.crt");
const CERTIFICATE: &str = include_str!("../../tests/data/tls-streams.crt");
const KEY: &str = include_str!("../../tests/data/tls-streams.key");

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) body: Value,
    /// `certificate`, a token's header, or nothing.
    pub(crate) who: String,
}

/// A status code, a message, and a wait that is asked for.
type Refusal = (u16, String, Option<String>);

/// What is done before an answer.
type Hook = Box<dyn Fn(&Asked, &mut BTreeMap<String, Value>) + Send>;

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    requests: Vec<Asked>,
    /// Status codes and messages for the next requests of a method and a path.
    refusals: BTreeMap<(String, String), VecDeque<Refusal>>,
    hook: Option<Hook>,
}

/// The server, as long as this lives.
pub(crate) struct TestServer {
    folder: tempfile::TempDir,
    port: u16,
    state: Arc<Mutex<State>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("ca.crt", AUTHORITY), ("me.crt", CERTIFICATE), ("me.key", KEY)] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let task = tokio::spawn(serve(listener, Arc::clone(&state)));
        Self { folder, port, state, task }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A kubeconfig with these keys of the user, or with a certificate if there are none.
    pub(crate) fn kubeconfig(&self, user: &str) -> PathBuf {
        let user =
            if user.is_empty() { "client-certificate: me.crt\n    client-key: me.key\n" } else { user };
        let text = format!(
            "current-context: a\ncontexts: [{{name: a, context: {{cluster: k, user: u}}}}]\nclusters:\n- name: k\n  \
             cluster:\n    server: https://127.0.0.1:{}\n    certificate-authority: ca.crt\n    \
             tls-server-name: streams.test\nusers:\n- name: u\n  user:\n    {user}",
            self.port
        );
        let path = self.folder.path().join("config");
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn put(&self, path: &str, object: Value) {
        self.state.lock().unwrap().objects.insert(path.to_owned(), object);
    }

    pub(crate) fn object(&self, path: &str) -> Value {
        self.state.lock().unwrap().objects.get(path).cloned().unwrap_or_default()
    }

    /// The next request of this method to this path is refused.
    pub(crate) fn refuse(&self, method: &str, path: &str, code: u16, message: &str) {
        self.refuse_with(method, path, (code, message.to_owned(), None));
    }

    /// The same, with the seconds after which it is to be asked again.
    pub(crate) fn refuse_for(&self, method: &str, path: &str, code: u16, seconds: &str) {
        self.refuse_with(method, path, (code, "busy".to_owned(), Some(seconds.to_owned())));
    }

    fn refuse_with(&self, method: &str, path: &str, refusal: Refusal) {
        let key = (method.to_owned(), path.to_owned());
        self.state.lock().unwrap().refusals.entry(key).or_default().push_back(refusal);
    }

    /// What happens to the objects before every answer.
    pub(crate) fn on_request(&self, hook: impl Fn(&Asked, &mut BTreeMap<String, Value>) + Send + 'static) {
        self.state.lock().unwrap().hook = Some(Box::new(hook));
    }

    pub(crate) fn requests(&self) -> Vec<Asked> {
        self.state.lock().unwrap().requests.clone()
    }

    pub(crate) fn count(&self, method: &str) -> usize {
        self.requests().iter().filter(|asked| asked.method == method).count()
    }
}

async fn serve(listener: TcpListener, state: Arc<Mutex<State>>) {
    let acceptor = acceptor();
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            // A client may not like it.
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let certified = stream.get_ref().1.peer_certificates().is_some();
            let service = service_fn(move |request: Request<Incoming>| {
                let state = Arc::clone(&state);
                async move { Ok::<_, Infallible>(answer(&state, request, certified).await) }
            });
            let serving = hyper::server::conn::http1::Builder::new();
            serving.serve_connection(TokioIo::new(stream), service).await.ok();
        });
    }
}

fn acceptor() -> TlsAcceptor {
    let pem = |text: &str| CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(pem(AUTHORITY)).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = builder.with_client_cert_verifier(verifier.allow_unauthenticated().build().unwrap());
    let key = PrivateKeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    Arc::new(builder.with_single_cert(vec![pem(CERTIFICATE)], key).unwrap()).into()
}

async fn answer(state: &Mutex<State>, request: Request<Incoming>, certified: bool) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let token = head.headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let asked = Asked {
        method: head.method.to_string(),
        path: head.uri.path_and_query().unwrap().to_string(),
        body: serde_json::from_slice(&body).unwrap_or_default(),
        who: token.unwrap_or_else(|| if certified { "certificate".to_owned() } else { String::new() }),
    };
    let path = head.uri.path().to_owned();
    let mut state = state.lock().unwrap();
    let State { objects, requests, refusals, hook } = &mut *state;
    requests.push(asked.clone());
    if let Some(hook) = hook {
        hook(&asked, objects);
    }
    if let Some((code, message, seconds)) =
        refusals.get_mut(&(asked.method.clone(), path.clone())).and_then(VecDeque::pop_front)
    {
        let mut answer = told(code, &json!({ "kind": "Status", "message": message, "code": code }));
        if let Some(seconds) = seconds {
            answer.headers_mut().insert("retry-after", seconds.parse().unwrap());
        }
        return answer;
    }
    if asked.who.is_empty() {
        return told(401, &json!({ "kind": "Status", "message": "Unauthorized", "reason": "Unauthorized" }));
    }
    let missing = json!({ "kind": "Status", "message": format!("{path} not found"), "reason": "NotFound", "code": 404 });
    if head.method == Method::POST {
        // What is made is as it was sent, unless an answer was put there.
        return told(201, objects.get(&format!("POST {path}")).unwrap_or(&asked.body));
    }
    let Some(object) = objects.get_mut(&path) else { return told(404, &missing) };
    if head.method == Method::PATCH {
        assert_eq!(head.headers["content-type"], "application/merge-patch+json");
        merge(object, &asked.body);
    }
    told(200, object)
}

/// RFC 7386.
fn merge(object: &mut Value, change: &Value) {
    let Value::Object(change) = change else {
        *object = change.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    let object = object.as_object_mut().unwrap();
    for (key, value) in change {
        if value.is_null() {
            object.remove(key);
        } else {
            merge(object.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

fn told(code: u16, body: &Value) -> Response<Full<Bytes>> {
    Response::builder().status(code).body(Full::new(body.to_string().into())).unwrap()
}
