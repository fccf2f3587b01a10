//! Probes that restart containers and how often they must fail, probes over gRPC and TLS, and the order in which
//! a container's end happens.

use std::{fs, path::Path};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{exec, ready, servers::Servers, with_folder};
use crate::support::{Node, SOON, STAY, STUBBORN, View, container, pod_of, wait_lines, wait_until};

/// gRPC and HTTPS; a hook over HTTPS of a server that has none.
pub(super) fn by_servers(node: &Node) {
    let servers = Servers::start();
    let probed = |name: &str, action: Value| {
        let mut made = container(name, STAY);
        made["readinessProbe"] = action;
        made["readinessProbe"]["periodSeconds"] = json!(1);
        made["readinessProbe"]["failureThreshold"] = json!(1);
        made
    };
    let grpc = |service: &str| json!({"grpc": {"port": servers.grpc, "service": service}});
    let https = |path: &str| json!({"httpGet": {"scheme": "HTTPS", "port": servers.https, "path": path}});
    let no_tls = |path: &str| {
        json!({"httpGet": {"scheme": "HTTPS", "port": servers.plain, "path": path,
        "httpHeaders": [{"name": "Authorization", "value": "secret"}]}})
    };
    let mut hooked = container("hooked", STAY);
    hooked["lifecycle"] = json!({"postStart": no_tls("/hook")});
    let mut pod = pod_of(
        "servers",
        &[
            probed("grpc", grpc("well")),
            probed("no-grpc", grpc("ill")),
            probed("tls", https("/ok")),
            probed("no-tls", https("/gone")),
            probed("plain", no_tls("/probe")),
            hooked,
        ],
    );
    pod["spec"]["hostNetwork"] = json!(true);
    node.put(&pod);
    let view = node.wait_view("servers", "what is well to be ready", |view| {
        ["grpc", "tls", "hooked"].iter().all(|name| ready(view, name))
    });
    for name in ["no-grpc", "no-tls", "plain"] {
        assert!(view.runs(name) && !ready(&view, name), "{name}");
    }
    // A hook is sent once more over HTTP, without its credentials; a probe is not.
    let heard = servers.heard.lock().unwrap().clone();
    assert!(heard.contains("GET /hook HTTP/1.1"), "{heard}");
    assert!(!heard.contains("secret") && !heard.contains("/probe"), "{heard}");
    for words in ["is NOT_SERVING", "status 404", "answers a TLS client with plain HTTP"] {
        wait_until(SOON, words, || node.agent_log().contains(words));
    }
    node.take_away("servers");
    node.wait_gone("servers");
}

fn time(view: &View, name: &str, field: &str) -> Timestamp {
    let ended = &view.container(name)["lastState"]["terminated"];
    ended[field].as_str().unwrap_or_else(|| panic!("{field} of {ended}")).parse().unwrap()
}

