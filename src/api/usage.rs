//! What cgroups, network interfaces and file systems were measured to have used: the raw figures from which the
//! Summary API and the metrics of kubelet and cAdvisor are made.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;

use super::ids::{ContainerId, PodFullName, PodUid, SandboxId};

/// CPU time of a cgroup, with those below it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CpuUsage {
    /// All of it, nanoseconds.
    pub total_ns: u64,
    /// In user mode, nanoseconds.
    pub user_ns: u64,
    /// In the kernel, nanoseconds.
    pub system_ns: u64,
    /// How it was held to its quota; `None` without the controller.
    pub throttling: Option<Throttling>,
    /// What it may have; `None` without the controller.
    pub limits: Option<CpuLimits>,
}

/// How often and how long a cgroup was held to its CPU quota.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods in which it ran.
    pub periods: u64,
    /// Those in which it used its quota up.
    pub throttled_periods: u64,
    /// How long its tasks were held, nanoseconds.
    pub throttled_ns: u64,
}

/// What of the CPUs a cgroup may have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuLimits {
    /// Its share against others, as v1 counts it.
    pub shares: u64,
    /// The quota's period, microseconds.
    pub period_us: u64,
    /// CPU time in a period, microseconds; `None` is no bound.
    pub quota_us: Option<u64>,
}

/// Memory of a cgroup, with those below it; bytes where nothing else is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// All that is charged to it.
    pub usage: u64,
    /// Without the page cache that nobody has looked at lately.
    pub working_set: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// Page cache.
    pub cache: u64,
    /// Files mapped into memory.
    pub mapped_file: u64,
    /// Page cache that was looked at lately.
    pub active_file: u64,
    /// The other page cache.
    pub inactive_file: u64,
    /// The kernel's own for it.
    pub kernel: Option<u64>,
    /// The most that it had.
    pub peak: Option<u64>,
    /// How often a page was not there.
    pub page_faults: u64,
    /// How often one had to be read from disk.
    pub major_page_faults: u64,
    /// How often its limit was reached.
    pub limit_hits: Option<u64>,
    /// Processes that were killed for want of memory.
    pub oom_kills: Option<u64>,
    /// The most that it may have; `None` is no bound.
    pub limit: Option<u64>,
    /// What it is to be brought back to under pressure; `None` is no bound.
    pub soft_limit: Option<u64>,
    /// Swap that it uses; `None` where that is not counted.
    pub swap: Option<u64>,
    /// The most swap that it may have; `None` is no bound.
    pub swap_limit: Option<u64>,
}

/// Tasks of a cgroup, with those below it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TaskUsage {
    /// Threads of all processes.
    pub threads: u64,
    /// How many there may be; `None` is no bound.
    pub most: Option<u64>,
}

/// What went to and from a block device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceIo {
    /// The device's file, such as `/dev/sda`; its numbers where no name is known.
    pub device: Arc<str>,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
}

/// A line of a pressure file.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Stalled {
    /// Microseconds altogether.
    pub total_us: u64,
    /// Percent of the last 10 s.
    pub avg10: f64,
    /// Percent of the last minute.
    pub avg60: f64,
    /// Percent of the last 5 minutes.
    pub avg300: f64,
}

/// For how long tasks had to wait for something (PSI).
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pressure {
    /// At least one.
    pub some: Stalled,
    /// All.
    pub full: Stalled,
}

/// What was measured of a cgroup. What the kernel does not tell is not there.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CgroupUsage {
    /// CPU time.
    pub cpu: Option<CpuUsage>,
    /// Memory.
    pub memory: Option<MemoryUsage>,
    /// Threads.
    pub tasks: Option<TaskUsage>,
    /// By block device.
    pub io: Vec<DeviceIo>,
    /// Waiting for a CPU.
    pub cpu_pressure: Option<Pressure>,
    /// Waiting for memory.
    pub memory_pressure: Option<Pressure>,
    /// Waiting for block devices.
    pub io_pressure: Option<Pressure>,
}

/// A cgroup as it was found at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Its path.
    pub cgroup: String,
    /// When.
    pub at: Timestamp,
    /// What it had used.
    pub usage: CgroupUsage,
    /// CPU time per second since the sample before, in nanoseconds.
    pub nano_cores: Option<u64>,
    /// Processes in it; `None` where they were not counted.
    pub processes: Option<u64>,
}

