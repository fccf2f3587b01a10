//! What containers and pods use: measured over a while for the CPU, as it is for the rest.

use std::collections::BTreeMap;

use super::{
    filter::{Compiled, ContainerFilter, PodFilter, namespace_of},
    lookup::Inventory,
    ps::pod_name,
    session::Session,
    text::{shown_id, size},
};
use crate::{
    api::cri::{
        Container, ContainerStats, CpuUsage, FilesystemUsage, PodSandbox, PodSandboxStats, UInt64Value,
    },
    cli::output::Table,
    cri::{Cri as _, CriError},
    error::CommandError,
};

/// Containers to measure, by a filter and by ids that were given.
pub(super) struct Containers {
    filter: ContainerFilter,
    compiled: Compiled,
    given: Vec<String>,
}

/// Pods to measure.
pub(super) struct Pods {
    filter: PodFilter,
    compiled: Compiled,
    given: Vec<String>,
}

/// One look at containers: what the runtime tells of those that are wanted, by their ids.
pub(super) struct Sample {
    pub(super) stats: BTreeMap<String, ContainerStats>,
    pub(super) all: Inventory,
}

/// One look at pods.
pub(super) type PodSample = BTreeMap<String, PodSandboxStats>;

impl Containers {
    /// `given` are ids as the user writes them.
    pub(super) fn new(filter: ContainerFilter, given: &[String]) -> Result<Self, CommandError> {
        let compiled = filter.compile()?;
        Ok(Self { filter, compiled, given: given.to_vec() })
    }

    /// Was a container asked for by its id? Then it is shown though it may not run.
    pub(super) fn by_id(&self) -> bool {
        !self.given.is_empty()
    }

    /// Asks for all figures and narrows them here, so that filters mean what they mean elsewhere.
    pub(super) async fn sample(&self, session: &Session) -> Result<Sample, CommandError> {
        let (pods, containers, stats) = tokio::join!(
            session.try_ask("ListPodSandbox", session.cri.list_pod_sandboxes(None)),
            session.try_ask("ListContainers", session.cri.list_containers(None)),
            session.try_ask("ListContainerStats", session.cri.list_container_stats(None)),
        );
        let (pods, containers, stats) = match (pods, containers, stats) {
            (Ok(pods), Ok(containers), Ok(stats)) => (pods, containers, stats),
            (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
                return Err(session.failed(&error).await);
            }
        };
        let all = Inventory { pods, containers, images: Vec::new() };
        let mut wanted = self.filter.select(&self.compiled, &all, None)?;
        if self.by_id() {
            let given = self.given.iter().map(|id| all.container(id));
            let given = given.collect::<Result<Vec<&Container>, _>>()?;
            wanted.retain(|container| given.iter().any(|other| other.id == container.id));
        }
        let mut wanted: Vec<&str> = wanted.into_iter().map(|container| container.id.as_str()).collect();
        wanted.sort_unstable();
        let stats = stats
            .into_iter()
            .map(|stats| (id_of(&stats).to_owned(), stats))
            .filter(|(id, _)| wanted.binary_search(&id.as_str()).is_ok())
            .collect();
        Ok(Sample { stats, all })
    }
}

impl Pods {
    /// `given` are ids as the user writes them.
    pub(super) fn new(filter: PodFilter, given: &[String]) -> Result<Self, CommandError> {
        let compiled = filter.compile()?;
        Ok(Self { filter, compiled, given: given.to_vec() })
    }

    /// Asks for the figures of the pods that are wanted: where these are few, for theirs alone. One pod whose
    /// figures a runtime cannot tell makes it tell those of none.
    pub(super) async fn sample(&self, session: &Session) -> Result<PodSample, CommandError> {
        let pods = session.ask("ListPodSandbox", session.cri.list_pod_sandboxes(None)).await?;
        let mut all = Inventory { pods, ..Inventory::default() };
        if !self.given.is_empty() {
            // To say so if one is a container's id.
            all.containers = session.ask("ListContainers", session.cri.list_containers(None)).await?;
        }
        let mut wanted = self.filter.select(&self.compiled, &all.pods);
        if !self.given.is_empty() {
            let given = self.given.iter().map(|id| all.pod(id)).collect::<Result<Vec<&PodSandbox>, _>>()?;
            wanted.retain(|pod| given.iter().any(|other| other.id == pod.id));
        }
        let id = |stats: &PodSandboxStats| stats.attributes.as_ref().map(|of| of.id.clone());
        let stats = if wanted.len() < all.pods.len().min(FEW) {
            let mut stats = Vec::with_capacity(wanted.len());
            for pod in &wanted {
                let call = session.cri.pod_sandbox_stats(&pod.id);
                stats.extend(told(session.try_ask("PodSandboxStats", call).await, session).await?);
            }
            stats
        } else {
            let call = session.cri.list_pod_sandbox_stats(None);
            told(session.try_ask("ListPodSandboxStats", call).await, session).await?
        };
        let stats = stats.into_iter().map(|stats| (id(&stats).unwrap_or_default(), stats));
        Ok(stats.filter(|(id, _)| wanted.iter().any(|pod| pod.id == *id)).collect())
    }
}

