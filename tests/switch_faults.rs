//! `nodectl switch-runtime` where something on the node really does not work: a file that cannot be written, a unit that
//! does not start, a runtime that is not well. Each time everything is as before (exit code 4); where what is broken is
//! in the way back too, that is told (5), and gone on with once it is mended.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail by panicking and say why"
)]

mod support;

use std::{fs, os::fd::AsRawFd, path::Path, time::Duration};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nodectl::switch::detect::{Where, detect};
use serde_json::Value;
use support::{
    Release,
    machine::Machine,
    node_folder::NodeFolder,
    switching::{Before, STATE, hurry, struck, switch},
};

const CONFIG: &str = "/etc/containerd/config.toml";
const FLAGS: &str = "/var/lib/kubelet/kubeadm-flags.env";

struct Node {
    machine: Machine,
    before: Before,
}

impl Node {
    fn new(name: &str) -> Self {
        let machine = Machine::boot(name, Release::Machine);
        let before = Before::of(&machine);
        Self { machine, before }
    }

    #[track_caller]
    fn shell(&self, script: &str) {
        self.machine.sure(&["sh", "-ec", script]);
    }

    /// With this fault the change fails, for this reason, and everything is as before.
    #[track_caller]
    fn fails(&self, fault: &str, words: &[&str], why: &str, mend: &str) {
        self.shell(fault);
        let report = switch(&self.machine, &[&["--yes", "-o", "json"], words].concat()).ended(4).json();
        self.is_told(&report, why);
        self.shell(mend);
        self.before.is_back(&self.machine);
    }

    #[track_caller]
    fn is_told(&self, report: &Value, why: &str) {
        assert_eq!(
            (&report["changed"], &report["outcome"]),
            (&false.into(), &"rolled-back".into()),
            "{report}"
        );
        assert!(report["error"].as_str().unwrap().contains(why), "{report}");
    }

    /// With this fault neither the change nor its way back comes to its end. When it is mended the way back does.
    #[track_caller]
    fn is_stuck(&self, fault: &str, why: &str, mend: &str) {
        self.shell(fault);
        let said = switch(&self.machine, &["--yes"]).ended(5).told(why);
        assert!(said.err.contains("putting everything back failed"), "{}", said.err);
        self.shell(mend);
        switch(&self.machine, &["--rollback"]).ended(0);
        self.before.is_back(&self.machine);
    }

    /// A drop-in that outlives no boot, and is none of the node's own files.
    fn drop_in(unit: &str, text: &str) -> String {
        let folder = format!("/run/systemd/system/{unit}.d");
        format!("mkdir -p {folder}; printf '%b' '{text}' >{folder}/fault.conf; systemctl daemon-reload")
    }

    fn without_drop_in(unit: &str) -> String {
        format!("rm -r /run/systemd/system/{unit}.d; systemctl daemon-reload")
    }

    /// A unit that does not start any more once a file says something.
    fn starts_without(unit: &str, text: &str, path: &str) -> String {
        let check = format!("[Service]\\nExecStartPre=/bin/sh -c \"! grep -q \\\"{text}\\\" {path}\"\\n");
        Self::drop_in(unit, &check)
    }
}

/// Mounts a path on itself so that nothing is written there, nor put in its place.
fn read_only(path: &str) -> String {
    format!("mount --bind {path} {path}; mount -o remount,ro,bind {path}")
}

/// Lazily, as somebody may be reading there.
fn unmounted(path: &str) -> String {
    format!("umount --lazy {path}")
}

#[test]
fn files_that_cannot_be_written() {
    let node = Node::new("files");
    // Before the change it would be seen.
    let later = |fault: &str| {
        format!("systemd-run --quiet sh -c 'until [ -e {STATE}/unfinished ]; do sleep 0.01; done; {fault}'")
    };
    let busy = format!("{FLAGS}: Device or resource busy");
    node.fails(&later(&read_only(FLAGS)), &[], &busy, &unmounted(FLAGS));
    // Made beforehand, so that the file is there all the time.
    node.shell(
        "mkdir /run/full; mount -t tmpfs -o size=8k small /run/full
        cp -p /etc/containerd/config.toml /run/full/
        ! cat /dev/zero >/run/full/large",
    );
    let full = "mount --bind /run/full /etc/containerd";
    let no_space = format!("{CONFIG}: No space left on device");
    node.fails(&later(full), &[], &no_space, &unmounted("/etc/containerd"));
    // What cannot be taken away again either.
    let mark = format!("{STATE}/unfinished");
    let busy = format!("{mark}: Device or resource busy");
    node.is_stuck(&later(&format!("mount --bind {mark} {mark}")), &busy, &unmounted(&mark));
}

#[test]
fn units_that_do_not_do_as_they_are_told() {
    let mut node = Node::new("units");
    let (containerd, kubelet) = ("containerd.service", "kubelet.service");
    let stays = Node::drop_in(containerd, "[Unit]\\nRefuseManualStop=yes\\n");
    node.fails(&stays, &[], "stop containerd: ", &Node::without_drop_in(containerd));
    let config = Node::starts_without(containerd, "SystemdCgroup = true", CONFIG);
    node.fails(&config, &[], "start containerd: ", &Node::without_drop_in(containerd));
    let flags = Node::starts_without(kubelet, "container-runtime=remote", FLAGS);
    node.fails(&flags, &[], "start kubelet.service: ", &Node::without_drop_in(kubelet));

    let wants = |target: &str| format!("/etc/systemd/system/{target}.target.wants");
    let (sockets, services) = (wants("sockets"), wants("multi-user"));
    let disable = "do not start docker.socket with the node: ";
    node.fails(&read_only(&sockets), &[], disable, &unmounted(&sockets));
    node.shell("systemctl disable containerd.service");
    node.before = Before::of(&node.machine);
    node.fails(&read_only(&services), &[], "start containerd with the node: ", &unmounted(&services));

    // systemd reads its files only if it could keep what it knows meanwhile. The journal takes its room in pieces
    // beforehand.
    node.shell("journalctl --rotate");
    let used = "$(df --output=used -B1M /run | tail -n 1)";
    let full = format!("mount -o remount,size=$(({used} + 8))M /run");
    node.is_stuck(&full, "let systemd see ", "mount -o remount,size=512M /run");
}

