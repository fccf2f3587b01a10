//! Runs a container's hooks (kubelet's pkg/kubelet/lifecycle/handlers.go).

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use tokio::sync::oneshot;
use tokio_util::task::AbortOnDropHandle;

use super::{mailbox::Mailbox, worker::PodWorker};
use crate::{
    agent::probes::{
        cut,
        http::{Get, GetError, get},
        request,
    },
    api::{ContainerId, ContainerState, PodExt as _, PodObservation},
    cri::Cri,
    error::chain,
    policy::{events::Words, probe::PostStart},
};

/// What the agent calls itself to hooks.
const HOOK_AGENT: &str = "kube-lifecycle/1.36";

/// A hook, ready to be run.
pub(super) enum Hook {
    Exec(Vec<String>),
    Get(Result<Get, String>),
    Sleep(Duration),
    /// One that no kubelet runs either.
    Unknown,
}

impl Hook {
    /// A container's hook. `ip` is the pod's address.
    pub(super) fn new(handler: &LifecycleHandler, container: &Container, ip: Option<&str>) -> Self {
        if let Some(exec) = &handler.exec {
            Self::Exec(exec.command.clone().unwrap_or_default())
        } else if let Some(action) = &handler.http_get {
            Self::Get(match ip.or(action.host.as_deref()) {
                Some(ip) => request(action, container, ip, HOOK_AGENT),
                None => Err("the pod has no address".to_owned()),
            })
        } else if let Some(sleep) = &handler.sleep {
            Self::Sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0)))
        } else {
            Self::Unknown
        }
    }

    /// Runs it to its end, however long that takes: who waits bounds it by dropping the future. Any answer of
    /// a server will do.
    ///
    /// # Errors
    /// In words, when it cannot be run or its command fails.
    pub(super) async fn run(self, cri: &dyn Cri, id: &ContainerId) -> Result<(), String> {
        match self {
            Self::Exec(command) => match cri.exec_sync(id.as_str(), command, None).await {
                Ok(done) if done.exit_code == 0 => Ok(()),
                Ok(done) => {
                    let output = if done.stderr.is_empty() { done.stdout } else { done.stderr };
                    Err(format!("exit code {}: {}", done.exit_code, cut(&String::from_utf8_lossy(&output))))
                }
                Err(error) => Err(chain(&error)),
            },
            Self::Get(request) => get_any(request?).await,
            Self::Sleep(time) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
            Self::Unknown => Err("the hook says nothing that can be done".to_owned()),
        }
    }
}

/// Asks for any answer. What is asked over TLS of a server that has none is asked again without, as kubelet does
/// (for hooks, not for probes), but with no credentials.
async fn get_any(mut request: Get) -> Result<(), String> {
    let mut answer = get(&request, None).await;
    if matches!(answer, Err(GetError::NoTls(_))) {
        request.https = false;
        request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
        answer = get(&request, None).await;
    }
    match answer {
        // Its answer was there; what it says does not matter.
        Ok(_) | Err(GetError::Body(_)) => Ok(()),
        Err(error) => Err(cut(&error.to_string())),
    }
}

/// A postStart hook that was begun. Dropped, it ends.
pub(super) struct RunningHook {
    end: oneshot::Receiver<Result<(), String>>,
    _task: AbortOnDropHandle<()>,
}

impl RunningHook {
    fn begin(hook: Hook, cri: Arc<dyn Cri>, id: ContainerId, mailbox: Arc<Mailbox>) -> Self {
        let (sender, end) = oneshot::channel();
        let task = tokio::spawn(async move {
            let ended = hook.run(&*cri, &id).await;
            sender.send(ended).ok();
            mailbox.wake();
        });
        Self { end, _task: AbortOnDropHandle::new(task) }
    }
}

