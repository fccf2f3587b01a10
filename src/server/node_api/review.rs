//! Questions to the API server that it answers at once and keeps nothing of: TokenReview, SubjectAccessReview.

use std::{fmt::Debug, time::Duration};

use ::kube::{Api, Resource, api::PostParams};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::Semaphore, time::timeout};

use crate::kube::{ApiServer, told};

/// How long the API server may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How many questions of a kind there are at once: who has no right to ask is not to use the server up.
const AT_ONCE: usize = 16;

/// Asks the API server.
pub(super) struct Reviews {
    api: ApiServer,
    asking: Semaphore,
}

impl Reviews {
    pub(super) fn new(api: ApiServer) -> Self {
        Self { api, asking: Semaphore::new(AT_ONCE) }
    }

    /// The question with its answer.
    ///
    /// # Errors
    /// In words, when there is no server to ask, or it refuses or does not answer.
    pub(super) async fn ask<K>(&self, question: &K) -> Result<K, String>
    where
        K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
    {
        let clients = self.api.current().ok_or("there is no API server to ask")?;
        let asked = async {
            // It is closed never.
            let _one = self.asking.acquire().await.ok();
            Api::<K>::all(clients.heartbeat).create(&PostParams::default(), question).await
        };
        match timeout(ANSWER, asked).await {
            Ok(answer) => answer.map_err(|error| told(&error)),
            Err(_) => Err("the API server does not answer".to_owned()),
        }
    }
}
