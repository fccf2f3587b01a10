//! A sample of what files take: what the runtime says of its stores, the sizes of logs, and how full the file systems
//! are. A runtime that does not answer in time leaves its part out.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    agent::{clock::Clock, pods::paths::NodePaths},
    api::{
        PodObservation,
        cri::{ContainerStats, FilesystemUsage},
        usage::{DiskUsage, DisksUsage, FsUsage, StoreUsage},
    },
    cri::Cri,
    host::{capacity::file_system_use, mounts},
};

/// For the runtime to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Log files of a container that are looked at. Rotation keeps a handful.
const MAX_FILES: usize = 1000;

/// Where to look.
#[derive(Clone)]
pub(super) struct Places {
    pub(super) cri: Arc<dyn Cri>,
    pub(super) paths: NodePaths,
    pub(super) mountinfo: PathBuf,
    pub(super) clock: Clock,
}

/// What the runtime has said.
#[derive(Default)]
struct Told {
    layers: Vec<ContainerStats>,
    images: Option<FilesystemUsage>,
    containers: Option<FilesystemUsage>,
}

/// Takes a sample.
pub(super) async fn take(places: Places, pods: Vec<Arc<PodObservation>>) -> Option<DisksUsage> {
    let at = places.clock.now();
    let told = ask(&*places.cri).await;
    tokio::task::spawn_blocking(move || look(&places, &pods, told, at)).await.ok()
}

async fn ask(cri: &dyn Cri) -> Told {
    let layers = tokio::time::timeout(PATIENCE, cri.list_container_stats(None));
    let stores = tokio::time::timeout(PATIENCE, cri.image_fs_info());
    let (layers, stores) = tokio::join!(layers, stores);
    let layers = match layers {
        Ok(Ok(layers)) => layers,
        Ok(Err(error)) => {
            tracing::debug!("the runtime does not tell what containers take: {error}");
            Vec::new()
        }
        Err(_) => Vec::new(),
    };
    let (images, containers) = match stores {
        Ok(Ok(told)) => (told.image_filesystems, told.container_filesystems),
        _ => (Vec::new(), Vec::new()),
    };
    // As kubelet has it, the first of several.
    Told { layers, images: images.into_iter().next(), containers: containers.into_iter().next() }
}

/// Blocks on the file system.
fn look(places: &Places, pods: &[Arc<PodObservation>], told: Told, at: Timestamp) -> DisksUsage {
    let table = mounts::read(&places.mountinfo).unwrap_or_default();
    let mut file_systems = FileSystems { table, found: BTreeMap::new() };
    let mut usage = DisksUsage {
        at,
        root: file_systems.of(&places.paths.root),
        images: told.images.as_ref().map(|one| store(one, at, &mut file_systems)),
        containers: told.containers.as_ref().map(|one| store(one, at, &mut file_systems)),
        ..DisksUsage::default()
    };
    for stats in told.layers {
        let (Some(attributes), Some(layer)) = (stats.attributes, stats.writable_layer) else { continue };
        usage.layers.insert(attributes.id.into(), store(&layer, at, &mut file_systems));
    }
    for pod in pods {
        let logs = places.paths.pod_log_of(&pod.full_name, &pod.uid);
        for container in &pod.containers {
            let key = (pod.uid.clone(), Arc::clone(&container.name));
            if !usage.logs.contains_key(&key)
                && let Some(log) = files(&logs.join(&*container.name))
            {
                usage.logs.insert(key, log);
            }
        }
        let hosts = places.paths.pod(&pod.uid).and_then(|folder| file(&folder.join("etc-hosts")));
        if let Some(hosts) = hosts {
            usage.pod_files.insert(pod.uid.clone(), hosts);
        }
    }
    usage
}

fn store(told: &FilesystemUsage, at: Timestamp, file_systems: &mut FileSystems) -> StoreUsage {
    let value = |value: &Option<crate::api::cri::UInt64Value>| value.as_ref().map(|value| value.value);
    let told_at = Timestamp::from_nanosecond(i128::from(told.timestamp)).ok();
    StoreUsage {
        at: told_at.filter(|_| told.timestamp > 0).unwrap_or(at),
        disk: DiskUsage { bytes: value(&told.used_bytes), inodes: value(&told.inodes_used) },
        fs: told.fs_id.as_ref().and_then(|id| file_systems.of(Path::new(&id.mountpoint))),
    }
}

/// File systems by the paths that were asked for, each looked at once.
struct FileSystems {
    table: Vec<mounts::MountInfo>,
    found: BTreeMap<PathBuf, Option<FsUsage>>,
}

impl FileSystems {
    fn of(&mut self, path: &Path) -> Option<FsUsage> {
        let table = &self.table;
        self.found.entry(path.to_owned()).or_insert_with(|| file_system(path, table)).clone()
    }
}

/// How full the file system is that a path is on.
pub(super) fn file_system(path: &Path, table: &[mounts::MountInfo]) -> Option<FsUsage> {
    let used = file_system_use(path).ok()?;
    let number = |number: i64| u64::try_from(number).unwrap_or(0);
    let inodes = (used.inodes > 0).then(|| number(used.inodes));
    Some(FsUsage {
        device: mounts::source_of(table, path).unwrap_or_default().into(),
        capacity: number(used.bytes),
        available: number(used.bytes_left),
        used: number(used.bytes_used),
        inodes,
        inodes_free: inodes.map(|_| number(used.inodes_left)),
    })
}

/// What the files of one folder take, with the folder; nothing below it is looked at. `None` if it is not there.
fn files(folder: &Path) -> Option<DiskUsage> {
    let mut sum = file(folder)?;
    for entry in fs::read_dir(folder).ok()?.take(MAX_FILES).flatten() {
        sum = file(&entry.path()).map_or_else(|| sum.clone(), |one| sum.plus(&one));
    }
    Some(sum)
}

/// What a file takes itself; links are not followed.
fn file(path: &Path) -> Option<DiskUsage> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some(DiskUsage { bytes: Some(metadata.blocks().saturating_mul(512)), inodes: Some(1) })
}

#[cfg(test)]
#[path = "disks_tests.rs"]
mod tests;
