//! Who the node is: to the API server by a client certificate, and to those who connect to it by a serving one.
//!
//! Both are got, renewed and swapped beside everything else: the agent starts and runs its static pods whether or
//! not there is a server that answers, an administrator who approves, or a certificate that has not expired. What it
//! waits for stands in the log once and in `healthz?verbose` all the time.
//!
//! The files are kubelet's (`pkg/kubelet/certificate`), so that either agent goes on with the other's identity.

mod disk;
mod obtain;
mod pause;
mod serving;
mod told;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use self::pause::Backoff;
pub use self::{
    disk::{Found, Held, Places, Stamp},
    obtain::{Asking, awaited},
    serving::{Serving, ServingCertificate, ServingSource, renew_self_signed},
    told::{Shown, Told},
};
use crate::{
    config::AgentConfig,
    error::{CommandError, ErrorKind},
    kube::{
        ApiServer, Kubeconfig, connect,
        csr::{CsrError, Purpose},
    },
    policy::rotation::{Wanted, due},
    store::pairs::PairStore,
    telemetry::metrics::{self, CertificateOf},
};

/// Between two looks at whether somebody has changed the files.
const LOOK: Duration = Duration::from_secs(5);
/// How long a request is waited for before it is told again; kubelet makes another one then.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// Between two looks at a request that was denied: who has deleted it wants it to be made again.
const DENIED_LOOK: Duration = Duration::from_secs(30);

/// The node's identity to the API server.
pub struct Identity {
    api: ApiServer,
    places: Places,
    told: Arc<Shown>,
    /// What the server is spoken to with.
    used: Option<Box<Kubeconfig>>,
}

impl Places {
    /// Those of a configuration; `None` of an agent that stands alone.
    pub fn of(config: &AgentConfig) -> Option<Self> {
        Some(Self {
            node_name: config.node_name.clone(),
            kubeconfig: config.kubeconfig.clone()?,
            bootstrap: config.bootstrap_kubeconfig.clone(),
            store: PairStore::client(&config.cert_dir),
            rotate: config.kubelet.rotate_certificates.unwrap_or(false),
        })
    }
}

impl Identity {
    /// One that is not known to the server yet.
    pub fn new(api: ApiServer, places: Places) -> Self {
        Self {
            api,
            places,
            told: Shown::new("client-certificate", "the client certificate is not looked at yet"),
            used: None,
        }
    }

    /// What is told of it.
    pub fn told(&self) -> Arc<Shown> {
        Arc::clone(&self.told)
    }

    /// Takes the credentials that are there, so that nobody has to wait for them. Blocks shortly on the file system;
    /// must be called on the async runtime.
    ///
    /// # Errors
    /// Invalid configuration (exit code 2) when there is neither the kubeconfig nor a way to get one: the path is
    /// wrong. All else may be mended while the agent runs.
    pub fn begin(&mut self) -> Result<(), CommandError> {
        let Places { kubeconfig: path, bootstrap, .. } = &self.places;
        if bootstrap.is_none() && !path.exists() {
            let missing = format!("kubeconfig {}: there is no such file", path.display());
            return Err(CommandError::new(ErrorKind::Usage, missing).hint(
                "give the kubeconfig of this node, or a --bootstrap-kubeconfig to get one with; without --kubeconfig \
                 the agent runs static pods alone",
            ));
        }
        if let Found::Ready { kubeconfig, .. } = self.places.look(Timestamp::now()) {
            // Told by the task if it fails.
            self.used = self.api.use_credentials(&kubeconfig).ok().map(|()| kubeconfig);
        }
        Ok(())
    }

