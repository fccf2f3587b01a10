//! Tables in the spirit of kubelet's own: what runs or ran, and the status that it makes.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};
use serde_json::{Value, json};

use super::*;
use crate::{
    api::{ContainerId, ObservedContainer, ObservedSandbox, PodExt, PodObservation, SandboxId, SandboxState},
    policy::resize::{Actuated, Pending},
};

/// Seconds on the tests' clock.
pub(super) fn at(seconds: i64) -> Timestamp {
    "2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

pub(super) fn pod(spec: Value) -> Pod {
    let metadata = json!({"name": "p", "uid": "u"});
    serde_json::from_value(Value::Object(
        [("metadata".into(), metadata), ("spec".into(), spec)].into_iter().collect(),
    ))
    .unwrap()
}

/// A pod by names: init containers, a `~` before a sidecar's, then regular ones.
fn simple(policy: &str, init: &[&str], regular: &[&str]) -> Pod {
    let init: Vec<_> = init
        .iter()
        .map(|name| match name.strip_prefix('~') {
            Some(name) => json!({"name": name, "image": "i", "restartPolicy": "Always"}),
            None => json!({"name": name, "image": "i"}),
        })
        .collect();
    let regular: Vec<_> = regular.iter().map(|name| json!({"name": name, "image": "i"})).collect();
    pod(json!({"restartPolicy": policy, "initContainers": init, "containers": regular}))
}

pub(super) fn sandbox(attempt: u32, created: i64, state: SandboxState) -> ObservedSandbox {
    ObservedSandbox {
        id: SandboxId::from(format!("sb{attempt}")),
        attempt,
        state,
        created_at: at(created),
        ips: vec!["10.0.0.7".parse().unwrap()],
        host_network: false,
        fingerprint: None,
        runtime_handler: "".into(),
    }
}

/// A container that runs since `created`, in the first sandbox.
pub(super) fn runs(name: &str, attempt: u32, created: i64) -> ObservedContainer {
    ObservedContainer {
        id: ContainerId::from(format!("{name}{attempt}")),
        name: name.into(),
        sandbox_id: SandboxId::from("sb0"),
        attempt,
        restart_count: attempt,
        state: ContainerState::Running,
        created_at: at(created),
        started_at: Some(at(created)),
        finished_at: None,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        image: "i:1".to_owned(),
        image_ref: "sha256:1".to_owned(),
        log_path: String::new(),
        termination_file: String::new(),
        kubelet_hash: None,
        fingerprint: None,
        restart_delay_seconds: None,
        pod_grace_seconds: None,
        sidecar: false,
    }
}

/// The same, ended ten seconds later.
pub(super) fn exited(name: &str, attempt: u32, created: i64, code: i32) -> ObservedContainer {
    ObservedContainer {
        state: ContainerState::Exited,
        exit_code: code,
        finished_at: Some(at(created + 10)),
        ..runs(name, attempt, created)
    }
}

fn unknown(name: &str, created: i64, started: bool) -> ObservedContainer {
    let started_at = started.then(|| at(created));
    ObservedContainer { state: ContainerState::Unknown, started_at, ..runs(name, 0, created) }
}

fn created(name: &str) -> ObservedContainer {
    ObservedContainer { state: ContainerState::Created, started_at: None, ..runs(name, 0, 10) }
}

/// One pod's world; `status` asks and checks that the answer is a fixed point.
pub(super) struct World {
    pub(super) pod: Pod,
    pub(super) seen: PodObservation,
    pub(super) previous: Option<PodStatus>,
    pub(super) waiting: BTreeMap<String, WaitingReason>,
    pub(super) terminal: Option<PodFailure>,
    pub(super) probes: BTreeMap<String, ProbeState>,
    pub(super) done: bool,
    pub(super) resize: ResizeStatus,
    pub(super) hosts: Vec<IpAddr>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) now: i64,
}

impl World {
    pub(super) fn new(pod: Pod, containers: Vec<ObservedContainer>) -> Self {
        let mut seen = PodObservation::empty(pod.uid(), pod.full_name(), at(100));
        seen.sandboxes.push(sandbox(0, 1, SandboxState::Ready));
        seen.containers = containers;
        seen.sort();
        Self {
            pod,
            seen,
            previous: None,
            waiting: BTreeMap::new(),
            terminal: None,
            probes: BTreeMap::new(),
            done: false,
            resize: ResizeStatus::default(),
            hosts: vec!["192.0.2.1".parse().unwrap()],
            started_at: Some(at(0)),
            now: 100,
        }
    }

    fn waits(mut self, name: &str, reason: &str) -> Self {
        self.waiting.insert(name.into(), WaitingReason { reason: reason.into(), message: "m".into() });
        self
    }

