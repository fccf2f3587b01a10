//! Docker's containers that are no pod's, and live on when it is stopped with live-restore: without Docker nobody would
//! look after them. Whoever asked for the change was told that they are stopped.
//!
//! They are ended behind Docker's back: through it they would count as stopped by hand, and not be started again by
//! their restart policies when the change is taken back.

use std::{os::fd::OwnedFd, path::Path, time::Duration};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tokio::time::{Instant, sleep};

use super::docker_pods::{Inspected, TYPE, all_containers};
use crate::{host::read::read_bounded, switch::docker::Docker};

/// As long as Docker grants one that says nothing of it.
const GRACE: Duration = Duration::from_secs(10);
/// For the kernel to end what is killed.
const KILL: Duration = Duration::from_secs(10);
const BETWEEN: Duration = Duration::from_millis(100);
/// Bytes of a process's list of cgroups.
const MAX_CGROUPS: usize = 64 << 10;

/// A container that runs: its name here, and its first process.
pub(super) struct Other {
    id: String,
    process: OwnedFd,
}

/// Those that run. What cannot be found out is not ended.
pub(super) async fn running(docker: &Docker, proc: &Path) -> Vec<Other> {
    let mut found = Vec::new();
    let all = all_containers(docker).await.unwrap_or_default();
    for container in all.into_iter().filter(|one| one.runs() && !one.labels.contains_key(TYPE)) {
        let path = format!("/containers/{}/json", container.id);
        let Ok(told) = docker.get_json::<Inspected>(&path).await else { continue };
        found.extend(
            process(proc, told.state.pid, &container.id).map(|process| Other { id: container.id, process }),
        );
    }
    found
}

/// A process that is in the container's cgroup, held so that no other one takes its number.
fn process(proc: &Path, pid: i32, id: &str) -> Option<OwnedFd> {
    let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    let cgroups = read_bounded(&proc.join(pid.to_string()).join("cgroup"), MAX_CGROUPS).ok()?;
    (!id.is_empty() && String::from_utf8_lossy(&cgroups).contains(id)).then_some(process)
}

/// Ends those that still live.
pub(super) async fn end(others: Vec<Other>) -> Result<(), String> {
    end_within(others, GRACE).await
}

async fn end_within(mut others: Vec<Other>, grace: Duration) -> Result<(), String> {
    for (signal, limit) in [(Signal::TERM, grace), (Signal::KILL, KILL)] {
        others.retain(|other| pidfd_send_signal(&other.process, signal) != Err(Errno::SRCH));
        let deadline = Instant::now() + limit;
        while !others.is_empty() && Instant::now() < deadline {
            sleep(BETWEEN).await;
            others.retain(|other| !has_ended(&other.process));
        }
    }
    if others.is_empty() {
        return Ok(());
    }
    let named: Vec<&str> = others.iter().map(|other| other.id.get(..12).unwrap_or(&other.id)).collect();
    Err(format!(
        "containers of Docker that are no pods' do not end: {}; end their processes",
        named.join(", ")
    ))
}

/// Whether a process has ended. One that nobody has waited for yet can be signalled, but is readable.
fn has_ended(process: &OwnedFd) -> bool {
    let mut ready = [rustix::event::PollFd::new(process, rustix::event::PollFlags::IN)];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut ready, Some(&now)).is_ok_and(|count| count > 0)
}

#[cfg(test)]
mod tests {
    use std::{fs, process::Command};

    use super::*;

    #[tokio::test]
    async fn a_process_is_ended_that_is_the_containers_and_no_other() {
        let proc = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh").args(["-c", "trap '' TERM; exec sleep 1000"]).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let folder = proc.path().join(pid.to_string());
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("cgroup"), "4:cpu:/docker/abc123\n").unwrap();
        assert!(process(proc.path(), pid, "abd").is_none());
        assert!(process(proc.path(), pid, "").is_none());
        assert!(process(proc.path(), 0, "abc123").is_none());
        let held = process(proc.path(), pid, "abc123").unwrap();
        assert!(!has_ended(&held));
        // It does not hear the first signal; the second one it need not hear.
        end_within(vec![Other { id: "abc123".to_owned(), process: held }], BETWEEN).await.unwrap();
        assert!(!child.wait().unwrap().success());
        end(Vec::new()).await.unwrap();
    }
}