impl PodWorker {
    /// Begins a started container's postStart hook, if it has one. Answers whether it has: until the hook is
    /// done nothing that comes after the container is started.
    pub(super) fn begin_post_start(&mut self, pod: &Pod, container: &Container, id: &ContainerId) -> bool {
        let Some(handler) = container.lifecycle.as_ref().and_then(|l| l.post_start.as_ref()) else {
            return false;
        };
        let ip = self.pod_ips(pod).first().map(ToString::to_string);
        let hook = Hook::new(handler, container, ip.as_deref());
        tracing::info!(pod = %self.full_name, container = container.name, %id, "postStart hook begins");
        let running =
            RunningHook::begin(hook, Arc::clone(&self.env.cri), id.clone(), Arc::clone(&self.mailbox));
        self.hooks.insert(id.clone(), running);
        self.probes.hooks.insert(id.clone(), PostStart::Running);
        true
    }

    /// Takes note of postStart hooks that have ended, and drops those of containers that have.
    pub(super) fn settle_hooks(&mut self, seen: &PodObservation) {
        let stopping = self.lifecycle.is_stopping();
        let ended = |id: &ContainerId| {
            stopping
                || seen.containers.iter().any(|c| {
                    c.id == *id && matches!(c.state, ContainerState::Exited | ContainerState::Unknown)
                })
        };
        self.hooks.retain(|id, _| !ended(id));
        self.probes.hooks.retain(|id, _| !ended(id));
        let done: Vec<(ContainerId, Result<(), String>)> = self
            .hooks
            .iter_mut()
            .filter_map(|(id, hook)| match hook.end.try_recv() {
                Ok(ended) => Some((id.clone(), ended)),
                Err(oneshot::error::TryRecvError::Empty) => None,
                Err(oneshot::error::TryRecvError::Closed) => {
                    Some((id.clone(), Err("the hook's task failed, which is a bug of nodectl".to_owned())))
                }
            })
            .collect();
        for (id, ended) in done {
            self.hooks.remove(&id);
            match ended {
                Ok(()) => {
                    tracing::info!(pod = %self.full_name, %id, "postStart hook done");
                    self.probes.hooks.remove(&id);
                }
                Err(why) => {
                    tracing::warn!(pod = %self.full_name, %id, "FailedPostStartHook: {why}");
                    // What it said may hold what the container keeps secret.
                    if let Some(container) = seen.containers.iter().find(|c| c.id == id) {
                        let words = Words::warning("FailedPostStartHook", "PostStartHook failed");
                        self.tell_of(&container.name, words);
                    }
                    self.probes.hooks.insert(id, PostStart::Failed(why));
                }
            }
        }
    }

    /// The preStop hook of a container that runs. A pod without a specification has none.
    pub(super) fn pre_stop(&self, seen: &PodObservation, id: &ContainerId) -> Option<Hook> {
        let pod = self.pod.as_deref()?;
        let running = seen.containers.iter().find(|c| c.id == *id && c.state == ContainerState::Running)?;
        let containers = pod.all_containers();
        let (_, container) = containers.into_iter().find(|(_, c)| c.name == *running.name)?;
        let handler = container.lifecycle.as_ref()?.pre_stop.as_ref()?;
        let ip = self.pod_ips(pod).first().map(ToString::to_string);
        Some(Hook::new(handler, container, ip.as_deref()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    #[tokio::test]
    async fn a_server_without_tls_is_asked_again_without_it_and_without_credentials() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            let mut heard = Vec::new();
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut read = vec![0; 4096];
                let count = stream.read(&mut read).await.unwrap();
                heard.push(String::from_utf8_lossy(&read[..count]).to_lowercase());
                stream.write_all(b"HTTP/1.1 400 X\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            }
            heard
        });
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "c",
            "lifecycle": {"preStop": {"httpGet": {"port": port, "scheme": "HTTPS", "path": "/bye", "httpHeaders": [
                {"name": "authorization", "value": "Bearer secret"}, {"name": "X-Own", "value": "1"}]}}},
        }))
        .unwrap();
        let handler = container.lifecycle.as_ref().unwrap().pre_stop.as_ref().unwrap();
        let Hook::Get(request) = Hook::new(handler, &container, Some("127.0.0.1")) else { panic!() };
        get_any(request.unwrap()).await.unwrap();
        let heard = serving.await.unwrap();
        assert!(heard[1].starts_with("get /bye ") && heard[1].contains("x-own: 1"), "{heard:?}");
        assert!(!heard.iter().any(|said| said.contains("secret")), "{heard:?}");
    }
}
