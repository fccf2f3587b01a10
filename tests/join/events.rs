//! What happens on a node, as a real API server is told of it in Events: kubelet's reasons and words, in their order,
//! counted and not repeated, and never in the pods' way.

use k8s_openapi::api::core::v1::{Event, Node as NodeObject};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::support::{
    ControlPlane, IMAGE, Node, NodeBuilder, SOON, STAY, container, pod, pod_of, pod_with_policy, wait_for,
    wait_until,
};

/// Without cluster DNS every pod would be told of it.
const DNS: &str = "clusterDNS: [10.96.0.10]\nclusterDomain: cluster.local\n";
/// The disk of a machine that tests run on may be fuller than a node's should be.
const ROOMY: &str = "evictionHard: {memory.available: 1Mi, nodefs.available: 1Mi}\n";

fn joined(cluster: &ControlPlane, name: &str) -> NodeBuilder {
    Node::builder(name).config(DNS).config(ROOMY).joined(cluster)
}

/// What was told of a pod or a node, in the order in which it first happened.
fn events(cluster: &ControlPlane, name: &str) -> Vec<Event> {
    let list = cluster.block_on(cluster.api::<Event>().list(&ListParams::default())).unwrap();
    let of = |event: &Event| {
        let source = event.source.as_ref().and_then(|source| source.component.as_deref());
        event.involved_object.name.as_deref() == Some(name) && source == Some("kubelet")
    };
    // Its name ends with the time in nanoseconds.
    let nanos = |event: &Event| {
        let name = event.metadata.name.clone().unwrap();
        u128::from_str_radix(name.rsplit('.').next().unwrap(), 16).unwrap()
    };
    let mut events: Vec<Event> = list.items.into_iter().filter(of).collect();
    events.sort_by_key(nanos);
    events
}

fn reason(event: &Event) -> &str {
    event.reason.as_deref().unwrap()
}

fn message(event: &Event) -> &str {
    event.message.as_deref().unwrap()
}

fn reasons(events: &[Event]) -> Vec<&str> {
    events.iter().map(reason).collect()
}

fn messages(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| format!("{}: {}", reason(event), message(event))).collect()
}

/// Waits for an event with a message that begins so.
#[track_caller]
fn wait_event(cluster: &ControlPlane, name: &str, wanted: &str, begin: &str) -> Event {
    wait_for(SOON, &format!("{wanted} of {name}: {begin}"), || {
        let all = events(cluster, name);
        all.into_iter().find(|event| reason(event) == wanted && message(event).starts_with(begin))
    })
}

#[test]
fn a_pods_life_is_told_in_kubelets_words_and_order() {
    let cluster = ControlPlane::shared();
    let node = joined(&cluster, "je-life").start();
    let mut life = pod("je-web", STAY);
    life["spec"]["initContainers"] = json!([container("first", "true")]);
    let made = cluster.bind("je-life", &life);
    cluster.wait_ready("je-web");
    cluster.delete_pod("je-web", None);
    cluster.wait_gone("je-web");
    wait_event(&cluster, "je-web", "Killing", "Stopping container main");
    let told = events(&cluster, "je-web");
    let pulled = format!(
        "Pulled: Container image \"{IMAGE}\" already present on machine and can be accessed by the pod"
    );
    let (created, started) = ("Created: Container created", "Started: Container started");
    let expected =
        [&*pulled, created, started, &*pulled, created, started, "Killing: Stopping container main"];
    assert_eq!(messages(&told), expected);
    let paths: Vec<_> =
        told.iter().map(|event| event.involved_object.field_path.as_deref().unwrap()).collect();
    let (first, main) = ("spec.initContainers{first}", "spec.containers{main}");
    assert_eq!(paths, [first, first, first, main, main, main, main]);
    let event = &told[0];
    assert_eq!(event.involved_object.uid, made.metadata.uid);
    assert_eq!(event.involved_object.kind.as_deref(), Some("Pod"));
    assert_eq!(event.source.as_ref().unwrap().host.as_deref(), Some("je-life"));
    assert_eq!(event.reporting_component.as_deref(), Some("kubelet"));
    assert_eq!(event.reporting_instance.as_deref(), Some("je-life"));
    assert!(told.iter().all(|event| event.type_.as_deref() == Some("Normal") && event.count == Some(1)));
    drop(node);
}

