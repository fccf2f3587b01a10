//! One GET of a manifest URL: bounded in time, size and redirects, with errors that hold no secret.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::api::manifest::MAX_MANIFEST_BYTES;

/// The time for one attempt, redirects and body included; kubelet's.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The most redirects that are followed; that of Go's client.
const MAX_REDIRECTS: usize = 10;

/// Why a manifest URL or its headers cannot be used at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HttpSourceError {
    /// Not an absolute URL of a scheme that is spoken.
    #[error("manifest url {url}: {reason}")]
    Url {
        /// The URL, without query and credentials.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A name or value that cannot be sent; the value is not shown.
    #[error("manifest url header {name:?}: {reason}")]
    Header {
        /// The header's name.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// No certificate authorities for an https URL.
    #[error("manifest url: certificates of the system cannot be loaded: {0}")]
    Roots(String),
}

/// A GET that can be repeated.
pub(super) struct ManifestClient {
    transport: Transport,
    uri: Uri,
    headers: HeaderMap,
}

impl ManifestClient {
    pub(super) fn new(url: &str, headers: &[(String, String)]) -> Result<Self, HttpSourceError> {
        let bad = |reason: &str| HttpSourceError::Url { url: shown_url(url), reason: reason.to_owned() };
        let uri: Uri = url.parse().map_err(|_invalid| bad("is not a valid URL"))?;
        match uri.scheme_str() {
            Some("http" | "https") => {}
            _ => return Err(bad("must start with http:// or https://")),
        }
        if uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err(bad("credentials in the URL are not supported, give them as a manifest url header"));
        }
        Ok(Self { transport: Transport::new(&uri)?, uri, headers: header_map(headers)? })
    }

    /// Fetches the body of a 200 answer.
    ///
    /// # Errors
    /// In words, for the operator: what the server answered, or why it did not.
    pub(super) async fn get(&self) -> Result<Bytes, String> {
        match tokio::time::timeout(TIMEOUT, self.follow()).await {
            Ok(result) => result,
            Err(_elapsed) => Err(format!("no full answer within {} s", TIMEOUT.as_secs())),
        }
    }

    async fn follow(&self) -> Result<Bytes, String> {
        let mut uri = self.uri.clone();
        for _ in 0..=MAX_REDIRECTS {
            let mut request = Request::builder().method(Method::GET).uri(uri.clone());
            if let Some(headers) = request.headers_mut() {
                headers.extend(self.headers.clone());
            }
            let request = request.body(Empty::new()).map_err(|e| format!("request cannot be made: {e}"))?;
            let answer = self.transport.request(request).await?;
            let status = answer.status();
            if is_redirect(status) {
                uri = redirected(&uri, answer.headers().get(LOCATION))?;
                continue;
            }
            if status != StatusCode::OK {
                return Err(format!("server answered {status}"));
            }
            let body = Limited::new(answer.into_body(), MAX_MANIFEST_BYTES).collect().await;
            return match body {
                Ok(body) => Ok(body.to_bytes()),
                Err(error) if error.is::<LengthLimitError>() => {
                    Err(format!("answer is larger than {MAX_MANIFEST_BYTES} bytes"))
                }
                Err(error) => Err(format!("answer broke off: {error}")),
            };
        }
        Err(format!("more than {MAX_REDIRECTS} redirects"))
    }
}

/// TLS needs the system's certificates, which are many and on disk: loaded only for https. A
/// redirect never changes the scheme, so one of the two is enough.
enum Transport {
    Plain(Client<HttpConnector, Empty<Bytes>>),
    Tls(Client<HttpsConnector<HttpConnector>, Empty<Bytes>>),
}

impl Transport {
    fn new(uri: &Uri) -> Result<Self, HttpSourceError> {
        let mut client = Client::builder(TokioExecutor::new());
        client.pool_max_idle_per_host(1);
        if uri.scheme_str() != Some("https") {
            return Ok(Self::Plain(client.build_http()));
        }
        let connector = HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(|e| HttpSourceError::Roots(e.to_string()))?
            .https_only()
            .enable_http1()
            .build();
        Ok(Self::Tls(client.build(connector)))
    }

