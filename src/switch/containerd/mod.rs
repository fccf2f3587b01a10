//! containerd's configuration: a main file and those it imports, edited where a setting takes effect.
//!
//! How the files make one configuration differs. containerd 1.x takes each plugin's section whole from the
//! last file that has one; containerd 2.x merges them key by key, the last file that has a key winning
//! (`mergeConfig` in its `config.go`). A key that several files have is set in all of them here, so that the
//! outcome depends on neither. Lists such as `disabled_plugins` add up in both.

mod elsewhere;
mod expect;
mod registry;
mod runtimes;
mod schema;
#[cfg(test)]
mod tests;
mod upgrade;

use std::path::{Path, PathBuf};

use thiserror::Error;
use toml_edit::{Array, DocumentMut, Item, Value};

use self::schema::{CRI_PLUGINS, Schema, upgrade_v1};
use super::{
    lines::Lines,
    toml::{NoTable, get, get_str, names, remove, set, shown, take_out},
};

pub use elsewhere::elsewhere;
pub use expect::{check_dump, sandbox_image};
pub(crate) use registry::authority;
pub use registry::{Registry, Tls, hosts_toml};
pub use runtimes::{cgroup_driver, running_cgroup_driver};

/// Where the main file is unless containerd is told otherwise.
pub const CONFIG: &str = "/etc/containerd/config.toml";

/// Where CNI's configuration and plugins are unless containerd is told otherwise.
const CNI_CONF_DIR: &str = "/etc/cni/net.d";
const CNI_BIN_DIR: &str = "/opt/cni/bin";
/// The first release with several folders of plugins (`bin_dirs`).
const BIN_DIRS: Release = Release { major: 2, minor: 1 };

/// Put behind each file while it is edited: what follows its last value, commented-out settings of the top
/// level in the file that Docker's packages bring, stays before tables that are added.
const END: &str = "\n[\"end of the file\"]\n";

/// A file of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// Where it is.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

/// The first release that reads `hosts.toml` files (`config_path`); those before know mirrors in place alone.
pub const READS_HOSTS: Release = Release { major: 1, minor: 5 };

/// containerd's release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// As 2 in 2.1.9.
    pub major: u32,
    /// As 1 in 2.1.9.
    pub minor: u32,
}

/// What the configuration is to say. What is `None` stays as it is.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// The image of sandboxes.
    pub pause_image: Option<String>,
    /// Whether systemd makes the containers' cgroups.
    pub systemd_cgroup: Option<bool>,
    /// The folder with a `hosts.toml` for each registry.
    pub registry_config_path: Option<String>,
    /// The folders of the CNI plugins' binaries, with commas between. Where containerd takes but one (before 2.1),
    /// it is the first.
    pub cni_bin_dir: Option<String>,
    /// The folder of the CNI configuration.
    pub cni_conf_dir: Option<String>,
    /// Whether no process gets a lower `oom_score_adj` than containerd's own.
    pub restrict_oom_score_adj: Option<bool>,
    /// Runtimes that are to be there. One of the same name that is there already stays as it is.
    pub runtimes: Vec<Runtime>,
    /// The runtime of pods that ask for none.
    pub default_runtime: Option<String>,
    /// Whether files of versions 1 and 2 become files of version 3, which containerd 2 has as its own. Without it a
    /// file keeps its version as long as containerd reads it.
    pub upgrade: bool,
}

/// A runtime of containers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runtime {
    /// Its name, which a RuntimeClass's handler says.
    pub name: String,
    /// Its shim, as `io.containerd.runc.v2`.
    pub kind: String,
    /// The program that the runc shim calls in place of `runc`.
    pub binary: Option<String>,
}

/// What became of the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edited {
    /// The files that changed, with their new text.
    pub changed: Vec<ConfigFile>,
    /// What the configuration said of registries that has to be said in files below
    /// [`Edited::registry_config_path`] now: beside that setting containerd refuses it.
    pub registries: Vec<Registry>,
    /// The folder of those files, if the configuration names one.
    pub registry_config_path: Option<String>,
    /// What containerd must make of it: keys of `containerd config dump` and their values, for [`check_dump`].
    pub expected: Vec<(String, String)>,
    /// What is worth knowing and was left alone.
    pub notes: Vec<String>,
}

/// A configuration that cannot be edited.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// It does not parse, so containerd does not start with it either.
    #[error("{path} is not valid TOML: {why}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// Line, column and what is wrong there.
        why: String,
    },
    /// A section is no table.
    #[error("{path}: {why}")]
    NoTable {
        /// The file.
        path: PathBuf,
        /// Which.
        why: String,
    },
    /// A version that is not known.
    #[error("{path} has version = {version}, and known are 1 to 4")]
    Version {
        /// The file.
        path: PathBuf,
        /// As it stands there.
        version: String,
    },
}

/// A file that is taken apart.
struct Document {
    root: DocumentMut,
    schema: Schema,
    changed: bool,
}

impl Document {
    fn item(&self) -> &Item {
        self.root.as_item()
    }

    fn has(&self, path: &[&str]) -> bool {
        get(self.item(), path).is_some()
    }
}

