//! `nodectl certs renew`: a certificate now, by a request with the present one.

use std::{io::Write, time::Duration};

use jiff::Timestamp;

use super::{RenewArgs, Which, setting::Setting};
use crate::{
    agent::{
        cluster::identity::{Asking, Found, Places, ServingSource, awaited, renew_self_signed},
        host_ips,
    },
    cli::output,
    error::CommandError,
    kube::{Kubeconfig, connect, csr::Purpose},
    store::pairs::{Pair, PairStore},
};

pub(super) async fn run(
    setting: &Setting,
    args: &RenewArgs,
    out: &mut impl Write,
    err: &mut impl Write,
) -> Result<(), CommandError> {
    let patience = Duration::from_secs(args.timeout);
    let source = ServingSource::of(&setting.config);
    if args.which != Some(Which::Server) {
        match Places::of(&setting.config) {
            Some(places) => client(&places, patience, out, err).await?,
            None if args.which.is_some() => return Err(alone()),
            None => {}
        }
    }
    match (args.which, source) {
        (Some(Which::Client), _) | (None, ServingSource::Files(..)) => Ok(()),
        (Some(Which::Server), ServingSource::Files(certificate, _)) => {
            let told =
                format!("the serving certificate {} is somebody else's (tlsCertFile)", certificate.display());
            Err(CommandError::refused(told)
                .hint("renew it where it comes from; the agent takes what is put there"))
        }
        (_, ServingSource::Requested) => requested(setting, patience, out, err).await,
        (_, ServingSource::SelfSigned(certificate, key)) => {
            let addresses = host_ips(&setting.config.node_ips);
            let pair = renew_self_signed(&certificate, &key, &setting.config.node_name, &addresses);
            done("server", &pair.map_err(CommandError::failed)?, out)
        }
    }
}

fn alone() -> CommandError {
    CommandError::usage("there is no kubeconfig: neither an agent that has one runs, nor is there kubeadm's")
        .hint("say where it is: --kubeconfig FILE")
}

async fn client(
    places: &Places,
    patience: Duration,
    out: &mut impl Write,
    err: &mut impl Write,
) -> Result<(), CommandError> {
    let (credentials, held, first) = match places.look(Timestamp::now()) {
        Found::Ready { kubeconfig, held } => (kubeconfig, held, false),
        Found::Bootstrap { bootstrap, .. } => (bootstrap, None, true),
        Found::Stuck { why } => return Err(CommandError::failed(why)),
    };
    let current = places.store.current_path();
    if !first && !places.rotate && credentials.certificate_file() != Some(&current) {
        let told = format!("kubeconfig {} has its certificate elsewhere", places.kubeconfig.display());
        return Err(CommandError::refused(told).hint(format!(
            "set rotateCertificates: true, or client-certificate and client-key to {}",
            current.display()
        )));
    }
    let held_key = held.map(|held| held.certificate.public_key);
    let asking = Asking::prepare(&places.store, &places.node_name, Purpose::Client, held_key.as_deref());
    let asking = asking.map_err(CommandError::failed)?;
    let pair = obtain(&asking, &credentials, &places.store, patience, err).await?;
    if first {
        places.finish(&credentials).map_err(CommandError::failed)?;
    }
    places.store.drop_pending_key();
    done("client", &pair, out)
}

async fn requested(
    setting: &Setting,
    patience: Duration,
    out: &mut impl Write,
    err: &mut impl Write,
) -> Result<(), CommandError> {
    let places = Places::of(&setting.config).ok_or_else(alone)?;
    let credentials = match places.look(Timestamp::now()) {
        Found::Ready { kubeconfig, .. } => kubeconfig,
        Found::Bootstrap { why, .. } | Found::Stuck { why } => return Err(CommandError::failed(why)),
    };
    let store = PairStore::server(&setting.config.cert_dir);
    let held_key = store.current().ok().map(|pair| pair.certificate.public_key);
    let mut addresses = host_ips(&setting.config.node_ips);
    addresses.sort();
    let purpose = Purpose::Serving { names: vec![setting.config.node_name.clone()], addresses };
    let asking = Asking::prepare(&store, &setting.config.node_name, purpose, held_key.as_deref());
    let pair = obtain(&asking.map_err(CommandError::failed)?, &credentials, &store, patience, err).await?;
    store.drop_pending_key();
    done("server", &pair, out)
}

async fn obtain(
    asking: &Asking,
    credentials: &Kubeconfig,
    store: &PairStore,
    patience: Duration,
    err: &mut impl Write,
) -> Result<Pair, CommandError> {
    let name = &asking.request.name;
    let client = connect(credentials, None).map_err(CommandError::failed)?;
    let waiting = || {
        // Somebody reads it, or nobody does.
        output::write(err, &format!("{}\n", awaited(name))).ok();
    };
    let chain = match tokio::time::timeout(patience, asking.obtain(&client, waiting)).await {
        Ok(Ok(chain)) => chain,
        Ok(Err(error)) => {
            if error.is_final() {
                // Another try is another request.
                store.drop_pending_key();
            }
            return Err(CommandError::failed(format!("cannot get a certificate: {error}")));
        }
        Err(_elapsed) => {
            let told =
                format!("the certificate request {name} was not approved within {} s", patience.as_secs());
            return Err(CommandError::failed(told).hint(format!(
                "approve it (kubectl certificate approve {name}) and run this again: it is kept"
            )));
        }
    };
    store.update(&chain, asking.key(), Timestamp::now()).map_err(CommandError::failed)
}

fn done(which: &str, pair: &Pair, out: &mut impl Write) -> Result<(), CommandError> {
    output::write(
        out,
        &format!("{which}: {} is good until {}\n", pair.file.display(), pair.certificate.not_after),
    )
}
