//! Whether a container that ended is started again.
//!
//! Three voices are heard in turn: the container's own `restartPolicyRules` (the first whose exit codes
//! fit), its own `restartPolicy`, and the pod's. Rules speak only where the container has a policy of its
//! own; the API asks for it. As in kubelet, an init container that succeeded is never run again for its
//! own sake, and a sidecar always is.

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, PodSpec};

use crate::api::{ContainerKind, RestartPolicy};

/// The action of a rule that starts the container again.
const RESTART: &str = "Restart";
/// The action of a rule that starts the whole pod again, in its sandbox (since 1.35).
const RESTART_ALL: &str = "RestartAllContainers";

/// What follows a container's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RestartDecision {
    /// It is started again, after its back-off.
    Restart,
    /// Every container of the pod, init containers included, is ended and started again in the sandbox
    /// that is there.
    RestartAllContainers,
    /// It stays ended.
    Stay,
}

impl RestartDecision {
    /// Whether the container runs again at all.
    pub fn runs_again(self) -> bool {
        self != Self::Stay
    }
}

/// Decides about a container of the given kind that ended with `exit_code`, in a pod whose own policy is
/// `pod_policy`.
pub fn should_restart(
    pod_policy: RestartPolicy,
    container: &Container,
    kind: ContainerKind,
    exit_code: i32,
) -> RestartDecision {
    // Done is done for an init container: whether its end started everything anew is all a rule can add.
    let done = kind == ContainerKind::Init && exit_code == 0;
    match matching_rule(container, exit_code).map(|rule| rule.action.as_str()) {
        Some(RESTART_ALL) => return RestartDecision::RestartAllContainers,
        Some(RESTART) if !done => return RestartDecision::Restart,
        // An action of a later API is left to the policies, as kubelet does.
        _ => {}
    }
    let own = container.restart_policy.as_deref().and_then(RestartPolicy::parse);
    let again = match (kind, own.unwrap_or(pod_policy)) {
        (ContainerKind::Ephemeral, _) => false,
        (ContainerKind::Sidecar, _) => true,
        (ContainerKind::Regular, RestartPolicy::Always) => true,
        (_, RestartPolicy::Always | RestartPolicy::OnFailure) => exit_code != 0,
        (_, RestartPolicy::Never) => false,
    };
    if again { RestartDecision::Restart } else { RestartDecision::Stay }
}

/// Whether any container of the pod has a rule that starts all of them again. Only such a pod carries the
/// condition `AllContainersRestarting`.
pub fn may_restart_all(spec: &PodSpec) -> bool {
    spec.init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .flat_map(|container| container.restart_policy_rules.iter().flatten())
        .any(|rule| rule.action == RESTART_ALL)
}

/// The first rule that the exit code fits.
fn matching_rule(container: &Container, exit_code: i32) -> Option<&ContainerRestartRule> {
    container.restart_policy.as_ref()?;
    container.restart_policy_rules.iter().flatten().find(|rule| {
        rule.exit_codes.as_ref().is_some_and(|codes| {
            let listed = codes.values.iter().flatten().any(|code| *code == exit_code);
            match codes.operator.as_str() {
                "In" => listed,
                "NotIn" => !listed,
                _ => false,
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ContainerKind::{Init, Regular, Sidecar};
    use RestartDecision::{Restart, RestartAllContainers, Stay};
    use RestartPolicy::{Always, Never, OnFailure};

    fn container(json: serde_json::Value) -> Container {
        let mut json = json;
        json["name"] = "c".into();
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn policies() {
        let none = serde_json::json!({});
        let own = |policy: &str| serde_json::json!({"restartPolicy": policy});
        for (pod, spec, kind, on_zero, on_one) in [
            (Always, &none, Regular, Restart, Restart),
            (OnFailure, &none, Regular, Stay, Restart),
            (Never, &none, Regular, Stay, Stay),
            (Always, &none, Init, Stay, Restart),
            (OnFailure, &none, Init, Stay, Restart),
            (Never, &none, Init, Stay, Stay),
            (Never, &own("Always"), Sidecar, Restart, Restart),
            (Never, &own("Always"), Regular, Restart, Restart),
            (Never, &own("OnFailure"), Regular, Stay, Restart),
            (Always, &own("Never"), Regular, Stay, Stay),
            (Always, &own("Never"), Init, Stay, Stay),
            (Never, &own("OnFailure"), Init, Stay, Restart),
            (Always, &own("Sometimes"), Regular, Restart, Restart),
        ] {
            let c = container(spec.clone());
            assert_eq!(should_restart(pod, &c, kind, 0), on_zero, "{pod:?} {spec} {kind:?} 0");
            assert_eq!(should_restart(pod, &c, kind, 1), on_one, "{pod:?} {spec} {kind:?} 1");
        }
    }

    #[test]
    fn rules_come_first_and_in_their_order() {
        let rule = |action: &str, operator: &str, values: &[i32]| serde_json::json!({"action": action, "exitCodes": {"operator": operator, "values": values}});
        let with = |rules: &[serde_json::Value]| {
            container(serde_json::json!({"restartPolicy": "Never", "restartPolicyRules": rules}))
        };
        let c = with(&[rule("Restart", "In", &[42, 43])]);
        assert_eq!(should_restart(Never, &c, Regular, 42), Restart);
        assert_eq!(should_restart(Always, &c, Regular, 1), Stay);
        let c = with(&[rule("Restart", "NotIn", &[0, 1])]);
        assert_eq!(should_restart(Never, &c, Regular, 1), Stay);
        assert_eq!(should_restart(Never, &c, Regular, 2), Restart);
        let c = with(&[rule("RestartAllContainers", "In", &[7]), rule("Restart", "NotIn", &[0])]);
        assert_eq!(should_restart(Never, &c, Regular, 7), RestartAllContainers);
        assert_eq!(should_restart(Never, &c, Init, 7), RestartAllContainers);
        assert_eq!(should_restart(Never, &c, Regular, 8), Restart);
        assert_eq!(should_restart(Never, &c, Regular, 0), Stay);
        // The first that fits decides, even where its action is not known; so does none without codes.
        let c = with(&[rule("Explode", "In", &[7]), rule("Restart", "In", &[7])]);
        assert_eq!(should_restart(Never, &c, Regular, 7), Stay);
        let c = with(&[serde_json::json!({"action": "Restart"}), rule("Restart", "Near", &[7])]);
        assert_eq!(should_restart(Never, &c, Regular, 7), Stay);
        let c = with(&[rule("Restart", "In", &[0])]);
        assert_eq!(should_restart(Never, &c, Init, 0), Stay);
    }

    #[test]
    fn rules_without_an_own_policy_are_not_heard() {
        let c = container(serde_json::json!({"restartPolicyRules":
            [{"action": "Restart", "exitCodes": {"operator": "In", "values": [1]}}]}));
        assert_eq!(should_restart(Never, &c, Regular, 1), Stay);
    }

    #[test]
    fn pods_that_may_restart_all() {
        let spec = |action: &str| PodSpec {
            containers: vec![container(serde_json::json!({"restartPolicy": "Never", "restartPolicyRules":
                [{"action": action, "exitCodes": {"operator": "In", "values": [1]}}]}))],
            ..PodSpec::default()
        };
        assert!(may_restart_all(&spec("RestartAllContainers")));
        assert!(!may_restart_all(&spec("Restart")));
        assert!(!may_restart_all(&PodSpec::default()));
    }
}
