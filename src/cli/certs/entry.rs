//! One certificate as it is listed.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::api::certificate::Certificate;

/// Who renews nothing by itself is to be told this long before.
const SOON: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A certificate, or a file that should have one.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Entry {
    /// What it is for: `client`, `serving`, `control-plane/apiserver`.
    pub(super) name: String,
    /// Where it stands.
    pub(super) file: PathBuf,
    /// What it says; nothing if it cannot be read.
    #[serde(flatten)]
    pub(super) details: Option<Details>,
    /// Who renews it: `agent`, `kubeadm`, `nobody`.
    pub(super) renewed_by: String,
    /// When, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) renews_at: Option<Timestamp>,
    /// What is wrong.
    pub(super) problems: Vec<String>,
}

/// What a certificate says.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Details {
    pub(super) subject: String,
    pub(super) issuer: String,
    serial_number: String,
    dns_names: Vec<String>,
    ip_addresses: Vec<String>,
    not_before: Timestamp,
    pub(super) not_after: Timestamp,
    remaining_seconds: i64,
    is_authority: bool,
}

impl Details {
    /// All that it is for.
    pub(super) fn names(&self) -> Vec<String> {
        self.dns_names.iter().chain(&self.ip_addresses).cloned().collect()
    }
}

impl Entry {
    /// One that can be read.
    pub(super) fn new(
        name: &str,
        file: &Path,
        certificate: &Certificate,
        renewed_by: &str,
        now: Timestamp,
    ) -> Self {
        let left = certificate.not_after.duration_since(now);
        let mut problems = Vec::new();
        if left <= SignedDuration::ZERO {
            problems.push("expired".to_owned());
        } else if left < SOON && renewed_by != "agent" {
            problems.push("expires soon".to_owned());
        }
        if now < certificate.not_before {
            problems.push(format!("not good before {}", certificate.not_before));
        }
        let details = Details {
            subject: certificate.subject.clone(),
            issuer: certificate.issuer.clone(),
            serial_number: certificate.serial.clone(),
            dns_names: certificate.dns_names.clone(),
            ip_addresses: certificate.addresses.iter().map(ToString::to_string).collect(),
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            remaining_seconds: left.as_secs(),
            is_authority: certificate.is_authority,
        };
        Self {
            name: name.to_owned(),
            file: file.to_owned(),
            details: Some(details),
            renewed_by: renewed_by.to_owned(),
            renews_at: None,
            problems,
        }
    }

    /// One that cannot.
    pub(super) fn unreadable(name: &str, file: &Path, renewed_by: &str, problem: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            file: file.to_owned(),
            details: None,
            renewed_by: renewed_by.to_owned(),
            renews_at: None,
            problems: vec![problem.into()],
        }
    }

    /// Adds what is wrong with the file that the key stands in.
    pub(super) fn check_mode(&mut self, key: &Path) {
        use std::os::unix::fs::MetadataExt as _;
        let Ok(metadata) = std::fs::metadata(key) else { return };
        let mode = metadata.mode() & 0o777;
        if mode & 0o077 != 0 {
            self.problems.push(format!("{} is open to others (mode {mode:04o})", key.display()));
        }
    }
}
