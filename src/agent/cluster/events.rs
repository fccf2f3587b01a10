//! Writes events to the API server, one after the other over a connection of their own, as kubelet's client library
//! does (client-go/tools/record/event.go): what is refused is given up, what was not heard is tried again for about
//! two minutes, and meanwhile the others wait in [`EventRecorder`], which has room for a thousand.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Event;
use kube::{
    Api, Error,
    api::{Patch, PatchParams, PostParams},
};

use crate::{
    agent::events::EventRecorder,
    kube::{ApiServer, told},
    policy::events::{Correlated, Correlator, change_of},
};

/// So often an event is tried.
const TRIES: u32 = 12;
/// Between two tries; before the second a part of it, so that nodes do not come all at once.
const PAUSE: Duration = Duration::from_secs(10);
/// For a request, along with its turn within `eventRecordQPS`.
const PATIENCE: Duration = Duration::from_secs(30);
/// A namespace that is going away takes nothing new.
const TERMINATING: &str = "NamespaceTerminating";

/// Writes what is recorded for as long as it is not dropped.
pub(super) async fn write(api: ApiServer, node: Arc<str>, recorder: EventRecorder) {
    let mut correlator = Correlator::new(&node);
    loop {
        let (happened, dropped) = recorder.next().await;
        if dropped > 0 {
            tracing::warn!(
                dropped,
                "events found no room to wait for the API server; what they told stands in the log"
            );
        }
        if let Some(correlated) = correlator.take(&happened) {
            deliver(&api, &mut correlator, &correlated).await;
        }
    }
}

/// How a try ended.
enum Outcome {
    Written(Box<Event>),
    /// The server will not have it. Whether that is no news, as an object's namespace is on its way out.
    Refused {
        why: String,
        expected: bool,
    },
    /// The server was not heard, or cannot now.
    Later(String),
}

async fn deliver(api: &ApiServer, correlator: &mut Correlator, correlated: &Correlated) {
    let event = &correlated.event;
    let (name, reason) = (event.involved_object.name.as_deref(), event.reason.as_deref());
    for tried in 1..=TRIES {
        match send(api, correlated).await {
            Outcome::Written(answer) => {
                correlator.written(correlated, &answer);
                return;
            }
            Outcome::Refused { why, expected: true } => {
                tracing::debug!(name, reason, "the API server takes no event: {why}");
                return;
            }
            Outcome::Refused { why, expected: false } => {
                tracing::warn!(name, reason, "cannot write an event, giving it up: {why}");
                return;
            }
            Outcome::Later(why) if tried == TRIES => {
                tracing::warn!(
                    name,
                    reason,
                    "cannot write an event, giving it up after {TRIES} tries: {why}"
                );
            }
            Outcome::Later(why) => {
                tracing::debug!(name, reason, tried, "cannot write an event, trying again: {why}");
                let pause = if tried == 1 { PAUSE.mul_f64(rand::random()) } else { PAUSE };
                tokio::time::sleep(pause).await;
            }
        }
    }
}

async fn send(api: &ApiServer, correlated: &Correlated) -> Outcome {
    let client = api.clients().await.events;
    let event = &correlated.event;
    let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
    let events = Api::<Event>::namespaced(client, namespace);
    let request = async {
        if correlated.counted {
            let name = event.metadata.name.as_deref().unwrap_or_default();
            let change = Patch::Merge(change_of(event));
            match events.patch(name, &PatchParams::default(), &change).await {
                // The server keeps events for an hour or so, and does not have what it refused before.
                Err(Error::Api(status)) if status.code == 404 => {}
                done => return done,
            }
        }
        events.create(&PostParams::default(), event).await
    };
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(Ok(answer)) => Outcome::Written(Box::new(answer)),
        Ok(Err(error)) => judge(&error),
        Err(_elapsed) => Outcome::Later(format!("no answer within {} s", PATIENCE.as_secs())),
    }
}

