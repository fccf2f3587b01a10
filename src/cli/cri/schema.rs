//! `nodectl cri runp jsonschema` and its kin: the JSON schema of the files of pods and containers, for editors
//! and checkers. It is made from the interface's own description, and has the fields' own names.

use std::{collections::BTreeMap, io::Write};

use clap::{Args, Subcommand};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::protojson;
use crate::{
    cli::output::{self, write},
    error::CommandError,
};

/// Below verbs that take a pod's file.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum PodSchema {
    /// Print the JSON schema of the pod's file
    #[command(visible_alias = "js")]
    Jsonschema,
}

/// Below verbs that take both files.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum Schema {
    /// Print the JSON schema of the pod's or the container's file
    #[command(visible_alias = "js")]
    Jsonschema(SchemaArgs),
}

/// Arguments of `nodectl cri create jsonschema`.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = true)]
pub(super) struct SchemaArgs {
    /// That of the pod's file
    #[arg(short, long)]
    pod: bool,
    /// That of the container's file
    #[arg(short, long)]
    container: bool,
}

impl PodSchema {
    pub(super) fn print(&self, out: &mut dyn Write) -> Result<(), CommandError> {
        let Self::Jsonschema = self;
        print("PodSandboxConfig", out)
    }
}

impl Schema {
    pub(super) fn print(&self, out: &mut dyn Write) -> Result<(), CommandError> {
        let Self::Jsonschema(args) = self;
        if args.pod {
            print("PodSandboxConfig", out)?;
        }
        if args.container {
            print("ContainerConfig", out)?;
        }
        Ok(())
    }
}

fn print(name: &str, out: &mut dyn Write) -> Result<(), CommandError> {
    write(out, &output::json(&schema(name)?)?)
}

fn schema(name: &str) -> Result<Value, CommandError> {
    let mut definitions = BTreeMap::new();
    define(&protojson::descriptor(name)?, &mut definitions);
    Ok(json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": format!("#/$defs/{name}"),
        "$defs": definitions,
    }))
}

/// Describes a message, and all that it holds, once.
fn define(message: &MessageDescriptor, definitions: &mut BTreeMap<String, Value>) {
    if definitions.contains_key(message.name()) {
        return;
    }
    // Before its fields: a message may hold itself.
    definitions.insert(message.name().to_owned(), Value::Null);
    let fields = message.fields().map(|field| (field.name().to_owned(), property(&field, definitions)));
    let properties: Map<String, Value> = fields.collect();
    let described = json!({"type": "object", "properties": properties, "additionalProperties": false});
    definitions.insert(message.name().to_owned(), described);
}

fn property(field: &FieldDescriptor, definitions: &mut BTreeMap<String, Value>) -> Value {
    match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            let value = kind(&entry.map_entry_value_field().kind(), definitions);
            json!({"type": "object", "additionalProperties": value})
        }
        item if field.is_list() => json!({"type": "array", "items": kind(&item, definitions)}),
        single => kind(&single, definitions),
    }
}

fn kind(kind: &Kind, definitions: &mut BTreeMap<String, Value>) -> Value {
    match kind {
        Kind::Message(message) => {
            define(message, definitions);
            json!({"$ref": format!("#/$defs/{}", message.name())})
        }
        Kind::Enum(names) => {
            let names = names.values().map(|value| Value::from(value.name()));
            json!({"anyOf": [{"type": "integer"}, {"enum": names.collect::<Vec<_>>()}]})
        }
        Kind::Bool => json!({"type": "boolean"}),
        Kind::String | Kind::Bytes => json!({"type": "string"}),
        Kind::Float | Kind::Double => json!({"type": "number"}),
        _ => json!({"type": "integer"}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_described() {
        for (name, field) in [("PodSandboxConfig", "log_directory"), ("ContainerConfig", "log_path")] {
            let schema = schema(name).unwrap();
            let definitions = schema["$defs"].as_object().unwrap();
            assert_eq!(definitions[name]["properties"][field], json!({"type": "string"}));
            let text = schema.to_string();
            for reference in text.split("#/$defs/").skip(1) {
                let name = reference.split('"').next().unwrap();
                assert!(definitions[name]["properties"].is_object(), "{name}");
            }
        }
        let pod = schema("PodSandboxConfig").unwrap();
        let of = |message: &str, field: &str| &pod["$defs"][message]["properties"][field];
        assert_eq!(
            *of("PodSandboxConfig", "labels"),
            json!({"type": "object", "additionalProperties": {"type": "string"}})
        );
        assert_eq!(of("PortMapping", "protocol")["anyOf"][1]["enum"], json!(["TCP", "UDP", "SCTP"]));
        assert_eq!(of("DNSConfig", "servers")["items"]["type"], "string");
    }
}
