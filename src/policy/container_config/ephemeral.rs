//! Whose processes an ephemeral container sees (pkg/kubelet/kuberuntime/kuberuntime_container_linux.go).

use k8s_openapi::api::core::v1::EphemeralContainer;

use crate::{
    api::{
        ContainerId, PodObservation,
        cri::{NamespaceMode, NamespaceOption},
    },
    policy::env::ConfigError,
};

/// The container that an ephemeral one is to look into; nothing if it names none.
///
/// # Errors
/// When the runtime holds no container of that name.
pub fn ephemeral_target(
    container: &EphemeralContainer,
    observation: &PodObservation,
) -> Result<Option<ContainerId>, ConfigError> {
    let Some(name) = container.target_container_name.as_deref().filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let target = observation.latest(name).ok_or_else(|| {
        ConfigError::new(format!(
            "targetContainerName of ephemeral container {:?}: the pod has no container {name:?} in the runtime",
            container.name
        ))
    })?;
    Ok(Some(target.id.clone()))
}

/// The namespaces of a container with a target: its processes are seen, unless those of the pod or the host
/// are anyway.
pub fn target_namespaces(options: NamespaceOption, target: Option<&ContainerId>) -> NamespaceOption {
    match target {
        Some(id) if options.pid() == NamespaceMode::Container => {
            NamespaceOption { pid: NamespaceMode::Target.into(), target_id: id.to_string(), ..options }
        }
        _ => options,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing;

    #[test]
    fn a_target_is_found_by_name_and_seen_into() {
        let seen = testing::observed(
            vec![testing::sandbox("s", 0)],
            vec![testing::container("a", "s"), testing::exited("b", "s", 1, 5)],
        );
        let ephemeral = |target: &str| EphemeralContainer {
            name: "debug".into(),
            target_container_name: Some(target.into()),
            ..EphemeralContainer::default()
        };
        let target = ephemeral_target(&ephemeral("a"), &seen).unwrap().unwrap();
        assert_eq!(target, seen.latest("a").unwrap().id);
        assert_eq!(ephemeral_target(&ephemeral(""), &seen).unwrap(), None);
        let error = ephemeral_target(&ephemeral("x"), &seen).unwrap_err().to_string();
        assert!(error.contains("\"x\"") && error.contains("\"debug\""), "{error}");

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
    }
}
