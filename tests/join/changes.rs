//! Pods of an API server that are changed while they run: ephemeral containers put into them, their resources
//! changed in place, and pods that give way to a critical one.

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

fn joined(cluster: &ControlPlane, name: &str) -> NodeBuilder {
    Node::builder(name).config(ROOMY).joined(cluster)
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
fn after_another(cluster: &ControlPlane, node: &str, another: &str, name: &str) -> Pod {
    cluster.bind(node, &pod(another, STAY));
    cluster.wait_ready(another);
    cluster.pod(name).unwrap()
}

#[test]
fn an_ephemeral_container_runs_once_beside_the_others_and_over_restarts() {
    let cluster = ControlPlane::shared();
    let mut node = joined(&cluster, "jc-debug").start();
    let before = node.leaks();
    let made = uid(&cluster.bind("jc-debug", &pod("jc-web", STAY)));
    let main = main_of(&cluster.wait_ready("jc-web"));
    debug(&cluster, "jc-web", &[ephemeral("debug", Some("main"), UNTIL_TOLD)]);
    let told = wait_ephemeral(&cluster, "jc-web", "debug", "runs", runs);
    assert_eq!((told.ready, told.started, told.restart_count), (false, None, 0));
    let process = |name: &str| {
        let all = node.containerd.containers_of(&made, name);
        assert_eq!(all.len(), 1, "{name} was made once");
        node.containerd.process(&all[0].id).expect("it runs")
    };
    let debugger = process("debug");
    assert_eq!(debugger.namespace("pid"), process("main").namespace("pid"), "it sees the other's processes");
    let web = cluster.wait_ready("jc-web");
    assert_eq!(
        (main_of(&web), web.status.as_ref().unwrap().phase.as_deref()),
        (main.clone(), Some("Running"))
    );

    // It is another agent's just as well, while it runs and when it has ended.
    node.kill9();
    node.start_agent();
    let web = after_another(&cluster, "jc-debug", "jc-next", "jc-web");
    assert!(ephemeral_status(&web, "debug").is_some_and(|status| runs(&status)));
    assert!(debugger.alive());
    fs::write(debugger.path("/tmp/end"), "").unwrap();
    wait_ephemeral(&cluster, "jc-web", "debug", "has ended", |status| exit_code(status) == Some(3));
    // Also when the runtime has it no more.
    let dead = node.containerd.containers_of(&made, "debug").remove(0);
    node.kill9();
    node.cri("RemoveContainer", &dead.id);
    node.start_agent();
    let web = after_another(&cluster, "jc-debug", "jc-last", "jc-web");
    assert_eq!(ephemeral_status(&web, "debug").as_ref().and_then(exit_code), Some(3));
    assert_eq!(node.containerd.containers_of(&made, "debug").len(), 0);
    assert_eq!(main_of(&web), main);
    cluster.wait_ready("jc-web");

    // A second one comes as the first did, and goes with the pod.
    let both = [ephemeral("debug", Some("main"), UNTIL_TOLD), ephemeral("more", None, STAY)];
    debug(&cluster, "jc-web", &both);
    wait_ephemeral(&cluster, "jc-web", "more", "runs", runs);
    assert_eq!(node.containerd.containers_of(&made, "debug").len(), 0);
    for name in ["jc-web", "jc-next", "jc-last"] {
        cluster.delete_pod(name, None);
        cluster.wait_gone(name);
    }
    node.wait_leak_free(&before);
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
fn events_of(cluster: &ControlPlane, pod: &str) -> Vec<(String, String)> {
    let params = ListParams::default().fields(&format!("involvedObject.name={pod}"));
    let events = cluster.block_on(cluster.api::<Event>().list(&params)).unwrap();
    events
        .into_iter()
        .map(|event| (event.reason.unwrap_or_default(), event.message.unwrap_or_default()))
        .collect()
}

/// Configuration by which so many thousandths of a CPU are left for pods.
fn left_for_pods(milli_cpu: usize) -> String {
    let cpus =
        fs::read_to_string("/proc/cpuinfo").unwrap().lines().filter(|l| l.starts_with("processor")).count();
    format!("systemReserved: {{cpu: {}m}}\n", cpus * 1000 - milli_cpu)
}

/// A pod whose container requests these thousandths of a CPU.
fn asking(name: &str, milli_cpu: u32, script: &str) -> Value {
    let mut made = pod(name, script);
    made["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": format!("{milli_cpu}m") } });
    made
}

