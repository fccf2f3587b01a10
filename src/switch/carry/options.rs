//! dockerd's options, from its flags and its file.

use serde_json::Value;

use crate::switch::facts::{DockerFacts, Facts};

/// The values of a flag, in their order.
fn flag_values(docker: &DockerFacts, name: &str) -> Vec<String> {
    let mut values = Vec::new();
    let mut rest = docker.arguments.iter();
    while let Some(argument) = rest.next() {
        let Some(flag) = argument.strip_prefix("--") else { continue };
        match flag.split_once('=') {
            Some((this, value)) if this == name => values.push(value.to_owned()),
            None if flag == name => values.extend(rest.next().cloned()),
            _ => {}
        }
    }
    values
}

/// An option that is one text.
pub(super) fn text(facts: &Facts, name: &str) -> Option<String> {
    let docker = facts.docker.as_ref()?;
    let told = flag_values(docker, name).pop();
    told.or_else(|| Some(docker.daemon.get(name)?.as_str()?.to_owned())).filter(|text| !text.is_empty())
}

/// An option that is a list: `flag` once for each entry, `key` in the file.
pub(super) fn list(facts: &Facts, flag: &str, key: &str) -> Vec<String> {
    let Some(docker) = &facts.docker else { return Vec::new() };
    let listed = docker.daemon.get(key).and_then(Value::as_array).into_iter().flatten();
    let listed = listed.filter_map(Value::as_str).map(str::to_owned);
    flag_values(docker, flag).into_iter().chain(listed).collect()
}

/// An entry of an option that is a map: `--flag NAME=VALUE`, `key` in the file. Numbers there are as their texts.
pub(super) fn entry(facts: &Facts, flag: &str, key: &str, name: &str) -> Option<String> {
    let docker = facts.docker.as_ref()?;
    let told = flag_values(docker, flag).into_iter().rev();
    let mut told = told.filter_map(|pair| pair.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned())));
    if let Some((_, value)) = told.find(|(own, _)| own == name) {
        return Some(value);
    }
    match docker.daemon.get(key)?.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Whether an option is there at all, in either place, and not switched off.
pub(super) fn is_told(facts: &Facts, name: &str) -> bool {
    let Some(docker) = &facts.docker else { return false };
    let flag = docker.arguments.iter().rev().find_map(|argument| {
        let rest = argument.strip_prefix("--")?.strip_prefix(name)?;
        match rest.strip_prefix('=') {
            Some(value) => Some(value != "false" && !value.is_empty()),
            None => rest.is_empty().then_some(true),
        }
    });
    flag.unwrap_or_else(|| match docker.daemon.get(name) {
        None | Some(Value::Null | Value::Bool(false)) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        Some(Value::Object(map)) => !map.is_empty(),
        Some(_) => true,
    })
}
