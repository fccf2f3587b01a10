//! What the agent asks of the API server for its pods, counted by the server's audit log: 250 that arrive at once are
//! no storm.

use std::collections::BTreeMap;

use serde_json::json;

use crate::support::{ControlPlane, Node, ROOMY, SOON, STAY, control_plane::Heard, pod, wait_until};

/// Requests a second, and at once after a pause.
const OBJECTS: (u32, u32) = (40, 60);
const EVENTS: (u32, u32) = (15, 20);

/// What is within `kubeAPIQPS`, and events, which have a rate of their own: all but heartbeats.
fn is_of_pods(heard: &Heard) -> bool {
    heard.resource != "leases" && !heard.resource.starts_with("nodes")
}

/// No request may come before its turn. Before `from` the agent was at rest, so that it had its whole burst then; what
/// is sent later than it might be, or arrives late, is within the rate all the more.
#[track_caller]
fn within_the_rate(heard: &[Heard], from: jiff::Timestamp, (per_second, burst): (u32, u32)) {
    for (n, request) in heard.iter().enumerate() {
        let seconds = request.at.duration_since(from).as_secs_f64();
        let allowed = f64::from(burst) + f64::from(per_second) * seconds;
        assert!(
            (n + 1) as f64 <= allowed + 1.0,
            "request {n} after {seconds} s, {allowed} allowed: {request:?}"
        );
    }
}

/// Requests by verb and resource.
fn counted(heard: &[Heard]) -> BTreeMap<(&str, &str), usize> {
    let mut counts = BTreeMap::new();
    for heard in heard {
        *counts.entry((heard.verb.as_str(), heard.resource.as_str())).or_default() += 1;
    }
    counts
}

/// The most requests of a kind that one pod was asked for.
fn most(heard: &[Heard], verb: &str, resource: &str) -> usize {
    let mut by_name = BTreeMap::<&str, usize>::new();
    for heard in heard.iter().filter(|heard| (&*heard.verb, &*heard.resource) == (verb, resource)) {
        *by_name.entry(&heard.name).or_default() += 1;
    }
    by_name.into_values().max().unwrap_or_default()
}

#[test]
fn many_pods_at_once_are_no_storm() {
    const PODS: usize = 250;
    /// So many run; the others wait for a ConfigMap, which costs the server as much and the machine next to nothing.
    const RUNNING: usize = 25;
    let cluster = ControlPlane::start_with(&[("NODECTL_AUDIT", "1")]);
    let node = Node::builder("jr-many")
        .config(ROOMY)
        .config(&format!(
            "maxPods: 300\nkubeAPIQPS: {}\nkubeAPIBurst: {}\neventRecordQPS: {}\neventBurst: {}\n",
            OBJECTS.0, OBJECTS.1, EVENTS.0, EVENTS.1
        ))
        .joined(&cluster)
        .start();
    cluster.wait_taints("jr-many");
    // It watches, and has nothing left to say of itself.
    wait_until(SOON, "the pods are listed", || {
        counted(&cluster.heard("jr-many")).contains_key(&("list", "pods"))
    });
    let since = |from: jiff::Timestamp| -> (Vec<Heard>, Vec<Heard>) {
        let heard = cluster.heard("jr-many").into_iter().filter(|heard| heard.at >= from);
        heard.filter(is_of_pods).partition(|heard| heard.resource != "events")
    };
    let from = jiff::Timestamp::now();
    let names: Vec<String> = (0..PODS).map(|n| format!("jr-{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        let mut made = pod(name, STAY);
        if n % (PODS / RUNNING) != 0 {
            made["spec"]["volumes"] = json!([{ "name": "set", "configMap": { "name": "jr-none" } }]);
            made["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "set", "mountPath": "/set" }]);
        }
        cluster.bind("jr-many", &made);
    }
    for (n, name) in names.iter().enumerate() {
        if n % (PODS / RUNNING) == 0 {
            cluster.wait_ready_within(SOON * 5, name);
        } else {
            cluster.wait_waiting(name, "configmap \"jr-none\" not found");
        }
    }
    assert_eq!(node.containerd.running_containers().len(), RUNNING);

    let (objects, events) = since(from);
    within_the_rate(&objects, from, OBJECTS);
    within_the_rate(&events, from, EVENTS);
    // Of a pod that comes there are four things to tell: that it is taken, why it waits or that its sandbox is made,
    // that its container is, and that it is ready. Nothing is asked of a pod that the watch has not told.
    let counts = counted(&objects);
    assert!(most(&objects, "patch", "pods/status") <= 4, "{counts:?}");
    // The object that 225 pods wait for is one watch, and its list.
    let known =
        [("patch", "pods/status"), ("list", "configmaps"), ("watch", "configmaps"), ("watch", "pods")];
    assert!(counts.keys().all(|what| known.contains(what)), "{counts:?}");
    assert!(counts.get(&("list", "configmaps")).copied() <= Some(1), "{counts:?}");
    let watches = counts.iter().filter(|(what, _)| what.0 == "watch").map(|(_, count)| count).sum::<usize>();
    assert!(watches <= 4, "{counts:?}");

    let from = jiff::Timestamp::now();
    for name in &names {
        cluster.delete_pod(name, None);
    }
    for name in &names {
        cluster.wait_gone_within(SOON * 5, name);
    }
    let (objects, _) = since(from);
    // The bucket may be as full as it ever was.
    within_the_rate(&objects, from, OBJECTS);
    let counts = counted(&objects);
    // That it is not ready, that its container has ended, that its sandbox is gone; and the end.
    assert!(most(&objects, "patch", "pods/status") <= 3, "{counts:?}");
    assert_eq!(counts.get(&("delete", "pods")), Some(&PODS), "{counts:?}");
}
