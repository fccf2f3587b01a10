//! The HTTP source against a small server on the loopback.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::http::{HttpSource, HttpSourceConfig};
use super::{Clock, SourceSnapshot};
use crate::api::manifest::MAX_MANIFEST_BYTES;

const PATIENCE: Duration = Duration::from_secs(60);

/// What the server says next, and what it was asked last.
#[derive(Default)]
struct Script {
    status: u16,
    body: Vec<u8>,
    location: Option<String>,
    asked: usize,
    header: Option<String>,
}

type Shared = Arc<Mutex<Script>>;

async fn serve(listener: TcpListener, script: Shared) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let script = Arc::clone(&script);
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                let answer = {
                    let mut script = script.lock().unwrap();
                    script.asked += 1;
                    script.header =
                        request.headers().get("x-token").map(|v| v.to_str().unwrap_or_default().to_owned());
                    let mut answer = Response::builder().status(script.status);
                    let mut body = script.body.clone();
                    if let Some(location) = script.location.as_ref().filter(|l| *l != request.uri().path()) {
                        answer = Response::builder().status(302).header("location", location);
                        body = Vec::new();
                    }
                    answer.body(Full::new(Bytes::from(body))).unwrap()
                };
                async move { Ok::<_, Infallible>(answer) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // The client may hang up at any time.
            let _closed = served.await;
        });
    }
}

struct Fixture {
    script: Shared,
    receiver: watch::Receiver<Arc<SourceSnapshot>>,
    address: SocketAddr,
    server: tokio::task::JoinHandle<()>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Fixture {
    async fn start(status: u16, body: &str) -> Self {
        // Nobody else's address: when nobody listens any more, no other test does.
        let listener = TcpListener::bind("127.86.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(Script { status, body: body.into(), ..Script::default() }));
        let server = tokio::spawn(serve(listener, Arc::clone(&script)));
        let clock: Clock = Arc::new(|| jiff::Timestamp::from_second(1_700_000_000).unwrap());
        let config = HttpSourceConfig {
            url: format!("http://{address}/pods?secret=query"),
            headers: vec![("X-Token".to_owned(), "secret-header".to_owned())],
            check_frequency: Duration::from_millis(100),
            node_name: "node".to_owned(),
            clock,
        };
        let (source, receiver) = HttpSource::new(config).unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(source.run(stop.clone()));
        Self { script, receiver, address, server, stop, task }
    }

    fn say(&self, status: u16, body: impl Into<Vec<u8>>) {
        let mut script = self.script.lock().unwrap();
        script.status = status;
        script.body = body.into();
    }

    async fn until(&mut self, what: &str, wanted: impl Fn(&SourceSnapshot) -> bool) -> Arc<SourceSnapshot> {
        let found = tokio::time::timeout(PATIENCE, self.receiver.wait_for(|s| wanted(s)))
            .await
            .map(|s| Arc::clone(&s.unwrap()));
        match found {
            Ok(snapshot) => snapshot,
            Err(_) => panic!("waited in vain for {what}: {:#?}", self.receiver.borrow()),
        }
    }

    async fn problem(&mut self, text: &str) -> Arc<SourceSnapshot> {
        let found = self
            .until(&format!("problem {text:?}"), |s| s.problems.iter().any(|p| p.to_string().contains(text)))
            .await;
        for problem in &found.problems {
            assert!(!problem.to_string().contains("secret"), "{problem}");
        }
        found
    }

    async fn pods(&mut self, wanted: &[&str]) -> Arc<SourceSnapshot> {
        self.until(&format!("pods {wanted:?}"), |s| {
            s.delivered && s.problems.is_empty() && names(s) == wanted
        })
        .await
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("must stop").unwrap();
        self.server.abort();
    }
}

fn names(snapshot: &SourceSnapshot) -> Vec<&str> {
    snapshot.pods.iter().map(|p| p.metadata.name.as_deref().unwrap()).collect()
}

fn pod(name: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}"}},"spec":{{"containers":[{{"name":"c","image":"i"}}]}}}}"#
    )
}

