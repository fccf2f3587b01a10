//! Events: what the API server is told of things that happen to pods and to the node. Which words (those of
//! kubelet 1.35), about which object, and how many of them: a crash loop is an Event that counts, not a thousand.

mod correlate;
mod recent;
mod words;

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod};

pub use self::{
    correlate::{Correlated, Correlator, change_of},
    words::{
        Pull, back_off, condition_words, container_failure, killing, node_became, pod_failure, probe_errored,
        probe_failed, probe_warning, pull_failed, pull_refused, secrets_missing,
    },
};
use crate::api::{ContainerKind, PodExt as _};

/// Whether something is as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// It is.
    Normal,
    /// Somebody may want to look.
    Warning,
}

impl Severity {
    /// The API's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// What is said of a thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// Whether it should have.
    pub severity: Severity,
    /// A CamelCase word.
    pub reason: Cow<'static, str>,
    /// In words. Never holds the value of a variable or a Secret.
    pub message: String,
}

impl Words {
    /// Of what is as it should be.
    pub fn normal(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Normal, reason: reason.into(), message: message.into() }
    }

    /// Of what somebody may want to look at.
    pub fn warning(reason: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, reason: reason.into(), message: message.into() }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Occurrence {
    /// To whom.
    pub object: ObjectReference,
    /// What.
    pub words: Words,
    /// When.
    pub at: Timestamp,
}

/// A pod as the object of an event. Of a static pod it names the mirror, with the UID that the mirror has in its
/// annotation, as kubelet does; `kubectl describe` looks for that.
pub fn of_pod(pod: &Pod) -> ObjectReference {
    let full_name = pod.full_name();
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(full_name.namespace.to_string()),
        name: Some(full_name.name.to_string()),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: None,
    }
}

/// A pod's container as the object of an event.
pub fn of_container(pod: &Pod, name: &str) -> ObjectReference {
    let kind = pod.all_containers().into_iter().find(|(_, c)| c.name == name).map(|(kind, _)| kind);
    let ephemeral = || {
        let mut all = pod.spec().ephemeral_containers.iter().flatten();
        all.any(|c| c.name == name).then_some(ContainerKind::Ephemeral)
    };
    let field_path = kind.or_else(ephemeral).map(|kind| match kind {
        ContainerKind::Init | ContainerKind::Sidecar => format!("spec.initContainers{{{name}}}"),
        ContainerKind::Regular => format!("spec.containers{{{name}}}"),
        ContainerKind::Ephemeral => format!("spec.ephemeralContainers{{{name}}}"),
    });
    ObjectReference { field_path, ..of_pod(pod) }
}

/// The node as the object of an event: its name stands for its UID, as with kubelet, which tells of it before it
/// is registered.
pub fn of_node(name: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Node".to_owned()),
        name: Some(name.to_owned()),
        uid: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn objects_are_named_as_kubelet_does() {
        let pod: Pod = from_value(json!({
            "metadata": { "name": "web", "namespace": "shop", "uid": "u", "resourceVersion": "7" },
            "spec": {
                "initContainers": [{ "name": "first" }, { "name": "side", "restartPolicy": "Always" }],
                "containers": [{ "name": "main" }],
                "ephemeralContainers": [{ "name": "debug" }],
            },
        }))
        .unwrap();
        let path = |name| of_container(&pod, name).field_path;
        assert_eq!(path("main").as_deref(), Some("spec.containers{main}"));
        assert_eq!(path("first").as_deref(), Some("spec.initContainers{first}"));
        assert_eq!(path("side").as_deref(), Some("spec.initContainers{side}"));
        assert_eq!(path("debug").as_deref(), Some("spec.ephemeralContainers{debug}"));
        assert_eq!(path("other"), None);
        assert_eq!(
            serde_json::to_value(of_pod(&pod)).unwrap(),
            json!({
                "apiVersion": "v1", "kind": "Pod", "namespace": "shop", "name": "web", "uid": "u",
                "resourceVersion": "7",
            })
        );
        assert_eq!(
            serde_json::to_value(of_node("n1")).unwrap(),
            json!({ "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "n1" })
        );
    }
}
