//! Cgroups and resources: read from the kernel's files of the pod's groups and of its containers', on the
//! version of cgroups that the machine has. `vm` runs the same on a machine with v2.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

use crate::support::{
    GREEDY, Node, Process, Release, SOON, STAY, View, cgroup_hierarchies, container, pod, pod_of,
    pod_with_policy, wait_for, wait_until,
};

const CONFIG: &str = "podPidsLimit: 64\nsystemReserved: {memory: 64Mi, cpu: 250m}\n";

fn node(name: &str, release: Release) -> Node {
    let builder = Node::builder(name).config(CONFIG);
    let mut node = match release {
        Release::Machine => builder.prepare(),
        Release::Two => builder.containerd2().prepare(),
    };
    let classes = node.dir().join("classes");
    fs::create_dir(&classes).unwrap();
    let class = json!({
        "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "heavy"}, "handler": "runc",
        "overhead": {"podFixed": {"cpu": "150m", "memory": "16Mi"}},
    });
    fs::write(classes.join("heavy.json"), class.to_string()).unwrap();
    node.set_arguments(&["--runtime-class-path", classes.to_str().unwrap()]);
    node.start_agent();
    node
}

/// Whether the machine has cgroup v2 and nothing else.
pub(crate) fn is_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// The part of CPU time as the kernel says it: shares, or v2's weight, by runc's and kubelet's own line.
pub(crate) fn share(shares: i64) -> i64 {
    if is_v2() { 1 + (shares - 2) * 9999 / 262_142 } else { shares }
}

/// What runtimes make of a container's own shares: runc 1.1 as [`share`], runc 1.3.6 by a curve on which 1024
/// shares come to a weight of 100 (github.com/opencontainers/cgroups, `ConvertCPUSharesToCgroupV2Value`).
fn shares_by_runtimes(shares: i32) -> [i64; 2] {
    let line = share(shares.into());
    if !is_v2() {
        return [line; 2];
    }
    let log = f64::from(shares).log2();
    let curve = 10_f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil();
    [line, format!("{curve}").parse().unwrap()]
}

/// A controller's file in a group below the node's own root.
fn read(node: &Node, controller: &str, cgroup: &str, file: &str) -> String {
    let path = folder(node, controller, cgroup).join(file);
    let text = fs::read_to_string(&path);
    text.unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
}

fn folder(node: &Node, controller: &str, cgroup: &str) -> PathBuf {
    let hierarchy = if is_v2() { String::new() } else { format!("/{controller}") };
    PathBuf::from(format!("/sys/fs/cgroup{hierarchy}{}/{cgroup}", node.containerd.cgroup_root()))
}

fn number(node: &Node, controller: &str, cgroup: &str, file: &str) -> i64 {
    read(node, controller, cgroup, file).parse().unwrap()
}

/// The [`share`] of a group.
fn share_of(node: &Node, cgroup: &str) -> i64 {
    number(node, "cpu", cgroup, if is_v2() { "cpu.weight" } else { "cpu.shares" })
}

/// [`share`], quota, bytes of memory and processes of a group; `None` is no limit.
fn values(node: &Node, cgroup: &str) -> (i64, Option<i64>, Option<i64>, Option<i64>) {
    if is_v2() {
        let most = read(node, "cpu", cgroup, "cpu.max");
        let (quota, period) = most.split_once(' ').unwrap();
        assert_eq!(period, "100000");
        let memory = read(node, "memory", cgroup, "memory.max").parse().ok();
        let pids = read(node, "pids", cgroup, "pids.max").parse().ok();
        return (share_of(node, cgroup), quota.parse().ok(), memory, pids);
    }
    let limit = |value: i64| (0..i64::MAX - (64 << 10)).contains(&value).then_some(value);
    (
        share_of(node, cgroup),
        limit(number(node, "cpu", cgroup, "cpu.cfs_quota_us")),
        limit(number(node, "memory", cgroup, "memory.limit_in_bytes")),
        read(node, "pids", cgroup, "pids.max").parse().ok(),
    )
}

fn with_resources(name: &str, requests: Value, limits: Value) -> Value {
    let mut container = container(name, STAY);
    container["resources"]["requests"] = requests;
    container["resources"]["limits"] = limits;
    container
}

/// What the container's own group says: [`share`], quota and bytes of memory.
fn own(process: Process) -> (i64, String, String) {
    let share = process.cgroup_value("cpu", "cpu.shares", "cpu.weight").parse().unwrap();
    let quota = process.cgroup_value("cpu", "cpu.cfs_quota_us", "cpu.max");
    let memory = process.cgroup_value("memory", "memory.limit_in_bytes", "memory.max");
    (share, quota.trim_end_matches(" 100000").to_owned(), memory)
}

/// The machine's memory in bytes.
fn node_memory() -> i64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap();
    let kib: i64 = meminfo.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

fn oom_score_adj(process: Process) -> i64 {
    fs::read_to_string(format!("/proc/{}/oom_score_adj", process.0)).unwrap().trim().parse().unwrap()
}

