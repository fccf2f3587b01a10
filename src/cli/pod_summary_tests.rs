//! The words of a pod's STATUS column, as kubectl has them.

#![expect(clippy::needless_pass_by_value, reason = "JSON is handed over as it is written")]

use serde_json::{Value, json};

use super::*;
use crate::cli::fixtures::{containers, ended, pod, running, status, up, waiting};

/// READY, STATUS and RESTARTS of a pod.
fn cells(view: &PodView) -> (String, String, i64) {
    let summary = summarize(view);
    (format!("{}/{}", summary.ready, summary.total), summary.status, summary.restarts)
}

fn expect(view: &PodView, ready: &str, status: &str, restarts: i64) {
    assert_eq!(cells(view), (ready.to_owned(), status.to_owned(), restarts), "{:?}", view.status);
}

fn with(phase: &str, statuses: Value) -> Value {
    json!({ "phase": phase, "containerStatuses": statuses })
}

fn none() -> Value {
    json!({})
}

#[test]
fn running_pods() {
    expect(&running("a"), "1/1", "Running", 0);
    let two = with(
        "Running",
        json!([status("a", true, 2, up(), ended(1, "Error", "")), status("b", false, 1, up(), none())]),
    );
    let view = pod("p", PodStep::Running, containers(&["a", "b"]), two);
    expect(&view, "1/2", "Running", 3);
    assert_eq!(summarize(&view).last_restart, Some("2026-03-01T11:59:20Z".parse().unwrap()));
    let nothing = pod("p", PodStep::WaitingForRuntime, containers(&["a", "b"]), none());
    expect(&nothing, "0/2", "Pending", 0);
}

#[test]
fn the_first_containers_trouble_is_shown() {
    let statuses = json!([
        status("a", false, 4, waiting("CrashLoopBackOff"), ended(1, "Error", "")),
        status("b", false, 0, waiting("ErrImagePull"), none()),
    ]);
    let view = pod("p", PodStep::CrashLoopBackOff, containers(&["a", "b"]), with("Running", statuses));
    expect(&view, "0/2", "CrashLoopBackOff", 4);
}

#[test]
fn ended_containers() {
    let done = with("Succeeded", json!([status("a", false, 0, ended(0, "Completed", ""), none())]));
    expect(&pod("p", PodStep::Finished, containers(&["a"]), done), "0/1", "Completed", 0);
    for (code, signal, expected) in [(3, json!(null), "ExitCode:3"), (0, json!(9), "Signal:9")] {
        let state = json!({ "terminated": { "exitCode": code, "signal": signal } });
        let failed = with("Failed", json!([status("a", false, 0, state, none())]));
        expect(&pod("p", PodStep::Finished, containers(&["a"]), failed), "0/1", expected, 0);
    }
    // One has completed and the other runs.
    for (ready, expected) in [("True", "Running"), ("False", "NotReady")] {
        let both = json!({
            "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }],
            "containerStatuses": [
                status("a", false, 0, ended(0, "Completed", ""), none()), status("b", true, 0, up(), none()),
            ],
        });
        expect(&pod("p", PodStep::Running, containers(&["a", "b"]), both), "1/2", expected, 0);
    }
    let evicted = json!({ "phase": "Failed", "reason": "Evicted" });
    expect(&pod("p", PodStep::Finished, containers(&["a"]), evicted), "0/1", "Evicted", 0);
}

fn init(step: PodStep, init: Value, initialized: bool) -> PodView {
    let spec = json!({
        "initContainers": [{ "name": "i" }, { "name": "s", "restartPolicy": "Always" }],
        "containers": [{ "name": "a" }],
    });
    let conditions = json!([{ "type": "Initialized", "status": if initialized { "True" } else { "False" } }]);
    let state = if initialized { up() } else { waiting("PodInitializing") };
    let status = json!({
        "phase": if initialized { "Running" } else { "Pending" }, "conditions": conditions,
        "initContainerStatuses": init, "containerStatuses": [status("a", initialized, 1, state, none())],
    });
    pod("p", step, spec, status)
}

#[test]
fn init_containers_and_sidecars() {
    let step = PodStep::Initializing;
    let idle = || status("s", false, 0, waiting("PodInitializing"), none());
    expect(&init(step, json!([status("i", false, 0, up(), none()), idle()]), false), "0/2", "Init:0/2", 0);
    let crash = status("i", false, 3, waiting("CrashLoopBackOff"), none());
    expect(&init(step, json!([crash, idle()]), false), "0/2", "Init:CrashLoopBackOff", 3);
    let error = status("i", false, 1, ended(1, "Error", ""), none());
    expect(&init(step, json!([error, idle()]), false), "0/2", "Init:Error", 1);
    let bare = status("i", false, 0, json!({ "terminated": { "exitCode": 7 } }), none());
    expect(&init(step, json!([bare, idle()]), false), "0/2", "Init:ExitCode:7", 0);
    let done = || status("i", true, 2, ended(0, "Completed", ""), none());
    expect(&init(step, json!([done(), idle()]), false), "0/2", "Init:1/2", 2);
    let mut sidecar = status("s", true, 5, up(), none());
    sidecar["started"] = json!(true);
    expect(&init(PodStep::Running, json!([done(), sidecar]), true), "2/2", "Running", 6);
}

#[test]
fn pods_that_leave_or_are_refused() {
    for step in [PodStep::Terminating, PodStep::CleaningUp] {
        let mut view = running("p");
        view.progress.step = step;
        expect(&view, "1/1", "Terminating", 0);
        let done = with("Succeeded", json!([status("a", false, 0, ended(0, "Completed", ""), none())]));
        expect(&pod("p", step, containers(&["a"]), done), "0/1", "Completed", 0);
    }
    let mut refused = pod("p", PodStep::Rejected, containers(&["a"]), json!({ "phase": "Failed" }));
    expect(&refused, "0/1", "Rejected", 0);
    refused.progress.last_error = Some(crate::api::view::ErrorView {
        reason: "UnsupportedField".into(),
        message: "spec.x".into(),
        at: Timestamp::UNIX_EPOCH,
        count: 1,
        hints: Vec::new(),
    });
    expect(&refused, "0/1", "UnsupportedField", 0);
}

#[test]
fn a_pod_that_only_the_runtime_knows_has_a_row_too() {
    let orphan = with("Running", json!([status("a", false, 0, up(), none())]));
    let mut view = pod("p", PodStep::Terminating, json!(null), orphan);
    std::sync::Arc::make_mut(&mut view.pod).spec = None;
    expect(&view, "0/1", "Terminating", 0);
}
