//! What a runtime can do, and what a pod needs of it.
//!
//! A runtime ignores fields of a request that it does not know. So what a pod needs of a newer runtime is
//! compared with what the present one is before it is asked: a pod is never half honoured.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::{node::NodeSettings, security, volumes};
use crate::api::{
    PodExt as _,
    cri::{RuntimeFeatures, RuntimeHandler},
};

/// What a runtime says of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RuntimeFacts {
    /// Its name, e.g. `containerd`.
    pub name: Arc<str>,
    /// Its version as it gives it, e.g. `1.6.20~ds1`.
    pub version: Arc<str>,
    /// Its handlers and what each can do; empty of a runtime that does not tell (containerd before 2.0).
    pub handlers: Vec<RuntimeHandler>,
    /// The name of the handler that is to run the pod; empty for the default one.
    pub handler: Arc<str>,
    /// What it can do whatever the handler; `None` of a runtime that does not tell.
    pub features: Option<RuntimeFeatures>,
}

/// Something that a pod needs and the runtime lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmet {
    /// The field that asks for it.
    pub field: String,
    /// What the runtime lacks, with its version and the one it takes.
    pub message: String,
}

impl RuntimeFacts {
    /// Whether it is containerd of at least this version. Another runtime is taken to be: it has features to
    /// be asked for instead.
    pub fn at_least_containerd(&self, major: u32, minor: u32) -> bool {
        if &*self.name != "containerd" {
            return true;
        }
        let mut numbers = self
            .version
            .trim_start_matches('v')
            .split(|c: char| !c.is_ascii_digit())
            .map(|digits| digits.parse::<u32>().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
    }

    /// What it tells of the pod's handler, if it does.
    pub fn pod_handler(&self) -> Option<&RuntimeHandler> {
        self.handlers.iter().find(|handler| handler.name == *self.handler)
    }

    /// Whether the pod's handler can make a mount read-only with all that is mounted below it.
    pub fn can_recursive_read_only(&self) -> bool {
        let features = self.pod_handler().and_then(|handler| handler.features);
        features.is_some_and(|features| features.recursive_read_only_mounts)
    }
}

type Need = fn(&Pod, &RuntimeFacts, &NodeSettings) -> Option<Unmet>;

/// All needs that a runtime may not meet.
const NEEDS: &[Need] = &[
    volumes::needs_image_volumes,
    volumes::needs_image_sub_paths,
    volumes::needs_recursive_read_only,
    security::needs_groups_policy,
    security::needs_user_namespaces,
    stop_signal,
];

/// containerd knows stop signals since 2.3 (containerd/containerd#11774); an older one would send the image's.
fn stop_signal(pod: &Pod, runtime: &RuntimeFacts, _: &NodeSettings) -> Option<Unmet> {
    let asks = |list: &'static str, containers: &[Container]| {
        let index =
            containers.iter().position(|c| c.lifecycle.as_ref().is_some_and(|l| l.stop_signal.is_some()))?;
        Some(format!("spec.{list}[{index}].lifecycle.stopSignal"))
    };
    let spec = pod.spec();
    let field = asks("initContainers", spec.init_containers.as_deref().unwrap_or_default())
        .or_else(|| asks("containers", &spec.containers))?;
    (!runtime.at_least_containerd(2, 3)).then(|| Unmet {
        field,
        message: format!("needs containerd 2.3, and the node has {} {}", runtime.name, runtime.version),
    })
}

/// The first thing that the pod needs and the runtime lacks.
pub fn unmet(pod: &Pod, runtime: &RuntimeFacts, node: &NodeSettings) -> Option<Unmet> {
    NEEDS.iter().find_map(|need| need(pod, runtime, node))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_signal_needs_a_runtime_that_sends_it() {
        let mut pod = crate::policy::testing::pod(&["a", "b"]);
        let facts = |version: &str| RuntimeFacts {
            name: "containerd".into(),
            version: version.into(),
            ..RuntimeFacts::default()
        };
        let node = NodeSettings::default();
        assert_eq!(unmet(&pod, &facts("1.6.20"), &node), None);
        pod.spec.as_mut().unwrap().containers[1].lifecycle =
            serde_json::from_value(serde_json::json!({"stopSignal": "SIGUSR1"})).unwrap();
        let unmet_by = |version| unmet(&pod, &facts(version), &node);
        let found = unmet_by("v2.1.9").unwrap();
        assert_eq!(found.field, "spec.containers[1].lifecycle.stopSignal");
        assert_eq!(found.message, "needs containerd 2.3, and the node has containerd v2.1.9");
        assert_eq!(unmet_by("2.3.0"), None);
    }

    #[test]
    fn versions_are_compared_by_number() {
        let facts = |name: &str, version: &str| RuntimeFacts {
            name: name.into(),
            version: version.into(),
            ..RuntimeFacts::default()
        };
        for (version, expected) in [
            ("1.6.20~ds1", false),
            ("v1.7.24", false),
            ("2.1.9", true),
            ("v2.0.0-rc.1", false),
            ("10.0", true),
            ("", false),
        ] {
            assert_eq!(facts("containerd", version).at_least_containerd(2, 1), expected, "{version}");
        }
        assert!(facts("cri-o", "1.20.0").at_least_containerd(2, 1));
    }
}
