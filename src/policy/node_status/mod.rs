//! The Node object as this machine makes it: what a new one says, what is reconciled of one that is there, and the
//! status. The rules are kubelet's (pkg/kubelet/kubelet_node_status.go, pkg/kubelet/nodestatus/setters.go).
//!
//! A Node has many writers: controllers add taints, addresses of a cloud and conditions, people add labels and
//! resources. So nothing is ever written that is not ours, and what is written is told as a patch.

mod patch;
mod status;

use std::{collections::BTreeMap, net::IpAddr};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{ContainerImage, Node, NodeSpec, NodeStatus, Taint},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde_json::{Map, Value, json};

pub use self::{
    patch::{content, status_patch},
    status::{images, status},
};
use super::{allocatable::NodeResources, node_affinity::go_arch, pressure::Pressure};
use crate::api::{
    cgroup::hugepage_size_name,
    cri::{RuntimeFeatures, RuntimeHandler},
    quantity::{Format, Quantity},
};

/// Controllers attach and detach this node's volumes (pkg/volume/util).
const CONTROLLER_ATTACHES: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
/// The address that a cloud controller is to find among those of the machine (cloud-provider/api).
const PROVIDED_IP: &str = "alpha.kubernetes.io/provided-node-ip";
/// Keeps pods away until a cloud controller has looked at the node.
const UNINITIALIZED: &str = "node.cloudprovider.kubernetes.io/uninitialized";
/// What of the labels is set anew on a Node that is there; all other labels are then whoever's wrote them last.
const DEFAULT_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "node.kubernetes.io/windows-build",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

/// What stays the same while the agent runs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeTemplate {
    /// The node's name, which is its host name too.
    pub name: String,
    /// Its labels: those of [`super::node_affinity::node_labels`].
    pub labels: BTreeMap<String, String>,
    /// The processor as Rust calls it.
    pub processor: &'static str,
    /// Taints that a new Node has.
    pub taints: Vec<Taint>,
    /// The machine's identity at its cloud provider.
    pub provider_id: Option<String>,
    /// Whether a cloud controller tells the addresses.
    pub external_cloud: bool,
    /// The addresses that were configured.
    pub given_addresses: Vec<IpAddr>,
    /// Whether controllers attach and detach volumes.
    pub controller_attaches: bool,
    /// Port of the node's API.
    pub port: u16,
}

/// Who the machine is and what runs on it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SystemFacts {
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// The firmware's identity of the machine.
    pub system_uuid: String,
    /// The kernel's of this boot.
    pub boot_id: String,
    /// The kernel's release.
    pub kernel_version: String,
    /// The distribution, in words.
    pub os_image: String,
    /// Swap in bytes.
    pub swap_bytes: i64,
}

/// The runtime, as far as it has told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RuntimeTold {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its handlers; empty of a runtime that does not tell.
    pub handlers: Vec<RuntimeHandler>,
    /// What it can do whatever the handler.
    pub features: Option<RuntimeFeatures>,
}

/// What is so at the moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeFacts {
    /// The node's addresses, the primary one first.
    pub addresses: Vec<IpAddr>,
    /// What the node has, by resource.
    pub capacity: BTreeMap<String, Quantity>,
    /// What of it is for pods.
    pub allocatable: BTreeMap<String, Quantity>,
    /// The machine.
    pub system: SystemFacts,
    /// The runtime; `None` before it has answered.
    pub runtime: Option<RuntimeTold>,
    /// Images on the node, as [`images`] gives them; `None` before they are known.
    pub images: Option<Vec<ContainerImage>>,
    /// Why no pod can run; empty of a node that is ready.
    pub problems: Vec<String>,
    /// What the node is short of.
    pub pressures: std::collections::BTreeSet<Pressure>,
}

/// Amounts as the Node tells them: what the machine did not tell is left out.
pub fn resources(
    amounts: NodeResources,
    pods: Option<u32>,
    hugepage_bytes: &BTreeMap<u64, u64>,
) -> BTreeMap<String, Quantity> {
    let binary = |bytes: i64| Quantity::from_value(bytes, Format::BinarySi);
    let mut all: BTreeMap<String, Quantity> = [
        ("cpu", Quantity::from_milli(amounts.milli_cpu)),
        ("memory", binary(amounts.memory_bytes)),
        ("ephemeral-storage", binary(amounts.ephemeral_storage_bytes)),
    ]
    .map(|(name, amount)| (name.to_owned(), amount))
    .into();
    if let Some(pods) = pods {
        all.insert("pods".to_owned(), Quantity::from_value(pods.into(), Format::DecimalSi));
    }
    for (size, bytes) in hugepage_bytes {
        // `2MB` is `2Mi` to the API.
        let name = format!("hugepages-{}i", hugepage_size_name(*size).trim_end_matches('B'));
        all.insert(name, binary(i64::try_from(*bytes).unwrap_or(i64::MAX)));
    }
    all
}

