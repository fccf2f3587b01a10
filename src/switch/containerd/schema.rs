//! Where CRI's settings are, by the version of the file.

use toml_edit::{DocumentMut, Item, Value};

use super::Release;
use crate::switch::toml::rename;

/// What `disabled_plugins` calls CRI: in version 1, in version 2, and its parts in 3 and 4.
pub(super) const CRI_PLUGINS: [&str; 4] =
    ["cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"];

/// The names that plugins have in a file of version 1, and their own (`v1MigratePluginName`).
const V1_NAMES: [(&str, &str); 16] = [
    ("cri", "io.containerd.grpc.v1.cri"),
    ("cgroups", "io.containerd.monitor.v1.cgroups"),
    ("linux", "io.containerd.runtime.v1.linux"),
    ("scheduler", "io.containerd.gc.v1.scheduler"),
    ("bolt", "io.containerd.metadata.v1.bolt"),
    ("task", "io.containerd.runtime.v2.task"),
    ("opt", "io.containerd.internal.v1.opt"),
    ("restart", "io.containerd.internal.v1.restart"),
    ("tracing", "io.containerd.internal.v1.tracing"),
    ("otlp", "io.containerd.tracing.processor.v1.otlp"),
    ("aufs", "io.containerd.snapshotter.v1.aufs"),
    ("btrfs", "io.containerd.snapshotter.v1.btrfs"),
    ("devmapper", "io.containerd.snapshotter.v1.devmapper"),
    ("native", "io.containerd.snapshotter.v1.native"),
    ("overlayfs", "io.containerd.snapshotter.v1.overlayfs"),
    ("zfs", "io.containerd.snapshotter.v1.zfs"),
];

/// How a file spells CRI's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Schema {
    /// One section, by a short name.
    V1,
    /// One section, by its full name.
    V2,
    /// A section for images and one for containers; versions 3 and 4.
    V3,
}

impl Schema {
    /// Of a file's version, 0 to 4. containerd 1.7 takes version 3, with the sections of version 2.
    pub(super) fn new(version: i64, release: Release) -> Self {
        match version {
            0 | 1 => Self::V1,
            2 => Self::V2,
            _ if release.major < 2 => Self::V2,
            _ => Self::V3,
        }
    }

    fn images(self) -> Vec<&'static str> {
        match self {
            Self::V1 => vec!["plugins", "cri"],
            Self::V2 => vec!["plugins", "io.containerd.grpc.v1.cri"],
            Self::V3 => vec!["plugins", "io.containerd.cri.v1.images"],
        }
    }

    pub(super) fn runtime(self) -> Vec<&'static str> {
        match self {
            Self::V1 | Self::V2 => self.images(),
            Self::V3 => vec!["plugins", "io.containerd.cri.v1.runtime"],
        }
    }

    pub(super) fn sandbox_image(self) -> Vec<&'static str> {
        let name: &[&str] = if self == Self::V3 { &["pinned_images", "sandbox"] } else { &["sandbox_image"] };
        [self.images().as_slice(), name].concat()
    }

    pub(super) fn registry(self) -> Vec<&'static str> {
        [self.images().as_slice(), &["registry"]].concat()
    }

    pub(super) fn config_path(self) -> Vec<&'static str> {
        [self.registry().as_slice(), &["config_path"]].concat()
    }

    /// The section with the runtimes.
    pub(super) fn containerd(self) -> Vec<&'static str> {
        [self.runtime().as_slice(), &["containerd"]].concat()
    }

    /// The cgroup driver of the oldest shim.
    pub(super) fn linux_systemd_cgroup(self) -> Vec<&'static str> {
        [self.runtime().as_slice(), &["systemd_cgroup"]].concat()
    }

    pub(super) fn cni_bin_dir(self) -> Vec<&'static str> {
        [self.runtime().as_slice(), &["cni", "bin_dir"]].concat()
    }

    /// The folders of plugins, of which containerd 2.1 takes several.
    pub(super) fn cni_bin_dirs(self) -> Vec<&'static str> {
        [self.runtime().as_slice(), &["cni", "bin_dirs"]].concat()
    }

    pub(super) fn restrict_oom_score_adj(self) -> Vec<&'static str> {
        [self.runtime().as_slice(), &["restrict_oom_score_adj"]].concat()
    }

    pub(super) fn default_runtime_name(self) -> Vec<&'static str> {
        [self.containerd().as_slice(), &["default_runtime_name"]].concat()
    }

    pub(super) fn cni_conf_dir(self) -> Vec<&'static str> {
        [self.runtime().as_slice(), &["cni", "conf_dir"]].concat()
    }
}

/// Makes a file of version 1 one of version 2: plugins by their full names. Everything else is the same.
pub(super) fn upgrade_v1(root: &mut DocumentMut) {
    for (short, full) in V1_NAMES {
        // One that is there by its full name too is not overwritten: version 1 did not read it.
        rename(root.as_item_mut(), &["plugins"], short, full);
    }
    for list in ["disabled_plugins", "required_plugins"] {
        for value in
            root.get_mut(list).and_then(Item::as_array_mut).into_iter().flat_map(|list| list.iter_mut())
        {
            if let Some(full) = value.as_str().and_then(full_name) {
                let decor = value.decor().clone();
                *value = Value::from(full);
                *value.decor_mut() = decor;
            }
        }
    }
    match root.get_mut("version").and_then(Item::as_value_mut) {
        Some(version) => {
            let decor = version.decor().clone();
            *version = Value::from(2);
            *version.decor_mut() = decor;
        }
        None => {
            if let Ok(whole) = format!("version = 2\n{root}").parse() {
                *root = whole;
            }
        }
    }
}

fn full_name(short: &str) -> Option<&'static str> {
    V1_NAMES.iter().find(|(name, _)| *name == short).map(|(_, full)| *full)
}
