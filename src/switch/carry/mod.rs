//! What Docker was told that its successor has to be told: where images come from, through which proxy, how large
//! logs grow, which runtimes there are. What nobody else can be told is named.
//!
//! dockerd takes its options as flags or in `daemon.json`, never the same one in both, and lists from both.

mod left;
mod logs;
mod options;
mod proxy;
mod registries;
mod runtimes;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use super::{
    containerd::{Registry, Release, Runtime},
    facts::{Facts, RuntimeKind},
    request::Request,
    systemd::{
        flags,
        unit::{self, Files, Unit},
    },
};

/// A file to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Its whole text.
    pub text: String,
    /// Its access rights if it is new: 0600 for one that holds a password, whose text is not to be shown either.
    pub mode: u32,
}

impl NewFile {
    /// Whether there is a password in it.
    pub fn is_secret(&self) -> bool {
        self.mode & 0o077 == 0
    }
}

/// What is carried over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Carried {
    /// Files that change or are new.
    pub files: BTreeMap<PathBuf, NewFile>,
    /// Whether containerd has to be told the folder of `hosts.toml` files.
    pub needs_registry_config_path: bool,
    /// At what size a container's log is begun anew, a quantity for the kubelet.
    pub log_max_size: Option<String>,
    /// How many logs a container has at most.
    pub log_max_files: Option<i32>,
    /// Runtimes besides runc.
    pub runtimes: Vec<Runtime>,
    /// The runtime of pods that ask for none, if it is not runc.
    pub default_runtime: Option<String>,
    /// The image of sandboxes that the kubelet or cri-dockerd is told.
    pub pause_image: Option<String>,
    /// The folders of CNI plugins that the old runtime used, with commas between.
    pub cni_bin_dir: Option<String>,
    /// The folder of CNI configurations that it used.
    pub cni_conf_dir: Option<String>,
    /// What is worth knowing, a sentence each.
    pub notes: Vec<String>,
    /// What is lost, a sentence each.
    pub warnings: Vec<String>,
}

/// What Docker was told, for containerd and the kubelet. `registries` are those that containerd's configuration named
/// itself, `config_path` the folder of `hosts.toml` files, or several with colons between, of which the first counts.
pub fn carry(
    facts: &Facts,
    request: &Request,
    release: Release,
    registries: &[Registry],
    config_path: &str,
) -> Carried {
    let mut carried = Carried::default();
    let folder = Path::new(config_path.split(':').next().unwrap_or(config_path));
    registries::carry(facts, request, release, registries, folder, &mut carried);
    if facts.docker.is_some() {
        proxy::carry(facts, &mut carried);
        logs::carry(facts, &mut carried);
        runtimes::carry(facts, &mut carried);
        left::name(facts, release, &mut carried);
    }
    of_kubelet(facts, &mut carried);
    carried
}

/// What the kubelet, or cri-dockerd, was told for itself and is containerd's to know.
fn of_kubelet(facts: &Facts, carried: &mut Carried) {
    const DEFAULTS: [&str; 2] = ["/opt/cni/bin", "/etc/cni/net.d"];
    let Some(kubelet) = &facts.kubelet else { return };
    let told = load(facts, "kubelet.service");
    let shim = ["cri-docker.service", "cri-dockerd.service"].map(|name| load(facts, name));
    let unit = match kubelet.runtime {
        RuntimeKind::CriDockerd => shim.iter().find(|unit| !unit.arguments.is_empty()),
        _ => Some(&told),
    };
    let value = |name: &str| unit.and_then(|unit| flags::value(unit, name)).filter(|value| !value.is_empty());
    // cri-dockerd uses CNI unless it is told otherwise; dockershim only if it is told so.
    let uses_cni = match kubelet.runtime {
        RuntimeKind::Docker => value("network-plugin").is_some_and(|plugin| plugin == "cni"),
        RuntimeKind::CriDockerd => value("network-plugin").is_none_or(|plugin| plugin == "cni"),
        _ => false,
    };
    let folder = |name: &str, default: &str| value(name).or_else(|| uses_cni.then(|| default.to_owned()));
    if matches!(kubelet.runtime, RuntimeKind::Docker | RuntimeKind::CriDockerd) {
        carried.cni_bin_dir = folder("cni-bin-dir", DEFAULTS[0]);
        carried.cni_conf_dir = folder("cni-conf-dir", DEFAULTS[1]);
    }
    let image =
        |unit: &Unit| flags::value(unit, "pod-infra-container-image").filter(|image| !image.is_empty());
    carried.pause_image = image(&told).or_else(|| unit.and_then(image));
}

/// The texts of the facts as files.
struct Texts<'a>(&'a Facts);

impl Files for Texts<'_> {
    fn read(&self, path: &Path) -> io::Result<Option<String>> {
        Ok(self.0.text(path).map(str::to_owned))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let inside = self.0.files.keys().filter(|path| path.parent() == Some(folder));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }
}

fn load(facts: &Facts, name: &str) -> Unit {
    // Texts in memory are read without an error.
    unit::load(&Texts(facts), name).unwrap_or_default()
}
