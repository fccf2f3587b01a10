//! The Summary API's figures from what was measured, as kubelet makes them (`pkg/kubelet/stats`), and which cgroup is a
//! container's.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::api::{
    PodUid,
    stats::{
        ContainerStats, CpuStats, FsStats, InterfaceStats, IoStats, MemoryStats, NetworkStats, NodeStats,
        PodReference, PodStats, ProcessStats, PsiData, PsiStats, RlimitStats, RuntimeStats, Summary,
        SwapStats, Time, VolumeStats,
    },
    usage::{
        ContainerUsage, DiskUsage, DisksUsage, FsUsage, InterfaceUsage, MachineLabels, Measured, NodeUsage,
        PodUsage, Pressure, Stalled, StoreUsage, VolumeUsage,
    },
};

/// What pods' volumes take, by pod.
pub type Volumes = BTreeMap<PodUid, Vec<VolumeUsage>>;

/// What the whole of `/stats/summary` is made of besides cgroups and interfaces.
#[derive(Debug, Clone, Copy)]
pub struct Storage<'a> {
    /// Files.
    pub disks: &'a DisksUsage,
    /// Volumes.
    pub volumes: &'a Volumes,
}

/// Which of the cgroups right below a pod's is the container's (or the sandbox's) of an id. Runtimes name them by the
/// id alone, or put their own name before it: `cri-containerd-ID.scope`, `crio-ID`. CRI-O has another one for what
/// watches a container.
#[must_use]
pub fn cgroup_of<'n>(names: &'n [String], id: &str) -> Option<&'n str> {
    let of_id = |name: &&String| {
        let plain = name.strip_suffix(".scope").unwrap_or(name);
        let before = plain.strip_suffix(id);
        before
            .is_some_and(|before| before.is_empty() || (before.ends_with('-') && !before.contains("conmon")))
    };
    names.iter().find(of_id).map(String::as_str)
}

/// The answer; without `storage` that of `only_cpu_and_memory`.
#[must_use]
pub fn summary(usage: &NodeUsage, machine: &MachineLabels, storage: Option<Storage<'_>>) -> Summary {
    Summary {
        node: node(usage, machine, storage),
        pods: usage.pods.iter().map(|one| pod(one, storage)).collect(),
    }
}

fn node(usage: &NodeUsage, machine: &MachineLabels, storage: Option<Storage<'_>>) -> NodeStats {
    let booted = Time(machine.booted);
    let root = usage.root.as_ref();
    let system = usage.system.iter().map(|(name, measured)| cgroup(name, booted, measured));
    let memory = root.and_then(memory).map(|memory| MemoryStats {
        available_bytes: memory.working_set_bytes.map(|used| machine.memory_bytes.saturating_sub(used)),
        ..memory
    });
    let swap = usage.swap.map(|(used, free)| SwapStats {
        time: Time(usage.at),
        swap_available_bytes: Some(free),
        swap_usage_bytes: Some(used),
    });
    let mut stats = NodeStats {
        node_name: machine.node.clone(),
        system_containers: system.collect(),
        start_time: booted,
        cpu: root.and_then(cpu),
        memory,
        io: None,
        network: None,
        fs: None,
        runtime: None,
        rlimit: None,
        swap,
    };
    if let Some(Storage { disks, .. }) = storage {
        stats.io = root.and_then(io);
        stats.network = network(usage.at, &usage.network);
        stats.fs = disks.root.as_ref().map(|fs| FsStats {
            used_bytes: Some(fs.used),
            inodes_used: used_inodes(fs),
            ..on(fs, disks.at)
        });
        let store = |store: &Option<StoreUsage>| store.as_ref().map(|store| takes(store, disks.at));
        stats.runtime = disks.images.is_some().then(|| RuntimeStats {
            image_fs: store(&disks.images),
            // Without a store of their own they are in that of the images.
            container_fs: store(&disks.containers).or_else(|| store(&disks.images)),
        });
        stats.rlimit = usage.tasks.map(|(most, now)| RlimitStats {
            time: Time(usage.at),
            maxpid: Some(most).filter(|most| *most > 0),
            curproc: Some(now),
        });
    }
    stats
}