/// Unlike client-go a server that cannot now (429, 5xx), or has not heard yet of the node's new certificate, is
/// asked again.
fn judge(error: &Error) -> Outcome {
    let why = told(error);
    let Error::Api(status) = error else { return Outcome::Later(why) };
    let terminating =
        status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.reason == TERMINATING);
    match status.code {
        401 | 408 | 429 | 500.. => Outcome::Later(why),
        // There already, or there is no such namespace any more.
        404 | 409 => Outcome::Refused { why, expected: true },
        _ => Outcome::Refused { why, expected: terminating },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        agent::clock::Clock,
        kube::{Kubeconfig, Rate, Rates, test_server::TestServer},
        policy::events::Words,
    };

    const PATH: &str = "/api/v1/namespaces/default/events";

    /// Runs the writer until the server was asked so often.
    async fn written(server: &TestServer, recorder: &EventRecorder, requests: usize) -> Vec<(String, Value)> {
        let none = Rate { per_second: 0, burst: 0 };
        let api = ApiServer::new(Rates { objects: none, events: none });
        api.use_credentials(&Kubeconfig::read(&server.kubeconfig("")).unwrap()).unwrap();
        let writing = tokio::spawn(write(api, "n1".into(), recorder.clone()));
        while server.requests().len() < requests {
            assert!(!writing.is_finished());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        writing.abort();
        server.requests().into_iter().map(|asked| (asked.method, asked.body)).collect()
    }

    async fn keeping() -> TestServer {
        let server = TestServer::start().await;
        server.on_request(|asked, objects| {
            if asked.method == "POST" {
                let name = asked.body["metadata"]["name"].as_str().unwrap();
                objects.insert(format!("{PATH}/{name}"), asked.body.clone());
            }
        });
        server
    }

    fn happened(times: usize) -> EventRecorder {
        let recorder = EventRecorder::queued(Clock::system());
        for _ in 0..times {
            recorder.node("n1", Words::normal("Starting", "Starting kubelet."));
        }
        recorder
    }

    #[tokio::test]
    async fn an_event_is_made_once_and_counts_after_that() {
        let server = keeping().await;
        let asked = written(&server, &happened(3), 3).await;
        let methods: Vec<_> = asked.iter().map(|(method, _)| method.as_str()).collect();
        assert_eq!(methods, ["POST", "PATCH", "PATCH"]);
        assert_eq!(asked[0].1["involvedObject"]["name"], "n1");
        assert_eq!(asked[2].1["count"], 3);
        let name = asked[0].1["metadata"]["name"].as_str().unwrap();
        assert_eq!(server.object(&format!("{PATH}/{name}"))["count"], 3);
    }

    #[tokio::test]
    async fn one_that_the_server_has_forgotten_is_made_again() {
        let server = keeping().await;
        server.on_request(|_, objects| objects.clear());
        let asked = written(&server, &happened(2), 3).await;
        let methods: Vec<_> = asked.iter().map(|(method, _)| method.as_str()).collect();
        assert_eq!(methods, ["POST", "PATCH", "POST"]);
        assert_eq!(asked[2].1["count"], 2);
        assert_eq!(asked[2].1["metadata"], asked[0].1["metadata"]);
    }

    #[tokio::test]
    async fn what_is_refused_is_given_up() {
        let server = keeping().await;
        server.refuse("POST", PATH, 403, "no");
        let recorder = happened(1);
        recorder.node("n1", Words::normal("NodeReady", "next"));
        let asked = written(&server, &recorder, 2).await;
        assert_eq!([&asked[0].1["reason"], &asked[1].1["reason"]], ["Starting", "NodeReady"]);
    }

    #[test]
    fn what_can_be_later_is_tried_again_and_an_end_is_no_news() {
        let judged = |code: u16, cause: &str| {
            let causes = json!([{ "reason": cause, "message": "", "field": "" }]);
            let status =
                json!({ "code": code, "message": "x", "reason": "", "details": { "causes": causes } });
            judge(&Error::Api(serde_json::from_value(status).unwrap()))
        };
        for code in [401, 408, 429, 500, 503] {
            assert!(matches!(judged(code, ""), Outcome::Later(_)), "{code}");
        }
        assert!(matches!(judged(403, TERMINATING), Outcome::Refused { expected: true, .. }));
        assert!(matches!(judged(409, ""), Outcome::Refused { expected: true, .. }));
        assert!(matches!(judged(404, ""), Outcome::Refused { expected: true, .. }));
        assert!(matches!(judged(422, ""), Outcome::Refused { expected: false, .. }));
        assert!(matches!(judged(403, ""), Outcome::Refused { expected: false, .. }));
    }
}
