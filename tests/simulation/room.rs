//! Who has a place on a node that is full: pods of an API server that is forced to let go of others, and manifests
//! while it is away.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use nodectl::agent::sources::PodSource;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    agent::{Agent, Node},
    script::{Script, container, pod, with},
};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A pod that asks for so many CPUs and takes long to end.
fn asking(name: &str, uid: &str, cpus: u32, source: PodSource) -> Arc<Pod> {
    let mut main = container("main", &Script { term: Some(20_000), ..Script::default() });
    main.resources = serde_json::from_value(json!({ "requests": { "cpu": cpus.to_string() } })).ok();
    let mut made = with(pod(name, uid, vec![main]), |spec| spec.termination_grace_period_seconds = Some(30));
    let marks = made.metadata.annotations.get_or_insert_default();
    marks.insert("kubernetes.io/config.source".to_owned(), source.to_string());
    Arc::new(made)
}

fn of_api(name: &str, uid: &str, cpus: u32) -> Arc<Pod> {
    asking(name, uid, cpus, PodSource::Api)
}

fn reason(agent: &Agent, uid: &str) -> Option<String> {
    agent.view(uid)?.status.reason.clone()
}

fn node(sources: &[PodSource]) -> Node {
    let mut node = Node::with_sources(1, sources);
    node.cpus = Some(4);
    node
}

#[test]
fn what_the_server_has_no_more_takes_nobodys_place() {
    for killed in [false, true] {
        let node = node(&[PodSource::Api]);
        let comes = async |agent: &mut Agent| {
            agent.publish(&[of_api("a", "u2", 3)]);
            agent.until("the next one runs", seconds(10), |agent| agent.runs("u2", "main")).await;
            assert!(agent.runs("u1", "main"), "the first has its time");
            agent.until("the first has ended", seconds(40), |agent| !agent.runs("u1", "main")).await;
            assert!(agent.runs("u2", "main"));
        };
        node.run(async |agent| {
            agent.publish(&[of_api("a", "u1", 3)]);
            agent.until("u1 runs", seconds(10), |agent| agent.runs("u1", "main")).await;
            agent.publish(&[of_api("a", "u1", 3), of_api("b", "u3", 3)]);
            agent
                .until("who is beside it is refused", seconds(10), |agent| {
                    reason(agent, "u3").as_deref() == Some("OutOfcpu")
                })
                .await;
            if !killed {
                comes(agent).await;
            }
        });
        if killed {
            node.run(comes);
        }
    }
}

#[test]
fn a_manifest_does_not_wait_for_pods_that_only_the_server_could_name() {
    let node = node(&[PodSource::File, PodSource::Api]);
    let first = of_api("a", "u1", 3);
    node.run(async |agent| {
        agent.publish_to(0, &[]);
        agent.publish_to(1, &[Arc::clone(&first)]);
        agent.until("u1 runs", seconds(10), |agent| agent.runs("u1", "main")).await;
        sleep(seconds(5)).await;
    });
    node.run(async |agent| {
        agent.publish_to(0, &[asking("s", "s1", 3, PodSource::File)]);
        agent.until("the manifest's pod runs", seconds(10), |agent| agent.runs("s1", "main")).await;
        assert!(agent.runs("u1", "main"));
        agent.publish_to(1, &[Arc::clone(&first)]);
        agent
            .until("the other makes room", seconds(60), |agent| {
                !agent.runs("u1", "main") && reason(agent, "u1").as_deref() == Some("Preempting")
            })
            .await;
        assert!(agent.runs("s1", "main"));
    });
}

#[test]
fn a_manifest_waits_for_what_ends_already_and_has_no_other_end() {
    let node = node(&[PodSource::File, PodSource::Api]);
    let (first, second) = (of_api("a", "u1", 2), of_api("b", "u2", 2));
    node.run(async |agent| {
        agent.publish_to(0, &[]);
        agent.publish_to(1, &[Arc::clone(&first), Arc::clone(&second)]);
        agent.until("both run", seconds(10), |a| a.runs("u1", "main") && a.runs("u2", "main")).await;
        let mut deleted = Pod::clone(&first);
        deleted.metadata.deletion_grace_period_seconds = Some(30);
        deleted.metadata.deletion_timestamp = serde_json::from_value(json!("2030-01-01T00:00:00Z")).unwrap();
        agent.publish_to(1, &[Arc::new(deleted), second]);
        sleep(seconds(1)).await;
        agent.publish_to(0, &[asking("s", "s1", 1, PodSource::File)]);
        sleep(seconds(10)).await;
        assert!(agent.runs("u1", "main") && !agent.runs("s1", "main"), "it waits");
        agent.until("it runs", seconds(40), |agent| agent.runs("s1", "main")).await;
        assert!(!agent.runs("u1", "main") && agent.runs("u2", "main"));
    });
}
