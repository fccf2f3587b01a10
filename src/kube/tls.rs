//! TLS to the API server: whom we trust, and the certificate that says who we are.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use super::kubeconfig::Kubeconfig;
use crate::tls::{self, AnyCertificate};

/// What TLS connections are made with.
///
/// # Errors
/// In words, when a certificate or key of the kubeconfig is none.
pub(super) fn client_config(kubeconfig: &Kubeconfig) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if kubeconfig.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    } else {
        builder.with_root_certificates(roots(kubeconfig)?)
    };
    let Some((chain, key)) = &kubeconfig.credentials.certificate else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates(chain).map_err(|problem| format!("client-certificate {problem}"))?;
    let key = PrivateKeyDer::from_pem_slice(key)
        .map_err(|_error| "client-key holds no private key that can be read".to_owned())?;
    builder.with_client_auth_cert(chain, key).map_err(|error| format!("client-certificate: {error}"))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| format!("is not PEM: {error}"))?;
    if found.is_empty() { Err("holds no certificate".to_owned()) } else { Ok(found) }
}

fn roots(kubeconfig: &Kubeconfig) -> Result<RootCertStore, String> {
    let given = kubeconfig.authority.as_deref().map(certificates).transpose();
    let given = given.map_err(|problem| format!("certificate-authority {problem}"))?;
    tls::roots(given).map_err(|error| format!("certificate-authority: {error}"))
}
