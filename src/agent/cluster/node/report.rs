//! Registers the node and tells its status: at once when something has changed, and else from time to time, so that
//! others see that somebody still looks (pkg/kubelet/kubelet_node_status.go).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{ContainerImage, Node, NodeStatus};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use rand::Rng as _;
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};

use super::{
    MachineFacts, Shared,
    ask::{AskError, ask},
    cell::is_registered,
    contact::Matter,
};
use crate::{
    agent::health::RuntimeHealth,
    policy::{
        backoff::RetryBackoff,
        events::{Words, condition_words, node_became},
        node_status::{NodeFacts, RuntimeTold, content, new_node, reconcile, status, status_patch},
        pressure::Pressure,
    },
};

/// Between tries: kubelet's of its registration.
const RETRY: RetryBackoff = RetryBackoff::new(Duration::from_millis(100), Duration::from_secs(7));
/// How long the first word to the server waits for the runtime's, so that it can be that the node is ready.
const FIRST_WAIT: Duration = Duration::from_millis(300);
/// How long one who has just begun, and does not know yet how the node is, leaves what the Node says.
const UNKNOWING: Duration = Duration::from_secs(10);
/// Between two corrections of what others wrote over ours: two that want different things are not to fight faster.
const CORRECTIONS: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Reporter {
    shared: Arc<Shared>,
    machine: MachineFacts,
    health: watch::Receiver<RuntimeHealth>,
    images: watch::Receiver<Option<Vec<ContainerImage>>>,
    pressures: watch::Receiver<Option<BTreeSet<Pressure>>>,
    /// What was sent last, and what the server made of it, without times: an old one drops what it does not know.
    said: Option<(NodeStatus, NodeStatus)>,
    said_at: Instant,
    /// Until when nothing is said of a Node that is there while nothing is known.
    unknowing: Instant,
    /// When it is to be sent again though nothing has changed.
    due: Instant,
    ready: Option<bool>,
    cordoned: bool,
}

impl Reporter {
    pub(super) fn new(
        shared: Arc<Shared>,
        machine: MachineFacts,
        health: watch::Receiver<RuntimeHealth>,
        images: watch::Receiver<Option<Vec<ContainerImage>>>,
        pressures: watch::Receiver<Option<BTreeSet<Pressure>>>,
    ) -> Self {
        let now = Instant::now();
        Self {
            shared,
            machine,
            health,
            images,
            pressures,
            said: None,
            said_at: now,
            unknowing: now + UNKNOWING,
            due: now,
            ready: None,
            cordoned: false,
        }
    }

    /// Registers and reports for as long as it is not dropped.
    pub(super) async fn run(mut self) {
        let mut node = self.shared.node.subscribe();
        let mut look =
            tokio::time::interval(self.shared.config.status_update.max(Duration::from_millis(100)));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut backoff = RETRY;
        loop {
            node.mark_unchanged();
            self.health.mark_unchanged();
            self.images.mark_unchanged();
            self.pressures.mark_unchanged();
            let registered = is_registered(&self.shared.node.current());
            let result = if registered { self.report().await } else { self.register().await };
            let again = match result {
                Ok(again) => {
                    backoff.reset();
                    again
                }
                Err(error) => {
                    if registered && error.code() == 404 {
                        self.shared.node.gone(None);
                        continue;
                    }
                    self.failed(registered, &error);
                    Some(backoff.fail())
                }
            };
            self.shared.contact.registered(is_registered(&self.shared.node.current()));
            let failing = again.is_some();
            // While the server is away, changes add up and are told together when the time of the next try has come.
            tokio::select! {
                () = tokio::time::sleep(again.unwrap_or_default()), if failing => {}
                _ = look.tick(), if !failing => {}
                _ = node.changed(), if !failing => {}
                _ = self.health.changed(), if !failing => {}
                _ = self.images.changed(), if !failing => {}
                _ = self.pressures.changed(), if !failing => {}
            }
        }
    }

