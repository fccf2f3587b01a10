//! How fast and how small as a node of a cluster: 50 one-container pods bound at once by an API server until it has
//! all of them Ready, and deleted until it has forgotten them, beside the same 50 made by raw CRI calls in one run on
//! one containerd; what the agent asks the server for meanwhile; and from the process's start to the Node being Ready.
//!
//! The control plane is on the same machine and takes processor time that the raw calls have for themselves. Rounds of
//! both kinds alternate, and the middle of the rounds counts.
//!
//! `make bench`; variables: `BENCH_PODS` (50), `BENCH_ROUNDS` (5), `BENCH_CONTAINERD` (1, the machine's own;
//! 2 for containerd 2.x).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a benchmark fails by panicking, and prints its result"
)]

mod raw;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node as ApiNode, Pod};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
    runtime::watcher::{Config, Event, watcher},
};
use nodectl::cri::{Cri, CriClient, CriTimeouts};
use raw::{GRACE, IMAGE, LONG, cpu_time, median, memory_kib, number, quantile, raw_round};
use serde_json::json;
use support::{ControlPlane, Node, ROOMY, control_plane::Heard};
use tokio::task::JoinSet;

const NAME: &str = "bench-pods";

fn pod(index: usize) -> Pod {
    let container = json!({ "name": "c", "image": IMAGE, "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "1000000"] });
    let object = json!({
        "metadata": { "name": format!("p{index}") },
        "spec": { "containers": [container], "terminationGracePeriodSeconds": GRACE,
            "automountServiceAccountToken": false, "schedulerName": "nobody",
            "tolerations": [{ "operator": "Exists" }] },
    });
    serde_json::from_value(object).unwrap()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

struct Round {
    up: Duration,
    down: Duration,
    cpu: Duration,
    /// Requests while the pods came, and while they went.
    asked: [Asked; 2],
}

/// How often each verb and resource was asked for.
type Asked = BTreeMap<String, usize>;

fn asked(cluster: &ControlPlane, from: Timestamp) -> Asked {
    let mut asked = Asked::new();
    // What is asked at rest too has nothing to do with pods.
    for request in cluster.heard(NAME).iter().filter(|heard| heard.at >= from && !is_of_the_node(heard)) {
        *asked.entry(format!("{} {}", request.verb, request.resource)).or_default() += 1;
    }
    asked
}

fn is_of_the_node(heard: &Heard) -> bool {
    heard.resource == "leases" || heard.resource.starts_with("nodes")
}

/// One round: all bound at once until all are Ready, all deleted at once until all are gone.
async fn round(cluster: &ControlPlane, node: &Node, count: usize) -> Round {
    let pods: Api<Pod> = cluster.api();
    let mut events = pin!(watcher(pods.clone(), Config::default()));
    for index in 0..count {
        pods.create(&PostParams::default(), &pod(index)).await.unwrap();
    }
    let cpu = cpu_time(node);
    let (from, begun) = (Timestamp::now(), Instant::now());
    let mut tasks = JoinSet::new();
    for index in 0..count {
        let pods = pods.clone();
        tasks.spawn(async move {
            let name = format!("p{index}");
            let binding = json!({ "apiVersion": "v1", "kind": "Binding",
                "metadata": { "name": name }, "target": { "kind": "Node", "name": NAME } });
            let bound: kube::Result<serde_json::Value> =
                pods.create_subresource("binding", &name, &PostParams::default(), &binding).await;
            bound.unwrap();
        });
    }
    let mut ready = BTreeSet::new();
    while ready.len() < count {
        let event = tokio::time::timeout(LONG, events.next()).await.expect("the pods do not start");
        if let Some(Ok(Event::Apply(pod) | Event::InitApply(pod))) = event
            && is_ready(&pod)
        {
            ready.insert(pod.metadata.name.unwrap());
        }
    }
    let up = begun.elapsed();
    tasks.join_all().await;
    // The last events of a pod come after it is Ready.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let coming = asked(cluster, from);
    let (from, begun) = (Timestamp::now(), Instant::now());
    let mut tasks = JoinSet::new();
    for index in 0..count {
        let pods = pods.clone();
        tasks.spawn(async move {
            pods.delete(&format!("p{index}"), &DeleteParams::default()).await.unwrap();
        });
    }
    while !ready.is_empty() {
        let event = tokio::time::timeout(LONG, events.next()).await.expect("the pods do not go");
        if let Some(Ok(Event::Delete(pod))) = event {
            ready.remove(&pod.metadata.name.unwrap());
        }
    }
    let down = begun.elapsed();
    tasks.join_all().await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let going = asked(cluster, from);
    Round { up, down, cpu: cpu_time(node).saturating_sub(cpu), asked: [coming, going] }
}

/// From the start of the process to a node that is Ready as the API server sees it, of a node that is new to it.
fn join_time(cluster: &ControlPlane) -> Duration {
    const NAME: &str = "bench-join";
    let node = Node::builder(NAME).joined(cluster).prepare();
    let nodes = Api::<ApiNode>::all(cluster.client());
    let mut times: Vec<Duration> = (0..5)
        .map(|_| {
            let mut command = node.agent_command();
            let begun = Instant::now();
            let mut child = command.spawn().unwrap();
            let ready = |node: &ApiNode| {
                let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
                conditions
                    .into_iter()
                    .any(|condition| condition.type_ == "Ready" && condition.status == "True")
            };
            while !cluster.node(NAME).is_some_and(|node| ready(&node)) {
                assert!(begun.elapsed() < Duration::from_secs(30), "the node does not get ready");
                std::thread::sleep(Duration::from_millis(5));
            }
            let took = begun.elapsed();
            child.kill().unwrap();
            child.wait().unwrap();
            cluster.block_on(nodes.delete(NAME, &DeleteParams::default())).unwrap();
            took
        })
        .collect();
    quantile(&mut times, 0.5)
}

/// Requests a pod, of the rounds together.
fn per_pod(rounds: &[Round], part: usize, pods: usize) -> String {
    let mut sum = Asked::new();
    for round in rounds {
        for (what, count) in &round.asked[part] {
            *sum.entry(what.clone()).or_default() += count;
        }
    }
    let each = |count: usize| count as f64 / (rounds.len() * pods) as f64;
    let all: Vec<String> = sum.iter().map(|(what, count)| format!("{what} {:.2}", each(*count))).collect();
    format!("{:.2}: {}", each(sum.values().sum()), all.join(", "))
}

fn main() {
    let (pods, rounds) = (number("BENCH_PODS", 50), number("BENCH_ROUNDS", 5));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let _entered = runtime.enter();
    let cluster = ControlPlane::start_with(&[("NODECTL_AUDIT", "1")]);
    // Without cluster DNS every pod would be told of it.
    let dns = "clusterDNS: [10.96.0.10]\nclusterDomain: cluster.local\n";
    let builder = Node::builder(NAME).config(ROOMY).config(dns).joined(&cluster);
    let node = if number("BENCH_CONTAINERD", 1) == 2 { builder.containerd2() } else { builder }.start();
    let endpoint = node.containerd.socket().to_str().unwrap().parse().unwrap();
    let cri: Arc<dyn Cri> = Arc::new(CriClient::connect_lazy(endpoint, None, CriTimeouts::default()));
    cluster.wait_taints(NAME);

    println!(
        "containerd {}, a control plane beside it: {pods} pods of one container, grace {GRACE} s, {rounds} rounds of \
         each kind in turn",
        node.containerd.fact("CONTAINERD_VERSION")
    );
    let (mut up_ratios, mut down_ratios, mut all) = (vec![], vec![], vec![]);
    // The first round of each kind warms caches and is not counted.
    for number in 0..=rounds {
        let (raw_up, raw_down) = runtime.block_on(raw_round(&cri, &node, pods));
        let agent = runtime.block_on(round(&cluster, &node, pods));
        let up = agent.up.as_secs_f64() / raw_up.as_secs_f64();
        let down = agent.down.as_secs_f64() / raw_down.as_secs_f64();
        println!(
            "{} raw up {raw_up:.2?} down {raw_down:.2?}; nodectl up {:.2?} down {:.2?}; ratio up {up:.2} down {down:.2}",
            if number == 0 { "warm-up:".to_owned() } else { format!("round {number}:") },
            agent.up,
            agent.down,
        );
        if number > 0 {
            up_ratios.push(up);
            down_ratios.push(down);
            all.push(agent);
        }
    }

    let objects: Api<Pod> = cluster.api();
    for index in 0..pods {
        let mut pod = pod(index);
        pod.spec.as_mut().unwrap().node_name = Some(NAME.to_owned());
        runtime.block_on(objects.create(&PostParams::default(), &pod)).unwrap();
    }
    for index in 0..pods {
        cluster.wait_ready_within(LONG, &format!("p{index}"));
    }
    std::thread::sleep(Duration::from_secs(10));
    let (rss, peak) = (memory_kib(&node, "VmRSS"), memory_kib(&node, "VmHWM"));
    let (cpu, begun, from) = (cpu_time(&node), Instant::now(), Timestamp::now());
    std::thread::sleep(Duration::from_secs(60));
    let rest = (cpu_time(&node).saturating_sub(cpu)).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
    let at_rest: Vec<Heard> = cluster.heard(NAME).into_iter().filter(|heard| heard.at >= from).collect();
    let about_pods = at_rest.iter().filter(|heard| !is_of_the_node(heard)).count();
    let join = join_time(&cluster);

    println!("\n| what | measured | aim |\n|---|---|---|");
    println!(
        "| bound to Ready at the API server, all, over the raw calls | {:.2} | 1.15 |",
        median(&mut up_ratios)
    );
    println!(
        "| deleted to gone at the API server, all, over the raw calls | {:.2} | |",
        median(&mut down_ratios)
    );
    println!("| requests a pod, coming | {} | |", per_pod(&all, 0, pods));
    println!("| requests a pod, going | {} | |", per_pod(&all, 1, pods));
    println!(
        "| requests in a minute at rest with {pods} pods, about pods | {} ({about_pods}) | |",
        at_rest.len()
    );
    let mut cpus: Vec<Duration> = all.iter().map(|round| round.cpu).collect();
    println!("| agent CPU for a round of {pods} up and down | {:.2?} | |", quantile(&mut cpus, 0.5));
    println!(
        "| RSS with {pods} pods (peak so far) | {:.1} MiB ({:.1}) | |",
        rss as f64 / 1024.0,
        peak as f64 / 1024.0
    );
    println!("| CPU at rest with {pods} pods | {rest:.2} % of a core | |");
    println!("| process start to Ready at the API server | {join:.0?} | 300 ms |");
}
