//! What sandboxes and containers are confined to, by what their pod says.

#![allow(deprecated, reason = "older runtimes read the older field of AppArmor")]

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Capabilities, PodSecurityContext, SELinuxOptions, SeccompProfile, SecurityContext,
    Sysctl,
};

use super::*;
use crate::{
    api::cri::{
        LinuxContainerSecurityContext, LinuxPodSandboxConfig, Mount, NamespaceMode, SecurityProfile,
        SupplementalGroupsPolicy, security_profile::ProfileType,
    },
    policy::{testing, userns::PodIds},
};

fn pod_with(all: PodSecurityContext, own: SecurityContext) -> Pod {
    let mut pod = testing::pod(&["a"]);
    let spec = pod.spec.as_mut().unwrap();
    spec.security_context = Some(all);
    spec.containers[0].security_context = Some(own);
    pod
}

fn tried(
    pod: &Pod,
    change: impl FnOnce(&mut testing::ContainerParts),
) -> Result<LinuxContainerSecurityContext, String> {
    let mut parts = testing::ContainerParts::of(pod);
    parts.image.uid = Some(0);
    parts.node.security.seccomp_root = "/kubelet/seccomp".into();
    change(&mut parts);
    let config = parts.with(container_config).map_err(|error| error.message)?;
    Ok(config.linux.unwrap().security_context.unwrap())
}

fn made(all: PodSecurityContext, own: SecurityContext) -> LinuxContainerSecurityContext {
    tried(&pod_with(all, own), |_| {}).unwrap()
}

fn sandbox(pod: &Pod, user_namespace: Option<PodIds>) -> LinuxPodSandboxConfig {
    sandbox_config(&SandboxInput {
        pod,
        attempt: 0,
        log_directory: "/logs",
        cgroup_parent: "",
        hostname: "",
        dns: None,
        user_namespace,
        node: &testing::node(),
    })
    .linux
    .unwrap()
}

fn kind(profile: &Option<SecurityProfile>) -> ProfileType {
    profile.as_ref().unwrap().profile_type()
}

#[test]
fn nothing_set_is_root_unconfined_and_masked() {
    let made = made(PodSecurityContext::default(), SecurityContext::default());
    assert_eq!(made.run_as_user.map(|u| u.value), Some(0));
    assert_eq!(made.run_as_group, None);
    assert_eq!(kind(&made.seccomp), ProfileType::Unconfined);
    assert_eq!((&made.apparmor, made.apparmor_profile.as_str()), (&None, ""));
    assert!(!made.privileged && !made.readonly_rootfs && !made.no_new_privs);
    assert!(made.capabilities.is_none() && made.selinux_options.is_none());
    assert!(made.masked_paths.iter().any(|p| p == "/proc/kcore"));
    assert!(made.readonly_paths.iter().any(|p| p == "/proc/sys"));
    let namespaces = made.namespace_options.unwrap();
    assert_eq!(namespaces.userns_options.unwrap().mode(), NamespaceMode::Node);
    let sandbox = sandbox(&testing::pod(&["a"]), None).security_context.unwrap();
    assert!(!sandbox.privileged);
    assert_eq!(kind(&sandbox.seccomp), ProfileType::RuntimeDefault);
}

