//! `/metrics`: the agent's figures, those that are noted as they come and those that a scrape finds.

use std::sync::Arc;

use hyper::{StatusCode, header::HeaderValue};
use k8s_openapi::api::core::v1::Volume;
use prometheus::{Gauge, GaugeVec, IntGaugeVec, Opts, Registry};

use super::{NodeApi, Refusal, of_type, serve::Reply};
use crate::{
    api::{
        ContainerState, PodExt as _, PodObservation, SandboxState,
        view::{HealthCheck, PodEnd, PodView},
    },
    host::process::ProcessUse,
    telemetry::metrics,
};

/// Prometheus' text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

impl NodeApi {
    /// `/metrics`.
    pub(super) async fn figures(&self) -> Result<Reply, Refusal> {
        let (view, observed) = (Arc::clone(&self.view), Arc::clone(&self.observed));
        let node = self.node.clone();
        let made = tokio::task::spawn_blocking(move || {
            let found = Registry::new();
            add_pods(&found, &view.pods(), &observed.all())?;
            add_health(&found, &view.health())?;
            add_node(&found, &node, view.lease_age().map(|age| age.as_secs_f64()))?;
            add_process(&found, &ProcessUse::own())?;
            metrics::text(&found)
        });
        let made = made.await.map_err(|error| Refusal::failed(error.to_string()))?;
        exposition(made)
    }
}

/// `/metrics/probes`.
pub(super) fn of_probes() -> Result<Reply, Refusal> {
    exposition(metrics::probe_text())
}

fn exposition(made: Result<String, prometheus::Error>) -> Result<Reply, Refusal> {
    let text = made.map_err(|error| Refusal::failed(error.to_string()))?;
    let mut reply = of_type(StatusCode::OK, TEXT, text);
    reply.headers_mut().insert(hyper::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(reply)
}

fn add_pods(
    to: &Registry,
    views: &[PodView],
    observed: &[Arc<PodObservation>],
) -> Result<(), prometheus::Error> {
    let running = Gauge::new("kubelet_running_pods", "Pods with a sandbox that runs.")?;
    let runs = |pod: &&Arc<PodObservation>| pod.sandboxes.iter().any(|s| s.state == SandboxState::Ready);
    running.set(count(observed.iter().filter(runs).count()));
    let containers = IntGaugeVec::new(
        Opts::new("kubelet_running_containers", "Containers in the runtime by state."),
        &["container_state"],
    )?;
    for container in observed.iter().flat_map(|pod| &pod.containers) {
        let state = match container.state {
            ContainerState::Created => "created",
            ContainerState::Running => "running",
            ContainerState::Exited => "exited",
            ContainerState::Unknown => "unknown",
        };
        containers.with_label_values(&[state]).inc();
    }
    let desired = by_source(
        "kubelet_desired_pods",
        "Pods that the node has to do with; static is whether they are not the API server's.",
    )?;
    let active = by_source("kubelet_active_pods", "Those of which something may still run.")?;
    let ephemeral = Gauge::new("kubelet_managed_ephemeral_containers", "Ephemeral containers in all pods.")?;
    let volumes = IntGaugeVec::new(
        Opts::new("volume_manager_total_volumes", "Volumes of pods by kind: wanted, and of pods that run."),
        &["plugin_name", "state"],
    )?;
    for view in views {
        let source = [if view.pod.is_static() { "true" } else { "false" }];
        desired.with_label_values(&source).inc();
        if view.end == PodEnd::No {
            active.with_label_values(&source).inc();
        }
        let Some(spec) = &view.pod.spec else { continue };
        ephemeral.add(count(spec.ephemeral_containers.iter().flatten().count()));
        let runs = observed.iter().any(|pod| pod.uid == view.uid && pod.has_live_parts());
        for volume in spec.volumes.iter().flatten() {
            let kind = volume_kind(volume);
            if view.end == PodEnd::No {
                volumes.with_label_values(&[kind, "desired_state_of_world"]).inc();
            }
            if runs {
                volumes.with_label_values(&[kind, "actual_state_of_world"]).inc();
            }
        }
    }
    to.register(Box::new(running))?;
    to.register(Box::new(containers))?;
    to.register(Box::new(desired))?;
    to.register(Box::new(active))?;
    to.register(Box::new(ephemeral))?;
    to.register(Box::new(volumes))
}

/// A number of pods by whether they are static, none so far.
fn by_source(name: &str, help: &str) -> Result<IntGaugeVec, prometheus::Error> {
    let made = IntGaugeVec::new(Opts::new(name, help), &["static"])?;
    ["true", "false"].iter().for_each(|source| made.with_label_values(&[source]).set(0));
    Ok(made)
}

/// kubelet's name of what makes a kind of volume.
fn volume_kind(volume: &Volume) -> &'static str {
    let kinds = [
        (volume.config_map.is_some(), "kubernetes.io/configmap"),
        (volume.secret.is_some(), "kubernetes.io/secret"),
        (volume.projected.is_some(), "kubernetes.io/projected"),
        (volume.downward_api.is_some(), "kubernetes.io/downward-api"),
        (volume.empty_dir.is_some(), "kubernetes.io/empty-dir"),
        (volume.host_path.is_some(), "kubernetes.io/host-path"),
        (volume.image.is_some(), "kubernetes.io/image"),
    ];
    kinds.into_iter().find(|(is, _)| *is).map_or("other", |(_, name)| name)
}

fn add_health(to: &Registry, checks: &[HealthCheck]) -> Result<(), prometheus::Error> {
    let health = IntGaugeVec::new(
        Opts::new("nodectl_health", "Whether a health check is well: 1, or 0."),
        &["check"],
    )?;
    for check in checks {
        health.with_label_values(&[check.name.as_str()]).set(check.ok.into());
    }
    to.register(Box::new(health))?;
    let build =
        GaugeVec::new(Opts::new("nodectl_build_info", "The agent's version; always 1."), &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1.0);
    to.register(Box::new(build))
}

fn add_node(to: &Registry, node: &str, lease_age: Option<f64>) -> Result<(), prometheus::Error> {
    let name = GaugeVec::new(Opts::new("kubelet_node_name", "The node's name; always 1."), &["node"])?;
    name.with_label_values(&[node]).set(1.0);
    to.register(Box::new(name))?;
    if let Some(age) = lease_age {
        let lease =
            Gauge::new("nodectl_node_lease_age_seconds", "Seconds since the node's lease was renewed.")?;
        lease.set(age);
        to.register(Box::new(lease))?;
    }
    Ok(())
}

fn add_process(to: &Registry, used: &ProcessUse) -> Result<(), prometheus::Error> {
    // Prometheus' own client calls this one a counter, and so do we.
    let cpu = prometheus::Counter::new("process_cpu_seconds_total", "CPU time of the agent, seconds.")?;
    cpu.inc_by(used.cpu_seconds);
    to.register(Box::new(cpu))?;
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Resident memory of the agent, bytes.", used.resident_bytes),
        ("process_virtual_memory_bytes", "Virtual memory of the agent, bytes.", used.virtual_bytes),
        ("process_open_fds", "Open files of the agent.", used.open_files),
        ("process_max_fds", "Files that the agent may open.", used.max_files),
        ("process_start_time_seconds", "When the agent was started, in seconds since 1970.", used.started),
    ] {
        let gauge = Gauge::new(name, help)?;
        gauge.set(value);
        to.register(Box::new(gauge))?;
    }
    Ok(())
}

/// A number of pods is far from where doubles are not whole.
#[allow(clippy::cast_precision_loss, reason = "see above")]
fn count(number: usize) -> f64 {
    number as f64
}
