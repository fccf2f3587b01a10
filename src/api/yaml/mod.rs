//! YAML and JSON documents as Kubernetes reads them, as a tree in which every value knows its place.
//!
//! Two readers need the same rules: that of manifests and that of the agent's configuration. Kubelet
//! turns YAML into JSON by the rules of YAML 1.1 (`yes` is a boolean) and then fills its types; those
//! types can tell neither where a value was written nor which key stood there twice. So a document
//! is read into this tree first. It is bounded in size, depth and in what aliases may unfold to: the
//! agent is root, and a small file must not grow into a large one.

mod error;
mod json;
mod node;
mod reader;
mod scalar;

pub use error::{Fault, YamlError};
pub use node::{Entry, Node, Value};
pub use scalar::integer;

/// What a document may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the document as it is written.
    pub bytes: usize,
    /// Values, once aliases are expanded.
    pub nodes: usize,
    /// Bytes of text, once aliases are expanded.
    pub expanded_bytes: usize,
}

/// Reads the one document of `bytes`.
///
/// Which of the two formats it is follows kubelet: what starts with `{` is JSON, all else YAML. JSON
/// goes to a JSON parser and not through YAML, which chokes on tabs and on escaped surrogate pairs.
///
/// # Errors
/// When it is too large, empty, not UTF-8, malformed, has duplicate keys, more than one document, or
/// unfolds to too much.
pub fn parse(bytes: &[u8], limits: Limits) -> Result<Node, YamlError> {
    if bytes.len() > limits.bytes {
        return Err(YamlError::TooLarge { limit: limits.bytes });
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    // Looked for first: UTF-16 is full of zero bytes, and the reason says more than "bad UTF-8".
    if let Some(offset) = bytes.iter().position(|b| *b == 0) {
        return Err(YamlError::Binary { reason: "a zero byte", offset });
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|e| YamlError::Binary { reason: "an invalid sequence", offset: e.valid_up_to() })?;
    if text.trim().is_empty() {
        return Err(YamlError::Empty);
    }
    if !text.trim_start().starts_with('{') {
        return reader::yaml(text, limits);
    }
    let mut document = json::json(text, limits.nodes)?;
    // The JSON parser tells no places. Nearly all JSON is YAML too, so that reader lends them.
    if let Ok(located) = reader::yaml(text, limits) {
        document.take_places(&located);
    }
    Ok(document)
}

#[cfg(test)]
mod tests;
