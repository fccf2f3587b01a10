//! The security settings that a container ends up with: its own over its pod's
//! (pkg/securitycontext/util.go), and whether it may then run.

use k8s_openapi::api::core::v1::{Capabilities, Container, Pod, SELinuxOptions, SeccompProfile};

use super::ImageFacts;
use crate::{api::PodExt as _, policy::env::ConfigError};

/// The largest user number that Kubernetes takes.
const MAX_USER: i64 = i32::MAX as i64;

/// See the module. What neither says is `None` or false.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct EffectiveSecurity {
    pub(super) se_linux_options: Option<SELinuxOptions>,
    pub(super) run_as_user: Option<i64>,
    pub(super) run_as_group: Option<i64>,
    pub(super) run_as_non_root: bool,
    pub(super) seccomp_profile: Option<SeccompProfile>,
    pub(super) capabilities: Option<Capabilities>,
    pub(super) privileged: bool,
    pub(super) read_only_root_filesystem: bool,
    pub(super) allow_privilege_escalation: Option<bool>,
    pub(super) proc_mount: Option<String>,
}

impl EffectiveSecurity {
    /// Of one container. AppArmor's is found by [`crate::policy::security::app_armor_profile`].
    pub(super) fn of(pod: &Pod, container: &Container) -> Self {
        let all = pod.spec().security_context.clone().unwrap_or_default();
        let own = container.security_context.clone().unwrap_or_default();
        Self {
            se_linux_options: own.se_linux_options.or(all.se_linux_options),
            run_as_user: own.run_as_user.or(all.run_as_user),
            run_as_group: own.run_as_group.or(all.run_as_group),
            run_as_non_root: own.run_as_non_root.or(all.run_as_non_root).unwrap_or(false),
            seccomp_profile: own.seccomp_profile.or(all.seccomp_profile),
            capabilities: own.capabilities,
            privileged: own.privileged.unwrap_or(false),
            read_only_root_filesystem: own.read_only_root_filesystem.unwrap_or(false),
            allow_privilege_escalation: own.allow_privilege_escalation,
            proc_mount: own.proc_mount,
        }
    }
}

/// Whether a container that must not run as root would. A user that the image gives by name cannot be told
/// before the container is made: it is refused too, as with kubelet.
pub(super) fn verify_non_root(
    pod: &Pod,
    container: &Container,
    effective: &EffectiveSecurity,
    image: &ImageFacts,
) -> Result<(), ConfigError> {
    if !effective.run_as_non_root {
        return Ok(());
    }
    let refuse = |why: String, hint: &str| {
        let name = pod.full_name();
        let pod = format!("{}_{}({})", name.name, name.namespace, pod.uid());
        Err(ConfigError {
            message: format!("{why} (pod: {pod:?}, container: {})", container.name),
            hints: vec![hint.to_owned()],
        })
    };
    match (effective.run_as_user, image.uid) {
        (Some(0), _) => refuse(
            "container's runAsUser breaks non-root policy".to_owned(),
            "set runAsUser to another user than 0, or runAsNonRoot to false",
        ),
        (Some(_), _) => Ok(()),
        (None, None) if !image.user_name.is_empty() => refuse(
            format!(
                "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root",
                image.user_name
            ),
            "set runAsUser to the number of the image's user",
        ),
        (None, None | Some(0)) => refuse(
            "container has runAsNonRoot and image will run as root".to_owned(),
            "set runAsUser to a user that is not root, or use an image that names one by number",
        ),
        (None, Some(user)) if !(1..=MAX_USER).contains(&user) => refuse(
            format!(
                "container has runAsNonRoot and image has an invalid user id ({user}). (Must be 1-({MAX_USER}))"
            ),
            "set runAsUser",
        ),
        (None, Some(_)) => Ok(()),
    }
}
