//! What stands in a pod's `/etc/hosts`. The lines are kubelet's (pkg/kubelet/kubelet_pods.go), so that what
//! looks for them there finds them; the runtime knows nothing of the file, it only mounts it.

use std::{fmt::Write as _, net::IpAddr};

use k8s_openapi::api::core::v1::HostAlias;

use super::container_config::PodHostname;

const HEADER: &str = "# Kubernetes-managed hosts file.\n";
const HEADER_HOST_NETWORK: &str = "# Kubernetes-managed hosts file (host network).\n";
const ALIASES_HEADER: &str = "\n# Entries added by HostAliases.\n";
/// Names that every machine knows, by address.
const USUAL: [(&str, &str); 6] = [
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::0", "ip6-localnet"),
    ("fe00::0", "ip6-mcastprefix"),
    ("fe00::1", "ip6-allnodes"),
    ("fe00::2", "ip6-allrouters"),
];

/// The file of a pod with a network of its own.
pub fn managed_hosts(ips: &[IpAddr], host: &PodHostname, aliases: &[HostAlias]) -> String {
    let mut text = HEADER.to_owned();
    for (address, names) in USUAL {
        line(&mut text, address, names);
    }
    let names = match host.domain.as_str() {
        "" => host.name.clone(),
        domain => format!("{name}.{domain}\t{name}", name = host.name),
    };
    for ip in ips {
        line(&mut text, &ip.to_string(), &names);
    }
    add_aliases(&mut text, aliases);
    text
}

/// The file of a pod on the host's network: the host's own, and the pod's aliases.
pub fn host_network_hosts(of_the_host: &[u8], aliases: &[HostAlias]) -> Vec<u8> {
    let mut text = String::new();
    add_aliases(&mut text, aliases);
    [HEADER_HOST_NETWORK.as_bytes(), of_the_host, text.as_bytes()].concat()
}

fn add_aliases(text: &mut String, aliases: &[HostAlias]) {
    if aliases.is_empty() {
        return;
    }
    text.push_str(ALIASES_HEADER);
    for alias in aliases {
        line(text, &alias.ip, &alias.hostnames.as_deref().unwrap_or_default().join("\t"));
    }
}

fn line(text: &mut String, address: &str, names: &str) {
    // Writing to a text cannot fail.
    writeln!(text, "{address}\t{names}").ok();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn host(name: &str, domain: &str) -> PodHostname {
        PodHostname { name: name.into(), domain: domain.into(), kernel: name.into() }
    }

    fn alias(ip: &str, names: &[&str]) -> HostAlias {
        HostAlias { ip: ip.into(), hostnames: Some(names.iter().map(|name| (*name).to_owned()).collect()) }
    }

    #[test]
    fn a_pods_own_file() {
        let ips = ["10.0.0.2", "fd00::2"].map(|ip| ip.parse().unwrap());
        let aliases = [alias("192.0.2.1", &["db", "db.example"]), alias("192.0.2.2", &["cache"])];
        assert_eq!(
            managed_hosts(&ips, &host("p", "sub.ns.svc.cluster.local"), &aliases),
            "# Kubernetes-managed hosts file.\n\
             127.0.0.1\tlocalhost\n\
             ::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\n\
             fe00::0\tip6-mcastprefix\n\
             fe00::1\tip6-allnodes\n\
             fe00::2\tip6-allrouters\n\
             10.0.0.2\tp.sub.ns.svc.cluster.local\tp\n\
             fd00::2\tp.sub.ns.svc.cluster.local\tp\n\
             \n# Entries added by HostAliases.\n\
             192.0.2.1\tdb\tdb.example\n\
             192.0.2.2\tcache\n"
        );
        assert!(managed_hosts(&ips[..1], &host("p", ""), &[]).ends_with("\n10.0.0.2\tp\n"));
    }

    #[test]
    fn the_hosts_file_with_aliases() {
        let file = host_network_hosts(b"127.0.0.1 h\xff\n", &[alias("192.0.2.1", &["db"])]);
        let expected = b"# Kubernetes-managed hosts file (host network).\n127.0.0.1 h\xff\n\
            \n# Entries added by HostAliases.\n192.0.2.1\tdb\n";
        assert_eq!(file, expected);
        let plain = host_network_hosts(b"x", &[]);
        assert_eq!(plain, b"# Kubernetes-managed hosts file (host network).\nx");
    }

    /// Names by address, as a resolver reads them from the file.
    fn read(text: &str) -> Vec<(String, Vec<String>)> {
        text.lines()
            .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
            .map(|line| {
                let mut words = line.split_whitespace().map(str::to_owned);
                (words.next().unwrap(), words.collect())
            })
            .collect()
    }

    proptest! {
        /// Whatever names and addresses: all of them are read back, in order, and nothing else.
        #[test]
        fn what_is_written_is_read_back(
            ips in prop::collection::vec(any::<IpAddr>(), 0..3),
            name in "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?",
            domain in "([a-z0-9]{1,9}(\\.[a-z0-9]{1,9}){0,3})?",
            aliases in prop::collection::vec(
                (any::<IpAddr>(), prop::collection::vec("[a-z0-9]{1,9}(\\.[a-z]{1,9})?", 0..4)), 0..4),
        ) {
            let given: Vec<_> = aliases
                .iter()
                .map(|(ip, names)| HostAlias { ip: ip.to_string(), hostnames: Some(names.clone()) })
                .collect();
            let found = read(&managed_hosts(&ips, &host(&name, &domain), &given));
            prop_assert_eq!(found.len(), USUAL.len() + ips.len() + aliases.len());
            let own = if domain.is_empty() { vec![name] } else { vec![format!("{name}.{domain}"), name] };
            let mut rest = found[USUAL.len()..].iter();
            for ip in &ips {
                prop_assert_eq!(rest.next(), Some(&(ip.to_string(), own.clone())));
            }
            for (ip, names) in &aliases {
                prop_assert_eq!(rest.next(), Some(&(ip.to_string(), names.clone())));
            }
        }
    }
}
