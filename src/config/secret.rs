//! Configuration values that may carry credentials: they are kept whole, and printed without them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// HTTP headers by name, each with one or more values. Values are never printed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HeaderMap(BTreeMap<String, Vec<String>>);

impl HeaderMap {
    /// Every name and value, in the order of the names; values of one name keep their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .flat_map(|(name, values)| values.iter().map(move |value| (name.as_str(), value.as_str())))
    }

    /// Whether there is no header.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<BTreeMap<String, Vec<String>>> for HeaderMap {
    fn from(headers: BTreeMap<String, Vec<String>>) -> Self {
        Self(headers)
    }
}

impl fmt::Debug for HeaderMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.keys().map(|name| (name, "<redacted>"))).finish()
    }
}

impl fmt::Display for HeaderMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.0.keys().enumerate() {
            write!(f, "{}{name}: <redacted>", if i == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// A URL whose user name, password and query are not printed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretUrl(String);

impl SecretUrl {
    /// The URL as it was given.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether no URL is set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for SecretUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").map_or(("", self.0.as_str()), |(s, r)| (s, r));
        let (authority, path) = rest.find(['/', '?', '#']).map_or((rest, ""), |at| rest.split_at(at));
        let host = authority.rsplit_once('@').map_or(authority, |(_credentials, host)| host);
        let (path, query) = path.split_once('?').map_or((path, false), |(path, _query)| (path, true));
        if !scheme.is_empty() {
            write!(f, "{scheme}://")?;
        }
        if host.len() != authority.len() {
            f.write_str("<redacted>@")?;
        }
        write!(f, "{host}{path}{}", if query { "?<redacted>" } else { "" })
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_values_are_not_printed() {
        let headers =
            HeaderMap::from(BTreeMap::from([("Authorization".to_owned(), vec!["s3cret".to_owned()])]));
        for text in [format!("{headers:?}"), headers.to_string()] {
            assert!(text.contains("Authorization") && !text.contains("s3cret"), "{text}");
        }
        assert_eq!(headers.iter().collect::<Vec<_>>(), [("Authorization", "s3cret")]);
    }

    #[test]
    fn a_url_is_printed_without_its_credentials() {
        for (url, shown) in [
            ("https://u:p@h.example:8443/pods?token=x", "https://<redacted>@h.example:8443/pods?<redacted>"),
            ("http://h/pods", "http://h/pods"),
            ("http://h?token=x", "http://h?<redacted>"),
            ("", ""),
        ] {
            let url = SecretUrl::from(url.to_owned());
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("\"{shown}\""));
        }
    }
}
