//! Registries: what older configurations say in place, and the `hosts.toml` files that say it today.

use toml_edit::{Array, DocumentMut, Item, Table, Value};

use crate::switch::toml::{get, names, remove};

/// How a registry is spoken to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tls {
    /// A file with certificates to trust.
    pub ca: Option<String>,
    /// Files of a certificate to show, and its key.
    pub client: Option<(String, String)>,
    /// Whether any certificate is taken.
    pub skip_verify: bool,
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

    /// Its `hosts.toml`.
    pub fn hosts_toml(&self) -> String {
        let mut root = DocumentMut::new();
        // Without a mirror the registry itself is asked, and what is said of it stands below its own URL.
        let own = match self.host.as_str() {
            "*" => None,
            "docker.io" => Some("https://registry-1.docker.io".to_owned()),
            host => Some(format!("https://{host}")),
        };
        if let Some(own) = &own {
            root.insert("server", toml_edit::value(own.as_str()));
        }
        let mut hosts = Table::new();
        hosts.set_implicit(true);
        let mut urls: Vec<&str> = self.endpoints.iter().map(String::as_str).collect();
        if let Some(own) = own.as_deref().filter(|own| self.tls.is_some() && !urls.contains(own)) {
            urls.push(own);
        }
        for url in urls {
            let mut host = Table::new();
            host.insert("capabilities", toml_edit::value(Array::from_iter(["pull", "resolve"])));
            // What is said of a registry is said of it alone, not of its mirrors.
            if let Some(tls) = self.tls.as_ref().filter(|_| authority(url) == self.host || self.host == "*") {
                if let Some(ca) = &tls.ca {
                    host.insert("ca", toml_edit::value(ca.as_str()));
                }
                if let Some((certificate, key)) = &tls.client {
                    let pair = Array::from_iter([certificate.as_str(), key.as_str()]);
                    host.insert("client", toml_edit::value(Array::from_iter([Value::Array(pair)])));
                }
                if tls.skip_verify {
                    host.insert("skip_verify", toml_edit::value(true));
                }
            }
            hosts.insert(url, Item::Table(host));
        }
        root.insert("host", Item::Table(hosts));
        root.to_string()
    }
}

/// `HOST` or `HOST:PORT` of a URL.
fn authority(url: &str) -> &str {
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
            ca: text("ca_file"),
            client: text("cert_file").zip(text("key_file")),
            skip_verify: table.get("insecure_skip_verify").and_then(Item::as_bool).unwrap_or(false),
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
