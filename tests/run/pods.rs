//! What a pod gets: looked at inside its processes, in the runtime's own records and in the node's folders.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{
    IMAGE, Node, Release, SOON, STAY, View, container, free_port, get, pod, pod_of, wait_for, wait_lines,
    wait_until,
};

fn node(name: &str, release: Release) -> Node {
    match release {
        Release::Machine => Node::start(name),
        Release::Two => Node::with_containerd2(name),
    }
}

/// The pod that most of the tests below look at.
fn rich_pod(host: &Path, host_port: u16) -> Value {
    let serve = "echo to-stdout; echo to-stderr >&2; cat /shared/from-init; exec httpd -f -p 8080 -h /shared";
    let mut web = container("web", serve);
    web["ports"] = json!([{"name": "http", "containerPort": 8080, "hostPort": host_port}]);
    web["resources"] = json!({
        "requests": {"cpu": "100m", "memory": "16Mi"}, "limits": {"cpu": "500m", "memory": "32Mi"}
    });
    web["volumeMounts"] = json!([
        {"name": "shared", "mountPath": "/shared"}, {"name": "host", "mountPath": "/host", "readOnly": true}
    ]);
    let mut side = container("side", "");
    side["command"] = json!(["sh", "-c", "$(SCRIPT)"]);
    side["args"] = json!(["$(UNKNOWN)", "$$(GREETING)", "$(GREETING)"]);
    side["workingDir"] = json!("/shared");
    side["env"] = json!([
        {"name": "WHO", "value": "world"},
        {"name": "GREETING", "value": "hello $(WHO)"},
        {"name": "LATER", "value": "$(AFTER)"},
        {"name": "AFTER", "value": "x"},
        {"name": "SCRIPT", "value": STAY},
    ]);
    side["volumeMounts"] = json!([
        {"name": "shared", "mountPath": "/shared"}, {"name": "host", "mountPath": "/host"}
    ]);
    let mut init = container("init", "echo prepared > /shared/from-init; echo initialised");
    init["volumeMounts"] = json!([{"name": "shared", "mountPath": "/shared"}]);
    let mut pod = pod_of("rich", &[web, side]);
    pod["metadata"]["labels"] = json!({"app": "rich", "tier": "test"});
    pod["metadata"]["annotations"] = json!({"example.com/note": "kept"});
    pod["spec"]["initContainers"] = json!([init]);
    pod["spec"]["volumes"] = json!([
        {"name": "shared", "emptyDir": {}},
        {"name": "host", "hostPath": {"path": host, "type": "Directory"}},
    ]);
    pod
}

