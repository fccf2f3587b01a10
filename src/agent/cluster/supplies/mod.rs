//! What the API server supplies pods with: ConfigMaps, Secrets and tokens.
//!
//! A pod's worker says which pod it has, and takes what is known; it is woken when something of that changes. Static
//! pods get nothing: they may name nothing of the server's.

mod objects;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use tokio_util::sync::CancellationToken;

use self::objects::Objects;
use crate::{
    agent::pods::mailbox::Mailbox,
    api::{PodExt as _, PodUid},
    kube::ApiServer,
    policy::given::{Given, ObjectKey},
};

/// How long a pod waits for the first word on what it names before it is told that there is none yet. It is woken
/// when it comes.
const FIRST_WORD: Duration = Duration::from_secs(2);

/// See the module.
pub struct Supplies {
    objects: Arc<Objects>,
}

impl Supplies {
    /// Asks nobody yet; ends with `stop`.
    pub fn new(api: ApiServer, stop: CancellationToken) -> Self {
        Self { objects: Objects::new(api, stop) }
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
    }

    /// What is known of these objects, waiting for the first word on each, but not for long.
    pub async fn take(&self, objects: &BTreeSet<ObjectKey>) -> Given {
        // Whoever has no word by then is told so.
        tokio::time::timeout(FIRST_WORD, self.objects.first_word(objects)).await.ok();
        self.known(objects)
    }

    /// What is known of these objects now.
    pub fn known(&self, objects: &BTreeSet<ObjectKey>) -> Given {
        Given { objects: self.objects.known(objects), ..Given::default() }
    }
}
