//! A certificate with its private key, in kubelet's layout (client-go's `util/certificate` file store), so that
//! either agent takes over what the other has left:
//!
//! ```text
//! kubelet-client-current.pem -> kubelet-client-2026-03-01-11-58-47.pem     replaced by one rename
//! kubelet-client-2026-03-01-11-58-47.pem                                  certificates, then the key; 0600
//! kubelet-client.key.tmp                                                  the key of a request under way
//! ```
//!
//! A program that is killed anywhere leaves the old pair or the new one. Where the disk has lost what was in it, the
//! newest of the earlier files that can be used counts.
//!
//! All calls block on the disk.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, symlink},
    path::{Path, PathBuf},
};

use jiff::{Timestamp, tz::TimeZone};

use crate::{
    api::certificate::{Certificate, CertificateError},
    files,
};

/// How many pairs are kept besides the current one.
const KEPT: usize = 4;
/// Names that are looked at in the folder; others have put the rest there.
const MAX_NAMES: usize = 10_000;

/// Why a pair cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PairError {
    /// The file system refuses.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// What stands there is no certificate with its key.
    #[error("{} {source}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: CertificateError,
    },
}

impl PairError {
    /// Whether there is just no file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// A certificate with its key.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The file with the certificate; behind a link, where that leads.
    pub file: PathBuf,
    /// The certificate, and those that vouch for it, as PEM. What else stood in the file is in it too.
    pub chain: Vec<u8>,
    /// The private key as PEM. Never printed.
    pub key: Vec<u8>,
    /// The certificate.
    pub certificate: Certificate,
    /// Since when the file is there.
    pub obtained: Timestamp,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The rest is secret.
        f.debug_struct("Pair").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Pair {
    /// Reads a certificate and its key from two files, or from one that has both.
    ///
    /// # Errors
    /// When one cannot be read, or they do not belong together.
    pub fn read(certificate: &Path, key: &Path) -> Result<Self, PairError> {
        let (chain, metadata) = files::read_with(certificate).map_err(failed("read", certificate))?;
        let other =
            if key == certificate { chain.clone() } else { files::read(key).map_err(failed("read", key))? };
        let obtained = metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
        let leaf = Certificate::leaf(&chain).map_err(broken(certificate))?;
        leaf.check_key(&other).map_err(broken(key))?;
        Ok(Self {
            file: fs::canonicalize(certificate).unwrap_or_else(|_error| certificate.to_owned()),
            chain,
            key: other,
            obtained: obtained.unwrap_or(leaf.not_before),
            certificate: leaf,
        })
    }
}

/// The pairs of one purpose in a folder.
#[derive(Debug, Clone)]
pub struct PairStore {
    folder: PathBuf,
    prefix: &'static str,
}

impl PairStore {
    /// Those that identify the node to the API server.
    pub fn client(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), prefix: "kubelet-client" }
    }

    /// Those that identify the node to who asks it.
    pub fn server(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), prefix: "kubelet-server" }
    }

    /// The link to the pair in use.
    pub fn current_path(&self) -> PathBuf {
        self.folder.join(format!("{}-current.pem", self.prefix))
    }

    /// The pair in use. A swap that another program was killed in is finished first.
    ///
    /// # Errors
    /// [`PairError::is_missing`] when there is none.
    pub fn current(&self) -> Result<Pair, PairError> {
        let current = self.current_path();
        let updated = self.folder.join(format!("{}-updated.pem", self.prefix));
        if !current.exists() && updated.is_symlink() {
            fs::rename(&updated, &current).map_err(failed("replace", &current))?;
        }
        Pair::read(&current, &current)
    }

    /// The newest earlier pair that can be used.
    pub fn newest(&self, usable: impl Fn(&Pair) -> bool) -> Option<Pair> {
        let names = self.dated().ok()?;
        names.iter().rev().find_map(|name| {
            let path = self.folder.join(name);
            Pair::read(&path, &path).ok().filter(|pair| usable(pair))
        })
    }

    /// Makes this the pair in use, and removes old ones but some.
    ///
    /// # Errors
    /// When the two do not belong together, or the disk refuses; the former pair stays in use then.
    pub fn update(&self, chain: &[u8], key: &[u8], now: Timestamp) -> Result<Pair, PairError> {
        let current = self.current_path();
        let leaf = Certificate::leaf(chain).map_err(broken(&current))?;
        leaf.check_key(key).map_err(broken(&current))?;
        self.make_folder()?;
        let time = now.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d-%H-%M-%S").to_string();
        // One of this second may be there already, and in use.
        let name = (0..).map(|count| match count {
            0 => format!("{}-{time}.pem", self.prefix),
            count => format!("{}-{time}-{count}.pem", self.prefix),
        });
        let Some(name) = name.take(1000).find(|name| !self.folder.join(name).exists()) else {
            let source = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(PairError::Io { action: "make", path: current, source });
        };
        let path = self.folder.join(&name);
        let mut text = chain.to_vec();
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        text.extend_from_slice(key);
        files::replace(&path, &text, 0o600).map_err(failed("write", &path))?;
        self.link(&name)?;
        self.prune(&name);
        Pair::read(&current, &current)
    }

    /// Puts an earlier pair in use again.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn take_back(&self, pair: &Pair) -> Result<(), PairError> {
        match pair.file.file_name().and_then(|name| name.to_str()) {
            Some(name) if self.folder.join(name).is_file() => self.link(name),
            _ => Ok(()),
        }
    }

    /// The key of a request under way.
    pub fn pending_key(&self) -> Option<String> {
        files::read(&self.pending_path()).ok().and_then(|bytes| String::from_utf8(bytes).ok())
    }

    /// Keeps the key of a request under way, so that the next agent finds that request again.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn keep_pending_key(&self, pem: &str) -> Result<(), PairError> {
        self.make_folder()?;
        let path = self.pending_path();
        files::replace(&path, pem.as_bytes(), 0o600).map_err(failed("write", &path))
    }

    /// Forgets it.
    pub fn drop_pending_key(&self) {
        // A key that stays is tried again, and found to be of a request that is done.
        fs::remove_file(self.pending_path()).ok();
    }

    fn pending_path(&self) -> PathBuf {
        self.folder.join(format!("{}.key.tmp", self.prefix))
    }

    fn make_folder(&self) -> Result<(), PairError> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o755).create(&self.folder).map_err(failed("make", &self.folder))
    }

    fn link(&self, name: &str) -> Result<(), PairError> {
        let (current, updated) =
            (self.current_path(), self.folder.join(format!("{}-updated.pem", self.prefix)));
        let linked = || {
            fs::remove_file(&updated).or_else(files::missing)?;
            // Beside it in the folder, so that it leads there wherever the folder is mounted.
            symlink(name, &updated)?;
            if current.symlink_metadata().is_ok_and(|metadata| metadata.is_file()) {
                // Somebody has put a file in the link's place. It is kept.
                let kept = self.folder.join(format!("{}-replaced.pem", self.prefix));
                fs::rename(&current, kept)?;
            }
            fs::rename(&updated, &current)?;
            files::flush_folder(&self.folder)
        };
        linked().map_err(failed("replace", &current))
    }

    /// Files of pairs by their dates, the oldest first.
    fn dated(&self) -> io::Result<Vec<String>> {
        let mut names: Vec<String> = fs::read_dir(&self.folder)?
            .take(MAX_NAMES)
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| is_dated(name, self.prefix))
            .collect();
        names.sort();
        Ok(names)
    }

    fn prune(&self, current: &str) {
        let Ok(mut names) = self.dated() else { return };
        names.retain(|name| name != current);
        let old = names.len().saturating_sub(KEPT);
        for name in &names[..old] {
            // It is in nobody's way.
            fs::remove_file(self.folder.join(name)).ok();
        }
    }
}

/// Whether it is a name that [`PairStore::update`] or kubelet gives.
fn is_dated(name: &str, prefix: &str) -> bool {
    let Some(date) = name
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('-'))
        .and_then(|rest| rest.strip_suffix(".pem"))
    else {
        return false;
    };
    let numbers: Vec<&str> = date.split('-').collect();
    matches!(numbers.len(), 6 | 7)
        && numbers[0].len() == 4
        && numbers[1..].iter().all(|number| (1..=3).contains(&number.len()))
        && numbers.iter().all(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PairError {
    let path = path.to_owned();
    move |source| PairError::Io { action, path, source }
}

fn broken(path: &Path) -> impl FnOnce(CertificateError) -> PairError {
    let path = path.to_owned();
    move |source| PairError::Broken { path, source }
}

#[cfg(test)]
#[path = "pairs_tests.rs"]
mod tests;
