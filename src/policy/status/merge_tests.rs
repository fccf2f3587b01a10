//! The merge of statuses and the patch of it.

use proptest::prelude::*;
use serde_json::{Value, from_value, json};

use self::strategic::apply;
use super::*;
use crate::policy::testing::pod;

#[path = "../../../tests/support/strategic.rs"]
mod strategic;

fn status(value: Value) -> PodStatus {
    from_value(value).unwrap()
}

fn condition_of(type_: &str, status: &str, at: &str) -> Value {
    json!({ "type": type_, "status": status, "lastTransitionTime": format!("2026-01-01T00:00:{at}Z") })
}

#[test]
fn what_has_ended_stays_so() {
    let mut pod = pod(&["a"]);
    pod.spec.as_mut().unwrap().restart_policy = Some("Never".into());
    let ended = json!([{ "name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "terminated": { "exitCode": 3 } } }]);
    let there =
        status(json!({ "phase": "Failed", "reason": "Evicted", "message": "m", "containerStatuses": ended }));
    let ours = status(json!({ "phase": "Running", "conditions": [condition_of("Ready", "True", "07")],
        "containerStatuses": [{ "name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "state": { "running": {} } }] }));
    let merged = merge_status(&pod, &there, &ours, true);
    assert_eq!((merged.phase.as_deref(), merged.reason.as_deref()), (Some("Failed"), Some("Evicted")));
    assert_eq!(merged.container_statuses, there.container_statuses);
    let ready = &merged.conditions.unwrap()[0];
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("False", Some("PodFailed")));
}

#[test]
fn a_pod_has_not_ended_while_something_of_it_may_run() {
    let there = status(json!({ "phase": "Running", "startTime": "2026-01-01T00:00:00Z" }));
    let ours = status(json!({ "phase": "Failed", "reason": "DeadlineExceeded", "message": "late",
        "startTime": "2026-01-01T00:00:09Z" }));
    let merged = merge_status(&pod(&["a"]), &there, &ours, true);
    assert_eq!((merged.phase.as_deref(), merged.reason), (Some("Running"), None));
    assert_eq!(merged.start_time, there.start_time);
    let merged = merge_status(&pod(&["a"]), &there, &ours, false);
    assert_eq!(
        (merged.phase.as_deref(), merged.reason.as_deref()),
        (Some("Failed"), Some("DeadlineExceeded"))
    );
}

#[test]
fn a_condition_keeps_its_time_while_its_status_does_not_change() {
    let there = status(
        json!({ "conditions": [condition_of("Ready", "True", "01"), condition_of("Initialized", "False", "01")] }),
    );
    let ours = status(
        json!({ "conditions": [condition_of("Ready", "True", "05"), condition_of("Initialized", "True", "05")] }),
    );
    let merged = serde_json::to_value(merge_status(&pod(&["a"]), &there, &ours, true)).unwrap();
    assert_eq!(merged["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:01Z");
    assert_eq!(merged["conditions"][1]["lastTransitionTime"], "2026-01-01T00:00:05Z");
}

#[test]
fn what_others_have_written_is_told_from_what_was_not_taken() {
    let sent = json!({ "phase": "Running", "conditions": [{ "type": "Ready", "status": "True" }], "podIP": "10.0.0.1" });
    let same = |rest: Value| was_sent(&rest, &sent);
    assert!(same(json!({ "podIP": "10.0.0.1" })));
    assert!(same(json!({ "conditions": [{ "type": "Ready", "status": "True", "reason": "x" }] })));
    assert!(!same(json!({ "conditions": [{ "type": "PodScheduled", "status": "True" }] })));
    assert!(!same(json!({ "conditions": [{ "$patch": "delete", "type": "Initialized" }] })));
    assert!(!same(json!({ "podIP": "10.0.0.1", "startTime": null })));
}

#[test]
fn the_patch_names_what_changes_and_nothing_of_others() {
    let there = status(json!({
        "phase": "Pending", "reason": "r", "nominatedNodeName": "n", "podIPs": [{ "ip": "10.0.0.1" }],
        "conditions": [
            condition_of("example.org/gate", "True", "01"),
            json!({ "type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "m" }),
            condition_of("PodResizePending", "True", "01"),
            condition_of("PodScheduled", "True", "01"),
        ],
    }));
    let ours = status(json!({
        "phase": "Running", "podIP": "10.0.0.2", "podIPs": [{ "ip": "10.0.0.2" }], "hostIPs": [{ "ip": "1.2.3.4" }],
        "conditions": [condition_of("Ready", "True", "02"), condition_of("PodScheduled", "True", "01")],
    }));
    let patch = status_patch(&our_part(&there), &our_part(&ours)).unwrap();
    assert_eq!(
        patch,
        json!({
            "phase": "Running", "reason": null, "podIP": "10.0.0.2", "hostIPs": [{ "ip": "1.2.3.4" }],
            "podIPs": [{ "ip": "10.0.0.2" }, { "$patch": "replace" }],
            "conditions": [
                { "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:02Z",
                  "reason": null, "message": null },
                { "type": "PodResizePending", "$patch": "delete" },
            ],
        })
    );
    assert_eq!(status_patch(&our_part(&ours), &our_part(&ours)), None);
}

#[test]
fn what_a_server_does_not_know_is_found_and_left_out() {
    let sent = json!({ "phase": "Running", "hostIPs": [{ "ip": "1.2.3.4" }],
        "containerStatuses": [{ "name": "a", "stopSignal": "SIGTERM" }, { "name": "b" }] });
    let answer = json!({ "phase": "Running", "containerStatuses": [{ "name": "a" }, { "name": "b" }] });
    let fields: std::collections::BTreeSet<String> = dropped(&sent, &answer).into_iter().collect();
    assert_eq!(fields.iter().collect::<Vec<_>>(), [".containerStatuses.stopSignal", ".hostIPs"]);
    let mut cut = sent;
    without(&mut cut, &fields);
    assert_eq!(cut, answer);
}

fn any_status() -> impl Strategy<Value = PodStatus> {
    let conditions = prop::collection::btree_map(
        prop::sample::select(vec![
            "Ready",
            "Initialized",
            "PodScheduled",
            "ContainersReady",
            "example.org/gate",
        ]),
        (any::<bool>(), any::<bool>(), 0..9_u8),
        0..5,
    );
    let ips = prop::collection::btree_set(0..4_u8, 0..3);
    let phase = prop::sample::select(vec!["Pending", "Running", "Succeeded", "Failed"]);
    (phase, any::<bool>(), conditions, ips, any::<bool>(), 0..3_i32).prop_map(
        |(phase, reason, conditions, ips, ended, restarts)| {
            let conditions: Vec<Value> = conditions
                .into_iter()
                .map(|(type_, (holds, reason, at))| {
                    let mut made =
                        condition_of(type_, if holds { "True" } else { "False" }, &format!("0{at}"));
                    if reason {
                        made["reason"] = json!("Why");
                    }
                    made
                })
                .collect();
            let state =
                if ended { json!({ "terminated": { "exitCode": 0 } }) } else { json!({ "running": {} }) };
            status(json!({
                "phase": phase,
                "reason": reason.then_some("Why"),
                "conditions": conditions,
                "podIPs": ips.iter().map(|ip| json!({ "ip": format!("10.0.0.{ip}") })).collect::<Vec<_>>(),
                "containerStatuses": [{ "name": "a", "image": "", "imageID": "", "ready": !ended,
                    "restartCount": restarts, "state": state }],
            }))
        },
    )
}

proptest! {
    /// The patch makes what is there into what is wanted, in one go, and leaves what is others' alone.
    #[test]
    fn a_patch_does_what_it_is_for(there in any_status(), ours in any_status(), may_run in any::<bool>()) {
        let pod = pod(&["a"]);
        let wanted = merge_status(&pod, &there, &ours, may_run);
        let part = our_part(&wanted);
        let server = serde_json::to_value(&there).unwrap();
        let after = match status_patch(&our_part(&there), &part) {
            Some(patch) => apply(&server, &patch),
            None => server,
        };
        let after = status(after);
        prop_assert_eq!(our_part(&after), part);
        prop_assert_eq!(condition(&after, "example.org/gate"), condition(&there, "example.org/gate"));
        // It is at rest then.
        let again = merge_status(&pod, &after, &ours, may_run);
        prop_assert_eq!(status_patch(&our_part(&after), &our_part(&again)), None);
    }

    /// Whatever the node says later, an end is an end.
    #[test]
    fn ends_are_never_taken_back(there in any_status(), ours in any_status(), may_run in any::<bool>()) {
        let mut pod = pod(&["a"]);
        pod.spec.as_mut().unwrap().restart_policy = Some("Never".into());
        let merged = merge_status(&pod, &there, &ours, may_run);
        if is_terminal(&there) {
            prop_assert_eq!(&merged.phase, &there.phase);
        }
        if is_terminal(&merged) {
            prop_assert!(!all_ready(&merged));
        }
        prop_assert!(!(may_run && is_terminal(&merged) && !is_terminal(&there)));
    }
}
