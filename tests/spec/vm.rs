//! What needs another machine: cgroup v2, huge pages, every capability, systemd. `hack/vm.sh` boots one whose
//! files are this machine's, and this very program runs chosen tests in it.
//!
//! Tests that only such a machine can run are ignored elsewhere; each is named by one of the two that start a
//! machine, which count that all that they name has run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use serde_json::json;

use super::cgroups::{is_v2, share};
use crate::support::{Node, SOON, STAY, container, pod, pod_of, script, wait_until};

/// An emulated processor is about ten times slower than the machine, which other tests use beside it.
const SLOW: (&str, &str) = ("NODECTL_TEST_SLOW", "6");
/// Seconds after which a machine is given up.
const TIMEOUT: &str = "1200";

/// Runs tests of this program in a machine of their own.
#[track_caller]
fn run(options: &[&str], threads: &str, tests: &[&str]) {
    /// Two machines at a time would need twice the memory and be no faster.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(std::env::var_os(SLOW.0).is_none(), "a machine in a machine");
    let this = std::env::current_exe().unwrap();
    let mut arguments = vec!["--timeout", TIMEOUT];
    arguments.extend(options);
    arguments.extend([
        this.to_str().unwrap(),
        "--exact",
        "--include-ignored",
        "--color",
        "never",
        "--test-threads",
        threads,
    ]);
    arguments.extend(tests);
    let output = script("vm.sh", &arguments, &[SLOW]);
    let text = String::from_utf8_lossy(&output.stdout);
    let all = format!("test result: ok. {} passed; 0 failed; 0 ignored;", tests.len());
    assert!(
        output.status.success() && text.contains(&all),
        "hack/vm.sh {}: {}\n{text}\n{}",
        arguments.join(" "),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn on_cgroup_v2() {
    run(
        &[],
        "2",
        &[
            "cgroups::the_tree_and_its_values_on_containerd_1",
            "cgroups::the_tree_and_its_values_on_containerd_2",
            "cgroups::what_the_limits_do_on_containerd_1",
            "cgroups::what_the_limits_do_on_containerd_2",
            "cgroups::what_is_left_of_pods_that_are_gone_is_reaped",
            "stats::figures_are_those_of_the_cgroups_on_containerd_2",
            "vm::huge_pages_and_oom_scores_on_containerd_1",
            "vm::huge_pages_and_oom_scores_on_containerd_2",
        ],
    );
}

#[test]
fn on_systemd() {
    // One at a time: systemd's slices have one root, and an agent reaps those of pods that it does not know.
    run(
        &["--systemd"],
        "1",
        &["vm::slices_of_systemd_on_containerd_1", "vm::slices_of_systemd_on_containerd_2"],
    );
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.trim().to_owned()
}

fn oom_score(pid: impl std::fmt::Display) -> i32 {
    read(format!("/proc/{pid}/oom_score_adj")).parse().unwrap()
}

fn free_huge_pages() -> u32 {
    read("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages").parse().unwrap()
}

fn huge_pages_and_oom_scores(start: impl FnOnce() -> Node) {
    /// The machine's huge pages are counted: one at a time.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(is_v2());
    let node = start();
    let before = node.leaks();
    let free = free_huge_pages();
    assert!(free >= 8, "the machine has huge pages: {free}");

    // Two pages are the pod's, a third is one too many; what is not mapped counts as well.
    let script = format!(
        "fallocate -l 4M /huge/two && echo two >/out/two; fallocate -l 2M /huge/third || echo none >/out/third; {STAY}"
    );
    let mut huge = pod("huge", &script);
    huge["spec"]["containers"][0]["resources"] =
        json!({"limits": {"cpu": "100m", "memory": "32Mi", "hugepages-2Mi": "4Mi"}});
    huge["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "huge", "mountPath": "/huge"}, {"name": "out", "mountPath": "/out"}]);
    huge["spec"]["volumes"] =
        json!([{"name": "huge", "emptyDir": {"medium": "HugePages-2Mi"}}, {"name": "out", "emptyDir": {}}]);
    node.put(&huge);
    node.put(&pod("plain", STAY));

    let view = node.wait_ready("huge");
    let main = node.process(&view, "main");
    wait_until(SOON, "the third page is refused", || main.path("/out/third").exists());
    assert!(main.path("/out/two").exists());
    assert_eq!(free_huge_pages(), free - 2);
    // The pod's cgroup holds it: containerd leaves the container's alone (`disable_hugetlb_controller`).
    let group = main.cgroup("hugetlb").parent().unwrap().to_owned();
    assert_eq!(read(group.join("hugetlb.2MB.max")), (4 << 20).to_string());
    assert_eq!(read(group.join("hugetlb.2MB.current")), (4 << 20).to_string());

    let plain = node.wait_ready("plain");
    let plain = node.process(&plain, "main");
    assert_eq!(read(plain.cgroup("hugetlb").parent().unwrap().join("hugetlb.2MB.max")), "0");

    // Below zero only a process with the capability may go.
    assert_eq!(view.0["status"]["qosClass"], "Guaranteed");
    assert_eq!((oom_score(main.0), oom_score(plain.0)), (-997, 1000));
    assert_eq!(oom_score(node.agent_pid()), -999);
    let sandbox = &node.containerd.sandboxes_of(view.uid())[0];
    let sandbox = node.containerd.process(&sandbox.id).unwrap();
    assert_eq!(oom_score(sandbox.0), -998);

    for pod in ["huge", "plain"] {
        node.take_away(pod);
    }
    node.wait_leak_free(&before);
    assert_eq!(free_huge_pages(), free);
}

#[test]
#[ignore = "run in the virtual machine by vm::on_cgroup_v2"]
fn huge_pages_and_oom_scores_on_containerd_1() {
    huge_pages_and_oom_scores(|| Node::start("vm-huge"));
}

#[test]
#[ignore = "run in the virtual machine by vm::on_cgroup_v2"]
fn huge_pages_and_oom_scores_on_containerd_2() {
    huge_pages_and_oom_scores(|| Node::with_containerd2("vm-huge2"));
}

/// What systemd says of a unit.
fn unit(name: &str, property: &str) -> String {
    let output = Command::new("systemctl").args(["show", "--value", "-p", property, name]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn slices_of_systemd(name: &str, builder: impl Fn(&str) -> Node) {
    assert!(is_v2());
    let mut node = builder(name);
    let mut whole = pod_of("whole", &[container("main", STAY)]);
    whole["spec"]["containers"][0]["resources"] =
        json!({"requests": {"cpu": "250m", "memory": "16Mi"}, "limits": {"cpu": "505m", "memory": "32Mi"}});
    node.put(&whole);
    node.put(&pod("least", STAY));

    let view = node.wait_ready("whole");
    let burstable = PathBuf::from("/sys/fs/cgroup/kubepods.slice/kubepods-burstable.slice");
    let slice = format!("kubepods-burstable-pod{}.slice", view.uid().replace('-', "_"));
    let folder = burstable.join(&slice);
    let main = node.process(&view, "main");
    assert_eq!(main.cgroup("cpu"), folder.join(format!("cri-containerd-{}.scope", view.id("main"))));
    let check = || {
        assert_eq!(read(folder.join("cpu.weight")), share(256).to_string());
        assert_eq!(read(folder.join("memory.max")), (32 << 20).to_string());
        assert_eq!(read(folder.join("pids.max")), "64");
        // systemd gives whole percents of a CPU.
        let quota = read(folder.join("cpu.max"));
        assert!(["50500 100000", "51000 100000"].contains(&quota.as_str()), "{quota}");
        assert_eq!(read(burstable.join("cpu.weight")), share(256).to_string());
    };
    check();
    // systemd's own view is the same, so that what it sets anew is right.
    assert_eq!(unit(&slice, "ActiveState"), "active");
    assert_eq!(unit(&slice, "MemoryMax"), (32 << 20).to_string());
    assert_eq!(unit(&slice, "CPUWeight"), share(256).to_string());
    assert_eq!(unit(&slice, "TasksMax"), "64");
    assert!(Command::new("systemctl").arg("daemon-reload").status().unwrap().success());
    check();
    assert_eq!(unit("kubepods.slice", "ActiveState"), "active");

    let least = node.wait_ready("least");
    let least = format!("kubepods-besteffort-pod{}.slice", least.uid().replace('-', "_"));
    let least_folder = Path::new("/sys/fs/cgroup/kubepods.slice/kubepods-besteffort.slice").join(&least);
    assert_eq!(
        (read(least_folder.join("cpu.weight")), read(least_folder.join("memory.max"))),
        ("1".into(), "max".into())
    );

    // A slice of a pod that nobody knows, with a process in it.
    node.kill9();
    let gone = "kubepods-besteffort-podgone_1.slice";
    let mut left = Command::new("systemd-run")
        .args(["--quiet", "--scope", &format!("--slice={gone}"), "sleep", "1000"])
        .spawn()
        .unwrap();
    wait_until(SOON, "the slice is there", || unit(gone, "ActiveState") == "active");
    node.start_agent();
    wait_until(SOON, "the process is killed", || left.try_wait().unwrap().is_some());
    wait_until(SOON, "the slice is gone", || unit(gone, "ActiveState") == "inactive");
    let same = node.wait_ready("whole");
    assert_eq!((same.restarts("main"), same.id("main")), (0, view.id("main")));
    check();

    for pod in ["whole", "least"] {
        node.take_away(pod);
        node.wait_gone(pod);
    }
    for (slice, folder) in [(slice, folder), (least, least_folder)] {
        wait_until(SOON, "the slice is gone", || {
            unit(&slice, "ActiveState") == "inactive" && !folder.exists()
        });
    }
}

#[test]
#[ignore = "run in the virtual machine by vm::on_systemd"]
fn slices_of_systemd_on_containerd_1() {
    slices_of_systemd("vm-sd1", |name| Node::builder(name).systemd().config("podPidsLimit: 64\n").start());
}

#[test]
#[ignore = "run in the virtual machine by vm::on_systemd"]
fn slices_of_systemd_on_containerd_2() {
    slices_of_systemd("vm-sd2", |name| {
        Node::builder(name).systemd().containerd2().config("podPidsLimit: 64\n").start()
    });
}