#[test]
fn a_containers_own_settings_come_over_its_pods() {
    let seccomp = |type_: &str, file: Option<&str>| SeccompProfile {
        type_: type_.into(),
        localhost_profile: file.map(str::to_owned),
    };
    let level = |level: &str| SELinuxOptions { level: Some(level.into()), ..SELinuxOptions::default() };
    let all = PodSecurityContext {
        run_as_user: Some(1),
        run_as_group: Some(2),
        run_as_non_root: Some(true),
        seccomp_profile: Some(seccomp("RuntimeDefault", None)),
        se_linux_options: Some(level("s0:c1")),
        app_armor_profile: Some(AppArmorProfile { type_: "Unconfined".into(), localhost_profile: None }),
        ..PodSecurityContext::default()
    };
    let inherited = made(all.clone(), SecurityContext::default());
    assert_eq!(inherited.run_as_user.map(|u| u.value), Some(1));
    assert_eq!(inherited.run_as_group.map(|g| g.value), Some(2));
    assert_eq!(kind(&inherited.seccomp), ProfileType::RuntimeDefault);
    assert_eq!(inherited.selinux_options.as_ref().map(|s| s.level.as_str()), Some("s0:c1"));
    assert_eq!(kind(&inherited.apparmor), ProfileType::Unconfined);
    assert_eq!(inherited.apparmor_profile, "unconfined");

    let own = SecurityContext {
        run_as_user: Some(0),
        run_as_group: Some(4),
        run_as_non_root: Some(false),
        seccomp_profile: Some(seccomp("Localhost", Some("mine/strict.json"))),
        se_linux_options: Some(level("s0:c2")),
        app_armor_profile: Some(AppArmorProfile {
            type_: "Localhost".into(),
            localhost_profile: Some("mine".into()),
        }),
        ..SecurityContext::default()
    };
    let over = made(all, own);
    assert_eq!(over.run_as_user.map(|u| u.value), Some(0));
    assert_eq!(over.run_as_group.map(|g| g.value), Some(4));
    let file = over.seccomp.as_ref().map(|s| (s.profile_type(), s.localhost_ref.as_str()));
    assert_eq!(file, Some((ProfileType::Localhost, "/kubelet/seccomp/mine/strict.json")));
    assert_eq!(over.selinux_options.as_ref().map(|s| s.level.as_str()), Some("s0:c2"));
    let file = over.apparmor.as_ref().map(|s| (s.profile_type(), s.localhost_ref.as_str()));
    assert_eq!(file, Some((ProfileType::Localhost, "mine")));
    assert_eq!(over.apparmor_profile, "localhost/mine");
}

