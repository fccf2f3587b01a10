//! What is to be done for a pod, by what was observed of it.

use super::*;
use crate::policy::{
    fingerprints::container_fingerprint,
    testing::{container, exited, observed, pod, sandbox, spec},
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn actions(pod: &Pod, observation: &PodObservation) -> PodActions {
    compute_pod_actions(
        pod,
        observation,
        &ProbeSnapshot::default(),
        &Ledger::default(),
        &RestartBackoff::default(),
        at(1000),
    )
}

fn starts(actions: &PodActions) -> Vec<(&str, u32)> {
    actions.start.iter().map(|s| (s.name.as_str(), s.attempt)).collect()
}

fn stops(actions: &PodActions) -> Vec<&str> {
    actions.stop.iter().map(|s| s.id.as_str()).collect()
}

fn with_policy(policy: &str, containers: &[&str]) -> Pod {
    let mut p = pod(containers);
    p.spec.as_mut().unwrap().restart_policy = Some(policy.into());
    p
}

/// A pod with init containers `i0`, `i1`, a sidecar `side` between them, and regular `a`.
fn with_inits() -> Pod {
    let mut p = pod(&["a"]);
    let mut side = spec("side");
    side.restart_policy = Some("Always".into());
    p.spec.as_mut().unwrap().init_containers = Some(vec![spec("i0"), side, spec("i1")]);
    p
}

#[test]
fn a_new_pod_gets_a_sandbox_and_nothing_else_yet() {
    let a = actions(&pod(&["a"]), &observed(vec![], vec![]));
    assert_eq!(a.create_sandbox.as_ref().map(|c| c.attempt), Some(0));
    assert!(a.start.is_empty() && a.stop.is_empty() && a.stop_sandboxes.is_empty() && !a.completed);
}

#[test]
fn all_regular_containers_start_in_order() {
    let a = actions(&pod(&["b", "a"]), &observed(vec![sandbox("s", 0)], vec![]));
    assert_eq!(starts(&a), [("b", 0), ("a", 0)]);
    assert!(a.create_sandbox.is_none() && a.initialized);
}

#[test]
fn a_pod_that_runs_needs_nothing() {
    let a = actions(&pod(&["a"]), &observed(vec![sandbox("s", 0)], vec![container("a", "s")]));
    assert!(a.is_empty() && a.waiting.is_empty() && !a.completed);
}

#[test]
fn a_dead_sandbox_is_replaced_and_its_containers_stopped() {
    let mut dead = sandbox("s", 3);
    dead.state = SandboxState::NotReady;
    let a = actions(&pod(&["a"]), &observed(vec![dead], vec![container("a", "s")]));
    assert_eq!(stops(&a), ["s-a-0"]);
    assert_eq!(a.stop_sandboxes, ["s".into()]);
    assert_eq!(a.create_sandbox.as_ref().map(|c| c.attempt), Some(4));
}

#[test]
fn a_sandbox_without_an_address_is_replaced() {
    let mut bare = sandbox("s", 0);
    bare.ips.clear();
    let a = actions(&pod(&["a"]), &observed(vec![bare.clone()], vec![]));
    assert_eq!(a.create_sandbox.map(|c| c.attempt), Some(1));

    let mut p = pod(&["a"]);
    p.spec.as_mut().unwrap().host_network = Some(true);
    bare.host_network = true;
    assert_eq!(starts(&actions(&p, &observed(vec![bare], vec![]))), [("a", 0)]);
}

#[test]
fn a_changed_sandbox_field_replaces_the_sandbox() {
    let mut old = sandbox("s", 0);
    let mut p = pod(&["a"]);
    old.fingerprint = Some(sandbox_fingerprint(&p));
    p.spec.as_mut().unwrap().host_pid = Some(true);
    let a = actions(&p, &observed(vec![old], vec![container("a", "s")]));
    assert_eq!(a.create_sandbox.as_ref().map(|c| c.reason.as_str()), Some("hostPID changed"));
    assert_eq!(stops(&a), ["s-a-0"]);
}

#[test]
fn of_two_ready_sandboxes_the_newer_stays() {
    let o = observed(
        vec![sandbox("old", 0), sandbox("new", 1)],
        vec![container("a", "old"), container("a", "new")],
    );
    let a = actions(&pod(&["a"]), &o);
    assert_eq!(a.stop_sandboxes, ["old".into()]);
    assert_eq!(stops(&a), ["old-a-0"]);
    assert!(a.create_sandbox.is_none() && a.start.is_empty());
}

#[test]
fn of_two_live_containers_of_a_name_the_newer_stays() {
    let mut newer = container("a", "s");
    newer.id = "newer".into();
    newer.attempt = 1;
    let a = actions(&pod(&["a"]), &observed(vec![sandbox("s", 0)], vec![container("a", "s"), newer]));
    assert_eq!(stops(&a), ["s-a-0"]);
    assert!(a.start.is_empty());
}

#[test]
fn restart_policy_decides_over_ended_containers() {
    let ended = |code| observed(vec![sandbox("s", 0)], vec![exited("a", "s", code, 990)]);
    for (policy, code, expected) in [
        ("Always", 0, true),
        ("Always", 1, true),
        ("OnFailure", 0, false),
        ("OnFailure", 1, true),
        ("Never", 0, false),
        ("Never", 1, false),
    ] {
        let a = actions(&with_policy(policy, &["a"]), &ended(code));
        assert_eq!(starts(&a) == [("a", 1)], expected, "{policy} {code}");
        assert_eq!(a.completed, !expected, "{policy} {code}");
    }
}

#[test]
fn a_pod_is_complete_when_all_its_containers_are() {
    let o = observed(vec![sandbox("s", 0)], vec![exited("a", "s", 0, 1), container("b", "s")]);
    assert!(!actions(&with_policy("Never", &["a", "b"]), &o).completed);
    let o = observed(vec![sandbox("s", 0)], vec![exited("a", "s", 0, 1), exited("b", "s", 1, 1)]);
    assert!(actions(&with_policy("Never", &["a", "b"]), &o).completed);
}

#[test]
fn a_crashed_container_waits_for_its_time() {
    let mut dead = exited("a", "s", 1, 995);
    dead.started_at = Some(at(990));
    dead.restart_delay_seconds = Some(20);
    dead.restart_count = 2;
    dead.attempt = 2;
    let o = observed(vec![sandbox("s", 0)], vec![dead]);
    let a = actions(&pod(&["a"]), &o);
    assert!(a.start.is_empty());
    assert_eq!(a.next_due(), Some(at(1015)));
    assert_eq!(a.waiting[0].delay, Duration::from_secs(20));

    let later = compute_pod_actions(
        &pod(&["a"]),
        &o,
        &ProbeSnapshot::default(),
        &Ledger::default(),
        &RestartBackoff::default(),
        at(1015),
    );
    assert_eq!(starts(&later), [("a", 3)]);
    assert_eq!(later.start[0].next_delay_seconds, 40);
}

#[test]
fn a_changed_container_alone_is_replaced_at_once_whatever_the_policy() {
    let mut p = with_policy("Never", &["a", "b"]);
    let made = |p: &Pod, name: &str, index: usize| ObservedContainer {
        fingerprint: Some(container_fingerprint(p, &p.spec().containers[index])),
        ..container(name, "s")
    };
    let o = observed(vec![sandbox("s", 0)], vec![made(&p, "a", 0), made(&p, "b", 1)]);
    p.spec.as_mut().unwrap().containers[1].args = Some(vec!["new".into()]);
    let a = actions(&p, &o);
    assert_eq!((stops(&a), starts(&a)), (vec!["s-b-0"], vec![("b", 1)]));
    assert_eq!(a.stop[0].reason, "args changed");
}

#[test]
fn a_container_made_and_not_started_is_started() {
    let p = pod(&["a"]);
    let mut made = container("a", "s");
    made.state = ContainerState::Created;
    made.started_at = None;
    let foreign = actions(&p, &observed(vec![sandbox("s", 0)], vec![made.clone()]));
    assert_eq!((starts(&foreign), &foreign.start[0].made), (vec![("a", 1)], &None));

    made.fingerprint = Some(container_fingerprint(&p, &p.spec().containers[0]));
    let ours = actions(&p, &observed(vec![sandbox("s", 0)], vec![made]));
    assert_eq!((starts(&ours), &ours.start[0].made), (vec![("a", 0)], &Some("s-a-0".into())));
}

#[test]
fn an_unknown_container_is_stopped_and_started_anew() {
    let mut lost = container("a", "s");
    lost.state = ContainerState::Unknown;
    let a = actions(&pod(&["a"]), &observed(vec![sandbox("s", 0)], vec![lost]));
    assert_eq!((stops(&a), starts(&a)), (vec!["s-a-0"], vec![("a", 1)]));
}

#[test]
fn restart_counts_go_on_in_a_new_sandbox() {
    let mut old = sandbox("old", 0);
    old.state = SandboxState::NotReady;
    let mut dead = exited("a", "old", 137, 1);
    dead.attempt = 4;
    dead.restart_count = 4;
    let a = actions(&pod(&["a"]), &observed(vec![old, sandbox("new", 1)], vec![dead]));
    assert_eq!(starts(&a), [("a", 5)]);
}

#[test]
fn what_ended_for_good_is_not_begun_again_in_a_new_sandbox() {
    let mut old = sandbox("old", 0);
    old.state = SandboxState::NotReady;
    let p = with_policy("OnFailure", &["a", "b"]);
    let containers = vec![exited("a", "old", 0, 1), exited("b", "old", 1, 1)];
    let o = observed(vec![old.clone()], containers.clone());
    assert!(actions(&p, &o).create_sandbox.is_some());
    let o = observed(vec![old.clone(), sandbox("new", 1)], containers);
    assert_eq!(starts(&actions(&p, &o)), [("b", 1)]);

    let all = vec![exited("a", "old", 0, 1), exited("b", "old", 0, 1)];
    let a = actions(&p, &observed(vec![old], all));
    assert!(a.completed && a.create_sandbox.is_none());
}

#[test]
fn a_pod_that_is_never_restarted_gets_no_second_sandbox() {
    let mut old = sandbox("old", 0);
    old.state = SandboxState::NotReady;
    let p = with_policy("Never", &["a", "b"]);
    let a = actions(&p, &observed(vec![old.clone()], vec![exited("a", "old", 0, 1)]));
    assert!(a.completed && a.create_sandbox.is_none());
    // One whose sandbox died before anything ran has lost nothing.
    assert!(actions(&p, &observed(vec![old], vec![])).create_sandbox.is_some());
}

#[test]
fn init_containers_run_one_after_the_other() {
    let p = with_inits();
    let run = |containers| {
        let a = actions(&p, &observed(vec![sandbox("s", 0)], containers));
        (a.start.iter().map(|s| s.name.clone()).collect::<Vec<_>>(), a.initialized)
    };
    assert_eq!(run(vec![]), (vec!["i0".into()], false));
    assert_eq!(run(vec![container("i0", "s")]), (vec![], false));
    assert_eq!(run(vec![exited("i0", "s", 0, 1)]), (vec!["side".into()], false));
    let side = container("side", "s");
    assert_eq!(run(vec![exited("i0", "s", 0, 1), side.clone()]), (vec!["i1".into()], false));
    assert_eq!(run(vec![exited("i0", "s", 0, 1), side, exited("i1", "s", 0, 2)]), (vec!["a".into()], true));
}

#[test]
fn a_removed_record_of_a_finished_init_container_repeats_nothing() {
    let p = with_inits();
    let a = actions(&p, &observed(vec![sandbox("s", 0)], vec![container("side", "s")]));
    assert_eq!(starts(&a), [("i1", 0)]);
    let a = actions(&p, &observed(vec![sandbox("s", 0)], vec![container("side", "s"), container("a", "s")]));
    assert!(a.is_empty() && a.initialized);
}

#[test]
fn a_sidecar_is_restarted_without_holding_the_pod_back() {
    let p = with_policy("Never", &["a"]);
    let mut p = Pod { spec: with_inits().spec, ..p };
    p.spec.as_mut().unwrap().restart_policy = Some("Never".into());
    let o = observed(
        vec![sandbox("s", 0)],
        vec![
            exited("i0", "s", 0, 1),
            exited("side", "s", 0, 900),
            exited("i1", "s", 0, 2),
            container("a", "s"),
        ],
    );
    let a = actions(&p, &o);
    assert_eq!(starts(&a), [("side", 1)]);
    assert!(a.initialized && !a.completed);
}

#[test]
fn a_completed_pod_is_not_kept_up_by_its_sidecar() {
    let mut p = with_inits();
    p.spec.as_mut().unwrap().restart_policy = Some("OnFailure".into());
    let o = observed(
        vec![sandbox("s", 0)],
        vec![
            exited("i0", "s", 0, 1),
            exited("side", "s", 1, 1),
            exited("i1", "s", 0, 2),
            exited("a", "s", 0, 3),
        ],
    );
    let a = actions(&p, &o);
    assert!(a.completed && a.start.is_empty() && a.waiting.is_empty());
}

#[test]
fn a_failed_init_container_is_repeated_or_ends_the_pod() {
    let mut p = with_inits();
    let o = observed(vec![sandbox("s", 0)], vec![exited("i0", "s", 1, 900)]);
    assert_eq!(starts(&actions(&p, &o)), [("i0", 1)]);
    p.spec.as_mut().unwrap().restart_policy = Some("Never".into());
    let a = actions(&p, &o);
    assert!(a.completed && a.start.is_empty());
}

#[test]
fn init_containers_run_again_in_a_new_sandbox() {
    let mut old = sandbox("old", 0);
    old.state = SandboxState::NotReady;
    let o = observed(
        vec![old, sandbox("new", 1)],
        vec![exited("i0", "old", 0, 1), exited("side", "old", 0, 2), exited("a", "old", 137, 3)],
    );
    assert_eq!(starts(&actions(&with_inits(), &o)), [("i0", 1)]);
}

fn probes(id: &str, verdicts: crate::policy::probe::Verdicts) -> ProbeSnapshot {
    let verdicts = std::collections::BTreeMap::from([(id.into(), verdicts)]);
    ProbeSnapshot { verdicts, ..ProbeSnapshot::default() }
}

/// [`spec`] with a liveness probe with a time of its own to stop, and a startup probe.
fn probed(name: &str) -> Container {
    let json = serde_json::json!({"exec": {"command": ["x"]}, "terminationGracePeriodSeconds": 7});
    let probe: k8s_openapi::api::core::v1::Probe = serde_json::from_value(json).unwrap();
    Container { liveness_probe: Some(probe.clone()), startup_probe: Some(probe), ..spec(name) }
}

#[test]
fn a_failed_probe_ends_that_container_alone_and_starts_it_anew() {
    let mut p = pod(&["a", "b"]);
    p.spec.as_mut().unwrap().containers[0] = probed("a");
    let o = observed(vec![sandbox("s", 0)], vec![container("a", "s"), container("b", "s")]);
    let dead = |p: &Pod, o: &PodObservation, verdicts: [Option<bool>; 2]| {
        let [startup, liveness] = verdicts;
        let said = probes(
            "s-a-0",
            crate::policy::probe::Verdicts { startup, liveness, said: "gone".into(), ..Default::default() },
        );
        compute_pod_actions(p, o, &said, &Ledger::default(), &RestartBackoff::default(), at(1000))
    };
    assert!(dead(&p, &o, [Some(true), Some(true)]).is_empty());
    for verdicts in [[Some(true), Some(false)], [Some(false), None]] {
        let a = dead(&p, &o, verdicts);
        assert_eq!((stops(&a), starts(&a)), (vec!["s-a-0"], vec![("a", 1)]));
        assert_eq!(a.stop[0].grace, Duration::from_secs(7));
        assert!(a.stop[0].reason.ends_with("probe: gone, will be restarted"), "{}", a.stop[0].reason);
        assert_eq!(a.start[0].next_delay_seconds, 10);
    }
    // In a crash loop it is stopped, and its successor waits.
    let mut looping = o.clone();
    for c in &mut looping.containers {
        (c.started_at, c.restart_delay_seconds) = (Some(at(990)), Some(20));
    }
    let a = dead(&p, &looping, [Some(true), Some(false)]);
    assert_eq!((stops(&a), starts(&a)), (vec!["s-a-0"], vec![]));
    // What is never restarted is stopped all the same.
    p.spec.as_mut().unwrap().restart_policy = Some("Never".into());
    let a = dead(&p, &o, [Some(true), Some(false)]);
    assert_eq!((stops(&a), starts(&a)), (vec!["s-a-0"], vec![]));
    assert!(!a.stop[0].reason.contains("restarted") && !a.completed);
}

#[test]
fn what_comes_after_a_sidecar_waits_until_it_has_started() {
    let mut p = with_inits();
    let side = &mut p.spec.as_mut().unwrap().init_containers.as_mut().unwrap()[1];
    *side = Container { restart_policy: side.restart_policy.clone(), ..probed("side") };
    let o = observed(vec![sandbox("s", 0)], vec![exited("i0", "s", 0, 1), container("side", "s")]);
    let after = |o: &PodObservation, startup| {
        let verdicts = crate::policy::probe::Verdicts { startup, ..Default::default() };
        compute_pod_actions(
            &p,
            o,
            &probes("s-side-0", verdicts),
            &Ledger::default(),
            &RestartBackoff::default(),
            at(1000),
        )
    };
    let a = after(&o, None);
    assert!(a.is_empty() && !a.initialized);
    assert_eq!(starts(&after(&o, Some(true))), [("i1", 0)]);
    let a = after(&o, Some(false));
    assert_eq!((stops(&a), starts(&a)), (vec!["s-side-0"], vec![("side", 1)]));
    // Once what comes after it has begun, a sidecar that is started anew holds nobody back.
    let mut all = o.containers;
    all.extend([exited("i1", "s", 0, 2), container("a", "s")]);
    assert!(after(&observed(vec![sandbox("s", 0)], all), None).initialized);
}

#[test]
fn containers_after_a_running_hook_wait_and_a_failed_hook_ends_its_container() {
    use crate::policy::probe::PostStart;
    let p = pod(&["a", "b", "c"]);
    let o = observed(vec![sandbox("s", 0)], vec![container("b", "s")]);
    let with_hook = |hook| {
        let mut said = ProbeSnapshot::default();
        said.hooks.insert("s-b-0".into(), hook);
        compute_pod_actions(&p, &o, &said, &Ledger::default(), &RestartBackoff::default(), at(1000))
    };
    let a = with_hook(PostStart::Running);
    assert_eq!((stops(&a), starts(&a)), (vec![], vec![("a", 0)]));
    let a = with_hook(PostStart::Failed("exit code 1".into()));
    assert_eq!((stops(&a), starts(&a)), (vec!["s-b-0"], vec![("a", 0), ("c", 0)]));
    assert_eq!(a.stop[0].grace, Duration::from_secs(30));
}

/// A pod with a regular container `a` and these ephemeral ones, each with the container that it looks into.
fn debugged(policy: &str, ephemeral: &[(&str, &str)]) -> Pod {
    let mut p = with_policy(policy, &["a"]);
    let own = ephemeral.iter().map(|(name, target)| k8s_openapi::api::core::v1::EphemeralContainer {
        name: (*name).into(),
        image: spec(name).image,
        target_container_name: (!target.is_empty()).then(|| (*target).into()),
        ..Default::default()
    });
    p.spec.as_mut().unwrap().ephemeral_containers = Some(own.collect());
    p
}

#[test]
fn an_ephemeral_container_is_started_once_and_changes_no_other() {
    let p = debugged("Always", &[("d", "")]);
    let with = |containers| actions(&p, &observed(vec![sandbox("s", 0)], containers));
    let a = with(vec![container("a", "s")]);
    assert_eq!((starts(&a), stops(&a).len()), (vec![("d", 0)], 0));
    assert_eq!(a.start[0].kind, ContainerKind::Ephemeral);
    assert!(a.is_ephemeral() && !a.completed);
    assert!(with(vec![container("a", "s"), container("d", "s")]).is_empty());
    assert!(with(vec![container("a", "s"), exited("d", "s", 1, 5)]).is_empty());
    // One that was made and never started is started; with its sandbox it is made anew.
    let mut made = container("d", "s");
    made.state = ContainerState::Created;
    let a = with(vec![container("a", "s"), made.clone()]);
    assert_eq!(a.start[0].made.as_ref(), Some(&made.id));
    made.sandbox_id = "old".into();
    assert_eq!(starts(&with(vec![container("a", "s"), made])), [("d", 1)]);
    // The others come first, and are none of its business.
    let a = with(vec![]);
    assert_eq!(starts(&a), [("a", 0), ("d", 0)]);
    assert!(!a.is_ephemeral());
    // Nor is it what a pod is started for.
    assert!(actions(&p, &observed(vec![], vec![])).start.is_empty());
}

#[test]
fn an_ephemeral_container_that_is_known_to_have_run_does_not_again() {
    let p = debugged("Always", &[("d", ""), ("e", "")]);
    let o = observed(vec![sandbox("s", 0)], vec![container("a", "s")]);
    let a = compute_pod_actions(
        &p,
        &o,
        &ProbeSnapshot::default(),
        &Ledger { begun: ["d".to_owned()].into(), ..Ledger::default() },
        &RestartBackoff::default(),
        at(1000),
    );
    assert_eq!(starts(&a), [("e", 0)]);
}

#[test]
fn an_ephemeral_container_comes_after_the_one_that_it_looks_into() {
    let p = debugged("Always", &[("d", "a"), ("e", "gone")]);
    let with = |containers| actions(&p, &observed(vec![sandbox("s", 0)], containers));
    assert_eq!(starts(&with(vec![])), [("a", 0), ("e", 0)]);
    let crashed = ObservedContainer {
        restart_delay_seconds: Some(20),
        started_at: Some(at(985)),
        ..exited("a", "s", 1, 990)
    };
    let a = with(vec![crashed]);
    assert_eq!((starts(&a), a.waiting.len()), (vec![("e", 0)], 1));
    assert_eq!(starts(&with(vec![container("a", "s")])), [("d", 0), ("e", 0)]);
}

#[test]
fn an_ephemeral_container_keeps_no_pod_from_its_end_and_none_is_started_after_it() {
    let p = debugged("Never", &[("d", ""), ("e", "")]);
    let o = observed(vec![sandbox("s", 0)], vec![exited("a", "s", 0, 5), container("d", "s")]);
    let a = actions(&p, &o);
    assert!(a.completed && a.start.is_empty());
}

#[test]
fn an_ephemeral_container_waits_for_no_init_container() {
    let mut p = with_inits();
    p.spec.as_mut().unwrap().ephemeral_containers =
        debugged("Always", &[("d", "")]).spec().ephemeral_containers.clone();
    let a = actions(&p, &observed(vec![sandbox("s", 0)], vec![container("i0", "s")]));
    assert_eq!(starts(&a), [("d", 0)]);
}

#[test]
fn a_container_that_outgrows_its_resources_is_started_anew_and_others_of_the_servers_are_not() {
    let mut p = pod(&["a", "b"]);
    let resources = |cpu| serde_json::from_value(serde_json::json!({ "requests": { "cpu": cpu } })).unwrap();
    p.spec.as_mut().unwrap().containers[0].resources = Some(resources("1"));
    let mut a = container("a", "s");
    a.fingerprint = Some(container_fingerprint(&p, &p.spec().containers[0]));
    let o = observed(vec![sandbox("s", 0)], vec![a.clone(), container("b", "s")]);
    p.spec.as_mut().unwrap().containers[0].resources = Some(resources("2"));
    assert!(actions(&p, &o).is_empty());
    let ledger = Ledger { outgrown: [a.id.clone()].into(), ..Ledger::default() };
    let (probes, backoff) = (ProbeSnapshot::default(), RestartBackoff::default());
    let found = compute_pod_actions(&p, &o, &probes, &ledger, &backoff, at(1000));
    assert_eq!((stops(&found), starts(&found)), (vec![a.id.as_str()], vec![("a", 1)]));
    assert_eq!(found.stop[0].reason, "resources changed");
    // A manifest is another pod's, or its container is.
    p.metadata.annotations = Some([("kubernetes.io/config.source".to_owned(), "file".to_owned())].into());
    assert_eq!(stops(&actions(&p, &o)), [a.id.as_str()]);
}
