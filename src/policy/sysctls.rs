//! Which kernel settings a pod may have (pkg/kubelet/sysctl): the safe ones, and those that the node's
//! configuration allows besides.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

use super::{admission::AdmissionInput, status::PodFailure};
use crate::api::{
    PodExt as _,
    sysctl::{SysctlNamespace, dotted, namespace},
};

/// Settings that a namespace holds and that touch nobody outside of it, with the kernel that each takes
/// (Kubernetes 1.36).
const SAFE: [(&str, (u32, u32)); 12] = [
    ("kernel.shm_rmid_forced", (0, 0)),
    ("net.ipv4.ip_local_port_range", (0, 0)),
    ("net.ipv4.ip_local_reserved_ports", (3, 16)),
    ("net.ipv4.ip_unprivileged_port_start", (0, 0)),
    ("net.ipv4.ping_group_range", (0, 0)),
    ("net.ipv4.tcp_fin_timeout", (4, 6)),
    ("net.ipv4.tcp_keepalive_intvl", (4, 5)),
    ("net.ipv4.tcp_keepalive_probes", (4, 5)),
    ("net.ipv4.tcp_keepalive_time", (4, 5)),
    ("net.ipv4.tcp_rmem", (4, 15)),
    ("net.ipv4.tcp_syncookies", (0, 0)),
    ("net.ipv4.tcp_wmem", (4, 15)),
];

/// The kernel settings that pods may have on this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedSysctls {
    /// The kernel's version: major and minor number.
    pub kernel: (u32, u32),
    /// `allowedUnsafeSysctls`: names, and beginnings of names that end in `*`.
    pub unsafe_patterns: Vec<String>,
}

impl AllowedSysctls {
    /// The major and minor number of a kernel's release text, e.g. `6.1.0-18-amd64`.
    pub fn kernel_version(release: &str) -> (u32, u32) {
        let mut numbers =
            release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse::<u32>().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    fn allows(&self, name: &str) -> bool {
        let safe = SAFE.iter().any(|(safe, kernel)| *safe == name && self.kernel >= *kernel);
        safe || self.unsafe_patterns.iter().any(|pattern| {
            let pattern = dotted(pattern);
            match pattern.strip_suffix('*') {
                Some(prefix) => name.starts_with(prefix),
                None => pattern == name,
            }
        })
    }

    /// Whether a pod may have the setting; the name is spelt with dots.
    fn check(&self, name: &str, host_network: bool, host_ipc: bool) -> Result<(), String> {
        if !self.allows(name) {
            return Err(format!("{name:?} not allowlisted"));
        }
        match namespace(name) {
            Some(SysctlNamespace::Ipc) if host_ipc => {
                Err(format!("{name:?} not allowed with host ipc enabled"))
            }
            Some(SysctlNamespace::Net) if host_network => {
                Err(format!("{name:?} not allowed with host net enabled"))
            }
            Some(_) => Ok(()),
            // The configuration is refused if it allows such a one; it would be the host's.
            None => Err(format!("{name:?} is not known to be namespaced")),
        }
    }
}

/// Refuses a pod with a setting that it may not have.
pub(super) fn admit(input: &AdmissionInput<'_>) -> Result<(), PodFailure> {
    let spec = input.pod.spec();
    let wanted = spec.security_context.iter().filter_map(|s| s.sysctls.as_ref()).flatten();
    for sysctl in wanted {
        let allowed = input.node.security.sysctls.check(
            &dotted(&sysctl.name),
            input.pod.host_network(),
            spec.host_ipc.unwrap_or(false),
        );
        allowed.map_err(|why| PodFailure {
            reason: "SysctlForbidden".to_owned(),
            message: format!("forbidden sysctl: {why}"),
        })?;
    }
    Ok(())
}

/// The settings that a pod's sandbox gets.
pub(super) fn of_pod(pod: &Pod) -> BTreeMap<String, String> {
    let wanted = pod.spec().security_context.iter().filter_map(|s| s.sysctls.as_ref()).flatten();
    wanted.map(|sysctl| (dotted(&sysctl.name), sysctl.value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodSecurityContext, Sysctl};

    use super::*;
    use crate::policy::{admission, testing};

    fn verdict(names: &[&str], change: impl FnOnce(&mut Pod)) -> Result<(), String> {
        let mut node = testing::node();
        node.security.sysctls = AllowedSysctls {
            kernel: AllowedSysctls::kernel_version("4.9.0-19-amd64"),
            unsafe_patterns: vec!["net/core/somaxconn".into(), "kernel.msg*".into()],
        };
        let mut pod = testing::pod(&["a"]);
        pod.spec.as_mut().unwrap().security_context = Some(PodSecurityContext {
            sysctls: Some(
                names.iter().map(|n| Sysctl { name: (*n).to_owned(), value: "1".into() }).collect(),
            ),
            ..PodSecurityContext::default()
        });
        change(&mut pod);
        let input = AdmissionInput { pod: &pod, others: &[], node: &node, server_node: None };
        admission::admit(&input)
            .map(|_| ())
            .map_err(|failure| format!("{}: {}", failure.reason, failure.message))
    }

    #[test]
    fn safe_and_allowed_settings_pass_and_no_other() {
        let forbidden = |why: &str| Err(format!("SysctlForbidden: forbidden sysctl: {why}"));
        for (name, expected) in [
            ("kernel.shm_rmid_forced", Ok(())),
            ("kernel/shm_rmid_forced", Ok(())),
            ("net.ipv4.tcp_fin_timeout", Ok(())),
            // Safe with a newer kernel only.
            ("net.ipv4.tcp_rmem", forbidden("\"net.ipv4.tcp_rmem\" not allowlisted")),
            ("net.core.somaxconn", Ok(())),
            ("net.core.somaxconn2", forbidden("\"net.core.somaxconn2\" not allowlisted")),
            ("kernel.msgmax", Ok(())),
            ("kernel.sem", forbidden("\"kernel.sem\" not allowlisted")),
            ("vm.swappiness", forbidden("\"vm.swappiness\" not allowlisted")),
        ] {
            assert_eq!(verdict(&[name], |_| {}), expected, "{name}");
        }
        assert!(verdict(&["kernel.msgmax", "kernel.sem"], |_| {}).is_err(), "one is enough");
        assert_eq!(verdict(&[], |_| {}), Ok(()));
    }

    #[test]
    fn the_hosts_own_namespace_is_not_changed() {
        let net = |pod: &mut Pod| pod.spec.as_mut().unwrap().host_network = Some(true);
        let ipc = |pod: &mut Pod| pod.spec.as_mut().unwrap().host_ipc = Some(true);
        assert!(verdict(&["net.core.somaxconn"], net).unwrap_err().contains("host net"));
        assert!(verdict(&["kernel.msgmax"], ipc).unwrap_err().contains("host ipc"));
        assert_eq!(verdict(&["net.core.somaxconn"], ipc), Ok(()));
        assert_eq!(verdict(&["kernel.msgmax"], net), Ok(()));
    }
}
