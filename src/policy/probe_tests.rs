//! When a probe's results count, what runs when, and what the verdicts mean.

use super::*;
use crate::policy::testing::{container, observed, pod, sandbox};

fn probe(json: serde_json::Value) -> Probe {
    serde_json::from_value(json).unwrap()
}

fn with_probes(container: &serde_json::Value) -> Pod {
    let mut p = pod(&["a"]);
    let mut json = serde_json::to_value(&p.spec().containers[0]).unwrap();
    json.as_object_mut().unwrap().extend(container.as_object().unwrap().clone());
    p.spec.as_mut().unwrap().containers = vec![serde_json::from_value(json).unwrap()];
    p
}

fn all_three() -> Pod {
    let exec = serde_json::json!({"exec": {"command": ["x"]}});
    let mut liveness = exec.clone();
    liveness["terminationGracePeriodSeconds"] = 7.into();
    with_probes(&serde_json::json!({"startupProbe": exec, "livenessProbe": liveness, "readinessProbe": exec}))
}

fn kinds(pod: &Pod, snapshot: &ProbeSnapshot, stopping: bool) -> Vec<ProbeKind> {
    let o = observed(vec![sandbox("s", 0)], vec![container("a", "s")]);
    wanted_probes(pod, &o, snapshot, &[], stopping).into_iter().map(|wanted| wanted.kind).collect()
}

fn snapshot(verdicts: Verdicts) -> ProbeSnapshot {
    ProbeSnapshot { verdicts: BTreeMap::from([("s-a-0".into(), verdicts)]), ..ProbeSnapshot::default() }
}

#[test]
fn results_count_once_there_are_enough_in_a_row() {
    let p = probe(serde_json::json!({"successThreshold": 2, "failureThreshold": 3}));
    let mut row = ProbeRow::default();
    let results = [true, true, true, false, false, true, false, false, false, false];
    let verdicts = results.map(|passed| row.step(&p, passed));
    let (yes, no) = (Some(true), Some(false));
    assert_eq!(verdicts, [None, yes, yes, None, None, None, None, None, no, no]);
    // A threshold of nought is one.
    let p = probe(serde_json::json!({"successThreshold": 0, "failureThreshold": 0}));
    assert_eq!(ProbeRow::default().step(&p, false), no);
    assert_eq!(ProbeRow::default().step(&p, true), yes);
}

#[test]
fn the_first_run_waits_for_its_delay_and_is_spread_where_nothing_waits_for_it() {
    let p = probe(serde_json::json!({"initialDelaySeconds": 5, "periodSeconds": 4}));
    let first =
        |kind, running: u64, spread| first_run(&p, kind, Duration::from_millis(running), spread).as_millis();
    assert_eq!(first(ProbeKind::Readiness, 0, 4321), 5000);
    assert_eq!(first(ProbeKind::Startup, 3000, 4321), 2000);
    assert_eq!(first(ProbeKind::Liveness, 3000, 4321), 2321);
    assert_eq!(first(ProbeKind::Readiness, 60_000, 4321), 321);
    let none = probe(serde_json::json!({}));
    assert_eq!((period(&none).as_secs(), timeout(&none).as_secs()), (10, 1));
    assert_eq!(first_run(&none, ProbeKind::Readiness, Duration::from_millis(300), 9), Duration::ZERO);
}

#[test]
fn a_startup_probe_holds_the_others_back_and_a_failed_one_ends_them() {
    use ProbeKind::{Liveness, Readiness, Startup};
    let p = all_three();
    assert_eq!(kinds(&p, &ProbeSnapshot::default(), false), [Startup]);
    let passed = Verdicts { startup: Some(true), ..Verdicts::default() };
    assert_eq!(kinds(&p, &snapshot(passed.clone()), false), [Liveness, Readiness]);
    assert_eq!(kinds(&p, &snapshot(passed.clone()), true), [Readiness]);
    let failed = Verdicts { startup: Some(false), ..Verdicts::default() };
    assert!(kinds(&p, &snapshot(failed), false).is_empty());
    let dying = Verdicts { liveness: Some(false), ..passed };
    assert_eq!(kinds(&p, &snapshot(dying), false), [Readiness]);
    let mut hook = ProbeSnapshot::default();
    hook.hooks.insert("s-a-0".into(), PostStart::Running);
    assert!(kinds(&p, &hook, false).is_empty());
}

