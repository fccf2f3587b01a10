//! What is known of each configuration key, and the check of a document against that.
//!
//! The check finds unknown keys and values of the wrong type, with their place in the file. What a
//! value of the right type may be, alone or beside others, is the business of
//! [`super::validate`].

use crate::api::quantity::Quantity;
use crate::api::suggest::nearest;

use super::duration::GoDuration;
use super::error::{Origin, Problem};
pub(super) use super::keys_table::KEYS;
use super::node::{Map, Node, Value};

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// A boolean.
    Bool,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A 32-bit integer that is not negative.
    Uint32,
    /// A number.
    Float,
    /// A string.
    Str,
    /// A string that is an IP address, or empty.
    Ip,
    /// One of these strings.
    Enum(&'static [&'static str]),
    /// A duration string.
    Duration,
    /// A duration string or a number of nanoseconds.
    DurationOrInt,
    /// A string that is a Kubernetes quantity.
    Quantity,
    /// A string or an integer that is a Kubernetes quantity.
    QuantityOrInt,
    /// A list of strings.
    StrList,
    /// A list of 32-bit integers.
    IntList,
    /// Strings by name.
    StrMap,
    /// Quantities by name.
    QuantityMap,
    /// Quantities, as strings or integers, by name.
    QuantityOrIntMap,
    /// Booleans by name.
    BoolMap,
    /// Lists of strings by name.
    MultiMap,
    /// A mapping whose keys are in the table.
    Struct,
    /// A list of mappings whose keys are in the table.
    StructList,
}

/// Whether nodectl acts on a key or flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It does what it does in kubelet.
    Acts,
    /// Known and checked, and not yet acted on by nodectl.
    NotYet,
    /// Kubelet itself does nothing with it any more.
    NoEffect,
    /// Removed from Kubernetes by this minor version.
    Gone(u8),
    /// A part of another key, which has the answer.
    Part,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// The key's path, as in `authentication.webhook.cacheTTL`.
    pub path: &'static str,
    /// What it holds.
    pub kind: KeyKind,
    /// Whether nodectl acts on it.
    pub support: Support,
    /// Minor version of Kubernetes that first had it; 20 for that and all before.
    pub since: u8,
}

pub(super) const fn key(path: &'static str, kind: KeyKind, support: Support, since: u8) -> KeySpec {
    KeySpec { path, kind, support, since }
}

/// The table of all keys, in kubelet's order.
pub fn keys() -> &'static [KeySpec] {
    KEYS
}

/// The row of the key at `path`, list positions written as `[]`.
pub(super) fn spec(path: &str) -> Option<&'static KeySpec> {
    KEYS.iter().find(|spec| spec.path == path)
}

/// Checks a whole document, and reports every problem in it.
pub(super) fn check_document(root: &Node) -> Vec<Problem> {
    let mut problems = Vec::new();
    match &root.value {
        Value::Map(map) => {
            check_type_meta(root, map, &mut problems);
            check_map(map, "", "", &mut problems);
        }
        Value::Null => {
            problems.push(Problem::new(&root.origin, "", "empty; want at least apiVersion and kind"));
        }
        other => problems.push(Problem::new(
            &root.origin,
            "",
            format!("want a mapping of configuration keys, got {}", other.type_name()),
        )),
    }
    problems
}

fn check_type_meta(root: &Node, map: &Map, problems: &mut Vec<Problem>) {
    for (key, want) in [("apiVersion", super::defaults::API_VERSION), ("kind", super::defaults::KIND)] {
        match map.get(key) {
            None => problems.push(Problem::new(&root.origin, key, format!("missing; want {want:?}"))),
            Some(Node { value: Value::Str(got), origin }) if got != want => {
                problems.push(Problem::new(origin, key, format!("want {want:?}, got {got:?}")));
            }
            Some(_) => {}
        }
    }
}

/// Checks the entries of one mapping. `shown` is its path as the user sees it, `path` as the table
/// has it.
fn check_map(map: &Map, shown: &str, path: &str, problems: &mut Vec<Problem>) {
    let join = |base: &str, key: &str| if base.is_empty() { key.to_owned() } else { format!("{base}.{key}") };
    for (name, origin, node) in &map.0 {
        let shown = join(shown, name);
        match spec(&join(path, name)) {
            Some(spec) => check_value(node, &shown, spec, problems),
            None => problems
                .push(Problem::new(origin, shown, "unknown key").suggest(nearest(name, siblings(path)))),
        }
    }
}

/// The last parts of the keys right below `path`.
fn siblings(path: &str) -> impl Iterator<Item = &'static str> {
    KEYS.iter().filter_map(move |spec| {
        let rest =
            if path.is_empty() { spec.path } else { spec.path.strip_prefix(path)?.strip_prefix('.')? };
        (!rest.contains('.')).then_some(rest)
    })
}