fn a_whole_pod(name: &str, release: Release) {
    let node = node(name, release);
    let before = node.leaks();
    let host = node.dir().join("of-the-host");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("page"), "from the host").unwrap();
    let port = free_port();
    node.put(&rich_pod(&host, port));
    let view = node.wait_ready("rich");
    let (web, side) = (node.process(&view, "web"), node.process(&view, "side"));
    let uid = view.uid().to_owned();

    // Volumes: the init container's file is in the pod's folder and in both containers.
    let folder = node.root_dir().join(format!("pods/{uid}/volumes/kubernetes.io~empty-dir/shared"));
    assert_eq!(fs::read_to_string(folder.join("from-init")).unwrap(), "prepared\n");
    assert_eq!(web.read("/shared/from-init"), "prepared\n");
    assert_eq!(side.read("/shared/from-init"), "prepared\n");
    fs::write(side.path("/shared/news"), "of side").unwrap();
    assert_eq!(web.read("/shared/news"), "of side");
    assert_eq!(web.read("/host/page"), "from the host");
    assert!(web.is_read_only("/host") && !web.is_read_only("/shared") && !side.is_read_only("/host"));
    fs::write(side.path("/host/answer"), "of the pod").unwrap();
    assert_eq!(fs::read_to_string(host.join("answer")).unwrap(), "of the pod");

    // What is run, where and with which environment.
    assert_eq!(side.arguments(), ["sh", "-c", STAY, "$(UNKNOWN)", "$(GREETING)", "hello world"]);
    assert_eq!(side.working_dir(), Path::new("/shared"));
    assert_eq!(side.variable("GREETING").as_deref(), Some("hello world"));
    assert_eq!(side.variable("LATER").as_deref(), Some("$(AFTER)"), "what comes later is not yet known");
    assert_eq!(web.namespace("net"), side.namespace("net"));
    assert_ne!(web.namespace("pid"), side.namespace("pid"));
    assert_eq!(web.host_name(), node.static_name("rich"));

    // Cgroups: kubelet's place, and the numbers.
    let place = format!("{}/kubepods/burstable/pod{uid}/", node.containerd.cgroup_root());
    assert!(web.cgroup("memory").to_str().unwrap().contains(&place), "{}", web.cgroup("memory").display());
    assert_eq!(web.cgroup_value("memory", "memory.limit_in_bytes", "memory.max"), (32 << 20).to_string());
    let quota = web.cgroup_value("cpu", "cpu.cfs_quota_us", "cpu.max");
    assert_eq!(quota.split(' ').next(), Some("50000"));
    let shares = web.cgroup_value("cpu", "cpu.shares", "cpu.weight");
    assert!(shares == "102" || shares == "4", "{shares}");

    // The network: the address is the pod's and reachable, and so is the host's port.
    let address = view.0["status"]["podIP"].as_str().unwrap();
    assert!(web.has_address(address), "{address}");
    // A container without a probe is ready before its server listens.
    let answer = |at: &str, path: &str| wait_for(SOON, &format!("an answer of {at}"), || get(at, path));
    assert!(answer(&format!("{address}:8080"), "/from-init").ends_with("prepared\n"));
    let gateway = node.containerd.fact("GATEWAY");
    assert!(answer(&format!("{gateway}:{port}"), "/news").ends_with("of side"));

    logs_are_where_kubelet_has_them(&node, &view);
    records_are_kubelets(&node, &view);
    status_says_what_is(&view, address);

    node.take_away("rich");
    node.wait_no_pods();
    node.wait_leak_free(&before);
    assert_eq!(fs::read_to_string(host.join("page")).unwrap(), "from the host", "a hostPath is the host's");
    assert_eq!(fs::read_dir(node.container_logs()).unwrap().count(), 0, "links are left");
}

fn logs_are_where_kubelet_has_them(node: &Node, view: &View) {
    let name = node.static_name("rich");
    let folder = node.pod_logs().join(format!("default_{name}_{}", view.uid()));
    let lines = wait_lines(&folder.join("web/0.log"), 3);
    for (stream, text) in [("stdout", "to-stdout"), ("stderr", "to-stderr"), ("stdout", "prepared")] {
        assert!(lines.iter().any(|l| l.ends_with(&format!(" {stream} F {text}"))), "{lines:?}");
    }
    for container in ["web", "side", "init"] {
        let link =
            node.container_logs().join(format!("{name}_default_{container}-{}.log", view.id(container)));
        assert_eq!(fs::read_link(&link).unwrap(), folder.join(container).join("0.log"));
        assert!(link.exists());
    }
}

fn records_are_kubelets(node: &Node, view: &View) {
    let name = node.static_name("rich");
    let sandboxes = node.containerd.sandboxes_of(view.uid());
    let [sandbox] = &sandboxes[..] else { panic!("{sandboxes:?}") };
    for (key, value) in [
        ("io.kubernetes.pod.name", name.as_str()),
        ("io.kubernetes.pod.namespace", "default"),
        ("io.kubernetes.pod.uid", view.uid()),
        ("app", "rich"),
        ("tier", "test"),
    ] {
        assert_eq!(sandbox.labels.get(key).map(String::as_str), Some(value), "{key} in {sandbox:?}");
    }
    assert_eq!(sandbox.annotation("example.com/note"), Some("kept"));
    assert_eq!(sandbox.annotation("kubernetes.io/config.source"), Some("file"));
    assert_eq!(sandbox.annotation("kubernetes.io/config.hash"), Some(view.uid()));
    assert!(sandbox.annotation("kubernetes.io/config.seen").is_some());
    let web = node.containerd.containers_of(view.uid(), "web");
    assert_eq!(web.len(), 1);
    let web = &web[0];
    assert_eq!(web.id, view.id("web"));
    assert!(!web.labels.contains_key("app"), "a pod's labels do not stand on its containers");
    for (key, value) in [
        ("io.kubernetes.container.restartCount", "0"),
        ("io.kubernetes.container.terminationMessagePath", "/dev/termination-log"),
        ("io.kubernetes.container.terminationMessagePolicy", "File"),
        ("io.kubernetes.pod.terminationGracePeriod", "1"),
    ] {
        assert_eq!(web.annotation(key), Some(value), "{key} in {web:?}");
    }
    let hash = web.annotation("io.kubernetes.container.hash").unwrap();
    assert!(u32::from_str_radix(hash, 16).is_ok(), "{hash}");
    let ports: Value =
        serde_json::from_str(web.annotation("io.kubernetes.container.ports").unwrap()).unwrap();
    assert_eq!(ports[0]["containerPort"], 8080);
}

