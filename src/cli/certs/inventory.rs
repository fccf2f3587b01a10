//! Which certificates there are, and what is wrong with them.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::{entry::Entry, setting::Setting};
use crate::{
    agent::cluster::identity::{Places, ServingSource},
    api::certificate::Certificate,
    files,
    kube::Kubeconfig,
    policy::rotation::{Wanted, due, renew_at},
    store::pairs::{Pair, PairStore},
};

const AGENT: &str = "agent";
const KUBEADM: &str = "kubeadm";
const NOBODY: &str = "nobody";
/// Certificates of one bundle, and of the control plane, that are listed.
const MAX_LISTED: usize = 100;
/// What components of the control plane show to the API server.
const COMPONENTS: [&str; 4] = ["admin.conf", "super-admin.conf", "controller-manager.conf", "scheduler.conf"];

/// All of the node's, then the control plane's. What cannot be read is listed with the reason.
pub(super) fn collect(setting: &Setting, now: Timestamp) -> Vec<Entry> {
    let mut entries = Vec::new();
    if let Some(places) = Places::of(&setting.config) {
        let kubeconfig = Kubeconfig::read(&places.kubeconfig);
        let authorities = kubeconfig.as_ref().ok().and_then(Kubeconfig::authority).map(Certificate::chain);
        let authorities = authorities.and_then(Result::ok).unwrap_or_default();
        match &kubeconfig {
            Ok(kubeconfig) => client(&places, kubeconfig, &authorities, now, &mut entries),
            Err(error) => {
                let problem = if places.kubeconfig.exists() {
                    error.problem.clone()
                } else {
                    "there is no kubeconfig yet".to_owned()
                };
                entries.push(Entry::unreadable("client", &places.kubeconfig, renewer(&places), problem));
                kept(&places, None, now, &mut entries);
            }
        }
        serving(setting, &mut entries, now);
        if let Ok(kubeconfig) = &kubeconfig {
            let file = kubeconfig.authority_file().unwrap_or(&places.kubeconfig);
            bundle("server-ca", file, kubeconfig.authority(), &mut entries, now);
        }
        if let Some(path) = places.bootstrap.as_deref().filter(|path| path.exists()) {
            bootstrap(path, &authorities, &mut entries, now);
        }
    } else if setting.config.cert_dir.join("kubelet.crt").exists() {
        // Of a kubelet: the agent alone shows none yet.
        serving(setting, &mut entries, now);
    }
    control_plane(&setting.pki, &mut entries, now);
    for entry in &mut entries {
        entry.renews_at = entry.renews_at.and_then(|at| Timestamp::from_second(at.as_second()).ok());
    }
    entries
}

fn renewer(places: &Places) -> &'static str {
    if places.rotate { AGENT } else { NOBODY }
}

/// The certificate of the kubeconfig, and the store's if that is another one.
fn client(
    places: &Places,
    kubeconfig: &Kubeconfig,
    authorities: &[Certificate],
    now: Timestamp,
    entries: &mut Vec<Entry>,
) {
    let Some((chain, key)) = kubeconfig.certificate() else {
        let problem = "the kubeconfig has no client certificate";
        entries.push(Entry::unreadable("client", &places.kubeconfig, renewer(places), problem));
        kept(places, None, now, entries);
        return;
    };
    let file = kubeconfig.certificate_file().unwrap_or(&places.kubeconfig);
    let certificate = match Certificate::leaf(chain) {
        Ok(certificate) => certificate,
        Err(error) => {
            entries.push(Entry::unreadable("client", file, renewer(places), error.to_string()));
            kept(places, None, now, entries);
            return;
        }
    };
    let mut entry = Entry::new("client", file, &certificate, renewer(places), now);
    entry.problems.extend(certificate.check_key(key).err().map(|error| error.to_string()));
    let wanted = Wanted::client(&places.node_name);
    entry.problems.extend(wanted.lacking(&certificate));
    if !authorities.is_empty() && !certificate.is_from(authorities) {
        entry.problems.push("not from an authority of the kubeconfig".to_owned());
    }
    entry.check_mode(file);
    if places.rotate {
        let obtained = std::fs::metadata(file).and_then(|metadata| metadata.modified()).ok();
        let obtained = obtained.and_then(|time| Timestamp::try_from(time).ok());
        let (at, _) = due(&certificate, obtained.unwrap_or(certificate.not_before), &wanted);
        entry.renews_at = Some(at);
    }
    entries.push(entry);
    kept(places, Some(&certificate), now, entries);
}

/// The store's certificate, if the kubeconfig has another one.
fn kept(places: &Places, own: Option<&Certificate>, now: Timestamp, entries: &mut Vec<Entry>) {
    let path = places.store.current_path();
    match Pair::read(&path, &path) {
        Ok(pair) if own == Some(&pair.certificate) => {}
        Ok(pair) => {
            let mut entry = Entry::new("client-current", &path, &pair.certificate, renewer(places), now);
            entry.problems.extend(Wanted::client(&places.node_name).lacking(&pair.certificate));
            entry.check_mode(&path);
            if !places.rotate {
                entry.problems.push("not in use: the kubeconfig has another one".to_owned());
            }
            entries.push(entry);
        }
        Err(error) if error.is_missing() && !path.is_symlink() => {}
        Err(error) => {
            entries.push(Entry::unreadable("client-current", &path, renewer(places), error.to_string()));
        }
    }
}