#[test]
fn a_critical_pod_has_the_least_of_the_others_end_and_then_runs() {
    let cluster = ControlPlane::shared();
    let mut node = joined(&cluster, "jc-room").config(&left_for_pods(1000)).start();
    let mut slow = asking("jc-burstable", 300, STUBBORN);
    slow["spec"]["terminationGracePeriodSeconds"] = json!(8);
    let mut whole = pod("jc-whole", STAY);
    let amounts = json!({ "cpu": "600m", "memory": "32Mi" });
    whole["spec"]["containers"][0]["resources"] = json!({ "requests": amounts, "limits": amounts });
    for made in [&pod("jc-nothing", STAY), &slow, &whole] {
        cluster.bind("jc-room", made);
    }
    let others = ["jc-nothing", "jc-whole"].map(|name| (name, main_of(&cluster.wait_ready(name))));
    cluster.wait_ready("jc-burstable");
    // One that is not critical is refused.
    cluster.bind("jc-room", &asking("jc-plain", 300, STAY));
    let refused = cluster.wait_phase("jc-plain", "Failed").status.unwrap();
    assert_eq!(refused.reason.as_deref(), Some("OutOfcpu"));

    let mut critical = asking("jc-critical", 300, STAY);
    critical["spec"]["priorityClassName"] = json!("system-node-critical");
    let critical_uid = uid(&cluster.bind("jc-room", &critical));
    wait_until(SOON, "the other ends for it", || {
        node.view("jc-burstable").is_some()
            && node.explain("jc-burstable")["progress"]["step"] == "terminating"
    });
    assert_eq!(node.explain("jc-critical")["progress"]["step"], "waiting-for-room");
    // Whoever comes next goes on with it.
    node.kill9();
    assert_eq!(node.containerd.containers_of(&critical_uid, "main").len(), 0, "it runs before there is room");
    node.start_agent();
    let ended = cluster.wait_phase("jc-burstable", "Failed");
    let status = ended.status.as_ref().unwrap();
    assert_eq!(status.reason.as_deref(), Some("Preempting"));
    assert_eq!(status.message.as_deref(), Some("Preempted in order to admit critical pod"));
    let target = condition(&ended, "DisruptionTarget").unwrap();
    assert_eq!((target.status.as_str(), target.reason.as_deref()), ("True", Some("TerminationByKubelet")));
    cluster.wait_ready("jc-critical");
    let told = ("Preempting".to_owned(), "Preempted in order to admit critical pod".to_owned());
    wait_until(SOON, "the event is told", || events_of(&cluster, "jc-burstable").contains(&told));
    for (name, main) in others {
        assert_eq!(main_of(&cluster.wait_ready(name)), main, "{name} is not needed");
    }
}

fn sized(name: &str, cpu: &str, cpu_limit: &str, memory: &str) -> Value {
    let mut made = pod(name, STAY);
    made["spec"]["containers"][0]["resources"] = resources(cpu, cpu_limit, memory);
    made
}

fn resources(cpu: &str, cpu_limit: &str, memory: &str) -> Value {
    json!({ "requests": { "cpu": cpu, "memory": memory }, "limits": { "cpu": cpu_limit, "memory": memory } })
}

/// Has the server's pod ask for other resources, as its next generation.
fn resize(cluster: &ControlPlane, name: &str, generation: u32, resources: &Value) {
    cluster.change_stored_pod(name, |pod| {
        pod["metadata"]["generation"] = json!(generation);
        pod["spec"]["containers"][0]["resources"] = resources.clone();
    });
}

/// The microseconds of CPU time of each tenth of a second, and the bytes of memory, that a group may have: as v1 tells
/// them, or v2 with the period behind the quota.
fn limits(process: crate::support::Process) -> [String; 2] {
    let quota = process.cgroup_value("cpu", "cpu.cfs_quota_us", "cpu.max");
    let quota = quota.split_whitespace().next().unwrap_or_default().to_owned();
    [quota, process.cgroup_value("memory", "memory.limit_in_bytes", "memory.max").trim().to_owned()]
}

fn mebibytes(count: u64) -> String {
    (count << 20).to_string()
}

