//! The resources of an API server's pods, changed while they run: what the kernel is told, what is told of it, and
//! what an agent or a runtime that is killed in the middle makes of it.
//!
//! The API server that tests have knows nothing of it: what one that does would store is put into its store.

use std::{fs, path::PathBuf};

use k8s_openapi::api::core::v1::{Pod, PodCondition};
use serde_json::{Value, json};

use super::changes::{after_another, asking, events_of, first, joined, left_for_pods};
use crate::support::{
    ControlPlane, Node, NodeBuilder, Process, SOON, STAY, condition, main_of, pod, uid, wait_for, wait_until,
};

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
fn limits(process: Process) -> [String; 2] {
    let quota = process.cgroup_value("cpu", "cpu.cfs_quota_us", "cpu.max");
    let quota = quota.split_whitespace().next().unwrap_or_default().to_owned();
    [quota, process.cgroup_value("memory", "memory.limit_in_bytes", "memory.max").trim().to_owned()]
}

fn mebibytes(count: u64) -> String {
    (count << 20).to_string()
}

/// The limits of the group above.
fn limits_of_pod(process: Process) -> [String; 2] {
    let parent = |controller| process.cgroup(controller).parent().unwrap().to_owned();
    let read = |folder: PathBuf, v1: &str, v2: &str| {
        let file = if folder.join(v1).exists() { v1 } else { v2 };
        let text = fs::read_to_string(folder.join(file)).unwrap();
        text.split_whitespace().next().unwrap().to_owned()
    };
    [
        read(parent("cpu"), "cpu.cfs_quota_us", "cpu.max"),
        read(parent("memory"), "memory.limit_in_bytes", "memory.max"),
    ]
}

/// A pod with one container of 100m to 200m and 64Mi, alone on a node that has one CPU for pods.
struct Grown {
    cluster: std::sync::Arc<ControlPlane>,
    node: Node,
    pod: String,
    uid: String,
    generation: u32,
    /// The container as it was made, which it is to stay.
    main: (String, i32),
    process: Process,
}

impl Grown {
    fn start(name: &str, builder: fn(NodeBuilder) -> NodeBuilder) -> Self {
        let cluster = ControlPlane::shared();
        let node = builder(joined(&cluster, name)).config(&left_for_pods(1000)).start();
        let pod = format!("{name}-grow");
        let uid = uid(&cluster.bind(name, &sized(&pod, "100m", "200m", "64Mi")));
        let main = main_of(&cluster.wait_ready(&pod));
        let container = node.containerd.containers_of(&uid, "main").remove(0);
        let process = node.containerd.process(&container.id).unwrap();
        let made = Self { cluster, node, pod, uid, generation: 1, main, process };
        made.wait_limits("20000", mebibytes(64));
        made
    }

    fn resize(&mut self, resources: &Value) {
        self.generation += 1;
        resize(&self.cluster, &self.pod, self.generation, resources);
    }

    fn now(&self) -> Pod {
        self.cluster.pod(&self.pod).unwrap()
    }

    /// The kernel's word for container and pod.
    #[track_caller]
    fn wait_limits(&self, quota: &str, memory: impl Into<String>) {
        let wanted = [quota.to_owned(), memory.into()];
        wait_until(SOON, &format!("the container and its pod have {wanted:?}"), || {
            limits(self.process) == wanted && limits_of_pod(self.process) == wanted
        });
    }

    #[track_caller]
    fn wait_condition(&self, type_: &str, reason: Option<&str>) -> PodCondition {
        wait_for(SOON, &format!("{type_} with the reason {reason:?}"), || {
            condition(&self.now(), type_).filter(|c| c.reason.as_deref() == reason).cloned()
        })
    }

    #[track_caller]
    fn wait_over(&self) {
        wait_until(SOON, "nothing is left of the resize", || {
            let pod = self.now();
            ["PodResizePending", "PodResizeInProgress"].iter().all(|type_| condition(&pod, type_).is_none())
        });
    }