    fn after(mut self, previous: &PodStatus, now: i64) -> Self {
        self.previous = Some(previous.clone());
        self.now = now;
        self
    }

    fn ask(&self, previous: Option<&PodStatus>, now: i64) -> PodStatus {
        pod_status(&StatusInput {
            pod: &self.pod,
            observation: &self.seen,
            previous,
            waiting: &self.waiting,
            terminal: self.terminal.as_ref(),
            probes: &self.probes,
            lifecycle_done: self.done,
            host_ips: &self.hosts,
            started_at: self.started_at,
            runtime_name: "containerd",
            resize: &self.resize,
            recursive_read_only: true,
            now: at(now),
        })
    }

    pub(super) fn status(&self) -> PodStatus {
        let status = self.ask(self.previous.as_ref(), self.now);
        let again = self.ask(Some(&status), self.now + 50);
        let (mine, again) = (serde_json::to_value(&status).unwrap(), serde_json::to_value(again).unwrap());
        for (key, value) in mine.as_object().into_iter().chain(again.as_object()).flatten() {
            let (mine, again) = (&mine[key], &again[key]);
            assert_eq!(mine, again, "{key} is no fixed point: {value}");
        }
        status
    }
}

fn phase_is(world: &World) -> String {
    world.status().phase.unwrap()
}

pub(super) fn named<'s>(status: &'s PodStatus, name: &str) -> &'s ContainerStatus {
    let lists = [&status.init_container_statuses, &status.container_statuses];
    lists.into_iter().flatten().flatten().find(|s| s.name == name).unwrap()
}

fn cond<'s>(status: &'s PodStatus, type_: &str) -> &'s PodCondition {
    condition(status, type_).unwrap()
}

fn since(status: &PodStatus, type_: &str) -> Timestamp {
    cond(status, type_).last_transition_time.as_ref().unwrap().0
}

fn shown(status: &ContainerStatus) -> String {
    let state = status.state.as_ref().unwrap();
    match (&state.waiting, &state.running, &state.terminated) {
        (Some(w), None, None) => format!("waiting {}", w.reason.as_deref().unwrap_or("-")),
        (None, Some(_), None) => "running".to_owned(),
        (None, None, Some(t)) => format!("ended {} {}", t.exit_code, t.reason.as_deref().unwrap_or("-")),
        other => panic!("{other:?}"),
    }
}

fn last(status: &ContainerStatus) -> Option<(i32, String, Option<String>)> {
    let end = status.last_state.as_ref()?.terminated.clone()?;
    Some((end.exit_code, end.reason.unwrap_or_default(), end.container_id))
}

