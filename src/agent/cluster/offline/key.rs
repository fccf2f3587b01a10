//! The key that Secrets and tokens are sealed with: made when the first is written, and itself sealed by systemd-creds
//! where that works, else in a file for root alone.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

use crate::{
    host::creds,
    store::{
        Checkpoint,
        sealed::{SealingKey, new_key},
    },
};

/// What the key is called to systemd-creds, which binds it.
const NAME: &str = "nodectl-offline";

/// The key on the disk.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum KeyFile {
    /// As systemd-creds sealed it.
    SystemdCreds(String),
    /// As it is, in base64.
    Plain(String),
}

/// See the module.
pub(super) struct Keyring {
    file: Checkpoint<KeyFile>,
    key: Option<Arc<SealingKey>>,
}

impl Keyring {
    pub(super) fn new(file: Checkpoint<KeyFile>) -> Self {
        Self { file, key: None }
    }

    /// The key that is there.
    ///
    /// # Errors
    /// In words, without the key: there is none, or it cannot be opened now.
    pub(super) async fn open(&mut self) -> Result<Arc<SealingKey>, String> {
        if let Some(key) = &self.key {
            return Ok(Arc::clone(key));
        }
        let file = self.file.clone();
        let loaded =
            tokio::task::spawn_blocking(move || file.load()).await.map_err(|error| error.to_string())?;
        if let Some(set_aside) = loaded.set_aside {
            tracing::warn!("the key of what is kept for offline cannot be used: {set_aside}");
        }
        let bytes = match loaded.value {
            None => return Err("there is no key".to_owned()),
            Some(KeyFile::SystemdCreds(sealed)) => creds::decrypt(NAME, sealed.as_bytes()).await?,
            Some(KeyFile::Plain(text)) => {
                BASE64_STANDARD.decode(text).map_err(|_not_base64| "the key is not base64".to_owned())?
            }
        };
        let key = Arc::new(SealingKey::new(&bytes).map_err(|error| error.to_string())?);
        self.key = Some(Arc::clone(&key));
        Ok(key)
    }

    /// The key that is there, or a new one in place of one that cannot be opened: what that sealed is lost, and the
    /// server has it.
    ///
    /// # Errors
    /// In words: a new key cannot be made or written.
    pub(super) async fn open_or_make(&mut self) -> Result<Arc<SealingKey>, String> {
        if let Ok(key) = self.open().await {
            return Ok(key);
        }
        let bytes = new_key().map_err(|error| error.to_string())?;
        let sealed = match sealed(&bytes).await {
            Ok(sealed) => {
                tracing::info!("Secrets are kept for offline under a key of systemd-creds");
                KeyFile::SystemdCreds(sealed)
            }
            Err(why) => {
                tracing::warn!(
                    "Secrets are kept for offline under a key that is a file on the same disk, which only root can \
                     read: {why}"
                );
                KeyFile::Plain(BASE64_STANDARD.encode(bytes))
            }
        };
        let file = self.file.clone();
        let saved = tokio::task::spawn_blocking(move || file.save(&sealed)).await;
        saved.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let key = Arc::new(SealingKey::new(&bytes).map_err(|error| error.to_string())?);
        self.key = Some(Arc::clone(&key));
        Ok(key)
    }
}

/// The key as systemd-creds seals it, tried at once: it is told to do so by its opening it again.
async fn sealed(bytes: &[u8]) -> Result<String, String> {
    let sealed = creds::encrypt(NAME, bytes).await?;
    if creds::decrypt(NAME, &sealed).await? != bytes {
        return Err("systemd-creds does not give back what it was given".to_owned());
    }
    String::from_utf8(sealed).map_err(|_not_text| "systemd-creds does not answer in text".to_owned())
}
