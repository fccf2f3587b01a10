//! Bytes to [`Node`]: YAML or JSON, bounded in size, depth and expansion.
//!
//! Which of the two it is follows kubelet: what starts with `{` is JSON, all else YAML. JSON goes
//! to a JSON parser and not through YAML, which chokes on tabs and on escaped surrogate pairs.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::error::ManifestError;
use super::node::{Entry, Node, Value};
use super::scalar;

/// The most nodes that a document may unfold to. A pod has some hundred.
pub(super) const MAX_NODES: usize = 1_000_000;
/// The most bytes of text that a document may unfold to; the file itself has at most 10 MiB.
pub(super) const MAX_EXPANDED_BYTES: usize = 32 << 20;
/// How deep maps and lists may nest. The Kubernetes API needs about 20.
const MAX_DEPTH: usize = 100;

/// Reads a document of at most `limit` bytes.
///
/// # Errors
/// When it is too large, empty, not UTF-8, malformed, has duplicate keys, more than one document,
/// or unfolds to too much.
pub(super) fn parse(bytes: &[u8], limit: usize) -> Result<Node, ManifestError> {
    if bytes.len() > limit {
        return Err(ManifestError::TooLarge { limit });
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    // Looked for first: UTF-16 is full of zero bytes, and the reason says more than "bad UTF-8".
    if let Some(offset) = bytes.iter().position(|b| *b == 0) {
        return Err(ManifestError::Binary { reason: "a zero byte", offset });
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|e| ManifestError::Binary { reason: "an invalid sequence", offset: e.valid_up_to() })?;
    if text.trim().is_empty() {
        return Err(ManifestError::Empty);
    }
    if text.trim_start().starts_with('{') { json(text) } else { yaml(text) }
}

/// What is left of the room that a document may take.
struct Budget {
    nodes: usize,
    bytes: usize,
}

impl Budget {
    fn new() -> Self {
        Self { nodes: MAX_NODES, bytes: MAX_EXPANDED_BYTES }
    }

    fn take(&mut self, nodes: usize, bytes: usize) -> Result<(), ManifestError> {
        self.nodes = self
            .nodes
            .checked_sub(nodes)
            .ok_or(ManifestError::TooComplex { what: "nodes", limit: MAX_NODES })?;
        self.bytes = self
            .bytes
            .checked_sub(bytes)
            .ok_or(ManifestError::TooComplex { what: "bytes", limit: MAX_EXPANDED_BYTES })?;
        Ok(())
    }

    /// Charges for a copy of a whole subtree before it is made.
    fn take_copy(&mut self, node: &Node) -> Result<(), ManifestError> {
        match &node.value {
            Value::Seq(items) => {
                self.take(1, 0)?;
                items.iter().try_for_each(|n| self.take_copy(n))
            }
            Value::Map(entries) => {
                self.take(1, 0)?;
                entries.iter().try_for_each(|e| {
                    self.take(1, e.key.len())?;
                    self.take_copy(&e.value)
                })
            }
            Value::Str(s) => self.take(1, s.len()),
            _ => self.take(1, 0),
        }
    }
}

fn yaml(text: &str) -> Result<Node, ManifestError> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    let mut reader = YamlReader {
        parser: Parser::new_from_str_with_options(text, options),
        anchors: HashMap::new(),
        budget: Budget::new(),
    };
    let mut found: Option<Node> = None;
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::DocumentStart(..) => {
                let start = line_of(span);
                let (event, span) = reader.next()?;
                let node = reader.node(event, span, &mut Trail::default())?;
                // Many generators end with a `---` and nothing behind it.
                if node.value != Value::Null {
                    if found.is_some() {
                        return Err(ManifestError::MultipleDocuments { line: start });
                    }
                    found = Some(node);
                }
                // Anchors end with their document.
                reader.anchors.clear();
            }
            Event::StreamEnd => return found.ok_or(ManifestError::Empty),
            _ => {}
        }
    }
}

