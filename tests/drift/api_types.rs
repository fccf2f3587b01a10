//! The types of the API, found by asking them: a deserializer that hands every type one value for each of its
//! fields, and notes which type asks for what. So a field that a later API brings cannot be missed.

use serde::de::value::{Error, StrDeserializer};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};

/// A text that every text-like type takes, times among them.
const TEXT: &str = "2026-01-01T00:00:00Z";

/// An object of the API.
#[derive(Debug)]
pub(crate) struct Type {
    /// Its name, `PodSpec`.
    pub(crate) kind: &'static str,
    /// Its fields in the type's own order.
    pub(crate) fields: Vec<Field>,
}

/// A field of an object.
#[derive(Debug)]
pub(crate) struct Field {
    /// Its JSON name.
    pub(crate) name: &'static str,
    /// `[]` where it holds many, else nothing.
    pub(crate) many: &'static str,
    /// What it holds, if that is objects.
    pub(crate) object: Option<Type>,
}

/// The fields of a type, and of the types below it.
pub(crate) fn explore<T: for<'de> Deserialize<'de>>() -> Type {
    let mut found = Field { name: "", many: "", object: None };
    T::deserialize(Asking { field: &mut found, text: TEXT }).expect("the type takes one of everything");
    found.object.expect("an object")
}

/// Answers whatever a type asks for, and writes down what it was.
struct Asking<'a> {
    field: &'a mut Field,
    text: &'static str,
}

impl<'de> Deserializer<'de> for Asking<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.text)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(true)
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_i32(1)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_i64(1)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.field.many = "[]";
        visitor.visit_seq(Once(Some(self)))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.field.many = "[]";
        visitor.visit_map(Once(Some(self)))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        kind: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let object = self.field.object.insert(Type { kind, fields: Vec::new() });
        visitor.visit_map(OneOfEach { object, names: names.iter() })
    }

    serde::forward_to_deserialize_any! {
        i8 i16 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct enum
        identifier ignored_any
    }
}

/// A list or map of one.
struct Once<'a>(Option<Asking<'a>>);

impl<'de> SeqAccess<'de> for Once<'_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        self.0.take().map(|value| seed.deserialize(value)).transpose()
    }
}

impl<'de> MapAccess<'de> for Once<'_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let key: Option<StrDeserializer<'_, Error>> = self.0.as_ref().map(|_| "key".into_deserializer());
        key.map(|key| seed.deserialize(key)).transpose()
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self.0.take().expect("a key came first"))
    }
}

/// An object with all its fields.
struct OneOfEach<'a> {
    object: &'a mut Type,
    names: std::slice::Iter<'static, &'static str>,
}

impl<'de> MapAccess<'de> for OneOfEach<'_> {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let Some(name) = self.names.next() else { return Ok(None) };
        self.object.fields.push(Field { name, many: "", object: None });
        let key: StrDeserializer<'_, Error> = (*name).into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        let kind = self.object.kind;
        let field = self.object.fields.last_mut().expect("a key came first");
        let text = match field.name {
            "apiVersion" => "v1",
            "kind" => kind,
            _ => TEXT,
        };
        seed.deserialize(Asking { field, text })
    }
}
