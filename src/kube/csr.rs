//! Certificates from the API server: a request is made, somebody approves it, a signer signs it.
//!
//! A request's name follows from its key and from what it asks for, as that of kubelet's first request does. So an
//! agent that is started again, and has kept the key, finds its request instead of adding another one, however long
//! the approval takes; kubelet adds one every quarter of an hour.

use std::{net::IpAddr, time::Duration};

use ::kube::{
    Api, Client,
    api::{PostParams, WatchEvent, WatchParams},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::StreamExt as _;
use k8s_openapi::{
    ByteString,
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use rustls::pki_types::{CertificateSigningRequestDer, pem::PemObject as _};
use sha2::{Digest as _, Sha512_256};
use thiserror::Error;

use super::{
    connect::told,
    key::{Key, request},
};
use crate::api::certificate::Certificate;

/// Between two looks at a request while a watch does not hold; doubled up to the second.
const LOOK_AGAIN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// How long a request waits before that is told: most are approved by a controller.
const QUIET: Duration = Duration::from_secs(1);
/// Failed looks in a row before the error goes to the caller.
const MAX_FAILED_LOOKS: u32 = 3;
/// Most bytes of somebody else's words that are handed on.
const MAX_WORDS: usize = 500;

/// What a certificate is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// To be a node to the API server.
    Client,
    /// To be a node to who connects to it under these names.
    Serving {
        /// Names, in order.
        names: Vec<String>,
        /// Addresses, in order.
        addresses: Vec<IpAddr>,
    },
}

impl Purpose {
    fn signer(&self) -> &'static str {
        match self {
            Self::Client => "kubernetes.io/kube-apiserver-client-kubelet",
            Self::Serving { .. } => "kubernetes.io/kubelet-serving",
        }
    }

    /// Exactly these are signed; servers before 1.27 insist on the second one for every kind of key.
    fn usages(&self) -> [&'static str; 3] {
        match self {
            Self::Client => ["digital signature", "key encipherment", "client auth"],
            Self::Serving { .. } => ["digital signature", "key encipherment", "server auth"],
        }
    }

    fn names(&self) -> (&[String], &[IpAddr]) {
        match self {
            Self::Client => (&[], &[]),
            Self::Serving { names, addresses } => (names, addresses),
        }
    }
}

/// A request for a certificate.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its name at the API server.
    pub name: String,
    user: String,
    group: String,
    purpose: Purpose,
    key: Key,
}

/// Why there is no certificate.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CsrError {
    /// The server cannot be asked, or does not let us. Another try may help.
    #[error("{0}")]
    Server(String),
    /// Somebody has said no.
    #[error("the certificate request {name} was denied{}", words(.reason, .message))]
    Denied {
        /// The request's name.
        name: String,
        /// A word.
        reason: String,
        /// Words.
        message: String,
    },
    /// The signer could not or would not sign.
    #[error("the certificate request {name} could not be signed{}", words(.reason, .message))]
    Failed {
        /// The request's name.
        name: String,
        /// A word.
        reason: String,
        /// Words.
        message: String,
    },
    /// What was signed is not what was asked for, or the request of that name is not ours.
    #[error("the certificate request {name} cannot be used: {problem}")]
    Unusable {
        /// The request's name.
        name: String,
        /// Why.
        problem: String,
    },
    /// The request could not be made.
    #[error("{0}")]
    Own(String),
}

impl CsrError {
    /// The request is done for: a new one needs a new key.
    #[must_use]
    pub fn is_final(&self) -> bool {
        !matches!(self, Self::Server(_))
    }
}

fn words(reason: &str, message: &str) -> String {
    match (reason, message) {
        ("", "") => ", and nobody says why".to_owned(),
        ("", words) | (words, "") => format!(": {words}"),
        (reason, message) => format!(": {reason}: {message}"),
    }
}

impl Request {
    /// One for this user of this group.
    #[must_use]
    pub fn new(key: &Key, user: &str, group: &str, purpose: Purpose) -> Self {
        let name = digest(key.public(), user, group, &purpose);
        Self { name, user: user.to_owned(), group: group.to_owned(), purpose, key: key.clone() }
    }

    /// Makes the request unless it is there, waits until it is approved and signed, and gives the certificates as
    /// PEM. `waiting` is called when nobody has decided about the request within a second. Waits without end.
    ///
    /// # Errors
    /// [`CsrError`]; after [`CsrError::Server`] the same request may be tried again.
    pub async fn obtain(&self, client: &Client, mut waiting: impl FnMut()) -> Result<Vec<u8>, CsrError> {
        let api: Api<CertificateSigningRequest> = Api::all(client.clone());
        let (mut failed, mut pause) = (0, LOOK_AGAIN.0);
        let mut told_once = false;
        loop {
            let error = match self.look(&api).await {
                Ok((Some(chain), _)) => return Ok(chain),
                Ok((None, version)) => {
                    (failed, pause) = (0, LOOK_AGAIN.0);
                    let mut watch = std::pin::pin!(self.watch(&api, &version));
                    let watched = match tokio::time::timeout(QUIET, &mut watch).await {
                        Ok(watched) => watched,
                        Err(_elapsed) => {
                            if !told_once {
                                waiting();
                                told_once = true;
                            }
                            watch.await
                        }
                    };
                    match watched {
                        Ok(Some(chain)) => return Ok(chain),
                        // Ended in time, or the request is gone: it is looked for, or made, again.
                        Ok(None) => None,
                        Err(error) => Some(error),
                    }
                }
                Err(error) => Some(error),
            };
            match error {
                Some(CsrError::Server(problem)) => {
                    failed += 1;
                    if failed >= MAX_FAILED_LOOKS {
                        return Err(CsrError::Server(problem));
                    }
                }
                Some(error) => return Err(error),
                None => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK_AGAIN.1);
        }
    }

