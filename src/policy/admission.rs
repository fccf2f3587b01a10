//! Whether the node takes a pod at all. A pod that it refuses is `Failed` for good, with the reason, as with
//! kubelet (pkg/kubelet/lifecycle): its manifest must change.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{Node, Pod};

use super::{
    fit, host_ports, node::NodeSettings, node_affinity, security, status::PodFailure, sysctls, taints,
};

/// What the answer depends on.
#[derive(Debug, Clone, Copy)]
pub struct AdmissionInput<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The pods that the node has taken and that have not come to their end.
    pub others: &'a [Arc<Pod>],
    /// The node.
    pub node: &'a NodeSettings,
    /// The node as the API server has it, if there is one and it was heard.
    pub server_node: Option<&'a Node>,
}

impl AdmissionInput<'_> {
    /// The node's labels: the API server's word where there is one, for others may set labels there.
    pub(super) fn labels(&self) -> &BTreeMap<String, String> {
        self.server_node.and_then(|node| node.metadata.labels.as_ref()).unwrap_or(&self.node.labels)
    }
}

type Check = fn(&AdmissionInput<'_>) -> Result<(), PodFailure>;

/// What comes before the resources and after them, in the order in which kubelet checks a static pod, where a lack
/// of resources comes after all that no other pod's end could mend.
const BEFORE: &[Check] =
    &[sysctls::admit, node_affinity::admit_system, node_affinity::check, host_ports::check];
const AFTER: &[Check] = &[taints::check, security::admit_app_armor];

/// Makes all checks. Answers which pods are to end before this one may be begun: none but for a critical pod that
/// has no other fault.
///
/// # Errors
/// The first refusal.
pub fn admit(input: &AdmissionInput<'_>) -> Result<Vec<Arc<Pod>>, PodFailure> {
    BEFORE.iter().try_for_each(|check| check(input))?;
    let victims = fit::check(input)?;
    AFTER.iter().try_for_each(|check| check(input))?;
    Ok(victims)
}
