//! A YAML or JSON document as a tree in which every value knows its place.
//!
//! Kubelet turns YAML into JSON by the rules of YAML 1.1 (so `yes` is a boolean) and then decodes
//! strictly. This reader does the same, but keeps line and column of each value and reports
//! duplicate keys itself. Aliases are expanded under a bound on the size of the tree, so that a
//! small file cannot grow into a large one.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, Span};

use super::error::{Origin, Problem};

/// Most values in one document, aliases expanded.
const MAX_NODES: usize = 100_000;
/// Deepest nesting.
const MAX_DEPTH: usize = 64;

/// One value with its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    List(Vec<Node>),
    Map(Map),
}

/// Entries of a mapping in the order of the file. Keys are few, so finding one is a scan.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Map(pub(super) Vec<(String, Origin, Node)>);

impl Map {
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.0.iter().find(|(name, ..)| name == key).map(|(.., node)| node)
    }

    pub(super) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.0.iter_mut().find(|(name, ..)| name == key).map(|(.., node)| node)
    }

    pub(super) fn set(&mut self, key: &str, origin: &Origin, node: Node) {
        match self.get_mut(key) {
            Some(old) => *old = node,
            None => self.0.push((key.to_owned(), origin.clone(), node)),
        }
    }
}

impl Value {
    /// The JSON name of the type, for messages.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Int(_) => "an integer",
            Self::Float(_) => "a number",
            Self::Str(_) => "a string",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(value) => (*value).into(),
            Self::Float(value) => (*value).into(),
            Self::Str(value) => value.as_str().into(),
            Self::List(items) => items.iter().map(|item| item.value.to_json()).collect(),
            Self::Map(map) => serde_json::Value::Object(
                map.0.iter().map(|(key, _, node)| (key.clone(), node.value.to_json())).collect(),
            ),
        }
    }
}

impl Node {
    /// The value at a path of keys with points between, if the mappings on the way are there.
    pub(super) fn at(&self, path: &str) -> Option<&Self> {
        path.split('.').try_fold(self, |node, key| match &node.value {
            Value::Map(map) => map.get(key),
            _ => None,
        })
    }

    /// As [`Node::at`], to change what is there.
    pub(super) fn at_mut(&mut self, path: &str) -> Option<&mut Self> {
        path.split('.').try_fold(self, |node, key| match &mut node.value {
            Value::Map(map) => map.get_mut(key),
            _ => None,
        })
    }

    /// Puts `patch` over this value as a JSON merge patch (RFC 7386), which is how kubelet applies a
    /// drop-in: mappings are merged, a null takes the key away, all else replaces.
    pub(super) fn merge(&mut self, patch: Self) {
        let Value::Map(entries) = patch.value else {
            *self = patch;
            return;
        };
        if !matches!(self.value, Value::Map(_)) {
            *self = Self { origin: patch.origin, value: Value::Map(Map::default()) };
        }
        let Value::Map(map) = &mut self.value else { return };
        for (key, origin, node) in entries.0 {
            if node.value == Value::Null {
                map.0.retain(|(name, ..)| *name != key);
            } else if let Some(old) = map.get_mut(&key) {
                old.merge(node);
            } else {
                let mut fresh = Self { origin: origin.clone(), value: Value::Null };
                fresh.merge(node);
                map.0.push((key, origin, fresh));
            }
        }
    }

    /// Drops every mapping entry that is null: to a decoder it is the same as absent.
    pub(super) fn drop_nulls(&mut self) {
        match &mut self.value {
            Value::Map(map) => {
                map.0.retain(|(.., node)| node.value != Value::Null);
                map.0.iter_mut().for_each(|(.., node)| node.drop_nulls());
            }
            Value::List(items) => items.iter_mut().for_each(Self::drop_nulls),
            _ => {}
        }
    }
}

/// Reads the one document of `text`. Problems name `path` with line and column.
pub(super) fn parse(path: &Path, text: &str) -> Result<Node, Vec<Problem>> {
    let mut builder = Builder {
        path: Arc::from(path),
        events: Parser::new_from_str(text),
        anchors: HashMap::new(),
        nodes: 0,
        problems: Vec::new(),
    };
    match builder.document() {
        Ok(node) if builder.problems.is_empty() => Ok(node),
        Ok(_) => Err(builder.problems),
        Err(problem) => {
            builder.problems.push(problem);
            Err(builder.problems)
        }
    }
}