/// All files, in the order in which containerd reads them.
struct Files<'a> {
    originals: &'a [ConfigFile],
    documents: Vec<Document>,
    release: Release,
}

/// Brings a configuration to what is wished. `files` are the main file and those it imports, in the order in
/// which containerd reads them; a main file that is not there is an empty one.
///
/// # Errors
/// When a file cannot be understood. Nothing is changed then.
pub fn edit(files: &[ConfigFile], wishes: &Wishes, release: Release) -> Result<Edited, ConfigError> {
    let mut edited = Edited::default();
    let mut all = Files::read(files, release)?;
    all.upgrade(&mut edited.notes);
    if wishes.upgrade {
        all.upgrade_to_3(&mut edited.notes);
    }
    all.enable_cri();
    if let Some(image) = &wishes.pause_image {
        all.set(Schema::sandbox_image, image.as_str())?;
    }
    all.replace_old_shims(&mut edited.notes);
    all.add_runtimes(wishes, &mut edited.notes)?;
    if let Some(systemd) = wishes.systemd_cgroup {
        all.set_systemd_cgroup(systemd, &mut edited.notes)?;
    }
    if let Some(path) = &wishes.registry_config_path {
        all.set(Schema::config_path, path.as_str())?;
    }
    all.set_cni(wishes, &mut edited.notes)?;
    if let Some(restrict) = wishes.restrict_oom_score_adj {
        all.set(Schema::restrict_oom_score_adj, restrict)?;
    }
    edited.registry_config_path = all.registry_config_path().filter(|_| release >= READS_HOSTS);
    if edited.registry_config_path.is_some() {
        edited.registries = all.take_registries();
    }
    edited.expected = all.expected(wishes, edited.registry_config_path.as_deref());
    edited.changed = all.changed();
    Ok(edited)
}

impl<'a> Files<'a> {
    fn read(originals: &'a [ConfigFile], release: Release) -> Result<Self, ConfigError> {
        let mut documents: Vec<Document> = Vec::with_capacity(originals.len());
        for file in originals {
            let text = format!("{}{END}", Lines::new(&file.text).plain());
            let root: DocumentMut = text
                .parse()
                .map_err(|error| ConfigError::Broken { path: file.path.clone(), why: one_line(&error) })?;
            let version = root.get("version");
            let known = version.and_then(Item::as_integer).or(version.is_none().then_some(1));
            let Some(written @ 0..=4) = known else {
                let version = version.map(|item| item.to_string().trim().to_owned()).unwrap_or_default();
                return Err(ConfigError::Version { path: file.path.clone(), version });
            };
            let schema = Schema::new(written, release);
            documents.push(Document { root, schema, changed: false });
        }
        Ok(Self { originals, documents, release })
    }

    /// containerd 2 does not take CRI's settings from a file of version 1: its plugin names are spelled out
    /// as version 2 has them. In any file of that version, names of version 2 are told.
    fn upgrade(&mut self, notes: &mut Vec<String>) {
        for (file, document) in self.originals.iter().zip(&mut self.documents) {
            if document.schema != Schema::V1 {
                continue;
            }
            let misplaced = names(document.item(), &["plugins"]).into_iter().find(|name| name.contains('.'));
            if self.release.major >= 2 {
                upgrade_v1(&mut document.root);
                document.changed = true;
                document.schema = Schema::V2;
            } else if let Some(name) = misplaced {
                notes.push(format!(
                    "{} has no `version = 2`, so that containerd does not read its section {}",
                    file.path.display(),
                    shown(&["plugins", &name])
                ));
            }
        }
    }

    fn enable_cri(&mut self) {
        for document in &mut self.documents {
            let root = document.root.as_item_mut();
            document.changed |= take_out(root, &["disabled_plugins"], |name| CRI_PLUGINS.contains(&name));
        }
    }

    /// The file in which a setting of a plugin takes effect when no file has it yet.
    fn effective(&self, section: impl Fn(Schema) -> Vec<&'static str>) -> usize {
        let has = |document: &Document| document.has(&section(document.schema));
        match self.release.major {
            0 | 1 => self.documents.iter().rposition(has).unwrap_or(0),
            _ => self.documents.iter().position(has).unwrap_or(0),
        }
    }

    fn put(&mut self, at: usize, path: &[&str], value: impl Into<Value>) -> Result<(), ConfigError> {
        let Some(document) = self.documents.get_mut(at) else { return Ok(()) };
        match set(document.root.as_item_mut(), path, value) {
            Ok(changed) => document.changed |= changed,
            Err(error) => return Err(self.no_table(at, &error)),
        }
        Ok(())
    }

    fn no_table(&self, at: usize, error: &NoTable) -> ConfigError {
        let path = self.originals.get(at).map(|file| file.path.clone()).unwrap_or_default();
        ConfigError::NoTable { path, why: error.to_string() }
    }

