//! Pods without their server (`--offline-pods`): what the node was told is kept on the disk, and an agent that starts
//! and does not hear the server runs the pods that it last knew.
//!
//! Level-triggered: what is to be on the disk is compared with what is there, and the difference written, by one task
//! that nobody waits for. Nothing is written or erased before the server was heard. A pod's file goes as soon as the
//! server has it no more, and what no pod names any more goes with it.

mod disk;
mod key;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs, io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::{core::v1::Pod, node::v1::RuntimeClass};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub use self::disk::{KeptToken, contact, folder};
use self::{
    disk::{Disk, FromLists, Kept, Tokens, Word},
    key::Keyring,
};
use crate::{
    api::{PodExt as _, PodUid},
    config::{AgentConfig, OfflinePods},
    error::CommandError,
    host::boot::{boot_id, since_boot},
    policy::{
        given::{Lookup, ObjectKey, ObjectKind, TokenKey, references},
        offline::{Moment, Silence, in_words, may_start, silence},
        status::is_terminal,
    },
};

/// How long an agent that starts waits for the server before it runs what it last knew.
pub const SERVER_WAIT: Duration = Duration::from_secs(5);
/// The last contact is written at most so often: each is two flushes of the disk.
const CONTACT_EVERY: Duration = Duration::from_secs(30);
/// Between tries to write.
const RETRY: Duration = Duration::from_secs(10);

/// See the module.
pub struct Offline {
    mode: OfflinePods,
    disk: Disk,
    keyring: tokio::sync::Mutex<Keyring>,
    state: Mutex<State>,
    changed: Notify,
    loaded: watch::Sender<bool>,
    /// Whether pods were told from the disk and the server was not heard since.
    offline: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The pods as the server has them; `None` before it was heard.
    pods: Option<BTreeMap<PodUid, Arc<Pod>>>,
    /// The server's words on objects.
    objects: HashMap<ObjectKey, Word>,
    tokens: BTreeMap<PodUid, Tokens>,
    listed: BTreeMap<PodUid, FromLists>,
    disk: Kept,
    contact: Option<Moment>,
    /// As it is on the disk.
    contact_kept: Option<Moment>,
}

/// A change of the disk.
#[derive(Debug, PartialEq)]
enum Change {
    SavePod(Arc<Pod>),
    RemovePod(PodUid),
    SaveObject(ObjectKey, Word),
    RemoveObject(ObjectKey),
    SaveTokens(PodUid, Tokens),
    RemoveTokens(PodUid),
    SaveListed(PodUid, FromLists),
    RemoveListed(PodUid),
    SaveContact(Moment),
}

/// What keeps pods for offline, if it is asked for. Else what an agent that was asked left is erased.
///
/// # Errors
/// Where the folder cannot be made or erased.
pub fn open(config: &AgentConfig) -> Result<Option<Arc<Offline>>, CommandError> {
    let folder = folder(&config.root_dir);
    match config.offline_pods {
        Some(mode) => Ok(Some(Arc::new(Offline::open(&folder, mode)?))),
        None => erase(&folder).map(|()| None).map_err(|error| {
            CommandError::failed(format!(
                "cannot erase what was kept for offline in {}: {error}",
                folder.display()
            ))
        }),
    }
}