fn pod(usage: &PodUsage, storage: Option<Storage<'_>>) -> PodStats {
    let containers: Vec<ContainerStats> =
        usage.containers.iter().map(|one| container(&usage.uid, one, storage)).collect();
    let measured = usage.measured.as_ref();
    let mut stats = PodStats {
        pod_ref: PodReference {
            name: usage.name.name.to_string(),
            namespace: usage.name.namespace.to_string(),
            uid: usage.uid.as_str().to_owned(),
        },
        start_time: Time(usage.created),
        cpu: measured.map_or_else(|| sum_cpu(&containers), cpu),
        memory: measured.map_or_else(|| sum_memory(&containers), memory),
        io: None,
        network: None,
        volume_stats: Vec::new(),
        ephemeral_storage: None,
        process_stats: None,
        swap: measured.map_or_else(|| sum_swap(&containers), swap),
        containers,
    };
    if let Some(Storage { disks, volumes }) = storage {
        let volumes: &[VolumeUsage] = volumes.get(&usage.uid).map(Vec::as_slice).unwrap_or_default();
        stats.io = measured.and_then(io);
        stats.network = usage.network.as_ref().and_then(|(at, interfaces)| network(*at, interfaces));
        stats.volume_stats = volumes.iter().map(volume).collect();
        stats.ephemeral_storage = disks.root.as_ref().map(|fs| {
            let all = ephemeral(usage, disks, volumes);
            FsStats { used_bytes: all.bytes, inodes_used: all.inodes, ..on(fs, disks.at) }
        });
        let processes = usage.containers.iter().filter_map(|container| container.measured.processes);
        stats.process_stats =
            processes.reduce(u64::saturating_add).map(|process_count| ProcessStats { process_count });
    }
    stats
}

/// What counts as the pod's ephemeral storage.
fn ephemeral(usage: &PodUsage, disks: &DisksUsage, volumes: &[VolumeUsage]) -> DiskUsage {
    let of_containers = usage.containers.iter().flat_map(|container| {
        let layer = disks.layers.get(&container.id).map(|layer| &layer.disk);
        layer.into_iter().chain(disks.log(&usage.uid, &container.name))
    });
    let of_volumes = volumes.iter().filter(|volume| volume.ephemeral).map(|volume| &volume.disk);
    let all = of_containers.chain(of_volumes).chain(disks.pod_files.get(&usage.uid));
    all.fold(DiskUsage::default(), |sum, one| sum.plus(one))
}

fn container(uid: &PodUid, usage: &ContainerUsage, storage: Option<Storage<'_>>) -> ContainerStats {
    let mut stats = cgroup(&usage.name, Time(usage.created), &usage.measured);
    if let Some(Storage { disks, .. }) = storage {
        stats.io = io(&usage.measured);
        stats.rootfs = disks.layers.get(&usage.id).map(|layer| takes(layer, disks.at));
        let log = disks.log(uid, &usage.name);
        stats.logs = log.zip(disks.root.as_ref()).map(|(log, fs)| FsStats {
            used_bytes: log.bytes,
            inodes_used: log.inodes,
            ..on(fs, disks.at)
        });
    }
    stats
}

fn cgroup(name: &str, start_time: Time, measured: &Measured) -> ContainerStats {
    ContainerStats {
        name: name.to_owned(),
        start_time,
        cpu: cpu(measured),
        memory: memory(measured),
        io: None,
        rootfs: None,
        logs: None,
        swap: swap(measured),
    }
}

fn cpu(measured: &Measured) -> Option<CpuStats> {
    let cpu = measured.usage.cpu.as_ref()?;
    Some(CpuStats {
        time: Time(measured.at),
        usage_nano_cores: measured.nano_cores,
        usage_core_nano_seconds: Some(cpu.total_ns),
        psi: measured.usage.cpu_pressure.map(psi),
    })
}

fn memory(measured: &Measured) -> Option<MemoryStats> {
    let memory = measured.usage.memory.as_ref()?;
    Some(MemoryStats {
        time: Time(measured.at),
        available_bytes: memory.limit.map(|limit| limit.saturating_sub(memory.working_set)),
        usage_bytes: Some(memory.usage),
        working_set_bytes: Some(memory.working_set),
        rss_bytes: Some(memory.rss),
        page_faults: Some(memory.page_faults),
        major_page_faults: Some(memory.major_page_faults),
        psi: measured.usage.memory_pressure.map(psi),
    })
}