#[test]
fn phases_of_regular_containers() {
    let two = |a: Option<ObservedContainer>, b: Option<ObservedContainer>| a.into_iter().chain(b).collect();
    let run = |n| Some(runs(n, 0, 10));
    let end = |n, code| Some(exited(n, 0, 10, code));
    type Case = (Option<ObservedContainer>, Option<ObservedContainer>, [&'static str; 3]);
    let cases: [Case; 9] = [
        (None, None, ["Pending"; 3]),
        (run("a"), run("b"), ["Running"; 3]),
        (run("a"), None, ["Pending"; 3]),
        (run("a"), end("b", 0), ["Running"; 3]),
        (run("a"), end("b", 1), ["Running"; 3]),
        (end("a", 0), end("b", 0), ["Running", "Succeeded", "Succeeded"]),
        (end("a", 1), end("b", 1), ["Running", "Running", "Failed"]),
        (end("a", 0), end("b", 1), ["Running", "Running", "Failed"]),
        (run("a"), Some(created("b")), ["Pending"; 3]),
    ];
    for (a, b, want) in cases {
        for (policy, want) in ["Always", "OnFailure", "Never"].into_iter().zip(want) {
            let world = World::new(simple(policy, &[], &["a", "b"]), two(a.clone(), b.clone()));
            assert_eq!(phase_is(&world), want, "{policy} {a:?} {b:?}");
        }
    }
}

#[test]
fn a_crash_loop_is_running_and_shows_its_end() {
    let world = World::new(
        simple("Always", &[], &["a", "b"]),
        vec![exited("a", 2, 30, 1), exited("a", 1, 10, 3), runs("b", 0, 10)],
    );
    let status = world.status();
    assert_eq!(shown(named(&status, "a")), "ended 1 Error");
    assert_eq!(last(named(&status, "a")).unwrap().0, 3);
    let status = world.waits("a", "CrashLoopBackOff").waits("b", "ErrImagePull").status();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let a = named(&status, "a");
    assert_eq!(shown(a), "waiting CrashLoopBackOff");
    assert_eq!(last(a), Some((1, "Error".into(), Some("containerd://a2".into()))));
    assert_eq!((a.restart_count, a.ready, a.started), (2, false, Some(false)));
    assert_eq!(shown(named(&status, "b")), "running");
}

#[test]
fn container_policies_and_rules_decide_the_phase() {
    let rules = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    let spec = json!({"restartPolicy": "Always", "containers": [
        {"name": "a", "restartPolicy": "Never", "restartPolicyRules": rules}]});
    for (code, want) in [(0, "Succeeded"), (1, "Failed"), (42, "Running")] {
        let world = World::new(pod(spec.clone()), vec![exited("a", 0, 10, code)]);
        assert_eq!(phase_is(&world), want, "{code}");
        let status = world.waits("a", "CrashLoopBackOff").status();
        let want = if code == 42 { "waiting" } else { "ended" };
        assert!(shown(named(&status, "a")).starts_with(want), "{code}");
    }
}

#[test]
fn phases_with_init_containers_and_sidecars() {
    let i_done = || exited("i", 0, 10, 0);
    let i_bad = || exited("i", 0, 10, 1);
    for (policy, init, containers, want) in [
        ("Always", vec!["i"], vec![], "Pending"),
        ("Always", vec!["i"], vec![runs("i", 0, 10)], "Pending"),
        ("Always", vec!["i"], vec![i_done()], "Pending"),
        ("Always", vec!["i"], vec![i_bad()], "Pending"),
        ("OnFailure", vec!["i"], vec![i_bad()], "Pending"),
        ("Never", vec!["i"], vec![i_bad()], "Failed"),
        ("Never", vec!["i"], vec![i_done(), runs("a", 0, 30)], "Running"),
        ("Never", vec!["i"], vec![i_done(), exited("a", 0, 30, 0)], "Succeeded"),
        ("Never", vec!["~s"], vec![runs("s", 0, 10)], "Pending"),
        ("Never", vec!["~s"], vec![runs("s", 0, 10), runs("a", 0, 30)], "Running"),
        // Kubelet stops a sidecar after the last regular container; until then the pod runs.
        ("Never", vec!["~s"], vec![runs("s", 0, 10), exited("a", 0, 30, 0)], "Running"),
        ("Never", vec!["~s"], vec![exited("s", 0, 10, 137), exited("a", 0, 30, 0)], "Succeeded"),
        ("Never", vec!["~s"], vec![exited("s", 0, 10, 0), exited("a", 0, 30, 2)], "Failed"),
        ("Always", vec!["~s"], vec![exited("s", 0, 10, 1), runs("a", 0, 30)], "Running"),
    ] {
        let world = World::new(simple(policy, &init, &["a"]), containers);
        assert_eq!(phase_is(&world), want, "{policy} {init:?} {:?}", world.seen.containers);
    }
    // A restarted sidecar that has not started again does not take the pod back.
    let mut world = World::new(simple("Always", &["~s"], &["a"]), vec![runs("s", 1, 50), runs("a", 0, 30)]);
    world.probes.insert("s".into(), ProbeState { started: false, ready: false });
    let status = world.status();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(cond(&status, "Initialized").status, "True");
    assert_eq!(cond(&status, "Ready").message.as_deref(), Some("containers with unready status: [s]"));
}

#[test]
fn terminal_phases_are_never_left() {
    let mut world = World::new(simple("Never", &[], &["a"]), vec![exited("a", 0, 10, 1)]);
    let failed = world.status();
    assert!(is_terminal(&failed));
    world.seen.containers = vec![runs("a", 1, 50)];
    let status = world.after(&failed, 200).status();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(cond(&status, "Ready").reason.as_deref(), Some("PodFailed"));

    let mut world = World::new(simple("Never", &[], &["a"]), vec![exited("a", 0, 10, 0)]);
    world.pod.status = Some(PodStatus { phase: Some("Succeeded".into()), ..PodStatus::default() });
    world.terminal = Some(PodFailure { reason: "Evicted".into(), message: "m".into() });
    let status = world.status();
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Succeeded"), None));
    // What a manifest says of a status binds nobody.
    world.terminal = None;
    world.pod.metadata.annotations =
        Some([("kubernetes.io/config.source".to_owned(), "file".to_owned())].into());
    world.seen.containers = vec![runs("a", 0, 10)];
    assert_eq!(phase_is(&world), "Running");
}

#[test]
fn failures_of_the_whole_pod() {
    let mut world = World::new(simple("Always", &[], &["a"]), vec![exited("a", 0, 10, 137)]);
    world.terminal = Some(PodFailure { reason: "Evicted".into(), message: "low on memory".into() });
    let world = world.waits("a", "CrashLoopBackOff");
    let status = world.status();
    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    assert_eq!(status.message.as_deref(), Some("low on memory"));
    assert_eq!(shown(named(&status, "a")), "ended 137 Error");
    let mut later = World::new(world.pod, vec![]).after(&status, 300);
    later.seen.sandboxes.clear();
    let later = later.status();
    assert_eq!(later.reason.as_deref(), Some("Evicted"));
    assert_eq!(shown(named(&later, "a")), "ended 137 Error");
}

#[test]
fn a_pod_stopped_for_good_gets_a_terminal_phase() {
    let done = |policy: &str, init: &[&str], containers: Vec<ObservedContainer>| {
        let mut world = World::new(simple(policy, init, &["a"]), containers);
        world.done = true;
        world
    };
    assert_eq!(phase_is(&done("Always", &[], vec![exited("a", 0, 10, 0)])), "Succeeded");
    assert_eq!(phase_is(&done("Always", &[], vec![exited("a", 0, 10, 143)])), "Failed");
    let never_ran = done("Always", &[], vec![]).status();
    assert_eq!(never_ran.phase.as_deref(), Some("Failed"));
    assert_eq!(shown(named(&never_ran, "a")), "ended 137 ContainerStatusUnknown");
    let in_init = done("Always", &["i", "j"], vec![exited("i", 0, 10, 1)]).status();
    assert_eq!(in_init.phase.as_deref(), Some("Failed"));
    assert_eq!(shown(named(&in_init, "i")), "ended 1 Error");
    assert_eq!(shown(named(&in_init, "j")), "waiting PodInitializing");
    assert_eq!(shown(named(&in_init, "a")), "waiting PodInitializing");
    let mut fixed = done("Always", &[], vec![exited("a", 0, 10, 0)]);
    fixed.pod.metadata.annotations =
        Some([("kubernetes.io/config.source".to_owned(), "file".to_owned())].into());
    assert_eq!(phase_is(&fixed), "Running");
}

#[test]
fn containers_whose_records_are_gone() {
    let pod = simple("Always", &["i"], &["a"]);
    let before = World::new(pod.clone(), vec![exited("i", 0, 10, 0), runs("a", 0, 30)]).status();
    // Both gone, the sandbox still there: the pod is not back at its beginning.
    let gone = World::new(pod.clone(), vec![]).after(&before, 200).status();
    let a = named(&gone, "a");
    assert_eq!(shown(a), "waiting PodInitializing");
    assert_eq!(last(a), Some((137, "ContainerStatusUnknown".into(), Some("containerd://a0".into()))));
    assert_eq!(a.restart_count, 1);
    assert_eq!(shown(named(&gone, "i")), "ended 0 Completed");
    assert_eq!(gone.phase.as_deref(), Some("Running"));
    // It was there after all.
    let back = World::new(pod.clone(), vec![exited("i", 0, 10, 0), runs("a", 0, 30)]).after(&gone, 210);
    let back = back.status();
    assert_eq!((named(&back, "a").restart_count, last(named(&back, "a"))), (0, None));
    // Or a new one was made, whose own count begins anew.
    let new = World::new(pod.clone(), vec![runs("a", 0, 220)]);
    let mut new = new.after(&gone, 230);
    new.seen.containers[0].id = "a-new".into();
    let new = new.status();
    assert_eq!(named(&new, "a").restart_count, 1);
    assert_eq!(last(named(&new, "a")).unwrap().0, 137);
    // Without any memory, a removed init container is behind a regular one.
    let fresh = World::new(pod, vec![runs("a", 0, 30)]).status();
    assert_eq!(shown(named(&fresh, "i")), "ended 0 Completed");
    assert!(named(&fresh, "i").ready);
    assert_eq!(fresh.phase.as_deref(), Some("Running"));
    assert!(all_ready(&fresh));
    // With a policy of Never the vanished container was the end of the pod.
    let pod = simple("Never", &[], &["a"]);
    let before = World::new(pod.clone(), vec![runs("a", 0, 30)]).status();
    assert_eq!(phase_is(&World::new(pod, vec![]).after(&before, 200)), "Failed");
}

#[test]
fn a_restart_seen_only_by_its_result_counts() {
    let pod = simple("Always", &[], &["a"]);
    let ended = World::new(pod.clone(), vec![exited("a", 4, 10, 9)]).status();
    let next = World::new(pod.clone(), vec![runs("a", 5, 40)]).after(&ended, 60).status();
    assert_eq!(named(&next, "a").restart_count, 5);
    assert_eq!(last(named(&next, "a")).unwrap().0, 9);
    // The record of it began anew.
    let mut anew = runs("a", 0, 40);
    anew.id = "other".into();
    let next = World::new(pod.clone(), vec![anew]).after(&ended, 60).status();
    assert_eq!(named(&next, "a").restart_count, 5);
    let running = World::new(pod.clone(), vec![runs("a", 0, 10)]).status();
    let next = World::new(pod, vec![runs("a", 1, 40)]).after(&running, 60).status();
    assert_eq!(last(named(&next, "a")).unwrap().1, "ContainerStatusUnknown");
}

#[test]
fn containers_that_the_runtime_lost_track_of() {
    let pod = simple("Never", &[], &["a"]);
    let status = World::new(pod.clone(), vec![unknown("a", 10, true)]).status();
    assert_eq!(shown(named(&status, "a")), "ended 137 ContainerStatusUnknown");
    let status = World::new(pod.clone(), vec![unknown("a", 10, false)]).status();
    assert_eq!(shown(named(&status, "a")), "waiting ContainerCreating");
    let ran = World::new(pod.clone(), vec![runs("a", 0, 10)]).status();
    let status = World::new(pod, vec![unknown("a", 10, false)]).after(&ran, 60).status();
    assert_eq!(shown(named(&status, "a")), "ended 137 ContainerStatusUnknown");
}

#[test]
fn waiting_reasons() {
    let world = World::new(simple("Always", &["i"], &["a"]), vec![]).waits("i", "ImagePullBackOff");
    let status = world.status();
    assert_eq!(shown(named(&status, "i")), "waiting ImagePullBackOff");
    assert_eq!(shown(named(&status, "a")), "waiting PodInitializing");
    let world = World::new(simple("Always", &[], &["a", "b"]), vec![created("a")]);
    let status = world.waits("a", "RunContainerError").status();
    assert_eq!(shown(named(&status, "a")), "waiting RunContainerError");
    assert_eq!(shown(named(&status, "b")), "waiting ContainerCreating");
    assert_eq!(named(&status, "b").image, "i");
}

#[test]
fn a_new_sandbox_runs_init_containers_again() {
    let pod = simple("Always", &["i"], &["a"]);
    let mut world = World::new(pod, vec![exited("i", 0, 10, 0), exited("a", 0, 30, 255)]);
    let before = world.status();
    world.seen.sandboxes.insert(0, sandbox(1, 60, SandboxState::Ready));
    world.seen.sandboxes[1].state = SandboxState::NotReady;
    world.seen.sandboxes[0].ips = vec!["10.0.0.8".parse().unwrap()];
    let again = ObservedContainer { sandbox_id: "sb1".into(), ..runs("i", 1, 61) };
    world.seen.containers.insert(0, again);
    let status = world.after(&before, 70).status();
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.8"));
    assert_eq!(named(&status, "i").restart_count, 1);
    assert_eq!(shown(named(&status, "a")), "ended 255 Error");
    assert_eq!(cond(&status, "Initialized").status, "True");
}

#[test]
fn conditions_on_the_way_up() {
    let pod = simple("Always", &["i"], &["a", "b"]);
    let mut none = World::new(pod.clone(), vec![]);
    none.seen.sandboxes.clear();
    let status = none.status();
    let types: Vec<_> = status.conditions.iter().flatten().map(|c| c.type_.as_str()).collect();
    assert_eq!(
        types,
        ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
    );
    assert_eq!(cond(&status, "PodReadyToStartContainers").status, "False");
    let initialized = cond(&status, "Initialized");
    assert_eq!(initialized.reason.as_deref(), Some("ContainersNotInitialized"));
    assert_eq!(initialized.message.as_deref(), Some("containers with incomplete status: [i]"));
    let ready = cond(&status, "Ready");
    assert_eq!(ready.reason.as_deref(), Some("ContainersNotReady"));
    assert_eq!(ready.message.as_deref(), Some("containers with unready status: [a b]"));
    assert!(!all_ready(&status));

    let up = vec![exited("i", 0, 10, 0), runs("a", 0, 25), runs("b", 0, 30)];
    let status = World::new(pod, up).status();
    for c in status.conditions.iter().flatten() {
        assert_eq!((c.status.as_str(), &c.reason, &c.message), ("True", &None, &None), "{}", c.type_);
    }
    // Nothing was remembered, and yet the times are those of the events.
    for (type_, time) in [
        ("PodReadyToStartContainers", 1),
        ("Initialized", 20),
        ("Ready", 30),
        ("ContainersReady", 30),
        ("PodScheduled", 0),
    ] {
        assert_eq!(since(&status, type_), at(time), "{type_}");
    }
    assert!(all_ready(&status));
}

#[test]
fn conditions_of_ended_pods() {
    let status =
        World::new(simple("Never", &["i"], &["a"]), vec![exited("i", 0, 10, 0), exited("a", 0, 30, 0)])
            .status();
    for type_ in ["Ready", "ContainersReady"] {
        let c = cond(&status, type_);
        assert_eq!((c.status.as_str(), c.reason.as_deref()), ("False", Some("PodCompleted")));
        assert_eq!(since(&status, type_), at(40));
    }
    let c = cond(&status, "Initialized");
    assert_eq!((c.status.as_str(), c.reason.as_deref()), ("True", Some("PodCompleted")));
}

#[test]
fn transition_times_follow_changes_only() {
    let pod = simple("Always", &[], &["a"]);
    let mut world = World::new(pod.clone(), vec![runs("a", 0, 10)]);
    world.probes.insert("a".into(), ProbeState { started: true, ready: false });
    world.now = 20;
    let unready = world.status();
    assert_eq!(since(&unready, "Ready"), at(10));
    world.probes.insert("a".into(), ProbeState { started: true, ready: true });
    let ready = world.after(&unready, 60).status();
    assert_eq!(since(&ready, "Ready"), at(60), "a probe's verdict is dated by its observation");
    let still = World::new(pod.clone(), vec![runs("a", 0, 10)]).after(&ready, 90).status();
    assert_eq!(since(&still, "Ready"), at(60));
    let died = World::new(pod.clone(), vec![exited("a", 0, 65, 1)]).after(&still, 99).status();
    assert_eq!(since(&died, "Ready"), at(75), "the container's end is on record");
    let odd = World::new(pod, vec![runs("a", 1, 3)]).after(&died, 120).status();
    assert_eq!(since(&odd, "Ready"), at(75), "times do not go back");
}

#[test]
fn readiness_gates_and_foreign_conditions() {
    let gated = |conditions: Value| {
        let mut pod = pod(json!({"containers": [{"name": "a"}],
            "readinessGates": [{"conditionType": "example.com/x"}]}));
        pod.status = Some(serde_json::from_value(json!({"conditions": conditions})).unwrap());
        World::new(pod, vec![runs("a", 0, 10)])
    };
    let status = gated(json!([])).status();
    assert_eq!(cond(&status, "Ready").reason.as_deref(), Some("ReadinessGatesNotReady"));
    assert_eq!(cond(&status, "ContainersReady").status, "True");
    let x = |status: &str| {
        json!([{"type": "example.com/x", "status": status, "lastTransitionTime": at(50).to_string()},
            {"type": "Ready", "status": "Unknown"}])
    };
    let status = gated(x("False")).status();
    assert_eq!((cond(&status, "Ready").status.as_str(), since(&status, "Ready")), ("False", at(50)));
    let status = gated(x("True")).status();
    assert_eq!(cond(&status, "example.com/x").status, "True");
    assert!(all_ready(&status));
    assert_eq!(since(&status, "Ready"), at(50));
}

#[test]
fn disruption_and_generation_are_carried() {
    let mut world = World::new(simple("Always", &[], &["a"]), vec![runs("a", 0, 10)]);
    world.pod.metadata.generation = Some(3);
    let mut previous = world.status();
    assert_eq!(previous.observed_generation, Some(3));
    assert_eq!(cond(&previous, "Ready").observed_generation, Some(3));
    previous.conditions.as_mut().unwrap().push(PodCondition {
        type_: "DisruptionTarget".into(),
        status: "True".into(),
        ..PodCondition::default()
    });
    assert_eq!(cond(&world.after(&previous, 200).status(), "DisruptionTarget").status, "True");
}

#[test]
fn restart_of_all_containers() {
    let rules = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [7]}}]);
    let pod = pod(json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}], "containers": [
        {"name": "a", "restartPolicy": "Never", "restartPolicyRules": rules}, {"name": "b"}]}));
    let up = vec![exited("i", 0, 10, 0), runs("a", 0, 30), runs("b", 0, 30)];
    let status = World::new(pod.clone(), up).status();
    assert_eq!(cond(&status, "AllContainersRestarting").status, "False");
    let set_off = vec![exited("i", 0, 10, 0), exited("a", 0, 30, 7), exited("b", 0, 30, 137)];
    let status = World::new(pod.clone(), set_off).after(&status, 50).status();
    assert_eq!(status.phase.as_deref(), Some("Running"));
    let c = cond(&status, "AllContainersRestarting");
    assert_eq!((c.status.as_str(), c.reason.as_deref()), ("True", Some("RestartAllContainersStarted")));
    // One is cleared away, another is not yet.
    let half = World::new(pod.clone(), vec![exited("b", 0, 30, 137)]).after(&status, 51).status();
    assert_eq!(cond(&half, "AllContainersRestarting").status, "True");
    assert_eq!(shown(named(&half, "a")), "waiting RestartingAllContainers");
    assert_eq!(named(&half, "a").restart_count, 1);
    assert_eq!(cond(&half, "Initialized").status, "True");
    assert!(!is_terminal(&half));
    let again = vec![ObservedContainer { restart_count: 1, ..runs("i", 1, 52) }];
    let again = World::new(pod, again).after(&half, 53).status();
    assert_eq!(cond(&again, "AllContainersRestarting").status, "False");
    assert_eq!(again.phase.as_deref(), Some("Pending"));
}

