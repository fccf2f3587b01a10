//! Pods of an API server that are changed while they run: ephemeral containers put into them, and pods that give way
//! to others.

use std::fs;

use hyper::Request;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::support::{
    ControlPlane, Node, NodeBuilder, ROOMY, SOON, STAY, STUBBORN, condition, container, main_of, pod, pod_of,
    pod_with_policy, uid, wait_for, wait_until,
};

/// Ends with code 3 when its file tells it to.
const UNTIL_TOLD: &str = "until [ -e /tmp/end ]; do sleep 0.1; done; exit 3";

pub(super) fn joined(cluster: &ControlPlane, name: &str) -> NodeBuilder {
    Node::builder(name).config(ROOMY).joined(cluster)
}

/// On the machine's own containerd.
pub(super) fn first(builder: NodeBuilder) -> NodeBuilder {
    builder
}

/// Puts ephemeral containers into a pod, as `kubectl debug` does: all that it is to have.
#[track_caller]
fn debug(cluster: &ControlPlane, pod: &str, containers: &[Value]) {
    let path = format!("/api/v1/namespaces/default/pods/{pod}/ephemeralcontainers");
    let version = cluster.block_on(cluster.client().apiserver_version()).unwrap();
    let old = version.minor.trim_end_matches('+').parse::<u32>().unwrap() < 22;
    let request = if old {
        // The subresource had a kind of its own.
        let body = json!({
            "apiVersion": "v1", "kind": "EphemeralContainers", "metadata": { "name": pod },
            "ephemeralContainers": containers,
        });
        Request::put(path).header("content-type", "application/json").body(body.to_string().into_bytes())
    } else {
        let body = json!({ "spec": { "ephemeralContainers": containers } });
        let kind = "application/strategic-merge-patch+json";
        Request::patch(path).header("content-type", kind).body(body.to_string().into_bytes())
    };
    let answer: Value = cluster.block_on(cluster.client().request(request.unwrap())).unwrap();
    let at_server = cluster.pod(pod).unwrap().spec.unwrap().ephemeral_containers.unwrap_or_default();
    assert_eq!(at_server.len(), containers.len(), "{answer}");
}

fn ephemeral(name: &str, target: Option<&str>, script: &str) -> Value {
    let mut made = container(name, script);
    if let Some(target) = target {
        made["targetContainerName"] = json!(target);
    }
    made
}

fn ephemeral_status(pod: &Pod, name: &str) -> Option<ContainerStatus> {
    let all = pod.status.as_ref()?.ephemeral_container_statuses.as_ref()?;
    all.iter().find(|status| status.name == name).cloned()
}

/// Waits until the server is told this of an ephemeral container.
#[track_caller]
fn wait_ephemeral(
    cluster: &ControlPlane,
    pod: &str,
    name: &str,
    what: &str,
    is_so: impl Fn(&ContainerStatus) -> bool,
) -> ContainerStatus {
    wait_for(SOON, &format!("{name} in pod {pod} {what}"), || {
        ephemeral_status(&cluster.pod(pod)?, name).filter(|status| is_so(status))
    })
}