    fn failed(&self, registered: bool, error: &AskError) {
        let name = &self.shared.name;
        let what = if registered { "tell the status of" } else { "register" };
        let hint = match error.code() {
            401 => "; it does not know this node's credentials, which are in the kubeconfig",
            403 => {
                "; this node's credentials, which are in the kubeconfig, are not those of a node of this name"
            }
            _ => "",
        };
        self.shared.contact.failed(Matter::Node, format!("cannot {what} node {name}: {error}{hint}"));
    }

    fn facts(&self) -> NodeFacts {
        let health = self.health.borrow();
        let told = !health.runtime_name.is_empty();
        NodeFacts {
            addresses: (self.machine.addresses)(),
            capacity: self.machine.capacity.clone(),
            allocatable: self.machine.allocatable.clone(),
            system: self.machine.system.clone(),
            runtime: told.then(|| RuntimeTold {
                name: health.runtime_name.to_string(),
                version: health.runtime_version.to_string(),
                handlers: health.handlers.clone(),
                features: health.features,
            }),
            images: self.images.borrow().clone(),
            problems: problems(&health),
            pressures: self.pressures.borrow().clone().unwrap_or_default(),
        }
    }

    async fn api(&self) -> Api<Node> {
        Api::all(self.shared.client().await)
    }

    /// Has the server have the Node. What has to be done after it is asked for at once, by the Node's change.
    async fn register(&mut self) -> Result<Option<Duration>, AskError> {
        let (name, patience) = (Arc::clone(&self.shared.name), self.shared.patience());
        let api = self.api().await;
        let mut health = self.health.clone();
        let mut pressures = self.pressures.clone();
        let first = async {
            health.wait_for(|health| health.asked).await.ok();
            pressures.wait_for(Option::is_some).await.ok();
        };
        // The connection is made meanwhile.
        let (found, _) =
            tokio::join!(ask(patience, api.get_opt(&name)), tokio::time::timeout(FIRST_WAIT, first));
        let facts = self.facts();
        let node = match found? {
            Some(node) if !self.shared.config.register => node,
            Some(node) => match reconcile(&node, &self.shared.template, &facts) {
                Some(patch) => self.patch(&api, &patch).await?,
                None => node,
            },
            None if !self.shared.config.register => {
                let problem =
                    "the API server has no such node, and registerNode is off: it waits for one to be made";
                return Err(AskError::Unheard(problem.to_owned()));
            }
            None => {
                let new = new_node(&self.shared.template, &facts, self.shared.clock.now());
                let made = match ask(patience, api.create(&PostParams::default(), &new)).await {
                    // Made by somebody else just now.
                    Err(AskError::Refused { code: 409, .. }) => return Ok(Some(Duration::ZERO)),
                    made => made?,
                };
                self.tell_conditions(&NodeStatus::default(), &new.status.clone().unwrap_or_default());
                self.sent(&new.status.unwrap_or_default(), &made);
                made
            }
        };
        tracing::info!(node = &*name, "the node is registered");
        self.shared.contact.done(Matter::Node);
        self.shared.node.update(node);
        Ok(None)
    }

    async fn patch(&self, api: &Api<Node>, patch: &Value) -> Result<Node, AskError> {
        let patch = Patch::Strategic(patch);
        ask(self.shared.patience(), api.patch_status(&self.shared.name, &PatchParams::default(), &patch))
            .await
    }

    /// Whether enough is known to say how the node is.
    fn knows(&self) -> bool {
        self.health.borrow().asked && self.pressures.borrow().is_some()
    }

