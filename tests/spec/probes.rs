//! Probes and hooks: what they do to real containers, and what an agent that is killed leaves of them.

mod health;
mod servers;

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::support::{Node, SOON, STAY, STUBBORN, View, container, pod_of, wait_for, wait_lines, wait_until};

/// A probe by a command, every second, whose first failure counts. A busy machine has time to answer it.
fn exec(script: &str) -> Value {
    json!({"exec": {"command": ["sh", "-c", script]}, "periodSeconds": 1, "failureThreshold": 1,
        "timeoutSeconds": 30})
}

fn ready(view: &View, name: &str) -> bool {
    view.container(name)["ready"] == true
}

/// A container that has a folder of the node at /host.
fn with_folder(mut pod: Value, folder: &PathBuf) -> Value {
    fs::create_dir_all(folder).unwrap();
    pod["spec"]["volumes"] = json!([{"name": "host", "hostPath": {"path": folder}}]);
    for list in ["containers", "initContainers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            container["volumeMounts"] = json!([{"name": "host", "mountPath": "/host"}]);
        }
    }
    pod
}

/// A small server in the background: notes each request's head in a file and gives one answer.
fn server(port: u16, heard: &str, answer: &str) -> String {
    let handler = format!(
        "while read -r line; do echo \"$line\" >> {heard}; [ ${{#line}} -le 1 ] && break; done; printf '{answer}'"
    );
    format!("cat > /serve.sh <<'END'\n{handler}\nEND\nnc -ll -p {port} -e sh /serve.sh & true")
}

fn threads(node: &Node) -> usize {
    fs::read_dir(format!("/proc/{}/task", node.agent_pid())).unwrap().count()
}

/// Over the network: a named port, headers, a file that comes and goes, a closed port.
fn by_network(node: &Node) {
    let mut web = container("web", "mkdir /www; exec httpd -f -p 8080 -h /www");
    web["ports"] = json!([{"name": "http", "containerPort": 8080}]);
    web["readinessProbe"] =
        json!({"httpGet": {"port": "http", "path": "/ok"}, "periodSeconds": 1, "failureThreshold": 1});
    web["livenessProbe"] = json!({"tcpSocket": {"port": "http"}, "periodSeconds": 1, "failureThreshold": 30});
    let answer = r"HTTP/1.1 302 Found\r\nLocation: http://elsewhere.invalid/\r\nContent-Length: 0\r\n\r\n";
    let mut hears = container("hears", &format!("{}; {STAY}", server(8081, "/heard", answer)));
    hears["readinessProbe"] = json!({"httpGet": {"port": 8081, "path": "/a?b", "httpHeaders": [
        {"name": "Host", "value": "a.example"}, {"name": "X-Own", "value": "1"}]}, "periodSeconds": 1});
    let mut closed = container("closed", STAY);
    closed["readinessProbe"] = json!({"tcpSocket": {"port": 9}, "periodSeconds": 1, "failureThreshold": 1});
    node.put(&pod_of("web", &[web, hears, closed]));

    // A redirect to another host is a success, and is not followed.
    let view = node.wait_view("web", "heard", |view| ready(view, "hears"));
    let heard = fs::read_to_string(node.process(&view, "hears").path("/heard")).unwrap().to_lowercase();
    for line in ["get /a?b http/1.1", "host: a.example", "x-own: 1", "user-agent: kube-probe/", "accept: */*"]
    {
        assert!(heard.contains(line), "{line} in {heard}");
    }
    let web = node.process(&view, "web");
    assert!(!ready(&node.view("web").unwrap(), "web"));
    wait_until(SOON, "its folder is made", || web.path("/www").is_dir());
    fs::write(web.path("/www/ok"), "").unwrap();
    let view = node.wait_view("web", "web ready", |view| ready(view, "web"));
    assert!(!view.condition("Ready") && !view.condition("ContainersReady") && !ready(&view, "closed"));
    fs::remove_file(web.path("/www/ok")).unwrap();
    let view = node.wait_view("web", "web not ready", |view| !ready(view, "web"));
    assert_eq!(view.restarts("web") + view.restarts("hears") + view.restarts("closed"), 0);
    wait_until(SOON, "explain tells why", || {
        node.explain("web").to_string().contains("404")
            || node.explain("web").to_string().contains("cannot connect")
    });
}

