//! Tokens of service accounts, bound to the pods that have them: asked for when a pod's volumes are made, asked for
//! anew at 80 % of their life, and forgotten with the pod.
//!
//! Nobody waits for the server: who wants a token gets the one that is there, and is woken when there is another. One
//! that is still good is kept while the server is away.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{Pod, ServiceAccount},
};
use kube::{Api, api::PostParams};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{
        cluster::{
            offline::{KeptToken, Offline},
            retry::{RETRY, jitter},
        },
        pods::mailbox::Mailbox,
        sources::Clock,
    },
    api::{PodExt as _, PodUid},
    kube::{ApiServer, told},
    policy::{
        backoff::RetryBackoff,
        given::{TokenKey, TokenText},
        token::{JITTER_SECONDS, refresh_at},
    },
};

/// See the module.
pub(super) struct Tokens {
    api: ApiServer,
    clock: Clock,
    /// Where tokens are kept for when the server is away.
    offline: Option<Arc<Offline>>,
    stop: CancellationToken,
    pods: Mutex<HashMap<PodUid, HashMap<TokenKey, Slot>>>,
    /// Tells of every answer.
    answered: watch::Sender<()>,
}

struct Slot {
    token: Option<Token>,
    error: Option<String>,
    asking: bool,
    not_before: Option<Instant>,
    backoff: RetryBackoff,
}

impl Default for Slot {
    fn default() -> Self {
        Self { token: None, error: None, asking: false, not_before: None, backoff: RETRY }
    }
}

struct Token {
    text: TokenText,
    expires: Timestamp,
    refresh_at: Timestamp,
    /// Whether it is the last of an agent that had a server: given also when it has expired, since nobody who could
    /// refuse it is there.
    kept: bool,
}

impl Tokens {
    pub(super) fn new(
        api: ApiServer,
        clock: Clock,
        offline: Option<Arc<Offline>>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self { api, clock, offline, stop, pods: Mutex::default(), answered: watch::Sender::new(()) })
    }

    fn pods(&self) -> MutexGuard<'_, HashMap<PodUid, HashMap<TokenKey, Slot>>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn forget(&self, uid: &PodUid) {
        self.pods().remove(uid);
    }

    /// Is told of every answer.
    pub(super) fn answered(&self) -> watch::Receiver<()> {
        self.answered.subscribe()
    }

    /// The token that is there, if it is good, or why there is none; `None` if nobody has answered yet. Asks for
    /// another when it is time; the pod is woken when there is one.
    pub(super) fn known(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        mailbox: &Arc<Mailbox>,
        key: &TokenKey,
    ) -> Option<Result<TokenText, String>> {
        let now = (self.clock)();
        let mut pods = self.pods();
        let slots = pods.entry(pod.uid()).or_default();
        let slot = slots.entry(key.clone()).or_insert_with(|| self.first(&pod.uid(), key));
        let due = slot.token.as_ref().is_none_or(|token| token.refresh_at <= now);
        let held = slot.not_before.is_some_and(|at| at > Instant::now());
        if due && !held && !slot.asking {
            slot.asking = true;
            let asking = Arc::clone(self).ask(Arc::clone(pod), Arc::clone(mailbox), key.clone());
            tokio::spawn(self.stop.clone().run_until_cancelled_owned(asking));
        }
        match &slot.token {
            Some(token) if token.expires > now || token.kept => Some(Ok(token.text.clone())),
            _ => slot.error.clone().map(Err),
        }
    }

    /// Nothing, or what is kept while the server is away.
    fn first(&self, uid: &PodUid, key: &TokenKey) -> Slot {
        let kept = self.offline.as_ref().and_then(|offline| offline.last_token(uid, key));
        let token = kept.map(|KeptToken { text, expires, refresh_at }| Token {
            text,
            expires,
            refresh_at,
            kept: true,
        });
        Slot { token, ..Slot::default() }
    }

    async fn ask(self: Arc<Self>, pod: Arc<Pod>, mailbox: Arc<Mailbox>, key: TokenKey) {
        let answer = self.request(&pod, &key).await;
        self.take(&pod, &key, answer);
        mailbox.supplied();
        self.answered.send_replace(());
    }

    fn take(&self, pod: &Pod, key: &TokenKey, answer: Result<Token, String>) {
        let mut pods = self.pods();
        // The pod may be gone.
        let Some(slot) = pods.get_mut(&pod.uid()).and_then(|slots| slots.get_mut(key)) else { return };
        slot.asking = false;
        match answer {
            Ok(token) => {
                if let Some(offline) = &self.offline {
                    let Token { text, expires, refresh_at, .. } = &token;
                    let kept = KeptToken { text: text.clone(), expires: *expires, refresh_at: *refresh_at };
                    offline.token(&pod.uid(), key, kept);
                }
                *slot = Slot { token: Some(token), ..Slot::default() };
            }
            Err(why) => {
                let wait = jitter(slot.backoff.fail());
                slot.not_before = Some(Instant::now() + wait);
                tracing::debug!(pod = %pod.full_name(), ?wait, "no token: {why}");
                slot.error = Some(why);
            }
        }
    }

    async fn request(&self, pod: &Pod, key: &TokenKey) -> Result<Token, String> {
        let clients = self.api.clients().await;
        let name = pod.full_name();
        let accounts: Api<ServiceAccount> = Api::namespaced(clients.objects, &name.namespace);
        let given = pod.spec().service_account_name.as_deref().filter(|account| !account.is_empty());
        let account = given.unwrap_or("default");
        let asked = accounts.create_token_request(account, &PostParams::default(), &request(pod, key)).await;
        let answer = asked.map_err(|error| match error {
            // It would be quoted.
            kube::Error::SerdeError(_) => "the API server's answer cannot be read".to_owned(),
            error => told(&error),
        })?;
        let status = answer.status.unwrap_or_default();
        let (Some(text), Some(expires)) = (status.token, status.expiration_timestamp) else {
            return Err("the API server answers without a token".to_owned());
        };
        let expires = expires.0;
        // The server may have given another life than was asked for.
        let seconds = answer.spec.and_then(|spec| spec.expiration_seconds).unwrap_or(key.seconds);
        let early = rand::random_range(0..=JITTER_SECONDS);
        let refresh_at = refresh_at(expires, seconds, early);
        Ok(Token { text: TokenText(text), expires, refresh_at, kept: false })
    }
}

