//! The cgroup file systems: v1 hierarchies and v2, wherever they are mounted, and the two ways to make
//! cgroups in them: by the files alone, or by asking systemd for slices first.
//!
//! Setting values is level-triggered: each file is read and written only where it says something else, so
//! that what is right already costs no write. What the process may not do (no capability, a hierarchy that
//! is read-only or lacks a controller) is said once, and the rest is done all the same.

mod files;
mod memory;
mod systemd;
mod usage;
mod v1;
mod v2;

use std::{
    collections::{BTreeSet, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use self::files::Once;
pub use self::memory::MemoryUse;
pub use self::systemd::SystemdError;
pub use self::usage::Devices;
use super::mounts;
use crate::{api::cgroup::CgroupValues, telemetry::metrics::cgroup_changed};

/// The mounted cgroup hierarchies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupMounts {
    /// Where they are mounted, all of them.
    points: Vec<PathBuf>,
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    V1(Vec<v1::Hierarchy>),
    V2(PathBuf),
}

impl CgroupMounts {
    /// Finds them in a `mountinfo` file: `/proc/self/mountinfo` on a node.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn find(mountinfo: &Path) -> io::Result<Self> {
        let all = mounts::read(mountinfo)?;
        let hierarchies = v1::hierarchies(&all);
        let mut unified: Vec<PathBuf> =
            all.iter().filter(|mount| mount.fs_type == "cgroup2").map(|mount| mount.point.clone()).collect();
        let mut points: Vec<PathBuf> = all
            .into_iter()
            .filter(|mount| matches!(mount.fs_type.as_str(), "cgroup" | "cgroup2"))
            .map(|mount| mount.point)
            .collect();
        points.sort();
        points.dedup();
        // Of a file system that is mounted at more places the shortest path is the host's own.
        unified.sort_by_key(|point| point.as_os_str().len());
        // Beside v1's controllers v2 is there for systemd's own use.
        let has_v1 = hierarchies.iter().any(|hierarchy| hierarchy.has("cpu") || hierarchy.has("memory"));
        let kind = match unified.into_iter().next() {
            Some(root) if !has_v1 => Kind::V2(root),
            _ => Kind::V1(hierarchies),
        };
        Ok(Self { points, kind })
    }

    /// Whether cgroups are v2 alone.
    pub fn is_v2(&self) -> bool {
        matches!(self.kind, Kind::V2(_))
    }

    /// Whether the kernel can limit the swap of a cgroup. Blocks on the file system.
    pub fn limits_swap(&self) -> bool {
        match &self.kind {
            Kind::V1(all) => all
                .iter()
                .filter(|hierarchy| hierarchy.has("memory"))
                .any(|hierarchy| hierarchy.point.join("memory.memsw.limit_in_bytes").exists()),
            // The root has no such file, but every cgroup below it with the controller.
            Kind::V2(root) => {
                let below = fs::read_dir(root).into_iter().flatten().flatten();
                below.into_iter().any(|entry| entry.path().join("memory.swap.max").exists())
            }
        }
    }

    /// Removes an empty cgroup with the empty ones below it from every hierarchy, and answers whether any
    /// was there. Blocks on the file system.
    ///
    /// # Errors
    /// `EBUSY` while a process is in it; a path that is not absolute and plain is refused.
    pub fn remove(&self, cgroup: &str) -> io::Result<bool> {
        let cgroup = relative(cgroup)?;
        let mut found = false;
        for mount in &self.points {
            found |= remove_tree(&mount.join(cgroup))?;
        }
        Ok(found)
    }

    /// The names of the cgroups right below this one, in any hierarchy. Blocks on the file system.
    ///
    /// # Errors
    /// As `readdir`; a missing cgroup has none below it.
    pub fn children(&self, cgroup: &str) -> io::Result<BTreeSet<String>> {
        let cgroup = relative(cgroup)?;
        let mut found = BTreeSet::new();
        for mount in &self.points {
            for entry in entries(&mount.join(cgroup))?.into_iter().flatten() {
                let entry = entry?;
                if entry.file_type()?.is_dir()
                    && let Ok(name) = entry.file_name().into_string()
                {
                    found.insert(name);
                }
            }
        }
        Ok(found)
    }

    /// The processes in a cgroup and those below it, in any hierarchy. Blocks on the file system.
    ///
    /// # Errors
    /// As `readdir` and `read`; a missing cgroup has none.
    pub fn processes(&self, cgroup: &str) -> io::Result<BTreeSet<i32>> {
        let cgroup = relative(cgroup)?;
        let mut found = BTreeSet::new();
        for mount in &self.points {
            collect_processes(&mount.join(cgroup), &mut found)?;
        }
        Ok(found)
    }

    /// The memory that a cgroup uses, with those below it; `/` is all of the machine's. `None` of a cgroup that is
    /// not there, or where memory is not counted. Blocks on the file system.
    ///
    /// # Errors
    /// As `read`, and when a file is not as the kernel writes it.
    pub fn memory(&self, cgroup: &str) -> io::Result<Option<MemoryUse>> {
        let cgroup = if cgroup == "/" { "" } else { relative(cgroup)? };
        match &self.kind {
            Kind::V1(all) => match all.iter().find(|hierarchy| hierarchy.has("memory")) {
                Some(hierarchy) => memory::v1(&hierarchy.point.join(cgroup)),
                None => Ok(None),
            },
            Kind::V2(root) => memory::v2(&root.join(cgroup)),
        }
    }

    /// Blocks on the file system.
    ///
    /// # Errors
    /// `EBUSY` while a process is in it or below it.
    fn check_empty(&self, cgroup: &str) -> io::Result<()> {
        match self.processes(cgroup)?.is_empty() {
            true => Ok(()),
            false => Err(Errno::EBUSY.into()),
        }
    }

    /// Kills those of the processes that are in the cgroup or below it at this moment. Blocks on the file
    /// system.
    pub fn kill(&self, cgroup: &str, processes: &HashSet<i32>) {
        let Ok(now) = self.processes(cgroup) else { return };
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        for pid in now.into_iter().filter(|pid| *pid > 1 && *pid != own && processes.contains(pid)) {
            match kill(Pid::from_raw(pid), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(error) => tracing::warn!(cgroup, pid, "cannot kill a process: {error}"),
            }
        }
    }

    /// Makes a cgroup with those above it, and sets its values. Blocks on the file system.
    fn apply(&self, cgroup: &str, values: &CgroupValues, once: &Once) -> Result<(), CgroupError> {
        let path = relative(cgroup).map_err(|source| CgroupError::new("name", Path::new(cgroup), source))?;
        match &self.kind {
            Kind::V1(all) => all.iter().try_for_each(|one| v1::apply(one, path, values, once)),
            Kind::V2(root) => v2::apply(root, path, values, once),
        }
    }

    /// Whether the cgroup is there and has these values already. Blocks on the file system.
    fn is_set(&self, cgroup: &str, values: &CgroupValues) -> bool {
        let Ok(path) = relative(cgroup) else { return false };
        match &self.kind {
            Kind::V1(all) => all.iter().all(|one| v1::is_set(one, path, values)),
            Kind::V2(root) => v2::is_set(root, path, values),
        }
    }
}

