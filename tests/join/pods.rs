//! Pods of an API server: run, told of, ended and forgotten, against a real server with the Node authorizer and
//! NodeRestriction.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node as NodeObject, Pod};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::support::{
    ControlPlane, Node, NodeBuilder, ROOMY, SOON, STAY, STUBBORN, condition, container, main_of, pod, pod_of,
    pod_with_policy, uid, wait_for, wait_until,
};

/// Has the server know of a node, with labels of its own.
fn register(cluster: &ControlPlane, name: &str, labels: &Value) {
    let object: NodeObject =
        serde_json::from_value(json!({ "metadata": { "name": name, "labels": labels } })).unwrap();
    let nodes = Api::<NodeObject>::all(cluster.client());
    cluster.block_on(nodes.create(&PostParams::default(), &object)).unwrap();
}

fn joined(cluster: &ControlPlane, name: &str) -> NodeBuilder {
    register(cluster, name, &json!({}));
    Node::builder(name).config(ROOMY).joined(cluster)
}

/// Waits until the agent is at this step with a pod.
#[track_caller]
fn wait_step(node: &Node, pod: &str, step: &str) {
    wait_until(SOON, &format!("pod {pod} is {step}"), || {
        node.view(pod).is_some() && node.explain(pod)["progress"]["step"] == step
    });
}

/// How many pods the agent has anything of.
fn pods_of(node: &Node) -> usize {
    node.pods_json()["items"].as_array().unwrap().len()
}

fn a_pod_runs_is_told_of_and_goes(name: &str, builder: fn(NodeBuilder) -> NodeBuilder) {
    let cluster = ControlPlane::shared();
    let node = builder(joined(&cluster, name)).start();
    let before = node.leaks();
    let web = format!("{name}-web");
    cluster.bind(name, &pod(&web, STAY));
    let told = cluster.wait_ready(&web);
    let status = told.status.as_ref().unwrap();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    assert!(status.pod_ip.is_some() && status.host_ip.is_some() && status.start_time.is_some(), "{status:?}");
    assert_eq!(condition(&told, "PodScheduled").unwrap().status, "True");
    assert!(main_of(&told).0.starts_with("containerd://"));
    assert_eq!(node.containerd.running_containers().len(), 1);

    cluster.delete_pod(&web, None);
    cluster.wait_gone(&web);
    assert!(node.containerd.running_containers().is_empty(), "the server forgot a pod that still runs");
    wait_until(SOON, "the agent has nothing of the pod", || pods_of(&node) == 0);
    node.wait_leak_free(&before);
}

#[test]
fn a_pod_runs_is_told_of_and_goes_on_containerd_1_6() {
    a_pod_runs_is_told_of_and_goes("jp-life", |builder| builder);
}

#[test]
fn a_pod_runs_is_told_of_and_goes_on_containerd_2() {
    a_pod_runs_is_told_of_and_goes("jp-life2", NodeBuilder::containerd2);
}

#[test]
fn a_deleted_pod_has_its_grace_and_a_shorter_one_counts() {
    let cluster = ControlPlane::shared();
    let node = joined(&cluster, "jp-grace").start();
    // Its end is its own: it takes a file to tell it.
    let mut slow = pod("jp-slow", STUBBORN);
    slow["spec"]["terminationGracePeriodSeconds"] = json!(3600);
    cluster.bind("jp-grace", &slow);
    cluster.wait_ready("jp-slow");
    cluster.delete_pod("jp-slow", None);
    wait_step(&node, "jp-slow", "terminating");
    let told = cluster.pod("jp-slow").unwrap();
    assert_eq!(told.metadata.deletion_grace_period_seconds, Some(3600));
    assert_eq!(told.status.unwrap().phase.as_deref(), Some("Running"));
    assert_eq!(node.containerd.running_containers().len(), 1);
    cluster.delete_pod("jp-slow", Some(1));
    cluster.wait_gone("jp-slow");
    assert!(node.containerd.running_containers().is_empty());
}

