//! Runtime classes from a folder of manifests, while there is no API server to ask.
//!
//! The folder is looked at whenever a class is needed, which is when a pod is taken and when a sandbox is
//! made; a file is read again when it has changed. So nothing is watched, and nothing can be missed.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use k8s_openapi::api::node::v1::RuntimeClass;
use thiserror::Error;

use crate::{
    api::manifest::{MAX_RUNTIME_CLASS_BYTES, parse_runtime_class},
    host::read::read_bounded,
};

/// The most manifests in a folder.
const MAX_FILES: usize = 1000;

/// Why a class cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RuntimeClassError {
    /// No folder is configured.
    #[error("runtime class {name:?} is not known: no folder of runtime classes is configured")]
    NotConfigured {
        /// The class's name.
        name: String,
    },
    /// The folder cannot be looked at.
    #[error("runtime class {name:?}: cannot read folder {path}: {why}", path = folder.display())]
    Folder {
        /// The class's name.
        name: String,
        /// The folder.
        folder: PathBuf,
        /// The cause.
        why: String,
    },
    /// No manifest is of this name.
    #[error("runtime class {name:?} is not known: no manifest in {path} describes it{faults}", path = folder.display())]
    Unknown {
        /// The class's name.
        name: String,
        /// The folder.
        folder: PathBuf,
        /// What is wrong with manifests there, which may be the reason.
        faults: String,
    },
    /// Several manifests are of this name.
    #[error("runtime class {name:?} is described by both {one} and {other}", one = one.display(), other = other.display())]
    Ambiguous {
        /// The class's name.
        name: String,
        /// A manifest.
        one: PathBuf,
        /// Another one.
        other: PathBuf,
    },
}

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    changed: (i64, i64),
}

type Read = (Stamp, Result<Arc<RuntimeClass>, String>);

/// The classes of a folder.
#[derive(Debug, Default)]
pub struct RuntimeClasses {
    folder: Option<PathBuf>,
    files: Mutex<BTreeMap<PathBuf, Read>>,
}

impl RuntimeClasses {
    /// Those of a folder; none without one.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, files: Mutex::default() }
    }

    /// The class of a name. Blocks on the file system.
    ///
    /// # Errors
    /// See [`RuntimeClassError`].
    pub fn get(&self, name: &str) -> Result<Arc<RuntimeClass>, RuntimeClassError> {
        let name_of = || name.to_owned();
        let Some(folder) = &self.folder else {
            return Err(RuntimeClassError::NotConfigured { name: name_of() });
        };
        let mut known = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        *known = look(folder, std::mem::take(&mut *known)).map_err(|error| RuntimeClassError::Folder {
            name: name_of(),
            folder: folder.clone(),
            why: error.to_string(),
        })?;
        let mut found = known.iter().filter_map(|(path, (_, read))| {
            let class = read.as_ref().ok()?;
            (class.metadata.name.as_deref() == Some(name)).then_some((path, class))
        });
        match (found.next(), found.next()) {
            (Some((_, class)), None) => Ok(Arc::clone(class)),
            (Some((one, _)), Some((other, _))) => {
                Err(RuntimeClassError::Ambiguous { name: name_of(), one: one.clone(), other: other.clone() })
            }
            (None, _) => {
                let fault = |(path, (_, read)): (&PathBuf, &Read)| {
                    read.as_ref().err().map(|why| format!("; {} is not read: {why}", path.display()))
                };
                let faults = known.iter().filter_map(fault).collect();
                Err(RuntimeClassError::Unknown { name: name_of(), folder: folder.clone(), faults })
            }
        }
    }
}

/// Reads what has changed. Names that begin with a dot are not looked at: tools write so beside a file.
fn look(folder: &Path, mut before: BTreeMap<PathBuf, Read>) -> io::Result<BTreeMap<PathBuf, Read>> {
    let mut now = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        let manifest = path.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|e| end == *e));
        if hidden || !manifest {
            continue;
        }
        if now.len() == MAX_FILES {
            return Err(io::Error::other(format!("it has more than {MAX_FILES} manifests")));
        }
        let Ok(meta) = fs::metadata(&path) else { continue };
        let stamp = Stamp {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        };
        let read = match before.remove(&path) {
            Some(known) if known.0 == stamp => known,
            _ => (stamp, read(&path)),
        };
        now.insert(path, read);
    }
    Ok(now)
}

fn read(path: &Path) -> Result<Arc<RuntimeClass>, String> {
    let read = read_bounded(path, MAX_RUNTIME_CLASS_BYTES)
        .map_err(|error| error.to_string())
        .and_then(|bytes| parse_runtime_class(&bytes).map_err(|error| error.to_string()));
    match &read {
        Ok(class) => tracing::info!(
            name = class.metadata.name,
            handler = class.handler,
            "runtime class from {}",
            path.display()
        ),
        Err(error) => tracing::warn!("{} gives no runtime class: {error}", path.display()),
    }
    read.map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(folder: &Path, file: &str, name: &str, handler: &str) {
        let text = format!(
            "apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {{name: {name}}}\nhandler: {handler}\n"
        );
        let beside = folder.join(".new");
        fs::write(&beside, text).unwrap();
        fs::rename(beside, folder.join(file)).unwrap();
    }

    #[test]
    fn a_class_comes_changes_and_goes_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let classes = RuntimeClasses::new(Some(folder.path().into()));
        let handler = |name: &str| classes.get(name).map(|class| class.handler.clone());
        let told = |name: &str| handler(name).unwrap_err().to_string();
        assert!(told("light").contains("no manifest in"));
        put(folder.path(), "light.yaml", "light", "crun");
        put(folder.path(), "other.json", "other", "kata");
        assert_eq!(handler("light").as_deref(), Ok("crun"));
        put(folder.path(), "light.yaml", "light", "youki");
        assert_eq!(handler("light").as_deref(), Ok("youki"));
        put(folder.path(), "second.yml", "light", "crun");
        assert!(told("light").contains("both"), "{}", told("light"));
        fs::remove_file(folder.path().join("second.yml")).unwrap();
        fs::write(folder.path().join("light.yaml"), "kind: Pod\n").unwrap();
        assert!(told("light").contains("light.yaml is not read: "), "{}", told("light"));
        fs::remove_file(folder.path().join("light.yaml")).unwrap();
        assert!(!told("light").contains("light.yaml"));
        // What is no manifest is not looked at.
        fs::write(folder.path().join("README"), "x").unwrap();
        assert_eq!(handler("other").as_deref(), Ok("kata"));
    }

    #[test]
    fn without_a_folder_there_is_no_class() {
        let error = RuntimeClasses::default().get("light").unwrap_err();
        assert_eq!(error, RuntimeClassError::NotConfigured { name: "light".into() });
        let missing = RuntimeClasses::new(Some("/nowhere/classes".into()));
        assert!(missing.get("light").unwrap_err().to_string().contains("/nowhere/classes"));
    }
}
