//! What is said of a certificate: in the log when it changes, in healthz all the time.

use std::sync::{Arc, Mutex, PoisonError};

use crate::api::view::HealthCheck;

/// How a certificate stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Whether it can be used and nothing is to be done by anybody.
    pub well: bool,
    /// In words, nothing secret.
    pub message: String,
}

/// The last word on a certificate.
pub struct Shown {
    name: &'static str,
    told: Mutex<Told>,
}

impl Shown {
    /// Under the name of a health check.
    pub(super) fn new(name: &'static str, message: &str) -> Arc<Self> {
        Arc::new(Self { name, told: Mutex::new(Told { well: false, message: message.to_owned() }) })
    }

    /// All is well.
    pub(super) fn well(&self, message: String) {
        self.tell(Told { well: true, message });
    }

    /// Something is missing.
    pub(super) fn not_yet(&self, message: String) {
        self.tell(Told { well: false, message });
    }

    /// Says it again.
    pub(super) fn remind(&self) {
        tracing::warn!("{}", self.now().message);
    }

    fn tell(&self, told: Told) {
        let mut last = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *last == told {
            return;
        }
        if told.well {
            tracing::info!("{}: {}", self.name, told.message);
        } else {
            tracing::warn!("{}: {}", self.name, told.message);
        }
        *last = told;
    }

    /// The last word.
    pub fn now(&self) -> Told {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// As healthz shows it. A restart of the agent mends nothing here.
    pub fn check(&self) -> HealthCheck {
        let Told { well: ok, message } = self.now();
        HealthCheck { name: self.name.to_owned(), ok, fatal: false, message }
    }
}
