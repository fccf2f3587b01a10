//! The machines that `nodectl switch-runtime` is tested on: a real systemd, Docker, containerd and kubelet, whose
//! power can be cut and which leave nothing behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking and says why"
)]

mod support;

use std::path::Path;
use std::process::{Command, Stdio};

use support::machine::{Config, Machine, traces};
use support::machine_files::{Kind, differences};
use support::{Release, script};

/// The container of the pod `web` that Docker runs.
fn container(machine: &Machine) -> String {
    let filter = ["--filter", "label=io.kubernetes.container.name=httpd", "--format", "{{.ID}}"];
    let ids = machine.sure(&[&["docker", "ps"], &filter[..]].concat());
    assert_eq!(ids.lines().count(), 1, "{ids}");
    ids.trim().to_owned()
}

#[track_caller]
fn is_a_docker_node(machine: &Machine) {
    assert_eq!(machine.sure(&["systemctl", "is-system-running"]).trim(), "running");
    assert_eq!(machine.sure(&["cat", "/proc/1/comm"]).trim(), "systemd");
    for (unit, state) in machine.units() {
        assert_eq!(state, ("active".to_owned(), "enabled".to_owned()), "{unit}");
    }
    assert_eq!(machine.units().len(), 4);
    assert!(machine.pod_serves());
}

#[test]
fn a_machine_is_a_docker_node_also_after_its_power_was_cut() {
    let machine = Machine::boot("power", Release::Machine);
    is_a_docker_node(&machine);
    assert_eq!(machine.sure(&["kubelet", "--version"]).trim(), "Kubernetes v1.20.2");
    let driver = machine.sure(&["docker", "info", "--format", "{{.CgroupDriver}}"]);
    let config = machine.read("/var/lib/kubelet/config.yaml");
    assert!(config.contains(&format!("cgroupDriver: {driver}")), "{driver} is not kubelet's:\n{config}");
    let version = machine.nodectl(&["--version"]);
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("nodectl "), "{version:?}");
    assert_eq!(machine.run(&["sh", "-c", "exit 7"]).status.code(), Some(7));

    let files = machine.files();
    let etc = &files[Path::new("/etc/containerd/config.toml")];
    assert!(matches!(&etc.kind, Kind::File(sum) if sum.len() == 64), "{etc:?}");
    assert_eq!((etc.mode, etc.uid, etc.gid), (0o644, 0, 0));
    let wanted = &files[Path::new("/etc/systemd/system/sockets.target.wants/docker.socket")];
    assert_eq!(wanted.kind, Kind::Link("/lib/systemd/system/docker.socket".into()));
    for path in ["/usr/lib/systemd/system/kubelet.service", "/var/lib/kubelet/kubeadm-flags.env"] {
        assert!(files.contains_key(Path::new(path)), "{path}");
    }

    // What waits in it when the power goes never gets to write.
    let before = container(&machine);
    let job = machine.spawn(&["sh", "-c", "trap 'echo late >/etc/late' EXIT TERM; sleep 1000 & wait"]);
    machine.put("/etc/kept", "on the disk\n", 0o600);
    machine.power_cut();
    assert!(!job.wait().status.success());
    machine.wait_pod();
    is_a_docker_node(&machine);
    assert_ne!(container(&machine), before);
    assert_eq!(machine.sure(&["cat", "/etc/kept"]), "on the disk\n");
    assert_eq!(differences(&files, &machine.files()), ["+ /etc/kept"]);

    assert!(!traces(machine.dir(), machine.fact("NAME")).is_empty());
    machine.stop();
    assert_eq!(machine.traces(), Vec::<String>::new());
}

#[test]
fn two_machines_know_nothing_of_one_another() {
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| Machine::with_config("one", Release::Machine, Config::Debian));
        let two = scope.spawn(|| Machine::with_config("two", Release::Two, Config::Missing));
        (one.join().unwrap(), two.join().unwrap())
    });
    is_a_docker_node(&one);
    is_a_docker_node(&two);
    assert!(one.sure(&["containerd", "--version"]).contains(" 1."));
    assert!(two.sure(&["containerd", "--version"]).contains(" 2."));
    assert_eq!(two.try_read("/etc/containerd/config.toml"), None);
    assert!(one.read("/etc/containerd/config.toml").contains("/usr/lib/cni"));

    one.put("/etc/systemd/system/mine.service", "[Service]\nExecStart=/bin/sleep 1000\n", 0o644);
    one.sure(&["systemctl", "daemon-reload"]);
    one.sure(&["systemctl", "start", "mine.service"]);
    assert!(!two.run(&["systemctl", "is-active", "mine.service"]).status.success());
    assert!(!Path::new("/etc/systemd/system/mine.service").exists());
    let before = container(&two);
    one.power_off();
    assert!(!one.run(&["true"]).status.success(), "nothing runs in a machine without power");
    is_a_docker_node(&two);
    assert_eq!(container(&two), before);

    // The package of containerd is upgraded; what it is when it is started next.
    one.power_on();
    one.wait_pod();
    one.install_containerd(Release::Two);
    one.sure(&["systemctl", "restart", "containerd.service"]);
    let version = one.sure(&["ctr", "version"]);
    assert!(version.split("Server:").nth(1).unwrap().contains("Version:  2."), "{version}");
}

#[test]
fn a_machine_whose_test_was_killed_is_removed() {
    let mut owner = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    let dir = format!("/run/ndm-{}-owned", std::process::id());
    let started = script("machine.sh", &["start", &dir], &[("NODECTL_OWNER", &owner.id().to_string())]);
    let facts = String::from_utf8(started.stdout).unwrap();
    let name = facts.lines().find_map(|line| line.strip_prefix("NAME=")).unwrap_or_else(|| {
        panic!("{}", String::from_utf8_lossy(&started.stderr));
    });
    // One whose owner lives stays.
    assert!(script("machine.sh", &["gc"], &[]).status.success());
    assert!(script("machine.sh", &["status", &dir], &[]).status.success());
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(script("machine.sh", &["gc"], &[]).status.success());
    assert_eq!(traces(Path::new(&dir), name), Vec::<String>::new());
}