fn labels(template: &NodeTemplate) -> BTreeMap<String, String> {
    // Older releases' names of the two, which kubelets still set.
    let mut all: BTreeMap<String, String> =
        [("beta.kubernetes.io/os", "linux"), ("beta.kubernetes.io/arch", go_arch(template.processor))]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
    all.extend(template.labels.clone());
    all
}

fn annotations(template: &NodeTemplate) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    if template.controller_attaches {
        all.insert(CONTROLLER_ATTACHES.to_owned(), "true".to_owned());
    }
    if template.external_cloud && !template.given_addresses.is_empty() {
        let given: Vec<String> = template.given_addresses.iter().map(ToString::to_string).collect();
        all.insert(PROVIDED_IP.to_owned(), given.join(","));
    }
    all
}

/// A Node to be made.
pub fn new_node(template: &NodeTemplate, facts: &NodeFacts, now: Timestamp) -> Node {
    let mut taints = template.taints.clone();
    if template.external_cloud {
        taints.push(Taint {
            key: UNINITIALIZED.to_owned(),
            value: Some("true".to_owned()),
            effect: "NoSchedule".to_owned(),
            time_added: None,
        });
    }
    Node {
        metadata: ObjectMeta {
            name: Some(template.name.clone()),
            labels: Some(labels(template)),
            annotations: Some(annotations(template)).filter(|all| !all.is_empty()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            taints: Some(taints).filter(|taints| !taints.is_empty()),
            provider_id: template.provider_id.clone(),
            ..NodeSpec::default()
        }),
        status: Some(status(&NodeStatus::default(), template, facts, now)),
    }
}

/// What of a Node that is there is not as this agent has it: a patch of its status, which carries labels and
/// annotations too. `None` where nothing is to change.
///
/// As with kubelet the default labels are ours, and the annotations that say how the node works; taints, the provider
/// id and any other label are only given to a new Node, and are whoever's wrote them last. Huge pages of a size that
/// the kernel has no more go; resources of others stay.
pub fn reconcile(existing: &Node, template: &NodeTemplate, facts: &NodeFacts) -> Option<Value> {
    let mut patch = Map::new();
    let mut metadata = Map::new();
    let old = existing.metadata.labels.as_ref();
    let changed: Map<String, Value> = labels(template)
        .into_iter()
        .filter(|(name, value)| {
            DEFAULT_LABELS.contains(&name.as_str()) && old.and_then(|old| old.get(name)) != Some(value)
        })
        // An empty one is none.
        .map(|(name, value)| (name, if value.is_empty() { Value::Null } else { value.into() }))
        .filter(|(name, value)| !value.is_null() || old.is_some_and(|old| old.contains_key(name)))
        .collect();
    if !changed.is_empty() {
        metadata.insert("labels".to_owned(), changed.into());
    }
    let old = existing.metadata.annotations.as_ref();
    let ours = annotations(template);
    let changed: Map<String, Value> = [CONTROLLER_ATTACHES, PROVIDED_IP]
        .into_iter()
        .filter(|name| ours.get(*name) != old.and_then(|old| old.get(*name)))
        .map(|name| (name.to_owned(), ours.get(name).map_or(Value::Null, |value| value.as_str().into())))
        .collect();
    if !changed.is_empty() {
        metadata.insert("annotations".to_owned(), changed.into());
    }
    if !metadata.is_empty() {
        patch.insert("metadata".to_owned(), metadata.into());
    }
    let mut status = Map::new();
    let there = existing.status.as_ref();
    for (name, map) in [
        ("capacity", there.and_then(|s| s.capacity.as_ref())),
        ("allocatable", there.and_then(|s| s.allocatable.as_ref())),
    ] {
        let gone: Map<String, Value> = map
            .into_iter()
            .flat_map(BTreeMap::keys)
            .filter(|resource| resource.starts_with("hugepages-") && !facts.capacity.contains_key(*resource))
            .map(|resource| (resource.clone(), Value::Null))
            .collect();
        if !gone.is_empty() {
            status.insert(name.to_owned(), gone.into());
        }
    }
    if !status.is_empty() {
        patch.insert("status".to_owned(), status.into());
    }
    (!patch.is_empty()).then(|| json!(patch))
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
