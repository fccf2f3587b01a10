//! Accessors over the v1 Pod, whose fields are nearly all optional: each answers with the API's default
//! where a field is unset, so that no caller repeats the defaulting.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

use super::{
    ids::{PodFullName, PodUid},
    labels,
};

/// The API's default for `terminationGracePeriodSeconds`: seconds between SIGTERM and SIGKILL.
pub const DEFAULT_GRACE_SECONDS: i64 = 30;

/// What kind of container a pod's entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ContainerKind {
    /// An init container that runs to its end before the next one.
    Init,
    /// A restartable init container (`restartPolicy: Always` in `initContainers`).
    Sidecar,
    /// An entry of `containers`.
    Regular,
    /// An entry of `ephemeralContainers`, put into a pod that runs: started once, and nothing depends on it.
    Ephemeral,
}

/// A pod's restart policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Started again whatever the exit code.
    Always,
    /// Started again after a non-zero exit code.
    OnFailure,
    /// Never started again.
    Never,
}

impl RestartPolicy {
    /// Reads the API's text; an unknown one is `None`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "Always" => Some(Self::Always),
            "OnFailure" => Some(Self::OnFailure),
            "Never" => Some(Self::Never),
            _ => None,
        }
    }
}

/// Accessors with the API's defaults.
pub trait PodExt {
    /// `metadata.uid`, empty where unset.
    fn uid(&self) -> PodUid;
    /// Namespace (default `default`) and name.
    fn full_name(&self) -> PodFullName;
    /// The specification; an empty one where unset.
    fn spec(&self) -> &PodSpec;
    /// `spec.restartPolicy`, default Always.
    fn restart_policy(&self) -> RestartPolicy;
    /// `spec.hostNetwork`.
    fn host_network(&self) -> bool;
    /// `spec.terminationGracePeriodSeconds`, at least 1 as kubelet has it for a value of 0 in the spec.
    fn grace_period(&self) -> Duration;
    /// An annotation's value.
    fn annotation(&self, key: &str) -> Option<&str>;
    /// Every init container, sidecar and regular container with its kind, in the order of the spec. Ephemeral
    /// ones are not what a pod is made of, and not among them.
    fn all_containers(&self) -> Vec<(ContainerKind, &Container)>;
    /// Whether the pod comes from a file or a URL and not from an API server.
    fn is_static(&self) -> bool;
}

static EMPTY_SPEC: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);

impl PodExt for Pod {
    fn uid(&self) -> PodUid {
        PodUid::new(self.metadata.uid.as_deref().unwrap_or_default())
    }

    fn full_name(&self) -> PodFullName {
        PodFullName::new(
            self.metadata.namespace.as_deref().unwrap_or("default"),
            self.metadata.name.as_deref().unwrap_or_default(),
        )
    }

    fn spec(&self) -> &PodSpec {
        self.spec.as_ref().unwrap_or(&EMPTY_SPEC)
    }

    fn restart_policy(&self) -> RestartPolicy {
        self.spec().restart_policy.as_deref().and_then(RestartPolicy::parse).unwrap_or(RestartPolicy::Always)
    }

    fn host_network(&self) -> bool {
        self.spec().host_network.unwrap_or(false)
    }

    fn grace_period(&self) -> Duration {
        let seconds = self.spec().termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE_SECONDS);
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0).max(1))
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        self.metadata.annotations.as_ref()?.get(key).map(String::as_str)
    }

    fn all_containers(&self) -> Vec<(ContainerKind, &Container)> {
        let spec = self.spec();
        let init = spec.init_containers.iter().flatten().map(|c| (init_kind(c), c));
        let regular = spec.containers.iter().map(|c| (ContainerKind::Regular, c));
        init.chain(regular).collect()
    }

    fn is_static(&self) -> bool {
        self.annotation(labels::CONFIG_SOURCE).is_some_and(|source| source != "api")
    }
}

/// An ephemeral container as any other, without what such a one may not have: ports, probes, hooks, resources
/// and rules for its restart.
pub fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let own = ephemeral.clone();
    Container {
        args: own.args,
        command: own.command,
        env: own.env,
        env_from: own.env_from,
        image: own.image,
        image_pull_policy: own.image_pull_policy,
        name: own.name,
        security_context: own.security_context,
        stdin: own.stdin,
        stdin_once: own.stdin_once,
        termination_message_path: own.termination_message_path,
        termination_message_policy: own.termination_message_policy,
        tty: own.tty,
        volume_devices: own.volume_devices,
        volume_mounts: own.volume_mounts,
        working_dir: own.working_dir,
        ..Container::default()
    }
}

/// Whether an entry of `initContainers` is a sidecar.
pub fn init_kind(container: &Container) -> ContainerKind {
    match container.restart_policy.as_deref() {
        Some("Always") => ContainerKind::Sidecar,
        _ => ContainerKind::Init,
    }
}