/// Pods that are asked after one by one.
const FEW: usize = 16;

/// Figures of pods, or why there are none.
async fn told<T>(answer: Result<T, CriError>, session: &Session) -> Result<T, CommandError> {
    match answer {
        Ok(stats) => Ok(stats),
        Err(error) => {
            let told = session.failed(&error).await;
            Err(if error.is_unimplemented() {
                told.hint("`nodectl cri stats` shows what the containers use")
            } else {
                told
            })
        }
    }
}

fn id_of(stats: &ContainerStats) -> &str {
    stats.attributes.as_ref().map_or("", |attributes| attributes.id.as_str())
}

fn number(value: Option<UInt64Value>) -> u64 {
    value.unwrap_or_default().value
}

/// Per cent of one processor between two looks: 100 is one that is busy all the time. Where the second look
/// tells nothing new, what the runtime itself has worked out; `None` if it has not, which some tell as 0.
fn cpu_percent(before: Option<&CpuUsage>, now: &CpuUsage) -> Option<f64> {
    let used = |usage: &CpuUsage| usage.usage_core_nano_seconds.map(|value| value.value);
    let two = before.and_then(|before| {
        let time = now.timestamp.checked_sub(before.timestamp).filter(|time| *time > 0)?;
        // A count that goes back is another cgroup's.
        let work = used(now)?.checked_sub(used(before)?)?;
        Some(ratio(work, time.unsigned_abs()) * 100.0)
    });
    let cores = now.usage_nano_cores.filter(|cores| cores.value > 0);
    two.or_else(|| cores.map(|cores| ratio(cores.value, 1_000_000_000) * 100.0))
}

/// As exact as a share can be shown.
#[allow(clippy::cast_precision_loss, reason = "nanoseconds beyond 2^53 are a hundred days of work")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// What something uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Usage {
    /// Per cent of one processor.
    pub(super) cpu: Option<f64>,
    /// Bytes in memory that cannot be dropped easily, as the kernel's out-of-memory killer sees it.
    pub(super) memory: u64,
    /// Bytes on disk in the writable layer.
    pub(super) disk: u64,
    pub(super) inodes: u64,
    pub(super) swap: u64,
}

impl Usage {
    fn of_container(before: Option<&ContainerStats>, now: &ContainerStats) -> Self {
        let cpu = now.cpu.as_ref();
        let layer = now.writable_layer.clone().unwrap_or_default();
        Self {
            cpu: cpu.and_then(|cpu| cpu_percent(before.and_then(|before| before.cpu.as_ref()), cpu)),
            memory: number(now.memory.as_ref().and_then(|memory| memory.working_set_bytes)),
            disk: number(layer.used_bytes),
            inodes: number(layer.inodes_used),
            swap: number(now.swap.as_ref().and_then(|swap| swap.swap_usage_bytes)),
        }
    }

    /// Of a pod: processor and memory as the runtime tells them of the whole sandbox, the rest as the sum of
    /// its containers, of which alone it is told.
    fn of_pod(before: Option<&PodSandboxStats>, now: &PodSandboxStats) -> Self {
        let Some(linux) = &now.linux else { return Self::default() };
        let before = before.and_then(|before| before.linux.as_ref());
        let layers = linux.containers.iter().filter_map(|container| container.writable_layer.as_ref());
        let sum = |of: fn(&FilesystemUsage) -> Option<UInt64Value>| {
            layers.clone().map(|layer| number(of(layer))).fold(0, u64::saturating_add)
        };
        let swap = linux.containers.iter().filter_map(|container| container.swap.as_ref());
        Self {
            cpu: linux.cpu.as_ref().and_then(|cpu| cpu_percent(before.and_then(|b| b.cpu.as_ref()), cpu)),
            memory: number(linux.memory.as_ref().and_then(|memory| memory.working_set_bytes)),
            disk: sum(|layer| layer.used_bytes),
            inodes: sum(|layer| layer.inodes_used),
            swap: swap.map(|swap| number(swap.swap_usage_bytes)).fold(0, u64::saturating_add),
        }
    }

    /// Its cells: CPU, memory, disk, inodes, swap.
    pub(super) fn cells(&self) -> [String; 5] {
        let cpu = self.cpu.map_or_else(|| "-".to_owned(), |cpu| format!("{cpu:.2}"));
        [cpu, size(self.memory), size(self.disk), self.inodes.to_string(), size(self.swap)]
    }
}

/// The heads of [`Usage::cells`].
pub(super) const COLUMNS: [&str; 5] = ["CPU %", "MEM", "DISK", "INODES", "SWAP"];

/// A container and what it uses.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) pod: String,
    pub(super) namespace: String,
    pub(super) usage: Usage,
}