fn serving(setting: &Setting, entries: &mut Vec<Entry>, now: Timestamp) {
    let config = &setting.config;
    let store = PairStore::server(&config.cert_dir);
    let source = ServingSource::of(config);
    let (certificate, key, renewed_by) = match &source {
        ServingSource::Requested => (store.current_path(), store.current_path(), AGENT),
        ServingSource::Files(certificate, key) => (certificate.clone(), key.clone(), NOBODY),
        ServingSource::SelfSigned(certificate, key) => (certificate.clone(), key.clone(), AGENT),
    };
    match Pair::read(&certificate, &key) {
        Ok(pair) => {
            let mut entry = Entry::new("serving", &certificate, &pair.certificate, renewed_by, now);
            entry.check_mode(&key);
            match source {
                ServingSource::Requested => {
                    let mut wanted = Wanted::client(&config.node_name);
                    wanted.dns_names.insert(config.node_name.clone());
                    entry.problems.extend(wanted.lacking(&pair.certificate));
                    entry.renews_at = Some(due(&pair.certificate, pair.obtained, &wanted).0);
                }
                ServingSource::SelfSigned(..) => {
                    entry.renews_at = Some(renew_at(&pair.certificate, pair.certificate.not_before));
                }
                ServingSource::Files(..) => {}
            }
            entries.push(entry);
        }
        // Not made yet.
        Err(error) if error.is_missing() && !matches!(source, ServingSource::Files(..)) => {
            let missing = match source {
                ServingSource::Requested => "not there yet: the agent requests it (serverTLSBootstrap)",
                _ => "not there yet: the agent makes it",
            };
            entries.push(Entry::unreadable("serving", &certificate, renewed_by, missing));
        }
        Err(error) => entries.push(Entry::unreadable("serving", &certificate, renewed_by, error.to_string())),
    }
}

/// Authorities; they are renewed by nobody.
fn bundle(name: &str, file: &Path, pem: Option<&[u8]>, entries: &mut Vec<Entry>, now: Timestamp) {
    let Some(pem) = pem else { return };
    match Certificate::chain(pem) {
        Ok(all) => {
            for certificate in all.iter().take(MAX_LISTED) {
                entries.push(Entry::new(name, file, certificate, NOBODY, now));
            }
        }
        Err(error) => entries.push(Entry::unreadable(name, file, NOBODY, error.to_string())),
    }
}

fn bootstrap(path: &Path, authorities: &[Certificate], entries: &mut Vec<Entry>, now: Timestamp) {
    let kubeconfig = match Kubeconfig::read(path) {
        Ok(kubeconfig) => kubeconfig,
        Err(error) => {
            entries.push(Entry::unreadable("bootstrap", path, NOBODY, error.problem));
            return;
        }
    };
    if let Some((chain, key)) = kubeconfig.certificate() {
        let file = kubeconfig.certificate_file().unwrap_or(path);
        match Certificate::leaf(chain) {
            Ok(certificate) => {
                let mut entry = Entry::new("bootstrap", file, &certificate, NOBODY, now);
                entry.problems.extend(certificate.check_key(key).err().map(|error| error.to_string()));
                entry.check_mode(file);
                entries.push(entry);
            }
            Err(error) => entries.push(Entry::unreadable("bootstrap", file, NOBODY, error.to_string())),
        }
    }
    let before = entries.len();
    let file = kubeconfig.authority_file().unwrap_or(path);
    bundle("bootstrap-ca", file, kubeconfig.authority(), entries, now);
    let all = Certificate::chain(kubeconfig.authority().unwrap_or_default()).unwrap_or_default();
    if !authorities.is_empty() && !all.is_empty() && !all.iter().any(|one| authorities.contains(one)) {
        for entry in &mut entries[before..] {
            entry.problems.push("another one than the kubeconfig's".to_owned());
        }
    }
}

/// What kubeadm keeps on a node of the control plane.
fn control_plane(pki: &Path, entries: &mut Vec<Entry>, now: Timestamp) {
    for (prefix, folder) in [("control-plane", pki.to_owned()), ("control-plane/etcd", pki.join("etcd"))] {
        for file in certificates_in(&folder) {
            let stem = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let name = format!("{prefix}/{stem}");
            let read = files::read(&file).map_err(|error| error.to_string());
            let read = read.and_then(|pem| Certificate::leaf(&pem).map_err(|error| error.to_string()));
            let mut entry = match read {
                Ok(certificate) => {
                    let renewed_by = if certificate.is_authority { NOBODY } else { KUBEADM };
                    let mut entry = Entry::new(&name, &file, &certificate, renewed_by, now);
                    let key = files::read(&file.with_extension("key"));
                    let problem = key.ok().and_then(|key| certificate.check_key(&key).err());
                    entry.problems.extend(problem.map(|error| error.to_string()));
                    entry
                }
                Err(problem) => Entry::unreadable(&name, &file, KUBEADM, problem),
            };
            entry.check_mode(&file.with_extension("key"));
            entries.push(entry);
        }
    }
    let Some(folder) = pki.parent() else { return };
    for name in COMPONENTS {
        let file = folder.join(name);
        if !file.exists() {
            continue;
        }
        let shown = format!("control-plane/{name}");
        let read = Kubeconfig::read(&file).map_err(|error| error.problem);
        let leaf = read.and_then(|kubeconfig| match kubeconfig.certificate() {
            Some((chain, _)) => Certificate::leaf(chain).map_err(|error| error.to_string()),
            None => Err("has no client certificate".to_owned()),
        });
        let mut entry = match leaf {
            Ok(certificate) => Entry::new(&shown, &file, &certificate, KUBEADM, now),
            Err(problem) => Entry::unreadable(&shown, &file, KUBEADM, problem),
        };
        entry.check_mode(&file);
        entries.push(entry);
    }
}

fn certificates_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .take(10 * MAX_LISTED)
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "crt"))
        .take(MAX_LISTED)
        .collect();
    found.sort();
    found
}
