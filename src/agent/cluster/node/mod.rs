//! The machine as a Node of the cluster: registered, its status told, its lease renewed, and what others write to the
//! Node taken note of.
//!
//! Each of these is a task of its own, and all speak over the connection that nothing bulky uses, so that none waits
//! for another or for the pods' business. The Node is what they share: whoever hears of it from the server puts it
//! into one place, and the tasks look at it there. An agent that ends leaves the Node as it is, as kubelet does.

mod ask;
mod cell;
mod contact;
mod follow;
mod images;
mod lease;
mod pod_cidr;
mod pressure;
mod report;

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Node;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::contact::Contact;
pub use self::pod_cidr::tell_configured;
use self::{cell::NodeCell, pressure::Meter, report::Reporter};
use super::{Cluster, offline::Offline};
use crate::{
    agent::{clock::Clock, events::EventRecorder, health::HealthMonitor},
    api::quantity::Quantity,
    config::ClusterNode,
    cri::Cri,
    host::cgroup::CgroupMounts,
    kube::ApiServer,
    policy::{
        node_status::{NodeFacts, NodeTemplate, SystemFacts, new_node},
        pressure::Pressures,
    },
};

/// How long a request may take. Less where the lease is good for a shorter time.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the Node says of the machine whatever happens.
pub struct MachineFacts {
    /// What the node has, by resource.
    pub capacity: BTreeMap<String, Quantity>,
    /// What of it is for pods.
    pub allocatable: BTreeMap<String, Quantity>,
    /// The machine and its system.
    pub system: SystemFacts,
    /// The node's addresses at this moment.
    pub addresses: Box<dyn Fn() -> Vec<IpAddr> + Send + Sync>,
}

/// What pressure is measured by.
pub struct PressureSources {
    /// Thresholds.
    pub pressures: Pressures,
    /// The cgroup file systems.
    pub cgroups: CgroupMounts,
    /// The cgroup of all pods.
    pub pods_cgroup: String,
    /// The agent's folder.
    pub root_dir: PathBuf,
    /// How much memory the machine has, in bytes.
    pub memory_bytes: i64,
    /// How many processes and threads the kernel allows; 0 where it does not tell.
    pub pids: i64,
}

/// What all tasks need.
struct Shared {
    api: ApiServer,
    name: Arc<str>,
    template: NodeTemplate,
    config: ClusterNode,
    node: NodeCell,
    contact: Arc<Contact>,
    offline: Option<Arc<Offline>>,
    clock: Clock,
    events: EventRecorder,
}

impl Shared {
    async fn client(&self) -> kube::Client {
        self.api.clients().await.heartbeat
    }

    fn patience(&self) -> Duration {
        PATIENCE.min((self.config.lease / 4).max(Duration::from_secs(1)))
    }
}

/// See the module.
pub struct NodeAgent {
    shared: Arc<Shared>,
    machine: MachineFacts,
    sources: PressureSources,
    cri: Arc<dyn Cri>,
    health: Arc<HealthMonitor>,
}

impl NodeAgent {
    /// Nothing is asked of the server before it runs.
    pub fn new(
        cluster: &Cluster,
        (template, config): (NodeTemplate, ClusterNode),
        machine: MachineFacts,
        sources: PressureSources,
        (cri, health, clock): (Arc<dyn Cri>, Arc<HealthMonitor>, Clock),
    ) -> Self {
        let facts = NodeFacts {
            addresses: (machine.addresses)(),
            capacity: machine.capacity.clone(),
            allocatable: machine.allocatable.clone(),
            system: machine.system.clone(),
            ..NodeFacts::default()
        };
        let shared = Arc::new(Shared {
            api: cluster.api.clone(),
            name: Arc::clone(&cluster.node_name),
            node: NodeCell::new(new_node(&template, &facts, clock.now())),
            contact: Arc::new(Contact::new(config.lease)),
            offline: cluster.offline.clone(),
            template,
            config,
            clock,
            events: cluster.events.clone(),
        });
        Self { shared, machine, sources, cri, health }
    }

    /// The Node as the server has it, with what others have written to it; before it is registered, as it will be
    /// made.
    #[must_use]
    pub fn node(&self) -> watch::Receiver<Arc<Node>> {
        self.shared.node.subscribe()
    }

    /// How the node stands with the server.
    #[must_use]
    pub fn contact(&self) -> Arc<Contact> {
        Arc::clone(&self.shared.contact)
    }

    /// Does all of it until stopped.
    pub async fn run(self, stop: CancellationToken) {
        let Self { shared, machine, sources, cri, health } = self;
        let (images_sender, images) = watch::channel(None);
        let (pressure_sender, pressures) = watch::channel(None);
        let reporter = Reporter::new(Arc::clone(&shared), machine, health.watch(), images, pressures);
        let meter = Meter::new(sources, Arc::clone(&cri), health.watch(), shared.clock, pressure_sender);
        let tasks = [
            tokio::spawn(reporter.run()),
            tokio::spawn(lease::keep(Arc::clone(&shared))),
            tokio::spawn(follow::follow(Arc::clone(&shared))),
            tokio::spawn(meter.run()),
            tokio::spawn(images::list(
                Arc::clone(&cri),
                health.watch(),
                shared.config.max_images,
                images_sender,
            )),
            tokio::spawn(pod_cidr::tell(cri, health.watch(), shared.node.subscribe())),
        ];
        stop.cancelled().await;
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
