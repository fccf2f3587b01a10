//! Where images come from: mirrors, registries without TLS or with certificates of their own, as `hosts.toml` files.
//!
//! For Docker a mirror is one of Docker's hub, and how any host is spoken to is said once; in a `hosts.toml` each
//! host of a registry has its own.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use super::{Carried, NewFile, options};
use crate::switch::{
    containerd::{READS_HOSTS, Registry, Release, Tls, authority, hosts_toml},
    facts::Facts,
    request::Request,
};

const HUB: &str = "docker.io";
/// Where Docker has the certificates of registries.
const CERTIFICATES: &str = "/etc/docker/certs.d";

pub(super) fn carry(
    facts: &Facts,
    request: &Request,
    release: Release,
    of_config: &[Registry],
    folder: &Path,
    carried: &mut Carried,
) {
    let mut registries: Vec<Registry> = Vec::new();
    for (host, url) in &request.registry_mirrors {
        add(&mut registries, host, [url.clone()]);
    }
    let (mirrors, others): (Vec<String>, Vec<String>) =
        options::list(facts, "registry-mirror", "registry-mirrors")
            .into_iter()
            .partition(|url| is_mirror(url));
    add(&mut registries, HUB, mirrors);
    for url in others {
        carried
            .warnings
            .push(format!("Docker's mirror {url} is none that containerd can use: it is not carried over"));
    }
    let mut tls: BTreeMap<String, Tls> = BTreeMap::new();
    for registry in of_config {
        add(&mut registries, &registry.host, registry.endpoints.iter().cloned());
        if let Some(said) = registry.tls.clone().filter(|said| *said != Tls::default()) {
            tls.insert(registry.host.clone(), said);
        }
    }
    certificates(facts, &mut tls, carried);
    insecure(facts, &registries, &mut tls, carried);
    for host in tls.keys() {
        add(&mut registries, host, []);
    }
    // One that has no mirrors of its own had those of all.
    let of_all = registries.iter().find(|registry| registry.host == "*").cloned().unwrap_or_default();
    registries.retain(|registry| !registry.endpoints.is_empty() || tls.contains_key(&registry.host));
    for registry in &mut registries {
        if registry.endpoints.is_empty() {
            registry.endpoints.clone_from(&of_all.endpoints);
        }
    }
    logins(facts, carried);
    if release < READS_HOSTS && !registries.is_empty() {
        let names: Vec<&str> = registries.iter().map(|registry| registry.host.as_str()).collect();
        carried.warnings.push(format!(
            "mirrors, certificates and insecure registries are not carried over: containerd {}.{} reads no hosts.toml files, \
             1.5 does (bring it there first, or say them below `registry` in its configuration): {}",
            release.major,
            release.minor,
            names.join(", ")
        ));
        return;
    }
    carried.needs_registry_config_path = !registries.is_empty();
    for registry in &registries {
        write(facts, registry, &tls, folder, carried);
    }
}

/// A URL of a host, and perhaps a path there.
fn is_mirror(url: &str) -> bool {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && !rest.contains(['?', '#']))
}

fn add(registries: &mut Vec<Registry>, host: &str, urls: impl IntoIterator<Item = String>) {
    let at = registries.iter().position(|registry| registry.host == host).unwrap_or_else(|| {
        registries.push(Registry { host: host.to_owned(), ..Registry::default() });
        registries.len() - 1
    });
    let Some(registry) = registries.get_mut(at) else { return };
    for url in urls {
        let url = url.trim_end_matches('/').to_owned();
        if !url.is_empty() && !registry.endpoints.contains(&url) {
            registry.endpoints.push(url);
        }
    }
}

fn write(
    facts: &Facts,
    registry: &Registry,
    tls: &BTreeMap<String, Tls>,
    folder: &Path,
    carried: &mut Carried,
) {
    let host = registry.folder();
    if host.contains('/') || host.starts_with('.') {
        carried.warnings.push(format!("{host:?} is no registry's host: nothing is written for it"));
        return;
    }
    // containerd looks for the port in this form first.
    let path = |name: &str| folder.join(name).join("hosts.toml");
    let other = host.rsplit_once(':').map(|(host, port)| path(&format!("{host}_{port}_")));
    let path = other.filter(|path| facts.text(path).is_some()).unwrap_or_else(|| path(host));
    let old = facts.text(&path);
    let Some(text) = hosts_toml(registry, old, |host| tls.get(host).cloned()) else {
        carried.warnings.push(format!(
            "{} is not valid TOML and stays as it is: {} has to be said there by hand",
            path.display(),
            registry.endpoints.join(", ")
        ));
        return;
    };
    if old != Some(text.as_str()) {
        carried.files.insert(path, NewFile { text, mode: 0o644 });
    }
}