#[test]
fn a_pod_forced_out_of_the_server_is_ended_and_another_may_have_its_name_meanwhile() {
    let cluster = ControlPlane::shared();
    let node = joined(&cluster, "jp-force").start();
    let mut first = pod("jp-name", STUBBORN);
    first["spec"]["terminationGracePeriodSeconds"] = json!(8);
    let first = cluster.bind("jp-force", &first);
    cluster.wait_ready("jp-name");
    cluster.delete_pod("jp-name", Some(0));
    cluster.wait_gone("jp-name");
    let second = cluster.bind("jp-force", &pod("jp-name", STAY));
    assert_ne!(uid(&first), uid(&second));
    let told = cluster.wait_ready("jp-name");
    assert_eq!(uid(&told), uid(&second));
    // The first still has its time, and ends within it.
    wait_until(SOON, "the first is gone", || {
        pods_of(&node) == 1 && node.containerd.running_containers().len() == 1
    });
    assert_eq!(uid(&cluster.pod("jp-name").unwrap()), uid(&second));
}

#[test]
fn a_pod_that_ends_by_itself_stays_as_it_ended() {
    let cluster = ControlPlane::shared();
    let mut node = joined(&cluster, "jp-end").start();
    cluster.bind("jp-end", &pod_with_policy("jp-good", "Never", "exit 0"));
    cluster.bind("jp-end", &pod_with_policy("jp-bad", "Never", "exit 3"));
    let good = cluster.wait_phase("jp-good", "Succeeded");
    // The last that is to be said of it: its sandbox is stopped.
    let bad = wait_for(SOON, "the last word on jp-bad", || {
        let pod = cluster.wait_phase("jp-bad", "Failed");
        let over = condition(&pod, "PodReadyToStartContainers").is_some_and(|c| c.status == "False");
        over.then_some(pod)
    });
    let code = |pod: &Pod| {
        let status = &pod.status.as_ref().unwrap().container_statuses.as_ref().unwrap()[0];
        status.state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code
    };
    assert_eq!((code(&good), code(&bad)), (0, 3));
    assert_eq!(condition(&good, "Ready").unwrap().reason.as_deref(), Some("PodCompleted"));
    node.restart();
    wait_step(&node, "jp-bad", "finished");
    // Whatever the next agent has to say, it says it before it says this.
    cluster.bind("jp-end", &pod("jp-after", STAY));
    cluster.wait_ready("jp-after");
    let again = cluster.pod("jp-bad").unwrap();
    assert_eq!(serde_json::to_value(&again.status).unwrap(), serde_json::to_value(&bad.status).unwrap());
    for name in ["jp-good", "jp-bad", "jp-after"] {
        cluster.delete_pod(name, None);
        cluster.wait_gone(name);
    }
    wait_until(SOON, "all gone", || pods_of(&node) == 0);
}

#[test]
fn a_pod_that_has_ended_is_not_run_again_by_an_agent_that_remembers_nothing() {
    let cluster = ControlPlane::shared();
    let mut node = joined(&cluster, "jp-amnesia").start();
    cluster.bind("jp-amnesia", &pod_with_policy("jp-once", "OnFailure", "exit 0"));
    let told = cluster.wait_phase("jp-once", "Succeeded");
    node.kill9();
    for folder in ["nodectl", "pods"] {
        std::fs::remove_dir_all(node.root_dir().join(folder)).unwrap();
    }
    for sandbox in node.containerd.sandboxes_of(&uid(&told)) {
        node.cri("RemovePodSandbox", &sandbox.id);
    }
    node.start_agent();
    cluster.bind("jp-amnesia", &pod("jp-next", STAY));
    cluster.wait_ready("jp-next");
    wait_step(&node, "jp-once", "finished");
    assert_eq!(node.containerd.running_containers().len(), 1);
    let again = cluster.pod("jp-once").unwrap();
    assert_eq!(again.status.as_ref().unwrap().phase, told.status.unwrap().phase);
    assert_eq!(main_of(&again), main_of(&cluster.pod("jp-once").unwrap()));
    cluster.delete_pod("jp-once", None);
    cluster.wait_gone("jp-once");
}

