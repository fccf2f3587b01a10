//! The texts of flags, read as kubelet's flag library reads them.

use std::net::IpAddr;

use crate::api::yaml;

use super::error::Origin;
use super::flags::{Syntax, is_duration};
use super::node::{Map, Node, Value};

/// A boolean in one of Go's spellings.
pub(super) fn bool_value(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A whole number of 64 bits, in the notations that YAML and Go's flags share.
fn integer(text: &str) -> Option<i64> {
    yaml::integer(&text.replace('_', "")).and_then(|number| i64::try_from(number).ok())
}

/// The value that all uses of one flag make together, or what is wrong with one of them. Messages
/// repeat no text of a flag that can hold credentials.
pub(super) fn value_of(syntax: Syntax, texts: &[&str], origin: &Origin) -> Result<Value, String> {
    let mut map = Map::default();
    let mut list = Vec::new();
    let mut scalar = Value::Null;
    let node = |value| Node { origin: origin.clone(), value };
    for text in texts {
        match syntax {
            Syntax::Bool => scalar = Value::Bool(bool_value(text).ok_or_else(|| bad(text, "true or false"))?),
            Syntax::Int => scalar = Value::Int(integer(text).ok_or_else(|| bad(text, "an integer"))?),
            Syntax::Float => {
                scalar = Value::Float(text.parse().map_err(|_not_a_number| bad(text, "a number"))?);
            }
            Syntax::Str => scalar = Value::Str((*text).to_owned()),
            Syntax::Duration => {
                is_duration(text)?;
                scalar = Value::Str((*text).to_owned());
            }
            Syntax::IpList => {
                addresses(text)?;
                scalar = Value::Str((*text).to_owned());
            }
            Syntax::List => list.extend(csv(text)?.into_iter().map(|item| node(Value::Str(item)))),
            Syntax::Map => {
                for pair in text.split(',').filter(|pair| !pair.is_empty()) {
                    let (name, value) = split(pair, '=', "name=value")?;
                    map.set(name, origin, node(Value::Str(value.to_owned())));
                }
            }
            Syntax::Pair => {
                let (name, value) = split(text, '=', "name=value")?;
                map.set(name, origin, node(Value::Str(value.to_owned())));
            }
            Syntax::AngleMap => {
                for pair in text.split(',').filter(|pair| !pair.is_empty()) {
                    let (name, value) = split(pair, '<', "signal<amount")?;
                    map.set(name, origin, node(Value::Str(value.to_owned())));
                }
            }
            Syntax::Gates => {
                for pair in text.split(',').filter(|pair| !pair.is_empty()) {
                    let (name, value) = split(pair, '=', "Gate=true or Gate=false")?;
                    let on = bool_value(value).ok_or_else(|| bad(pair, "Gate=true or Gate=false"))?;
                    map.set(name, origin, node(Value::Bool(on)));
                }
            }
            Syntax::Headers => headers(text, origin, &mut map)?,
            Syntax::VModule => {
                for pair in text.split(',').filter(|pair| !pair.is_empty()) {
                    let (pattern, level) = split(pair, '=', "pattern=number")?;
                    let level = integer(level).ok_or_else(|| bad(pair, "pattern=number"))?;
                    list.push(node(fields(
                        origin,
                        [("filePattern", Value::Str(pattern.to_owned())), ("verbosity", Value::Int(level))],
                    )));
                }
            }
            Syntax::Taints => {
                for taint in text.split(',').filter(|taint| !taint.is_empty()) {
                    let (head, effect) = split(taint, ':', "key=value:effect")?;
                    let (key, value) = head.split_once('=').unwrap_or((head, ""));
                    list.push(node(fields(
                        origin,
                        [("key", key), ("value", value), ("effect", effect)]
                            .map(|(name, text)| (name, Value::Str(text.to_owned()))),
                    )));
                }
            }
            Syntax::Memory => {
                for reservation in text.split(';').filter(|reservation| !reservation.is_empty()) {
                    let (numa, limits) = split(reservation, ':', "node:type=quantity")?;
                    let numa = integer(numa).ok_or_else(|| bad(reservation, "node:type=quantity"))?;
                    let limits = value_of(Syntax::Map, &[limits], origin)?;
                    list.push(node(fields(origin, [("numaNode", Value::Int(numa)), ("limits", limits)])));
                }
            }
        }
    }
    Ok(match syntax {
        Syntax::List | Syntax::VModule | Syntax::Taints | Syntax::Memory => Value::List(list),
        Syntax::Map | Syntax::Pair | Syntax::AngleMap | Syntax::Gates | Syntax::Headers => Value::Map(map),
        _ => scalar,
    })
}

fn bad(text: &str, want: &str) -> String {
    format!("want {want}, got {text:?}")
}

fn split<'a>(text: &'a str, at: char, want: &str) -> Result<(&'a str, &'a str), String> {
    let (left, right) = text.split_once(at).ok_or_else(|| bad(text, want))?;
    Ok((left.trim(), right.trim()))
}

fn fields<const N: usize>(origin: &Origin, fields: [(&str, Value); N]) -> Value {
    let mut map = Map::default();
    for (name, value) in fields {
        map.set(name, origin, Node { origin: origin.clone(), value });
    }
    Value::Map(map)
}

fn headers(text: &str, origin: &Origin, map: &mut Map) -> Result<(), String> {
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let Some((name, value)) = pair.split_once(':') else {
            return Err("want name:value for each header".to_owned());
        };
        let item = Node { origin: origin.clone(), value: Value::Str(value.trim().to_owned()) };
        match map.get_mut(name.trim()) {
            Some(Node { value: Value::List(values), .. }) => values.push(item),
            _ => {
                let values = Node { origin: origin.clone(), value: Value::List(vec![item]) };
                map.set(name.trim(), origin, values);
            }
        }
    }
    Ok(())
}

/// One line of comma-separated values; a quoted one may hold commas, and quotes doubled.
fn csv(text: &str) -> Result<Vec<String>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let (mut items, mut item, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                item.push('"');
            }
            '"' if quoted || item.is_empty() => quoted = !quoted,
            '"' => return Err(bad(text, "a list with quotes around whole items only")),
            ',' if !quoted => items.push(std::mem::take(&mut item)),
            c => item.push(c),
        }
    }
    if quoted {
        return Err(bad(text, "a list with every quote closed"));
    }
    items.push(item);
    Ok(items)
}

/// `--node-ip`: one address, or two of different families.
pub(super) fn addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    let addresses = text
        .split(',')
        .filter(|part| !part.trim().is_empty())
        .map(|part| part.trim().parse().map_err(|_not_an_address| bad(part, "an IP address")))
        .collect::<Result<Vec<IpAddr>, String>>()?;
    match addresses[..] {
        [first, second] if first.is_ipv4() == second.is_ipv4() => {
            Err(format!("{first} and {second} are of one family; want one of each"))
        }
        [_, _, _, ..] => Err("want at most two addresses".to_owned()),
        _ => Ok(addresses),
    }
}
