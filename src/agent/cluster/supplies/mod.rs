//! What the API server supplies pods with: ConfigMaps, Secrets and tokens.
//!
//! A pod's worker says which pod it has, and takes what is known; it is woken when something of that changes. Static
//! pods get nothing: they may name nothing of the server's.

mod objects;
mod tokens;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use self::{objects::Objects, tokens::Tokens};
use crate::{
    agent::{cluster::offline::Offline, pods::mailbox::Mailbox},
    api::{PodExt as _, PodUid},
    kube::ApiServer,
    policy::given::{Given, ObjectKey, token_references, volume_references},
};

/// How long a pod waits for the first word on what it names before it is told that there is none yet. It is woken
/// when it comes.
const FIRST_WORD: Duration = Duration::from_secs(2);

/// See the module.
pub struct Supplies {
    objects: Arc<Objects>,
    tokens: Arc<Tokens>,
}

impl Supplies {
    /// Asks nobody yet; ends with `stop`.
    pub fn new(api: ApiServer, offline: Option<Arc<Offline>>, stop: CancellationToken) -> Self {
        let clock = Arc::new(jiff::Timestamp::now);
        let tokens = Tokens::new(api.clone(), clock, offline.clone(), stop.clone());
        Self { objects: Objects::new(api, offline, stop), tokens }
    }

    /// A pod is there, with this specification: what it names is followed from now on. Costs nothing when it is told
    /// again.
    pub fn want(&self, pod: &Arc<Pod>, mailbox: &Arc<Mailbox>) {
        if !pod.is_static() {
            self.objects.want(pod, mailbox);
        }
    }

    /// A pod is not there any more.
    pub fn forget(&self, uid: &PodUid) {
        self.objects.forget(uid);
        self.tokens.forget(uid);
    }

    /// What is known of these objects, waiting for the first word on each, but not for long.
    pub async fn objects(&self, objects: &BTreeSet<ObjectKey>) -> Given {
        // Whoever has no word by then is told so.
        tokio::time::timeout(FIRST_WORD, self.objects.first_word(objects)).await.ok();
        Given { objects: self.objects.known(objects), ..Given::default() }
    }

    /// What is known of all that is in a pod's volumes, waiting for the first word on each, but not for long.
    pub async fn of_volumes(&self, pod: &Arc<Pod>, mailbox: &Arc<Mailbox>) -> Given {
        let first_words = async {
            let mut answered = self.tokens.answered();
            self.objects.first_word(&volume_references(pod)).await;
            while token_references(pod).iter().any(|key| self.tokens.known(pod, mailbox, key).is_none()) {
                if answered.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(FIRST_WORD, first_words).await.ok();
        self.volumes_now(pod, mailbox).0
    }

    /// What is known of it now; `None` before there is a word on each. A token whose time has come is asked for anew.
    pub fn of_volumes_now(&self, pod: &Arc<Pod>, mailbox: &Arc<Mailbox>) -> Option<Given> {
        let (given, complete) = self.volumes_now(pod, mailbox);
        complete.then_some(given)
    }

    fn volumes_now(&self, pod: &Arc<Pod>, mailbox: &Arc<Mailbox>) -> (Given, bool) {
        let objects = volume_references(pod);
        let mut complete = self.objects.has_word(&objects);
        let mut given = Given { objects: self.objects.known(&objects), ..Given::default() };
        for key in token_references(pod) {
            let known = self.tokens.known(pod, mailbox, &key);
            complete &= known.is_some();
            let token = known.unwrap_or_else(|| Err("the API server has not answered yet".to_owned()));
            given.tokens.insert(key, token);
        }
        (given, complete)
    }
}
