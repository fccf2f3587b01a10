//! What containerd must make of its files, as `containerd config dump` says it.
//!
//! A dump is always in the version that the program has as its own: 1.x has CRI in one section, 2.x in two.

use toml_edit::{Array, DocumentMut, Item, Key, TableLike, Value};

use super::{CNI_BIN_DIR, CNI_CONF_DIR, ConfigFile, Files, Release, Schema, Wishes, runtimes::OPTION};
use crate::switch::{
    containerd::schema::CRI_PLUGINS,
    toml::{get, get_str, names, shown},
};

/// The image of sandboxes that files say, the last one of them; `None` if they leave it to containerd, or cannot be
/// read.
pub fn sandbox_image(files: &[ConfigFile], release: Release) -> Option<String> {
    let all = Files::read(files, release).ok()?;
    let said = |path: Vec<&'static str>| {
        let mut documents = all.documents.iter().rev();
        documents.find_map(|document| get_str(document.item(), &path).filter(|image| !image.is_empty()))
    };
    let image =
        [Schema::V3, Schema::V2, Schema::V1].into_iter().find_map(|schema| said(schema.sandbox_image()));
    image.map(str::to_owned)
}

impl Files<'_> {
    /// Keys of the dump and their values, both as TOML writes them.
    pub(super) fn expected(&self, wishes: &Wishes, registries: Option<&str>) -> Vec<(String, String)> {
        let schema = if self.release.major < 2 { Schema::V2 } else { Schema::V3 };
        let mut all: Vec<(String, String)> = Vec::new();
        let mut expect = |path: &[&str], value: Value| all.push((shown(path), value.to_string()));
        if let Some(image) = &wishes.pause_image {
            expect(&schema.sandbox_image(), image.as_str().into());
        }
        let containerd = schema.containerd();
        if let Some(systemd) = wishes.systemd_cgroup {
            for name in self.runc_runtimes() {
                expect(
                    &[containerd.as_slice(), &["runtimes", &name, "options", OPTION]].concat(),
                    systemd.into(),
                );
            }
        }
        for runtime in &wishes.runtimes {
            let path = [containerd.as_slice(), &["runtimes", &runtime.name]].concat();
            // One that was there has what it had.
            let mut said = self.documents.iter().filter_map(|document| {
                let containerd = document.schema.containerd();
                get_str(
                    document.item(),
                    &[containerd.as_slice(), &["runtimes", &runtime.name, "runtime_type"]].concat(),
                )
            });
            if let Some(kind) = said.next_back() {
                expect(&[path.as_slice(), &["runtime_type"]].concat(), kind.into());
            }
        }
        if let Some(name) = &wishes.default_runtime
            && self.anywhere(Schema::default_runtime_name)
        {
            expect(&schema.default_runtime_name(), name.as_str().into());
        }
        if let Some(path) = registries {
            expect(&schema.config_path(), path.into());
        }
        if let Some(restrict) = wishes.restrict_oom_score_adj {
            expect(&schema.restrict_oom_score_adj(), restrict.into());
        }
        if let Some(folder) = &wishes.cni_conf_dir
            && folder != CNI_CONF_DIR
        {
            expect(&schema.cni_conf_dir(), folder.as_str().into());
        }
        if let Some(folders) = wishes.cni_bin_dir.as_deref().filter(|folders| *folders != CNI_BIN_DIR) {
            let folders: Vec<&str> =
                folders.split(',').map(str::trim).filter(|folder| !folder.is_empty()).collect();
            let one = folders.first().map(|folder| Value::from(*folder));
            if self.has_bin_dirs() {
                expect(&schema.cni_bin_dirs(), Array::from_iter(folders).into());
            } else if self.release >= super::BIN_DIRS {
                // From a file of version 2, containerd makes a list of the one that is said there.
                expect(&schema.cni_bin_dirs(), Array::from_iter(one).into());
            } else if let Some(one) = one {
                expect(&schema.cni_bin_dir(), one);
            }
        }
        all
    }
}

/// Compares what `containerd config dump` printed with what it must say, and sees that CRI is not switched off.
///
/// # Errors
/// Everything that is not so, a sentence each.
pub fn check_dump(dump: &str, expected: &[(String, String)]) -> Result<(), Vec<String>> {
    let root: DocumentMut = match dump.parse() {
        Ok(root) => root,
        Err(error) => {
            return Err(vec![format!("what containerd prints is no TOML: {}", super::one_line(&error))]);
        }
    };
    let mut wrong = Vec::new();
    for (key, value) in expected {
        let (Ok(path), Ok(wished)) = (Key::parse(key), value.parse::<Value>()) else {
            wrong.push(format!("{key} = {value} cannot be looked for: it is no TOML"));
            continue;
        };
        let path: Vec<&str> = path.iter().map(Key::get).collect();
        match get(root.as_item(), &path).and_then(Item::as_value) {
            Some(found) if same(found, &wished) => {}
            Some(found) => wrong.push(format!("containerd makes {key} {}, and not {value}", bare(found))),
            None => wrong.push(format!("containerd has no {key}, which should be {value}")),
        }
    }
    let disabled = root.get("disabled_plugins").and_then(Item::as_array).into_iter().flatten();
    for name in disabled.filter_map(Value::as_str).filter(|name| CRI_PLUGINS.contains(name)) {
        wrong
            .push(format!("disabled_plugins has {name:?}: without it containerd does not serve the kubelet"));
    }
    for schema in [Schema::V2, Schema::V3] {
        let mirrors = [schema.registry().as_slice(), &["mirrors"]].concat();
        let folder = get_str(root.as_item(), &schema.config_path()).unwrap_or_default();
        if !folder.is_empty() && !names(root.as_item(), &mirrors).is_empty() {
            wrong.push(format!(
                "{} stands beside {}: containerd switches CRI off then",
                shown(&mirrors),
                shown(&schema.config_path())
            ));
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

fn bare(value: &Value) -> String {
    value.to_string().trim().to_owned()
}

/// Whether two values say the same, however they are written.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other.iter()).all(|(one, other)| same(one, other))
        }
        (Value::InlineTable(one), Value::InlineTable(other)) => {
            let has = |(key, value): (&str, &Value)| {
                TableLike::get(other, key).and_then(Item::as_value).is_some_and(|other| same(value, other))
            };
            one.len() == other.len() && one.iter().all(has)
        }
        (Value::String(one), Value::String(other)) => one.value() == other.value(),
        (Value::Integer(one), Value::Integer(other)) => one.value() == other.value(),
        (Value::Boolean(one), Value::Boolean(other)) => one.value() == other.value(),
        (Value::Float(one), Value::Float(other)) => one.value().to_bits() == other.value().to_bits(),
        _ => false,
    }
}