#[test]
fn a_crash_loop_is_counted_and_not_repeated() {
    let cluster = ControlPlane::shared();
    let node = joined(&cluster, "je-loop")
        .config(
            "crashLoopBackOff: {maxContainerRestartPeriod: 1s}\nfeatureGates: {KubeletCrashLoopBackOffMax: true}\n",
        )
        .start();
    let made = cluster.bind("je-loop", &pod("je-crash", "exit 3"));
    wait_until(SOON, "back-offs are counted", || {
        let told = events(&cluster, "je-crash");
        let count = |wanted| told.iter().find(|event| reason(event) == wanted).and_then(|event| event.count);
        count("BackOff") >= Some(3) && count("Started") >= Some(4)
    });
    let told = events(&cluster, "je-crash");
    assert_eq!(reasons(&told), ["Pulled", "Created", "Started", "BackOff"]);
    let uid = made.metadata.uid.unwrap();
    assert_eq!(
        message(&told[3]),
        format!("Back-off restarting failed container main in pod je-crash_default({uid})")
    );
    assert_eq!(told[3].type_.as_deref(), Some("Warning"));
    assert!(told[3].last_timestamp > told[3].first_timestamp);
    drop(node);
}

#[test]
fn an_image_that_cannot_be_had_is_told() {
    let cluster = ControlPlane::shared();
    let node = joined(&cluster, "je-image").start();
    // Nobody listens there.
    let image = "127.0.0.1:1/none:1";
    let mut missing = pod("je-missing", STAY);
    missing["spec"]["containers"][0]["image"] = json!(image);
    missing["spec"]["containers"][0]["imagePullPolicy"] = json!("IfNotPresent");
    cluster.bind("je-image", &missing);
    wait_event(&cluster, "je-missing", "Failed", "Error: ImagePullBackOff");
    let told = messages(&events(&cluster, "je-missing"));
    assert_eq!(told[0], format!("Pulling: Pulling image \"{image}\""));
    assert!(told[1].starts_with(&format!("Failed: Failed to pull image \"{image}\": ")), "{told:?}");
    assert_eq!(told[2], "Failed: Error: ErrImagePull");
    assert_eq!(told[3], format!("BackOff: Back-off pulling image \"{image}\""));
    assert_eq!(told[4], "Failed: Error: ImagePullBackOff");
    let mut never = missing.clone();
    never["metadata"]["name"] = json!("je-never");
    never["spec"]["containers"][0]["imagePullPolicy"] = json!("Never");
    cluster.bind("je-image", &never);
    wait_event(&cluster, "je-never", "Failed", "Error: ErrImageNeverPull");
    let told = messages(&events(&cluster, "je-never"));
    let first =
        format!("ErrImageNeverPull: Container image \"{image}\" is not present with pull policy of Never");
    assert_eq!(told, [&*first, "Failed: Error: ErrImageNeverPull"]);
    drop(node);
}

#[test]
fn probes_and_hooks_that_fail_are_told_and_not_what_hooks_have_said() {
    let cluster = ControlPlane::shared();
    let node = joined(&cluster, "je-probe").start();
    let exec = |script: &str| json!({ "command": ["sh", "-c", script] });
    let mut unready = container("unready", STAY);
    unready["readinessProbe"] = json!({ "exec": exec("echo not yet; exit 1"), "periodSeconds": 1 });
    let mut dead = container("dead", STAY);
    dead["livenessProbe"] = json!({ "exec": exec("exit 1"), "periodSeconds": 1, "failureThreshold": 1 });
    cluster.bind("je-probe", &pod_of("je-probed", &[unready, dead]));
    let told = wait_event(&cluster, "je-probed", "Unhealthy", "Readiness probe failed: exit code 1: not yet");
    assert_eq!(told.involved_object.field_path.as_deref(), Some("spec.containers{unready}"));
    assert_eq!(told.type_.as_deref(), Some("Warning"));
    wait_event(&cluster, "je-probed", "Unhealthy", "Liveness probe failed: ");
    let killing = "Container dead failed liveness probe, will be restarted";
    let told = wait_event(&cluster, "je-probed", "Killing", killing);
    assert_eq!(told.involved_object.field_path.as_deref(), Some("spec.containers{dead}"));

    let mut hooked = pod_with_policy("je-hooked", "Never", STAY);
    hooked["spec"]["containers"][0]["lifecycle"] = json!({
        "postStart": { "exec": exec("echo hunter2; exit 1") },
        "preStop": { "exec": exec("echo hunter2 >&2; exit 1") },
    });
    cluster.bind("je-probe", &hooked);
    wait_event(&cluster, "je-hooked", "FailedPreStopHook", "PreStopHook failed");
    let told = messages(&events(&cluster, "je-hooked"));
    let after = ["FailedPostStartHook: PostStartHook failed", "Killing: FailedPostStartHook"];
    assert_eq!(told[3..5], after);
    assert!(!told.iter().any(|told| told.contains("hunter2")), "{told:?}");
    drop(node);
}

