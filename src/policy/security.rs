//! What of the node bears on pods' security: its settings, whether it can enforce what a pod asks for, and
//! what a pod needs of the runtime for it.

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Pod};

use super::{
    admission::AdmissionInput,
    node::NodeSettings,
    runtime::{RuntimeFacts, Unmet},
    status::PodFailure,
    sysctls::AllowedSysctls,
};
use crate::api::PodExt as _;

/// The beginning of the annotation that named a container's AppArmor profile before there was a field.
/// A static pod's is still read, as no API server has turned it into the field.
pub const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// The node's settings of security.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecuritySettings {
    /// `seccompDefault`: whether a container without a profile gets the runtime's own.
    pub seccomp_default: bool,
    /// The folder of Localhost seccomp profiles: `seccomp` below the root-dir.
    pub seccomp_root: String,
    /// The kernel settings that pods may have.
    pub sysctls: AllowedSysctls,
    /// Whether the kernel enforces AppArmor profiles.
    pub app_armor: bool,
    /// Whether the gate `UserNamespacesSupport` is on.
    pub user_namespaces: bool,
    /// Files of this machine that are masked beside the usual ones: thermal throttling counters tell of
    /// neighbours.
    pub masked_paths: Vec<String>,
}

/// Whether a pod has a user namespace of its own.
pub fn has_user_namespace(pod: &Pod) -> bool {
    pod.spec().host_users == Some(false)
}

/// A container's AppArmor profile: its own, the annotation's, the pod's (pkg/security/apparmor).
pub fn app_armor_profile(pod: &Pod, container: &Container) -> Option<AppArmorProfile> {
    let own = container.security_context.as_ref().and_then(|s| s.app_armor_profile.clone());
    own.or_else(|| annotated_profile(pod.annotation(&format!("{APP_ARMOR_ANNOTATION}{}", container.name))?))
        .or_else(|| pod.spec().security_context.as_ref()?.app_armor_profile.clone())
}

/// Reads the annotation's value: `runtime/default`, `unconfined` or `localhost/NAME`.
pub(super) fn annotated_profile(value: &str) -> Option<AppArmorProfile> {
    let profile = |type_: &str, name: Option<&str>| {
        Some(AppArmorProfile { type_: type_.to_owned(), localhost_profile: name.map(str::to_owned) })
    };
    match value {
        "runtime/default" => profile("RuntimeDefault", None),
        "unconfined" => profile("Unconfined", None),
        other => {
            let name = other.strip_prefix("localhost/").filter(|name| !name.is_empty())?;
            profile("Localhost", Some(name))
        }
    }
}

/// Refuses a pod that asks for an AppArmor profile where none is enforced, or for one that makes no sense.
pub(super) fn admit_app_armor(input: &AdmissionInput<'_>) -> Result<(), PodFailure> {
    let refused = |why: String| {
        Err(PodFailure { reason: "AppArmor".to_owned(), message: format!("Cannot enforce AppArmor: {why}") })
    };
    let pod = input.pod;
    for (key, value) in pod.metadata.annotations.iter().flatten() {
        if key.starts_with(APP_ARMOR_ANNOTATION) && annotated_profile(value).is_none() {
            return refused(format!("invalid AppArmor profile name: {value:?}"));
        }
    }
    let asks = pod.all_containers().into_iter().any(|(_, container)| {
        app_armor_profile(pod, container).is_some_and(|profile| profile.type_ != "Unconfined")
    });
    if asks && !input.node.security.app_armor {
        return refused("AppArmor is not enabled on the host".to_owned());
    }
    Ok(())
}

/// A runtime that does not know `supplementalGroupsPolicy` would add the image's groups all the same.
pub(super) fn needs_groups_policy(pod: &Pod, runtime: &RuntimeFacts, _node: &NodeSettings) -> Option<Unmet> {
    let policy = pod.spec().security_context.as_ref()?.supplemental_groups_policy.as_deref()?;
    let knows = runtime.features.is_some_and(|features| features.supplemental_groups_policy);
    (policy == "Strict" && !knows).then(|| Unmet {
        field: "spec.securityContext.supplementalGroupsPolicy".to_owned(),
        message: format!(
            "the runtime cannot keep the image's groups away (Strict): it is {} {}, containerd can from 2.0 on",
            runtime.name, runtime.version
        ),
    })
}