#[test]
fn addresses() {
    let mut world = World::new(simple("Always", &[], &["a"]), vec![runs("a", 0, 10)]);
    world.seen.sandboxes[0].ips =
        vec!["fd00::7".parse().unwrap(), "10.0.0.7".parse().unwrap(), "10.0.0.9".parse().unwrap()];
    let ips = |s: &PodStatus| s.pod_ips.iter().flatten().map(|ip| ip.ip.clone()).collect::<Vec<_>>();
    let status = world.status();
    assert_eq!(ips(&status), ["10.0.0.7", "fd00::7"]);
    assert_eq!(status.pod_ip.as_deref(), Some("10.0.0.7"));
    assert_eq!(status.host_ip.as_deref(), Some("192.0.2.1"));
    world.hosts = vec!["fd01::1".parse().unwrap(), "192.0.2.1".parse().unwrap()];
    assert_eq!(ips(&world.status()), ["fd00::7", "10.0.0.7"]);
    assert_eq!(world.status().host_ips.unwrap().len(), 2);
    world.seen.sandboxes[0].state = SandboxState::NotReady;
    assert_eq!(world.status().pod_ips, None);
    let world = world.after(&status, 200);
    assert_eq!(ips(&world.status()), ["10.0.0.7", "fd00::7"], "an ended pod keeps its addresses");
    let mut world = world;
    world.pod.spec.as_mut().unwrap().host_network = Some(true);
    assert_eq!(ips(&world.status()), ["fd01::1", "192.0.2.1"]);
}