/// A cgroup could not be made, set or removed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file or folder.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// On what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A slice.
    #[error(transparent)]
    Systemd(#[from] SystemdError),
}

impl CgroupError {
    fn new(what: impl Into<String>, path: &Path, source: io::Error) -> Self {
        Self::Io { what: what.into(), path: path.to_owned(), source }
    }

    /// Whether processes are still in it, or it still uses more than it shall.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::ResourceBusy)
    }
}

/// Makes, sets and removes cgroups.
pub struct Cgroups {
    mounts: CgroupMounts,
    systemd: Option<systemd::Systemd>,
    once: Once,
}

impl Cgroups {
    /// By the files of the hierarchies alone.
    pub fn with_files(mounts: CgroupMounts) -> Self {
        Self { mounts, systemd: None, once: Once::default() }
    }

    /// By systemd's slices, and by the files for what systemd has no property for. Nothing is asked of
    /// systemd before a cgroup is to be made.
    pub fn with_systemd(mounts: CgroupMounts) -> Self {
        Self { mounts, systemd: Some(systemd::Systemd::new()), once: Once::default() }
    }

    /// The hierarchies.
    pub fn mounts(&self) -> &CgroupMounts {
        &self.mounts
    }

    /// Makes a cgroup if it is missing, with those above it, and sets the values that differ.
    ///
    /// # Errors
    /// When it cannot be made or set although the process may; [`CgroupError::is_busy`] while it uses more
    /// than it is to have.
    pub async fn apply(self: &Arc<Self>, cgroup: &str, values: &CgroupValues) -> Result<(), CgroupError> {
        let _timed = Timed("update", Instant::now());
        if let Some(systemd) = &self.systemd {
            let (this, path, wanted) = (Arc::clone(self), cgroup.to_owned(), values.clone());
            if blocking(move || Ok(this.mounts.is_set(&path, &wanted))).await? {
                return Ok(());
            }
            systemd.apply(cgroup, values, self.mounts.is_v2()).await?;
        }
        let (this, cgroup, values) = (Arc::clone(self), cgroup.to_owned(), values.clone());
        blocking(move || this.mounts.apply(&cgroup, &values, &this.once)).await
    }