fn erase(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Ok(()) => {
            tracing::info!("what an earlier agent kept for offline is erased: {}", folder.display());
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn now() -> Moment {
    Moment { at: Timestamp::now(), boot: boot_id(), since_boot: since_boot() }
}

impl Offline {
    fn open(folder: &Path, mode: OfflinePods) -> Result<Self, CommandError> {
        let (disk, key) = Disk::open(folder).map_err(CommandError::failed)?;
        Ok(Self {
            mode,
            disk,
            keyring: tokio::sync::Mutex::new(Keyring::new(key)),
            state: Mutex::default(),
            changed: Notify::new(),
            loaded: watch::Sender::new(false),
            offline: AtomicBool::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is known what the disk has.
    pub async fn loaded(&self) {
        // The sender is this one's own.
        self.loaded.subscribe().wait_for(|loaded| *loaded).await.ok();
    }

    /// The server is not heard: the pods as last known, which are run from now on.
    pub fn begin(&self) -> BTreeMap<PodUid, Arc<Pod>> {
        self.offline.store(true, Ordering::Release);
        let state = self.state();
        let silence = match silence(state.contact.as_ref(), &now()) {
            Silence::For(gone) => format!("it was last heard of {} ago", in_words(gone)),
            Silence::ClockBehind => {
                "the clock stands before the time at which it was last heard of".to_owned()
            }
            Silence::Unknown => "it is not known when it was last heard of".to_owned(),
        };
        let pods = state.disk.pods.len();
        tracing::warn!(
            pods,
            "offline: the API server is not reached, going on with the pods that were last known; {silence}"
        );
        state.disk.pods.clone()
    }

    /// Whether pods run as they were last known, and the server was not heard since the agent started.
    pub fn is_offline(&self) -> bool {
        self.offline.load(Ordering::Acquire)
    }

    /// Why a pod of which nothing runs must not be started now; `None` if it may.
    pub fn refuses(&self, pod: &Pod) -> Option<String> {
        if !self.is_offline() {
            return None;
        }
        let silence = silence(self.state().contact.as_ref(), &now());
        may_start(pod, self.mode, silence).err()
    }

    /// The server has these pods for the node, and no others.
    pub fn heard(&self, pods: &BTreeMap<PodUid, Arc<Pod>>) {
        if self.offline.swap(false, Ordering::AcqRel) {
            tracing::info!("no longer offline: the API server's word counts again");
        }
        self.state().pods = Some(pods.clone());
        self.changed.notify_one();
    }

    /// The server's word on an object.
    pub fn object(&self, key: &ObjectKey, word: &Lookup) {
        let word = match word {
            Lookup::Found(data) => Some(Arc::clone(data)),
            Lookup::Missing => None,
            Lookup::Unknown(_) => return,
        };
        self.state().objects.insert(key.clone(), word);
        self.changed.notify_one();
    }

    /// What was last known of an object, as long as the server is not heard.
    pub fn last_object(&self, key: &ObjectKey) -> Option<Lookup> {
        let known = self.is_offline().then(|| self.state().disk.objects.get(key).cloned());
        known.flatten().map(|word| word.map_or(Lookup::Missing, Lookup::Found))
    }

    /// The server has given a token.
    pub fn token(&self, uid: &PodUid, key: &TokenKey, token: KeptToken) {
        self.state().tokens.entry(uid.clone()).or_default().insert(key.clone(), token);
        self.changed.notify_one();
    }

    /// The last token that the server gave, as long as it is not heard.
    pub fn last_token(&self, uid: &PodUid, key: &TokenKey) -> Option<KeptToken> {
        self.is_offline().then(|| self.state().disk.tokens.get(uid)?.get(key).cloned()).flatten()
    }

    /// A pod has these variables of services.
    pub fn variables(&self, uid: &PodUid, variables: &BTreeMap<String, String>) {
        self.listed(uid, FromLists { variables: Some(variables.clone()), class: None });
    }

    /// Those that it had last, as long as the server is not heard.
    pub fn last_variables(&self, uid: &PodUid) -> Option<BTreeMap<String, String>> {
        self.is_offline().then(|| self.state().disk.listed.get(uid)?.variables.clone()).flatten()
    }

    /// A pod has this runtime class.
    pub fn class(&self, uid: &PodUid, class: &Arc<RuntimeClass>) {
        self.listed(uid, FromLists { variables: None, class: Some(Arc::clone(class)) });
    }

    /// The one that it had last, as long as the server is not heard.
    pub fn last_class(&self, uid: &PodUid) -> Option<Arc<RuntimeClass>> {
        self.is_offline().then(|| self.state().disk.listed.get(uid)?.class.clone()).flatten()
    }

    fn listed(&self, uid: &PodUid, newer: FromLists) {
        {
            let mut state = self.state();
            let listed = state.listed.entry(uid.clone()).or_default();
            *listed = std::mem::take(listed).with(newer);
        }
        self.changed.notify_one();
    }

    /// The node's lease was renewed.
    pub fn in_contact(&self) {
        let now = now();
        let mut state = self.state();
        let due = match silence(state.contact_kept.as_ref(), &now) {
            Silence::For(gone) => gone >= CONTACT_EVERY,
            Silence::ClockBehind | Silence::Unknown => true,
        };
        state.contact = Some(now);
        if due {
            self.changed.notify_one();
        }
    }

    /// Reads the disk, then keeps it until stopped.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        stop.run_until_cancelled(async {
            self.load().await;
            let mut failed = None;
            loop {
                match self.write().await {
                    Ok(()) if failed.take().is_some() => {
                        tracing::info!("what is kept for offline is written again");
                    }
                    Ok(()) => {}
                    Err(error) => {
                        if failed.as_ref() != Some(&error) {
                            tracing::warn!(
                                "what is to be kept for offline cannot be written, trying again: {error}"
                            );
                        }
                        failed = Some(error);
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                }
                self.changed.notified().await;
            }
        })
        .await;
    }

    async fn load(&self) {
        let disk = self.disk.clone();
        let read = tokio::task::spawn_blocking(move || disk.load()).await;
        let (mut kept, closed, contact) = match read {
            Ok(read) => read,
            Err(error) => {
                tracing::error!(
                    "reading what is kept for offline failed, which is a bug of nodectl: {error}"
                );
                Default::default()
            }
        };
        if !closed.is_empty() {
            match self.keyring.lock().await.open().await {
                Ok(key) => {
                    let disk = self.disk.clone();
                    let opened = tokio::task::spawn_blocking(move || {
                        disk.open_closed(closed, &key, &mut kept);
                        kept
                    });
                    kept = opened.await.unwrap_or_default();
                }
                Err(why) => tracing::error!("the Secrets that are kept for offline cannot be opened: {why}"),
            }
        }
        {
            let mut state = self.state();
            state.disk = kept;
            // It may have been heard of meanwhile.
            state.contact_kept.clone_from(&contact);
            state.contact = state.contact.take().or(contact);
        }
        self.loaded.send_replace(true);
    }

    /// Makes the disk what it should be.
    async fn write(&self) -> Result<(), String> {
        let changes = self.state().changes();
        let mut removed = false;
        for change in changes {
            removed |= matches!(
                change,
                Change::RemovePod(_)
                    | Change::RemoveObject(_)
                    | Change::RemoveTokens(_)
                    | Change::RemoveListed(_)
                    | Change::SavePod(_)
            );
            self.make(change).await?;
        }
        if removed {
            let disk = self.disk.clone();
            let kept = self.state().disk.names();
            let cleared = tokio::task::spawn_blocking(move || disk.clear(&kept)).await;
            cleared.map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    async fn make(&self, change: Change) -> Result<(), String> {
        let sealed = match &change {
            Change::SaveObject(key, _) => key.kind == ObjectKind::Secret,
            Change::SaveTokens(..) => true,
            _ => false,
        };
        let seal = if sealed { Some(self.keyring.lock().await.open_or_make().await?) } else { None };
        let disk = self.disk.clone();
        let made = tokio::task::spawn_blocking(move || {
            let seal = seal.as_deref();
            match &change {
                Change::SavePod(pod) => disk.save_pod(pod),
                Change::RemovePod(uid) => disk.remove_pod(uid),
                Change::SaveObject(key, word) => disk.save_object(key, word, seal),
                Change::RemoveObject(key) => disk.remove_object(key),
                Change::SaveTokens(uid, tokens) => {
                    disk.save_tokens(uid, tokens, seal.ok_or("there is no key")?)
                }
                Change::RemoveTokens(uid) => disk.remove_tokens(uid),
                Change::SaveListed(uid, listed) => disk.save_listed(uid, listed),
                Change::RemoveListed(uid) => disk.remove_listed(uid),
                Change::SaveContact(contact) => disk.save_contact(contact),
            }
            .map(|()| change)
        });
        let change = made.await.map_err(|error| error.to_string())??;
        self.state().made(change);
        Ok(())
    }
}

impl Kept {
    /// What there is, without what is in it.
    fn names(&self) -> Self {
        Self {
            pods: self.pods.clone(),
            objects: self.objects.keys().map(|key| (key.clone(), None)).collect(),
            tokens: self.tokens.keys().map(|uid| (uid.clone(), Tokens::new())).collect(),
            listed: self.listed.keys().map(|uid| (uid.clone(), FromLists::default())).collect(),
        }
    }
}

impl State {
    /// What is to be done to the disk. A pod's file goes before what it names, and comes after it.
    fn changes(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        if let Some(pods) = &self.pods {
            let named: BTreeSet<ObjectKey> = pods
                .values()
                // One that has ended is never started again.
                .filter(|pod| !pod.status.as_ref().is_some_and(is_terminal))
                .flat_map(|pod| references(pod))
                .collect();
            self.objects.retain(|key, _| named.contains(key));
            self.tokens.retain(|uid, _| pods.contains_key(uid));
            self.listed.retain(|uid, _| pods.contains_key(uid));
            let disk = &self.disk;
            let gone = disk.pods.keys().filter(|uid| !pods.contains_key(*uid));
            changes.extend(gone.cloned().map(Change::RemovePod));
            let objects = self.objects.iter().filter(|(key, word)| disk.objects.get(*key) != Some(*word));
            changes.extend(objects.map(|(key, word)| Change::SaveObject(key.clone(), word.clone())));
            for (uid, tokens) in &self.tokens {
                let mut all = disk.tokens.get(uid).cloned().unwrap_or_default();
                all.extend(tokens.clone());
                if disk.tokens.get(uid) != Some(&all) {
                    changes.push(Change::SaveTokens(uid.clone(), all));
                }
            }
            for (uid, listed) in &self.listed {
                let all = disk.listed.get(uid).cloned().unwrap_or_default().with(listed.clone());
                if disk.listed.get(uid) != Some(&all) {
                    changes.push(Change::SaveListed(uid.clone(), all));
                }
            }
            let other = |uid: &PodUid, pod: &Arc<Pod>| {
                disk.pods.get(uid).is_none_or(|old| !Arc::ptr_eq(old, pod) && old != pod)
            };
            let new = pods.iter().filter(|(uid, pod)| other(uid, pod));
            changes.extend(new.map(|(_, pod)| Change::SavePod(Arc::clone(pod))));
            let unnamed = disk.objects.keys().filter(|key| !named.contains(*key));
            changes.extend(unnamed.cloned().map(Change::RemoveObject));
            let of_gone = disk.tokens.keys().filter(|uid| !pods.contains_key(*uid));
            changes.extend(of_gone.cloned().map(Change::RemoveTokens));
            let of_gone = disk.listed.keys().filter(|uid| !pods.contains_key(*uid));
            changes.extend(of_gone.cloned().map(Change::RemoveListed));
        }
        if let Some(contact) = &self.contact {
            let due = match silence(self.contact_kept.as_ref(), contact) {
                Silence::For(gone) => gone >= CONTACT_EVERY,
                Silence::ClockBehind | Silence::Unknown => true,
            };
            if due {
                changes.push(Change::SaveContact(contact.clone()));
            }
        }
        changes
    }

    /// The disk has it.
    fn made(&mut self, change: Change) {
        let disk = &mut self.disk;
        match change {
            Change::SavePod(pod) => drop(disk.pods.insert(pod.uid(), pod)),
            Change::RemovePod(uid) => drop(disk.pods.remove(&uid)),
            Change::SaveObject(key, word) => drop(disk.objects.insert(key, word)),
            Change::RemoveObject(key) => drop(disk.objects.remove(&key)),
            Change::SaveTokens(uid, tokens) => drop(disk.tokens.insert(uid, tokens)),
            Change::RemoveTokens(uid) => drop(disk.tokens.remove(&uid)),
            Change::SaveListed(uid, listed) => drop(disk.listed.insert(uid, listed)),
            Change::RemoveListed(uid) => drop(disk.listed.remove(&uid)),
            Change::SaveContact(contact) => self.contact_kept = Some(contact),
        }
    }
}
