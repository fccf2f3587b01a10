//! The node's figures as a cluster asks for them: the Summary API, metrics-server and Prometheus.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::node_api::{Served, promtool, served};
use crate::support::{NodeBuilder, SOON, STAY, pod, wait_for, wait_until};

/// The names of the Summary API (k8s.io/kubelet/pkg/apis/stats/v1alpha1).
const NAMES: &str = "
    node pods nodeName systemContainers startTime cpu memory io network fs runtime rlimit swap imageFs containerFs
    time maxpid curproc podRef name namespace uid containers volume ephemeral-storage process_stats process_count
    rootfs logs usageNanoCores usageCoreNanoSeconds psi full some total avg10 avg60 avg300 availableBytes usageBytes
    workingSetBytes rssBytes pageFaults majorPageFaults swapAvailableBytes swapUsageBytes interfaces rxBytes rxErrors
    txBytes txErrors capacityBytes usedBytes inodesFree inodes inodesUsed
";

/// cAdvisor's own names that Prometheus' judge has something against.
const UNLOVED: [&str; 3] = ["cadvisor_version_info", "container_fs_inodes_total", "container_memory_failcnt"];

fn names(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(name, value)| {
            found.insert(name.clone());
            names(value, found);
        }),
        Value::Array(all) => all.iter().for_each(|value| names(value, found)),
        _ => {}
    }
}

impl Served {
    /// A path of the node's API, through the API server.
    fn proxied(&self, node: &str, path: &str) -> String {
        self.prints(&["get", "--raw", &format!("/api/v1/nodes/{node}/proxy{path}")])
    }

    fn summary(&self, node: &str) -> Value {
        serde_json::from_str(&self.proxied(node, "/stats/summary")).unwrap()
    }

    /// A pod's part of the Summary.
    fn stats_of(&self, node: &str, pod: &str) -> Option<Value> {
        let all = self.summary(node);
        all["pods"].as_array().unwrap().iter().find(|one| one["podRef"]["name"] == pod).cloned()
    }
}

/// Value and time in milliseconds of a series, of which all labels are named.
fn series(text: &str, series: &str) -> Option<(f64, i64)> {
    let rest = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    let (value, time) = rest.split_once(' ')?;
    Some((value.parse().ok()?, time.parse().ok()?))
}

