//! Scripted cases of probes and hooks.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Lifecycle, Pod, Probe};
use nodectl::cri::CriErrorKind;
use tokio::time::sleep;

use crate::{
    agent::{Agent, Node},
    faults::{Fate, Plan},
    script::{Script, container, pod, sidecar, with},
    world::Command,
};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A probe by a command, every second.
fn probe(command: &str) -> Probe {
    let json = serde_json::json!({
        "exec": {"command": [command]}, "periodSeconds": 1, "timeoutSeconds": 1,
        "successThreshold": 1, "failureThreshold": 2,
    });
    serde_json::from_value(json).unwrap()
}

fn hooks(json: &serde_json::Value) -> Lifecycle {
    serde_json::from_value(json.clone()).unwrap()
}

fn says(agent: &Agent, command: &str, does: Command) {
    agent.world.with(|state| state.commands.insert(command.to_owned(), does));
}

fn status(agent: &Agent, name: &str) -> Option<ContainerStatus> {
    let view = agent.view("u1")?;
    let lists = [&view.status.container_statuses, &view.status.init_container_statuses];
    lists.into_iter().flatten().flatten().find(|status| status.name == name).cloned()
}

fn ready(agent: &Agent, name: &str) -> bool {
    status(agent, name).is_some_and(|status| status.ready)
}

fn restarts(agent: &Agent, name: &str) -> i32 {
    status(agent, name).map_or(0, |status| status.restart_count)
}

/// When lines with these words were traced, in milliseconds.
fn times(agent: &Agent, words: &str) -> Vec<u64> {
    let state = agent.world.lock();
    let lines = state.trace.iter().filter(|line| line.contains(words));
    lines.map(|line| line.split_whitespace().next().unwrap().parse().unwrap()).collect()
}

fn no_violations(node: &Node) {
    let state = node.world.lock();
    assert!(state.oracle.violations.is_empty(), "{}", state.trace.join("\n"));
}

fn one(containers: Vec<Container>) -> Arc<Pod> {
    Arc::new(pod("a", "u1", containers))
}

#[test]
fn a_failing_liveness_probe_restarts_that_container_alone_and_ever_more_slowly() {
    let node = Node::new(1);
    let live = Container { liveness_probe: Some(probe("live")), ..container("live", &Script::default()) };
    let pod = one(vec![live, container("other", &Script::default())]);
    node.run(async |agent| {
        agent.publish(&[pod]);
        agent.until("ready", seconds(10), |agent| ready(agent, "live") && ready(agent, "other")).await;
        sleep(seconds(30)).await;
        assert_eq!(restarts(agent, "live"), 0);
        says(agent, "live", Command::Exits(1));
        agent.until("one restart", seconds(10), |agent| restarts(agent, "live") == 1).await;
        agent.until("another", seconds(40), |agent| restarts(agent, "live") == 2).await;
        let ends = times(agent, "/live.");
        assert!(!ends.is_empty());
        says(agent, "live", Command::Exits(0));
        sleep(seconds(60)).await;
        assert_eq!((restarts(agent, "live"), restarts(agent, "other")), (2, 0));
        assert!(ready(agent, "live"));
        assert_eq!(times(agent, "StopContainer u1/live").len(), 2);
        assert!(times(agent, "StopContainer u1/other").is_empty());
    });
    no_violations(&node);
}

#[test]
fn readiness_survives_an_agent_that_is_killed_and_ends_when_the_probe_fails() {
    let node = Node::new(1);
    let mut c = container("main", &Script::default());
    c.startup_probe = Some(probe("up"));
    c.readiness_probe = Some(probe("ready"));
    let pod = one(vec![c]);
    node.run(async |agent| {
        says(agent, "up", Command::Exits(1));
        agent.publish(&[Arc::clone(&pod)]);
        agent.until("it runs", seconds(5), |agent| agent.runs("u1", "main")).await;
        assert!(!ready(agent, "main"));
        says(agent, "up", Command::Exits(0));
        agent.until("ready", seconds(10), |agent| ready(agent, "main")).await;
    });
    for _ in 0..3 {
        node.run(async |agent| {
            // A startup probe that was over would now restart the container.
            says(agent, "up", Command::Exits(1));
            agent.publish(&[Arc::clone(&pod)]);
            agent
                .until("seen", seconds(5), |agent| {
                    status(agent, "main").is_some_and(|s| s.container_id.is_some())
                })
                .await;
            for _ in 0..10_000 {
                sleep(Duration::from_millis(1)).await;
                assert!(ready(agent, "main"));
            }
        });
    }
    node.run(async |agent| {
        says(agent, "ready", Command::Exits(1));
        agent.publish(&[Arc::clone(&pod)]);
        agent
            .until("unready", seconds(10), |agent| {
                status(agent, "main").is_some_and(|s| s.started == Some(true) && !s.ready)
            })
            .await;
        says(agent, "ready", Command::Hangs);
    });
    node.run(async |agent| {
        agent.publish(&[Arc::clone(&pod)]);
        sleep(seconds(20)).await;
        assert!(!ready(agent, "main") && restarts(agent, "main") == 0);
        says(agent, "ready", Command::Exits(0));
        agent.until("ready again", seconds(10), |agent| ready(agent, "main")).await;
    });
    no_violations(&node);
}

