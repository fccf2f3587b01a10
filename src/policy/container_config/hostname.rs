//! The names that a pod's processes know their host by: the kernel's host name and the line in `/etc/hosts`.
//! The rules are kubelet's (`GeneratePodHostNameAndDomain` in pkg/kubelet/kubelet_pods.go, and
//! pkg/kubelet/util for the kernel's name).

use k8s_openapi::api::core::v1::Pod;

use crate::{
    api::PodExt as _,
    policy::{env::ConfigError, node::NodeSettings},
};

/// A pod's name is cut to so many characters: a label of DNS has no more.
const MAX_HOSTNAME: usize = 63;
/// The most characters that the kernel takes as a host name.
const MAX_KERNEL_NAME: usize = 64;

/// What a pod's host is called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodHostname {
    /// The name without a domain, unless `hostnameOverride` gives one with it.
    pub name: String,
    /// The domain that `subdomain` makes; empty without one.
    pub domain: String,
    /// What `uname -n` tells: the name, or name and domain with `setHostnameAsFQDN`.
    pub kernel: String,
}

/// What a pod's host is called. Of no meaning on the host's network, where the host's name stays.
///
/// # Errors
/// When name and domain together are longer than the kernel takes, and when the pod overrides its name on a
/// node where the feature gate for that is off.
pub fn pod_hostname(pod: &Pod, node: &NodeSettings) -> Result<PodHostname, ConfigError> {
    let spec = pod.spec();
    if let Some(name) = given(spec.hostname_override.as_deref()) {
        if !node.hostname_override {
            let message = "spec.hostnameOverride: the feature gate HostnameOverride is off on this node";
            return Err(ConfigError::new(message));
        }
        let name = cut(name);
        return Ok(PodHostname { kernel: name.clone(), name, domain: String::new() });
    }
    let full_name = pod.full_name();
    let name = cut(given(spec.hostname.as_deref()).unwrap_or(&full_name.name));
    let domain = given(spec.subdomain.as_deref()).map_or_else(String::new, |subdomain| {
        let domain = format!("{subdomain}.{}.svc.{}", full_name.namespace, node.cluster_domain);
        // Without a cluster domain.
        domain.trim_end_matches('.').to_owned()
    });
    let mut kernel = name.clone();
    if spec.set_hostname_as_fqdn == Some(true) && !domain.is_empty() {
        kernel = format!("{name}.{domain}");
        if kernel.len() > MAX_KERNEL_NAME {
            return Err(ConfigError {
                message: format!(
                    "spec.setHostnameAsFQDN: {kernel} has {} characters, and a host name at most {MAX_KERNEL_NAME}",
                    kernel.len()
                ),
                hints: vec!["give the pod a shorter hostname or subdomain".to_owned()],
            });
        }
    }
    Ok(PodHostname { name, domain, kernel })
}

fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

/// A pod's name is ASCII; it may be cut anywhere, but must not end in a dash or dot.
fn cut(name: &str) -> String {
    if name.len() <= MAX_HOSTNAME {
        return name.to_owned();
    }
    name.chars().take(MAX_HOSTNAME).collect::<String>().trim_end_matches(['-', '.']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing;

    fn node() -> NodeSettings {
        NodeSettings { cluster_domain: "cluster.local".into(), hostname_override: true, ..testing::node() }
    }

    fn names(change: impl FnOnce(&mut k8s_openapi::api::core::v1::PodSpec)) -> [String; 3] {
        let mut pod = testing::pod(&["a"]);
        change(pod.spec.as_mut().unwrap());
        let names = pod_hostname(&pod, &node()).unwrap();
        [names.name, names.domain, names.kernel]
    }

    #[test]
    fn name_domain_and_what_the_kernel_is_told() {
        assert_eq!(names(|_| {}), ["p", "", "p"]);
        assert_eq!(names(|s| s.hostname = Some("h".into())), ["h", "", "h"]);
        let domain = "sub.default.svc.cluster.local";
        assert_eq!(names(|s| s.subdomain = Some("sub".into())), ["p", domain, "p"]);
        let whole = names(|s| {
            s.hostname = Some("h".into());
            s.subdomain = Some("sub".into());
            s.set_hostname_as_fqdn = Some(true);
        });
        assert_eq!(whole, ["h", domain, "h.sub.default.svc.cluster.local"]);
        assert_eq!(names(|s| s.set_hostname_as_fqdn = Some(true)), ["p", "", "p"], "no domain to add");
        let over = names(|s| {
            s.hostname = Some("h".into());
            s.subdomain = Some("sub".into());
            s.hostname_override = Some("any.name.example".into());
        });
        assert_eq!(over, ["any.name.example", "", "any.name.example"]);
    }

    #[test]
    fn a_name_is_cut_and_a_whole_name_is_not() {
        let mut pod = testing::pod(&["a"]);
        pod.metadata.name = Some(format!("{}-.x", "a".repeat(61)));
        assert_eq!(pod_hostname(&pod, &node()).unwrap().kernel, "a".repeat(61));
        // 30 characters of domain and a dot leave 33 for the name.
        let spec = pod.spec.as_mut().unwrap();
        spec.subdomain = Some("subs".into());
        spec.set_hostname_as_fqdn = Some(true);
        pod.metadata.name = Some("b".repeat(33));
        assert_eq!(pod_hostname(&pod, &node()).unwrap().kernel.len(), 64);
        pod.metadata.name = Some("b".repeat(34));
        let error = pod_hostname(&pod, &node()).unwrap_err();
        assert!(error.message.contains("65 characters"), "{error}");
    }

    #[test]
    fn the_override_has_a_gate() {
        let mut pod = testing::pod(&["a"]);
        pod.spec.as_mut().unwrap().hostname_override = Some("x.example".into());
        let error = pod_hostname(&pod, &NodeSettings { hostname_override: false, ..node() }).unwrap_err();
        assert!(error.message.contains("HostnameOverride"), "{error}");
    }

    #[test]
    fn without_a_cluster_domain_no_dot_is_left() {
        let mut pod = testing::pod(&["a"]);
        pod.spec.as_mut().unwrap().subdomain = Some("sub".into());
        let names = pod_hostname(&pod, &testing::node()).unwrap();
        assert_eq!(names.domain, "sub.default.svc");
    }
}
