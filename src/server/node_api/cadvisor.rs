//! `/metrics/cadvisor`: figures of cgroups under cAdvisor's names and labels, as kubelet tells them
//! (cadvisor/metrics/prometheus.go).
//!
//! Each cgroup has the same labels. `container` is empty but for containers, `pod` and `namespace` but for what is a
//! pod's, `image` but for containers; so a sum over `container!=""` counts nothing twice.

mod kinds;

use self::kinds as k;
use super::families::{Families, Kind, number, seconds, since_epoch};
use crate::api::usage::{
    CpuUsage, DiskUsage, DisksUsage, FsUsage, InterfaceUsage, MachineLabels, Measured, MemoryUsage,
    NodeUsage, PodUsage, Pressure,
};

/// What a series is of.
#[derive(Debug, Clone, Copy, Default)]
struct Of<'a> {
    id: &'a str,
    name: &'a str,
    image: &'a str,
    namespace: &'a str,
    pod: &'a str,
    container: &'a str,
}

/// Puts series of one thing among all.
struct Writer<'f, 'a> {
    families: &'f mut Families,
    of: Of<'a>,
    measured: &'a Measured,
}

/// All of them.
pub(super) fn families(usage: Option<&NodeUsage>, disks: &DisksUsage, machine: &MachineLabels) -> Families {
    let mut families = Families::default();
    let root = usage.and_then(|usage| usage.root.as_ref());
    families.add(k::SCRAPE_ERROR, &[], if root.is_some() { 0.0 } else { 1.0 }, None);
    add_machine(&mut families, machine);
    let Some(usage) = usage else { return families };
    if let Some(root) = root {
        let of = Of { id: "/", ..Of::default() };
        let mut writer = Writer { families: &mut families, of, measured: root };
        writer.cgroup(since_epoch(machine.booted));
        writer.network(&usage.network, usage.at);
        writer.memory_limit(machine.memory_bytes, machine.swap_bytes);
        if let Some(fs) = &disks.root {
            writer.fs(fs, &DiskUsage { bytes: Some(fs.used), inodes: None }, disks.at);
        }
    }
    let system = usage.system.iter().map(|(_, measured)| measured);
    let over: Vec<&Measured> = usage.over_pods.iter().chain(system).collect();
    for (n, measured) in over.iter().enumerate() {
        // The cgroup of all pods is one of the system's as well.
        if !over[..n].iter().any(|other| other.cgroup == measured.cgroup) {
            let of = Of { id: &measured.cgroup, ..Of::default() };
            Writer { families: &mut families, of, measured }.cgroup(since_epoch(machine.booted));
        }
    }
    for pod in &usage.pods {
        add_pod(&mut families, pod, disks);
    }
    families
}

fn add_machine(families: &mut Families, machine: &MachineLabels) {
    let labels = [
        ("boot_id", machine.boot_id.as_str()),
        ("machine_id", machine.machine_id.as_str()),
        ("system_uuid", machine.system_uuid.as_str()),
    ];
    families.add(k::MACHINE_CPUS, &labels, f64::from(machine.cpus), None);
    families.add(k::MACHINE_MEMORY, &labels, number(machine.memory_bytes), None);
    families.add(k::MACHINE_SWAP, &labels, number(machine.swap_bytes), None);
    families.add(k::MACHINE_SCRAPE_ERROR, &[], 0.0, None);
    let version = [
        ("cadvisorRevision", ""),
        ("cadvisorVersion", ""),
        ("dockerVersion", ""),
        ("kernelVersion", machine.kernel_version.as_str()),
        ("osVersion", machine.os_image.as_str()),
    ];
    families.add(k::VERSION, &version, 1.0, None);
}

