//! Gives pods their ranges of the host's user numbers (`hostUsers: false`). Nothing is held in memory: the
//! file in a pod's folder is what gives it the range, and its range is free when its folder is gone, which
//! is after its last process. So an agent that starts anew, or kubelet, goes on with the same.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    path::Path,
    sync::{Mutex, PoisonError},
};

use super::paths::NodePaths;
use crate::policy::userns::{IdPool, PodIds, parse_record, record_text};

/// Kubelet's name of the file in a pod's folder.
const FILE: &str = "userns";
const UNFINISHED: &str = ".userns.tmp";
/// The file has one line of some 130 bytes.
const MAX_BYTES: u64 = 4096;

/// The numbers that pods may have, or why none can be given.
pub struct UserNamespaces {
    pool: Result<IdPool, String>,
    /// Ranges are given one at a time.
    giving: Mutex<()>,
}

impl UserNamespaces {
    /// From what the node keeps for the user `kubelet`, else all numbers that are not the host's own.
    pub fn of_node(etc: &Path, ids_per_pod: u32) -> Self {
        let read = |name: &str| match fs::read_to_string(etc.join(name)) {
            Ok(text) => Ok(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(format!("cannot read {}: {error}", etc.join(name).display())),
        };
        let pool = read("subuid").and_then(|uids| {
            let kept = IdPool::of_kubelet(&uids, &read("subgid")?, ids_per_pod)?;
            Ok(kept.unwrap_or_else(|| IdPool::whole(ids_per_pod)))
        });
        if let Err(why) = &pool {
            tracing::warn!("pods cannot have user namespaces of their own: {why}");
        }
        Self { pool, giving: Mutex::new(()) }
    }

    /// The range of the pod whose folder is given: the one that it has, else a free one, kept on disk before
    /// it is answered. Blocks on files.
    ///
    /// # Errors
    /// When none is left, or a file cannot be read or written, in words.
    pub fn of_pod(&self, paths: &NodePaths, folder: &Path) -> Result<PodIds, String> {
        let _one = self.giving.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ids) = read_ids(folder)? {
            return Ok(ids);
        }
        let pool = self.pool.as_ref().map_err(Clone::clone)?;
        let ids = pool.pick(&taken(&paths.pods())?).map_err(|error| error.to_string())?;
        let file = folder.join(FILE);
        write(folder, &record_text(ids))
            .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
        Ok(ids)
    }
}

/// The ranges of all pods. One that cannot be read may be any, so then none is given.
fn taken(pods: &Path) -> Result<Vec<PodIds>, String> {
    let failed = |error: io::Error| format!("cannot read {}: {error}", pods.display());
    let mut all = Vec::new();
    for entry in fs::read_dir(pods).map_err(failed)? {
        all.extend(read_ids(&entry.map_err(failed)?.path())?);
    }
    Ok(all)
}

fn read_ids(folder: &Path) -> Result<Option<PodIds>, String> {
    let path = folder.join(FILE);
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(format!("cannot open {}: {error}", path.display())),
    };
    let mut text = Vec::new();
    file.take(MAX_BYTES)
        .read_to_end(&mut text)
        .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    parse_record(&text).map(Some).map_err(|why| {
        format!("{} does not tell the pod's user numbers: {why}; remove the pod to go on", path.display())
    })
}

/// Writes beside, then renames into place, and has the disk hold both.
fn write(folder: &Path, text: &str) -> io::Result<()> {
    let beside = folder.join(UNFINISHED);
    let mut file = fs::File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, folder.join(FILE))?;
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> (tempfile::TempDir, NodePaths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = NodePaths {
            root: dir.path().to_path_buf(),
            pod_logs: dir.path().join("logs"),
            container_logs: dir.path().join("links"),
        };
        for pod in ["a", "b", "c"] {
            fs::create_dir_all(paths.pods().join(pod)).unwrap();
        }
        (dir, paths)
    }

    #[test]
    fn a_pod_keeps_its_range_and_gives_it_back_with_its_folder() {
        let (dir, paths) = node();
        let folder = |pod: &str| paths.pods().join(pod);
        let given = |pod: &str| {
            // Every time a new one: as of an agent that has just started.
            UserNamespaces::of_node(dir.path(), 65536).of_pod(&paths, &folder(pod)).map(|ids| ids.host_id)
        };
        assert_eq!(given("a"), Ok(65536));
        assert_eq!(given("b"), Ok(131_072));
        assert_eq!(given("a"), Ok(65536));
        assert_eq!(fs::read_dir(folder("a")).unwrap().count(), 1, "nothing is left beside");
        fs::remove_dir_all(folder("a")).unwrap();
        assert_eq!(given("c"), Ok(65536));
    }

    #[test]
    fn a_damaged_file_gives_no_range_away() {
        let (dir, paths) = node();
        let all = UserNamespaces::of_node(dir.path(), 65536);
        fs::write(paths.pods().join("a/userns"), "{}").unwrap();
        for pod in ["a", "b"] {
            let why = all.of_pod(&paths, &paths.pods().join(pod)).unwrap_err();
            assert!(why.contains("pods/a/userns"), "{why}");
        }
        assert!(!paths.pods().join("b/userns").exists());
    }

    #[test]
    fn the_nodes_own_ranges_are_kept_to() {
        let (dir, paths) = node();
        for file in ["subuid", "subgid"] {
            fs::write(dir.path().join(file), "kubelet:131072:65536\n").unwrap();
        }
        let all = UserNamespaces::of_node(dir.path(), 65536);
        let given = |pod: &str| all.of_pod(&paths, &paths.pods().join(pod)).map(|ids| ids.host_id);
        assert_eq!(given("a"), Ok(131_072));
        assert!(given("b").unwrap_err().contains("given away"));
        fs::write(dir.path().join("subgid"), "").unwrap();
        let none = UserNamespaces::of_node(dir.path(), 65536);
        assert!(none.of_pod(&paths, &paths.pods().join("b")).unwrap_err().contains("differ"));
        // The one that has a range keeps it.
        assert_eq!(none.of_pod(&paths, &paths.pods().join("a")).map(|ids| ids.host_id), Ok(131_072));
    }
}
