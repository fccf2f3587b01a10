//! Samples over folders of our own: which cgroups are looked at, and what is made of them.

use std::fs;

use super::*;
use crate::{
    agent::clock::Clock,
    api::{ObservedSandbox, PodFullName},
    config::CgroupDriver,
    policy::testing,
};

struct World {
    root: tempfile::TempDir,
    places: Places,
}

impl World {
    /// A v2 machine.
    fn new(driver: CgroupDriver, per_qos: bool) -> Self {
        let root = tempfile::tempdir().unwrap();
        let point = root.path().join("cgroup");
        fs::create_dir_all(&point).unwrap();
        let mountinfo = root.path().join("mountinfo");
        fs::write(&mountinfo, format!("1 0 0:1 / {} rw - cgroup2 cgroup rw\n", point.display())).unwrap();
        let places = Places {
            mounts: CgroupMounts::find(&mountinfo).unwrap(),
            layout: CgroupLayout { driver, root: String::new(), per_qos },
            proc_root: root.path().join("proc"),
            system: vec![("pods", "/kubepods".into()), ("kubelet", "/none".into())],
            most_tasks: 100,
            clock: Clock::simulated("2024-01-01T00:00:00Z".parse().unwrap()),
        };
        let world = Self { root, places };
        world.cgroup("/", 1_000_000, &[]);
        world
    }

    /// A cgroup that has used so many microseconds of CPU time.
    fn cgroup(&self, path: &str, cpu_us: u64, pids: &[i32]) {
        let folder = self.root.path().join("cgroup").join(path.trim_start_matches('/'));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("cpu.stat"), format!("usage_usec {cpu_us}\n")).unwrap();
        let pids: String = pids.iter().map(|pid| format!("{pid}\n")).collect();
        fs::write(folder.join("cgroup.procs"), pids).unwrap();
    }

    fn net(&self, of: &str, rx: u64) {
        let folder = self.root.path().join("proc").join(of);
        fs::create_dir_all(&folder).unwrap();
        let rows: String = (0..40).map(|n| format!("x{n}: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n")).collect();
        fs::write(folder.join("dev"), format!("{rows}eth0: {rx} 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n")).unwrap();
    }

    fn take(&self, pods: &[PodObservation], before: Option<&NodeUsage>) -> NodeUsage {
        let pods: Vec<_> = pods.iter().cloned().map(Arc::new).collect();
        take(&self.places, &pods, before)
    }
}

fn sandbox(id: &str) -> ObservedSandbox {
    testing::sandbox(id, 0)
}

fn running(name: &str, id: &str) -> ObservedContainer {
    ObservedContainer { id: id.into(), ..testing::container(name, "sb") }
}

#[tokio::test(start_paused = true)]
async fn pods_are_found_with_their_containers_and_rates_follow() {
    let world = World::new(CgroupDriver::Systemd, true);
    let own = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podu.slice";
    world.cgroup("/kubepods.slice", 500, &[]);
    world.cgroup("/kubepods.slice/kubepods-burstable.slice", 400, &[]);
    world.cgroup(own, 300, &[]);
    world.cgroup(&format!("{own}/cri-containerd-sb.scope"), 10, &[41]);
    world.cgroup(&format!("{own}/cri-containerd-c1.scope"), 200, &[77, 78]);
    world.cgroup(&format!("{own}/cri-containerd-c0.scope"), 5, &[]);
    world.net("41/net", 7);
    world.net("net", 9);
    let ended = testing::exited("a", "sb", 1, 5);
    let gone = running("gone", "not-there");
    let pod = testing::observed(vec![sandbox("sb")], vec![running("a", "c1"), ended, gone]);
    let first = world.take(std::slice::from_ref(&pod), None);
    let found = &first.pods[0];
    assert_eq!(found.measured.as_ref().unwrap().cgroup, own);
    assert_eq!(found.containers.len(), 1);
    let container = &found.containers[0];
    assert_eq!((container.id.as_str(), container.measured.processes), ("c1", Some(2)));
    assert_eq!(container.measured.usage.cpu.as_ref().unwrap().total_ns, 200_000);
    assert_eq!(container.measured.nano_cores, None, "the first time there is no rate");
    assert_eq!(found.sandbox.measured.as_ref().unwrap().processes, Some(1));
    let (_, interfaces) = found.network.as_ref().unwrap();
    assert_eq!((interfaces[0].name.as_str(), interfaces[0].rx_bytes), ("eth0", 7));
    assert_eq!(interfaces.len(), MAX_POD_INTERFACES, "a pod may make any number of them");
    assert_eq!((first.network[0].name.as_str(), first.network[0].rx_bytes), ("eth0", 9));
    let over: Vec<_> = first.over_pods.iter().map(|measured| measured.cgroup.as_str()).collect();
    assert_eq!(over, ["/kubepods.slice", "/kubepods.slice/kubepods-burstable.slice"]);
    assert_eq!(first.system, [], "what is not there is left out");

    tokio::time::advance(std::time::Duration::from_secs(10)).await;
    world.cgroup(&format!("{own}/cri-containerd-c1.scope"), 5_000_200, &[77]);
    let second = world.take(&[pod], Some(&first));
    assert_eq!(second.pods[0].containers[0].measured.nano_cores, Some(500_000_000), "half a CPU");
    assert_eq!(second.root.unwrap().nano_cores, Some(0));
}

