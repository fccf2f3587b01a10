//! How a pod resolves names: its policy, its own settings, the cluster's and the host's `resolv.conf`. The
//! rules and the limits are kubelet's (pkg/kubelet/network/dns/dns.go); the runtime writes the file.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Pod, PodDNSConfigOption};

use super::node::NodeSettings;
use crate::api::{PodExt as _, cri::DnsConfig};

/// The C library asks no more servers than these.
const MAX_SERVERS: usize = 3;
/// The most search domains.
const MAX_SEARCHES: usize = 32;
/// The most characters of all search domains with the spaces between.
const MAX_SEARCH_CHARS: usize = 2048;
/// A longer search domain ends the process that resolves a name, with some C libraries.
const MAX_SEARCH_LEN: usize = 253;
/// What a pod that asks the cluster's servers has for options.
const CLUSTER_OPTIONS: &str = "ndots:5";
/// The address of systemd-resolved's stub, which is reached on the host only.
const RESOLVED_STUB: [&str; 2] = ["127.0.0.53", "127.0.0.54"];

/// What a `resolv.conf` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolver {
    /// The servers' addresses, as they stand there.
    pub servers: Vec<String>,
    /// The search domains of the last `search` line, without a dot at the end.
    pub searches: Vec<String>,
    /// The options of all `options` lines; of several with one name the last.
    pub options: Vec<String>,
}

impl Resolver {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// A `nameserver` line without an address, with its number.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut found = Self::default();
        for (index, line) in text.lines().enumerate() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => match words.next() {
                    Some(server) => found.servers.push(server.to_owned()),
                    None => return Err(format!("line {}: a nameserver without an address", index + 1)),
                },
                Some("search") => {
                    let domains = words.filter(|domain| *domain != ".");
                    found.searches = domains.map(|d| d.strip_suffix('.').unwrap_or(d).to_owned()).collect();
                }
                Some("options") => words.for_each(|option| set_option(&mut found.options, option.to_owned())),
                // Comments, and what is no business of a pod.
                _ => {}
            }
        }
        Ok(found)
    }

    /// Whether it names nobody but systemd-resolved's stub, which a pod with a network of its own would look
    /// for in vain.
    pub fn is_stub(&self) -> bool {
        !self.servers.is_empty() && self.servers.iter().all(|s| RESOLVED_STUB.contains(&s.as_str()))
    }
}

/// A pod's resolver.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodDns {
    /// What the runtime is to write. Empty: the runtime takes the host's file as it is.
    pub config: DnsConfig,
    /// Whether the policy asks for the cluster's servers and there are none, so that the host's are taken.
    pub falls_back: bool,
    /// What was left out, in words.
    pub notes: Vec<String>,
}

/// A pod's resolver. `host` is the host's, or nothing where `resolvConf` is empty: then the pod gets a server
/// that is not there, as with kubelet, unless it names its own.
pub fn pod_dns(pod: &Pod, node: &NodeSettings, host: Option<&Resolver>) -> PodDns {
    let spec = pod.spec();
    let (mut falls_back, mut notes) = (false, Vec::new());
    let mut resolver = match spec.dns_policy.as_deref() {
        Some("None") => Resolver::default(),
        Some("Default") => of_the_host(node, host),
        Some("ClusterFirst") if pod.host_network() => of_the_host(node, host),
        _ if !node.cluster_dns.is_empty() => of_the_cluster(pod, node, host),
        _ => {
            falls_back = true;
            of_the_host(node, host)
        }
    };
    if let Some(own) = &spec.dns_config {
        resolver.servers.extend(own.nameservers.iter().flatten().cloned());
        resolver.searches.extend(own.searches.iter().flatten().cloned());
        distinct(&mut resolver.servers);
        distinct(&mut resolver.searches);
        for option in own.options.iter().flatten() {
            set_option(&mut resolver.options, option_text(option));
        }
    }
    if resolver.servers.len() > MAX_SERVERS {
        resolver.servers.truncate(MAX_SERVERS);
        notes.push(format!(
            "more than {MAX_SERVERS} name servers, some are left out; these stay: {}",
            resolver.servers.join(" ")
        ));
    }
    if fit_searches(&mut resolver.searches) {
        notes.push(format!(
            "search domains are over the limits, some are left out; these stay: {}",
            resolver.searches.join(" ")
        ));
    }
    let Resolver { servers, searches, options } = resolver;
    PodDns { config: DnsConfig { servers, searches, options }, falls_back, notes }
}

fn of_the_host(node: &NodeSettings, host: Option<&Resolver>) -> Resolver {
    if let Some(host) = host {
        return host.clone();
    }
    // Were it empty, the runtime would take its own file.
    let mut servers: Vec<String> = node
        .host_ips
        .iter()
        .map(|ip| if ip.is_ipv6() { "::1".to_owned() } else { "127.0.0.1".to_owned() })
        .collect();
    if servers.is_empty() {
        servers.push("127.0.0.1".to_owned());
    }
    Resolver { servers, searches: vec![".".to_owned()], options: Vec::new() }
}

fn of_the_cluster(pod: &Pod, node: &NodeSettings, host: Option<&Resolver>) -> Resolver {
    let mut searches = Vec::new();
    if !node.cluster_domain.is_empty() {
        let domain = &node.cluster_domain;
        searches.push(format!("{}.svc.{domain}", pod.full_name().namespace));
        searches.push(format!("svc.{domain}"));
        searches.push(domain.clone());
    }
    searches.extend(host.into_iter().flat_map(|host| host.searches.iter().cloned()));
    distinct(&mut searches);
    Resolver {
        servers: node.cluster_dns.iter().map(IpAddr::to_string).collect(),
        searches,
        options: vec![CLUSTER_OPTIONS.to_owned()],
    }
}

/// Leaves out what is too much; answers whether anything was.
fn fit_searches(searches: &mut Vec<String>) -> bool {
    let before = searches.len();
    searches.truncate(MAX_SEARCHES);
    searches.retain(|domain| domain.len() <= MAX_SEARCH_LEN);
    let mut chars = 0;
    let fitting = searches
        .iter()
        .enumerate()
        .take_while(|(index, domain)| {
            chars += domain.len() + usize::from(*index > 0);
            chars <= MAX_SEARCH_CHARS
        })
        .count();
    searches.truncate(fitting);
    searches.len() < before
}

fn distinct(list: &mut Vec<String>) {
    let mut seen = std::collections::HashSet::new();
    list.retain(|entry| seen.insert(entry.clone()));
}

fn option_text(option: &PodDNSConfigOption) -> String {
    let name = option.name.clone().unwrap_or_default();
    match option.value.as_deref() {
        Some(value) if !value.is_empty() => format!("{name}:{value}"),
        _ => name,
    }
}

/// Puts an option in the place of the one with its name, else at the end.
fn set_option(options: &mut Vec<String>, option: String) {
    fn name(option: &str) -> &str {
        option.split(':').next().unwrap_or(option)
    }
    match options.iter_mut().find(|known| name(known) == name(&option)) {
        Some(known) => *known = option,
        None => options.push(option),
    }
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