fn swap(measured: &Measured) -> Option<SwapStats> {
    let memory = measured.usage.memory.as_ref()?;
    let used = memory.swap?;
    Some(SwapStats {
        time: Time(measured.at),
        swap_available_bytes: memory.swap_limit.map(|limit| limit.saturating_sub(used)),
        swap_usage_bytes: Some(used),
    })
}

fn io(measured: &Measured) -> Option<IoStats> {
    let pressure = measured.usage.io_pressure?;
    Some(IoStats { time: Time(measured.at), psi: Some(psi(pressure)) })
}

fn psi(pressure: Pressure) -> PsiStats {
    let data = |line: Stalled| PsiData {
        total: line.total_us,
        avg10: line.avg10,
        avg60: line.avg60,
        avg300: line.avg300,
    };
    PsiStats { full: data(pressure.full), some: data(pressure.some) }
}

fn sum(values: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    values.flatten().reduce(u64::saturating_add)
}

/// Where pods have no cgroups of their own, what their containers have used is theirs.
fn sum_cpu(containers: &[ContainerStats]) -> Option<CpuStats> {
    let all = || containers.iter().filter_map(|container| container.cpu.as_ref());
    Some(CpuStats {
        time: all().map(|cpu| cpu.time).max()?,
        usage_nano_cores: sum(all().map(|cpu| cpu.usage_nano_cores)),
        usage_core_nano_seconds: sum(all().map(|cpu| cpu.usage_core_nano_seconds)),
        psi: None,
    })
}

fn sum_memory(containers: &[ContainerStats]) -> Option<MemoryStats> {
    let all = || containers.iter().filter_map(|container| container.memory.as_ref());
    Some(MemoryStats {
        time: all().map(|memory| memory.time).max()?,
        available_bytes: None,
        usage_bytes: sum(all().map(|memory| memory.usage_bytes)),
        working_set_bytes: sum(all().map(|memory| memory.working_set_bytes)),
        rss_bytes: sum(all().map(|memory| memory.rss_bytes)),
        page_faults: sum(all().map(|memory| memory.page_faults)),
        major_page_faults: sum(all().map(|memory| memory.major_page_faults)),
        psi: None,
    })
}

fn sum_swap(containers: &[ContainerStats]) -> Option<SwapStats> {
    let all = || containers.iter().filter_map(|container| container.swap.as_ref());
    Some(SwapStats {
        time: all().map(|swap| swap.time).max()?,
        swap_available_bytes: None,
        swap_usage_bytes: sum(all().map(|swap| swap.swap_usage_bytes)),
    })
}

fn network(at: Timestamp, interfaces: &[InterfaceUsage]) -> Option<NetworkStats> {
    let one = |usage: &InterfaceUsage| InterfaceStats {
        name: usage.name.clone(),
        rx_bytes: Some(usage.rx_bytes),
        rx_errors: Some(usage.rx_errors),
        tx_bytes: Some(usage.tx_bytes),
        tx_errors: Some(usage.tx_errors),
    };
    Some(NetworkStats {
        time: Time(at),
        default: one(interfaces.first()?),
        interfaces: interfaces.iter().map(one).collect(),
    })
}

/// What a file system has, without what anything takes on it.
fn on(fs: &FsUsage, at: Timestamp) -> FsStats {
    FsStats {
        time: Time(at),
        available_bytes: Some(fs.available),
        capacity_bytes: Some(fs.capacity),
        used_bytes: None,
        inodes_free: fs.inodes_free,
        inodes: fs.inodes,
        inodes_used: None,
    }
}

fn used_inodes(fs: &FsUsage) -> Option<u64> {
    Some(fs.inodes?.saturating_sub(fs.inodes_free?))
}

fn takes(store: &StoreUsage, at: Timestamp) -> FsStats {
    FsStats {
        time: Time(store.at),
        used_bytes: store.disk.bytes,
        inodes_used: store.disk.inodes,
        ..store.fs.as_ref().map(|fs| on(fs, at)).unwrap_or_default()
    }
}

fn volume(usage: &VolumeUsage) -> VolumeStats {
    VolumeStats {
        fs: FsStats {
            used_bytes: usage.disk.bytes,
            inodes_used: usage.disk.inodes,
            ..on(&usage.fs, usage.at)
        },
        name: usage.name.clone(),
    }
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
