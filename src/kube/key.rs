//! Private keys, and what is made with them: certificate requests, and certificates that a node signs itself.

use std::{net::IpAddr, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SignatureAlgorithm, SigningKey,
};
use rustls::{
    SignatureScheme,
    crypto::ring::sign::any_ecdsa_type,
    pki_types::{PrivateKeyDer, pem::PemObject as _},
};

/// How a P-256 key's SubjectPublicKeyInfo begins; the point follows.
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// How long a certificate is good that a node signs itself; kubelet's are for a year too.
const SELF_SIGNED: SignedDuration = SignedDuration::from_hours(365 * 24);
/// Clocks differ.
const BEFORE: SignedDuration = SignedDuration::from_hours(1);

/// A private key: ECDSA on P-256, as kubelet's.
#[derive(Clone)]
pub struct Key {
    pem: String,
    signer: Arc<dyn rustls::sign::SigningKey>,
    public: Vec<u8>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    /// A new one.
    ///
    /// # Errors
    /// In words, when there is no randomness.
    pub fn generate() -> Result<Self, String> {
        let made = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
        let pem = made.map_err(|error| format!("cannot make a private key: {error}"))?.serialize_pem();
        Self::from_pem(&pem).ok_or_else(|| "cannot use the private key that was made".to_owned())
    }

    /// One that was kept, by us or by kubelet; `None` if it is no such key.
    pub fn from_pem(pem: &str) -> Option<Self> {
        let key = PrivateKeyDer::from_pem_slice(pem.as_bytes()).ok()?;
        let signer = any_ecdsa_type(&key).ok()?;
        let public = signer.public_key()?.as_ref().to_owned();
        (public.starts_with(&P256)).then(|| Self { pem: pem.to_owned(), signer, public })
    }

    /// It as PEM. Secret.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The public key as SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn public(&self) -> &[u8] {
        &self.public
    }
}

impl PublicKeyData for Key {
    fn der_bytes(&self) -> &[u8] {
        &self.public[P256.len()..]
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Key {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signer = self.signer.choose_scheme(&[SignatureScheme::ECDSA_NISTP256_SHA256]);
        let signed = signer.and_then(|signer| signer.sign(message).ok());
        signed.ok_or(rcgen::Error::RemoteKeyError)
    }
}

/// A certificate request as PEM.
///
/// # Errors
/// In words, when a name cannot stand in a certificate.
pub(super) fn request(
    key: &Key,
    user: &str,
    group: &str,
    names: &[String],
    addresses: &[IpAddr],
) -> Result<String, String> {
    let mut params = parameters(names, addresses)?;
    // kubelet's order; the subject's digest does not depend on it.
    params.distinguished_name.push(DnType::OrganizationName, group);
    params.distinguished_name.push(DnType::CommonName, user);
    let request = params.serialize_request(key).and_then(|request| request.pem());
    request.map_err(|error| format!("cannot make a certificate request: {error}"))
}

/// A serving certificate that stands for itself, as PEM: for who does not ask whom it is from.
///
/// # Errors
/// In words, when a name cannot stand in a certificate.
pub fn self_signed(
    key: &Key,
    names: &[String],
    addresses: &[IpAddr],
    now: Timestamp,
) -> Result<String, String> {
    let mut params = parameters(names, addresses)?;
    let name = names.first().map_or("localhost", String::as_str);
    // kubelet names the time too, so that browsers do not take one for the other.
    params.distinguished_name.push(DnType::CommonName, format!("{name}@{}", now.as_second()));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let failed = |error: &dyn std::fmt::Display| format!("cannot make a certificate: {error}");
    let time = |time: Timestamp| {
        let after = std::time::Duration::from_secs(u64::try_from(time.as_second()).unwrap_or_default());
        (std::time::SystemTime::UNIX_EPOCH + after).into()
    };
    params.not_before = time(now.checked_sub(BEFORE).unwrap_or(now));
    params.not_after = time(now.checked_add(SELF_SIGNED).unwrap_or(now));
    Ok(params.self_signed(key).map_err(|error| failed(&error))?.pem())
}

fn parameters(names: &[String], addresses: &[IpAddr]) -> Result<CertificateParams, String> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for name in names {
        let text = name.as_str().try_into();
        let text = text.map_err(|_error| format!("{name:?} cannot be a name in a certificate"))?;
        params.subject_alt_names.push(SanType::DnsName(text));
    }
    params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::certificate::Certificate;

    /// As kubelet keeps it while its request waits.
    const SEC1: &str = "-----BEGIN EC PRIVATE KEY-----\n\
        MHcCAQEEIN7kDHdnCO2Suz87j/uW6d3zIfyGdZaYhJDhDrPOxfl+oAoGCCqGSM49\n\
        AwEHoUQDQgAEWhmyQxgsGwfEegHIc1BzP+MhUXgVYvSr392CQtsE7JlHcpOMb2Dn\n\
        KziGHvLFuXDKyb/Nb7C+YwsFC0oVWB0jZw==\n\
        -----END EC PRIVATE KEY-----\n";

    #[test]
    fn keys_are_made_and_read() {
        let key = Key::generate().unwrap();
        let again = Key::from_pem(key.pem()).unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(key.subject_public_key_info(), key.public());
        assert_eq!(format!("{key:?}"), "Key");
        for other in ["", "x", &key.pem()[..80], include_str!("../../tests/data/tls-streams.crt")] {
            assert!(Key::from_pem(other).is_none());
        }
    }

    #[test]
    fn a_self_signed_certificate_is_for_its_names() {
        let key = Key::generate().unwrap();
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let names = ["node-a".to_owned()];
        let pem = self_signed(&key, &names, &["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()], now);
        let certificate = Certificate::leaf(pem.unwrap().as_bytes()).unwrap();
        certificate.check_key(key.pem().as_bytes()).unwrap();
        assert!(certificate.is_self_signed() && certificate.is_valid_at(now));
        assert_eq!(certificate.common_name, "node-a@1800000000");
        assert_eq!(certificate.dns_names, names);
        assert_eq!(certificate.addresses.len(), 2);
        assert_eq!(certificate.not_after.duration_since(now), SELF_SIGNED);
        assert!(self_signed(&key, &["näh".to_owned()], &[], now).is_err());
    }

    #[test]
    fn kubelets_keys_can_be_used() {
        let key = Key::from_pem(SEC1).unwrap();
        request(&key, "system:node:a", "system:nodes", &[], &[]).unwrap();
    }
}
