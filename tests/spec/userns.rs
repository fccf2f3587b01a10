//! User namespaces (`hostUsers: false`): containerd 2 with the runc that `hack/containerd2.sh` fetches. That an
//! older runtime is not asked for one is tested beside the other security fields.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use serde_json::{Value, json};

use super::support::{Node, Process, SOON, STAY, View, pod, wait_until};

/// `0 FIRST COUNT`: which of the host's numbers the container's are.
fn map_of(process: Process, kind: &str) -> (u64, u64, u64) {
    let text = fs::read_to_string(format!("/proc/{}/{kind}_map", process.0)).unwrap();
    let numbers: Vec<u64> = text.split_whitespace().map(|word| word.parse().unwrap()).collect();
    let [inside, outside, count] = numbers[..] else { panic!("{text}") };
    (inside, outside, count)
}

fn host_uid(process: Process) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", process.0)).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// A pod with users of its own: its first container says what it sees of its volumes.
fn apart(name: &str) -> Value {
    let script = format!(
        "stat -c '%n %u:%g' /data /told/name /etc/hosts >/data/owners; cat /told/name >/data/name; touch /data/done; {STAY}"
    );
    let mut apart = pod(name, &script);
    let spec = &mut apart["spec"];
    spec["hostUsers"] = json!(false);
    spec["securityContext"] = json!({"fsGroup": 4000});
    spec["volumes"] = json!([
        {"name": "data", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "told", "downwardAPI": {"defaultMode": 0o400, "items": [
            {"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}}
    ]);
    spec["containers"][0]["volumeMounts"] = json!([
        {"name": "data", "mountPath": "/data"},
        {"name": "memory", "mountPath": "/memory"},
        {"name": "told", "mountPath": "/told"}
    ]);
    apart
}

#[test]
fn pods_have_users_of_their_own() {
    let mut node = Node::with_containerd2("userns");
    let before = node.leaks();
    node.put(&apart("one"));
    node.put(&apart("two"));
    let mut open = pod("open", STAY);
    open["spec"]["hostUsers"] = json!(false);
    open["spec"]["containers"][0]["securityContext"] = json!({"procMount": "Unmasked"});
    node.put(&open);
    let mut ends = pod("ends", "echo bye >/dev/termination-log; exit 3");
    ends["spec"]["hostUsers"] = json!(false);
    ends["spec"]["restartPolicy"] = json!("Never");
    node.put(&ends);

    let views = ["one", "two", "open"].map(|name| node.wait_ready(name));
    let processes: Vec<Process> = views.iter().map(|view| node.process(view, "main")).collect();
    let mut firsts: Vec<u64> = Vec::new();
    for (view, process) in views.iter().zip(&processes) {
        let (inside, first, count) = map_of(*process, "uid");
        assert_eq!((inside, count), (0, 65536));
        assert_eq!(map_of(*process, "gid"), (0, first, 65536));
        assert!(first >= 65536, "{first} is the host's own");
        assert_eq!(host_uid(*process), first);
        assert_eq!(host_first(&node, view), first);
        firsts.push(first);
    }
    firsts.sort_unstable();
    assert!(firsts.windows(2).all(|two| two[0] + 65536 <= two[1]), "{firsts:?} overlap");

    for (name, (view, process)) in ["one", "two"].iter().zip(views.iter().zip(&processes)) {
        wait_until(SOON, "it has looked", || process.path("/data/done").exists());
        let owners = process.read("/data/owners");
        assert_eq!(
            owners.lines().collect::<Vec<_>>(),
            ["/data 0:4000", "/told/name 0:4000", "/etc/hosts 0:0"]
        );
        assert_eq!(process.read("/data/name").trim(), node.static_name(name));
        // The mount translates: on disk it is root's.
        let made =
            node.root_dir().join(format!("pods/{}/volumes/kubernetes.io~empty-dir/data/done", view.uid()));
        assert_eq!(fs::metadata(made).unwrap().uid(), 0);
    }
    let table = fs::read_to_string(format!("/proc/{}/mountinfo", processes[2].0)).unwrap();
    let covered =
        table.lines().filter_map(|line| line.split(' ').nth(4)).filter(|path| path.starts_with("/proc/"));
    assert_eq!(covered.collect::<Vec<_>>(), Vec::<&str>::new());
    let ended = node.wait_view("ends", "ended", |view| view.phase() == "Failed");
    let terminated = &ended.container("main")["state"]["terminated"];
    assert_eq!((&terminated["message"], &terminated["exitCode"]), (&json!("bye\n"), &json!(3)));

    // The numbers outlive the agent.
    node.kill9();
    node.start_agent();
    let ids = |views: &[View; 3]| views.each_ref().map(|view| (view.id("main"), view.restarts("main")));
    assert_eq!(ids(&["one", "two", "open"].map(|name| node.wait_ready(name))), ids(&views));
    processes[0].kill();
    let again = node.wait_view("one", "restarted", |view| view.restarts("main") == 1 && view.runs("main"));
    assert_eq!(map_of(node.process(&again, "main"), "uid").1, host_first(&node, &again));

    for name in ["one", "two", "open", "ends"] {
        node.take_away(name);
    }
    node.wait_leak_free(&before);
}

/// The first of a pod's numbers as kubelet's file of them says.
fn host_first(node: &Node, view: &View) -> u64 {
    let record = node.root_dir().join(format!("pods/{}/userns", view.uid()));
    let record: Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
    record["uidMappings"][0]["hostId"].as_u64().unwrap()
}