fn add_pod(families: &mut Families, pod: &PodUsage, disks: &DisksUsage) {
    let of = Of { namespace: &pod.name.namespace, pod: &pod.name.name, ..Of::default() };
    if let Some(measured) = &pod.measured {
        let of = Of { id: &measured.cgroup, ..of };
        Writer { families, of, measured }.cgroup(since_epoch(pod.created));
    }
    let uid = pod.uid.as_str();
    if let Some(measured) = &pod.sandbox.measured {
        let (name, docker) = named(measured, pod.sandbox.id.as_str(), || {
            format!("k8s_POD_{}_{}_{uid}_{}", pod.name.name, pod.name.namespace, pod.sandbox.attempt)
        });
        let container = if docker { "POD" } else { "" };
        let of = Of { id: &measured.cgroup, name: &name, container, ..of };
        let mut writer = Writer { families, of, measured };
        writer.cgroup(since_epoch(pod.created));
        if let Some((at, interfaces)) = &pod.network {
            writer.network(interfaces, *at);
        }
    } else if let (Some((at, interfaces)), Some(container)) = (&pod.network, pod.containers.first()) {
        // A runtime that runs nothing for the sandbox itself: the network is told once, with the pod.
        let measured = pod.measured.as_ref().unwrap_or(&container.measured);
        let of = Of { id: &measured.cgroup, ..of };
        Writer { families, of, measured }.network(interfaces, *at);
    }
    for container in &pod.containers {
        let (name, _) = named(&container.measured, container.id.as_str(), || {
            let (pod, namespace) = (&pod.name.name, &pod.name.namespace);
            format!("k8s_{}_{pod}_{namespace}_{uid}_{}", container.name, container.attempt)
        });
        let measured = &container.measured;
        let of = Of {
            id: &measured.cgroup,
            name: &name,
            image: &container.image,
            container: &container.name,
            ..of
        };
        let mut writer = Writer { families, of, measured };
        writer.cgroup(since_epoch(container.started));
        let Some(layer) = disks.layers.get(&container.id) else { continue };
        if let Some(fs) = &layer.fs {
            let log = disks.log(&pod.uid, &container.name);
            let both = log.map_or_else(|| layer.disk.clone(), |log| layer.disk.plus(log));
            writer.fs(fs, &both, layer.at);
        }
    }
}

/// The `name` of a container, and whether names are as Docker's were, with a container `POD` for the sandbox: so it is
/// with CRI-O. With others the name is the id, and the sandbox is no container.
fn named(measured: &Measured, id: &str, docker: impl FnOnce() -> String) -> (String, bool) {
    let last = measured.cgroup.rsplit('/').next().unwrap_or_default();
    if last.starts_with("crio-") { (docker(), true) } else { (id.to_owned(), false) }
}

impl Writer<'_, '_> {
    fn add(&mut self, kind: Kind, more: &[(&str, &str)], value: f64) {
        self.add_at(kind, more, value, Some(self.measured.at));
    }

    fn add_at(&mut self, kind: Kind, more: &[(&str, &str)], value: f64, at: Option<jiff::Timestamp>) {
        let Of { id, name, image, namespace, pod, container } = self.of;
        let mut labels = Vec::with_capacity(8);
        labels.extend([("container", container), ("id", id), ("image", image), ("name", name)]);
        labels.extend([("namespace", namespace), ("pod", pod)]);
        labels.extend_from_slice(more);
        self.families.add(kind, &labels, value, at);
    }

    fn some(&mut self, kind: Kind, value: Option<u64>) {
        if let Some(value) = value {
            self.add(kind, &[], number(value));
        }
    }

    /// What every cgroup has.
    fn cgroup(&mut self, started: f64) {
        let Measured { at, usage, processes, .. } = self.measured;
        self.add(k::LAST_SEEN, &[], since_epoch(*at).floor());
        self.add_at(k::START_TIME, &[], started, None);
        if let Some(cpu) = &usage.cpu {
            self.cpu(cpu);
        }
        if let Some(memory) = &usage.memory {
            self.memory(memory);
        }
        self.some(k::PROCESSES, *processes);
        if let Some(tasks) = usage.tasks {
            self.add(k::THREADS, &[], number(tasks.threads));
            self.add(k::THREADS_MAX, &[], number(tasks.most.unwrap_or(0)));
        }
        for io in &usage.io {
            let device = [("device", &*io.device)];
            self.add(k::READ_BYTES, &device, number(io.read_bytes));
            self.add(k::READS, &device, number(io.reads));
            self.add(k::WRITTEN_BYTES, &device, number(io.written_bytes));
            self.add(k::WRITES, &device, number(io.writes));
        }
        self.pressure([k::CPU_WAITING, k::CPU_STALLED], usage.cpu_pressure);
        self.pressure([k::MEMORY_WAITING, k::MEMORY_STALLED], usage.memory_pressure);
        self.pressure([k::IO_WAITING, k::IO_STALLED], usage.io_pressure);
    }