#[test]
fn many_pods_at_once_come_and_go() {
    const PODS: usize = 100;
    let cluster = ControlPlane::shared();
    let node = joined(&cluster, "jp-many").start();
    let before = node.leaks();
    let names: Vec<String> = (0..PODS).map(|n| format!("jp-many-{n}")).collect();
    for name in &names {
        cluster.bind("jp-many", &pod(name, STAY));
    }
    // The first may be the last to be ready.
    for name in &names {
        cluster.wait_ready_within(SOON * 5, name);
    }
    assert_eq!(node.containerd.running_containers().len(), PODS);
    for name in &names {
        cluster.delete_pod(name, None);
    }
    for name in &names {
        cluster.wait_gone_within(SOON * 5, name);
    }
    wait_until(SOON, "the agent has nothing of them", || pods_of(&node) == 0);
    node.wait_leak_free(&before);
}

#[test]
fn a_restart_of_the_agent_restarts_nothing_and_writes_nothing() {
    let cluster = ControlPlane::shared();
    let mut node = joined(&cluster, "jp-again").start();
    cluster.bind("jp-again", &pod_of("jp-two", &[container("main", STAY), container("other", STAY)]));
    let before = cluster.wait_ready("jp-two");
    node.kill9();
    // What happens meanwhile is found out: a pod is deleted, another comes.
    cluster.bind("jp-again", &pod("jp-gone", STAY));
    cluster.delete_pod("jp-gone", Some(0));
    cluster.bind("jp-again", &pod("jp-new", STAY));
    node.start_agent();
    cluster.wait_ready("jp-new");
    let after = cluster.pod("jp-two").unwrap();
    assert_eq!(main_of(&after), main_of(&before));
    assert_eq!(serde_json::to_value(&after.status).unwrap(), serde_json::to_value(&before.status).unwrap());
    assert_eq!(pods_of(&node), 2);
}

#[test]
fn a_pod_that_is_deleted_while_the_agent_is_down_goes_when_it_is_back() {
    let cluster = ControlPlane::shared();
    let mut node = joined(&cluster, "jp-down").start();
    cluster.bind("jp-down", &pod("jp-kept", STAY));
    cluster.bind("jp-down", &pod("jp-forced", STAY));
    cluster.wait_ready("jp-kept");
    cluster.wait_ready("jp-forced");
    node.kill9();
    cluster.delete_pod("jp-kept", None);
    cluster.delete_pod("jp-forced", Some(0));
    node.start_agent();
    cluster.wait_gone("jp-kept");
    wait_until(SOON, "both ended", || node.containerd.running_containers().is_empty() && pods_of(&node) == 0);
}

