//! What a pod asks for as a whole: the sums over its containers, and its own resources over them.
//!
//! The rules are those of the API's helper (component-helpers `resource`): init containers run one after
//! the other, each beside the sidecars started before it, so that the pod needs the most of any such moment
//! or what its regular containers and sidecars need together.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apimachinery::pkg::api::resource::Quantity as Text,
};

use super::{ContainerKind, pod::init_kind, quantity::Quantity};

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// Which of the two lists of a container's resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// What is promised.
    Requests,
    /// What is the most.
    Limits,
}

/// Whether the resource may stand in a pod's own `resources`.
pub fn at_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_hugepages(name)
}

/// Whether it is the name of huge pages of a size.
pub fn is_hugepages(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Whether it is a resource of devices, which a plugin gives: of a domain that is not Kubernetes' own.
pub fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

/// A list's amounts. One that cannot be read counts as absent: validation refuses it before.
pub fn amounts(list: Option<&BTreeMap<String, Text>>) -> Amounts {
    list.into_iter()
        .flatten()
        .filter_map(|(name, text)| Some((name.clone(), Quantity::parse(&text.0).ok()?)))
        .collect()
}

fn of_container(container: &Container, side: Side) -> Amounts {
    let resources = container.resources.as_ref();
    amounts(match side {
        Side::Requests => resources.and_then(|r| r.requests.as_ref()),
        Side::Limits => resources.and_then(|r| r.limits.as_ref()),
    })
}

/// What the containers need at the most.
pub fn of_containers(spec: &PodSpec, side: Side) -> Amounts {
    let mut sum = Amounts::new();
    for container in &spec.containers {
        add(&mut sum, &of_container(container, side));
    }
    let mut sidecars = Amounts::new();
    let mut most = Amounts::new();
    for container in spec.init_containers.iter().flatten() {
        let own = of_container(container, side);
        if init_kind(container) == ContainerKind::Sidecar {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            raise(&mut most, &sidecars);
        } else {
            let mut moment = sidecars.clone();
            add(&mut moment, &own);
            raise(&mut most, &moment);
        }
    }
    raise(&mut sum, &most);
    sum
}

fn pod_level(spec: &PodSpec, side: Side) -> Amounts {
    let resources = spec.resources.as_ref();
    let mut own = amounts(match side {
        Side::Requests => resources.and_then(|r| r.requests.as_ref()),
        Side::Limits => resources.and_then(|r| r.limits.as_ref()),
    });
    own.retain(|name, _| at_pod_level(name));
    own
}

/// What the pod requests: its own requests over those of its containers, without its overhead.
pub fn pod_requests(spec: &PodSpec) -> Amounts {
    let mut all = of_containers(spec, Side::Requests);
    all.extend(pod_level(spec, Side::Requests));
    all
}

/// The pod's limits: its own over those of its containers, without its overhead. That a resource is there
/// does not say that every container limits it.
pub fn pod_limits(spec: &PodSpec) -> Amounts {
    let mut all = of_containers(spec, Side::Limits);
    all.extend(pod_level(spec, Side::Limits));
    all
}

/// `spec.overhead`.
pub fn overhead(spec: &PodSpec) -> Amounts {
    amounts(spec.overhead.as_ref())
}

/// [`pod_requests`] with the overhead.
pub fn pod_requests_with_overhead(spec: &PodSpec) -> Amounts {
    let mut all = pod_requests(spec);
    add(&mut all, &overhead(spec));
    all
}

/// [`pod_limits`] with the overhead on what is limited.
pub fn pod_limits_with_overhead(spec: &PodSpec) -> Amounts {
    let mut all = pod_limits(spec);
    for (name, amount) in overhead(spec) {
        if let Some(limit) = all.get_mut(&name).filter(|limit| !limit.is_zero()) {
            *limit = *limit + amount;
        }
    }
    all
}

/// A resource's amount; zero where it is absent.
pub fn amount(all: &Amounts, name: &str) -> Quantity {
    all.get(name).copied().unwrap_or(Quantity::ZERO)
}

fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        sum.entry(name.clone()).and_modify(|total| *total = *total + *amount).or_insert(*amount);
    }
}

fn raise(most: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        most.entry(name.clone()).and_modify(|old| *old = (*old).max(*amount)).or_insert(*amount);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn spec(value: Value) -> PodSpec {
        serde_json::from_value(value).unwrap()
    }

    fn asks(name: &str, cpu: &str) -> Value {
        json!({"name": name, "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}})
    }

    fn sidecar(name: &str, cpu: &str) -> Value {
        let mut container = asks(name, cpu);
        container["restartPolicy"] = "Always".into();
        container
    }

    fn cpu(spec: &PodSpec) -> i64 {
        amount(&pod_requests_with_overhead(spec), "cpu").milli_value()
    }

    #[test]
    fn init_containers_count_by_their_moment() {
        let regular = json!([asks("a", "1"), asks("b", "2")]);
        assert_eq!(cpu(&spec(json!({"containers": regular}))), 3000);
        let with = |init: Value| cpu(&spec(json!({"containers": regular, "initContainers": init})));
        assert_eq!(with(json!([asks("i", "2500m")])), 3000);
        assert_eq!(with(json!([asks("i", "4"), asks("j", "5")])), 5000);
        assert_eq!(with(json!([sidecar("s", "1"), asks("j", "5")])), 6000);
        // Before the sidecar is there, it is not beside.
        assert_eq!(with(json!([asks("j", "5"), sidecar("s", "1")])), 5000);
        assert_eq!(with(json!([sidecar("s", "1"), sidecar("t", "500m")])), 4500);
    }

    #[test]
    fn the_pods_own_come_over_the_sums_and_the_overhead_on_top() {
        let pod = spec(json!({
            "containers": [asks("a", "1")],
            "resources": {"requests": {"cpu": "3"}, "limits": {"memory": "1Gi"}},
            "overhead": {"cpu": "250m", "memory": "8Mi", "ephemeral-storage": "1Mi"},
        }));
        assert_eq!(cpu(&pod), 3250);
        let limits = pod_limits_with_overhead(&pod);
        assert_eq!(amount(&limits, "cpu").milli_value(), 1250);
        assert_eq!(amount(&limits, "memory").value(), (1 << 30) + (8 << 20));
        assert!(!limits.contains_key("ephemeral-storage"));
        assert_eq!(amount(&pod_limits(&pod), "cpu").milli_value(), 1000);
    }

    proptest! {
        /// Never less than all that runs at once, and never more than all containers together.
        #[test]
        fn the_sum_is_between_its_bounds(regular in prop::collection::vec(1u16.., 1..4),
                                         init in prop::collection::vec((1u16.., any::<bool>()), 0..5)) {
            let containers: Vec<Value> = regular.iter().map(|m| asks("c", &format!("{m}m"))).collect();
            let inits: Vec<Value> = init.iter().map(|(m, stays)| {
                let amount = format!("{m}m");
                if *stays { sidecar("i", &amount) } else { asks("i", &amount) }
            }).collect();
            let total = cpu(&spec(json!({"containers": containers, "initContainers": inits})));
            let together: i64 = regular.iter().map(|m| i64::from(*m)).sum();
            let sidecars: i64 = init.iter().filter(|(_, stays)| *stays).map(|(m, _)| i64::from(*m)).sum();
            let all = together + init.iter().map(|(m, _)| i64::from(*m)).sum::<i64>();
            prop_assert!((together + sidecars..=all).contains(&total));
            prop_assert!(init.iter().all(|(m, _)| total >= i64::from(*m)));
        }
    }
}