#[test]
fn a_runtime_that_is_away_makes_nothing_unready_and_restarts_nothing() {
    let node = Node::new(1);
    let mut c = container("main", &Script::default());
    c.liveness_probe = Some(probe("live"));
    c.readiness_probe = Some(probe("ready"));
    let pod = one(vec![c]);
    node.run(async |agent| {
        agent.publish(&[pod]);
        agent.until("ready", seconds(10), |agent| ready(agent, "main")).await;
        agent.world.with(crate::world::State::go_down);
        for _ in 0..30 {
            sleep(seconds(1)).await;
            assert!(ready(agent, "main"));
        }
        agent.world.with(crate::world::State::come_back);
        sleep(seconds(30)).await;
        assert!(ready(agent, "main") && restarts(agent, "main") == 0);
    });
    no_violations(&node);
}

#[test]
fn a_pre_stop_hook_is_waited_for_within_the_grace_period_and_cut_at_its_end() {
    let node = Node::new(1);
    let pod = |grace| {
        Arc::new(with(
            pod("a", "u1", vec![stopped_by("quick", "quick"), stopped_by("slow", "slow")]),
            |spec| {
                spec.termination_grace_period_seconds = Some(grace);
                spec.init_containers = Some(vec![Container {
                    restart_policy: Some("Always".into()),
                    ..stopped_by("side", "side")
                }]);
            },
        ))
    };
    node.run(async |agent| {
        says(agent, "slow", Command::Hangs);
        agent.publish(&[pod(20)]);
        agent.until("ready", seconds(10), |agent| ready(agent, "quick") && ready(agent, "slow")).await;
        let begun = agent.now();
        agent.publish(&[]);
        agent.until("gone", seconds(60), |agent| agent.world.lock().containers.is_empty()).await;
        let after =
            |words: &str| times(agent, words).iter().map(|at| (at - begun) / 1000).collect::<Vec<_>>();
        // All hooks begin at once, the sidecar's too, and each container is stopped after its own.
        for hook in ["quick", "slow", "side"] {
            assert_eq!(after(&format!(" {hook}"))[0], 0, "{hook}");
        }
        assert_eq!(after("StopContainer u1/quick"), [0]);
        assert_eq!(after("StopContainer u1/slow"), [20]);
        assert_eq!(after("StopContainer u1/side"), [20]);
        assert_eq!(times(agent, "ExecSync").len(), 3);
    });
    no_violations(&node);
}

fn stopped_by(name: &str, command: &str) -> Container {
    let hook = serde_json::json!({"preStop": {"exec": {"command": [command]}}});
    Container { lifecycle: Some(hooks(&hook)), ..container(name, &Script::default()) }
}

/// The next such call about something is refused.
fn refuse(agent: &Agent, rpc: &'static str, about: &str) {
    let fate = Fate::Refused((CriErrorKind::Other, "no".to_owned()));
    let plan = Plan { acts_after: 1, answers_after: 1, fate };
    agent.world.with(|state| state.faults.scripted.push((rpc, about.to_owned(), plan)));
}