fn list(names: &[&str]) -> String {
    let items: Vec<String> = names.iter().map(|n| pod(n)).collect();
    format!(r#"{{"apiVersion":"v1","kind":"PodList","items":[{}]}}"#, items.join(","))
}

#[tokio::test]
async fn a_pod_a_list_and_an_empty_list() {
    let mut f = Fixture::start(200, &pod("a")).await;
    let one = f.pods(&["a-node"]).await;
    let annotations = one.pods[0].metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["kubernetes.io/config.source"], "http");
    assert_eq!(f.script.lock().unwrap().header.as_deref(), Some("secret-header"));

    f.say(200, list(&["a", "b"]));
    let two = f.pods(&["a-node", "b-node"]).await;
    assert!(Arc::ptr_eq(&one.pods[0], &two.pods[0]), "an unchanged pod is the same one");

    // Unchanged answers say nothing new, however often they come.
    f.receiver.mark_unchanged();
    let asked = f.script.lock().unwrap().asked;
    // Whoever asks a second time has done with the first answer.
    tokio::time::timeout(PATIENCE, async {
        while f.script.lock().unwrap().asked < asked + 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("asked again and again");
    assert!(!f.receiver.has_changed().unwrap());

    f.say(200, list(&[]));
    f.pods(&[]).await;
    f.end().await;
}

#[tokio::test]
async fn nothing_that_goes_wrong_ends_a_pod() {
    let mut f = Fixture::start(503, "").await;
    let first = f.problem("server answered 503").await;
    assert!(!first.delivered, "an error page is no delivery");
    f.say(200, list(&["a"]));
    f.pods(&["a-node"]).await;

    let shown = format!("http://{}/pods?...", f.address);
    for (status, body, want) in [
        (500, b"oops".to_vec(), "server answered 500"),
        (200, b"".to_vec(), "server answered with nothing"),
        (200, b"<html>".to_vec(), "expected a v1 Pod, found a string"),
        (200, list(&["b", "B"]).into_bytes(), "items[1].metadata.name: Invalid value"),
        (
            200,
            list(&["b"]).replace("image", "imag").into_bytes(),
            "items[0].spec.containers[0].imag: unknown field",
        ),
        (200, vec![b' '; MAX_MANIFEST_BYTES + 1], "answer is larger than 10485760 bytes"),
    ] {
        f.say(status, body);
        let kept = f.problem(want).await;
        assert!(kept.delivered);
        assert_eq!(names(&kept), ["a-node"], "{want}");
        assert!(kept.problems.iter().all(|p| p.origin == shown), "{:?}", kept.problems);
        assert!(kept.problems[0].message.ends_with("; its pods stay as they were last given"));
    }
    f.say(200, list(&["a"]));
    f.pods(&["a-node"]).await;

    f.server.abort();
    let kept = f.problem("refused").await;
    assert_eq!(names(&kept), ["a-node"]);
    f.end().await;
}

#[tokio::test]
async fn redirects_on_the_same_host_are_followed() {
    let mut f = Fixture::start(200, &pod("a")).await;
    f.pods(&["a-node"]).await;
    f.script.lock().unwrap().location = Some("/elsewhere".to_owned());
    f.say(200, pod("b"));
    f.pods(&["b-node"]).await;
    f.script.lock().unwrap().location = Some("http://other.invalid/x?secret".to_owned());
    let kept =
        f.problem("redirect to another host or scheme, http://other.invalid/x?..., is not followed").await;
    assert_eq!(names(&kept), ["b-node"]);
    f.end().await;
}

#[tokio::test]
async fn two_pods_of_one_name_in_a_list() {
    let mut f = Fixture::start(200, &list(&["a", "a"])).await;
    let got = f.problem("items[1]: pod default/a-node is already given by").await;
    assert_eq!(names(&got), ["a-node"]);
    f.end().await;
}
