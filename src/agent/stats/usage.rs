//! A sample of cgroups and interfaces: of the node, its pods and their containers.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;

use crate::{
    agent::clock::Clock,
    api::{
        ContainerState, ObservedContainer, PodObservation, SandboxState,
        usage::{ContainerUsage, InterfaceUsage, Measured, NodeUsage, PodUsage, SandboxUsage},
    },
    host::{
        capacity::tasks,
        cgroup::{CgroupMounts, Devices},
        net_dev,
        read::read_bounded,
    },
    policy::{cgroup::CgroupLayout, qos::QosClass, stats::cgroup_of},
};

/// Interfaces of a pod that are told. A container with the right to may make any number.
const MAX_POD_INTERFACES: usize = 16;
/// Where runtimes put the containers of pods that have no cgroup of their own.
const OF_RUNTIMES: [&str; 3] = ["/k8s.io", "/system.slice", "/"];
/// Bytes of `/proc/meminfo` at most.
const MAX_MEMINFO: usize = 64 << 10;

/// Where to look.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// The cgroup file systems.
    pub(super) mounts: CgroupMounts,
    /// Where pods' cgroups are.
    pub(super) layout: CgroupLayout,
    /// `/proc`.
    pub(super) proc_root: PathBuf,
    /// The system's own cgroups, by the names of the Summary API.
    pub(super) system: Vec<(&'static str, String)>,
    /// How many processes and threads the kernel allows; 0 where it does not tell.
    pub(super) most_tasks: i64,
    /// The time of day.
    pub(super) clock: Clock,
}

/// What is needed besides while a sample is taken.
struct Taking<'a> {
    places: &'a Places,
    devices: Devices,
    before: HashMap<&'a str, &'a Measured>,
}

/// Takes a sample; rates are of the time since the one before. Blocks on the file system.
pub(super) fn take(places: &Places, pods: &[Arc<PodObservation>], before: Option<&NodeUsage>) -> NodeUsage {
    let before =
        before.into_iter().flat_map(all).map(|measured| (measured.cgroup.as_str(), measured)).collect();
    let mut taking = Taking { places, devices: Devices::default(), before };
    let at = places.clock.now();
    let layout = &places.layout;
    let over_pods = if layout.per_qos {
        [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort]
            .into_iter()
            .filter_map(|class| taking.measure(&layout.class_path(class)))
            .collect()
    } else {
        Vec::new()
    };
    let mut found: Vec<PodUsage> = pods.iter().filter_map(|pod| taking.pod(pod)).collect();
    found.sort_by(|a, b| {
        (&a.name.namespace, &a.name.name, &a.created).cmp(&(&b.name.namespace, &b.name.name, &b.created))
    });
    NodeUsage {
        at,
        root: taking.measure("/"),
        over_pods,
        system: places
            .system
            .iter()
            .filter_map(|(name, cgroup)| Some((*name, taking.measure(cgroup)?)))
            .collect(),
        swap: swap(&places.proc_root),
        network: net_dev::of_node(&places.proc_root).unwrap_or_default(),
        tasks: tasks(&places.proc_root).ok().map(|now| (places.most_tasks, now)),
        pods: found,
    }
}

/// Every cgroup of a sample.
fn all(usage: &NodeUsage) -> impl Iterator<Item = &Measured> {
    let of_pods = usage.pods.iter().flat_map(|pod| {
        let containers = pod.containers.iter().map(|container| &container.measured);
        pod.measured.iter().chain(&pod.sandbox.measured).chain(containers)
    });
    let system = usage.system.iter().map(|(_, measured)| measured);
    usage.root.iter().chain(&usage.over_pods).chain(system).chain(of_pods)
}