#[test]
fn a_pre_stop_hook_under_way_is_not_disturbed_by_what_befalls_the_pods_other_containers() {
    let node = Node::new(1);
    let quick = container("quick", &Script { term: Some(2000), ..Script::default() });
    let next = container("next", &Script { term: Some(4000), ..Script::default() });
    let side = Container { restart_policy: Some("Always".into()), ..stopped_by("side", "long") };
    let pod = with(pod("a", "u1", vec![quick, next, stopped_by("slow", "slow")]), |spec| {
        spec.init_containers = Some(vec![side]);
    });
    node.run(async |agent| {
        says(agent, "slow", Command::Takes(10_000, 0));
        says(agent, "long", Command::Takes(20_000, 0));
        agent.publish(&[Arc::new(pod)]);
        agent.until("ready", seconds(10), |agent| ready(agent, "slow") && ready(agent, "quick")).await;
        agent.publish(&[]);
        let begun = agent.now();
        agent.until("hooks", seconds(5), |agent| times(agent, "ExecSync").len() == 2).await;
        // The pod cannot be looked at when the first has ended, and a stop fails when a hook is done.
        refuse(agent, "ListContainers", "u1");
        refuse(agent, "StopContainer", "slow");
        agent.until("gone", seconds(60), |agent| agent.world.lock().containers.is_empty()).await;
        assert!(agent.world.lock().faults.scripted.is_empty());
        let after =
            |words: &str| times(agent, words).iter().map(|at| (at - begun) / 1000).collect::<Vec<_>>();
        assert_eq!((after("ExecSync").len(), after("StopContainer u1/quick")), (2, vec![0]));
        assert_eq!(after("StopContainer u1/slow")[0], 10);
        assert_eq!(after("StopContainer u1/side"), [20]);
    });
    no_violations(&node);
}

#[test]
fn a_pre_stop_hook_under_way_goes_on_when_the_pod_is_removed_and_is_cut_at_its_own_deadline() {
    for (grace, takes, at) in [(60, 20_000, 20_000_u64), (8, 100_000, 8000)] {
        let node = Node::new(1);
        let live = Container { liveness_probe: Some(probe("live")), ..stopped_by("main", "slow") };
        let of = |seconds| {
            Arc::new(with(pod("a", "u1", vec![live.clone()]), |spec| {
                spec.termination_grace_period_seconds = Some(seconds);
            }))
        };
        node.run(async |agent| {
            says(agent, "slow", Command::Takes(takes, 0));
            agent.publish(&[of(grace)]);
            agent.until("ready", seconds(10), |agent| ready(agent, "main")).await;
            says(agent, "live", Command::Exits(1));
            agent.until("the hook", seconds(10), |agent| times(agent, " slow").len() == 1).await;
            let begun = agent.now();
            sleep(seconds(5)).await;
            agent.publish(&[]);
            agent.until("gone", seconds(120), |agent| agent.world.lock().containers.is_empty()).await;
            let stopped = times(agent, "StopContainer u1/main");
            assert_eq!((times(agent, " slow").len(), stopped.len()), (1, 1));
            let took = stopped[0] - begun;
            assert!(at.abs_diff(took) < 100, "{grace}: {took} ms");
        });
        no_violations(&node);
    }
}

#[test]
fn an_agent_killed_in_the_middle_of_a_pre_stop_hook_leaves_it_the_time_it_had() {
    let node = Node::new(1);
    let hook = serde_json::json!({"preStop": {"exec": {"command": ["slow"]}}});
    let c = Container { lifecycle: Some(hooks(&hook)), ..container("main", &Script::default()) };
    let pod = one(vec![c]);
    let begun = node.run(async |agent| {
        says(agent, "slow", Command::Hangs);
        agent.publish(&[pod]);
        agent.until("ready", seconds(10), |agent| ready(agent, "main")).await;
        agent.publish(&[]);
        let begun = agent.now();
        sleep(seconds(10)).await;
        begun
    });
    node.run(async |agent| {
        agent.publish(&[]);
        agent.until("gone", seconds(60), |agent| agent.world.lock().containers.is_empty()).await;
        let at = times(agent, "StopContainer u1/main")[0] - begun.unwrap();
        assert_eq!(at / 1000, 30);
        assert_eq!(times(agent, "ExecSync").len(), 2);
    });
    no_violations(&node);
}

#[test]
fn a_post_start_hook_holds_back_what_comes_after_and_its_failure_restarts_the_container() {
    let node = Node::new(1);
    let hook = serde_json::json!({"postStart": {"exec": {"command": ["begin"]}}});
    let first = Container { lifecycle: Some(hooks(&hook)), ..container("first", &Script::default()) };
    let pod = one(vec![first, container("second", &Script::default())]);
    node.run(async |agent| {
        says(agent, "begin", Command::Hangs);
        agent.publish(&[Arc::clone(&pod)]);
        agent.until("it runs", seconds(5), |agent| agent.runs("u1", "first")).await;
        sleep(seconds(100)).await;
        assert!(status(agent, "first").is_some_and(|s| s.started == Some(false) && !s.ready));
        assert!(!agent.runs("u1", "second"));
    });
    // As with kubelet, the next agent takes a hook that was begun for done.
    node.run(async |agent| {
        agent.publish(&[Arc::clone(&pod)]);
        agent.until("ready", seconds(10), |agent| ready(agent, "first") && ready(agent, "second")).await;
        assert_eq!(times(agent, "ExecSync").len(), 1);
        says(agent, "begin", Command::Exits(1));
        agent.world.with(|state| {
            let id = state.newest("u1", "first").map(|c| c.id.clone()).unwrap();
            state.container_killed(&id, false);
        });
        agent.until("it fails and is tried again", seconds(60), |agent| restarts(agent, "first") >= 3).await;
        assert!(!ready(agent, "first") && ready(agent, "second"));
        says(agent, "begin", Command::Exits(0));
        agent.until("ready again", seconds(300), |agent| ready(agent, "first")).await;
        assert_eq!(restarts(agent, "second"), 0);
    });
    no_violations(&node);
}