    /// Removes an empty cgroup with the empty ones below it. systemd keeps a slice that it was asked for until
    /// it is told, whether its cgroup is there or not; it is told first, so that the folder, by which what
    /// is left is found, stays as long as the slice.
    ///
    /// # Errors
    /// [`CgroupError::is_busy`] while a process is in it.
    pub async fn remove(self: &Arc<Self>, cgroup: &str) -> Result<(), CgroupError> {
        let _timed = Timed("destroy", Instant::now());
        if let Some(systemd) = &self.systemd {
            let (this, path) = (Arc::clone(self), cgroup.to_owned());
            // With a slice systemd would end what runs in it.
            blocking(move || this.mounts.check_empty(&path).map_err(|source| not_removed(&path, source)))
                .await?;
            systemd.stop(cgroup).await?;
        }
        let (this, path) = (Arc::clone(self), cgroup.to_owned());
        blocking(move || this.mounts.remove(&path).map(drop).map_err(|source| not_removed(&path, source)))
            .await
    }
}

/// Counts an operation when it is over, with how long it took.
struct Timed(&'static str, Instant);

impl Drop for Timed {
    fn drop(&mut self) {
        cgroup_changed(self.0, self.1.elapsed());
    }
}

fn not_removed(cgroup: &str, source: io::Error) -> CgroupError {
    CgroupError::new("remove cgroup", Path::new(cgroup), source)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CgroupError> + Send + 'static,
) -> Result<T, CgroupError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(CgroupError::new("work on", Path::new("cgroups"), io::Error::other(error)))
    })
}

/// The path below a hierarchy's mount point.
fn relative(cgroup: &str) -> io::Result<&str> {
    let plain = cgroup.starts_with('/')
        && cgroup.len() > 1
        && cgroup[1..].split('/').all(|part| !matches!(part, "" | "." | ".."));
    if plain {
        Ok(&cgroup[1..])
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("not a cgroup: {cgroup:?}")))
    }
}

fn entries(folder: &Path) -> io::Result<Option<fs::ReadDir>> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        entries => entries.map(Some),
    }
}

fn collect_processes(folder: &Path, found: &mut BTreeSet<i32>) -> io::Result<()> {
    let text = match fs::read_to_string(folder.join("cgroup.procs")) {
        // Gone meanwhile, or a threaded cgroup of v2, whose processes its parent tells.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::Unsupported) => {
            String::new()
        }
        text => text?,
    };
    found.extend(text.lines().filter_map(|line| line.trim().parse::<i32>().ok()).filter(|pid| *pid > 0));
    for entry in entries(folder)?.into_iter().flatten() {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect_processes(&entry.path(), found)?;
        }
    }
    Ok(())
}

/// Removes folders bottom-up; the files in a cgroup folder go with it.
fn remove_tree(folder: &Path) -> io::Result<bool> {
    let Some(entries) = entries(folder)? else { return Ok(false) };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        result => result.map(|()| true),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
