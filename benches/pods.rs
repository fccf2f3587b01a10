//! How fast and how small: starts 50 one-container pods at once and removes them, beside the same 50 made by
//! raw CRI calls, in one run on one containerd, and prints the ratios. Times on a shared machine are noisy:
//! rounds of both kinds alternate, and the middle of the rounds counts.
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
    collections::BTreeMap,
    fs,
    os::unix::net::UnixDatagram,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use nodectl::{
    api::cri::ContainerState,
    cri::{Cri, CriClient, CriTimeouts},
};
use raw::{GRACE, IMAGE, LONG, cpu_time, median, memory_kib, number, quantile, raw_round};
use support::Node;

fn manifest(index: usize) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{index}}}\nspec:\n  \
         terminationGracePeriodSeconds: {GRACE}\n  containers:\n  - name: c\n    image: {IMAGE}\n    \
         imagePullPolicy: IfNotPresent\n    command: [sleep, \"1000000\"]\n"
    )
}

struct Round {
    up: Duration,
    down: Duration,
    /// Manifest written to process started, by the runtime's clock.
    latencies: Vec<Duration>,
    cpu: Duration,
}

async fn ready_pods(node: &Node) -> usize {
    let answer = nodectl::server::local_client::pods(&node.socket()).await.unwrap();
    let ready = |view: &nodectl::api::view::PodView| nodectl::policy::status::all_ready(&view.status);
    answer.pods.iter().filter(|view| ready(view)).count()
}

