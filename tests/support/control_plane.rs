//! A control plane without nodes (`hack/control-plane.sh`): etcd, a real API server with the Node authorizer and
//! NodeRestriction, and a controller manager, on an address of their own.
//!
//! It takes some seconds to start, so tests that only use it share one: [`ControlPlane::shared`] gives the one that
//! another test of this program has, and the last that lets go of it ends it. Tests that stop it, or that count its
//! requests, take one of their own. Nodes of one control plane differ in their names, and tests ask for their own
//! objects only.

use std::{
    fmt::Debug,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
};
use nodectl::kube::{Kubeconfig, connect};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{
    SOON,
    containerd::{parse, script},
    wait_for, wait_until,
};

/// See the module.
pub(crate) struct ControlPlane {
    dir: PathBuf,
    facts: std::collections::BTreeMap<String, String>,
    runtime: tokio::runtime::Runtime,
    client: Client,
}

/// A request that the API server has heard, as its audit log tells it.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    /// `get`, `list`, `watch`, `create`, `patch`, `update`, `delete`.
    pub(crate) verb: String,
    /// Plural, with the subresource: `pods/status`.
    pub(crate) resource: String,
    pub(crate) name: String,
    /// When it came.
    pub(crate) at: jiff::Timestamp,
}

impl ControlPlane {
    /// One that tests of this program share.
    #[track_caller]
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<ControlPlane>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            // Stored so that [`Self::change_stored_pod`] can read it.
            let new = Arc::new(Self::start_with(&[("NODECTL_STORAGE", "application/json")]));
            *shared = Arc::downgrade(&new);
            new
        })
    }

    /// One of the test's own.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// The same with variables of `hack/control-plane.sh`.
    #[track_caller]
    pub(crate) fn start_with(environment: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let pid = std::process::id();
        let dir = PathBuf::from(format!("/run/ndp-{pid}-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        let owner = pid.to_string();
        let environment = [environment, &[("NODECTL_OWNER", owner.as_str())]].concat();
        let facts = parse(&succeed(&["start", dir.to_str().unwrap()], &environment));
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let admin = Kubeconfig::read(Path::new(&facts["ADMIN"])).unwrap();
        let client = {
            let _inside = runtime.enter();
            connect(&admin, None).unwrap()
        };
        Self { dir, facts, runtime, client }
    }

    /// What a node has asked for until now, in the order in which it came. Of a plane with `NODECTL_AUDIT` only.
    pub(crate) fn heard(&self, node: &str) -> Vec<Heard> {
        let user = format!("system:node:{node}");
        let log = std::fs::read_to_string(self.dir.join("audit.log")).expect("started with NODECTL_AUDIT");
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut heard: Vec<Heard> = lines
            .filter(|line| line["user"]["username"] == user)
            // A watch is told of when it begins (old servers: when it first has something to say) and when it ends.
            .filter(|line| (line["stage"] == "ResponseStarted") == (line["verb"] == "watch"))
            .map(|line| {
                let object = &line["objectRef"];
                let (resource, part) = (text(&object["resource"]), text(&object["subresource"]));
                let resource = if part.is_empty() { resource } else { format!("{resource}/{part}") };
                let at = text(&line["requestReceivedTimestamp"]).parse().unwrap();
                Heard { verb: text(&line["verb"]), resource, name: text(&object["name"]), at }
            })
            .collect();
        heard.sort_by_key(|heard| heard.at);
        heard
    }

    /// A value that `hack/control-plane.sh start` printed.
    #[track_caller]
    pub(crate) fn fact(&self, key: &str) -> &str {
        self.facts.get(key).unwrap_or_else(|| panic!("hack/control-plane.sh printed no {key}"))
    }

    /// The folder that it lives in, with the logs of its programs.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A kubeconfig with a client certificate of this node.
    #[track_caller]
    pub(crate) fn node_kubeconfig(&self, node: &str) -> PathBuf {
        succeed(&["node", self.dir.to_str().unwrap(), node], &[]).trim().into()
    }

    /// Makes a certificate of the cluster's with its key; the paths of both.
    #[track_caller]
    pub(crate) fn signed(&self, name: &str, subject: &str, usage: &str, names: &str) -> (PathBuf, PathBuf) {
        succeed(&["signed", self.dir.to_str().unwrap(), name, subject, usage, names], &[]);
        let file = |end: &str| Path::new(self.fact("PKI")).join(format!("{name}.{end}"));
        (file("crt"), file("key"))
    }

    /// Ends a program at once: `etcd`, `kube-apiserver` or `kube-controller-manager`.
    #[track_caller]
    pub(crate) fn kill(&self, program: &str) {
        succeed(&["kill", self.dir.to_str().unwrap(), program], &[]);
    }

    /// Starts what was ended.
    #[track_caller]
    pub(crate) fn resume(&self) {
        succeed(&["resume", self.dir.to_str().unwrap()], &[]);
    }

    /// The administrator's client.
    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Waits for an answer.
    pub(crate) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// The pods of the namespace `default`, or other namespaced objects.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client(), "default")
    }

    /// Makes an object in the namespace `default`; it as it is then.
    #[track_caller]
    pub(crate) fn create<K>(&self, object: &Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug,
        K::DynamicType: Default,
    {
        let object: K = serde_json::from_value(object.clone()).unwrap();
        self.block_on(self.api::<K>().create(&PostParams::default(), &object)).unwrap()
    }

    /// Makes a pod that is bound to a node, without a token of the service account.
    #[track_caller]
    pub(crate) fn bind(&self, node: &str, pod: &Value) -> Pod {
        let mut pod = pod.clone();
        pod["spec"]["nodeName"] = json!(node);
        if pod["spec"]["automountServiceAccountToken"].is_null() {
            pod["spec"]["automountServiceAccountToken"] = json!(false);
        }
        self.create(&pod)
    }

    /// A pod as the server has it.
    #[track_caller]
    pub(crate) fn pod(&self, name: &str) -> Option<Pod> {
        self.block_on(self.api::<Pod>().get_opt(name)).unwrap()
    }

    /// Deletes a pod as `kubectl delete` does; what is to come of it is for the node.
    #[track_caller]
    pub(crate) fn delete_pod(&self, name: &str, grace: Option<u32>) {
        let params = DeleteParams { grace_period_seconds: grace, ..DeleteParams::default() };
        self.block_on(self.api::<Pod>().delete(name, &params)).unwrap();
    }

    /// Merges a change into a pod.
    #[track_caller]
    pub(crate) fn patch_pod(&self, name: &str, change: &Value) -> Pod {
        let patch = self.api::<Pod>();
        self.block_on(patch.patch(name, &PatchParams::default(), &Patch::Strategic(change))).unwrap()
    }

    /// Changes a pod in the store, behind the server's back, as a server would that allows more than this one. Its
    /// objects are to be stored as JSON (`NODECTL_STORAGE`).
    #[track_caller]
    pub(crate) fn change_stored_pod(&self, name: &str, change: impl FnOnce(&mut Value)) {
        let key = BASE64_STANDARD.encode(format!("/registry/pods/default/{name}"));
        let found = self.etcd("range", &json!({ "key": key }));
        let stored = found["kvs"][0]["value"].as_str().expect("the pod is stored");
        let mut pod: Value = serde_json::from_slice(&BASE64_STANDARD.decode(stored).unwrap()).unwrap();
        change(&mut pod);
        self.etcd("put", &json!({ "key": key, "value": BASE64_STANDARD.encode(pod.to_string()) }));
    }

    #[track_caller]
    fn etcd(&self, verb: &str, request: &Value) -> Value {
        let url = format!("http://{}:2379/v3/kv/{verb}", self.fact("ADDRESS"));
        let output = Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--fail",
                "--max-time",
                "60",
                "--data",
                &request.to_string(),
                &url,
            ])
            .output()
            .expect("curl runs");
        assert!(output.status.success(), "{url}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("etcd answers JSON")
    }

    /// Waits until no controller has anything left to do about a node's taints: the API server gives one to every new
    /// node, and the controller that takes it away writes all taints as it has read them, whoever writes meanwhile.
    #[track_caller]
    pub(crate) fn wait_taints(&self, name: &str) {
        wait_until(SOON, &format!("node {name} has no taint of the control plane"), || {
            self.node(name).is_some_and(|node| {
                let taints = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
                !taints.iter().any(|taint| taint.key.starts_with("node.kubernetes.io/"))
            })
        });
    }

    /// Waits until the server has the pod in this phase.
    #[track_caller]
    pub(crate) fn wait_phase(&self, name: &str, phase: &str) -> Pod {
        wait_for(SOON, &format!("pod {name} is {phase}"), || {
            self.pod(name).filter(|pod| pod.status.as_ref().and_then(|s| s.phase.as_deref()) == Some(phase))
        })
    }

    /// Waits until the server was told, in these words among others, why the pod's first container waits: reason and
    /// message.
    #[track_caller]
    pub(crate) fn wait_waiting(&self, name: &str, words: &str) -> (String, String) {
        wait_for(SOON, &format!("pod {name} is told {words}"), || {
            let status = self.pod(name)?.status?;
            let waiting = status.container_statuses?.first()?.state.clone()?.waiting?;
            let message = waiting.message.unwrap_or_default();
            message.contains(words).then(|| (waiting.reason.unwrap_or_default(), message))
        })
    }

    /// Waits until the server has the pod ready.
    #[track_caller]
    pub(crate) fn wait_ready(&self, name: &str) -> Pod {
        self.wait_ready_within(SOON, name)
    }

    /// [`Self::wait_ready`] with a time of its own.
    #[track_caller]
    pub(crate) fn wait_ready_within(&self, within: Duration, name: &str) -> Pod {
        wait_for(within, &format!("pod {name} is ready"), || {
            self.pod(name).filter(|pod| {
                let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
                conditions
                    .into_iter()
                    .any(|condition| condition.type_ == "Ready" && condition.status == "True")
            })
        })
    }

    /// Waits until the server has no such pod.
    #[track_caller]
    pub(crate) fn wait_gone(&self, name: &str) {
        self.wait_gone_within(SOON, name);
    }

    /// [`Self::wait_gone`] with a time of its own.
    #[track_caller]
    pub(crate) fn wait_gone_within(&self, within: Duration, name: &str) {
        wait_until(within, &format!("pod {name} is gone"), || self.pod(name).is_none());
    }

    /// A node as the server has it.
    #[track_caller]
    pub(crate) fn node(&self, name: &str) -> Option<Node> {
        self.block_on(Api::<Node>::all(self.client()).get_opt(name)).unwrap()
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let ended = script("control-plane.sh", &["stop", self.dir.to_str().unwrap_or_default()], &[]);
        if !ended.status.success() {
            eprintln!("{}", String::from_utf8_lossy(&ended.stderr));
        }
    }
}

#[track_caller]
fn succeed(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = script("control-plane.sh", arguments, environment);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "hack/control-plane.sh {}: {}\n{errors}",
        arguments.join(" "),
        output.status
    );
    String::from_utf8(output.stdout).expect("the script prints text")
}