/// A startup probe with a delay and a time of its own to stop, liveness by httpGet and tcpSocket, failures that
/// are counted, and all that an end for its probe brings.
pub(super) fn restarts(node: &Node) {
    let folder = node.dir().join("restarts");
    let mut up = container("up", STUBBORN);
    up["startupProbe"] = json!({"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 2,
        "initialDelaySeconds": 2, "terminationGracePeriodSeconds": 1});
    let mut web = container("web", "mkdir /www; touch /www/ok; exec httpd -f -p 8080 -h /www");
    web["livenessProbe"] = json!({"httpGet": {"port": 8080, "path": "/ok"}, "periodSeconds": 1,
        "failureThreshold": 1, "terminationGracePeriodSeconds": 1, "initialDelaySeconds": 1, "timeoutSeconds": 30});
    // A busy machine has time to begin to listen.
    let started = |mut probe: Value| {
        probe["periodSeconds"] = json!(1);
        probe["failureThreshold"] = json!(1000);
        probe["timeoutSeconds"] = json!(30);
        probe
    };
    web["startupProbe"] = started(json!({"httpGet": {"port": 8080, "path": "/ok"}}));
    let listens =
        "trap 'exit 0' TERM; nc -ll -p 9090 -e true & until [ -e /shut ]; do sleep 0.1; done; kill $!";
    let mut tcp = container("tcp", &format!("{listens}; {STAY}"));
    tcp["livenessProbe"] = json!({"tcpSocket": {"port": 9090}, "periodSeconds": 1, "failureThreshold": 1,
        "initialDelaySeconds": 1, "timeoutSeconds": 30});
    tcp["startupProbe"] = started(json!({"tcpSocket": {"port": 9090}}));
    let told = "echo start >> /host/counts; trap 'echo term >> /host/counts; exit 0' TERM; \
                while :; do sleep 1000 & wait $!; done";
    let mut counts = container("counts", told);
    counts["livenessProbe"] = exec("echo run >> /host/counts; false");
    counts["livenessProbe"]["failureThreshold"] = json!(3);
    counts["lifecycle"] =
        json!({"preStop": {"exec": {"command": ["sh", "-c", "echo hook >> /host/counts"]}}});
    let mut pod = with_folder(pod_of("restarts", &[up, web, tcp, counts]), &folder);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(3000);
    node.put(&pod);

    let view = node.wait_view("restarts", "a failed startup probe", |view| view.restarts("up") >= 1);
    // Two failures a second apart after the delay, and the time to stop: four seconds, told in whole ones.
    let lived = time(&view, "up", "finishedAt").duration_since(time(&view, "up", "startedAt"));
    assert!(lived.as_secs() >= 3, "{lived:?}");
    assert_eq!(view.container("up")["lastState"]["terminated"]["exitCode"], 137);
    assert!(node.agent_log().contains("failed startup probe: exit code 1, will be restarted"));

    let view = node.wait_view("restarts", "web and tcp to listen", |view| {
        ["web", "tcp"].iter().all(|name| view.container(name)["started"] == true)
    });
    assert_eq!(view.restarts("web") + view.restarts("tcp"), 0);
    fs::remove_file(node.process(&view, "web").path("/www/ok")).unwrap();
    fs::write(node.process(&view, "tcp").path("/shut"), "").unwrap();
    node.wait_view("restarts", "both to be restarted", |view| {
        view.restarts("web") == 1 && view.restarts("tcp") == 1
    });
    for words in ["failed liveness probe: status 404", "failed liveness probe: cannot connect to"] {
        assert!(node.agent_log().contains(words), "{words}");
    }
    let counted = wait_lines(&folder.join("counts"), 7);
    assert_eq!(counted[..7], ["start", "run", "run", "run", "hook", "term", "start"]);

    node.take_away("restarts");
    // What ignores the asking, as process 1 of a container does without a trap, would have 3000 seconds.
    wait_until(SOON, "the pod is gone", || {
        for name in ["up", "web", "tcp", "counts"] {
            if let Some(process) = node.containerd.process(&view_id(node, name)).filter(|p| p.alive()) {
                process.kill();
            }
        }
        node.view("restarts").is_none()
    });
}

/// A container that does not end is being stopped in its probe's time when its pod is removed, which has far more.
pub(super) fn removed_in_a_stop(node: &Node) {
    let mut stubborn = container("main", STUBBORN);
    stubborn["livenessProbe"] = exec("false");
    stubborn["livenessProbe"]["terminationGracePeriodSeconds"] = json!(10);
    let mut pod = pod_of("stopped", &[stubborn]);
    pod["spec"]["terminationGracePeriodSeconds"] = json!(3000);
    node.put(&pod);
    let view = node.wait_view("stopped", "it to run", |view| view.runs("main"));
    wait_until(SOON, "a stop", || {
        node.agent_log().contains("exit code 1, will be restarted pod=default/stopped-")
    });
    let process = node.process(&view, "main");
    node.take_away("stopped");
    node.wait_gone("stopped");
    assert!(!process.alive());
}

fn view_id(node: &Node, name: &str) -> String {
    node.view("restarts").map(|view| view.id(name)).unwrap_or_default()
}

