//! What a runtime class makes of a pod: its overhead, as an API server's admission puts it there
//! (plugin/pkg/admission/runtimeclass). A static pod passes no API server, so the agent does it.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{core::v1::Pod, node::v1::RuntimeClass},
    apimachinery::pkg::api::resource::Quantity as Text,
};

use super::status::PodFailure;
use crate::api::{PodExt as _, quantity::Quantity};

type Amounts = BTreeMap<String, Text>;

/// The name of the class that a pod is of; nothing for the runtime's default handler.
pub fn class_name(pod: &Pod) -> Option<&str> {
    pod.spec().runtime_class_name.as_deref().filter(|name| !name.is_empty())
}

/// The pod with its class's overhead.
///
/// # Errors
/// When the pod gives an overhead itself, and another one than its class.
pub fn with_overhead(pod: &Arc<Pod>, class: &RuntimeClass) -> Result<Arc<Pod>, PodFailure> {
    let name = class.metadata.name.as_deref().unwrap_or_default();
    let given = pod.spec().overhead.as_ref().filter(|given| !given.is_empty());
    let of_class = class.overhead.as_ref().and_then(|o| o.pod_fixed.as_ref()).filter(|o| !o.is_empty());
    let refuse = |why: &str| {
        Err(PodFailure {
            reason: "PodOverhead".to_owned(),
            message: format!("spec.overhead: {why} runtime class {name:?}"),
        })
    };
    match (given, of_class) {
        (None, None) => Ok(Arc::clone(pod)),
        (Some(_), None) => refuse("is given, and there is none in"),
        (Some(given), Some(of_class)) if !equal(given, of_class) => refuse("is another one than that of"),
        (Some(_), Some(_)) => Ok(Arc::clone(pod)),
        (None, Some(of_class)) => {
            let mut changed = Pod::clone(pod);
            if let Some(spec) = &mut changed.spec {
                spec.overhead = Some(of_class.clone());
            }
            Ok(Arc::new(changed))
        }
    }
}

/// A pod as its source gives it again, with the overhead that it was taken with: that stays for its life,
/// whatever becomes of the class.
pub fn keep_overhead(taken: &Pod, again: Arc<Pod>) -> Arc<Pod> {
    let same_class = class_name(taken).is_some() && class_name(taken) == class_name(&again);
    let overhead = taken.spec().overhead.as_ref();
    if !same_class || overhead.is_none() || again.spec().overhead.is_some() {
        return again;
    }
    let mut changed = Pod::clone(&again);
    if let Some(spec) = &mut changed.spec {
        spec.overhead = overhead.cloned();
    }
    Arc::new(changed)
}

/// Whether two states of a pod are of one class.
pub fn same_class(one: Option<&Pod>, other: Option<&Pod>) -> bool {
    one.and_then(class_name) == other.and_then(class_name)
}

fn equal(one: &Amounts, other: &Amounts) -> bool {
    let same = |(name, Text(text)): (&String, &Text)| {
        other.get(name).is_some_and(|Text(theirs)| match (Quantity::parse(text), Quantity::parse(theirs)) {
            (Ok(ours), Ok(theirs)) => ours == theirs,
            _ => text == theirs,
        })
    };
    one.len() == other.len() && one.iter().all(same)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::node::v1::Overhead;

    use super::*;
    use crate::policy::testing;

    fn amounts(list: &[(&str, &str)]) -> Option<Amounts> {
        Some(list.iter().map(|(name, text)| ((*name).to_owned(), Text((*text).to_owned()))).collect())
    }

    fn class(overhead: Option<Amounts>) -> RuntimeClass {
        let mut class = RuntimeClass {
            handler: "crun".into(),
            overhead: overhead.map(|fixed| Overhead { pod_fixed: Some(fixed) }),
            ..RuntimeClass::default()
        };
        class.metadata.name = Some("light".into());
        class
    }

    fn pod(class: Option<&str>, overhead: Option<Amounts>) -> Arc<Pod> {
        let mut pod = testing::pod(&["a"]);
        let spec = pod.spec.as_mut().unwrap();
        spec.runtime_class_name = class.map(str::to_owned);
        spec.overhead = overhead;
        Arc::new(pod)
    }

    #[test]
    fn the_classs_overhead_is_the_pods() {
        let fixed = amounts(&[("cpu", "250m"), ("memory", "32Mi")]);
        let plain = pod(Some("light"), None);
        let made = with_overhead(&plain, &class(fixed.clone())).unwrap();
        assert_eq!(made.spec().overhead, fixed);
        // Given in other words it is the same.
        let given = pod(Some("light"), amounts(&[("cpu", "0.25"), ("memory", "33554432")]));
        assert_eq!(with_overhead(&given, &class(fixed)).unwrap(), given);
        assert_eq!(with_overhead(&plain, &class(None)).unwrap(), plain);
    }

    #[test]
    fn another_overhead_is_refused() {
        let given = pod(Some("light"), amounts(&[("cpu", "1")]));
        for of_class in [
            None,
            amounts(&[]),
            amounts(&[("cpu", "2")]),
            amounts(&[("cpu", "1"), ("memory", "1Mi")]),
            amounts(&[("memory", "1")]),
        ] {
            let refused = with_overhead(&given, &class(of_class.clone())).unwrap_err();
            assert_eq!(refused.reason, "PodOverhead");
            assert!(refused.message.contains("\"light\""), "{of_class:?}: {}", refused.message);
        }
    }

    #[test]
    fn an_overhead_stays_for_the_pods_life() {
        let taken = pod(Some("light"), amounts(&[("cpu", "1")]));
        assert_eq!(keep_overhead(&taken, pod(Some("light"), None)), taken);
        for again in [pod(Some("other"), None), pod(None, None), pod(Some("light"), amounts(&[("cpu", "2")]))]
        {
            assert_eq!(keep_overhead(&taken, Arc::clone(&again)), again);
        }
        let plain = pod(None, None);
        assert_eq!(keep_overhead(&plain, Arc::clone(&plain)), plain);
    }
}
