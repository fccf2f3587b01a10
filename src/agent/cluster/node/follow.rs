//! Follows the Node by a watch of its name: what others write to it is known at once, and so is its end.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    runtime::watcher::{self, Event},
};

use super::{Shared, cell::is_registered, contact::Matter};
use crate::{
    agent::cluster::{
        retry::words,
        watching::{Watching, is_heard},
    },
    policy::backoff::RetryBackoff,
};

/// Between tries to watch again.
const RETRY: RetryBackoff = RetryBackoff::new(Duration::from_millis(100), Duration::from_secs(7));

/// Follows for as long as it is not dropped.
pub(super) async fn follow(shared: Arc<Shared>) {
    let selector = format!("metadata.name={}", shared.name);
    // Before there is one, nothing is to be followed, and the connection is left to who registers it.
    shared.node.subscribe().wait_for(|node| is_registered(node)).await.ok();
    loop {
        let mut replaced = shared.api.replaced();
        replaced.mark_unchanged();
        let api = Api::<Node>::all(shared.client().await);
        let mut events = Watching::new(api, watcher::Config::default().fields(&selector), RETRY);
        // Whether the list that is being told of had the Node.
        let mut listed = false;
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                // The former clients' connections would otherwise be kept by this watch.
                _ = replaced.changed() => break,
            };
            match event {
                Ok(event) => {
                    if is_heard(&event) {
                        shared.contact.done(Matter::Watch);
                    }
                    match event {
                        Event::Init => listed = false,
                        Event::InitApply(node) => {
                            listed = true;
                            shared.node.update(node);
                        }
                        Event::InitDone if listed => {}
                        Event::InitDone => shared.node.gone(None),
                        Event::Apply(node) => shared.node.update(node),
                        Event::Delete(node) => shared.node.gone(node.metadata.uid.as_deref()),
                    }
                }
                Err(error) => {
                    let why = format!("cannot follow the node's changes: {}", words(&error));
                    shared.contact.failed(Matter::Watch, why);
                }
            }
        }
    }
}
