//! What a pod's volumes and mounts come to: sizes, page sizes, sub paths, read-only mounts and propagation.
//! The rules are kubelet's (pkg/volume/emptydir/empty_dir.go, pkg/kubelet/kubelet_pods.go).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{Pod, VolumeMount},
    apimachinery::pkg::api::resource::Quantity as ApiQuantity,
};

use super::{
    env::ConfigError,
    expansion::{Room, expand},
    node::NodeSettings,
    pod_cgroup::pod_values,
    runtime::{RuntimeFacts, Unmet},
};
use crate::api::{PodExt, cgroup::Limit, cri::MountPropagation, quantity::Quantity};

const HUGE_PAGES: &str = "hugepages-";
const HUGE_PAGES_MEDIUM: &str = "HugePages-";

/// How large an emptyDir in memory may grow, in bytes; 0 for what the kernel takes by itself (half of the
/// memory). The least of the volume's own limit, what the pod's cgroup is limited to and what of the node is
/// for pods. The pod's cgroup has a limit where every container has one, or the pod itself.
pub fn memory_volume_bytes(pod: &Pod, size_limit: Option<&ApiQuantity>, node: &NodeSettings) -> u64 {
    let positive = |bytes: i64| u64::try_from(bytes).ok();
    let own = size_limit.and_then(|limit| Quantity::parse(&limit.0).ok()).and_then(|q| positive(q.value()));
    let of_pod = match pod_values(pod, &node.resources).memory_bytes {
        Some(Limit::Of(bytes)) => Some(bytes),
        _ => None,
    };
    [positive(node.allocatable.memory_bytes), of_pod, own]
        .into_iter()
        .flatten()
        .filter(|bytes| *bytes > 0)
        .min()
        .unwrap_or(0)
}

/// The size in bytes of the pages of an emptyDir on huge pages. The medium `HugePages` takes the one size
/// that the pod's containers ask for, `HugePages-2Mi` its own, which one of them must ask for.
///
/// # Errors
/// When no container asks for such pages, or it is not clear for which.
pub fn huge_page_bytes(pod: &Pod, medium: &str) -> Result<u64, ConfigError> {
    let size = |text: &str| Quantity::parse(text).ok().and_then(|q| u64::try_from(q.value()).ok());
    let spec = pod.spec();
    let asked: BTreeSet<u64> = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .filter_map(|container| container.resources.as_ref())
        .chain(spec.resources.as_ref())
        .flat_map(|resources| resources.requests.iter().chain(resources.limits.iter()))
        .flat_map(BTreeMap::keys)
        .filter_map(|name| size(name.strip_prefix(HUGE_PAGES)?))
        .collect();
    let none = || {
        ConfigError::new(format!("medium {medium}: no container of the pod asks for huge pages of this size"))
    };
    match medium.strip_prefix(HUGE_PAGES_MEDIUM) {
        Some(text) => size(text).filter(|bytes| asked.contains(bytes)).ok_or_else(none),
        None if asked.len() > 1 => Err(ConfigError {
            hints: vec!["say which, e.g. medium: HugePages-2Mi".to_owned()],
            ..ConfigError::new(format!("medium {medium}: the pod asks for huge pages of more than one size"))
        }),
        None => asked.first().copied().ok_or_else(none),
    }
}

/// The path below the volume that a mount shows; `None` for the whole volume. `env` is the container's
/// environment.
///
/// # Errors
/// When a variable of `subPathExpr` is not set or empty, or the path does not stay below the volume.
pub fn sub_path(mount: &VolumeMount, env: &[(String, String)]) -> Result<Option<String>, ConfigError> {
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let (field, path) = match (given(&mount.sub_path_expr), given(&mount.sub_path)) {
        (None, None) => return Ok(None),
        (None, Some(path)) => ("subPath", path),
        (Some(expression), _) => ("subPathExpr", expanded(mount, &expression, env)?),
    };
    let wrong = |why: &str| ConfigError::new(format!("mount {:?}: {field} {path:?} {why}", mount.name));
    if path.starts_with('/') {
        return Err(wrong("must be a relative path"));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(wrong("must not contain '..'"));
    }
    if path.contains('\0') {
        return Err(wrong("must not contain a zero byte"));
    }
    Ok((!path.is_empty()).then_some(path))
}

