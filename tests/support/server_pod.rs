//! What a server's pod says of itself.

use k8s_openapi::api::core::v1::{Pod, PodCondition};

/// Its UID.
#[track_caller]
pub(crate) fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().expect("the server gives every pod a UID")
}

/// A condition.
pub(crate) fn condition<'p>(pod: &'p Pod, type_: &str) -> Option<&'p PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == type_)
}

/// The first container, as the server is told of it: its id and how often it was started again.
#[track_caller]
pub(crate) fn main_of(pod: &Pod) -> (String, i32) {
    let all = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let status = all.and_then(|all| all.first()).expect("the server is told of a container");
    (status.container_id.clone().unwrap_or_default(), status.restart_count)
}
