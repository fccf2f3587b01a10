//! `/stats/summary`, `/metrics/resource` and `/metrics/cadvisor`: the node's figures from samples that are at most 10 s
//! old.

use std::sync::Arc;

use hyper::{
    StatusCode,
    header::{CACHE_CONTROL, HeaderValue},
};

use super::{NodeApi, Refusal, cadvisor, families::Families, json, of_type, resource, serve::Reply};
use crate::{
    api::usage::{DisksUsage, MachineLabels, NodeUsage},
    cri::async_trait,
    policy::{
        node_api::parameters,
        stats::{Storage, Volumes, summary},
    },
};

/// Prometheus' text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Where the samples come from.
#[async_trait]
pub trait Stats: Send + Sync {
    /// The machine.
    fn machine(&self) -> &MachineLabels;
    /// Cgroups and interfaces; `None` if they could not be measured.
    async fn usage(&self) -> Option<Arc<NodeUsage>>;
    /// What files take; `None` if that could not be found out.
    async fn disks(&self) -> Option<Arc<DisksUsage>>;
    /// What volumes were found to take last.
    fn volumes(&self) -> Volumes;
}

impl NodeApi {
    /// `/stats/summary`.
    pub(super) async fn summary(&self, query: &str) -> Result<Reply, Refusal> {
        let mut only: Vec<String> = parameters(query, "only_cpu_and_memory").collect();
        let only = only.len() == 1 && only.pop().as_deref() == Some("true");
        let failed = || Refusal::failed("Internal Error: the node could not be measured");
        let answer = if only {
            let usage = self.stats.usage().await.ok_or_else(failed)?;
            serde_json::to_vec(&summary(&usage, self.stats.machine(), None))
        } else {
            let (usage, disks) = tokio::join!(self.stats.usage(), self.stats.disks());
            let (disks, volumes) = (disks.unwrap_or_default(), self.stats.volumes());
            let storage = Storage { disks: &disks, volumes: &volumes };
            serde_json::to_vec(&summary(&*usage.ok_or_else(failed)?, self.stats.machine(), Some(storage)))
        };
        Ok(json(answer.map_err(|error| Refusal::failed(error.to_string()))?))
    }

    /// `/metrics/resource`.
    pub(super) async fn resource_metrics(&self) -> Result<Reply, Refusal> {
        let usage = self.stats.usage().await;
        written(move || resource::families(usage.as_deref())).await
    }

    /// `/metrics/cadvisor`.
    pub(super) async fn cadvisor_metrics(&self) -> Result<Reply, Refusal> {
        let (usage, disks) = tokio::join!(self.stats.usage(), self.stats.disks());
        let machine = self.stats.machine().clone();
        let disks = disks.unwrap_or_default();
        written(move || cadvisor::families(usage.as_deref(), &disks, &machine)).await
    }
}

/// Some thousands of lines take some milliseconds, in which others need not wait.
async fn written(families: impl FnOnce() -> Families + Send + 'static) -> Result<Reply, Refusal> {
    let text = tokio::task::spawn_blocking(move || families().text()).await;
    let text = text.map_err(|error| Refusal::failed(error.to_string()))?;
    let text = text.map_err(|error| Refusal::failed(error.to_string()))?;
    let mut reply = of_type(StatusCode::OK, TEXT, text);
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(reply)
}