fn runs(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

fn exit_code(status: &ContainerStatus) -> Option<i32> {
    Some(status.state.as_ref()?.terminated.as_ref()?.exit_code)
}

/// The newest word on a pod that comes after all that is there to be said of another.
#[track_caller]
pub(super) fn after_another(cluster: &ControlPlane, node: &str, another: &str, name: &str) -> Pod {
    cluster.bind(node, &pod(another, STAY));
    cluster.wait_ready(another);
    cluster.pod(name).unwrap()
}

fn an_ephemeral_container_runs_once(name: &str, builder: fn(NodeBuilder) -> NodeBuilder) {
    let [web, next, last] = ["web", "next", "last"].map(|end| format!("{name}-{end}"));
    let (web, next, last) = (web.as_str(), next.as_str(), last.as_str());
    let cluster = ControlPlane::shared();
    let mut node = builder(joined(&cluster, name)).start();
    let before = node.leaks();
    let made = uid(&cluster.bind(name, &pod(web, STAY)));
    let main = main_of(&cluster.wait_ready(web));
    debug(&cluster, web, &[ephemeral("debug", Some("main"), UNTIL_TOLD)]);
    let told = wait_ephemeral(&cluster, web, "debug", "runs", runs);
    assert_eq!((told.ready, told.started, told.restart_count), (false, None, 0));
    let process = |container: &str| {
        let all = node.containerd.containers_of(&made, container);
        assert_eq!(all.len(), 1, "{container} was made once");
        node.containerd.process(&all[0].id).expect("it runs")
    };
    let debugger = process("debug");
    assert_eq!(debugger.namespace("pid"), process("main").namespace("pid"), "it sees the other's processes");
    let pod_now = cluster.wait_ready(web);
    assert_eq!(
        (main_of(&pod_now), pod_now.status.as_ref().unwrap().phase.as_deref()),
        (main.clone(), Some("Running"))
    );

    // It is another agent's just as well, while it runs and when it has ended.
    node.kill9();
    node.start_agent();
    let pod_now = after_another(&cluster, name, next, web);
    assert!(ephemeral_status(&pod_now, "debug").is_some_and(|status| runs(&status)));
    assert!(debugger.alive());
    fs::write(debugger.path("/tmp/end"), "").unwrap();
    wait_ephemeral(&cluster, web, "debug", "has ended", |status| exit_code(status) == Some(3));
    // Also when the runtime has it no more.
    let dead = node.containerd.containers_of(&made, "debug").remove(0);
    node.kill9();
    node.cri("RemoveContainer", &dead.id);
    node.start_agent();
    let pod_now = after_another(&cluster, name, last, web);
    assert_eq!(ephemeral_status(&pod_now, "debug").as_ref().and_then(exit_code), Some(3));
    assert_eq!(node.containerd.containers_of(&made, "debug").len(), 0);
    assert_eq!(main_of(&pod_now), main);
    cluster.wait_ready(web);

    // A second one comes as the first did, and goes with the pod.
    let both = [ephemeral("debug", Some("main"), UNTIL_TOLD), ephemeral("more", None, STAY)];
    debug(&cluster, web, &both);
    wait_ephemeral(&cluster, web, "more", "runs", runs);
    assert_eq!(node.containerd.containers_of(&made, "debug").len(), 0);
    for pod in [web, next, last] {
        cluster.delete_pod(pod, None);
        cluster.wait_gone(pod);
    }
    node.wait_leak_free(&before);
}

#[test]
fn an_ephemeral_container_runs_once_on_containerd_1() {
    an_ephemeral_container_runs_once("jc-debug1", first);
}

#[test]
fn an_ephemeral_container_runs_once_on_containerd_2() {
    an_ephemeral_container_runs_once("jc-debug2", NodeBuilder::containerd2);
}

fn an_ephemeral_container_that_cannot_run_disturbs_nobody(
    name: &str,
    builder: fn(NodeBuilder) -> NodeBuilder,
) {
    let cluster = ControlPlane::shared();
    let node = builder(joined(&cluster, name)).start();
    let before = node.leaks();
    let web = format!("{name}-web");
    cluster.bind(name, &pod(&web, STAY));
    let main = main_of(&cluster.wait_ready(&web));
    let (mut absent, mut broken) = (ephemeral("absent", None, STAY), ephemeral("broken", Some("main"), ""));
    absent["image"] = json!("localhost/nodectl/there-is-none:1");
    broken["command"] = json!(["/there/is/none"]);
    let all = [absent, broken, ephemeral("fails", None, "exit 7"), ephemeral("runs", Some("main"), STAY)];
    debug(&cluster, &web, &all);
    wait_ephemeral(&cluster, &web, "runs", "runs", runs);
    wait_ephemeral(&cluster, &web, "fails", "has ended", |status| exit_code(status) == Some(7));
    let end = wait_ephemeral(&cluster, &web, "broken", "has ended", |status| exit_code(status).is_some());
    assert_eq!(end.state.unwrap().terminated.unwrap().reason.as_deref(), Some("StartError"));
    wait_ephemeral(&cluster, &web, "absent", "waits", |status| {
        let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
        waiting.and_then(|waiting| waiting.reason.as_deref()) == Some("ErrImageNeverPull")
    });
    // The pod itself is as it was, and is looked after while one of them is tried again and again.
    wait_until(SOON, "the pod is told as running", || node.explain(&web)["progress"]["step"] == "running");
    let pod_now = cluster.wait_ready(&web);
    assert_eq!(main_of(&pod_now), main);
    let made = uid(&pod_now);
    node.containerd.process(&node.containerd.containers_of(&made, "main").remove(0).id).unwrap().kill();
    wait_until(SOON, "it is started again", || cluster.pod(&web).is_some_and(|pod| main_of(&pod).1 == 1));
    let again = cluster.wait_ready(&web);
    // Those that saw its processes went with it.
    wait_ephemeral(&cluster, &web, "runs", "has ended", |status| exit_code(status).is_some());
    assert_eq!(node.containerd.containers_of(&uid(&again), "broken").len(), 1);
    cluster.delete_pod(&web, None);
    cluster.wait_gone(&web);
    node.wait_leak_free(&before);
}

#[test]
fn an_ephemeral_container_that_cannot_run_disturbs_nobody_on_containerd_1() {
    an_ephemeral_container_that_cannot_run_disturbs_nobody("jc-cannot1", first);
}

#[test]
fn an_ephemeral_container_that_cannot_run_disturbs_nobody_on_containerd_2() {
    an_ephemeral_container_that_cannot_run_disturbs_nobody("jc-cannot2", NodeBuilder::containerd2);
}

#[test]
fn an_ephemeral_container_waits_for_its_target_and_holds_up_nobodys_end() {
    let cluster = ControlPlane::shared();
    let node = joined(&cluster, "jc-target").start();
    let mut late = container("late", STAY);
    late["image"] = json!("localhost/nodectl/there-is-none:1");
    cluster.bind("jc-target", &pod_of("jc-late", &[container("main", STAY), late]));
    wait_until(SOON, "the first container runs", || node.containerd.running_containers().len() == 1);
    debug(&cluster, "jc-late", &[ephemeral("debug", Some("late"), STAY)]);
    // Nothing holds up one that waits for no other.
    let both = [ephemeral("debug", Some("late"), STAY), ephemeral("other", None, STAY)];
    debug(&cluster, "jc-late", &both);
    wait_ephemeral(&cluster, "jc-late", "other", "runs", runs);
    assert!(!ephemeral_status(&cluster.pod("jc-late").unwrap(), "debug").is_some_and(|s| runs(&s)));
    cluster.patch_pod(
        "jc-late",
        &json!({ "spec": { "containers": [{ "name": "late", "image": crate::support::IMAGE }] } }),
    );
    wait_ephemeral(&cluster, "jc-late", "debug", "runs", runs);
    cluster.wait_ready("jc-late");

    // One that still runs when all else has ended.
    cluster.bind("jc-target", &pod_with_policy("jc-once", "Never", &UNTIL_TOLD.replace("exit 3", "exit 0")));
    let once = uid(&cluster.wait_ready("jc-once"));
    debug(&cluster, "jc-once", &[ephemeral("debug", None, STAY)]);
    wait_ephemeral(&cluster, "jc-once", "debug", "runs", runs);
    let main = node.containerd.containers_of(&once, "main").remove(0);
    fs::write(node.containerd.process(&main.id).unwrap().path("/tmp/end"), "").unwrap();
    cluster.wait_phase("jc-once", "Succeeded");
    wait_until(SOON, "it ends with the pod", || {
        let left = node.containerd.containers_of(&once, "debug");
        left.iter().all(|one| node.containerd.process(&one.id).is_none())
    });
}

/// The reasons and messages of what was told of a pod.
pub(super) fn events_of(cluster: &ControlPlane, pod: &str) -> Vec<(String, String)> {
    let params = ListParams::default().fields(&format!("involvedObject.name={pod}"));
    let events = cluster.block_on(cluster.api::<Event>().list(&params)).unwrap();
    events
        .into_iter()
        .map(|event| (event.reason.unwrap_or_default(), event.message.unwrap_or_default()))
        .collect()
}

/// Configuration by which so many thousandths of a CPU are left for pods.
pub(super) fn left_for_pods(milli_cpu: usize) -> String {
    let cpus =
        fs::read_to_string("/proc/cpuinfo").unwrap().lines().filter(|l| l.starts_with("processor")).count();
    format!("systemReserved: {{cpu: {}m}}\n", cpus * 1000 - milli_cpu)
}

/// A pod whose container requests these thousandths of a CPU.
pub(super) fn asking(name: &str, milli_cpu: u32, script: &str) -> Value {
    let mut made = pod(name, script);
    made["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": format!("{milli_cpu}m") } });
    made
}

