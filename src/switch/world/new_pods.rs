//! Pods that the new runtime got: they end before the old one's come back, for both want the same ports and data.

use std::{path::Path, time::Duration};

use tokio::time::sleep;

use super::{Node, Report, cri, shims, socket};
use crate::{
    api::{cri::ContainerFilter, cri::ContainerState, labels},
    cri::{Cri as _, CriClient, CriError, CriTimeouts},
};

const ANSWER: Duration = Duration::from_secs(30);
/// A runtime that does not answer is asked so often.
const TRIES: u32 = 15;
const PAUSE: Duration = Duration::from_secs(2);
/// Containers end on their own within this time, or are killed.
const GRACE: i64 = 30;

impl<R: Report> Node<R> {
    /// The ids of the pods that are there; none where CRI is not served yet.
    pub(super) async fn pods_before(&self, endpoint: &str) -> Result<Vec<String>, String> {
        let client = cri(endpoint, CriTimeouts::from_request_timeout(ANSWER))?;
        match client.list_pod_sandboxes(None).await {
            Ok(all) => Ok(all.into_iter().map(|sandbox| sandbox.id).collect()),
            Err(error) if error.is_no_cri_v1() => Ok(Vec::new()),
            // Down, it has none unless some live without it: those must not be taken for new ones.
            Err(error) if error.is_unavailable() && !lives(&self.paths.proc, endpoint, &[])? => {
                Ok(Vec::new())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Stops and removes all pods but these.
    pub(super) async fn stop_new_pods(&mut self, endpoint: &str, before: &[String]) -> Result<(), String> {
        let client = cri(endpoint, CriTimeouts::from_request_timeout(ANSWER))?;
        let mut cause = String::new();
        for attempt in 0..TRIES {
            if attempt > 0 {
                sleep(PAUSE).await;
            }
            match stop_all_but(&client, before).await {
                Ok(()) => return Ok(()),
                // Who does not serve it has not made any.
                Err(error) if error.is_no_cri_v1() => return Ok(()),
                // What counts is that none lives: a containerd that did not start at all has none, and one without
                // its network's configuration keeps sandboxes that are dead.
                Err(error) if !lives(&self.paths.proc, endpoint, before)? => {
                    if !error.is_unavailable() {
                        self.report
                            .warn(&format!("a pod of the new runtime has ended and is not removed: {error}"));
                    }
                    return Ok(());
                }
                Err(error) => cause = error.to_string(),
            }
        }
        Err(format!(
            "pods of the new runtime cannot be stopped: {cause}. By hand: `crictl --runtime-endpoint {endpoint} pods`, \
             and `stopp` and `rmp` for each; or, with containerd stopped, end the processes \
             containerd-shim-runc-v2 of the namespace k8s.io. Then go on with `nodectl switch-runtime --rollback`"
        ))
    }
}

/// Whether containers live that were not there before.
fn lives(proc: &Path, endpoint: &str, before: &[String]) -> Result<bool, String> {
    let shims = shims::alive(proc, "k8s.io", Some(&socket(endpoint)?));
    Ok(shims.iter().any(|shim| !before.contains(&shim.id)))
}

/// Each is tried, whatever comes of another one.
async fn stop_all_but(client: &CriClient, before: &[String]) -> Result<(), CriError> {
    let mut failed = Ok(());
    for sandbox in client.list_pod_sandboxes(None).await? {
        if !before.contains(&sandbox.id) {
            failed = failed.and(remove(client, &sandbox.id).await);
        }
    }
    failed
}

async fn remove(client: &CriClient, sandbox: &str) -> Result<(), CriError> {
    let filter = ContainerFilter { pod_sandbox_id: sandbox.to_owned(), ..ContainerFilter::default() };
    let containers = client.list_containers(Some(filter)).await?;
    let running =
        containers.iter().filter(|container| container.state == i32::from(ContainerState::ContainerRunning));
    let stops = running.map(|container| {
        let told = container.annotations.get(labels::POD_TERMINATION_GRACE_PERIOD);
        let grace = told.and_then(|seconds| seconds.parse().ok()).unwrap_or(GRACE);
        client.stop_container(&container.id, grace.clamp(0, GRACE))
    });
    for stopped in futures_util::future::join_all(stops).await {
        stopped?;
    }
    client.stop_pod_sandbox(sandbox).await?;
    client.remove_pod_sandbox(sandbox).await
}
