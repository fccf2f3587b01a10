//! What a pod is given by the API server: ConfigMaps, Secrets and tokens, as far as they are known, and which of them
//! it names.
//!
//! None of the types here shows what it holds: they end up in errors, logs and tests by their names alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvFromSource, EnvVar, Pod, Secret, Volume};

use super::env::ConfigError;
use crate::api::PodExt as _;

/// What kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectKind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

impl ObjectKind {
    /// As the API writes it.
    pub fn kind(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        }
    }

    /// As kubelet writes it where one is missing.
    pub fn resource(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }
}

/// An object's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// What kind of object.
    pub kind: ObjectKind,
    /// Its namespace, which is the pod's.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind.kind(), self.namespace, self.name)
    }
}

/// What is in a ConfigMap or Secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ObjectData {
    /// `data` by key.
    pub data: BTreeMap<String, Vec<u8>>,
    /// `binaryData` of a ConfigMap: for files alone.
    pub binary: BTreeMap<String, Vec<u8>>,
    /// A Secret's `type`.
    pub type_: String,
    /// Whether it never changes.
    pub immutable: bool,
}

impl fmt::Debug for ObjectData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} hidden values", self.data.len() + self.binary.len())
    }
}

impl From<ConfigMap> for ObjectData {
    fn from(object: ConfigMap) -> Self {
        let text = object.data.unwrap_or_default().into_iter();
        let binary = object.binary_data.unwrap_or_default().into_iter();
        Self {
            data: text.map(|(key, value)| (key, value.into_bytes())).collect(),
            binary: binary.map(|(key, value)| (key, value.0)).collect(),
            type_: String::new(),
            immutable: object.immutable == Some(true),
        }
    }
}

impl From<Secret> for ObjectData {
    fn from(object: Secret) -> Self {
        let data = object.data.unwrap_or_default().into_iter();
        Self {
            data: data.map(|(key, value)| (key, value.0)).collect(),
            binary: BTreeMap::new(),
            type_: object.type_.unwrap_or_default(),
            immutable: object.immutable == Some(true),
        }
    }
}

/// What is known of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// What is in it, as last heard.
    Found(Arc<ObjectData>),
    /// The server has none.
    Missing,
    /// The server has not said; why.
    Unknown(String),
}

/// A token as a pod asks for it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenKey {
    /// Whom it is for; empty for the API server itself.
    pub audience: String,
    /// How long it is to be good for, in seconds.
    pub seconds: i64,
}

/// A token. It is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenText(pub String);

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hidden")
    }
}

/// What is known of all that a pod is given.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// Its objects.
    pub objects: BTreeMap<ObjectKey, Lookup>,
    /// Its tokens, or why there is none.
    pub tokens: BTreeMap<TokenKey, Result<TokenText, String>>,
    /// The variables that tell of services.
    pub services: BTreeMap<String, String>,
}

impl Given {
    /// What is in an object of the pod's namespace; `None` of one that may be missing and is.
    ///
    /// # Errors
    /// In kubelet's words for one that is missing, else in the server's.
    pub fn object(
        &self,
        kind: ObjectKind,
        pod: &Pod,
        name: &str,
        optional: bool,
    ) -> Result<Option<&ObjectData>, ConfigError> {
        let namespace = pod.full_name().namespace.to_string();
        let key = ObjectKey { kind, namespace, name: name.to_owned() };
        let named = format!("{} {name:?}", kind.resource());
        match self.objects.get(&key) {
            Some(Lookup::Found(data)) => Ok(Some(data)),
            Some(Lookup::Missing) if optional => Ok(None),
            Some(Lookup::Missing) => Err(ConfigError::new(format!("{named} not found"))),
            Some(Lookup::Unknown(why)) => Err(ConfigError::new(format!("{named}: {why}"))),
            None => Err(ConfigError::new(format!("{named} is in an API server, which this node has not"))),
        }
    }
}

/// All objects that a pod names, for whatever.
pub fn references(pod: &Pod) -> BTreeSet<ObjectKey> {
    let mut found = volume_references(pod);
    for (_, container) in pod.all_containers() {
        found.extend(env_references(pod, container));
    }
    let ephemeral = pod.spec().ephemeral_containers.iter().flatten();
    for container in ephemeral {
        let (env, from) = (container.env.as_deref(), container.env_from.as_deref());
        found.extend(of_env(pod, env.unwrap_or_default(), from.unwrap_or_default()));
    }
    found.extend(pull_references(pod));
    found
}

/// The objects in a pod's volumes.
pub fn volume_references(pod: &Pod) -> BTreeSet<ObjectKey> {
    let volumes = pod.spec().volumes.iter().flatten();
    volumes.flat_map(of_volume).filter_map(|(kind, name)| key(pod, kind, name)).collect()
}

/// The objects in a container's environment.
pub fn env_references(pod: &Pod, container: &Container) -> BTreeSet<ObjectKey> {
    let (env, from) = (container.env.as_deref(), container.env_from.as_deref());
    of_env(pod, env.unwrap_or_default(), from.unwrap_or_default())
}

/// The Secrets for the registries of a pod's images.
pub fn pull_references(pod: &Pod) -> BTreeSet<ObjectKey> {
    let secrets = pod.spec().image_pull_secrets.iter().flatten();
    secrets.filter_map(|secret| key(pod, ObjectKind::Secret, &secret.name)).collect()
}

