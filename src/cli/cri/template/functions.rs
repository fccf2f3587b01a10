//! What templates can call, and how values print: as Go's `fmt` prints what it decodes from JSON.

use std::{borrow::Cow, cmp::Ordering};

use serde_json::Value;

use super::TemplateError;
use crate::api::suggest::nearest;

const NAMES: [&str; 19] = [
    "and", "eq", "ge", "gt", "index", "join", "json", "le", "len", "lower", "lt", "ne", "not", "or", "print",
    "printf", "println", "title", "upper",
];

/// The widest that `printf` pads.
const MAX_WIDTH: usize = 4096;

pub(super) fn known(name: &str) -> Result<(), TemplateError> {
    if NAMES.contains(&name) {
        return Ok(());
    }
    let near = nearest(name, NAMES).map(|near| format!(", did you mean {near:?}?")).unwrap_or_default();
    Err(TemplateError::new(format!("there is no function {name:?}{near}")))
}

/// Go's truth: not false, zero, empty or nil.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// A value as `{{.}}` prints it: `map[a:1 b:2]`, `[x y]`, texts as they are.
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" "))
        }
        Value::Object(map) => {
            let entries = map.iter().map(|(key, value)| format!("{key}:{}", show(value)));
            format!("map[{}]", entries.collect::<Vec<_>>().join(" "))
        }
        other => other.to_string(),
    }
}

pub(super) fn call(name: &str, arguments: &[Cow<'_, Value>]) -> Result<Value, TemplateError> {
    let values: Vec<&Value> = arguments.iter().map(|argument| &**argument).collect();
    let wrong = |needs: &str| Err(TemplateError::new(format!("{name} needs {needs}")));
    Ok(match (name, values.as_slice()) {
        ("json", [value]) => Value::from(value.to_string()),
        ("len", [value]) => match value {
            Value::String(text) => text.len().into(),
            Value::Array(items) => items.len().into(),
            Value::Object(map) => map.len().into(),
            other => return wrong(&format!("a text, list or map, not {}", show(other))),
        },
        ("lower", [value]) => show(value).to_lowercase().into(),
        ("upper", [value]) => show(value).to_uppercase().into(),
        ("title", [value]) => title(&show(value)).into(),
        ("not", [value]) => Value::Bool(!truth(value)),
        ("index", [value, keys @ ..]) => {
            keys.iter().try_fold(*value, |value, key| index(value, key))?.clone()
        }
        ("join", [Value::Array(items), Value::String(between)]) => {
            items.iter().map(show).collect::<Vec<_>>().join(between).into()
        }
        ("eq", [first, others @ ..]) if !others.is_empty() => {
            let mut equal = false;
            for other in others {
                equal |= compare(first, other, true)? == Ordering::Equal;
            }
            Value::Bool(equal)
        }
        ("ne", [first, second]) => Value::Bool(compare(first, second, true)? != Ordering::Equal),
        ("lt", [first, second]) => Value::Bool(compare(first, second, false)?.is_lt()),
        ("le", [first, second]) => Value::Bool(compare(first, second, false)?.is_le()),
        ("gt", [first, second]) => Value::Bool(compare(first, second, false)?.is_gt()),
        ("ge", [first, second]) => Value::Bool(compare(first, second, false)?.is_ge()),
        ("print", values) => print(values).into(),
        ("println", values) => (values.iter().map(|v| show(v)).collect::<Vec<_>>().join(" ") + "\n").into(),
        ("printf", [Value::String(format), values @ ..]) => printf(format, values)?.into(),
        ("printf", _) => return wrong("a format first"),
        ("join", _) => return wrong("a list and a text"),
        ("lt" | "le" | "gt" | "ge" | "ne", _) => return wrong("two arguments"),
        ("eq", _) => return wrong("at least two arguments"),
        _ => return wrong("one argument"),
    })
}

/// Go's `Sprint`: a space between two neighbours neither of which is a text.
fn print(values: &[&Value]) -> String {
    let mut text = String::new();
    for (at, value) in values.iter().enumerate() {
        let apart =
            at > 0 && !value.is_string() && values.get(at - 1).is_some_and(|before| !before.is_string());
        if apart {
            text.push(' ');
        }
        text.push_str(&show(value));
    }
    text
}

fn title(text: &str) -> String {
    let mut start = true;
    text.chars()
        .map(|c| {
            let shown = if start { c.to_uppercase().next().unwrap_or(c) } else { c };
            start = !c.is_alphanumeric();
            shown
        })
        .collect()
}

fn index<'a>(value: &'a Value, key: &Value) -> Result<&'a Value, TemplateError> {
    let found = match (value, key) {
        (Value::Object(map), Value::String(key)) => map.get(key),
        (Value::Array(items), Value::Number(at)) => {
            at.as_u64().and_then(|at| usize::try_from(at).ok()).and_then(|at| items.get(at))
        }
        (value, key) => {
            return Err(TemplateError::new(format!("index finds no {key} in {}", show(value))));
        }
    };
    found.ok_or_else(|| TemplateError::new(format!("index: there is no {key}")))
}

