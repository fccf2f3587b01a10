//! How fast and how small `nodectl cri` is as a whole process: `ps -a`, `pods` and `images` on a containerd with
//! 200 containers, beside the raw calls that they make. Of the containers one in each pod runs and the others
//! are created and not started: a runtime lists them the same, and starting them would only take longer.
//!
//! Wall time is from the start of the process to its end, output discarded, the middle of many runs in turn.
//! Peak memory is the kernel's VmHWM when all output is made and not yet written.
//!
//! `make bench`; variables: `BENCH_CONTAINERS` (200), `BENCH_RUNS` (100), `BENCH_CONTAINERD` (1, the machine's
//! own; 2 for containerd 2.x).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark fails by panicking, and prints its result"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    fs,
    io::{PipeReader, Read as _, Write as _, pipe},
    process::Stdio,
    time::{Duration, Instant},
};

use nix::fcntl::{FcntlArg, fcntl};
use nodectl::cri::Cri as _;
use support::{
    Containerd, Release,
    cri_cli::{client, container_config, program, sandbox_config},
};

const VERBS: [&[&str]; 3] = [&["ps", "-a"], &["pods"], &["images"]];
/// Containers of a pod.
const IN_A_POD: usize = 10;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

async fn make(containerd: &Containerd, containers: usize) {
    let cri = client(containerd);
    for pod in 0..containers.div_ceil(IN_A_POD) {
        let config = sandbox_config(containerd, "default", &format!("pod-{pod}"));
        let sandbox = cri.run_pod_sandbox(config.clone(), "").await.unwrap();
        for index in 0..IN_A_POD.min(containers - pod * IN_A_POD) {
            let container = container_config(&format!("container-{index}"), &["sleep", "1000000"]);
            let id = cri.create_container(&sandbox, container, config.clone()).await.unwrap();
            if index == 0 {
                cri.start_container(&id).await.unwrap();
            }
        }
    }
}

/// A bench's containerd and the program's way to it.
struct Bench {
    containerd: Containerd,
    folder: tempfile::TempDir,
}

impl Bench {
    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = program(&self.folder.path().join("empty.yaml"));
        command.arg("-r").arg(self.containerd.socket()).args(arguments);
        command
    }

    fn wall(&self, arguments: &[&str]) -> Duration {
        let mut command = self.command(arguments);
        command.stdout(Stdio::null());
        let begun = Instant::now();
        let status = command.status().unwrap();
        let took = begun.elapsed();
        assert!(status.success());
        took
    }

    /// KiB. The output goes to a pipe that is full, so that the process waits there with all in memory.
    fn peak(&self, arguments: &[&str]) -> u64 {
        let (mut reader, mut writer) = pipe().unwrap();
        let room = fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
        writer.write_all(&vec![b' '; usize::try_from(room).unwrap()]).unwrap();
        let mut child = self.command(arguments).stdout(writer).spawn().unwrap();
        let pid = child.id();
        let begun = Instant::now();
        while !fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap().contains("pipe_write") {
            assert!(begun.elapsed() < Duration::from_secs(30), "{arguments:?} does not come to its output");
            std::thread::sleep(Duration::from_millis(5));
        }
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let peak = line.split_whitespace().next().unwrap().parse().unwrap();
        drain(&mut reader);
        assert!(child.wait().unwrap().success());
        peak
    }
}

fn drain(reader: &mut PipeReader) {
    reader.read_to_end(&mut Vec::new()).unwrap();
}

/// The calls of `ps`, on a connection of their own, as the process makes them.
async fn raw(containerd: &Containerd) -> Duration {
    let begun = Instant::now();
    let cri = client(containerd);
    let (pods, containers, images) =
        tokio::join!(cri.list_pod_sandboxes(None), cri.list_containers(None), cri.list_images(None));
    assert!(!pods.unwrap().is_empty() && !containers.unwrap().is_empty() && !images.unwrap().is_empty());
    begun.elapsed()
}

fn middle<T: Ord + Copy>(values: &mut [T], per_cent: usize) -> T {
    values.sort();
    values[(values.len() - 1) * per_cent / 100]
}

fn main() {
    let (containers, runs) = (number("BENCH_CONTAINERS", 200), number("BENCH_RUNS", 100));
    let release = if number("BENCH_CONTAINERD", 1) == 2 { Release::Two } else { Release::Machine };
    let bench =
        Bench { containerd: Containerd::start("bench-cri", release), folder: tempfile::tempdir().unwrap() };
    fs::write(bench.folder.path().join("empty.yaml"), "").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(make(&bench.containerd, containers));
    println!(
        "containerd {}: {containers} containers in pods of {IN_A_POD}, one of each pod running; {runs} runs",
        bench.containerd.fact("CONTAINERD_VERSION")
    );
    let mut times = VERBS.map(|_| Vec::new());
    let mut calls = Vec::new();
    // The first runs warm caches and are not counted.
    for run in 0..runs + 5 {
        for (verb, times) in VERBS.iter().zip(&mut times) {
            let took = bench.wall(verb);
            times.extend((run >= 5).then_some(took));
        }
        let took = runtime.block_on(raw(&bench.containerd));
        calls.extend((run >= 5).then_some(took));
    }
    println!("\n| what | p50 | p90 | peak memory | aim |\n|---|---|---|---|---|");
    for (verb, times) in VERBS.iter().zip(&mut times) {
        let mut peaks: Vec<u64> = (0..5).map(|_| bench.peak(verb)).collect();
        let peak = middle(&mut peaks, 50);
        println!(
            "| nodectl cri {} | {:.1?} | {:.1?} | {}.{} MiB | 10 ms, 15 MiB |",
            verb.join(" "),
            middle(times, 50),
            middle(times, 90),
            peak / 1024,
            peak % 1024 * 10 / 1024
        );
    }
    println!(
        "| the three list calls alone | {:.1?} | {:.1?} | | |",
        middle(&mut calls, 50),
        middle(&mut calls, 90)
    );
}
