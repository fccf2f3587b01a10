//! Fills the `k8s-openapi` types from a [`Node`], strictly.
//!
//! Those types skip fields that they do not know, and their errors do not say where. This
//! deserializer knows the path and line of everything it hands out, and it sees every skipped
//! field: a type asks it to ignore the value. Unknown fields are all gathered; the first wrong type
//! ends the reading.

use std::cell::RefCell;
use std::fmt;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::{FieldProblem, ManifestError};
use crate::api::suggest::nearest;
use crate::api::yaml::{Entry, Node, Value};

/// Reads `node`, which stands at `path`, as a `T`.
///
/// # Errors
/// [`ManifestError::Fields`] with every unknown field and the first value of a wrong type.
pub(super) fn from_node<'n, T: Deserialize<'n>>(node: &'n Node, path: &str) -> Result<T, ManifestError> {
    let unknown = RefCell::new(Vec::new());
    let root = Place { parent: None, step: Step::Key(path) };
    let result = T::deserialize(NodeReader { node, place: &root, siblings: &[], unknown: &unknown });
    let mut problems = unknown.into_inner();
    match result {
        Ok(value) if problems.is_empty() => Ok(value),
        Ok(_) => Err(ManifestError::Fields(problems)),
        Err(error) => {
            problems.push(FieldProblem { path: error.path, line: error.line, detail: error.detail });
            Err(ManifestError::Fields(problems))
        }
    }
}

/// A path as a list on the stack, spelled out only for an error.
struct Place<'p> {
    parent: Option<&'p Place<'p>>,
    step: Step<'p>,
}

enum Step<'p> {
    Key(&'p str),
    Index(usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = self.parent.map(ToString::to_string).unwrap_or_default();
        match self.step {
            Step::Index(i) => write!(f, "{before}[{i}]"),
            Step::Key(key) if before.is_empty() => f.write_str(key),
            Step::Key(key) => write!(f, "{before}.{key}"),
        }
    }
}

/// An error that learns its place from the innermost reader that it passes.
#[derive(Debug)]
struct ReadError {
    placed: bool,
    path: String,
    line: Option<u32>,
    detail: String,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for ReadError {}

impl de::Error for ReadError {
    fn custom<T: fmt::Display>(detail: T) -> Self {
        Self { placed: false, path: String::new(), line: None, detail: detail.to_string() }
    }
}

#[derive(Clone, Copy)]
struct NodeReader<'n, 'p> {
    node: &'n Node,
    place: &'p Place<'p>,
    /// The fields that the surrounding type knows, to suggest one for a misspelt one.
    siblings: &'static [&'static str],
    unknown: &'p RefCell<Vec<FieldProblem>>,
}

impl<'n> NodeReader<'n, '_> {
    fn line(&self) -> Option<u32> {
        (self.node.line > 0).then_some(self.node.line)
    }

    fn wrong(&self, expected: &str) -> ReadError {
        let found = match &self.node.value {
            Value::Bool(b) => format!("the boolean {b}"),
            Value::Int(i) => format!("the number {i}"),
            Value::Float(x) => format!("the number {x}"),
            _ => self.node.kind().to_owned(),
        };
        let quote = match &self.node.value {
            Value::Bool(_) | Value::Int(_) | Value::Float(_) if expected == "a string" => {
                ": put the value in quotes"
            }
            _ => "",
        };
        de::Error::custom(format_args!("expected {expected}, found {found}{quote}"))
    }

    fn at<T>(&self, result: Result<T, ReadError>) -> Result<T, ReadError> {
        result.map_err(|mut error| {
            if !error.placed {
                error.placed = true;
                error.path = self.place.to_string();
                error.line = self.line();
            }
            error
        })
    }

    fn any<V: Visitor<'n>>(
        &self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(b) => visitor.visit_bool(*b),
            Value::Int(i) => match (i64::try_from(*i), u64::try_from(*i)) {
                (Ok(i), _) => visitor.visit_i64(i),
                (_, Ok(u)) => visitor.visit_u64(u),
                _ => Err(self.wrong("a 64-bit number")),
            },
            Value::Float(x) => visitor.visit_f64(*x),
            Value::Str(s) => visitor.visit_borrowed_str(s),
            Value::Seq(items) => visitor.visit_seq(Items { items: items.iter().enumerate(), reader: *self }),
            Value::Map(entries) => {
                visitor.visit_map(Fields { entries: entries.iter(), value: None, fields, reader: *self })
            }
        }
    }

    /// Hands the value over if it is of the kind that the type expects.
    fn expect<V: Visitor<'n>>(&self, fits: bool, expected: &str, visitor: V) -> Result<V::Value, ReadError> {
        self.at(if fits { self.any(&[], visitor) } else { Err(self.wrong(expected)) })
    }

    fn number<V: Visitor<'n>>(&self, visitor: V) -> Result<V::Value, ReadError> {
        self.expect(matches!(self.node.value, Value::Int(_)), "a whole number", visitor)
    }

    fn text<V: Visitor<'n>>(&self, visitor: V) -> Result<V::Value, ReadError> {
        self.expect(matches!(self.node.value, Value::Str(_)), "a string", visitor)
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
            self.number(visitor)
        }
    )*};
}