#[test]
fn what_keeps_a_pod_from_being_started_is_told() {
    let cluster = ControlPlane::shared();
    let node = joined(&cluster, "je-wait").start();
    let mut waits = pod("je-waits", STAY);
    waits["spec"]["volumes"] = json!([{ "name": "set", "configMap": { "name": "je-none" } }]);
    waits["spec"]["containers"][0]["volumeMounts"] = json!([{ "name": "set", "mountPath": "/set" }]);
    cluster.bind("je-wait", &waits);
    let told =
        wait_event(&cluster, "je-waits", "FailedMount", "MountVolume.SetUp failed for volume \"set\" : ");
    assert!(message(&told).contains("configmap \"je-none\" not found"), "{told:?}");

    let mut large = pod("je-large", STAY);
    large["spec"]["containers"][0]["resources"] = json!({ "requests": { "cpu": "100k" } });
    cluster.bind("je-wait", &large);
    cluster.wait_phase("je-large", "Failed");
    let told = wait_event(&cluster, "je-large", "OutOfcpu", "");
    assert_eq!(told.type_.as_deref(), Some("Warning"));
    assert_eq!(reasons(&events(&cluster, "je-large")), ["OutOfcpu"]);

    let mut wrong = pod("je-wrong", STAY);
    wrong["spec"]["containers"][0]["command"] = json!(["/none"]);
    wrong["spec"]["containers"][0]["env"] = json!([{ "name": "PASSWORD", "value": "hunter2" }]);
    cluster.bind("je-wait", &wrong);
    let told = wait_event(&cluster, "je-wrong", "Failed", "Error: ");
    // With another try it is the same: ids are left out.
    wait_until(SOON, "it is counted", || {
        events(&cluster, "je-wrong").iter().any(|event| reason(event) == "Failed" && event.count > Some(1))
    });
    assert!(!message(&told).contains("hunter2"), "{told:?}");
    drop(node);
}

#[test]
fn the_nodes_own_events() {
    let cluster = ControlPlane::shared();
    let node = joined(&cluster, "je-node").start();
    let ready = |status: &str| {
        wait_until(SOON, &format!("the node is ready: {status}"), || {
            let conditions = cluster.node("je-node").and_then(|node| node.status?.conditions);
            conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == status)
        });
    };
    ready("True");
    wait_event(&cluster, "je-node", "Starting", "Starting kubelet.");
    for what in ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID"] {
        wait_event(&cluster, "je-node", what, &format!("Node je-node status is now: {what}"));
    }
    wait_event(&cluster, "je-node", "NodeAllocatableEnforced", "Updated Node Allocatable limit across pods");
    // It may have been made before the runtime had answered.
    let times = || {
        let told = events(&cluster, "je-node");
        told.iter()
            .find(|event| reason(event) == "NodeReady")
            .and_then(|event| event.count)
            .unwrap_or_default()
    };
    let before = times();
    node.containerd.kill9();
    ready("False");
    let told = wait_event(&cluster, "je-node", "NodeNotReady", "Node je-node status is now: NodeNotReady");
    assert_eq!(told.involved_object.kind.as_deref(), Some("Node"));
    assert_eq!(told.involved_object.uid.as_deref(), Some("je-node"));
    node.containerd.resume();
    ready("True");
    wait_event(&cluster, "je-node", "NodeReady", "Node je-node status is now: NodeReady");
    wait_until(SOON, "the node is ready again", || times() > before);

    let nodes = Api::<NodeObject>::all(cluster.client());
    let cordon = |cordoned: bool| {
        let change: Value = json!({ "spec": { "unschedulable": cordoned } });
        let patch = Patch::Strategic(&change);
        cluster.block_on(nodes.patch("je-node", &PatchParams::default(), &patch)).unwrap();
    };
    cordon(true);
    wait_event(&cluster, "je-node", "NodeNotSchedulable", "Node je-node status is now: NodeNotSchedulable");
    cordon(false);
    wait_event(&cluster, "je-node", "NodeSchedulable", "Node je-node status is now: NodeSchedulable");
}

#[test]
fn a_server_that_is_away_holds_up_nothing_and_hears_of_it_later() {
    let cluster = ControlPlane::start();
    let node = joined(&cluster, "je-away").start();
    cluster.bind("je-away", &pod("je-stays", STAY));
    cluster.wait_ready("je-stays");
    wait_event(&cluster, "je-stays", "Started", "Container started");
    cluster.kill("kube-apiserver");
    node.put(&pod("je-fixed", STAY));
    node.wait_ready("je-fixed");
    cluster.resume();
    let mirror = cluster.wait_ready("je-fixed-je-away");
    wait_event(&cluster, "je-fixed-je-away", "Started", "Container started");
    let told = events(&cluster, "je-fixed-je-away");
    assert_eq!(reasons(&told), ["Pulled", "Created", "Started"]);
    // As kubelet names static pods, and as `kubectl describe` looks for them: by the mirror's annotation.
    let mark = mirror.metadata.annotations.unwrap()["kubernetes.io/config.mirror"].clone();
    assert!(told.iter().all(|event| event.involved_object.uid.as_ref() == Some(&mark)));
    node.take_away("je-fixed");
    cluster.wait_gone("je-fixed-je-away");
    wait_event(&cluster, "je-fixed-je-away", "Killing", "Stopping container main");
}