    /// Nothing was started again.
    #[track_caller]
    fn check_same(&self) {
        assert!(self.process.alive());
        assert_eq!(main_of(&self.cluster.wait_ready(&self.pod)), self.main);
        assert_eq!(self.node.containerd.containers_of(&self.uid, "main").len(), 1);
    }
}

/// As the kernel says it of a group that is not limited.
fn unlimited(process: Process) -> [String; 2] {
    let v2 = process.cgroup("memory").join("memory.max").exists();
    let [quota, memory] = if v2 { ["max", "max"] } else { ["-1", "9223372036854771712"] };
    [quota.to_owned(), memory.to_owned()]
}

fn resources_change_in_place(name: &str, builder: fn(NodeBuilder) -> NodeBuilder) {
    let mut grown = Grown::start(name, builder);
    grown.resize(&resources("150m", "300m", "96Mi"));
    grown.wait_limits("30000", mebibytes(96));
    grown.resize(&resources("100m", "150m", "48Mi"));
    grown.wait_limits("15000", mebibytes(48));

    // What others have is not taken from them, and what comes free is taken at once.
    let other = format!("{name}-other");
    grown.cluster.bind(name, &asking(&other, 700, STAY));
    grown.cluster.wait_ready(&other);
    grown.resize(&resources("500m", "600m", "48Mi"));
    let pending = grown.wait_condition("PodResizePending", Some("Deferred"));
    let words = "Node didn't have enough resource: cpu, requested: 500, used: 700, capacity: 1000";
    assert_eq!(pending.message.as_deref(), Some(words));
    assert_eq!(limits(grown.process)[0], "15000");
    // Nor by another agent, which has what was given on its disk.
    grown.node.kill9();
    grown.node.start_agent();
    after_another(&grown.cluster, name, &format!("{name}-next"), &grown.pod);
    assert_eq!(limits(grown.process)[0], "15000");
    // Who asks no more has what it had.
    grown.resize(&resources("100m", "150m", "48Mi"));
    grown.wait_over();
    assert_eq!(limits(grown.process)[0], "15000");
    grown.resize(&resources("500m", "600m", "48Mi"));
    grown.wait_condition("PodResizePending", Some("Deferred"));
    grown.cluster.delete_pod(&other, None);
    grown.cluster.wait_gone(&other);
    grown.wait_limits("60000", mebibytes(48));
    grown.wait_over();

    grown.resize(&resources("5", "6", "48Mi"));
    let pending = grown.wait_condition("PodResizePending", Some("Infeasible"));
    let words = "Node didn't have enough capacity: cpu, requested: 5000, capacity: 1000";
    assert_eq!(pending.message.as_deref(), Some(words));

    // What changes while there is no agent is done by the next one.
    grown.node.kill9();
    grown.resize(&resources("200m", "250m", "64Mi"));
    grown.node.start_agent();
    grown.wait_limits("25000", mebibytes(64));
    grown.wait_over();
    grown.check_same();
    wait_until(SOON, "the events are told", || {
        let told = events_of(&grown.cluster, &grown.pod);
        let all = ["ResizeStarted", "ResizeCompleted", "ResizeDeferred", "ResizeInfeasible"];
        all.iter()
            .all(|reason| told.iter().any(|(r, message)| r == reason && message.starts_with("Pod resize ")))
    });
}

#[test]
fn resources_change_in_place_on_containerd_1() {
    resources_change_in_place("jr-place1", first);
}

#[test]
fn resources_change_in_place_on_containerd_2() {
    resources_change_in_place("jr-place2", NodeBuilder::containerd2);
}

