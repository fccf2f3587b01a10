//! The machine as a Node of a real cluster: what it says of itself, what it leaves to others, and what becomes of it
//! when the runtime, the network, the Node or the server is away.

use std::{
    collections::BTreeSet,
    fs,
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ContainerImage, Node as ApiNode, NodeCondition},
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::support::{
    ControlPlane, IMAGE, Node, NodeBuilder, ROOMY, Release, SOON, STAY, pod, wait_for, wait_until,
};

fn node_of(cluster: &ControlPlane, name: &str) -> NodeBuilder {
    Node::builder(name).config(ROOMY).joined(cluster)
}

fn condition(node: &ApiNode, type_: &str) -> Option<NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_).cloned()
}

fn images(node: &ApiNode) -> &[ContainerImage] {
    node.status.as_ref().and_then(|status| status.images.as_deref()).unwrap_or_default()
}

#[track_caller]
fn wait_node(cluster: &ControlPlane, name: &str, what: &str, probe: impl Fn(&ApiNode) -> bool) -> ApiNode {
    wait_for(SOON, &format!("node {name} {what}"), || cluster.node(name).filter(|node| probe(node)))
}

#[track_caller]
fn wait_condition(cluster: &ControlPlane, name: &str, type_: &str, status: &str) -> NodeCondition {
    let holds = |node: &ApiNode| condition(node, type_).is_some_and(|condition| condition.status == status);
    condition(&wait_node(cluster, name, &format!("{type_}={status}"), holds), type_).unwrap()
}

/// Waits until the node is not ready for a reason in these words. What is said first may be that nothing is known yet.
#[track_caller]
fn wait_not_ready(cluster: &ControlPlane, name: &str, words: &str) -> NodeCondition {
    let said = |node: &ApiNode| {
        condition(node, "Ready").filter(|ready| {
            ready.status == "False"
                && ready.message.as_ref().is_some_and(|message| message.starts_with(words))
        })
    };
    let node = wait_node(cluster, name, &format!("not ready: {words}"), |node| said(node).is_some());
    said(&node).unwrap()
}

#[track_caller]
fn patch(cluster: &ControlPlane, name: &str, change: &Value) {
    let nodes = Api::<ApiNode>::all(cluster.client());
    cluster.block_on(nodes.patch(name, &PatchParams::default(), &Patch::Strategic(change))).unwrap();
}

#[track_caller]
fn patch_status(cluster: &ControlPlane, name: &str, change: &Value) {
    let nodes = Api::<ApiNode>::all(cluster.client());
    cluster.block_on(nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(change))).unwrap();
}

fn leases(cluster: &ControlPlane) -> Api<Lease> {
    Api::namespaced(cluster.client(), "kube-node-lease")
}

#[track_caller]
fn wait_lease(cluster: &ControlPlane, name: &str, what: &str, probe: impl Fn(&Lease) -> bool) -> Lease {
    wait_for(SOON, &format!("lease {name} {what}"), || {
        cluster.block_on(leases(cluster).get_opt(name)).unwrap().filter(|lease| probe(lease))
    })
}

fn renewed(lease: &Lease) -> jiff::Timestamp {
    lease.spec.as_ref().unwrap().renew_time.as_ref().unwrap().0
}

fn uid(node: &ApiNode) -> &str {
    node.metadata.uid.as_deref().unwrap()
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap().trim().to_owned()
}

