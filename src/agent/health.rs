//! How the container runtime is: asked for regularly, and at once when somebody has reason to doubt it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    api::cri::{RuntimeFeatures, RuntimeHandler},
    cri::Cri,
    error::chain,
    host::cni::{cni_dirs_from_runtime_info, cni_load_errors, diagnose},
    policy::runtime::RuntimeFacts,
};

/// Time between two questions while all is well; kubelet asks every 5 s.
const PERIOD: Duration = Duration::from_secs(10);
/// Time between two questions while something is wrong: what waits for the runtime should not wait longer
/// than the runtime takes.
const IMPATIENT_PERIOD: Duration = Duration::from_millis(500);
/// Where CNI looks by default, for a runtime that does not tell its own folders.
const DEFAULT_CNI_CONF: &str = "/etc/cni/net.d";
/// Likewise for the plugins.
const DEFAULT_CNI_BIN: &str = "/opt/cni/bin";

/// What is known of the runtime's health.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeHealth {
    /// Whether it has answered or failed to yet.
    pub asked: bool,
    /// Why it cannot be used: it does not answer, or says itself that it is not ready.
    pub runtime_error: Option<String>,
    /// Why pods cannot have a network of their own.
    pub network_error: Option<String>,
    /// Its name, e.g. `containerd`: the scheme of container ids in a pod's status.
    pub runtime_name: Arc<str>,
    /// Its version.
    pub runtime_version: Arc<str>,
    /// Its handlers and what each can do.
    pub handlers: Vec<RuntimeHandler>,
    /// What it can do whatever the handler; `None` of a runtime that does not tell.
    pub features: Option<RuntimeFeatures>,
}

impl RuntimeHealth {
    /// Whether it answers and is ready.
    pub fn is_usable(&self) -> bool {
        self.asked && self.runtime_error.is_none()
    }

    /// Whether it has answered at any time: before, nobody knows what ids of containers begin with.
    pub fn is_named(&self) -> bool {
        !self.runtime_name.is_empty()
    }

    /// What the runtime says of itself, as decisions about a pod of that handler depend on it.
    pub fn facts(&self, handler: &str) -> RuntimeFacts {
        RuntimeFacts {
            name: Arc::clone(&self.runtime_name),
            version: Arc::clone(&self.runtime_version),
            handlers: self.handlers.clone(),
            handler: handler.into(),
            features: self.features,
        }
    }
}

/// Asks, and keeps the answer.
pub struct HealthMonitor {
    cri: Arc<dyn Cri>,
    sender: watch::Sender<RuntimeHealth>,
    doubt: Notify,
}

impl HealthMonitor {
    /// One that has asked nothing yet.
    pub fn new(cri: Arc<dyn Cri>) -> Arc<Self> {
        Arc::new(Self { cri, sender: watch::Sender::new(RuntimeHealth::default()), doubt: Notify::new() })
    }

    /// The last answer, and its changes.
    pub fn watch(&self) -> watch::Receiver<RuntimeHealth> {
        self.sender.subscribe()
    }

    /// The last answer.
    pub fn current(&self) -> RuntimeHealth {
        self.sender.borrow().clone()
    }

    /// Has it asked again soon: a call has just failed.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Asks until stopped.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let health = self.ask().await;
            let well = health.runtime_error.is_none() && health.network_error.is_none();
            let wait = if well { PERIOD } else { IMPATIENT_PERIOD };
            self.sender.send_if_modified(|old| {
                let changed = *old != health;
                if changed {
                    tell(old, &health);
                    *old = health;
                }
                changed
            });
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
                () = self.doubt.notified() => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn ask(&self) -> RuntimeHealth {
        let mut health = RuntimeHealth { asked: true, ..self.current() };
        if health.runtime_name.is_empty() || health.runtime_error.is_some() {
            match self.cri.version().await {
                Ok(version) => {
                    health.runtime_name = version.runtime_name.into();
                    health.runtime_version = version.runtime_version.into();
                }
                Err(error) => {
                    health.runtime_error = Some(chain(&error));
                    return health;
                }
            }
        }
        let answer = match self.cri.status(false).await {
            Ok(answer) => answer,
            Err(error) => {
                health.runtime_error = Some(chain(&error));
                return health;
            }
        };
        health.handlers.clone_from(&answer.runtime_handlers);
        health.features = answer.features;
        let failed = |kind: &str| {
            let conditions = answer.status.iter().flat_map(|status| &status.conditions);
            match conditions.into_iter().find(|condition| condition.r#type == kind) {
                Some(condition) if condition.status => None,
                Some(condition) => Some(format!("{}: {}", condition.reason, condition.message)),
                None => Some(format!("the runtime does not tell its condition {kind}")),
            }
        };
        health.runtime_error = failed("RuntimeReady").map(|why| format!("runtime not ready: {why}"));
        health.network_error = match failed("NetworkReady") {
            Some(why) => Some(self.explain_network(&why).await),
            None => None,
        };
        health
    }

    /// Looks at the CNI configuration itself, since the runtime says only that there is none.
    async fn explain_network(&self, why: &str) -> String {
        let info = self.cri.status(true).await.map(|answer| answer.info).unwrap_or_default();
        let info: std::collections::HashMap<String, String> = info.into_iter().collect();
        let (conf, bin): (Vec<PathBuf>, Vec<PathBuf>) = cni_dirs_from_runtime_info(&info)
            .unwrap_or_else(|| (vec![DEFAULT_CNI_CONF.into()], vec![DEFAULT_CNI_BIN.into()]));
        let loaded = cni_load_errors(&info);
        let found = tokio::task::spawn_blocking(move || diagnose(&conf, &bin).to_string()).await;
        let mut text = format!("network not ready: {why}");
        if let Ok(found) = found {
            text = format!("{text}; {found}");
        }
        for error in loaded.values() {
            if !text.contains(error) {
                text = format!("{text}; {error}");
            }
        }
        text
    }
}

/// Logs what changed.
fn tell(old: &RuntimeHealth, new: &RuntimeHealth) {
    match (&old.runtime_error, &new.runtime_error) {
        (_, Some(error)) if old.runtime_error != new.runtime_error => {
            tracing::error!("the container runtime cannot be used: {error}");
        }
        (Some(_), None) => {
            tracing::info!(
                name = &*new.runtime_name,
                version = &*new.runtime_version,
                "the container runtime is back"
            );
        }
        (None, None) if !old.asked => {
            tracing::info!(
                name = &*new.runtime_name,
                version = &*new.runtime_version,
                "the container runtime is ready"
            );
        }
        _ => {}
    }
    match (&old.network_error, &new.network_error) {
        (_, Some(error)) if old.network_error != new.network_error => tracing::error!("{error}"),
        (Some(_), None) => tracing::info!("the pod network is ready"),
        _ => {}
    }
}