/// A runtime that does not know user namespaces would run the pod in the host's.
pub(super) fn needs_user_namespaces(pod: &Pod, runtime: &RuntimeFacts, node: &NodeSettings) -> Option<Unmet> {
    if !has_user_namespace(pod) {
        return None;
    }
    let unmet = |message: String| Some(Unmet { field: "spec.hostUsers".to_owned(), message });
    if !node.security.user_namespaces {
        return unmet("false: the feature gate UserNamespacesSupport is off".to_owned());
    }
    let (name, version) = (&runtime.name, &runtime.version);
    match runtime.pod_handler() {
        Some(handler) if handler.features.is_some_and(|features| features.user_namespaces) => None,
        Some(_) => unmet(format!(
            "false: the runtime's handler has no user namespaces with mapped volumes; the runtime is \
             {name} {version}, and with containerd the handler must be runc 1.2 or crun 1.13, or newer, \
             on Linux 6.3 or newer"
        )),
        None => unmet(format!(
            "false: the runtime does not know user namespaces of pods; it is {name} {version}, containerd \
             knows them from 2.0 on"
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use k8s_openapi::api::core::v1::{PodSecurityContext, SecurityContext};

    use super::*;
    use crate::{
        api::cri::{RuntimeFeatures, RuntimeHandler, RuntimeHandlerFeatures},
        policy::{admission::admit, runtime::unmet, testing},
    };

    fn profile(type_: &str, name: Option<&str>) -> AppArmorProfile {
        AppArmorProfile { type_: type_.into(), localhost_profile: name.map(str::to_owned) }
    }

    #[test]
    fn the_nearest_app_armor_profile_counts() {
        let mut pod = testing::pod(&["a"]);
        let found = |pod: &Pod| app_armor_profile(pod, &pod.spec().containers[0]);
        assert_eq!(found(&pod), None);
        pod.spec.as_mut().unwrap().security_context = Some(PodSecurityContext {
            app_armor_profile: Some(profile("Unconfined", None)),
            ..PodSecurityContext::default()
        });
        assert_eq!(found(&pod), Some(profile("Unconfined", None)));
        let annotate = |pod: &mut Pod, value: &str| {
            pod.metadata.annotations =
                Some(BTreeMap::from([(format!("{APP_ARMOR_ANNOTATION}a"), value.to_owned())]));
        };
        annotate(&mut pod, "localhost/mine");
        assert_eq!(found(&pod), Some(profile("Localhost", Some("mine"))));
        annotate(&mut pod, "runtime/default");
        assert_eq!(found(&pod), Some(profile("RuntimeDefault", None)));
        pod.spec.as_mut().unwrap().containers[0].security_context = Some(SecurityContext {
            app_armor_profile: Some(profile("Localhost", Some("own"))),
            ..SecurityContext::default()
        });
        assert_eq!(found(&pod), Some(profile("Localhost", Some("own"))));
    }

    #[test]
    fn app_armor_is_refused_where_nothing_enforces_it() {
        let verdict = |type_: &str, annotation: Option<&str>, on: bool| {
            let mut node = testing::node();
            node.security.app_armor = on;
            let mut pod = testing::pod(&["a"]);
            pod.spec.as_mut().unwrap().security_context = Some(PodSecurityContext {
                app_armor_profile: Some(profile(type_, Some("x"))),
                ..PodSecurityContext::default()
            });
            pod.metadata.annotations = annotation
                .map(|value| BTreeMap::from([(format!("{APP_ARMOR_ANNOTATION}a"), value.to_owned())]));
            admit(&AdmissionInput { pod: &pod, others: &[], node: &node, server_node: None })
                .map(|_| ())
                .map_err(|f| (f.reason, f.message))
        };
        let refused = |why: &str| Err(("AppArmor".to_owned(), format!("Cannot enforce AppArmor: {why}")));
        let off = "AppArmor is not enabled on the host";
        assert_eq!(verdict("Unconfined", None, false), Ok(()));
        assert_eq!(verdict("RuntimeDefault", None, false), refused(off));
        assert_eq!(verdict("Localhost", None, true), Ok(()));
        assert_eq!(verdict("Unconfined", Some("runtime/default"), false), refused(off));
        assert_eq!(
            verdict("Unconfined", Some("mine"), true),
            refused("invalid AppArmor profile name: \"mine\"")
        );
    }

    #[test]
    fn what_an_older_runtime_would_ignore_is_not_asked_of_it() {
        let facts = |version: &str, handler: Option<bool>, groups: bool| RuntimeFacts {
            name: "containerd".into(),
            version: version.into(),
            handler: "".into(),
            handlers: handler
                .map(|user_namespaces| RuntimeHandler {
                    name: String::new(),
                    features: Some(RuntimeHandlerFeatures {
                        user_namespaces,
                        recursive_read_only_mounts: true,
                    }),
                })
                .into_iter()
                .collect(),
            features: groups.then_some(RuntimeFeatures {
                supplemental_groups_policy: true,
                ..RuntimeFeatures::default()
            }),
        };
        let mut node = testing::node();
        node.security.user_namespaces = true;
        let missing = |pod: &Pod, facts: &RuntimeFacts, node: &NodeSettings| {
            unmet(pod, facts, node).map(|unmet| (unmet.field, unmet.message))
        };
        let old = facts("1.6.20~ds1", None, false);
        let new = facts("2.1.9", Some(true), true);

        let plain = testing::pod(&["a"]);
        assert_eq!(missing(&plain, &old, &node), None);

        let mut strict = testing::pod(&["a"]);
        strict.spec.as_mut().unwrap().security_context = Some(PodSecurityContext {
            supplemental_groups_policy: Some("Strict".into()),
            ..PodSecurityContext::default()
        });
        let (field, message) = missing(&strict, &old, &node).unwrap();
        assert_eq!(field, "spec.securityContext.supplementalGroupsPolicy");
        assert!(message.contains("1.6.20~ds1") && message.contains("2.0"), "{message}");
        assert_eq!(missing(&strict, &new, &node), None);

        let mut apart = testing::pod(&["a"]);
        apart.spec.as_mut().unwrap().host_users = Some(false);
        let (field, message) = missing(&apart, &old, &node).unwrap();
        assert_eq!(field, "spec.hostUsers");
        assert!(message.contains("1.6.20~ds1") && message.contains("2.0"), "{message}");
        let (_, message) = missing(&apart, &facts("2.1.9", Some(false), true), &node).unwrap();
        assert!(message.contains("runc 1.2"), "{message}");
        assert_eq!(missing(&apart, &new, &node), None);
        node.security.user_namespaces = false;
        assert!(missing(&apart, &new, &node).unwrap().1.contains("UserNamespacesSupport"));
        apart.spec.as_mut().unwrap().host_users = Some(true);
        assert_eq!(missing(&apart, &old, &node), None);
    }
}
