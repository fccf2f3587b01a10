//! Warnings of keys that are set and that nodectl does not act on.
//!
//! A key that is set to what it defaults to needs no warning: acting on it would change nothing.

use serde_json::Value as Json;

use crate::api::quantity::Quantity;

use super::defaults::defaulted;
use super::duration::GoDuration;
use super::error::{ConfigWarning, WarningKind};
use super::keys::{KEYS, KeyKind, KeySpec, Support};
use super::node::Node;

/// The warnings for a merged configuration. `tree` says what was set and where, `effective` what is
/// in force after defaults and flags.
pub(super) fn warnings(tree: &Node, effective: &Json) -> Vec<ConfigWarning> {
    let defaults = serde_json::to_value(defaulted()).unwrap_or_default();
    KEYS.iter()
        .filter_map(|spec| {
            let node = tree.at(spec.path)?;
            let set = value_at(effective, spec.path);
            let unchanged = same(spec, set, value_at(&defaults, spec.path));
            let (kind, message) = match spec.support {
                Support::NotYet if !unchanged => (WarningKind::NotYet, "not yet acted on by nodectl"),
                // kubeadm writes zeros into these.
                Support::NoEffect if !unchanged && !is_zero(set) => (WarningKind::NoEffect, "has no effect"),
                _ => return None,
            };
            Some(ConfigWarning::new(kind, &node.origin, spec.path, message.to_owned()))
        })
        .collect()
}

/// The value of a key; null if it has none.
fn value_at<'a>(json: &'a Json, path: &str) -> &'a Json {
    path.split('.').fold(json, |json, key| json.get(key).unwrap_or(&Json::Null))
}

fn same(spec: &KeySpec, set: &Json, default: &Json) -> bool {
    let both = || set.as_str().zip(default.as_str());
    match spec.kind {
        KeyKind::Duration | KeyKind::DurationOrInt if both().is_some() => {
            both().is_some_and(|(set, default)| GoDuration::parse(set) == GoDuration::parse(default))
        }
        KeyKind::Quantity | KeyKind::QuantityOrInt if both().is_some() => {
            both().is_some_and(|(set, default)| Quantity::parse(set) == Quantity::parse(default))
        }
        _ if default.is_null() => is_zero(set),
        _ => set == default,
    }
}

fn is_zero(json: &Json) -> bool {
    match json {
        Json::Null => true,
        Json::Bool(on) => !on,
        Json::Number(number) => number.as_f64() == Some(0.0),
        Json::String(text) => text.is_empty() || GoDuration::parse(text) == Ok(GoDuration::ZERO),
        Json::Array(items) => items.is_empty(),
        Json::Object(map) => map.is_empty(),
    }
}
