//! From the runtime's messages to what decisions are made of.

use std::net::IpAddr;

use jiff::Timestamp;

use crate::api::{
    ContainerState, ObservedContainer, ObservedSandbox, PodFullName, PodUid, SandboxState,
    cri::{self, ContainerStatus, NamespaceMode, PodSandbox, PodSandboxState, PodSandboxStatus},
    fingerprint::Fingerprint,
    labels,
    observation::ContainerMarks,
};

/// Nanoseconds since the epoch as CRI gives times; 0 is "not yet".
fn time(nanos: i64) -> Option<Timestamp> {
    (nanos > 0).then(|| Timestamp::from_nanosecond(i128::from(nanos)).ok()).flatten()
}

/// The pod that a labelled sandbox or container belongs to; `None` for one that no kubelet made.
pub fn owner(all: &std::collections::BTreeMap<String, String>) -> Option<(PodUid, PodFullName)> {
    let get = |key| all.get(key).map(String::as_str).filter(|value: &&str| !value.is_empty());
    Some((
        PodUid::new(get(labels::POD_UID)?),
        PodFullName::new(get(labels::POD_NAMESPACE)?, get(labels::POD_NAME)?),
    ))
}

/// A sandbox as a list call shows it: without addresses.
pub fn sandbox_from_list(sandbox: &PodSandbox) -> ObservedSandbox {
    ObservedSandbox {
        id: sandbox.id.as_str().into(),
        attempt: sandbox.metadata.as_ref().map_or(0, |m| m.attempt),
        state: match sandbox.state() {
            PodSandboxState::SandboxReady => SandboxState::Ready,
            PodSandboxState::SandboxNotready => SandboxState::NotReady,
        },
        created_at: time(sandbox.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
        ips: Vec::new(),
        host_network: false,
        fingerprint: sandbox
            .annotations
            .get(labels::SANDBOX_FINGERPRINT)
            .and_then(|text| Fingerprint::parse(text)),
        runtime_handler: sandbox.runtime_handler.as_str().into(),
    }
}

/// Adds what only a status call tells.
pub fn complete_sandbox(sandbox: &mut ObservedSandbox, status: &PodSandboxStatus) {
    sandbox.state = match status.state() {
        PodSandboxState::SandboxReady => SandboxState::Ready,
        PodSandboxState::SandboxNotready => SandboxState::NotReady,
    };
    sandbox.host_network = status
        .linux
        .as_ref()
        .and_then(|l| l.namespaces.as_ref())
        .and_then(|n| n.options.as_ref())
        .is_some_and(|options| options.network() == NamespaceMode::Node);
    sandbox.ips = status
        .network
        .iter()
        .flat_map(|network| {
            std::iter::once(network.ip.as_str())
                .chain(network.additional_ips.iter().map(|additional| additional.ip.as_str()))
        })
        .filter_map(|ip| ip.parse::<IpAddr>().ok())
        .collect();
}

/// A container as a list call shows it: without times of start and end, exit code and log.
pub fn container_from_list(container: &cri::Container) -> ObservedContainer {
    let marks = ContainerMarks::read(&container.annotations);
    let metadata = container.metadata.as_ref();
    let attempt = metadata.map_or(0, |m| m.attempt);
    ObservedContainer {
        id: container.id.as_str().into(),
        name: metadata.map_or("", |m| m.name.as_str()).into(),
        sandbox_id: container.pod_sandbox_id.as_str().into(),
        attempt,
        restart_count: marks.restart_count.unwrap_or(attempt),
        state: state(container.state()),
        created_at: time(container.created_at).unwrap_or(Timestamp::UNIX_EPOCH),
        started_at: None,
        finished_at: None,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        image: container.image.as_ref().map(|image| image.image.clone()).unwrap_or_default(),
        image_ref: container.image_ref.clone(),
        log_path: String::new(),
        termination_file: String::new(),
        kubelet_hash: marks.kubelet_hash,
        fingerprint: marks.fingerprint,
        restart_delay_seconds: marks.restart_delay_seconds,
        pod_grace_seconds: marks.pod_grace_seconds,
        sidecar: marks.sidecar,
    }
}

/// Adds what only a status call tells.
pub fn complete_container(container: &mut ObservedContainer, status: &ContainerStatus) {
    container.state = state(status.state());
    container.started_at = time(status.started_at);
    container.finished_at = time(status.finished_at);
    container.exit_code = status.exit_code;
    container.reason.clone_from(&status.reason);
    container.message.clone_from(&status.message);
    container.log_path.clone_from(&status.log_path);
    container.termination_file = termination_file(status).unwrap_or_default().to_owned();
    container.image_ref.clone_from(&status.image_ref);
    if let Some(image) = &status.image {
        // The name that was asked for, where the runtime keeps it apart from the id it resolved to.
        let asked = [&image.user_specified_image, &image.image].into_iter().find(|name| !name.is_empty());
        container.image = asked.cloned().unwrap_or_default();
    }
}

/// The file that is mounted where the container leaves its last words.
fn termination_file(status: &ContainerStatus) -> Option<&str> {
    let path = status.annotations.get(labels::CONTAINER_TERMINATION_MESSAGE_PATH)?;
    let is_there = |mounted: &str| mounted.trim_start_matches('/') == path.trim_start_matches('/');
    let mount = status.mounts.iter().rfind(|mount| is_there(&mount.container_path))?;
    Some(&mount.host_path)
}

fn state(state: cri::ContainerState) -> ContainerState {
    match state {
        cri::ContainerState::ContainerCreated => ContainerState::Created,
        cri::ContainerState::ContainerRunning => ContainerState::Running,
        cri::ContainerState::ContainerExited => ContainerState::Exited,
        cri::ContainerState::ContainerUnknown => ContainerState::Unknown,
    }
}