#[test]
fn verdicts_become_the_status_and_the_reason_to_stop() {
    let p = all_three();
    let o = observed(vec![sandbox("s", 0)], vec![container("a", "s")]);
    let id: ContainerId = "s-a-0".into();
    let spec = &p.spec().containers[0];
    let state = |s: &ProbeSnapshot| s.states(&p, &o)["a"];
    let state_of = |started, ready| ProbeState { started, ready };
    let mut verdicts = Verdicts { said: "no".into(), ..Verdicts::default() };
    assert_eq!(state(&snapshot(verdicts.clone())), state_of(false, false));
    assert!(verdicts.set(ProbeKind::Startup, true) && !verdicts.set(ProbeKind::Startup, true));
    assert_eq!(state(&snapshot(verdicts.clone())), state_of(true, false));
    verdicts.set(ProbeKind::Readiness, true);
    assert_eq!(state(&snapshot(verdicts.clone())), state_of(true, true));
    assert_eq!(snapshot(verdicts.clone()).unhealthy(spec, &id), None);
    // What an agent after this one knows.
    assert_eq!(state(&snapshot(verdicts.kept().into())), state_of(true, true));
    verdicts.set(ProbeKind::Liveness, false);
    let found = snapshot(verdicts.clone()).unhealthy(spec, &id).unwrap();
    assert_eq!(
        (found.reason.as_str(), found.grace),
        ("failed liveness probe: no", Some(Duration::from_secs(7)))
    );
    assert!(found.restarts);
    verdicts.set(ProbeKind::Readiness, false);
    assert_eq!(state(&snapshot(verdicts)), state_of(true, false));
    // A verdict of a probe that the specification no longer has is nobody's.
    let dead = Verdicts { liveness: Some(false), ..Verdicts::default() };
    assert_eq!(snapshot(dead).unhealthy(&pod(&["a"]).spec().containers[0], &id), None);
}

#[test]
fn a_hook_that_runs_or_failed_keeps_a_container_from_having_started() {
    let p = pod(&["a"]);
    let o = observed(vec![sandbox("s", 0)], vec![container("a", "s")]);
    let id: ContainerId = "s-a-0".into();
    let spec = &p.spec().containers[0];
    let mut s = ProbeSnapshot::default();
    assert!(s.states(&p, &o)["a"].ready);
    s.hooks.insert(id.clone(), PostStart::Running);
    assert!(!s.states(&p, &o)["a"].started && s.unhealthy(spec, &id).is_none());
    s.hooks.insert(id.clone(), PostStart::Failed("exit code 1".into()));
    let found = s.unhealthy(spec, &id).unwrap();
    assert!(!s.states(&p, &o)["a"].started && !found.restarts && found.reason.contains("exit code 1"));
    s.retain(|_| false);
    assert_eq!(s, ProbeSnapshot::default());
}

#[test]
fn a_container_of_an_older_sandbox_is_not_probed_and_the_address_is_the_pods() {
    let p = all_three();
    let probes = |seen: &PodObservation, pod: &Pod| {
        wanted_probes(pod, seen, &ProbeSnapshot::default(), &[[192, 0, 2, 1].into()], false)
    };
    let old = observed(vec![sandbox("t", 1), sandbox("s", 0)], vec![container("a", "s")]);
    assert!(probes(&old, &p).is_empty());
    let o = observed(vec![sandbox("s", 0)], vec![container("a", "s")]);
    assert_eq!(probes(&o, &p)[0].ip, Some([10, 0, 0, 2].into()));
    let mut host = p.clone();
    host.spec.as_mut().unwrap().host_network = Some(true);
    assert_eq!(probes(&o, &host)[0].ip, Some([192, 0, 2, 1].into()));
    assert_eq!(probes(&o, &p)[0].container(&p).map(|c| c.name.as_str()), Some("a"));
}