fn status_says_what_is(view: &View, address: &str) {
    let status = &view.0["status"];
    assert_eq!(status["qosClass"], "Burstable");
    assert_eq!(status["podIPs"], json!([{"ip": address}]));
    assert!(status["hostIP"].as_str().is_some_and(|ip| !ip.is_empty()));
    for kind in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        assert!(view.condition(kind), "{kind} in {status}");
    }
    let init = view.container("init");
    let ended = &init["state"]["terminated"];
    assert_eq!((&ended["exitCode"], &ended["reason"]), (&json!(0), &json!("Completed")));
    for name in ["web", "side"] {
        let container = view.container(name);
        assert_eq!(container["ready"], true);
        assert_eq!(container["started"], true);
        assert_eq!(container["restartCount"], 0);
        assert_eq!(container["image"], IMAGE);
        assert!(container["imageID"].as_str().is_some_and(|id| id.contains("sha256:")), "{container}");
        // RFC 3339 times of the same form sort as text.
        let (started, ended) = (&container["state"]["running"]["startedAt"], &ended["finishedAt"]);
        assert!(started.as_str() >= ended.as_str(), "{name} has not waited for the init container");
    }
}

#[test]
fn a_whole_pod_on_the_machines_containerd() {
    a_whole_pod("whole", Release::Machine);
}

#[test]
fn a_whole_pod_on_containerd_2() {
    a_whole_pod("whole-two", Release::Two);
}

/// Sidecars start one after the other, before the containers, and end after them in reverse.
fn sidecars_start_first_and_end_last(name: &str, release: Release) {
    let node = node(name, release);
    let out = node.dir().join("order");
    fs::create_dir(&out).unwrap();
    let script = |name: &str| {
        format!(
            "trap 'echo {name}-down >> /out/log; exit 0' TERM; echo {name}-up >> /out/log; while :; do sleep 1000 & wait $!; done"
        )
    };
    let mount = json!([{"name": "out", "mountPath": "/out"}]);
    let with = |name: &str, script: &str, restart: Option<&str>| {
        let mut one = container(name, script);
        one["volumeMounts"] = mount.clone();
        if let Some(policy) = restart {
            one["restartPolicy"] = json!(policy);
        }
        one
    };
    let mut pod = pod_of("ordered", &[with("main", &script("main"), None)]);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(10);
    pod["spec"]["initContainers"] = json!([
        with("before", "echo before >> /out/log", None),
        with("proxy", &script("proxy"), Some("Always")),
        with("logger", &script("logger"), Some("Always")),
        with("after", "echo after >> /out/log", None),
    ]);
    pod["spec"]["volumes"] = json!([{"name": "out", "hostPath": {"path": out}}]);
    node.put(&pod);
    let view = node.wait_ready("ordered");
    let log = out.join("log");
    // The order of starts is certain; what a started script has written by then is not.
    let mut started: Vec<(String, String)> = ["before", "proxy", "logger", "after", "main"]
        .iter()
        .map(|name| {
            let records = node.containerd.containers_of(view.uid(), name);
            assert_eq!(records.len(), 1, "{name}");
            let info: Value =
                serde_json::from_str(&node.containerd.ctr(&["containers", "info", &records[0].id])).unwrap();
            (info["CreatedAt"].as_str().unwrap().to_owned(), (*name).to_owned())
        })
        .collect();
    started.sort();
    let names: Vec<&str> = started.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(names, ["before", "proxy", "logger", "after", "main"]);
    assert_eq!(view.container("proxy")["started"], true);
    assert!(view.runs("proxy") && view.runs("logger"));

    // A sidecar that ends is started again, and nothing else is.
    let main = view.id("main");
    let proxy = node.process(&view, "proxy");
    wait_lines(&log, 5);
    proxy.kill();
    let again = node.wait_view("ordered", "sidecar again", |v| v.restarts("proxy") == 1 && v.runs("proxy"));
    assert_eq!(again.id("main"), main);
    wait_lines(&log, 6);

    node.take_away("ordered");
    node.wait_no_pods();
    let lines = wait_lines(&log, 9);
    assert_eq!(lines[lines.len() - 3..], ["main-down", "logger-down", "proxy-down"], "{lines:?}");
}

