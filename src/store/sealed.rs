//! Values that the disk shows to nobody who has not the key: AES-256-GCM, with what a value is about bound into it, so
//! that one put in another's place is refused.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom as _, SystemRandom},
};
use serde::{Deserialize, Serialize};

/// The length of a key, in bytes.
pub const KEY_BYTES: usize = 32;

/// A sealed value, as it stands on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// What it is about, for all to read: `Secret ns/name`.
    pub about: String,
    nonce: String,
    text: String,
}

/// Why a value was not sealed or opened. Nothing of the value or the key is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// A key has [`KEY_BYTES`] bytes.
    #[error("the key has not {KEY_BYTES} bytes")]
    Key,
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// Changed, of another key, or put in another's place.
    #[error("it was not sealed so with this key")]
    Forged,
}

/// Seals and opens. The nonces are random, which is good for 2³² values of a key.
pub struct SealingKey(LessSafeKey);

impl std::fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hidden")
    }
}

/// Bytes for a new key.
///
/// # Errors
/// [`SealError::Random`].
pub fn new_key() -> Result<[u8; KEY_BYTES], SealError> {
    let mut bytes = [0; KEY_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_unspecified| SealError::Random)?;
    Ok(bytes)
}

impl SealingKey {
    /// The key of these bytes.
    ///
    /// # Errors
    /// [`SealError::Key`] for another number of them.
    pub fn new(bytes: &[u8]) -> Result<Self, SealError> {
        let key = UnboundKey::new(&AES_256_GCM, bytes).map_err(|_unspecified| SealError::Key)?;
        Ok(Self(LessSafeKey::new(key)))
    }

    /// Seals a value.
    ///
    /// # Errors
    /// [`SealError::Random`].
    pub fn seal(&self, about: &str, value: &[u8]) -> Result<Sealed, SealError> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).map_err(|_unspecified| SealError::Random)?;
        let mut text = value.to_vec();
        let (aad, once) = (Aad::from(about.as_bytes()), Nonce::assume_unique_for_key(nonce));
        self.0.seal_in_place_append_tag(once, aad, &mut text).map_err(|_unspecified| SealError::Forged)?;
        Ok(Sealed {
            about: about.to_owned(),
            nonce: BASE64_STANDARD.encode(nonce),
            text: BASE64_STANDARD.encode(text),
        })
    }

    /// The value, if it was sealed so.
    ///
    /// # Errors
    /// [`SealError::Forged`].
    pub fn open(&self, sealed: &Sealed) -> Result<Vec<u8>, SealError> {
        let bytes = |text: &str| BASE64_STANDARD.decode(text).map_err(|_not_base64| SealError::Forged);
        let nonce = Nonce::try_assume_unique_for_key(&bytes(&sealed.nonce)?);
        let nonce = nonce.map_err(|_length| SealError::Forged)?;
        let mut text = bytes(&sealed.text)?;
        let opened = self.0.open_in_place(nonce, Aad::from(sealed.about.as_bytes()), &mut text);
        let length = opened.map_err(|_unspecified| SealError::Forged)?.len();
        text.truncate(length);
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_opened_by_its_key_in_its_place_only() {
        let key = SealingKey::new(&new_key().unwrap()).unwrap();
        let sealed = key.seal("Secret ns/a", b"hunter2").unwrap();
        assert_eq!(key.open(&sealed).unwrap(), b"hunter2");
        let text = serde_json::to_string(&sealed).unwrap();
        assert!(!text.contains("hunter2") && !text.contains(&BASE64_STANDARD.encode("hunter2")));
        assert_ne!(sealed, key.seal("Secret ns/a", b"hunter2").unwrap());
        let other = SealingKey::new(&new_key().unwrap()).unwrap();
        assert_eq!(other.open(&sealed), Err(SealError::Forged));
        let moved = Sealed { about: "Secret ns/b".to_owned(), ..sealed.clone() };
        assert_eq!(key.open(&moved), Err(SealError::Forged));
        for broken in [
            Sealed { nonce: String::new(), ..sealed.clone() },
            Sealed { text: String::new(), ..sealed.clone() },
            Sealed { text: "?".to_owned(), ..sealed },
        ] {
            assert_eq!(key.open(&broken), Err(SealError::Forged));
        }
        assert_eq!(SealingKey::new(b"short").unwrap_err(), SealError::Key);
        assert_eq!(format!("{key:?}"), "hidden");
    }
}
