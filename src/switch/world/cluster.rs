//! The node as the cluster sees it.
//!
//! The API server may run on this very node, and be away while it is worked on: what does not answer is asked again
//! for a while.

use std::{path::Path, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node as ClusterNode};
use tokio::time::{Instant, sleep};

use super::{Node, Report};
use crate::kube::{self, ApiClient, Cordon, DrainError, DrainOptions, KubeError};

/// Where kubeadm looks for the node's runtime.
const CRI_SOCKET: &str = "kubeadm.alpha.kubernetes.io/cri-socket";
/// An API server that is a static pod of this node takes a minute or two after its kubelet.
const PATIENCE: Duration = Duration::from_secs(180);
/// Before anything is changed it should be there, and before `Uncordon` the node has been seen Ready.
const SHORTLY: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_secs(2);
/// So long an agent that renews its lease must have been ready, if it has not told anew: it does only every five
/// minutes, as long as nothing changes.
const STEADY: Duration = Duration::from_secs(12);

fn open(kubeconfig: &Path) -> Result<ApiClient, String> {
    ApiClient::open(kubeconfig).map_err(|error| error.to_string())
}

/// Asks again what may be answered a little later.
async fn patiently<T>(
    patience: Duration,
    mut ask: impl AsyncFnMut() -> Result<T, KubeError>,
) -> Result<T, String> {
    let deadline = Instant::now() + patience;
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if error.may_pass() && Instant::now() < deadline => sleep(PAUSE).await,
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Whether the node takes new pods.
pub(super) async fn cordoned(kubeconfig: &Path, node: &str) -> Result<Cordon, String> {
    let client = open(kubeconfig)?;
    patiently(SHORTLY, async || Ok(kube::cordoned(&kube::node(&client, node).await?))).await
}

pub(super) async fn cordon(kubeconfig: &Path, node: &str) -> Result<(), String> {
    let client = open(kubeconfig)?;
    patiently(PATIENCE, async || kube::cordon(&client, node).await).await
}

pub(super) async fn uncordon(kubeconfig: &Path, node: &str) -> Result<(), String> {
    let client = open(kubeconfig)?;
    patiently(PATIENCE, async || kube::uncordon(&client, node).await).await
}

/// What the node says of its runtime.
pub(super) async fn annotation(kubeconfig: &Path, node: &str) -> Result<Option<String>, String> {
    let client = open(kubeconfig)?;
    patiently(PATIENCE, async || {
        let found = kube::node(&client, node).await?;
        Ok(kube::annotation(&found, CRI_SOCKET).map(str::to_owned))
    })
    .await
}

pub(super) async fn annotate(kubeconfig: &Path, node: &str, value: Option<&str>) -> Result<(), String> {
    let client = open(kubeconfig)?;
    patiently(PATIENCE, async || kube::set_annotation(&client, node, CRI_SOCKET, value).await).await
}

impl<R: Report> Node<R> {
    /// Has the node's pods be elsewhere.
    pub(super) async fn drain(
        &mut self,
        kubeconfig: &Path,
        node: &str,
        seconds: u64,
        unmanaged: bool,
        delete_emptydir_data: bool,
    ) -> Result<(), String> {
        let client = open(kubeconfig)?;
        let timeout = Duration::from_secs(seconds);
        let options = DrainOptions { timeout, unmanaged, delete_emptydir_data };
        match kube::drain(&client, node, options).await {
            Ok(drained) => {
                if !drained.daemon_sets.is_empty() {
                    let stay = drained.daemon_sets.join(", ");
                    self.report.warn(&format!("pods of DaemonSets stay, and are started anew later: {stay}"));
                }
                Ok(())
            }
            Err(error @ DrainError::InTheWay(_)) => Err(format!(
                "{error}. What may go all the same is said with --force and --delete-emptydir-data"
            )),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Waits until the API server has the node Ready, and has heard so since the agent was started.
pub(super) async fn verify(
    kubeconfig: &Path,
    node: &str,
    seconds: u64,
    restarted: Option<Timestamp>,
) -> Result<(), String> {
    let client = open(kubeconfig)?;
    let (begin, now) = (Instant::now(), Timestamp::now());
    let since = restarted.unwrap_or(now);
    loop {
        let problem = match kube::node(&client, node).await {
            Ok(found) => match readiness(&found, since) {
                Readiness::Ready => return Ok(()),
                Readiness::Stale(_) if begin.elapsed() >= STEADY && is_renewed(&client, node, now).await => {
                    return Ok(());
                }
                Readiness::Stale(problem) | Readiness::No(problem) => problem,
            },
            Err(error) if error.may_pass() => error.to_string(),
            Err(error) => return Err(error.to_string()),
        };
        if begin.elapsed() >= Duration::from_secs(seconds) {
            return Err(format!("node {node} is not Ready within {seconds} s: {problem}"));
        }
        sleep(PAUSE).await;
    }
}

/// What the API server has of the node.
#[derive(Debug, PartialEq, Eq)]
enum Readiness {
    Ready,
    /// Ready, as was said before.
    Stale(String),
    No(String),
}

fn readiness(node: &ClusterNode, since: Timestamp) -> Readiness {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.and_then(|all| all.iter().find(|condition| condition.type_ == "Ready"));
    let Some(ready) = ready else { return Readiness::No("it has no condition Ready".to_owned()) };
    if ready.status != "True" {
        let word = |text: &Option<String>| text.clone().unwrap_or_default();
        return Readiness::No(format!(
            "Ready is {}: {}: {}",
            ready.status,
            word(&ready.reason),
            word(&ready.message)
        ));
    }
    match &ready.last_heartbeat_time {
        // It comes in whole seconds, and from this node's clock.
        Some(heartbeat) if heartbeat.0.as_second() >= since.as_second() => Readiness::Ready,
        _ => Readiness::Stale("Ready is True, but was said before the agent was started".to_owned()),
    }
}

/// Whether the agent has renewed its lease.
async fn is_renewed(client: &ApiClient, node: &str, since: Timestamp) -> bool {
    let path =
        format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{}", kube::escaped(node));
    let lease = client.get::<Lease>(&path).await.ok().and_then(|lease| lease.spec);
    lease.and_then(|spec| spec.renew_time).is_some_and(|time| time.0 > since)
}
