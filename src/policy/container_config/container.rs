//! A container's configuration.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container, ContainerPort, Pod};

use super::{pod_labels, security::container_security};
use crate::{
    api::{
        ContainerId, ContainerKind, PodExt as _,
        container_hash::kubelet_container_hash_text,
        cri::{ContainerConfig, ContainerMetadata, ImageSpec, KeyValue, LinuxContainerConfig, Mount, Signal},
        labels,
    },
    policy::{
        env::ConfigError,
        expansion::{Room, expand},
        fingerprints::container_fingerprint,
        node::NodeSettings,
        pod_actions::StartContainer,
        resources::linux_resources,
        userns::PodIds,
    },
};

/// An image that is on the node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageFacts {
    /// What the runtime called the image when asked for it.
    pub reference: String,
    /// The numeric user that the image names, if it does.
    pub uid: Option<i64>,
    /// The user that the image names by name; empty if it names none or a number.
    pub user_name: String,
}

/// What a container's configuration depends on.
#[derive(Debug, Clone, Copy)]
pub struct ContainerInput<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// The decision to start it.
    pub start: &'a StartContainer,
    /// Its image.
    pub image: &'a ImageFacts,
    /// What is mounted into it.
    pub mounts: &'a Vec<Mount>,
    /// Its environment.
    pub env: &'a [(String, String)],
    /// The host's users and groups behind the pod's own, if it has its own.
    pub user_namespace: Option<PodIds>,
    /// The container whose processes it sees instead of its own; see [`super::target_of`].
    pub target: Option<&'a ContainerId>,
    /// The node.
    pub node: &'a NodeSettings,
}

/// A container's configuration. `image_ref` is what the runtime called the image when asked for it.
///
/// # Errors
/// When something that the container is made from cannot be had; see [`ConfigError`].
pub fn container_config(input: &ContainerInput<'_>) -> Result<ContainerConfig, ConfigError> {
    let ContainerInput { pod, container, start, .. } = *input;
    let values: HashMap<&str, &str> =
        input.env.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    let mut room = Room::default();
    let mut expanded = |field: &str, texts: &Option<Vec<String>>| -> Result<Vec<String>, ConfigError> {
        let texts = texts.iter().flatten();
        let all = texts.map(|text| expand(text, &mut room, |name| values.get(name).copied()));
        all.collect::<Result<_, _>>().map_err(|error| ConfigError::new(format!("{field}: {error}")))
    };
    let mut all_labels = pod_labels(pod);
    all_labels.insert(labels::CONTAINER_NAME.to_owned(), container.name.clone());
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata { name: container.name.clone(), attempt: start.attempt }),
        image: Some(ImageSpec {
            image: input.image.reference.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..ImageSpec::default()
        }),
        command: expanded("command", &container.command)?,
        args: expanded("args", &container.args)?,
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: input
            .env
            .iter()
            .map(|(key, value)| KeyValue { key: key.clone(), value: value.clone() })
            .collect(),
        mounts: input.mounts.clone(),
        labels: all_labels,
        annotations: container_annotations(pod, container, start),
        log_path: format!("{}/{}.log", container.name, start.attempt),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        tty: container.tty.unwrap_or(false),
        linux: Some(LinuxContainerConfig {
            resources: Some(linux_resources(pod, container, &input.node.resources)),
            security_context: Some(container_security(input)?),
        }),
        stop_signal: stop_signal(container).into(),
        ..ContainerConfig::default()
    })
}

/// The signal that the specification asks for; the runtime's own choice where it does not.
fn stop_signal(container: &Container) -> Signal {
    let name = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.as_deref());
    // `SIGRTMIN+3` is `SIGRTMINPLUS3` in the runtime's interface.
    let name = name.unwrap_or_default().replace('+', "PLUS").replace('-', "MINUS");
    Signal::from_str_name(&name).unwrap_or_default()
}

fn container_annotations(
    pod: &Pod,
    container: &Container,
    start: &StartContainer,
) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([
        (labels::CONTAINER_HASH.to_owned(), kubelet_container_hash_text(container)),
        (labels::CONTAINER_RESTART_COUNT.to_owned(), start.attempt.to_string()),
        (
            labels::CONTAINER_TERMINATION_MESSAGE_PATH.to_owned(),
            container.termination_message_path.clone().unwrap_or_default(),
        ),
        (
            labels::CONTAINER_TERMINATION_MESSAGE_POLICY.to_owned(),
            container.termination_message_policy.clone().unwrap_or_default(),
        ),
        (labels::CONTAINER_FINGERPRINT.to_owned(), container_fingerprint(pod, container).to_string()),
        (labels::RESTART_DELAY.to_owned(), start.next_delay_seconds.to_string()),
    ]);
    if let Some(seconds) = pod.spec().termination_grace_period_seconds {
        all.insert(labels::POD_TERMINATION_GRACE_PERIOD.to_owned(), seconds.to_string());
    }
    if let Some(seconds) = pod.metadata.deletion_grace_period_seconds {
        all.insert(labels::POD_DELETION_GRACE_PERIOD.to_owned(), seconds.to_string());
    }
    if start.kind == ContainerKind::Sidecar {
        all.insert(labels::SIDECAR.to_owned(), "true".to_owned());
    }
    let ports: &[ContainerPort] = container.ports.as_deref().unwrap_or_default();
    if !ports.is_empty()
        && let Ok(json) = serde_json::to_string(ports)
    {
        all.insert(labels::CONTAINER_PORTS.to_owned(), json);
    }
    all
}
