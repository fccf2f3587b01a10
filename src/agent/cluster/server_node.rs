//! The node's own object as the API server has it, kept up to date by a watch: pods are judged by the labels and
//! taints that others may have set there, and mirror pods name it as their owner.

use std::sync::Arc;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api,
    runtime::watcher::{self, Event, watcher},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::retry::{RETRY, jitter, words};
use crate::kube::ApiServer;

/// The watch. See the module.
pub struct ServerNode {
    api: ApiServer,
    name: Arc<str>,
    node: watch::Sender<Option<Arc<Node>>>,
    listed: watch::Sender<bool>,
}

impl ServerNode {
    /// One that has not begun. The receivers tell of the node, and whether the server was asked for it once.
    pub fn new(
        api: ApiServer,
        name: Arc<str>,
    ) -> (Self, watch::Receiver<Option<Arc<Node>>>, watch::Receiver<bool>) {
        let (node, told) = watch::channel(None);
        let (listed, asked) = watch::channel(false);
        (Self { api, name, node, listed }, told, asked)
    }

    /// Watches until stopped.
    pub async fn run(self, stop: CancellationToken) {
        let mut replaced = self.api.replaced();
        let mut told = String::new();
        loop {
            let clients = tokio::select! {
                clients = self.api.clients() => clients,
                () = stop.cancelled() => return,
            };
            replaced.mark_unchanged();
            let nodes: Api<Node> = Api::all(clients.heartbeat.clone());
            let config = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
            let mut events = Box::pin(watcher(nodes, config));
            let mut backoff = RETRY;
            let mut listing = None;
            loop {
                let event = tokio::select! {
                    event = events.next() => event,
                    Ok(()) = replaced.changed() => break,
                    () = stop.cancelled() => return,
                };
                match event {
                    Some(Ok(event)) => {
                        backoff = RETRY;
                        self.take(event, &mut listing);
                    }
                    Some(Err(error)) => {
                        let problem = words(&error);
                        if problem != told {
                            tracing::warn!("cannot watch the node's own object: {problem}");
                            told = problem;
                        }
                        tokio::select! {
                            () = tokio::time::sleep(jitter(backoff.fail())) => {}
                            Ok(()) = replaced.changed() => break,
                            () = stop.cancelled() => return,
                        }
                    }
                    None => break,
                }
            }
        }
    }

    fn take(&self, event: Event<Node>, listing: &mut Option<Arc<Node>>) {
        match event {
            Event::Init => *listing = None,
            Event::InitApply(node) => *listing = Some(tidied(node)),
            Event::InitDone => {
                self.tell(listing.take());
                self.listed.send_if_modified(|listed| !std::mem::replace(listed, true));
            }
            Event::Apply(node) => self.tell(Some(tidied(node))),
            Event::Delete(_) => self.tell(None),
        }
    }

    /// Heartbeats change the object all the time and are no news.
    fn tell(&self, node: Option<Arc<Node>>) {
        self.node.send_if_modified(|old| {
            let same = match (old.as_ref(), node.as_ref()) {
                (Some(old), Some(new)) => {
                    let (a, b) = (&old.metadata, &new.metadata);
                    a.uid == b.uid
                        && a.labels == b.labels
                        && a.annotations == b.annotations
                        && old.spec == new.spec
                }
                (None, None) => true,
                _ => false,
            };
            if !same {
                *old = node;
            }
            !same
        });
    }
}

/// The rest is what the node has written itself.
fn tidied(mut node: Node) -> Arc<Node> {
    node.metadata.managed_fields = None;
    node.status = None;
    Arc::new(node)
}
