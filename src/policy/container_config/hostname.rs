//! The name that a pod's processes see as their host's.

use k8s_openapi::api::core::v1::Pod;

use crate::api::PodExt as _;

/// The longest host name that the kernel takes.
const MAX_HOSTNAME: usize = 63;

/// The pod's host name: `spec.hostname`, else its name cut to what the kernel takes.
pub fn pod_hostname(pod: &Pod) -> String {
    let name = match pod.spec().hostname.as_deref() {
        Some(hostname) if !hostname.is_empty() => hostname.to_owned(),
        _ => pod.full_name().name.to_string(),
    };
    if name.len() <= MAX_HOSTNAME {
        return name;
    }
    // A pod's name is ASCII; it may be cut anywhere, but must not end in a dash or dot.
    name.chars().take(MAX_HOSTNAME).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}
