//! The figures of the node, its pods and their containers for `/stats/summary` and its kin: samples that are taken when
//! somebody asks, at most every 10 s; nothing is done while nobody asks.

mod cached;
mod disks;
mod usage;
mod volumes;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio_util::sync::CancellationToken;

use self::{cached::Cached, volumes::VolumeMeter};
use super::{node_api::LastSeen, pods::env::PodEnv};
use crate::{
    api::{
        usage::{DisksUsage, MachineLabels, NodeUsage},
        view::AgentView,
    },
    config::AgentConfig,
    cri::async_trait,
    host::{boot::since_boot, identity::Identity, machine::Machine, read::read_bounded},
    policy::{qos::QosClass, stats::Volumes},
    server::node_api::Stats,
};

/// Bytes of `/proc/self/cgroup` at most.
const MAX_OWN: usize = 64 << 10;

/// See the module.
pub(super) struct NodeStats {
    machine: MachineLabels,
    seen: LastSeen,
    places: Arc<usage::Places>,
    usage: Arc<Cached<NodeUsage>>,
    disk_places: disks::Places,
    disks: Arc<Cached<DisksUsage>>,
    volumes: Option<Arc<VolumeMeter>>,
}

impl NodeStats {
    /// Nothing is measured before somebody asks. Reads what the machine is: blocks on the file system.
    pub(super) fn new(config: &AgentConfig, env: &PodEnv, seen: LastSeen) -> Self {
        let proc_root = PathBuf::from("/proc");
        let machine = Machine::read(&proc_root, Path::new("/sys"));
        let layout = env.cgroups.layout().clone();
        let disk_places = disks::Places {
            cri: Arc::clone(&env.cri),
            paths: env.paths.clone(),
            mountinfo: env.mountinfo.clone(),
            clock: env.clock,
        };
        let meter =
            |period| Arc::new(VolumeMeter::new(period, env.paths.clone(), env.mountinfo.clone(), env.clock));
        Self {
            machine: labels(config, &machine, env),
            seen,
            places: Arc::new(usage::Places {
                mounts: env.cgroups.mounts().clone(),
                system: system_cgroups(config, &layout.class_path(QosClass::Guaranteed), &proc_root),
                layout,
                proc_root,
                most_tasks: i64::try_from(machine.pids).unwrap_or(i64::MAX),
                clock: env.clock,
            }),
            usage: Arc::default(),
            disk_places,
            disks: Arc::default(),
            volumes: config.volume_stats_period.map(meter),
        }
    }

    /// Finds out what volumes take, until `stop`, while somebody asks.
    pub(super) fn spawn(&self, view: &Arc<dyn AgentView>, stop: &CancellationToken) {
        if let Some(volumes) = &self.volumes {
            tokio::spawn(Arc::clone(volumes).run(Arc::clone(view), stop.clone()));
        }
    }
}

#[async_trait]
impl Stats for NodeStats {
    fn machine(&self) -> &MachineLabels {
        &self.machine
    }

    async fn usage(&self) -> Option<Arc<NodeUsage>> {
        let (places, seen) = (Arc::clone(&self.places), Arc::clone(&self.seen));
        let take = |before: Option<Arc<NodeUsage>>| async move {
            let work = move || usage::take(&places, &seen.all(), before.as_deref());
            tokio::task::spawn_blocking(work).await.ok()
        };
        self.usage.get(take).await
    }

    async fn disks(&self) -> Option<Arc<DisksUsage>> {
        let (places, seen) = (self.disk_places.clone(), Arc::clone(&self.seen));
        self.disks.get(|_before| async move { disks::take(places, seen.all()).await }).await
    }

    fn volumes(&self) -> Volumes {
        self.volumes.as_ref().map(|volumes| volumes.ask()).unwrap_or_default()
    }
}

fn labels(config: &AgentConfig, machine: &Machine, env: &PodEnv) -> MachineLabels {
    let identity = Identity::read(Path::new("/"));
    let bytes = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
    let now = env.clock.now();
    MachineLabels {
        node: config.node_name.clone(),
        cpus: machine.cpus,
        memory_bytes: bytes(machine.memory_bytes),
        swap_bytes: bytes(machine.swap_bytes),
        machine_id: identity.machine_id,
        system_uuid: identity.system_uuid,
        boot_id: identity.boot_id,
        kernel_version: identity.kernel_version,
        os_image: identity.os_image,
        booted: jiff::SignedDuration::try_from(since_boot()).map_or(now, |since| now - since),
    }
}

/// The system's own cgroups that are known: the agent's, that of other services if it is configured, and that of all
/// pods.
fn system_cgroups(config: &AgentConfig, pods: &str, proc_root: &Path) -> Vec<(&'static str, String)> {
    let named = |name: &Option<String>| name.clone().filter(|name| name.starts_with('/') && name != "/");
    let agent = named(&config.kubelet.kubelet_cgroups).or_else(|| own_cgroup(proc_root));
    let pods = config.cgroups_per_qos.then(|| pods.to_owned());
    [("kubelet", agent), ("misc", named(&config.kubelet.system_cgroups)), ("pods", pods)]
        .into_iter()
        .filter_map(|(name, cgroup)| Some((name, cgroup?)))
        .collect()
}

/// The cgroup that this process is in, if it is the same one for CPU time and memory and not that of all processes.
fn own_cgroup(proc_root: &Path) -> Option<String> {
    let bytes = read_bounded(&proc_root.join("self/cgroup"), MAX_OWN).ok()?;
    own_cgroup_of(&String::from_utf8_lossy(&bytes))
}

/// `NUMBER:CONTROLLERS:PATH`, without controllers of v2.
fn own_cgroup_of(text: &str) -> Option<String> {
    let lines: Vec<(&str, &str)> =
        text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':')).collect();
    let of = |controller: &str| {
        let has = |(names, _): &&(&str, &str)| names.split(',').any(|name| name == controller);
        lines.iter().find(has).map(|(_, path)| *path)
    };
    let path = match (of("memory"), of("cpuacct").or_else(|| of("cpu"))) {
        (Some(memory), Some(cpu)) => (memory == cpu).then_some(memory)?,
        _ => lines.iter().find(|(names, _)| names.is_empty()).map(|(_, path)| *path)?,
    };
    (path != "/").then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_own_cgroup_is_that_of_its_service() {
        let cases = [
            ("0::/system.slice/nodectl.service\n", Some("/system.slice/nodectl.service")),
            ("0::/\n", None),
            ("5:memory:/a\n3:cpu,cpuacct:/a\n1:name=systemd:/b\n0::/b\n", Some("/a")),
            ("5:memory:/a\n3:cpu,cpuacct:/b\n0::/b\n", None),
            ("5:memory:/\n4:cpu:/x\n3:cpuacct:/\n", None),
            ("", None),
            ("nonsense", None),
        ];
        for (text, cgroup) in cases {
            assert_eq!(own_cgroup_of(text).as_deref(), cgroup, "{text}");
        }
    }
}