/// Good for this pod as long as it is there.
fn request(pod: &Pod, key: &TokenKey) -> TokenRequest {
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
    };
    let audience = Some(key.audience.clone()).filter(|audience| !audience.is_empty());
    let spec = TokenRequestSpec {
        audiences: Some(audience.into_iter().collect()),
        bound_object_ref: Some(bound),
        expiration_seconds: Some(key.seconds),
    };
    TokenRequest { spec: Some(spec), ..TokenRequest::default() }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use serde_json::json;

    use super::*;
    use crate::kube::{Rate, Rates};

    fn pod() -> Arc<Pod> {
        let pod = json!({
            "metadata": { "name": "p", "namespace": "ns", "uid": "u" },
            "spec": { "serviceAccountName": "sa", "containers": [] },
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn a_token_is_asked_for_the_pod_and_its_audience() {
        let key = TokenKey { audience: "vault".into(), seconds: 600 };
        let spec = serde_json::to_value(request(&pod(), &key)).unwrap()["spec"].clone();
        let bound = json!({ "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u" });
        assert_eq!(
            spec,
            json!({ "audiences": ["vault"], "boundObjectRef": bound, "expirationSeconds": 600 })
        );
        let own = request(&pod(), &TokenKey { audience: String::new(), seconds: 600 });
        assert_eq!(own.spec.unwrap().audiences, Some(Vec::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_used_for_four_fifths_of_its_life_and_kept_to_its_end_without_a_server() {
        let none = Rate { per_second: 0, burst: 0 };
        let api = ApiServer::new(Rates { objects: none, events: none });
        let second = Arc::new(AtomicI64::new(0));
        let clock: Clock = {
            let second = Arc::clone(&second);
            Arc::new(move || Timestamp::from_second(second.load(Ordering::Relaxed)).unwrap())
        };
        let tokens = Tokens::new(api, clock, None, CancellationToken::new());
        let (pod, mailbox) = (pod(), Arc::new(Mailbox::default()));
        let key = TokenKey { audience: String::new(), seconds: 600 };
        let known = || tokens.known(&pod, &mailbox, &key);
        let asking = || tokens.pods()[&pod.uid()][&key].asking;
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        assert_eq!((known(), asking()), (None, true));
        let first =
            Token { text: TokenText("one".into()), expires: at(600), refresh_at: at(480), kept: false };
        tokens.take(&pod, &key, Ok(first));
        second.store(479, Ordering::Relaxed);
        assert_eq!((known(), asking()), (Some(Ok(TokenText("one".into()))), false));
        second.store(480, Ordering::Relaxed);
        assert_eq!((known(), asking()), (Some(Ok(TokenText("one".into()))), true));
        tokens.take(&pod, &key, Err("no route".into()));
        // Not again at once.
        assert_eq!((known(), asking()), (Some(Ok(TokenText("one".into()))), false));
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        assert_eq!((known(), asking()), (Some(Ok(TokenText("one".into()))), true));
        second.store(600, Ordering::Relaxed);
        assert_eq!(known(), Some(Err("no route".into())));
        let next =
            Token { text: TokenText("two".into()), expires: at(1200), refresh_at: at(1080), kept: false };
        tokens.take(&pod, &key, Ok(next));
        assert_eq!((known(), asking()), (Some(Ok(TokenText("two".into()))), false));
        tokens.forget(&pod.uid());
        tokens.take(&pod, &key, Err("late".into()));
        assert!(tokens.pods().is_empty());
    }
}
