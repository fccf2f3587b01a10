//! What pods' volumes take on the node: found out in the background, every `volumeStatsAggPeriod`, while somebody asks
//! for figures, and at so low a pace that it takes little of a CPU.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use k8s_openapi::api::core::v1::{Pod, Volume};
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::disks::file_system;
use crate::{
    agent::{clock::Clock, pods::paths::NodePaths, volumes::files},
    api::{
        PodExt as _,
        usage::{DiskUsage, VolumeUsage},
        view::{AgentView, PodEnd},
    },
    host::{disk_use, mounts},
    policy::stats::Volumes,
};

/// How long it goes on after somebody has asked last.
const IDLE: Duration = Duration::from_secs(600);
/// How many times as long as it has worked it rests: it has a tenth of a CPU at most.
const REST: u32 = 9;

/// See the module.
pub(super) struct VolumeMeter {
    pub(super) period: Duration,
    pub(super) paths: NodePaths,
    pub(super) mountinfo: PathBuf,
    pub(super) clock: Clock,
    found: Mutex<Volumes>,
    asked: Mutex<Option<Instant>>,
    wake: Notify,
}

/// Dropped, it ends the round that it is of.
struct Ending(Arc<AtomicBool>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl VolumeMeter {
    pub(super) fn new(period: Duration, paths: NodePaths, mountinfo: PathBuf, clock: Clock) -> Self {
        Self {
            period,
            paths,
            mountinfo,
            clock,
            found: Mutex::default(),
            asked: Mutex::default(),
            wake: Notify::new(),
        }
    }

    /// What was found last. Somebody asks: it is found out anew for a while.
    pub(super) fn ask(&self) -> Volumes {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.wake.notify_one();
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Finds out until `stop`.
    pub(super) async fn run(self: Arc<Self>, view: Arc<dyn AgentView>, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            loop {
                self.somebody_asks().await;
                Arc::clone(&self).round(view.as_ref()).await;
                tokio::time::sleep(self.period).await;
            }
        })
        .await;
    }

    async fn somebody_asks(&self) {
        loop {
            let asked = *self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            if asked.is_some_and(|asked| asked.elapsed() < IDLE) {
                return;
            }
            self.wake.notified().await;
        }
    }

    /// Looks at the volumes of all pods once, in a thread of its own, which ends when this is dropped.
    async fn round(self: Arc<Self>, view: &dyn AgentView) {
        let living = view.pods().into_iter().filter(|pod| pod.end == PodEnd::No);
        let pods: Vec<Arc<Pod>> = living.map(|view| view.pod).collect();
        let ended = Arc::new(AtomicBool::new(false));
        let _ending = Ending(Arc::clone(&ended));
        let (sender, done) = oneshot::channel();
        let work = move || {
            self.look(&pods, &ended);
            sender.send(()).ok();
        };
        match std::thread::Builder::new().name("volume-sizes".into()).spawn(work) {
            Ok(_runs_by_itself) => drop(done.await),
            Err(error) => tracing::warn!("cannot find out what volumes take: {error}"),
        }
    }

    fn look(&self, pods: &[Arc<Pod>], ended: &AtomicBool) {
        let table = mounts::read(&self.mountinfo).unwrap_or_default();
        let mut worked = std::time::Instant::now();
        let mut go_on = || {
            std::thread::sleep(worked.elapsed() * REST);
            worked = std::time::Instant::now();
            !ended.load(Ordering::Relaxed)
        };
        for pod in pods {
            let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
            let found: Vec<VolumeUsage> =
                volumes.filter_map(|volume| self.volume(pod, volume, &table, &mut go_on)).collect();
            if ended.load(Ordering::Relaxed) {
                return;
            }
            self.found.lock().unwrap_or_else(PoisonError::into_inner).insert(pod.uid(), found);
        }
        let known: std::collections::BTreeSet<_> = pods.iter().map(|pod| pod.uid()).collect();
        self.found.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, _| known.contains(uid));
    }

    fn volume(
        &self,
        pod: &Pod,
        volume: &Volume,
        table: &[mounts::MountInfo],
        go_on: &mut impl FnMut() -> bool,
    ) -> Option<VolumeUsage> {
        let (folder, ephemeral) = match &volume.empty_dir {
            Some(source) => (
                self.paths.empty_dir(&pod.uid(), &volume.name)?,
                source.medium.as_deref().unwrap_or_default().is_empty(),
            ),
            None => (files::folder(pod, volume, &self.paths)?, volume.config_map.is_some()),
        };
        let at = self.clock.now();
        let fs = file_system(&folder, table)?;
        let disk = if is_file_system(&folder)? {
            let inodes = fs.inodes.zip(fs.inodes_free).map(|(all, free)| all.saturating_sub(free));
            DiskUsage { bytes: Some(fs.used), inodes }
        } else {
            disk_use::measure(&folder, go_on).ok()?
        };
        Some(VolumeUsage { name: volume.name.clone(), at, disk, fs, ephemeral })
    }
}

/// Whether a folder is the top of a file system. `None` if it is not there.
fn is_file_system(folder: &Path) -> Option<bool> {
    let device = |path: &Path| std::fs::symlink_metadata(path).ok().map(|metadata| metadata.dev());
    Some(device(folder)? != device(folder.parent()?)?)
}

#[cfg(test)]
#[path = "volumes_tests.rs"]
mod tests;
