//! The harness proves itself: a private containerd runs a pod with a network, ends, and leaves nothing
//! behind, also when it was killed, frozen, or its owner died. Other tests count leaks with it, so
//! that what it says must be right.
//!
//! It speaks CRI with four messages of its own: a mistake of nodectl's client cannot hide here.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test's helpers fail by panicking and say why"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use support::{Containerd, Empty, Id, Leaks, Release, SOON, call, script, wait_until};

mod messages {
    //! The fields of CRI v1 that the tests below use.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Metadata {
        #[prost(string, tag = "1")]
        pub(crate) name: String,
        #[prost(string, tag = "2")]
        pub(crate) uid: String,
        #[prost(string, tag = "3")]
        pub(crate) namespace: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct PortMapping {
        #[prost(int32, tag = "2")]
        pub(crate) container_port: i32,
        #[prost(int32, tag = "3")]
        pub(crate) host_port: i32,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Linux {
        #[prost(string, tag = "1")]
        pub(crate) cgroup_parent: String,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct Config {
        #[prost(message, optional, tag = "1")]
        pub(crate) metadata: Option<Metadata>,
        #[prost(string, tag = "2")]
        pub(crate) hostname: String,
        #[prost(message, repeated, tag = "5")]
        pub(crate) port_mappings: Vec<PortMapping>,
        #[prost(message, optional, tag = "8")]
        pub(crate) linux: Option<Linux>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    pub(crate) struct RunRequest {
        #[prost(message, optional, tag = "1")]
        pub(crate) config: Option<Config>,
    }
}

fn run_sandbox(containerd: &Containerd, name: &str, host_port: Option<u16>) -> String {
    let config = messages::Config {
        metadata: Some(messages::Metadata {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            namespace: "default".to_owned(),
        }),
        hostname: name.to_owned(),
        port_mappings: host_port
            .into_iter()
            .map(|port| messages::PortMapping { container_port: 80, host_port: i32::from(port) })
            .collect(),
        linux: Some(messages::Linux { cgroup_parent: format!("{}/pod-{name}", containerd.cgroup_root()) }),
    };
    let request = messages::RunRequest { config: Some(config) };
    let answer: Id = call(containerd.socket(), "/runtime.v1.RuntimeService/RunPodSandbox", request);
    answer.id
}

fn remove_sandbox(containerd: &Containerd, id: &str) {
    for method in ["/runtime.v1.RuntimeService/StopPodSandbox", "/runtime.v1.RuntimeService/RemovePodSandbox"]
    {
        let _: Empty = call(containerd.socket(), method, Id { id: id.to_owned() });
    }
}

/// Starts a busybox container outside of CRI, in the harness's own cgroup and runc root.
fn run_container(containerd: &Containerd, name: &str) {
    let cgroup = format!("{}/{name}", containerd.cgroup_root());
    let (root, snapshotter) = (containerd.fact("RUNC_ROOT"), containerd.fact("SNAPSHOTTER"));
    let image = "localhost/nodectl/busybox:1";
    // ctr's own default is shared with the machine's containerd.
    let fifos = containerd.dir().join("fifo");
    let fifos = fifos.to_str().unwrap();
    containerd.ctr(&[
        "run",
        "--detach",
        "--runc-root",
        root,
        "--fifo-dir",
        fifos,
        "--cgroup",
        &cgroup,
        "--snapshotter",
        snapshotter,
        image,
        name,
        "sleep",
        "1000",
    ]);
}

/// What a stopped containerd must not leave anywhere.
fn traces(containerd: &Containerd) -> BTreeSet<String> {
    let mut found = Leaks::of_machine(containerd);
    let own = containerd.cgroup_root();
    let bridge = PathBuf::from(format!("/sys/class/net/{}", containerd.fact("BRIDGE")));
    let mut paths = vec![containerd.dir().to_path_buf(), bridge];
    paths.extend(
        support::cgroup_hierarchies().into_iter().map(|h| PathBuf::from(format!("{}{own}", h.display()))),
    );
    found.extend(paths.iter().filter(|p| p.exists()).map(|p| p.display().to_string()));
    let rules = Command::new("iptables").args(["-w", "-t", "nat", "-S"]).output().expect("iptables starts");
    let rules = String::from_utf8_lossy(&rules.stdout).into_owned();
    found.extend(rules.lines().filter(|l| l.contains(containerd.fact("NETWORK"))).map(str::to_owned));
    found
}

fn a_pod_comes_and_goes(release: Release) {
    let containerd = Containerd::start("comes-and-goes", release);
    let version = containerd.fact("CONTAINERD_VERSION");
    if release == Release::Two {
        assert!(version.trim_start_matches('v').starts_with("2."), "{version}");
    }
    let before = Leaks::count(&containerd, None, None);
    assert_eq!(before.sandboxes.len() + before.containers.len(), 0);

    let port = support::free_port();
    let id = run_sandbox(&containerd, "one", Some(port));
    run_container(&containerd, "two");
    let during = Leaks::count(&containerd, None, None);
    assert!(during.sandboxes.contains(&id), "{during:?}");
    assert!(during.containers.contains("two"), "{during:?}");
    for what in ["mount ", "cgroup ", "containerd-shim ", "bridge port ", "address ", "cni result "] {
        assert!(during.machine.iter().any(|m| m.contains(what)), "no {what}in {during:?}");
    }
    // It is the pod that answers, if only with "nobody listens here".
    let lease = during.machine.iter().find_map(|m| m.strip_prefix("address ")).unwrap();
    let refused =
        TcpStream::connect_timeout(&format!("{lease}:80").parse().unwrap(), Duration::from_secs(10));
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    assert!(traces(&containerd).iter().any(|t| t.contains("CNI-HOSTPORT-DNAT")), "no rule for the host port");

    remove_sandbox(&containerd, &id);
    containerd.ctr(&["task", "kill", "--signal", "SIGKILL", "two"]);
    wait_until(SOON, "the task ended", || containerd.ctr(&["task", "ls"]).contains("STOPPED"));
    containerd.ctr(&["task", "rm", "two"]);
    containerd.ctr(&["container", "rm", "two"]);
    // The shim ends, and the cgroup parents that runc has made stay, as they do for any CRI client.
    for hierarchy in support::cgroup_hierarchies() {
        let parent = format!("{}{}/pod-one", hierarchy.display(), containerd.cgroup_root());
        if Path::new(&parent).exists() {
            fs::remove_dir(&parent).unwrap_or_else(|error| panic!("{parent}: {error}"));
        }
    }
    let mut after = Leaks::count(&containerd, None, None);
    wait_until(SOON, "nothing left", || {
        after = Leaks::count(&containerd, None, None);
        after == before || {
            eprintln!("{}", after.difference(&before));
            false
        }
    });
    containerd.stop();
    assert_eq!(traces(&containerd), BTreeSet::new());
}

#[test]
fn a_pod_comes_and_goes_on_the_machines_containerd() {
    a_pod_comes_and_goes(Release::Machine);
}

#[test]
fn a_pod_comes_and_goes_on_containerd_2() {
    a_pod_comes_and_goes(Release::Two);
}

fn stop_removes_what_runs(release: Release, hurt: impl Fn(&Containerd)) {
    let containerd = Containerd::start("hurt", release);
    run_sandbox(&containerd, "pod", Some(support::free_port()));
    run_container(&containerd, "box");
    // What an agent may have left: a mount below its root-dir, a cgroup, a process in it.
    let volume = containerd.dir().join("kubelet/pods/uid/volumes/memory");
    fs::create_dir_all(&volume).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(&volume).status().unwrap();
    assert!(mounted.success());
    hurt(&containerd);
    assert!(traces(&containerd).len() > 10, "{:?}", traces(&containerd));
    containerd.stop();
    wait_until(SOON, "shims collected", || support::processes(containerd.dir()).is_empty());
    assert_eq!(traces(&containerd), BTreeSet::new());
}

#[test]
fn stop_removes_what_runs_under_a_living_containerd() {
    stop_removes_what_runs(Release::Machine, |_| ());
}

#[test]
fn stop_removes_what_a_killed_containerd_left() {
    stop_removes_what_runs(Release::Machine, Containerd::kill9);
}

#[test]
fn stop_removes_what_a_killed_containerd_2_left() {
    stop_removes_what_runs(Release::Two, Containerd::kill9);
}

#[test]
fn stop_removes_a_containerd_that_hangs() {
    stop_removes_what_runs(Release::Machine, Containerd::freeze);
}

#[test]
fn a_killed_containerd_is_resumed_with_its_containers() {
    let containerd = Containerd::start("resume", Release::Machine);
    run_container(&containerd, "box");
    let before = containerd.ctr(&["task", "ls"]);
    containerd.kill9();
    containerd.resume();
    assert_eq!(containerd.ctr(&["task", "ls"]), before);
    assert!(before.contains("RUNNING"), "{before}");
}

#[test]
fn two_run_side_by_side() {
    let one = Containerd::start("one", Release::Machine);
    let two = Containerd::start("two", Release::Two);
    for key in ["SUBNET", "BRIDGE", "NETWORK", "CGROUP_ROOT", "CONTAINERD_ADDRESS"] {
        assert_ne!(one.fact(key), two.fact(key), "{key}");
    }
    let id = run_sandbox(&one, "same-name", Some(support::free_port()));
    run_sandbox(&two, "same-name", Some(support::free_port()));
    two.stop();
    assert_eq!(traces(&two), BTreeSet::new());
    assert!(Leaks::count(&one, None, None).sandboxes.contains(&id), "stopping one has touched the other");
}

#[test]
fn an_orphan_is_collected() {
    let mut owner = Command::new("sleep").arg("1000").spawn().unwrap();
    let dir = format!("/run/ndt-{}-orphan", std::process::id());
    let pid = owner.id().to_string();
    let started = script("containerd.sh", &["start", &dir], &[("NODECTL_OWNER", &pid)]);
    assert!(started.status.success(), "{}", String::from_utf8_lossy(&started.stderr));
    let kept = script("containerd.sh", &["gc"], &[]);
    assert!(kept.status.success() && Path::new(&dir).exists(), "collected while its owner lives");
    owner.kill().unwrap();
    owner.wait().unwrap();
    let collected = script("containerd.sh", &["gc"], &[]);
    assert!(collected.status.success(), "{}", String::from_utf8_lossy(&collected.stderr));
    assert!(!Path::new(&dir).exists(), "{dir} is still there");
}

#[test]
fn a_folder_of_somebody_else_is_never_removed() {
    let folder = tempfile::Builder::new().prefix("nd").tempdir_in("/run").unwrap();
    let precious = folder.path().join("precious");
    fs::write(&precious, "x").unwrap();
    for verb in ["start", "stop"] {
        let refused = script("containerd.sh", &[verb, folder.path().to_str().unwrap()], &[]);
        assert_eq!(refused.status.code(), Some(1), "{verb}");
        assert!(precious.exists(), "{verb}");
    }
}

#[test]
fn images_are_the_same_bytes_every_time() {
    let sums = [(); 2].map(|()| {
        let folder = tempfile::tempdir().unwrap();
        let made = script("images.sh", &[folder.path().to_str().unwrap()], &[]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        ["pause.tar", "busybox.tar"].map(|name| fs::read(folder.path().join(name)).unwrap())
    });
    assert_eq!(sums[0], sums[1]);
}
