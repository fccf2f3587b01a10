//! Pods and a broken output for the tests of this folder.

#![expect(clippy::needless_pass_by_value, reason = "JSON is handed over as it is written")]

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::Arc,
};

use jiff::Timestamp;
use serde_json::{Value, from_value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    api::view::{AgentView, HealthCheck, PodEnd, PodProgress, PodStep, PodView},
    server::local::{InputProblem, OperatorSocket, PodsAnswer},
};

/// An output to which nothing can be written.
pub(crate) struct Fails(pub(crate) io::ErrorKind);

impl Write for Fails {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The time of the tests.
pub(super) fn now() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

/// A pod from specification and status; made an hour ago, at its step for two minutes.
pub(super) fn pod(name: &str, step: PodStep, spec: Value, status: Value) -> PodView {
    let pod = json!({
        "metadata": {
            "namespace": "default", "name": name, "creationTimestamp": "2026-03-01T11:00:00Z",
            "annotations": { "kubernetes.io/config.source": "file" },
            "managedFields": [{ "manager": "x" }],
        },
        "spec": spec,
    });
    PodView {
        uid: format!("uid-{name}").into(),
        pod: Arc::new(from_value(pod).unwrap()),
        status: Arc::new(from_value(status).unwrap()),
        progress: PodProgress {
            step,
            detail: "all containers run".into(),
            since: "2026-03-01T11:58:00Z".parse().unwrap(),
            last_error: None,
            next: None,
        },
        end: PodEnd::No,
        observed: true,
        offline: false,
    }
}

pub(super) fn containers(names: &[&str]) -> Value {
    let all: Vec<Value> =
        names.iter().map(|name| json!({ "name": name, "image": format!("{name}:1") })).collect();
    json!({ "containers": all })
}

pub(super) fn status(name: &str, ready: bool, restarts: i32, state: Value, last: Value) -> Value {
    json!({
        "name": name, "image": format!("{name}:1"), "imageID": "", "ready": ready, "restartCount": restarts,
        "state": state, "lastState": last,
    })
}

pub(super) fn up() -> Value {
    json!({ "running": { "startedAt": "2026-03-01T11:00:05Z" } })
}

pub(super) fn ended(code: i32, reason: &str, message: &str) -> Value {
    json!({ "terminated": {
        "exitCode": code, "reason": reason, "message": message,
        "startedAt": "2026-03-01T11:59:10Z", "finishedAt": "2026-03-01T11:59:20Z",
    } })
}

pub(super) fn waiting(reason: &str) -> Value {
    json!({ "waiting": { "reason": reason, "message": format!("about {reason}") } })
}

/// A running pod with one container.
pub(super) fn running(name: &str) -> PodView {
    let status = json!({
        "phase": "Running", "podIP": "10.1.0.7", "conditions": [{ "type": "Ready", "status": "True" }],
        "containerStatuses": [status("web", true, 0, up(), json!({}))],
    });
    pod(name, PodStep::Running, containers(&["web"]), status)
}

/// An agent with these pods on a socket, until the token is cancelled.
pub(super) struct Agent {
    answer: PodsAnswer,
}

impl Agent {
    pub(super) fn start(folder: &std::path::Path, answer: PodsAnswer) -> (PathBuf, CancellationToken) {
        let path = folder.join("nodectl.sock");
        let stop = CancellationToken::new();
        let socket = OperatorSocket::bind(&path).unwrap();
        tokio::spawn(socket.serve(Arc::new(Self { answer }), stop.clone()));
        (path, stop)
    }
}

impl AgentView for Agent {
    fn pods(&self) -> Vec<PodView> {
        self.answer.pods.clone()
    }
    fn health(&self) -> Vec<HealthCheck> {
        Vec::new()
    }
    fn input_problems(&self) -> Vec<(String, String)> {
        self.answer.problems.iter().map(|p| (p.origin.clone(), p.reason.clone())).collect()
    }
}

pub(super) fn problem(origin: &str, reason: &str) -> InputProblem {
    InputProblem { origin: origin.into(), reason: reason.into() }
}
