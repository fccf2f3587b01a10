//! Resources that change in place, with an agent that is killed in the middle.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use nodectl::agent::sources::PodSource;
use serde_json::json;
use tokio::time::sleep;

use crate::{
    agent::{Agent, Node},
    script::{Script, container, pod, sidecar, with},
    world::State,
};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A pod of the API server whose containers ask for so many CPUs.
fn asking(cpus: u32) -> Arc<Pod> {
    let resources = || serde_json::from_value(json!({ "requests": { "cpu": cpus.to_string() } })).ok();
    let script = Script::default();
    let mut main = container("main", &script);
    let mut side = sidecar("side", &script);
    (main.resources, side.resources) = (resources(), resources());
    let mut made = with(pod("a", "u1", vec![main]), |spec| spec.init_containers = Some(vec![side]));
    made.metadata.annotations = Some([("kubernetes.io/config.source".to_owned(), "api".to_owned())].into());
    Arc::new(made)
}

/// The CPU shares of both containers, each the only one of its name.
fn shares(agent: &Agent) -> Vec<i64> {
    let state = agent.world.lock();
    assert_eq!(state.containers.len(), 2, "a container was made anew");
    let shares = |name: &str| {
        let found = state.newest("u1", name).unwrap();
        found.config.linux.as_ref().unwrap().resources.as_ref().unwrap().cpu_shares
    };
    vec![shares("main"), shares("side")]
}

fn has_condition(agent: &Agent, type_: &str) -> bool {
    let view = agent.view("u1").unwrap();
    view.status.conditions.iter().flatten().any(|condition| condition.type_ == type_)
}

#[test]
fn a_resize_goes_on_wherever_the_agent_was_killed() {
    for (nth, after) in [(1, 0), (1, 1), (1, 50), (2, 0), (2, 1), (2, 50)] {
        let node = Node::with_sources(1, &[PodSource::Api]);
        let done = node.run(async |agent| {
            agent.publish(&[asking(1)]);
            agent.until("u1 runs", seconds(10), |agent| agent.phase("u1") == "Running").await;
            agent.until("both run", seconds(10), |a| a.runs("u1", "main") && a.runs("u1", "side")).await;
            sleep(seconds(5)).await;
            agent.world.with(|state| state.crash_at(nth, after));
            agent.publish(&[asking(2)]);
            sleep(seconds(60)).await;
        });
        assert_eq!(done, None, "killed at call {nth}");
        for first in [true, false] {
            node.run(async |agent| {
                let before = agent.world.lock().mutations;
                agent.publish(&[asking(2)]);
                sleep(seconds(60)).await;
                assert_eq!(shares(agent), [2048, 2048]);
                assert!(!has_condition(agent, "PodResizeInProgress"));
                assert!(first || agent.world.lock().mutations == before, "done once more");
            });
        }
    }
}

#[test]
fn a_resize_waits_for_a_runtime_that_is_down() {
    let node = Node::with_sources(1, &[PodSource::Api]);
    node.run(async |agent| {
        agent.publish(&[asking(1)]);
        agent.until("both run", seconds(10), |a| a.runs("u1", "main") && a.runs("u1", "side")).await;
        sleep(seconds(5)).await;
        agent.world.with(State::go_down);
        agent.publish(&[asking(3)]);
        sleep(seconds(30)).await;
        assert_eq!(shares(agent), [1024, 1024]);
        assert!(has_condition(agent, "PodResizeInProgress"));
        agent.world.with(State::come_back);
        agent.until("it is done", seconds(60), |agent| shares(agent) == [3072, 3072]).await;
        agent.until("it is told", seconds(60), |agent| !has_condition(agent, "PodResizeInProgress")).await;
        let status = agent.view("u1").unwrap().status.container_statuses.clone().unwrap();
        assert_eq!(status[0].restart_count, 0);
        assert_eq!(status[0].resources.as_ref().unwrap().requests.as_ref().unwrap()["cpu"].0, "3");
    });
}

#[test]
fn a_container_whose_policy_says_so_is_started_anew_and_no_other() {
    let restarting = |cpus: u32| {
        let mut made = Pod::clone(&asking(cpus));
        let policy = json!([{ "resourceName": "cpu", "restartPolicy": "RestartContainer" }]);
        made.spec.as_mut().unwrap().containers[0].resize_policy = serde_json::from_value(policy).ok();
        Arc::new(made)
    };
    let node = Node::with_sources(1, &[PodSource::Api]);
    node.run(async |agent| {
        agent.publish(&[restarting(1)]);
        agent.until("both run", seconds(10), |a| a.runs("u1", "main") && a.runs("u1", "side")).await;
        sleep(seconds(5)).await;
        agent.world.with(|state| state.oracle.disturbed("u1"));
        agent.publish(&[restarting(2)]);
        let newest = |agent: &Agent, name: &str| {
            let state = agent.world.lock();
            let found = state.newest("u1", name).unwrap();
            let resources = found.config.linux.as_ref().unwrap().resources.as_ref().unwrap();
            (found.attempt, resources.cpu_shares)
        };
        agent.until("it is done", seconds(60), |agent| newest(agent, "main") == (1, 2048)).await;
        agent.until("it runs", seconds(60), |a| a.runs("u1", "main")).await;
        sleep(seconds(30)).await;
        assert_eq!((newest(agent, "main"), newest(agent, "side")), ((1, 2048), (0, 2048)));
        assert!(!has_condition(agent, "PodResizeInProgress"));
    });
}
