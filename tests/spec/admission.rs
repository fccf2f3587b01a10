//! Whether the node takes a pod: its labels, what is left of its resources, how many pods it may have.

use serde_json::{Value, json};

use super::support::{Node, NodeBuilder, Release, STAY, pod};

fn builder(name: &str, release: Release) -> NodeBuilder {
    match release {
        Release::Machine => Node::builder(name),
        Release::Two => Node::builder(name).containerd2(),
    }
}

fn in_zone(name: &str, zone: &str) -> Value {
    let mut pod = pod(name, STAY);
    pod["spec"]["nodeSelector"] = json!({"zone": zone});
    pod
}

/// A pod that requests six tenths of the machine's CPUs.
fn large(name: &str, priority: i32) -> Value {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let cpus = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let mut pod = pod(name, STAY);
    pod["spec"]["priority"] = json!(priority);
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": format!("{}m", 600 * cpus)}});
    pod
}

/// Waits until the node has refused the pod, and gives the words that it did it with.
fn refused(node: &Node, pod: &str, reason: &str) -> String {
    let view = node.wait_view(pod, "refused", |view| view.phase() == "Failed");
    assert_eq!(view.0["status"]["reason"], reason, "{pod}");
    assert!(node.containerd.sandboxes_of(view.uid()).is_empty(), "{pod}");
    // As kubelet tells it: nothing is said of containers that never were.
    assert!(view.0["status"]["containerStatuses"].is_null() && view.0["status"]["conditions"].is_null());
    let listed = String::from_utf8(node.run_cli(&["pods"]).stdout).unwrap();
    let line = listed.lines().find(|line| line.contains(&node.static_name(pod))).unwrap();
    assert!(line.contains(reason), "{line}");
    let message = view.0["status"]["message"].as_str().unwrap();
    message.strip_prefix("Pod was rejected: ").unwrap().to_owned()
}

fn taken_and_refused(name: &str, release: Release) {
    let mut node =
        builder(name, release).config("maxPods: 5\n").argument("--node-labels").argument("zone=a").start();
    let before = node.leaks();
    node.put(&in_zone("here", "a"));
    node.put(&in_zone("there", "b"));
    node.wait_ready("here");
    let message = refused(&node, "there", "NodeAffinity");
    assert!(message.contains("didn't match Pod's node affinity/selector"), "{message}");

    // What is requested must be left, unless those who have it are of a lower priority: then both run.
    node.put(&large("first", 1));
    node.wait_ready("first");
    node.put(&large("second", 1));
    let message = refused(&node, "second", "UnexpectedAdmissionError");
    assert!(message.contains("[(res: cpu, q: "), "{message}");
    node.put(&large("higher", 2));
    node.wait_ready("higher");

    // Three are taken, and five may be; those that were refused have no place.
    for pod_name in ["fourth", "fifth"] {
        node.put(&pod(pod_name, STAY));
        node.wait_ready(pod_name);
    }
    node.put(&pod("sixth", STAY));
    let message = refused(&node, "sixth", "UnexpectedAdmissionError");
    assert!(message.contains("pods, requested: 1, used: 5, capacity: 5"), "{message}");

    // Another agent, for which the node has other labels, leaves what runs and goes by them for what is new.
    let running = ["here", "first", "higher", "fourth", "fifth"];
    let ids = |node: &Node| running.map(|pod| node.wait_ready(pod).id("main"));
    let ran = ids(&node);
    node.kill9();
    node.set_arguments(&["--node-labels", "zone=b"]);
    node.start_agent();
    assert_eq!(ids(&node), ran);
    refused(&node, "second", "UnexpectedAdmissionError");
    for pod in ["here", "first", "higher"] {
        node.take_away(pod);
        node.wait_gone(pod);
    }
    node.put(&in_zone("moved", "b"));
    node.wait_ready("moved");
    // What is given back can be had again.
    node.put(&large("later", 1));
    node.wait_ready("later");
    assert_eq!(["fourth", "fifth"].map(|pod| node.wait_ready(pod).id("main")), [&ran[3][..], &ran[4]]);

    for pod in ["there", "second", "sixth", "fourth", "fifth", "moved", "later"] {
        node.take_away(pod);
    }
    node.wait_no_pods();
    node.wait_leak_free(&before);
}

#[test]
fn a_pod_is_taken_where_it_fits() {
    taken_and_refused("ad1", Release::Machine);
}

#[test]
fn a_pod_is_taken_where_it_fits_on_containerd_2() {
    taken_and_refused("ad2", Release::Two);
}