/// The containers of a sample, by their ids; those that do not run only if `all` are wanted.
pub(super) fn rows(before: Option<&Sample>, now: &Sample, all: bool) -> Vec<Row> {
    let mut rows = Vec::with_capacity(now.stats.len());
    for (id, stats) in &now.stats {
        let usage = Usage::of_container(before.and_then(|before| before.stats.get(id)), stats);
        let idle = number(stats.cpu.as_ref().and_then(|cpu| cpu.usage_core_nano_seconds)) == 0;
        if idle && usage.memory == 0 && !all {
            continue;
        }
        let container = now.all.containers.iter().find(|container| container.id == *id);
        let metadata = stats.attributes.as_ref().and_then(|attributes| attributes.metadata.as_ref());
        rows.push(Row {
            id: id.clone(),
            name: metadata.map(|metadata| metadata.name.clone()).unwrap_or_default(),
            pod: container.map_or("", |container| pod_name(container, &now.all)).to_owned(),
            namespace: container.map_or("", |container| namespace_of(container, &now.all)).to_owned(),
            usage,
        });
    }
    rows
}

/// crictl's columns, and after them whose the container is.
pub(super) fn table(rows: &[Row], whole: bool) -> Table {
    let [cpu, memory, disk, inodes, swap] = COLUMNS;
    let mut table = Table::new(["CONTAINER", "NAME", cpu, memory, disk, inodes, swap, "POD", "NAMESPACE"]);
    for row in rows {
        let front = [shown_id(&row.id, whole).to_owned(), row.name.clone()];
        let back = [row.pod.clone(), row.namespace.clone()];
        table.push(front.into_iter().chain(row.usage.cells()).chain(back));
    }
    table
}

/// crictl's columns (`POD` to `MEM`), and after them what it does not show.
pub(super) fn pod_table(before: Option<&PodSample>, now: &PodSample, whole: bool) -> Table {
    let [cpu, memory, disk, inodes, swap] = COLUMNS;
    let mut table = Table::new(["POD", "POD ID", cpu, memory, disk, inodes, swap, "NAMESPACE"]);
    for (id, stats) in now {
        let usage = Usage::of_pod(before.and_then(|before| before.get(id)), stats);
        let metadata = stats.attributes.as_ref().and_then(|attributes| attributes.metadata.clone());
        let metadata = metadata.unwrap_or_default();
        let front = [metadata.name, shown_id(id, whole).to_owned()];
        table.push(front.into_iter().chain(usage.cells()).chain([metadata.namespace]));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(timestamp: i64, used: u64, cores: Option<u64>) -> CpuUsage {
        CpuUsage {
            timestamp,
            usage_core_nano_seconds: Some(UInt64Value { value: used }),
            usage_nano_cores: cores.map(|value| UInt64Value { value }),
            ..CpuUsage::default()
        }
    }

    #[test]
    fn cpu_is_a_share_of_one_processor() {
        let second = 1_000_000_000;
        let before = cpu(second, 500, None);
        assert_eq!(cpu_percent(Some(&before), &cpu(2 * second, 500 + 250_000_000, None)), Some(25.0));
        assert_eq!(cpu_percent(Some(&before), &cpu(3 * second, 500 + 4_000_000_000, None)), Some(200.0));
        assert_eq!(cpu_percent(Some(&before), &cpu(2 * second, 500, None)), Some(0.0));
        // Nothing to compare with, the same look again, a clock or a count that went back.
        for now in [cpu(second, 900, None), cpu(0, 900, None), cpu(2 * second, 400, None)] {
            assert_eq!(cpu_percent(Some(&before), &now), None);
        }
        assert_eq!(cpu_percent(None, &cpu(2 * second, 900, Some(0))), None);
        assert_eq!(cpu_percent(None, &cpu(2 * second, 900, Some(150_000_000))), Some(15.0));
        assert_eq!(cpu_percent(Some(&cpu(i64::MIN, 0, None)), &cpu(i64::MAX, 1, None)), None);
    }

    #[test]
    fn a_pods_disk_is_that_of_its_containers() {
        let container = |used: u64, inodes: u64| ContainerStats {
            writable_layer: Some(FilesystemUsage {
                used_bytes: Some(UInt64Value { value: used }),
                inodes_used: Some(UInt64Value { value: inodes }),
                ..FilesystemUsage::default()
            }),
            ..ContainerStats::default()
        };
        let linux = crate::api::cri::LinuxPodSandboxStats {
            cpu: Some(cpu(5, 5, None)),
            memory: Some(crate::api::cri::MemoryUsage {
                working_set_bytes: Some(UInt64Value { value: 2_000_000 }),
                ..Default::default()
            }),
            containers: vec![container(1000, 2), container(u64::MAX, 3), ContainerStats::default()],
            ..Default::default()
        };
        let pod = PodSandboxStats { linux: Some(linux), ..PodSandboxStats::default() };
        let usage = Usage::of_pod(None, &pod);
        assert_eq!((usage.cpu, usage.memory, usage.disk, usage.inodes), (None, 2_000_000, u64::MAX, 5));
        assert_eq!(usage.cells(), ["-", "2MB", "18.4EB", "5", "0B"]);
        assert_eq!(Usage::of_pod(None, &PodSandboxStats::default()), Usage::default());
    }
}
