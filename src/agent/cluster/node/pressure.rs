//! Measures what is left of memory, disk and process numbers, for the node's pressure conditions.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::sync::watch;

use super::PressureSources;
use crate::{
    agent::{clock::Clock, health::RuntimeHealth},
    cri::Cri,
    host::{
        capacity::{file_system_use, tasks},
        cgroup::MemoryUse,
    },
    policy::pressure::{Left, Measured, Pressure, Signal},
};

/// Between two measurements; that of kubelet's eviction manager.
const PERIOD: Duration = Duration::from_secs(10);
/// For the runtime to say where it keeps images.
const PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Meter {
    sources: Arc<PressureSources>,
    cri: Arc<dyn Cri>,
    health: watch::Receiver<RuntimeHealth>,
    clock: Clock,
    sender: watch::Sender<Option<BTreeSet<Pressure>>>,
    /// Where images are, as the runtime said last.
    images: Option<PathBuf>,
}

impl Meter {
    pub(super) fn new(
        sources: PressureSources,
        cri: Arc<dyn Cri>,
        health: watch::Receiver<RuntimeHealth>,
        clock: Clock,
        sender: watch::Sender<Option<BTreeSet<Pressure>>>,
    ) -> Self {
        Self { sources: Arc::new(sources), cri, health, clock, sender, images: None }
    }

    /// Measures for as long as it is not dropped.
    pub(super) async fn run(mut self) {
        let mut pressures = self.sources.pressures.clone();
        loop {
            let (sources, images) = (Arc::clone(&self.sources), self.images.clone());
            let measured = tokio::task::spawn_blocking(move || measure(&sources, images.as_deref())).await;
            if let Ok(measured) = measured {
                self.tell(pressures.observe(&measured, self.clock.now()), &measured);
            }
            // The first measurement holds the node's first status up, and so does without the runtime.
            let first = self.images.is_none();
            self.find_images().await;
            if !(first && self.images.is_some()) {
                tokio::time::sleep(PERIOD).await;
            }
        }
    }

    async fn find_images(&mut self) {
        if self.images.is_none() {
            let usable = self.health.wait_for(RuntimeHealth::is_usable);
            // Without one there is still the rest to measure.
            tokio::time::timeout(PERIOD, usable).await.ok();
        }
        if !self.health.borrow().is_usable() {
            return;
        }
        let answer = tokio::time::timeout(PATIENCE, self.cri.image_fs_info()).await;
        let Ok(Ok(answer)) = answer else { return };
        let place = answer.image_filesystems.into_iter().find_map(|used| used.fs_id);
        self.images = place.map(|id| PathBuf::from(id.mountpoint)).or(self.images.take());
    }

    fn tell(&self, now: BTreeSet<Pressure>, measured: &Measured) {
        self.sender.send_if_modified(|last| {
            if last.as_ref() == Some(&now) {
                return false;
            }
            let before = last.take().unwrap_or_default();
            for pressure in now.difference(&before) {
                tracing::warn!(?pressure, ?measured, "the node is short of something");
            }
            for pressure in before.difference(&now) {
                tracing::info!(?pressure, "the node has enough again");
            }
            *last = Some(now);
            true
        });
    }
}

/// Blocks on the file system.
fn measure(sources: &PressureSources, images: Option<&Path>) -> Measured {
    let mut measured = Measured::new();
    let missing = |what: &str, error: &std::io::Error| tracing::debug!("cannot measure {what}: {error}");
    match sources.cgroups.memory("/") {
        Ok(Some(MemoryUse { working_set, .. })) if sources.memory_bytes > 0 => {
            let capacity = sources.memory_bytes;
            measured.insert(Signal::Memory, Left { available: (capacity - working_set).max(0), capacity });
        }
        Ok(_) => {}
        Err(error) => missing("the memory in use", &error),
    }
    match sources.cgroups.memory(&sources.pods_cgroup) {
        Ok(Some(MemoryUse { working_set, limit: Some(capacity) })) => {
            let left = Left { available: (capacity - working_set).max(0), capacity };
            measured.insert(Signal::AllocatableMemory, left);
        }
        // Not made yet, or without a bound.
        Ok(_) => {}
        Err(error) => missing("the memory that pods use", &error),
    }
    let disks = [
        (Some(sources.root_dir.as_path()), Signal::NodeFs, Signal::NodeFsInodes),
        (images, Signal::ImageFs, Signal::ImageFsInodes),
    ];
    for (path, bytes, inodes) in disks {
        let Some(path) = path else { continue };
        match file_system_use(path) {
            Ok(used) => {
                measured.insert(bytes, Left { available: used.bytes_left, capacity: used.bytes });
                if used.inodes > 0 {
                    measured.insert(inodes, Left { available: used.inodes_left, capacity: used.inodes });
                }
            }
            Err(error) => missing(&format!("the file system of {}", path.display()), &error),
        }
    }
    if sources.pids > 0 {
        match tasks(Path::new("/proc")) {
            Ok(used) => {
                let left = Left { available: (sources.pids - used).max(0), capacity: sources.pids };
                measured.insert(Signal::Pids, left);
            }
            Err(error) => missing("the number of processes", &error),
        }
    }
    measured
}