/// As with kubelet's status manager: 12 KiB for all containers, init containers counted.
#[test]
fn what_containers_said_is_cut_to_their_share() {
    let spec = json!({"initContainers": [{"name": "i", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]});
    let said = |text: String, seen| ObservedContainer { message: text, ..seen };
    let seen = vec![
        said("i".repeat(5000), exited("i", 0, 5, 0)),
        said("ä".repeat(2049), exited("a", 0, 10, 1)),
        said(format!("x{}", "ä".repeat(4000)), exited("b", 0, 10, 1)),
    ];
    let status = World::new(pod(spec), seen).status();
    let message = |name: &str| {
        let state = named(&status, name).state.clone().unwrap();
        state.terminated.unwrap().message.unwrap()
    };
    assert_eq!(message("a"), "ä".repeat(2048));
    assert_eq!(message("b"), format!("x{}", "ä".repeat(2047)), "no character is cut in two");
    let init = status.init_container_statuses.unwrap()[0].state.clone().unwrap().terminated.unwrap();
    assert_eq!(init.message.unwrap().len(), 4096);
}

#[test]
fn container_details() {
    let spec = json!({"containers": [{"name": "b", "image": "i",
        "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
        "volumeMounts": [
            {"name": "v", "mountPath": "/v"},
            {"name": "w", "mountPath": "/w", "readOnly": true},
            {"name": "x", "mountPath": "/x", "readOnly": true, "recursiveReadOnly": "IfPossible"}]},
        {"name": "a", "image": "i"}]});
    let killed = ObservedContainer { reason: "OOMKilled".into(), ..exited("a", 0, 10, 137) };
    let status = World::new(pod(spec), vec![runs("b", 0, 10), killed]).status();
    let names: Vec<_> = status.container_statuses.iter().flatten().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["b", "a"], "in the specification's order");
    let b = named(&status, "b");
    assert_eq!(b.container_id.as_deref(), Some("containerd://b0"));
    assert_eq!((b.image.as_str(), b.image_id.as_str()), ("i:1", "sha256:1"));
    assert_eq!(b.allocated_resources.as_ref().unwrap()["cpu"].0, "1");
    assert_eq!(b.resources.as_ref().unwrap().limits.as_ref().unwrap()["memory"].0, "1Gi");
    let modes: Vec<_> =
        b.volume_mounts.iter().flatten().map(|m| (m.read_only, m.recursive_read_only.as_deref())).collect();
    assert_eq!(modes, [(None, None), (Some(true), Some("Disabled")), (Some(true), Some("Enabled"))]);
    let a = named(&status, "a").state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!(a.reason.as_deref(), Some("OOMKilled"));
    assert_eq!(a.started_at.as_ref().unwrap().0, at(10));
    assert_eq!(a.finished_at.as_ref().unwrap().0, at(20));
    assert_eq!(status.qos_class.as_deref(), Some("Burstable"));
    assert_eq!(status.start_time.as_ref().unwrap().0, at(0));
}

