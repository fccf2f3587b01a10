//! CRI messages as JSON in the mapping that protobuf prescribes and crictl prints: lowerCamelCase names,
//! 64-bit integers as texts, enums by name, unset scalars, lists and maps with their defaults. A message
//! that is not there is left out, as crictl leaves it out.
//!
//! It reads the message by its descriptor, so that a field that the interface gains is printed without a
//! line of code here. Keys are sorted: equal states are equal bytes.

use std::sync::LazyLock;

use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage as _,
    Value as Field,
};
use serde_json::{Map, Value};

use crate::{cri::DESCRIPTORS, error::CommandError};

static POOL: LazyLock<Option<DescriptorPool>> = LazyLock::new(|| DescriptorPool::decode(DESCRIPTORS).ok());

/// How fields are written.
#[derive(Clone, Copy)]
enum Style {
    /// As protobuf prescribes.
    Proto,
    /// Go's plain JSON of the generated types, which crictl uses for a runtime's handlers and features:
    /// the interface's own names, and nothing that is unset.
    Go,
}

/// The JSON of a message; `name` is its type without the package, such as `ContainerStatus`.
///
/// # Errors
/// [`CommandError`] if there is no such type, which is a mistake of the caller.
pub(super) fn json(name: &str, message: &impl Message) -> Result<Value, CommandError> {
    Ok(object(&read(name, message)?, Style::Proto))
}

/// The JSON that crictl prints of a runtime's handlers and features.
///
/// # Errors
/// As [`json`].
pub(super) fn go_json(name: &str, message: &impl Message) -> Result<Value, CommandError> {
    Ok(object(&read(name, message)?, Style::Go))
}

/// The description of a message; `name` is its type without the package.
///
/// # Errors
/// As [`json`].
pub(super) fn descriptor(name: &str) -> Result<MessageDescriptor, CommandError> {
    let full = format!("runtime.v1.{name}");
    let descriptor = POOL.as_ref().and_then(|pool| pool.get_message_by_name(&full));
    descriptor.ok_or_else(|| CommandError::failed(format!("no message {full}")))
}

fn read(name: &str, message: &impl Message) -> Result<DynamicMessage, CommandError> {
    DynamicMessage::decode(descriptor(name)?, message.encode_to_vec().as_slice())
        .map_err(CommandError::failed)
}

fn object(message: &DynamicMessage, style: Style) -> Value {
    let mut map = Map::new();
    for field in message.descriptor().fields() {
        let unset = !message.has_field(&field);
        if unset && (matches!(style, Style::Go) || field.supports_presence()) {
            continue;
        }
        let name = match style {
            Style::Proto => field.json_name().to_owned(),
            Style::Go => field.name().to_owned(),
        };
        map.insert(name, value(&message.get_field(&field), &field, style));
    }
    Value::Object(map)
}

fn value(value: &Field, field: &FieldDescriptor, style: Style) -> Value {
    match value {
        Field::List(items) => items.iter().map(|item| single(item, &field.kind(), style)).collect(),
        Field::Map(entries) => {
            let Kind::Message(entry) = field.kind() else { return Value::Null };
            let kind = entry.map_entry_value_field().kind();
            entries.iter().map(|(at, item)| (key(at), single(item, &kind, style))).collect()
        }
        other => single(other, &field.kind(), style),
    }
}

fn single(value: &Field, kind: &Kind, style: Style) -> Value {
    match value {
        Field::Bool(value) => Value::from(*value),
        Field::I32(value) => Value::from(*value),
        Field::U32(value) => Value::from(*value),
        Field::I64(value) => Value::from(value.to_string()),
        Field::U64(value) => Value::from(value.to_string()),
        Field::F32(value) => float(f64::from(*value)),
        Field::F64(value) => float(*value),
        Field::String(value) => Value::from(value.as_str()),
        Field::Bytes(value) => Value::from(base64(value)),
        Field::EnumNumber(number) => match kind {
            // A value that the interface has gained since is its number.
            Kind::Enum(names) => names
                .get_value(*number)
                .map_or_else(|| Value::from(*number), |value| Value::from(value.name())),
            _ => Value::from(*number),
        },
        Field::Message(message) => object(message, style),
        Field::List(_) | Field::Map(_) => Value::Null,
    }
}

fn key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

fn float(value: f64) -> Value {
    let odd = if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    serde_json::Number::from_f64(value).map_or_else(|| Value::from(odd), Value::Number)
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or_default());
        let word = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let used = digit <= chunk.len();
            let index = (word >> (18 - 6 * digit) & 63) as usize;
            text.push(if used { char::from(DIGITS[index]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::cri::{
        Container, ContainerMetadata, ContainerStatus, ExecSyncResponse, FilesystemUsage, Image, Int64Value,
        RuntimeHandler, RuntimeHandlerFeatures, UInt64Value,
    };
    use serde_json::json as expected;

    #[test]
    fn names_integers_enums_and_defaults_are_protojsons() {
        let container = Container {
            id: "a".to_owned(),
            metadata: Some(ContainerMetadata { name: "c".to_owned(), attempt: 2 }),
            state: 1,
            created_at: 1_700_000_000_123_456_789,
            labels: [("x.y/z".to_owned(), "1".to_owned())].into(),
            ..Container::default()
        };
        assert_eq!(
            json("Container", &container).unwrap(),
            expected!({
                "id": "a",
                "podSandboxId": "",
                "metadata": {"name": "c", "attempt": 2},
                "imageRef": "",
                "imageId": "",
                "state": "CONTAINER_RUNNING",
                "createdAt": "1700000000123456789",
                "labels": {"x.y/z": "1"},
                "annotations": {},
            })
        );
    }

    #[test]
    fn what_is_unset_is_printed_unless_it_is_a_message() {
        let image = json("Image", &Image::default()).unwrap();
        assert_eq!(image["repoTags"], expected!([]));
        assert_eq!((&image["size"], &image["pinned"]), (&expected!("0"), &expected!(false)));
        assert!(image.get("uid").is_none(), "{image}");
        let image = Image { uid: Some(Int64Value { value: 0 }), ..Image::default() };
        assert_eq!(json("Image", &image).unwrap()["uid"], expected!({"value": "0"}));
        let usage =
            FilesystemUsage { used_bytes: Some(UInt64Value { value: u64::MAX }), ..Default::default() };
        let usage = json("FilesystemUsage", &usage).unwrap();
        assert_eq!(usage["usedBytes"]["value"], expected!("18446744073709551615"));
    }

    #[test]
    fn unknown_enum_values_are_numbers_and_bytes_are_base64() {
        let status = ContainerStatus { state: 77, ..ContainerStatus::default() };
        assert_eq!(json("ContainerStatus", &status).unwrap()["state"], expected!(77));
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            let answer = ExecSyncResponse { stdout: bytes.as_bytes().to_vec(), ..Default::default() };
            assert_eq!(json("ExecSyncResponse", &answer).unwrap()["stdout"], expected!(text));
        }
        assert_eq!([float(1.5), float(f64::NAN)], [expected!(1.5), expected!("NaN")]);
    }

    #[test]
    fn handlers_are_as_go_writes_them() {
        let features = RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: false };
        let handler = RuntimeHandler { name: String::new(), features: Some(features) };
        assert_eq!(
            go_json("RuntimeHandler", &handler).unwrap(),
            expected!({"features": {"recursive_read_only_mounts": true}})
        );
    }
}
