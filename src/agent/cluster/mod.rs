//! The agent as a node of a cluster. Everything here is beside the pods' way: an API server that is away, slow or
//! refuses holds up no pod that the node knows of.

pub mod identity;

use std::sync::Arc;

use crate::{
    config::AgentConfig,
    kube::{ApiServer, Rate, Rates},
};

/// What the parts that speak to the API server share.
pub struct Cluster {
    /// The server.
    pub api: ApiServer,
    /// The node's name.
    pub node_name: Arc<str>,
}

impl Cluster {
    /// The cluster that the configuration names; `None` of an agent that stands alone.
    pub fn of(config: &AgentConfig) -> Option<Self> {
        config.kubeconfig.as_ref()?;
        let set = |rate: Option<i32>| u32::try_from(rate.unwrap_or_default()).unwrap_or_default();
        let kubelet = &config.kubelet;
        let api = ApiServer::new(Rates {
            objects: Rate { per_second: set(kubelet.kube_api_qps), burst: set(kubelet.kube_api_burst) },
            events: Rate {
                per_second: config.event_record_qps.unwrap_or_default(),
                burst: config.event_burst,
            },
        });
        Some(Self { api, node_name: config.node_name.as_str().into() })
    }
}