fn compare(left: &Value, right: &Value, equality: bool) -> Result<Ordering, TemplateError> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            if let (Some(left), Some(right)) = (left.as_i64(), right.as_i64()) {
                return Ok(left.cmp(&right));
            }
            let order = left.as_f64().zip(right.as_f64()).and_then(|(left, right)| left.partial_cmp(&right));
            order.ok_or_else(|| TemplateError::new("numbers that cannot be compared"))
        }
        (Value::String(left), Value::String(right)) => Ok(left.cmp(right)),
        (Value::Bool(left), Value::Bool(right)) => Ok(left.cmp(right)),
        (Value::Null, Value::Null) => Ok(Ordering::Equal),
        (Value::Null, _) | (_, Value::Null) if equality => Ok(Ordering::Less),
        _ => Err(TemplateError::new(format!("cannot compare {left} with {right}"))),
    }
}

/// `%s`, `%v`, `%q`, `%d`, `%t`, `%f`, `%%`, with width and `-`; a precision cuts texts and rounds `%f`.
fn printf(format: &str, values: &[&Value]) -> Result<String, TemplateError> {
    let mut text = String::new();
    let mut values = values.iter();
    let mut rest = format.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let (mut left, mut zero, mut width, mut precision) = (false, false, 0_usize, None::<usize>);
        let verb = loop {
            let Some(c) = rest.next() else { return Err(TemplateError::new("printf: a % ends the format")) };
            match c {
                '-' => left = true,
                '0' if width == 0 && precision.is_none() => zero = true,
                '.' => precision = Some(0),
                c if c.is_ascii_digit() => {
                    let digit = c.to_digit(10).unwrap_or_default() as usize;
                    let field = precision.as_mut().unwrap_or(&mut width);
                    *field = (*field * 10 + digit).min(MAX_WIDTH);
                }
                c => break c,
            }
        };
        if verb == '%' {
            text.push('%');
            continue;
        }
        let Some(value) = values.next() else {
            return Err(TemplateError::new(format!("printf: no value for %{verb}")));
        };
        let shown = show_as(verb, value, precision)?;
        let missing = width.saturating_sub(shown.chars().count());
        let numeric = value.is_number() && zero && !left;
        let fill = if numeric { "0" } else { " " }.repeat(missing);
        text.push_str(&if left { shown + &fill } else { fill + &shown });
    }
    if values.next().is_some() {
        return Err(TemplateError::new("printf: more values than the format takes"));
    }
    Ok(text)
}

fn show_as(verb: char, value: &Value, precision: Option<usize>) -> Result<String, TemplateError> {
    let misfit = || TemplateError::new(format!("printf: %{verb} does not fit {}", show(value)));
    Ok(match verb {
        's' | 'v' => {
            let text = show(value);
            precision.map_or_else(|| text.clone(), |limit| text.chars().take(limit).collect())
        }
        'q' => Value::from(show(value)).to_string(),
        'd' => match value {
            Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
            // 64-bit integers are texts in this JSON.
            Value::String(text) if text.parse::<i128>().is_ok() => text.clone(),
            _ => return Err(misfit()),
        },
        't' => value.as_bool().ok_or_else(misfit)?.to_string(),
        'f' => {
            let number = value.as_f64().or_else(|| value.as_str()?.parse().ok()).ok_or_else(misfit)?;
            format!("{number:.*}", precision.unwrap_or(6))
        }
        other => return Err(TemplateError::new(format!("printf: %{other} is not supported"))),
    })
}
