//! What is said: reasons and messages of kubelet 1.35, so that what looks for them finds them.

use std::time::Duration;

use k8s_openapi::api::core::v1::NodeCondition;

use super::Words;
use crate::{
    api::{PodFullName, PodUid},
    config::GoDuration,
    policy::{pod_actions::StopCause, probe::ProbeKind},
};

/// What an image was needed for came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// It is being pulled.
    Begins,
    /// It was there.
    Present,
    /// It was pulled.
    Done {
        /// How long that took.
        took: Duration,
        /// The same with the wait for other pulls.
        waited: Duration,
        /// What it takes on the disk.
        bytes: u64,
    },
}

impl Pull {
    /// In words; the image is named as the pod does.
    pub fn words(self, image: &str) -> Words {
        match self {
            Self::Begins => Words::normal("Pulling", format!("Pulling image {image:?}")),
            Self::Present => Words::normal(
                "Pulled",
                format!(
                    "Container image {image:?} already present on machine and can be accessed by the pod"
                ),
            ),
            Self::Done { took, waited, bytes } => {
                let (took, waited) = (go(took), go(waited));
                Words::normal(
                    "Pulled",
                    format!(
                        "Successfully pulled image {image:?} in {took} ({waited} including waiting). \
                         Image size: {bytes} bytes."
                    ),
                )
            }
        }
    }
}

