//! The certificate that the node shows to those who connect to it: the API server for logs and exec, collectors of
//! metrics. It follows its files while connections are served.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use jiff::Timestamp;
use rustls::{
    crypto::ring::sign::any_supported_type,
    pki_types::{PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio_util::sync::CancellationToken;

use super::{
    Asking, Stamp,
    pause::{self, Backoff},
    told::Shown,
    wait_for,
};
use crate::{
    api::certificate::{CertificateError, certificates},
    config::AgentConfig,
    files,
    kube::{ApiServer, Key, csr::Purpose, self_signed},
    policy::rotation::{Wanted, due, renew_at},
    store::pairs::{Pair, PairError, PairStore},
    telemetry::metrics::{self, CertificateOf},
};

/// The certificate in use, for a TLS server.
#[derive(Debug, Default)]
pub struct ServingCertificate(RwLock<Option<Arc<CertifiedKey>>>);

impl ServingCertificate {
    fn take(&self, pair: &Pair) -> Result<(), CertificateError> {
        let key = PrivateKeyDer::from_pem_slice(&pair.key).map_err(|_error| CertificateError::NoKey)?;
        let key = any_supported_type(&key).map_err(|_error| CertificateError::NoKey)?;
        let certified = Arc::new(CertifiedKey::new(certificates(&pair.chain)?, key));
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(certified);
        Ok(())
    }

    /// The one in use; `None` while none can be.
    pub fn current(&self) -> Option<Arc<CertifiedKey>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.current()
    }
}

/// Where a serving certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServingSource {
    /// The API server signs it (`serverTLSBootstrap`).
    Requested,
    /// It is in files of somebody's (`tlsCertFile`, `tlsPrivateKeyFile`).
    Files(PathBuf, PathBuf),
    /// The node signs it itself, into these files.
    SelfSigned(PathBuf, PathBuf),
}

impl ServingSource {
    /// That of a configuration.
    pub fn of(config: &AgentConfig) -> Self {
        let path = |key: &Option<String>| key.as_ref().filter(|path| !path.is_empty()).map(PathBuf::from);
        let kubelet = &config.kubelet;
        if kubelet.server_tls_bootstrap.unwrap_or(false) {
            return Self::Requested;
        }
        match (path(&kubelet.tls_cert_file), path(&kubelet.tls_private_key_file)) {
            (Some(certificate), Some(key)) => Self::Files(certificate, key),
            _ => Self::SelfSigned(config.cert_dir.join("kubelet.crt"), config.cert_dir.join("kubelet.key")),
        }
    }
}

/// Keeps the serving certificate of a node of a cluster.
pub struct Serving {
    source: ServingSource,
    node_name: String,
    /// Those that the node is to be reached at now.
    addresses: Box<dyn Fn() -> Vec<IpAddr> + Send + Sync>,
    store: PairStore,
    api: ApiServer,
    current: Arc<ServingCertificate>,
    told: Arc<Shown>,
}

impl Serving {
    /// One without a certificate yet.
    pub fn new(
        config: &AgentConfig,
        api: ApiServer,
        addresses: Box<dyn Fn() -> Vec<IpAddr> + Send + Sync>,
    ) -> Self {
        Self {
            source: ServingSource::of(config),
            node_name: config.node_name.clone(),
            addresses,
            store: PairStore::server(&config.cert_dir),
            api,
            current: Arc::default(),
            told: Shown::new("serving-certificate", "the serving certificate is not looked at yet"),
        }
    }

    /// The certificate in use, whichever that is.
    pub fn certificate(&self) -> Arc<ServingCertificate> {
        Arc::clone(&self.current)
    }

    /// What is told of it.
    pub fn told(&self) -> Arc<Shown> {
        Arc::clone(&self.told)
    }

