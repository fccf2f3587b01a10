//! The runtimes of a configuration, and who makes their containers' cgroups.

use toml_edit::Item;

use super::{ConfigError, ConfigFile, Document, Files, Release, Schema, Wishes, joined};
use crate::switch::toml::{get, get_str, names, rename, set};

/// The shims that take `SystemdCgroup`. (The first went with containerd 2.)
const RUNC_TYPES: [&str; 2] = ["io.containerd.runc.v1", "io.containerd.runc.v2"];
/// The option that those take.
pub(super) const OPTION: &str = "SystemdCgroup";
/// The shim before those, which had the setting beside the runtimes.
const LINUX_TYPE: &str = "io.containerd.runtime.v1.linux";
/// The handler that is used where none is asked for, unless the configuration says another.
const DEFAULT_HANDLER: &str = "runc";

/// The cgroup driver of the default runtime as files say it, `systemd` or `cgroupfs`, which containerd takes where they
/// do not. `None` if they cannot be read, or the runtime is one that chooses by itself.
pub fn cgroup_driver(files: &[ConfigFile], release: Release) -> Option<&'static str> {
    let all = Files::read(files, release).ok()?;
    // containerd 2 does not take CRI's settings from a file of version 1.
    let read = |document: &&Document| release.major < 2 || document.schema != Schema::V1;
    let documents = || all.documents.iter().rev().filter(read);
    let named = documents().find_map(|document| {
        get_str(document.item(), &document.schema.default_runtime_name()).filter(|name| !name.is_empty())
    });
    let name = named.unwrap_or(DEFAULT_HANDLER);
    let (mut kind, mut systemd) = (None, None);
    for document in documents() {
        let containerd = document.schema.containerd();
        let runtime = [containerd.as_slice(), &["runtimes", name]].concat();
        kind = kind.or_else(|| get_str(document.item(), &joined_to(&runtime, "runtime_type")));
        let options = joined_to(&runtime, "options");
        let spelt = names(document.item(), &options).into_iter().find(|key| is_option(key));
        let told = spelt.and_then(|key| get(document.item(), &joined_to(&options, &key))?.as_bool());
        systemd = systemd.or(told);
        // The whole section counts, and with it what it leaves out.
        if release.major < 2 && document.has(&document.schema.runtime()) {
            break;
        }
    }
    match kind.filter(|kind| !kind.is_empty()) {
        Some(LINUX_TYPE) => {
            systemd = documents()
                .find_map(|document| get(document.item(), &document.schema.linux_systemd_cgroup()))
                .and_then(Item::as_bool);
        }
        Some(kind) if !RUNC_TYPES.contains(&kind) => return None,
        _ => {}
    }
    Some(driver(systemd.unwrap_or_default()))
}

/// The same as a containerd that runs tells it: its `info["config"]` of a verbose CRI Status, in 1.x and 2.x. `None`
/// if that does not say it.
pub fn running_cgroup_driver(config: &serde_json::Value) -> Option<&'static str> {
    let containerd = config.get("containerd")?;
    let name = containerd.get("defaultRuntimeName")?.as_str()?;
    let options = containerd.get("runtimes")?.get(name)?.get("options")?.as_object()?;
    let (_, systemd) = options.iter().find(|(key, _)| is_option(key))?;
    systemd.as_bool().map(driver)
}

fn driver(systemd: bool) -> &'static str {
    if systemd { "systemd" } else { "cgroupfs" }
}

/// containerd 1.x takes the option in any case, and some installers write it in another.
fn is_option(key: &str) -> bool {
    key.eq_ignore_ascii_case(OPTION)
}

fn joined_to<'a>(path: &[&'a str], key: &'a str) -> Vec<&'a str> {
    [path, &[key]].concat()
}

