//! A pod's or container's configuration from a file, in the JSON or YAML that crictl takes.
//!
//! The file is a CRI message: fields by their own names (`log_directory`) or in lowerCamelCase
//! (`logDirectory`), enums by name or number, 64-bit numbers as numbers or texts. What crictl drops without a
//! word is refused here: a field that does not exist, a value of the wrong type. Every error names file, line
//! and field.

use std::{fmt, fs, io::Read};

use prost::Message;
use prost_reflect::{
    DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value as Field,
};

use super::protojson;
use crate::{
    api::{
        cri::{ContainerConfig, PodSandboxConfig},
        suggest::nearest,
        yaml::{self, Limits, Node, Value, YamlError},
    },
    cli::output::printable,
    error::CommandError,
};

/// Bytes of a file; more is none that a person wrote.
const MAX_BYTES: usize = 1 << 20;
const LIMITS: Limits = Limits { bytes: MAX_BYTES, nodes: 100_000, expanded_bytes: 4 * MAX_BYTES };

/// Problems of one file that are told.
const MAX_PROBLEMS: usize = 5;

/// A pod's configuration. A UID is made up where there is none, as crictl does it.
///
/// # Errors
/// [`CommandError`] of wrong usage: the file cannot be read, or is no such configuration.
pub(super) fn pod(path: &str) -> Result<PodSandboxConfig, CommandError> {
    let file = File::read(path)?;
    let mut config: PodSandboxConfig = file.message("PodSandboxConfig")?;
    let metadata = config.metadata.get_or_insert_default();
    for (field, value) in [("name", &metadata.name), ("namespace", &metadata.namespace)] {
        if value.is_empty() {
            return Err(file.missing(&format!("metadata.{field}"), "the pod's"));
        }
    }
    if metadata.uid.is_empty() {
        metadata.uid = random_uid();
    }
    Ok(config)
}

/// A container's configuration. What the user calls the image is the image, unless the file says otherwise.
///
/// # Errors
/// As [`pod`].
pub(super) fn container(path: &str) -> Result<ContainerConfig, CommandError> {
    let file = File::read(path)?;
    let mut config: ContainerConfig = file.message("ContainerConfig")?;
    if config.metadata.as_ref().is_none_or(|metadata| metadata.name.is_empty()) {
        return Err(file.missing("metadata.name", "the container's"));
    }
    let image = config.image.get_or_insert_default();
    if image.image.is_empty() {
        return Err(file.missing("image.image", "the container's"));
    }
    if image.user_specified_image.is_empty() {
        image.user_specified_image.clone_from(&image.image);
    }
    Ok(config)
}

/// A random UUID (version 4).
fn random_uid() -> String {
    let random: u128 = rand::random();
    let digits = format!("{random:032x}");
    // The variant's two bits are 10.
    let variant = char::from(b"89ab"[(random & 3) as usize]);
    format!(
        "{}-{}-4{}-{variant}{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[13..16],
        &digits[17..20],
        &digits[20..]
    )
}

/// A file that was read.
struct File {
    name: String,
    node: Node,
}

/// What is wrong at one place.
struct Problem {
    path: String,
    line: u32,
    detail: String,
}

impl File {
    /// `-` is standard input.
    fn read(path: &str) -> Result<Self, CommandError> {
        let name = if path == "-" { "standard input".to_owned() } else { path.to_owned() };
        let bytes = read_bytes(path)
            .map_err(|error| CommandError::usage(printable(&format!("cannot read {name}: {error}"))))?;
        let node = yaml::parse(&bytes, LIMITS).map_err(|error| {
            let text = match &error {
                YamlError::Faults(faults) => {
                    let at = |line: u32| if line > 0 { format!("line {line}: ") } else { String::new() };
                    let told = faults.iter().take(MAX_PROBLEMS);
                    told.map(|fault| at(fault.line) + &fault.detail).collect::<Vec<_>>().join("; ")
                }
                error => error.to_string(),
            };
            CommandError::usage(printable(&format!("{name}: {text}")))
        })?;
        Ok(Self { name, node })
    }

