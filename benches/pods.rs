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
use k8s_openapi::api::core::v1::Node as ApiNode;
use kube::{Api, api::DeleteParams};
use nodectl::{
    api::cri::{
        ContainerConfig, ContainerMetadata, ContainerState, ImageSpec, LinuxPodSandboxConfig,
        LinuxSandboxSecurityContext, Mount, PodSandboxConfig, PodSandboxMetadata, SecurityProfile,
    },
    cri::{Cri, CriClient, CriTimeouts},
};
use support::{ControlPlane, Node};

const IMAGE: &str = "localhost/nodectl/busybox:1";
/// Grace in seconds, the least that the agent gives; the containers do not react to SIGTERM, so each takes
/// all of it.
const GRACE: i64 = 2;
const LONG: Duration = Duration::from_secs(300);

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn manifest(index: usize) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{index}}}\nspec:\n  \
         terminationGracePeriodSeconds: {GRACE}\n  containers:\n  - name: c\n    image: {IMAGE}\n    \
         imagePullPolicy: IfNotPresent\n    command: [sleep, \"1000000\"]\n"
    )
}

/// A file that every pod of an agent has mounted.
fn file_mount(folder: &str, name: &str, container_path: &str) -> Mount {
    let host_path = format!("{folder}/{name}");
    fs::write(&host_path, "127.0.0.1 localhost\n").unwrap();
    Mount { container_path: container_path.to_owned(), host_path, ..Mount::default() }
}

/// The same pod by raw calls: with its sandbox's seccomp profile, its hosts file and the file for its last words.
/// Answers sandbox and container.
async fn raw_up(cri: &dyn Cri, logs: &str, cgroup: &str, index: usize) -> (String, String) {
    let config = PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: format!("raw{index}"),
            uid: format!("raw-{index}"),
            namespace: "raw".to_owned(),
            attempt: 0,
        }),
        hostname: format!("raw{index}"),
        log_directory: format!("{logs}/raw_{index}"),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: format!("{cgroup}/raw{index}"),
            security_context: Some(LinuxSandboxSecurityContext {
                seccomp: Some(SecurityProfile::default()),
                ..LinuxSandboxSecurityContext::default()
            }),
            ..LinuxPodSandboxConfig::default()
        }),
        ..PodSandboxConfig::default()
    };
    fs::create_dir_all(&config.log_directory).unwrap();
    let sandbox = cri.run_pod_sandbox(config.clone(), "").await.unwrap();
    let container = ContainerConfig {
        metadata: Some(ContainerMetadata { name: "c".to_owned(), attempt: 0 }),
        image: Some(ImageSpec { image: IMAGE.to_owned(), ..ImageSpec::default() }),
        command: vec!["sleep".to_owned(), "1000000".to_owned()],
        log_path: "c.log".to_owned(),
        mounts: vec![
            file_mount(&config.log_directory, "hosts", "/etc/hosts"),
            file_mount(&config.log_directory, "last", "/dev/termination-log"),
        ],
        ..ContainerConfig::default()
    };
    let id = cri.create_container(&sandbox, container, config).await.unwrap();
    cri.start_container(&id).await.unwrap();
    (sandbox, id)
}

async fn raw_down(cri: &dyn Cri, sandbox: &str, container: &str) {
    cri.stop_container(container, GRACE).await.unwrap();
    cri.stop_pod_sandbox(sandbox).await.unwrap();
    cri.remove_container(container).await.unwrap();
    cri.remove_pod_sandbox(sandbox).await.unwrap();
}

/// Raw calls for all pods at once: time until all run, and until all are gone.
async fn raw_round(cri: &Arc<dyn Cri>, node: &Node, pods: usize) -> (Duration, Duration) {
    let logs = node.pod_logs().display().to_string();
    let cgroup = node.containerd.cgroup_root().to_owned();
    let begun = Instant::now();
    let up: Vec<_> = (0..pods)
        .map(|index| {
            let (cri, logs, cgroup) = (Arc::clone(cri), logs.clone(), cgroup.clone());
            tokio::spawn(async move { raw_up(&*cri, &logs, &cgroup, index).await })
        })
        .collect();
    let mut made = Vec::new();
    for task in up {
        made.push(task.await.unwrap());
    }
    let up = begun.elapsed();
    let begun = Instant::now();
    let down: Vec<_> = made
        .into_iter()
        .map(|(sandbox, id)| {
            let cri = Arc::clone(cri);
            tokio::spawn(async move { raw_down(&*cri, &sandbox, &id).await })
        })
        .collect();
    for task in down {
        task.await.unwrap();
    }
    (up, begun.elapsed())
}

struct Round {
    up: Duration,
    down: Duration,
    /// Manifest written to process started, by the runtime's clock.
    latencies: Vec<Duration>,
    cpu: Duration,
}

/// CPU time that the agent has used.
fn cpu_time(node: &Node) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.agent_pid())).unwrap();
    let fields: Vec<u64> = stat[stat.rfind(')').unwrap() + 2..]
        .split(' ')
        .map(|field| field.trim().parse().unwrap_or(0))
        .collect();
    // utime and stime, in ticks of 10 ms as Linux has it on all common machines.
    Duration::from_millis((fields[11] + fields[12]) * 10)
}

fn memory_kib(node: &Node, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.agent_pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
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

fn quantile(values: &mut [Duration], q: f64) -> Duration {
    values.sort();
    values[((values.len() - 1) as f64 * q).round() as usize]
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

/// From the start of the process to a node that is Ready as the API server sees it, of a node that is new to it.
fn join_time() -> Duration {
    const NAME: &str = "bench-join";
    let cluster = ControlPlane::start();
    let node = Node::builder(NAME).joined(&cluster).prepare();
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
    let median = |values: &mut Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };

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
    let join = join_time();

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
    println!("| process start to Ready at the API server | {join:.0?} | 300 ms |");
}