fn a_critical_pod_has_the_least_of_the_others_end(name: &str, builder: fn(NodeBuilder) -> NodeBuilder) {
    let named = |end: &str| format!("{name}-{end}");
    let [nothing, burstable, whole_name, plain, critical_name] =
        ["nothing", "burstable", "whole", "plain", "critical"].map(named);
    let cluster = ControlPlane::shared();
    let mut node = builder(joined(&cluster, name)).config(&left_for_pods(1000)).start();
    let mut slow = asking(&burstable, 300, STUBBORN);
    slow["spec"]["terminationGracePeriodSeconds"] = json!(8);
    let mut whole = pod(&whole_name, STAY);
    let amounts = json!({ "cpu": "600m", "memory": "32Mi" });
    whole["spec"]["containers"][0]["resources"] = json!({ "requests": amounts, "limits": amounts });
    for made in [&pod(&nothing, STAY), &slow, &whole] {
        cluster.bind(name, made);
    }
    let others = [&nothing, &whole_name].map(|name| (name, main_of(&cluster.wait_ready(name))));
    cluster.wait_ready(&burstable);
    // One that is not critical is refused.
    cluster.bind(name, &asking(&plain, 300, STAY));
    let refused = cluster.wait_phase(&plain, "Failed").status.unwrap();
    assert_eq!(refused.reason.as_deref(), Some("OutOfcpu"));

    let mut critical = asking(&critical_name, 300, STAY);
    critical["spec"]["priorityClassName"] = json!("system-node-critical");
    let critical_uid = uid(&cluster.bind(name, &critical));
    wait_until(SOON, "the other ends for it", || {
        node.view(&burstable).is_some() && node.explain(&burstable)["progress"]["step"] == "terminating"
    });
    assert_eq!(node.explain(&critical_name)["progress"]["step"], "waiting-for-room");
    // Whoever comes next goes on with it.
    node.kill9();
    assert_eq!(node.containerd.containers_of(&critical_uid, "main").len(), 0, "it runs before there is room");
    node.start_agent();
    let ended = cluster.wait_phase(&burstable, "Failed");
    let status = ended.status.as_ref().unwrap();
    assert_eq!(status.reason.as_deref(), Some("Preempting"));
    assert_eq!(status.message.as_deref(), Some("Preempted in order to admit critical pod"));
    let target = condition(&ended, "DisruptionTarget").unwrap();
    assert_eq!((target.status.as_str(), target.reason.as_deref()), ("True", Some("TerminationByKubelet")));
    cluster.wait_ready(&critical_name);
    let told = ("Preempting".to_owned(), "Preempted in order to admit critical pod".to_owned());
    wait_until(SOON, "the event is told", || events_of(&cluster, &burstable).contains(&told));
    for (name, main) in others {
        assert_eq!(main_of(&cluster.wait_ready(name)), main, "{name} is not needed");
    }
}