/// Where in the document the reader is, for the path in an error.
#[derive(Default)]
struct Trail(Vec<String>);

impl Trail {
    fn path(&self) -> String {
        let mut path = String::new();
        for step in &self.0 {
            if !path.is_empty() && !step.starts_with('[') {
                path.push('.');
            }
            path.push_str(step);
        }
        path
    }

    fn error(&self, line: u32, detail: impl Into<String>) -> ManifestError {
        ManifestError::field(self.path(), (line > 0).then_some(line), detail)
    }
}

struct YamlReader<'i> {
    parser: Parser<'i, StrInput<'i>>,
    anchors: HashMap<usize, Node>,
    budget: Budget,
}

impl<'i> YamlReader<'i> {
    fn next(&mut self) -> Result<(Event<'i>, Span), ManifestError> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(syntax(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    /// Reads the node that `event` opens.
    fn node(&mut self, event: Event<'i>, span: Span, trail: &mut Trail) -> Result<Node, ManifestError> {
        let line = line_of(span);
        let (node, anchor) = match event {
            Event::Alias(id) => {
                let Some(target) = self.anchors.get(&id) else {
                    return Err(trail.error(line, "YAML alias refers to the node that it stands in"));
                };
                self.budget.take_copy(target)?;
                return Ok(Node { line, value: target.value.clone() });
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.budget.take(1, text.len())?;
                let value = scalar_value(&text, style, tag.as_deref()).map_err(|e| trail.error(line, e))?;
                (Node { line, value }, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.budget.take(1, 0)?;
                known_tag(tag.as_deref(), "seq").map_err(|e| trail.error(line, e))?;
                (Node { line, value: Value::Seq(self.items(trail)?) }, anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.budget.take(1, 0)?;
                known_tag(tag.as_deref(), "map").map_err(|e| trail.error(line, e))?;
                (Node { line, value: Value::Map(self.entries(trail)?) }, anchor)
            }
            // An event that opens no node here would be a parser bug; it must not become a pod.
            other => return Err(trail.error(line, format!("unexpected YAML event {other:?}"))),
        };
        if anchor > 0 {
            self.budget.take_copy(&node)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn items(&mut self, trail: &mut Trail) -> Result<Vec<Node>, ManifestError> {
        let mut items = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::SequenceEnd) {
                return Ok(items);
            }
            trail.0.push(format!("[{}]", items.len()));
            items.push(self.node(event, span, trail)?);
            trail.0.pop();
        }
    }

    fn entries(&mut self, trail: &mut Trail) -> Result<Vec<Entry>, ManifestError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged: Vec<Entry> = Vec::new();
        let mut lines: HashMap<String, u32> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let line = line_of(span);
            let merge = matches!(&event, Event::Scalar(t, ScalarStyle::Plain, _, _) if t == "<<");
            let key = key_text(self.node(event, span, trail)?).map_err(|e| trail.error(line, e))?;
            if let Some(first) = lines.insert(key.clone(), line) {
                trail.0.push(key);
                return Err(trail.error(line, format!("duplicate key, already set on line {first}")));
            }
            trail.0.push(key.clone());
            let (event, span) = self.next()?;
            let value = self.node(event, span, trail)?;
            if merge {
                merge_into(&mut merged, value).map_err(|e| trail.error(line, e))?;
            } else {
                entries.push(Entry { key, line, value });
            }
            trail.0.pop();
        }
        // What is written in the map itself wins over what is merged into it; of several merged
        // maps the first wins.
        let mut seen: HashSet<String> = entries.iter().map(|e| e.key.clone()).collect();
        entries.extend(merged.into_iter().filter(|e| seen.insert(e.key.clone())));
        Ok(entries)
    }
}

fn merge_into(merged: &mut Vec<Entry>, value: Node) -> Result<(), &'static str> {
    match value.value {
        Value::Map(entries) => merged.extend(entries),
        Value::Seq(items) => {
            for item in items {
                let Value::Map(entries) = item.value else { return Err("merges something that is no map") };
                merged.extend(entries);
            }
        }
        _ => return Err("merges something that is no map"),
    }
    Ok(())
}

