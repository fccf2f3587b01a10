//! Scripted cases.

use std::{fs, sync::Arc, time::Duration};

use nodectl::{agent::sources::PodSource, api::labels, cri::CriErrorKind};
use tokio::time::sleep;

use crate::{
    agent::{Agent, Node},
    faults::{Fate, Plan},
    rest::names,
    script::{Script, container, pod, set_version, sidecar, simple, with},
    world::{Is, State},
};

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Fails with the trace if anything was wrong.
fn no_violations(node: &Node) {
    let state = node.world.lock();
    assert!(state.oracle.violations.is_empty(), "{}", state.trace.join("\n"));
}

/// Nothing of any pod is in the runtime.
fn is_empty(agent: &Agent) -> bool {
    let state = agent.world.lock();
    state.sandboxes.is_empty() && state.containers.is_empty()
}

#[test]
fn a_pod_comes_and_goes() {
    let node = Node::new(1);
    node.run(async |agent| {
        agent.publish(&[simple("a", "u1")]);
        agent.until("u1 runs", seconds(5), |agent| agent.phase("u1") == "Running").await;
        agent.publish(&[]);
        agent.until("u1 is gone", seconds(40), is_empty).await;
    });
    no_violations(&node);
}

#[test]
fn a_runtime_that_comes_back_to_a_new_agent_has_restarted_nothing() {
    for later in (0..1000).step_by(100) {
        let node = Node::new(1);
        node.run(async |agent| {
            agent.publish(&[simple("a", "u1")]);
            agent.until("u1 runs", seconds(5), |agent| agent.phase("u1") == "Running").await;
            agent.world.with(State::go_down);
        });
        node.run(async |agent| {
            agent.publish(&[simple("a", "u1")]);
            sleep(Duration::from_millis(5000 + later)).await;
            agent.world.with(State::come_back);
            // Pods may be listed before the runtime has told its name, which ids of containers begin with.
            let main = |agent: &Agent| {
                let view = agent.view("u1")?;
                view.status.container_statuses.as_ref()?.first().cloned()
            };
            agent
                .until("u1 is shown as running", seconds(10), |agent| {
                    let id = main(agent).and_then(|main| main.container_id).unwrap_or_default();
                    assert!(!id.starts_with(':'), "{id}");
                    agent.phase("u1") == "Running"
                })
                .await;
            sleep(seconds(2)).await;
            assert_eq!(main(agent).map(|main| main.restart_count), Some(0), "{later} ms later");
        });
        no_violations(&node);
    }
}

#[test]
fn a_container_is_asked_to_end_before_it_is_killed_however_late() {
    let node = Node::new(1);
    let stubborn = container("main", &Script { term: None, ..Script::default() });
    let stubborn = Arc::new(with(pod("a", "u1", vec![stubborn]), |spec| {
        spec.termination_grace_period_seconds = Some(5);
    }));
    node.run(async |agent| {
        agent.publish(&[stubborn]);
        agent.until("u1 runs", seconds(5), |agent| agent.phase("u1") == "Running").await;
        agent.world.with(State::go_down);
        agent.publish(&[]);
        sleep(seconds(60)).await;
        agent.world.with(State::come_back);
        agent.until("u1 is gone", seconds(20), is_empty).await;
    });
    no_violations(&node);
}

#[test]
fn pods_that_end_by_themselves_are_told_so_by_every_agent() {
    let node = Node::new(1);
    let ends = |uid: &str, policy: &str, script: &Script| {
        Arc::new(with(pod(uid, uid, vec![container("main", script)]), |spec| {
            spec.restart_policy = Some(policy.to_owned());
        }))
    };
    let pods = [
        ends("never-0", "Never", &Script::exits(3000, 0)),
        ends("never-1", "Never", &Script::exits(3000, 1)),
        ends("on-failure", "OnFailure", &Script { crashes: 2, ..Script::exits(3000, 0) }),
    ];
    let expected = [("never-0", "Succeeded", 0), ("never-1", "Failed", 0), ("on-failure", "Succeeded", 2)];
    for first in [true, false, false] {
        node.run(async |agent| {
            let before = agent.world.lock().mutations;
            agent.publish(&pods);
            sleep(seconds(if first { 60 } else { 1 })).await;
            for (uid, phase, restarts) in expected {
                assert_eq!(agent.phase(uid), phase, "{uid}, first agent: {first}");
                let status = agent.view(uid).unwrap().status.container_statuses.clone().unwrap();
                assert_eq!(status[0].restart_count, restarts, "{uid}");
            }
            assert!(agent.world.lock().sandboxes.values().all(|sandbox| !sandbox.ready));
            assert!(first || agent.world.lock().mutations == before);
        });
    }
    no_violations(&node);
}

