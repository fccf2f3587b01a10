//! Properties over random pods and random histories of what the runtime was seen to hold.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    PodFailure, PodPhase, ProbeState, WaitingReason, is_terminal, phase_of,
    tests::{World, at, exited, named, pod, runs, sandbox},
};
use crate::api::{ContainerState, ObservedContainer, PodExt, SandboxState};

const NAMES: [&str; 5] = ["i", "j", "s", "a", "b"];

fn any_pod() -> impl Strategy<Value = Value> {
    let policy = prop::sample::select(vec!["Always", "OnFailure", "Never"]);
    let own = prop::sample::select(vec![None, None, Some("Always"), Some("OnFailure"), Some("Never")]);
    let action = prop::sample::select(vec![None, None, Some("Restart"), Some("RestartAllContainers")]);
    (policy, own, action, prop::collection::vec(any::<bool>(), 4)).prop_map(|(policy, own, action, has)| {
        let mut a = json!({"name": "a"});
        if let Some(own) = own {
            a["restartPolicy"] = own.into();
        }
        if let Some(action) = action {
            a["restartPolicyRules"] =
                json!([{"action": action, "exitCodes": {"operator": "In", "values": [1]}}]);
        }
        let mut init = Vec::new();
        for (name, has) in ["i", "s", "j"].into_iter().zip(&has) {
            if *has {
                init.push(json!({"name": name, "restartPolicy": (name == "s").then_some("Always")}));
            }
        }
        let mut regular = vec![a];
        if has[3] {
            regular.push(json!({"name": "b"}));
        }
        json!({"restartPolicy": policy, "initContainers": init, "containers": regular})
    })
}

/// A moment: sandboxes, containers, and what the executor says.
#[derive(Debug, Clone)]
struct Moment {
    sandboxes: Vec<bool>,
    containers: Vec<ObservedContainer>,
    waiting: Vec<usize>,
    probes: Vec<(usize, bool, bool)>,
    terminal: bool,
    done: bool,
}

fn any_container() -> impl Strategy<Value = ObservedContainer> {
    (0..NAMES.len(), 0..4_u32, 0..3_u32, 0..5_u8, 0..3_i32, any::<bool>()).prop_map(
        |(name, attempt, in_sandbox, state, code, odd)| {
            let name = NAMES[name];
            let created = i64::from(attempt) * 20 + i64::from(in_sandbox);
            let mut c = match state {
                0 | 1 => runs(name, attempt, created),
                2 => exited(name, attempt, created, code),
                3 => ObservedContainer {
                    state: ContainerState::Created,
                    started_at: None,
                    ..runs(name, attempt, created)
                },
                _ => ObservedContainer { state: ContainerState::Unknown, ..runs(name, attempt, created) },
            };
            if odd {
                c.started_at = None;
                c.finished_at = None;
                c.restart_count = 0;
            }
            c.sandbox_id = format!("sb{in_sandbox}").into();
            c
        },
    )
}

fn any_moment() -> impl Strategy<Value = Moment> {
    (
        prop::collection::vec(any::<bool>(), 0..3),
        prop::collection::vec(any_container(), 0..8),
        prop::collection::vec(0..NAMES.len(), 0..4),
        prop::collection::vec((0..NAMES.len(), any::<bool>(), any::<bool>()), 0..3),
        prop::bool::weighted(0.05),
        prop::bool::weighted(0.1),
    )
        .prop_map(|(sandboxes, containers, waiting, probes, terminal, done)| Moment {
            sandboxes,
            containers,
            waiting,
            probes,
            terminal,
            done,
        })
}