#[test]
fn sidecars_start_first_and_end_last_on_the_machines_containerd() {
    sidecars_start_first_and_end_last("sidecar", Release::Machine);
}

#[test]
fn sidecars_start_first_and_end_last_on_containerd_2() {
    sidecars_start_first_and_end_last("sidecar2", Release::Two);
}

#[test]
fn a_pod_on_the_hosts_network() {
    let node = Node::start("hostnet");
    let before = node.leaks();
    let mut manifest = pod("shared", STAY);
    manifest["spec"]["hostNetwork"] = json!(true);
    node.put(&manifest);
    let view = node.wait_ready("shared");
    let process = node.process(&view, "main");
    assert_eq!(process.namespace("net"), fs::read_link("/proc/self/ns/net").unwrap());
    assert_eq!(process.namespace("uts"), fs::read_link("/proc/self/ns/uts").unwrap());
    assert_eq!(view.0["status"]["podIP"], view.0["status"]["hostIP"]);
    assert_eq!(view.0["status"]["qosClass"], "BestEffort");
    node.take_away("shared");
    node.wait_no_pods();
    node.wait_leak_free(&before);
}

#[test]
fn the_init_container_that_fails_is_tried_again_and_holds_the_rest_back() {
    let node = Node::start("init");
    let mut init = container("flaky", "test -e /data/tried && exit 0; touch /data/tried; exit 3");
    init["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    let mut manifest = pod("patient", STAY);
    manifest["spec"]["initContainers"] = json!([init]);
    manifest["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    node.put(&manifest);
    let view = node.wait_ready("patient");
    assert_eq!(view.restarts("flaky"), 1);
    assert_eq!(view.container("flaky")["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(view.restarts("main"), 0);

    let mut manifest = pod("doomed", STAY);
    manifest["spec"]["restartPolicy"] = json!("Never");
    manifest["spec"]["initContainers"] = json!([container("broken", "exit 4")]);
    node.put(&manifest);
    let view = node.wait_view("doomed", "Failed", |view| view.phase() == "Failed");
    assert_eq!(view.container("broken")["state"]["terminated"]["exitCode"], 4);
    assert!(node.containerd.containers_of(view.uid(), "main").is_empty());
}

#[test]
fn a_slow_pull_or_failing_pod_delays_no_other() {
    let node = Node::builder("pulls").config("runtimeRequestTimeout: 5s\n").start();
    // A registry that accepts and never answers.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut slow = pod("slow", STAY);
    slow["spec"]["containers"][0]["image"] = json!(format!("127.0.0.1:{port}/some/image:1"));
    slow["spec"]["containers"][0]["imagePullPolicy"] = json!("IfNotPresent");
    node.put(&slow);
    wait_for(SOON, "the pull under way", || {
        let told = node.view("slow").is_some().then(|| node.explain("slow"))?;
        (told["progress"]["step"] == "pulling-image").then_some(())
    });
    node.put(&pod("quick", STAY));
    node.wait_view("quick", "ready", |view| view.condition("Ready"));
    assert!(!node.wait_view("slow", "listed", |_| true).runs("main"));
    // And it can be removed in the middle of the pull.
    node.take_away("slow");
    node.wait_gone("slow");
    wait_until(SOON, "its sandbox gone", || node.leaks().sandboxes.len() == 1);
}