    /// The file as the message of that name.
    fn message<T: Message + Default>(&self, message: &str) -> Result<T, CommandError> {
        let mut reader = Reader { problems: Vec::new() };
        let read = reader.message(&self.node, &protojson::descriptor(message)?, "");
        if reader.problems.is_empty() {
            return T::decode(read.encode_to_vec().as_slice()).map_err(CommandError::failed);
        }
        let more = reader.problems.len().saturating_sub(MAX_PROBLEMS);
        let told = reader.problems.iter().take(MAX_PROBLEMS).map(ToString::to_string);
        let mut text = told.collect::<Vec<_>>().join("; ");
        if more > 0 {
            text.push_str("; and ");
            text.push_str(&more.to_string());
            text.push_str(" more");
        }
        Err(CommandError::usage(printable(&format!("{}: {text}", self.name))))
    }

    fn missing(&self, path: &str, whose: &str) -> CommandError {
        let line = self.node.line_of(path).unwrap_or_default();
        let field = path.rsplit('.').next().unwrap_or(path);
        let detail = format!("{whose} {field} must be given");
        let problem = Problem { path: path.to_owned(), line, detail };
        CommandError::usage(printable(&format!("{}: {problem}", self.name)))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.detail)
    }
}

fn read_bytes(path: &str) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // One more than is taken, so that a larger one is seen to be larger.
    let limit = MAX_BYTES as u64 + 1;
    if path == "-" {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)?;
    } else {
        fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Reads a tree as messages, and gathers what is wrong with it.
struct Reader {
    problems: Vec<Problem>,
}

impl Reader {
    fn wrong<T>(&mut self, path: &str, line: u32, detail: String) -> Option<T> {
        self.problems.push(Problem { path: path.to_owned(), line, detail });
        None
    }

    fn expected<T>(&mut self, what: &str, node: &Node, path: &str) -> Option<T> {
        let quote = match node.value {
            Value::Bool(_) | Value::Int(_) | Value::Float(_) if what == "a string" => {
                ": put the value in quotes"
            }
            _ => "",
        };
        self.wrong(path, node.line, format!("expected {what}, found {}{quote}", node.kind()))
    }

    fn message(&mut self, node: &Node, descriptor: &MessageDescriptor, path: &str) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        let Value::Map(entries) = &node.value else {
            // `run_as_user: 1000` for `run_as_user: {value: 1000}`.
            match descriptor.get_field_by_name("value") {
                Some(field) if descriptor.fields().len() == 1 => {
                    if let Some(value) = self.field(node, &field, path) {
                        message.set_field(&field, value);
                    }
                }
                _ => {
                    self.expected::<()>("a mapping", node, path);
                }
            }
            return message;
        };
        let mut seen: Vec<u32> = Vec::new();
        for entry in entries {
            let path = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
            let Some(field) = find(descriptor, &entry.key) else {
                let known: Vec<_> = descriptor.fields().collect();
                let near =
                    nearest(&entry.key, known.iter().flat_map(|field| [field.name(), field.json_name()]));
                let near = near.map(|near| format!(", did you mean {near:?}?")).unwrap_or_default();
                self.wrong::<()>(&path, entry.line, format!("there is no such field{near}"));
                continue;
            };
            if entry.value.value == Value::Null {
                continue;
            }
            if seen.contains(&field.number()) {
                self.wrong::<()>(&path, entry.line, format!("{} is given twice", field.name()));
                continue;
            }
            seen.push(field.number());
            if let Some(value) = self.field(&entry.value, &field, &path) {
                message.set_field(&field, value);
            }
        }
        message
    }

    fn field(&mut self, node: &Node, field: &FieldDescriptor, path: &str) -> Option<Field> {
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else { return None };
            let kind = entry.map_entry_value_field().kind();
            let Value::Map(entries) = &node.value else { return self.expected("a mapping", node, path) };
            let mut map = std::collections::HashMap::new();
            for entry in entries {
                let value = self.single(&entry.value, &kind, &format!("{path}[{:?}]", entry.key))?;
                map.insert(MapKey::String(entry.key.clone()), value);
            }
            return Some(Field::Map(map));
        }
        if field.is_list() {
            let Value::Seq(items) = &node.value else { return self.expected("a list", node, path) };
            let items = items.iter().enumerate();
            let read = items.map(|(at, item)| self.single(item, &field.kind(), &format!("{path}[{at}]")));
            return read.collect::<Option<Vec<_>>>().map(Field::List);
        }
        self.single(node, &field.kind(), path)
    }

    fn single(&mut self, node: &Node, kind: &Kind, path: &str) -> Option<Field> {
        match kind {
            Kind::Message(descriptor) => Some(Field::Message(self.message(node, descriptor, path))),
            Kind::Enum(names) => self.enumerated(node, names, path),
            Kind::Bool => match node.value {
                Value::Bool(value) => Some(Field::Bool(value)),
                _ => self.expected("true or false", node, path),
            },
            Kind::String => match &node.value {
                Value::Str(text) => Some(Field::String(text.clone())),
                _ => self.expected("a string", node, path),
            },
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => self.integer(node, path, "32-bit").map(Field::I32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => self.integer(node, path, "64-bit").map(Field::I64),
            Kind::Uint32 | Kind::Fixed32 => self.integer(node, path, "32-bit unsigned").map(Field::U32),
            Kind::Uint64 | Kind::Fixed64 => self.integer(node, path, "64-bit unsigned").map(Field::U64),
            // Configurations have none.
            Kind::Float | Kind::Double | Kind::Bytes => self.expected("nothing", node, path),
        }
    }

    fn integer<T: TryFrom<i128>>(&mut self, node: &Node, path: &str, what: &str) -> Option<T> {
        let number = match &node.value {
            Value::Int(number) => Some(*number),
            Value::Str(text) => text.parse().ok(),
            _ => None,
        };
        match number.map(T::try_from) {
            Some(Ok(number)) => Some(number),
            Some(Err(_)) => self.wrong(path, node.line, format!("the number is no {what} one")),
            None => self.expected("a whole number", node, path),
        }
    }

    fn enumerated(&mut self, node: &Node, names: &EnumDescriptor, path: &str) -> Option<Field> {
        match &node.value {
            // One that the interface has gained since is the runtime's to refuse.
            Value::Int(number) => match i32::try_from(*number) {
                Ok(number) => Some(Field::EnumNumber(number)),
                Err(_) => self.wrong(path, node.line, format!("there is no value {number}")),
            },
            Value::Str(text) => {
                if let Some(value) = names.get_value_by_name(text) {
                    return Some(Field::EnumNumber(value.number()));
                }
                let known: Vec<_> = names.values().collect();
                let near = nearest(text, known.iter().map(prost_reflect::EnumValueDescriptor::name));
                let hint = match near {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => {
                        let few: Vec<_> =
                            known.iter().take(8).map(prost_reflect::EnumValueDescriptor::name).collect();
                        format!("it is one of {}{}", few.join(", "), if known.len() > 8 { ", …" } else { "" })
                    }
                };
                self.wrong(path, node.line, format!("there is no value {text:?}, {hint}"))
            }
            _ => self.expected("a name or number", node, path),
        }
    }
}

/// The field of that name; the case of letters does not matter, as with crictl.
fn find(descriptor: &MessageDescriptor, key: &str) -> Option<FieldDescriptor> {
    descriptor.get_field_by_name(key).or_else(|| descriptor.get_field_by_json_name(key)).or_else(|| {
        descriptor.fields().find(|field| {
            field.name().eq_ignore_ascii_case(key) || field.json_name().eq_ignore_ascii_case(key)
        })
    })
}

#[cfg(test)]
#[path = "message_file_tests.rs"]
mod tests;