#[test]
fn resources_change_in_place_as_soon_as_there_is_room() {
    let cluster = ControlPlane::start_with(&[("NODECTL_STORAGE", "application/json")]);
    let mut node = joined(&cluster, "jc-size").config(&left_for_pods(1000)).start();
    let made = uid(&cluster.bind("jc-size", &sized("jc-grow", "100m", "200m", "64Mi")));
    let main = main_of(&cluster.wait_ready("jc-grow"));
    let container = node.containerd.containers_of(&made, "main").remove(0);
    let process = node.containerd.process(&container.id).unwrap();
    let of_pod = || {
        let parent = |controller| process.cgroup(controller).parent().unwrap().to_owned();
        let read = |folder: std::path::PathBuf, v1: &str, v2: &str| {
            let file = if folder.join(v1).exists() { v1 } else { v2 };
            let text = fs::read_to_string(folder.join(file)).unwrap();
            text.split_whitespace().next().unwrap().to_owned()
        };
        [
            read(parent("cpu"), "cpu.cfs_quota_us", "cpu.max"),
            read(parent("memory"), "memory.limit_in_bytes", "memory.max"),
        ]
    };
    assert_eq!(limits(process), ["20000".to_owned(), mebibytes(64)]);
    let wait_limits = |quota: &str, memory: u64| {
        let wanted = [quota.to_owned(), mebibytes(memory)];
        wait_until(SOON, &format!("the container and its pod have {wanted:?}"), || {
            limits(process) == wanted && of_pod() == wanted
        });
    };
    let wait_pending = |reason: &str| {
        wait_for(SOON, &format!("the resize is {reason}"), || {
            let pod = cluster.pod("jc-grow").unwrap();
            condition(&pod, "PodResizePending").filter(|c| c.reason.as_deref() == Some(reason)).cloned()
        })
    };
    let wait_over = || {
        wait_until(SOON, "nothing is left of the resize", || {
            let pod = cluster.pod("jc-grow").unwrap();
            ["PodResizePending", "PodResizeInProgress"].iter().all(|type_| condition(&pod, type_).is_none())
        });
    };

    resize(&cluster, "jc-grow", 2, &resources("150m", "300m", "96Mi"));
    wait_limits("30000", 96);
    resize(&cluster, "jc-grow", 3, &resources("100m", "150m", "48Mi"));
    wait_limits("15000", 48);

    // What others have is not taken from them, and what comes free is taken at once.
    cluster.bind("jc-size", &asking("jc-other", 700, STAY));
    cluster.wait_ready("jc-other");
    resize(&cluster, "jc-grow", 4, &resources("500m", "600m", "48Mi"));
    let pending = wait_pending("Deferred");
    let words = "Node didn't have enough resource: cpu, requested: 500, used: 700, capacity: 1000";
    assert_eq!(pending.message.as_deref(), Some(words));
    assert_eq!(limits(process)[0], "15000");
    // Nor by another agent, which has what was given on its disk.
    node.kill9();
    node.start_agent();
    after_another(&cluster, "jc-size", "jc-next", "jc-grow");
    assert_eq!(limits(process)[0], "15000");
    cluster.delete_pod("jc-other", None);
    cluster.wait_gone("jc-other");
    wait_limits("60000", 48);
    wait_over();

    resize(&cluster, "jc-grow", 5, &resources("5", "6", "48Mi"));
    let pending = wait_pending("Infeasible");
    let words = "Node didn't have enough capacity: cpu, requested: 5000, capacity: 1000";
    assert_eq!(pending.message.as_deref(), Some(words));

    // What changes while there is no agent is done by the next one.
    node.kill9();
    resize(&cluster, "jc-grow", 6, &resources("200m", "250m", "64Mi"));
    node.start_agent();
    wait_limits("25000", 64);
    wait_over();
    assert!(process.alive());
    assert_eq!(main_of(&cluster.wait_ready("jc-grow")), main);
    assert_eq!(node.containerd.containers_of(&made, "main").len(), 1);
    wait_until(SOON, "the events are told", || {
        let told = events_of(&cluster, "jc-grow");
        let all = ["ResizeStarted", "ResizeCompleted", "ResizeDeferred", "ResizeInfeasible"];
        all.iter()
            .all(|reason| told.iter().any(|(r, message)| r == reason && message.starts_with("Pod resize ")))
    });
}
