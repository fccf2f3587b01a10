//! The Node as the server has it, as far as is known: written by whoever last heard of it, read by all.
//!
//! Two ways lead here: answers to our own requests, and the watch, which may be behind them. So of two versions the
//! newer counts, which is told by the resource version: a number that grows in every server there is.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use tokio::sync::watch;

/// See the module.
pub(super) struct NodeCell {
    sender: watch::Sender<Arc<Node>>,
    /// What is told where the server has none: the Node that would be made.
    template: Arc<Node>,
}

/// Whether the server has it.
pub(super) fn is_registered(node: &Node) -> bool {
    node.metadata.uid.is_some()
}

fn version(node: &Node) -> Option<u64> {
    node.metadata.resource_version.as_ref()?.parse().ok()
}

impl NodeCell {
    /// The server is not known to have one.
    pub(super) fn new(template: Node) -> Self {
        let template = Arc::new(template);
        Self { sender: watch::Sender::new(Arc::clone(&template)), template }
    }

    /// The last that is known, and its changes.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Node>> {
        self.sender.subscribe()
    }

    /// The last that is known.
    pub(super) fn current(&self) -> Arc<Node> {
        Arc::clone(&self.sender.borrow())
    }

    /// The server has it so, or had.
    pub(super) fn update(&self, node: Node) {
        self.sender.send_if_modified(|old| {
            let older = version(&node).zip(version(old)).is_some_and(|(new, old)| new <= old);
            if !older {
                *old = Arc::new(node);
            }
            !older
        });
    }

    /// The server has no such Node any more, or not this one: `uid` is of the one that is gone, if known.
    pub(super) fn gone(&self, uid: Option<&str>) {
        self.sender.send_if_modified(|old| {
            let other = uid.is_some_and(|uid| old.metadata.uid.as_deref() != Some(uid));
            let gone = is_registered(old) && !other;
            if gone {
                *old = Arc::clone(&self.template);
            }
            gone
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(uid: &str, version: &str) -> Node {
        let mut node = Node::default();
        node.metadata.uid = Some(uid.to_owned());
        node.metadata.resource_version = Some(version.to_owned());
        node
    }

    #[test]
    fn the_newer_counts() {
        let cell = NodeCell::new(Node::default());
        let mut changes = cell.subscribe();
        let told = |cell: &NodeCell| cell.current().metadata.resource_version.clone();
        assert!(!is_registered(&cell.current()));
        cell.update(node("a", "9"));
        assert!(changes.has_changed().unwrap());
        changes.mark_unchanged();
        cell.update(node("a", "8"));
        cell.update(node("a", "9"));
        assert!(!changes.has_changed().unwrap());
        cell.update(node("a", "10"));
        assert_eq!(told(&cell).as_deref(), Some("10"));
        // Another of the name has come before the end of the first is heard of.
        cell.update(node("b", "12"));
        cell.gone(Some("a"));
        assert_eq!(told(&cell).as_deref(), Some("12"));
        cell.gone(Some("b"));
        assert!(!is_registered(&cell.current()));
        cell.update(node("c", "13"));
        cell.gone(None);
        assert!(!is_registered(&cell.current()));
    }
}
