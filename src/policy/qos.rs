//! A pod's quality-of-service class, which decides its cgroup and its place in line when memory runs out.
//!
//! The rules are those of the API's helper (`pkg/apis/core/v1/helper/qos`): CPU and memory count and
//! nothing else, zero amounts are as if absent, init containers count like all others, and pod-level
//! resources, where set, replace those of the containers. Limits do not imply requests here: the API
//! defaults requests to limits before anyone asks, and so do the manifest sources.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::{
    api::core::v1::{Pod, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use crate::api::PodExt;

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

/// Amounts by resource name, in billionths.
type Amounts = BTreeMap<&'static str, i128>;

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
fn add(sum: &mut Amounts, from: Option<&BTreeMap<String, Quantity>>) -> usize {
    let mut found = 0;
    for name in COUNTED {
        let amount = from.and_then(|list| list.get(name)).and_then(|q| billionths(&q.0)).unwrap_or(0);
        if amount > 0 {
            let total = sum.entry(name).or_insert(0);
            *total = total.saturating_add(amount);
            found += 1;
        }
    }
    found
}

/// Reads a quantity as a number of billionths, rounding up as the API does; `None` where it is no quantity
/// or is out of reach.
fn billionths(text: &str) -> Option<i128> {
    const DIGITS: usize = 18;
    let (negative, text) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || digits.contains('.') || whole.len() > DIGITS + 1 || fraction.len() > DIGITS {
        return None;
    }
    let (base, exponent): (i128, i32) = match suffix {
        "" => (10, 0),
        "n" => (10, -9),
        "u" => (10, -6),
        "m" => (10, -3),
        "k" => (10, 3),
        "M" => (10, 6),
        "G" => (10, 9),
        "T" => (10, 12),
        "P" => (10, 15),
        "E" => (10, 18),
        "Ki" => (2, 10),
        "Mi" => (2, 20),
        "Gi" => (2, 30),
        "Ti" => (2, 40),
        "Pi" => (2, 50),
        "Ei" => (2, 60),
        _ => (10, suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    let mut amount: i128 = digits.parse().ok()?;
    // A power of ten is joined with the shift into billionths and that of the fraction, so that nothing
    // is rounded in between.
    let mut tens = 9 - i32::try_from(fraction.len()).ok()?;
    if base == 10 {
        tens = tens.checked_add(exponent)?;
    } else {
        amount = amount.checked_mul(base.checked_pow(u32::try_from(exponent).ok()?)?)?;
    }
    let power = 10_i128.checked_pow(tens.unsigned_abs());
    amount = if tens >= 0 {
        amount.checked_mul(power?)?
    } else {
        match power {
            Some(power) => amount.checked_add(power - 1)? / power,
            None => i128::from(amount > 0),
        }
    };
    Some(if negative { -amount } else { amount })
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

    #[test]
    fn amounts() {
        for (text, want) in [
            ("1", Some(1_000_000_000)),
            ("250m", Some(250_000_000)),
            ("1.5Gi", Some(1_610_612_736_000_000_000)),
            ("1n", Some(1)),
            ("0.5n", Some(1)),
            ("2e3", Some(2_000_000_000_000)),
            ("1E", Some(1_000_000_000_000_000_000_000_000_000)),
            ("1e-99", Some(1)),
            (".5", Some(500_000_000)),
            ("-1m", Some(-1_000_000)),
            ("", None),
            (".", None),
            ("1.2.3", None),
            ("1x", None),
            ("1e9999999999", None),
            ("9e38", None),
        ] {
            assert_eq!(billionths(text), want, "{text:?}");
        }
    }
}
