//! The agent as the operator sees it: its pods, its health, and the inputs it could not use.

use std::sync::Arc;

use super::{
    cluster::{identity::Shown, node::Contact},
    health::HealthMonitor,
    pods::env::PodEnv,
    sync_loop::{LoopState, STALLED_AFTER},
};
use crate::{
    api::view::{AgentView, HealthCheck, PodView},
    telemetry,
};

/// Reads what the agent's parts last wrote; waits for none of them.
pub struct View {
    /// The pods.
    pub env: Arc<PodEnv>,
    /// The runtime's health.
    pub health: Arc<HealthMonitor>,
    /// The sync loop and the sources.
    pub sync_loop: Arc<LoopState>,
    /// How the node stands with its cluster, if it has one.
    pub contact: Option<Arc<Contact>>,
    /// What is told of the node's certificates.
    pub certificates: Vec<Arc<Shown>>,
}

fn check(name: &str, fatal: bool, problem: Option<String>, well: &str) -> HealthCheck {
    let ok = problem.is_none();
    HealthCheck { name: name.to_owned(), ok, fatal, message: problem.unwrap_or_else(|| well.to_owned()) }
}

impl AgentView for View {
    fn pods(&self) -> Vec<PodView> {
        self.env.board.all()
    }

    fn health(&self) -> Vec<HealthCheck> {
        let idle = self.sync_loop.idle();
        let stalled =
            (idle > STALLED_AFTER).then(|| format!("the sync loop has not turned for {} s", idle.as_secs()));
        let runtime = self.health.current();
        let not_asked = (!runtime.asked).then(|| "the runtime has not answered yet".to_owned());
        let version = format!("{} {}", runtime.runtime_name, runtime.runtime_version);
        let relisted = match self.env.pleg.relisted() {
            Some(_) => None,
            None => Some("what the runtime holds is not known yet".to_owned()),
        };
        let mut checks = vec![
            check("ping", true, None, "the agent answers"),
            check("log", true, telemetry::write_error(), "the log is written"),
            check("syncloop", true, stalled, "the sync loop turns"),
            check("runtime", false, not_asked.clone().or(runtime.runtime_error), &version),
            check("network", false, not_asked.or(runtime.network_error), "the pod network is ready"),
            check("pleg", false, relisted, "what the runtime holds is known"),
        ];
        checks.extend(self.contact.iter().flat_map(|contact| contact.checks()));
        checks.extend(self.certificates.iter().map(|certificate| certificate.check()));
        for source in self.sync_loop.desired().sources() {
            let problem = match (source.delivered, source.problems.first()) {
                (true, None) => None,
                (delivered, first) => {
                    let state = match (delivered, source.offline) {
                        (true, _) => String::new(),
                        (false, false) => "not read yet; no pod is removed until it is. ".to_owned(),
                        (false, true) => format!(
                            "offline: {} pods as last known; none is removed until the server is heard. ",
                            source.pods.len()
                        ),
                    };
                    let what = first.map(ToString::to_string).unwrap_or_default();
                    Some(format!("{state}{what}").trim_end().to_owned())
                }
            };
            let well = format!("{} pods", source.pods.len());
            checks.push(check(&format!("source:{}", source.source), false, problem, &well));
        }
        checks
    }

    fn lease_age(&self) -> Option<std::time::Duration> {
        self.contact.as_ref()?.lease_age()
    }

    fn input_problems(&self) -> Vec<(String, String)> {
        let desired = self.sync_loop.desired();
        desired
            .sources()
            .flat_map(|source| &source.problems)
            .map(|problem| (problem.origin.clone(), problem.message.clone()))
            .collect()
    }
}
