//! Manifests of static pods: bytes in, pods out, without a file or a clock.
//!
//! kubelet reads manifests leniently: an unknown field is dropped, a second document is not read, a
//! key given twice counts once. Each of these has kept people looking for a pod that did not do
//! what they wrote. Here all of them are errors that name the field and the line, because a field
//! that is not honoured must never be dropped in silence; that goes for fields of a Kubernetes
//! newer than [`API_VERSION`] too.

mod cautions;
mod de;
mod error;
pub mod fields;
mod identity;
mod runtime_class;
pub mod unsupported;

pub use cautions::without_prefix;
pub use error::{FieldProblem, ManifestError};
pub use identity::{Identity, StaticPod, make_static_pod};
pub use runtime_class::{MAX_RUNTIME_CLASS_BYTES, parse_runtime_class};

use k8s_openapi::api::core::v1::Pod;

use super::suggest::nearest;
use super::yaml::{self, Limits, Node, Value};

/// The most bytes that a manifest may have: kubelet's own limit of 10 MiB.
pub const MAX_MANIFEST_BYTES: usize = 10 << 20;
/// What a manifest may take. A pod has some hundred values.
const LIMITS: Limits = Limits { bytes: MAX_MANIFEST_BYTES, nodes: 1_000_000, expanded_bytes: 32 << 20 };
/// The release of the Kubernetes API whose fields are known.
pub const API_VERSION: &str = "1.36";

/// What a source may deliver in one document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One `v1` Pod: a file.
    Pod,
    /// A `v1` Pod or a `v1` PodList: a URL.
    PodOrList,
}

/// A pod as it was written, before any default.
#[derive(Clone, Debug, PartialEq)]
pub struct ParsedPod {
    /// The typed pod.
    pub pod: Pod,
    /// The document that it was read from, which knows lines and the canonical form.
    pub document: Node,
    /// Where the pod stands in its document: empty, or `items[3]`.
    pub path: String,
}

impl ParsedPod {
    /// Puts the pod's place in front of the paths of problems, and finds their lines.
    pub fn locate(&self, problems: Vec<FieldProblem>) -> Vec<FieldProblem> {
        let prefix = if self.path.is_empty() { String::new() } else { format!("{}.", self.path) };
        problems
            .into_iter()
            .map(|p| FieldProblem {
                line: p.line.or_else(|| self.document.line_of(&p.path)),
                path: format!("{prefix}{}", p.path),
                detail: p.detail,
            })
            .collect()
    }
}

/// Reads one document of at most [`MAX_MANIFEST_BYTES`].
///
/// What starts with `{` is read as JSON, all else as YAML, as kubelet does. An empty list gives no
/// pods; it is the way for a URL to say that there are none.
///
/// # Errors
/// A [`ManifestError`]: too large, empty, binary, malformed, more than one document, a duplicate
/// key, another kind than `shape` allows, an unknown field, a wrong type.
pub fn parse(bytes: &[u8], shape: Shape) -> Result<Vec<ParsedPod>, ManifestError> {
    let root = yaml::parse(bytes, LIMITS)?;
    if !matches!(root.value, Value::Map(_)) {
        return Err(ManifestError::field(
            "",
            line(&root),
            format!("expected a v1 Pod, found {}", root.kind()),
        ));
    }
    let kind = root.get("kind").and_then(|e| e.value.as_str());
    if shape == Shape::PodOrList && kind == Some("PodList") {
        return parse_list(root);
    }
    check_kind(&root, shape, true)?;
    let pod = de::from_node(&root, "")?;
    Ok(vec![ParsedPod { pod, document: root, path: String::new() }])
}

fn line(node: &Node) -> Option<u32> {
    (node.line > 0).then_some(node.line)
}

/// Says which kind it is before the fields are looked at: a Deployment has many unknown ones.
fn check_kind(node: &Node, shape: Shape, required: bool) -> Result<(), ManifestError> {
    let wanted = match shape {
        Shape::Pod => "Pod",
        Shape::PodOrList => "Pod or PodList",
    };
    let mut problems = Vec::new();
    for (field, allowed, wanted) in [("apiVersion", "v1", "v1"), ("kind", "Pod", wanted)] {
        let detail = match node.get(field) {
            None if !required => continue,
            None => format!("Required value: must be {wanted}"),
            Some(entry) => match entry.value.as_str() {
                Some(found) if found == allowed => continue,
                Some(found) => format!("Unsupported value: \"{found}\": must be {wanted}"),
                None => format!("expected a string, found {}: must be {wanted}", entry.value.kind()),
            },
        };
        problems.push(FieldProblem { path: field.to_owned(), line: node.line_of(field), detail });
    }
    if problems.is_empty() { Ok(()) } else { Err(ManifestError::Fields(problems)) }
}

fn parse_list(root: Node) -> Result<Vec<ParsedPod>, ManifestError> {
    let Value::Map(entries) = root.value else { return Err(ManifestError::Empty) };
    let mut problems = Vec::new();
    let mut items = Vec::new();
    let mut version_seen = false;
    for entry in entries {
        let at = (entry.line > 0).then_some(entry.line);
        match (entry.key.as_str(), entry.value.value) {
            ("apiVersion", Value::Str(version)) if version == "v1" => version_seen = true,
            ("kind" | "metadata", _) | ("items", Value::Null) => {}
            ("items", Value::Seq(nodes)) => items = nodes,
            ("apiVersion" | "items", _) => {
                problems.push(FieldProblem {
                    path: entry.key,
                    line: at,
                    detail: "Invalid value: a PodList has apiVersion v1 and a list of items".to_owned(),
                });
                version_seen = true;
            }
            (key, _) => {
                let hint = nearest(key, ["apiVersion", "kind", "metadata", "items"])
                    .map(|near| format!(", did you mean \"{near}\"?"))
                    .unwrap_or_default();
                problems.push(FieldProblem {
                    path: entry.key,
                    line: at,
                    detail: format!("unknown field{hint}"),
                });
            }
        }
    }
    if !version_seen {
        problems.push(FieldProblem::new("apiVersion", "Required value: must be v1"));
    }
    let mut pods = Vec::new();
    for (index, document) in items.into_iter().enumerate() {
        let path = format!("items[{index}]");
        // The items of a list that an API server gives do not repeat their kind.
        let read = check_kind(&document, Shape::Pod, false).and_then(|()| de::from_node(&document, &path));
        match read {
            Ok(pod) => pods.push(ParsedPod { pod, document, path }),
            Err(ManifestError::Fields(found)) => problems.extend(found),
            Err(other) => return Err(other),
        }
    }
    if problems.is_empty() { Ok(pods) } else { Err(ManifestError::Fields(problems)) }
}

#[cfg(test)]
mod tests;