#[test]
fn what_the_node_refuses_has_failed_with_kubelets_reasons() {
    let cluster = ControlPlane::shared();
    register(&cluster, "jp-admit", &json!({ "disk": "ssd" }));
    let node = Node::builder("jp-admit").config(ROOMY).joined(&cluster).start();
    let refused = |name: &str, change: Value| {
        let mut wanted = pod(name, STAY);
        wanted["spec"].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        cluster.bind("jp-admit", &wanted);
        let told = cluster.wait_phase(name, "Failed");
        let status = told.status.unwrap();
        (status.reason.unwrap(), status.message.unwrap())
    };
    let (reason, message) = refused("jp-affinity", json!({ "nodeSelector": { "disk": "tape" } }));
    assert_eq!(reason, "NodeAffinity");
    assert!(message.starts_with("Pod was rejected: Predicate NodeAffinity failed"), "{message}");
    let mut big = container("main", STAY);
    big["resources"] = json!({ "requests": { "cpu": "4000" } });
    let (reason, message) = refused("jp-big", json!({ "containers": [big] }));
    assert_eq!(reason, "OutOfcpu");
    assert!(message.contains("Node didn't have enough resource: cpu, requested: 4000000"), "{message}");
    let unsafe_sysctl =
        json!({ "securityContext": { "sysctls": [{ "name": "net.core.somaxconn", "value": "9" }] } });
    assert_eq!(refused("jp-sysctl", unsafe_sysctl).0, "SysctlForbidden");
    cluster.delete_pod("jp-big", None);
    cluster.wait_gone("jp-big");
    wait_until(SOON, "the refused one is forgotten", || node.view("jp-big").is_none());
    // A label that somebody set at the server counts.
    let mut wanted = pod("jp-ssd", STAY);
    wanted["spec"]["nodeSelector"] = json!({ "disk": "ssd" });
    cluster.bind("jp-admit", &wanted);
    cluster.wait_ready("jp-ssd");
    cluster.wait_taints("jp-admit");
    let taint = json!({ "spec": { "taints": [{ "key": "k", "value": "v", "effect": "NoExecute" }] } });
    let nodes = Api::<NodeObject>::all(cluster.client());
    cluster.block_on(nodes.patch("jp-admit", &PatchParams::default(), &Patch::Strategic(&taint))).unwrap();
    // The taint arrives on its own way; pods that came before it are taken.
    let mut tries = 0;
    let refusal = wait_for(SOON, "the taint counts", || {
        tries += 1;
        let mut wanted = pod(&format!("jp-taint{tries}"), STAY);
        // The control plane deletes what the taint is to drive out.
        wanted["metadata"]["finalizers"] = json!(["example.org/looked-at"]);
        cluster.bind("jp-admit", &wanted);
        let told = wait_for(SOON, "judged", || {
            let status = cluster.pod(&format!("jp-taint{tries}"))?.status?;
            (status.phase.as_deref() != Some("Pending")).then_some(status)
        });
        told.reason.is_some().then_some(told)
    });
    assert_eq!(refusal.reason.as_deref(), Some("TaintToleration"));
    assert_eq!(refusal.phase.as_deref(), Some("Failed"));
}

#[test]
fn what_is_not_honoured_yet_waits_and_says_why_and_holds_up_no_other_pod() {
    let cluster = ControlPlane::shared();
    let node = joined(&cluster, "jp-wait").start();
    let mut odd = pod("jp-nfs", STAY);
    odd["spec"]["volumes"] = json!([{ "name": "share", "nfs": { "server": "nas", "path": "/" } }]);
    cluster.bind("jp-wait", &odd);
    cluster.bind("jp-wait", &pod("jp-plain", STAY));
    cluster.wait_ready("jp-plain");
    let message = wait_for(SOON, "the server is told why", || {
        let status = cluster.pod("jp-nfs")?.status?;
        let waiting = status.container_statuses?.first()?.state.clone()?.waiting?;
        waiting.message.filter(|message| !message.is_empty())
    });
    assert!(message.contains("spec.volumes[0].nfs"), "{message}");
    assert_eq!(cluster.pod("jp-nfs").unwrap().status.unwrap().phase.as_deref(), Some("Pending"));
    cluster.delete_pod("jp-nfs", None);
    cluster.wait_gone("jp-nfs");
    drop(node);
}