/// KiB of a line of `/proc/meminfo`.
fn meminfo(name: &str) -> u64 {
    let text = text("/proc/meminfo");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn the_node_says_what_the_machine_has() {
    let cluster = ControlPlane::shared();
    let node = node_of(&cluster, "told")
        .config(
            "registerWithTaints: [{key: dedicated, value: tests, effect: NoSchedule}]\nproviderID: test://told\n\
             nodeStatusMaxImages: 2\nmaxPods: 33\nsystemReserved: {cpu: 100m, memory: 200Mi}\n\
             kubeReserved: {cpu: 50m, memory: 100Mi}\n",
        )
        .argument("--node-labels=zone=here,node.kubernetes.io/instance-type=small")
        .argument("--node-ip=10.1.2.3")
        .start();
    wait_condition(&cluster, "told", "Ready", "True");
    // containerd's CRI hears of its images one after the other, and they are looked at twice in a minute.
    let told = wait_node(&cluster, "told", "with two images", |node| {
        images(node).len() == 2 && condition(node, "Ready").is_some_and(|ready| ready.status == "True")
    });
    let json = serde_json::to_value(&told).unwrap();
    let labels = &json["metadata"]["labels"];
    for (name, value) in [
        ("kubernetes.io/hostname", "told"),
        ("kubernetes.io/os", "linux"),
        ("beta.kubernetes.io/os", "linux"),
        ("zone", "here"),
        ("node.kubernetes.io/instance-type", "small"),
    ] {
        assert_eq!(labels[name], value, "{labels}");
    }
    assert!(labels["kubernetes.io/arch"].is_string() && labels["beta.kubernetes.io/arch"].is_string());
    let annotations = &json["metadata"]["annotations"];
    assert_eq!(annotations["volumes.kubernetes.io/controller-managed-attach-detach"], "true");
    assert_eq!(json["spec"]["providerID"], "test://told");
    let taints = json["spec"]["taints"].as_array().unwrap();
    assert!(
        taints.contains(&json!({"key": "dedicated", "value": "tests", "effect": "NoSchedule"})),
        "{taints:?}"
    );

    let status = &json["status"];
    assert_eq!(
        status["addresses"],
        json!([{"type": "InternalIP", "address": "10.1.2.3"}, {"type": "Hostname", "address": "told"}])
    );
    let cpus = text("/proc/cpuinfo").lines().filter(|line| line.starts_with("processor")).count();
    let (capacity, allocatable) = (&status["capacity"], &status["allocatable"]);
    assert_eq!(capacity["cpu"], cpus.to_string());
    assert_eq!(allocatable["cpu"], format!("{}m", cpus * 1000 - 150));
    let memory = meminfo("MemTotal");
    assert_eq!(capacity["memory"], format!("{memory}Ki"));
    // No huge pages are set aside on a machine for tests; what eviction keeps free is taken off too.
    assert_eq!(allocatable["memory"], format!("{}Ki", memory - 301 * 1024));
    assert_eq!((&capacity["pods"], &allocatable["pods"]), (&json!("33"), &json!("33")));
    assert!(capacity["ephemeral-storage"].is_string() && allocatable["ephemeral-storage"].is_string());

    let info = &status["nodeInfo"];
    assert_eq!(info["machineID"], text("/etc/machine-id"));
    assert_eq!(info["bootID"], text("/proc/sys/kernel/random/boot_id"));
    assert_eq!(info["kernelVersion"], text("/proc/sys/kernel/osrelease"));
    assert_eq!(info["operatingSystem"], "linux");
    assert!(text("/etc/os-release").contains(info["osImage"].as_str().unwrap()));
    assert!(info["containerRuntimeVersion"].as_str().unwrap().starts_with("containerd://1."), "{info}");
    assert!(info["kubeletVersion"].as_str().unwrap().contains("nodectl"));
    let port = fs::read_to_string(node.config_file()).unwrap();
    let port = port.lines().find_map(|line| line.strip_prefix("port: ")).unwrap();
    assert_eq!(status["daemonEndpoints"]["kubeletEndpoint"]["Port"].to_string(), port);
    let images = status["images"].as_array().unwrap();
    assert_eq!(images.len(), 2);
    assert!(images[0]["sizeBytes"].as_i64() >= images[1]["sizeBytes"].as_i64());
    for (type_, expected, reason) in [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID"),
        ("Ready", "True", "KubeletReady"),
    ] {
        let found = wait_condition(&cluster, "told", type_, expected);
        assert_eq!(found.reason.as_deref(), Some(reason));
        assert!(found.last_heartbeat_time.is_some() && found.last_transition_time.is_some());
    }
    node.wait_health("[+]node ok: registered");
    node.wait_health("[+]lease ok: renewed ");
    // Nothing was asked for that a node may not have.
    assert!(!node.agent_log().contains("refuses"), "{}", node.agent_log());
}

#[test]
fn newer_runtimes_tell_more_and_an_old_server_leaves_it_out() {
    let cluster = ControlPlane::shared();
    let node = node_of(&cluster, "newer")
        .containerd2()
        .config("nodeStatusUpdateFrequency: 1s\nnodeStatusReportFrequency: 5m\n")
        .start();
    wait_condition(&cluster, "newer", "Ready", "True");
    let told = wait_node(&cluster, "newer", "with images", |node| {
        images(node).iter().flat_map(|image| image.names.iter().flatten()).any(|name| name == IMAGE)
    });
    let heartbeat = condition(&told, "Ready").unwrap().last_heartbeat_time;
    assert!(told.status.unwrap().node_info.unwrap().container_runtime_version.starts_with("containerd://2."));
    // What the server does not keep is not sent again and again.
    let looked = Instant::now();
    wait_until(SOON, "some looks at the status", || looked.elapsed() > Duration::from_secs(4));
    let later = condition(&cluster.node("newer").unwrap(), "Ready").unwrap();
    assert_eq!(later.last_heartbeat_time, heartbeat);
    assert!(!node.agent_log().contains("refuses"), "{}", node.agent_log());
}

#[test]
fn a_restart_keeps_what_others_wrote() {
    let cluster = ControlPlane::shared();
    let mut node = node_of(&cluster, "kept")
        .config("registerWithTaints: [{key: first, effect: NoSchedule}]\n")
        .argument("--node-labels=zone=here")
        .start();
    let before = wait_node(&cluster, "kept", "ready", |node| {
        condition(node, "Ready").is_some_and(|condition| condition.status == "True")
    });
    let since = condition(&before, "Ready").unwrap().last_transition_time;
    cluster.wait_taints("kept");
    patch(
        &cluster,
        "kept",
        &json!({
            "metadata": {
                "labels": {"zone": "there", "team": "a", "node-role.kubernetes.io/worker": "", "kubernetes.io/os": "plan9"},
                "annotations": {"note": "theirs", "volumes.kubernetes.io/controller-managed-attach-detach": null},
            },
            "spec": {"unschedulable": true, "taints": [{"key": "second", "effect": "NoExecute"}]},
        }),
    );
    let theirs = json!({"type": "Theirs", "status": "True", "reason": "Because", "message": "m"});
    patch_status(
        &cluster,
        "kept",
        &json!({"status": {
            "conditions": [theirs], "capacity": {"example.com/gpu": "4"}, "allocatable": {"example.com/gpu": "3"},
        }}),
    );
    assert_eq!(node.sigterm(), Some(0));
    let left = cluster.node("kept").unwrap();
    assert_eq!(
        condition(&left, "Ready").unwrap().status,
        "True",
        "an agent that ends leaves the node as it is"
    );
    node.start_agent();
    let after = wait_node(&cluster, "kept", "with its labels", |node| {
        node.metadata.labels.as_ref().is_some_and(|labels| labels["kubernetes.io/os"] == "linux")
    });
    assert_eq!(uid(&after), uid(&before));
    node.wait_health("[+]lease ok");
    let json = serde_json::to_value(cluster.node("kept").unwrap()).unwrap();
    let (labels, annotations) = (&json["metadata"]["labels"], &json["metadata"]["annotations"]);
    assert_eq!((&labels["zone"], &labels["team"]), (&json!("there"), &json!("a")));
    assert_eq!(labels["node-role.kubernetes.io/worker"], "");
    assert_eq!(annotations["note"], "theirs");
    assert_eq!(annotations["volumes.kubernetes.io/controller-managed-attach-detach"], "true");
    assert_eq!(json["spec"]["unschedulable"], true);
    let taints: BTreeSet<&str> = json["spec"]["taints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|taint| taint["key"].as_str().unwrap())
        .collect();
    assert!(taints.contains("second"), "{taints:?}");
    assert_eq!(json["status"]["capacity"]["example.com/gpu"], "4");
    assert_eq!(json["status"]["allocatable"]["example.com/gpu"], "3");
    let node_now = cluster.node("kept").unwrap();
    assert_eq!(condition(&node_now, "Theirs").unwrap().reason.as_deref(), Some("Because"));
    assert_eq!(condition(&node_now, "Ready").unwrap().last_transition_time, since);
    // What others write over ours is put right while the agent runs.
    patch_status(
        &cluster,
        "kept",
        &json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}),
    );
    wait_condition(&cluster, "kept", "Ready", "True");
}

