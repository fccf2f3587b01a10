//! Seccomp and AppArmor profiles in the runtime's terms
//! (pkg/kubelet/kuberuntime/helpers.go and security_context.go).

use k8s_openapi::api::core::v1::{Container, Pod, SeccompProfile};

use crate::{
    api::cri::{SecurityProfile, security_profile::ProfileType},
    policy::{
        env::ConfigError,
        security::{SecuritySettings, app_armor_profile},
    },
};

fn profile(kind: ProfileType, localhost_ref: impl Into<String>) -> SecurityProfile {
    SecurityProfile { profile_type: kind.into(), localhost_ref: localhost_ref.into() }
}

/// The seccomp profile; a container without one has the node's default.
///
/// # Errors
/// When it names no profile of the node, or is of an unknown type.
pub(super) fn seccomp(
    wanted: Option<&SeccompProfile>,
    settings: &SecuritySettings,
) -> Result<SecurityProfile, ConfigError> {
    let Some(wanted) = wanted else {
        let default =
            if settings.seccomp_default { ProfileType::RuntimeDefault } else { ProfileType::Unconfined };
        return Ok(profile(default, ""));
    };
    match wanted.type_.as_str() {
        "RuntimeDefault" => Ok(profile(ProfileType::RuntimeDefault, "")),
        "Unconfined" => Ok(profile(ProfileType::Unconfined, "")),
        "Localhost" => match wanted.localhost_profile.as_deref().filter(|path| !path.is_empty()) {
            Some(path) => Ok(profile(ProfileType::Localhost, format!("{}/{path}", settings.seccomp_root))),
            None => Err(ConfigError::new("localhostProfile must be set if seccompProfile type is Localhost")),
        },
        other => Err(ConfigError::new(format!("unknown type {other:?} of seccompProfile"))),
    }
}

/// The AppArmor profile, and its text for runtimes that know no other form; none if nothing asks for one.
///
/// # Errors
/// When it names no profile of the node, or is of an unknown type.
pub(super) fn app_armor(
    pod: &Pod,
    container: &Container,
) -> Result<Option<(SecurityProfile, String)>, ConfigError> {
    let Some(wanted) = app_armor_profile(pod, container) else { return Ok(None) };
    match wanted.type_.as_str() {
        "RuntimeDefault" => {
            Ok(Some((profile(ProfileType::RuntimeDefault, ""), "runtime/default".to_owned())))
        }
        "Unconfined" => Ok(Some((profile(ProfileType::Unconfined, ""), "unconfined".to_owned()))),
        "Localhost" => match wanted.localhost_profile.filter(|name| !name.is_empty()) {
            Some(name) => {
                let text = format!("localhost/{name}");
                Ok(Some((profile(ProfileType::Localhost, name), text)))
            }
            None => {
                Err(ConfigError::new("localhostProfile must be set if appArmorProfile type is Localhost"))
            }
        },
        other => Err(ConfigError::new(format!("unknown type {other:?} of appArmorProfile"))),
    }
}
