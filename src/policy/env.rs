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
    node::NodeSettings,
};

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
    /// The node.
    pub node: &'a NodeSettings,
}

/// The environment of a container: in order, each value expanded over those before it; the later of two
/// equal names counts. Services add nothing: they are known from an API server only.
///
/// # Errors
/// When a value cannot be had; the variable is named.
pub fn environment(input: &EnvInput<'_>) -> Result<Vec<(String, String)>, ConfigError> {
    let vars = input.container.env.as_deref().unwrap_or_default();
    let mut known: HashMap<&str, String> = HashMap::new();
    let mut order: Vec<&str> = Vec::with_capacity(vars.len());
    let mut room = Room::default();
    for var in vars {
        let too_much =
            |error: TooMuch| ConfigError::new(format!("environment variable {:?}: {error}", var.name));
        let text = var.value.as_deref().unwrap_or_default();
        let value = match &var.value_from {
            Some(from) if text.is_empty() => {
                let value = value_from(input, from).map_err(|error| ConfigError {
                    message: format!("environment variable {:?}: {}", var.name, error.message),
                    ..error
                })?;
                match value {
                    Some(value) => {
                        room.take(value.len()).map_err(too_much)?;
                        value
                    }
                    None => continue,
                }
            }
            _ => expand(text, &mut room, |name| known.get(name).map(String::as_str)).map_err(too_much)?,
        };
        if known.insert(&var.name, value).is_none() {
            order.push(&var.name);
        }
    }
    Ok(order.into_iter().map(|name| (name.to_owned(), known.remove(name).unwrap_or_default())).collect())
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
    } else {
        // A manifest with another source is refused when it is read.
        Err(ConfigError::new("its source is in an API server, which this node has not"))
    }
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
