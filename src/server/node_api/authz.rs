//! Who may do what: the API server says so (SubjectAccessReview), for the Node and the subresource that a path is
//! ([`crate::policy::node_api`]). Without its answer nobody may do anything.

use ::kube::{Api, api::PostParams};
use k8s_openapi::{
    api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use tokio::{sync::Semaphore, time::timeout};

use super::{
    authn::{ANSWER, User},
    cache::Cache,
};
use crate::{
    config::Authorization,
    kube::{ApiServer, told},
};

/// The most bytes of a question whose answer is kept, as with kubelet.
const MAX_KEPT: usize = 10_000;
/// As in [`super::authn`].
const AT_ONCE: usize = 16;

/// Asks for rights.
pub(super) struct Authorizer {
    mode: Authorization,
    node: String,
    api: ApiServer,
    answers: Cache<String, bool>,
    asking: Semaphore,
}

impl Authorizer {
    pub(super) fn new(mode: Authorization, node: String, api: ApiServer) -> Self {
        Self { mode, node, api, answers: Cache::default(), asking: Semaphore::new(AT_ONCE) }
    }

    /// Whether the right to the Node's subresource is there.
    ///
    /// # Errors
    /// When that cannot be found out, for the log alone.
    pub(super) async fn may(&self, user: &User, verb: &str, subresource: &str) -> Result<bool, String> {
        let Authorization::Webhook { allowed, denied } = self.mode else { return Ok(true) };
        let attributes = ResourceAttributes {
            verb: Some(verb.to_owned()),
            version: Some("v1".to_owned()),
            resource: Some("nodes".to_owned()),
            subresource: Some(subresource.to_owned()),
            name: Some(self.node.clone()),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(user.name.clone()),
            uid: user.uid.clone(),
            groups: Some(user.groups.clone()),
            extra: (!user.extra.is_empty()).then(|| user.extra.clone()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let key = serde_json::to_string(&spec).map_err(|error| error.to_string())?;
        if let Some(known) = self.answers.get(&key) {
            return Ok(known);
        }
        let clients = self.api.current().ok_or("there is no API server to ask")?;
        let review = SubjectAccessReview { metadata: ObjectMeta::default(), spec, status: None };
        let asked = async {
            let _one = self.asking.acquire().await.ok();
            Api::<SubjectAccessReview>::all(clients.heartbeat).create(&PostParams::default(), &review).await
        };
        let answer = match timeout(ANSWER, asked).await {
            Ok(Ok(answer)) => answer.status.unwrap_or_default(),
            Ok(Err(error)) => return Err(told(&error)),
            Err(_) => return Err("the API server does not answer".to_owned()),
        };
        let may = answer.allowed && !answer.denied.unwrap_or(false);
        if key.len() <= MAX_KEPT {
            self.answers.put(key, may, if may { allowed } else { denied });
        }
        Ok(may)
    }
}