#[test]
fn a_critical_pod_has_the_least_of_the_others_end_on_containerd_1() {
    a_critical_pod_has_the_least_of_the_others_end("jc-room1", first);
}

#[test]
fn a_critical_pod_has_the_least_of_the_others_end_on_containerd_2() {
    a_critical_pod_has_the_least_of_the_others_end("jc-room2", NodeBuilder::containerd2);
}

#[test]
fn what_ends_already_makes_room_before_others_and_what_is_forced_out_at_once() {
    let cluster = ControlPlane::shared();
    let mut node = joined(&cluster, "jc-ends").config(&left_for_pods(1000)).start();
    let slow = |name: &str, milli_cpu: u32| {
        let mut made = asking(name, milli_cpu, STUBBORN);
        made["spec"]["terminationGracePeriodSeconds"] = json!(600);
        made
    };
    let process = |node: &Node, uid: &str| {
        let main = node.containerd.containers_of(uid, "main").remove(0);
        node.containerd.process(&main.id).expect("it has its time")
    };
    let first = uid(&cluster.bind("jc-ends", &slow("jc-ends-a", 600)));
    cluster.bind("jc-ends", &asking("jc-ends-b", 400, STAY));
    let stays = main_of(&cluster.wait_ready("jc-ends-b"));
    cluster.wait_ready("jc-ends-a");
    cluster.delete_pod("jc-ends-a", None);
    let mut critical = asking("jc-ends-c", 300, STAY);
    critical["spec"]["priorityClassName"] = json!("system-node-critical");
    cluster.bind("jc-ends", &critical);
    wait_until(SOON, "it waits", || {
        node.view("jc-ends-c").is_some()
            && node.explain("jc-ends-c")["progress"]["step"] == "waiting-for-room"
    });
    assert_eq!(node.explain("jc-ends-c")["progress"]["detail"], "wait for the end of default/jc-ends-a");
    process(&node, &first).kill();
    cluster.wait_ready("jc-ends-c");
    assert_eq!(main_of(&cluster.wait_ready("jc-ends-b")), stays);

    // Whoever has the name of one that was forced out has its place too, as the scheduler reckons, also when no agent
    // was there to hear of it.
    for killed in [false, true] {
        let old = uid(&cluster.bind("jc-ends", &slow("jc-ends-d", 300)));
        cluster.wait_ready("jc-ends-d");
        if killed {
            node.kill9();
        }
        cluster.delete_pod("jc-ends-d", Some(0));
        let new = uid(&cluster.bind("jc-ends", &asking("jc-ends-d", 300, STAY)));
        if killed {
            node.start_agent();
        }
        let made = cluster.wait_ready("jc-ends-d");
        assert_eq!((uid(&made) == new, main_of(&made).1), (true, 0));
        process(&node, &old).kill();
        wait_until(SOON, "the old one is gone", || node.containerd.containers_of(&old, "main").is_empty());
        assert_eq!(main_of(&cluster.wait_ready("jc-ends-d")), main_of(&made));
        cluster.delete_pod("jc-ends-d", None);
        cluster.wait_gone("jc-ends-d");
    }
}
