//! Reads the files that a container's variables come from: an earlier container left them in a volume, and
//! may have left anything there.
//!
//! Of a file only the variables that are looked for are kept, and all files together are bounded: a pod can
//! name thousands of paths that lead to the largest of files.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use k8s_openapi::api::core::v1::{Container, FileKeySelector, Pod};

use super::pods::paths::NodePaths;
use crate::{
    api::PodExt as _,
    host::regular::{Links, open_below, read_whole},
    policy::{env::EnvFiles, env_file::EnvFile},
};

/// The longest file, in bytes.
const MAX_FILE: u64 = 1 << 20;
/// All files of a container together, in bytes: no more fits into an environment either.
const MAX_FILES: u64 = 6 << 20;

/// The files that the container's `fileKeyRef`s name.
pub fn named(container: &Container) -> impl Iterator<Item = &FileKeySelector> {
    let vars = container.env.iter().flatten().filter_map(|var| var.value_from.as_ref());
    vars.filter_map(|from| from.file_key_ref.as_ref())
}

/// Reads every file that the container's `fileKeyRef`s name, once. Blocks on the file system.
///
/// # Errors
/// Which file cannot be read, and why, or that all together are too long; that one is not there is none.
pub fn read(pod: &Pod, container: &Container, paths: &NodePaths) -> Result<EnvFiles, String> {
    let mut wanted: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for file in named(container) {
        wanted.entry((&file.volume_name, &file.path)).or_default().insert(&file.key);
    }
    let mut room = MAX_FILES;
    let mut files = EnvFiles::new();
    for ((volume, path), keys) in wanted {
        let failed = |error: io::Error| format!("file {path:?} of volume {volume:?} cannot be read: {error}");
        let folder =
            paths.empty_dir(&pod.uid(), volume).ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        // A link within the volume is the pod's own affair, one out of it leads nowhere.
        let file = match open_below(&folder, Path::new(path), Links::Within) {
            Ok(open) => {
                let bytes = read_whole(&open, MAX_FILE).map_err(failed)?;
                let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                room = room.checked_sub(length).ok_or_else(|| {
                    let mebibytes = MAX_FILES >> 20;
                    format!(
                        "the files of the container's fileKeyRefs are longer than {mebibytes} MiB together"
                    )
                })?;
                let text = std::str::from_utf8(&bytes).map_err(|error| failed(io::Error::other(error)))?;
                Some(EnvFile::parse(text, &keys))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                None
            }
            Err(error) => return Err(failed(error)),
        };
        files.insert((volume.to_owned(), path.to_owned()), file);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::PathBuf};

    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        let mut pod = Pod::default();
        pod.metadata.uid = Some("u".into());
        pod
    }

    /// The node's folders, and that of the pod's volume `v`.
    fn node(root: &Path) -> (NodePaths, PathBuf) {
        let paths =
            NodePaths { root: root.into(), pod_logs: root.join("logs"), container_logs: root.join("links") };
        let volume = paths.empty_dir(&"u".into(), "v").unwrap();
        (paths, volume)
    }

    #[test]
    fn all_files_together_are_bounded_and_only_what_is_wanted_is_kept() {
        let root = tempfile::tempdir().unwrap();
        let (paths, volume) = node(root.path());
        fs::create_dir_all(&volume).unwrap();
        let filler = format!("# {}\n", "x".repeat(1 << 10)).repeat(1000);
        fs::write(volume.join("f"), format!("A='1'\nB='2'\n{filler}C='3'\n")).unwrap();
        let of_links = |links: usize| {
            let vars = (0..links).flat_map(|link| {
                let path = format!("l{link}");
                symlink("f", volume.join(&path)).ok();
                ["A", "C", "none"].map(|key| {
                    let file = json!({"volumeName": "v", "path": path, "key": key, "optional": true});
                    json!({"name": format!("{key}{link}"), "valueFrom": {"fileKeyRef": file}})
                })
            });
            let env: Vec<_> = vars.collect();
            let container: Container = serde_json::from_value(json!({"name": "c", "env": env})).unwrap();
            read(&pod(), &container, &paths)
        };
        let files = of_links(6).unwrap();
        assert_eq!(files.len(), 6);
        for file in files.into_values().flatten() {
            assert_eq!((file.value("A"), file.value("C")), (Ok(Some("1")), Ok(Some("3"))));
            assert_eq!((file.value("B"), file.value("none")), (Ok(None), Ok(None)));
        }
        let error = of_links(2000).unwrap_err();
        assert!(error.contains("longer than 6 MiB together"), "{error}");
    }

    #[test]
    fn files_of_the_volume_and_no_others_are_read() {
        let root = tempfile::tempdir().unwrap();
        let (paths, volume) = node(root.path());
        fs::create_dir_all(volume.join("d")).unwrap();
        fs::write(volume.join("d/f"), "A='1'").unwrap();
        fs::write(volume.join("latin"), b"A='\xe4'").unwrap();
        fs::write(volume.join("long"), vec![b'#'; (1 << 20) + 1]).unwrap();
        fs::write(root.path().join("secret"), "A='secret'").unwrap();
        symlink("/d/f", volume.join("link")).unwrap();
        symlink(root.path().join("secret"), volume.join("host")).unwrap();
        let at = |path: &str| {
            let file = json!({"volumeName": "v", "path": path, "key": "A"});
            let container = json!({"name": "c", "env": [{"name": "A", "valueFrom": {"fileKeyRef": file}}]});
            let container: Container = serde_json::from_value(container).unwrap();
            let files = read(&pod(), &container, &paths)?;
            Ok::<_, String>(files.into_values().next().unwrap())
        };
        for path in ["d/f", "link"] {
            assert_eq!(at(path).unwrap().unwrap().value("A"), Ok(Some("1")), "{path}");
        }
        for path in ["absent", "d/f/g", "host"] {
            assert_eq!(at(path), Ok(None), "{path}");
        }
        for path in ["latin", "long", "d"] {
            assert!(at(path).unwrap_err().contains(path), "{path}");
        }
    }
}