/// Checks one value against its row.
pub(super) fn check_value(node: &Node, shown: &str, spec: &KeySpec, problems: &mut Vec<Problem>) {
    if node.value == Value::Null {
        return;
    }
    match (spec.kind, &node.value) {
        (KeyKind::Struct, Value::Map(map)) => check_map(map, shown, spec.path, problems),
        (KeyKind::StructList, Value::List(items)) => {
            for (at, item) in items.iter().enumerate() {
                let (shown, path) = (format!("{shown}[{at}]"), format!("{}[]", spec.path));
                match &item.value {
                    Value::Map(map) => check_map(map, &shown, &path, problems),
                    other => problems.push(wrong_type(&item.origin, &shown, "a mapping", other)),
                }
            }
        }
        (KeyKind::StrList, Value::List(items)) => each(items, shown, &KeyKind::Str, problems),
        (KeyKind::IntList, Value::List(items)) => each(items, shown, &KeyKind::Int32, problems),
        (KeyKind::StrMap, Value::Map(map)) => entries(map, shown, &KeyKind::Str, problems),
        (KeyKind::QuantityMap, Value::Map(map)) => entries(map, shown, &KeyKind::Quantity, problems),
        (KeyKind::QuantityOrIntMap, Value::Map(map)) => {
            entries(map, shown, &KeyKind::QuantityOrInt, problems);
        }
        (KeyKind::BoolMap, Value::Map(map)) => entries(map, shown, &KeyKind::Bool, problems),
        (KeyKind::MultiMap, Value::Map(map)) => entries(map, shown, &KeyKind::StrList, problems),
        (kind, _) => check_scalar(node, shown, &kind, problems),
    }
}

fn each(items: &[Node], shown: &str, kind: &KeyKind, problems: &mut Vec<Problem>) {
    for (at, item) in items.iter().enumerate() {
        check_scalar(item, &format!("{shown}[{at}]"), kind, problems);
    }
}

fn entries(map: &Map, shown: &str, kind: &KeyKind, problems: &mut Vec<Problem>) {
    for (name, _, node) in &map.0 {
        let shown = format!("{shown}.{name}");
        match (kind, &node.value) {
            (KeyKind::StrList, Value::List(items)) => each(items, &shown, &KeyKind::Str, problems),
            _ => check_scalar(node, &shown, kind, problems),
        }
    }
}

fn wrong_type(origin: &Origin, shown: &str, want: &str, got: &Value) -> Problem {
    Problem::new(origin, shown, format!("want {want}, got {}", got.type_name()))
}

fn check_scalar(node: &Node, shown: &str, kind: &KeyKind, problems: &mut Vec<Problem>) {
    let problem = |message: String| Problem::new(&node.origin, shown, message);
    let wrong = match (kind, &node.value) {
        (KeyKind::Bool, Value::Bool(_))
        | (KeyKind::Str, Value::Str(_))
        | (
            KeyKind::Int64 | KeyKind::Float | KeyKind::DurationOrInt | KeyKind::QuantityOrInt,
            Value::Int(_),
        )
        | (KeyKind::Float, Value::Float(_)) => None,
        (KeyKind::Int32, Value::Int(value)) => {
            i32::try_from(*value).is_err().then(|| problem(format!("{value} does not fit a 32-bit integer")))
        }
        (KeyKind::Uint32, Value::Int(value)) => u32::try_from(*value)
            .is_err()
            .then(|| problem(format!("{value} is negative or does not fit a 32-bit integer"))),
        (KeyKind::Enum(allowed), Value::Str(value)) if !allowed.contains(&value.as_str()) => {
            let names: Vec<&str> = allowed.iter().copied().filter(|name| !name.is_empty()).collect();
            let message = format!("{value:?} is not one of {}", quoted(&names));
            Some(problem(message).suggest(nearest(value, names)))
        }
        (KeyKind::Enum(_), Value::Str(_)) => None,
        (KeyKind::Ip, Value::Str(value)) => (!value.is_empty() && value.parse::<std::net::IpAddr>().is_err())
            .then(|| problem(format!("{value:?} is not an IP address"))),
        (KeyKind::Duration | KeyKind::DurationOrInt, Value::Str(value)) => {
            GoDuration::parse(value).err().map(|error| problem(error.to_string()))
        }
        (KeyKind::Quantity | KeyKind::QuantityOrInt, Value::Str(value)) => {
            Quantity::parse(value).err().map(|error| problem(error.to_string()))
        }
        (kind, got) => Some(wrong_type(&node.origin, shown, wanted(kind), got)),
    };
    problems.extend(wrong);
}

fn wanted(kind: &KeyKind) -> &'static str {
    match kind {
        KeyKind::Bool => "a boolean (true or false)",
        KeyKind::Int32 | KeyKind::Int64 | KeyKind::Uint32 => "an integer",
        KeyKind::Float => "a number",
        KeyKind::Str | KeyKind::Enum(_) => "a string",
        KeyKind::Ip => "an IP address",
        KeyKind::Duration | KeyKind::DurationOrInt => "a duration string such as \"1m30s\"",
        KeyKind::Quantity | KeyKind::QuantityOrInt => "a quantity string such as \"512Mi\"",
        KeyKind::StrList => "a list of strings",
        KeyKind::IntList => "a list of integers",
        KeyKind::StrMap | KeyKind::QuantityMap | KeyKind::QuantityOrIntMap => "a mapping of names to strings",
        KeyKind::BoolMap => "a mapping of names to booleans",
        KeyKind::MultiMap => "a mapping of names to lists of strings",
        KeyKind::Struct => "a mapping",
        KeyKind::StructList => "a list of mappings",
    }
}

/// `"a", "b" or "c"`.
pub(super) fn quoted(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => format!("{one:?}"),
        [head @ .., last] => {
            let head: Vec<String> = head.iter().map(|name| format!("{name:?}")).collect();
            format!("{} or {last:?}", head.join(", "))
        }
    }
}
