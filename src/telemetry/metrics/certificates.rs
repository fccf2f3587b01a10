//! Figures of the node's own certificates.

use std::{
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus::{Gauge, IntCounter, Registry};

use super::{METRICS, counter};

/// Whose certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateOf {
    /// What the node is known by at the API server.
    Client,
    /// What its own API is known by.
    Server,
}

pub(super) struct Figures {
    client: OfOne,
    server: OfOne,
}

struct OfOne {
    ttl: &'static str,
    /// Until when it is good, seconds since 1970.
    until: Mutex<Option<f64>>,
    errors: IntCounter,
}

impl Figures {
    pub(super) fn new(to: &Registry) -> Result<Self, prometheus::Error> {
        let one = |ttl, errors, help| {
            Ok::<_, prometheus::Error>(OfOne {
                ttl,
                until: Mutex::default(),
                errors: counter(to, errors, help)?,
            })
        };
        Ok(Self {
            client: one(
                "kubelet_certificate_manager_client_ttl_seconds",
                "kubelet_certificate_manager_client_expiration_renew_errors",
                "Tries to get a client certificate that failed.",
            )?,
            server: one(
                "kubelet_certificate_manager_server_ttl_seconds",
                "kubelet_server_expiration_renew_errors",
                "Tries to get a serving certificate that failed.",
            )?,
        })
    }

    fn of(&self, which: CertificateOf) -> &OfOne {
        match which {
            CertificateOf::Client => &self.client,
            CertificateOf::Server => &self.server,
        }
    }

    /// How long they are still good; nothing of one that there is not.
    pub(super) fn told(&self) -> Result<Registry, prometheus::Error> {
        let told = Registry::new();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        for one in [&self.client, &self.server] {
            let Some(until) = *one.until.lock().unwrap_or_else(PoisonError::into_inner) else { continue };
            let ttl = Gauge::new(
                one.ttl,
                "Seconds for which the certificate is still good; below 0 once it has expired.",
            )?;
            ttl.set((until - now).trunc());
            told.register(Box::new(ttl))?;
        }
        Ok(told)
    }
}

/// A certificate is in use that is good until then, in seconds since 1970.
#[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far from where doubles are not whole")]
pub fn certificate(which: CertificateOf, until: i64) {
    let Some(metrics) = METRICS.get() else { return };
    *metrics.certificates.of(which).until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until as f64);
}

/// One could not be had, and is tried again.
pub fn certificate_failed(which: CertificateOf) {
    let Some(metrics) = METRICS.get() else { return };
    metrics.certificates.of(which).errors.inc();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_told_by_the_time_that_is_left() {
        let figures = Figures::new(&Registry::new()).unwrap();
        let text = || {
            let told = figures.told().unwrap().gather();
            prometheus::TextEncoder::new().encode_to_string(&told).unwrap()
        };
        assert_eq!(text(), "");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        *figures.client.until.lock().unwrap() = Some(now + 1000.9);
        *figures.server.until.lock().unwrap() = Some(now - 10.0);
        let told = text();
        assert!(told.contains("\nkubelet_certificate_manager_client_ttl_seconds 1000\n"), "{told}");
        assert!(told.contains("\nkubelet_certificate_manager_server_ttl_seconds -10\n"), "{told}");
    }
}