#[test]
fn ephemeral_containers() {
    let spec = json!({"containers": [{"name": "a"}], "ephemeralContainers": [{"name": "d", "image": "i"}]});
    let world = World::new(pod(spec.clone()), vec![runs("a", 0, 10), exited("d", 0, 20, 1)]);
    let status = world.waits("d", "CrashLoopBackOff").status();
    let d = &status.ephemeral_container_statuses.as_ref().unwrap()[0];
    assert_eq!((shown(d).as_str(), d.ready, d.started), ("ended 1 Error", false, None));
    assert!(all_ready(&status));
    // None follows one whose record is gone: how it ended stays, as far as it was seen.
    for (seen, told) in
        [(exited("d", 0, 20, 1), "ended 1 Error"), (runs("d", 0, 20), "ended 137 ContainerStatusUnknown")]
    {
        let before = World::new(pod(spec.clone()), vec![runs("a", 0, 10), seen]).status();
        let after = World::new(pod(spec.clone()), vec![runs("a", 0, 10)]).after(&before, 120).status();
        let d = &after.ephemeral_container_statuses.as_ref().unwrap()[0];
        assert_eq!((shown(d).as_str(), d.restart_count), (told, 0));
        assert!(d.container_id.is_some() && all_ready(&after));
    }
}

