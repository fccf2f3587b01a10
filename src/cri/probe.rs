//! Which of several sockets has a runtime behind it, found out quickly: all are asked at once.

use std::time::Duration;

use tokio::{task::JoinSet, time::Instant};

use super::{Cri as _, CriClient, CriTimeouts, Result, RuntimeEndpoint};
use crate::api::cri::VersionResponse;

/// How long the others may take after the first has answered, so that the choice between two that run
/// does not depend on which is faster.
const STRAGGLERS: Duration = Duration::from_millis(200);

/// Asks every endpoint for its version at the same time, each at most `limit`, and gives the answers in
/// the order of `endpoints`, of runtimes that serve only v1alpha2 too. Once one has answered, the others have a fifth of a second left; `None` is
/// one that had not answered by then.
pub async fn probe(
    endpoints: &[RuntimeEndpoint],
    limit: Duration,
) -> Vec<(RuntimeEndpoint, Option<Result<VersionResponse>>)> {
    let mut asking = JoinSet::new();
    for (index, endpoint) in endpoints.iter().enumerate() {
        let endpoint = endpoint.clone();
        asking.spawn(async move {
            let timeouts = CriTimeouts::from_request_timeout(limit);
            let client = CriClient::connect_lazy_to_any(endpoint, None, timeouts);
            (index, client.version().await)
        });
    }
    let mut answers: Vec<_> = endpoints.iter().map(|endpoint| (endpoint.clone(), None)).collect();
    // The calls end by themselves at `limit`; this is only to be sure.
    let mut until = Instant::now() + limit + STRAGGLERS;
    while let Ok(Some(done)) = tokio::time::timeout_at(until, asking.join_next()).await {
        let Ok((index, answer)) = done else { continue };
        if answer.is_ok() {
            until = until.min(Instant::now() + STRAGGLERS);
        }
        if let Some(slot) = answers.get_mut(index) {
            slot.1 = Some(answer);
        }
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn dead_sockets_answer_at_once_and_one_that_hangs_costs_the_limit() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (missing, stale, hangs) =
            (folder.path().join("missing"), folder.path().join("stale"), folder.path().join("hangs"));
        drop(std::os::unix::net::UnixListener::bind(&stale).expect("a socket"));
        let _listener = std::os::unix::net::UnixListener::bind(&hangs).expect("a socket");
        let endpoints: Vec<RuntimeEndpoint> = [&missing, &stale, &hangs]
            .iter()
            .map(|path| path.to_str().expect("utf-8").parse().expect("an endpoint"))
            .collect();
        let answers = probe(&endpoints, Duration::from_secs(2)).await;
        let words: Vec<String> = answers
            .iter()
            .map(|(_, answer)| answer.as_ref().expect("asked").as_ref().expect_err("dead").to_string())
            .collect();
        assert_eq!(answers.iter().map(|(endpoint, _)| endpoint.clone()).collect::<Vec<_>>(), endpoints);
        assert!(words[0].contains("does not exist"), "{words:?}");
        assert!(words[1].contains("nobody listens"), "{words:?}");
        assert!(words[2].contains("no answer within 2 s"), "{words:?}");
    }
}
