//! Moving a node's pods away, as `kubectl drain` does (k8s.io/kubectl `pkg/drain`): which pods go, which stay,
//! which stand in the way; then evictions, which honour disruption budgets, until the pods are gone.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{APIResourceList, OwnerReference},
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{ApiClient, KubeError, client::escaped};

/// Between two looks at the pods, and between two tries of an eviction; kubectl's is 5 s for the latter.
const PAUSE: Duration = Duration::from_secs(2);
/// Whoever waits is told for which pods, after so long and then again and again.
const FIRST_WORD: Duration = Duration::from_secs(5);
const BETWEEN_WORDS: Duration = Duration::from_secs(15);
/// So many pods of a list come at once.
const PAGE: usize = 500;
/// So many pods are named in a message.
const NAMED: usize = 10;
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What a drain may do.
#[derive(Debug, Clone, Copy)]
pub struct DrainOptions {
    /// How long it may take in all.
    pub timeout: Duration,
    /// Whether pods that nothing would make again are evicted too (`kubectl drain --force`).
    pub unmanaged: bool,
    /// Whether pods with emptyDir volumes are evicted too (`kubectl drain --delete-emptydir-data`).
    pub delete_emptydir_data: bool,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drained {
    /// The pods that are gone, `NAMESPACE/NAME`.
    pub evicted: Vec<String>,
    /// Those of DaemonSets, which stay.
    pub daemon_sets: Vec<String>,
}

/// Why a node is not drained.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// The API server.
    #[error(transparent)]
    Kube(#[from] KubeError),
    /// Pods that may not be evicted as it was asked for; none was.
    #[error("pods stand in the way: {}", listed(.0))]
    InTheWay(Vec<String>),
    /// Time is up.
    #[error("not drained within {seconds} s: {}", listed(pods))]
    Late {
        /// The time it had.
        seconds: u64,
        /// Those that are left, and why.
        pods: Vec<String>,
    },
}

/// One page of a list.
#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(default)]
    items: Vec<Pod>,
}

#[derive(Deserialize, Default)]
struct PageMeta {
    #[serde(default, rename = "continue")]
    next: String,
}

/// A pod that is to go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Leaving {
    namespace: String,
    name: String,
    uid: String,
}

