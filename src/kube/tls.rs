//! TLS to the API server: whom we trust, and the certificate that says who we are.

use std::sync::Arc;

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};

use super::kubeconfig::Kubeconfig;

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
    let mut roots = RootCertStore::empty();
    let Some(authority) = &kubeconfig.authority else {
        // Those that cannot be read are as good as not there: the server is refused then.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    for certificate in
        certificates(authority).map_err(|problem| format!("certificate-authority {problem}"))?
    {
        roots.add(certificate).map_err(|error| format!("certificate-authority: {error}"))?;
    }
    Ok(roots)
}

/// Takes any certificate whose key the server has: `insecure-skip-tls-verify`.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
