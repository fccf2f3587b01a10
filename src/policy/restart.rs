//! tmp
use crate::api::{ContainerKind, RestartPolicy};
use k8s_openapi::api::core::v1::Container;
/// d
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartDecision {
    /// r
    Restart,
    /// s
    Stay,
}
/// d
pub fn should_restart(
    policy: RestartPolicy,
    _c: &Container,
    kind: ContainerKind,
    code: i32,
) -> RestartDecision {
    let r = match (policy, kind) {
        (_, ContainerKind::Sidecar) => true,
        (RestartPolicy::Never, _) => false,
        (RestartPolicy::Always, ContainerKind::Regular) => true,
        _ => code != 0,
    };
    if r { RestartDecision::Restart } else { RestartDecision::Stay }
}