fn the_tree_and_its_values(name: &str, release: Release) {
    let mut node = node(name, release);
    let before = node.leaks();
    let full = json!({"cpu": "100m", "memory": "32Mi"});
    node.put(&pod_of("even", &[with_resources("main", full.clone(), full)]));
    node.put(&pod("least", STAY));
    let burst = [
        with_resources("main", json!({"cpu": "250m"}), json!({"cpu": "500m", "memory": "32Mi"})),
        with_resources("side", json!({}), json!({"memory": "16Mi"})),
    ];
    node.put(&pod_of("burst", &burst));
    // The pod's own limits hold for its container, and the overhead comes on top.
    let mut whole = pod_of("whole", &[with_resources("main", json!({"cpu": "100m"}), json!({}))]);
    whole["spec"]["resources"] =
        json!({"limits": {"cpu": "1", "memory": "64Mi"}, "requests": {"memory": "32Mi"}});
    whole["spec"]["runtimeClassName"] = json!("heavy");
    node.put(&whole);
    let quarter = node_memory() / 4;
    let scored = [
        with_resources("quarter", json!({"memory": quarter.to_string()}), json!({})),
        with_resources("rest", json!({}), json!({})),
    ];
    node.put(&pod_of("scored", &scored));

    let even = node.wait_ready("even");
    let group = format!("kubepods/pod{}", even.uid());
    assert_eq!(values(&node, &group), (share(102), Some(10_000), Some(32 << 20), Some(64)));
    let main = node.process(&even, "main");
    let (weight, quota, memory) = own(main);
    assert!(shares_by_runtimes(102).contains(&weight), "{weight}");
    assert_eq!((quota, memory), ("10000".to_owned(), (32 << 20).to_string()));
    // No swap: on v1 memory and swap together have memory's limit, where the kernel can tell.
    if is_v2() {
        assert_eq!(main.cgroup_value("memory", "", "memory.swap.max"), "0");
        // Of a container's processes none is killed alone.
        assert_eq!(main.cgroup_value("memory", "", "memory.oom.group"), "1");
    } else if main.cgroup("memory").join("memory.memsw.limit_in_bytes").exists() {
        let both = main.cgroup_value("memory", "memory.memsw.limit_in_bytes", "");
        assert_eq!(both, (32 << 20).to_string());
    }
    for controller in ["cpu", "memory", "pids"] {
        assert_eq!(main.cgroup(controller).parent(), Some(folder(&node, controller, &group).as_path()));
    }

    let least = node.wait_ready("least");
    let least_group = format!("kubepods/besteffort/pod{}", least.uid());
    assert_eq!(values(&node, &least_group), (share(2), None, None, Some(64)));

    // One container of the two has no limit of CPU time, so the pod has none.
    let burst = node.wait_ready("burst");
    let burst_group = format!("kubepods/burstable/pod{}", burst.uid());
    assert_eq!(values(&node, &burst_group), (share(256), None, Some(48 << 20), Some(64)));
    assert_eq!(own(node.process(&burst, "main")).1, "50000");

    let whole = node.wait_ready("whole");
    let whole_group = format!("kubepods/burstable/pod{}", whole.uid());
    assert_eq!(values(&node, &whole_group), (share(256), Some(115_000), Some(80 << 20), Some(64)));
    let main = node.process(&whole, "main");
    assert_eq!(own(main).1, "100000");
    assert_eq!(own(main).2, (64 << 20).to_string());
    assert_eq!(whole.0["status"]["qosClass"], "Burstable");

    // By its share of the node's memory, and always before a BestEffort one. (A score below the agent's own
    // takes a capability: `vm` looks at those.)
    let scored = node.wait_ready("scored");
    let share_of_memory = quarter * 1000 / node_memory();
    assert_eq!(oom_score_adj(node.process(&scored, "quarter")), 1000 - share_of_memory);
    assert_eq!(oom_score_adj(node.process(&scored, "rest")), 999);
    assert_eq!(oom_score_adj(node.process(&least, "main")), 1000);

    // The classes: what their pods request together, and the least.
    wait_until(SOON, "the class has the shares of both its pods", || {
        share_of(&node, "kubepods/burstable") == share(256 + 256)
    });
    assert_eq!(share_of(&node, "kubepods/besteffort"), share(2));
    // All pods: what the machine has but for what is reserved.
    let (shares, quota, memory, pids) = values(&node, "kubepods");
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap().matches("processor\t").count();
    assert_eq!(shares, share((i64::try_from(cpus).unwrap() * 1000 - 250) * 1024 / 1000));
    // Memory that is set aside for huge pages counts too, as with kubelet.
    assert_eq!((quota, memory), (None, Some(node_memory() - (64 << 20))));
    assert!(pids.is_some_and(|pids| pids > 64));

    // Another agent finds all as it should be, and brings back what somebody changed.
    let pids = folder(&node, "pids", &burst_group).join("pids.max");
    fs::write(&pids, "7").unwrap();
    let file = if is_v2() { "cpu.weight" } else { "cpu.shares" };
    fs::write(folder(&node, "cpu", "kubepods/besteffort").join(file), "77").unwrap();
    node.restart();
    wait_until(SOON, "the values are set again", || {
        fs::read_to_string(&pids).unwrap().trim() == "64"
            && share_of(&node, "kubepods/besteffort") == share(2)
    });
    assert_eq!(node.wait_ready("burst").restarts("main"), 0);

    // Without its pods a class has the least share.
    for pod in ["burst", "whole", "even", "least", "scored"] {
        node.take_away(pod);
    }
    wait_until(SOON, "the class has no pods", || share_of(&node, "kubepods/burstable") == share(2));
    node.wait_leak_free(&before);
}

