//! Whether a pod bears the node's taints: of these only `NoExecute` counts on the node itself, and not for static pods
//! (pkg/kubelet/lifecycle/predicate.go, component-helpers `scheduling/corev1/helpers.go`).

use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::{admission::AdmissionInput, status::PodFailure};
use crate::api::PodExt as _;

pub(super) const NO_EXECUTE: &str = "NoExecute";

/// Refuses a pod that would be evicted at once.
pub(super) fn check(input: &AdmissionInput<'_>) -> Result<(), PodFailure> {
    let taints = input.server_node.and_then(|node| node.spec.as_ref()).and_then(|spec| spec.taints.as_ref());
    let tolerations = input.pod.spec().tolerations.as_deref().unwrap_or_default();
    let borne = |taint: &Taint| tolerations.iter().any(|toleration| tolerates(toleration, taint));
    if input.pod.is_static()
        || taints.into_iter().flatten().all(|taint| taint.effect != NO_EXECUTE || borne(taint))
    {
        return Ok(());
    }
    Err(PodFailure {
        reason: "TaintToleration".to_owned(),
        message: "Predicate TaintToleration failed: node(s) had untolerated taint(s)".to_owned(),
    })
}

pub(super) fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let said = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    let value = || taint.value.as_deref().unwrap_or_default();
    let wanted = || toleration.value.as_deref().unwrap_or_default();
    let number = |text: &str| text.parse::<i64>().ok();
    said(&toleration.effect).is_none_or(|effect| effect == taint.effect)
        && said(&toleration.key).is_none_or(|key| key == taint.key)
        && match toleration.operator.as_deref() {
            None | Some("" | "Equal") => wanted() == value(),
            Some("Exists") => true,
            Some("Lt") => number(value()).zip(number(wanted())).is_some_and(|(value, bound)| value < bound),
            Some("Gt") => number(value()).zip(number(wanted())).is_some_and(|(value, bound)| value > bound),
            Some(_) => false,
        }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;
    use serde_json::json;

    use super::*;
    use crate::policy::{node::NodeSettings, testing::pod};

    #[test]
    fn only_no_execute_counts_and_a_toleration_helps() {
        let node = |taints: serde_json::Value| -> Node {
            serde_json::from_value(json!({ "metadata": {}, "spec": { "taints": taints } })).unwrap()
        };
        let refused = |node: &Node, tolerations: serde_json::Value| {
            let mut pod = pod(&["a"]);
            pod.metadata.annotations = None;
            pod.spec.as_mut().unwrap().tolerations = serde_json::from_value(tolerations).unwrap();
            let settings = NodeSettings::default();
            let input = AdmissionInput { pod: &pod, others: &[], node: &settings, server_node: Some(node) };
            check(&input).err().map(|failure| failure.reason)
        };
        let gone = node(json!([{ "key": "k", "value": "v", "effect": "NoExecute" }]));
        assert_eq!(refused(&gone, json!([])).as_deref(), Some("TaintToleration"));
        assert_eq!(refused(&gone, json!([{ "key": "k", "value": "w" }])).as_deref(), Some("TaintToleration"));
        assert_eq!(refused(&gone, json!([{ "key": "k", "value": "v" }])), None);
        assert_eq!(refused(&gone, json!([{ "operator": "Exists" }])), None);
        assert!(refused(&gone, json!([{ "operator": "Exists", "effect": "NoSchedule" }])).is_some());
        assert_eq!(refused(&node(json!([{ "key": "k", "effect": "NoSchedule" }])), json!([])), None);
    }
}
