//! The security contexts of pod and containers.

use std::collections::HashSet;

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext, Sysctl,
};

use super::{Problems, Unique};
use crate::api::sysctl;

/// The largest user or group number that Kubernetes takes.
const MAX_ID: i64 = i32::MAX as i64;
/// The longest name of an AppArmor profile in bytes.
const MAX_APP_ARMOR_NAME: usize = 4095;

const PROFILE_TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];

/// Checks the pod's.
pub(super) fn check_pod(spec: &PodSpec, problems: &mut Problems) {
    let Some(security) = &spec.security_context else { return };
    let path = "spec.securityContext";
    check_pod_ids(security, path, problems);
    problems.one_of(
        format!("{path}.supplementalGroupsPolicy"),
        security.supplemental_groups_policy.as_deref(),
        &["Merge", "Strict"],
    );
    problems.one_of(
        format!("{path}.fsGroupChangePolicy"),
        security.fs_group_change_policy.as_deref(),
        &["Always", "OnRootMismatch"],
    );
    problems.one_of(
        format!("{path}.seLinuxChangePolicy"),
        security.se_linux_change_policy.as_deref(),
        &["MountOption", "Recursive"],
    );
    check_seccomp(security.seccomp_profile.as_ref(), &format!("{path}.seccompProfile"), problems);
    check_app_armor(security.app_armor_profile.as_ref(), &format!("{path}.appArmorProfile"), problems);
    check_sysctls(security.sysctls.as_deref().unwrap_or_default(), &format!("{path}.sysctls"), problems);
}

fn check_pod_ids(security: &PodSecurityContext, path: &str, problems: &mut Problems) {
    check_id(format!("{path}.runAsUser"), security.run_as_user, problems);
    check_id(format!("{path}.runAsGroup"), security.run_as_group, problems);
    check_id(format!("{path}.fsGroup"), security.fs_group, problems);
    for (index, group) in security.supplemental_groups.iter().flatten().enumerate() {
        check_id(format!("{path}.supplementalGroups[{index}]"), Some(*group), problems);
    }
}

fn check_id(path: String, id: Option<i64>, problems: &mut Problems) {
    if let Some(id) = id.filter(|id| !(0..=MAX_ID).contains(id)) {
        problems.invalid(path, id, &format!("must be between 0 and {MAX_ID}, inclusive"));
    }
}

/// Checks a container's, at the container's path.
pub(super) fn check_container(spec: &PodSpec, container: &Container, path: &str, problems: &mut Problems) {
    let Some(security) = &container.security_context else { return };
    let path = format!("{path}.securityContext");
    check_id(format!("{path}.runAsUser"), security.run_as_user, problems);
    check_id(format!("{path}.runAsGroup"), security.run_as_group, problems);
    check_seccomp(security.seccomp_profile.as_ref(), &format!("{path}.seccompProfile"), problems);
    check_app_armor(security.app_armor_profile.as_ref(), &format!("{path}.appArmorProfile"), problems);
    problems.one_of(format!("{path}.procMount"), security.proc_mount.as_deref(), &["Default", "Unmasked"]);
    if security.proc_mount.as_deref() == Some("Unmasked") && spec.host_users != Some(false) {
        problems.invalid(
            format!("{path}.procMount"),
            "Unmasked",
            "`hostUsers` must be false to use `Unmasked`",
        );
    }
    check_escalation(security, &path, problems);
}

