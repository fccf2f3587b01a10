//! Whether the runtime serves: what CRI says of itself, and what containerd says of the plugins behind it.

use std::{path::PathBuf, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    Node, Report, cri,
    ctr::{Ctr, Plugin},
    socket,
};
use crate::cri::{Cri as _, CriClient, CriTimeouts};

/// Between two questions.
const PAUSE: Duration = Duration::from_secs(1);
const ANSWER: Duration = Duration::from_secs(10);

/// Those that make up CRI: in containerd 1.x the first, in 2.x all.
const PLUGINS: [(&str, &str); 4] = [
    ("io.containerd.grpc.v1", "cri"),
    ("io.containerd.cri.v1", "images"),
    ("io.containerd.cri.v1", "runtime"),
    ("io.containerd.podsandbox.controller.v1", "podsandbox"),
];

impl<R: Report> Node<R> {
    /// Waits until the runtime is ready.
    pub(super) async fn verify_runtime(
        &mut self,
        endpoint: &str,
        network: bool,
        seconds: u64,
    ) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        let address: PathBuf = socket(endpoint)?;
        let client = cri(endpoint, CriTimeouts::from_request_timeout(ANSWER))?;
        let ctr = self.ctr(&address);
        if let Err(missing) = &ctr {
            self.report.warn(&format!("{missing}: containerd's plugins are not looked at"));
        }
        loop {
            let ready = readiness(&client, network).await;
            let plugins = match &ctr {
                Ok(ctr) => plugins(ctr).await,
                Err(_missing) => Plugins::Unknown,
            };
            let problem = match (ready, plugins) {
                (Ok(()), Plugins::Well | Plugins::Unknown) => return Ok(()),
                // They are started once; nothing changes until containerd is started anew.
                (_, Plugins::Broken(problem)) => return Err(problem),
                (Err(problem), _) => problem,
            };
            if Instant::now() >= deadline {
                return Err(format!("not ready within {seconds} s: {problem}"));
            }
            sleep(PAUSE).await;
        }
    }
}

async fn readiness(client: &CriClient, network: bool) -> Result<(), String> {
    let status = client.status(false).await.map_err(|error| error.to_string())?;
    let conditions = status.status.map(|status| status.conditions).unwrap_or_default();
    for wanted in ["RuntimeReady", "NetworkReady"] {
        if wanted == "NetworkReady" && !network {
            continue;
        }
        match conditions.iter().find(|condition| condition.r#type == wanted) {
            Some(condition) if condition.status => {}
            Some(condition) => {
                return Err(format!("{wanted} is false: {}: {}", condition.reason, condition.message));
            }
            None => return Err(format!("the runtime says nothing of {wanted}")),
        }
    }
    Ok(())
}

/// What containerd says of CRI's plugins.
enum Plugins {
    Well,
    /// It cannot be asked now.
    Unknown,
    Broken(String),
}

async fn plugins(ctr: &Ctr) -> Plugins {
    let Ok(all) = ctr.plugins().await else { return Plugins::Unknown };
    let ours = |plugin: &&Plugin| PLUGINS.iter().any(|(kind, id)| plugin.kind == *kind && plugin.id == *id);
    let found: Vec<&Plugin> = all.iter().filter(ours).collect();
    if !found.iter().any(|plugin| plugin.kind == "io.containerd.grpc.v1") {
        return Plugins::Broken(
            "containerd has no CRI plugin: its configuration disables it (disabled_plugins)".to_owned(),
        );
    }
    let mut wrong = Vec::new();
    for plugin in found {
        if plugin.status != "ok" {
            let why = ctr.plugin_error(plugin).await;
            let why = why.unwrap_or_else(|| format!("its status is {}", plugin.status));
            wrong.push(format!("containerd's plugin {}.{} did not start: {why}", plugin.kind, plugin.id));
        }
    }
    if wrong.is_empty() { Plugins::Well } else { Plugins::Broken(wrong.join("; ")) }
}