#[test]
fn what_was_not_seen_is_looked_at_before_more_is_done() {
    let node = Node::new(1);
    node.run(async |agent| {
        agent.publish(&[simple("a", "u1")]);
        agent
            .until("the call is sent", seconds(5), |agent| {
                agent.world.lock().trace.iter().any(|line| line.contains("StartContainer"))
            })
            .await;
        // It starts, and neither the answer nor a look at it comes through.
        agent.until("it runs", seconds(5), |agent| agent.runs("u1", "main")).await;
        agent.world.with(State::go_down);
        sleep(seconds(5)).await;
        agent.world.with(State::come_back);
        agent.until("u1 runs", seconds(5), |agent| agent.phase("u1") == "Running").await;
        let state = agent.world.lock();
        let calls = |what: &str| state.trace.iter().filter(|line| line.contains(what)).count();
        assert_eq!((calls("RunPodSandbox"), calls("CreateContainer"), calls("StartContainer")), (1, 1, 1));
    });
    no_violations(&node);
}

#[test]
fn a_container_that_starts_after_its_pods_end_began_has_the_rest_of_the_pods_time() {
    let node = Node::new(1);
    let stubborn = container("main", &Script { term: None, ..Script::default() });
    let pod = Arc::new(pod("a", "u1", vec![stubborn]));
    let begun = node.run(async |agent| {
        plan(agent, "StartContainer", "main", Plan::slow(2000));
        let lost = Fate::TimesOut { after: 120_000, acts: false };
        plan(agent, "StopContainer", "main", Plan { acts_after: 150_000, answers_after: 0, fate: lost });
        agent.publish(&[pod]);
        agent.until("its start is under way", seconds(5), |agent| calls(agent, "StartContainer") == 1).await;
        agent.publish(&[]);
        let begun = agent.now();
        sleep(seconds(10)).await;
        begun
    });
    // It hears only of the second asking; the pod's time is not begun anew for that.
    node.run(async |agent| {
        agent.publish(&[]);
        agent.until("u1 is gone", seconds(60), is_empty).await;
        let took = agent.now() - begun.unwrap();
        assert!((30_000..35_000).contains(&took), "{took}");
    });
    no_violations(&node);
}

/// The next call of a kind about something goes so.
fn plan(agent: &Agent, rpc: &'static str, about: &str, plan: Plan) {
    agent.world.with(|state| state.faults.scripted.push((rpc, about.to_owned(), plan)));
}

fn calls(agent: &Agent, what: &str) -> usize {
    agent.world.lock().trace.iter().filter(|line| line.contains(what)).count()
}

fn started(agent: &Agent, uid: &str) -> Vec<(String, u64)> {
    let state = agent.world.lock();
    let mut all: Vec<_> = state
        .containers
        .values()
        .filter(|c| c.uid == uid && c.is != Is::Created)
        .map(|c| (c.name.clone(), c.started))
        .collect();
    all.sort_by_key(|(_, at)| *at);
    all
}

async fn running(agent: &Agent, uid: &str) {
    agent.until(uid, seconds(30), |agent| agent.phase(uid) == "Running").await;
}

#[test]
fn an_old_answer_does_not_bring_a_pod_back() {
    let node = Node::new(1);
    node.world.with(|state| state.event_source = nodectl::cri::EventSource::None);
    node.run(async |agent| {
        agent.publish(&[simple("a", "u1")]);
        running(agent, "u1").await;
        let late = Plan { acts_after: 1, answers_after: 3000, fate: Fate::Normal };
        plan(agent, "ListPodSandbox", "", late.clone());
        plan(agent, "ListContainers", "", late);
        agent
            .until("a slow relist is sent", seconds(5), |agent| agent.world.lock().faults.scripted.is_empty())
            .await;
        sleep(Duration::from_millis(5)).await;
        agent.publish(&[]);
        agent
            .until("u1 is gone", seconds(2), |agent| agent.env.board.all().is_empty() && is_empty(agent))
            .await;
        for _ in 0..4000 {
            sleep(Duration::from_millis(1)).await;
            assert!(agent.env.pleg.all().is_empty());
        }
    });
    no_violations(&node);
}

