//! `nodectl switch-runtime` on a whole node where something is found out before anything is stopped (exit code 3, and
//! the pod goes on), and where a change that was made or cut short has lost something of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers fail by panicking and say why"
)]

mod support;

use support::{
    Release,
    machine::Machine,
    machine_files::differences,
    switching::{Before, STATE, struck, switch},
};

const C: &str = "/etc/containerd/config.toml";
const PASSWORD: &str =
    "[plugins.cri.registry.configs.\"r.example\".auth]\n  username = \"u\"\n  password = \"hunter2\"\n";

#[track_caller]
fn shell(machine: &Machine, script: &str) -> String {
    machine.sure(&["sh", "-ec", script])
}

/// A configuration of containerd in the place of the one that is there, which `back` brings back.
fn config(text: &str) -> String {
    format!("cp -a {C} /run/kept; printf '%b' '{}' >{C}", text.replace('\n', "\\n"))
}

fn drop_in(text: &str) -> String {
    let folder = "/run/systemd/system/kubelet.service.d";
    format!(
        "mkdir -p {folder}; printf '[Service]\\n%b' '{text}' >{folder}/99-x.conf; systemctl daemon-reload"
    )
}

#[test]
fn what_would_fail_is_refused_before_anything_is_stopped() {
    let machine = &Machine::boot("beforehand", Release::Machine);
    let before = Before::of(machine);
    let container = shell(machine, "docker ps -q --filter label=io.kubernetes.container.name=httpd");
    let back = &format!("rm -rf {C}; cp -a /run/kept {C}");
    let no_drop_in = "rm -r /run/systemd/system/kubelet.service.d; systemctl daemon-reload";
    let (yaml, flags) = ("/var/lib/kubelet/config.yaml", "/var/lib/kubelet/kubeadm-flags.env");
    let unread = "error: containerd does not read its configuration as it is: ";
    // Lazily, as somebody may be reading there.
    let faults: &[(&str, &str, &str)] = &[
        (&config("version = 2\nimports = \"x\"\n"), unread, back),
        (
            &config("version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nenable_selinux = \"yes\"\n"),
            unread,
            back,
        ),
        // The change would mend this, and nothing would go back to it.
        (&config("version = 2\ndisabled_plugins = [\"cri\"]\n"), unread, back),
        (&config("# caf\\0351\n"), &format!("error: {C}: is not UTF-8"), back),
        (&format!("mv {C} /run/kept; mkdir {C}"), &format!("error: {C}: is no regular file"), back),
        (&format!("mv {C} /run/kept; mkfifo {C}"), &format!("error: {C}: is no regular file"), back),
        (&format!("mount --bind {C} {C}"), &format!("{C}: is mounted"), &format!("umount --lazy {C}")),
        (
            "mount --bind /etc /etc; mount -o remount,ro,bind /etc",
            &format!("; {C}: Read-only file system (os error 30); "),
            "umount --lazy /etc",
        ),
        (
            &format!(
                "cp -a {C} /run/kept; mount -t tmpfs -o size=8k small /etc/containerd
                cp -a /run/kept {C}; ! cat /dev/zero >/etc/containerd/large"
            ),
            &format!("{C}: No space left on device"),
            "umount --lazy /etc/containerd",
        ),
        (
            "mkdir -p /var/lib/nodectl; mount -t tmpfs -o size=64k small /var/lib/nodectl",
            "/var/lib/nodectl/switch has 64 KiB left, and the journal and the files as they are need ",
            "umount --lazy /var/lib/nodectl; rmdir /var/lib/nodectl",
        ),
        (
            "echo { >/etc/docker/daemon.json",
            "error: /etc/docker/daemon.json is not what dockerd reads, so that it could not be started again: ",
            "rm /etc/docker/daemon.json",
        ),
        (
            &format!("mv {yaml} /run/yaml"),
            &format!("error: {yaml} is the kubelet's --config and is not there"),
            &format!("mv /run/yaml {yaml}"),
        ),
        (
            &format!("mv {flags} /run/flags; mkdir {flags}"),
            &format!("error: kubelet.service cannot be put together: {flags}: is no regular file"),
            &format!("rmdir {flags}; mv /run/flags {flags}"),
        ),
        (
            &drop_in("EnvironmentFile=/etc/none\\n"),
            "kubelet.service has EnvironmentFile=/etc/none, which is not there: systemd does not start it so",
            no_drop_in,
        ),
        (
            &drop_in("ExecStart=\\nExecStart=/bin/sh -c \"exec kubelet $KUBELET_KUBEADM_ARGS\"\\n"),
            "which is no kubelet's command line",
            no_drop_in,
        ),
        (
            "systemctl mask --runtime kubelet.service",
            "kubelet.service runs, and is masked: it could not be started again",
            "systemctl unmask --runtime kubelet.service",
        ),
    ];
    for (fault, told, mend) in faults {
        shell(machine, fault);
        switch(machine, &["--yes"]).ended(3).told(told);
        shell(machine, mend);
    }
    switch(machine, &["--dry-run", "--pause-image", "https://u:hunter2@r/pause:1"]).ended(2);
    assert!(!machine.outside(STATE).exists(), "nothing of a change that is refused is left");

    // What is secret is in nothing that is shown.
    shell(machine, &config(PASSWORD));
    for words in [&["--dry-run"][..], &["--check", "-o", "json"], &["--dry-run", "--reset-config"]] {
        let said = switch(machine, words).ended(0);
        assert!(said.out.contains("password = ***"), "{}", said.out);
        assert!(!format!("{}{}", said.out, said.err).contains("hunter2"), "{}{}", said.out, said.err);
    }
    shell(machine, back);
    let now = shell(machine, "docker ps -q --filter label=io.kubernetes.container.name=httpd");
    assert_eq!(container, now, "the pod has gone on all the time");
    before.is_back(machine);
}

