//! Getting a certificate signed, with a key that outlives the process: who is killed while a request waits for its
//! approval finds the same request again.

use ::kube::Client;

use crate::{
    kube::{
        Key,
        csr::{CsrError, Purpose, Request},
    },
    policy::rotation::{NODES, user_of},
    store::pairs::PairStore,
};

/// A request with the key that it is about.
#[derive(Debug, Clone)]
pub struct Asking {
    /// The request.
    pub request: Request,
    key: Key,
}

impl Asking {
    /// The request under way, or a new one. `held` is the public key of the certificate in use, which gets no second
    /// one: who was killed before the key of a request was forgotten would be given the old certificate again.
    /// Blocks on the file system.
    ///
    /// # Errors
    /// When the key cannot be made or kept.
    pub fn prepare(
        store: &PairStore,
        node_name: &str,
        purpose: Purpose,
        held: Option<&[u8]>,
    ) -> Result<Self, CsrError> {
        let kept = store.pending_key().and_then(|pem| Key::from_pem(&pem));
        let key = match kept.filter(|key| Some(key.public()) != held) {
            Some(key) => key,
            None => {
                let key = Key::generate().map_err(CsrError::Own)?;
                store.keep_pending_key(key.pem()).map_err(|error| CsrError::Own(error.to_string()))?;
                key
            }
        };
        Ok(Self { request: Request::new(&key, &user_of(node_name), NODES, purpose), key })
    }

    /// Waits for the certificates; they as PEM.
    ///
    /// # Errors
    /// [`CsrError`].
    pub async fn obtain(&self, client: &Client, waiting: impl FnMut()) -> Result<Vec<u8>, CsrError> {
        self.request.obtain(client, waiting).await
    }

    /// The private key as PEM.
    pub fn key(&self) -> &[u8] {
        self.key.pem().as_bytes()
    }
}

/// What an administrator is told about a request that nobody has decided about.
pub fn awaited(name: &str) -> String {
    format!("waiting for the certificate request {name} to be approved: kubectl certificate approve {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_under_way_is_found_again_and_one_that_is_done_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let store = PairStore::client(folder.path());
        let prepare = |held: Option<&[u8]>| Asking::prepare(&store, "a", Purpose::Client, held).unwrap();
        let first = prepare(None);
        let again = prepare(Some(b"another"));
        assert_eq!(again.request.name, first.request.name);
        // Its certificate is in use: the agent was killed before the key was forgotten.
        let public = Key::from_pem(std::str::from_utf8(first.key()).unwrap()).unwrap().public().to_owned();
        let next = prepare(Some(&public));
        assert_ne!(next.request.name, first.request.name);
        assert_eq!(prepare(Some(&public)).request.name, next.request.name);
        // A torn one is no key.
        store.keep_pending_key("-----BEGIN EC PRIVATE KEY-----\nMHc").unwrap();
        assert_ne!(prepare(None).request.name, next.request.name);
        assert!(!format!("{next:?}").contains("PRIVATE"));
    }
}
