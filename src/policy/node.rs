//! The node's facts and settings that decisions depend on.

use std::net::IpAddr;

use super::{resources::ResourceSettings, security::SecuritySettings};

/// See the module. The defaults are those of nothing configured.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeSettings {
    /// The node's name.
    pub name: String,
    /// The node's addresses, the primary one first.
    pub host_ips: Vec<IpAddr>,
    /// What resources depend on.
    pub resources: ResourceSettings,
    /// What pods' security depends on.
    pub security: SecuritySettings,
}
