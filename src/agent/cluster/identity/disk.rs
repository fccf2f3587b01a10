//! The node's identity as it stands on the disk, and what is to be done about it. Blocks on the file system.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use crate::{
    api::certificate::Certificate,
    files,
    kube::{Kubeconfig, KubeconfigError},
    policy::rotation::Wanted,
    store::pairs::{Pair, PairError, PairStore},
};

/// Where a node's identity is kept, and for whom it is.
#[derive(Debug, Clone)]
pub struct Places {
    /// The node's name.
    pub node_name: String,
    /// `--kubeconfig`.
    pub kubeconfig: PathBuf,
    /// `--bootstrap-kubeconfig`.
    pub bootstrap: Option<PathBuf>,
    /// Pairs of the client certificate.
    pub store: PairStore,
    /// Whether the client certificate is renewed (`rotateCertificates`): the store's counts then, if it is newer than
    /// the kubeconfig's.
    pub rotate: bool,
}

/// A client certificate that is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The certificate.
    pub certificate: Certificate,
    /// The file that it stands in.
    pub file: PathBuf,
    /// Since when it is there.
    pub obtained: Timestamp,
}

/// What there is.
#[derive(Debug)]
pub enum Found {
    /// Credentials to use; without a certificate they are a token.
    Ready {
        /// The server and who we are.
        kubeconfig: Box<Kubeconfig>,
        /// The certificate among it.
        held: Option<Box<Held>>,
    },
    /// None, but a way to get some.
    Bootstrap {
        /// Who we are until then.
        bootstrap: Box<Kubeconfig>,
        /// Why there are none.
        why: String,
    },
    /// None, and no way to get some.
    Stuck {
        /// Why, and what to do.
        why: String,
    },
}

impl Places {
    /// Looks at the files, mends what a crash has left half done, and says what there is.
    pub fn look(&self, now: Timestamp) -> Found {
        self.mend(now);
        let mut why = match Kubeconfig::read(&self.kubeconfig) {
            Ok(kubeconfig) => match self.ready(kubeconfig, now) {
                Ok(ready) => return ready,
                Err(why) => why,
            },
            Err(error) => error.to_string(),
        };
        let Some(path) = &self.bootstrap else {
            return Found::Stuck { why: format!("{why}. {}", self.advice()) };
        };
        let bootstrap = Kubeconfig::read(path).and_then(|bootstrap| bootstrap.check().map(|()| bootstrap));
        let bootstrap = match bootstrap {
            Ok(bootstrap) => bootstrap,
            Err(error) => {
                return Found::Stuck { why: format!("{why}; bootstrap {error}. {}", self.advice()) };
            }
        };
        // The certificate was kept, and then we were killed: all that is missing is the kubeconfig. One from another
        // cluster may be left there as well, which its authority tells.
        let kept = self.store.current().ok().filter(|pair| self.is_good(pair, now));
        if let Some(pair) = kept.filter(|pair| is_from(&bootstrap, &pair.certificate)) {
            match self.finish(&bootstrap) {
                Ok(kubeconfig) => match self.ready(kubeconfig, now) {
                    Ok(ready) => return ready,
                    Err(other) => why = other,
                },
                Err(error) => {
                    why = format!("{why}; the certificate {} is kept, but {error}", pair.file.display());
                }
            }
        }
        Found::Bootstrap { bootstrap: Box::new(bootstrap), why }
    }

    /// Writes the kubeconfig that has the store's certificate.
    ///
    /// # Errors
    /// In words, when it cannot be written or read back.
    pub fn finish(&self, bootstrap: &Kubeconfig) -> Result<Kubeconfig, String> {
        let path = &self.kubeconfig;
        let certificate =
            std::path::absolute(self.store.current_path()).map_err(|error| error.to_string())?;
        let written = path
            .parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .and_then(|()| files::replace(path, bootstrap.for_node(&certificate).as_bytes(), 0o600));
        written.map_err(|error| format!("kubeconfig {} cannot be written: {error}", path.display()))?;
        Kubeconfig::read(path).map_err(|error: KubeconfigError| error.to_string())
    }

    /// The files' state, to see from afar that something has changed.
    pub fn stamp(&self) -> Stamp {
        let current = self.store.current_path();
        Stamp::of([Some(self.kubeconfig.as_path()), Some(&current), self.bootstrap.as_deref()])
    }