impl Taking<'_> {
    fn measure(&mut self, cgroup: &str) -> Option<Measured> {
        let usage = self.places.mounts.usage(cgroup, &mut self.devices)?;
        let at = self.places.clock.now();
        let mut measured =
            Measured { cgroup: cgroup.to_owned(), at, usage, nano_cores: None, processes: None };
        if let Some(before) = self.before.get(cgroup) {
            measured.since(before);
        }
        Some(measured)
    }

    /// The same with a count of its processes.
    fn measure_with_processes(&mut self, cgroup: &str) -> Option<Measured> {
        let processes = self.places.mounts.processes_of(cgroup);
        let processes = processes.and_then(|all| u64::try_from(all.len()).ok());
        Some(Measured { processes, ..self.measure(cgroup)? })
    }

    /// A pod of which something runs, and its containers whose cgroups are found.
    fn pod(&mut self, pod: &PodObservation) -> Option<PodUsage> {
        let sandbox = pod.newest_sandbox().filter(|sandbox| sandbox.state == SandboxState::Ready)?;
        let (own, below) = self.folders(pod);
        let measured = own.as_deref().and_then(|own| self.measure(own));
        let path = |id: &str| {
            below.iter().find_map(|(parent, names)| {
                let name = cgroup_of(names, id)?;
                Some(format!("{}/{name}", parent.trim_end_matches('/')))
            })
        };
        let of_sandbox = path(sandbox.id.as_str());
        let mut containers: Vec<(&ObservedContainer, String)> = Vec::new();
        for container in &pod.containers {
            let runs = container.state == ContainerState::Running && container.sandbox_id == sandbox.id;
            let twice = containers.iter().any(|(other, _)| other.name == container.name);
            if runs
                && !twice
                && let Some(path) = path(container.id.as_str())
            {
                containers.push((container, path));
            }
        }
        containers.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        let network = if sandbox.host_network {
            None
        } else {
            let cgroups = of_sandbox.iter().chain(containers.iter().map(|(_, path)| path));
            cgroups.into_iter().find_map(|cgroup| self.network(cgroup))
        };
        let containers = containers.into_iter().filter_map(|(container, path)| {
            Some(ContainerUsage {
                name: Arc::clone(&container.name),
                id: container.id.clone(),
                attempt: container.attempt,
                image: container.image.clone(),
                created: container.created_at,
                started: container.started_at.unwrap_or(container.created_at),
                measured: self.measure_with_processes(&path)?,
            })
        });
        let containers = containers.collect();
        Some(PodUsage {
            uid: pod.uid.clone(),
            name: pod.full_name.clone(),
            created: sandbox.created_at,
            measured,
            sandbox: SandboxUsage {
                id: sandbox.id.clone(),
                attempt: sandbox.attempt,
                measured: of_sandbox.and_then(|path| self.measure_with_processes(&path)),
            },
            containers,
            network,
        })
    }

    /// The pod's own cgroup, and those below which its containers may be, with the names that are there.
    fn folders(&self, pod: &PodObservation) -> (Option<String>, Vec<(String, Vec<String>)>) {
        let Places { mounts, layout, .. } = self.places;
        let with_names = |parent: String| {
            let names = mounts.counted_below(&parent);
            (parent, names)
        };
        if !layout.per_qos {
            let root = (!matches!(layout.root.as_str(), "" | "/")).then(|| layout.root.clone());
            let parents = root.into_iter().chain(OF_RUNTIMES.map(str::to_owned));
            return (None, parents.map(with_names).collect());
        }
        let own = layout.pod_candidates(&pod.uid).into_iter().find(|path| mounts.is_counted(path));
        (own.clone(), own.into_iter().map(with_names).collect())
    }

    /// The interfaces that a process of the cgroup has, if it is still in there afterwards: else the number may be
    /// that of another process by now.
    fn network(&self, cgroup: &str) -> Option<(Timestamp, Vec<InterfaceUsage>)> {
        let mounts = &self.places.mounts;
        let pid = mounts.processes_of(cgroup)?.into_iter().min()?;
        let mut found = net_dev::of_process(&self.places.proc_root, pid).ok()?;
        let at = self.places.clock.now();
        if !mounts.processes_of(cgroup)?.contains(&pid) {
            return None;
        }
        found.truncate(MAX_POD_INTERFACES);
        Some((at, found))
    }
}

/// The machine's swap, in use and free, bytes; `None` where it is not told.
fn swap(proc_root: &Path) -> Option<(u64, u64)> {
    let bytes = read_bounded(&proc_root.join("meminfo"), MAX_MEMINFO).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let bytes = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.saturating_mul(1024))
    };
    let (total, free) = (bytes("SwapTotal")?, bytes("SwapFree")?);
    Some((total.saturating_sub(free), free))
}

#[cfg(test)]
#[path = "usage_tests.rs"]
mod tests;
