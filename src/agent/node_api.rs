//! The node's API as the agent wires it: where it listens, and whether it does.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
};

use tokio_util::sync::CancellationToken;

use super::{cluster::identity::ServingCertificate, pleg::Pleg, pods::env::PodEnv, stats::NodeStats};
use crate::{
    api::{PodObservation, PodUid, view::AgentView},
    config::{AgentConfig, Authorization, NodeApiConfig},
    error::CommandError,
    kube::ApiServer,
    server::node_api::{NodeApi, Observed, Parts},
};

impl Observed for Pleg {
    fn get(&self, uid: &PodUid) -> Option<Arc<PodObservation>> {
        self.get(uid)
    }

    fn all(&self) -> Vec<Arc<PodObservation>> {
        self.all()
    }
}

/// What was last seen in the runtime.
pub(super) type LastSeen = Arc<dyn Observed>;

/// Sockets that nobody is accepted on yet.
pub(super) struct Listeners {
    config: NodeApiConfig,
    secure: TcpListener,
    read_only: Option<TcpListener>,
}

impl Listeners {
    /// Those of the configuration; `None` where there is nothing to serve: it is off, or nobody could ever be let in.
    pub(super) fn bind(
        config: &AgentConfig,
        bind: impl Fn(SocketAddr) -> Result<TcpListener, CommandError>,
    ) -> Result<Option<Self>, CommandError> {
        let Some(api) = config.node_api.clone() else { return Ok(None) };
        if config.kubeconfig.is_none() && api.authorization != Authorization::AlwaysAllow {
            tracing::info!(
                "the node's API is not served on {}: without --kubeconfig there is nobody to say who may use it \
                 (authorization.mode: AlwaysAllow lets in whoever is authenticated)",
                api.address
            );
            return Ok(None);
        }
        let (secure, read_only) = (bind(api.address)?, api.read_only.map(bind).transpose()?);
        Ok(Some(Self { config: api, secure, read_only }))
    }

    /// Serves until `stop`.
    pub(super) fn serve(
        self,
        config: &AgentConfig,
        api: ApiServer,
        certificate: Arc<ServingCertificate>,
        (view, env): (&Arc<dyn AgentView>, &Arc<PodEnv>),
        stop: &CancellationToken,
    ) -> Result<(), CommandError> {
        let seen: LastSeen = Arc::<Pleg>::clone(&env.pleg);
        let stats = Arc::new(NodeStats::new(config, env, Arc::clone(&seen)));
        stats.spawn(view, stop);
        let parts = Parts {
            node: config.node_name.clone(),
            view: Arc::clone(view),
            observed: seen,
            stats,
            cri: Arc::clone(&env.cri),
            api,
            certificate,
            configuration: configuration(config),
            checkpoints: config.root_dir.join("checkpoints"),
            log_folder: "/var/log".into(),
        };
        let api = NodeApi::new(self.config, parts).map_err(CommandError::usage)?;
        let listener = tokio::net::TcpListener::from_std(self.secure).map_err(CommandError::failed)?;
        tokio::spawn(Arc::clone(&api).serve(listener, stop.clone()));
        if let Some(listener) = self.read_only {
            tracing::warn!("readOnlyPort: pods, statuses and figures are shown to whoever can connect");
            let listener = tokio::net::TcpListener::from_std(listener).map_err(CommandError::failed)?;
            tokio::spawn(api.serve_read_only(listener, stop.clone()));
        }
        Ok(())
    }
}

/// The configuration in force as JSON. What may be a credential is left out: whoever may see a node's configuration
/// need not be one who may fetch its manifests.
fn configuration(config: &AgentConfig) -> serde_json::Value {
    let mut json = serde_json::to_value(&config.kubelet).unwrap_or_default();
    if let Some(object) = json.as_object_mut() {
        object.remove("staticPodURLHeader");
        if let Some(url) = &config.manifest_url {
            object.insert("staticPodURL".to_owned(), url.to_string().into());
        }
    }
    json
}
