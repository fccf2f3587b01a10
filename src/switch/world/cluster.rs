//! The node as the cluster sees it.
//!
//! The API server may run on this very node, and be away while it is worked on: what does not answer is asked again
//! for a while.

use std::{path::Path, time::Duration};

use jiff::Timestamp;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Node as ClusterNode};
use tokio::time::{Instant, sleep};

use super::{Node, Report};
use crate::{
    kube::{self, ApiClient, Cordon, DrainError, DrainOptions, KubeError},
    switch::{plan::Refusal, request::Request},
};

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

/// What a drain may be allowed, for whoever reads that it is not.
const ALLOWED: &str = "--drain-unmanaged lets pods go that nothing makes again, --delete-emptydir-data those whose data \
                       are lost; or move them away yourself";

fn open(kubeconfig: &Path) -> Result<ApiClient, String> {
    ApiClient::open(kubeconfig).map_err(|error| error.to_string())
}

/// An error with the credentials that were used: they may be the wrong ones.
fn told(kubeconfig: &Path, error: &KubeError) -> String {
    match error {
        KubeError::Kubeconfig(error) => error.to_string(),
        other => format!("kubeconfig {}: {other}", kubeconfig.display()),
    }
}

/// Asks again what may be answered a little later.
async fn patiently<T>(
    kubeconfig: &Path,
    patience: Duration,
    mut ask: impl AsyncFnMut(&ApiClient) -> Result<T, KubeError>,
) -> Result<T, String> {
    let client = open(kubeconfig)?;
    let deadline = Instant::now() + patience;
    loop {
        match ask(&client).await {
            Ok(answer) => return Ok(answer),
            Err(error) if error.may_pass() && Instant::now() < deadline => sleep(PAUSE).await,
            Err(error) => return Err(told(kubeconfig, &error)),
        }
    }
}

/// What of the cluster stands in the way of what is asked, before anything is changed: an API server that does not
/// answer or does not know the node, credentials that it does not take, pods that a drain would stop at.
pub async fn in_the_way(request: &Request, node: &str) -> Vec<Refusal> {
    let Some(kubeconfig) = &request.kubeconfig else { return Vec::new() };
    let options = request.drain.as_ref().map(|drain| DrainOptions {
        timeout: drain.timeout,
        unmanaged: drain.unmanaged,
        delete_emptydir_data: drain.delete_emptydir_data,
    });
    let asked = patiently(kubeconfig, SHORTLY, async |client| {
        kube::node(client, node).await?;
        match options {
            Some(options) => kube::obstacles(client, node, options).await,
            None => Ok(Vec::new()),
        }
    });
    let (message, hint) = match asked.await {
        Ok(obstacles) if obstacles.is_empty() => return Vec::new(),
        Ok(obstacles) => (DrainError::InTheWay(obstacles).to_string(), ALLOWED),
        Err(cause) => (
            format!("the cluster cannot be asked about the node {node}: {cause}"),
            "see that the API server runs, and that --kubeconfig is one that it takes, as /etc/kubernetes/admin.conf; \
             without --kubeconfig the cluster is not asked",
        ),
    };
    vec![Refusal { message, hint: hint.to_owned(), forceable: false }]
}

/// Whether the node takes new pods.
pub(super) async fn cordoned(kubeconfig: &Path, node: &str) -> Result<Cordon, String> {
    patiently(kubeconfig, SHORTLY, async |client| Ok(kube::cordoned(&kube::node(client, node).await?))).await
}

pub(super) async fn cordon(kubeconfig: &Path, node: &str) -> Result<(), String> {
    patiently(kubeconfig, PATIENCE, async |client| kube::cordon(client, node).await).await
}

pub(super) async fn uncordon(kubeconfig: &Path, node: &str) -> Result<(), String> {
    patiently(kubeconfig, PATIENCE, async |client| kube::uncordon(client, node).await).await
}

/// What the node says of its runtime.
pub(super) async fn annotation(kubeconfig: &Path, node: &str) -> Result<Option<String>, String> {
    patiently(kubeconfig, PATIENCE, async |client| {
        let found = kube::node(client, node).await?;
        Ok(kube::annotation(&found, CRI_SOCKET).map(str::to_owned))
    })
    .await
}

pub(super) async fn annotate(kubeconfig: &Path, node: &str, value: Option<&str>) -> Result<(), String> {
    patiently(kubeconfig, PATIENCE, async |client| {
        kube::set_annotation(client, node, CRI_SOCKET, value).await
    })
    .await
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
        match kube::drain(&client, node, options, |text| self.report.waits(text)).await {
            Ok(drained) => {
                if !drained.daemon_sets.is_empty() {
                    let stay = drained.daemon_sets.join(", ");
                    self.report.warn(&format!("pods of DaemonSets stay, and are started anew later: {stay}"));
                }
                Ok(())
            }
            Err(error @ DrainError::InTheWay(_)) => Err(format!("{error}. {ALLOWED}")),
            Err(DrainError::Kube(error)) => Err(told(kubeconfig, &error)),
            Err(error @ DrainError::Late { .. }) => Err(error.to_string()),
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
            Err(error) if error.may_pass() => told(kubeconfig, &error),
            Err(error) => return Err(told(kubeconfig, &error)),
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
