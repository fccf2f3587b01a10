//! The configuration as a tree in which every value knows where it comes from.
//!
//! Files are read by [`crate::api::yaml`], which knows lines and columns; here their values get an
//! [`Origin`], because drop-ins and flags are put over them and a problem is told at the file or flag
//! that set the value.

use std::path::Path;
use std::sync::Arc;

use crate::api::yaml::{self, Limits, YamlError};

use super::MAX_FILE_BYTES;
use super::error::{Origin, Problem};

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

/// What a configuration file may take.
const LIMITS: Limits = Limits { bytes: 1 << 20, nodes: 100_000, expanded_bytes: 4 << 20 };
const _: () = assert!(LIMITS.bytes as u64 == MAX_FILE_BYTES);

/// Reads the one document of `bytes`; an empty one is null. Problems name `path` with line and column.
pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Node, Vec<Problem>> {
    let path: Arc<Path> = Arc::from(path);
    match yaml::parse(bytes, LIMITS) {
        Ok(document) => Ok(located(&path, document)),
        Err(YamlError::Empty) => Ok(Node { origin: origin(&path, 1, 1), value: Value::Null }),
        Err(error) => Err(problems(&path, error)),
    }
}

fn problems(path: &Arc<Path>, error: YamlError) -> Vec<Problem> {
    let one = |line, column, message: String| vec![Problem::new(&origin(path, line, column), "", message)];
    match error {
        YamlError::Faults(faults) => faults
            .into_iter()
            .map(|fault| Problem::new(&origin(path, fault.line, fault.column), fault.path, fault.detail))
            .collect(),
        YamlError::Syntax { line, column, message, .. } => {
            let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
            one(number(line), number(column), format!("not valid YAML or JSON: {message}"))
        }
        YamlError::MultipleDocuments { line } => {
            one(line, 1, "a second document; only one is allowed".to_owned())
        }
        YamlError::TooComplex { .. } => one(1, 1, format!("too many values: {error}")),
        YamlError::TooLarge { .. } | YamlError::Binary { .. } | YamlError::Empty => {
            one(1, 1, error.to_string())
        }
    }
}

fn origin(path: &Arc<Path>, line: u32, column: u32) -> Origin {
    let number = |at: u32| usize::try_from(at).unwrap_or(usize::MAX).max(1);
    Origin::File { path: Arc::clone(path), line: number(line), column: number(column) }
}

fn located(path: &Arc<Path>, node: yaml::Node) -> Node {
    let value = match node.value {
        yaml::Value::Null => Value::Null,
        yaml::Value::Bool(on) => Value::Bool(on),
        // No key takes more than 64 bits: such a number is of the wrong type wherever it stands.
        yaml::Value::Int(number) => {
            i64::try_from(number).map_or_else(|_too_large| Value::Float(number as f64), Value::Int)
        }
        yaml::Value::Float(number) => Value::Float(number),
        yaml::Value::Str(text) => Value::Str(text),
        yaml::Value::Seq(items) => Value::List(items.into_iter().map(|item| located(path, item)).collect()),
        yaml::Value::Map(entries) => Value::Map(Map(entries
            .into_iter()
            .map(|entry| (entry.key, origin(path, entry.line, entry.column), located(path, entry.value)))
            .collect())),
    };
    Node { origin: origin(path, node.line, node.column), value }
}
