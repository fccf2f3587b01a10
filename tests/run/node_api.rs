//! The node's API of an agent that stands alone: what is open to everybody, the node's log files, and requests that
//! nobody would write.

use std::{
    io::{Read, Write as _},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use rustls::ClientConfig;

use crate::support::{
    Node, SOON, STAY, free_port, pod,
    tls::{client, connect},
    wait_until,
};

/// Whoever can connect may do all: nothing is between a request and what it is for.
const OPEN: &str = "authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}\n\
                    authorization: {mode: AlwaysAllow}\n";

/// Waits until the agent has a certificate to show: it is made while the rest begins.
fn wait_served(node: &Node, tls: &Arc<ClientConfig>) {
    wait_until(SOON, "the API has a certificate", || {
        let mut stream = connect(&format!("127.0.0.1:{}", node.api_port()), tls).unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").is_ok()
            && stream.read(&mut [0]).is_ok()
    });
}

/// Status code, head and body of a path, over TLS or without.
fn get(port: u16, tls: Option<&Arc<ClientConfig>>, path: &str) -> (u16, String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let mut answer = Vec::new();
    let address = format!("127.0.0.1:{port}");
    if let Some(tls) = tls {
        let mut stream = connect(&address, tls).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.read_to_end(&mut answer).unwrap();
    } else {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream.read_to_end(&mut answer).unwrap();
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    let code = head.split_whitespace().nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    (code, head.to_owned(), body.to_owned())
}

#[test]
fn the_read_only_port_shows_and_does_nothing() {
    let port = free_port();
    let node = Node::builder("na-public").config(OPEN).argument(&format!("--read-only-port={port}")).start();
    let mut web = pod("web", STAY);
    web["spec"]["containers"][0]["readinessProbe"] =
        serde_json::json!({ "exec": { "command": ["true"] }, "periodSeconds": 1 });
    node.put(&web);
    node.wait_ready("web");
    assert_eq!(get(port, None, "/healthz").0, 200);
    let (code, _, pods) = get(port, None, "/pods");
    assert!(code == 200 && pods.contains("web-na-public"), "{pods}");
    assert!(get(port, None, "/metrics").2.contains("kubelet_running_pods 1\n"));
    let probes = || get(port, None, "/metrics/probes").2;
    let series = "prober_probe_total{container=\"main\",namespace=\"default\",pod=\"web-na-public\",pod_uid=";
    wait_until(SOON, "the probe is counted", || {
        probes().lines().any(|line| {
            line.starts_with(series) && line.contains("probe_type=\"Readiness\",result=\"successful\"}")
        })
    });
    assert!(probes().contains("prober_probe_duration_seconds_bucket{"), "{}", probes());
    for path in [
        "/exec/default/web-na-public/main?command=id&output=1",
        "/run/default/web-na-public/main?cmd=id",
        "/containerLogs/default/web-na-public/main",
        "/configz",
        "/runningpods/",
        "/logs/",
    ] {
        assert_eq!(get(port, None, path).0, 404, "{path}");
    }
    // What is told of a pod goes with it.
    node.take_away("web");
    node.wait_no_pods();
    assert!(!probes().contains("web-na-public"), "{}", probes());
}

/// A file in the machine's own log folder, as that is what is served.
struct LogFile(std::path::PathBuf);

impl Drop for LogFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

#[test]
fn the_nodes_log_files_are_served_where_that_is_not_turned_off() {
    let mut node = Node::builder("na-logs").config(OPEN).start();
    let tls = client(None, &["http/1.1"]);
    wait_served(&node, &tls);
    let name = format!("nodectl-test-{}.log", std::process::id());
    let file = LogFile(std::path::Path::new("/var/log").join(&name));
    std::fs::write(&file.0, "first\nlast\n").unwrap();
    let (code, head, page) = get(node.api_port(), Some(&tls), "/logs/");
    assert!(code == 200 && head.contains("text/html"), "{head}");
    assert!(page.contains(&format!("<a href=\"./{name}\">{name}</a>")), "{page}");
    let (code, head, text) = get(node.api_port(), Some(&tls), &format!("/logs/{name}"));
    assert_eq!((code, text.as_str()), (200, "first\nlast\n"));
    assert!(head.to_ascii_lowercase().contains("content-length: 11"), "{head}");
    assert_eq!(get(node.api_port(), Some(&tls), "/logs/no-such-file").0, 404);
    for out in ["/logs/../../etc/passwd", "/logs/%2e%2e/%2e%2e/etc/passwd", "/logs//etc/passwd"] {
        let (code, _, text) = get(node.api_port(), Some(&tls), out);
        assert!(code == 404 && !text.contains("root:"), "{out}: {code} {text}");
    }
    node.add_config("enableSystemLogHandler: false\n");
    node.restart();
    wait_served(&node, &tls);
    assert_eq!(get(node.api_port(), Some(&tls), "/logs/").0, 405);
}

#[test]
fn the_agent_is_looked_into_while_it_runs_where_that_is_not_turned_off() {
    let mut node = Node::builder("na-debug").config(OPEN).start();
    let tls = client(None, &["http/1.1"]);
    wait_served(&node, &tls);
    let put = |node: &Node, body: &str| {
        let request = format!(
            "PUT /debug/flags/v HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = connect(&format!("127.0.0.1:{}", node.api_port()), &tls).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(!node.agent_log().contains(" DEBUG "), "{}", node.agent_log());
    let answer = put(&node, "4");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("verbosity to 4\n"), "{answer}");
    node.put(&pod("web", STAY));
    node.wait_ready("web");
    wait_until(SOON, "the log tells more", || node.agent_log().contains("DEBUG"));
    for wrong in ["", "-1", "debug", &"1".repeat(100)] {
        assert!(put(&node, wrong).starts_with("HTTP/1.1 400"), "{wrong:?}: {}", put(&node, wrong));
    }
    let (code, _, threads) = get(node.api_port(), Some(&tls), "/debug/threads?seconds=1");
    assert!(code == 200 && threads.contains("agent"), "{threads}");
    assert_eq!(get(node.api_port(), Some(&tls), "/debug/threads?seconds=61").0, 400);
    let (code, _, words) = get(node.api_port(), Some(&tls), "/debug/pprof/profile");
    assert!(code == 404 && words.contains("/debug/threads"), "{words}");
    node.add_config("enableProfilingHandler: false\nenableDebugFlagsHandler: false\n");
    node.restart();
    wait_served(&node, &tls);
    assert_eq!(get(node.api_port(), Some(&tls), "/debug/threads").0, 405);
    assert!(put(&node, "4").starts_with("HTTP/1.1 405"));
}

/// Requests as they should be, with the pod's name for POD.
const SEEDS: &[&str] = &[
    "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /healthz/syncloop?verbose HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /pods HTTP/1.1\r\nHost: x\r\n\r\nGET /runningpods/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "HEAD /configz HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n",
    "GET /metrics HTTP/1.0\r\n\r\n",
    "GET /metrics/probes HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /stats/summary?only_cpu_and_memory=true HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /logs/ HTTP/1.1\r\nHost: x\r\nRange: bytes=0-5\r\n\r\n",
    "GET /containerLogs/default/POD/main?tailLines=3&timestamps=true&sinceSeconds=9&limitBytes=100 HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST /run/default/POD/main?cmd=echo+a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
    "POST /run/default/POD/main?cmd=true HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "POST /exec/default/POD/main?command=cat&input=1&output=1&error=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n\x00\x03\x00\x01",
    "GET /exec/default/POD/main?command=echo&command=a&output=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n",
    "POST /attach/default/POD/main?output=1 HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n",
    "POST /portForward/default/POD HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: portforward.k8s.io\r\n\r\n",
    "GET /portForward/default/POD?port=80,81 HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    "POST /checkpoint/default/POD/main?timeout=1 HTTP/1.1\r\nHost: x\r\n\r\n",
    "PUT /debug/flags/v HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n3",
    "GET /debug/threads?seconds=0 HTTP/1.1\r\nHost: x\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
];

/// What means something in a request.
const WORDS: &[&str] = &[
    "\r\n",
    "\r\n\r\n",
    "\n",
    "\r",
    "\0",
    "%",
    "%00",
    "%2f",
    "%2e%2e",
    "%ff",
    "..",
    "/",
    "//",
    "?",
    "&",
    "=",
    "+",
    ";",
    "HTTP/1.1",
    "HTTP/9.9",
    "GET ",
    "POST ",
    "CONNECT ",
    "TRACE ",
    "http://other/pods",
    "*",
    "Host: ",
    "Host: a\r\nHost: b\r\n",
    "Content-Length: 18446744073709551616\r\n",
    "Content-Length: -1\r\n",
    "Content-Length: 5\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: gzip, chunked\r\n",
    "ffffffffffffffff\r\n",
    "Expect: 100-continue\r\n",
    "Connection: close\r\n",
    "Connection: Upgrade\r\n",
    "Upgrade: websocket\r\n",
    "Upgrade: h2c\r\n",
    "Upgrade: SPDY/3.1\r\n",
    "Sec-WebSocket-Key: \r\n",
    "Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.%\r\n",
    "Authorization: Bearer a\r\n",
    "Authorization: \r\n",
    "follow=true",
    "tailLines=-9",
    "tailLines=99999999999999999999",
    "sinceTime=x",
    "limitBytes=0",
    "command=",
    "tty=1",
    "input=1",
    "error=1",
    "port=0",
    "timeout=-1",
    "\u{e9}",
    "\u{202e}",
    "previous=true",
    "stream=Stderr",
    "cmd=",
    "/metrics/../exec",
    "default",
    "main",
    ": ",
    ",",
    "\t",
    "\u{7f}",
];

fn mutate(bytes: &mut Vec<u8>, random: &mut StdRng) {
    let at = random.random_range(0..=bytes.len());
    let until = random.random_range(at..=bytes.len().min(at + 30));
    match random.random_range(0..6) {
        0 => drop(bytes.drain(at..until)),
        1 => {
            let word = WORDS.choose(random).unwrap();
            bytes.splice(at..until.min(at + 4), word.bytes());
        }
        2 => {
            let part = bytes[at..until].to_vec();
            let times = *[1, 2, 400].choose(random).unwrap();
            bytes.splice(at..at, part.repeat(times));
        }
        3 => {
            let other = SEEDS.choose(random).unwrap().as_bytes();
            let from = random.random_range(0..other.len());
            bytes.splice(at..until, other[from..].iter().copied());
        }
        4 if at < bytes.len() => bytes[at] = random.random(),
        _ => {
            let noise: Vec<u8> = (0..random.random_range(0..40)).map(|_| random.random()).collect();
            bytes.splice(at..at, noise);
        }
    }
}

fn input(round: u64, seed: u64, pod: &str) -> (Vec<u8>, bool) {
    let mut random = StdRng::seed_from_u64(seed.wrapping_mul(1 << 32).wrapping_add(round));
    let seeds: Vec<Vec<u8>> = SEEDS.iter().map(|text| text.replace("POD", pod).into_bytes()).collect();
    let mut bytes = match usize::try_from(round).ok().and_then(|at| seeds.get(at)) {
        Some(whole) => return (whole.clone(), whole.starts_with(b"PRI")),
        None => seeds.choose(&mut random).unwrap().clone(),
    };
    (0..random.random_range(1..5)).for_each(|_| mutate(&mut bytes, &mut random));
    bytes.truncate(1 << 17);
    (bytes, random.random_range(0..8) == 0)
}

/// `NODECTL_FUZZ_RUNS=100000 NODECTL_FUZZ_SEED=7 cargo test --test run -- no_request` tries others; a failure names the
/// round.
#[test]
fn no_request_makes_the_agent_fall_or_keep_anything() {
    let number = |name: &str, otherwise: u64| {
        std::env::var(name).map_or(otherwise, |text| text.parse().expect("a number"))
    };
    let (runs, seed) = (number("NODECTL_FUZZ_RUNS", 1200), number("NODECTL_FUZZ_SEED", 1));
    let node = Node::builder("na-fuzz").config(OPEN).start();
    node.put(&pod("web", STAY));
    node.wait_ready("web");
    let (pod, address) = (node.static_name("web"), format!("127.0.0.1:{}", node.api_port()));
    let (http1, http2) = (client(None, &["http/1.1"]), client(None, &["h2"]));
    let costs = || {
        let count =
            |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", node.agent_pid())).unwrap().count();
        (count("task"), count("fd"))
    };
    wait_served(&node, &http1);
    let before = costs();
    std::thread::scope(|scope| {
        for part in 0..4 {
            let (pod, address, http1, http2) = (&pod, &address, &http1, &http2);
            scope.spawn(move || {
                for round in (part..runs).step_by(4) {
                    let (bytes, is_http2) = input(round, seed, pod);
                    let mut stream = connect(address, if is_http2 { http2 } else { http1 }).unwrap();
                    // The server may close before it has read all.
                    let told = stream.write_all(&bytes).and_then(|()| stream.flush());
                    if told.is_ok() {
                        stream.conn.send_close_notify();
                        stream.flush().ok();
                    }
                    let mut answer = Vec::new();
                    let read = Read::by_ref(&mut stream).take(1 << 20).read_to_end(&mut answer);
                    let late = read.err().is_some_and(|error| {
                        matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
                    });
                    assert!(!late, "seed {seed}, round {round}: no end: {}", bytes.escape_ascii());
                    let well = is_http2 || answer.is_empty() || answer.starts_with(b"HTTP/1.");
                    assert!(well, "seed {seed}, round {round}: {}", answer.escape_ascii());
                }
            });
        }
    });
    assert_eq!(get(node.api_port(), Some(&http1), "/healthz").0, 200);
    wait_until(SOON, "nothing is left of the requests", || {
        let after = costs();
        after.0 <= before.0 + 8 && after.1 <= before.1 + 10
    });
    let log = node.agent_log();
    assert!(!log.contains("panicked"), "{log}");
}
