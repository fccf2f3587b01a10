//! A pod's quality-of-service class, which decides its cgroup and its place in line when memory runs out.
//!
//! The rules are those of the API's helper (`pkg/apis/core/v1/helper/qos`): CPU and memory count and
//! nothing else, zero amounts are as if absent, init containers count like all others, and pod-level
//! resources, where set, replace those of the containers. Limits do not imply requests here: the API
//! defaults requests to limits before anyone asks, and so do the manifest sources.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{
    api::core::v1::{Pod, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as Text,
};

use crate::api::{PodExt, quantity::Quantity};

/// A quality-of-service class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum QosClass {
    /// Every container limits CPU and memory, and asks for just as much.
    Guaranteed,
    /// Something is asked for or limited, but not as Guaranteed has it.
    Burstable,
    /// Nothing is asked for or limited.
    BestEffort,
}

impl QosClass {
    /// The API's text, as in `status.qosClass`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

impl fmt::Display for QosClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The resources that count.
const COUNTED: [&str; 2] = ["cpu", "memory"];

/// Amounts by resource name.
type Amounts = BTreeMap<&'static str, Quantity>;

/// The class of a pod, from its specification alone. An amount that cannot be read counts as absent;
/// validation refuses such a pod before.
pub fn qos_class(pod: &Pod) -> QosClass {
    let spec = pod.spec();
    let mut requests = Amounts::new();
    let mut limits = Amounts::new();
    let mut all_limited = true;
    let mut count = |resources: Option<&ResourceRequirements>| {
        add(&mut requests, resources.and_then(|r| r.requests.as_ref()));
        let limited = add(&mut limits, resources.and_then(|r| r.limits.as_ref()));
        all_limited &= limited == COUNTED.len();
    };
    if let Some(pod_level) = &spec.resources {
        count(Some(pod_level));
    } else {
        for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            count(container.resources.as_ref());
        }
    }
    if requests.is_empty() && limits.is_empty() {
        QosClass::BestEffort
    } else if all_limited && requests == limits {
        QosClass::Guaranteed
    } else {
        QosClass::Burstable
    }
}

/// Adds the counted, positive amounts of `from` to `sum`, and answers how many there were.
fn add(sum: &mut Amounts, from: Option<&BTreeMap<String, Text>>) -> usize {
    let mut found = 0;
    for name in COUNTED {
        let amount = from.and_then(|list| list.get(name)).and_then(|text| Quantity::parse(&text.0).ok());
        if let Some(amount) = amount.filter(|amount| *amount > Quantity::ZERO) {
            let total = sum.entry(name).or_default();
            *total = *total + amount;
            found += 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(spec: serde_json::Value) -> QosClass {
        let spec = serde_json::from_value(spec).unwrap();
        qos_class(&Pod { spec: Some(spec), ..Pod::default() })
    }

    fn res(requests: [&str; 2], limits: [&str; 2]) -> serde_json::Value {
        let list = |amounts: [&str; 2]| {
            let mut map = serde_json::Map::new();
            for (name, amount) in COUNTED.into_iter().zip(amounts) {
                if !amount.is_empty() {
                    map.insert(name.to_owned(), amount.into());
                }
            }
            map
        };
        serde_json::json!({"requests": list(requests), "limits": list(limits)})
    }

    fn one(requests: [&str; 2], limits: [&str; 2]) -> serde_json::Value {
        serde_json::json!({"containers": [{"name": "a", "resources": res(requests, limits)}]})
    }

    #[test]
    fn single_containers() {
        use QosClass::*;
        for (requests, limits, want) in [
            (["", ""], ["", ""], BestEffort),
            (["0", "0"], ["0", "0"], BestEffort),
            (["1", "1Gi"], ["1", "1Gi"], Guaranteed),
            (["1000m", "1024Mi"], ["1", "1Gi"], Guaranteed),
            (["0.1", "1e3"], ["100m", "1k"], Guaranteed),
            (["1", "1Gi"], ["2", "1Gi"], Burstable),
            (["1", ""], ["1", ""], Burstable),
            (["", ""], ["1", "1Gi"], Burstable),
            (["1", "1Gi"], ["", ""], Burstable),
            (["1", "0"], ["1", "1Gi"], Burstable),
        ] {
            assert_eq!(class(one(requests, limits)), want, "{requests:?} {limits:?}");
        }
    }

    #[test]
    fn every_container_counts_and_other_resources_do_not() {
        let full = res(["1", "1Gi"], ["1", "1Gi"]);
        let none = serde_json::json!({});
        let two = |a: &serde_json::Value, b: &serde_json::Value| {
            serde_json::json!({"containers": [
                {"name": "a", "resources": a}, {"name": "b", "resources": b}]})
        };
        assert_eq!(class(two(&full, &full)), QosClass::Guaranteed);
        assert_eq!(class(two(&full, &none)), QosClass::Burstable);
        // The sums agree and yet no container's own limits are complete.
        let cpu = res(["1", ""], ["1", ""]);
        let memory = res(["", "1Gi"], ["", "1Gi"]);
        assert_eq!(class(two(&cpu, &memory)), QosClass::Burstable);
        let init = serde_json::json!({"initContainers": [{"name": "i", "resources": none}],
            "containers": [{"name": "a", "resources": full}]});
        assert_eq!(class(init), QosClass::Burstable);
        let other = serde_json::json!({"containers": [{"name": "a", "resources":
            {"requests": {"ephemeral-storage": "1Gi"}, "limits": {"hugepages-2Mi": "2Mi"}}}]});
        assert_eq!(class(other), QosClass::BestEffort);
    }

    #[test]
    fn pod_level_resources_replace_those_of_the_containers() {
        let full = res(["1", "1Gi"], ["1", "1Gi"]);
        let with = |pod_level: serde_json::Value, container: serde_json::Value| {
            serde_json::json!({"resources": pod_level,
                "containers": [{"name": "a", "resources": container}]})
        };
        assert_eq!(class(with(full.clone(), serde_json::json!({}))), QosClass::Guaranteed);
        assert_eq!(class(with(res(["1", ""], ["", ""]), full.clone())), QosClass::Burstable);
        assert_eq!(class(with(serde_json::json!({}), full)), QosClass::BestEffort);
    }
}