#[test]
fn a_readiness_gate_is_others_to_open_and_stays_as_they_set_it() {
    let cluster = ControlPlane::shared();
    let mut node = joined(&cluster, "jp-gate").start();
    let mut gated = pod("jp-gated", STAY);
    gated["spec"]["readinessGates"] = json!([{ "conditionType": "example.org/open" }]);
    cluster.bind("jp-gate", &gated);
    wait_until(SOON, "its containers are ready and it is not", || {
        let pod = cluster.pod("jp-gated").unwrap();
        condition(&pod, "ContainersReady").is_some_and(|c| c.status == "True")
            && condition(&pod, "Ready")
                .is_some_and(|c| c.status == "False" && c.reason.as_deref() == Some("ReadinessGatesNotReady"))
    });
    let open = json!({ "status": { "conditions": [{ "type": "example.org/open", "status": "True" }] } });
    let patch = Patch::Strategic(&open);
    cluster.block_on(cluster.api::<Pod>().patch_status("jp-gated", &PatchParams::default(), &patch)).unwrap();
    let ready = cluster.wait_ready("jp-gated");
    assert_eq!(condition(&ready, "Ready").unwrap().reason, None);
    assert_eq!(condition(&ready, "example.org/open").unwrap().status, "True");
    node.restart();
    node.wait_ready("jp-gated");
    // Somebody else writes what is the node's: it is set right.
    let wrong = json!({ "status": { "phase": "Pending", "podIP": null, "podIPs": null, "conditions": [{ "type": "Ready", "status": "False" }] } });
    let patch = Patch::Strategic(&wrong);
    cluster.block_on(cluster.api::<Pod>().patch_status("jp-gated", &PatchParams::default(), &patch)).unwrap();
    cluster.wait_phase("jp-gated", "Running");
    let again = cluster.wait_ready("jp-gated");
    assert!(again.status.as_ref().unwrap().pod_ip.is_some());
    assert_eq!(condition(&again, "example.org/open").unwrap().status, "True");
}

#[test]
fn static_pods_are_mirrored() {
    let cluster = ControlPlane::shared();
    let mut node = joined(&cluster, "jp-mirror").start();
    node.put(&pod("fixed", STAY));
    let mirror = cluster.wait_ready("fixed-jp-mirror");
    let annotations = mirror.metadata.annotations.clone().unwrap();
    assert_eq!(annotations["kubernetes.io/config.mirror"], annotations["kubernetes.io/config.hash"]);
    assert_eq!(annotations["kubernetes.io/config.source"], "file");
    let owner = &mirror.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("Node", "jp-mirror"));
    assert_eq!(mirror.spec.as_ref().unwrap().node_name.as_deref(), Some("jp-mirror"));
    let running = node.containerd.running_containers();

    // Deleted at the server it comes again, and the pod knows nothing of it.
    cluster.delete_pod("fixed-jp-mirror", None);
    wait_until(SOON, "another mirror", || {
        cluster.pod("fixed-jp-mirror").is_some_and(|pod| uid(&pod) != uid(&mirror))
    });
    let second = cluster.wait_ready("fixed-jp-mirror");
    assert_eq!(node.containerd.running_containers(), running);

    // Edited it is another pod, and so is its mirror.
    let mut edited = pod("fixed", STAY);
    edited["metadata"]["labels"] = json!({ "edition": "2" });
    node.put(&edited);
    wait_until(SOON, "the mirror of the new manifest", || {
        cluster.pod("fixed-jp-mirror").is_some_and(|pod| {
            uid(&pod) != uid(&second) && pod.metadata.labels.is_some_and(|labels| labels["edition"] == "2")
        })
    });
    let third = cluster.wait_ready("fixed-jp-mirror");
    node.restart();
    node.wait_ready("fixed");
    cluster.bind("jp-mirror", &pod("jp-beside", STAY));
    cluster.wait_ready("jp-beside");
    assert_eq!(uid(&cluster.pod("fixed-jp-mirror").unwrap()), uid(&third));

    // One whose manifest is gone goes, also while the agent was down.
    node.put(&pod("other", STAY));
    cluster.wait_ready("other-jp-mirror");
    node.take_away("fixed");
    cluster.wait_gone("fixed-jp-mirror");
    node.kill9();
    node.take_away("other");
    node.start_agent();
    cluster.wait_gone("other-jp-mirror");
}