fn expanded(mount: &VolumeMount, expression: &str, env: &[(String, String)]) -> Result<String, ConfigError> {
    let missing = std::cell::RefCell::new(BTreeSet::new());
    let path = expand(expression, &mut Room::default(), |name| {
        let value = env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        if value.is_none_or(str::is_empty) {
            missing.borrow_mut().insert(name.to_owned());
        }
        value
    });
    let missing = missing.into_inner();
    if missing.is_empty() {
        return path
            .map_err(|error| ConfigError::new(format!("mount {:?}: subPathExpr: {error}", mount.name)));
    }
    let names: Vec<&str> = missing.iter().map(String::as_str).collect();
    Err(ConfigError::new(format!(
        "mount {:?}: subPathExpr {expression:?}: missing value for {}",
        mount.name,
        names.join(", ")
    )))
}

/// Whether a mount is to be read-only with all that is mounted below it, on a runtime that can do so or not.
///
/// # Errors
/// When it must be and cannot.
pub fn recursive_read_only(mount: &VolumeMount, can: bool) -> Result<bool, ConfigError> {
    match mount.recursive_read_only.as_deref() {
        _ if mount.read_only != Some(true) => Ok(false),
        Some("Enabled") if !can => Err(ConfigError::new(format!(
            "mount {:?}: recursiveReadOnly is Enabled and the runtime does not support it",
            mount.name
        ))),
        Some("Enabled" | "IfPossible") => Ok(can),
        _ => Ok(false),
    }
}

/// Which mounts made later show on the other side.
pub fn propagation(mount: &VolumeMount) -> MountPropagation {
    match mount.mount_propagation.as_deref() {
        Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
        Some("Bidirectional") => MountPropagation::PropagationBidirectional,
        _ => MountPropagation::PropagationPrivate,
    }
}

/// A volume made of an image takes a runtime that mounts images.
pub(super) fn needs_image_volumes(pod: &Pod, runtime: &RuntimeFacts, _: &NodeSettings) -> Option<Unmet> {
    let index = pod.spec().volumes.iter().flatten().position(|volume| volume.image.is_some())?;
    (!runtime.at_least_containerd(2, 1)).then(|| Unmet {
        field: format!("spec.volumes[{index}].image"),
        message: format!(
            "{} {} cannot mount an image as a volume; it takes containerd 2.1 or later",
            runtime.name, runtime.version
        ),
    })
}

/// A part of such a volume takes one that mounts parts: containerd 2.1 ignores which part is asked for.
pub(super) fn needs_image_sub_paths(pod: &Pod, runtime: &RuntimeFacts, _: &NodeSettings) -> Option<Unmet> {
    if runtime.at_least_containerd(2, 2) {
        return None;
    }
    let of_image = |name: &str| {
        pod.spec().volumes.iter().flatten().any(|volume| volume.name == name && volume.image.is_some())
    };
    let given = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    let field = mount_field(pod, |mount| {
        of_image(&mount.name) && (given(&mount.sub_path) || given(&mount.sub_path_expr))
    })?;
    Some(Unmet {
        field: format!("{field}.subPath"),
        message: format!(
            "{} {} cannot mount a part of an image; it takes containerd 2.2 or later",
            runtime.name, runtime.version
        ),
    })
}

/// `recursiveReadOnly: Enabled` takes a runtime, and a kernel below it, that can do so.
pub(super) fn needs_recursive_read_only(
    pod: &Pod,
    runtime: &RuntimeFacts,
    _: &NodeSettings,
) -> Option<Unmet> {
    if runtime.can_recursive_read_only() {
        return None;
    }
    let field = mount_field(pod, |mount| mount.recursive_read_only.as_deref() == Some("Enabled"))?;
    Some(Unmet {
        field: format!("{field}.recursiveReadOnly"),
        message: format!(
            "{} {} does not support recursive read-only mounts; it takes containerd 2.0 or later, runc 1.1 \
             and Linux 5.12",
            runtime.name, runtime.version
        ),
    })
}

