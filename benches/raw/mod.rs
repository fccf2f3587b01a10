//! What both benchmarks of pods share: the same pods by raw CRI calls, and what an agent uses.

#![allow(dead_code, reason = "each benchmark uses another part of this")]

use std::{fs, sync::Arc, time::Duration, time::Instant};

use nodectl::{
    api::cri::{
        ContainerConfig, ContainerMetadata, ImageSpec, LinuxPodSandboxConfig, LinuxSandboxSecurityContext,
        Mount, PodSandboxConfig, PodSandboxMetadata, SecurityProfile,
    },
    cri::Cri,
};

use crate::support::Node;

pub(crate) const IMAGE: &str = "localhost/nodectl/busybox:1";
/// Grace in seconds, the least that the agent gives; the containers do not react to SIGTERM, so each takes
/// all of it.
pub(crate) const GRACE: i64 = 2;
pub(crate) const LONG: Duration = Duration::from_secs(300);

pub(crate) fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
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
pub(crate) async fn raw_round(cri: &Arc<dyn Cri>, node: &Node, pods: usize) -> (Duration, Duration) {
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

/// CPU time that the agent has used.
pub(crate) fn cpu_time(node: &Node) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.agent_pid())).unwrap();
    let fields: Vec<u64> = stat[stat.rfind(')').unwrap() + 2..]
        .split(' ')
        .map(|field| field.trim().parse().unwrap_or(0))
        .collect();
    // utime and stime, in ticks of 10 ms as Linux has it on all common machines.
    Duration::from_millis((fields[11] + fields[12]) * 10)
}

pub(crate) fn memory_kib(node: &Node, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.agent_pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

pub(crate) fn quantile(values: &mut [Duration], q: f64) -> Duration {
    values.sort();
    values[((values.len() - 1) as f64 * q).round() as usize]
}

/// The middle one.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
