//! What an operator and the service manager see of the running agent.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking and says why"
)]

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Node, SOON, STAY, container, pod, pod_of, wait_for};

fn run(node: &Node, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = node.run_cli(arguments);
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn pods_in_every_form() {
    let node = Node::start("forms");
    let (code, out, err) = run(&node, &["pods"]);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "", "no pods\n"));
    node.put(&pod_of("web", &[container("one", STAY), container("two", STAY)]));
    let mut other = pod("db", STAY);
    other["metadata"]["namespace"] = "storage".into();
    node.put(&other);
    let view = node.wait_ready("web");
    node.wait_ready("db");

    let (code, out, err) = run(&node, &["pods"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let rows: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE"]);
    assert_eq!(rows[1][..5], ["default", "web-forms", "2/2", "Running", "0"]);
    assert_eq!(rows[2][..5], ["storage", "db-forms", "1/1", "Running", "0"]);

    let (_, wide, _) = run(&node, &["pods", "-o", "wide"]);
    let row = wide.lines().find(|line| line.contains("web-forms")).unwrap();
    for word in [view.uid(), view.0["status"]["podIP"].as_str().unwrap(), "file", "running"] {
        assert!(row.split_whitespace().any(|w| w == word), "no {word} in {row}");
    }
    let (_, yaml, _) = run(&node, &["pods", "-o", "yaml"]);
    assert!(yaml.contains("kind: List") && yaml.contains("name: web-forms"), "{yaml}");
    let (_, json, _) = run(&node, &["pods", "-o", "json", "-n", "storage"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["kind"], json["items"].as_array().unwrap().len()), (&"List".into(), 1));

    let (code, text, _) = run(&node, &["explain", "web"]);
    assert_eq!(code, Some(0));
    for words in
        ["default/web-forms", "(source file)", "Running, 2/2 ready", "running since", "Last error: none"]
    {
        assert!(text.contains(words), "no {words:?} in {text}");
    }
    let (code, out, err) = run(&node, &["explain", "nobody"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("nobody"), "{err}");
}

#[test]
fn without_an_agent_the_commands_say_so() {
    let node = Node::builder("nobody").prepare();
    for arguments in [&["pods"][..], &["explain", "x"]] {
        let (code, out, err) = run(&node, arguments);
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert!(err.contains(node.socket().to_str().unwrap()), "{err}");
    }
}

#[test]
fn the_socket_is_for_root_alone() {
    let node = Node::start("mode");
    let socket = std::fs::metadata(node.socket()).unwrap();
    assert_eq!((socket.permissions().mode() & 0o7777, socket.uid()), (0o600, 0));
    let root = std::fs::metadata(node.root_dir()).unwrap();
    assert_eq!(root.uid(), 0);
}

#[test]
fn healthz_tells_every_check() {
    let node = Node::start("healthz");
    assert_eq!(node.healthz("/healthz").unwrap(), (200, "ok".to_owned()));
    node.wait_health("[+]runtime ok");
    node.wait_health("[+]network ok");
    node.wait_health("[+]source:file ok");
    let (code, text) = node.health();
    assert_eq!(code, 200);
    for check in ["ping", "log", "syncloop", "runtime", "network", "pleg", "source:file"] {
        assert!(text.contains(&format!("[+]{check} ok")), "{text}");
    }
    assert!(text.trim_end().ends_with("healthz check passed"), "{text}");
    assert_eq!(node.healthz("/healthz/runtime").unwrap().0, 200);
    assert_eq!(node.healthz("/healthz/nonsense").unwrap().0, 404);
    assert_eq!(node.healthz("/elsewhere").unwrap().0, 404);
}

/// A service manager of the test's own.
#[test]
fn the_service_manager_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut node = Node::builder("notify")
        .env("NOTIFY_SOCKET", path.to_str().unwrap())
        .env("WATCHDOG_USEC", "900000")
        .prepare();
    // It is ready without its runtime, too.
    node.containerd.kill9();
    node.start_agent();
    let mut heard = Vec::new();
    let mut hear = |wanted: &str, count: usize, within: Duration| {
        let start = Instant::now();
        while heard.iter().filter(|line| *line == wanted).count() < count {
            let mut buffer = [0; 4096];
            if let Ok(length) = manager.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
                heard.extend(text.lines().map(str::to_owned));
            }
            assert!(
                start.elapsed() < within,
                "{count} times {wanted} not heard within {within:?}: {heard:?}"
            );
        }
        heard.iter().filter(|line| *line == wanted).count()
    };
    hear("READY=1", 1, SOON);
    let pings = hear("WATCHDOG=1", 3, SOON);
    // They go on while the runtime is down or hangs: a restart of the agent would help nobody.
    node.containerd.resume();
    node.wait_health("[+]runtime");
    node.containerd.freeze();
    hear("WATCHDOG=1", pings + 6, Duration::from_secs(10));
    node.containerd.thaw();
    assert_eq!(node.sigterm(), Some(0));
    assert!(hear("STOPPING=1", 1, SOON) == 1);
    assert_eq!(hear("READY=1", 1, SOON), 1);
}

#[test]
fn an_agent_that_stands_still_fails_its_health() {
    let node = Node::start("still");
    node.signal(nix::sys::signal::Signal::SIGSTOP);
    let answer = wait_for(SOON, "no answer", || node.healthz("/healthz").err());
    node.signal(nix::sys::signal::Signal::SIGCONT);
    assert!(
        matches!(answer.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
        "{answer}"
    );
    // And is well again when it goes on.
    wait_for(SOON, "well again", || node.healthz("/healthz").ok().filter(|(code, _)| *code == 200));
    node.put(&pod("after", STAY));
    node.wait_ready("after");
}
