//! The folder of what is kept for offline: `ROOT/nodectl/offline`, for root alone, a file for each pod, ConfigMap,
//! Secret (sealed), for each pod's tokens (sealed), and for what each pod was given of what is listed for all.
//!
//! Files of objects are named by a hash of kind, namespace and name, since these together may be longer than a file's
//! name; what a file says that it is must be what its name says. All of it blocks on the disk.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use k8s_openapi::api::{core::v1::Pod, node::v1::RuntimeClass};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::key::KeyFile;
use crate::{
    api::{PodExt as _, PodUid},
    policy::{
        given::{ObjectData, ObjectKey, ObjectKind, TokenKey, TokenText},
        offline::Moment,
    },
    store::{
        Checkpoint, CheckpointDir, Schema, SetAside, StoreError,
        sealed::{Sealed, SealingKey},
    },
};

/// The name of the only file in its folder.
const ONLY: &str = "last";

/// How the last contact with the server is marked.
const CONTACT: Schema = Schema { kind: "offline-contact", version: 1 };

/// The folder below the agent's own.
pub fn folder(root: &Path) -> PathBuf {
    root.join("nodectl/offline")
}

/// The last contact with the server, on the disk.
///
/// # Errors
/// Where the folder cannot be made.
pub fn contact(folder: &Path) -> Result<Checkpoint<Moment>, StoreError> {
    Checkpoint::open(folder.join("contact"), ONLY, CONTACT)
}

/// What is in an object; `None` of one that the server does not have.
pub(super) type Word = Option<Arc<ObjectData>>;

/// A token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptToken {
    /// The token.
    pub text: TokenText,
    /// Until when it is good.
    pub expires: Timestamp,
    /// When another is to be asked for.
    pub refresh_at: Timestamp,
}

/// The tokens of a pod.
pub(super) type Tokens = BTreeMap<TokenKey, KeptToken>;

/// What a pod was given of what the server lists for all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FromLists {
    /// The variables of services.
    pub(super) variables: Option<BTreeMap<String, String>>,
    /// Its runtime class.
    pub(super) class: Option<Arc<RuntimeClass>>,
}

impl FromLists {
    /// With what is newer.
    pub(super) fn with(self, newer: Self) -> Self {
        Self { variables: newer.variables.or(self.variables), class: newer.class.or(self.class) }
    }
}

/// All that is kept.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) pods: BTreeMap<PodUid, Arc<Pod>>,
    pub(super) objects: HashMap<ObjectKey, Word>,
    pub(super) tokens: BTreeMap<PodUid, Tokens>,
    pub(super) listed: BTreeMap<PodUid, FromLists>,
}