#[test]
fn labels_that_a_node_may_not_have_are_refused_before_the_server_does() {
    let cluster = ControlPlane::shared();
    let node = node_of(&cluster, "labels")
        .argument("--node-labels=node-role.kubernetes.io/control-plane=")
        .prepare();
    let output = node.agent_command().output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("node-role.kubernetes.io/control-plane"), "{errors}");
}

#[test]
fn without_its_runtime_the_node_is_not_ready() {
    let cluster = ControlPlane::shared();
    let node = node_of(&cluster, "runtime").start();
    wait_condition(&cluster, "runtime", "Ready", "True");
    node.containerd.kill9();
    let told = wait_not_ready(&cluster, "runtime", "container runtime not ready: ");
    assert_eq!(told.reason.as_deref(), Some("KubeletNotReady"));
    let message = told.message.unwrap();
    let socket = node.containerd.socket().to_str().unwrap();
    assert!(message.contains(socket), "{message}");
    node.containerd.resume();
    wait_condition(&cluster, "runtime", "Ready", "True");
}

#[test]
fn a_runtime_that_comes_later_makes_the_node_ready() {
    let cluster = ControlPlane::shared();
    let mut node = node_of(&cluster, "later").prepare();
    node.containerd.kill9();
    node.start_agent();
    wait_not_ready(&cluster, "later", "container runtime not ready: ");
    node.containerd.resume();
    wait_condition(&cluster, "later", "Ready", "True");
    let version = cluster.node("later").unwrap().status.unwrap().node_info.unwrap().container_runtime_version;
    assert!(version.starts_with("containerd://1."), "{version}");
}