#[test]
fn a_crash_loop_slows_down_over_restarts_of_the_agent() {
    let node = Node::new(1);
    let crashing =
        Arc::new(pod("a", "u1", vec![container("main", &Script { crashes: 99, ..Script::default() })]));
    let (mut ends, mut starts) = (Vec::new(), Vec::new());
    for _ in 0..160 {
        node.run(async |agent| {
            agent.publish(&[Arc::clone(&crashing)]);
            sleep(seconds(5)).await;
        });
        for line in std::mem::take(&mut node.world.lock().trace) {
            let time = line.split_whitespace().next().unwrap().parse::<u64>().unwrap();
            if line.contains(" exits with ") {
                ends.push(time);
            } else if line.contains("StartContainer ") {
                starts.push(time);
            }
        }
    }
    let waits: Vec<u64> = ends.iter().zip(&starts[1..]).map(|(end, start)| (start - end) / 1000).collect();
    assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300]);
    no_violations(&node);
}

#[test]
fn a_pod_removed_in_the_middle_of_a_slow_sandbox_leaves_nothing() {
    let node = Node::new(1);
    node.run(async |agent| {
        plan(agent, "RunPodSandbox", "u1", Plan::slow(60_000));
        agent.publish(&[simple("a", "u1"), simple("b", "u2")]);
        running(agent, "u2").await;
        agent.publish(&[simple("b", "u2")]);
        sleep(seconds(70)).await;
        assert!(agent.view("u1").is_none());
        agent.publish(&[]);
        agent.until("all is gone", seconds(40), is_empty).await;
        assert_eq!(calls(agent, "CreateContainer u1"), 0);
    });
    no_violations(&node);
}

#[test]
fn a_pod_replaced_in_the_middle_of_a_pull_does_not_wait_for_it() {
    let node = Node::new(1);
    let mut slow = container("main", &Script::default());
    slow.image = Some("localhost/huge:1".to_owned());
    node.run(async |agent| {
        plan(agent, "PullImage", "huge", Plan::slow(600_000));
        agent.publish(&[Arc::new(pod("a", "u1", vec![slow]))]);
        sleep(seconds(20)).await;
        assert_eq!(agent.phase("u1"), "Pending");
        agent.publish(&[simple("a", "u2")]);
        running(agent, "u2").await;
        assert!(agent.now() < 30_000 && agent.view("u1").is_none());
    });
    no_violations(&node);
}

#[test]
fn what_happens_while_an_image_is_asked_for_in_vain_is_not_forgotten() {
    let node = Node::new(1);
    let mut other = container("other", &Script::default());
    other.image = Some("localhost/other:1".to_owned());
    let pod = pod("a", "u1", vec![container("main", &Script::default()), other]);
    node.run(async |agent| {
        let failed = |acts_after| {
            let fate = Fate::Refused((CriErrorKind::Other, "no".to_owned()));
            plan(agent, "ImageStatus", "other", Plan { acts_after, answers_after: 1, fate });
        };
        let asked = |agent: &Agent| agent.world.lock().faults.scripted.is_empty();
        // By the last of these its back-off has grown long.
        (0..5).for_each(|_| failed(1));
        agent.publish(&[Arc::new(pod)]);
        agent.until("asked for", seconds(200), asked).await;
        failed(5000);
        agent.until("asked for again", seconds(200), asked).await;
        agent.world.with(|state| {
            let id = state.newest("u1", "main").map(|c| c.id.clone()).unwrap();
            state.container_killed(&id, false);
        });
        // It is started again at the answer, and not when the other's image is next asked for.
        agent.until("it runs again", seconds(6), |agent| agent.runs("u1", "main")).await;
    });
    no_violations(&node);
}

#[test]
fn what_a_call_made_that_timed_out_is_adopted() {
    let node = Node::new(1);
    node.run(async |agent| {
        for rpc in ["RunPodSandbox", "CreateContainer", "StartContainer"] {
            plan(
                agent,
                rpc,
                "u1",
                Plan {
                    acts_after: 20_000,
                    answers_after: 0,
                    fate: Fate::TimesOut { after: 10_000, acts: true },
                },
            );
        }
        agent.publish(&[simple("a", "u1")]);
        agent.until("u1", seconds(120), |agent| agent.phase("u1") == "Running").await;
        let state = agent.world.lock();
        assert_eq!((state.sandboxes.len(), state.containers.len()), (1, 1));
        assert!(state.containers.values().all(|container| container.attempt == 0));
    });
    no_violations(&node);
}

