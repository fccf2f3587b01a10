//! What the API server supplies pods with: ConfigMaps, Secrets, tokens, the variables of services, and runtime classes.
//!
//! A pod's worker says which pod it has, and takes what is known; it is woken when something of that changes. Static
//! pods get nothing: they may name nothing of the server's.

mod listed;
mod objects;
mod tokens;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::{
    core::v1::{Pod, Service},
    node::v1::RuntimeClass,
};
use tokio_util::sync::CancellationToken;

use self::{listed::Listed, objects::Objects, tokens::Tokens};
use crate::{
    agent::{cluster::offline::Offline, pods::mailbox::Mailbox},
    api::{PodExt as _, PodUid},
    kube::ApiServer,
    policy::{
        given::{Given, ObjectKey, token_references, volume_references},
        service_env::{ServiceFacts, service_variables},
    },
};

/// How long a pod waits for the first word on what it names before it is told that there is none yet. It is woken
/// when it comes.
const FIRST_WORD: Duration = Duration::from_secs(2);

/// See the module.
pub struct Supplies {
    objects: Arc<Objects>,
    tokens: Arc<Tokens>,
    services: Arc<Listed<ServiceFacts>>,
    classes: Arc<Listed<Arc<RuntimeClass>>>,
    offline: Option<Arc<Offline>>,
}

/// What the API server says of a runtime class.
#[derive(Debug)]
pub enum ServersClass {
    /// It has it.
    Found(Arc<RuntimeClass>),
    /// It has none of the name.
    Missing,
    /// It has not said; why.
    Unknown(String),
}

impl Supplies {
    /// Begins to follow what every pod may be given, and asks for nothing else yet; ends with `stop`.
    pub fn new(api: ApiServer, offline: Option<Arc<Offline>>, stop: CancellationToken) -> Self {
        let clock = Arc::new(jiff::Timestamp::now);
        let tokens = Tokens::new(api.clone(), clock, offline.clone(), stop.clone());
        let objects = Objects::new(api.clone(), offline.clone(), stop.clone());
        let services = Listed::new();
        let waiting = Arc::clone(&objects);
        // Whoever runs already keeps the variables that he has.
        let told = move |first| {
            if first {
                waiting.wake_all();
            }
        };
        let facts = |service: Service| ServiceFacts::of(&service);
        let of_services = Arc::clone(&services).follow(api.clone(), facts, told);
        let (classes, waiting) = (Listed::new(), Arc::clone(&objects));
        let told = move |_first| waiting.wake_all();
        let of_classes = Arc::clone(&classes).follow(api, |class: RuntimeClass| Some(Arc::new(class)), told);
        tokio::spawn(async move {
            let both = futures_util::future::join(of_services, of_classes);
            stop.run_until_cancelled(both).await
        });
        Self { objects, tokens, services, classes, offline }
    }

    /// The runtime class of a name for a pod, waiting for the first list, but not for long. Offline it is the one that
    /// the pod had last.
    pub async fn runtime_class(&self, pod: &Pod, name: &str) -> ServersClass {
        let offline = self.offline.as_ref().filter(|_| !pod.is_static());
        if let Some(class) = offline.and_then(|offline| offline.last_class(&pod.uid())) {
            return ServersClass::Found(class);
        }
        tokio::time::timeout(FIRST_WORD, self.classes.first_list()).await.ok();
        match self.classes.look(|all| all.get(&(String::new(), name.to_owned())).cloned()) {
            Ok(Some(class)) => {
                if let Some(offline) = offline {
                    offline.class(&pod.uid(), &class);
                }
                ServersClass::Found(class)
            }
            Ok(None) => ServersClass::Missing,
            Err(why) => ServersClass::Unknown(why),
        }
    }

    /// The variables that tell a pod of services. One of the API server waits for the first list, but not for long;
    /// a static pod has those of the services that are known. Offline they are those that the pod had last.
    ///
    /// # Errors
    /// Why there was no list yet.
    pub async fn service_variables(&self, pod: &Pod) -> Result<BTreeMap<String, String>, String> {
        let links = pod.spec().enable_service_links != Some(false);
        let namespace = pod.full_name().namespace.to_string();
        let look = || self.services.look(|all| service_variables(all.values(), &namespace, links));
        if pod.is_static() {
            return Ok(look().unwrap_or_default());
        }
        if let Some(last) = self.offline.as_ref().and_then(|offline| offline.last_variables(&pod.uid())) {
            return Ok(last);
        }
        tokio::time::timeout(FIRST_WORD, self.services.first_list()).await.ok();
        let known = look();
        if let (Some(offline), Ok(variables)) = (&self.offline, &known) {
            offline.variables(&pod.uid(), variables);
        }
        known
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
