//! A kubeconfig, as far as a node needs one: the current context's server, how it is trusted, and who we are.
//!
//! The keys are those of client-go (`tools/clientcmd/api/v1`). What cannot be honoured, such as a credential
//! plugin, is an error that names it: to go on without would end in a refusal that nobody understands.

use std::path::{Path, PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use crate::{api::yaml, files};

const LIMITS: yaml::Limits = yaml::Limits { bytes: 1 << 20, nodes: 100_000, expanded_bytes: 4 << 20 };

/// Why a kubeconfig cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kubeconfig {}: {problem}", path.display())]
pub struct KubeconfigError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong; nothing secret.
    pub problem: String,
}

/// Who we are to the server.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Credentials {
    /// Our certificate with those between it and its authority, and its key, as PEM.
    pub(super) certificate: Option<(Vec<u8>, Vec<u8>)>,
    /// A bearer token.
    pub(super) token: Option<Token>,
}

/// A bearer token.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// This one.
    Text(String),
    /// What the file holds whenever it is needed: it is replaced from time to time.
    File(PathBuf),
}

/// The current context of a kubeconfig.
#[derive(Clone, PartialEq, Eq)]
pub struct Kubeconfig {
    /// The file that it was read from.
    pub(super) path: PathBuf,
    /// The server's URL, without a slash at its end.
    pub(super) server: String,
    /// Certificates of the authorities that the server's may be from, as PEM; `None` for the system's.
    pub(super) authority: Option<Vec<u8>>,
    /// The file that they stand in, if it is another one.
    pub(super) authority_file: Option<PathBuf>,
    /// Whether any certificate will do.
    pub(super) insecure: bool,
    /// The name that the server's certificate is to be for, if not its host's.
    pub(super) server_name: Option<String>,
    /// Who we are.
    pub(super) credentials: Credentials,
    /// The file that the certificate stands in, if it is another one.
    pub(super) certificate_file: Option<PathBuf>,
}

impl std::fmt::Debug for Kubeconfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The rest is secret.
        f.debug_struct("Kubeconfig")
            .field("path", &self.path)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    current_context: String,
    contexts: Vec<Named<Context>>,
    clusters: Vec<Named<Cluster>>,
    users: Vec<Named<User>>,
}

#[derive(Deserialize)]
struct Named<T> {
    name: String,
    /// Nothing and null are as good as one without any key.
    #[serde(default = "none", alias = "context", alias = "cluster", alias = "user")]
    value: Option<T>,
}

