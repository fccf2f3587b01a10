//! Clears away what nobody wants: pods that no source names, and what a crash left of pods that are gone.

use std::{fs, io, path::Path};

use super::{logs, pods::paths::NodePaths};
use crate::{
    api::{PodUid, ids::is_safe_path_component},
    host::remove::remove_tree,
};

/// The UIDs that have a folder under the root-dir. Files and links there are nobody's pods. Blocks on the
/// file system.
///
/// # Errors
/// As `readdir`; a missing folder is an empty one.
pub fn pod_folders(paths: &NodePaths) -> io::Result<Vec<PodUid>> {
    let entries = match fs::read_dir(paths.pods()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if is_safe_path_component(&name) && entry.file_type()?.is_dir() {
            found.push(PodUid::from(name));
        }
    }
    Ok(found)
}

/// Removes log folders of pods that are not known, and links whose logs are gone and whose containers do not
/// run. Blocks on the file system.
///
/// # Errors
/// As `readdir` and `unlink`.
pub fn sweep_logs(
    paths: &NodePaths,
    known: impl Fn(&PodUid) -> bool,
    runs: impl Fn(&str) -> bool,
) -> io::Result<()> {
    for name in names(&paths.pod_logs)? {
        // namespace_name_uid: neither a namespace nor a name has an underscore.
        let Some((_, uid)) = name.split_once('_').and_then(|(_, rest)| rest.split_once('_')) else {
            continue;
        };
        if is_safe_path_component(uid) && !known(&PodUid::from(uid)) {
            let folder = paths.pod_logs.join(&name);
            if !folder.symlink_metadata()?.is_dir() {
                continue;
            }
            tracing::info!(folder = %folder.display(), "removing the logs of a pod that is gone");
            if let Err(error) = remove_tree(&folder) {
                tracing::warn!(folder = %folder.display(), "cannot remove the logs of a pod that is gone: {error}");
            }
        }
    }
    logs::sweep_links(paths, runs)
}

fn names(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    entries.filter_map(|entry| entry.map(|entry| entry.file_name().into_string().ok()).transpose()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_logs_of_unknown_pods_go() {
        let root = tempfile::tempdir().unwrap();
        let paths = NodePaths {
            root: root.path().join("root"),
            pod_logs: root.path().join("logs"),
            container_logs: root.path().join("links"),
        };
        sweep_logs(&paths, |_| false, |_| false).unwrap();
        assert!(pod_folders(&paths).unwrap().is_empty());
        fs::create_dir_all(&paths.pod_logs).unwrap();
        fs::write(paths.pod_logs.join("a_b_file"), "").unwrap();
        for name in ["ns_a_known", "ns_b_gone", "somebody-elses"] {
            fs::create_dir_all(paths.pod_logs.join(name)).unwrap();
        }
        fs::create_dir_all(paths.pods().join("u1")).unwrap();
        fs::write(paths.pods().join("file"), "").unwrap();
        std::os::unix::fs::symlink("u1", paths.pods().join("link")).unwrap();
        sweep_logs(&paths, |uid| uid.as_str() == "known", |_| false).unwrap();
        let mut left = names(&paths.pod_logs).unwrap();
        left.sort();
        assert_eq!(left, ["a_b_file", "ns_a_known", "somebody-elses"]);
        assert_eq!(pod_folders(&paths).unwrap(), ["u1".into()]);
    }
}
