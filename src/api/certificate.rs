//! Certificates as a node needs to know them: who, from whom, for which names, until when.
//!
//! They come from files and servers that may be broken or hostile, so everything is read within bounds and nothing
//! of a private key is kept or told.

use std::net::IpAddr;

use jiff::Timestamp;
use rustls::{
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use x509_parser::{
    asn1_rs::FromDer as _, certificate::X509Certificate, extensions::GeneralName, x509::X509Name,
};

/// Most certificates that are read from one file; bundles of authorities have some hundred.
const MAX_CHAIN: usize = 1000;

/// Why a text holds no certificate that can be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CertificateError {
    /// It is not PEM, or torn.
    #[error("is not PEM: {0}")]
    Pem(String),
    /// There is none in it.
    #[error("holds no certificate")]
    Empty,
    /// There are too many.
    #[error("holds more than {MAX_CHAIN} certificates")]
    TooMany,
    /// One of them cannot be read.
    #[error("holds what is no X.509 certificate: {0}")]
    Broken(String),
    /// There is no private key in it that can be read.
    #[error("holds no private key that can be read")]
    NoKey,
    /// The private key is another one's.
    #[error("the private key is not that of the certificate")]
    OtherKey,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The subject's common name; empty if it has none.
    pub common_name: String,
    /// The subject's organizations, which are groups to an API server.
    pub organizations: Vec<String>,
    /// The whole subject, `O=system:nodes, CN=system:node:a`.
    pub subject: String,
    /// The issuer likewise.
    pub issuer: String,
    /// The serial number, hexadecimal with colons.
    pub serial: String,
    /// DNS names that it is for.
    pub dns_names: Vec<String>,
    /// Addresses that it is for.
    pub addresses: Vec<IpAddr>,
    /// Since when it counts.
    pub not_before: Timestamp,
    /// Until when it counts.
    pub not_after: Timestamp,
    /// Whether it may issue others.
    pub is_authority: bool,
    /// The public key as SubjectPublicKeyInfo, DER.
    pub public_key: Vec<u8>,
    der: Vec<u8>,
}

impl Certificate {
    /// Reads one.
    ///
    /// # Errors
    /// [`CertificateError::Broken`].
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        let broken = |error: &dyn std::fmt::Display| CertificateError::Broken(error.to_string());
        let (rest, read) = X509Certificate::from_der(der).map_err(|error| broken(&error))?;
        if !rest.is_empty() {
            return Err(CertificateError::Broken("there is something behind it".to_owned()));
        }
        let (mut dns_names, mut addresses) = (Vec::new(), Vec::new());
        let names = read.subject_alternative_name().map_err(|error| broken(&error))?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
                _ => {}
            }
        }
        Ok(Self {
            common_name: texts(read.subject().iter_common_name()).into_iter().next().unwrap_or_default(),
            organizations: texts(read.subject().iter_organization()),
            subject: whole(read.subject()),
            issuer: whole(read.issuer()),
            serial: read.raw_serial_as_string(),
            dns_names,
            addresses,
            not_before: time(read.validity().not_before.timestamp()),
            not_after: time(read.validity().not_after.timestamp()),
            is_authority: read.is_ca(),
            public_key: read.public_key().raw.to_owned(),
            der: der.to_owned(),
        })
    }

    /// The certificates of a PEM text in their order, at least one. Other sections are passed over.
    ///
    /// # Errors
    /// When it is no PEM, holds none or too many, or one of them cannot be read.
    pub fn chain(pem: &[u8]) -> Result<Vec<Self>, CertificateError> {
        let mut chain = Vec::new();
        for der in CertificateDer::pem_slice_iter(pem) {
            let der = der.map_err(|error| CertificateError::Pem(error.to_string()))?;
            if chain.len() == MAX_CHAIN {
                return Err(CertificateError::TooMany);
            }
            chain.push(Self::parse(&der)?);
        }
        if chain.is_empty() { Err(CertificateError::Empty) } else { Ok(chain) }
    }

    /// The first certificate of a PEM text, the one that the others vouch for.
    ///
    /// # Errors
    /// As [`Certificate::chain`].
    pub fn leaf(pem: &[u8]) -> Result<Self, CertificateError> {
        Self::chain(pem)?.into_iter().next().ok_or(CertificateError::Empty)
    }

    /// Whether the first private key of a PEM text is that of this certificate.
    ///
    /// # Errors
    /// [`CertificateError::NoKey`] or [`CertificateError::OtherKey`].
    pub fn check_key(&self, pem: &[u8]) -> Result<(), CertificateError> {
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_error| CertificateError::NoKey)?;
        let key = any_supported_type(&key).map_err(|_error| CertificateError::NoKey)?;
        match key.public_key() {
            Some(public) if public.as_ref() == self.public_key => Ok(()),
            _ => Err(CertificateError::OtherKey),
        }
    }

    /// Whether one of these has signed it.
    pub fn is_from(&self, authorities: &[Self]) -> bool {
        let Ok((_, read)) = X509Certificate::from_der(&self.der) else { return false };
        authorities.iter().filter(|authority| authority.subject == self.issuer).any(|authority| {
            X509Certificate::from_der(&authority.der)
                .is_ok_and(|(_, authority)| read.verify_signature(Some(authority.public_key())).is_ok())
        })
    }

    /// Whether it stands for itself.
    pub fn is_self_signed(&self) -> bool {
        self.subject == self.issuer && self.is_from(std::slice::from_ref(self))
    }

    /// Whether it counts at a time.
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.not_before <= now && now < self.not_after
    }

    /// The SHA-256 of it, by which it is told from all others.
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.der).into()
    }
}

