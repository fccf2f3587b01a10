//! Connections for many watches.
//!
//! A watch holds one stream of its connection for minutes, and a server lets a connection have so many streams (100
//! since Kubernetes 1.28, 250 before): one more waits for another to end, in silence. So a connection gets less than
//! that, and the next watch another connection.

use std::sync::{Arc, Mutex, PoisonError};

use ::kube::client::Client;

use super::{
    connect::{Bucket, connect_within},
    kubeconfig::{Kubeconfig, KubeconfigError},
};

/// Makes another connection.
type Connect = Box<dyn Fn() -> Result<Client, KubeconfigError> + Send + Sync>;

/// Watches of one connection. Lists and other requests between them need some of the rest.
const WATCHES: usize = 80;

/// The connections. See the module.
#[derive(Clone)]
pub struct WatchPool(Arc<Pool>);

struct Pool {
    connect: Connect,
    connections: Mutex<Vec<Connection>>,
}

struct Connection {
    client: Client,
    watches: usize,
}

impl Pool {
    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A client for one watch; its place is free again when it is dropped.
pub struct WatchClient {
    pool: Arc<Pool>,
    index: usize,
    client: Client,
}

impl WatchPool {
    pub(super) fn new(kubeconfig: &Kubeconfig, bucket: Bucket) -> Self {
        let kubeconfig = kubeconfig.clone();
        Self::by(Box::new(move || connect_within(&kubeconfig, bucket.clone())))
    }

    pub(super) fn by(connect: Connect) -> Self {
        Self(Arc::new(Pool { connect, connections: Mutex::default() }))
    }

    /// A client with room for one more watch. Must be called on the async runtime.
    ///
    /// # Errors
    /// As [`super::connect`].
    pub fn client(&self) -> Result<WatchClient, KubeconfigError> {
        let mut connections = self.0.connections();
        let free = connections.iter().position(|connection| connection.watches < WATCHES);
        let index = match free {
            Some(index) => index,
            None => {
                let client = (self.0.connect)()?;
                connections.push(Connection { client, watches: 0 });
                connections.len() - 1
            }
        };
        let Connection { client, watches } = &mut connections[index];
        *watches += 1;
        Ok(WatchClient { pool: Arc::clone(&self.0), index, client: client.clone() })
    }
}

impl WatchClient {
    /// The client.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }
}

impl Drop for WatchClient {
    fn drop(&mut self) {
        if let Some(connection) = self.pool.connections().get_mut(self.index) {
            connection.watches -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kube::test_server::TestServer;

    #[tokio::test]
    async fn no_connection_has_more_watches_than_a_server_allows_and_places_are_used_again() {
        let server = TestServer::start().await;
        let kubeconfig = Kubeconfig::read(&server.kubeconfig("")).unwrap();
        let pool = WatchPool::new(&kubeconfig, None);
        let mut clients: Vec<_> = (0..WATCHES + 1).map(|_| pool.client().unwrap()).collect();
        let counts = || pool.0.connections().iter().map(|c| c.watches).collect::<Vec<_>>();
        assert_eq!(counts(), [WATCHES, 1]);
        drop(clients.remove(0));
        assert_eq!(counts(), [WATCHES - 1, 1]);
        clients.push(pool.client().unwrap());
        assert_eq!(counts(), [WATCHES, 1]);
        drop(clients);
        assert_eq!(counts(), [0, 0]);
    }
}