/// No machine of the tests has SELinux: what is asked for is all that can be seen.
#[test]
fn every_part_of_se_linux_options_is_asked_for() {
    let options = |word: &str| SELinuxOptions {
        user: Some(format!("{word}_u")),
        role: Some(format!("{word}_r")),
        type_: Some(format!("{word}_t")),
        level: Some(format!("s0:{word}")),
    };
    let parts = |found: Option<crate::api::cri::SeLinuxOption>| {
        found.map(|found| [found.user, found.role, found.r#type, found.level])
    };
    let expected = |word: &str| {
        Some([format!("{word}_u"), format!("{word}_r"), format!("{word}_t"), format!("s0:{word}")])
    };
    let all = PodSecurityContext { se_linux_options: Some(options("pod")), ..PodSecurityContext::default() };
    let mut pod = pod_with(all, SecurityContext::default());
    let asked = |pod: &Pod| parts(tried(pod, |_| {}).unwrap().selinux_options);
    assert_eq!(asked(&pod), expected("pod"));
    let own = SecurityContext { se_linux_options: Some(options("own")), ..SecurityContext::default() };
    pod.spec.as_mut().unwrap().containers[0].security_context = Some(own);
    assert_eq!(asked(&pod), expected("own"), "not a part of each");
    let sandbox = sandbox(&pod, None).security_context.unwrap();
    assert_eq!(parts(sandbox.selinux_options), expected("pod"));
}

/// No machine of the tests has AppArmor: what is asked for is all that can be seen.
#[test]
fn every_type_of_app_armor_profile_is_asked_for_in_both_fields() {
    for (type_, name, kind, text) in [
        ("RuntimeDefault", None, ProfileType::RuntimeDefault, "runtime/default"),
        ("Unconfined", None, ProfileType::Unconfined, "unconfined"),
        ("Localhost", Some("mine"), ProfileType::Localhost, "localhost/mine"),
    ] {
        let wanted = AppArmorProfile { type_: type_.into(), localhost_profile: name.map(str::to_owned) };
        let own = SecurityContext { app_armor_profile: Some(wanted), ..SecurityContext::default() };
        let made = made(PodSecurityContext::default(), own);
        let asked = made.apparmor.as_ref().map(|a| (a.profile_type(), a.localhost_ref.as_str()));
        assert_eq!(asked, Some((kind, name.unwrap_or_default())), "{type_}");
        assert_eq!(made.apparmor_profile, text);
    }
    for (type_, name) in [("Localhost", None), ("Other", None)] {
        let wanted = AppArmorProfile { type_: type_.into(), localhost_profile: name };
        let own = SecurityContext { app_armor_profile: Some(wanted), ..SecurityContext::default() };
        assert!(tried(&pod_with(PodSecurityContext::default(), own), |_| {}).is_err(), "{type_}");
    }
}

#[test]
fn the_nodes_default_profile_is_for_containers_that_name_none() {
    let plain = testing::pod(&["a"]);
    let made = tried(&plain, |parts| parts.node.security.seccomp_default = true).unwrap();
    assert_eq!(kind(&made.seccomp), ProfileType::RuntimeDefault);
    let free = pod_with(
        PodSecurityContext {
            seccomp_profile: Some(SeccompProfile { type_: "Unconfined".into(), localhost_profile: None }),
            ..PodSecurityContext::default()
        },
        SecurityContext::default(),
    );
    let made = tried(&free, |parts| parts.node.security.seccomp_default = true).unwrap();
    assert_eq!(kind(&made.seccomp), ProfileType::Unconfined);
}

#[test]
fn the_user_is_the_specs_else_the_images() {
    let user = |wanted: Option<i64>, uid: Option<i64>, name: &str| {
        let security = SecurityContext { run_as_user: wanted, ..SecurityContext::default() };
        let made = tried(&pod_with(PodSecurityContext::default(), security), |parts| {
            (parts.image.uid, parts.image.user_name) = (uid, name.to_owned());
        })
        .unwrap();
        (made.run_as_user.map(|u| u.value), made.run_as_username)
    };
    assert_eq!(user(Some(5), Some(7), ""), (Some(5), String::new()));
    assert_eq!(user(Some(5), None, "app"), (Some(5), String::new()));
    assert_eq!(user(None, Some(7), ""), (Some(7), String::new()));
    assert_eq!(user(None, None, "app"), (None, "app".to_owned()));
    assert_eq!(user(None, None, ""), (Some(0), String::new()));
}

#[test]
fn a_container_that_must_not_run_as_root_does_not() {
    let verdict = |user: Option<i64>, uid: Option<i64>, name: &str| {
        let all = PodSecurityContext { run_as_non_root: Some(true), ..PodSecurityContext::default() };
        let own = SecurityContext { run_as_user: user, ..SecurityContext::default() };
        tried(&pod_with(all, own), |parts| {
            (parts.image.uid, parts.image.user_name) = (uid, name.to_owned());
        })
        .map(|_| ())
    };
    let refused = |why: &str| Err(format!("{why} (pod: \"p_default(u)\", container: a)"));
    assert_eq!(verdict(Some(5), Some(0), ""), Ok(()));
    assert_eq!(verdict(None, Some(1000), ""), Ok(()));
    assert_eq!(verdict(Some(0), Some(1000), ""), refused("container's runAsUser breaks non-root policy"));
    let root = refused("container has runAsNonRoot and image will run as root");
    assert_eq!(verdict(None, Some(0), ""), root);
    assert_eq!(verdict(None, None, ""), root);
    assert_eq!(
        verdict(None, None, "app"),
        refused(
            "container has runAsNonRoot and image has non-numeric user (app), cannot verify user is non-root"
        )
    );
    assert!(verdict(None, Some(-1), "").unwrap_err().contains("invalid user id (-1)"));
}

#[test]
fn privileges_given_and_taken() {
    let plain = SecurityContext::default;
    let none = PodSecurityContext::default;
    let made = |own: SecurityContext| made(none(), own);
    assert!(made(SecurityContext { privileged: Some(true), ..plain() }).privileged);
    assert!(made(SecurityContext { read_only_root_filesystem: Some(true), ..plain() }).readonly_rootfs);
    for (escalation, expected) in [(None, false), (Some(true), false), (Some(false), true)] {
        let own = SecurityContext { allow_privilege_escalation: escalation, ..plain() };
        assert_eq!(made(own).no_new_privs, expected);
    }
    let own = SecurityContext {
        capabilities: Some(Capabilities {
            add: Some(vec!["NET_ADMIN".into(), "CAP_SYS_TIME".into()]),
            drop: Some(vec!["ALL".into(), "cap_chown".into()]),
        }),
        ..plain()
    };
    let capabilities = made(own).capabilities.unwrap();
    assert_eq!(capabilities.add_capabilities, ["NET_ADMIN", "CAP_SYS_TIME"], "as kubelet asks for them");
    assert_eq!(capabilities.drop_capabilities, ["ALL", "chown"]);

    let unmasked = made(SecurityContext { proc_mount: Some("Unmasked".into()), ..plain() });
    assert!(unmasked.masked_paths.is_empty() && unmasked.readonly_paths.is_empty());
    let pod = testing::pod(&["a"]);
    let counters = "/sys/devices/system/cpu/cpu0/thermal_throttle";
    let masked = tried(&pod, |parts| parts.node.security.masked_paths = vec![counters.into()]).unwrap();
    assert!(masked.masked_paths.iter().any(|p| p == counters));
}

#[test]
fn a_sandbox_is_privileged_for_any_of_its_containers() {
    let mut pod = testing::pod(&["a", "b"]);
    assert!(!sandbox(&pod, None).security_context.unwrap().privileged);
    let mut init = testing::spec("i");
    init.security_context = Some(SecurityContext { privileged: Some(true), ..SecurityContext::default() });
    pod.spec.as_mut().unwrap().init_containers = Some(vec![init]);
    assert!(sandbox(&pod, None).security_context.unwrap().privileged);
}

#[test]
fn groups_and_settings_of_the_pod() {
    let all = PodSecurityContext {
        fs_group: Some(7),
        supplemental_groups: Some(vec![8, 9]),
        supplemental_groups_policy: Some("Strict".into()),
        run_as_group: Some(3),
        sysctls: Some(vec![Sysctl { name: "kernel/sem".into(), value: "1 2 3 4".into() }]),
        ..PodSecurityContext::default()
    };
    let mut pod = pod_with(all, SecurityContext::default());
    let container = tried(&pod, |_| {}).unwrap();
    assert_eq!(container.supplemental_groups, [7, 8, 9]);
    assert_eq!(container.supplemental_groups_policy(), SupplementalGroupsPolicy::Strict);
    let linux = sandbox(&pod, None);
    assert_eq!(linux.sysctls.into_iter().collect::<Vec<_>>(), [("kernel.sem".into(), "1 2 3 4".into())]);
    let security = linux.security_context.unwrap();
    assert_eq!(security.supplemental_groups, [7, 8, 9]);
    assert_eq!(security.supplemental_groups_policy(), SupplementalGroupsPolicy::Strict);
    // A group alone has containerd refuse the sandbox.
    assert_eq!((security.run_as_user, security.run_as_group), (None, None));
    pod.spec.as_mut().unwrap().security_context.as_mut().unwrap().run_as_user = Some(2);
    let security = sandbox(&pod, None).security_context.unwrap();
    assert_eq!(security.run_as_user.map(|u| u.value), Some(2));
    assert_eq!(security.run_as_group.map(|g| g.value), Some(3));
}

#[test]
fn a_user_namespace_is_the_same_in_sandbox_container_and_mounts() {
    let ids = PodIds { host_id: 131_072, length: 65536 };
    let mut pod = testing::pod(&["a"]);
    pod.spec.as_mut().unwrap().host_users = Some(false);
    let container = tried(&pod, |parts| parts.user_namespace = Some(ids)).unwrap();
    let container = container.namespace_options.unwrap().userns_options.unwrap();
    let sandbox = sandbox(&pod, Some(ids)).security_context.unwrap();
    assert_eq!(sandbox.namespace_options.unwrap().userns_options.as_ref(), Some(&container));
    assert_eq!(container.mode(), NamespaceMode::Pod);
    let [mapping] = &container.uids[..] else { panic!("{container:?}") };
    assert_eq!((mapping.host_id, mapping.container_id, mapping.length), (131_072, 0, 65536));
    assert_eq!(container.gids, container.uids);
    let mut mounts = [Mount::default(), Mount::default()];
    ids.map_mounts(&mut mounts);
    assert!(mounts.iter().all(|m| m.uid_mappings == container.uids && m.gid_mappings == container.gids));
}
