//! A file of version 2 made one of version 3, in place: what containerd 2 does with it at each start
//! (`configMigration` of its CRI plugins), done once, with the comments kept.
//!
//! What containerd 2 does not know any more goes: it would be warned of at each start, and means nothing.

use toml_edit::{Array, DocumentMut, Item, Value};

use super::{BIN_DIRS, Document, Files, Release, Schema};
use crate::switch::toml::{get, get_str, move_to, names, remove, rename, set, shown};

const CRI: &str = "io.containerd.grpc.v1.cri";
const IMAGES: &str = "io.containerd.cri.v1.images";
const RUNTIME: &str = "io.containerd.cri.v1.runtime";

/// What of CRI's section is about images.
const OF_IMAGES: [&str; 6] = [
    "registry",
    "image_decryption",
    "max_concurrent_downloads",
    "image_pull_progress_timeout",
    "image_pull_with_sync_fs",
    "stats_collect_period",
];
/// What of its part `containerd` is.
const OF_SNAPSHOTS: [&str; 3] = ["snapshotter", "disable_snapshot_annotations", "discard_unpacked_layers"];
/// What is about the server of exec, attach and port-forward, and stays in a section of the old name.
const OF_SERVER: [&str; 6] = [
    "disable_tcp_service",
    "stream_server_address",
    "stream_server_port",
    "stream_idle_timeout",
    "enable_tls_streaming",
    "x509_key_pair_streaming",
];
/// Plugins of another name.
const RENAMED: [(&str, &str); 2] = [
    ("io.containerd.monitor.v1.cgroups", "io.containerd.monitor.task.v1.cgroups"),
    ("io.containerd.internal.v1.restart", "io.containerd.monitor.container.v1.restart"),
];
/// Plugins that are no more.
const GONE: [&str; 2] = ["io.containerd.runtime.v1.linux", "io.containerd.snapshotter.v1.aufs"];
/// Plugins whose settings are said in the environment now (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_SERVICE_NAME`, …).
const IN_ENVIRONMENT: [&str; 2] =
    ["io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"];
/// Settings of runtimes that are no more.
const GONE_OF_RUNTIMES: [&str; 2] = ["runtime_engine", "runtime_root"];

impl Files<'_> {
    /// Makes files of version 2 files of version 3, where containerd has that.
    pub(super) fn upgrade_to_3(&mut self, notes: &mut Vec<String>) {
        if self.release.major < 2 {
            notes.push("containerd 1 has no version 3 of its configuration: it stays as it is".to_owned());
            return;
        }
        for (file, document) in self.originals.iter().zip(&mut self.documents) {
            if document.schema == Schema::V2 {
                let path = file.path.display().to_string();
                upgrade(document, self.release, &mut |note| notes.push(format!("{path}: {note}")));
            }
        }
    }
}

fn upgrade(document: &mut Document, release: Release, note: &mut impl FnMut(String)) {
    let root = &mut document.root;
    match root.get_mut("version").and_then(Item::as_value_mut) {
        Some(version) => {
            let decor = version.decor().clone();
            *version = Value::from(3);
            *version.decor_mut() = decor;
        }
        None => return,
    }
    drop_gone(root, &["plugin_dir"], note);
    for name in GONE {
        drop_gone(root, &["plugins", name], note);
    }
    for name in IN_ENVIRONMENT {
        if names(root.as_item(), &["plugins", name])
            .iter()
            .any(|key| !is_empty(get(root.as_item(), &["plugins", name, key])))
        {
            note(format!(
                "what plugins.{name:?} says is said by variables in the environment of containerd 2, OTEL_SERVICE_NAME and others"
            ));
        }
    }
    for (old, new) in RENAMED {
        rename(root.as_item_mut(), &["plugins"], old, new);
        for list in ["disabled_plugins", "required_plugins"] {
            let values =
                root.get_mut(list).and_then(Item::as_array_mut).into_iter().flat_map(Array::iter_mut);
            for value in values.filter(|value| value.as_str() == Some(old)) {
                let decor = value.decor().clone();
                *value = Value::from(new);
                *value.decor_mut() = decor;
            }
        }
    }
    upgrade_cri(root, release, note);
    document.schema = Schema::V3;
    document.changed = true;
}

