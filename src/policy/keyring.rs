//! Who a pod is to the registries of its images: the Secrets of `imagePullSecrets`, matched to an image's name as
//! kubelet does (pkg/credentialprovider).
//!
//! Nothing here shows a user or a password.

use std::{collections::BTreeMap, fmt};

use base64::{Engine as _, alphabet::STANDARD, engine::GeneralPurpose, engine::GeneralPurposeConfig};
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;

use super::given::{Given, Lookup, ObjectData, pull_references};
use crate::api::{cri::AuthConfig, image_name::registry_entry};

/// Takes texts with padding and without, as kubelet does.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);
/// The key of a Secret of type `kubernetes.io/dockerconfigjson`.
const CONFIG_JSON: (&str, &str) = ("kubernetes.io/dockerconfigjson", ".dockerconfigjson");
/// The key of a Secret of type `kubernetes.io/dockercfg`.
const CONFIG: (&str, &str) = ("kubernetes.io/dockercfg", ".dockercfg");
/// Where Docker's own registry stands in such files.
const DOCKER: &str = "index.docker.io";
/// A password shorter than this is not looked for in messages: what it would take away is the message.
const MIN_SCRUBBED: usize = 4;

/// A user and a password.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Credentials {
    username: String,
    password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hidden")
    }
}

impl Credentials {
    /// A user with a password; nobody where both are empty.
    pub fn new(username: String, password: String) -> Option<Self> {
        let somebody = !username.is_empty() || !password.is_empty();
        somebody.then_some(Self { username, password })
    }

    /// As the runtime takes them.
    pub fn auth_config(&self) -> AuthConfig {
        AuthConfig {
            username: self.username.clone(),
            password: self.password.clone(),
            ..AuthConfig::default()
        }
    }

    /// A message of others without the password, should it be there.
    pub fn scrub(&self, message: String) -> String {
        if self.password.len() < MIN_SCRUBBED { message } else { message.replace(&self.password, "(hidden)") }
    }
}

/// Credentials by where they are good for: a registry, or a part of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Keyring(BTreeMap<String, Vec<Credentials>>);

impl Keyring {
    /// Adds credentials for what a file of Docker's names: `registry.example:5000/team`, `https://index.docker.io/v1/`,
    /// `*.example.org`. Of a name that can be no registry's nothing is kept.
    pub fn add(&mut self, location: &str, credentials: Credentials) {
        if let Some(key) = registry_entry(location) {
            let known = self.0.entry(key).or_default();
            if !known.contains(&credentials) {
                known.push(credentials);
            }
        }
    }

    /// The credentials for an image's repository, the ones to try first coming first: those of the longest name that
    /// fits. Each comes once.
    pub fn lookup(&self, repository: &str) -> Vec<Credentials> {
        let mut found: Vec<Credentials> = Vec::new();
        for (_, credentials) in self.0.iter().rev().filter(|(key, _)| fits(key, repository)) {
            for one in credentials {
                if !found.contains(one) {
                    found.push(one.clone());
                }
            }
        }
        if found.is_empty() && repository.starts_with("docker.io/") {
            found.extend(self.0.get(DOCKER).into_iter().flatten().cloned());
        }
        found
    }
}

/// What there is to pull a pod's images with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PullAccess {
    /// What was found.
    pub keyring: Keyring,
    /// What was not, in words.
    pub problems: Vec<String>,
}

/// What the Secrets that a pod names give. One that is missing or wrong is told and keeps nobody from trying.
pub fn pull_access(pod: &Pod, given: &Given) -> PullAccess {
    let mut access = PullAccess::default();
    // In the pod's order, which counts where two are for one registry.
    let named = pod.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten());
    let keys = pull_references(pod);
    for name in named.map(|secret| &secret.name) {
        let Some(key) = keys.iter().find(|key| key.name == *name) else { continue };
        let problem = match given.objects.get(key) {
            Some(Lookup::Found(data)) => match take(&mut access.keyring, data) {
                Ok(()) => continue,
                Err(why) => why,
            },
            Some(Lookup::Missing) => "not found".to_owned(),
            Some(Lookup::Unknown(why)) => why.clone(),
            None => "not known".to_owned(),
        };
        access.problems.push(format!("secret {name:?}: {problem}"));
    }
    access
}

#[derive(Deserialize)]
struct File {
    auths: Option<Entries>,
}

type Entries = BTreeMap<String, Option<Entry>>;

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    username: Option<String>,
    password: Option<String>,
    auth: Option<String>,
}

/// Adds what is in a Secret.
fn take(keyring: &mut Keyring, secret: &ObjectData) -> Result<(), String> {
    let content = |(_, key): (&str, &str)| secret.data.get(key).ok_or_else(|| format!("it has no key {key}"));
    // The parser's own words may quote what stands there.
    let no_file = |error: serde_json::Error| {
        format!("it cannot be read: line {}, column {}", error.line(), error.column())
    };
    let entries = match secret.type_.as_str() {
        of if of == CONFIG_JSON.0 => {
            let file: File = serde_json::from_slice(content(CONFIG_JSON)?).map_err(no_file)?;
            file.auths.unwrap_or_default()
        }
        of if of == CONFIG.0 => serde_json::from_slice(content(CONFIG)?).map_err(no_file)?,
        other => return Err(format!("its type is {other:?}, not {:?}", CONFIG_JSON.0)),
    };
    let mut wrong = Vec::new();
    for (location, entry) in entries {
        match credentials(entry.unwrap_or_default()) {
            Ok(Some(credentials)) => keyring.add(&location, credentials),
            Ok(None) => {}
            // A location may have a user and a password in it, which its registry has not.
            Err(()) => wrong.extend(registry_entry(&location)),
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!("auth of {} is not the base64 of user:password", wrong.join(", ")))
}

/// `auth` comes before the other two.
fn credentials(entry: Entry) -> Result<Option<Credentials>, ()> {
    let Some(auth) = entry.auth.filter(|auth| !auth.is_empty()) else {
        return Ok(Credentials::new(entry.username.unwrap_or_default(), entry.password.unwrap_or_default()));
    };
    let auth: String = auth.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    let plain = BASE64.decode(auth).map_err(|_error| ())?;
    let plain = String::from_utf8(plain).map_err(|_error| ())?;
    let (username, password) = plain.split_once(':').ok_or(())?;
    Ok(Credentials::new(username.to_owned(), password.to_owned()))
}

/// Whether a pattern such as `*.example.org:5000/team` is for a repository: equal ports, as many parts in the host's
/// names with `*` for anything within a part, and a path that begins like the pattern's.
pub fn fits(pattern: &str, repository: &str) -> bool {
    let (pattern, repository) = (split(pattern), split(repository));
    let (wanted, given): (Vec<_>, Vec<_>) =
        (pattern.host.split('.').collect(), repository.host.split('.').collect());
    pattern.port == repository.port
        && wanted.len() == given.len()
        && repository.path.starts_with(pattern.path)
        && wanted.iter().zip(given).all(|(wanted, given)| part_fits(wanted, given))
}

struct Name<'a> {
    host: &'a str,
    port: &'a str,
    path: &'a str,
}

fn split(name: &str) -> Name<'_> {
    let (host, path) = name.find('/').map_or((name, ""), |at| name.split_at(at));
    let (host, port) = match host.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (host, ""),
    };
    Name { host, port, path }
}

/// `*` stands for any letters.
fn part_fits(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut pieces: Vec<_> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
#[path = "keyring_tests.rs"]
mod tests;
