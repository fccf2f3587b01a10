//! A container's environment.

use std::collections::HashMap;

use thiserror::Error;

use super::{container_config::ContainerInput, expansion::expand};

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

/// The environment of a container: in order, each value expanded over those before it; the later of two
/// equal names counts.
///
/// # Errors
/// When a value cannot be had.
pub fn environment(input: &ContainerInput<'_>) -> Result<Vec<(String, String)>, ConfigError> {
    let vars = input.container.env.as_deref().unwrap_or_default();
    let mut known: HashMap<&str, String> = HashMap::new();
    let mut order: Vec<&str> = Vec::with_capacity(vars.len());
    for var in vars {
        let value =
            expand(var.value.as_deref().unwrap_or_default(), |name| known.get(name).map(String::as_str));
        if known.insert(&var.name, value).is_none() {
            order.push(&var.name);
        }
    }
    Ok(order.into_iter().map(|name| (name.to_owned(), known.remove(name).unwrap_or_default())).collect())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::EnvVar;

    use super::*;
    use crate::policy::testing;

    #[test]
    fn later_variables_see_earlier_ones() {
        let var = |name: &str, value: &str| EnvVar {
            name: name.into(),
            value: Some(value.into()),
            ..EnvVar::default()
        };
        let mut pod = testing::pod(&["a"]);
        pod.spec.as_mut().unwrap().containers[0].env =
            Some(vec![var("A", "$(B)"), var("B", "b"), var("C", "$(A)-$(B)"), var("B", "again-$(B)")]);
        let env = testing::ContainerParts::of(&pod).with(environment).unwrap();
        let expected = [("A", "$(B)"), ("B", "again-b"), ("C", "$(B)-b")];
        assert_eq!(env, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }
}