/// A ConfigMap on the disk; a Secret before it is sealed.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectFile {
    namespace: String,
    name: String,
    /// `None` where the server has no such object.
    object: Option<DataFile>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DataFile {
    data: BTreeMap<String, String>,
    binary: BTreeMap<String, String>,
    type_: String,
    immutable: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenFile {
    audience: String,
    seconds: i64,
    token: String,
    expires: Timestamp,
    refresh_at: Timestamp,
}

/// What was read and is not opened yet.
#[derive(Default)]
pub(super) struct Closed {
    secrets: Vec<(String, Sealed)>,
    tokens: Vec<(String, Sealed)>,
}

impl Closed {
    pub(super) fn is_empty(&self) -> bool {
        self.secrets.is_empty() && self.tokens.is_empty()
    }
}

/// See the module.
#[derive(Clone)]
pub(super) struct Disk {
    pods: CheckpointDir<Arc<Pod>>,
    config_maps: CheckpointDir<ObjectFile>,
    secrets: CheckpointDir<Sealed>,
    tokens: CheckpointDir<Sealed>,
    listed: CheckpointDir<FromLists>,
    contact: Checkpoint<Moment>,
}

impl Disk {
    /// Opens the folders, and makes them where they are missing.
    pub(super) fn open(folder: &Path) -> Result<(Self, Checkpoint<KeyFile>), StoreError> {
        let schema = |kind| Schema { kind, version: 1 };
        let disk = Self {
            pods: CheckpointDir::open(folder.join("pods"), schema("offline-pod"))?,
            config_maps: CheckpointDir::open(folder.join("configmaps"), schema("offline-configmap"))?,
            secrets: CheckpointDir::open(folder.join("secrets"), schema("offline-secret"))?,
            tokens: CheckpointDir::open(folder.join("tokens"), schema("offline-tokens"))?,
            listed: CheckpointDir::open(folder.join("listed"), schema("offline-listed"))?,
            contact: contact(folder)?,
        };
        Ok((disk, Checkpoint::open(folder.join("key"), ONLY, schema("offline-key"))?))
    }

    /// Reads all that is readable without the key. What is not usable is set aside.
    pub(super) fn load(&self) -> (Kept, Closed, Option<Moment>) {
        let mut kept = Kept::default();
        let (pods, mut aside) = self.pods.load_all();
        for (name, pod) in pods {
            if pod.uid().as_str() == name && pod.spec.is_some() {
                kept.pods.insert(pod.uid(), pod);
            } else {
                aside.push(self.pods.refuse(&name, "it is not the pod of its name"));
            }
        }
        let (maps, more) = self.config_maps.load_all();
        aside.extend(more);
        for (name, file) in maps {
            match file.read(ObjectKind::ConfigMap) {
                Some((key, word)) if file_name(&key) == name => drop(kept.objects.insert(key, word)),
                _ => aside.push(self.config_maps.refuse(&name, "it is not the ConfigMap of its name")),
            }
        }
        let (secrets, more) = self.secrets.load_all();
        aside.extend(more);
        let (tokens, more) = self.tokens.load_all();
        aside.extend(more);
        let (listed, more) = self.listed.load_all();
        aside.extend(more);
        kept.listed = listed.into_iter().map(|(uid, listed)| (uid.as_str().into(), listed)).collect();
        let contact = self.contact.load();
        aside.extend(contact.set_aside);
        tell(&aside);
        (kept, Closed { secrets, tokens }, contact.value)
    }

    /// Opens what was sealed. What the key does not open is set aside.
    pub(super) fn open_closed(&self, closed: Closed, key: &SealingKey, kept: &mut Kept) {
        const FORGED: &str = "it is not what the key of this machine sealed under its name";
        let mut aside = Vec::new();
        for (name, sealed) in closed.secrets {
            let file =
                key.open(&sealed).ok().and_then(|text| serde_json::from_slice::<ObjectFile>(&text).ok());
            match file.and_then(|file| file.read(ObjectKind::Secret)) {
                Some((key, word)) if key.to_string() == sealed.about && file_name(&key) == name => {
                    kept.objects.insert(key, word);
                }
                _ => aside.push(self.secrets.refuse(&name, FORGED)),
            }
        }
        for (name, sealed) in closed.tokens {
            let files =
                key.open(&sealed).ok().and_then(|text| serde_json::from_slice::<Vec<TokenFile>>(&text).ok());
            match files.filter(|_| sealed.about == about_tokens(&name)) {
                Some(files) => {
                    drop(kept.tokens.insert(name.into(), files.into_iter().map(TokenFile::read).collect()));
                }
                None => aside.push(self.tokens.refuse(&name, FORGED)),
            }
        }
        tell(&aside);
    }

    pub(super) fn save_pod(&self, pod: &Arc<Pod>) -> Result<(), String> {
        self.pods.save(pod.uid().as_str(), pod).map_err(|error| error.to_string())
    }

    pub(super) fn save_object(
        &self,
        key: &ObjectKey,
        word: &Word,
        seal: Option<&SealingKey>,
    ) -> Result<(), String> {
        let (name, file) = (file_name(key), ObjectFile::of(key, word));
        let saved = match key.kind {
            ObjectKind::ConfigMap => self.config_maps.save(&name, &file),
            ObjectKind::Secret => {
                let seal = seal.ok_or("there is no key")?;
                let text = serde_json::to_vec(&file).map_err(|error| error.to_string())?;
                let sealed = seal.seal(&key.to_string(), &text).map_err(|error| error.to_string())?;
                self.secrets.save(&name, &sealed)
            }
        };
        saved.map_err(|error| error.to_string())
    }

    pub(super) fn save_tokens(&self, uid: &PodUid, tokens: &Tokens, seal: &SealingKey) -> Result<(), String> {
        let files: Vec<TokenFile> = tokens.iter().map(TokenFile::of).collect();
        let text = serde_json::to_vec(&files).map_err(|error| error.to_string())?;
        let sealed = seal.seal(&about_tokens(uid.as_str()), &text).map_err(|error| error.to_string())?;
        self.tokens.save(uid.as_str(), &sealed).map_err(|error| error.to_string())
    }

    pub(super) fn save_listed(&self, uid: &PodUid, listed: &FromLists) -> Result<(), String> {
        self.listed.save(uid.as_str(), listed).map_err(|error| error.to_string())
    }

    pub(super) fn save_contact(&self, contact: &Moment) -> Result<(), String> {
        self.contact.save(contact).map_err(|error| error.to_string())
    }

    pub(super) fn remove_pod(&self, uid: &PodUid) -> Result<(), String> {
        self.pods.remove(uid.as_str()).map_err(|error| error.to_string())
    }

    pub(super) fn remove_object(&self, key: &ObjectKey) -> Result<(), String> {
        let removed = match key.kind {
            ObjectKind::ConfigMap => self.config_maps.remove(&file_name(key)),
            ObjectKind::Secret => self.secrets.remove(&file_name(key)),
        };
        removed.map_err(|error| error.to_string())
    }

    pub(super) fn remove_tokens(&self, uid: &PodUid) -> Result<(), String> {
        self.tokens.remove(uid.as_str()).map_err(|error| error.to_string())
    }

    pub(super) fn remove_listed(&self, uid: &PodUid) -> Result<(), String> {
        self.listed.remove(uid.as_str()).map_err(|error| error.to_string())
    }

    /// Removes what is there of what is not kept any more: files that were set aside, and sealed ones that nobody
    /// could open.
    pub(super) fn clear(&self, kept: &Kept) {
        let named = |name: &str| kept.objects.keys().any(|key| file_name(key) == name);
        self.pods.clear_set_aside(|name| kept.pods.contains_key(name));
        self.tokens.clear_set_aside(|name| kept.tokens.contains_key(name));
        self.listed.clear_set_aside(|name| kept.listed.contains_key(name));
        self.config_maps.clear_set_aside(named);
        self.secrets.clear_set_aside(named);
        self.secrets.keep_only(named);
        self.tokens.keep_only(|name| kept.tokens.contains_key(name));
    }
}

fn tell(aside: &[SetAside]) {
    for file in aside {
        tracing::warn!("what was kept for offline cannot be used, going on without it: {file}");
    }
}

/// A file's name for an object. No name holds the slash that parts namespace and name.
fn file_name(key: &ObjectKey) -> String {
    hex::encode(Sha256::digest(key.to_string()))
}

fn about_tokens(uid: &str) -> String {
    format!("tokens {uid}")
}

impl ObjectFile {
    fn of(key: &ObjectKey, word: &Word) -> Self {
        let encoded = |values: &BTreeMap<String, Vec<u8>>| {
            values.iter().map(|(key, value)| (key.clone(), BASE64_STANDARD.encode(value))).collect()
        };
        Self {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            object: word.as_ref().map(|data| DataFile {
                data: encoded(&data.data),
                binary: encoded(&data.binary),
                type_: data.type_.clone(),
                immutable: data.immutable,
            }),
        }
    }

    fn read(self, kind: ObjectKind) -> Option<(ObjectKey, Word)> {
        let decoded = |values: BTreeMap<String, String>| {
            let value = |(key, text)| Some((key, BASE64_STANDARD.decode::<String>(text).ok()?));
            values.into_iter().map(value).collect::<Option<BTreeMap<_, _>>>()
        };
        let word = match self.object {
            None => None,
            Some(file) => Some(Arc::new(ObjectData {
                data: decoded(file.data)?,
                binary: decoded(file.binary)?,
                type_: file.type_,
                immutable: file.immutable,
            })),
        };
        Some((ObjectKey { kind, namespace: self.namespace, name: self.name }, word))
    }
}

impl TokenFile {
    fn of((key, token): (&TokenKey, &KeptToken)) -> Self {
        Self {
            audience: key.audience.clone(),
            seconds: key.seconds,
            token: token.text.0.clone(),
            expires: token.expires,
            refresh_at: token.refresh_at,
        }
    }

    fn read(self) -> (TokenKey, KeptToken) {
        let key = TokenKey { audience: self.audience, seconds: self.seconds };
        let text = TokenText(self.token);
        (key, KeptToken { text, expires: self.expires, refresh_at: self.refresh_at })
    }
}