fn container_series(name: &str, pod: &str) -> String {
    format!("{name}{{container=\"main\",namespace=\"default\",pod=\"{pod}\"}}")
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn figures_of_pods(name: &'static str, builder: fn(NodeBuilder) -> NodeBuilder) {
    let served = served(name, "volumeStatsAggPeriod: 1s\n", builder);
    let [burns, holds, writes] = ["burns", "holds", "writes"].map(|what| format!("{name}-{what}"));
    let mut burner = pod(&burns, "while :; do :; done");
    burner["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "300m", "memory": "64Mi"}});
    served.runs(&burner);
    served.runs(&pod(&holds, &format!("head -c 40000000 /dev/zero >/dev/shm/held; {STAY}")));
    let mut writer = pod(
        &writes,
        "head -c 5000000 /dev/zero >/data/file; head -c 3000000 /dev/zero >/file; \
         head -c 2000000 /dev/zero >/memory/file; mkdir /www; head -c 1000000 /dev/zero >/www/file; \
         echo said; exec httpd -f -p 8080 -h /www",
    );
    writer["spec"]["volumes"] =
        json!([{"name": "data", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory"}}]);
    writer["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "data", "mountPath": "/data"}, {"name": "memory", "mountPath": "/memory"}]);
    served.runs(&writer);

    // The Summary.
    let summary = served.summary(name);
    let mut found = BTreeSet::new();
    names(&summary, &mut found);
    let known: BTreeSet<String> = NAMES.split_whitespace().map(str::to_owned).collect();
    assert_eq!(found.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new());
    let node = &summary["node"];
    assert_eq!(node["nodeName"], name);
    for part in ["cpu", "memory", "network", "fs", "rlimit", "runtime"] {
        assert!(node[part].is_object(), "{part}: {node}");
    }
    assert!(number(&node["memory"]["availableBytes"]) > 0, "{node}");
    assert!(number(&node["fs"]["usedBytes"]) < number(&node["fs"]["capacityBytes"]), "{node}");
    let pods: BTreeSet<&str> =
        summary["pods"].as_array().unwrap().iter().filter_map(|pod| pod["podRef"]["name"].as_str()).collect();
    assert_eq!(pods, [burns.as_str(), &holds, &writes].into());
    let sum: u64 =
        summary["pods"].as_array().unwrap().iter().map(|pod| number(&pod["memory"]["workingSetBytes"])).sum();
    let of_pods =
        node["systemContainers"].as_array().unwrap().iter().find(|one| one["name"] == "pods").unwrap();
    let together = number(&of_pods["memory"]["usageBytes"]);
    assert!(sum > 0 && together > 0 && together >= sum / 2, "{sum} {together}");
    let only: Value =
        serde_json::from_str(&served.proxied(name, "/stats/summary?only_cpu_and_memory=true")).unwrap();
    assert!(only["node"]["cpu"].is_object() && only["node"]["fs"].is_null(), "{only}");
    assert!(only["pods"][0]["containers"][0]["memory"].is_object() && only["pods"][0]["network"].is_null());
    assert_eq!(served.ask_as_admin("/stats/summary", &["--request", "POST"]).0, 200, "as kubelet lets one");

    wait_until(SOON, "the runtime has counted its images", || {
        let runtime = &served.summary(name)["node"]["runtime"];
        ["imageFs", "containerFs"].iter().all(|fs| number(&runtime[fs]["usedBytes"]) > 0)
    });

    // Memory, files and volumes.
    wait_until(SOON, "what is held is seen", || {
        let stats = served.stats_of(name, &holds).unwrap();
        (40_000_000..80_000_000).contains(&number(&stats["containers"][0]["memory"]["workingSetBytes"]))
    });
    let stats = wait_for(SOON, "all that was written is seen", || {
        let stats = served.stats_of(name, &writes)?;
        let volume = |name: &str| {
            let volumes = stats["volume"].as_array()?;
            Some(number(&volumes.iter().find(|volume| volume["name"] == name)?["usedBytes"]))
        };
        let main = &stats["containers"][0];
        ((5_000_000..6_000_000).contains(&volume("data")?)
            && (2_000_000..3_000_000).contains(&volume("memory")?)
            && (4_000_000..5_000_000).contains(&number(&main["rootfs"]["usedBytes"]))
            && number(&main["logs"]["usedBytes"]) > 0)
            .then(|| stats.clone())
    });
    let ephemeral = number(&stats["ephemeral-storage"]["usedBytes"]);
    assert!((9_000_000..11_000_000).contains(&ephemeral), "memory is no storage: {stats}");

    // The network.
    let sent = |stats: &Value| number(&stats["network"]["txBytes"]);
    let before = sent(&stats);
    let address = served.cluster.pod(&writes).unwrap().status.unwrap().pod_ip.unwrap();
    served.prints(&[
        "exec",
        &holds,
        "--",
        "wget",
        "-q",
        "-O",
        "/dev/null",
        &format!("http://{address}:8080/file"),
    ]);
    wait_until(SOON, "what was sent is seen", || {
        let now = sent(&served.stats_of(name, &writes).unwrap());
        now >= before + 1_000_000
    });
    let received = number(&served.stats_of(name, &holds).unwrap()["network"]["rxBytes"]);
    assert!(received >= 1_000_000, "{received}");

    as_metrics_server(&served, name, &burns);
    as_prometheus(&served, name, [&burns, &holds, &writes]);
    without_the_runtime(&served, name, &writes);

    // A pod that is gone is gone from the figures.
    served.cluster.delete_pod(&burns, None);
    served.cluster.wait_gone(&burns);
    wait_until(SOON, "nothing is told of it", || {
        ["/stats/summary", "/metrics/resource", "/metrics/cadvisor"]
            .iter()
            .all(|path| !served.proxied(name, path).contains(&burns))
    });
    assert!(served.proxied(name, "/metrics/resource").contains(&holds));
}

/// What metrics-server does: two scrapes by who may look at metrics and nothing else, and the rate between them.
fn as_metrics_server(served: &Served, name: &str, burns: &str) {
    let user = format!("{name}-metrics-server");
    let (certificate, key) = served.cluster.signed(&user, &format!("/O=x/CN={user}"), "clientAuth", "");
    for object in [
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": user },
            "rules": [{ "apiGroups": [""], "resources": ["nodes/metrics"], "verbs": ["get"] }] }),
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": { "name": user },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user },
            "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user }] }),
    ] {
        let file = served.node.dir().join("object.json");
        std::fs::write(&file, object.to_string()).unwrap();
        served.prints(&["create", "-f", file.to_str().unwrap()]);
    }
    wait_until(SOON, "the right counts", || {
        let answer = served.kubectl(&[
            "auth",
            "can-i",
            "get",
            "nodes",
            "--subresource=metrics",
            &format!("--as={user}"),
        ]);
        answer.out.trim() == "yes"
    });
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let ask = |path: &str| served.ask(path, &["--cert", certificate.as_str(), "--key", key.as_str()]);
    assert_eq!(ask("/stats/summary").0, 403, "that is another right");
    let scrape = || {
        let (code, text) = ask("/metrics/resource");
        assert_eq!(code, 200, "{text}");
        text
    };
    let cpu = container_series("container_cpu_usage_seconds_total", burns);
    let memory = container_series("container_memory_working_set_bytes", burns);
    let first = scrape();
    let (used, at) = series(&first, &cpu).unwrap();
    let (second, later_used, later) = wait_for(SOON, "a newer sample", || {
        let text = scrape();
        let (value, time) = series(&text, &cpu)?;
        (time > at).then_some((text, value, time))
    });
    // It may have three tenths of a CPU, and takes what the machine has left of that.
    let rate = (later_used - used) / ((later - at) as f64 / 1000.0);
    assert!((0.01..0.4).contains(&rate), "{rate}");
    let stats = served.stats_of(name, burns).unwrap();
    let told = number(&stats["containers"][0]["cpu"]["usageNanoCores"]) as f64 / 1e9;
    assert!((0.01..0.4).contains(&told), "{stats}");
    for text in [&first, &second] {
        assert!(series(text, "node_cpu_usage_seconds_total").unwrap().0 > used, "{text}");
        assert!(series(text, "node_memory_working_set_bytes").unwrap().0 > 0.0, "{text}");
        assert!(series(text, &memory).unwrap().0 > 0.0, "metrics-server drops pods without memory: {text}");
        assert!(text.lines().any(|line| line == "resource_scrape_error 0"), "{text}");
        assert!(
            text.contains(&format!("{} ", container_series("container_start_time_seconds", burns))),
            "{text}"
        );
    }
}

/// What Prometheus reads, judged by its own reader.
fn as_prometheus(served: &Served, name: &str, pods: [&str; 3]) {
    let resource = served.proxied(name, "/metrics/resource");
    let said = promtool(&resource);
    assert_eq!((said.code, said.out.as_str()), (Some(0), ""), "{}\n{resource}", said.err);

    let text = served.proxied(name, "/metrics/cadvisor");
    let said = promtool(&text);
    let complaints: BTreeSet<&str> =
        said.err.lines().chain(said.out.lines()).filter_map(|line| line.split(' ').next()).collect();
    assert!(complaints.iter().all(|name| UNLOVED.contains(name)), "{}{}", said.out, said.err);
    for pod in pods {
        let of_pod = format!("namespace=\"default\",pod=\"{pod}\"");
        // What dashboards sum: each container once.
        for kind in ["container_cpu_usage_seconds_total", "container_memory_working_set_bytes"] {
            let all = text.lines().filter(|line| line.starts_with(kind) && line.contains(&of_pod));
            let containers = all.filter(|line| !line.contains("container=\"\""));
            assert_eq!(containers.count(), 1, "{kind} of {pod}");
        }
        let received = text.lines().filter(|line| {
            line.starts_with("container_network_receive_bytes_total") && line.contains(&of_pod)
        });
        assert_eq!(received.filter(|line| line.contains("interface=\"eth0\"")).count(), 1, "{pod}");
    }
    for kind in
        ["machine_cpu_cores", "machine_memory_bytes", "container_fs_usage_bytes", "container_last_seen"]
    {
        assert!(text.lines().any(|line| line.starts_with(&format!("{kind}{{"))), "{kind}");
    }
}

/// What the runtime tells is left out while it does not answer, and the rest is told.
fn without_the_runtime(served: &Served, name: &str, writes: &str) {
    served.node.containerd.freeze();
    wait_until(SOON, "it is told what there is", || {
        let (code, text) = served.ask_as_admin("/stats/summary", &[]);
        assert_eq!(code, 200, "{text}");
        let all: Value = serde_json::from_str(&text).unwrap();
        let pods = all["pods"].as_array().unwrap();
        let stats = pods.iter().find(|pod| pod["podRef"]["name"] == writes).unwrap();
        let main = &stats["containers"][0];
        assert!(main["cpu"].is_object() && main["logs"].is_object(), "{stats}");
        main["rootfs"].is_null() && all["node"]["runtime"].is_null()
    });
    served.node.containerd.thaw();
    wait_until(SOON, "it is told again", || {
        served.stats_of(name, writes).unwrap()["containers"][0]["rootfs"].is_object()
    });
}

#[test]
fn figures_of_pods_on_containerd_1_6() {
    figures_of_pods("sum-one", |builder| builder);
}

#[test]
fn figures_of_pods_on_containerd_2() {
    figures_of_pods("sum-two", NodeBuilder::containerd2);
}