#[test]
fn where_a_resize_is() {
    let asks = |cpu: &str| json!({"name": "a", "resources": {"requests": {"cpu": cpu}}});
    let mut world = World::new(pod(json!({"containers": [asks("2")]})), vec![runs("a", 0, 10)]);
    let plain = world.status();
    assert!(
        condition(&plain, "PodResizePending").is_none() && condition(&plain, "PodResizeInProgress").is_none()
    );
    let pending = Pending { deferred: true, message: "no room".to_owned() };
    let had = serde_json::from_value(json!({"requests": {"cpu": "1"}})).unwrap();
    let own = Actuated { id: world.seen.latest("a").unwrap().id.clone(), resources: had };
    world.resize = ResizeStatus {
        pending: Some((pending, Some(7))),
        in_progress: Some((Some(6), Some("busy".to_owned()))),
        actuated: [("a".to_owned(), own)].into(),
    };
    let status = world.after(&plain, 120).status();
    let told = |type_: &str| {
        let c = cond(&status, type_);
        (
            c.status.clone(),
            c.reason.clone().unwrap(),
            c.message.clone().unwrap(),
            c.observed_generation.unwrap(),
        )
    };
    assert_eq!(told("PodResizePending"), ("True".into(), "Deferred".into(), "no room".into(), 7));
    assert_eq!(told("PodResizeInProgress"), ("True".into(), "Error".into(), "busy".into(), 6));
    let a = named(&status, "a");
    assert_eq!(a.allocated_resources.as_ref().unwrap()["cpu"].0, "2");
    assert_eq!(a.resources.as_ref().unwrap().requests.as_ref().unwrap()["cpu"].0, "1");
    assert!(all_ready(&status));
}

#[test]
fn a_pod_that_made_room_says_so() {
    let mut world = World::new(pod(json!({"containers": [{"name": "a"}]})), vec![runs("a", 0, 10)]);
    world.terminal = Some(PodFailure { reason: PREEMPTING.to_owned(), message: PREEMPTED.to_owned() });
    let status = world.status();
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("Preempting")));
    let target = cond(&status, "DisruptionTarget");
    assert_eq!((target.status.as_str(), target.reason.as_deref()), ("True", Some("TerminationByKubelet")));
    // It is written, and one of somebody else's is not.
    let ours = |status: &PodStatus| {
        our_part(status)["conditions"].as_array().unwrap().iter().any(|c| c["type"] == "DisruptionTarget")
    };
    assert!(ours(&status));
    let mut theirs = status.clone();
    theirs.conditions.iter_mut().flatten().for_each(|c| c.reason = Some("EvictionByEvictionAPI".to_owned()));
    assert!(!ours(&theirs));
}