#[tokio::test(start_paused = true)]
async fn only_what_runs_is_told() {
    let world = World::new(CgroupDriver::Cgroupfs, true);
    world.cgroup("/kubepods/podu/sb", 1, &[41]);
    world.cgroup("/kubepods/podu/c1", 1, &[42]);
    world.net("41/net", 1);
    let mut stopped = sandbox("sb");
    stopped.state = SandboxState::NotReady;
    let dead = testing::observed(vec![stopped], vec![running("a", "c1")]);
    let empty = PodObservation::empty("v".into(), PodFullName::new("default", "q"), Timestamp::UNIX_EPOCH);
    assert_eq!(world.take(&[dead, empty], None).pods, []);

    let mut host = sandbox("sb");
    host.host_network = true;
    let pod = testing::observed(vec![host], vec![running("a", "c1")]);
    let usage = world.take(&[pod], None);
    assert_eq!(usage.pods[0].network, None, "the host's network is not the pod's");
    assert_eq!(usage.pods[0].containers.len(), 1);
    assert_eq!((usage.tasks, usage.swap), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_another_ones_by_now_is_not_believed() {
    let world = World::new(CgroupDriver::Cgroupfs, true);
    // The sandbox's process has ended, and nothing is known of its network; a container has one.
    world.cgroup("/kubepods/podu/sb", 1, &[]);
    world.cgroup("/kubepods/podu/c1", 1, &[50, 49]);
    world.net("49/net", 3);
    let pod = testing::observed(vec![sandbox("sb")], vec![running("a", "c1")]);
    let usage = world.take(std::slice::from_ref(&pod), None);
    assert_eq!(usage.pods[0].network.as_ref().unwrap().1[0].rx_bytes, 3);
    world.cgroup("/kubepods/podu/c1", 1, &[]);
    assert_eq!(world.take(&[pod], None).pods[0].network, None);
}

#[tokio::test(start_paused = true)]
async fn without_pod_cgroups_containers_are_where_runtimes_put_them() {
    let world = World::new(CgroupDriver::Cgroupfs, false);
    world.cgroup("/k8s.io/c1", 3, &[42]);
    world.cgroup("/system.slice/cri-containerd-c2.scope", 4, &[43]);
    world.cgroup("/kubepods", 4, &[]);
    let pod = testing::observed(vec![sandbox("sb")], vec![running("a", "c1"), running("b", "c2")]);
    let usage = world.take(&[pod], None);
    let found: Vec<_> =
        usage.pods[0].containers.iter().map(|container| container.measured.cgroup.as_str()).collect();
    assert_eq!(found, ["/k8s.io/c1", "/system.slice/cri-containerd-c2.scope"]);
    assert!(usage.pods[0].measured.is_none() && usage.over_pods.is_empty());
    assert_eq!(usage.system[0].0, "pods");
}