/// The certificates of a PEM text as DER, for TLS.
///
/// # Errors
/// As [`Certificate::chain`], without a look into them.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(MAX_CHAIN).collect();
    let found = found.map_err(|error| CertificateError::Pem(error.to_string()))?;
    if found.is_empty() { Err(CertificateError::Empty) } else { Ok(found) }
}

fn texts<'a>(values: impl Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>) -> Vec<String> {
    values.filter_map(|value| value.as_str().ok()).map(str::to_owned).collect()
}

fn whole(name: &X509Name<'_>) -> String {
    name.to_string()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

/// RFC 5280 writes "for ever" as the last second of the year 9999, which is later than the last time that can be
/// shown in every time zone.
fn time(seconds: i64) -> Timestamp {
    let end = if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_second(seconds).unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AUTHORITY: &[u8] = include_bytes!("../../tests/data/tls-authority.crt");
    const CERTIFICATE: &[u8] = include_bytes!("../../tests/data/tls-streams.crt");
    const KEY: &[u8] = include_bytes!("../../tests/data/tls-streams.key");

    #[test]
    fn what_a_certificate_says_is_read() {
        let leaf = Certificate::leaf(CERTIFICATE).unwrap();
        assert_eq!(leaf.dns_names, ["streams.test"]);
        assert!(leaf.not_before < leaf.not_after && !leaf.is_authority);
        leaf.check_key(KEY).unwrap();
        let authority = Certificate::chain(AUTHORITY).unwrap();
        assert!(authority[0].is_authority && authority[0].is_self_signed() && !leaf.is_self_signed());
        assert!(leaf.is_from(&authority) && !authority[0].is_from(std::slice::from_ref(&leaf)));
        assert_eq!(authority[0].check_key(KEY), Err(CertificateError::OtherKey));
        assert_eq!(leaf.check_key(CERTIFICATE), Err(CertificateError::NoKey));
        assert_eq!(Certificate::leaf(KEY), Err(CertificateError::Empty));
        // Key and certificate in one file, as kubelet has them, in any order.
        let both = [KEY, CERTIFICATE].concat();
        assert_eq!(Certificate::leaf(&both).unwrap(), leaf);
    }

    #[test]
    fn a_certificate_for_ever_has_an_end() {
        assert_eq!(time(253_402_300_799), Timestamp::MAX);
    }

    proptest! {
        #[test]
        fn torn_and_changed_ones_are_errors_and_no_panics(cut in 0..CERTIFICATE.len(), flip in 0u8..8, bytes: Vec<u8>) {
            // Cut within the text, there is no certificate; the line break at the end is no part of it.
            if cut + 2 < CERTIFICATE.len() {
                prop_assert!(Certificate::leaf(&CERTIFICATE[..cut]).is_err());
            }
            let mut changed = CERTIFICATE.to_vec();
            changed[cut] ^= 1 << flip;
            if let Ok(leaf) = Certificate::leaf(&changed) {
                leaf.is_self_signed();
                leaf.check_key(KEY).ok();
            }
            let mut der = certificates(CERTIFICATE).unwrap()[0].to_vec();
            // Behind what is signed come the name of the algorithm and bits that do not count.
            let at = 4 + cut % (der.len() - 104);
            der[at] ^= 1 << flip;
            if let Ok(leaf) = Certificate::parse(&der) {
                let authority = Certificate::chain(AUTHORITY).unwrap();
                prop_assert!(!leaf.is_from(&authority), "a changed one is not from the authority any more");
            }
            prop_assert!(Certificate::parse(&bytes).is_err());
        }
    }
}