impl Measured {
    /// Notes the CPU time per second since an earlier measurement of the same cgroup. Nothing is noted where no time
    /// has passed, or another cgroup has got the name meanwhile.
    pub fn since(&mut self, before: &Self) {
        let total = |measured: &Self| measured.usage.cpu.as_ref().map(|cpu| cpu.total_ns);
        let Some((now, then)) = total(self).zip(total(before)) else { return };
        let passed = self.at.duration_since(before.at).as_nanos();
        let Ok(passed) = u128::try_from(passed) else { return };
        if let Some(used) = now.checked_sub(then)
            && passed > 0
        {
            self.nano_cores = u64::try_from(u128::from(used) * 1_000_000_000 / passed).ok();
        }
    }
}

/// Counters of a network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceUsage {
    /// Its name.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Errors at receiving.
    pub rx_errors: u64,
    /// Packets dropped at receiving.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Errors at sending.
    pub tx_errors: u64,
    /// Packets dropped at sending.
    pub tx_dropped: u64,
}

/// A container that runs.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerUsage {
    /// Its name in the specification.
    pub name: Arc<str>,
    /// Its id.
    pub id: ContainerId,
    /// How often it was made before.
    pub attempt: u32,
    /// The image as asked for.
    pub image: String,
    /// When it was made.
    pub created: Timestamp,
    /// When its process started.
    pub started: Timestamp,
    /// Its cgroup.
    pub measured: Measured,
}

/// A pod's sandbox.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxUsage {
    /// Its id.
    pub id: SandboxId,
    /// How often one was made before.
    pub attempt: u32,
    /// Its cgroup; `None` of a runtime that gives it none.
    pub measured: Option<Measured>,
}

/// A pod of which something runs.
#[derive(Debug, Clone, PartialEq)]
pub struct PodUsage {
    /// Its UID.
    pub uid: PodUid,
    /// Its name.
    pub name: PodFullName,
    /// When its sandbox was made.
    pub created: Timestamp,
    /// Its own cgroup; `None` where pods have none.
    pub measured: Option<Measured>,
    /// Its sandbox.
    pub sandbox: SandboxUsage,
    /// Its containers that run, by their names.
    pub containers: Vec<ContainerUsage>,
    /// When the interfaces were looked at, and their counters, the default one first; `None` on the host's network,
    /// and where they could not be read.
    pub network: Option<(Timestamp, Vec<InterfaceUsage>)>,
}

/// What runs and what it had used at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeUsage {
    /// When it was begun to measure.
    pub at: Timestamp,
    /// The root of all cgroups; `None` if nothing could be read of it.
    pub root: Option<Measured>,
    /// Those over the pods': all pods, and the classes.
    pub over_pods: Vec<Measured>,
    /// Those of the system by the names of the Summary API: `kubelet`, `runtime`, `misc`, `pods`.
    pub system: Vec<(&'static str, Measured)>,
    /// Swap of the machine: in use and free, bytes.
    pub swap: Option<(u64, u64)>,
    /// The machine's interfaces, the default one first.
    pub network: Vec<InterfaceUsage>,
    /// Processes and threads that there may be, and that there are.
    pub tasks: Option<(i64, i64)>,
    /// Pods in the order of namespace and name.
    pub pods: Vec<PodUsage>,
}

/// How full a file system is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FsUsage {
    /// The device that it is on, or the file system's own name.
    pub device: Arc<str>,
    /// Its size, bytes.
    pub capacity: u64,
    /// What is left of it for who is not root, bytes.
    pub available: u64,
    /// What is in use, bytes.
    pub used: u64,
    /// Its inodes; `None` of one that makes them as they are needed.
    pub inodes: Option<u64>,
    /// Inodes that are left.
    pub inodes_free: Option<u64>,
}

/// What something takes on a file system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes.
    pub bytes: Option<u64>,
    /// Inodes.
    pub inodes: Option<u64>,
}

