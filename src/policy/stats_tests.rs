//! The Summary API's figures from measured ones.

use serde_json::{Value, json};

use super::*;
use crate::api::{
    PodFullName,
    usage::{CgroupUsage, CpuUsage, MemoryUsage, SandboxUsage},
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn measured(cgroup: &str, total_ns: u64, working_set: u64) -> Measured {
    Measured {
        cgroup: cgroup.into(),
        at: at(100),
        usage: CgroupUsage {
            cpu: Some(CpuUsage { total_ns, ..CpuUsage::default() }),
            memory: Some(MemoryUsage {
                usage: working_set + 5,
                working_set,
                limit: Some(1000),
                swap: Some(3),
                swap_limit: Some(10),
                ..MemoryUsage::default()
            }),
            ..CgroupUsage::default()
        },
        nano_cores: Some(total_ns / 10),
        processes: Some(2),
    }
}

fn container(name: &str) -> ContainerUsage {
    ContainerUsage {
        name: name.into(),
        id: format!("id-{name}").into(),
        attempt: 0,
        image: "image".into(),
        created: at(50),
        started: at(51),
        measured: measured("/p/c", 30, 40),
    }
}

fn usage() -> NodeUsage {
    NodeUsage {
        at: at(99),
        root: Some(measured("/", 500, 700)),
        over_pods: vec![],
        system: vec![("pods", measured("/kubepods", 100, 200))],
        swap: Some((1, 2)),
        network: vec![InterfaceUsage { name: "ens3".into(), rx_bytes: 5, ..InterfaceUsage::default() }],
        tasks: Some((100, 20)),
        pods: vec![PodUsage {
            uid: "u".into(),
            name: PodFullName::new("ns", "p"),
            created: at(40),
            measured: Some(measured("/p", 70, 90)),
            sandbox: SandboxUsage { id: "s".into(), attempt: 0, measured: None },
            containers: vec![container("a"), container("b")],
            network: None,
        }],
    }
}

fn machine() -> MachineLabels {
    MachineLabels { node: "n".into(), memory_bytes: 2000, booted: at(10), ..MachineLabels::default() }
}

fn fs() -> FsUsage {
    FsUsage {
        device: "/dev/sda".into(),
        capacity: 100,
        available: 60,
        used: 30,
        inodes: Some(10),
        inodes_free: Some(4),
    }
}

fn disk(bytes: u64, inodes: u64) -> DiskUsage {
    DiskUsage { bytes: Some(bytes), inodes: Some(inodes) }
}

fn storage() -> (DisksUsage, Volumes) {
    let store = |bytes| StoreUsage { at: at(97), disk: disk(bytes, 1), fs: Some(fs()) };
    let volume = |name: &str, bytes, ephemeral| VolumeUsage {
        name: name.into(),
        at: at(90),
        disk: disk(bytes, 2),
        fs: fs(),
        ephemeral,
    };
    let disks = DisksUsage {
        at: at(98),
        root: Some(fs()),
        images: Some(store(12)),
        containers: None,
        layers: [("id-a".into(), store(1000)), ("id-other".into(), store(1))].into(),
        logs: [(("u".into(), "a".into()), disk(200, 1)), (("u".into(), "b".into()), disk(30, 1))].into(),
        pod_files: [("u".into(), disk(4, 1))].into(),
    };
    (disks, [("u".into(), vec![volume("data", 5, true), volume("memory", 70_000, false)])].into())
}

fn whole() -> Value {
    let (disks, volumes) = storage();
    let storage = Some(Storage { disks: &disks, volumes: &volumes });
    serde_json::to_value(summary(&usage(), &machine(), storage)).unwrap()
}

#[test]
fn a_container_is_found_by_its_id() {
    let names: Vec<String> = ["crio-conmon-abc.scope", "x", "cri-containerd-abc.scope", "crio-def", "0123"]
        .map(str::to_owned)
        .into();
    let cases = [
        ("abc", Some("cri-containerd-abc.scope")),
        ("def", Some("crio-def")),
        ("0123", Some("0123")),
        ("123", None),
        ("bc", None),
        ("none", None),
    ];
    for (id, name) in cases {
        assert_eq!(cgroup_of(&names, id), name, "{id}");
    }
}

#[test]
fn the_node_as_kubelet_tells_it() {
    let node = &whole()["node"];
    assert_eq!((&node["nodeName"], &node["startTime"]), (&json!("n"), &json!("1970-01-01T00:00:10Z")));
    assert_eq!(
        node["cpu"],
        json!({"time": "1970-01-01T00:01:40Z", "usageNanoCores": 50, "usageCoreNanoSeconds": 500})
    );
    assert_eq!(
        (&node["memory"]["workingSetBytes"], &node["memory"]["availableBytes"]),
        (&json!(700), &json!(1300)),
        "of the machine's memory"
    );
    assert_eq!(
        node["swap"],
        json!({"time": "1970-01-01T00:01:39Z", "swapUsageBytes": 1, "swapAvailableBytes": 2})
    );
    assert_eq!((&node["network"]["name"], &node["network"]["rxBytes"]), (&json!("ens3"), &json!(5)));
    assert_eq!((&node["fs"]["usedBytes"], &node["fs"]["inodesUsed"]), (&json!(30), &json!(6)));
    assert_eq!(node["rlimit"], json!({"time": "1970-01-01T00:01:39Z", "maxpid": 100, "curproc": 20}));
    let runtime = &node["runtime"];
    assert_eq!(
        (&runtime["imageFs"]["usedBytes"], &runtime["containerFs"]["usedBytes"]),
        (&json!(12), &json!(12))
    );
    assert_eq!(node["systemContainers"][0]["name"], "pods");
    assert_eq!(node["systemContainers"][0]["memory"]["workingSetBytes"], 200);
}

#[test]
fn a_pod_as_kubelet_tells_it() {
    let pod = &whole()["pods"][0];
    assert_eq!(pod["podRef"], json!({"name": "p", "namespace": "ns", "uid": "u"}));
    assert_eq!(pod["cpu"]["usageCoreNanoSeconds"], 70);
    assert_eq!(
        (&pod["memory"]["workingSetBytes"], &pod["memory"]["availableBytes"]),
        (&json!(90), &json!(910))
    );
    assert_eq!((&pod["swap"]["swapUsageBytes"], &pod["swap"]["swapAvailableBytes"]), (&json!(3), &json!(7)));
    assert_eq!(pod["process_stats"], json!({"process_count": 4}));
    assert_eq!(pod.get("network"), None, "on the host's network it has none");
    // Layer, logs, the volume on the disk and the pod's own files; not the volume in memory.
    let storage = &pod["ephemeral-storage"];
    assert_eq!((&storage["usedBytes"], &storage["inodesUsed"]), (&json!(1239), &json!(6)));
    let names: Vec<_> = pod["volume"].as_array().unwrap().iter().map(|volume| &volume["name"]).collect();
    assert_eq!(names, ["data", "memory"]);
    let [a, b] = [&pod["containers"][0], &pod["containers"][1]];
    assert_eq!((&a["rootfs"]["usedBytes"], &a["rootfs"]["capacityBytes"]), (&json!(1000), &json!(100)));
    assert_eq!((&a["logs"]["usedBytes"], &a["startTime"]), (&json!(200), &json!("1970-01-01T00:00:50Z")));
    assert_eq!((b.get("rootfs"), &b["logs"]["usedBytes"]), (None, &json!(30)));
}

#[test]
fn without_a_cgroup_of_its_own_a_pod_is_its_containers() {
    let mut usage = usage();
    usage.pods[0].measured = None;
    let pod = &serde_json::to_value(summary(&usage, &machine(), None)).unwrap()["pods"][0];
    assert_eq!((&pod["cpu"]["usageCoreNanoSeconds"], &pod["cpu"]["usageNanoCores"]), (&json!(60), &json!(6)));
    assert_eq!(pod["memory"]["workingSetBytes"], 80);
    assert_eq!(pod["swap"]["swapUsageBytes"], 6);
}

#[test]
fn what_is_not_known_is_not_told() {
    let (disks, volumes) = (DisksUsage::default(), Volumes::new());
    let mut usage = usage();
    usage.root = None;
    usage.tasks = None;
    usage.swap = None;
    usage.network.clear();
    let storage = Some(Storage { disks: &disks, volumes: &volumes });
    let all = serde_json::to_value(summary(&usage, &machine(), storage)).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&all["node"]), ["nodeName", "startTime", "systemContainers"]);
    let container = &all["pods"][0]["containers"][0];
    assert_eq!(keys(container), ["cpu", "memory", "name", "startTime", "swap"]);
}

#[test]
fn only_cpu_and_memory_is_just_that() {
    let all = serde_json::to_value(summary(&usage(), &machine(), None)).unwrap();
    for key in ["network", "fs", "runtime", "rlimit", "io"] {
        assert_eq!(all["node"].get(key), None, "{key}");
    }
    for key in ["network", "volume", "ephemeral-storage", "process_stats"] {
        assert_eq!(all["pods"][0].get(key), None, "{key}");
    }
    assert_eq!(all["pods"][0]["containers"][0].get("logs"), None);
    assert_eq!(all["pods"][0]["containers"][0]["memory"]["workingSetBytes"], 40);
}