impl Leaving {
    fn title(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    fn path(&self) -> String {
        let (namespace, name) = (escaped(&self.namespace), escaped(&self.name));
        format!("/api/v1/namespaces/{namespace}/pods/{name}/eviction")
    }
}

/// Which of a node's pods go.
#[derive(Debug, Default, PartialEq, Eq)]
struct Choice {
    leaving: Vec<Leaving>,
    daemon_sets: Vec<String>,
    /// What keeps the drain from beginning, a sentence each.
    obstacles: Vec<String>,
}

fn choose(pods: &[Pod], options: DrainOptions) -> Choice {
    let mut choice = Choice::default();
    for pod in pods {
        let metadata = &pod.metadata;
        let leaving = Leaving {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
        };
        // The kubelet's own; the API server shows its reflection only.
        if metadata.annotations.as_ref().is_some_and(|all| all.contains_key(MIRROR)) {
            continue;
        }
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if !matches!(phase, Some("Succeeded" | "Failed")) {
            let owner = controller(metadata.owner_references.as_deref().unwrap_or_default());
            if owner.is_some_and(|owner| owner.kind == "DaemonSet") {
                choice.daemon_sets.push(leaving.title());
                continue;
            }
            if owner.is_none() && !options.unmanaged {
                choice
                    .obstacles
                    .push(format!("{} has no controller that would make it again", leaving.title()));
                continue;
            }
            if has_empty_dir(pod) && !options.delete_emptydir_data {
                choice.obstacles.push(format!("{} has data in an emptyDir volume", leaving.title()));
                continue;
            }
        }
        choice.leaving.push(leaving);
    }
    choice
}

fn controller(owners: &[OwnerReference]) -> Option<&OwnerReference> {
    owners.iter().find(|owner| owner.controller == Some(true))
}

fn has_empty_dir(pod: &Pod) -> bool {
    let volumes = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
    volumes.is_some_and(|volumes| volumes.iter().any(|volume| volume.empty_dir.is_some()))
}

/// What would keep a drain from beginning, a sentence for each pod. Nothing is changed.
///
/// # Errors
/// As [`KubeError`] has them.
pub async fn obstacles(
    client: &ApiClient,
    node: &str,
    options: DrainOptions,
) -> Result<Vec<String>, KubeError> {
    Ok(choose(&pods_of(client, node).await?, options).obstacles)
}

/// Evicts the pods of a node but those of DaemonSets and static ones, and waits until they are gone. `waits` is told at
/// intervals for which, and why.
///
/// # Errors
/// When pods stand in the way (then none is evicted), an eviction is refused for good, the API server cannot be
/// asked, or time is up.
pub async fn drain(
    client: &ApiClient,
    node: &str,
    options: DrainOptions,
    mut waits: impl FnMut(&str),
) -> Result<Drained, DrainError> {
    let choice = choose(&pods_of(client, node).await?, options);
    if !choice.obstacles.is_empty() {
        return Err(DrainError::InTheWay(choice.obstacles));
    }
    let evicted = choice.leaving.iter().map(Leaving::title).collect();
    let deadline = Instant::now() + options.timeout;
    let version = eviction_version(client).await?;
    // What is left, and what was said of it last.
    let mut left: BTreeMap<String, (Leaving, String)> = choice
        .leaving
        .into_iter()
        .map(|pod| (pod.uid.clone(), (pod, "not evicted yet".to_owned())))
        .collect();
    let mut waiting: Vec<String> = left.keys().cloned().collect();
    let mut word = Instant::now() + FIRST_WORD;
    loop {
        let mut refused = Vec::new();
        for uid in waiting {
            let Some((pod, told)) = left.get_mut(&uid) else { continue };
            match evict(client, pod, version).await? {
                Eviction::Done => "evicted and not gone yet".clone_into(told),
                Eviction::Gone => drop(left.remove(&uid)),
                Eviction::Later(message) => {
                    *told = message;
                    refused.push(uid);
                }
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        waiting = refused;
        if !left.is_empty() {
            match pods_of(client, node).await {
                Ok(there) => left.retain(|uid, (_, told)| {
                    let found = there.iter().find(|pod| pod.metadata.uid.as_deref() == Some(uid));
                    if let Some(end) = found.and_then(|pod| pod.metadata.deletion_timestamp.as_ref()) {
                        *told = format!("still terminating; its grace period ends {:.0}", end.0);
                    }
                    found.is_some()
                }),
                // There is time yet for it to come back.
                Err(error) if error.may_pass() => {
                    left.values_mut().for_each(|(_, told)| *told = error.to_string());
                }
                Err(error) => return Err(error.into()),
            }
        }
        if left.is_empty() {
            return Ok(Drained { evicted, daemon_sets: choice.daemon_sets });
        }
        let now = Instant::now();
        if now >= deadline || now >= word {
            let pods: Vec<String> =
                left.values().map(|(pod, told)| format!("{} ({told})", pod.title())).collect();
            if now >= deadline {
                return Err(DrainError::Late { seconds: options.timeout.as_secs(), pods });
            }
            let seconds = deadline.saturating_duration_since(now).as_secs();
            waits(&format!("waiting for {} pods, for {seconds} s at most: {}", pods.len(), listed(&pods)));
            word = now + BETWEEN_WORDS;
        }
        sleep(PAUSE.min(deadline.saturating_duration_since(Instant::now()))).await;
    }
}

fn listed(all: &[String]) -> String {
    let mut text = all.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
    if all.len() > NAMED {
        // Writing to a String cannot fail.
        let _infallible = write!(text, "; and {} more", all.len() - NAMED);
    }
    text
}

async fn pods_of(client: &ApiClient, node: &str) -> Result<Vec<Pod>, KubeError> {
    let mut pods = Vec::new();
    let mut next = String::new();
    loop {
        let mut path = format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{}&limit={PAGE}", escaped(node));
        if !next.is_empty() {
            path.push_str("&continue=");
            path.push_str(&escaped(&next));
        }
        let page: Page = client.get(&path).await?;
        pods.extend(page.items);
        if page.metadata.next.is_empty() {
            return Ok(pods);
        }
        next = page.metadata.next;
    }
}

/// The version of the group `policy` that evictions are in: v1beta1 before Kubernetes 1.22, gone since 1.25.
async fn eviction_version(client: &ApiClient) -> Result<&'static str, KubeError> {
    let resources: APIResourceList = client.get("/api/v1").await?;
    let eviction = resources.resources.into_iter().find(|resource| resource.name == "pods/eviction");
    Ok(match eviction.and_then(|resource| resource.version).as_deref() {
        Some("v1beta1") => "policy/v1beta1",
        _ => "policy/v1",
    })
}

/// What came of an eviction.
enum Eviction {
    /// It is on its way.
    Done,
    /// There is no such pod any more.
    Gone,
    /// Not now, as it was told.
    Later(String),
}

async fn evict(client: &ApiClient, pod: &Leaving, version: &str) -> Result<Eviction, KubeError> {
    let body = json!({
        "apiVersion": version,
        "kind": "Eviction",
        "metadata": { "namespace": pod.namespace, "name": pod.name },
        // Another pod may have got the name meanwhile, on another node.
        "deleteOptions": { "preconditions": { "uid": pod.uid } },
    });
    match client.post::<Value>(&pod.path(), &body).await {
        Ok(_) => Ok(Eviction::Done),
        Err(error) if error.is_not_found() => Ok(Eviction::Gone),
        // Another pod has its name: then the list does not have it any more.
        Err(KubeError::Refused { code: 409, message, .. }) => Ok(Eviction::Later(message)),
        // 429 is a disruption budget's "not now"; a namespace that is being deleted takes its pods along.
        Err(KubeError::Refused { code: 429, message, .. }) => Ok(Eviction::Later(message)),
        Err(KubeError::Refused { code: 403, message, .. }) if message.contains("being terminated") => {
            Ok(Eviction::Later(message))
        }
        Err(KubeError::Refused { code: code @ 502..=504, message, .. }) => {
            Ok(Eviction::Later(format!("{message}, {code}")))
        }
        Err(error @ KubeError::Unreachable { .. }) => Ok(Eviction::Later(error.to_string())),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::test_server::TestServer;

    const OPTIONS: DrainOptions =
        DrainOptions { timeout: Duration::from_secs(30), unmanaged: false, delete_emptydir_data: false };

    fn pod(name: &str, owner: Option<&str>) -> Value {
        let owners = owner.map(|kind| {
            json!([{ "apiVersion": "apps/v1", "kind": kind, "name": "o", "uid": "o", "controller": true }])
        });
        json!({ "metadata": { "namespace": "ns", "name": name, "uid": format!("uid-{name}"), "ownerReferences": owners } })
    }

    fn titles(choice: &Choice) -> Vec<&str> {
        choice.leaving.iter().map(|pod| pod.name.as_str()).collect()
    }

    #[test]
    fn pods_are_chosen_as_kubectl_does() {
        let mut mirror = pod("static", Some("Node"));
        mirror["metadata"]["annotations"] = json!({ MIRROR: "x" });
        let mut data = pod("data", Some("ReplicaSet"));
        data["spec"] = json!({ "containers": [], "volumes": [{ "name": "v", "emptyDir": {} }] });
        let mut done = data.clone();
        done["metadata"]["name"] = "done".into();
        done["metadata"]["ownerReferences"] = Value::Null;
        done["status"] = json!({ "phase": "Succeeded" });
        let pods = [
            mirror,
            data,
            done,
            pod("web", Some("ReplicaSet")),
            pod("daemon", Some("DaemonSet")),
            pod("bare", None),
        ];
        let pods: Vec<Pod> = pods.into_iter().map(|pod| serde_json::from_value(pod).unwrap()).collect();
        let choice = choose(&pods, OPTIONS);
        assert_eq!(titles(&choice), ["done", "web"]);
        assert_eq!(choice.daemon_sets, ["ns/daemon"]);
        assert_eq!(
            choice.obstacles,
            ["ns/data has data in an emptyDir volume", "ns/bare has no controller that would make it again"]
        );
        let all = choose(&pods, DrainOptions { unmanaged: true, delete_emptydir_data: true, ..OPTIONS });
        assert_eq!(titles(&all), ["data", "done", "web", "bare"]);
        assert!(all.obstacles.is_empty());
    }

    async fn server(version: &str, pods: &[Value]) -> (TestServer, ApiClient) {
        let server = TestServer::start().await;
        server.put(
            "/api/v1",
            json!({ "groupVersion": "v1", "resources": [
                { "name": "pods", "singularName": "", "namespaced": true, "kind": "Pod", "verbs": [] },
                { "name": "pods/eviction", "singularName": "", "namespaced": true, "kind": "Eviction",
                  "group": "policy", "version": version, "verbs": ["create"] },
            ] }),
        );
        server.put("/api/v1/pods", json!({ "items": pods }));
        let client = ApiClient::open(&server.kubeconfig("")).unwrap();
        (server, client)
    }

    /// Takes a pod from the list.
    fn gone(objects: &mut BTreeMap<String, Value>, name: &str) {
        let items = objects.get_mut("/api/v1/pods").unwrap()["items"].as_array_mut().unwrap();
        items.retain(|pod| pod["metadata"]["name"] != name);
    }

    #[tokio::test]
    async fn pods_are_evicted_within_their_budgets() {
        let pods = [pod("a", Some("ReplicaSet")), pod("b", Some("ReplicaSet")), pod("d", Some("DaemonSet"))];
        let (server, client) = server("v1", &pods).await;
        server.on_request(|asked, objects| {
            if asked.method == "POST" && asked.path.contains("/a/") {
                gone(objects, "a");
            }
            // Once its budget allowed it.
            if asked.path.contains("/b/") && objects.contains_key("refused") {
                gone(objects, "b");
            }
            if asked.path.contains("/b/") {
                objects.insert("refused".to_owned(), Value::Null);
            }
        });
        let b = "/api/v1/namespaces/ns/pods/b/eviction";
        server.refuse("POST", b, 429, "Cannot evict pod as it would violate the pod's disruption budget.");
        let drained = drain(&client, "n", OPTIONS, |_| ()).await.unwrap();
        assert_eq!(drained.evicted, ["ns/a", "ns/b"]);
        assert_eq!(drained.daemon_sets, ["ns/d"]);
        let asked = server.requests();
        let evictions: Vec<_> = asked.iter().filter(|asked| asked.method == "POST").collect();
        assert_eq!(evictions.len(), 3);
        assert_eq!(evictions[0].body["apiVersion"], "policy/v1");
        assert_eq!(evictions[0].body["deleteOptions"]["preconditions"]["uid"], "uid-a");
        assert!(asked[0].path.contains("fieldSelector=spec.nodeName%3Dn&"), "{}", asked[0].path);
    }

    #[tokio::test]
    async fn what_stays_is_named_when_time_is_up() {
        let pods = [pod("a", Some("ReplicaSet")), pod("b", Some("ReplicaSet"))];
        let (server, client) = server("v1beta1", &pods).await;
        for _ in 0..9 {
            server.refuse("POST", "/api/v1/namespaces/ns/pods/b/eviction", 429, "budget");
        }
        let short = DrainOptions { timeout: Duration::from_secs(2), ..OPTIONS };
        let error = drain(&client, "n", short, |_| ()).await.unwrap_err().to_string();
        assert_eq!(error, "not drained within 2 s: ns/a (evicted and not gone yet); ns/b (budget)");
        let evictions = server.requests().into_iter().find(|asked| asked.method == "POST").unwrap();
        assert_eq!(evictions.body["apiVersion"], "policy/v1beta1");
    }

    #[tokio::test]
    async fn whoever_waits_is_told_for_what() {
        let mut ending = pod("a", Some("ReplicaSet"));
        ending["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z".into();
        let (server, client) = server("v1", &[ending, pod("b", Some("ReplicaSet"))]).await;
        for _ in 0..9 {
            server.refuse("POST", "/api/v1/namespaces/ns/pods/b/eviction", 429, "budget");
        }
        let options = DrainOptions { timeout: Duration::from_secs(7), ..OPTIONS };
        let mut words = Vec::new();
        drain(&client, "n", options, |text| words.push(text.to_owned())).await.unwrap_err();
        let [word] = words.as_slice() else { panic!("{words:?}") };
        assert!(word.starts_with("waiting for 2 pods, for "), "{word}");
        let why = "ns/a (still terminating; its grace period ends 2026-01-02T03:04:05Z); ns/b (budget)";
        assert!(word.ends_with(&format!(" s at most: {why}")), "{word}");
    }

    #[tokio::test]
    async fn nothing_is_evicted_while_something_stands_in_the_way() {
        let (server, client) = server("v1", &[pod("a", Some("ReplicaSet")), pod("bare", None)]).await;
        let error = drain(&client, "n", OPTIONS, |_| ()).await.unwrap_err().to_string();
        assert!(error.contains("ns/bare has no controller"), "{error}");
        assert_eq!(server.count("POST"), 0);
        server.refuse("POST", "/api/v1/namespaces/ns/pods/a/eviction", 403, "nobody may");
        let all = DrainOptions { unmanaged: true, ..OPTIONS };
        let error = drain(&client, "n", all, |_| ()).await.unwrap_err().to_string();
        let told = format!("pods/a/eviction: API server {} refuses: nobody may (403)", client.server());
        assert!(error.contains(&told), "{error}");
    }
}