    /// Sets a value wherever it stands, and where it takes effect.
    fn set(
        &mut self,
        path: impl Fn(Schema) -> Vec<&'static str>,
        value: impl Into<Value>,
    ) -> Result<(), ConfigError> {
        let mut places: Vec<usize> = (0..self.documents.len()).filter(|at| self.has(*at, &path)).collect();
        // The section is a plugin's: its first two keys.
        let effective = self.effective(|schema| path(schema).into_iter().take(2).collect());
        if places.is_empty() || self.release.major < 2 {
            places.push(effective);
        }
        let value = value.into();
        for at in places {
            let Some(document) = self.documents.get(at) else { continue };
            let path = path(document.schema);
            self.put(at, &path, value.clone())?;
        }
        Ok(())
    }

    fn has(&self, at: usize, path: impl Fn(Schema) -> Vec<&'static str>) -> bool {
        self.documents.get(at).is_some_and(|document| document.has(&path(document.schema)))
    }

    /// The folder of `hosts.toml` files, where one is set; the last file counts.
    fn registry_config_path(&self) -> Option<String> {
        let found = self.documents.iter().rev().find_map(|document| {
            get_str(document.item(), &document.schema.config_path()).filter(|path| !path.is_empty())
        });
        found.map(str::to_owned)
    }

    /// The folders of CNI. containerd 2.1 has a list of those with plugins, and the single one of before, which it is
    /// to lose, wins over it. What containerd does by itself needs no word.
    fn set_cni(&mut self, wishes: &Wishes, notes: &mut Vec<String>) -> Result<(), ConfigError> {
        if let Some(folder) = &wishes.cni_conf_dir
            && (folder != CNI_CONF_DIR || self.anywhere(Schema::cni_conf_dir))
        {
            self.set(Schema::cni_conf_dir, folder.as_str())?;
        }
        let Some(folders) = &wishes.cni_bin_dir else { return Ok(()) };
        let folders: Vec<&str> =
            folders.split(',').map(str::trim).filter(|folder| !folder.is_empty()).collect();
        let said = self.anywhere(Schema::cni_bin_dir) || self.anywhere(Schema::cni_bin_dirs);
        let Some(first) = folders.first().filter(|_| said || folders != [CNI_BIN_DIR]) else {
            return Ok(());
        };
        if self.has_bin_dirs() {
            for document in self.documents.iter_mut().filter(|document| document.schema == Schema::V3) {
                document.changed |= remove(document.root.as_item_mut(), &Schema::V3.cni_bin_dir());
            }
            return self.set(Schema::cni_bin_dirs, Array::from_iter(folders));
        }
        if folders.len() > 1 {
            notes.push(format!(
                "this containerd looks for CNI plugins in one folder, {first}; those in {} have to be put there",
                folders.get(1..).unwrap_or_default().join(", ")
            ));
        }
        self.set(Schema::cni_bin_dir, *first)
    }

    /// Whether CNI plugins may be in several folders: containerd 2.1, in its own version of the file.
    fn has_bin_dirs(&self) -> bool {
        self.release >= BIN_DIRS && self.documents.iter().any(|document| document.schema == Schema::V3)
    }

    fn anywhere(&self, path: impl Fn(Schema) -> Vec<&'static str>) -> bool {
        self.documents.iter().any(|document| document.has(&path(document.schema)))
    }

    fn take_registries(&mut self) -> Vec<Registry> {
        let mut taken = Vec::new();
        for document in &mut self.documents {
            let path = document.schema.registry();
            document.changed |= registry::take(document.root.as_item_mut(), &path, &mut taken);
        }
        taken
    }

    fn changed(&self) -> Vec<ConfigFile> {
        let changed = self.originals.iter().zip(&self.documents).filter(|(_, document)| document.changed);
        changed
            .map(|(file, document)| {
                let lines = Lines::new(&file.text);
                let mut text = document.root.to_string().replacen(END, "", 1);
                if lines.plain().trim().is_empty() {
                    text = text.trim_start().to_owned();
                }
                ConfigFile { path: file.path.clone(), text: lines.restore(&text) }
            })
            .collect()
    }
}

fn joined<'a>(path: &'a [String], more: &[&'a str]) -> Vec<&'a str> {
    path.iter().map(String::as_str).chain(more.iter().copied()).collect()
}

/// An error of the parser, which draws what it found, in one line.
fn one_line(error: &toml_edit::TomlError) -> String {
    let text = error.to_string();
    let place = text.lines().next().unwrap_or_default().trim_start_matches("TOML parse error at ");
    format!("{place}: {}", error.message().replace('\n', ", "))
}

/// The files that a file imports, as patterns to look for: relative ones are beside it, but for patterns of
/// containerd 1.x, which are taken as they are (`resolveImports`).
pub fn imports(file: &ConfigFile, release: Release) -> Vec<PathBuf> {
    let Ok(root) = Lines::new(&file.text).plain().parse::<DocumentMut>() else { return Vec::new() };
    let listed = root.get("imports").and_then(Item::as_array);
    let folder = file.path.parent().unwrap_or(Path::new("/"));
    let resolve = |text: &str| {
        if release.major < 2 && text.contains('*') { PathBuf::from(text) } else { folder.join(text) }
    };
    listed.into_iter().flatten().filter_map(Value::as_str).map(resolve).collect()
}
