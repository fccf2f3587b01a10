//! Reads the files that a container's variables come from: an earlier container left them in a volume, and
//! may have left anything there.

use std::{io, path::Path};

use k8s_openapi::api::core::v1::{Container, FileKeySelector, Pod};

use super::pods::paths::NodePaths;
use crate::{
    api::PodExt as _,
    host::regular::{Links, open_below, read_whole},
    policy::env::EnvFiles,
};

/// The longest file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The files that the container's `fileKeyRef`s name.
pub fn named(container: &Container) -> impl Iterator<Item = &FileKeySelector> {
    let vars = container.env.iter().flatten().filter_map(|var| var.value_from.as_ref());
    vars.filter_map(|from| from.file_key_ref.as_ref())
}

/// Reads every file that the container's `fileKeyRef`s name, once. Blocks on the file system.
///
/// # Errors
/// Which file cannot be read, and why; that one is not there is none.
pub fn read(pod: &Pod, container: &Container, paths: &NodePaths) -> Result<EnvFiles, String> {
    let mut files = EnvFiles::new();
    for file in named(container) {
        let key = (file.volume_name.clone(), file.path.clone());
        if files.contains_key(&key) {
            continue;
        }
        let failed = |error: io::Error| {
            format!("file {:?} of volume {:?} cannot be read: {error}", file.path, file.volume_name)
        };
        let folder = paths
            .empty_dir(&pod.uid(), &file.volume_name)
            .ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        // A link within the volume is the pod's own affair, one out of it leads nowhere.
        let text = match open_below(&folder, Path::new(&file.path), Links::Within) {
            Ok(open) => {
                let bytes = read_whole(&open, MAX_FILE).map_err(failed)?;
                Some(String::from_utf8(bytes).map_err(|error| failed(io::Error::other(error.utf8_error())))?)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                None
            }
            Err(error) => return Err(failed(error)),
        };
        files.insert(key, text);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use serde_json::json;

    use super::*;

    #[test]
    fn files_of_the_volume_and_no_others_are_read() {
        let root = tempfile::tempdir().unwrap();
        let paths = NodePaths {
            root: root.path().into(),
            pod_logs: root.path().join("logs"),
            container_logs: root.path().join("links"),
        };
        let volume = paths.empty_dir(&"u".into(), "v").unwrap();
        fs::create_dir_all(volume.join("d")).unwrap();
        fs::write(volume.join("d/f"), "A='1'").unwrap();
        fs::write(volume.join("latin"), b"A='\xe4'").unwrap();
        fs::write(volume.join("long"), vec![b'#'; (1 << 20) + 1]).unwrap();
        fs::write(root.path().join("secret"), "A='secret'").unwrap();
        symlink("/d/f", volume.join("link")).unwrap();
        symlink(root.path().join("secret"), volume.join("host")).unwrap();
        let read = |path: &str| {
            let file = json!({"volumeName": "v", "path": path, "key": "A"});
            let container = json!({"name": "c", "env": [{"name": "A", "valueFrom": {"fileKeyRef": file}}]});
            let container: Container = serde_json::from_value(container).unwrap();
            let mut pod = Pod::default();
            pod.metadata.uid = Some("u".into());
            read(&pod, &container, &paths).map(|files| files.into_values().next().unwrap())
        };
        for path in ["d/f", "link"] {
            assert_eq!(read(path), Ok(Some("A='1'".to_owned())), "{path}");
        }
        for path in ["absent", "d/f/g", "host"] {
            assert_eq!(read(path), Ok(None), "{path}");
        }
        for path in ["latin", "long", "d"] {
            assert!(read(path).unwrap_err().contains(path), "{path}");
        }
    }
}
