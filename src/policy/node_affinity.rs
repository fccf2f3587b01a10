//! Whether the node is one that the pod says it may run on: its node selector and its required node affinity,
//! against the labels that a kubelet without an API server has of its node
//! (pkg/kubelet/kubelet_node_status.go, component-helpers `scheduling/corev1/nodeaffinity`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod};

use super::{admission::AdmissionInput, status::PodFailure};
use crate::api::PodExt as _;

/// The label with the node's system; a pod with the same label of another value is refused.
const OS: &str = "kubernetes.io/os";
const SYSTEM: &str = "linux";

/// A processor as Go calls it, by what Rust calls it.
pub(super) fn go_arch(processor: &str) -> &str {
    match processor {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        other => other,
    }
}

/// The labels of a node: of its host name, its system and its processor (as Rust calls it), and those
/// configured over them.
pub fn node_labels(
    host_name: &str,
    processor: &str,
    configured: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let arch = go_arch(processor);
    let own = [("kubernetes.io/hostname", host_name), (OS, SYSTEM), ("kubernetes.io/arch", arch)];
    let mut labels: BTreeMap<_, _> = own.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    labels.extend(configured.clone());
    labels
}

/// Refuses a pod that is labelled as one of another system.
pub(super) fn admit_system(input: &AdmissionInput<'_>) -> Result<(), PodFailure> {
    let labelled = input.pod.metadata.labels.as_ref().and_then(|labels| labels.get(OS));
    if labelled.is_some_and(|system| system != SYSTEM) {
        return Err(PodFailure {
            reason: "PodOSSelectorNodeLabelDoesNotMatch".to_owned(),
            message: format!("Failed to admit pod as the `{OS}` label doesn't match node label"),
        });
    }
    Ok(())
}

/// Refuses a pod that may not run on this node.
pub(super) fn check(input: &AdmissionInput<'_>) -> Result<(), PodFailure> {
    if matches(input.pod, &input.node.name, input.labels()) {
        return Ok(());
    }
    Err(PodFailure {
        reason: "NodeAffinity".to_owned(),
        message: "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"
            .to_owned(),
    })
}

fn matches(pod: &Pod, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let spec = pod.spec();
    let selected =
        spec.node_selector.iter().flatten().all(|(key, value)| labels.get(key).is_some_and(|l| l == value));
    let required = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = required.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected
        && required.is_none_or(|required| {
            required.node_selector_terms.iter().any(|term| term_matches(term, name, labels))
        })
}

/// A term that says nothing fits no node.
fn term_matches(term: &NodeSelectorTerm, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    (!expressions.is_empty() || !fields.is_empty())
        && expressions.iter().all(|wanted| label_matches(wanted, labels).unwrap_or(false))
        && fields.iter().all(|wanted| field_matches(wanted, name).unwrap_or(false))
}