    /// Sends the status if it is due. Answers when to look again, if that is before the next time.
    async fn report(&mut self) -> Result<Option<Duration>, AskError> {
        // The Node of an agent before this one: it is not unready because the runtime has not been heard yet, and
        // whatever runs on it would be told to be unready too. Looked at again when something is known.
        if self.said.is_none() && !self.knows() && Instant::now() < self.unknowing {
            return Ok(None);
        }
        let node = self.shared.node.current();
        let current = node.status.clone().unwrap_or_default();
        let wanted = status(&current, &self.shared.template, &self.facts(), self.shared.clock.now());
        self.tell_schedulable(&node);
        let now = Instant::now();
        let (ours, others) = match &self.said {
            None => (true, true),
            Some((said, accepted)) => (content(&wanted) != *said, content(&current) != *accepted),
        };
        if !ours && now < self.due {
            let wait = (self.said_at + CORRECTIONS).saturating_duration_since(now);
            match others {
                false => return Ok(None),
                true if !wait.is_zero() => return Ok(Some(wait)),
                true => {}
            }
        }
        let api = self.api().await;
        let answer = self.patch(&api, &status_patch(&current, &wanted)).await?;
        self.tell_conditions(&current, &wanted);
        self.sent(&wanted, &answer);
        if ours {
            // Nodes that have changed together are not to report together for ever.
            let spread = rand::rng().random_range(0.5..1.5);
            self.due = Instant::now() + self.shared.config.status_report.mul_f64(spread);
        }
        self.shared.contact.done(Matter::Node);
        self.shared.node.update(answer);
        Ok(None)
    }

    /// Tells of what has changed of the node's conditions, and of a boot.
    fn tell_conditions(&self, before: &NodeStatus, now: &NodeStatus) {
        let name = &self.shared.name;
        let conditions = |status: &NodeStatus| status.conditions.clone().unwrap_or_default();
        let boot = |status: &NodeStatus| status.node_info.as_ref().map(|info| info.boot_id.clone());
        let (booted, boot) = (boot(before).unwrap_or_default(), boot(now).unwrap_or_default());
        if !booted.is_empty() && booted != boot {
            let message = format!("Node {name} has been rebooted, boot id: {boot}");
            self.shared.events.node(name, Words::warning("Rebooted", message));
        }
        for words in condition_words(name, &conditions(before), &conditions(now)) {
            self.shared.events.node(name, words);
        }
    }

    /// Tells of a node that is cordoned, and of its end.
    fn tell_schedulable(&mut self, node: &Node) {
        let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default();
        if std::mem::replace(&mut self.cordoned, cordoned) != cordoned {
            let what = if cordoned { "NodeNotSchedulable" } else { "NodeSchedulable" };
            self.shared.events.node(&self.shared.name, node_became(&self.shared.name, what));
        }
    }

    fn sent(&mut self, said: &NodeStatus, answer: &Node) {
        let accepted = content(answer.status.as_ref().unwrap_or(&NodeStatus::default()));
        self.said = Some((content(said), accepted));
        self.said_at = Instant::now();
        self.due = self.said_at + self.shared.config.status_report;
        let condition = said.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
        let Some(condition) = condition else { return };
        let ready = condition.status == "True";
        if self.ready.replace(ready) != Some(ready) {
            let why = condition.message.as_deref().unwrap_or_default();
            if ready {
                tracing::info!("the node is ready");
            } else {
                tracing::warn!("the node is not ready: {why}");
            }
        }
    }
}

/// Why no pod can run, in the words of the runtime.
fn problems(health: &RuntimeHealth) -> Vec<String> {
    let said = |what: &str, text: &str, already: &str| {
        format!("{what} not ready: {}", text.strip_prefix(already).unwrap_or(text))
    };
    if !health.asked {
        return vec!["container runtime not ready: it has not answered yet".to_owned()];
    }
    match (&health.runtime_error, &health.network_error) {
        // What it said of its network before is of no more use.
        (Some(error), _) => vec![said("container runtime", error, "runtime not ready: ")],
        (None, Some(error)) => vec![said("container runtime network", error, "network not ready: ")],
        (None, None) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_in_the_runtimes_words() {
        let mut health = RuntimeHealth::default();
        assert_eq!(problems(&health), ["container runtime not ready: it has not answered yet"]);
        health.asked = true;
        assert!(problems(&health).is_empty());
        health.network_error =
            Some("network not ready: NetworkPluginNotReady: cni plugin not initialized".to_owned());
        let network =
            "container runtime network not ready: NetworkPluginNotReady: cni plugin not initialized";
        assert_eq!(problems(&health), [network]);
        health.runtime_error = Some("cannot reach unix:///run/x.sock: connection refused".to_owned());
        let down = "container runtime not ready: cannot reach unix:///run/x.sock: connection refused";
        assert_eq!(problems(&health), [down]);
    }
}