#[test]
fn a_namespace_that_is_going_away_takes_no_events_and_that_is_no_news() {
    use k8s_openapi::api::core::v1::{Namespace, Pod};
    let cluster = ControlPlane::shared();
    let node = joined(&cluster, "je-space").start();
    let space: Namespace = serde_json::from_value(json!({ "metadata": { "name": "je-space" } })).unwrap();
    let spaces = Api::<Namespace>::all(cluster.client());
    cluster.block_on(spaces.create(&PostParams::default(), &space)).unwrap();
    let pods = Api::<Pod>::namespaced(cluster.client(), "je-space");
    let mut inside = pod("je-inside", STAY);
    inside["spec"]["nodeName"] = json!("je-space");
    inside["spec"]["automountServiceAccountToken"] = json!(false);
    let inside: Pod = serde_json::from_value(inside).unwrap();
    wait_for(SOON, "the namespace has its service account", || {
        cluster.block_on(pods.create(&PostParams::default(), &inside)).ok()
    });
    let running = || node.containerd.running_containers().len();
    wait_until(SOON, "its pod runs", || running() == 1);
    cluster.block_on(spaces.delete("je-space", &kube::api::DeleteParams::default())).unwrap();
    cluster.block_on(pods.delete("je-inside", &kube::api::DeleteParams::default())).ok();
    wait_until(SOON, "its pod is gone", || {
        running() == 0 && cluster.block_on(pods.get_opt("je-inside")).unwrap().is_none()
    });
    // What comes after it in the line is written: the event of the pod was given up.
    cluster.bind("je-space", &pod("je-after", STAY));
    wait_event(&cluster, "je-after", "Started", "Container started");
    let log = node.agent_log();
    assert!(!log.contains("cannot write an event"), "{log}");
}

#[test]
fn a_boot_a_lost_sandbox_and_a_missing_network_are_told() {
    let cluster = ControlPlane::shared();
    let mut node = joined(&cluster, "je-boot").start();
    cluster.bind("je-boot", &pod("je-sandbox", STAY));
    let made = cluster.wait_ready("je-sandbox");
    let uid = made.metadata.uid.unwrap();
    let sandbox = node.containerd.sandboxes_of(&uid)[0].id.clone();
    node.containerd.process(&sandbox).unwrap().kill();
    let told = wait_event(&cluster, "je-sandbox", "SandboxChanged", "");
    assert_eq!(message(&told), "Pod sandbox changed, it will be killed and re-created.");
    assert_eq!((told.type_.as_deref(), &told.involved_object.uid), (Some("Normal"), &Some(uid)));
    wait_until(SOON, "another sandbox", || node.wait_ready("je-sandbox").restarts("main") == 1);

    // The server remembers another boot than the one the machine is in.
    node.kill9();
    let nodes = Api::<NodeObject>::all(cluster.client());
    let change: Value = json!({ "status": { "nodeInfo": { "bootID": "an-earlier-one" } } });
    cluster
        .block_on(nodes.patch_status("je-boot", &PatchParams::default(), &Patch::Strategic(&change)))
        .unwrap();
    let config = std::fs::read_dir(node.containerd.cni_conf_dir()).unwrap().next().unwrap().unwrap().path();
    let network = std::fs::read_to_string(&config).unwrap();
    std::fs::remove_file(&config).unwrap();
    // It reads what is there when it starts.
    node.containerd.kill9();
    node.containerd.resume();
    node.start_agent();
    let told = wait_event(&cluster, "je-boot", "Rebooted", "Node je-boot has been rebooted, boot id: ");
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(message(&told).ends_with(boot.trim()), "{told:?}");
    assert_eq!(told.type_.as_deref(), Some("Warning"));
    let has = || cluster.node("je-boot").and_then(|node| Some(node.status?.node_info?.boot_id));
    wait_until(SOON, "the server has the machine's boot id", || has().as_deref() == Some(boot.trim()));

    cluster.bind("je-boot", &pod("je-offline", STAY));
    let words = "network is not ready: container runtime network not ready: ";
    let told = wait_event(&cluster, "je-offline", "NetworkNotReady", words);
    assert_eq!(told.type_.as_deref(), Some("Warning"));
    std::fs::write(&config, network).unwrap();
    cluster.wait_ready("je-offline");
    // Told once, however often it was looked at.
    let told = events(&cluster, "je-offline");
    assert_eq!(reasons(&told), ["NetworkNotReady", "Pulled", "Created", "Started"]);
    assert!(told.iter().all(|event| event.count == Some(1)), "{told:?}");
}