/// Seconds since the host came up, as written by a script or now.
fn uptime(file: &Path) -> f64 {
    fs::read_to_string(file).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

/// Sleeping hooks, one that fails, one that hangs in a pod that is removed; variables in a probe's command.
pub(super) fn ends(node: &Node) {
    let folder = node.dir().join("ends");
    let sh = |script: &str| json!({"exec": {"command": ["sh", "-c", script]}});
    let notes = |name: &str, lifecycle: Value| {
        let script = format!(
            "trap 'cat /proc/uptime > /host/{name}.end; echo term >> /host/{name}; exit 0' TERM; \
             cat /proc/uptime > /host/{name}.start; while :; do sleep 1000 & wait $!; done"
        );
        let mut made = container(name, &script);
        made["lifecycle"] = lifecycle;
        made
    };
    let mut vars = container("vars", STAY);
    vars["env"] = json!([
        {"name": "PLAIN", "value": "plain"},
        {"name": "FROM", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
    ]);
    // One that comes from elsewhere is empty, and one that is not there stays, as with kubelet.
    let test = "test \"$1/$2/$3\" = 'plain//$(NONE)' && test -n \"$FROM\"";
    vars["readinessProbe"] = json!({"periodSeconds": 1,
        "exec": {"command": ["sh", "-c", test, "x", "$(PLAIN)", "$(FROM)", "$(NONE)"]}});
    // Of what a command says little is kept, and all that it comes to.
    let mut loud = container("loud", STAY);
    loud["readinessProbe"] = exec("yes loud | head -c 3000000; test -e /well");
    loud["readinessProbe"]["timeoutSeconds"] = json!(10);
    let mut pod = with_folder(
        pod_of(
            "ends",
            &[
                notes("post", json!({"postStart": {"sleep": {"seconds": 2}}})),
                notes("after", json!({"preStop": {"sleep": {"seconds": 2}}})),
                notes("slow", json!({"preStop": sh("sleep 1; echo hook >> /host/slow")})),
                notes("fails", json!({"preStop": sh("echo hook >> /host/fails; exit 3")})),
                vars,
                loud,
            ],
        ),
        &folder,
    );
    pod["spec"]["terminationGracePeriodSeconds"] = json!(60);
    node.put(&pod);
    let stuck_folder = node.dir().join("stuck");
    let mut stuck = container("main", STAY);
    stuck["lifecycle"] = json!({"postStart": sh("echo begun >> /host/begun; exec sleep 1234")});
    let mut never = container("never", "echo run >> /host/never");
    never["lifecycle"] = json!({});
    node.put(&with_folder(pod_of("stuck", &[stuck, never]), &stuck_folder));

    wait_lines(&stuck_folder.join("begun"), 1);
    let view = node.wait_view("stuck", "its first to run", |view| view.runs("main"));
    let process = node.process(&view, "main");
    assert!(view.container("main")["started"] == false && !view.runs("never"));
    node.take_away("stuck");
    node.wait_gone("stuck");
    assert!(!process.alive() && !stuck_folder.join("never").exists());

    wait_until(SOON, "the begin of what it says", || {
        node.agent_log().contains("readiness probe failed: exit code 1: loud loud ")
    });
    let view = node.wait_view("ends", "all to run", |view| view.runs("loud"));
    fs::write(node.process(&view, "loud").path("/well"), "").unwrap();
    node.wait_ready("ends");
    for name in ["post", "after", "slow", "fails"] {
        wait_lines(&folder.join(format!("{name}.start")), 1);
    }
    // The next container waits for the hook of the one before it.
    let waited = uptime(&folder.join("after.start")) - uptime(&folder.join("post.start"));
    assert!(waited > 1.0, "{waited}");
    let asked = uptime(Path::new("/proc/uptime"));
    node.take_away("ends");
    node.wait_gone("ends");
    for (name, least) in [("after", 2.0), ("slow", 1.0)] {
        let waited = uptime(&folder.join(format!("{name}.end"))) - asked;
        assert!(waited >= least, "{name}: {waited}");
    }
    for (name, said) in
        [("post", "term\n"), ("after", "term\n"), ("slow", "hook\nterm\n"), ("fails", "hook\nterm\n")]
    {
        assert_eq!(fs::read_to_string(folder.join(name)).unwrap(), said, "{name}");
    }
    assert!(node.agent_log().contains("FailedPreStopHook: exit code 3"));
}
