//! The API server of a machine that is in a cluster, asked with kubectl as its administrator.

use serde_json::{Value, json};

use super::{IMAGE, SOON, machine::Machine, wait_until};

/// kubeadm's, for whoever may do all.
pub(crate) const ADMIN: &str = "/etc/kubernetes/admin.conf";
/// The node's own.
pub(crate) const NODE: &str = "/etc/kubernetes/kubelet.conf";
/// Where the API server is.
pub(crate) const SERVER: &str = "https://192.168.77.10:6443";

/// A budget of the group and version that 1.20 has.
const BUDGETS: &str = "/apis/policy/v1beta1/namespaces/default/poddisruptionbudgets";

impl Machine {
    /// Runs kubectl; what it printed.
    #[track_caller]
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        self.sure(&[&["kubectl", "--kubeconfig", ADMIN], arguments].concat())
    }

    /// An object, `None` if there is none.
    #[track_caller]
    pub(crate) fn object(&self, kind: &str, name: &str) -> Option<Value> {
        let text = self.kubectl(&["get", kind, name, "--ignore-not-found", "-o", "json"]);
        (!text.is_empty()).then(|| serde_json::from_str(&text).expect("kubectl prints JSON"))
    }

    /// The node itself.
    #[track_caller]
    pub(crate) fn node(&self) -> Value {
        self.object("node", "node1").expect("the node is there")
    }

    /// Makes an object; it as it is then.
    #[track_caller]
    pub(crate) fn make(&self, object: &Value) -> Value {
        const FILE: &str = "/root/object.json";
        self.put(FILE, &object.to_string(), 0o600);
        let made = self.kubectl(&["create", "-f", FILE, "-o", "json"]);
        serde_json::from_str(&made).expect("kubectl prints JSON")
    }

    /// Makes a ReplicaSet or a DaemonSet, which no controller looks after.
    #[track_caller]
    pub(crate) fn make_controller(&self, kind: &str, name: &str) -> Value {
        let labels = json!({ "app": name });
        let containers = json!([{ "name": "main", "image": IMAGE }]);
        self.make(&json!({
            "apiVersion": "apps/v1",
            "kind": kind,
            "metadata": { "name": name },
            "spec": {
                "selector": { "matchLabels": labels },
                "template": { "metadata": { "labels": labels }, "spec": { "containers": containers } },
            },
        }))
    }

    /// Makes a pod on the node, with the label `app` of its name, and waits until it runs.
    #[track_caller]
    pub(crate) fn make_pod(&self, name: &str, controller: Option<&Value>, volumes: &Value) -> Value {
        let owner = |of: &Value| {
            json!([{ "apiVersion": of["apiVersion"], "kind": of["kind"], "name": of["metadata"]["name"],
                     "uid": of["metadata"]["uid"], "controller": true }])
        };
        self.make(&json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": { "name": name, "labels": { "app": name }, "ownerReferences": controller.map(owner) },
            "spec": {
                "nodeName": "node1",
                "automountServiceAccountToken": false,
                "terminationGracePeriodSeconds": 5,
                "volumes": volumes,
                "containers": [{
                    "name": "main",
                    "image": IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"],
                }],
            },
        }));
        wait_until(SOON, &format!("the pod {name} runs"), || self.pod_runs(name, "docker"));
        self.object("pod", name).expect("it runs")
    }

    /// Whether the API server has a pod running and ready in this runtime.
    #[track_caller]
    pub(crate) fn pod_runs(&self, name: &str, runtime: &str) -> bool {
        let Some(pod) = self.object("pod", name) else { return false };
        let container = &pod["status"]["containerStatuses"][0];
        container["ready"] == true
            && container["containerID"].as_str().is_some_and(|id| id.starts_with(&format!("{runtime}://")))
    }

    /// Makes a disruption budget for the pods of this label `app`, which lets so many go.
    #[track_caller]
    pub(crate) fn make_budget(&self, app: &str, allowed: u32) {
        self.make(&json!({
            "apiVersion": "policy/v1beta1",
            "kind": "PodDisruptionBudget",
            "metadata": { "name": app },
            "spec": { "minAvailable": 1, "selector": { "matchLabels": { "app": app } } },
        }));
        self.allow(app, allowed);
    }

    /// Says what a disruption budget allows, as the controller manager does.
    #[track_caller]
    pub(crate) fn allow(&self, app: &str, allowed: u32) {
        const FILE: &str = "/root/budget.json";
        let mut budget = self.object("poddisruptionbudget", app).expect("the budget is there");
        budget["status"] = json!({
            "observedGeneration": budget["metadata"]["generation"],
            "disruptionsAllowed": allowed,
            "currentHealthy": 1 + allowed,
            "desiredHealthy": 1,
            "expectedPods": 1 + allowed,
        });
        self.put(FILE, &budget.to_string(), 0o600);
        self.kubectl(&["replace", "--raw", &format!("{BUDGETS}/{app}/status"), "-f", FILE]);
    }
}