    fn ready(&self, kubeconfig: Kubeconfig, now: Timestamp) -> Result<Found, String> {
        let path = &self.kubeconfig;
        let own = kubeconfig.certificate().map(|(chain, _)| {
            let certificate = Certificate::leaf(chain);
            let file = kubeconfig.certificate_file().unwrap_or(path).to_owned();
            let obtained = modified(&file);
            (certificate, file, obtained)
        });
        let own = match own {
            None => None,
            Some((Ok(certificate), file, obtained)) => {
                Some(Held { obtained: obtained.unwrap_or(certificate.not_before), certificate, file })
            }
            Some((Err(error), file, _)) => {
                return Err(format!("client certificate {} {error}", file.display()));
            }
        };
        let kept = self.rotate.then(|| self.store.current().ok()).flatten();
        let kept = kept.filter(|pair| self.is_good(pair, now));
        // The newer one counts: a kubeconfig with another one in it was put there for a reason.
        if let Some(pair) = kept.filter(|pair| own.as_ref().is_none_or(|own| self.is_better(pair, own, now)))
        {
            let kubeconfig = Box::new(kubeconfig.with_certificate(&pair.chain, &pair.key));
            kubeconfig.check().map_err(|error| error.to_string())?;
            let held = Held { certificate: pair.certificate, file: pair.file, obtained: pair.obtained };
            return Ok(Found::Ready { kubeconfig, held: Some(Box::new(held)) });
        }
        kubeconfig.check().map_err(|error| error.to_string())?;
        match own {
            Some(held) if held.certificate.not_after <= now => Err(format!(
                "the client certificate {} has expired on {}",
                held.file.display(),
                held.certificate.not_after
            )),
            // With a way to a certificate, a token is not enough; as with kubelet.
            None if self.bootstrap.as_ref().is_some_and(|path| path.exists()) => {
                Err(format!("kubeconfig {} has no client certificate", path.display()))
            }
            held => Ok(Found::Ready { kubeconfig: Box::new(kubeconfig), held: held.map(Box::new) }),
        }
    }

    fn is_good(&self, pair: &Pair, now: Timestamp) -> bool {
        now < pair.certificate.not_after
            && Wanted::client(&self.node_name).lacking(&pair.certificate).is_none()
    }

    fn is_better(&self, pair: &Pair, own: &Held, now: Timestamp) -> bool {
        let wanted = Wanted::client(&self.node_name);
        own.certificate.not_after <= now
            || wanted.lacking(&own.certificate).is_some()
            || own.certificate.not_before < pair.certificate.not_before
    }

    /// Where the current pair is torn, the newest one that is whole takes its place.
    fn mend(&self, now: Timestamp) {
        let current = self.store.current_path();
        let torn = match self.store.current() {
            Ok(_) => return,
            Err(error @ PairError::Broken { .. }) => error.to_string(),
            Err(error) if error.is_missing() && !current.is_symlink() => return,
            Err(error) => error.to_string(),
        };
        let Some(pair) = self.store.newest(|pair| self.is_good(pair, now)) else { return };
        match self.store.take_back(&pair) {
            Ok(()) => tracing::warn!("{torn}: taking {} instead", pair.file.display()),
            Err(error) => {
                tracing::warn!("{torn}, and {} cannot take its place: {error}", pair.file.display());
            }
        }
    }

    fn advice(&self) -> String {
        let node = &self.node_name;
        let bootstrap = match &self.bootstrap {
            Some(path) => format!("put a bootstrap kubeconfig with a valid token at {}", path.display()),
            None => "give a bootstrap kubeconfig with a valid token (--bootstrap-kubeconfig)".to_owned(),
        };
        format!(
            "To join again, {bootstrap} (kubeadm token create --print-join-command), or make a new kubeconfig where \
             the cluster's keys are (kubeadm kubeconfig user --org=system:nodes --client-name=system:node:{node}) and \
             put it at {}; it is taken at once",
            self.kubeconfig.display()
        )
    }
}

/// Whether the authorities of a kubeconfig have issued a certificate.
fn is_from(kubeconfig: &Kubeconfig, certificate: &Certificate) -> bool {
    let authorities = kubeconfig.authority().and_then(|pem| Certificate::chain(pem).ok());
    authorities.is_some_and(|authorities| certificate.is_from(&authorities))
}

fn modified(path: &Path) -> Option<Timestamp> {
    let time = std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()?;
    Timestamp::try_from(time).ok()
}

/// Which files there are, as far as can be told without reading them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp(Vec<Option<(u64, u64, i64, i64)>>);

impl Stamp {
    /// That of these files.
    pub fn of<'a>(paths: impl IntoIterator<Item = Option<&'a Path>>) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        let stamp = |path: &Path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec()))
        };
        Self(paths.into_iter().map(|path| path.and_then(stamp)).collect())
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
