//! YAML to [`Node`], under the bounds of [`Limits`].

use std::collections::{HashMap, HashSet};

use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::Limits;
use super::error::{Fault, YamlError};
use super::node::{Entry, Node, Value};
use super::scalar;

/// How deep maps and lists may nest. The Kubernetes API needs about 20.
const MAX_DEPTH: usize = 100;

/// Line and column, each counted from 1.
type Place = (u32, u32);

/// What is left of the room that a document may take.
struct Budget {
    limits: Limits,
    nodes: usize,
    bytes: usize,
}

impl Budget {
    fn new(limits: Limits) -> Self {
        Self { limits, nodes: limits.nodes, bytes: limits.expanded_bytes }
    }

    fn take(&mut self, nodes: usize, bytes: usize) -> Result<(), YamlError> {
        self.nodes = self
            .nodes
            .checked_sub(nodes)
            .ok_or(YamlError::TooComplex { what: "values", limit: self.limits.nodes })?;
        self.bytes = self
            .bytes
            .checked_sub(bytes)
            .ok_or(YamlError::TooComplex { what: "bytes", limit: self.limits.expanded_bytes })?;
        Ok(())
    }

    /// Charges for a copy of a whole subtree before it is made.
    fn take_copy(&mut self, node: &Node) -> Result<(), YamlError> {
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

/// Reads a YAML document.
pub(super) fn yaml(text: &str, limits: Limits) -> Result<Node, YamlError> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    let mut reader = YamlReader {
        parser: Parser::new_from_str_with_options(text, options),
        anchors: HashMap::new(),
        budget: Budget::new(limits),
        duplicates: Vec::new(),
    };
    let mut found: Option<Node> = None;
    loop {
        let (event, span) = reader.next()?;
        match event {
            Event::DocumentStart(..) => {
                let (start, _) = place_of(span);
                let (event, span) = reader.next()?;
                let node = reader.node(event, span, &mut Trail::default())?;
                // Many generators end with a `---` and nothing behind it.
                if node.value != Value::Null {
                    if found.is_some() {
                        return Err(YamlError::MultipleDocuments { line: start });
                    }
                    found = Some(node);
                }
                // Anchors end with their document.
                reader.anchors.clear();
            }
            Event::StreamEnd if !reader.duplicates.is_empty() => {
                return Err(YamlError::Faults(reader.duplicates));
            }
            Event::StreamEnd => return found.ok_or(YamlError::Empty),
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

    fn fault(&self, (line, column): Place, detail: impl Into<String>) -> Fault {
        Fault { path: self.path(), line, column, detail: detail.into() }
    }

    fn error(&self, place: Place, detail: impl Into<String>) -> YamlError {
        YamlError::Faults(vec![self.fault(place, detail)])
    }
}

struct YamlReader<'i> {
    parser: Parser<'i, StrInput<'i>>,
    anchors: HashMap<usize, Node>,
    budget: Budget,
    /// Keys that were there before; reading goes on, so that all are named at once.
    duplicates: Vec<Fault>,
}

impl<'i> YamlReader<'i> {
    fn next(&mut self) -> Result<(Event<'i>, Span), YamlError> {
        match self.parser.next_event() {
            Some(Ok(next)) => Ok(next),
            Some(Err(error)) => Err(syntax(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    /// Reads the node that `event` opens.
    fn node(&mut self, event: Event<'i>, span: Span, trail: &mut Trail) -> Result<Node, YamlError> {
        let place = place_of(span);
        let (node, anchor) = match event {
            Event::Alias(id) => {
                let Some(target) = self.anchors.get(&id) else {
                    return Err(trail.error(place, "YAML alias refers to the node that it stands in"));
                };
                self.budget.take_copy(target)?;
                return Ok(Node::at_place(place, target.value.clone()));
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.budget.take(1, text.len())?;
                let value = scalar_value(&text, style, tag.as_deref()).map_err(|e| trail.error(place, e))?;
                (Node::at_place(place, value), anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.budget.take(1, 0)?;
                known_tag(tag.as_deref(), "seq").map_err(|e| trail.error(place, e))?;
                (Node::at_place(place, Value::Seq(self.items(trail)?)), anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.budget.take(1, 0)?;
                known_tag(tag.as_deref(), "map").map_err(|e| trail.error(place, e))?;
                (Node::at_place(place, Value::Map(self.entries(trail)?)), anchor)
            }
            // An event that opens no node here would be a parser bug; it must not become a pod.
            other => return Err(trail.error(place, format!("unexpected YAML event {other:?}"))),
        };
        if anchor > 0 {
            self.budget.take_copy(&node)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn items(&mut self, trail: &mut Trail) -> Result<Vec<Node>, YamlError> {
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

    fn entries(&mut self, trail: &mut Trail) -> Result<Vec<Entry>, YamlError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged: Vec<Entry> = Vec::new();
        let mut lines: HashMap<String, u32> = HashMap::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let place = place_of(span);
            let merge = matches!(&event, Event::Scalar(t, ScalarStyle::Plain, _, _) if t == "<<");
            let key = key_text(self.node(event, span, trail)?).map_err(|e| trail.error(place, e))?;
            trail.0.push(key.clone());
            if let Some(first) = lines.get(&key) {
                let detail = format!("duplicate key, already set on line {first}");
                self.duplicates.push(trail.fault(place, detail));
            } else {
                lines.insert(key.clone(), place.0);
            }
            let (event, span) = self.next()?;
            let value = self.node(event, span, trail)?;
            if merge {
                merge_into(&mut merged, value).map_err(|e| trail.error(place, e))?;
            } else {
                entries.push(Entry { key, line: place.0, column: place.1, value });
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

fn place_of(span: Span) -> Place {
    let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    (number(span.start.line()), number(span.start.col().saturating_add(1)))
}

fn syntax(error: &ScanError) -> YamlError {
    YamlError::Syntax {
        format: "YAML",
        line: error.marker().line(),
        column: error.marker().col() + 1,
        message: error.info(),
    }
}
