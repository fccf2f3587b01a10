//! Registries: what older configurations say in place, and the `hosts.toml` files that say it today.

use toml_edit::{Array, DocumentMut, Item, Table, Value};

use super::END;
use crate::switch::{
    lines::Lines,
    toml::{get, names, remove},
};

/// How a registry is spoken to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// Files with certificates to trust.
    pub ca: Vec<String>,
    /// Files of certificates to show, and their keys.
    pub client: Vec<(String, String)>,
    /// Whether any certificate is taken.
    pub skip_verify: bool,
    /// Whether it is asked without TLS where it does not answer with it.
    pub plain_http: bool,
}

/// A registry and where its images are had from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Registry {
    /// `HOST` or `HOST:PORT`; `*` stands for all that have no entry of their own.
    pub host: String,
    /// URLs of mirrors, the first one first.
    pub endpoints: Vec<String>,
    /// How it is spoken to, if that is said.
    pub tls: Option<Tls>,
}

impl Registry {
    /// The name of its folder below the configured one.
    pub fn folder(&self) -> &str {
        if self.host == "*" { "_default" } else { &self.host }
    }

    /// The registry's own URL; none of the one that stands for all.
    fn own(&self) -> Option<String> {
        match self.host.as_str() {
            "*" => None,
            "docker.io" => Some("https://registry-1.docker.io".to_owned()),
            host => Some(format!("https://{host}")),
        }
    }

    /// Its `hosts.toml`, by what this alone says.
    pub fn hosts_toml(&self) -> String {
        let tls = |host: &str| self.tls.clone().filter(|_| host == self.host || self.host == "*");
        hosts_toml(self, None, tls).unwrap_or_default()
    }
}

/// A registry's `hosts.toml`: what is there (`old`), with what is missing put behind it; `None` if that cannot be
/// read as TOML. `tls` says how a host is spoken to, by `HOST` or `HOST:PORT`. Without a mirror the registry itself
/// is asked, and what is said of it stands below its own URL. Hosts that are there already stay as they are.
pub fn hosts_toml(
    registry: &Registry,
    old: Option<&str>,
    tls: impl Fn(&str) -> Option<Tls>,
) -> Option<String> {
    let lines = Lines::new(old.unwrap_or_default());
    let mut root: DocumentMut = format!("{}{END}", lines.plain()).parse().ok()?;
    let own = registry.own();
    if let Some(own) = own.as_deref().filter(|_| old.is_none()) {
        root.insert("server", toml_edit::value(own));
    }
    // Behind what stands at the end.
    let end = root.iter().filter_map(|(_, item)| item.as_table()?.position()).max().unwrap_or_default();
    let mut urls: Vec<String> = registry.endpoints.clone();
    // The one that Docker's hub is called by, and the one that it has.
    let of_own = tls(&registry.host).or_else(|| tls(authority(own.as_deref().unwrap_or_default())));
    if let (Some(own), Some(said)) = (&own, &of_own) {
        if !urls.contains(own) {
            urls.push(own.clone());
        }
        if said.plain_http {
            urls.push(own.replacen("https://", "http://", 1));
        }
    }
    for url in urls {
        let url = url.trim_end_matches('/');
        let there = names(root.as_item(), &["host"]).iter().any(|host| host.trim_end_matches('/') == url);
        if there {
            continue;
        }
        let hosts = root.entry("host").or_insert_with(|| {
            let mut hosts = Table::new();
            hosts.set_implicit(true);
            Item::Table(hosts)
        });
        let mut host = Table::new();
        host.decor_mut().set_prefix("\n");
        host.set_position(end + 1);
        host.insert("capabilities", toml_edit::value(Array::from_iter(["pull", "resolve"])));
        let said = if Some(url) == own.as_deref() { of_own.clone() } else { tls(authority(url)) };
        if let Some(tls) = said.filter(|_| url.starts_with("https://")) {
            tls.write(&mut host);
        }
        hosts.as_table_like_mut()?.insert(url, Item::Table(host));
    }
    let text = root.to_string().replacen(END, "", 1);
    Some(match old {
        Some(_) => lines.restore(&text),
        None => text.trim_start().to_owned(),
    })
}

impl Tls {
    fn write(&self, host: &mut Table) {
        match self.ca.as_slice() {
            [] => {}
            [one] => {
                host.insert("ca", toml_edit::value(one.as_str()));
            }
            several => {
                host.insert("ca", toml_edit::value(several.iter().collect::<Array>()));
            }
        }
        if !self.client.is_empty() {
            let pairs = self.client.iter().map(|(certificate, key)| {
                Value::Array(Array::from_iter([certificate.as_str(), key.as_str()]))
            });
            host.insert("client", toml_edit::value(pairs.collect::<Array>()));
        }
        if self.skip_verify {
            host.insert("skip_verify", toml_edit::value(true));
        }
    }
}

/// `HOST` or `HOST:PORT` of a URL.
pub(crate) fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

/// Takes mirrors and TLS settings out of a `registry` section, and answers whether there were any.
pub(super) fn take(root: &mut Item, section: &[&str], taken: &mut Vec<Registry>) -> bool {
    let mut found = false;
    let mirrors = [section, &["mirrors"]].concat();
    for host in names(root, &mirrors) {
        let endpoints = get(root, &[mirrors.as_slice(), &[host.as_str(), "endpoint"]].concat());
        let endpoints = endpoints.and_then(Item::as_array).into_iter().flatten();
        let endpoints: Vec<String> = endpoints.filter_map(Value::as_str).map(str::to_owned).collect();
        entry(taken, &host, |registry| registry.endpoints = endpoints);
        found = true;
    }
    if found {
        remove(root, &mirrors);
    }
    let configs = [section, &["configs"]].concat();
    for host in names(root, &configs) {
        let tls = [configs.as_slice(), &[host.as_str(), "tls"]].concat();
        let Some(table) = get(root, &tls) else { continue };
        let text = |name: &str| {
            table.get(name).and_then(Item::as_str).filter(|text| !text.is_empty()).map(str::to_owned)
        };
        let said = Tls {
            ca: text("ca_file").into_iter().collect(),
            client: text("cert_file").zip(text("key_file")).into_iter().collect(),
            skip_verify: table.get("insecure_skip_verify").and_then(Item::as_bool).unwrap_or(false),
            plain_http: false,
        };
        entry(taken, &host, |registry| registry.tls = Some(said));
        remove(root, &tls);
        found = true;
    }
    found
}

/// Says something of a registry, which may have been named before.
fn entry(taken: &mut Vec<Registry>, host: &str, say: impl FnOnce(&mut Registry)) {
    match taken.iter_mut().find(|registry| registry.host == host) {
        Some(registry) => say(registry),
        None => {
            let mut registry = Registry { host: host.to_owned(), ..Registry::default() };
            say(&mut registry);
            taken.push(registry);
        }
    }
}