struct Builder<'a> {
    path: Arc<Path>,
    events: Parser<'a, serde_saphyr::granit_parser::StrInput<'a>>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    problems: Vec<Problem>,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        match self.events.next() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => {
                let marker = *error.marker();
                let origin = self.origin(marker.line(), marker.col());
                Err(Problem::new(&origin, "", format!("not valid YAML or JSON: {}", error.info())))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn origin(&self, line: usize, col: usize) -> Origin {
        Origin::File { path: Arc::clone(&self.path), line: line.max(1), column: col + 1 }
    }

    fn span_origin(&self, span: Span) -> Origin {
        self.origin(span.start.line(), span.start.col())
    }

    fn document(&mut self) -> Result<Node, Problem> {
        let mut document = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                event => {
                    let node = self.node(event, span, 0)?;
                    if document.is_some() {
                        return Err(Problem::new(&node.origin, "", "a second document; only one is allowed"));
                    }
                    document = Some(node);
                }
            }
        }
        Ok(document.unwrap_or_else(|| Node { origin: self.origin(1, 0), value: Value::Null }))
    }

    fn node(&mut self, event: Event<'a>, span: Span, depth: usize) -> Result<Node, Problem> {
        let origin = self.span_origin(span);
        self.nodes += 1;
        if self.nodes > MAX_NODES || depth > MAX_DEPTH {
            return Err(Problem::new(&origin, "", "too many values or nested too deep"));
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                (if plain { plain_scalar(&text) } else { Value::Str(text.into_owned()) }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => (Value::List(self.list(depth)?), anchor),
            Event::MappingStart(_, anchor, _) => (Value::Map(self.map(depth)?), anchor),
            Event::Alias(id) => {
                let Some(node) = self.anchors.get(&id).cloned() else {
                    return Err(Problem::new(&origin, "", "an alias inside what it stands for"));
                };
                self.nodes += count(&node);
                (node.value, 0)
            }
            _ => return Err(Problem::new(&origin, "", "not valid YAML or JSON")),
        };
        let node = Node { origin, value };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node>, Problem> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Map, Problem> {
        let mut map = Map::default();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let origin = self.span_origin(span);
            let is_merge = matches!(&event, Event::Scalar(text, ScalarStyle::Plain, ..) if text == "<<");
            let key = self.key(event, span, &origin)?;
            let (event, span) = self.next()?;
            let node = self.node(event, span, depth + 1)?;
            if is_merge {
                merged.push(node);
            } else if let Some((_, first, _)) = map.0.iter().find(|(name, ..)| *name == key) {
                let first = match first {
                    Origin::File { line, .. } => format!("the first is in line {line}"),
                    other => other.to_string(),
                };
                self.problems.push(Problem::new(&origin, key, format!("duplicate key; {first}")));
            } else {
                map.0.push((key, origin, node));
            }
        }
        for node in merged {
            self.merge_key(&mut map, node)?;
        }
        Ok(map)
    }

    /// A mapping key. Kubelet's YAML reader turns a number or boolean key into its text.
    fn key(&mut self, event: Event<'a>, span: Span, origin: &Origin) -> Result<String, Problem> {
        match event {
            Event::Scalar(text, ..) => Ok(text.into_owned()),
            other => match self.node(other, span, MAX_DEPTH)?.value {
                Value::Str(text) => Ok(text),
                _ => Err(Problem::new(origin, "", "a key must be a string")),
            },
        }
    }

    /// `<<: *mapping` gives the keys that the mapping itself does not have.
    fn merge_key(&mut self, map: &mut Map, node: Node) -> Result<(), Problem> {
        match node.value {
            Value::Map(entries) => {
                for (key, origin, node) in entries.0 {
                    if map.get(&key).is_none() {
                        map.0.push((key, origin, node));
                    }
                }
                Ok(())
            }
            Value::List(items) => items.into_iter().try_for_each(|item| self.merge_key(map, item)),
            _ => Err(Problem::new(&node.origin, "<<", "want a mapping to merge")),
        }
    }
}

fn count(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(items) => items.iter().map(count).sum(),
        Value::Map(map) => map.0.iter().map(|(.., node)| count(node)).sum(),
        _ => 0,
    }
}

/// What an unquoted scalar is by YAML 1.1, as kubelet's reader has it.
fn plain_scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Value::Str(text.to_owned());
    }
    integer(text)
        .map(Value::Int)
        .or_else(|| float(text).map(Value::Float))
        .unwrap_or_else(|| Value::Str(text.to_owned()))
}

pub(super) fn integer(text: &str) -> Option<i64> {
    let digits = text.replace('_', "");
    let (negative, digits) = match digits.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, digits.strip_prefix('+').unwrap_or(&digits)),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, &digits[2..]),
        [b'0', b'b' | b'B', ..] => (2, &digits[2..]),
        [b'0', b'o' | b'O', ..] => (8, &digits[2..]),
        [b'0', _, ..] => (8, &digits[1..]),
        _ => (10, digits),
    };
    if !digits.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, radix).ok()?;
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

fn float(text: &str) -> Option<f64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let shaped = digits(whole) && digits(fraction) && digits(exponent);
    let present = !exponent.is_empty() && (!whole.is_empty() || !fraction.is_empty());
    (shaped && present).then(|| text.parse().ok()).flatten().filter(|value: &f64| value.is_finite())
}