impl DiskUsage {
    /// Both together; what one does not know counts as nothing.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let sum = |one: Option<u64>, two: Option<u64>| match (one, two) {
            (Some(one), Some(two)) => Some(one.saturating_add(two)),
            (one, two) => one.or(two),
        };
        Self { bytes: sum(self.bytes, other.bytes), inodes: sum(self.inodes, other.inodes) }
    }
}

/// What the runtime says that images, or containers' writable layers, take.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StoreUsage {
    /// When it looked.
    pub at: Timestamp,
    /// What they take.
    pub disk: DiskUsage,
    /// The file system that they are on; `None` if it cannot be looked at.
    pub fs: Option<FsUsage>,
}

/// What files take at one time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DisksUsage {
    /// When it was begun to look.
    pub at: Timestamp,
    /// The file system of the agent's folder.
    pub root: Option<FsUsage>,
    /// The images.
    pub images: Option<StoreUsage>,
    /// The containers' writable layers together.
    pub containers: Option<StoreUsage>,
    /// The writable layers by container.
    pub layers: BTreeMap<ContainerId, StoreUsage>,
    /// Container logs, by pod and container name.
    pub logs: BTreeMap<(PodUid, Arc<str>), DiskUsage>,
    /// The files in the pods' folders that are no volume's, by pod.
    pub pod_files: BTreeMap<PodUid, DiskUsage>,
}

impl DisksUsage {
    /// What the logs of a container take.
    pub fn log(&self, pod: &PodUid, container: &Arc<str>) -> Option<&DiskUsage> {
        self.logs.get(&(pod.clone(), Arc::clone(container)))
    }
}

/// What a volume takes.
#[derive(Debug, Clone, PartialEq)]
pub struct VolumeUsage {
    /// The volume's name.
    pub name: String,
    /// When it was looked at.
    pub at: Timestamp,
    /// What it takes.
    pub disk: DiskUsage,
    /// The file system that it is on.
    pub fs: FsUsage,
    /// Whether it is on the node's disk and counts as the pod's ephemeral storage.
    pub ephemeral: bool,
}

/// The machine, for those who tell figures of several apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachineLabels {
    /// The node's name.
    pub node: String,
    /// CPUs.
    pub cpus: u32,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Swap, bytes.
    pub swap_bytes: u64,
    /// The installed system's.
    pub machine_id: String,
    /// The firmware's.
    pub system_uuid: String,
    /// The kernel's, of this boot.
    pub boot_id: String,
    /// The kernel's release.
    pub kernel_version: String,
    /// The distribution's name and version, in words.
    pub os_image: String,
    /// When the machine was started.
    pub booted: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(second: i64, total_ns: Option<u64>) -> Measured {
        Measured {
            cgroup: "/a".into(),
            at: Timestamp::from_second(second).unwrap(),
            usage: CgroupUsage {
                cpu: total_ns.map(|total_ns| CpuUsage { total_ns, ..CpuUsage::default() }),
                ..CgroupUsage::default()
            },
            nano_cores: None,
            processes: None,
        }
    }

    #[test]
    fn the_rate_is_of_the_time_that_has_passed() {
        let cases = [
            (measured(10, Some(1_000)), measured(20, Some(5_000_001_000)), Some(500_000_000)),
            (measured(10, Some(1_000)), measured(10, Some(2_000)), None),
            (measured(20, Some(1_000)), measured(10, Some(2_000)), None),
            (measured(10, Some(2_000)), measured(20, Some(1_000)), None),
            (measured(10, None), measured(20, Some(1_000)), None),
            (measured(10, Some(7)), measured(20, Some(7)), Some(0)),
            (measured(0, Some(0)), measured(1, Some(u64::MAX)), Some(u64::MAX)),
        ];
        for (before, mut now, rate) in cases {
            now.since(&before);
            assert_eq!(now.nano_cores, rate, "{before:?} {now:?}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_counted() {
        let usage = |bytes, inodes| DiskUsage { bytes, inodes };
        assert_eq!(usage(Some(1), None).plus(&usage(Some(2), Some(3))), usage(Some(3), Some(3)));
        assert_eq!(DiskUsage::default().plus(&DiskUsage::default()), DiskUsage::default());
        assert_eq!(usage(Some(u64::MAX), None).plus(&usage(Some(2), None)).bytes, Some(u64::MAX));
    }
}
