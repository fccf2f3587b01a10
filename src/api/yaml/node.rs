//! The tree: the JSON data model, with the place of every value.

use std::fmt::Write as _;

/// One value with the place where it was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// 1-based line, 0 where it is not known.
    pub line: u32,
    /// 1-based column, 0 where it is not known.
    pub column: u32,
    /// The value.
    pub value: Value,
}

/// The JSON data model, with maps in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Absent, as Kubernetes reads it.
    Null,
    /// A boolean.
    Bool(bool),
    /// An integer; wide enough for every 64-bit one.
    Int(i128),
    /// A finite number with a fraction or an exponent.
    Float(f64),
    /// Text.
    Str(String),
    /// A list.
    Seq(Vec<Node>),
    /// A map; keys are unique.
    Map(Vec<Entry>),
}

/// One key of a map.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The line of the key, 0 where unknown.
    pub line: u32,
    /// The column of the key, 0 where unknown.
    pub column: u32,
    /// Its value.
    pub value: Node,
}

impl Node {
    /// A value at a line and column.
    pub(super) fn at_place((line, column): (u32, u32), value: Value) -> Self {
        Self { line, column, value }
    }

    /// Takes the places of another reading of the same text, as far as both are of one shape.
    pub(super) fn take_places(&mut self, other: &Self) {
        (self.line, self.column) = (other.line, other.column);
        match (&mut self.value, &other.value) {
            (Value::Seq(mine), Value::Seq(theirs)) => {
                mine.iter_mut().zip(theirs).for_each(|(mine, theirs)| mine.take_places(theirs));
            }
            (Value::Map(mine), Value::Map(theirs)) => {
                for (mine, theirs) in mine.iter_mut().zip(theirs) {
                    (mine.line, mine.column) = (theirs.line, theirs.column);
                    mine.value.take_places(&theirs.value);
                }
            }
            _ => {}
        }
    }

    /// What this is, for messages.
    pub fn kind(&self) -> &'static str {
        match self.value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Str(_) => "a string",
            Value::Seq(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// The value under `key`, when this is a map that has it.
    pub fn get(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key),
            _ => None,
        }
    }

    /// The text, when this is a string.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    /// The line of the field that `path` (`spec.containers[0].image`) names, or of the nearest
    /// parent that was written: a missing field is told at the line of what should hold it.
    pub fn line_of(&self, path: &str) -> Option<u32> {
        let mut line = self.line;
        let mut node = self;
        for step in path.split(['.', '[']).filter(|s| !s.is_empty()) {
            let found = match (step.strip_suffix(']'), &node.value) {
                (Some(index), Value::Seq(items)) => {
                    index.parse::<usize>().ok().and_then(|i| items.get(i)).map(|n| (n.line, n))
                }
                (Some(key), _) => node.get(key).map(|e| (e.line, &e.value)),
                (None, _) => node.get(step).map(|e| (e.line, &e.value)),
            };
            let Some((at, next)) = found else { break };
            line = at;
            node = next;
        }
        (line > 0).then_some(line)
    }

    /// The canonical form: JSON without white space, keys sorted, nulls left out of maps.
    ///
    /// Two manifests that differ only in comments, layout, quoting, order of keys or in being YAML
    /// or JSON have the same one.
    pub fn canonical(&self) -> String {
        let mut out = String::new();
        self.write_canonical(&mut out);
        out
    }

    fn write_canonical(&self, out: &mut String) {
        match &self.value {
            Value::Null => out.push_str("null"),
            Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
            Value::Int(i) => write_to(out, format_args!("{i}")),
            Value::Float(f) => write_to(out, format_args!("{f:?}")),
            Value::Str(s) => write_string(out, s),
            Value::Seq(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    item.write_canonical(out);
                }
                out.push(']');
            }
            Value::Map(entries) => {
                let mut sorted: Vec<&Entry> =
                    entries.iter().filter(|e| e.value.value != Value::Null).collect();
                sorted.sort_by(|a, b| a.key.cmp(&b.key));
                out.push('{');
                for (i, entry) in sorted.into_iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    write_string(out, &entry.key);
                    out.push(':');
                    entry.value.write_canonical(out);
                }
                out.push('}');
            }
        }
    }
}

fn write_to(out: &mut String, args: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _infallible = out.write_fmt(args);
}

fn write_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if (c as u32) < 0x20 => write_to(out, format_args!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
}