#[test]
fn the_tree_and_its_values_on_containerd_1() {
    the_tree_and_its_values("cg-tree1", Release::Machine);
}

#[test]
fn the_tree_and_its_values_on_containerd_2() {
    the_tree_and_its_values("cg-tree2", Release::Two);
}

fn what_the_limits_do(name: &str, release: Release) {
    let node = node(name, release);
    let before = node.leaks();
    let mut greedy = pod_with_policy("greedy", "Never", GREEDY);
    greedy["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "16Mi"}});
    node.put(&greedy);
    // More processes than the pod may have: the shell cannot fork and ends with an error.
    let forks = "i=0; while [ $i -lt 200 ]; do sleep 1000 & i=$((i+1)); done; echo all; exit 0";
    node.put(&pod_with_policy("forks", "Never", forks));

    let greedy = View(node.wait_phase("greedy", "Failed"));
    let ended = &greedy.container("main")["state"]["terminated"];
    assert_eq!((&ended["reason"], &ended["exitCode"]), (&json!("OOMKilled"), &json!(137)));

    let forks = View(node.wait_phase("forks", "Failed"));
    let ended = &forks.container("main")["state"]["terminated"];
    assert_ne!(ended["exitCode"], 0, "{ended}");
    for pod in ["greedy", "forks"] {
        node.take_away(pod);
    }
    node.wait_leak_free(&before);
}

#[test]
fn what_the_limits_do_on_containerd_1() {
    what_the_limits_do("cg-lim1", Release::Machine);
}

#[test]
fn what_the_limits_do_on_containerd_2() {
    what_the_limits_do("cg-lim2", Release::Two);
}

/// What an agent that died left of pods that nobody knows goes, with the processes in it; what is no pod's
/// stays, and so do the groups of pods that are there.
#[test]
fn what_is_left_of_pods_that_are_gone_is_reaped() {
    let mut node = Node::start("cg-reap");
    node.put(&pod("stays", STAY));
    let view = node.wait_ready("stays");
    let process = node.process(&view, "main");
    node.kill9();
    let make = |name: &str| -> Vec<PathBuf> {
        cgroup_hierarchies()
            .iter()
            .filter(|hierarchy| !hierarchy.ends_with("unified"))
            .map(|hierarchy| {
                let root = node.containerd.cgroup_root();
                let folder = PathBuf::from(format!("{}{root}/kubepods/{name}", hierarchy.display()));
                fs::create_dir_all(folder.join("inner")).unwrap();
                folder
            })
            .collect()
    };
    let empty = make("burstable/podgone-1");
    let busy = make("podgone-2");
    let others = make("besteffort/something");
    // A process that nobody else would end, in one hierarchy, as pids are there for any.
    let mut left = Command::new("sleep").arg("1000").spawn().unwrap();
    let pids: Vec<&PathBuf> =
        busy.iter().filter(|folder| is_v2() || folder.starts_with("/sys/fs/cgroup/pids")).collect();
    fs::write(pids[0].join("inner/cgroup.procs"), left.id().to_string()).unwrap();

    node.start_agent();
    let gone = |folders: &[PathBuf]| folders.iter().all(|folder: &PathBuf| !folder.exists());
    wait_until(SOON, "the empty one goes", || gone(&empty));
    let status = wait_for(SOON, "the process is killed", || left.try_wait().unwrap());
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    wait_until(SOON, "its cgroup goes", || gone(&busy));
    assert!(others.iter().all(|folder| folder.join("inner").is_dir()));
    assert!(Path::new(&format!("/proc/{}", process.0)).exists());
    assert_eq!(node.wait_ready("stays").restarts("main"), 0);

    // One in the cgroup of a pod that goes, as a runtime that died in the middle of a start leaves it.
    let own = process.cgroup("pids").parent().unwrap().to_owned();
    let mut left = Command::new("sleep").arg("1000").spawn().unwrap();
    fs::create_dir(own.join("lost")).unwrap();
    fs::write(own.join("lost/cgroup.procs"), left.id().to_string()).unwrap();
    node.take_away("stays");
    node.wait_gone("stays");
    assert!(!own.exists());
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&left.wait().unwrap()), Some(9));
    for folder in others {
        fs::remove_dir(folder.join("inner")).unwrap();
        fs::remove_dir(folder).unwrap();
    }
}