/// `None` where the requirement makes no sense; its term fits no node then.
fn label_matches(wanted: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> Option<bool> {
    let values = wanted.values.as_deref().unwrap_or_default();
    let label = labels.get(&wanted.key);
    let one_of = || label.is_some_and(|label| values.contains(label));
    let number = |text: &str| text.parse::<i64>().ok();
    match wanted.operator.as_str() {
        "In" if !values.is_empty() => Some(one_of()),
        "NotIn" if !values.is_empty() => Some(!one_of()),
        "Exists" if values.is_empty() => Some(label.is_some()),
        "DoesNotExist" if values.is_empty() => Some(label.is_none()),
        operator @ ("Gt" | "Lt") => {
            let [bound] = values else { return None };
            let bound = number(bound)?;
            let Some(label) = label.and_then(|label| number(label)) else { return Some(false) };
            Some(if operator == "Gt" { label > bound } else { label < bound })
        }
        _ => None,
    }
}

/// The only field of a node that can be asked for is its name.
fn field_matches(wanted: &NodeSelectorRequirement, name: &str) -> Option<bool> {
    let [value] = wanted.values.as_deref().unwrap_or_default() else { return None };
    let name = if wanted.key == "metadata.name" { name } else { "" };
    match wanted.operator.as_str() {
        "In" => Some(value == name),
        "NotIn" => Some(value != name),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::policy::{admission::admit, node::NodeSettings, testing};

    fn taken(spec: &Value) -> bool {
        let mut pod = testing::pod(&["a"]);
        let mut all = serde_json::to_value(pod.spec()).unwrap();
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        pod.spec = Some(serde_json::from_value(all).unwrap());
        let configured = [("zone", "a"), ("size", "8"), ("kubernetes.io/arch", "mine")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let node =
            NodeSettings { labels: node_labels("host1", "x86_64", &configured.into()), ..testing::node() };
        let verdict = admit(&AdmissionInput { pod: &pod, others: &[], node: &node, server_node: None });
        if let Err(refused) = &verdict {
            assert_eq!(refused.reason, "NodeAffinity");
        }
        verdict.is_ok()
    }

    fn with_terms(terms: &Value) -> bool {
        taken(&json!({"affinity": {"nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms},
        }}}))
    }

    #[test]
    fn the_processor_is_called_as_go_does() {
        for (processor, expected) in [("x86_64", "amd64"), ("aarch64", "arm64"), ("s390x", "s390x")] {
            let labels = node_labels("host1", processor, &BTreeMap::new());
            assert_eq!(labels["kubernetes.io/arch"], expected);
            assert_eq!(labels.len(), 3);
        }
    }

    #[test]
    fn every_label_of_the_selector_must_be_the_nodes() {
        for (selector, fits) in [
            (json!({}), true),
            (json!({"kubernetes.io/os": "linux"}), true),
            (json!({"kubernetes.io/os": "plan9"}), false),
            (json!({"kubernetes.io/hostname": "host1", "zone": "a"}), true),
            (json!({"kubernetes.io/hostname": "host1", "zone": "b"}), false),
            (json!({"kubernetes.io/arch": "mine"}), true),
            (json!({"beta.kubernetes.io/os": "linux"}), false),
            (json!({"node-role.kubernetes.io/control-plane": ""}), false),
        ] {
            assert_eq!(taken(&json!({"nodeSelector": selector})), fits, "{selector}");
        }
    }

    #[test]
    fn one_term_must_fit_and_all_of_it() {
        let expressions = |list: Value| with_terms(&json!([{"matchExpressions": list}]));
        for (key, operator, values, fits) in [
            ("zone", "In", json!(["b", "a"]), true),
            ("zone", "In", json!(["b"]), false),
            ("none", "In", json!(["a"]), false),
            ("zone", "In", json!([]), false),
            ("zone", "NotIn", json!(["b"]), true),
            ("zone", "NotIn", json!(["a", "b"]), false),
            ("none", "NotIn", json!(["a"]), true),
            ("zone", "Exists", json!([]), true),
            ("none", "Exists", json!([]), false),
            ("zone", "Exists", json!(["a"]), false),
            ("none", "DoesNotExist", json!([]), true),
            ("zone", "DoesNotExist", json!([]), false),
            ("size", "Gt", json!(["7"]), true),
            ("size", "Gt", json!(["8"]), false),
            ("size", "Lt", json!(["9"]), true),
            ("size", "Lt", json!(["8"]), false),
            ("size", "Lt", json!(["9", "10"]), false),
            ("size", "Gt", json!(["x"]), false),
            ("zone", "Gt", json!(["1"]), false),
            ("none", "Lt", json!(["1"]), false),
            ("zone", "Near", json!(["a"]), false),
        ] {
            let asked = json!([{"key": key, "operator": operator, "values": values}]);
            assert_eq!(expressions(asked), fits, "{key} {operator} {values}");
        }
        let zone = |value: &str| json!({"key": "zone", "operator": "In", "values": [value]});
        let big = json!({"key": "size", "operator": "Gt", "values": ["100"]});
        assert!(!expressions(json!([zone("a"), big])));
        assert!(with_terms(&json!([{"matchExpressions": [big]}, {"matchExpressions": [zone("a")]}])));
        for nothing in [json!([]), json!([{}])] {
            assert!(!with_terms(&nothing), "{nothing}");
        }
    }

    #[test]
    fn the_nodes_name_is_a_field() {
        let fields = |operator: &str, key: &str, values: &[&str]| {
            with_terms(&json!([{"matchFields": [{"key": key, "operator": operator, "values": values}]}]))
        };
        assert!(fields("In", "metadata.name", &["node1"]));
        assert!(!fields("In", "metadata.name", &["node2"]));
        assert!(!fields("In", "metadata.name", &["node1", "node2"]));
        assert!(fields("NotIn", "metadata.name", &["node2"]));
        assert!(!fields("NotIn", "metadata.name", &["node1"]));
        assert!(!fields("In", "metadata.uid", &["node1"]));
        assert!(!fields("Exists", "metadata.name", &[]));
    }

    #[test]
    fn preferences_and_other_affinities_refuse_nothing() {
        let term = json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]});
        let apart =
            json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"a": "b"}}});
        assert!(taken(&json!({"affinity": {
            "nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": term}]},
            "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]},
        }})));
    }

    #[test]
    fn a_pod_labelled_for_another_system_is_refused() {
        let verdict = |system: &str| {
            let mut pod = testing::pod(&["a"]);
            pod.metadata.labels = Some([(OS.to_owned(), system.to_owned())].into());
            admit(&AdmissionInput { pod: &pod, others: &[], node: &testing::node(), server_node: None })
                .map(|_| ())
                .map_err(|f| f.reason)
        };
        assert_eq!(verdict("linux"), Ok(()));
        assert_eq!(verdict("windows"), Err("PodOSSelectorNodeLabelDoesNotMatch".to_owned()));
    }
}
