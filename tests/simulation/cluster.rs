//! Scripted cases of a node whose pods come from an API server.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use tokio::time::sleep;

use crate::{
    agent::Node,
    script::{Script, container, pod, with},
    server::Server,
    world::State,
};

fn phase(server: &Server, uid: &str) -> String {
    let pods = server.pods();
    let pod = pods.iter().find(|pod| pod.metadata.uid.as_deref() == Some(uid)).expect("the server has it");
    pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default()
}

/// A pod that is never started again, of one container.
fn once(uid: &str, script: &Script) -> Pod {
    with(pod("once", uid, vec![container("main", script)]), |spec| {
        spec.restart_policy = Some("Never".to_owned());
    })
}

fn is_right(node: &Node) {
    let state = node.world.lock();
    assert!(state.oracle.violations.is_empty(), "{}", state.trace.join("\n"));
}

#[test]
fn a_pod_that_ends_well_under_another_agent_has_not_failed() {
    let node = Node::of_a_cluster(1);
    let server = Arc::clone(node.server.as_ref().unwrap());
    server.create(&once("once-u1", &Script::exits(60_000, 0)));
    node.run(async |agent| {
        agent.until("it runs", Duration::from_secs(10), |a| a.runs("once-u1", "main")).await;
    });
    // The next agent hears of the pod before the runtime has told what it holds.
    node.world.with(State::go_down);
    node.run(async |agent| {
        sleep(Duration::from_secs(5)).await;
        agent.world.with(State::come_back);
        let server = &server;
        agent
            .until("it runs for the server", Duration::from_secs(30), |_| {
                phase(server, "once-u1") == "Running"
            })
            .await;
        sleep(Duration::from_secs(90)).await;
    });
    assert_eq!(phase(&server, "once-u1"), "Succeeded");
    is_right(&node);
}

#[test]
fn a_server_that_is_away_ends_no_pod_and_hears_the_last_of_one_that_it_has_deleted() {
    let node = Node::of_a_cluster(1);
    let server = Arc::clone(node.server.as_ref().unwrap());
    server.create(&once("once-u1", &Script::default()));
    node.run(async |agent| {
        agent.until("it runs", Duration::from_secs(10), |a| a.runs("once-u1", "main")).await;
        server.go_away(100_000);
        sleep(Duration::from_secs(90)).await;
        assert!(agent.runs("once-u1", "main"));
        // Nobody can have heard of it yet.
        server.delete("once", None);
        sleep(Duration::from_secs(5)).await;
        assert!(agent.runs("once-u1", "main"));
        agent
            .until("it is gone everywhere", Duration::from_secs(120), |a| {
                server.pods().is_empty() && a.view("once-u1").is_none() && a.world.lock().sandboxes.is_empty()
            })
            .await;
    });
    is_right(&node);
}

#[test]
fn another_pod_under_the_name_does_not_wait_and_is_never_told_the_formers_words() {
    let node = Node::of_a_cluster(1);
    let server = Arc::clone(node.server.as_ref().unwrap());
    // It takes all of its 30 seconds to end.
    server.create(&once("once-u1", &Script { term: None, ..Script::default() }));
    node.run(async |agent| {
        agent.until("it runs", Duration::from_secs(10), |a| a.runs("once-u1", "main")).await;
        server.create(&once("once-u2", &Script::default()));
        agent.until("the other runs", Duration::from_secs(10), |a| a.runs("once-u2", "main")).await;
        assert!(agent.runs("once-u1", "main"));
        agent.until("the first is gone", Duration::from_secs(60), |a| a.view("once-u1").is_none()).await;
        assert_eq!(phase(&server, "once-u2"), "Running");
        assert!(agent.runs("once-u2", "main") && server.pods().len() == 1);
    });
    is_right(&node);
}
