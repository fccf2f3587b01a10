//! Who one is to a registry: from a flag, a variable, an authentication file, or typed.
//!
//! Secrets are held in a type that never shows them, and given to the runtime alone.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::{BufRead as _, IsTerminal as _, Read as _},
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::Args;
use serde::Deserialize;

use super::{act::aside, password};
use crate::{
    api::{cri::AuthConfig, image_name::repository},
    cli::output::printable,
    error::CommandError,
};

/// Bytes of an authentication file.
const MAX_FILE: u64 = 1 << 20;
/// Bytes of a password that comes through a pipe.
const MAX_PASSWORD: u64 = 64 << 10;

/// A text that is not shown.
#[derive(Clone)]
pub(super) struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hidden")
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    /// Takes everything: an error here would show the text.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

/// How to log in to the registry; without any, one is nobody there.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct CredentialArgs {
    /// User and password for the registry. Whoever may list processes sees a flag: the variable is better
    #[arg(long, value_name = "USERNAME[:PASSWORD]", env = "CRICTL_CREDS", hide_env_values = true)]
    creds: Option<Secret>,
    /// The same in base64
    #[arg(long, value_name = "BASE64", env = "CRICTL_AUTH", hide_env_values = true)]
    auth: Option<Secret>,
    /// User for the registry. The password is asked for, or read from standard input if that is no terminal
    #[arg(short, long, value_name = "USERNAME")]
    username: Option<String>,
    /// A file of Docker's or Podman's that has the registry's credentials, such as ~/.docker/config.json
    #[arg(long, value_name = "PATH", env = "REGISTRY_AUTH_FILE", hide_env_values = true)]
    auth_file: Option<PathBuf>,
}

impl CredentialArgs {
    /// Whether somebody is asked, whatever the image.
    pub(super) fn asks(&self) -> bool {
        self.username.as_ref().is_some_and(|name| !name.is_empty())
    }

    /// The credentials for the registry of `image`; what is asked for is asked for here.
    pub(super) async fn of(&self, image: &str) -> Result<Option<AuthConfig>, CommandError> {
        let given = |secret: &Option<Secret>| secret.clone().filter(|secret| !secret.0.is_empty());
        if let Some(username) = self.username.clone().filter(|name| !name.is_empty()) {
            let password = if std::io::stdin().is_terminal() {
                password::ask(&format!("Password of {}: ", printable(&username))).await?
            } else {
                aside(first_line).await?
            };
            return Ok(Some(AuthConfig { username, password, ..AuthConfig::default() }));
        }
        match (given(&self.creds), given(&self.auth), &self.auth_file) {
            (Some(_), Some(_), _) => Err(CommandError::usage(
                "both --creds and --auth are given (or CRICTL_CREDS and CRICTL_AUTH)",
            )),
            (Some(Secret(creds)), None, _) => {
                let (username, password) = creds.split_once(':').unwrap_or((&creds, ""));
                if username.is_empty() {
                    return Err(CommandError::usage("--creds has no user name before the colon"));
                }
                Ok(Some(AuthConfig {
                    username: username.to_owned(),
                    password: password.to_owned(),
                    ..AuthConfig::default()
                }))
            }
            (None, Some(Secret(auth)), _) => Ok(Some(AuthConfig { auth, ..AuthConfig::default() })),
            (None, None, Some(path)) => {
                let (path, image) = (path.clone(), image.to_owned());
                aside(move || from_file(&path, &image)).await
            }
            (None, None, None) => Ok(None),
        }
    }
}

fn first_line() -> Result<String, CommandError> {
    let mut line = String::new();
    let input = std::io::stdin().lock().take(MAX_PASSWORD);
    std::io::BufReader::new(input).read_line(&mut line).map_err(|error| {
        CommandError::failed(format!("cannot read the password from standard input: {error}"))
    })?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(CommandError::failed("standard input has no password"));
    }
    Ok(password.to_owned())
}

/// `~/.docker/config.json`, and what Podman writes.
#[derive(Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credsStore")]
    creds_store: Option<String>,
    #[serde(default, rename = "credHelpers")]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl Entry {
    fn is_empty(&self) -> bool {
        [&self.auth, &self.username, &self.identitytoken, &self.registrytoken]
            .iter()
            .all(|text| text.is_empty())
    }
}

