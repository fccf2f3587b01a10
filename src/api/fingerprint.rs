//! What of a container's or a sandbox's specification was in force when it was made, so that a change of
//! the specification is noticed, and an upgrade of the agent is not mistaken for one.
//!
//! kubelet once hashed the whole container struct: each release that added a field to it restarted every
//! container of a node. Here each field is hashed under its own name, and the annotation holds the pairs,
//! `v1 args=1f6a32cc command=- …`. Two fingerprints differ only where a field is named by *both* and its
//! hash differs; a field that only one agent version knows says nothing.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;
use sha2::{Digest, Sha256};

const VERSION: &str = "v1";
const ABSENT: &str = "-";

/// Field names and the hashes of their values.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprint(BTreeMap<String, String>);

impl Fingerprint {
    /// One without fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field. `None`, and a value whose JSON form is empty (`[]`, `{}`, `""`), count as absent: the
    /// API does not tell them apart.
    #[must_use]
    pub fn with<T: Serialize>(mut self, name: &str, value: &T) -> Self {
        // A value tree sorts its keys, so that two equal values have one text.
        let hash = match serde_json::to_value(value) {
            Ok(value) if !is_empty(&value) => hex::encode(&Sha256::digest(value.to_string().as_bytes())[..4]),
            // API types serialise without fail; a type that does not would be compared as absent.
            _ => ABSENT.to_owned(),
        };
        self.0.insert(name.to_owned(), hash);
        self
    }

    /// Reads the annotation's text. `None` for another version or a malformed text: such a fingerprint
    /// proves nothing.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        if words.next() != Some(VERSION) {
            return None;
        }
        words
            .map(|word| word.split_once('=').map(|(name, hash)| (name.to_owned(), hash.to_owned())))
            .collect::<Option<_>>()
            .map(Self)
    }

    /// The names of the fields that both know and that differ, in order.
    pub fn changed_fields<'a>(&'a self, other: &Self) -> Vec<&'a str> {
        self.0
            .iter()
            .filter(|(name, hash)| other.0.get(*name).is_some_and(|theirs| theirs != *hash))
            .map(|(name, _)| name.as_str())
            .collect()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(VERSION)?;
        self.0.iter().try_for_each(|(name, hash)| write!(f, " {name}={hash}"))
    }
}

fn is_empty(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null => true,
        serde_json::Value::Array(items) => items.is_empty(),
        serde_json::Value::Object(fields) => fields.is_empty(),
        serde_json::Value::String(text) => text.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let print = Fingerprint::new().with("args", &vec!["a"]).with("command", &None::<Vec<String>>);
        let text = print.to_string();
        assert!(text.starts_with("v1 args=") && text.ends_with(" command=-"), "{text}");
        assert_eq!(Fingerprint::parse(&text), Some(print));
        assert_eq!(Fingerprint::parse("v2 args=1"), None);
        assert_eq!(Fingerprint::parse("v1 junk"), None);
    }

    #[test]
    fn a_changed_field_is_named() {
        let old = Fingerprint::new().with("args", &["a"]).with("env", &["x"]);
        let new = Fingerprint::new().with("args", &["b"]).with("env", &["x"]);
        assert_eq!(new.changed_fields(&old), ["args"]);
    }

    #[test]
    fn setting_and_clearing_a_known_field_are_changes() {
        let without = Fingerprint::new().with("args", &None::<Vec<String>>);
        let with = Fingerprint::new().with("args", &Some(vec!["b"]));
        assert_eq!(with.changed_fields(&without), ["args"]);
        assert_eq!(without.changed_fields(&with), ["args"]);
        let empty = Fingerprint::new().with("args", &Vec::<String>::new());
        assert!(empty.changed_fields(&without).is_empty());
    }

    /// An agent that learns a new field, and one that forgets a field, restart nothing.
    #[test]
    fn a_field_that_only_one_version_knows_is_no_change() {
        let old = Fingerprint::new().with("args", &["a"]);
        let newer = Fingerprint::new().with("args", &["a"]).with("stopSignal", &Some("SIGUSR1"));
        assert!(newer.changed_fields(&old).is_empty());
        assert!(old.changed_fields(&newer).is_empty());
    }
}