/// Takes the network's configuration away from a runtime that is started anew; its path and what it was.
fn take_network(node: &Node) -> (std::path::PathBuf, String) {
    let file = fs::read_dir(node.containerd.cni_conf_dir()).unwrap().next().unwrap().unwrap().path();
    let good = fs::read_to_string(&file).unwrap();
    fs::remove_file(&file).unwrap();
    (file, good)
}

#[test]
fn without_a_pod_network_the_node_is_not_ready() {
    let cluster = ControlPlane::shared();
    let mut node = node_of(&cluster, "network").prepare();
    let (file, good) = take_network(&node);
    node.containerd.kill9();
    node.containerd.resume();
    node.start_agent();
    let told = wait_not_ready(&cluster, "network", "container runtime network not ready: ");
    let message = told.message.unwrap();
    assert!(message.contains(node.containerd.cni_conf_dir().to_str().unwrap()), "{message}");
    fs::write(file, good).unwrap();
    wait_condition(&cluster, "network", "Ready", "True");
}

fn the_pod_addresses_of_the_cluster(name: &str, release: Release) {
    let cluster = ControlPlane::shared();
    let builder = node_of(&cluster, name);
    let mut node = match release {
        Release::Machine => builder,
        Release::Two => builder.containerd2(),
    }
    .prepare();
    let (file, good) = take_network(&node);
    let template = node.dir().join("cni-template");
    let (before, behind) = good.split_once("\"subnet\": \"").unwrap();
    let (_, behind) = behind.split_once('"').unwrap();
    fs::write(&template, format!("{before}\"subnet\": \"{{{{.PodCIDR}}}}\"{behind}")).unwrap();
    let config = node.dir().join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    let with_template = text.replacen(
        "  conf_dir = ",
        &format!("  conf_template = \"{}\"\n  conf_dir = ", template.display()),
        1,
    );
    assert_ne!(text, with_template);
    fs::write(&config, with_template).unwrap();
    node.containerd.kill9();
    node.containerd.resume();
    node.start_agent();
    wait_condition(&cluster, name, "Ready", "False");
    patch(&cluster, name, &json!({"spec": {"podCIDR": "10.99.7.0/24", "podCIDRs": ["10.99.7.0/24"]}}));
    wait_condition(&cluster, name, "Ready", "True");
    let written = fs::read_dir(file.parent().unwrap()).unwrap().next().unwrap().unwrap().path();
    assert!(fs::read_to_string(written).unwrap().contains("10.99.7.0/24"));
}

