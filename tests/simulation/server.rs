//! An API server as the agent sees it: the pods of one node, listed and watched, their statuses patched and the last
//! of them deleted, by HTTP as kube's client speaks it. It outlives the agents, is away at times, forgets where a watch
//! was, cuts watches off, refuses, and loses its answers.
//!
//! It also judges: what an agent may not write is noted as wrong.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::stream;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Frame},
};
use k8s_openapi::api::core::v1::Pod;
use kube::client::Body;
use nodectl::kube::Clients;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use tokio::{sync::mpsc, time::sleep};

use crate::{
    strategic::apply,
    world::{Is, Ms, World, time_of},
};

type Failed = Box<dyn std::error::Error + Send + Sync>;
type Answer = Response<UnsyncBoxBody<Bytes, Failed>>;
/// What goes to a watch; an error breaks it off.
type Line = Result<String, &'static str>;

pub(crate) struct Server {
    pub(crate) world: Arc<World>,
    state: Mutex<State>,
}

struct State {
    rng: StdRng,
    version: u64,
    /// Watches from before cannot be gone on with.
    oldest: u64,
    log: Vec<(u64, Value)>,
    pods: BTreeMap<String, Value>,
    watches: Vec<mpsc::UnboundedSender<Line>>,
    away_until: Ms,
    /// Of a thousand requests so many go wrong.
    per_mille: u32,
    latency: Ms,
    /// Writes that changed something.
    writes: u64,
}

/// What befalls a request.
enum Fate {
    Normal,
    /// Nothing was done.
    Refused(u16, &'static str),
    /// Nothing was done, and nothing answered.
    Lost,
    /// It was done, and the answer is lost.
    AnswerLost,
}

fn at(ms: Ms) -> String {
    let time = time_of(ms);
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The name of the pod that a request is about.
fn named(path: &str) -> String {
    path.split('/').nth(6).unwrap_or_default().to_owned()
}

fn answer(code: u16, body: &Value) -> Answer {
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {});
    Response::builder().status(code).body(body.boxed_unsync()).unwrap()
}

fn refusal(code: u16, reason: &str, message: &str) -> Answer {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "reason": reason, "message": message, "code": code });
    answer(code, &status)
}