fn none<T>() -> Option<T> {
    None
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority: String,
    certificate_authority_data: String,
    insecure_skip_tls_verify: bool,
    tls_server_name: String,
    proxy_url: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: String,
    client_certificate_data: String,
    client_key: String,
    client_key_data: String,
    token: String,
    #[serde(rename = "tokenFile")]
    token_file: String,
    username: String,
    #[serde(rename = "as")]
    impersonate: String,
    exec: Option<Exec>,
    auth_provider: Option<AuthProvider>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Exec {
    command: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AuthProvider {
    name: String,
}

impl Kubeconfig {
    /// Reads a file with those that it names, whose paths begin at its folder. Blocks on the file system.
    ///
    /// # Errors
    /// When one cannot be read, is no kubeconfig, lacks what its current context names, or asks for what is not
    /// done here: a credential plugin, a proxy, a password, to act as somebody else.
    pub fn read(path: &Path) -> Result<Self, KubeconfigError> {
        Self::from_file(path).map_err(|problem| KubeconfigError { path: path.to_owned(), problem })
    }

    /// The server's URL.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Certificates of the authorities that the server's may be from, as PEM; `None` for the system's.
    #[must_use]
    pub fn authority(&self) -> Option<&[u8]> {
        self.authority.as_deref()
    }

    /// The file with the authorities, if they do not stand in the kubeconfig itself.
    #[must_use]
    pub fn authority_file(&self) -> Option<&Path> {
        self.authority_file.as_deref()
    }

    /// Our certificate with those that vouch for it, and its key, as PEM.
    #[must_use]
    pub fn certificate(&self) -> Option<(&[u8], &[u8])> {
        self.credentials.certificate.as_ref().map(|(chain, key)| (chain.as_slice(), key.as_slice()))
    }

    /// The file with our certificate, if it does not stand in the kubeconfig itself.
    #[must_use]
    pub fn certificate_file(&self) -> Option<&Path> {
        self.certificate_file.as_deref()
    }

    /// The same server, to which we are whom this certificate says and nobody else.
    #[must_use]
    pub fn with_certificate(&self, chain: &[u8], key: &[u8]) -> Self {
        let certificate = Some((chain.to_owned(), key.to_owned()));
        Self { credentials: Credentials { certificate, token: None }, certificate_file: None, ..self.clone() }
    }

    /// Whether certificates and key can be used for a connection.
    ///
    /// # Errors
    /// When they cannot.
    pub fn check(&self) -> Result<(), KubeconfigError> {
        let checked = super::tls::client_config(self).map(drop);
        checked.map_err(|problem| KubeconfigError { path: self.path.clone(), problem })
    }

    /// The text of a kubeconfig for this server, with a certificate and its key from one file: what kubelet writes
    /// after its bootstrap.
    #[must_use]
    pub fn for_node(&self, certificate: &Path) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let path = |path: &Path| quoted(&path.to_string_lossy());
        let authority = match (&self.authority_file, &self.authority) {
            (Some(file), _) => format!("    certificate-authority: {}\n", path(file)),
            (None, Some(pem)) => format!("    certificate-authority-data: {}\n", STANDARD.encode(pem)),
            (None, None) => String::new(),
        };
        let insecure = if self.insecure { "    insecure-skip-tls-verify: true\n" } else { "" };
        let server = format!("    server: {}\n", quoted(&self.server));
        let name = self.server_name.as_ref();
        let name = name.map(|name| format!("    tls-server-name: {}\n", quoted(name))).unwrap_or_default();
        let cluster = [&authority, insecure, &server, &name].concat();
        let certificate = path(certificate);
        format!(
            "apiVersion: v1\nclusters:\n- cluster:\n{cluster}  name: default-cluster\ncontexts:\n- context:\n    \
             cluster: default-cluster\n    namespace: default\n    user: default-auth\n  name: default-context\n\
             current-context: default-context\nkind: Config\npreferences: {{}}\nusers:\n- name: default-auth\n  user:\n    \
             client-certificate: {certificate}\n    client-key: {certificate}\n"
        )
    }

    fn from_file(path: &Path) -> Result<Self, String> {
        let text = read_bounded(path)?;
        let tree = yaml::parse(&text, LIMITS).map_err(|error| error.to_string())?;
        // A message of the JSON reader may quote what stands there, but never a value that it takes.
        let file: File = serde_json::from_str(&tree.canonical())
            .map_err(|_error| "does not have the keys of a kubeconfig".to_owned())?;
        let context = file.current_context;
        if context.is_empty() {
            return Err("has no current-context".to_owned());
        }
        let Some(context) = find(file.contexts, &context) else {
            return Err(format!("has no context {context:?}, which is its current one"));
        };
        let Some(cluster) = find(file.clusters, &context.cluster) else {
            return Err(format!("has no cluster {:?}, which its current context names", context.cluster));
        };
        let user = match find(file.users, &context.user) {
            Some(user) => user,
            None if context.user.is_empty() => User::default(),
            None => return Err(format!("has no user {:?}, which its current context names", context.user)),
        };
        let folder = path.parent().unwrap_or(Path::new("/"));
        let (server, server_name) = (server(&cluster)?, cluster.tls_server_name.clone());
        let file = |file: &str, data: &str| {
            (!file.is_empty() && data.is_empty()).then(|| absolute(&folder.join(file)))
        };
        Ok(Self {
            path: path.to_owned(),
            server,
            authority: either(
                folder,
                "certificate-authority",
                &cluster.certificate_authority,
                &cluster.certificate_authority_data,
            )?,
            authority_file: file(&cluster.certificate_authority, &cluster.certificate_authority_data),
            insecure: cluster.insecure_skip_tls_verify,
            server_name: (!server_name.is_empty()).then_some(server_name),
            credentials: credentials(folder, &context.user, &user)?,
            certificate_file: file(&user.client_certificate, &user.client_certificate_data),
        })
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_error| path.to_owned())
}

fn find<T: Default>(all: Vec<Named<T>>, name: &str) -> Option<T> {
    all.into_iter().find(|named| named.name == name).map(|named| named.value.unwrap_or_default())
}

fn server(cluster: &Cluster) -> Result<String, String> {
    if !cluster.proxy_url.is_empty() {
        return Err(
            "has a proxy-url, and proxies are not asked: give one that reaches the server itself".into()
        );
    }
    let server = cluster.server.trim_end_matches('/');
    let uri: hyper::Uri =
        server.parse().map_err(|_error| "the server of its cluster is no URL".to_owned())?;
    match (uri.scheme_str(), uri.authority()) {
        (Some("https" | "http"), Some(authority)) if !authority.as_str().contains('@') => {}
        _ => {
            return Err("the server of its cluster is no URL that begins with https:// and a host".to_owned());
        }
    }
    if uri.query().is_some() {
        return Err("the server of its cluster has a query".to_owned());
    }
    Ok(server.to_owned())
}

fn credentials(folder: &Path, name: &str, user: &User) -> Result<Credentials, String> {
    if let Some(exec) = &user.exec {
        return Err(format!(
            "user {name:?} gets its credentials from the program {:?}, which is not run here: give a kubeconfig \
             with a certificate or a token, as /etc/kubernetes/admin.conf",
            exec.command
        ));
    }
    if let Some(provider) = &user.auth_provider {
        return Err(format!(
            "user {name:?} has the auth-provider {:?}, which is not known here",
            provider.name
        ));
    }
    if !user.username.is_empty() {
        return Err(format!("user {name:?} has a password, which API servers since 1.19 do not take"));
    }
    if !user.impersonate.is_empty() {
        return Err(format!("user {name:?} acts as {:?}, which is not done here", user.impersonate));
    }
    let certificate =
        either(folder, "client-certificate", &user.client_certificate, &user.client_certificate_data)?;
    let key = either(folder, "client-key", &user.client_key, &user.client_key_data)?;
    let certificate = match (certificate, key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        _ => return Err(format!("user {name:?} has only one of client-certificate and client-key")),
    };
    // As in client-go the file counts, if there are both.
    let token = if !user.token_file.is_empty() {
        Some(Token::File(folder.join(&user.token_file)))
    } else {
        (!user.token.is_empty()).then(|| Token::Text(user.token.clone()))
    };
    Ok(Credentials { certificate, token })
}

/// What stands in the file itself, which counts, or in one that it names.
fn either(folder: &Path, key: &str, file: &str, data: &str) -> Result<Option<Vec<u8>>, String> {
    if !data.is_empty() {
        let decoded = STANDARD.decode(data).map_err(|_error| format!("{key}-data is not base64"))?;
        return Ok(Some(decoded));
    }
    if file.is_empty() {
        return Ok(None);
    }
    let path = folder.join(file);
    read_bounded(&path).map(Some).map_err(|error| format!("{key} {}: {error}", path.display()))
}

/// A small regular file.
pub(super) fn read_bounded(path: &Path) -> Result<Vec<u8>, String> {
    files::read(path).map_err(|error| format!("cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "apiVersion: v1\nkind: Config\ncurrent-context: a\npreferences: {}\n\
        contexts:\n- name: b\n  context: {cluster: x, user: x}\n- name: a\n  context:\n    cluster: k\n    user: node\n    namespace: n\n\
        clusters:\n- cluster:\n    certificate-authority: pki/ca.crt\n    server: https://10.0.0.1:6443/\n    tls-server-name: kubernetes\n  name: k\n\
        users:\n- name: node\n  user:\n";

    fn read(user: &str) -> Result<Kubeconfig, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("pki")).unwrap();
        std::fs::write(folder.path().join("pki/ca.crt"), "CA").unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, format!("{CONFIG}{user}")).unwrap();
        let read = Kubeconfig::read(&path);
        read.map_err(|error| {
            let told = error.to_string();
            let start = format!("kubeconfig {}: ", path.display());
            assert!(told.starts_with(&start), "{told}");
            told[start.len()..].to_owned()
        })
    }

    #[test]
    fn the_current_context_counts() {
        let read = read("    client-certificate-data: Q0VSVA==\n    client-key-data: S0VZ\n    token: abc\n")
            .unwrap();
        assert_eq!(read.server(), "https://10.0.0.1:6443");
        assert_eq!(read.authority.as_deref(), Some(&b"CA"[..]));
        assert_eq!(read.server_name.as_deref(), Some("kubernetes"));
        assert_eq!(read.credentials.certificate, Some((b"CERT".to_vec(), b"KEY".to_vec())));
        assert!(read.credentials.token == Some(Token::Text("abc".to_owned())));
        // A user who says nothing is nobody, as for client-go.
        let nobody = self::read("").unwrap();
        assert!(nobody.credentials == Credentials::default());
        let told = format!("{read:?}");
        assert!(!told.contains("abc") && !told.contains("KEY"), "{told}");
    }

    #[test]
    fn what_kubelet_would_write_is_written_and_read() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("pki")).unwrap();
        std::fs::write(folder.path().join("pki/ca.crt"), "CA").unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, format!("{CONFIG}    token: hush\n")).unwrap();
        let bootstrap = Kubeconfig::read(&path).unwrap();
        let pem = folder.path().join("a: \"b\".pem");
        std::fs::write(&pem, "CERT").unwrap();
        let text = bootstrap.for_node(&pem);
        assert!(!text.contains("hush"), "{text}");
        let written = folder.path().join("kubelet.conf");
        std::fs::write(&written, text).unwrap();
        let read = Kubeconfig::read(&written).unwrap();
        assert_eq!(read.server(), bootstrap.server());
        assert_eq!(read.authority_file(), Some(folder.path().join("pki/ca.crt").as_path()));
        assert_eq!(read.server_name, bootstrap.server_name);
        assert_eq!(read.certificate(), Some((&b"CERT"[..], &b"CERT"[..])));
        assert_eq!(read.certificate_file(), Some(pem.as_path()));
        // Authorities that stand in the file itself are taken along.
        let inside = Kubeconfig { authority_file: None, ..bootstrap };
        std::fs::write(&written, inside.for_node(&pem)).unwrap();
        assert_eq!(Kubeconfig::read(&written).unwrap().authority(), Some(&b"CA"[..]));
    }

    #[test]
    fn what_cannot_be_honoured_is_named() {
        for (user, told) in [
            (
                "    exec: {apiVersion: v1, command: aws-iam}\n",
                "the program \"aws-iam\", which is not run here",
            ),
            ("    auth-provider: {name: gcp}\n", "auth-provider \"gcp\""),
            ("    username: u\n    password: hush\n", "has a password"),
            ("    as: root\n", "acts as \"root\""),
            ("    client-key-data: S0VZ\n", "only one of"),
            ("    client-certificate: gone.pem\n    client-key-data: S0VZ\n", "gone.pem: cannot be read"),
            ("    client-key-data: '***'\n", "client-key-data is not base64"),
            ("    token: [1]\n", "does not have the keys"),
        ] {
            let error = read(user).unwrap_err();
            assert!(error.contains(told), "{error}");
            assert!(!error.contains("hush"));
        }
        for (from, to, told) in [
            ("current-context: a", "current-context: c", "has no context \"c\""),
            ("current-context: a", "x: a", "no current-context"),
            ("cluster: k\n", "cluster: l\n", "has no cluster \"l\""),
            ("user: node", "user: other", "has no user \"other\""),
            ("https://10.0.0.1:6443/", "10.0.0.1:6443", "is no URL that begins"),
            ("https://10.0.0.1:6443/", "https://u:hush@10.0.0.1", "is no URL that begins"),
            ("tls-server-name: kubernetes", "proxy-url: http://p", "has a proxy-url"),
            ("pki/ca.crt", "pki", "it is no regular file"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join("pki")).unwrap();
            std::fs::write(folder.path().join("pki/ca.crt"), "CA").unwrap();
            let path = folder.path().join("config");
            std::fs::write(&path, CONFIG.replacen(from, to, 1) + "    token: x\n").unwrap();
            let error = Kubeconfig::read(&path).unwrap_err().to_string();
            assert!(error.contains(told) && !error.contains("hush"), "{to}: {error}");
        }
    }
}
