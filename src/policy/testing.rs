//! Observations and pods in short form, for the tests of the decisions.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Container, Pod, PodSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{
    allocatable::NodeResources,
    container_config::{ContainerInput, ImageFacts},
    env::{ConfigError, EnvFiles, EnvInput, environment},
    given::Given,
    node::NodeSettings,
    pod_actions::StartContainer,
    resources::ResourceSettings,
    userns::PodIds,
};
use crate::api::{
    ContainerKind, ContainerState, ObservedContainer, ObservedSandbox, PodFullName, PodObservation,
    SandboxState, container_hash::kubelet_container_hash,
};

/// The image of every test container.
pub(crate) const IMAGE: &str = "localhost/app:1";

/// A container spec of a name.
pub(crate) fn spec(name: &str) -> Container {
    Container { name: name.into(), image: Some(IMAGE.into()), ..Container::default() }
}

/// A pod `default/p` with UID `u` and the given regular containers.
pub(crate) fn pod(containers: &[&str]) -> Pod {
    Pod {
        metadata: ObjectMeta {
            name: Some("p".into()),
            namespace: Some("default".into()),
            uid: Some("u".into()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: containers.iter().map(|name| spec(name)).collect(),
            ..PodSpec::default()
        }),
        status: None,
    }
}

/// A running container at attempt 0, with kubelet's hash for [`spec`] of that name.
pub(crate) fn container(name: &str, sandbox: &str) -> ObservedContainer {
    ObservedContainer {
        id: format!("{sandbox}-{name}-0").into(),
        name: name.into(),
        sandbox_id: sandbox.into(),
        attempt: 0,
        restart_count: 0,
        state: ContainerState::Running,
        created_at: Timestamp::UNIX_EPOCH,
        started_at: Some(Timestamp::UNIX_EPOCH),
        finished_at: None,
        exit_code: 0,
        reason: String::new(),
        message: String::new(),
        image: IMAGE.into(),
        image_ref: "sha256:0".into(),
        log_path: String::new(),
        termination_file: String::new(),
        kubelet_hash: Some(kubelet_container_hash(&spec(name))),
        fingerprint: None,
        restart_delay_seconds: Some(0),
        pod_grace_seconds: None,
        sidecar: false,
    }
}

/// The same, ended with an exit code at the given second.
pub(crate) fn exited(name: &str, sandbox: &str, exit_code: i32, second: i64) -> ObservedContainer {
    ObservedContainer {
        state: ContainerState::Exited,
        finished_at: Timestamp::from_second(second).ok(),
        exit_code,
        ..container(name, sandbox)
    }
}

/// A ready sandbox with an address.
pub(crate) fn sandbox(id: &str, attempt: u32) -> ObservedSandbox {
    ObservedSandbox {
        id: id.into(),
        attempt,
        state: SandboxState::Ready,
        created_at: Timestamp::UNIX_EPOCH,
        ips: vec![std::net::Ipv4Addr::new(10, 0, 0, 2).into()],
        host_network: false,
        fingerprint: None,
        runtime_handler: "".into(),
    }
}

/// An observation of pod `default/p` with UID `u`.
pub(crate) fn observed(
    sandboxes: Vec<ObservedSandbox>,
    containers: Vec<ObservedContainer>,
) -> PodObservation {
    let mut observation = PodObservation {
        sandboxes,
        containers,
        ..PodObservation::empty("u".into(), PodFullName::new("default", "p"), Timestamp::UNIX_EPOCH)
    };
    observation.sort();
    observation
}

/// A node of 1 GiB that enforces CPU limits.
pub(crate) fn node() -> NodeSettings {
    NodeSettings {
        name: "node1".into(),
        resources: ResourceSettings {
            node_memory_bytes: 1 << 30,
            cpu_cfs_quota: true,
            cpu_cfs_period_micros: 100_000,
            ..ResourceSettings::default()
        },
        allocatable: NodeResources {
            milli_cpu: 1900,
            memory_bytes: 1_000_000_000,
            ephemeral_storage_bytes: 5_000_000_000,
        },
        env_files: true,
        ..NodeSettings::default()
    }
}

/// The decision to start container `a` for the fourth time.
pub(crate) fn start(kind: ContainerKind) -> StartContainer {
    StartContainer {
        kind,
        index: 0,
        name: "a".into(),
        sandbox_id: "s".into(),
        attempt: 3,
        next_delay_seconds: 40,
        made: None,
    }
}

/// All that the configuration of a pod's first container depends on.
pub(crate) struct ContainerParts {
    pub(crate) pod: Pod,
    pub(crate) start: StartContainer,
    pub(crate) image: ImageFacts,
    pub(crate) node: NodeSettings,
    pub(crate) pod_ips: Vec<std::net::IpAddr>,
    pub(crate) files: EnvFiles,
    pub(crate) given: Given,
    pub(crate) user_namespace: Option<PodIds>,
}

impl ContainerParts {
    /// With plain surroundings.
    pub(crate) fn of(pod: &Pod) -> Self {
        Self {
            pod: pod.clone(),
            start: start(ContainerKind::Regular),
            image: ImageFacts { reference: "sha256:1".into(), ..ImageFacts::default() },
            node: node(),
            pod_ips: Vec::new(),
            files: EnvFiles::new(),
            given: Given::default(),
            user_namespace: None,
        }
    }

    /// The container's environment.
    pub(crate) fn environment(&self) -> Result<Vec<(String, String)>, ConfigError> {
        self.env_input(environment)
    }

    /// What a function makes of what the environment depends on.
    pub(crate) fn env_input<R>(&self, make: impl FnOnce(&EnvInput<'_>) -> R) -> R {
        make(&EnvInput {
            pod: &self.pod,
            container: &self.pod.spec.as_ref().unwrap().containers[0],
            pod_ips: &self.pod_ips,
            files: &self.files,
            given: &self.given,
            node: &self.node,
        })
    }

    /// What a function makes of them.
    pub(crate) fn with<R>(&self, make: impl FnOnce(&ContainerInput<'_>) -> R) -> R {
        make(&ContainerInput {
            pod: &self.pod,
            container: &self.pod.spec.as_ref().unwrap().containers[0],
            start: &self.start,
            image: &self.image,
            mounts: &Vec::new(),
            env: &self.environment().unwrap(),
            user_namespace: self.user_namespace,
            target: None,
            node: &self.node,
        })
    }
}