/// The text of a key; numbers and booleans become text, as in sigs.k8s.io/yaml.
fn key_text(node: Node) -> Result<String, &'static str> {
    match node.value {
        Value::Str(text) => Ok(text),
        Value::Int(i) => Ok(i.to_string()),
        Value::Float(f) => Ok(f.to_string()),
        Value::Bool(b) => Ok(b.to_string()),
        Value::Null => Err("a key is empty"),
        Value::Seq(_) | Value::Map(_) => Err("a key is a list or a map"),
    }
}

fn scalar_value(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let resolved = |text: &str| scalar::resolve(text).map_err(str::to_owned);
    let Some(tag) = tag else {
        return match style {
            ScalarStyle::Plain => resolved(text),
            _ => Ok(Value::Str(text.to_owned())),
        };
    };
    match tag.core_suffix() {
        // The non-specific tag `!` means text too.
        Some("str") => Ok(Value::Str(text.to_owned())),
        Some(kind @ ("int" | "float" | "bool" | "null")) => {
            let value = resolved(text)?;
            let fits = matches!(
                (kind, &value),
                ("int", Value::Int(_))
                    | ("float", Value::Float(_) | Value::Int(_))
                    | ("bool", Value::Bool(_))
                    | ("null", Value::Null)
            );
            if fits { Ok(value) } else { Err(format!("the tag !!{kind} does not fit this value")) }
        }
        _ if tag.original() == "!" => Ok(Value::Str(text.to_owned())),
        _ => Err(format!("the YAML tag {} is not supported", tag.original())),
    }
}

fn known_tag(tag: Option<&Tag>, expected: &str) -> Result<(), String> {
    match tag {
        None => Ok(()),
        Some(tag) if tag.core_suffix() == Some(expected) || tag.original() == "!" => Ok(()),
        Some(tag) => Err(format!("the YAML tag {} is not supported", tag.original())),
    }
}

fn line_of(span: Span) -> u32 {
    u32::try_from(span.start.line()).unwrap_or(u32::MAX)
}

fn syntax(error: &ScanError) -> ManifestError {
    ManifestError::Syntax {
        format: "YAML",
        line: error.marker().line(),
        column: error.marker().col() + 1,
        message: error.info(),
    }
}

fn json(text: &str) -> Result<Node, ManifestError> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let room = Cell::new(MAX_NODES);
    let node = JsonNode(&room).deserialize(&mut reader).and_then(|node| reader.end().map(|()| node));
    node.map_err(|error| {
        if room.get() == 0 {
            return ManifestError::TooComplex { what: "nodes", limit: MAX_NODES };
        }
        let message = error.to_string();
        // serde_json repeats the place in its message.
        let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
        ManifestError::Syntax { format: "JSON", line: error.line(), column: error.column(), message }
    })
}

/// Builds a [`Node`], refusing duplicate keys; holds the number of nodes that may still come.
#[derive(Clone, Copy)]
struct JsonNode<'b>(&'b Cell<usize>);

impl<'de> DeserializeSeed<'de> for JsonNode<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        self.0.set(self.0.get().saturating_sub(1));
        if self.0.get() == 0 {
            return Err(serde::de::Error::custom("too many nodes"));
        }
        deserializer.deserialize_any(self).map(|value| Node { line: 0, value })
    }
}

impl<'de> Visitor<'de> for JsonNode<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Int(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Int(v.into()))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(scalar::number(v))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::Str(v.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(serde::de::Error::custom(format_args!("duplicate key \"{key}\"")));
            }
            let value = map.next_value_seed(self)?;
            entries.push(Entry { key, line: 0, value });
        }
        Ok(Value::Map(entries))
    }
}
