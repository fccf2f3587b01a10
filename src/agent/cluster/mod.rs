//! The agent as a node of a cluster. Everything here is beside the pods' way: an API server that is away, slow or
//! refuses holds up no pod that the node knows of.

pub mod node;

use std::{path::PathBuf, sync::Arc};

use crate::{
    config::AgentConfig,
    error::CommandError,
    kube::{ApiServer, Kubeconfig, Rate, Rates},
};

/// What the parts that speak to the API server share.
pub struct Cluster {
    /// The server.
    pub api: ApiServer,
    /// The node's name.
    pub node_name: Arc<str>,
    kubeconfig: PathBuf,
}

impl Cluster {
    /// The cluster that the configuration names; `None` of an agent that stands alone.
    pub fn of(config: &AgentConfig) -> Option<Self> {
        let kubeconfig = config.kubeconfig.clone()?;
        let set = |rate: Option<i32>| u32::try_from(rate.unwrap_or_default()).unwrap_or_default();
        let kubelet = &config.kubelet;
        let api = ApiServer::new(Rates {
            objects: Rate { per_second: set(kubelet.kube_api_qps), burst: set(kubelet.kube_api_burst) },
            events: Rate {
                per_second: config.event_record_qps.unwrap_or_default(),
                burst: config.event_burst,
            },
        });
        Some(Self { api, node_name: config.node_name.as_str().into(), kubeconfig })
    }

    /// Takes the credentials of the kubeconfig. Blocks shortly on the file system; must be called on the async
    /// runtime.
    ///
    /// # Errors
    /// Invalid configuration (exit code 2) when the kubeconfig cannot be used.
    pub fn connect(&self) -> Result<(), CommandError> {
        let kubeconfig = Kubeconfig::read(&self.kubeconfig).map_err(CommandError::usage)?;
        self.api.use_credentials(&kubeconfig).map_err(CommandError::usage)
    }
}