/// Docker's `certs.d`: `*.crt` is trusted, `*.cert` is shown, with the key of the same name.
fn certificates(facts: &Facts, tls: &mut BTreeMap<String, Tls>, carried: &mut Carried) {
    let Some(docker) = &facts.docker else { return };
    for (host, names) in &docker.certificates {
        let path = |name: &str| format!("{CERTIFICATES}/{host}/{name}");
        let mut found = Tls::default();
        for name in names {
            if name.ends_with(".crt") {
                found.ca.push(path(name));
            } else if let Some(stem) = name.strip_suffix(".cert") {
                let key = format!("{stem}.key");
                if names.contains(&key) {
                    found.client.push((path(name), path(&key)));
                } else {
                    carried
                        .warnings
                        .push(format!("{} has no {key} beside it: it is not carried over", path(name)));
                }
            }
        }
        if found == Tls::default() {
            continue;
        }
        carried.notes.push(format!(
            "certificates for {host} stay in {CERTIFICATES}/{host}, where containerd is told to find them"
        ));
        let said = tls.entry(host.clone()).or_default();
        said.ca.extend(found.ca.into_iter().filter(|ca| !said.ca.contains(ca)).collect::<Vec<_>>());
        said.client
            .extend(found.client.into_iter().filter(|pair| !said.client.contains(pair)).collect::<Vec<_>>());
    }
}

/// Docker's insecure registries: hosts by name, and ranges of addresses, for which there is no word in a
/// `hosts.toml`; of these, hosts that are known here.
fn insecure(facts: &Facts, registries: &[Registry], tls: &mut BTreeMap<String, Tls>, carried: &mut Carried) {
    // By address, of mirrors and of images that are here.
    let mut known: Vec<String> = registries
        .iter()
        .flat_map(|registry| &registry.endpoints)
        .map(|url| authority(url).to_owned())
        .collect();
    known.extend(registries.iter().map(|registry| registry.host.clone()));
    let images = facts.docker.iter().flat_map(|docker| &docker.images);
    known.extend(
        images.flat_map(|image| &image.tags).filter_map(|tag| Some(tag.split_once('/')?.0.to_owned())),
    );
    known.sort_unstable();
    known.dedup();
    for entry in options::list(facts, "insecure-registry", "insecure-registries") {
        let entry = entry.trim_start_matches("http://").trim_start_matches("https://").trim_end_matches('/');
        let Some(range) = Range::parse(entry) else {
            if entry.is_empty() || entry.contains('/') {
                carried.warnings.push(format!(
                    "insecure registry {entry:?} is no host and no range of addresses: it is not carried over"
                ));
            } else {
                trust(tls, entry);
            }
            continue;
        };
        // Docker trusts these always, and says so.
        if range.address.is_loopback() {
            continue;
        }
        let inside: Vec<&String> = known.iter().filter(|host| range.has(host)).collect();
        inside.iter().for_each(|host| trust(tls, host));
        let told = match inside.as_slice() {
            [] => "none of them is known here by its address".to_owned(),
            some => format!(
                "of those known here, {} got one",
                some.iter().map(|host| host.as_str()).collect::<Vec<_>>().join(", ")
            ),
        };
        carried.warnings.push(format!(
            "insecure registries {entry}: containerd knows no ranges of addresses, each host needs a hosts.toml of its own \
             with `skip_verify = true`; {told}"
        ));
    }
}

fn trust(tls: &mut BTreeMap<String, Tls>, host: &str) {
    let said = tls.entry(host.to_owned()).or_default();
    (said.skip_verify, said.plain_http) = (true, true);
}

/// A range of addresses, `10.0.0.0/8`.
struct Range {
    address: IpAddr,
    bits: u32,
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        let bits = bits.parse().ok()?;
        (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some(Self { address, bits })
    }

    /// Whether `ADDRESS`, `ADDRESS:PORT` or `[ADDRESS]:PORT` is in it.
    fn has(&self, host: &str) -> bool {
        let bare = host.parse().ok();
        let bare = bare.or_else(|| host.parse::<std::net::SocketAddr>().ok().map(|address| address.ip()));
        match (self.address, bare) {
            (IpAddr::V4(range), Some(IpAddr::V4(address))) => {
                let bits = |address: std::net::Ipv4Addr| u128::from(u32::from(address)) << 96;
                self.same(bits(range), bits(address))
            }
            (IpAddr::V6(range), Some(IpAddr::V6(address))) => self.same(range.into(), address.into()),
            _ => false,
        }
    }

    fn same(&self, one: u128, other: u128) -> bool {
        self.bits == 0 || (one ^ other) >> (128 - self.bits) == 0
    }
}

fn logins(facts: &Facts, carried: &mut Carried) {
    for (path, hosts) in facts.docker.iter().flat_map(|docker| &docker.logins) {
        if hosts.is_empty() {
            continue;
        }
        carried.notes.push(format!(
            "logins to {} stay in {}: the kubelet reads /var/lib/kubelet/config.json and /root/.docker/config.json for pods' \
             images whatever the runtime is; containerd reads neither, so that a pause image behind a login has to be here already",
            hosts.join(", "),
            path.display()
        ));
    }
}
