//! JSON to [`Node`], refusing duplicate keys, which serde_json itself lets pass.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::YamlError;
use super::node::{Entry, Node, Value};
use super::scalar;

/// Reads a JSON document of at most `limit` values; no value has a place.
pub(super) fn json(text: &str, limit: usize) -> Result<Node, YamlError> {
    let mut reader = serde_json::Deserializer::from_str(text);
    let room = Cell::new(limit);
    let node = JsonNode(&room).deserialize(&mut reader).and_then(|node| reader.end().map(|()| node));
    node.map_err(|error| {
        if room.get() == 0 {
            return YamlError::TooComplex { what: "values", limit };
        }
        let message = error.to_string();
        // serde_json repeats the place in its message.
        let message = message.split(" at line ").next().unwrap_or(&message).to_owned();
        YamlError::Syntax { format: "JSON", line: error.line(), column: error.column(), message }
    })
}

/// Builds a [`Node`], refusing duplicate keys; holds the number of nodes that may still come.
#[derive(Clone, Copy)]
struct JsonNode<'b>(&'b Cell<usize>);

impl<'de> DeserializeSeed<'de> for JsonNode<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        self.0.set(self.0.get().saturating_sub(1));
        if self.0.get() == 0 {
            return Err(serde::de::Error::custom("too many values"));
        }
        deserializer.deserialize_any(self).map(|value| Node { line: 0, column: 0, value })
    }
}

impl<'de> Visitor<'de> for JsonNode<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Int(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Int(v.into()))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(scalar::number(v))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::Str(v.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !seen.insert(key.clone()) {
                return Err(serde::de::Error::custom(format_args!("duplicate key \"{key}\"")));
            }
            let value = map.next_value_seed(self)?;
            entries.push(Entry { key, line: 0, column: 0, value });
        }
        Ok(Value::Map(entries))
    }
}
