//! What there is to say of the node's standing with the server: in healthz, and once in the log for each change.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::api::view::HealthCheck;

/// What the server was last asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Matter {
    /// To have the Node, and its status.
    Node,
    /// To take the lease's renewal.
    Lease,
    /// To tell of the Node's changes.
    Watch,
}

impl Matter {
    fn done(self) -> &'static str {
        match self {
            Self::Node => "the node's status is at the API server",
            Self::Lease => "the node's lease is renewed",
            Self::Watch => "the API server tells of the node's changes",
        }
    }
}

/// Why tries have failed since the last that did not, each cause once: a server that is away fails in several ways
/// by turns.
#[derive(Debug, Default)]
struct Problems(Vec<String>);

/// Most causes that are remembered.
const CAUSES: usize = 8;

impl Problems {
    fn last(&self) -> Option<String> {
        self.0.last().cloned()
    }
}

#[derive(Debug, Default)]
struct State {
    node: Problems,
    lease: Problems,
    watch: Problems,
    registered: bool,
    renewed: Option<Instant>,
}

impl State {
    fn problems(&mut self, matter: Matter) -> &mut Vec<String> {
        match matter {
            Matter::Node => &mut self.node.0,
            Matter::Lease => &mut self.lease.0,
            Matter::Watch => &mut self.watch.0,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Contact {
    /// How long the lease is good for.
    lease: Duration,
    state: Mutex<State>,
}

impl Contact {
    pub(super) fn new(lease: Duration) -> Self {
        Self { lease, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request failed. Logged when it is news.
    pub(super) fn failed(&self, matter: Matter, problem: String) {
        let mut state = self.state();
        let known = state.problems(matter);
        match known.iter().position(|old| *old == problem) {
            Some(place) => drop(known.remove(place)),
            None => tracing::warn!("{problem}"),
        }
        if known.len() == CAUSES {
            known.remove(0);
        }
        known.push(problem);
    }

    /// A request was answered as it should be.
    pub(super) fn done(&self, matter: Matter) {
        let mut state = self.state();
        let known = state.problems(matter);
        if !known.is_empty() {
            known.clear();
            tracing::info!("{}", matter.done());
        }
    }

    /// Whether the server has the Node.
    pub(super) fn registered(&self, registered: bool) {
        self.state().registered = registered;
    }

    /// The lease was renewed.
    pub(super) fn renewed(&self) {
        self.done(Matter::Lease);
        self.state().renewed = Some(Instant::now());
    }

    /// Time since the lease was last renewed; `None` before the first time.
    pub fn lease_age(&self) -> Option<Duration> {
        self.state().renewed.map(|renewed| renewed.elapsed())
    }

    /// For healthz. Neither fails it: to start the agent again brings no server back.
    pub fn checks(&self) -> Vec<HealthCheck> {
        let age = self.lease_age();
        let state = self.state();
        let check = |name: &str, problem: Option<String>, well: String| HealthCheck {
            name: name.to_owned(),
            ok: problem.is_none(),
            fatal: false,
            message: problem.unwrap_or(well),
        };
        let not_yet = (!state.registered).then(|| "the node is not registered yet".to_owned());
        let lease = match age {
            None => Some(state.lease.last().unwrap_or_else(|| "not renewed yet".to_owned())),
            Some(age) if age >= self.lease => {
                let cause = state.lease.last().map(|cause| format!(": {cause}")).unwrap_or_default();
                Some(format!(
                    "renewed {} s ago, it was good for {} s{cause}",
                    age.as_secs(),
                    self.lease.as_secs()
                ))
            }
            Some(_) => None,
        };
        let renewed = format!("renewed {} s ago", age.unwrap_or_default().as_secs());
        vec![
            check(
                "node",
                state.node.last().or(not_yet).or_else(|| state.watch.last()),
                "registered".to_owned(),
            ),
            check("lease", lease, renewed),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(contact: &Contact) -> Vec<(bool, String)> {
        contact.checks().into_iter().map(|check| (check.ok, check.message)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_lease_has_an_age() {
        let contact = Contact::new(Duration::from_secs(40));
        let first =
            [(false, "the node is not registered yet".to_owned()), (false, "not renewed yet".to_owned())];
        assert_eq!(told(&contact), first);
        contact.registered(true);
        contact.renewed();
        tokio::time::advance(Duration::from_secs(39)).await;
        assert_eq!(told(&contact), [(true, "registered".to_owned()), (true, "renewed 39 s ago".to_owned())]);
        contact.failed(Matter::Lease, "no answer".to_owned());
        assert!(told(&contact)[1].0, "it is still good");
        tokio::time::advance(Duration::from_secs(2)).await;
        let late = (false, "renewed 41 s ago, it was good for 40 s: no answer".to_owned());
        assert_eq!(told(&contact)[1], late);
        contact.failed(Matter::Node, "refused".to_owned());
        assert_eq!(told(&contact)[0], (false, "refused".to_owned()));
        contact.done(Matter::Node);
        contact.renewed();
        assert!(told(&contact).into_iter().all(|(ok, _)| ok));
    }
}