/// Liveness with a time of its own to stop, an exec probe that hangs, a sidecar that must start first.
fn by_command(node: &Node) {
    let mut live = container("live", STUBBORN);
    live["livenessProbe"] = exec("test ! -e /dead");
    live["livenessProbe"]["terminationGracePeriodSeconds"] = json!(1);
    live["env"] = json!([{"name": "WHAT", "value": "plain"}]);
    live["readinessProbe"] =
        json!({"exec": {"command": ["test", "$(WHAT)", "=", "plain"]}, "periodSeconds": 1});
    let mut hangs = container("hangs", STAY);
    hangs["readinessProbe"] = exec("echo $$ >> /runs; exec sleep 1234");
    hangs["readinessProbe"]["timeoutSeconds"] = json!(1);
    let mut side = container("side", STAY);
    side["restartPolicy"] = json!("Always");
    side["startupProbe"] = exec("test -e /up");
    side["startupProbe"]["failureThreshold"] = json!(100_000);
    let mut pod = pod_of("live", &[live, hangs]);
    pod["spec"]["initContainers"] = json!([side]);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(3000);
    node.put(&pod);

    let view = node.wait_view("live", "the sidecar to run", |view| view.runs("side"));
    let side = node.process(&view, "side");
    assert!(view.container("side")["started"] == false && !view.runs("live"));
    fs::write(side.path("/up"), "").unwrap();
    let view = node.wait_view("live", "live to be ready", |view| ready(view, "live"));
    assert!(ready(&view, "side"));
    // A run that takes too long has failed, and nothing of it is left.
    let hangs = node.process(&view, "hangs");
    wait_until(SOON, "the second run", || {
        fs::read_to_string(hangs.path("/runs")).unwrap_or_default().lines().count() >= 2
    });
    assert!(!ready(&node.view("live").unwrap(), "hangs"));

    let (first, other) = (view.id("live"), view.id("hangs"));
    fs::write(node.process(&view, "live").path("/dead"), "").unwrap();
    // The container cannot be asked to end, and the pod's own time would be much too long.
    let view = node.wait_view("live", "a restart", |view| view.restarts("live") == 1 && ready(view, "live"));
    assert_ne!(view.id("live"), first);
    assert_eq!((view.id("hangs"), view.restarts("hangs"), view.restarts("side")), (other, 0, 0));
    assert_eq!(view.container("live")["lastState"]["terminated"]["exitCode"], 137);
    assert!(node.agent_log().contains("failed liveness probe: exit code 1, will be restarted"));
}

/// postStart: what comes after waits, and one that fails ends its container; preStop before TERM, also by HTTP,
/// and cut when it hangs.
fn hooks(node: &Node) {
    let folder = node.dir().join("hooks");
    let says_term = "trap 'echo term >> /host/$NAME; exit 0' TERM; while :; do sleep 1000 & wait $!; done";
    let named = |name: &str, script: &str, lifecycle: Value| {
        let mut made = container(name, script);
        made["env"] = json!([{"name": "NAME", "value": name}]);
        made["lifecycle"] = lifecycle;
        made
    };
    let sh = |script: &str| json!({"exec": {"command": ["sh", "-c", script]}});
    let answer = r"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n";
    let begins = "until test -e /host/go; do sleep 0.1; done; echo begun > /host/begun";
    let pod = pod_of(
        "hooks",
        &[
            named(
                "first",
                says_term,
                json!({"postStart": sh(begins), "preStop": sh("echo hook >> /host/first")}),
            ),
            named(
                "web",
                &format!("{}; {says_term}", server(8082, "/host/asked", answer)),
                json!({"preStop": {"httpGet": {"port": 8082, "path": "/bye"}}}),
            ),
            named("hangs", says_term, json!({"preStop": sh("echo hook >> /host/hangs; exec sleep 1234")})),
            named("sleeps", says_term, json!({"preStop": {"sleep": {"seconds": 1}}})),
            named("broken", says_term, json!({"postStart": sh("echo so >&2; exit 3")})),
        ],
    );
    let mut pod = with_folder(pod, &folder);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(8);
    node.put(&pod);
    let view = node.wait_view("hooks", "the first to run", |view| view.runs("first"));
    assert!(view.container("first")["started"] == false && !ready(&view, "first") && !view.runs("web"));
    assert!(!folder.join("begun").exists());
    fs::write(folder.join("go"), "").unwrap();
    wait_lines(&folder.join("begun"), 1);
    let view = node.wait_view("hooks", "the broken one to be tried again", |view| {
        view.restarts("broken") >= 1 && ready(view, "first") && ready(view, "sleeps")
    });
    assert!(!ready(&view, "broken") && view.restarts("first") == 0);
    assert!(node.agent_log().contains("FailedPostStartHook: exit code 3: so"), "{}", node.agent_log());
    let sleeping = node.process(&view, "hangs");
    node.take_away("hooks");
    node.wait_gone("hooks");
    assert!(!sleeping.alive());
    // Each was asked to end after its hook, the one that hangs too.
    for (name, said) in
        [("first", "hook\nterm\n"), ("hangs", "hook\nterm\n"), ("sleeps", "term\n"), ("web", "term\n")]
    {
        assert_eq!(fs::read_to_string(folder.join(name)).unwrap(), said, "{name}");
    }
    let asked = fs::read_to_string(folder.join("asked")).unwrap().to_lowercase();
    assert!(
        asked.starts_with("get /bye http/1.1") && asked.contains("user-agent: kube-lifecycle/"),
        "{asked}"
    );
    assert!(node.agent_log().contains("FailedPreStopHook: not done within the grace period"));
}