/// In Go's notation, without what is under a millisecond.
fn go(duration: Duration) -> GoDuration {
    GoDuration::from_millis(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

/// A pull that failed.
pub fn pull_failed(image: &str, cause: &str) -> Words {
    Words::warning("Failed", format!("Failed to pull image {image:?}: {cause}"))
}

/// Of Secrets with credentials, what stands in the way; `None` if nothing does.
pub fn secrets_missing(problems: &[String]) -> Option<Words> {
    (!problems.is_empty()).then(|| {
        let message = format!(
            "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
            problems.join(", ")
        );
        Words::warning("FailedToRetrieveImagePullSecret", message)
    })
}

/// An image that is not pulled now, by the reason of the container's waiting state. `None` where there is nothing
/// to say beside [`container_failure`].
pub fn pull_refused(reason: &str, image: &str, cause: &str) -> Option<Words> {
    match reason {
        "ImagePullBackOff" => Some(Words::normal("BackOff", format!("Back-off pulling image {image:?}"))),
        "ErrImageNeverPull" => Some(Words::warning(
            "ErrImageNeverPull",
            format!("Container image {image:?} is not present with pull policy of Never"),
        )),
        "ImageInspectError" => {
            Some(Words::warning("InspectFailed", format!("Failed to inspect image {image:?}: {cause}")))
        }
        _ => None,
    }
}

/// A container that could not be started, by the reason of its waiting state. Ids of containers in the runtime's
/// words are replaced by the container's name: another try has another id and is the same failure.
pub fn container_failure(reason: &str, message: &str, container: &str) -> Words {
    let of_image = reason == "ErrImagePull" || reason == "ImagePullBackOff" || reason == "ErrImageNeverPull";
    // The image's own event has said more.
    let said = if of_image { reason.to_owned() } else { without_ids(message, container) };
    Words::warning("Failed", format!("Error: {said}"))
}

/// Replaces container ids: words of 64 hexadecimal digits, but for digests, which have a colon before them.
fn without_ids(message: &str, container: &str) -> String {
    const ID: usize = 64;
    let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    let bytes = message.as_bytes();
    let (mut shown, mut from, mut at) = (String::with_capacity(message.len()), 0, 0);
    while at < bytes.len() {
        let run = bytes[at..].iter().take_while(|byte| is_digit(byte)).count();
        if run == ID && (at == 0 || bytes[at - 1] != b':') {
            shown.push_str(&message[from..at]);
            shown.push_str(container);
            from = at + run;
        }
        at += run.max(1);
    }
    shown.push_str(&message[from..]);
    shown
}

/// A failure of a pod's own steps, by the agent's reason. `None` for what happens when the pod is gone.
pub fn pod_failure(reason: &str, message: &str) -> Option<Words> {
    let (reason, begin) = match reason {
        "FailedMount" => ("FailedMount", ""),
        "FailedCreatePodContainer" => ("FailedCreatePodContainer", "unable to ensure pod container exists: "),
        "InvalidPod" | "FailedCreateLogDirectory" => {
            ("FailedToMakePodDataDirectories", "error making pod data directories: ")
        }
        "FailedCreatePodSandBox" | "RuntimeUnsupported" | "RuntimeClassNotFound" => {
            ("FailedCreatePodSandBox", "Failed to create pod sandbox: ")
        }
        "FailedKillPod" | "FailedKillContainer" | "FailedKillPodSandbox" => {
            ("FailedKillPod", "error killing pod: ")
        }
        "FailedRemovePod" | "FailedUnmount" | "Interrupted" => return None,
        _ => ("FailedSync", "error determining status: "),
    };
    Some(Words::warning(reason, format!("{begin}{message}")))
}

/// A container that is stopped.
pub fn killing(container: &str, cause: StopCause) -> Words {
    let message = match cause {
        StopCause::Pod => format!("Stopping container {container}"),
        StopCause::Changed => format!("Container {container} definition changed, will be restarted"),
        StopCause::Hook => "FailedPostStartHook".to_owned(),
        StopCause::Lost => {
            format!("Container {container} is in an unknown state, try killing it before restart")
        }
        StopCause::Probe { kind, restarted } => {
            let again = if restarted { ", will be restarted" } else { "" };
            format!("Container {container} failed {} probe{again}", kind.as_str())
        }
    };
    Words::normal("Killing", message)
}

/// A container that waits out its crash-loop delay.
pub fn back_off(container: &str, pod: &PodFullName, uid: &PodUid) -> Words {
    let PodFullName { namespace, name } = pod;
    let message =
        format!("Back-off restarting failed container {container} in pod {name}_{namespace}({uid})");
    Words::warning("BackOff", message)
}

fn of_kind(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Startup => "Startup",
        ProbeKind::Liveness => "Liveness",
        ProbeKind::Readiness => "Readiness",
    }
}

/// A probe that did not pass.
pub fn probe_failed(kind: ProbeKind, said: &str) -> Words {
    Words::warning("Unhealthy", format!("{} probe failed: {said}", of_kind(kind)))
}

/// A probe that could not be run.
pub fn probe_errored(kind: ProbeKind, said: &str) -> Words {
    let kind = of_kind(kind);
    Words::warning("Unhealthy", format!("{kind} probe errored and resulted in unknown state: {said}"))
}

/// A probe that passed with a word of warning.
pub fn probe_warning(kind: ProbeKind, said: &str) -> Words {
    Words::warning("ProbeWarning", format!("{} probe warning: {said}", of_kind(kind)))
}

/// The node has become something.
pub fn node_became(node: &str, what: &'static str) -> Words {
    Words::normal(what, format!("Node {node} status is now: {what}"))
}

/// What has become of a node's conditions, from what the server had before to what it was told. As with kubelet a
/// new Node's readiness is no news, and each pressure's first word is.
pub fn condition_words(node: &str, before: &[NodeCondition], now: &[NodeCondition]) -> Vec<Words> {
    fn status<'c>(conditions: &'c [NodeCondition], type_: &str) -> Option<&'c str> {
        conditions.iter().find(|condition| condition.type_ == type_).map(|condition| &*condition.status)
    }
    let news = [
        ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
        ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
        ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
        ("Ready", "NodeReady", "NodeNotReady"),
    ];
    let changed = news.into_iter().filter_map(|(type_, yes, no)| {
        let (was, is) = (status(before, type_), status(now, type_)?);
        let first = was.is_none() && type_ == "Ready";
        (was != Some(is) && !first).then_some(if is == "True" { yes } else { no })
    });
    changed.map(|what| node_became(node, what)).collect()
}

#[cfg(test)]
#[path = "words_tests.rs"]
mod tests;