fn limits_come_and_go(name: &str, builder: fn(NodeBuilder) -> NodeBuilder) {
    let mut grown = Grown::start(name, builder);
    let [no_quota, no_bytes] = unlimited(grown.process);
    let requests = json!({ "cpu": "100m", "memory": "32Mi" });
    grown.resize(&json!({ "requests": requests }));
    grown.wait_limits(&no_quota, no_bytes.as_str());
    grown.resize(&json!({ "requests": requests, "limits": { "cpu": "300m", "memory": "0" } }));
    grown.wait_limits("30000", no_bytes.as_str());
    grown.resize(&json!({ "requests": requests, "limits": { "memory": "96Mi" } }));
    grown.wait_limits(&no_quota, mebibytes(96));
    // The kernel has no less than a hundredth of a CPU.
    grown.resize(&json!({ "requests": { "cpu": "0" }, "limits": { "cpu": "1m", "memory": "96Mi" } }));
    grown.wait_limits("1000", mebibytes(96));
    grown.resize(&json!({ "requests": requests, "limits": { "cpu": "300m", "memory": "96Mi" } }));
    grown.wait_limits("30000", mebibytes(96));
    grown.wait_over();

    // Less memory than the container uses is not set, and nothing else of that resize is.
    grown.resize(&json!({ "requests": { "cpu": "100m", "memory": "4Ki" },
        "limits": { "cpu": "100m", "memory": "4Ki" } }));
    grown.wait_condition("PodResizePending", Some("Infeasible"));
    grown.resize(&json!({ "requests": { "cpu": "100m" }, "limits": { "cpu": "200m", "memory": "4Ki" } }));
    let failed = grown.wait_condition("PodResizeInProgress", Some("Error"));
    let message = failed.message.unwrap_or_default();
    assert!(
        message.starts_with("cannot decrease memory limits: ") && message.contains("(4096)"),
        "{message}"
    );
    assert_eq!(limits(grown.process), ["30000".to_owned(), mebibytes(96)]);
    assert_eq!(limits_of_pod(grown.process), limits(grown.process));
    // The last word counts, of many that come at once too.
    for quota in ["210m", "220m", "230m", "240m"] {
        grown.resize(&json!({ "requests": { "cpu": "100m" }, "limits": { "cpu": quota, "memory": "48Mi" } }));
    }
    grown.wait_limits("24000", mebibytes(48));
    grown.wait_over();
    grown.check_same();
    grown.cluster.delete_pod(&grown.pod, None);
    grown.cluster.wait_gone(&grown.pod);
}

#[test]
fn limits_come_and_go_on_containerd_1() {
    limits_come_and_go("jr-limits1", first);
}

#[test]
fn limits_come_and_go_on_containerd_2() {
    limits_come_and_go("jr-limits2", NodeBuilder::containerd2);
}

