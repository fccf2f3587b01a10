//! What a pod says of its names, of how it resolves others, and of its runtime class.

use k8s_openapi::api::core::v1::{PodDNSConfig, PodSpec};

use super::{Problems, names};
use crate::api::quantity::Quantity;

/// The C library asks no more servers than these.
const MAX_SERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;
const MAX_OVERRIDE: usize = 64;

pub(super) fn check(spec: &PodSpec, problems: &mut Problems) {
    for (path, value) in [("spec.hostname", &spec.hostname), ("spec.subdomain", &spec.subdomain)] {
        if let Some(value) = value.as_deref().filter(|v| !v.is_empty()) {
            problems.name(path, value, names::dns1123_label);
        }
    }
    check_override(spec, problems);
    for (index, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let path = format!("spec.hostAliases[{index}]");
        if alias.ip.parse::<std::net::IpAddr>().is_err() {
            problems.invalid(format!("{path}.ip"), &alias.ip, "must be a valid IP address");
        }
        for (i, name) in alias.hostnames.iter().flatten().enumerate() {
            problems.name(format!("{path}.hostnames[{i}]"), name, names::dns1123_subdomain);
        }
    }
    let nameless = spec.dns_config.as_ref().is_none_or(|c| c.nameservers.iter().flatten().next().is_none());
    if spec.dns_policy.as_deref() == Some("None") && nameless {
        let why = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        problems.required("spec.dnsConfig.nameservers", why);
    }
    if let Some(config) = &spec.dns_config {
        check_dns_config(config, problems);
    }
    check_runtime_class(spec, problems);
}

fn check_override(spec: &PodSpec, problems: &mut Problems) {
    let Some(name) = spec.hostname_override.as_deref().filter(|name| !name.is_empty()) else { return };
    let path = "spec.hostnameOverride";
    problems.name(path, name, names::dns1123_subdomain);
    if name.len() > MAX_OVERRIDE {
        problems.invalid(path, name, "must be no more than 64 characters");
    }
    if spec.host_network == Some(true) {
        problems.forbidden(path, "may not be set together with hostNetwork");
    }
    if spec.set_hostname_as_fqdn == Some(true) {
        problems.forbidden(path, "may not be set together with setHostnameAsFQDN");
    }
}

fn check_dns_config(config: &PodDNSConfig, problems: &mut Problems) {
    let servers = config.nameservers.as_deref().unwrap_or_default();
    if servers.len() > MAX_SERVERS {
        problems.invalid(
            "spec.dnsConfig.nameservers",
            servers.len(),
            "must not have more than 3 nameservers",
        );
    }
    for (index, server) in servers.iter().enumerate() {
        if server.parse::<std::net::IpAddr>().is_err() {
            let path = format!("spec.dnsConfig.nameservers[{index}]");
            problems.invalid(path, server, "must be a valid IP address");
        }
    }
    let searches = config.searches.as_deref().unwrap_or_default();
    let chars = searches.iter().map(String::len).sum::<usize>() + searches.len().saturating_sub(1);
    if searches.len() > MAX_SEARCHES {
        problems.invalid(
            "spec.dnsConfig.searches",
            searches.len(),
            "must not have more than 32 search paths",
        );
    } else if chars > MAX_SEARCH_CHARS {
        problems.invalid("spec.dnsConfig.searches", chars, "must not have more than 2048 characters in all");
    }
    for (index, search) in searches.iter().enumerate() {
        problems.name(format!("spec.dnsConfig.searches[{index}]"), search, search_domain);
    }
    for (index, option) in config.options.iter().flatten().enumerate() {
        let path = format!("spec.dnsConfig.options[{index}]");
        let (name, value) = (option.name.as_deref().unwrap_or_default(), option.value.as_deref());
        if name.is_empty() {
            problems.required(format!("{path}.name"), "");
        }
        // It is one word of one line.
        for (field, text) in [("name", name), ("value", value.unwrap_or_default())] {
            if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
                problems.invalid(format!("{path}.{field}"), text, "must not contain white space");
            }
        }
    }
}

/// A DNS name; the root, a dot at the end, and underscores, as SRV records have them, are allowed.
fn search_domain(name: &str) -> Option<&'static str> {
    if name == "." {
        return None;
    }
    names::dns1123_subdomain(&name.strip_suffix('.').unwrap_or(name).replace('_', "x"))
}

fn check_runtime_class(spec: &PodSpec, problems: &mut Problems) {
    let class = spec.runtime_class_name.as_deref().unwrap_or_default();
    if !class.is_empty() {
        problems.name("spec.runtimeClassName", class, names::dns1123_subdomain);
    }
    let Some(overhead) = spec.overhead.as_ref().filter(|overhead| !overhead.is_empty()) else { return };
    // That there is none without a class is for an API server to see to; kubelet takes it as it stands.
    for (resource, amount) in overhead {
        if Quantity::parse(&amount.0).is_ok_and(|amount| amount >= Quantity::ZERO) {
            continue;
        }
        let path = format!("spec.overhead[{resource}]");
        problems.invalid(path, &amount.0, "must be a quantity greater than or equal to 0");
    }
}