#[test]
fn a_runtime_that_is_not_well() {
    let mut node = Node::new("runtime");
    // Another containerd comes first on the path, and does not work.
    let other = "/usr/local/bin/containerd";
    let fails = format!(
        "printf '%s\\n' '#!/bin/sh' 'case \" $* \" in *\" config dump \"*) echo no memory >&2; exit 1 ;; esac' \\
            'exec /usr/bin/containerd \"$@\"' >{other}; chmod 755 {other}"
    );
    node.fails(&fails, &[], "read containerd's configuration back: ", &format!("rm {other}"));

    // Nothing but the pause image is there afterwards, and no registry. Nobody waits for minutes here.
    node.shell(
        "ctr -n k8s.io images import /run/nodectl-machine/images/pause.tar
        ctr -n k8s.io images tag localhost/nodectl/pause:1 k8s.gcr.io/pause:3.2",
    );
    assert_eq!(struck(&node.machine, "SIGKILL", 2, &["--yes", "--images", "none"]).code, None);
    hurry(&node.machine, "verify-agent");
    let report = switch(&node.machine, &["--resume", "-o", "json"]).ended(4).json();
    node.is_told(&report, "static pods without a running container: default/web-node1");
    node.before.is_back(&node.machine);

    // Docker has died and does not start, and the containers of its pods live. It starts when the mark is gone.
    let none = ["--yes", "--images", "none"];
    let plan = switch(&node.machine, &[&none[..], &["--dry-run", "-o", "json"]].concat()).ended(0).json();
    let steps = plan["steps"].as_array().unwrap();
    let stop = steps.iter().position(|step| step["action"] == "stop-docker-pods").unwrap();
    assert_eq!(struck(&node.machine, "SIGKILL", 2 + 2 * stop, &none).code, None);
    let dead = format!(
        "[Unit]\\nStartLimitIntervalSec=0\\n[Service]\\nExecStartPre=/bin/sh -c \"! test -e {STATE}/unfinished\"\\n"
    );
    node.shell(&Node::drop_in("docker.service", &dead));
    node.shell("systemctl kill --signal=KILL docker.service");
    let report = switch(&node.machine, &["--resume", "-o", "json"]).ended(4).json();
    node.is_told(&report, "stop the pods in Docker: ");
    node.shell(&Node::without_drop_in("docker.service"));
    node.before.is_back(&node.machine);

    // Old containers that cannot be removed are no reason to go back.
    let docker = Node::starts_without("docker.service", "container-runtime=remote", FLAGS);
    node.shell(&docker);
    let done = switch(&node.machine, &["--yes", "-o", "json"]).ended(0).json();
    let warnings = done["warnings"].to_string();
    assert!(warnings.contains("remove what the pods left with Docker: "), "{warnings}");
    node.shell(&Node::without_drop_in("docker.service"));
    switch(&node.machine, &["rollback", "--yes"]).ended(0);
    node.before.is_back(&node.machine);

    // CRI does not come up, which no reading of the configuration tells.
    let config = node.machine.read(CONFIG);
    let broken = format!("{config}\n[plugins.cri.containerd]\n  snapshotter = \"none\"\n");
    node.machine.put(CONFIG, &broken, 0o644);
    node.before = Before::of(&node.machine);
    node.fails("true", &[], "wait until containerd is ready: ", "true");
}

/// A file system of nobody: what is asked of it is never answered.
struct Dead {
    at: std::path::PathBuf,
    _device: fs::File,
}

impl Dead {
    fn mount(at: &Path) -> Self {
        let device = fs::File::options().read(true).write(true).open("/dev/fuse").unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        mount(Some("dead"), at, Some("fuse"), MsFlags::empty(), Some(options.as_str())).unwrap();
        Self { at: at.to_owned(), _device: device }
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        umount2(&self.at, MntFlags::MNT_DETACH).unwrap();
    }
}

#[tokio::test]
async fn a_file_that_does_not_answer_is_named() {
    let node = NodeFolder::debian();
    let folder = node.path("/srv/dead");
    fs::create_dir_all(&folder).unwrap();
    let link = node.path("/etc/docker/daemon.json");
    if link.exists() {
        fs::remove_file(&link).unwrap();
    }
    node.link("/etc/docker/daemon.json", "/srv/dead/daemon.json");
    let dead = Dead::mount(&folder);
    let place = Where { root: Some(node.root()), patience: Some(Duration::from_secs(5)), ..Where::default() };
    let error = detect(&place).await.unwrap_err().to_string();
    assert!(error.starts_with("/etc/docker/daemon.json has not answered for 5 s: "), "{error}");
    // When it is gone, so is what hung.
    drop(dead);
    detect(&place).await.unwrap();
    let _dead = Dead::mount(&folder);
    node.switch(&["--detect"]).ended(1).told("error: /etc/docker/daemon.json has not answered for 15 s: ");
}