#[test]
fn sidecars_start_first_and_stop_last() {
    let node = Node::new(1);
    let takes = |term| Script { term: Some(term), ..Script::default() };
    let whole =
        with(pod("a", "u1", vec![container("a", &takes(1000)), container("b", &takes(2000))]), |spec| {
            spec.init_containers = Some(vec![
                container("first", &Script::exits(1000, 0)),
                sidecar("s1", &takes(100)),
                container("second", &Script::exits(1000, 0)),
                sidecar("s2", &takes(100)),
            ]);
        });
    node.run(async |agent| {
        agent.publish(&[Arc::new(whole)]);
        running(agent, "u1").await;
        agent.until("all run", seconds(5), |agent| started(agent, "u1").len() == 6).await;
        let order: Vec<String> = started(agent, "u1").into_iter().map(|(name, _)| name).collect();
        assert_eq!(order, ["first", "s1", "second", "s2", "a", "b"]);
        agent.world.lock().trace.clear();
        agent.publish(&[]);
        agent.until("u1 is gone", seconds(40), is_empty).await;
        let state = agent.world.lock();
        let told: Vec<&str> = state
            .trace
            .iter()
            .filter_map(|line| Some(line.split_once("StopContainer u1/")?.1.split_once('.')?.0))
            .collect();
        let (first, rest) = told.split_at(2);
        assert!(first.contains(&"a") && first.contains(&"b"), "{told:?}");
        assert_eq!(rest, ["s2", "s1"]);
    });
    no_violations(&node);
}

#[test]
fn a_hanging_runtime_stops_nobody_else() {
    let node = Node::new(1);
    node.run(async |agent| {
        agent.publish(&[simple("a", "u1")]);
        running(agent, "u1").await;
        agent.world.with(|state| state.hung_until = state.now() + 600_000);
        let pods: Vec<_> = (0..50).map(|n| simple(&format!("p{n}"), &format!("v{n}"))).collect();
        for round in 0..300 {
            agent.publish(if round % 2 == 0 { &pods } else { &[] });
            sleep(seconds(2)).await;
            assert!(agent.state.idle() <= seconds(1), "{:?}", agent.state.idle());
        }
        agent.publish(&[simple("a", "u1")]);
        sleep(seconds(1000)).await;
        assert_eq!(agent.phase("u1"), "Running");
        assert_eq!(agent.env.board.all().len(), 1);
        assert_eq!(agent.world.lock().sandboxes.len(), 1);
    });
    let state = node.world.lock();
    assert!(state.oracle.violations.is_empty(), "{:?}", state.oracle.violations);
}

#[test]
fn a_thousand_pods_leave_nothing() {
    let node = Node::new(1);
    node.run(async |agent| {
        let pods: Vec<_> = (0..1000).map(|n| simple(&format!("p{n}"), &format!("v{n}"))).collect();
        agent.publish(&pods);
        agent
            .until("all run", seconds(120), |agent| {
                let state = agent.world.lock();
                state.containers.values().filter(|c| c.is == Is::Running).count() == 1000
            })
            .await;
        agent.publish(&[]);
        agent.until("all are gone", seconds(120), is_empty).await;
        sleep(seconds(80)).await;
        assert!(agent.env.board.all().is_empty() && agent.env.pleg.all().is_empty());
        assert_eq!(crate::rest::unsettled(agent, &[]), Vec::<String>::new());
    });
    no_violations(&node);
}

#[test]
fn nothing_is_removed_before_all_sources_have_told() {
    let node = Node::with_sources(1, &[PodSource::File, PodSource::Http]);
    node.run(async |agent| {
        agent.publish_to(0, &[simple("a", "u1"), simple("b", "u2")]);
        agent.publish_to(1, &[simple("c", "u3")]);
        for uid in ["u1", "u2", "u3"] {
            running(agent, uid).await;
        }
    });
    // The second source has not told yet, and its pod stays; so does one that the first no longer has, even
    // where its name is given to another.
    node.run(async |agent| {
        agent.publish_to(0, &[simple("b", "u4")]);
        sleep(seconds(300)).await;
        assert_eq!(calls(agent, "Stop") + calls(agent, "Remove"), 0);
        assert!(["u1", "u2", "u3"].iter().all(|uid| agent.runs(uid, "main")));
        agent.publish_to(1, &[simple("c", "u3")]);
        running(agent, "u4").await;
        agent
            .until("the others are gone", seconds(40), |agent| agent.world.lock().sandboxes.len() == 2)
            .await;
        assert!(agent.runs("u3", "main") && agent.runs("u4", "main"));
    });
    no_violations(&node);
}

