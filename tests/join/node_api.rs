//! The node's API: who is let in, and what kubectl does with it through a real API server.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Node as NodeObject, ServiceAccount};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};

use crate::support::{
    ControlPlane, Node, NodeBuilder, ROOMY, SOON, STAY, free_port, pod, pod_with_policy, said::Said, script,
    wait_for, wait_until,
};

/// A node whose API trusts the cluster's authority and has a certificate that the API server trusts.
pub(super) struct Served {
    pub(super) cluster: Arc<ControlPlane>,
    pub(super) node: Node,
    name: &'static str,
    kubectl: PathBuf,
}

/// The machine's own address: the API server reaches the node there, and no packet leaves the machine.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").unwrap();
    socket.local_addr().unwrap().ip()
}

fn authority(cluster: &ControlPlane) -> PathBuf {
    Path::new(cluster.fact("PKI")).join("ca.crt")
}

pub(super) fn served(name: &'static str, more: &str, builder: fn(NodeBuilder) -> NodeBuilder) -> Served {
    let cluster = ControlPlane::shared();
    let object: NodeObject = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
    let nodes = Api::<NodeObject>::all(cluster.client());
    cluster.block_on(nodes.create(&PostParams::default(), &object)).unwrap();
    let (certificate, key) = cluster.signed(
        &format!("{name}-serving"),
        &format!("/O=system:nodes/CN=system:node:{name}"),
        "serverAuth",
        &format!("DNS:{name},IP:127.0.0.1,IP:{}", own_address()),
    );
    let config = format!(
        "{ROOMY}authentication: {{x509: {{clientCAFile: {}}}}}\ntlsCertFile: {}\ntlsPrivateKeyFile: {}\n{more}",
        authority(&cluster).display(),
        certificate.display(),
        key.display(),
    );
    let node = builder(Node::builder(name).config(&config).joined(&cluster)).start();
    let programs = script("kubernetes120.sh", &[], &[]);
    let kubectl = Path::new(String::from_utf8(programs.stdout).unwrap().trim()).join("kubectl");
    let served = Served { cluster, node, name, kubectl };
    // The Node tells where its API is.
    wait_until(SOON, "the node has addresses", || {
        let node = served.cluster.node(name);
        node.and_then(|node| node.status?.addresses).is_some_and(|addresses| !addresses.is_empty())
    });
    served
}

impl Served {
    pub(super) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.arg("--kubeconfig").arg(self.cluster.fact("ADMIN")).args(arguments).stdin(Stdio::null());
        command
    }

    pub(super) fn kubectl(&self, arguments: &[&str]) -> Said {
        Said::of(&self.command(arguments).output().unwrap())
    }

    /// What kubectl prints, which succeeds.
    #[track_caller]
    pub(super) fn prints(&self, arguments: &[&str]) -> String {
        self.kubectl(arguments).ended(0).out
    }

    /// Runs a pod until it is ready.
    pub(super) fn runs(&self, object: &Value) {
        self.cluster.bind(self.name, object);
        self.cluster.wait_ready(object["metadata"]["name"].as_str().unwrap());
    }

    /// Status code and body of a path of the API itself.
    pub(super) fn ask(&self, path: &str, arguments: &[&str]) -> (u16, String) {
        let output = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--max-time",
                "60",
                "--write-out",
                "\n%{http_code}",
                "--cacert",
            ])
            .arg(authority(&self.cluster))
            .args(arguments)
            .arg(format!("https://127.0.0.1:{}{path}", self.node.api_port()))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (body, code) = text.rsplit_once('\n').unwrap_or_default();
        (code.parse().unwrap_or_default(), body.to_owned())
    }

    /// The same as the administrator of the cluster.
    pub(super) fn ask_as_admin(&self, path: &str, arguments: &[&str]) -> (u16, String) {
        let file = |end: &str| {
            Path::new(self.cluster.fact("PKI")).join(format!("admin.{end}")).display().to_string()
        };
        let (certificate, key) = (file("crt"), file("key"));
        self.ask(path, &[&["--cert", certificate.as_str(), "--key", key.as_str()], arguments].concat())
    }
}

/// Writes what goes through kubectl, and reads what comes.
pub(super) struct Typed(Child);

