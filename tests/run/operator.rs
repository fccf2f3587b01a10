//! What an operator and the service manager see of the running agent.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Node, NodeBuilder, SOON, STAY, container, pod, pod_of, wait_for};

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
    for check in ["runtime", "network", "pleg", "source:file"] {
        node.wait_health(&format!("[+]{check} ok"));
    }
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

/// What kubeadm writes besides the keys that the harness sets, and flags of its own and of old releases.
#[test]
fn a_kubeadm_nodes_configuration_and_flags_work_as_they_are() {
    let keys = "\
authentication: {anonymous: {enabled: false}, webhook: {cacheTTL: 0s, enabled: true}, x509: {clientCAFile: /etc/kubernetes/pki/ca.crt}}
authorization: {mode: Webhook, webhook: {cacheAuthorizedTTL: 0s, cacheUnauthorizedTTL: 0s}}
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
cpuManagerReconcilePeriod: 0s
crashLoopBackOff: {}
evictionPressureTransitionPeriod: 0s
fileCheckFrequency: 0s
httpCheckFrequency: 0s
imageGCHighThresholdPercent: 81
imageMaximumGCAge: 0s
imageMinimumGCAge: 0s
logging: {flushFrequency: 0, options: {json: {infoBufferSize: \"0\"}, text: {infoBufferSize: \"0\"}}, verbosity: 0}
memorySwap: {}
nodeStatusReportFrequency: 0s
nodeStatusUpdateFrequency: 0s
rotateCertificates: true
runtimeRequestTimeout: 0s
shutdownGracePeriod: 0s
shutdownGracePeriodCriticalPods: 0s
streamingConnectionIdleTimeout: 0s
syncFrequency: 0s
volumeStatsAggPeriod: 0s
";
    let flags =
        ["--network-plugin=cni", "--container-runtime=remote", "--pod-infra-container-image=some/pause:1"];
    let node = flags.into_iter().fold(Node::builder("kubeadm").config(keys), NodeBuilder::argument).start();
    node.put(&pod("fine", STAY));
    node.wait_ready("fine");
    let log = node.agent_log();
    for flag in flags {
        let flag = flag.split('=').next().unwrap();
        assert!(log.lines().any(|line| line.contains("WARN") && line.contains(flag)), "{flag} in {log}");
    }
    // A key that is known and not acted on is named, too.
    let not_yet = |line: &str| line.contains("WARN") && line.contains("imageGCHighThresholdPercent");
    assert!(log.lines().any(not_yet), "{log}");
    // Without a server nobody can say who may use the node's API.
    assert!(log.contains("the node's API is not served on 0.0.0.0:"), "{log}");
}

#[test]
fn the_runtimes_cgroup_driver_counts_over_the_configured_one() {
    let node = Node::builder("driver").containerd2().argument("--cgroup-driver=systemd").start();
    node.put(&pod("placed", STAY));
    let view = node.wait_ready("placed");
    let place = node.process(&view, "main").cgroup("memory");
    let wanted = format!("{}/kubepods/besteffort/pod{}/", node.containerd.cgroup_root(), view.uid());
    assert!(place.to_str().unwrap().contains(&wanted), "{}", place.display());
}

/// A service manager of the test's own.
#[test]
fn the_service_manager_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    // Heard at once: a socket holds ten words, and whoever says more has to wait. Ends with the test process.
    let (sender, words) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = manager.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.lines().any(|line| sender.send(line.to_owned()).is_err()) {
                return;
            }
        }
    });
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
        heard.extend(words.try_iter());
        while heard.iter().filter(|line: &&String| *line == wanted).count() < count {
            heard.extend(words.recv_timeout(Duration::from_millis(200)));
            assert!(
                start.elapsed() < within,
                "{count} times {wanted} not heard within {within:?}: {heard:?}"
            );
        }
        heard.iter().filter(|line| *line == wanted).count()
    };
    hear("READY=1", 1, SOON);
    hear("WATCHDOG=1", 3, SOON);
    // They go on while the runtime is down or hangs: a restart of the agent would help nobody.
    node.containerd.resume();
    node.wait_health("[+]runtime");
    node.containerd.freeze();
    let pings = hear("WATCHDOG=1", 3, SOON);
    hear("WATCHDOG=1", pings + 6, SOON);
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