/// The path of the first mount that is so.
fn mount_field(pod: &Pod, wanted: impl Fn(&VolumeMount) -> bool) -> Option<String> {
    let spec = pod.spec();
    let init = spec.init_containers.as_deref().unwrap_or_default();
    [("initContainers", init), ("containers", &spec.containers)].into_iter().find_map(|(list, containers)| {
        containers.iter().enumerate().find_map(|(index, container)| {
            let mount = container.volume_mounts.iter().flatten().position(&wanted)?;
            Some(format!("spec.{list}[{index}].volumeMounts[{mount}]"))
        })
    })
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "values are written where they are passed")]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        api::cri::{RuntimeHandler, RuntimeHandlerFeatures},
        policy::{runtime::unmet, testing},
    };

    fn pod(spec: serde_json::Value) -> Pod {
        Pod { spec: Some(serde_json::from_value(spec).unwrap()), ..Pod::default() }
    }

    fn limited(name: &str, memory: &str) -> serde_json::Value {
        json!({"name": name, "resources": {"limits": {"memory": memory}}})
    }

    fn mount(fields: serde_json::Value) -> VolumeMount {
        let mut all = json!({"name": "v", "mountPath": "/v"});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value(all).unwrap()
    }

    #[test]
    fn a_volume_in_memory_is_as_large_as_the_least_limit() {
        let mut node = testing::node();
        node.allocatable.memory_bytes = 1 << 30;
        let limit = |text: &str| Some(ApiQuantity(text.into()));
        let plain = pod(json!({"containers": [{"name": "a"}]}));
        let two = pod(json!({"containers": [limited("a", "64Mi"), limited("b", "32Mi")]}));
        let init =
            pod(json!({"initContainers": [limited("i", "200Mi")], "containers": [limited("a", "64Mi")]}));
        let mut sidecar = limited("s", "16Mi");
        sidecar["restartPolicy"] = json!("Always");
        let beside = pod(json!({"initContainers": [sidecar.clone()], "containers": [limited("a", "64Mi")]}));
        let after = pod(json!({"initContainers": [sidecar, limited("i", "100Mi")],
            "containers": [limited("a", "64Mi")]}));
        let whole = pod(json!({"resources": {"limits": {"memory": "48Mi"}},
            "containers": [limited("a", "64Mi")]}));
        // One container may take all that there is, so may the volume.
        let some = pod(json!({"containers": [limited("a", "64Mi"), {"name": "b"}]}));
        let free = pod(json!({"initContainers": [{"name": "i"}], "containers": [limited("a", "64Mi")]}));
        let overhead = pod(json!({"overhead": {"memory": "8Mi"}, "containers": [limited("a", "64Mi")]}));
        for (pod, own, mebibytes) in [
            (&plain, None, 1024),
            (&plain, limit("8Mi"), 8),
            (&plain, limit("8Gi"), 1024),
            (&plain, limit("0"), 1024),
            (&two, None, 96),
            (&two, limit("1Gi"), 96),
            (&two, limit("10Mi"), 10),
            (&init, None, 200),
            (&beside, None, 80),
            (&after, None, 116),
            (&whole, None, 48),
            (&some, None, 1024),
            (&some, limit("1Gi"), 1024),
            (&free, None, 1024),
            (&overhead, None, 72),
        ] {
            assert_eq!(memory_volume_bytes(pod, own.as_ref(), &node), mebibytes << 20, "{own:?} {pod:?}");
        }
        assert_eq!(memory_volume_bytes(&plain, None, &NodeSettings::default()), 0);
    }

    #[test]
    fn huge_pages_are_of_a_size_that_the_pod_asks_for() {
        let asks = |names: &[&str]| {
            let requests: BTreeMap<&str, &str> = names.iter().map(|name| (*name, "4Mi")).collect();
            pod(json!({"containers": [{"name": "a", "resources": {"requests": requests}}]}))
        };
        let (none, two, both) =
            (asks(&["memory"]), asks(&["hugepages-2Mi"]), asks(&["hugepages-2Mi", "hugepages-1Gi"]));
        for (pod, medium, expected) in [
            (&none, "HugePages", None),
            (&none, "HugePages-2Mi", None),
            (&two, "HugePages", Some(2 << 20)),
            (&two, "HugePages-2Mi", Some(2 << 20)),
            (&two, "HugePages-2048Ki", Some(2 << 20)),
            (&two, "HugePages-1Gi", None),
            (&two, "HugePages-x", None),
            (&both, "HugePages", None),
            (&both, "HugePages-1Gi", Some(1 << 30)),
        ] {
            assert_eq!(huge_page_bytes(pod, medium).ok(), expected, "{medium}");
        }
        assert_eq!(huge_page_bytes(&both, "HugePages").unwrap_err().hints.len(), 1);
    }

    #[test]
    fn a_sub_path_is_expanded_and_stays_below() {
        let env = [("POD", "p-0"), ("EMPTY", ""), ("UP", ".."), ("ROOT", "/etc")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()));
        let expr = |text: &str| sub_path(&mount(json!({"subPathExpr": text})), &env);
        assert_eq!(sub_path(&mount(json!({})), &env), Ok(None));
        assert_eq!(sub_path(&mount(json!({"subPath": "$(POD)/x"})), &env), Ok(Some("$(POD)/x".into())));
        assert_eq!(expr("logs/$(POD)"), Ok(Some("logs/p-0".into())));
        assert_eq!(expr("$$(POD)"), Ok(Some("$(POD)".into())));
        for (text, why) in [
            ("$(B)/$(A)/$(B)", "missing value for A, B"),
            ("x$(EMPTY)", "missing value for EMPTY"),
            ("a/$(UP)/b", "must not contain '..'"),
            ("$(ROOT)", "must be a relative path"),
        ] {
            let error = expr(text).unwrap_err();
            assert!(error.message.contains(why) && error.message.contains("\"v\""), "{text}: {error}");
        }
        // Two dots in a name are no step back.
        assert_eq!(expr("a..b/..c"), Ok(Some("a..b/..c".into())));
    }

    #[test]
    fn recursive_read_only_is_as_far_as_it_goes() {
        for (mode, read_only, can, expected) in [
            (None, true, true, Some(false)),
            (Some("Disabled"), true, true, Some(false)),
            (Some("IfPossible"), true, true, Some(true)),
            (Some("IfPossible"), true, false, Some(false)),
            (Some("Enabled"), true, true, Some(true)),
            (Some("Enabled"), true, false, None),
            (Some("IfPossible"), false, true, Some(false)),
        ] {
            let mount = mount(json!({"recursiveReadOnly": mode, "readOnly": read_only}));
            assert_eq!(recursive_read_only(&mount, can).ok(), expected, "{mode:?} {can}");
        }
    }

    #[test]
    fn what_an_old_runtime_cannot_mount_is_told() {
        let node = testing::node();
        let old = RuntimeFacts {
            name: "containerd".into(),
            version: "1.6.20~ds1".into(),
            ..RuntimeFacts::default()
        };
        let new = RuntimeFacts {
            version: "2.1.9".into(),
            handlers: vec![RuntimeHandler {
                features: Some(RuntimeHandlerFeatures {
                    recursive_read_only_mounts: true,
                    ..RuntimeHandlerFeatures::default()
                }),
                ..RuntimeHandler::default()
            }],
            ..old.clone()
        };
        let image = pod(json!({"containers": [], "volumes": [{"name": "e", "emptyDir": {}},
            {"name": "i", "image": {"reference": "x"}}]}));
        let mounts = |mode: &str| {
            pod(json!({"containers": [{"name": "a", "volumeMounts": [
                {"name": "v", "mountPath": "/v", "readOnly": true, "recursiveReadOnly": mode}]}]}))
        };
        let field = |pod: &Pod, runtime: &RuntimeFacts| unmet(pod, runtime, &node).map(|unmet| unmet.field);
        assert_eq!(field(&image, &old).as_deref(), Some("spec.volumes[1].image"));
        assert_eq!(
            field(&mounts("Enabled"), &old).as_deref(),
            Some("spec.containers[0].volumeMounts[0].recursiveReadOnly")
        );
        for pod in [&image, &mounts("Enabled"), &mounts("IfPossible")] {
            assert_eq!(field(pod, &new), None);
        }
        assert_eq!(field(&mounts("IfPossible"), &old), None);

        let part = pod(json!({"containers": [{"name": "a", "volumeMounts": [
            {"name": "i", "mountPath": "/v", "subPath": "etc"}]}],
            "volumes": [{"name": "i", "image": {"reference": "x"}}]}));
        let newest = RuntimeFacts { version: "2.2.0".into(), ..new.clone() };
        assert_eq!(field(&part, &old).as_deref(), Some("spec.volumes[0].image"));
        assert_eq!(field(&part, &new).as_deref(), Some("spec.containers[0].volumeMounts[0].subPath"));
        assert_eq!(field(&part, &newest), None);
    }
}
