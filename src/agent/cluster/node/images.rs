//! The images on the node, for its status: the scheduler favours nodes that have a pod's.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::ContainerImage;
use tokio::sync::watch;

use crate::{agent::health::RuntimeHealth, cri::Cri, policy::node_status::images};

/// Between two looks; kubelet's.
const PERIOD: Duration = Duration::from_secs(30);

/// Lists for as long as it is not dropped; a runtime that does not answer leaves the last list.
pub(super) async fn list(
    cri: Arc<dyn Cri>,
    mut health: watch::Receiver<RuntimeHealth>,
    most: Option<usize>,
    sender: watch::Sender<Option<Vec<ContainerImage>>>,
) {
    while health.wait_for(RuntimeHealth::is_usable).await.is_ok() {
        if let Ok(all) = cri.list_images(None).await {
            let found = Some(images(&all, most));
            sender.send_if_modified(|last| {
                let changed = *last != found;
                if changed {
                    *last = found;
                }
                changed
            });
        }
        tokio::time::sleep(PERIOD).await;
    }
}
