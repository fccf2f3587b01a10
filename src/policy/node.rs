//! The node's facts and settings that decisions depend on.

use std::{collections::BTreeMap, net::IpAddr};

use super::{
    allocatable::NodeResources, fit::NodeRoom, resources::ResourceSettings, security::SecuritySettings,
};
use crate::config::ContainerGcSettings;

/// See the module. The defaults are those of nothing configured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeSettings {
    /// The node's name.
    pub name: String,
    /// The node's addresses, the primary one first.
    pub host_ips: Vec<IpAddr>,
    /// Which dead containers are kept.
    pub container_gc: ContainerGcSettings,
    /// `clusterDNS`: the cluster's name servers.
    pub cluster_dns: Vec<IpAddr>,
    /// `clusterDomain`; empty for none.
    pub cluster_domain: String,
    /// Whether the feature gate HostnameOverride is on.
    pub hostname_override: bool,
    /// What resources depend on.
    pub resources: ResourceSettings,
    /// What the node has.
    pub capacity: NodeResources,
    /// What of the node is for pods.
    pub allocatable: NodeResources,
    /// How much pods may request together.
    pub room: NodeRoom,
    /// The node's labels.
    pub labels: BTreeMap<String, String>,
    /// Whether variables may come from files of a volume (gate `EnvFiles`).
    pub env_files: bool,
    /// Whether resources of running pods are changed in place (gate `InPlacePodVerticalScaling`).
    pub in_place_resize: bool,
    /// What pods' security depends on.
    pub security: SecuritySettings,
}