fn memory_that_the_pod_holds_is_not_taken_from_it(name: &str, builder: fn(NodeBuilder) -> NodeBuilder) {
    let cluster = ControlPlane::shared();
    let node = builder(joined(&cluster, name)).start();
    // What is in a volume in memory was written by a container that is gone: it is the pod's.
    let fill = format!("[ -e /m/x ] || {{ dd if=/dev/zero of=/m/x bs=1M count=40; exit 1; }}; {STAY}");
    let mut made = pod(name, &fill);
    made["spec"]["containers"][0]["resources"] = resources("100m", "200m", "64Mi");
    made["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "m", "mountPath": "/m" }]);
    made["spec"]["volumes"] = json!([{ "name": "m", "emptyDir": { "medium": "Memory" } }]);
    let made = uid(&cluster.bind(name, &made));
    let running = || {
        let all = node.containerd.containers_of(&made, "main");
        all.iter().find_map(|one| node.containerd.process(&one.id)).filter(|process| process.is_begun())
    };
    wait_until(SOON, "it has filled its volume", || {
        cluster.pod(name).is_some_and(|pod| {
            pod.status.as_ref().is_some_and(|status| status.container_statuses.is_some())
                && main_of(&pod).1 == 1
        })
    });
    let main = main_of(&cluster.wait_ready(name));
    let process = running().expect("it runs");
    resize(&cluster, name, 2, &resources("100m", "150m", "32Mi"));
    let failed = wait_for(SOON, "the resize fails", || {
        let pod = cluster.pod(name)?;
        condition(&pod, "PodResizeInProgress")
            .filter(|c| c.reason.as_deref() == Some("Error"))?
            .message
            .clone()
    });
    let words =
        "cannot decrease memory limits: attempting to set pod memory limit (33554432) below current usage (";
    assert!(failed.starts_with(words), "{failed}");
    for limits in [limits(process), limits_of_pod(process)] {
        assert_eq!(limits, ["20000".to_owned(), mebibytes(64)]);
    }
    // It goes on when there is room for it.
    fs::remove_file(process.path("/m/x")).unwrap();
    wait_until(SOON, "it has what it is to have", || {
        let wanted = ["15000".to_owned(), mebibytes(32)];
        limits(process) == wanted && limits_of_pod(process) == wanted
    });
    wait_until(SOON, "it is over", || {
        condition(&cluster.pod(name).unwrap(), "PodResizeInProgress").is_none()
    });
    assert_eq!(main_of(&cluster.wait_ready(name)), main);
}

#[test]
fn memory_that_the_pod_holds_is_not_taken_from_it_on_containerd_1() {
    memory_that_the_pod_holds_is_not_taken_from_it("jr-holds1", first);
}

#[test]
fn memory_that_the_pod_holds_is_not_taken_from_it_on_containerd_2() {
    memory_that_the_pod_holds_is_not_taken_from_it("jr-holds2", NodeBuilder::containerd2);
}

fn a_resize_outlives_agent_and_runtime(name: &str, builder: fn(NodeBuilder) -> NodeBuilder) {
    let mut grown = Grown::start(name, builder);
    // A runtime that does not answer: the resize is told of, and the agent dies in the middle of the call.
    grown.node.containerd.freeze();
    grown.resize(&resources("200m", "400m", "96Mi"));
    grown.wait_condition("PodResizeInProgress", None);
    wait_until(SOON, "the pod has room", || {
        limits_of_pod(grown.process) == ["40000".to_owned(), mebibytes(96)]
    });
    grown.node.kill9();
    assert_eq!(limits(grown.process), ["20000".to_owned(), mebibytes(64)]);
    grown.node.containerd.thaw();
    grown.node.start_agent();
    grown.wait_limits("40000", mebibytes(96));
    grown.wait_over();

    // One that has died, and comes back to an agent that was there, or to the next one.
    for killed in [false, true] {
        grown.node.containerd.kill9();
        grown.resize(&resources("100m", "200m", "48Mi"));
        if killed {
            grown.node.kill9();
            grown.node.start_agent();
        } else {
            grown.wait_condition("PodResizeInProgress", None);
        }
        grown.resize(&resources("100m", "250m", "80Mi"));
        grown.node.containerd.resume();
        grown.wait_limits("25000", mebibytes(80));
        grown.wait_over();
        grown.resize(&resources("100m", "300m", "64Mi"));
        grown.wait_limits("30000", mebibytes(64));
    }
    grown.check_same();

    // A container that ends while it is resized is started with what it is to have.
    let agent = grown.node.agent_pid();
    grown.node.signal(nix::sys::signal::Signal::SIGSTOP);
    grown.process.kill();
    grown.resize(&resources("200m", "500m", "128Mi"));
    assert_eq!(agent, grown.node.agent_pid());
    grown.node.signal(nix::sys::signal::Signal::SIGCONT);
    wait_until(SOON, "it is started again", || main_of(&grown.now()).1 == 1);
    grown.cluster.wait_ready(&grown.pod);
    let all = grown.node.containerd.containers_of(&grown.uid, "main");
    let running = all.iter().find_map(|one| grown.node.containerd.process(&one.id));
    grown.process = running.expect("one runs");
    grown.wait_limits("50000", mebibytes(128));
    grown.wait_over();
    let told = events_of(&grown.cluster, &grown.pod);
    assert!(!told.iter().any(|(reason, _)| reason == "Failed"), "{told:?}");
}

#[test]
fn a_resize_outlives_agent_and_runtime_on_containerd_1() {
    a_resize_outlives_agent_and_runtime("jr-outlives1", first);
}

#[test]
fn a_resize_outlives_agent_and_runtime_on_containerd_2() {
    a_resize_outlives_agent_and_runtime("jr-outlives2", NodeBuilder::containerd2);
}
