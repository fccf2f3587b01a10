//! A container's environment.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
};

use k8s_openapi::api::core::v1::{Container, EnvVarSource, FileKeySelector, Pod};
use thiserror::Error;

use super::{
    downward::Downward,
    env_file::EnvFile,
    expansion::{Room, TooMuch, expand},
    given::{Given, ObjectData, ObjectKind},
    node::NodeSettings,
};
use crate::api::PodExt as _;

/// Why a container's configuration cannot be made (kubelet's `CreateContainerConfigError`).
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct ConfigError {
    /// What is wrong, with the field or object concerned.
    pub message: String,
    /// What to do about it.
    pub hints: Vec<String>,
}

impl ConfigError {
    /// One without hints.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hints: Vec::new() }
    }
}

/// What is in each file that a container's variables come from, by volume and path; `None` of one that is
/// not there.
pub type EnvFiles = BTreeMap<(String, String), Option<EnvFile>>;

/// What a container's environment depends on.
#[derive(Debug, Clone, Copy)]
pub struct EnvInput<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// The pod's addresses, the primary one first; the node's for a pod on the host's network.
    pub pod_ips: &'a [IpAddr],
    /// What is in the files that variables come from.
    pub files: &'a EnvFiles,
    /// The objects that variables come from.
    pub given: &'a Given,
    /// The node.
    pub node: &'a NodeSettings,
}

/// The environment of a container: what `envFrom` brings, as it is, then in order each value of `env`, expanded over
/// those before it and the variables of services; the later of two equal names counts. The variables of services whose
/// names are free come last.
///
/// # Errors
/// When a value cannot be had; the variable is named.
pub fn environment(input: &EnvInput<'_>) -> Result<Vec<(String, String)>, ConfigError> {
    let vars = input.container.env.as_deref().unwrap_or_default();
    let from = env_from(input)?;
    let services = &input.given.services;
    let mut known: HashMap<&str, String> = HashMap::new();
    let mut order: Vec<&str> = Vec::with_capacity(vars.len());
    let mut room = Room::default();
    for (name, value) in &from.vars {
        room.take(value.len())
            .map_err(|error| ConfigError::new(format!("environment variable {name:?}: {error}")))?;
        if known.insert(name, value.clone()).is_none() {
            order.push(name);
        }
    }
    for var in vars {
        let too_much =
            |error: TooMuch| ConfigError::new(format!("environment variable {:?}: {error}", var.name));
        let text = var.value.as_deref().unwrap_or_default();
        let value = match &var.value_from {
            Some(from) if text.is_empty() => {
                let value = value_from(input, from).map_err(|error| ConfigError {
                    message: if is_of_object(from) {
                        error.message
                    } else {
                        format!("environment variable {:?}: {}", var.name, error.message)
                    },
                    hints: error.hints,
                })?;
                match value {
                    Some(value) => {
                        room.take(value.len()).map_err(too_much)?;
                        value
                    }
                    None => continue,
                }
            }
            _ => expand(text, &mut room, |name| {
                known.get(name).or_else(|| services.get(name)).map(String::as_str)
            })
            .map_err(too_much)?,
        };
        if known.insert(&var.name, value).is_none() {
            order.push(&var.name);
        }
    }
    let free = services.iter().filter(|(name, _)| !known.contains_key(name.as_str()));
    let of_services: Vec<_> = free.map(|(name, value)| (name.clone(), value.clone())).collect();
    let own = order.into_iter().map(|name| (name.to_owned(), known.remove(name).unwrap_or_default()));
    Ok(own.chain(of_services).collect())
}

/// What is told of these is kubelet's own text, which people and tools look for.
fn is_of_object(from: &EnvVarSource) -> bool {
    from.config_map_key_ref.is_some() || from.secret_key_ref.is_some()
}

/// A variable's value from elsewhere; `None` if it may be left out and is not there.
fn value_from(input: &EnvInput<'_>, from: &EnvVarSource) -> Result<Option<String>, ConfigError> {
    let told = Downward { pod: input.pod, pod_ips: input.pod_ips, node: input.node };
    if let Some(field) = &from.field_ref {
        told.field(&field.field_path).map(Some)
    } else if let Some(resource) = &from.resource_field_ref {
        told.resource(resource, Some(input.container)).map(Some)
    } else if let Some(file) = &from.file_key_ref {
        from_file(input, file)
    } else if let Some(key) = &from.config_map_key_ref {
        of_object(input, (ObjectKind::ConfigMap, &key.name), &key.key, key.optional)
    } else if let Some(key) = &from.secret_key_ref {
        of_object(input, (ObjectKind::Secret, &key.name), &key.key, key.optional)
    } else {
        // A manifest with another source is refused when it is read.
        Err(ConfigError::new("its source is in an API server, which this node has not"))
    }
}

