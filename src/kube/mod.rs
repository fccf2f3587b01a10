//! The edge to the cluster: a kubeconfig, and a small client of the API server with what is asked of it.
//!
//! The client speaks JSON over HTTP/1.1, one request and one answer, with a bound on time and size of each;
//! whoever calls it decides what to do about a failure, for which [`KubeError`] says whether another try may
//! help. It asks no proxy, and runs no credential plugin: a node's own kubeconfig has neither.

mod bounds;
mod client;
mod connect;
pub mod csr;
mod drain;
mod key;
mod kubeconfig;
mod node;
#[cfg(test)]
pub(crate) mod test_server;
mod tls;
mod watches;

pub use client::{ApiClient, KubeError, Method, Patch, escaped};
pub use connect::{ApiServer, Clients, Rate, Rates, connect, told};
pub use drain::{DrainError, DrainOptions, Drained, drain, obstacles};
pub use key::{Key, self_signed};
pub use kubeconfig::{Kubeconfig, KubeconfigError};
pub use node::{Cordon, annotation, cordon, cordoned, node, set_annotation, uncordon};
pub use watches::{WatchClient, WatchPool};
