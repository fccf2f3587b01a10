//! The vocabulary that every other module speaks: identifiers, the v1 Pod with its defaults, the CRI
//! messages, what was observed in the runtime, and the labels by which pods are found again. Data and pure
//! functions only; this module imports nothing else of ours.

pub mod certificate;
pub mod cgroup;
pub mod container_hash;
pub mod cpu_list;
pub mod cri;
pub mod defaults;
pub mod fingerprint;
pub mod ids;
pub mod image_name;
pub mod labels;
pub mod manifest;
pub mod observation;
pub mod pod;
pub mod pod_resources;
pub mod quantity;
pub mod stats;
pub mod suggest;
pub mod sysctl;
pub mod uid_hash;
pub mod usage;
pub mod validation;
pub mod view;
pub mod yaml;

pub use ids::{ContainerId, PodFullName, PodUid, SandboxId};
pub use observation::{ContainerState, ObservedContainer, ObservedSandbox, PodObservation, SandboxState};
pub use pod::{ContainerKind, PodExt, RestartPolicy};
