//! When a certificate is renewed, and whether it is the one that is wanted.

use std::{collections::BTreeSet, net::IpAddr};

use jiff::{SignedDuration, Timestamp};

use crate::api::certificate::Certificate;

/// Least time between two certificates.
const PAUSE: SignedDuration = SignedDuration::from_secs(5);
/// The same after one that was not what was wanted.
const LONG_PAUSE: SignedDuration = SignedDuration::from_secs(60);

/// The group that all nodes are in.
pub const NODES: &str = "system:nodes";

/// The name that a node goes by at the API server.
pub fn user_of(node_name: &str) -> String {
    format!("system:node:{node_name}")
}

/// Whom and what a node's certificate is to be for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The node's name.
    pub node_name: String,
    /// DNS names of a serving certificate.
    pub dns_names: BTreeSet<String>,
    /// Addresses of a serving certificate.
    pub addresses: BTreeSet<IpAddr>,
}

impl Wanted {
    /// The certificate that a node shows to the API server.
    pub fn client(node_name: &str) -> Self {
        Self { node_name: node_name.to_owned(), dns_names: BTreeSet::new(), addresses: BTreeSet::new() }
    }

    /// What a certificate lacks of this, in words. What it has besides is fine, as with kubelet.
    pub fn lacking(&self, certificate: &Certificate) -> Option<String> {
        let user = user_of(&self.node_name);
        if certificate.common_name != user {
            return Some(format!("it is for {:?} and not for {user:?}", certificate.common_name));
        }
        if !certificate.organizations.iter().any(|group| group == NODES) {
            return Some(format!("it is not for the group {NODES:?}"));
        }
        let name = self.dns_names.iter().find(|name| !certificate.dns_names.contains(name));
        let address = self.addresses.iter().find(|address| !certificate.addresses.contains(address));
        match (name, address) {
            (Some(name), _) => Some(format!("it is not for the name {name}")),
            (None, Some(address)) => Some(format!("it is not for the address {address}")),
            (None, None) => None,
        }
    }
}

/// When a certificate is to be renewed: after 70 to 90 % of its life, as kubelet does. Where in between follows from
/// the certificate, so that nodes that joined together do not renew together, and that a restart does not roll the
/// dice again.
///
/// `obtained` is since when we have it. Signers date certificates back by some minutes, which would be more than the
/// whole life of a very short one.
pub fn renew_at(certificate: &Certificate, obtained: Timestamp) -> Timestamp {
    let since = certificate.not_before.max(obtained.min(certificate.not_after));
    let life = certificate.not_after.duration_since(since).max(SignedDuration::ZERO);
    let [first, second, ..] = certificate.fingerprint();
    let share = 0.7 + 0.2 * f64::from(u16::from_be_bytes([first, second])) / f64::from(u16::MAX);
    // Not more than the life, so that it cannot leave the range of times.
    let waited = SignedDuration::try_from_secs_f64(life.as_secs_f64() * share).unwrap_or(life).min(life);
    since.checked_add(waited).unwrap_or(certificate.not_after)
}

/// When a certificate that is wanted like this is to be renewed, and what it lacks if that is why. One that the
/// signer made shorter or otherwise than it was asked for is not asked for again at once.
pub fn due(certificate: &Certificate, obtained: Timestamp, wanted: &Wanted) -> (Timestamp, Option<String>) {
    let lacking = wanted.lacking(certificate);
    let (at, pause) = match lacking {
        None => (renew_at(certificate, obtained), PAUSE),
        Some(_) => (certificate.not_before, LONG_PAUSE),
    };
    (at.max(obtained.checked_add(pause).unwrap_or(obtained)), lacking)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn certificate() -> Certificate {
        Certificate::leaf(include_bytes!("../../tests/data/tls-streams.crt")).unwrap()
    }

    #[test]
    fn what_is_lacking_is_told() {
        let mut certificate = certificate();
        let mut wanted = Wanted::client("a");
        assert!(wanted.lacking(&certificate).unwrap().contains("not for \"system:node:a\""));
        certificate.common_name = "system:node:a".to_owned();
        assert!(wanted.lacking(&certificate).unwrap().contains("the group \"system:nodes\""));
        certificate.organizations = vec!["x".to_owned(), NODES.to_owned()];
        assert_eq!(wanted.lacking(&certificate), None);
        wanted.addresses.insert("fd00::1".parse().unwrap());
        assert_eq!(wanted.lacking(&certificate).unwrap(), "it is not for the address fd00::1");
        wanted.dns_names.insert("a".to_owned());
        assert_eq!(wanted.lacking(&certificate).unwrap(), "it is not for the name a");
        certificate.dns_names.push("a".to_owned());
        certificate.addresses.push("fd00::1".parse().unwrap());
        assert_eq!(wanted.lacking(&certificate), None);
    }

    proptest! {
        #[test]
        fn it_is_within_the_life_that_we_have_it(start in 0i64..4_000_000_000, life in 0i64..400_000_000, had in -1000i64..500_000_000) {
            let time = |seconds| Timestamp::from_second(seconds).unwrap();
            let mut certificate = certificate();
            (certificate.not_before, certificate.not_after) = (time(start), time(start + life));
            let at = renew_at(&certificate, time((start + had).max(0)));
            let since = start.max((start + had).max(0).min(start + life));
            let rest = start + life - since;
            let whole = SignedDuration::from_secs(rest).as_secs_f64();
            let waited = at.duration_since(time(since)).as_secs_f64();
            prop_assert!(waited >= whole * 0.699 && waited <= whole * 0.901, "{waited} of {whole}");
        }
    }

    #[test]
    fn what_is_not_wanted_is_renewed_soon_and_not_at_once() {
        let certificate = certificate();
        let got = certificate.not_before.checked_add(SignedDuration::from_hours(1)).unwrap();
        let (at, lacking) = due(&certificate, got, &Wanted::client("a"));
        assert!(lacking.is_some());
        assert_eq!(at.duration_since(got), LONG_PAUSE);
        let mut wanted = Wanted::client("a");
        let mut short = certificate;
        (short.common_name, short.organizations) = (user_of("a"), vec![NODES.to_owned()]);
        short.not_after = got.checked_add(SignedDuration::from_secs(2)).unwrap();
        assert_eq!(due(&short, got, &wanted), (got.checked_add(PAUSE).unwrap(), None));
        wanted.node_name = "b".to_owned();
        assert!(due(&short, got, &wanted).1.is_some());
    }

    #[test]
    fn one_for_ever_is_no_problem() {
        let mut certificate = certificate();
        certificate.not_after = Timestamp::MAX;
        certificate.not_before = Timestamp::MIN;
        let at = renew_at(&certificate, Timestamp::MIN);
        assert!(at > Timestamp::MIN && at < Timestamp::MAX);
    }
}