fn upgrade_cri(root: &mut DocumentMut, release: Release, note: &mut impl FnMut(String)) {
    let cri = ["plugins", CRI];
    if get(root.as_item(), &cri).is_none() {
        return;
    }
    for key in ["systemd_cgroup", "disable_cgroup"] {
        drop_gone(root, &["plugins", CRI, key], note);
    }
    drop_gone(root, &["plugins", CRI, "containerd", "no_pivot"], note);
    old_runtimes(root, note);
    for name in names(root.as_item(), &["plugins", CRI, "containerd", "runtimes"]) {
        let runtime = ["plugins", CRI, "containerd", "runtimes", &name];
        for key in GONE_OF_RUNTIMES {
            drop_gone(root, &[runtime.as_slice(), &[key]].concat(), note);
        }
        rename(root.as_item_mut(), &runtime, "sandbox_mode", "sandboxer");
    }
    // Most of it is the runtime's: the section becomes that, and the rest is moved.
    if !rename(root.as_item_mut(), &["plugins"], CRI, RUNTIME) {
        for key in names(root.as_item(), &cri) {
            if !OF_IMAGES.contains(&key.as_str())
                && !OF_SERVER.contains(&key.as_str())
                && key != "sandbox_image"
            {
                moved(root, &["plugins", CRI, &key], &["plugins", RUNTIME, &key], note);
            }
        }
    }
    for from in [CRI, RUNTIME] {
        moved(
            root,
            &["plugins", from, "sandbox_image"],
            &["plugins", IMAGES, "pinned_images", "sandbox"],
            note,
        );
        for key in OF_IMAGES {
            moved(root, &["plugins", from, key], &["plugins", IMAGES, key], note);
        }
        for key in OF_SNAPSHOTS {
            moved(root, &["plugins", from, "containerd", key], &["plugins", IMAGES, key], note);
        }
    }
    for key in OF_SERVER {
        moved(root, &["plugins", RUNTIME, key], &["plugins", CRI, key], note);
    }
    let bin_dir = Schema::V3.cni_bin_dir();
    if release >= BIN_DIRS
        && let Some(folder) = get_str(root.as_item(), &bin_dir).map(str::to_owned)
        && rename(root.as_item_mut(), &["plugins", RUNTIME, "cni"], "bin_dir", "bin_dirs")
        && let Some(value) = get_mut(root, &Schema::V3.cni_bin_dirs())
    {
        let decor = value.decor().clone();
        *value = Value::Array(Array::from_iter([folder]));
        *value.decor_mut() = decor;
    }
}

fn get_mut<'a>(root: &'a mut DocumentMut, path: &[&str]) -> Option<&'a mut Value> {
    path.iter().try_fold(root.as_item_mut(), |item, key| item.get_mut(key))?.as_value_mut()
}

/// The runtimes that had places of their own, in the names that containerd 1 gave them.
fn old_runtimes(root: &mut DocumentMut, note: &mut impl FnMut(String)) {
    for (old, name) in [("default_runtime", "default"), ("untrusted_workload_runtime", "untrusted")] {
        let path = ["plugins", CRI, "containerd", old];
        let kind = get_str(root.as_item(), &[path.as_slice(), &["runtime_type"]].concat());
        if kind.is_none_or(str::is_empty) {
            remove(root.as_item_mut(), &path);
            continue;
        }
        moved(root, &path, &["plugins", CRI, "containerd", "runtimes", name], note);
        if name == "default" {
            // The path leads through tables that were there before.
            let name_path = ["plugins", CRI, "containerd", "default_runtime_name"];
            if let Err(error) = set(root.as_item_mut(), &name_path, name) {
                note(error.to_string());
            }
        }
    }
}

fn moved(root: &mut DocumentMut, from: &[&str], to: &[&str], note: &mut impl FnMut(String)) {
    if get(root.as_item(), from).is_none() {
        return;
    }
    if get(root.as_item(), to).is_some() {
        note(format!("{} is said already, so that {} did not count; it is gone", shown(to), shown(from)));
        remove(root.as_item_mut(), from);
    } else if let Err(error) = move_to(root.as_item_mut(), from, to) {
        note(error.to_string());
    }
}

/// Takes away what is no more, and says so if it meant something.
fn drop_gone(root: &mut DocumentMut, path: &[&str], note: &mut impl FnMut(String)) {
    let meant = get(root.as_item(), path).is_some_and(|item| !is_empty(Some(item)));
    if remove(root.as_item_mut(), path) && meant {
        note(format!("containerd 2 has no {}: it is gone", shown(path)));
    }
}

/// Whether a value is what it is when nobody says it.
fn is_empty(item: Option<&Item>) -> bool {
    let Some(item) = item else { return true };
    match item.as_value() {
        Some(Value::String(text)) => text.value().is_empty(),
        Some(Value::Boolean(on)) => !on.value(),
        Some(Value::Integer(number)) => *number.value() == 0,
        Some(Value::Array(array)) => array.is_empty(),
        Some(_) => false,
        None => item.as_table_like().is_some_and(|table| table.iter().all(|(_, item)| is_empty(Some(item)))),
    }
}