#[test]
fn the_pod_addresses_of_the_cluster_reach_the_machines_containerd() {
    the_pod_addresses_of_the_cluster("cidr", Release::Machine);
}

#[test]
fn the_pod_addresses_of_the_cluster_reach_containerd_2() {
    the_pod_addresses_of_the_cluster("cidr-two", Release::Two);
}

#[test]
fn the_lease_is_renewed_in_the_nodes_name() {
    let cluster = ControlPlane::shared();
    let node = node_of(&cluster, "leased").config("nodeLeaseDurationSeconds: 8\n").start();
    let first = wait_lease(&cluster, "leased", "there", |_| true);
    let spec = first.spec.as_ref().unwrap();
    assert_eq!((spec.holder_identity.as_deref(), spec.lease_duration_seconds), (Some("leased"), Some(8)));
    let owner = |lease: &Lease| {
        let owners = lease.metadata.owner_references.clone().unwrap_or_default();
        owners.into_iter().map(|owner| (owner.kind, owner.name, owner.uid)).collect::<Vec<_>>()
    };
    let me = cluster.node("leased").unwrap();
    let ours = vec![("Node".to_owned(), "leased".to_owned(), uid(&me).to_owned())];
    assert_eq!(owner(&first), ours);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    assert!(i64::try_from(now.as_secs()).unwrap() - renewed(&first).as_second() < 60, "{first:?}");
    let second = wait_lease(&cluster, "leased", "renewed", |lease| renewed(lease) > renewed(&first));
    // Four times in the time that it is good for, and not more often.
    let between = renewed(&second).duration_since(renewed(&first));
    assert!(between.as_secs_f64() >= 2.0, "{between}");
    // Somebody else's change, and its end, are no end of it.
    let meddled = json!({"metadata": {"ownerReferences": null}});
    cluster
        .block_on(leases(&cluster).patch("leased", &PatchParams::default(), &Patch::Merge(meddled)))
        .unwrap();
    wait_lease(&cluster, "leased", "ours again", |lease| owner(lease) == ours);
    // Held by another it is taken back: the name is this node's alone.
    let taken = json!({"spec": {"holderIdentity": "another", "leaseDurationSeconds": 3600}});
    let taken = cluster
        .block_on(leases(&cluster).patch("leased", &PatchParams::default(), &Patch::Merge(taken)))
        .unwrap();
    let back = wait_lease(&cluster, "leased", "held by the node again", |lease| {
        let spec = lease.spec.as_ref().unwrap();
        (spec.holder_identity.as_deref(), spec.lease_duration_seconds) == (Some("leased"), Some(8))
    });
    assert!(renewed(&back) > renewed(&taken) && back.metadata.uid == first.metadata.uid, "{back:?}");
    cluster.block_on(leases(&cluster).delete("leased", &DeleteParams::default())).unwrap();
    wait_lease(&cluster, "leased", "made anew", |lease| lease.metadata.uid != first.metadata.uid);
    node.wait_health("[+]lease ok");
}