impl Files<'_> {
    /// The tables of runtimes in a file, as paths.
    pub(super) fn runtimes(&self, at: usize) -> Vec<Vec<String>> {
        let Some(document) = self.documents.get(at) else { return Vec::new() };
        let containerd = document.schema.containerd();
        let owned = |more: &[&str]| -> Vec<String> {
            containerd.iter().chain(more).map(|key| (*key).to_owned()).collect()
        };
        let listed = names(document.item(), &[containerd.as_slice(), &["runtimes"]].concat());
        let mut found: Vec<Vec<String>> = listed.iter().map(|name| owned(&["runtimes", name])).collect();
        // Older spellings of two of them.
        for name in ["default_runtime", "untrusted_workload_runtime"] {
            let path = owned(&[name]);
            if get_str(document.item(), &joined(&path, &["runtime_type"]))
                .is_some_and(|kind| !kind.is_empty())
            {
                found.push(path);
            }
        }
        found
    }

    /// The type of a runtime, in whichever file it stands; the last counts.
    fn runtime_type(&self, path: &[String]) -> Option<&str> {
        let path = joined(path, &["runtime_type"]);
        let found = self.documents.iter().rev().filter_map(|document| get_str(document.item(), &path));
        found.into_iter().find(|kind| !kind.is_empty())
    }

    /// Spells the option as containerd does. In another case it would be a second one beside the default of
    /// containerd 2.
    fn spell_option(&mut self, at: usize, runtime: &[String]) {
        let Some(document) = self.documents.get_mut(at) else { return };
        let options = joined(runtime, &["options"]);
        let found = names(document.item(), &options).into_iter().find(|name| is_option(name));
        if let Some(name) = found.filter(|name| name != OPTION) {
            document.changed |= rename(document.root.as_item_mut(), &options, &name, OPTION);
        }
    }

    pub(super) fn set_systemd_cgroup(
        &mut self,
        systemd: bool,
        notes: &mut Vec<String>,
    ) -> Result<(), ConfigError> {
        let mut linux = false;
        for at in 0..self.documents.len() {
            for path in self.runtimes(at) {
                let name = path.last().cloned().unwrap_or_default();
                self.spell_option(at, &path);
                let option = joined(&path, &["options", OPTION]);
                match self.runtime_type(&path) {
                    Some(kind) if RUNC_TYPES.contains(&kind) => {}
                    Some(LINUX_TYPE) => {
                        linux = true;
                        continue;
                    }
                    // Without its type containerd 1.x does not take the runtime.
                    None if name == DEFAULT_HANDLER => {
                        let kind = joined(&path, &["runtime_type"]);
                        if self.release.major < 2 {
                            self.put(at, &kind, RUNC_TYPES[1])?;
                        }
                    }
                    None => continue,
                    Some(kind) => {
                        notes.push(format!(
                            "the runtime {name:?} of type {kind} has a way of its own to choose the cgroup driver"
                        ));
                        continue;
                    }
                }
                // Of several files that say something of the runtime, those that say this, or its type.
                let elsewhere = self.documents.iter().any(|document| document.has(&option));
                let here = self.documents.get(at).is_some_and(|document| {
                    document.has(&option) || document.has(&joined(&path, &["runtime_type"]))
                });
                if self.release.major < 2 || here || !elsewhere {
                    self.put(at, &option, systemd)?;
                }
            }
        }
        if linux {
            self.set(Schema::linux_systemd_cgroup, systemd)?;
        }
        self.add_default_runtime(systemd)
    }

    /// What no file says of the default runtime is containerd's to know, but for what is set here.
    fn add_default_runtime(&mut self, systemd: bool) -> Result<(), ConfigError> {
        let at = self.effective(Schema::runtime);
        let Some(document) = self.documents.get(at) else { return Ok(()) };
        let containerd = document.schema.containerd();
        let named = get_str(document.item(), &[containerd.as_slice(), &["default_runtime_name"]].concat());
        let deprecated =
            get_str(document.item(), &[containerd.as_slice(), &["default_runtime", "runtime_type"]].concat());
        // containerd 2 has its own runc beside whatever a file brings; containerd 1 then has not.
        let other = named.is_some_and(|name| name != DEFAULT_HANDLER);
        if (other && self.release.major < 2) || deprecated.is_some_and(|kind| !kind.is_empty()) {
            return Ok(());
        }
        let runtime = [containerd.as_slice(), &["runtimes", DEFAULT_HANDLER]].concat();
        let known = if self.release.major < 2 {
            document.has(&runtime)
        } else {
            self.documents.iter().any(|other| {
                other.has(&[other.schema.containerd().as_slice(), &["runtimes", DEFAULT_HANDLER]].concat())
            })
        };
        if known {
            return Ok(());
        }
        self.put(at, &[runtime.as_slice(), &["runtime_type"]].concat(), RUNC_TYPES[1])?;
        self.put(at, &[runtime.as_slice(), &["options", OPTION]].concat(), systemd)
    }

    /// containerd 2 has neither of the older shims: what they ran is run by the one that is left.
    pub(super) fn replace_old_shims(&mut self, notes: &mut Vec<String>) {
        if self.release.major < 2 {
            return;
        }
        for at in 0..self.documents.len() {
            for path in self.runtimes(at) {
                let Some(document) = self.documents.get_mut(at) else { continue };
                let kind_path = joined(&path, &["runtime_type"]);
                let Some(kind) = get_str(document.item(), &kind_path).map(str::to_owned) else { continue };
                if kind != RUNC_TYPES[0] && kind != LINUX_TYPE {
                    continue;
                }
                if set(document.root.as_item_mut(), &kind_path, RUNC_TYPES[1]).is_ok_and(|changed| changed) {
                    document.changed = true;
                    notes.push(format!(
                        "the runtime {:?} had the shim {kind}, which this containerd has no more; it has {} now",
                        path.last().map_or("", String::as_str),
                        RUNC_TYPES[1]
                    ));
                }
            }
        }
    }

    /// Adds runtimes, and says which one pods get that ask for none.
    pub(super) fn add_runtimes(
        &mut self,
        wishes: &Wishes,
        notes: &mut Vec<String>,
    ) -> Result<(), ConfigError> {
        let at = self.effective(Schema::runtime);
        let mut added = false;
        for runtime in &wishes.runtimes {
            if self.has_runtime(at, &runtime.name) {
                continue;
            }
            let Some(document) = self.documents.get(at) else { continue };
            let containerd = document.schema.containerd();
            let path = [containerd.as_slice(), &["runtimes", &runtime.name]].concat();
            self.put(at, &[path.as_slice(), &["runtime_type"]].concat(), runtime.kind.as_str())?;
            if let Some(binary) = &runtime.binary {
                self.put(at, &[path.as_slice(), &["options", "BinaryName"]].concat(), binary.as_str())?;
            }
            added = true;
        }
        // containerd 1.x forgets the runtime that it has by itself as soon as a file has any.
        if added && self.release.major < 2 && !self.has_runtime(at, DEFAULT_HANDLER) {
            let Some(document) = self.documents.get(at) else { return Ok(()) };
            let containerd = document.schema.containerd();
            let kind = [containerd.as_slice(), &["runtimes", DEFAULT_HANDLER, "runtime_type"]].concat();
            self.put(at, &kind, RUNC_TYPES[1])?;
        }
        let Some(name) = &wishes.default_runtime else { return Ok(()) };
        if name != DEFAULT_HANDLER && !self.has_runtime(at, name) {
            notes.push(format!(
                "no runtime {name:?} is known to containerd: pods that ask for none get {DEFAULT_HANDLER:?}"
            ));
            return Ok(());
        }
        self.set(Schema::default_runtime_name, name.as_str())
    }

    /// Whether a runtime is in the file that counts, or in any of those that count.
    fn has_runtime(&self, at: usize, name: &str) -> bool {
        let has = |document: &Document| {
            document.has(&[document.schema.containerd().as_slice(), &["runtimes", name]].concat())
        };
        if self.release.major < 2 {
            self.documents.get(at).is_some_and(has)
        } else {
            self.documents.iter().any(has)
        }
    }

    /// The names of all runtimes that take the option, in the files that count.
    pub(super) fn runc_runtimes(&self) -> Vec<String> {
        let only = (self.release.major < 2).then(|| self.effective(Schema::runtime));
        let mut found: Vec<String> = Vec::new();
        for at in 0..self.documents.len() {
            if only.is_some_and(|only| only != at) {
                continue;
            }
            for path in self.runtimes(at) {
                let named = path.iter().rev().nth(1).is_some_and(|above| above == "runtimes");
                let is_runc = self.runtime_type(&path).is_some_and(|kind| RUNC_TYPES.contains(&kind))
                    || (self.runtime_type(&path).is_none()
                        && path.last().is_some_and(|name| name == DEFAULT_HANDLER));
                let name = path.last().filter(|_| named && is_runc).cloned();
                found.extend(name.filter(|name| !found.contains(name)));
            }
        }
        found
    }
}
