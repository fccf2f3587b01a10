//! Requests and limits.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use super::{Problems, names};
use crate::api::{
    pod_resources::{self, Side, at_pod_level, is_hugepages},
    quantity::Quantity,
};

/// Resources that a container may name without a domain.
const NATIVE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// Checks the quantities, their names, and that no request is above its limit.
pub(super) fn check(resources: &ResourceRequirements, path: &str, problems: &mut Problems) {
    let limits = amounts(resources.limits.as_ref(), &format!("{path}.limits"), problems);
    let requests = amounts(resources.requests.as_ref(), &format!("{path}.requests"), problems);
    for (name, (request, shown)) in &requests {
        let limit_path = format!("{path}.limits[{name}]");
        let path = format!("{path}.requests[{name}]");
        match limits.get(name) {
            Some((limit, text)) if request > limit => {
                problems.invalid(
                    path,
                    shown,
                    &format!("must be less than or equal to {name} limit of {text}"),
                );
            }
            Some((limit, text)) if !overcommits(name) && request != limit => {
                problems.invalid(path, shown, &format!("must be equal to {name} limit of {text}"));
            }
            None if !overcommits(name) => {
                problems.required(limit_path, "limit must be set for this resource");
            }
            _ => {}
        }
    }
}

/// Checks the pod's own resources: only some may be, and they must hold what its containers ask for.
pub(super) fn check_pod(spec: &PodSpec, problems: &mut Problems) {
    let Some(resources) = &spec.resources else { return };
    let path = "spec.resources";
    for (list, name) in [(&resources.limits, "limits"), (&resources.requests, "requests")] {
        for resource in list.iter().flatten().map(|(resource, _)| resource).filter(|r| !at_pod_level(r)) {
            problems.add(
                format!("{path}.{name}[{resource}]"),
                format!(
                    "Unsupported value: {}: supported values: \"cpu\", \"memory\", \"hugepages-\"",
                    super::shown(resource)
                ),
            );
        }
    }
    check(resources, path, problems);
    let requests = pod_resources::amounts(resources.requests.as_ref());
    for (name, sum) in pod_resources::of_containers(spec, Side::Requests) {
        if let Some(own) = requests.get(&name).filter(|own| **own < sum) {
            let why = format!("must be greater than or equal to aggregate container requests of {sum}");
            problems.invalid(format!("{path}.requests[{name}]"), own, &why);
        }
    }
    let limits = pod_resources::amounts(resources.limits.as_ref());
    for (name, sum) in pod_resources::of_containers(spec, Side::Limits) {
        if let Some(own) = limits.get(&name).filter(|own| is_hugepages(&name) && **own < sum) {
            let why = format!("must be greater than or equal to aggregate container limits of {sum}");
            problems.invalid(format!("{path}.limits[{name}]"), own, &why);
        }
    }
    let init = spec.init_containers.iter().flatten().enumerate().map(|(n, c)| ("initContainers", n, c));
    let regular = spec.containers.iter().enumerate().map(|(n, c)| ("containers", n, c));
    for (list, index, container) in init.chain(regular) {
        let own = pod_resources::amounts(container.resources.as_ref().and_then(|r| r.limits.as_ref()));
        for (name, limit) in own {
            if let Some(most) = limits.get(&name).filter(|most| limit > **most) {
                let path = format!("spec.{list}[{index}].resources.limits[{name}]");
                problems.invalid(path, limit, &format!("must be less than or equal to pod limits of {most}"));
            }
        }
    }
}

/// Only native resources may be promised more often than they are there.
fn overcommits(name: &str) -> bool {
    !name.contains('/') && !name.starts_with("hugepages-")
}

fn amounts<'p>(
    list: Option<&'p BTreeMap<String, Text>>,
    path: &str,
    problems: &mut Problems,
) -> BTreeMap<&'p str, (Quantity, &'p str)> {
    let mut amounts = BTreeMap::new();
    for (name, Text(text)) in list.into_iter().flatten() {
        let path = format!("{path}[{name}]");
        problems.name(path.clone(), name, names::qualified_name);
        if !name.contains('/') && !NATIVE.contains(&name.as_str()) && !name.starts_with("hugepages-") {
            problems.invalid(path.clone(), name, "must be a standard resource for containers");
        }
        match Quantity::parse(text) {
            Err(_) => problems.invalid(path, text, "is not a quantity"),
            Ok(amount) if amount < Quantity::ZERO => {
                problems.invalid(path, text, "must be greater than or equal to 0");
            }
            Ok(amount) => {
                if !overcommits(name) && !amount.is_whole() {
                    problems.invalid(path, text, "must be an integer");
                }
                amounts.insert(name.as_str(), (amount, text.as_str()));
            }
        }
    }
    amounts
}