fn show(world: &mut World, moment: &Moment) {
    let states = moment.sandboxes.iter().zip(0_u32..);
    world.seen.sandboxes = states
        .map(|(ready, n)| {
            let state = if *ready { SandboxState::Ready } else { SandboxState::NotReady };
            sandbox(n, i64::from(n) * 10, state)
        })
        .collect();
    world.seen.containers = moment.containers.clone();
    world.seen.containers.sort_by(|a, b| a.id.cmp(&b.id));
    world.seen.containers.dedup_by(|a, b| a.id == b.id);
    world.seen.sort();
    let reason = WaitingReason { reason: "CrashLoopBackOff".into(), message: String::new() };
    world.waiting = moment.waiting.iter().map(|n| (NAMES[*n].to_owned(), reason.clone())).collect();
    world.probes = moment
        .probes
        .iter()
        .map(|(n, started, ready)| (NAMES[*n].to_owned(), ProbeState { started: *started, ready: *ready }))
        .collect();
    world.terminal = moment.terminal.then(|| PodFailure { reason: "Evicted".into(), message: String::new() });
    world.done = moment.done;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn histories(
        spec in any_pod(),
        moments in prop::collection::vec(any_moment(), 1..6),
        is_static in any::<bool>(),
        forgets in any::<bool>(),
    ) {
        let mut pod = pod(spec);
        if is_static {
            let source = ("kubernetes.io/config.source".to_owned(), "file".to_owned());
            pod.metadata.annotations = Some([source].into());
        }
        let mut world = World::new(pod, vec![]);
        if forgets {
            world.started_at = None;
        }
        for (moment, now) in moments.iter().zip(100_i64..) {
            show(&mut world, moment);
            world.now = now;
            // Asking checks the fixed point.
            let status = world.status();
            let phase = phase_of(&status).unwrap();
            if let Some(previous) = &world.previous {
                if is_terminal(previous) {
                    prop_assert_eq!(&status.phase, &previous.phase);
                }
                for (_, container) in world.pod.all_containers() {
                    let old = named(previous, &container.name);
                    let new = named(&status, &container.name);
                    let back = new.state.as_ref().unwrap().running.is_some();
                    prop_assert!(new.restart_count >= old.restart_count - i32::from(back));
                }
                for old in previous.conditions.iter().flatten() {
                    let new = super::condition(&status, &old.type_).unwrap();
                    if new.status == old.status {
                        prop_assert_eq!(&new.last_transition_time, &old.last_transition_time);
                    } else {
                        prop_assert!(new.last_transition_time >= old.last_transition_time);
                    }
                }
                prop_assert_eq!(&status.start_time, &previous.start_time);
            }
            if moment.terminal || (moment.done && !is_static) {
                prop_assert!(phase.is_terminal());
            }
            let named_statuses = status.init_container_statuses.iter().flatten()
                .chain(status.container_statuses.iter().flatten());
            for c in named_statuses {
                let state = c.state.as_ref().unwrap();
                let set = [state.waiting.is_some(), state.running.is_some(), state.terminated.is_some()];
                prop_assert_eq!(set.iter().filter(|s| **s).count(), 1);
                if c.ready && c.started == Some(true) {
                    prop_assert!(state.running.is_some());
                }
                let own = c.last_state.as_ref().and_then(|s| s.terminated.as_ref());
                let own = own.and_then(|end| end.container_id.as_ref());
                prop_assert!(own.is_none() || own != c.container_id.as_ref() || state.waiting.is_some());
            }
            for c in status.conditions.iter().flatten() {
                prop_assert!(c.last_transition_time.as_ref().unwrap().0 <= at(now));
            }
            if super::all_ready(&status) {
                prop_assert!(matches!(phase, PodPhase::Pending | PodPhase::Running));
            }
            world.previous = Some(status);
        }
    }

    /// While the same containers only move forward, so does the phase.
    #[test]
    fn the_way_up_is_one_way(spec in any_pod(), steps in prop::collection::vec(0..5_usize, 1..30)) {
        let mut world = World::new(pod(spec), vec![]);
        let order: Vec<String> = world.pod.all_containers().iter().map(|(_, c)| c.name.clone()).collect();
        let mut last = PodPhase::Pending;
        let (mut next, mut now) = (0, 10);
        for step in steps {
            now += 5;
            // Init containers run one after another; what has started ends at some time, well or not.
            let open = world.seen.containers.iter_mut().find(|c| {
                c.state == ContainerState::Running && matches!(&*c.name, "i" | "j")
            });
            if let Some(open) = open {
                open.state = ContainerState::Exited;
                open.finished_at = Some(at(now));
            } else if next < order.len() {
                world.seen.containers.push(runs(&order[next], 0, now));
                next += 1;
            } else if let Some(c) =
                world.seen.containers.get_mut(step).filter(|c| c.state == ContainerState::Running)
            {
                c.state = ContainerState::Exited;
                c.exit_code = i32::try_from(step % 2).unwrap();
                c.finished_at = Some(at(now));
            }
            world.now = now;
            let mut shown = world.seen.clone();
            shown.sort();
            std::mem::swap(&mut shown, &mut world.seen);
            let status = world.status();
            world.seen = shown;
            let phase = phase_of(&status).unwrap();
            prop_assert!(phase >= last, "{:?} after {:?}", phase, last);
            last = phase;
            world.previous = Some(status);
        }
    }
}