fn from_file(path: &Path, image: &str) -> Result<Option<AuthConfig>, CommandError> {
    let at = || printable(&path.display().to_string());
    let mut text = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut text))
        .map_err(|error| CommandError::usage(format!("cannot read {}: {error}", at())))?;
    if text.len() as u64 > MAX_FILE {
        return Err(CommandError::usage(format!("{} is larger than 1 MiB", at())));
    }
    // The parser's own words may quote what stands there.
    let file: AuthFile = serde_json::from_slice(&text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        CommandError::usage(format!("{} is no authentication file: line {line}, column {column}", at()))
    })?;
    let repository = repository(image);
    let host = repository.split('/').next().unwrap_or_default().to_owned();
    // The entry that says most of the repository's name.
    let fitting = file.auths.into_iter().map(|(key, entry)| (normal(&key), entry)).filter(|(key, entry)| {
        !entry.is_empty()
            && repository
                .strip_prefix(key.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    if let Some((_, entry)) = fitting.max_by_key(|(key, _)| key.len()) {
        return Ok(Some(AuthConfig {
            username: entry.username,
            password: entry.password,
            auth: entry.auth,
            identity_token: entry.identitytoken,
            registry_token: entry.registrytoken,
            ..AuthConfig::default()
        }));
    }
    let helper = file.cred_helpers.into_iter().find(|(key, _)| normal(key) == host).map(|(_, helper)| helper);
    match helper.or(file.creds_store) {
        Some(helper) => Err(CommandError::failed(format!(
            "{} leaves the credentials of {host} to the helper {}, which is not run here",
            at(),
            printable(&helper)
        ))
        .hint("give them with --username, or in the variable CRICTL_CREDS")),
        None => Ok(None),
    }
}

/// A registry as a key of the file names it: without scheme, version and slash.
fn normal(key: &str) -> String {
    let key = key.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    match key {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        key => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Option<Secret> {
        Some(text.parse().unwrap())
    }

    async fn of(args: CredentialArgs) -> Result<Option<AuthConfig>, String> {
        args.of("x/y:1").await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn flags() {
        let none = CredentialArgs::default;
        assert_eq!(of(none()).await, Ok(None));
        let auth = of(CredentialArgs { creds: secret("bob:pass:word"), ..none() }).await.unwrap().unwrap();
        assert_eq!((auth.username.as_str(), auth.password.as_str()), ("bob", "pass:word"));
        let auth = of(CredentialArgs { creds: secret("bob"), ..none() }).await.unwrap().unwrap();
        assert_eq!((auth.username.as_str(), auth.password.as_str()), ("bob", ""));
        let auth = of(CredentialArgs { auth: secret("Ym9iOng="), ..none() }).await.unwrap().unwrap();
        assert_eq!(auth.auth, "Ym9iOng=");
        for args in [
            CredentialArgs { creds: secret("s3cret:a"), auth: secret("s3cret"), ..none() },
            CredentialArgs { creds: secret(":s3cret"), ..none() },
        ] {
            assert!(!format!("{args:?}").contains("s3cret"));
            assert!(!of(args).await.unwrap_err().contains("s3cret"));
        }
    }

    #[test]
    fn keys_of_a_file() {
        for (key, name) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("quay.io", "quay.io"),
            ("https://r:5000/", "r:5000"),
            ("quay.io/org", "quay.io/org"),
        ] {
            assert_eq!(normal(key), name, "{key}");
        }
    }

    #[test]
    fn files() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let read = |text: &str, image: &str| {
            fs::write(file.path(), text).unwrap();
            from_file(file.path(), image).map_err(|error| error.to_string())
        };
        let text = r#"{"auths": {
            "https://index.docker.io/v1/": {"auth": "ZG9ja2Vy"},
            "quay.io": {"username": "u", "password": "p"},
            "quay.io/org": {"identitytoken": "t"},
            "empty.io": {}
        }, "credHelpers": {"gcr.io": "gcloud"}}"#;
        assert_eq!(read(text, "busybox").unwrap().unwrap().auth, "ZG9ja2Vy");
        assert_eq!(read(text, "quay.io/other/x").unwrap().unwrap().username, "u");
        assert_eq!(read(text, "quay.io/organ/x").unwrap().unwrap().username, "u");
        assert_eq!(read(text, "quay.io/org/x:1").unwrap().unwrap().identity_token, "t");
        assert_eq!(read(text, "ghcr.io/x"), Ok(None));
        assert_eq!(read(text, "empty.io/x"), Ok(None));
        assert!(read(text, "gcr.io/x").unwrap_err().contains("to the helper gcloud"));
        let error = read("{\"auths\": {\"x\": \"s3cret\"}}", "x").unwrap_err();
        assert!(error.contains("line 1") && !error.contains("s3cret"), "{error}");
        assert!(from_file(Path::new("/nonexistent"), "x").unwrap_err().to_string().contains("cannot read"));
    }
}
