//! Hundreds of pods that come and go leave the agent as it was: memory, open files, threads, calls.

use std::fs;
use std::time::Duration;

use crate::support::{Node, SOON, STAY, pod, wait_until};

/// A figure of /proc/PID/status, in its own unit.
fn status(node: &Node, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/status", node.agent_pid())).unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn open_files(node: &Node) -> usize {
    fs::read_dir(format!("/proc/{}/fd", node.agent_pid())).unwrap().count()
}

/// User and system time in clock ticks, which are hundredths of a second.
fn ticks(node: &Node) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/stat", node.agent_pid())).unwrap();
    let after = text.rsplit_once(") ").unwrap().1;
    after.split(' ').skip(11).take(2).map(|n| n.parse::<u64>().unwrap()).sum()
}

fn churn(node: &Node, batch: usize, size: usize) {
    let within = Duration::from_secs(120);
    for n in 0..size {
        node.put(&pod(&format!("b{batch}-{n}"), STAY));
    }
    let ready = || {
        let list = node.pods_json();
        let items = list["items"].as_array().unwrap();
        items.iter().filter(|p| p["status"]["containerStatuses"][0]["ready"] == true).count()
    };
    wait_until(within, "a batch ready", || ready() == size);
    for n in 0..size {
        node.take_away(&format!("b{batch}-{n}"));
    }
    wait_until(within, "a batch gone", || node.pods_json()["items"].as_array().unwrap().is_empty());
}

#[test]
fn two_hundred_pods_leave_the_agent_as_it_was() {
    const SIZE: usize = 25;
    let node = Node::start("churn");
    let before = node.leaks();
    // The first two batches fill what is kept for good.
    churn(&node, 0, SIZE);
    churn(&node, 1, SIZE);
    let (memory, files) = (status(&node, "VmRSS:"), open_files(&node));
    for batch in 2..8 {
        churn(&node, batch, SIZE);
    }
    node.wait_leak_free(&before);
    let grown = status(&node, "VmRSS:").saturating_sub(memory);
    assert!(grown < 7 << 10, "{grown} KiB more than after 50 pods, where it was {memory} KiB");
    // Connections of the operator's commands may be on their way out.
    wait_until(SOON, "open files as before", || open_files(&node) <= files + 1);
    // Those of file work end when there is none.
    wait_until(SOON, "few threads", || status(&node, "Threads:") <= 10);
    assert_eq!(fs::read_dir(node.root_dir().join("nodectl/pods")).unwrap().count(), 0);

    // At rest it does next to nothing: under a twentieth of a core even unoptimised.
    // What it had to do still for the last of the pods may come into the first look.
    wait_until(Duration::from_secs(120), "an agent at rest", || {
        let (begun, used) = (std::time::Instant::now(), ticks(&node));
        std::thread::sleep(Duration::from_secs(4));
        let share = (ticks(&node) - used) as f64 / 100.0 / begun.elapsed().as_secs_f64();
        eprintln!("{share} of a core at rest");
        share < 0.05
    });
}
