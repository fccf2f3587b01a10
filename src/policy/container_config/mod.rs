//! What the runtime is asked for: the CRI configuration of a pod's sandbox and containers, with the labels
//! and annotations that kubelet puts there (pkg/kubelet/kuberuntime/kuberuntime_sandbox.go and
//! kuberuntime_container.go).

mod container;
mod effective;
mod ephemeral;
mod hostname;
mod profiles;
mod sandbox;
mod security;
#[cfg(test)]
mod security_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

pub use self::{
    container::{ContainerInput, ImageFacts, container_config},
    ephemeral::target_of,
    hostname::{PodHostname, pod_hostname},
    sandbox::{SandboxInput, sandbox_config},
};
use crate::api::{PodExt as _, PodFullName, PodUid, labels};

/// The name of a pod's log folder: `namespace_name_uid`.
pub fn pod_log_dir_name(name: &PodFullName, uid: &PodUid) -> String {
    format!("{}_{}_{uid}", name.namespace, name.name)
}

fn pod_labels(pod: &Pod) -> BTreeMap<String, String> {
    let name = pod.full_name();
    BTreeMap::from([
        (labels::POD_NAME.to_owned(), name.name.to_string()),
        (labels::POD_NAMESPACE.to_owned(), name.namespace.to_string()),
        (labels::POD_UID.to_owned(), pod.uid().to_string()),
    ])
}