    /// Gets, renews and swaps the certificate until stopped.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(Box::pin(self.keep())).await;
    }

    async fn keep(&self) {
        let mut backoff = Backoff::new();
        loop {
            let outcome = match &self.source {
                ServingSource::Requested => self.requested(&self.api).await,
                ServingSource::Files(certificate, key) => self.given(certificate, key).await,
                ServingSource::SelfSigned(certificate, key) => self.own(certificate, key).await,
            };
            match outcome {
                Ok(()) => backoff.reset(),
                Err(problem) => {
                    metrics::certificate_failed(CertificateOf::Server);
                    self.told.not_yet(format!("{problem}; tried again"));
                    tokio::time::sleep(backoff.next()).await;
                }
            }
        }
    }

    /// Shows a certificate from now on.
    fn take(&self, pair: &Pair) -> Result<(), String> {
        self.current.take(pair).map_err(|error| error.to_string())?;
        metrics::certificate(CertificateOf::Server, pair.certificate.not_after.as_second());
        Ok(())
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            node_name: self.node_name.clone(),
            dns_names: [self.node_name.clone()].into(),
            addresses: (self.addresses)().into_iter().collect(),
        }
    }

    async fn requested(&self, api: &ApiServer) -> Result<(), String> {
        let (store, current) = (self.store.clone(), self.store.current_path());
        let paths = [current.as_path()];
        let found = blocking(move || Ok(store.current().ok().or_else(|| store.newest(|_| true)))).await?;
        let (wanted, now) = (self.wanted(), Timestamp::now());
        let held = found.filter(|pair| now < pair.certificate.not_after);
        let mut held_key = None;
        if let Some(pair) = held {
            self.take(&pair).map_err(|error| format!("{} {error}", pair.file.display()))?;
            let (renew, lacking) = due(&pair.certificate, pair.obtained, &wanted);
            if now < renew {
                let (file, until) = (pair.file.display(), pair.certificate.not_after);
                match lacking {
                    None => self.told.well(format!("{file} is good until {until}, renewed at {renew}")),
                    Some(lacking) => self.told.not_yet(format!("{file}: {lacking}; renewed at {renew}")),
                }
                self.changed(&paths, Some(renew), &wanted).await;
                return Ok(());
            }
            held_key = Some(pair.certificate.public_key);
        }
        let asked = async {
            if api.current().is_none() {
                self.told.not_yet("the node has no credentials at the API server yet".to_owned());
            }
            let clients = api.clients().await;
            let purpose = Purpose::Serving {
                names: wanted.dns_names.iter().cloned().collect(),
                addresses: wanted.addresses.iter().copied().collect(),
            };
            let (store, node) = (self.store.clone(), self.node_name.clone());
            let asking = blocking(move || {
                Asking::prepare(&store, &node, purpose, held_key.as_deref())
                    .map_err(|error| error.to_string())
            })
            .await?;
            let chain =
                wait_for(&asking, (&clients.objects, &clients.server), &self.told, &self.store).await?;
            let (store, key) = (self.store.clone(), asking.key().to_owned());
            let pair = blocking(move || {
                let pair = store.update(&chain, &key, Timestamp::now()).map_err(|error| error.to_string())?;
                store.drop_pending_key();
                Ok(pair)
            })
            .await?;
            self.take(&pair)?;
            Ok(())
        };
        tokio::select! {
            done = asked => done,
            // Another address, or a certificate that somebody else got: looked at anew.
            () = self.changed(&paths, None, &wanted) => Ok(()),
        }
    }

    async fn given(&self, certificate: &Path, key: &Path) -> Result<(), String> {
        let pair = self.read(certificate, key).await.map_err(|error| error.to_string())?;
        self.take(&pair)?;
        let (until, file) = (pair.certificate.not_after, certificate.display());
        if until <= Timestamp::now() {
            self.told.not_yet(format!("{file} (tlsCertFile) has expired on {until}: put a new one there"));
            self.changed(&[certificate, key], None, &self.wanted()).await;
        } else {
            self.told.well(format!("{file} is good until {until}; it is not renewed here (tlsCertFile)"));
            self.changed(&[certificate, key], Some(until), &self.wanted()).await;
        }
        Ok(())
    }

    async fn own(&self, certificate: &Path, key: &Path) -> Result<(), String> {
        let pair = match self.read(certificate, key).await {
            Ok(pair) if Timestamp::now() < renew_at(&pair.certificate, pair.certificate.not_before) => pair,
            _ => {
                let (certificate, key) = (certificate.to_owned(), key.to_owned());
                let (name, addresses) = (self.node_name.clone(), (self.addresses)());
                blocking(move || renew_self_signed(&certificate, &key, &name, &addresses)).await?
            }
        };
        self.take(&pair)?;
        let renew = renew_at(&pair.certificate, pair.certificate.not_before);
        let until = pair.certificate.not_after;
        self.told.well(format!("{} is self-signed and good until {until}", certificate.display()));
        self.changed(&[certificate, key], Some(renew), &self.wanted()).await;
        Ok(())
    }

    async fn read(&self, certificate: &Path, key: &Path) -> Result<Pair, PairError> {
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        let path = certificate.clone();
        let read = tokio::task::spawn_blocking(move || Pair::read(&certificate, &key)).await;
        let ended =
            |_| Err(PairError::Io { action: "read", path, source: std::io::ErrorKind::Interrupted.into() });
        read.unwrap_or_else(ended)
    }

    /// Waits until the files or the addresses have changed, or a time has come.
    async fn changed(&self, paths: &[&Path], until: Option<Timestamp>, wanted: &Wanted) {
        let before = stamp(paths).await;
        let requested = self.source == ServingSource::Requested;
        pause::until_changed(until, || async {
            stamp(paths).await != before || (requested && self.wanted() != *wanted)
        })
        .await;
    }
}

/// Makes a self-signed certificate with its key anew. Blocks on the file system.
///
/// # Errors
/// In words, when it cannot be made or written.
pub fn renew_self_signed(
    certificate: &Path,
    key: &Path,
    node_name: &str,
    addresses: &[IpAddr],
) -> Result<Pair, String> {
    let made = Key::generate()?;
    let pem = self_signed(&made, &[node_name.to_owned()], addresses, Timestamp::now())?;
    let cannot = |path: &Path| {
        let path = path.to_owned();
        move |error: std::io::Error| format!("cannot write {}: {error}", path.display())
    };
    for (path, text, mode) in [(key, made.pem(), 0o600), (certificate, pem.as_str(), 0o644)] {
        path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(cannot(path))?;
        files::replace(path, text.as_bytes(), mode).map_err(cannot(path))?;
    }
    Pair::read(certificate, key).map_err(|error| error.to_string())
}

async fn stamp(paths: &[&Path]) -> Stamp {
    let paths: Vec<PathBuf> = paths.iter().map(|&path| path.to_owned()).collect();
    let look = move || Stamp::of(paths.iter().map(|path| Some(path.as_path())));
    tokio::task::spawn_blocking(look).await.unwrap_or_else(|_ended| Stamp::of([]))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?
}
