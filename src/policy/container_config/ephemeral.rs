//! Whose processes an ephemeral container sees (pkg/kubelet/kuberuntime/kuberuntime_container_linux.go).

use k8s_openapi::api::core::v1::Pod;

use crate::{
    api::{
        ContainerId, ContainerState, PodExt as _, PodObservation,
        cri::{NamespaceMode, NamespaceOption},
    },
    policy::env::ConfigError,
};

/// The container whose processes the pod's container of a name is to see; nothing if it is no ephemeral one,
/// or one that names no other.
///
/// # Errors
/// When no container of that name runs.
pub fn target_of(
    pod: &Pod,
    container: &str,
    observation: &PodObservation,
) -> Result<Option<ContainerId>, ConfigError> {
    let ephemeral = pod.spec().ephemeral_containers.iter().flatten().find(|own| own.name == container);
    let name = ephemeral.and_then(|own| own.target_container_name.as_deref());
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
    let refuse = |why: &str| {
        let message = format!("targetContainerName of ephemeral container {container:?}: {why} {name:?}");
        Err(ConfigError::new(message))
    };
    match observation.latest(name) {
        Some(target) if target.state == ContainerState::Running => Ok(Some(target.id.clone())),
        Some(_) => refuse("it waits for the pod's container to run:"),
        None => refuse("the pod has no container in the runtime by the name"),
    }
}

/// The namespaces of a container with a target: its processes are seen, unless those of the pod or the host
/// are anyway.
pub(super) fn target_namespaces(options: NamespaceOption, target: Option<&ContainerId>) -> NamespaceOption {
    match target {
        Some(id) if options.pid() == NamespaceMode::Container => {
            NamespaceOption { pid: NamespaceMode::Target.into(), target_id: id.to_string(), ..options }
        }
        _ => options,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::EphemeralContainer;

    use super::*;
    use crate::policy::{
        container_config::{ContainerInput, container_config},
        testing,
    };

    #[test]
    fn a_target_is_found_by_name_and_seen_into() {
        let seen = testing::observed(
            vec![testing::sandbox("s", 0)],
            vec![testing::container("a", "s"), testing::exited("b", "s", 1, 5)],
        );
        let looking_into = |target: &str| {
            let mut pod = testing::pod(&["a", "b"]);
            pod.spec.as_mut().unwrap().ephemeral_containers = Some(vec![EphemeralContainer {
                name: "debug".into(),
                target_container_name: Some(target.into()),
                ..EphemeralContainer::default()
            }]);
            pod
        };
        let target = target_of(&looking_into("a"), "debug", &seen).unwrap().unwrap();
        assert_eq!(target, seen.latest("a").unwrap().id);
        assert_eq!(target_of(&looking_into(""), "debug", &seen).unwrap(), None);
        assert_eq!(target_of(&looking_into("a"), "b", &seen).unwrap(), None, "no ephemeral one");
        for (name, why) in [("x", "no container"), ("b", "to run")] {
            let error = target_of(&looking_into(name), "debug", &seen).unwrap_err().to_string();
            assert!(error.contains(&format!("{name:?}")) && error.contains("\"debug\""), "{error}");
            assert!(error.contains(why), "{error}");
        }

        let with = |mode: NamespaceMode, target: Option<&ContainerId>| {
            let options = NamespaceOption { pid: mode.into(), ..NamespaceOption::default() };
            let made = target_namespaces(options, target);
            (made.pid(), made.target_id)
        };
        assert_eq!(
            with(NamespaceMode::Container, Some(&target)),
            (NamespaceMode::Target, target.to_string())
        );
        for mode in [NamespaceMode::Pod, NamespaceMode::Node] {
            assert_eq!(with(mode, Some(&target)), (mode, String::new()));
        }
        assert_eq!(with(NamespaceMode::Container, None).0, NamespaceMode::Container);

        // As it is asked of the runtime.
        let requested = |pod: &Pod, target: Option<&ContainerId>| {
            let parts = testing::ContainerParts::of(pod);
            let config = parts.with(|input| container_config(&ContainerInput { target, ..*input })).unwrap();
            let security = config.linux.unwrap().security_context.unwrap();
            let made = security.namespace_options.unwrap();
            (made.pid(), made.target_id)
        };
        let mut pod = testing::pod(&["debug"]);
        assert_eq!(requested(&pod, Some(&target)), (NamespaceMode::Target, target.to_string()));
        assert_eq!(requested(&pod, None), (NamespaceMode::Container, String::new()));
        pod.spec.as_mut().unwrap().share_process_namespace = Some(true);
        assert_eq!(requested(&pod, Some(&target)), (NamespaceMode::Pod, String::new()));
    }
}
