//! The node's pods as lists of the Kubernetes API.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use serde::Serialize;

use super::{NodeApi, Refusal, json, serve::Reply};
use crate::api::{ContainerState, PodObservation, view::PodView};

/// A PodList that owns none of its pods.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<T> {
    kind: &'static str,
    api_version: &'static str,
    metadata: serde_json::Map<String, serde_json::Value>,
    items: Vec<T>,
}

fn list<T: Serialize>(items: Vec<T>) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&List { kind: "PodList", api_version: "v1", metadata: serde_json::Map::new(), items })
}

fn with_status(view: PodView) -> Pod {
    let mut pod = Arc::unwrap_or_clone(view.pod);
    pod.status = Some(Arc::unwrap_or_clone(view.status));
    pod
}

/// What the runtime tells of a pod of which something runs.
fn running(observed: &PodObservation) -> Option<Pod> {
    let runs = observed.containers.iter().filter(|container| container.state == ContainerState::Running);
    let containers: Vec<Container> = runs
        .map(|container| Container {
            name: container.name.to_string(),
            image: Some(container.image.clone()),
            ..Container::default()
        })
        .collect();
    if containers.is_empty() {
        return None;
    }
    let mut pod = Pod::default();
    pod.metadata.name = Some(observed.full_name.name.to_string());
    pod.metadata.namespace = Some(observed.full_name.namespace.to_string());
    pod.metadata.uid = Some(observed.uid.as_str().to_owned());
    pod.spec = Some(PodSpec { containers, ..PodSpec::default() });
    Some(pod)
}

impl NodeApi {
    /// `/pods`: those that the node is to run, with their statuses.
    pub(super) async fn pods(&self) -> Result<Reply, Refusal> {
        let view = Arc::clone(&self.view);
        // Hundreds of pods make megabytes of JSON: not on the threads that run the sync loop.
        listed(move || list(view.pods().into_iter().map(with_status).collect())).await
    }

    /// `/runningpods/`: those of which something runs, whoever started it.
    pub(super) async fn running_pods(&self) -> Result<Reply, Refusal> {
        let observed = Arc::clone(&self.observed);
        listed(move || list(observed.all().iter().filter_map(|pod| running(pod)).collect::<Vec<_>>())).await
    }
}

async fn listed(
    make: impl FnOnce() -> Result<Vec<u8>, serde_json::Error> + Send + 'static,
) -> Result<Reply, Refusal> {
    let made = tokio::task::spawn_blocking(make).await.map_err(|error| Refusal::failed(error.to_string()))?;
    Ok(json(made.map_err(|error| Refusal::failed(error.to_string()))?))
}