/// What `envFrom` brings.
#[derive(Default)]
struct EnvFrom {
    vars: Vec<(String, String)>,
    skipped: Vec<String>,
}

/// Which keys of `envFrom` bring no variable, since they could not be the names of one, in kubelet's words.
pub fn skipped_names(input: &EnvInput<'_>) -> Vec<String> {
    env_from(input).map(|from| from.skipped).unwrap_or_default()
}

fn env_from(input: &EnvInput<'_>) -> Result<EnvFrom, ConfigError> {
    let mut all = EnvFrom::default();
    for source in input.container.env_from.iter().flatten() {
        let (kind, name, optional) = if let Some(source) = &source.config_map_ref {
            (ObjectKind::ConfigMap, &source.name, source.optional)
        } else if let Some(source) = &source.secret_ref {
            (ObjectKind::Secret, &source.name, source.optional)
        } else {
            continue;
        };
        let Some(data) = input.given.object(kind, input.pod, name, optional == Some(true))? else { continue };
        let mut skipped = Vec::new();
        for (key, value) in &data.data {
            let variable = format!("{}{key}", source.prefix.as_deref().unwrap_or_default());
            if is_variable_name(&variable) {
                let value = text(value)
                    .map_err(|why| ConfigError::new(format!("{}: {why}", told(input, kind, name, key))))?;
                all.vars.push((variable, value));
            } else {
                skipped.push(variable);
            }
        }
        if !skipped.is_empty() {
            let (keys, kind) =
                (skipped.join(", "), if kind == ObjectKind::Secret { "secret" } else { "configMap" });
            let namespace = input.pod.full_name().namespace;
            all.skipped.push(format!(
                "Keys [{keys}] from the EnvFrom {kind} {namespace}/{name} were skipped since they are considered \
                 invalid environment variable names."
            ));
        }
    }
    Ok(all)
}

/// As the API has it (k8s.io/apimachinery, `IsEnvVarName`).
fn is_variable_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    name.starts_with(|c: char| plain(c) && !c.is_ascii_digit())
        && name.chars().all(plain)
        && name != "."
        && !name.starts_with("..")
}

fn of_object(
    input: &EnvInput<'_>,
    (kind, name): (ObjectKind, &str),
    key: &str,
    optional: Option<bool>,
) -> Result<Option<String>, ConfigError> {
    let optional = optional == Some(true);
    let Some(ObjectData { data, .. }) = input.given.object(kind, input.pod, name, optional)? else {
        return Ok(None);
    };
    match data.get(key) {
        Some(value) => text(value)
            .map(Some)
            .map_err(|why| ConfigError::new(format!("{}: {why}", told(input, kind, name, key)))),
        None if optional => Ok(None),
        None => {
            let namespace = input.pod.full_name().namespace;
            Err(ConfigError::new(format!("couldn't find key {key} in {} {namespace}/{name}", kind.kind())))
        }
    }
}

fn told(input: &EnvInput<'_>, kind: ObjectKind, name: &str, key: &str) -> String {
    format!("key {key:?} of {} {}/{name}", kind.kind(), input.pod.full_name().namespace)
}

/// The runtime takes texts alone. The value is not in the error.
fn text(value: &[u8]) -> Result<String, &'static str> {
    String::from_utf8(value.to_vec())
        .map_err(|_error| "it is no text in UTF-8, so it cannot be a variable; mount it as a file")
}

fn from_file(input: &EnvInput<'_>, file: &FileKeySelector) -> Result<Option<String>, ConfigError> {
    if !input.node.env_files {
        return Err(ConfigError {
            message: "fileKeyRef: the feature gate EnvFiles is off".to_owned(),
            hints: vec!["switch it on in featureGates".to_owned()],
        });
    }
    let optional = file.optional == Some(true);
    let name = format!("file {:?} of volume {:?}", file.path, file.volume_name);
    let found = input.files.get(&(file.volume_name.clone(), file.path.clone())).and_then(Option::as_ref);
    let Some(found) = found else {
        return if optional { Ok(None) } else { Err(ConfigError::new(format!("{name} is not there"))) };
    };
    match found.value(&file.key) {
        Ok(None) if !optional => Err(ConfigError::new(format!("{name} has no variable {:?}", file.key))),
        Ok(value) => Ok(value.map(str::to_owned)),
        Err(error) => Err(ConfigError {
            message: format!("{name}: {error}"),
            hints: vec!["write each variable as NAME='value'".to_owned()],
        }),
    }
}

#[cfg(test)]
#[path = "env_tests.rs"]
mod tests;
