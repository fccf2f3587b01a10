//! What is done to the node in its cluster, on an API server of the tests.

use std::time::Duration;

use serde_json::json;

use super::tests::{Scene, unit};
use crate::{
    kube::test_server::TestServer,
    switch::{
        steps::{Action, Before},
        transaction::World as _,
    },
};

#[tokio::test]
async fn a_cordon_is_ours_to_take_back() {
    let mut scene = Scene::new().await;
    let server = TestServer::start().await;
    let (kubeconfig, path) = (server.kubeconfig(""), "/api/v1/nodes/n");
    let node = unit("n");
    let (cordon, uncordon) = (
        Action::Cordon { kubeconfig: kubeconfig.clone(), node: node.clone() },
        Action::Uncordon { kubeconfig: kubeconfig.clone(), node: node.clone() },
    );
    let cordoned = || server.object(path)["spec"]["unschedulable"] == true;
    server.put(path, json!({ "metadata": { "name": "n" } }));
    let first = scene.before(&cordon).await;
    assert_eq!(first, Before::Cordoned { cordoned: false });
    scene.node.act(&cordon).await.unwrap();
    assert!(cordoned());
    // In another process, too, it is known whose it is.
    assert_eq!(scene.before(&cordon).await, first);
    let second = scene.before(&uncordon).await;
    scene.node.act(&uncordon).await.unwrap();
    assert!(!cordoned());
    scene.undo(&uncordon, &second).await.unwrap();
    assert!(cordoned());
    scene.undo(&cordon, &first).await.unwrap();
    assert!(!cordoned());

    // Somebody else's stays.
    server.put(path, json!({ "metadata": { "name": "n" }, "spec": { "unschedulable": true } }));
    let before = scene.before(&cordon).await;
    assert_eq!(before, Before::Cordoned { cordoned: true });
    for action in [&cordon, &uncordon] {
        scene.node.act(action).await.unwrap();
        assert!(cordoned());
    }
    scene.undo(&cordon, &before).await.unwrap();
    assert!(cordoned());
    // An API server that starts is waited for.
    server.refuse("GET", path, 503, "apiserver not ready");
    scene.node.act(&cordon).await.unwrap();

    let key = "kubeadm.alpha.kubernetes.io/cri-socket";
    server.put(
        path,
        json!({ "metadata": { "name": "n", "annotations": { key: "/var/run/dockershim.sock" } } }),
    );
    let annotate = Action::AnnotateNode { kubeconfig, node, endpoint: "unix:///c.sock".to_owned() };
    let before = scene.before(&annotate).await;
    scene.node.act(&annotate).await.unwrap();
    assert_eq!(server.object(path)["metadata"]["annotations"][key], "unix:///c.sock");
    scene.undo(&annotate, &before).await.unwrap();
    assert_eq!(server.object(path)["metadata"]["annotations"][key], "/var/run/dockershim.sock");
}

#[tokio::test]
async fn a_node_is_ready_when_it_says_so_anew() {
    let mut scene = Scene::new().await;
    scene.unit("kubelet.service", "active", "enabled");
    let server = TestServer::start().await;
    let path = "/api/v1/nodes/n";
    let verify = |timeout: u64| Action::VerifyNode {
        kubeconfig: server.folder().join("config"),
        node: unit("n"),
        timeout,
    };
    server.kubeconfig("");
    let condition = |status: &str, at: jiff::Timestamp| {
        json!({ "metadata": { "name": "n" }, "status": { "conditions": [{
            "type": "Ready", "status": status, "reason": "KubeletNotReady", "message": "no network",
            "lastHeartbeatTime": at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }] } })
    };
    let now = jiff::Timestamp::now();
    let earlier = now - jiff::SignedDuration::from_secs(100);
    server.put(path, condition("False", now));
    let error = scene.node.act(&verify(0)).await.unwrap_err();
    assert_eq!(error, "node n is not Ready within 0 s: Ready is False: KubeletNotReady: no network");
    server.put(path, condition("True", earlier));
    let error = scene.node.act(&verify(0)).await.unwrap_err();
    assert!(error.contains("was said before the agent was started"), "{error}");
    // After it was said once more; and what the agent said since it was started here counts.
    server.put(path, condition("True", now + jiff::SignedDuration::from_secs(600)));
    scene.node.act(&verify(0)).await.unwrap();
    scene.node.act(&Action::RestartUnit { unit: unit("kubelet.service") }).await.unwrap();
    server.put(path, condition("True", jiff::Timestamp::now()));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    scene.node.act(&verify(0)).await.unwrap();
    // Else its lease tells that it lives and says nothing else.
    server.put(path, condition("True", earlier));
    let renewed = (jiff::Timestamp::now() + jiff::SignedDuration::from_secs(5)).to_string();
    server.put(
        "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n",
        json!({ "metadata": { "name": "n" }, "spec": { "renewTime": renewed } }),
    );
    let start = std::time::Instant::now();
    scene.node.act(&verify(60)).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(12));
    let gone =
        Action::VerifyNode { kubeconfig: server.folder().join("config"), node: unit("m"), timeout: 60 };
    assert!(scene.node.act(&gone).await.unwrap_err().contains("nodes/m not found (404)"));
}

#[tokio::test]
async fn a_node_that_is_not_ready_when_all_is_put_back_is_warned_of() {
    let mut scene = Scene::new().await;
    scene.unit("kubelet.service", "inactive", "enabled");
    let server = TestServer::start().await;
    let ready =
        Action::NodeReadyWhenUndone { kubeconfig: server.kubeconfig(""), node: unit("n"), timeout: 0 };
    assert_eq!(scene.before(&ready).await, Before::Nothing);
    scene.node.act(&ready).await.unwrap();
    assert!(server.requests().is_empty(), "nothing is done forwards");
    // The agent is started on the way back; what was said of it before says nothing.
    let stop = Action::StopUnit { unit: unit("kubelet.service") };
    scene.undo(&stop, &Before::Unit { active: true }).await.unwrap();
    let condition = |at: jiff::Timestamp| {
        json!({ "metadata": { "name": "n" }, "status": { "conditions": [{
            "type": "Ready", "status": "True",
            "lastHeartbeatTime": at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }] } })
    };
    let now = jiff::Timestamp::now();
    server.put("/api/v1/nodes/n", condition(now - jiff::SignedDuration::from_secs(100)));
    scene.undo(&ready, &Before::Nothing).await.unwrap();
    let warning = "everything is put back, and node n is not Ready within 0 s: Ready is True, but was said before the \
                   agent was started";
    assert_eq!(scene.warnings(), [warning]);
    server.put("/api/v1/nodes/n", condition(now + jiff::SignedDuration::from_secs(1)));
    scene.undo(&ready, &Before::Nothing).await.unwrap();
    assert_eq!(scene.warnings(), Vec::<String>::new());
}

#[tokio::test]
async fn a_drain_says_what_may_be_allowed() {
    let mut scene = Scene::new().await;
    let server = TestServer::start().await;
    server.put(
        "/api/v1/pods",
        json!({ "items": [{ "metadata": { "namespace": "ns", "name": "p", "uid": "u" } }] }),
    );
    let drain = Action::Drain {
        kubeconfig: server.kubeconfig(""),
        node: unit("n"),
        timeout: 5,
        unmanaged: false,
        delete_emptydir_data: false,
    };
    let error = scene.node.act(&drain).await.unwrap_err();
    assert!(error.contains("ns/p has no controller") && error.contains("--drain-unmanaged"), "{error}");
}
