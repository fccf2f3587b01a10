//! The agent as a node of a cluster. Everything here is beside the pods' way: an API server that is away, slow or
//! refuses holds up no pod that the node knows of.

mod events;
pub mod identity;
mod mirror;
pub mod node;
pub mod offline;
pub(crate) mod retry;
pub mod status;
pub mod supplies;
pub(crate) mod watching;

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{offline::Offline, status::StatusWriter, supplies::Supplies};
use super::{
    events::EventRecorder,
    pods::env::PodEnv,
    sources::{
        Clock, PodSource, SourceSnapshot,
        api::{ApiReceivers, ApiSource, ServerPods},
    },
    sync_loop::LoopState,
};

use crate::{
    config::AgentConfig,
    kube::{ApiServer, Rate, Rates},
    policy::events::Words,
};

/// What the parts that speak to the API server share.
pub struct Cluster {
    /// The server.
    pub api: ApiServer,
    /// The node's name.
    pub node_name: Arc<str>,
    /// Where what happens is told.
    pub events: EventRecorder,
    /// What is kept for when the server is away; `None` where nothing is.
    pub offline: Option<Arc<Offline>>,
}

/// What has to do with pods: where they are heard of, and where their statuses go. Nothing of it has begun.
pub struct ClusterPods {
    source: ApiSource,
    snapshots: watch::Receiver<Arc<SourceSnapshot>>,
    server: watch::Receiver<Arc<ServerPods>>,
}

impl ClusterPods {
    /// The pods that the node is to run.
    pub fn snapshots(&self) -> watch::Receiver<Arc<SourceSnapshot>> {
        self.snapshots.clone()
    }

    /// Begins all of it.
    pub fn spawn(
        self,
        cluster: &Cluster,
        env: &Arc<PodEnv>,
        state: &Arc<LoopState>,
        stop: &CancellationToken,
    ) {
        let state = Arc::clone(state);
        let known = move || {
            let desired = state.desired();
            desired.sources().filter(|s| s.source != PodSource::Api).all(|s| s.delivered && !s.incomplete)
        };
        cluster.events.node(&cluster.node_name, Words::normal("Starting", "Starting kubelet."));
        let telling =
            events::write(cluster.api.clone(), Arc::clone(&cluster.node_name), cluster.events.clone());
        let ended = stop.clone();
        tokio::spawn(async move { ended.run_until_cancelled(telling).await });
        let name = Arc::clone(&cluster.node_name);
        let writer = StatusWriter::new(cluster.api.clone(), Arc::clone(env), name, self.server, known);
        tokio::spawn(writer.run(stop.clone()));
        if let Some(offline) = &cluster.offline {
            tokio::spawn(Arc::clone(offline).run(stop.clone()));
        }
        let node = env.server_node.clone();
        let ready = async move {
            if let Some(mut node) = node {
                // Its sender ends with the agent alone.
                node.wait_for(|node| node.metadata.uid.is_some()).await.ok();
            }
        };
        tokio::spawn(self.source.run(ready, stop.clone()));
    }
}

impl Cluster {
    /// The cluster that the configuration names; `None` of an agent that stands alone.
    pub fn of(config: &AgentConfig, offline: Option<Arc<Offline>>) -> Option<Self> {
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
        let events = EventRecorder::queued(super::clock::Clock::system());
        Some(Self { api, node_name: config.node_name.as_str().into(), events, offline })
    }

    /// What has to do with pods.
    pub fn pods(&self, clock: Clock) -> ClusterPods {
        let name = &self.node_name;
        let (source, ApiReceivers { snapshots, server }) =
            ApiSource::new(self.api.clone(), Arc::clone(name), clock, self.offline.clone());
        ClusterPods { source, snapshots, server }
    }

    /// What the server supplies pods with, until stopped.
    pub fn supplies(&self, stop: &CancellationToken) -> Supplies {
        Supplies::new(self.api.clone(), self.offline.clone(), stop.clone())
    }
}