impl Server {
    pub(crate) fn new(world: &Arc<World>, seed: u64) -> Arc<Self> {
        let state = State {
            rng: StdRng::seed_from_u64(seed ^ 0x5e12),
            version: 1,
            oldest: 1,
            log: Vec::new(),
            pods: BTreeMap::new(),
            watches: Vec::new(),
            away_until: 0,
            per_mille: 0,
            latency: 5,
            writes: 0,
        };
        Arc::new(Self { world: Arc::clone(world), state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, line: impl Into<String>) {
        self.world.lock().note(line);
    }

    fn blame(&self, text: String) {
        self.world.lock().blame(text);
    }

    fn now(&self) -> Ms {
        self.world.lock().now()
    }

    /// The clients of an agent. Must be called on its async runtime.
    pub(crate) fn clients(self: &Arc<Self>) -> Clients {
        let server = Arc::clone(self);
        let service = tower::service_fn(move |request| Arc::clone(&server).handle(request));
        Clients::over(&kube::Client::new(service, "default"), "https://simulated")
    }

    /// From now on so many requests of a thousand go wrong, and all take up to so long.
    pub(crate) fn set_faults(&self, per_mille: u32, latency: Ms) {
        let mut state = self.lock();
        (state.per_mille, state.latency) = (per_mille, latency);
    }

    /// The pods that are there and not deleted, by their UIDs.
    pub(crate) fn wanted(&self) -> Vec<String> {
        let state = self.lock();
        let there = state.pods.values().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        there.map(|pod| text(&pod["metadata"]["uid"]).to_owned()).collect()
    }

    /// All pods that are there.
    pub(crate) fn pods(&self) -> Vec<Pod> {
        self.lock().pods.values().map(|pod| serde_json::from_value(pod.clone()).unwrap()).collect()
    }

    /// How often an agent has changed something.
    pub(crate) fn writes(&self) -> u64 {
        self.lock().writes
    }

    /// Somebody makes a pod that is bound to the node. One that has the name is forced out first.
    pub(crate) fn create(&self, pod: &Pod) {
        let mut made = serde_json::to_value(pod).unwrap();
        let name = text(&made["metadata"]["name"]).to_owned();
        self.force(&name);
        made["metadata"]["annotations"] = Value::Null;
        made["metadata"]["creationTimestamp"] = json!(at(self.now()));
        made["spec"]["nodeName"] = json!("node1");
        made["status"] = json!({ "phase": "Pending", "qosClass": "BestEffort" });
        self.note(format!("-- {} is made at the server", text(&made["metadata"]["uid"])));
        self.lock().store("ADDED", made);
    }

    /// Somebody changes what a pod is to be.
    pub(crate) fn update(&self, pod: &Pod) {
        let name = pod.metadata.name.clone().unwrap();
        let mut state = self.lock();
        let Some(mut there) = state.pods.get(&name).cloned() else { return };
        there["spec"] = serde_json::to_value(pod.spec.as_ref().unwrap()).unwrap();
        there["spec"]["nodeName"] = json!("node1");
        state.store("MODIFIED", there);
        drop(state);
        self.note(format!("-- pod {name} is changed at the server"));
    }

    /// Somebody deletes a pod, with a grace period of its own or the pod's; 0 takes it away at once.
    pub(crate) fn delete(&self, name: &str, grace: Option<i64>) {
        let Some(mut pod) = self.lock().pods.get(name).cloned() else { return };
        let grace = grace.or(pod["spec"]["terminationGracePeriodSeconds"].as_i64()).unwrap_or(30);
        if grace == 0 {
            self.force(name);
            return;
        }
        // Only a shorter one counts.
        if pod["metadata"]["deletionGracePeriodSeconds"].as_i64().is_some_and(|old| old <= grace) {
            return;
        }
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        pod["metadata"]["deletionTimestamp"] = json!(at(self.now() + grace.unsigned_abs() * 1000));
        self.lock().store("MODIFIED", pod);
        self.note(format!("-- pod {name} is deleted at the server, grace {grace} s"));
    }

    /// Somebody takes a pod away without asking the node.
    pub(crate) fn force(&self, name: &str) {
        let gone = self.lock().remove(name);
        if gone {
            self.note(format!("-- pod {name} is forced out of the server"));
        }
    }

    /// Somebody writes over what the node has said of a pod, or a condition of his own beside it.
    pub(crate) fn meddle(&self, name: &str, wrong: bool) {
        let mut state = self.lock();
        let Some(mut pod) = state.pods.get(name).cloned() else { return };
        let condition = if wrong { "Ready" } else { "example.org/gate" };
        let change = json!({ "conditions": [{ "type": condition, "status": "Unknown" }] });
        pod["status"] = apply(&pod["status"], &change);
        state.store("MODIFIED", pod);
        drop(state);
        self.note(format!("-- somebody writes {condition} of pod {name}"));
    }

    /// The server is away for a while.
    pub(crate) fn go_away(&self, time: Ms) {
        let until = self.now() + time;
        let mut state = self.lock();
        state.away_until = state.away_until.max(until);
        state.cut();
        drop(state);
        self.note(format!("-- the server is away for {time} ms"));
    }

    /// It is there, and nothing goes wrong any more.
    pub(crate) fn is_well(&self) {
        let mut state = self.lock();
        (state.away_until, state.per_mille, state.latency) = (0, 0, 20);
    }

    /// All watches are cut off; those from before now are forgotten too, where so told.
    pub(crate) fn cut(&self, forget: bool) {
        let mut state = self.lock();
        if forget {
            // Something happened to others that the node does not see.
            state.version += 1;
            state.oldest = state.version;
            state.log.clear();
        }
        state.cut();
        drop(state);
        self.note(format!("-- watches are cut off, forgotten: {forget}"));
    }

    async fn handle(self: Arc<Self>, request: Request<Body>) -> Result<Answer, Failed> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let (before, after, fate) = self.lock().befalls(&head.method);
        sleep(Duration::from_millis(before)).await;
        let (path, query) = (head.uri.path(), head.uri.query().unwrap_or_default());
        if self.lock().away_until > self.now() {
            return Err("connection refused".into());
        }
        match fate {
            Fate::Lost => return Err("the connection broke".into()),
            Fate::Refused(code, message) => return Ok(refusal(code, "InternalError", message)),
            Fate::Normal | Fate::AnswerLost => {}
        }
        let result = match (head.method, path.split('/').count()) {
            (Method::GET, 4) if query.contains("watch=true") => self.watch(query),
            (Method::GET, 4) => self.lock().list(),
            (Method::PATCH, 8) => self.patch(&named(path), &body),
            (Method::DELETE, 7) => self.finish(&named(path), &body),
            (method, _) => {
                self.blame(format!("the server is asked for {method} {path}"));
                refusal(404, "NotFound", "not found")
            }
        };
        sleep(Duration::from_millis(after)).await;
        if matches!(fate, Fate::AnswerLost) { Err("the connection broke".into()) } else { Ok(result) }
    }

    fn watch(&self, query: &str) -> Answer {
        let from = query.split('&').find_map(|part| part.strip_prefix("resourceVersion="));
        let from: u64 = from.and_then(|text| text.parse().ok()).unwrap_or_default();
        let mut state = self.lock();
        if from < state.oldest {
            let message = "too old resource version";
            if state.rng.random_bool(0.5) {
                return refusal(410, "Expired", message);
            }
            let line = json!({ "type": "ERROR", "object": { "kind": "Status", "apiVersion": "v1", "metadata": {},
                "status": "Failure", "message": message, "reason": "Expired", "code": 410 } });
            return answer(200, &line);
        }
        let (sender, receiver) = mpsc::unbounded_channel::<Line>();
        for (_, event) in state.log.iter().filter(|(version, _)| *version > from) {
            sender.send(Ok(event.to_string())).ok();
        }
        state.watches.push(sender);
        let lines = stream::unfold(receiver, |mut receiver| async {
            let line = receiver.recv().await?;
            let frame = line.map(|line| Frame::data(Bytes::from(line + "\n"))).map_err(Failed::from);
            Some((frame, receiver))
        });
        Response::builder().status(200).body(StreamBody::new(lines).boxed_unsync()).unwrap()
    }

    fn patch(&self, name: &str, body: &Value) -> Answer {
        let mut state = self.lock();
        let Some(mut pod) = state.pods.get(name).cloned() else {
            return refusal(404, "NotFound", &format!("pods {name:?} not found"));
        };
        let uid = text(&pod["metadata"]["uid"]).to_owned();
        if body["metadata"]["uid"] != *uid {
            let message = format!("Precondition failed: UID in precondition: {}", body["metadata"]["uid"]);
            return refusal(409, "Conflict", &message);
        }
        let old = pod["status"].clone();
        pod["status"] = apply(&old, &body["status"]);
        let (was, is) = (text(&old["phase"]).to_owned(), text(&pod["status"]["phase"]).to_owned());
        if old != pod["status"] {
            state.writes += 1;
            state.store("MODIFIED", pod.clone());
        }
        let there = state.pods[name].clone();
        drop(state);
        let over = |phase: &str| ["Failed", "Succeeded"].contains(&phase);
        if over(&was) && was != is {
            self.blame(format!("{uid} is told as {is} after it was {was}"));
        }
        if over(&is) && !over(&was) && self.has_running(&uid) {
            self.blame(format!("{uid} is told as {is} while something of it runs"));
        }
        self.note(format!("   {uid} is told as {is}: {}", body["status"]));
        answer(200, &there)
    }

    /// The last word on a pod.
    fn finish(&self, name: &str, body: &Value) -> Answer {
        let mut state = self.lock();
        let Some(pod) = state.pods.get(name).cloned() else {
            return refusal(404, "NotFound", &format!("pods {name:?} not found"));
        };
        let uid = text(&pod["metadata"]["uid"]).to_owned();
        if body["preconditions"]["uid"] != *uid {
            return refusal(409, "Conflict", "Precondition failed: UID in precondition is another");
        }
        state.writes += 1;
        state.remove(name);
        drop(state);
        if pod["metadata"]["deletionTimestamp"].is_null() || body["gracePeriodSeconds"] != 0 {
            self.blame(format!("the agent deletes {uid}, which nobody else has"));
        }
        if self.has_running(&uid) {
            self.blame(format!("the deletion of {uid} is finished while something of it runs"));
        }
        self.note(format!("   the deletion of {uid} is finished"));
        answer(200, &pod)
    }

    fn has_running(&self, uid: &str) -> bool {
        let world = self.world.lock();
        world.containers.values().any(|c| c.uid == uid && c.is == Is::Running)
            || world.sandboxes.values().any(|s| s.uid == uid && s.ready)
    }
}

impl State {
    fn befalls(&mut self, method: &Method) -> (Ms, Ms, Fate) {
        let latency = self.latency.max(1);
        let (before, after) = (self.rng.random_range(0..latency), self.rng.random_range(0..latency));
        let slow = if self.rng.random_range(0..1000) < self.per_mille { 3000 } else { 0 };
        let fate = if self.rng.random_range(0..1000) >= self.per_mille {
            Fate::Normal
        } else {
            match self.rng.random_range(0..5) {
                0 => Fate::Refused(500, "etcd has no leader"),
                1 => Fate::Refused(429, "too many requests"),
                // As the server says it where somebody else was faster, again and again.
                2 if *method == Method::PATCH => Fate::Refused(409, "the object has been modified"),
                3 => Fate::Lost,
                _ => Fate::AnswerLost,
            }
        };
        (before + slow, after, fate)
    }