async fn agent_round(cri: &Arc<dyn Cri>, node: &Node, pods: usize) -> Round {
    let cpu = cpu_time(node);
    let begun = Instant::now();
    let mut written = BTreeMap::new();
    for index in 0..pods {
        fs::write(node.manifests().join(format!("p{index}.yaml")), manifest(index)).unwrap();
        written.insert(node.static_name(&format!("p{index}")), Timestamp::now());
    }
    while ready_pods(node).await < pods {
        assert!(begun.elapsed() < LONG, "the pods do not start");
        // To ask costs processor time that the pods lack.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let up = begun.elapsed();
    let mut latencies = Vec::new();
    for container in cri.list_containers(None).await.unwrap() {
        let status = cri.container_status(&container.id, false).await.unwrap().status.unwrap();
        let started = Timestamp::from_nanosecond(i128::from(status.started_at)).unwrap();
        let pod = &container.labels["io.kubernetes.pod.name"];
        let latency = started.duration_since(written[pod]);
        latencies.push(Duration::try_from(latency).unwrap_or_default());
    }
    let begun = Instant::now();
    for index in 0..pods {
        fs::remove_file(node.manifests().join(format!("p{index}.yaml"))).unwrap();
    }
    // A pod's checkpoint is the last that goes.
    let checkpoints = node.root_dir().join("nodectl/pods");
    while fs::read_dir(&checkpoints).unwrap().next().is_some() {
        assert!(begun.elapsed() < LONG, "the pods do not go");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let down = begun.elapsed();
    assert!(cri.list_pod_sandboxes(None).await.unwrap().is_empty(), "gone, and yet there");
    Round { up, down, latencies, cpu: cpu_time(node).saturating_sub(cpu) }
}

/// From a container's death to the making of its successor.
async fn reactions(cri: &Arc<dyn Cri>, node: &Node, deaths: usize) -> Vec<Duration> {
    let mut found = Vec::new();
    let containers = cri.list_containers(None).await.unwrap();
    for container in containers.iter().take(deaths) {
        let killed = Timestamp::now();
        node.containerd.ctr(&["tasks", "kill", "-s", "SIGKILL", &container.id]);
        let name = container.metadata.as_ref().unwrap().name.clone();
        let begun = Instant::now();
        let next = loop {
            let all = cri.list_containers(None).await.unwrap();
            let next = all.into_iter().find(|c| {
                c.pod_sandbox_id == container.pod_sandbox_id
                    && c.metadata.as_ref().is_some_and(|m| m.name == name && m.attempt == 1)
                    && c.state() == ContainerState::ContainerRunning
            });
            if let Some(next) = next {
                break next;
            }
            assert!(begun.elapsed() < LONG, "the container is not started again");
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        // When it really ended, as the runtime noted it: `ctr` itself takes a while to ask.
        let old = cri.container_status(&container.id, false).await.unwrap().status.unwrap();
        let ended = Timestamp::from_nanosecond(i128::from(old.finished_at)).unwrap().max(killed);
        let made = Timestamp::from_nanosecond(i128::from(next.created_at)).unwrap();
        found.push(Duration::try_from(made.duration_since(ended)).unwrap_or_default());
    }
    found
}

/// From the start of the process to sd_notify's READY and to the first pod list, with nothing to adopt.
fn start_time() -> Duration {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let node = Node::builder("bench-start").env("NOTIFY_SOCKET", path.to_str().unwrap()).prepare();
    let mut times: Vec<Duration> = (0..5)
        .map(|_| {
            let mut command = node.agent_command();
            let begun = Instant::now();
            let mut child = command.spawn().unwrap();
            let mut buffer = [0; 4096];
            loop {
                let length = socket.recv(&mut buffer).unwrap();
                if String::from_utf8_lossy(&buffer[..length]).contains("READY=1") {
                    break;
                }
            }
            let took = begun.elapsed();
            child.kill().unwrap();
            child.wait().unwrap();
            took
        })
        .collect();
    quantile(&mut times, 0.5)
}

fn main() {
    let (pods, rounds) = (number("BENCH_PODS", 50), number("BENCH_ROUNDS", 5));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let _entered = runtime.enter();
    let builder = Node::builder("bench");
    let node = if number("BENCH_CONTAINERD", 1) == 2 { builder.containerd2() } else { builder }.start();
    let endpoint = node.containerd.socket().to_str().unwrap().parse().unwrap();
    let cri: Arc<dyn Cri> = Arc::new(CriClient::connect_lazy(endpoint, None, CriTimeouts::default()));

    println!(
        "containerd {}: {pods} pods of one container, grace {GRACE} s, {rounds} rounds of each kind in turn",
        node.containerd.fact("CONTAINERD_VERSION")
    );
    let (mut up_ratios, mut down_ratios, mut latencies, mut cpus) = (vec![], vec![], vec![], vec![]);
    // The first round of each kind warms caches and is not counted.
    for round in 0..=rounds {
        let (raw_up, raw_down) = runtime.block_on(raw_round(&cri, &node, pods));
        let agent = runtime.block_on(agent_round(&cri, &node, pods));
        let (up, down) = (
            agent.up.as_secs_f64() / raw_up.as_secs_f64(),
            agent.down.as_secs_f64() / raw_down.as_secs_f64(),
        );
        println!(
            "{} raw up {raw_up:.2?} down {raw_down:.2?}; nodectl up {:.2?} down {:.2?}; ratio up {up:.2} down {down:.2}",
            if round == 0 { "warm-up:".to_owned() } else { format!("round {round}:") },
            agent.up,
            agent.down,
        );
        if round > 0 {
            up_ratios.push(up);
            down_ratios.push(down);
            latencies.extend(agent.latencies);
            cpus.push(agent.cpu);
        }
    }
    for index in 0..pods {
        fs::write(node.manifests().join(format!("p{index}.yaml")), manifest(index)).unwrap();
    }
    while runtime.block_on(ready_pods(&node)) < pods {
        std::thread::sleep(Duration::from_millis(100));
    }
    std::thread::sleep(Duration::from_secs(5));
    let (rss, peak) = (memory_kib(&node, "VmRSS"), memory_kib(&node, "VmHWM"));
    let (cpu, begun) = (cpu_time(&node), Instant::now());
    std::thread::sleep(Duration::from_secs(60));
    let rest = (cpu_time(&node).saturating_sub(cpu)).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
    let mut reactions = runtime.block_on(reactions(&cri, &node, pods.min(20)));
    let start = start_time();

    println!("\n| what | measured | aim |\n|---|---|---|");
    println!("| all running, over the raw calls | {:.2} | 1.15 |", median(&mut up_ratios));
    println!("| all gone, over the raw calls | {:.2} | 1.3 |", median(&mut down_ratios));
    println!(
        "| manifest to running, p50 / p99 | {:.2?} / {:.2?} | |",
        quantile(&mut latencies, 0.5),
        quantile(&mut latencies, 0.99)
    );
    println!("| agent CPU for a round of {pods} up and down | {:.2?} | |", quantile(&mut cpus, 0.5));
    println!(
        "| RSS with {pods} pods (peak so far) | {:.1} MiB ({:.1}) | 20 MiB |",
        rss as f64 / 1024.0,
        peak as f64 / 1024.0
    );
    println!("| CPU at rest with {pods} pods | {rest:.2} % of a core | 0.3 % |");
    println!(
        "| death to restart, p50 / p99 | {:.0?} / {:.0?} | 50 ms |",
        quantile(&mut reactions, 0.5),
        quantile(&mut reactions, 0.99)
    );
    println!("| process start to ready | {start:.0?} | |");
}