/// The folder of the newest change.
fn newest(machine: &Machine) -> String {
    shell(machine, &format!("ls -d {STATE}/2*/ | sort -V | tail -n 1"))
        .trim()
        .trim_end_matches('/')
        .to_owned()
}

#[test]
fn a_node_without_pods_comes_back_and_a_change_that_lost_something_says_so() {
    let machine = &Machine::boot("lost", Release::Machine);
    shell(machine, "systemctl stop kubelet; docker rm -f $(docker ps -aq)");
    let (files, units) = (machine.files(), machine.units());
    assert_eq!(units["docker.service"].0, "active");
    // Nobody but the command itself starts Docker again here, and nobody has the sandboxes' image but Docker.
    switch(machine, &["--yes"]).ended(0);
    let images = shell(machine, "ctr -n k8s.io images ls -q");
    assert!(images.contains("k8s.gcr.io/pause:3.2\n"), "{images}");
    switch(machine, &["--rollback"]).ended(0).told("is taken back by `nodectl switch-runtime rollback`");

    // What a way back would do is shown, and that it cannot be done is seen beforehand.
    let ahead = switch(machine, &["rollback", "--dry-run"]).ended(0).out;
    assert!(ahead.contains(". undo: stop docker.service\n"), "{ahead}");
    assert!(ahead.contains("-disabled_plugins = []\n+disabled_plugins = [\"cri\"]\n"), "{ahead}");
    let checked = switch(machine, &["rollback", "--check", "-o", "json"]).ended(0).json();
    assert!(checked["diff"].as_str().unwrap().contains("+disabled_plugins = [\"cri\"]\n"), "{checked}");
    let first = newest(machine);
    shell(machine, &format!("mv {first}/copies /run/copies; mkdir {first}/copies"));
    for words in [&["rollback", "--yes"], &["rollback", "--check"]] {
        let said = switch(machine, words).ended(3);
        said.told("files cannot be put back as they were: ")
            .told(": its copy is gone")
            .told("nothing was changed");
    }
    shell(machine, &format!("rmdir {first}/copies; mv /run/copies {first}/copies"));
    // Docker was removed since, and systemd may or may not know.
    let unit = "/lib/systemd/system/docker.service";
    for reload in ["true", "systemctl daemon-reload"] {
        shell(machine, &format!("mv {unit} /run/; {reload}"));
        for words in [&["rollback", "--yes"], &["rollback", "--check"]] {
            let said = switch(machine, words).ended(3);
            said.told(" cannot: docker.service is not there any more\n").told("install it again as it was");
        }
        shell(machine, &format!("mv /run/docker.service {unit}; systemctl daemon-reload"));
    }
    // Whether anybody reads how it ended does not count.
    shell(machine, "nodectl switch-runtime rollback --yes >/dev/full");
    assert_eq!(machine.units(), units);
    assert_eq!(differences(&files, &machine.files()), [""; 0]);

    // An earlier change that cannot be read is in the way of nothing but itself.
    shell(machine, &format!("echo x >>{first}/journal"));
    switch(machine, &["--dry-run"]).ended(0).told("warning: an earlier change is passed over: the journal ");
    assert!(switch(machine, &["history"]).ended(0).out.contains("cannot be read"));
    switch(machine, &["rollback", "--yes"]).ended(3).told("cannot be understood");

    // A change that is cut short, and somebody at work on it.
    assert_eq!(struck(machine, "SIGKILL", 30, &["--yes"]).code, None);
    let busy =
        format!("flock {STATE}/lock sh -c 'nodectl switch-runtime history; nodectl switch-runtime --check'");
    let said = machine.run(&["sh", "-c", &busy]);
    let told = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
    assert!(told.contains("at work (process "), "{told}");
    assert!(
        told.contains("error: another nodectl switch-runtime is at work on this node (process "),
        "{told}"
    );
    // Its journal is lost, and what it has left on the node is not.
    let cut = newest(machine);
    shell(machine, &format!("mv {cut} /run/cut"));
    for words in [&["--rollback"][..], &["--yes"], &["--resume"], &["--check"], &["rollback", "--yes"]] {
        let said = switch(machine, words).ended(3);
        said.told("a change of this node was cut short, as ").told("put the node back by hand");
    }
    shell(machine, &format!("mv /run/cut {cut}"));
    switch(machine, &["--rollback"]).ended(0);
    assert_eq!(machine.units(), units);
    assert_eq!(differences(&files, &machine.files()), [""; 0]);
}