#[test]
fn a_node_that_is_deleted_comes_back() {
    let cluster = ControlPlane::shared();
    let node = node_of(&cluster, "deleted")
        .config("nodeLeaseDurationSeconds: 4\n")
        .argument("--node-labels=zone=here")
        .start();
    wait_condition(&cluster, "deleted", "Ready", "True");
    let first = cluster.node("deleted").unwrap();
    let nodes = Api::<ApiNode>::all(cluster.client());
    cluster.block_on(nodes.delete("deleted", &DeleteParams::default())).unwrap();
    let second = wait_node(&cluster, "deleted", "back", |node| uid(node) != uid(&first));
    assert_eq!(second.metadata.labels.as_ref().unwrap()["zone"], "here");
    wait_condition(&cluster, "deleted", "Ready", "True");
    wait_lease(&cluster, "deleted", "of the new node", |lease| {
        lease.metadata.owner_references.iter().flatten().any(|owner| owner.uid == uid(&second))
    });
    node.wait_health("[+]node ok");
}

#[test]
fn credentials_of_another_node_are_told_plainly() {
    let cluster = ControlPlane::shared();
    let kubeconfig = cluster.node_kubeconfig("somebody");
    let node = Node::builder("refused").argument(&format!("--kubeconfig={}", kubeconfig.display())).start();
    let line = node.wait_health("[!]node failed: cannot register node refused");
    assert!(line.contains("forbidden") && line.contains("not those of a node of this name"), "{line}");
    wait_until(SOON, "the log tells it", || node.agent_log().contains("cannot register node refused"));
    assert!(cluster.node("refused").is_none());
    assert_eq!(node.healthz("/healthz").unwrap().0, 200);
}

#[test]
fn pressures_are_those_of_the_thresholds() {
    let cluster = ControlPlane::shared();
    let mut node = Node::builder("pressed")
        .joined(&cluster)
        .config(
            "evictionHard: {memory.available: 1000Ti, imagefs.inodesFree: 1000T, pid.available: 99.9999%}\n",
        )
        .start();
    for (type_, reason) in [
        ("MemoryPressure", "KubeletHasInsufficientMemory"),
        ("DiskPressure", "KubeletHasDiskPressure"),
        ("PIDPressure", "KubeletHasInsufficientPID"),
    ] {
        let told = wait_condition(&cluster, "pressed", type_, "True");
        assert_eq!(told.reason.as_deref(), Some(reason));
    }
    // It can run pods all the same.
    wait_condition(&cluster, "pressed", "Ready", "True");
    node.sigterm();
    let config = fs::read_to_string(node.config_file()).unwrap();
    let config: String = config
        .lines()
        .filter(|line| !line.starts_with("evictionHard"))
        .fold(String::new(), |text, line| text + line + "\n");
    fs::write(node.config_file(), config + ROOMY).unwrap();
    node.start_agent();
    for type_ in ["MemoryPressure", "DiskPressure", "PIDPressure"] {
        wait_condition(&cluster, "pressed", type_, "False");
    }
}

#[test]
fn a_server_that_goes_away_and_comes_back_is_met_again() {
    let cluster = ControlPlane::start();
    let mut node = node_of(&cluster, "away").config("nodeLeaseDurationSeconds: 4\n").prepare();
    cluster.kill("kube-apiserver");
    // Without a server there are still the pods of the manifests.
    node.put(&pod("alone", STAY));
    node.start_agent();
    node.wait_ready("alone");
    node.wait_health("[!]node failed: cannot register node away");
    assert_eq!(node.healthz("/healthz").unwrap().0, 200);
    cluster.resume();
    wait_condition(&cluster, "away", "Ready", "True");
    node.wait_health("[+]lease ok");
    let pid = node.agent_pid();

    cluster.kill("kube-apiserver");
    let line = node.wait_health("[!]lease failed: renewed ");
    assert!(line.contains("it was good for 4 s"), "{line}");
    assert_eq!(node.healthz("/healthz").unwrap().0, 200);
    // What happens meanwhile is told when the server is back.
    node.containerd.kill9();
    node.wait_health("[!]runtime failed");
    cluster.resume();
    wait_condition(&cluster, "away", "Ready", "False");
    node.wait_health("[+]lease ok");
    node.containerd.resume();
    wait_condition(&cluster, "away", "Ready", "True");
    assert_eq!(node.agent_pid(), pid);
    assert!(node.agent_ended().is_none());
}

