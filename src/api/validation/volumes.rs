//! Volumes and where they are mounted.

use k8s_openapi::api::core::v1::{Container, PodSpec, Volume};

use super::{Problems, Unique, VolumeNames, downward, names};
use crate::api::quantity::Quantity;

/// The types of a hostPath volume; the empty one means "no check".
const HOST_PATH_TYPES: [&str; 8] =
    ["", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice"];

/// Checks the volumes, and gives their names for the mounts.
pub(super) fn check<'p>(spec: &'p PodSpec, problems: &mut Problems) -> VolumeNames<'p> {
    let mut all = VolumeNames::new();
    let mut unique = Unique::default();
    for (index, volume) in spec.volumes.iter().flatten().enumerate() {
        let path = format!("spec.volumes[{index}]");
        if volume.name.is_empty() {
            problems.required(format!("{path}.name"), "");
        } else {
            problems.name(format!("{path}.name"), &volume.name, names::dns1123_label);
            unique.add(format!("{path}.name"), &volume.name, problems);
            all.insert(volume.name.as_str());
        }
        check_source(volume, &path, problems);
    }
    all
}

fn check_source(volume: &Volume, path: &str, problems: &mut Problems) {
    // What a type holds is told by its JSON: `name` and one more.
    if let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(volume) {
        let mut kinds: Vec<&String> = fields.keys().filter(|k| *k != "name").collect();
        if kinds.len() > 1 {
            kinds.sort();
            for extra in &kinds[1..] {
                problems.forbidden(
                    format!("{path}.{extra}"),
                    &format!("may not specify more than one volume type, has {} already", kinds[0]),
                );
            }
        }
    }
    downward::check_volume(volume, path, problems);
    if let Some(host_path) = &volume.host_path {
        if host_path.path.is_empty() {
            problems.required(format!("{path}.hostPath.path"), "");
        }
        problems.name(format!("{path}.hostPath.path"), &host_path.path, names::no_backsteps);
        if !host_path.path.is_empty() && !host_path.path.starts_with('/') {
            problems.invalid(format!("{path}.hostPath.path"), &host_path.path, "must be an absolute path");
        }
        problems.one_of(format!("{path}.hostPath.type"), host_path.type_.as_deref(), &HOST_PATH_TYPES);
    }
    if let Some(image) = &volume.image {
        if image.reference.as_deref().unwrap_or_default().is_empty() {
            problems.required(format!("{path}.image.reference"), "");
        }
        problems.one_of(
            format!("{path}.image.pullPolicy"),
            image.pull_policy.as_deref(),
            &["", "Always", "Never", "IfNotPresent"],
        );
    }
    if let Some(empty_dir) = &volume.empty_dir {
        let medium = empty_dir.medium.as_deref().unwrap_or_default();
        if !medium.starts_with("HugePages-") {
            problems.one_of(format!("{path}.emptyDir.medium"), Some(medium), &["", "Memory", "HugePages"]);
        }
        if let Some(limit) = &empty_dir.size_limit {
            let path = format!("{path}.emptyDir.sizeLimit");
            match Quantity::parse(&limit.0) {
                Ok(amount) if amount < Quantity::ZERO => {
                    problems.invalid(path, &limit.0, "must not be negative");
                }
                Ok(_) => {}
                Err(_) => problems.invalid(path, &limit.0, "is not a quantity"),
            }
        }
    }
}

/// Checks the mounts and block devices of one container.
pub(super) fn check_mounts(
    container: &Container,
    volumes: &VolumeNames<'_>,
    path: &str,
    problems: &mut Problems,
) {
    let mut mount_paths = Unique::default();
    let privileged = container.security_context.as_ref().and_then(|s| s.privileged) == Some(true);
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let path = format!("{path}.volumeMounts[{index}]");
        check_reference(&mount.name, volumes, &path, problems);
        if mount.mount_path.is_empty() {
            problems.required(format!("{path}.mountPath"), "");
        } else if mount.mount_path.contains(':') {
            problems.invalid(format!("{path}.mountPath"), &mount.mount_path, "must not contain ':'");
        } else if mount.mount_path.contains('\0') {
            problems.invalid(format!("{path}.mountPath"), &mount.mount_path, "must not contain a zero byte");
        }
        mount_paths.add(format!("{path}.mountPath"), &mount.mount_path, problems);
        for (field, value) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
            let Some(value) = value.as_deref().filter(|v| !v.is_empty()) else { continue };
            if value.starts_with('/') {
                problems.invalid(format!("{path}.{field}"), value, "must be a relative path");
            }
            problems.name(format!("{path}.{field}"), value, names::no_backsteps);
        }
        if mount.sub_path.as_deref().is_some_and(|s| !s.is_empty())
            && mount.sub_path_expr.as_deref().is_some_and(|s| !s.is_empty())
        {
            problems.forbidden(format!("{path}.subPathExpr"), "may not be set together with subPath");
        }
        let propagation = mount.mount_propagation.as_deref();
        problems.one_of(
            format!("{path}.mountPropagation"),
            propagation,
            &["None", "HostToContainer", "Bidirectional"],
        );
        if propagation == Some("Bidirectional") && !privileged {
            problems.forbidden(
                format!("{path}.mountPropagation"),
                "Bidirectional mount propagation is available only to privileged containers",
            );
        }
        let recursive = mount.recursive_read_only.as_deref();
        problems.one_of(
            format!("{path}.recursiveReadOnly"),
            recursive,
            &["Disabled", "IfPossible", "Enabled"],
        );
        if matches!(recursive, Some("IfPossible" | "Enabled")) {
            if mount.read_only != Some(true) {
                problems
                    .forbidden(format!("{path}.recursiveReadOnly"), "may only be set when readOnly is true");
            }
            if !matches!(propagation, None | Some("None")) {
                problems.forbidden(
                    format!("{path}.recursiveReadOnly"),
                    "may only be set when mountPropagation is None or unset",
                );
            }
        }
    }
    for (index, device) in container.volume_devices.iter().flatten().enumerate() {
        let path = format!("{path}.volumeDevices[{index}]");
        check_reference(&device.name, volumes, &path, problems);
        if device.device_path.is_empty() {
            problems.required(format!("{path}.devicePath"), "");
        }
        problems.name(format!("{path}.devicePath"), &device.device_path, names::no_backsteps);
        mount_paths.add(format!("{path}.devicePath"), &device.device_path, problems);
    }
}

fn check_reference(name: &str, volumes: &VolumeNames<'_>, path: &str, problems: &mut Problems) {
    if name.is_empty() {
        problems.required(format!("{path}.name"), "");
    } else if !volumes.contains(name) {
        problems
            .add(format!("{path}.name"), format!("Not found: {name:?}: no volume of this pod has that name"));
    }
}