/// What a container has from the start it cannot be kept from getting.
fn check_escalation(security: &SecurityContext, path: &str, problems: &mut Problems) {
    if security.allow_privilege_escalation != Some(false) {
        return;
    }
    if security.privileged == Some(true) {
        problems.invalid(
            path,
            "privileged",
            "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        );
    }
    let added = security.capabilities.iter().filter_map(|c| c.add.as_ref()).flatten();
    if added.into_iter().any(|name| name == "CAP_SYS_ADMIN") {
        problems.invalid(
            path,
            "CAP_SYS_ADMIN",
            "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
        );
    }
}

fn check_seccomp(profile: Option<&SeccompProfile>, path: &str, problems: &mut Problems) {
    let Some(profile) = profile else { return };
    check_type(&profile.type_, path, problems);
    let file = profile.localhost_profile.as_deref();
    match (profile.type_.as_str(), file) {
        ("Localhost", None | Some("")) => problems
            .required(format!("{path}.localhostProfile"), "must be set when seccomp type is Localhost"),
        ("Localhost", Some(file)) => {
            let path = format!("{path}.localhostProfile");
            if file.starts_with('/') {
                problems.invalid(path, file, "must be a relative path");
            } else if file.split('/').any(|part| part == "..") {
                problems.invalid(path, file, "must not contain '..'");
            } else if file.contains('\0') {
                problems.invalid(path, file, "must not contain a zero byte");
            }
        }
        (_, Some(file)) => problems.invalid(
            format!("{path}.localhostProfile"),
            file,
            "can only be set when seccomp type is Localhost",
        ),
        _ => {}
    }
}

fn check_app_armor(profile: Option<&AppArmorProfile>, path: &str, problems: &mut Problems) {
    let Some(profile) = profile else { return };
    check_type(&profile.type_, path, problems);
    let name = profile.localhost_profile.as_deref();
    let path = format!("{path}.localhostProfile");
    match (profile.type_.as_str(), name) {
        ("Localhost", None) => problems.required(path, "must be set when AppArmor type is Localhost"),
        ("Localhost", Some(name)) => {
            if name.trim().is_empty() {
                problems.required(path, "must be set when AppArmor type is Localhost");
            } else if name.trim() != name {
                problems.invalid(path, name, "must not be padded with whitespace");
            } else if name.len() > MAX_APP_ARMOR_NAME {
                problems.add(path, format!("Too long: may not be more than {MAX_APP_ARMOR_NAME} bytes"));
            }
        }
        (_, Some(name)) => {
            problems.invalid(path, name, "can only be set when AppArmor type is Localhost");
        }
        _ => {}
    }
}

fn check_type(type_: &str, path: &str, problems: &mut Problems) {
    if type_.is_empty() {
        problems.required(format!("{path}.type"), "type is required when the profile is set");
    } else {
        problems.one_of(format!("{path}.type"), Some(type_), &PROFILE_TYPES);
    }
}

fn check_sysctls(sysctls: &[Sysctl], path: &str, problems: &mut Problems) {
    let mut names = Unique(HashSet::new());
    for (index, wanted) in sysctls.iter().enumerate() {
        let path = format!("{path}[{index}].name");
        if wanted.name.is_empty() {
            problems.required(path, "");
            continue;
        }
        if !sysctl::is_name(&wanted.name) {
            problems.invalid(
                path.clone(),
                &wanted.name,
                "must be at most 253 characters: words of lower-case letters, digits, '-' and '_', \
                 separated by '.' or '/'",
            );
        }
        names.add(path, &sysctl::dotted(&wanted.name), problems);
    }
}

#[cfg(test)]
mod tests {
    use crate::api::{
        defaults::set_pod_defaults,
        manifest::{Shape, parse},
        validation::validate_pod,
    };

    fn problems(spec: &str) -> Vec<String> {
        let text =
            format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: a, namespace: b}}\nspec: {{{spec}}}\n");
        let mut pod = parse(text.as_bytes(), Shape::Pod).unwrap_or_else(|e| panic!("{e}")).remove(0).pod;
        set_pod_defaults(&mut pod);
        validate_pod(&pod).iter().map(ToString::to_string).collect()
    }

    fn of_pod(security: &str) -> Vec<String> {
        problems(&format!("securityContext: {{{security}}}, containers: [{{name: c, image: x}}]"))
    }

    fn of_container(security: &str) -> Vec<String> {
        problems(&format!("containers: [{{name: c, image: x, securityContext: {{{security}}}}}]"))
    }

    #[test]
    fn what_is_well_formed_passes() {
        for good in [
            "runAsUser: 0, runAsGroup: 2147483647, fsGroup: 5, supplementalGroups: [0, 7]",
            "supplementalGroupsPolicy: Strict, fsGroupChangePolicy: OnRootMismatch",
            "seccompProfile: {type: Localhost, localhostProfile: a/b.json}",
            "seccompProfile: {type: RuntimeDefault}, appArmorProfile: {type: Localhost, localhostProfile: x}",
            "sysctls: [{name: kernel/sem, value: '1'}, {name: net.core.somaxconn, value: '2'}]",
        ] {
            assert_eq!(of_pod(good), Vec::<String>::new(), "{good}");
        }
        for good in ["procMount: Default, allowPrivilegeEscalation: false", "privileged: true"] {
            assert_eq!(of_container(good), Vec::<String>::new(), "{good}");
        }
        let unmasked = "hostUsers: false, containers: [{name: c, image: x, \
                        securityContext: {procMount: Unmasked}}]";
        assert_eq!(problems(unmasked), Vec::<String>::new());
    }

    #[test]
    fn a_pods_problems() {
        for (bad, expected) in [
            ("runAsUser: -1", "spec.securityContext.runAsUser"),
            ("runAsGroup: 2147483648", "spec.securityContext.runAsGroup"),
            ("fsGroup: -5", "spec.securityContext.fsGroup"),
            ("supplementalGroups: [1, -1]", "spec.securityContext.supplementalGroups[1]"),
            ("supplementalGroupsPolicy: x", "spec.securityContext.supplementalGroupsPolicy"),
            ("fsGroupChangePolicy: x", "spec.securityContext.fsGroupChangePolicy"),
            ("seLinuxChangePolicy: x", "spec.securityContext.seLinuxChangePolicy"),
            ("seccompProfile: {type: x}", "spec.securityContext.seccompProfile.type"),
            ("seccompProfile: {type: Localhost}", "seccompProfile.localhostProfile: Required value"),
            ("seccompProfile: {type: Localhost, localhostProfile: /a}", "must be a relative path"),
            ("seccompProfile: {type: Localhost, localhostProfile: a/../../b}", "must not contain '..'"),
            ("seccompProfile: {type: Unconfined, localhostProfile: a}", "only be set when seccomp type"),
            ("appArmorProfile: {type: Localhost}", "appArmorProfile.localhostProfile: Required value"),
            ("appArmorProfile: {type: Localhost, localhostProfile: ' a'}", "padded"),
            ("appArmorProfile: {type: RuntimeDefault, localhostProfile: a}", "only be set when AppArmor"),
            ("sysctls: [{name: '', value: x}]", "spec.securityContext.sysctls[0].name: Required"),
            ("sysctls: [{name: Kernel.x, value: x}]", "spec.securityContext.sysctls[0].name: Invalid"),
            (
                "sysctls: [{name: kernel.sem, value: x}, {name: kernel/sem, value: z}]",
                "spec.securityContext.sysctls[1].name: Duplicate value",
            ),
        ] {
            let found = of_pod(bad);
            assert!(found.len() == 1 && found[0].contains(expected), "{bad}: {found:?}");
        }
    }

    #[test]
    fn a_containers_problems() {
        for (bad, expected) in [
            ("runAsUser: -1", "spec.containers[0].securityContext.runAsUser"),
            ("procMount: x", "spec.containers[0].securityContext.procMount"),
            ("procMount: Unmasked", "`hostUsers` must be false to use `Unmasked`"),
            ("privileged: true, allowPrivilegeEscalation: false", "`privileged` to true"),
            ("allowPrivilegeEscalation: false, capabilities: {add: [CAP_SYS_ADMIN]}", "CAP_SYS_ADMIN"),
            ("seccompProfile: {type: Localhost}", "containers[0].securityContext.seccompProfile"),
        ] {
            let found = of_container(bad);
            assert!(found.len() == 1 && found[0].contains(expected), "{bad}: {found:?}");
        }
    }
}
