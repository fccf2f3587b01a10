//! What swap a container may use (kubelet's pkg/kubelet/kuberuntime/kuberuntime_container_linux.go).

use k8s_openapi::api::core::v1::{Container, Pod};

use super::{
    qos::{QosClass, qos_class},
    resources::{ResourceSettings, is_critical},
};
use crate::api::{cri::LinuxContainerResources, quantity::Quantity};

/// Sets the container's swap: none, or with `LimitedSwap` as large a part of the node's swap as the container
/// requests of the node's memory. Without the kernel's swap controller nothing is set.
pub(super) fn configure(
    linux: &mut LinuxContainerResources,
    pod: &Pod,
    container: &Container,
    settings: &ResourceSettings,
) {
    if !settings.swap_controller {
        return;
    }
    if settings.cgroup_v2 {
        let bytes = limited(pod, container, settings).unwrap_or(0);
        linux.unified.insert("memory.swap.max".to_owned(), bytes.to_string());
    } else {
        // v1 limits memory and swap together: no more than memory alone.
        linux.memory_swap_limit_in_bytes = linux.memory_limit_in_bytes;
    }
}

/// Whether the container may swap at all.
pub(super) fn may_swap(pod: &Pod, container: &Container, settings: &ResourceSettings) -> bool {
    settings.swap_controller && settings.cgroup_v2 && limited(pod, container, settings).is_some()
}

/// The bytes that the container may swap; `None` where it may not. Only Burstable pods may, whose containers
/// ask for memory and for less than they may have; critical pods, static ones among them, never.
fn limited(pod: &Pod, container: &Container, settings: &ResourceSettings) -> Option<i64> {
    if !settings.limited_swap || is_critical(pod) || qos_class(pod) != QosClass::Burstable {
        return None;
    }
    let resources = container.resources.as_ref()?;
    let memory = |list: Option<&std::collections::BTreeMap<String, _>>| {
        let text: &k8s_openapi::apimachinery::pkg::api::resource::Quantity = list?.get("memory")?;
        Quantity::parse(&text.0).ok().filter(|amount| !amount.is_zero())
    };
    let request = memory(resources.requests.as_ref())?;
    if memory(resources.limits.as_ref()) == Some(request) {
        return None;
    }
    let part = i128::from(request.value()) * i128::from(settings.node_swap_bytes)
        / i128::from(settings.node_memory_bytes.max(1));
    Some(i64::try_from(part).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::{api::labels, policy::resources::linux_resources};

    fn node(v2: bool) -> ResourceSettings {
        ResourceSettings {
            node_memory_bytes: 8 << 30,
            node_swap_bytes: 2 << 30,
            cgroup_v2: v2,
            swap_controller: true,
            limited_swap: true,
            ..ResourceSettings::default()
        }
    }

    fn pod(resources: Value) -> Pod {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}});
        pod["spec"]["containers"][0]["resources"] = resources;
        serde_json::from_value(pod).unwrap()
    }

    fn of(pod: &Pod, node: &ResourceSettings) -> (i64, Option<String>) {
        let linux = linux_resources(pod, &pod.spec.as_ref().unwrap().containers[0], node);
        (linux.memory_swap_limit_in_bytes, linux.unified.get("memory.swap.max").cloned())
    }

    #[test]
    fn a_burstable_container_swaps_by_its_request() {
        let burstable = pod(json!({"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi"}}));
        assert_eq!(of(&burstable, &node(true)), (0, Some((256 << 20).to_string())));
        let off = ResourceSettings { limited_swap: false, ..node(true) };
        assert_eq!(of(&burstable, &off), (0, Some("0".to_owned())));
        let unable = ResourceSettings { swap_controller: false, ..node(true) };
        assert_eq!(of(&burstable, &unable), (0, None));
    }

    #[test]
    fn who_may_not_swap() {
        for resources in [
            json!({}),
            json!({"requests": {"cpu": "1"}}),
            json!({"requests": {"memory": "1Gi"}, "limits": {"memory": "1Gi"}}),
            json!({"requests": {"memory": "1Gi", "cpu": "1"}, "limits": {"memory": "1Gi", "cpu": "1"}}),
        ] {
            assert_eq!(of(&pod(resources), &node(true)).1.as_deref(), Some("0"));
        }
        let mut fixed = pod(json!({"requests": {"memory": "1Gi"}}));
        fixed.metadata.annotations = Some([(labels::CONFIG_SOURCE.to_owned(), "file".to_owned())].into());
        assert_eq!(of(&fixed, &node(true)).1.as_deref(), Some("0"));
    }

    #[test]
    fn on_v1_memory_and_swap_are_limited_together() {
        let limited = pod(json!({"requests": {"memory": "1Mi"}, "limits": {"memory": "2Mi"}}));
        assert_eq!(of(&limited, &node(false)), (2 << 20, None));
    }

    proptest! {
        #[test]
        fn never_more_than_the_nodes_swap(request in 1i64..=8 << 30) {
            let pod = pod(json!({"requests": {"memory": request.to_string()}}));
            let bytes: i64 = of(&pod, &node(true)).1.unwrap().parse().unwrap();
            prop_assert!((0..=2 << 30).contains(&bytes));
        }
    }
}