    /// Whether the server has it no more.
    pub async fn is_gone(&self, client: &Client) -> bool {
        let api: Api<CertificateSigningRequest> = Api::all(client.clone());
        matches!(api.get_opt(&self.name).await, Ok(None))
    }

    /// The request as the server has it, or made: the certificate, or the version from which on to watch.
    async fn look(
        &self,
        api: &Api<CertificateSigningRequest>,
    ) -> Result<(Option<Vec<u8>>, String), CsrError> {
        let server = |error: &::kube::Error| CsrError::Server(told(error));
        let found = match api.get_opt(&self.name).await.map_err(|error| server(&error))? {
            Some(found) => found,
            None => match api.create(&PostParams::default(), &self.object()?).await {
                Ok(made) => made,
                // Made by a former try whose answer was lost.
                Err(::kube::Error::Api(status)) if status.code == 409 => {
                    api.get(&self.name).await.map_err(|error| server(&error))?
                }
                Err(error) => return Err(server(&error)),
            },
        };
        let version = found.metadata.resource_version.clone().unwrap_or_default();
        Ok((self.outcome(&found)?, version))
    }

    async fn watch(
        &self,
        api: &Api<CertificateSigningRequest>,
        version: &str,
    ) -> Result<Option<Vec<u8>>, CsrError> {
        let params = WatchParams::default().fields(&format!("metadata.name={}", self.name));
        let stream = api.watch(&params, version).await;
        let mut stream = std::pin::pin!(stream.map_err(|error| CsrError::Server(told(&error)))?);
        while let Some(event) = stream.next().await {
            match event.map_err(|error| CsrError::Server(told(&error)))? {
                WatchEvent::Added(found) | WatchEvent::Modified(found) => {
                    if let Some(chain) = self.outcome(&found)? {
                        return Ok(Some(chain));
                    }
                }
                // Looked at anew.
                WatchEvent::Deleted(_) | WatchEvent::Error(_) => return Ok(None),
                WatchEvent::Bookmark(_) => {}
            }
        }
        Ok(None)
    }

    fn object(&self) -> Result<CertificateSigningRequest, CsrError> {
        let (names, addresses) = self.purpose.names();
        let pem = request(&self.key, &self.user, &self.group, names, addresses).map_err(CsrError::Own)?;
        Ok(CertificateSigningRequest {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            spec: CertificateSigningRequestSpec {
                request: ByteString(pem.into_bytes()),
                signer_name: self.purpose.signer().to_owned(),
                usages: Some(self.purpose.usages().map(str::to_owned).to_vec()),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        })
    }

    /// What has become of it: the certificates, or nothing yet.
    fn outcome(&self, found: &CertificateSigningRequest) -> Result<Option<Vec<u8>>, CsrError> {
        let name = || self.name.clone();
        let unusable = |problem: String| CsrError::Unusable { name: name(), problem };
        // Names can be guessed by nobody who does not know the public key; it is sent only now.
        if found.spec.signer_name != self.purpose.signer() || !holds(&found.spec.request.0, self.key.public())
        {
            return Err(unusable("somebody else has made one of that name".to_owned()));
        }
        let status = found.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        for condition in conditions.iter().filter(|condition| condition.status != "False") {
            let text = |text: &Option<String>| shortened(text.as_deref().unwrap_or_default());
            let (reason, message) = (text(&condition.reason), text(&condition.message));
            match condition.type_.as_str() {
                "Denied" => return Err(CsrError::Denied { name: name(), reason, message }),
                "Failed" => return Err(CsrError::Failed { name: name(), reason, message }),
                _ => {}
            }
        }
        let chain = status.and_then(|status| status.certificate.as_ref());
        let Some(chain) = chain.filter(|chain| !chain.0.is_empty()) else { return Ok(None) };
        let leaf =
            Certificate::leaf(&chain.0).map_err(|error| unusable(format!("what was signed {error}")))?;
        if leaf.public_key != self.key.public() || leaf.common_name != self.user {
            return Err(unusable("what was signed is for somebody else".to_owned()));
        }
        if leaf.not_after <= jiff::Timestamp::now() {
            return Err(unusable(format!("what was signed has expired on {}", leaf.not_after)));
        }
        Ok(Some(chain.0.clone()))
    }
}

/// Whether a certificate request is about this public key. A request has it as it is.
fn holds(request: &[u8], public: &[u8]) -> bool {
    CertificateSigningRequestDer::from_pem_slice(request)
        .is_ok_and(|der| der.as_ref().windows(public.len()).any(|window| window == public))
}

fn shortened(words: &str) -> String {
    words.chars().take(MAX_WORDS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The name of a request, kubelet's `digestedName` for its first one: `node-csr-` and a digest of key, subject and
/// usages, with a separator that no part can hold.
fn digest(public: &[u8], user: &str, group: &str, purpose: &Purpose) -> String {
    let mut hash = Sha512_256::new();
    let mut write = |part: &[u8]| hash.update(format!("{}|", URL_SAFE_NO_PAD.encode(part)));
    write(public);
    write(user.as_bytes());
    write(group.as_bytes());
    purpose.usages().iter().for_each(|usage| write(usage.as_bytes()));
    let (names, addresses) = purpose.names();
    // A name may look like an address.
    names.iter().for_each(|name| write(format!("DNS:{name}").as_bytes()));
    addresses.iter().for_each(|address| write(format!("IP:{address}").as_bytes()));
    format!("node-csr-{}", URL_SAFE_NO_PAD.encode(hash.finalize()))
}

#[cfg(test)]
#[path = "csr_tests.rs"]
mod tests;
