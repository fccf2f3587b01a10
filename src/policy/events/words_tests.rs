//! The words as whoever looks for them knows them.

use serde_json::{from_value, json};

use super::*;
use crate::policy::events::Severity;

fn said(words: &Words) -> (&str, &str) {
    (&words.reason, &words.message)
}

#[test]
fn images_are_told_in_kubelets_words() {
    assert_eq!(said(&Pull::Begins.words("web:1")), ("Pulling", "Pulling image \"web:1\""));
    let present = Pull::Present.words("web:1");
    let words = "Container image \"web:1\" already present on machine and can be accessed by the pod";
    assert_eq!(said(&present), ("Pulled", words));
    let done = Pull::Done {
        took: Duration::from_nanos(1_234_567_890),
        waited: Duration::from_millis(62_050),
        bytes: 713_300,
    };
    assert_eq!(
        done.words("web:1").message,
        "Successfully pulled image \"web:1\" in 1.234s (1m2.05s including waiting). Image size: 713300 bytes."
    );
    let failed = pull_failed("web:1", "no such host");
    assert_eq!(said(&failed), ("Failed", "Failed to pull image \"web:1\": no such host"));
    let back_off = pull_refused("ImagePullBackOff", "web:1", "no such host").unwrap();
    assert_eq!(said(&back_off), ("BackOff", "Back-off pulling image \"web:1\""));
    assert_eq!(back_off.severity, Severity::Normal);
    let never = pull_refused("ErrImageNeverPull", "web:1", "").unwrap();
    assert_eq!(never.message, "Container image \"web:1\" is not present with pull policy of Never");
    assert_eq!(pull_refused("ErrImagePull", "web:1", "x"), None);
}

#[test]
fn failures_of_containers_are_the_same_with_other_ids() {
    for reason in ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"] {
        assert_eq!(container_failure(reason, "much more", "main").message, format!("Error: {reason}"));
    }
    let id = "0123456789abcdef".repeat(4);
    let words = format!("task {id}: image sha256:{id}: exec {id}a, {id}");
    assert_eq!(
        container_failure("RunContainerError", &words, "main").message,
        format!("Error: task main: image sha256:{id}: exec {id}a, main")
    );
    assert_eq!(container_failure("CreateContainerError", "", "main").message, "Error: ");
}

#[test]
fn failures_of_pods_have_kubelets_reasons() {
    for (reason, expected) in [
        ("FailedMount", Some(("FailedMount", "why"))),
        ("FailedCreatePodSandBox", Some(("FailedCreatePodSandBox", "Failed to create pod sandbox: why"))),
        ("RuntimeUnsupported", Some(("FailedCreatePodSandBox", "Failed to create pod sandbox: why"))),
        ("FailedKillContainer", Some(("FailedKillPod", "error killing pod: why"))),
        ("RuntimeError", Some(("FailedSync", "error determining status: why"))),
        ("FailedUnmount", None),
    ] {
        let words = pod_failure(reason, "why");
        assert_eq!(words.as_ref().map(said), expected, "{reason}");
    }
}

#[test]
fn a_stop_says_why() {
    let probe = |kind, restarted| StopCause::Probe { kind, restarted };
    for (cause, message) in [
        (StopCause::Pod, "Stopping container main"),
        (StopCause::Changed, "Container main definition changed, will be restarted"),
        (StopCause::Hook, "FailedPostStartHook"),
        (probe(ProbeKind::Liveness, true), "Container main failed liveness probe, will be restarted"),
        (probe(ProbeKind::Startup, false), "Container main failed startup probe"),
    ] {
        assert_eq!(said(&killing("main", cause)), ("Killing", message));
    }
    let pod = PodFullName::new("shop", "web");
    assert_eq!(
        back_off("main", &pod, &PodUid::from("u")).message,
        "Back-off restarting failed container main in pod web_shop(u)"
    );
}

#[test]
fn conditions_that_change_are_told() {
    let conditions = |told: &[(&str, &str)]| -> Vec<NodeCondition> {
        told.iter()
            .map(|(type_, status)| from_value(json!({ "type": type_, "status": status })).unwrap())
            .collect()
    };
    let well =
        [("MemoryPressure", "False"), ("DiskPressure", "False"), ("PIDPressure", "False"), ("Ready", "True")];
    let reasons = |before: &[(&str, &str)], now: &[(&str, &str)]| -> Vec<String> {
        let words = condition_words("n1", &conditions(before), &conditions(now));
        words.into_iter().map(|words| words.reason.into_owned()).collect()
    };
    let first = ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID"];
    assert_eq!(reasons(&[], &well), first);
    assert!(reasons(&well, &well).is_empty());
    assert_eq!(reasons(&well, &[("Ready", "False")]), ["NodeNotReady"]);
    assert_eq!(reasons(&[("Ready", "Unknown")], &well[3..]), ["NodeReady"]);
    let pressed = [("MemoryPressure", "True"), ("DiskPressure", "True"), ("PIDPressure", "True")];
    let became = ["NodeHasInsufficientMemory", "NodeHasDiskPressure", "NodeHasInsufficientPID"];
    assert_eq!(reasons(&well, &pressed), became);
    assert_eq!(node_became("n1", "NodeReady").message, "Node n1 status is now: NodeReady");
}