    async fn request(&self, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, String> {
        match self {
            Self::Plain(client) => client.request(request).await,
            Self::Tls(client) => client.request(request).await,
        }
        .map_err(|e| in_words(&e))
    }
}

fn header_map(headers: &[(String, String)]) -> Result<HeaderMap, HttpSourceError> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let bad = |reason| HttpSourceError::Header { name: name.clone(), reason };
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_invalid| bad("is not a header name"))?;
        let mut value =
            HeaderValue::from_str(value).map_err(|_invalid| bad("has a value that cannot be sent"))?;
        // Keeps it out of debug output.
        value.set_sensitive(true);
        map.append(key, value);
    }
    Ok(map)
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect leads. The configured headers may hold a secret, so only the same host is
/// followed.
fn redirected(from: &Uri, location: Option<&HeaderValue>) -> Result<Uri, String> {
    let text = location.and_then(|l| l.to_str().ok()).ok_or("redirect without a usable location")?;
    let to: Uri = if text.starts_with('/') && !text.starts_with("//") {
        let mut parts = from.clone().into_parts();
        parts.path_and_query = Some(text.parse().map_err(|_invalid| "redirect to an invalid location")?);
        Uri::from_parts(parts).map_err(|_invalid| "redirect to an invalid location")?
    } else {
        text.parse().map_err(|_invalid| "redirect to an invalid location")?
    };
    if to.scheme() != from.scheme() || to.authority() != from.authority() {
        return Err(format!("redirect to another host or scheme, {}, is not followed", shown_url(text)));
    }
    Ok(to)
}

/// An error with its causes; hyper's own say only "client error (Connect)".
fn in_words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !words.contains(&text) {
            words.push_str(": ");
            words.push_str(&text);
        }
        cause = error.source();
    }
    words
}

/// A URL without what may be secret: credentials, query and fragment.
pub(super) fn shown_url(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let (base, rest) = url.split_at(end);
    let base = match base.split_once("://") {
        Some((scheme, after)) => {
            let slash = after.find('/').unwrap_or(after.len());
            let (authority, path) = after.split_at(slash);
            let host = authority.rsplit('@').next().unwrap_or(authority);
            format!("{scheme}://{host}{path}")
        }
        None => base.to_owned(),
    };
    if rest.is_empty() { base } else { format!("{base}?...") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_a_url_are_not_shown() {
        for (url, want) in [
            ("http://a/b", "http://a/b"),
            ("https://u:p@a:1/b?token=x#y", "https://a:1/b?..."),
            ("http://u@a", "http://a"),
            ("junk?x", "junk?..."),
        ] {
            assert_eq!(shown_url(url), want);
        }
    }

    #[test]
    fn unusable_urls_and_headers_are_refused() {
        let error =
            |url: &str| ManifestClient::new(url, &[]).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error("ftp://a/").contains("must start with http"));
        assert!(error("/path").contains("must start with http"));
        assert!(error("http://a b/").contains("not a valid URL"));
        let message = error("http://user:secret@a/");
        assert!(message.contains("credentials") && !message.contains("secret"), "{message}");
        let error = ManifestClient::new("http://a/", &[("X-A".into(), "se\ncret".into())]).err().unwrap();
        assert!(!error.to_string().contains("cret\""), "{error}");
        assert!(ManifestClient::new("http://a/", &[("a b".into(), "x".into())]).is_err());
    }

    #[test]
    fn https_needs_only_the_certificates_of_the_system() {
        match ManifestClient::new("https://a/", &[]) {
            Ok(made) => assert!(matches!(made.transport, Transport::Tls(_))),
            Err(error) => assert!(matches!(error, HttpSourceError::Roots(_)), "{error}"),
        }
    }

    #[test]
    fn redirects_stay_on_their_host() {
        let from: Uri = "http://a/x".parse().unwrap();
        let to = |l: &'static str| redirected(&from, Some(&HeaderValue::from_static(l)));
        assert_eq!(to("/y?z").unwrap(), "http://a/y?z");
        assert_eq!(to("http://a/y").unwrap(), "http://a/y");
        for elsewhere in ["http://b/", "//b/", "https://a/", "http://a:81/"] {
            assert!(to(elsewhere).is_err(), "{elsewhere}");
        }
        assert!(redirected(&from, None).is_err());
    }
}