#[test]
fn a_server_that_is_away_for_a_minute_changes_nothing_and_hears_of_all_that_happened_when_it_is_back() {
    let cluster = ControlPlane::start();
    let mut node = joined(&cluster, "jp-away").start();
    cluster.bind("jp-away", &pod("stays", STAY));
    cluster.bind("jp-away", &pod("again", STAY));
    cluster.bind(
        "jp-away",
        &pod_with_policy("ends", "Never", "while ! [ -e /tmp/end ]; do sleep 0.1; done; exit 4"),
    );
    let before = cluster.wait_ready("stays");
    let again = cluster.wait_ready("again");
    cluster.wait_ready("ends");
    cluster.kill("kube-apiserver");
    let away = Instant::now();
    let view = node.view("ends").unwrap();
    node.process(&view, "main").kill();
    node.wait_view("ends", "ended", |view| view.phase() == "Failed");
    // One that ends is started again with nobody to be told.
    let view = node.view("again").unwrap();
    node.process(&view, "main").kill();
    node.wait_view("again", "started again", |view| view.restarts("main") == 1 && view.runs("main"));
    // The lease runs out, which is no fault of the agent's.
    let line = node.wait_health("[!]lease failed: renewed ");
    assert!(line.contains("it was good for 40 s"), "{line}");
    assert_eq!(node.healthz("/healthz").unwrap().0, 200);
    // Static pods and what ran before do without, also under an agent that has never seen the server.
    node.put(&pod("fixed", STAY));
    node.wait_ready("fixed");
    node.restart();
    node.put(&pod("second", STAY));
    node.wait_ready("second");
    std::thread::sleep(Duration::from_secs(60).saturating_sub(away.elapsed()));
    assert_eq!(node.containerd.running_containers().len(), 4);
    cluster.resume();
    let after = cluster.wait_phase("ends", "Failed");
    assert!(after.metadata.deletion_timestamp.is_none());
    cluster.wait_ready("second-jp-away");
    // The control plane may have told it unready meanwhile, and tries to reach one another are far apart by now.
    assert_eq!(main_of(&cluster.wait_ready_within(SOON * 3, "stays")), main_of(&before));
    let (id, restarts) = wait_for(SOON, "the restart is told", || {
        let pod = cluster.wait_ready("again");
        (main_of(&pod).1 == 1).then(|| main_of(&pod))
    });
    assert!(restarts == 1 && id != main_of(&again).0);
    wait_until(SOON, "the node is Ready for the cluster again", || {
        let conditions = cluster.node("jp-away").and_then(|node| node.status?.conditions);
        conditions.into_iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
    });
    node.wait_health("[+]lease ok");
    cluster.delete_pod("stays", None);
    cluster.wait_gone("stays");
}

#[test]
fn a_pod_has_its_time_and_no_more() {
    let cluster = ControlPlane::shared();
    let node = joined(&cluster, "jp-late").start();
    let mut timed = pod("jp-timed", STAY);
    timed["spec"]["activeDeadlineSeconds"] = json!(3600);
    cluster.bind("jp-late", &timed);
    cluster.bind("jp-late", &pod("jp-endless", STAY));
    let before = cluster.wait_ready("jp-timed");
    let endless = cluster.wait_ready("jp-endless");
    assert_eq!(before.spec.unwrap().active_deadline_seconds, Some(3600));
    // The server lets it be made shorter, and given to a pod that had none.
    cluster.patch_pod("jp-timed", &json!({ "spec": { "activeDeadlineSeconds": 1 } }));
    let failed = cluster.wait_phase("jp-timed", "Failed");
    let status = failed.status.as_ref().unwrap();
    assert_eq!(status.reason.as_deref(), Some("DeadlineExceeded"));
    assert_eq!(
        status.message.as_deref(),
        Some("Pod was active on the node longer than the specified deadline")
    );
    assert_eq!(condition(&failed, "Ready").unwrap().status, "False");
    let running = node.containerd.running_containers();
    let only = main_of(&endless).0.replace("containerd://", "");
    assert_eq!(running.keys().collect::<Vec<_>>(), [&only]);
    cluster.patch_pod("jp-endless", &json!({ "spec": { "activeDeadlineSeconds": 1 } }));
    cluster.wait_phase("jp-endless", "Failed");
    assert!(node.containerd.running_containers().is_empty());
    for name in ["jp-timed", "jp-endless"] {
        cluster.delete_pod(name, None);
        cluster.wait_gone(name);
    }
}
