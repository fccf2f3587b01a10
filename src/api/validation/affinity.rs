//! Node affinity. That to other pods is the scheduler's business and is not looked at.

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

use super::{Problems, names};

/// The only field of a node that may be asked for.
const NODE_NAME: &str = "metadata.name";

pub(super) fn check(spec: &PodSpec, problems: &mut Problems) {
    let Some(affinity) = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref()) else { return };
    let path = "spec.affinity.nodeAffinity";
    if let Some(required) = &affinity.required_during_scheduling_ignored_during_execution {
        let path = format!("{path}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
        if required.node_selector_terms.is_empty() {
            problems.required(path.clone(), "must have at least one node selector term");
        }
        for (index, term) in required.node_selector_terms.iter().enumerate() {
            check_term(term, &format!("{path}[{index}]"), problems);
        }
    }
    let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
    for (index, preferred) in preferred.enumerate() {
        let path = format!("{path}.preferredDuringSchedulingIgnoredDuringExecution[{index}]");
        if !(1..=100).contains(&preferred.weight) {
            problems.invalid(format!("{path}.weight"), preferred.weight, "must be in the range 1-100");
        }
        check_term(&preferred.preference, &format!("{path}.preference"), problems);
    }
}

fn check_term(term: &NodeSelectorTerm, path: &str, problems: &mut Problems) {
    for (index, wanted) in term.match_expressions.iter().flatten().enumerate() {
        let path = format!("{path}.matchExpressions[{index}]");
        check_values(wanted, &path, problems);
        problems.name(format!("{path}.key"), &wanted.key, names::qualified_name);
    }
    for (index, wanted) in term.match_fields.iter().flatten().enumerate() {
        let path = format!("{path}.matchFields[{index}]");
        let values = wanted.values.as_ref().map_or(0, Vec::len);
        problems.one_of(format!("{path}.operator"), Some(&wanted.operator), &["In", "NotIn"]);
        if values != 1 {
            problems.required(
                format!("{path}.values"),
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            );
        }
        problems.one_of(format!("{path}.key"), Some(&wanted.key), &[NODE_NAME]);
    }
}

fn check_values(wanted: &NodeSelectorRequirement, path: &str, problems: &mut Problems) {
    let values = wanted.values.as_deref().unwrap_or_default();
    let path_of_values = format!("{path}.values");
    match wanted.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            problems.required(path_of_values, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => problems
            .forbidden(path_of_values, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"),
        "Gt" | "Lt" if values.len() != 1 => {
            problems
                .required(path_of_values, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => problems.invalid(format!("{path}.operator"), other, "not a valid selector operator"),
    }
}