#[test]
fn a_server_that_hangs_is_noticed_and_met_again() {
    let cluster = ControlPlane::start();
    let node = node_of(&cluster, "hangs").config("nodeLeaseDurationSeconds: 8\n").start();
    wait_condition(&cluster, "hangs", "Ready", "True");
    node.wait_health("[+]lease ok");
    let server: i32 = text(cluster.dir().join("kube-apiserver.pid").to_str().unwrap()).parse().unwrap();
    kill(Pid::from_raw(server), Signal::SIGSTOP).unwrap();
    let line = node.wait_health("[!]lease failed: renewed ");
    kill(Pid::from_raw(server), Signal::SIGCONT).unwrap();
    assert!(line.contains("no answer"), "{line}");
    node.wait_health("[+]lease ok");
    wait_condition(&cluster, "hangs", "Ready", "True");
}

/// Rules that swallow what one end of a connection sends; taken away with it.
struct Swallowed(Vec<Vec<String>>);

impl Swallowed {
    /// All connections that the process has to the server.
    fn connections(pid: u32, server: &str) -> Self {
        let sockets: BTreeSet<String> = fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()?.to_str().map(str::to_owned))
            .filter_map(|link| link.strip_prefix("socket:[")?.strip_suffix(']').map(str::to_owned))
            .collect();
        let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
        // `sl local_address rem_address st … inode`; 6443 is 192B.
        let ports = table.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (local, remote, inode) = (fields.get(1)?, fields.get(2)?, fields.get(9)?);
            let ours = remote.ends_with(":192B") && sockets.contains(*inode);
            ours.then(|| u16::from_str_radix(local.split_once(':')?.1, 16).ok()).flatten()
        });
        let mut rules = Self(Vec::new());
        for port in ports {
            for (from, to) in [(port, 6443), (6443, port)] {
                let rule = format!("INPUT -p tcp --sport {from} --dport {to}");
                let here = if from == 6443 { format!("-s {server}") } else { format!("-d {server}") };
                let rule = format!("{rule} {here} -j DROP");
                let rule: Vec<String> = rule.split(' ').map(str::to_owned).collect();
                iptables("-A", &rule);
                rules.0.push(rule);
            }
        }
        rules
    }
}

impl Drop for Swallowed {
    fn drop(&mut self) {
        self.0.iter().for_each(|rule| iptables("-D", rule));
    }
}

fn iptables(verb: &str, rule: &[String]) {
    let status =
        Command::new("iptables").args(["--wait", verb]).args(rule).status().expect("iptables is installed");
    assert!(status.success(), "iptables {verb} {rule:?}");
}

#[test]
fn a_connection_without_another_end_is_given_up() {
    let cluster = ControlPlane::shared();
    let node = node_of(&cluster, "halfopen").start();
    wait_condition(&cluster, "halfopen", "Ready", "True");
    let before = wait_lease(&cluster, "halfopen", "there", |_| true);
    // The watch has begun when something that it tells of is known.
    node.wait_health("[+]node ok");
    let swallowed = Swallowed::connections(node.agent_pid(), cluster.fact("ADDRESS"));
    assert!(!swallowed.0.is_empty());
    // The former connections stay dead all the while: only new ones can bring this.
    wait_lease(&cluster, "halfopen", "renewed over a new connection", |lease| {
        renewed(lease) > renewed(&before)
    });
    patch(&cluster, "halfopen", &json!({"metadata": {"labels": {"seen": "yes"}}}));
    patch_status(
        &cluster,
        "halfopen",
        &json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}),
    );
    wait_condition(&cluster, "halfopen", "Ready", "True");
}
