//! The node's lease (kube-node-lease), by which the cluster knows that the node lives: renewed four times in the time
//! that it is good for (k8s.io/component-helpers/apimachinery/lease).
//!
//! It is owned by the Node, so that it goes with it. Renewals are on the connection that nothing else of size uses,
//! and each has its own bound on time: one that hangs must not use up the time of the next.

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::Node,
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference},
};
use kube::{Api, api::PostParams};
use rand::Rng as _;

use super::{
    Shared,
    ask::{AskError, ask},
    cell::is_registered,
    contact::Matter,
};
use crate::policy::backoff::RetryBackoff;

const NAMESPACE: &str = "kube-node-lease";
/// Between tries.
const RETRY: RetryBackoff = RetryBackoff::new(Duration::from_millis(100), Duration::from_secs(7));

/// Renews for as long as it is not dropped.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut latest: Option<Lease> = None;
    let mut backoff = RETRY;
    let period = shared.config.lease / 4;
    loop {
        // Before there is a Node, nobody owns it.
        let owner = registered(&shared).await;
        let result = match &latest {
            Some(old) => replace(&shared, &owner, old).await,
            None => ensure(&shared, &owner).await,
        };
        match result {
            Ok(lease) => {
                shared.contact.renewed();
                if let Some(offline) = &shared.offline {
                    offline.in_contact();
                }
                latest = Some(lease);
                backoff.reset();
                // Of many nodes that start at once not all renew at once for ever.
                let jitter = rand::rng().random_range(0.0..0.04);
                tokio::time::sleep(period.mul_f64(1.0 + jitter)).await;
            }
            // Somebody else has written it, or taken it away: what is there is asked for at once.
            Err(AskError::Refused { code: 404 | 409, .. }) if latest.is_some() => latest = None,
            Err(error) => {
                shared.contact.failed(Matter::Lease, format!("cannot renew the node's lease: {error}"));
                tokio::time::sleep(backoff.fail()).await;
            }
        }
    }
}

async fn registered(shared: &Shared) -> Arc<Node> {
    let mut changes = shared.node.subscribe();
    loop {
        let node = Arc::clone(&changes.borrow_and_update());
        if is_registered(&node) {
            return node;
        }
        if changes.changed().await.is_err() {
            // The sender is in what is shared, and lives as long.
            std::future::pending::<()>().await;
        }
    }
}

/// Makes the lease, or renews the one that is there.
async fn ensure(shared: &Shared, owner: &Node) -> Result<Lease, AskError> {
    let name = &*shared.name;
    let api = Api::<Lease>::namespaced(shared.client().await, NAMESPACE);
    if let Some(lease) = ask(shared.patience(), api.get_opt(name)).await? {
        return replace(shared, owner, &lease).await;
    }
    let lease = renewed(shared, owner, &Lease::default());
    ask(shared.patience(), api.create(&PostParams::default(), &lease)).await
}

async fn replace(shared: &Shared, owner: &Node, old: &Lease) -> Result<Lease, AskError> {
    let lease = renewed(shared, owner, old);
    let api = Api::<Lease>::namespaced(shared.client().await, NAMESPACE);
    ask(shared.patience(), api.replace(&shared.name, &PostParams::default(), &lease)).await
}

fn renewed(shared: &Shared, owner: &Node, old: &Lease) -> Lease {
    let seconds = shared.config.lease.as_secs();
    let mut owners = old.metadata.owner_references.clone().unwrap_or_default();
    let uid = owner.metadata.uid.clone().unwrap_or_default();
    // A Node that was made anew is another owner; with the former one the lease would be taken away.
    owners.retain(|owner| owner.kind != "Node");
    owners.push(OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: shared.name.to_string(),
        uid,
        ..OwnerReference::default()
    });
    Lease {
        metadata: ObjectMeta {
            name: Some(shared.name.to_string()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: Some(owners),
            ..old.metadata.clone()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(shared.name.to_string()),
            lease_duration_seconds: Some(i32::try_from(seconds).unwrap_or(i32::MAX)),
            renew_time: Some(MicroTime(shared.clock.now())),
            ..old.spec.clone().unwrap_or_default()
        }),
    }
}
