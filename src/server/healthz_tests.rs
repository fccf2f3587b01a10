//! The health endpoint over a real socket.

use std::time::Instant;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::api::view::PodView;

struct View(Vec<HealthCheck>);

impl AgentView for View {
    fn pods(&self) -> Vec<PodView> {
        Vec::new()
    }
    fn health(&self) -> Vec<HealthCheck> {
        self.0.clone()
    }
    fn input_problems(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

fn check(name: &str, ok: bool, fatal: bool, message: &str) -> HealthCheck {
    HealthCheck { name: name.into(), ok, fatal, message: message.into() }
}

fn checks(syncloop: bool) -> Vec<HealthCheck> {
    vec![
        check("ping", true, true, ""),
        check("log", true, true, ""),
        check("syncloop", syncloop, true, "no pass for 3m2s"),
        check("runtime", false, false, "connection refused\nis containerd running?"),
        check("source:file", true, false, "2 pods"),
    ]
}

struct Server {
    addr: std::net::SocketAddr,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(checks: Vec<HealthCheck>) -> Self {
        let listener = TcpListener::bind("127.86.0.2:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, Arc::new(View(checks)), stop.clone()));
        Self { addr, stop, task }
    }

    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        // The server may close before it has read all of an oversized request.
        drop(stream.write_all(request.as_bytes()).await);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        String::from_utf8(answer).unwrap()
    }

    /// Status code and body.
    async fn get(&self, path: &str) -> (u16, String) {
        let answer = self.raw(&format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

#[tokio::test]
async fn only_fatal_checks_fail_it() {
    let server = Server::start(checks(true)).await;
    assert_eq!(server.get("/healthz").await, (200, "ok".into()));
    assert_eq!(server.get("/healthz/").await, (200, "ok".into()));
    let verbose = "[+]ping ok\n[+]log ok\n[+]syncloop ok\n\
        [!]runtime failed: connection refused; is containerd running? (informative)\n\
        [+]source:file ok: 2 pods\nhealthz check passed\n";
    assert_eq!(server.get("/healthz?verbose").await, (200, verbose.into()));

    let server = Server::start(checks(false)).await;
    let failed = "[+]ping ok\n[+]log ok\n[-]syncloop failed: no pass for 3m2s\n\
        [!]runtime failed: connection refused; is containerd running? (informative)\n\
        [+]source:file ok: 2 pods\nhealthz check failed\n";
    assert_eq!(server.get("/healthz").await, (500, failed.into()));
}

#[tokio::test]
async fn checks_are_asked_for_and_excluded_by_name() {
    let server = Server::start(checks(false)).await;
    assert_eq!(server.get("/healthz/ping").await, (200, "ok".into()));
    assert_eq!(server.get("/healthz/log").await, (200, "ok".into()));
    assert_eq!(server.get("/healthz/source%3Afile").await, (200, "ok".into()));
    assert_eq!(
        server.get("/healthz/syncloop").await,
        (500, "internal server error: no pass for 3m2s\n".into())
    );
    assert_eq!(server.get("/healthz/runtime").await.0, 500);
    for unknown in ["/healthz/nothing", "/", "/healthzz", "/livez", "/x/healthz", "/healthz/ping/x"] {
        assert_eq!(server.get(unknown).await.0, 404, "{unknown}");
    }
    assert_eq!(server.get("/healthz?exclude=syncloop").await, (200, "ok".into()));
    let (code, body) = server.get("/healthz?verbose&exclude=%22syncloop%22&exclude=what").await;
    assert_eq!(code, 200);
    assert!(body.contains("[+]syncloop excluded: ok\n"), "{body}");
    assert!(
        body.contains("warn: some health checks cannot be excluded: no matches for \"what\"\n"),
        "{body}"
    );
    assert_eq!(server.get("/healthz?exclude=%zz%f").await.0, 500);
}

#[tokio::test]
async fn bad_requests_are_refused() {
    let server = Server::start(checks(true)).await;
    let post = server.raw("POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n").await;
    assert!(post.starts_with("HTTP/1.1 405"), "{post}");
    assert!(post.to_lowercase().contains("allow: get, head"), "{post}");
    let long = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    let long = server.raw(&long).await;
    assert!(long.is_empty() || long.starts_with("HTTP/1.1 431"), "{long}");
    let many = format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(500));
    let many = server.raw(&many).await;
    assert!(many.is_empty() || many.starts_with("HTTP/1.1 431"), "{many}");
    assert!(server.raw("\0\0\0\0\r\n\r\n").await.starts_with("HTTP/1.1 400"));
    let head = server.raw("HEAD /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
    assert_eq!(server.get("/healthz").await.0, 200);
}

#[tokio::test]
async fn clients_that_hold_connections_lock_nobody_out() {
    let server = Server::start(checks(true)).await;
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(server.addr).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHo").await.unwrap();
        held.push(stream);
    }
    let before = Instant::now();
    assert_eq!(server.get("/healthz").await, (200, "ok".into()));
    // Before any of them is given up.
    assert!(before.elapsed() < LIMITS.header);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_sends_nothing_is_dropped() {
    let server = Server::start(checks(true)).await;
    let mut stream = TcpStream::connect(server.addr).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    let mut answer = String::new();
    let before = tokio::time::Instant::now();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(before.elapsed() <= LIMITS.header + Duration::from_secs(1), "{:?}", before.elapsed());
}

#[tokio::test]
async fn it_stops_with_a_connection_open() {
    let server = Server::start(checks(true)).await;
    let mut idle = TcpStream::connect(server.addr).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut some = [0; 12];
    idle.read_exact(&mut some).await.unwrap();
    server.stop.cancel();
    tokio::time::timeout(Duration::from_secs(60), server.task).await.unwrap().unwrap();
    assert!(TcpStream::connect(server.addr).await.is_err());
}