#[test]
fn an_agent_that_knows_other_fields_restarts_nothing() {
    let node = Node::new(1);
    node.run(async |agent| {
        agent.publish(&[simple("a", "u1"), simple("b", "u2")]);
        running(agent, "u1").await;
        running(agent, "u2").await;
    });
    // What runs was made by an agent that did not know some fields, or knew one more.
    node.world.with(|state| {
        let edit = |text: &mut String, uid: &str| {
            if uid == "u1" {
                let known = |word: &&str| !word.starts_with("args=") && !word.starts_with("hostname=");
                *text = text.split(' ').filter(known).collect::<Vec<_>>().join(" ");
            } else {
                text.push_str(" fieldOfTomorrow=01234567");
            }
        };
        for c in state.containers.values_mut() {
            edit(c.config.annotations.get_mut(labels::CONTAINER_FINGERPRINT).unwrap(), &c.uid);
        }
        for s in state.sandboxes.values_mut() {
            edit(s.config.annotations.get_mut(labels::SANDBOX_FINGERPRINT).unwrap(), &s.uid);
        }
    });
    node.run(async |agent| {
        let before = agent.world.lock().mutations;
        agent.publish(&[simple("a", "u1"), simple("b", "u2")]);
        sleep(seconds(300)).await;
        assert_eq!(agent.world.lock().mutations, before);
        // A field that both know still counts.
        let mut edited = (*simple("b", "u2")).clone();
        set_version(&mut edited.spec.as_mut().unwrap().containers[0], 1);
        agent.publish(&[simple("a", "u1"), Arc::new(edited)]);
        sleep(seconds(60)).await;
        assert_eq!((calls(agent, "CreateContainer u1"), calls(agent, "CreateContainer u2/main.1")), (1, 1));
    });
    no_violations(&node);
}

#[test]
fn a_removal_cut_short_is_finished_by_the_next_agent() {
    let node = Node::new(1);
    node.run(async |agent| {
        agent.publish(&[simple("a", "u1")]);
        running(agent, "u1").await;
        plan(
            agent,
            "RemovePodSandbox",
            "u1",
            Plan { fate: Fate::TimesOut { after: 60_000, acts: false }, ..Plan::slow(1) },
        );
        agent.publish(&[]);
        agent.until("the call is sent", seconds(5), |agent| calls(agent, "RemovePodSandbox") == 1).await;
    });
    node.run(async |agent| {
        // The first relist takes its time.
        plan(agent, "ListPodSandbox", "", Plan::slow(10_000));
        let paths = agent.env.paths.clone();
        agent.until("u1 is gone", seconds(20), |_| names(&paths.checkpoints()).is_empty()).await;
        assert!(is_empty(agent), "the checkpoint went before what it tells of");
    });
    no_violations(&node);
}

#[test]
fn a_dead_containers_files_go_before_its_record() {
    let node = Node::new(1);
    let mut main = container("main", &Script { crashes: 99, ..Script::default() });
    main.termination_message_path = Some("/dev/termination-log".to_owned());
    let crashing = Arc::new(pod("a", "u1", vec![main]));
    let paths = node.paths();
    let logs = paths.pod_logs.join("default_a_u1/main");
    let words = paths.pods().join("u1/containers/main");
    let files = |attempt: u32| {
        [logs.join(format!("{attempt}.log")), words.join(format!("{attempt:08x}"))].map(|file| file.exists())
    };
    let records = |agent: &Agent| agent.world.lock().containers.len();
    node.run(async |agent| {
        plan(agent, "RemoveContainer", "u1/main.0", Plan::slow(1000));
        agent.publish(&[Arc::clone(&crashing)]);
        agent.until("it dies", seconds(5), |agent| calls(agent, "exits with 1") == 1).await;
        assert_eq!(files(0), [true, true]);
        agent.until("the first goes", seconds(60), |agent| calls(agent, "RemoveContainer") == 1).await;
        // An agent that is killed here has left nothing that no record tells of.
        assert_eq!(files(0), [false, false]);
    });
    node.run(async |agent| {
        agent.publish(&[Arc::clone(&crashing)]);
        agent.until("its record goes", seconds(60), |agent| records(agent) == 2).await;
        // Its log cannot be removed: both its files are tried, and its record stays until they are gone.
        fs::remove_file(logs.join("1.log")).unwrap();
        fs::create_dir_all(logs.join("1.log/in/the/way")).unwrap();
        agent.until("another dies", seconds(120), |agent| calls(agent, "exits with 1") == 3).await;
        sleep(seconds(5)).await;
        assert_eq!((calls(agent, "RemoveContainer u1/main.1"), files(1)), (0, [true, false]));
        fs::remove_dir_all(logs.join("1.log")).unwrap();
        agent
            .until("it goes too", seconds(120), |agent| calls(agent, "RemoveContainer u1/main.1") == 1)
            .await;
        assert_eq!(files(1), [false, false]);
    });
    no_violations(&node);
}
