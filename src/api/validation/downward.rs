//! What a pod is told of itself, in variables and in files, and variables from files.

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, FileKeySelector, PodSpec, ResourceFieldSelector, Volume,
};

use super::{Problems, Unique, names};
use crate::api::quantity::Quantity;

/// The fields that a variable may have.
const IN_VARIABLES: [&str; 10] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
    "metadata.labels['<key>'] or metadata.annotations['<key>']",
];
/// The fields that a file may have; besides single labels and annotations.
const IN_FILES: [&str; 6] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.labels['<key>'] or metadata.annotations['<key>']",
];
const RESOURCES: [&str; 8] = [
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.hugepages-<size>",
    "requests.hugepages-<size>",
];
/// Divisors of what is counted in bytes; those of CPU are 1 and 1m.
const UNITS: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// Checks a field for a variable.
pub(super) fn check_variable_field(field: &str, path: &str, problems: &mut Problems) {
    check_field(field, &IN_VARIABLES, path, problems);
}

fn check_field(field: &str, plain: &[&str], path: &str, problems: &mut Problems) {
    let keyed = field.strip_suffix("']").and_then(|field| field.split_once("['"));
    match keyed {
        Some(("metadata.labels", key)) => problems.name(path, key, names::qualified_name),
        Some(("metadata.annotations", key)) => {
            problems.name(path, &key.to_ascii_lowercase(), names::qualified_name);
        }
        _ => problems.one_of(path, Some(field), plain),
    }
}

/// Checks a resource; a variable need not name the container, which is its own.
pub(super) fn check_resource(
    selector: &ResourceFieldSelector,
    in_file: bool,
    path: &str,
    problems: &mut Problems,
) {
    if in_file && selector.container_name.as_deref().unwrap_or_default().is_empty() {
        problems.required(format!("{path}.containerName"), "");
    }
    let resource = selector.resource.as_str();
    let huge = ["limits.hugepages-", "requests.hugepages-"].iter().any(|start| resource.starts_with(start));
    if resource.is_empty() {
        problems.required(format!("{path}.resource"), "");
    } else if !huge {
        problems.one_of(format!("{path}.resource"), Some(resource), &RESOURCES);
    }
    let Some(divisor) = selector.divisor.as_ref().filter(|divisor| !divisor.0.is_empty()) else { return };
    let path = format!("{path}.divisor");
    let Ok(amount) = Quantity::parse(&divisor.0) else {
        return problems.invalid(path, &divisor.0, "is not a quantity");
    };
    let allowed: &[&str] = if resource.ends_with(".cpu") { &["1", "1m"] } else { &UNITS };
    // Nothing stands for one.
    let known = allowed.iter().any(|unit| Quantity::parse(unit) == Ok(amount)) || amount.is_zero();
    if !known {
        problems.one_of(path, Some(&divisor.0), allowed);
    }
}

/// Checks a variable from a file: its volume must be the pod's own.
pub(super) fn check_file_key(file: &FileKeySelector, spec: &PodSpec, path: &str, problems: &mut Problems) {
    const MAX_KEY: usize = 128;
    if file.key.is_empty() {
        problems.required(format!("{path}.key"), "");
    } else {
        problems.name(format!("{path}.key"), &file.key, names::env_name);
        if file.key.len() > MAX_KEY {
            problems.add(format!("{path}.key"), format!("Too long: may not be more than {MAX_KEY} bytes"));
        }
    }
    check_path(&file.path, &format!("{path}.path"), problems);
    let path = format!("{path}.volumeName");
    let mut volumes = spec.volumes.iter().flatten();
    match volumes.find(|volume| volume.name == file.volume_name) {
        _ if file.volume_name.is_empty() => problems.required(path, ""),
        None => problems
            .add(path, format!("Not found: {:?}: no volume of this pod has that name", file.volume_name)),
        Some(volume) if volume.empty_dir.is_none() => {
            problems.invalid(path, &file.volume_name, "must be a volume of type emptyDir");
        }
        Some(_) => {}
    }
}

/// Checks a downwardAPI volume, or a projected one with such parts.
pub(super) fn check_volume(volume: &Volume, path: &str, problems: &mut Problems) {
    let mut paths = Unique::default();
    if let Some(source) = &volume.downward_api {
        let path = format!("{path}.downwardAPI");
        check_mode(source.default_mode, &format!("{path}.defaultMode"), problems);
        check_items(source.items.as_deref(), &path, &mut paths, problems);
    }
    let Some(projected) = &volume.projected else { return };
    let path = format!("{path}.projected");
    check_mode(projected.default_mode, &format!("{path}.defaultMode"), problems);
    for (index, part) in projected.sources.iter().flatten().enumerate() {
        let path = format!("{path}.sources[{index}]");
        match serde_json::to_value(part) {
            Ok(serde_json::Value::Object(kinds)) if kinds.len() > 1 => {
                problems.forbidden(path.clone(), "may not specify more than one type of source");
            }
            Ok(serde_json::Value::Object(kinds)) if kinds.is_empty() => {
                problems.required(path.clone(), "a source of no type has nothing in it");
            }
            _ => {}
        }
        if let Some(source) = &part.downward_api {
            check_items(source.items.as_deref(), &format!("{path}.downwardAPI"), &mut paths, problems);
        }
    }
}

fn check_items(
    items: Option<&[DownwardAPIVolumeFile]>,
    path: &str,
    paths: &mut Unique,
    problems: &mut Problems,
) {
    for (index, item) in items.unwrap_or_default().iter().enumerate() {
        let path = format!("{path}.items[{index}]");
        check_path(&item.path, &format!("{path}.path"), problems);
        paths.add(format!("{path}.path"), &item.path, problems);
        check_mode(item.mode, &format!("{path}.mode"), problems);
        match (&item.field_ref, &item.resource_field_ref) {
            (Some(_), Some(_)) => {
                problems.forbidden(path, "may not have both fieldRef and resourceFieldRef");
            }
            (Some(field), None) => {
                let path = format!("{path}.fieldRef");
                problems.one_of(format!("{path}.apiVersion"), field.api_version.as_deref(), &["v1"]);
                check_field(&field.field_path, &IN_FILES, &format!("{path}.fieldPath"), problems);
            }
            (None, Some(resource)) => {
                check_resource(resource, true, &format!("{path}.resourceFieldRef"), problems);
            }
            (None, None) => problems.required(path, "must specify one of: fieldRef, resourceFieldRef"),
        }
    }
}

/// A path that stays below the volume and is none of the names that hold it together.
fn check_path(file: &str, path: &str, problems: &mut Problems) {
    if file.is_empty() {
        problems.required(path, "");
    } else if file.starts_with('/') {
        problems.invalid(path, file, "must be a relative path");
    } else if file.contains('\0') {
        problems.invalid(path, file, "must not contain a zero byte");
    } else if file.starts_with("..") {
        problems.invalid(path, file, "must not start with '..'");
    } else {
        problems.name(path, file, names::no_backsteps);
    }
}

fn check_mode(mode: Option<i32>, path: &str, problems: &mut Problems) {
    if let Some(mode) = mode.filter(|mode| !(0..=0o777).contains(mode)) {
        problems.invalid(path, mode, "must be between 0 and 0777 (octal), both inclusive");
    }
}