#[test]
fn what_comes_after_a_sidecar_waits_for_its_startup_probe() {
    let node = Node::new(1);
    let mut side = sidecar("side", &Script::default());
    side.startup_probe = Some(probe("up"));
    let pod = Arc::new(with(pod("a", "u1", vec![container("main", &Script::default())]), |spec| {
        spec.init_containers = Some(vec![side]);
    }));
    node.run(async |agent| {
        says(agent, "up", Command::Exits(1));
        agent.publish(&[pod]);
        // Failing for good it is started anew; the rest waits on.
        agent.until("restarted", seconds(30), |agent| restarts(agent, "side") == 1).await;
        assert!(status(agent, "main").is_some_and(|s| s.container_id.is_none()));
        says(agent, "up", Command::Exits(0));
        agent.until("main", seconds(60), |agent| ready(agent, "main") && ready(agent, "side")).await;
    });
    no_violations(&node);
}

#[test]
fn probes_that_hang_hold_up_no_other_pod_and_end_with_their_own() {
    let node = Node::new(1);
    let probed = |name: &str, command: &str, timeout| {
        let patient = Probe { timeout_seconds: Some(timeout), ..probe(command) };
        Container { readiness_probe: Some(patient), ..container(name, &Script::default()) }
    };
    let well = one(vec![probed("main", "well", 1)]);
    let slow: Vec<Container> = (0..50).map(|n| probed(&format!("c{n}"), "hangs", i32::MAX)).collect();
    let slow = Arc::new(pod("slow", "u2", slow));
    node.run(async |agent| {
        let waited_for = Arc::clone(&agent.world.lock().waited_for);
        let hanging = || waited_for.load(Ordering::Relaxed);
        says(agent, "hangs", Command::Hangs);
        agent.publish(&[Arc::clone(&slow)]);
        agent.until("all hang", seconds(30), |_| hanging() == 50).await;
        agent.publish(&[Arc::clone(&slow), well]);
        agent.until("ready", seconds(10), |agent| ready(agent, "main")).await;
        let before = times(agent, "ExecSync u1/main").len();
        sleep(seconds(20)).await;
        let runs = times(agent, "ExecSync u1/main").len() - before;
        assert!((15..=21).contains(&runs), "{runs} runs in 20 s");
        assert_eq!(hanging(), 50);
        agent.publish(&[one(vec![probed("main", "well", 1)])]);
        agent.until("gone", seconds(120), |agent| agent.view("u2").is_none()).await;
        assert_eq!(hanging(), 0);
    });
    no_violations(&node);
}

#[test]
fn a_pod_with_much_to_probe_has_no_more_than_its_turns() {
    let node = Node::new(1);
    let probed = |name: &str, command: &str| {
        let patient = Probe { timeout_seconds: Some(3), ..probe(command) };
        Container { readiness_probe: Some(patient), ..container(name, &Script::default()) }
    };
    let slow: Vec<Container> = (0..150).map(|n| probed(&format!("c{n}"), "hangs")).collect();
    let slow = Arc::new(pod("slow", "u2", slow));
    let well = one(vec![probed("main", "well")]);
    node.run(async |agent| {
        says(agent, "hangs", Command::Hangs);
        agent.publish(&[slow, well]);
        agent.until("ready", seconds(10), |agent| ready(agent, "main")).await;
        let last =
            |agent: &Agent| agent.world.lock().containers.values().filter(|c| c.name == "c149").count();
        agent.until("all run", seconds(60), |agent| last(agent) == 1).await;
        let before = (times(agent, "ExecSync u1/main").len(), times(agent, "ExecSync u2/").len());
        sleep(seconds(60)).await;
        let own = times(agent, "ExecSync u1/main").len() - before.0;
        let others = times(agent, "ExecSync u2/").len() - before.1;
        // Sixteen begin in a second; in the order in which they are due each would come every ten seconds.
        assert!((700..=1000).contains(&others) && own >= 25, "{own} and {others} runs in a minute");
    });
    no_violations(&node);
}