impl<'n> Deserializer<'n> for NodeReader<'n, '_> {
    type Error = ReadError;

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }

    fn deserialize_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.at(self.any(&[], visitor))
    }

    fn deserialize_bool<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.expect(matches!(self.node.value, Value::Bool(_)), "true or false", visitor)
    }

    fn deserialize_f32<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.expect(matches!(self.node.value, Value::Int(_) | Value::Float(_)), "a number", visitor)
    }

    fn deserialize_char<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.text(visitor)
    }

    fn deserialize_str<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.text(visitor)
    }

    fn deserialize_string<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.text(visitor)
    }

    fn deserialize_bytes<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.text(visitor)
    }

    fn deserialize_byte_buf<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.text(visitor)
    }

    fn deserialize_option<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => self.at(visitor.visit_some(self)),
        }
    }

    fn deserialize_unit<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.expect(self.node.value == Value::Null, "nothing", visitor)
    }

    fn deserialize_unit_struct<V: Visitor<'n>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'n>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.at(visitor.visit_newtype_struct(self))
    }

    fn deserialize_seq<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.expect(matches!(self.node.value, Value::Seq(_)), "a list", visitor)
    }

    fn deserialize_tuple<V: Visitor<'n>>(self, _len: usize, visitor: V) -> Result<V::Value, ReadError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'n>>(
        self,
        _name: &'static str,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_map<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.expect(matches!(self.node.value, Value::Map(_)), "a mapping", visitor)
    }

    fn deserialize_struct<V: Visitor<'n>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        match self.node.value {
            Value::Map(_) => self.at(self.any(fields, visitor)),
            _ => self.at(Err(self.wrong("a mapping"))),
        }
    }

    fn deserialize_enum<V: Visitor<'n>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ReadError> {
        let Some(text) = self.node.as_str() else { return self.at(Err(self.wrong("a string"))) };
        self.at(visitor.visit_enum(de::value::StrDeserializer::new(text)))
    }

    fn deserialize_identifier<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        self.text(visitor)
    }

    /// The call by which a type says that it does not know this field.
    fn deserialize_ignored_any<V: Visitor<'n>>(self, visitor: V) -> Result<V::Value, ReadError> {
        let Step::Key(name) = self.place.step else { return visitor.visit_unit() };
        let hint = match nearest(name, self.siblings.iter().copied()) {
            Some(near) => format!(", did you mean \"{near}\"?"),
            None => String::new(),
        };
        self.unknown.borrow_mut().push(FieldProblem {
            path: self.place.to_string(),
            line: self.line(),
            detail: format!("unknown field{hint}"),
        });
        visitor.visit_unit()
    }
}

struct Items<'n, 'p, I> {
    items: I,
    reader: NodeReader<'n, 'p>,
}

impl<'n, I: Iterator<Item = (usize, &'n Node)>> SeqAccess<'n> for Items<'n, '_, I> {
    type Error = ReadError;

    fn next_element_seed<T: DeserializeSeed<'n>>(&mut self, seed: T) -> Result<Option<T::Value>, ReadError> {
        let Some((index, node)) = self.items.next() else { return Ok(None) };
        let place = Place { parent: Some(self.reader.place), step: Step::Index(index) };
        let reader = NodeReader { node, place: &place, siblings: &[], unknown: self.reader.unknown };
        seed.deserialize(reader).map(Some)
    }
}

struct Fields<'n, 'p, I> {
    entries: I,
    value: Option<&'n Entry>,
    fields: &'static [&'static str],
    reader: NodeReader<'n, 'p>,
}

impl<'n, I: Iterator<Item = &'n Entry>> MapAccess<'n> for Fields<'n, '_, I> {
    type Error = ReadError;

    fn next_key_seed<K: DeserializeSeed<'n>>(&mut self, seed: K) -> Result<Option<K::Value>, ReadError> {
        self.value = self.entries.next();
        match self.value {
            Some(entry) => seed.deserialize(de::value::BorrowedStrDeserializer::new(&entry.key)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'n>>(&mut self, seed: V) -> Result<V::Value, ReadError> {
        let Some(entry) = self.value.take() else {
            return Err(de::Error::custom("value asked for before its key"));
        };
        let place = Place { parent: Some(self.reader.place), step: Step::Key(&entry.key) };
        let unknown = self.reader.unknown;
        let siblings = self.fields;
        seed.deserialize(NodeReader { node: &entry.value, place: &place, siblings, unknown }).map_err(
            |mut error| {
                // The key's line is nearer to what a reader looks for than that of a nested value.
                if error.placed && error.path == place.to_string() && entry.line > 0 {
                    error.line = Some(entry.line);
                }
                error
            },
        )
    }
}
