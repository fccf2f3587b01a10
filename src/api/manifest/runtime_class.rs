//! Manifests of runtime classes: what an API server would hold and a standalone node has in a folder.

use k8s_openapi::api::node::v1::RuntimeClass;

use super::{FieldProblem, ManifestError, de};
use crate::api::quantity::Quantity;
use crate::api::validation::names::{dns1123_label, dns1123_subdomain};
use crate::api::yaml::{self, Limits};

/// The most bytes that the manifest of a runtime class may have.
pub const MAX_RUNTIME_CLASS_BYTES: usize = 1 << 20;
const LIMITS: Limits = Limits { bytes: MAX_RUNTIME_CLASS_BYTES, nodes: 10_000, expanded_bytes: 4 << 20 };

/// Reads one document with a `node.k8s.io/v1` RuntimeClass, strictly, and checks it as an API server does.
/// What it says of scheduling has no meaning on a node.
///
/// # Errors
/// As [`super::parse`], and every field that is not valid.
pub fn parse_runtime_class(bytes: &[u8]) -> Result<RuntimeClass, ManifestError> {
    let root = yaml::parse(bytes, LIMITS)?;
    let mut problems = Vec::new();
    for (field, wanted) in [("apiVersion", "node.k8s.io/v1"), ("kind", "RuntimeClass")] {
        let found = root.get(field).and_then(|entry| entry.value.as_str());
        if found != Some(wanted) {
            let detail = match found {
                Some(found) => format!("Unsupported value: \"{found}\": must be {wanted}"),
                None => format!("Required value: must be {wanted}"),
            };
            problems.push(FieldProblem::new(field, detail));
        }
    }
    if problems.is_empty() {
        let class = de::from_node(&root, "")?;
        problems = check(&class);
        if problems.is_empty() {
            return Ok(class);
        }
    }
    for problem in &mut problems {
        problem.line = root.line_of(&problem.path);
    }
    Err(ManifestError::Fields(problems))
}

fn check(class: &RuntimeClass) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    let mut add = |path: &str, value: &str, why: &str| {
        problems.push(FieldProblem::new(path, format!("Invalid value: {value:?}: {why}")));
    };
    let name = class.metadata.name.as_deref().unwrap_or_default();
    if let Some(why) = dns1123_subdomain(name) {
        add("metadata.name", name, why);
    }
    if let Some(why) = dns1123_label(&class.handler) {
        add("handler", &class.handler, why);
    }
    let fixed = class.overhead.as_ref().and_then(|overhead| overhead.pod_fixed.as_ref());
    for (resource, amount) in fixed.into_iter().flatten() {
        if Quantity::parse(&amount.0).is_ok_and(|amount| amount >= Quantity::ZERO) {
            continue;
        }
        add(&format!("overhead.podFixed.{resource}"), &amount.0, "is not a quantity of zero or more");
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLASS: &str =
        "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: light}\nhandler: crun\n";

    #[test]
    fn a_class_is_read() {
        let text = format!(
            "{CLASS}overhead: {{podFixed: {{cpu: 250m, memory: 32Mi}}}}\nscheduling: {{nodeSelector: {{a: b}}}}\n"
        );
        let class = parse_runtime_class(text.as_bytes()).unwrap();
        assert_eq!((class.metadata.name.as_deref(), class.handler.as_str()), (Some("light"), "crun"));
        assert_eq!(class.overhead.unwrap().pod_fixed.unwrap()["memory"].0, "32Mi");
        let json = r#"{"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "a"}, "handler": "b"}"#;
        assert_eq!(parse_runtime_class(json.as_bytes()).unwrap().handler, "b");
    }

    #[test]
    fn what_is_wrong_is_told_by_field() {
        for (text, told) in [
            (CLASS.replace("RuntimeClass", "Pod"), "kind: Unsupported value"),
            (CLASS.replace("node.k8s.io/v1", "node.k8s.io/v1beta1"), "apiVersion: Unsupported value"),
            (CLASS.replace("crun", "Crun"), "handler: Invalid value"),
            (CLASS.replace("handler: crun", ""), "handler"),
            (CLASS.replace("light", "a_b"), "metadata.name: Invalid value"),
            (format!("{CLASS}handlers: x\n"), "handlers: unknown field"),
            (format!("{CLASS}overhead: {{podFixed: {{cpu: -1}}}}\n"), "overhead.podFixed.cpu"),
            (format!("{CLASS}---\n{CLASS}"), "second YAML document"),
            ("- a\n".to_owned(), "kind: Required value"),
        ] {
            let error = parse_runtime_class(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(told), "{told}: {error}");
        }
    }
}