    /// Gets, renews and swaps the client certificate until stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        let used = self.used.take();
        stop.run_until_cancelled(Box::pin(self.keep(used))).await;
    }

    async fn keep(&self, mut used: Option<Box<Kubeconfig>>) {
        let mut backoff = Backoff::new();
        let mut said = String::new();
        loop {
            let stamp = self.stamp().await;
            let places = self.places.clone();
            let looked = tokio::task::spawn_blocking(move || places.look(Timestamp::now())).await;
            let outcome = match looked {
                Ok(Found::Ready { kubeconfig, held }) => {
                    if used.as_ref() != Some(&kubeconfig) {
                        if let Err(error) = self.api.use_credentials(&kubeconfig) {
                            self.told.not_yet(format!("{error}"));
                            self.changed(&stamp, None).await;
                            continue;
                        }
                        used = Some(kubeconfig.clone());
                    }
                    self.rest(&stamp, &kubeconfig, held.as_deref()).await
                }
                Ok(Found::Bootstrap { bootstrap, why }) => {
                    if said != why {
                        tracing::info!(
                            "getting a client certificate as the bootstrap kubeconfig says: {why}"
                        );
                        said = why;
                    }
                    self.ask(&stamp, &bootstrap, None, true).await
                }
                Ok(Found::Stuck { why }) => {
                    self.told.not_yet(why);
                    self.changed(&stamp, None).await;
                    Ok(())
                }
                // The runtime ends.
                Err(_ended) => return,
            };
            match outcome {
                Ok(()) => backoff.reset(),
                Err(problem) => {
                    metrics::certificate_failed(CertificateOf::Client);
                    let pause = backoff.next();
                    self.told.not_yet(format!("{problem}; tried again"));
                    self.changed(&stamp, Timestamp::now().checked_add(pause).ok()).await;
                }
            }
        }
    }

    /// Waits until there is something to do about credentials that are good, and renews them.
    async fn rest(&self, stamp: &Stamp, kubeconfig: &Kubeconfig, held: Option<&Held>) -> Result<(), String> {
        let Some(held) = held else {
            if self.places.rotate {
                return self.ask(stamp, kubeconfig, None, false).await;
            }
            self.told.well("the kubeconfig has a token and no certificate".to_owned());
            self.changed(stamp, None).await;
            return Ok(());
        };
        let Held { certificate, file, obtained } = held;
        let until = certificate.not_after;
        metrics::certificate(CertificateOf::Client, until.as_second());
        let (renew, lacking) = due(certificate, *obtained, &Wanted::client(&self.places.node_name));
        if !self.places.rotate {
            let told =
                format!("{} is good until {until}; it is not renewed (rotateCertificates)", file.display());
            match lacking {
                None => self.told.well(told),
                Some(lacking) => self.told.not_yet(format!("{told}; {lacking}")),
            }
            self.changed(stamp, Some(until)).await;
            return Ok(());
        }
        if Timestamp::now() < renew {
            self.told.well(format!("{} is good until {until}, renewed at {renew}", file.display()));
            self.changed(stamp, Some(renew)).await;
            return Ok(());
        }
        let why = lacking.unwrap_or_else(|| format!("it is good until {until}"));
        tracing::info!("renewing the client certificate {}: {why}", file.display());
        self.ask(stamp, kubeconfig, Some(held), false).await
    }

    /// Gets a certificate; done as well when the files have changed meanwhile.
    async fn ask(
        &self,
        stamp: &Stamp,
        credentials: &Kubeconfig,
        held: Option<&Held>,
        first: bool,
    ) -> Result<(), String> {
        let asked = async {
            let (store, node) = (self.places.store.clone(), self.places.node_name.clone());
            let held_key = held.map(|held| held.certificate.public_key.clone());
            let prepared = tokio::task::spawn_blocking(move || {
                Asking::prepare(&store, &node, Purpose::Client, held_key.as_deref())
            });
            let asking =
                prepared.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
            let client = connect(credentials, None).map_err(|error| error.to_string())?;
            let chain =
                wait_for(&asking, (&client, credentials.server()), &self.told, &self.places.store).await?;
            let (places, credentials) = (self.places.clone(), credentials.clone());
            let kept = tokio::task::spawn_blocking(move || {
                let pair = places.store.update(&chain, asking.key(), Timestamp::now());
                let pair = pair.map_err(|error| error.to_string())?;
                if first {
                    places.finish(&credentials)?;
                }
                places.store.drop_pending_key();
                Ok::<_, String>(pair)
            });
            let pair = kept.await.map_err(|error| error.to_string())??;
            tracing::info!(
                "the client certificate {} is good until {}",
                pair.file.display(),
                pair.certificate.not_after
            );
            Ok(())
        };
        tokio::select! {
            done = asked => done,
            // Somebody else has written what we wait for, or our own last step: looked at anew.
            () = self.changed(stamp, None) => Ok(()),
        }
    }

    async fn stamp(&self) -> Stamp {
        stamp(&self.places).await
    }

    /// Waits until the files have changed, or a time has come.
    async fn changed(&self, stamp: &Stamp, until: Option<Timestamp>) {
        pause::until_changed(until, || async { self.stamp().await != *stamp }).await;
    }
}

async fn stamp(places: &Places) -> Stamp {
    let places = places.clone();
    let empty = Stamp::of([]);
    tokio::task::spawn_blocking(move || places.stamp()).await.unwrap_or(empty)
}

/// Waits for a certificate as long as it takes, and says so. A request that was denied is waited out.
async fn wait_for(
    asking: &Asking,
    (client, server): (&::kube::Client, &str),
    told: &Shown,
    store: &PairStore,
) -> Result<Vec<u8>, String> {
    let name = &asking.request.name;
    loop {
        let waiting = || told.not_yet(awaited(name));
        let error = match tokio::time::timeout(PATIENCE, asking.obtain(client, waiting)).await {
            Ok(Ok(chain)) => return Ok(chain),
            Ok(Err(error)) => error,
            Err(_elapsed) => {
                told.remind();
                continue;
            }
        };
        if !error.is_final() {
            return Err(format!("cannot get a certificate from {server}: {error}"));
        }
        if matches!(error, CsrError::Denied { .. } | CsrError::Failed { .. }) {
            told.not_yet(format!(
                "{error}. It is asked for again when that request is deleted (kubectl delete csr {name}), else every \
                 {} minutes",
                PATIENCE.as_secs() / 60
            ));
            let mut looks = 0;
            while looks * DENIED_LOOK.as_secs() < PATIENCE.as_secs() {
                tokio::time::sleep(DENIED_LOOK).await;
                looks += 1;
                if asking.request.is_gone(client).await {
                    break;
                }
            }
        }
        // A request that is done for is not found again.
        let store = store.clone();
        tokio::task::spawn_blocking(move || store.drop_pending_key()).await.ok();
        return Err(error.to_string());
    }
}
