//! The manifest URL: fetched every `httpCheckFrequency`.
//!
//! As in kubelet: a 200 answer with one pod or a list of pods is the whole set, an answer that did
//! not change is not read again. Unlike kubelet an empty answer does not mean "no pods": a proxy's
//! hiccup would end them all. A server that wants none says so with an empty `PodList`. A list in
//! which one pod is bad changes nothing at all, because which pod of before it would have replaced
//! cannot be known.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

pub use super::client::HttpSourceError;
use super::client::{ManifestClient, shown_url};
use super::{Clock, KeptPod, PodSource, Publisher, SourceProblem, SourceSnapshot, assemble, keep};
use crate::api::manifest::{Shape, parse};
use crate::api::uid_hash::HashOrigin;

/// What the HTTP source needs to know.
#[derive(Clone)]
pub struct HttpSourceConfig {
    /// `staticPodURL`.
    pub url: String,
    /// `staticPodURLHeader`: names and values, a name once for each of its values.
    pub headers: Vec<(String, String)>,
    /// `httpCheckFrequency`.
    pub check_frequency: Duration,
    /// The node's name, which becomes part of the names of the pods.
    pub node_name: String,
    /// The time of day.
    pub clock: Clock,
}

/// The task that follows a manifest URL.
pub struct HttpSource {
    client: ManifestClient,
    publisher: Publisher,
    check_frequency: Duration,
    state: State,
}

impl HttpSource {
    /// Makes the source and the channel on which it tells what it knows.
    ///
    /// # Errors
    /// Where the URL or a header can never work.
    pub fn new(
        config: HttpSourceConfig,
    ) -> Result<(Self, watch::Receiver<Arc<SourceSnapshot>>), HttpSourceError> {
        let client = ManifestClient::new(&config.url, &config.headers)?;
        let (publisher, receiver) = Publisher::new(PodSource::Http);
        let source = Self {
            client,
            publisher,
            check_frequency: config.check_frequency.max(Duration::from_millis(100)),
            state: State {
                shown: shown_url(&config.url),
                url: config.url,
                node_name: config.node_name,
                clock: config.clock,
                digest: None,
                delivered: false,
                pods: Vec::new(),
                unreachable: None,
                invalid: None,
            },
        };
        Ok((source, receiver))
    }

    /// Follows the URL until `stop`. Never fails: what goes wrong is published as a problem.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval_at(Instant::now(), self.check_frequency);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let fetched = tokio::select! {
                () = stop.cancelled() => return,
                fetched = self.client.get() => fetched,
            };
            match fetched {
                Ok(body) => {
                    // A list may have 10 MiB: too long to read between other tasks.
                    let mut state = self.state;
                    match tokio::task::spawn_blocking(move || {
                        state.take(&body);
                        state
                    })
                    .await
                    {
                        Ok(state) => self.state = state,
                        Err(error) => {
                            tracing::error!(%error, "http source ended");
                            return;
                        }
                    }
                }
                Err(why) => self.state.unreachable = Some(why),
            }
            self.publisher.publish(self.state.snapshot());
        }
    }
}

/// What is known of the URL.
struct State {
    url: String,
    shown: String,
    node_name: String,
    clock: Clock,
    digest: Option<[u8; 32]>,
    delivered: bool,
    pods: Vec<(String, KeptPod)>,
    unreachable: Option<String>,
    invalid: Option<String>,
}

impl State {
    fn take(&mut self, body: &Bytes) {
        self.unreachable = None;
        if body.is_empty() {
            self.unreachable =
                Some("server answered with nothing; no pods are told by an empty PodList".to_owned());
            return;
        }
        let digest: [u8; 32] = Sha256::digest(body).into();
        if self.digest == Some(digest) {
            return;
        }
        self.digest = Some(digest);
        let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.read(body)));
        match read.unwrap_or_else(|_| Err("internal error while reading the manifest".to_owned())) {
            Ok(pods) => {
                self.pods = pods;
                self.delivered = true;
                self.invalid = None;
            }
            Err(why) => self.invalid = Some(why),
        }
    }

    fn read(&self, body: &[u8]) -> Result<Vec<(String, KeptPod)>, String> {
        let parsed = parse(body, Shape::PodOrList).map_err(|e| e.to_string())?;
        let before: Vec<KeptPod> = self.pods.iter().map(|(_, kept)| kept.clone()).collect();
        let now = (self.clock)();
        let mut pods = Vec::new();
        let mut problems = Vec::new();
        for pod in &parsed {
            let origin =
                if pod.path.is_empty() { self.shown.clone() } else { format!("{} {}", self.shown, pod.path) };
            match keep(pod, HashOrigin::Url(&self.url), &self.node_name, now, &before) {
                Ok(kept) => pods.push((origin, kept)),
                Err(error) => problems.push(error.to_string()),
            }
        }
        if problems.is_empty() { Ok(pods) } else { Err(problems.join("; ")) }
    }

    fn snapshot(&self) -> SourceSnapshot {
        let mut snapshot = SourceSnapshot::unknown(PodSource::Http);
        snapshot.delivered = self.delivered;
        assemble(self.pods.iter().map(|(origin, kept)| (origin.clone(), kept)), &mut snapshot);
        let kept = if self.pods.is_empty() { "" } else { "; its pods stay as they were last given" };
        for why in [&self.unreachable, &self.invalid].into_iter().flatten() {
            snapshot
                .problems
                .push(SourceProblem { origin: self.shown.clone(), message: format!("{why}{kept}") });
        }
        snapshot
    }
}