/// An agent that is killed: readiness stays, a startup probe that passed is not run again, hooks.
fn agents_that_are_killed(node: &mut Node) {
    let folder = node.dir().join("killed");
    let mut probed = container("probed", STAY);
    probed["startupProbe"] = exec("echo run >> /host/startup");
    probed["readinessProbe"] = exec("test ! -e /host/unready");
    // An agent that began anew would need these in a row first.
    probed["readinessProbe"]["successThreshold"] = json!(3);
    let mut hook = container("hook", STAY);
    hook["lifecycle"] = json!({
        "postStart": {"exec": {"command": ["sh", "-c", "echo run >> /host/begun; exec sleep 1234"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo run >> /host/ending; exec sleep 1234"]}},
    });
    let mut pod = with_folder(pod_of("killed", &[probed, hook]), &folder);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(15);
    node.put(&pod);
    let before = node.wait_view("killed", "the probed to be ready", |view| ready(view, "probed"));
    wait_lines(&folder.join("begun"), 1);
    for _ in 0..2 {
        node.restart();
        let mut seen = 0;
        wait_until(SOON, "the container is shown 20 times", || {
            if let Some(view) = node.view("killed").filter(|view| view.runs("probed")) {
                assert!(ready(&view, "probed"), "{view:?}");
                seen += 1;
            }
            seen >= 20
        });
    }
    // What was begun by an agent that is gone counts as done, as with kubelet.
    let view = node.wait_ready("killed");
    assert_eq!((view.id("probed"), view.id("hook")), (before.id("probed"), before.id("hook")));
    fs::write(folder.join("unready"), "").unwrap();
    node.wait_view("killed", "unready", |view| !ready(view, "probed"));
    node.restart();
    fs::remove_file(folder.join("unready")).unwrap();
    node.wait_ready("killed");
    assert_eq!(wait_lines(&folder.join("startup"), 1).len(), 1, "the startup probe is over");
    assert_eq!(wait_lines(&folder.join("begun"), 1).len(), 1, "the hook is run once");
    // In the middle of a preStop hook: it is run again, and cut at the deadline that was.
    node.take_away("killed");
    wait_lines(&folder.join("ending"), 1);
    node.restart();
    node.wait_gone("killed");
    assert_eq!(wait_lines(&folder.join("ending"), 1).len(), 2);
}

/// No runtime that tests run on knows stop signals: that one is asked for is a unit test's.
fn a_stop_signal_is_refused_by_name(node: &Node) {
    let mut signalled = container("main", STAY);
    signalled["lifecycle"] = json!({"stopSignal": "SIGUSR1"});
    let mut pod = pod_of("signal", &[signalled]);
    pod["spec"]["os"] = json!({"name": "linux"});
    node.put(&pod);
    let told = wait_for(SOON, "the reason", || {
        let told = node.view("signal").map(|_| node.explain("signal").to_string())?;
        told.contains("stopSignal").then_some(told)
    });
    assert!(told.contains("needs containerd 2.3, and the node has containerd"), "{told}");
    assert!(!node.view("signal").unwrap().runs("main"));
}

/// As many probes as a full node has cost no thread.
fn a_hundred_probes(node: &Node) {
    let before = threads(node);
    let probe = json!({"httpGet": {"port": 8080, "path": "/"}, "periodSeconds": 1, "failureThreshold": 1000});
    let mut all =
        vec![container("web", "mkdir /www; echo hello > /www/index.html; exec httpd -f -p 8080 -h /www")];
    all.extend((0..24).map(|n| container(&format!("c{n}"), STAY)));
    for container in &mut all {
        for kind in ["startupProbe", "readinessProbe", "livenessProbe"] {
            container[kind] = probe.clone();
        }
    }
    node.put(&pod_of("many", &all));
    let mut twin = pod_of("twin", &all);
    twin["spec"]["containers"].as_array_mut().unwrap().truncate(10);
    node.put(&twin);
    node.wait_ready("many");
    node.wait_ready("twin");
    // Threads for files come with starting pods, and go ten seconds after the last work.
    wait_until(SOON, "no more threads than before", || threads(node) <= before.max(12));
}

fn everything(mut node: Node) {
    let before = node.leaks();
    by_network(&node);
    by_command(&node);
    hooks(&node);
    a_stop_signal_is_refused_by_name(&node);
    agents_that_are_killed(&mut node);
    health::by_servers(&node);
    health::restarts(&node);
    health::removed_in_a_stop(&node);
    health::ends(&node);
    a_hundred_probes(&node);
    // What would have 3000 seconds to stop is killed with its sandbox.
    for pod in ["web", "signal", "many", "twin"] {
        node.take_away(pod);
        node.wait_gone(pod);
    }
    let view = node.view("live").unwrap();
    node.take_away("live");
    wait_until(SOON, "live is gone", || {
        for name in ["live", "hangs", "side"] {
            if let Some(process) = node.containerd.process(&view.id(name)).filter(|p| p.alive()) {
                process.kill();
            }
        }
        node.view("live").is_none()
    });
    node.wait_leak_free(&before);
}

#[test]
fn on_containerd_1_6() {
    everything(Node::start("pr1"));
}

#[test]
fn on_containerd_2() {
    everything(Node::with_containerd2("pr2"));
}