impl Drop for Typed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn kubectl_looks_into_containers(name: &'static str, builder: fn(NodeBuilder) -> NodeBuilder) {
    let served = served(name, "", builder);
    let count = "for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done; echo end; ";
    let mut says = pod(&format!("{name}-said"), &format!("{count}{STAY}"));
    says["spec"]["volumes"] = json!([{ "name": "room", "emptyDir": {} }]);
    served.runs(&says);
    let said = format!("{name}-said");
    let said = said.as_str();

    // Logs.
    // What went to the two streams comes in any order.
    wait_until(SOON, "all is in the log", || served.prints(&["logs", said]).lines().count() == 11);
    let all = served.prints(&["logs", said]);
    assert!(all.contains("out 5\n") && all.contains("err 5\n") && all.contains("end\n"), "{all}");
    assert_eq!(served.prints(&["logs", said, "--tail=2"]).lines().count(), 2);
    assert_eq!(served.prints(&["logs", said, "--limit-bytes=5"]).len(), 5);
    assert_eq!(served.prints(&["logs", said, "--since=1h"]), all);
    let stamped = served.prints(&["logs", said, "--timestamps", "--tail=1"]);
    let (time, text) = stamped.split_once(' ').unwrap();
    assert!(time.parse::<jiff::Timestamp>().is_ok() && all.ends_with(text), "{stamped}");
    // Whole seconds are sent.
    assert!(served.prints(&["logs", said, &format!("--since-time={time}")]).ends_with(text));
    assert_eq!(served.prints(&["logs", said, "--since-time=2099-01-01T00:00:00Z"]), "");
    served.kubectl(&["logs", said, "-c", "nobody"]).ended(1).told("container nobody is not valid for pod");
    served
        .kubectl(&["logs", said, "--previous"])
        .ended(1)
        .told("previous terminated container \"main\" in pod");

    // Commands.
    let exec = |arguments: &[&str]| served.kubectl(&[&["exec", said, "--"], arguments].concat());
    assert_eq!(exec(&["echo", "a b", "$HOME"]).ended(0).out, "a b $HOME\n");
    let told = exec(&["sh", "-c", "echo out; echo err >&2; exit 7"]).ended(7);
    assert_eq!((told.out.as_str(), told.err.contains("err\n")), ("out\n", true), "{}", told.err);
    // containerd 1.6 calls this 126, and 2 tells of it before anything begins.
    let missing = exec(&["/no/such/program"]);
    assert!(
        missing.code.is_some_and(|code| code != 0) && missing.err.contains("/no/such/program"),
        "{}",
        missing.err
    );
    let mut command = served.command(&["exec", "-i", said, "--", "wc", "-c"]);
    let mut child = Typed(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut stdin = child.0.stdin.take().unwrap();
    let block = vec![b'x'; 1 << 20];
    for _ in 0..8 {
        stdin.write_all(&block).unwrap();
    }
    drop(stdin);
    let mut counted = String::new();
    child.0.stdout.take().unwrap().read_to_string(&mut counted).unwrap();
    assert_eq!(counted.trim(), (8 << 20).to_string());
    assert!(child.0.wait().unwrap().success());

    // Files, both ways.
    let folder = tempfile::tempdir().unwrap();
    let (there, back) = (folder.path().join("there"), folder.path().join("back"));
    let content: Vec<u8> = (0..300_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    std::fs::write(&there, &content).unwrap();
    served.prints(&["cp", there.to_str().unwrap(), &format!("{said}:/tmp/file")]);
    served.prints(&["cp", &format!("{said}:/tmp/file"), back.to_str().unwrap()]);
    assert!(std::fs::read(&back).unwrap() == content, "the file came back as another one");

    // The main process.
    let asks = format!("{name}-asks");
    let mut talker = pod(&asks, "while read line; do echo you said $line; done; sleep 1000");
    talker["spec"]["containers"][0]["stdin"] = json!(true);
    served.runs(&talker);
    let mut command = served.command(&["attach", "-i", &asks]);
    let mut child = Typed(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut stdin = child.0.stdin.take().unwrap();
    let mut answers = BufReader::new(child.0.stdout.take().unwrap()).lines();
    stdin.write_all(b"hello\n").unwrap();
    stdin.flush().unwrap();
    let answer = answers.by_ref().map(Result::unwrap).find(|line| line.starts_with("you said"));
    assert_eq!(answer.as_deref(), Some("you said hello"));
    drop(child);

    // Ports.
    let web = format!("{name}-web");
    served.runs(&pod(&web, "mkdir /www && echo through > /www/index.html && exec httpd -f -p 8080 -h /www"));
    let port = free_port();
    let mut command = served.command(&["port-forward", &web, &format!("{port}:8080")]);
    let mut child = Typed(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("Forwarding from"));
    for _ in 0..3 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        assert!(page.ends_with("through\n"), "{page}");
    }
    drop(child);

    // The node itself.
    let proxied = |path: &str| served.prints(&["get", "--raw", &format!("/api/v1/nodes/{name}/proxy{path}")]);
    assert_eq!(proxied("/healthz"), "ok");
    assert_eq!(proxied("/healthz/syncloop"), "ok");
    let pods: Value = serde_json::from_str(&proxied("/pods")).unwrap();
    assert_eq!((&pods["kind"], &pods["apiVersion"]), (&json!("PodList"), &json!("v1")));
    let found = pods["items"].as_array().unwrap().iter().find(|pod| pod["metadata"]["name"] == said).unwrap();
    assert_eq!(found["status"]["phase"], "Running");
    let running: Value = serde_json::from_str(&proxied("/runningpods/")).unwrap();
    let names: Vec<&str> = running["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|pod| pod["metadata"]["name"].as_str())
        .collect();
    assert!(names.contains(&said) && names.contains(&web.as_str()), "{names:?}");
    let config: Value = serde_json::from_str(&proxied("/configz")).unwrap();
    assert_eq!(config["kubeletconfig"]["port"], served.node.api_port());

    // Figures, as Prometheus reads them.
    let figures = proxied("/metrics");
    let line = |begin: &str| figures.lines().find_map(|line| line.strip_prefix(begin)).map(str::trim);
    assert_eq!(line(&format!("kubelet_node_name{{node=\"{name}\"}}")), Some("1"));
    assert_eq!(line("kubelet_running_pods"), Some("3"));
    assert_eq!(line("kubelet_running_containers{container_state=\"running\"}"), Some("3"));
    assert_eq!(line("kubelet_desired_pods{static=\"false\"}"), Some("3"));
    let number = |begin: &str| line(begin).unwrap_or_default().parse::<f64>().unwrap_or(-1.0);
    assert!(
        number("kubelet_runtime_operations_total{operation_type=\"run_podsandbox\"}") >= 3.0,
        "{figures}"
    );
    assert!(number("kubelet_pleg_relist_duration_seconds_count") >= 1.0, "{figures}");
    assert!((0.0..40.0).contains(&number("nodectl_node_lease_age_seconds")), "{figures}");
    assert!(number("process_resident_memory_bytes") > 1e6, "{figures}");
    for (series, least) in [
        ("kubelet_pod_start_sli_duration_seconds_count", 3.0),
        ("kubelet_pod_start_total_duration_seconds_count", 3.0),
        ("kubelet_pod_start_duration_seconds_count", 3.0),
        ("kubelet_pod_worker_duration_seconds_count{operation_type=\"create\"}", 3.0),
        ("kubelet_pod_worker_start_duration_seconds_count", 3.0),
        ("kubelet_pod_status_sync_duration_seconds_count", 3.0),
        ("kubelet_started_pods_total", 3.0),
        ("kubelet_started_containers_total{container_type=\"container\"}", 3.0),
        ("kubelet_run_podsandbox_duration_seconds_count{runtime_handler=\"\"}", 3.0),
        ("kubelet_cgroup_manager_duration_seconds_count{operation_type=\"update\"}", 1.0),
        ("kubelet_active_pods{static=\"false\"}", 3.0),
        (
            "volume_manager_total_volumes{plugin_name=\"kubernetes.io/empty-dir\",state=\"actual_state_of_world\"}",
            1.0,
        ),
        ("kubelet_certificate_manager_client_ttl_seconds", 1.0),
        ("kubelet_certificate_manager_server_ttl_seconds", 1.0),
        ("nodectl_health{check=\"runtime\"}", 1.0),
    ] {
        assert!(number(series) >= least, "{series} is {}\n{figures}", number(series));
    }
    assert!(figures.contains("rest_client_requests_total{code=\"200\",host="), "{figures}");
    read_by_prometheus(&figures);
}

/// Has Prometheus' own reader judge what was scraped.
#[track_caller]
fn read_by_prometheus(figures: &str) {
    let said = promtool(figures);
    // Names that kubelet has had from before the rule.
    let old = [
        "kubelet_certificate_manager_client_expiration_renew_errors",
        "kubelet_server_expiration_renew_errors",
    ];
    let told: Vec<&str> =
        said.out.lines().filter(|line| !old.iter().any(|name| line.starts_with(name))).collect();
    // 3 is for names alone.
    let well = told.join("").is_empty() && matches!(said.code, Some(0 | 3));
    assert!(well, "{told:?}\n{}\n{figures}", said.err);
}

/// What Prometheus' own reader says of what was scraped.
pub(super) fn promtool(figures: &str) -> Said {
    let program = script("promtool.sh", &[], &[]);
    let program = String::from_utf8(program.stdout).unwrap();
    let mut command = Command::new(program.trim());
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(figures.as_bytes()).unwrap();
    Said::of(&child.wait_with_output().unwrap())
}

#[test]
fn kubectl_looks_into_containers_on_containerd_1_6() {
    kubectl_looks_into_containers("na-look", |builder| builder);
}

#[test]
fn kubectl_looks_into_containers_on_containerd_2() {
    kubectl_looks_into_containers("na-look2", NodeBuilder::containerd2);
}

#[test]
fn a_log_is_followed_to_its_end_and_that_of_the_attempt_before_is_there() {
    let served = served("na-follow", "", |builder| builder);
    served.cluster.bind(
        "na-follow",
        &pod(
            "na-talks",
            "n=0; while [ ! -e /tmp/stop ]; do n=$((n+1)); echo line $n; sleep 0.2; done; echo last",
        ),
    );
    served.cluster.wait_ready("na-talks");
    let mut command = served.command(&["logs", "--follow", "na-talks"]);
    let mut child = Typed(command.stdout(Stdio::piped()).spawn().unwrap());
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    for n in 1..=5 {
        assert_eq!(lines.next(), Some(format!("line {n}")));
    }
    served.prints(&["exec", "na-talks", "--", "touch", "/tmp/stop"]);
    assert_eq!(lines.last().as_deref(), Some("last"));
    assert!(child.0.wait().unwrap().success());

    // What is started again has said the same before.
    served.cluster.bind(
        "na-follow",
        &pod_with_policy("na-again", "Always", "echo life; [ -e /var/x ] && sleep 1000; exit 3"),
    );
    wait_until(SOON, "it was started again", || {
        let pod = served.cluster.pod("na-again").unwrap();
        let status =
            pod.status.and_then(|status| status.container_statuses).and_then(|all| all.into_iter().next());
        status.is_some_and(|status| status.restart_count > 0 && status.last_state.is_some())
    });
    wait_until(SOON, "the attempt before is shown", || {
        let said = served.kubectl(&["logs", "na-again", "--previous"]);
        said.out == "life\n"
    });
}

#[test]
fn commands_that_cannot_be_run_are_told_in_words() {
    let served = served("na-not", "", |builder| builder);
    served.cluster.bind("na-not", &pod_with_policy("na-over", "Never", "exit 0"));
    wait_until(SOON, "the pod has ended", || {
        let status = served.cluster.pod("na-over").and_then(|pod| pod.status);
        status.and_then(|status| status.phase).as_deref() == Some("Succeeded")
    });
    // kubectl exec looks at the pod's phase first.
    let run = "/run/default/na-over/main?cmd=true";
    let answer = served.ask_as_admin(run, &["--request", "POST"]);
    assert_eq!(answer, (500, "container not found (\"main\")".into()));
    served.runs(&pod("na-stays", STAY));
    served.node.containerd.kill9();
    served.kubectl(&["exec", "na-stays", "--", "true"]).ended(1).told("cannot begin the stream");
}

#[test]
fn nobody_is_let_in_who_may_not() {
    let served = served("na-right", "", |builder| builder);
    served.runs(&pod("na-secret", STAY));
    let pki = Path::new(served.cluster.fact("PKI")).to_owned();
    let folder = tempfile::tempdir().unwrap();
    let openssl = |arguments: &[&str]| {
        let said =
            Said::of(&Command::new("openssl").args(arguments).current_dir(folder.path()).output().unwrap());
        said.ended(0);
    };

    // Nobody, and those who show what does not hold.
    assert_eq!(served.ask("/pods", &[]), (401, "Unauthorized".into()));
    assert_eq!(served.ask("/healthz", &[]).0, 401);
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "other.key",
        "-out",
        "other.crt",
        "-days",
        "2",
        "-subj",
        "/O=system:masters/CN=kubernetes-admin",
    ]);
    let file = |name: &str| folder.path().join(name).display().to_string();
    let shown =
        |certificate: &str, key: &str, path: &str| served.ask(path, &["--cert", certificate, "--key", key]);
    assert_eq!(shown(&file("other.crt"), &file("other.key"), "/pods").0, 401, "another authority's");
    let authority = [pki.join("ca.crt").display().to_string(), pki.join("ca.key").display().to_string()];
    openssl(&[
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "old.key",
        "-out",
        "old.csr",
        "-subj",
        "/O=system:masters/CN=old",
    ]);
    std::fs::write(folder.path().join("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
    openssl(&[
        "x509",
        "-req",
        "-in",
        "old.csr",
        "-CA",
        &authority[0],
        "-CAkey",
        &authority[1],
        "-set_serial",
        "7",
        "-extfile",
        "client.ext",
        "-days",
        "-1",
        "-out",
        "old.crt",
    ]);
    assert_eq!(shown(&file("old.crt"), &file("old.key"), "/pods").0, 401, "an expired one");
    let (certificate, key) =
        served.cluster.signed("na-server", "/O=system:masters/CN=server", "serverAuth", "DNS:x");
    let only_server = shown(&certificate.display().to_string(), &key.display().to_string(), "/pods");
    assert_eq!(only_server.0, 401, "one that is for servers");
    let bearer =
        |token: &str, path: &str| served.ask(path, &["--header", &format!("Authorization: Bearer {token}")]);
    assert_eq!(bearer("nonsense", "/pods"), (401, "Unauthorized".into()));
    assert_eq!(served.ask("/pods", &["--header", "Authorization: Basic YTpi"]).0, 401);

    // Somebody without any right, by certificate and by token.
    let (certificate, key) = served.cluster.signed("na-user", "/O=readers/CN=reader", "clientAuth", "");
    let reader = |path: &str, more: &[&str]| {
        let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
        served.ask(path, &[&["--cert", certificate.as_str(), "--key", key.as_str()], more].concat())
    };
    let (code, words) = reader("/pods", &[]);
    assert_eq!(
        (code, words.trim()),
        (403, "Forbidden (user=reader, verb=get, resource=nodes, subresource(s)=[pods proxy])")
    );
    let accounts: Api<ServiceAccount> = served.cluster.api();
    let account: ServiceAccount =
        serde_json::from_value(json!({ "metadata": { "name": "na-metrics" } })).unwrap();
    served.cluster.block_on(accounts.create(&PostParams::default(), &account)).unwrap();
    let token = served.cluster.block_on(accounts.create_token_request(
        "na-metrics",
        &PostParams::default(),
        &serde_json::from_value(json!({ "spec": { "audiences": [] } })).unwrap(),
    ));
    let token = token.unwrap().status.unwrap().token.unwrap();
    let (code, words) = bearer(&token, "/metrics");
    assert_eq!(code, 403, "{words}");
    assert!(words.contains("user=system:serviceaccount:default:na-metrics, verb=get"), "{words}");

    // A right to one thing is none to another. What was refused is believed for a while, so another user asks.
    let (certificate, key) = served.cluster.signed("na-scraper", "/O=scrapers/CN=scraper", "clientAuth", "");
    let scraper = |path: &str, more: &[&str]| {
        let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
        served.ask(path, &[&["--cert", certificate.as_str(), "--key", key.as_str()], more].concat())
    };
    let rights = [
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": "na-scraper" },
            "rules": [{ "apiGroups": [""], "resources": ["nodes/metrics", "nodes/healthz"], "verbs": ["get"] }] }),
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": "na-scraper" },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "na-scraper" },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "scraper" }] }),
    ];
    for object in &rights {
        let file = folder.path().join("object.json");
        std::fs::write(&file, object.to_string()).unwrap();
        served.prints(&["create", "-f", file.to_str().unwrap()]);
    }
    // The API server's own view of rights is a moment old.
    wait_until(SOON, "the right counts", || {
        let answer =
            served.kubectl(&["auth", "can-i", "get", "nodes", "--subresource=metrics", "--as=scraper"]);
        answer.out.trim() == "yes"
    });
    assert_eq!(scraper("/healthz", &[]), (200, "ok".into()));
    assert_ne!(scraper("/metrics", &[]).0, 403);
    for path in ["/pods", "/containerLogs/default/na-secret/main", "/configz", "/nothing", "/metricsx"] {
        assert_eq!(scraper(path, &[]).0, 403, "{path}");
    }
    let exec = "/exec/default/na-secret/main?command=id&output=1";
    let upgrade = [
        "--request",
        "POST",
        "--http1.1",
        "--header",
        "Connection: Upgrade",
        "--header",
        "Upgrade: SPDY/3.1",
    ];
    assert_eq!(scraper(exec, &upgrade).0, 403);
    let sideways = format!("/metrics/..{exec}");
    assert_eq!(scraper(&sideways, &[&["--path-as-is", "--http1.1"], &upgrade[3..]].concat()).0, 404);
    assert_eq!(scraper(&sideways, &[&["--path-as-is"], &upgrade[..]].concat()).0, 403);
    assert_eq!(scraper("/metrics", &["--request", "POST"]).0, 403);

    // Who may do all. What is not there, and what is asked wrongly.
    let admin = |path: &str, more: &[&str]| served.ask_as_admin(path, more);
    assert_eq!(admin("/pods", &["--tlsv1.3"]).0, 200);
    assert_eq!(admin("/pods", &["--tlsv1.2", "--tls-max", "1.2"]).0, 200);
    assert_eq!(admin("/pods", &["--http1.1"]).0, 200);
    for protocol in ["--http1.1", "--http2"] {
        let (code, head) = admin("/healthz", &["--head", protocol]);
        assert!(code == 200 && head.contains("content-length: 2"), "{protocol}: {head}");
    }
    assert_eq!(admin("/nothing", &[]).0, 404);
    assert_eq!(admin("/pods", &["--request", "DELETE"]).0, 405);
    assert_eq!(admin(exec, &["--request", "POST"]), (400, "Upgrade request required".into()));
    assert_eq!(admin("/exec/default/na-secret/main?command=id", &upgrade).0, 400);
    assert_eq!(
        admin("/exec/default/nobody/main?command=id&output=1", &upgrade),
        (404, "pod does not exist".into())
    );
    assert_eq!(admin("/containerLogs/default/nobody/main", &[]).0, 404);
    assert_eq!(admin("/containerLogs/default/na-secret/main?tailLines=-1", &[]).0, 422);
    assert_eq!(admin("/containerLogs/default/na-secret/main?follow=perhaps", &[]).0, 400);
    assert_eq!(admin("/run/default/na-secret/main?cmd=id+-u", &["--request", "POST"]), (200, "0\n".into()));
    assert_eq!(admin("/pods%2f..", &["--path-as-is"]).0, 404);

    // Old TLS, and no TLS.
    let old = Command::new("curl")
        .args(["--silent", "--insecure", "--tlsv1.1", "--tls-max", "1.1", "--max-time", "60"])
        .arg(format!("https://127.0.0.1:{}/pods", served.node.api_port()))
        .status();
    assert!(!old.unwrap().success());
    let mut plain = TcpStream::connect(("127.0.0.1", served.node.api_port())).unwrap();
    plain.write_all(b"GET /pods HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).ok();
    assert!(!String::from_utf8_lossy(&answer).contains("PodList"));
}

#[test]
fn without_an_api_server_nobody_new_is_let_in() {
    let cluster = ControlPlane::start();
    let (certificate, key) = cluster.signed("serving", "/CN=x", "serverAuth", "IP:127.0.0.1");
    let config = format!(
        "{ROOMY}authentication: {{x509: {{clientCAFile: {}}}}}\ntlsCertFile: {}\ntlsPrivateKeyFile: {}\n",
        authority(&cluster).display(),
        certificate.display(),
        key.display(),
    );
    let node = Node::builder("na-alone").config(&config).joined(&cluster).start();
    let cluster = Arc::new(cluster);
    let served = Served { cluster, node, name: "na-alone", kubectl: PathBuf::new() };
    wait_until(SOON, "the administrator is let in", || served.ask_as_admin("/healthz", &[]).0 == 200);
    served.cluster.kill("kube-apiserver");
    // What was allowed a moment ago is believed for its time, as with kubelet.
    assert_eq!(served.ask_as_admin("/healthz", &[]).0, 200);
    let (code, words) = served.ask_as_admin("/stats/summary", &[]);
    assert_eq!(code, 500, "{words}");
    assert!(
        words.starts_with("Authorization error (user=kubernetes-admin, verb=get, resource=nodes"),
        "{words}"
    );
    let token = ["--header", "Authorization: Bearer abc.def.ghi"];
    assert_eq!(served.ask("/healthz", &token).0, 401);
    assert!(!served.node.agent_log().contains("abc.def.ghi"));
}

#[test]
fn debugging_can_be_turned_off_and_tls_made_stricter() {
    let served =
        served("na-strict", "enableDebuggingHandlers: false\ntlsMinVersion: VersionTLS13\n", |builder| {
            builder
        });
    wait_until(SOON, "the administrator is let in", || served.ask_as_admin("/healthz", &[]).0 == 200);
    for path in ["/containerLogs/default/a/b", "/exec/default/a/b", "/runningpods/"] {
        assert_eq!(served.ask_as_admin(path, &[]), (405, "Debug endpoints are disabled.\n".into()), "{path}");
    }
    assert_eq!(served.ask_as_admin("/pods", &[]).0, 200);
    assert_eq!(served.ask_as_admin("/pods", &["--tlsv1.2", "--tls-max", "1.2"]).0, 0);
}

/// Threads and open files of the agent.
pub(super) fn costs(node: &Node) -> (usize, usize) {
    let count = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", node.agent_pid())).unwrap().count();
    (count("task"), count("fd"))
}

/// Resident memory of the agent, KiB.
pub(super) fn memory(node: &Node) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.agent_pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Followers of a log that is far larger than what is kept for a client.
pub(super) mod follow_loud {
    use super::*;

    /// Runs the pod until all is in its log; what the agent costs then.
    pub(crate) fn prepare(served: &Served, name: &str) -> (usize, usize) {
        served.runs(&pod(name, &format!("head -c 8000000 /dev/zero | tr '\\0' x | fold -w 100; {STAY}")));
        let log = format!("/containerLogs/default/{name}/main");
        wait_until(SOON, "all is in the log", || {
            served.ask_as_admin(&format!("{log}?tailLines=1"), &[]).1.len() >= 100
                && served.ask_as_admin(&log, &[]).1.len() >= 8_000_000
        });
        costs(&served.node)
    }

    /// They read some and then no more.
    pub(crate) fn followers(served: &Served, name: &str, count: usize) -> Vec<Typed> {
        let file = |end: &str| Path::new(served.cluster.fact("PKI")).join(format!("admin.{end}"));
        let port = served.node.api_port();
        let one = |_| {
            let child = Command::new("curl")
                .args(["--silent", "--no-buffer", "--cacert"])
                .arg(authority(&served.cluster))
                .arg("--cert")
                .arg(file("crt"))
                .arg("--key")
                .arg(file("key"))
                .arg(format!("https://127.0.0.1:{port}/containerLogs/default/{name}/main?follow=true"))
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn();
            let mut child = Typed(child.unwrap());
            let mut some = [0; 100];
            child.0.stdout.as_mut().unwrap().read_exact(&mut some).unwrap();
            assert_eq!(some, [b'x'; 100]);
            child
        };
        (0..count).map(one).collect()
    }
}

#[test]
fn many_slow_and_vanishing_clients_cost_little_and_leave_nothing() {
    let served = served("na-load", "", |builder| builder);
    let before = follow_loud::prepare(&served, "na-loud");
    let resident = memory(&served.node);
    let followers = follow_loud::followers(&served, "na-loud", 100);
    let (during, grown) = (costs(&served.node), memory(&served.node).saturating_sub(resident));
    assert!(during.0 >= before.0 + 100, "{during:?}");
    // Each costs a thread and buffers of fixed size: far from the log's 8 MB.
    assert!(grown < 100 * 600, "100 followers cost {grown} KiB");
    // A pod starts meanwhile.
    served.runs(&pod("na-beside", STAY));
    drop(followers);
    wait_for(SOON, "nothing is left of them", || {
        let after = costs(&served.node);
        (after.0 <= before.0 + 4 && after.1 <= before.1 + 20).then_some(())
    });
}
