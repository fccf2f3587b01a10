//! Tells the runtime which addresses the node's pods have, from which some make their network's configuration
//! (containerd by `conf_template`). kubelet does so too; a runtime that has no use for it ignores it.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Node, NodeSpec};
use tokio::sync::watch;

use crate::{
    agent::health::{HealthMonitor, RuntimeHealth},
    api::cri::{NetworkConfig, RuntimeConfig},
    cri::Cri,
    error::chain,
    policy::backoff::RetryBackoff,
};

/// Between tries.
const RETRY: RetryBackoff = RetryBackoff::new(Duration::from_secs(1), Duration::from_secs(30));

/// The ranges of the Node, one of each address family; empty where there are none yet.
fn ranges(node: &Node) -> String {
    let Some(spec) = &node.spec else { return String::new() };
    match spec.pod_cidrs.as_deref() {
        Some(ranges) if !ranges.is_empty() => ranges.join(","),
        _ => spec.pod_cidr.clone().unwrap_or_default(),
    }
}

/// Tells for as long as it is not dropped: what is new, and to a runtime that was away everything anew.
pub(super) async fn tell(
    cri: Arc<dyn Cri>,
    mut health: watch::Receiver<RuntimeHealth>,
    mut node: watch::Receiver<Arc<Node>>,
) {
    let mut told = String::new();
    let mut backoff = RETRY;
    let mut alone = false;
    loop {
        if !health.borrow_and_update().is_usable() {
            told.clear();
        }
        let ranges = ranges(&node.borrow_and_update());
        let mut again = None;
        if !ranges.is_empty() && ranges != told && health.borrow().is_usable() {
            let network_config = Some(NetworkConfig { pod_cidr: ranges.clone() });
            match cri.update_runtime_config(RuntimeConfig { network_config }).await {
                Ok(()) => {
                    tracing::info!(ranges, "the runtime knows the addresses of the node's pods");
                    told = ranges;
                    backoff.reset();
                }
                Err(error) => {
                    tracing::warn!(
                        ranges,
                        "cannot tell the runtime the addresses of pods: {}",
                        chain(&error)
                    );
                    again = Some(backoff.fail());
                }
            }
        }
        tokio::select! {
            changed = health.changed() => if changed.is_err() { return },
            // A Node of the configuration never changes.
            changed = node.changed(), if !alone => alone = changed.is_err(),
            () = tokio::time::sleep(again.unwrap_or_default()), if again.is_some() => {}
        }
    }
}

/// The same with the range of the configuration, where there is no cluster.
pub async fn tell_configured(cri: Arc<dyn Cri>, health: Arc<HealthMonitor>, range: String) {
    let spec = NodeSpec { pod_cidr: Some(range), ..NodeSpec::default() };
    let node = Node { spec: Some(spec), ..Node::default() };
    tell(cri, health.watch(), watch::channel(Arc::new(node)).1).await;
}
