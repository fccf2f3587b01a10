//! A sandbox that is started and stopped, to see whether pods will be.

use std::{collections::BTreeMap, path::Path, time::Duration};

use super::{Node, Report, cri};
use crate::{
    api::cri::{
        LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig,
        PodSandboxMetadata, PodSandboxState,
    },
    cri::{Cri as _, CriClient, CriTimeouts},
    host::cgroup::CgroupMounts,
};

const NAME: &str = "nodectl-switch-test";
const NAMESPACE: &str = "kube-system";
const ANSWER: Duration = Duration::from_secs(60);
/// A network's plugin may fetch its own image first.
const RUN: Duration = Duration::from_secs(240);
/// A slice's end.
const SLICE: Duration = Duration::from_secs(30);

impl<R: Report> Node<R> {
    /// Starts a sandbox, looks at it and takes it away again, whatever comes of it.
    pub(super) async fn test_sandbox(
        &mut self,
        endpoint: &str,
        network: bool,
        cgroup_driver: &str,
    ) -> Result<(), String> {
        let timeouts = CriTimeouts { request: ANSWER, run_sandbox: RUN, pull: None };
        let client = cri(endpoint, timeouts)?;
        let systemd = cgroup_driver == "systemd";
        let parent =
            if systemd { format!("{}.slice", self.paths.cgroup) } else { format!("/{}", self.paths.cgroup) };
        remove_all(&client)
            .await
            .map_err(|error| format!("one of an earlier test cannot be removed: {error}"))?;
        let tested = test(&client, &parent, network).await;
        let removed = remove_all(&client).await;
        self.remove_cgroup(&parent, systemd).await;
        tested?;
        removed.map_err(|error| format!("it started and cannot be removed: {error}"))
    }

    /// The cgroup above the sandbox's own, which a runtime leaves. Another test's sandbox keeps it busy, and an empty
    /// one does no harm.
    async fn remove_cgroup(&mut self, parent: &str, systemd: bool) {
        if systemd && let Ok(systemd) = self.systemd().await {
            systemd.stop(parent, SLICE).await.ok();
        }
        let path = format!("/{}", parent.trim_start_matches('/'));
        let removed = CgroupMounts::find(Path::new("/proc/self/mountinfo")).and_then(|all| all.remove(&path));
        if let Err(error) = removed {
            self.report.warn(&format!("the cgroup {path} of the test stays: {error}"));
        }
    }
}

/// What the sandbox is to be like.
fn config(parent: &str, network: bool) -> PodSandboxConfig {
    let mode = if network { NamespaceMode::Pod } else { NamespaceMode::Node };
    let namespaces = NamespaceOption { network: mode.into(), ..NamespaceOption::default() };
    // One for each try: containerd keeps a name until all of the last one is gone.
    let uid = format!("{NAME}-{}", std::process::id());
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: NAME.to_owned(),
            uid: uid.clone(),
            namespace: NAMESPACE.to_owned(),
            attempt: 0,
        }),
        hostname: if network { NAME.to_owned() } else { String::new() },
        log_directory: format!("/var/log/pods/{NAMESPACE}_{NAME}_{uid}"),
        labels: BTreeMap::from([
            (crate::api::labels::POD_NAME.to_owned(), NAME.to_owned()),
            (crate::api::labels::POD_NAMESPACE.to_owned(), NAMESPACE.to_owned()),
            (crate::api::labels::POD_UID.to_owned(), uid),
        ]),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: parent.to_owned(),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces),
                ..LinuxSandboxSecurityContext::default()
            }),
            ..LinuxPodSandboxConfig::default()
        }),
        ..PodSandboxConfig::default()
    }
}

async fn test(client: &CriClient, parent: &str, network: bool) -> Result<(), String> {
    let id = client.run_pod_sandbox(config(parent, network), "").await;
    let id = id.map_err(|error| format!("a sandbox does not start: {error}"))?;
    let status = client.pod_sandbox_status(&id, false).await.map_err(|error| error.to_string())?.status;
    let status = status.ok_or("the runtime has no status of the sandbox that it made")?;
    if status.state != i32::from(PodSandboxState::SandboxReady) {
        return Err("a sandbox has started and is not ready".to_owned());
    }
    if network && status.network.is_none_or(|network| network.ip.is_empty()) {
        return Err("a sandbox has started and has no address: see its CNI configuration".to_owned());
    }
    Ok(())
}

/// Removes this test's and earlier tests' sandboxes.
async fn remove_all(client: &CriClient) -> Result<(), String> {
    let all = client.list_pod_sandboxes(None).await.map_err(|error| error.to_string())?;
    for sandbox in all {
        let ours = sandbox
            .metadata
            .as_ref()
            .is_some_and(|metadata| metadata.name == NAME && metadata.namespace == NAMESPACE);
        if ours {
            client.stop_pod_sandbox(&sandbox.id).await.map_err(|error| error.to_string())?;
            client.remove_pod_sandbox(&sandbox.id).await.map_err(|error| error.to_string())?;
        }
    }
    Ok(())
}
