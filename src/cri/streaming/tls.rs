//! TLS to a streaming server.
//!
//! As in crictl a server's certificate is checked only when a certificate of an authority, or our own, is given:
//! runtimes sign theirs themselves, and where the server is has been told by the runtime over its own socket.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::StreamError;
use crate::tls::{self, AnyCertificate};

/// Bytes; a larger file holds no certificate.
const MAX_PEM: u64 = 1 << 20;

/// Files and names for TLS, in the words of crictl's flags.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// The name that the server's certificate is to be for.
    pub server_name: String,
    /// A file with the certificates of the authorities that the server's may be from.
    pub authority: Option<PathBuf>,
    /// A file with our certificate, and those between it and its authority.
    pub certificate: Option<PathBuf>,
    /// A file with the key of our certificate.
    pub key: Option<PathBuf>,
}

/// What TLS connections are made with.
pub(super) struct Tls {
    config: Arc<ClientConfig>,
    server_name: ServerName<'static>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The configuration holds the key.
        f.debug_struct("Tls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

impl Tls {
    pub(super) fn new(options: &TlsOptions) -> Result<Self, StreamError> {
        let wrong = |problem: String| StreamError::Credentials(problem);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(error.to_string()))?;
        let builder = match (&options.authority, &options.certificate) {
            (None, None) => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            }
            (authority, _) => builder.with_root_certificates(roots(authority.as_deref())?),
        };
        let config = match (&options.certificate, &options.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(certificate), Some(key)) => {
                let chain = certificates(certificate)?;
                let pem = read(key)?;
                let private = PrivateKeyDer::from_pem_slice(&pem)
                    .map_err(|_error| wrong(format!("{} holds no private key", key.display())))?;
                let config = builder.with_client_auth_cert(chain, private);
                config.map_err(|error| wrong(format!("{}: {error}", certificate.display())))?
            }
            _ => return Err(wrong("a certificate and its key go together".to_owned())),
        };
        let server_name = ServerName::try_from(options.server_name.clone())
            .map_err(|_error| wrong(format!("{:?} is no server's name", options.server_name)))?;
        Ok(Self { config: Arc::new(config), server_name })
    }

    pub(super) async fn connect(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        connector.connect(self.server_name.clone(), stream).await.map_err(|error| error.to_string())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, StreamError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_PEM).read_to_end(&mut bytes));
    read.map_err(|error| StreamError::Credentials(format!("{}: {error}", path.display())))?;
    Ok(bytes)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, StreamError> {
    let pem = read(path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| StreamError::Credentials(format!("{}: {error}", path.display())))?;
    if found.is_empty() {
        return Err(StreamError::Credentials(format!("{} holds no certificate", path.display())));
    }
    Ok(found)
}

/// The authorities of a file, or the system's.
fn roots(authority: Option<&Path>) -> Result<RootCertStore, StreamError> {
    let given = authority.map(certificates).transpose()?;
    let name = authority.unwrap_or(Path::new("")).display();
    tls::roots(given).map_err(|error| StreamError::Credentials(format!("{name}: {error}")))
}