    fn cpu(&mut self, cpu: &CpuUsage) {
        self.add(k::CPU, &[("cpu", "total")], seconds(cpu.total_ns));
        self.add(k::CPU_USER, &[], seconds(cpu.user_ns));
        self.add(k::CPU_SYSTEM, &[], seconds(cpu.system_ns));
        let Some(limits) = cpu.limits else { return };
        self.add_at(k::CPU_SHARES, &[], number(limits.shares), None);
        self.add_at(k::CPU_PERIOD, &[], number(limits.period_us), None);
        let Some(quota) = limits.quota_us else { return };
        self.add_at(k::CPU_QUOTA, &[], number(quota), None);
        if let Some(throttling) = cpu.throttling {
            self.add(k::CFS_PERIODS, &[], number(throttling.periods));
            self.add(k::CFS_THROTTLED, &[], number(throttling.throttled_periods));
            self.add(k::CFS_THROTTLED_TIME, &[], seconds(throttling.throttled_ns));
        }
    }

    fn memory(&mut self, memory: &MemoryUsage) {
        for (kind, value) in [
            (k::MEMORY, memory.usage),
            (k::WORKING_SET, memory.working_set),
            (k::RSS, memory.rss),
            (k::CACHE, memory.cache),
            (k::MAPPED_FILE, memory.mapped_file),
            (k::ACTIVE_FILE, memory.active_file),
            (k::INACTIVE_FILE, memory.inactive_file),
            (k::SWAP, memory.swap.unwrap_or(0)),
        ] {
            self.add(kind, &[], number(value));
        }
        self.some(k::KERNEL, memory.kernel);
        self.some(k::MEMORY_PEAK, memory.peak);
        self.some(k::FAILCNT, memory.limit_hits);
        self.some(k::OOM_EVENTS, memory.oom_kills);
        for scope in ["container", "hierarchy"] {
            let labels = |what: &'static str| [("failure_type", what), ("scope", scope)];
            self.add(k::FAILURES, &labels("pgfault"), number(memory.page_faults));
            self.add(k::FAILURES, &labels("pgmajfault"), number(memory.major_page_faults));
        }
        // The root's are the machine's.
        if self.of.id != "/" {
            self.memory_limit(memory.limit.unwrap_or(0), memory.swap_limit.unwrap_or(0));
            self.add_at(k::RESERVATION, &[], number(memory.soft_limit.unwrap_or(0)), None);
        }
    }

    fn memory_limit(&mut self, memory: u64, swap: u64) {
        self.add_at(k::MEMORY_LIMIT, &[], number(memory), None);
        self.add_at(k::SWAP_LIMIT, &[], number(swap), None);
    }

    fn pressure(&mut self, [waiting, stalled]: [Kind; 2], pressure: Option<Pressure>) {
        if let Some(pressure) = pressure {
            self.add(waiting, &[], number(pressure.some.total_us) / 1e6);
            self.add(stalled, &[], number(pressure.full.total_us) / 1e6);
        }
    }

    fn network(&mut self, interfaces: &[InterfaceUsage], at: jiff::Timestamp) {
        for one in interfaces {
            let interface = [("interface", one.name.as_str())];
            for (kind, value) in [
                (k::RX_BYTES, one.rx_bytes),
                (k::RX_PACKETS, one.rx_packets),
                (k::RX_ERRORS, one.rx_errors),
                (k::RX_DROPPED, one.rx_dropped),
                (k::TX_BYTES, one.tx_bytes),
                (k::TX_PACKETS, one.tx_packets),
                (k::TX_ERRORS, one.tx_errors),
                (k::TX_DROPPED, one.tx_dropped),
            ] {
                self.add_at(kind, &interface, number(value), Some(at));
            }
        }
    }

    /// What it takes on a file system.
    fn fs(&mut self, fs: &FsUsage, takes: &DiskUsage, at: jiff::Timestamp) {
        let device = [("device", &*fs.device)];
        self.add_at(k::FS_LIMIT, &device, number(fs.capacity), Some(at));
        for (kind, value) in
            [(k::FS_USAGE, takes.bytes), (k::FS_INODES, fs.inodes), (k::FS_INODES_FREE, fs.inodes_free)]
        {
            if let Some(value) = value {
                self.add_at(kind, &device, number(value), Some(at));
            }
        }
    }
}

#[cfg(test)]
#[path = "stats_tests.rs"]
mod tests;