/// The tokens in a pod's volumes.
pub fn token_references(pod: &Pod) -> BTreeSet<TokenKey> {
    let volumes = pod.spec().volumes.iter().flatten().filter_map(|volume| volume.projected.as_ref());
    let parts = volumes.flat_map(|projected| projected.sources.iter().flatten());
    let tokens = parts.filter_map(|part| part.service_account_token.as_ref());
    tokens.map(|token| token_key(token.audience.as_deref(), token.expiration_seconds)).collect()
}

/// The token of a source with the API's default of an hour.
pub(super) fn token_key(audience: Option<&str>, seconds: Option<i64>) -> TokenKey {
    TokenKey { audience: audience.unwrap_or_default().to_owned(), seconds: seconds.unwrap_or(3600) }
}

fn key(pod: &Pod, kind: ObjectKind, name: &str) -> Option<ObjectKey> {
    let namespace = pod.full_name().namespace.to_string();
    (!name.is_empty()).then(|| ObjectKey { kind, namespace, name: name.to_owned() })
}

fn of_volume(volume: &Volume) -> Vec<(ObjectKind, &str)> {
    let mut found = Vec::new();
    if let Some(source) = &volume.config_map {
        found.push((ObjectKind::ConfigMap, source.name.as_str()));
    }
    if let Some(name) = volume.secret.as_ref().and_then(|source| source.secret_name.as_deref()) {
        found.push((ObjectKind::Secret, name));
    }
    for part in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
        if let Some(source) = &part.config_map {
            found.push((ObjectKind::ConfigMap, source.name.as_str()));
        }
        if let Some(source) = &part.secret {
            found.push((ObjectKind::Secret, source.name.as_str()));
        }
    }
    found
}

fn of_env(pod: &Pod, env: &[EnvVar], from: &[EnvFromSource]) -> BTreeSet<ObjectKey> {
    let mut found = BTreeSet::new();
    for source in env.iter().filter_map(|var| var.value_from.as_ref()) {
        if let Some(source) = &source.config_map_key_ref {
            found.extend(key(pod, ObjectKind::ConfigMap, &source.name));
        }
        if let Some(source) = &source.secret_key_ref {
            found.extend(key(pod, ObjectKind::Secret, &source.name));
        }
    }
    for source in from {
        if let Some(source) = &source.config_map_ref {
            found.extend(key(pod, ObjectKind::ConfigMap, &source.name));
        }
        if let Some(source) = &source.secret_ref {
            found.extend(key(pod, ObjectKind::Secret, &source.name));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_way_to_name_an_object_is_found() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "ns" },
            "spec": {
                "imagePullSecrets": [{ "name": "pull" }, {}],
                "initContainers": [{ "name": "i", "envFrom": [{ "secretRef": { "name": "s1" } }] }],
                "containers": [{ "name": "c",
                    "env": [
                        { "name": "A", "valueFrom": { "configMapKeyRef": { "name": "c1", "key": "k" } } },
                        { "name": "B", "valueFrom": { "secretKeyRef": { "name": "s2", "key": "k" } } },
                    ],
                    "envFrom": [{ "configMapRef": { "name": "c2" } }] }],
                "ephemeralContainers": [{ "name": "e", "envFrom": [{ "secretRef": { "name": "s3" } }] }],
                "volumes": [
                    { "name": "a", "configMap": { "name": "c3" } },
                    { "name": "b", "secret": { "secretName": "s4" } },
                    { "name": "c", "projected": { "sources": [
                        { "configMap": { "name": "c4" } }, { "secret": { "name": "s5" } },
                        { "serviceAccountToken": { "path": "t" } },
                        { "serviceAccountToken": { "path": "u", "audience": "vault", "expirationSeconds": 600 } },
                    ] } },
                ],
            },
        }))
        .unwrap();
        let names: Vec<String> = references(&pod).iter().map(ToString::to_string).collect();
        let expected = ["ConfigMap ns/c1", "ConfigMap ns/c2", "ConfigMap ns/c3", "ConfigMap ns/c4"]
            .into_iter()
            .chain(["Secret ns/pull", "Secret ns/s1", "Secret ns/s2", "Secret ns/s3"])
            .chain(["Secret ns/s4", "Secret ns/s5"]);
        assert_eq!(names, expected.collect::<Vec<_>>());
        assert_eq!(volume_references(&pod).len(), 4);
        let tokens: Vec<_> = token_references(&pod).into_iter().map(|t| (t.audience, t.seconds)).collect();
        assert_eq!(tokens, [(String::new(), 3600), ("vault".to_owned(), 600)]);
    }

    #[test]
    fn nothing_shows_what_it_holds() {
        let secret = Secret {
            data: Some([("k".to_owned(), k8s_openapi::ByteString(b"hunter2".to_vec()))].into()),
            ..Secret::default()
        };
        let data = ObjectData::from(secret);
        assert_eq!(data.data["k"], b"hunter2");
        let lookup = Lookup::Found(Arc::new(data));
        let mut given = Given::default();
        let key = ObjectKey { kind: ObjectKind::Secret, namespace: "ns".into(), name: "s".into() };
        given.objects.insert(key, lookup);
        let token = TokenKey { audience: String::new(), seconds: 600 };
        given.tokens.insert(token, Ok(TokenText("eyJ".into())));
        let shown = format!("{given:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("eyJ") && !shown.contains("104"), "{shown}");
    }
}
