//! Who asks: by a client certificate, by a bearer token that the API server knows, or nobody. As kubelet does: who
//! shows something that does not hold is refused, whatever else he shows nothing of, and is never taken for nobody.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hyper::{
    HeaderMap,
    header::{AUTHORIZATION, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE},
};
use k8s_openapi::{
    api::authentication::v1::{TokenReview, TokenReviewSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use rustls::{
    pki_types::{CertificateDer, UnixTime},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{cache::Cache, review::Reviews};
use crate::{
    api::certificate::{Certificate, certificates},
    files,
    kube::ApiServer,
    tls,
};

/// How often the file of authorities is looked at, at most.
const LOOK: Duration = Duration::from_secs(10);
/// The longest token; those of service accounts have about 1 KiB.
const MAX_TOKEN: usize = 32 << 10;
/// The protocol that carries a token where no header can be set.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// Somebody.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) uid: Option<String>,
    pub(super) groups: Vec<String>,
    pub(super) extra: BTreeMap<String, Vec<String>>,
}

impl User {
    fn anonymous() -> Self {
        let groups = vec!["system:unauthenticated".to_owned()];
        Self { name: "system:anonymous".to_owned(), groups, ..Self::default() }
    }
}

/// What a file of authorities is known by.
type Stamp = Option<(u64, std::time::SystemTime)>;

/// Authorities that were read anew, if they were.
type Read = Option<(Stamp, Arc<dyn ClientCertVerifier>)>;

/// Authorities as they were last read.
#[derive(Default)]
struct Authorities {
    looked: Option<Instant>,
    stamp: Stamp,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
}

/// Finds out who asks.
pub(super) struct Authenticator {
    pub(super) client_ca: Option<PathBuf>,
    /// How long the API server's answer is believed; `None` is that it is not asked.
    pub(super) token_review: Option<Duration>,
    pub(super) anonymous: bool,
    reviews: Reviews,
    authorities: Mutex<Authorities>,
    tokens: Cache<[u8; 32], Option<User>>,
}

impl Authenticator {
    pub(super) fn new(
        client_ca: Option<PathBuf>,
        token_review: Option<Duration>,
        anonymous: bool,
        api: ApiServer,
    ) -> Self {
        Self {
            client_ca,
            token_review,
            anonymous,
            reviews: Reviews::new(api),
            authorities: Mutex::default(),
            tokens: Cache::default(),
        }
    }

    /// Who it is; `None` where nobody is let in who says nothing of himself.
    ///
    /// # Errors
    /// Why what was shown does not hold, for the log alone.
    pub(super) async fn authenticate(
        &self,
        shown: Option<&[CertificateDer<'static>]>,
        headers: &HeaderMap,
    ) -> Result<Option<User>, String> {
        let mut problem = None;
        if let (Some(path), Some([own, rest @ ..])) = (&self.client_ca, shown) {
            match self.certificate(path, own, rest).await {
                Ok(Some(user)) => return Ok(Some(user)),
                Ok(None) => {}
                Err(why) => problem = Some(why),
            }
        }
        if let (Some(time), Some(token)) = (self.token_review, token(headers)) {
            match self.token(&token, time).await {
                Ok(Some(user)) => return Ok(Some(user)),
                Ok(None) => problem = Some("the token is not valid".to_owned()),
                Err(why) => problem = Some(why),
            }
        }
        match problem {
            Some(problem) => Err(problem),
            None => Ok(self.anonymous.then(User::anonymous)),
        }
    }

    /// Whether somebody is known by the certificates that were shown.
    pub(super) async fn is_certified(&self, shown: Option<&[CertificateDer<'static>]>) -> bool {
        match (&self.client_ca, shown) {
            (Some(path), Some([own, rest @ ..])) => {
                self.certificate(path, own, rest).await.is_ok_and(|user| user.is_some())
            }
            _ => false,
        }
    }

    async fn certificate(
        &self,
        path: &std::path::Path,
        own: &CertificateDer<'static>,
        rest: &[CertificateDer<'static>],
    ) -> Result<Option<User>, String> {
        let verifier = self.verifier(path).await.map_err(|why| format!("{} {why}", path.display()))?;
        verifier
            .verify_client_cert(own, rest, UnixTime::now())
            .map_err(|error| format!("the client certificate does not hold: {error}"))?;
        let read = Certificate::parse(own).map_err(|error| format!("the client certificate {error}"))?;
        if read.common_name.is_empty() {
            return Ok(None);
        }
        let groups = read.organizations.into_iter().chain(["system:authenticated".to_owned()]).collect();
        Ok(Some(User { name: read.common_name, groups, ..User::default() }))
    }

    /// The authorities as the file has them now: they are exchanged while the node runs.
    async fn verifier(&self, path: &std::path::Path) -> Result<Arc<dyn ClientCertVerifier>, String> {
        let known = {
            let mut held = self.authorities.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            if let (Some(verifier), Some(looked)) = (&held.verifier, held.looked)
                && now < looked + LOOK
            {
                return Ok(Arc::clone(verifier));
            }
            held.looked = Some(now);
            held.stamp.filter(|_| held.verifier.is_some())
        };
        let path = path.to_owned();
        let read = tokio::task::spawn_blocking(move || read_authorities(&path, known)).await;
        let read = read.map_err(|error| error.to_string())?;
        let mut held = self.authorities.lock().unwrap_or_else(PoisonError::into_inner);
        match (read, held.verifier.clone()) {
            (Ok(None), Some(verifier)) => Ok(verifier),
            (Ok(None), None) => Err("is not read yet".to_owned()),
            (Ok(Some((stamp, verifier))), _) => {
                held.stamp = stamp;
                held.verifier = Some(Arc::clone(&verifier));
                Ok(verifier)
            }
            // One that is being written goes on with what was there before.
            (Err(problem), Some(verifier)) => {
                tracing::warn!("the authorities of client certificates stay as they were: {problem}");
                Ok(verifier)
            }
            (Err(problem), None) => Err(problem),
        }
    }

    async fn token(&self, token: &str, time: Duration) -> Result<Option<User>, String> {
        if token.len() > MAX_TOKEN {
            return Ok(None);
        }
        let key: [u8; 32] = Sha256::digest(token).into();
        if let Some(known) = self.tokens.get(&key) {
            return Ok(known);
        }
        let review = TokenReview {
            metadata: ObjectMeta::default(),
            spec: TokenReviewSpec { token: token.to_owned(), audiences: None },
            status: None,
        };
        let answer =
            self.reviews.ask(&review).await.map_err(|why| format!("cannot ask for a token: {why}"))?;
        let answer = answer.status.unwrap_or_default();
        let user = answer.authenticated.unwrap_or(false).then(|| answer.user.unwrap_or_default());
        let user = user.map(|user| User {
            name: user.username.unwrap_or_default(),
            uid: user.uid,
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        });
        let user = user.filter(|user| !user.name.is_empty());
        self.tokens.put(key, user.clone(), time);
        Ok(user)
    }
}

/// Reads the authorities if the file is another one than known.
fn read_authorities(path: &std::path::Path, known: Stamp) -> Result<Read, String> {
    let io = |error: std::io::Error| format!("cannot be read: {error}");
    let metadata = std::fs::metadata(path).map_err(io)?;
    let stamp = metadata.modified().ok().map(|time| (metadata.len(), time));
    if stamp.is_some() && stamp == known {
        return Ok(None);
    }
    let pem = files::read(path).map_err(io)?;
    let authorities = certificates(&pem).map_err(|error| error.to_string())?;
    let roots = tls::roots(Some(authorities))
        .map_err(|error| format!("holds an authority that cannot be used: {error}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| error.to_string())?;
    Ok(Some((stamp, verifier)))
}

/// The token that is shown.
fn token(headers: &HeaderMap) -> Option<String> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.trim().split_once(' ')?;
        let token = token.trim();
        return (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned());
    }
    // One is left that can be agreed on, so that the token is not sent back; and there is one alone.
    let upgrades = headers.get(UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter().filter_map(|value| value.to_str().ok());
    let offered: Vec<&str> = offered.flat_map(|value| value.split(',')).map(str::trim).collect();
    let mut tokens = offered.iter().filter_map(|protocol| protocol.strip_prefix(TOKEN_PROTOCOL));
    let encoded = tokens.next().filter(|encoded| !encoded.is_empty() && upgrades)?;
    if tokens.next().is_some() || offered.len() < 2 {
        return None;
    }
    String::from_utf8(URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
}

/// The protocols that a WebSocket is offered, without a token among them.
pub(super) fn without_token(value: &HeaderValue) -> Option<HeaderValue> {
    let text = value.to_str().ok()?;
    let kept = text.split(',').map(str::trim).filter(|protocol| !protocol.starts_with(TOKEN_PROTOCOL));
    HeaderValue::from_str(&kept.collect::<Vec<_>>().join(", ")).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
#[path = "authn_tests.rs"]
mod tests;