    fn list(&self) -> Answer {
        let items: Vec<&Value> = self.pods.values().collect();
        let version = self.version.to_string();
        answer(
            200,
            &json!({ "kind": "PodList", "apiVersion": "v1", "metadata": { "resourceVersion": version }, "items": items }),
        )
    }

    fn store(&mut self, kind: &str, mut pod: Value) {
        self.version += 1;
        pod["kind"] = json!("Pod");
        pod["apiVersion"] = json!("v1");
        pod["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let name = text(&pod["metadata"]["name"]).to_owned();
        self.tell(kind, &pod);
        self.pods.insert(name, pod);
    }

    fn remove(&mut self, name: &str) -> bool {
        let Some(mut pod) = self.pods.remove(name) else { return false };
        self.version += 1;
        pod["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.tell("DELETED", &pod);
        true
    }

    fn tell(&mut self, kind: &str, pod: &Value) {
        let event = json!({ "type": kind, "object": pod });
        self.log.push((self.version, event.clone()));
        self.watches.retain(|watch| watch.send(Ok(event.to_string())).is_ok());
    }

    /// Watches end, some in the middle of what they say.
    fn cut(&mut self) {
        let broken = self.rng.random_bool(0.5);
        for watch in self.watches.drain(..).filter(|_| broken) {
            watch.send(Err("the connection broke")).ok();
        }
    }
}
