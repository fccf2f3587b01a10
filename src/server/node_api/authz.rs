//! Who may do what: the API server says so (SubjectAccessReview), for the Node and the subresource that a path is
//! ([`crate::policy::node_api`]). Without its answer nobody may do anything.

use k8s_openapi::{
    api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{authn::User, cache::Cache, review::Reviews};
use crate::{config::Authorization, kube::ApiServer};

/// The most bytes of a question whose answer is kept, as with kubelet.
const MAX_KEPT: usize = 10_000;

/// Asks for rights.
pub(super) struct Authorizer {
    mode: Authorization,
    node: String,
    reviews: Reviews,
    answers: Cache<String, bool>,
}

impl Authorizer {
    pub(super) fn new(mode: Authorization, node: String, api: ApiServer) -> Self {
        Self { mode, node, reviews: Reviews::new(api), answers: Cache::default() }
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
        let review = SubjectAccessReview { metadata: ObjectMeta::default(), spec, status: None };
        let answer = self.reviews.ask(&review).await?.status.unwrap_or_default();
        let may = answer.allowed && !answer.denied.unwrap_or(false);
        if key.len() <= MAX_KEPT {
            self.answers.put(key, may, if may { allowed } else { denied });
        }
        Ok(may)
    }
}
