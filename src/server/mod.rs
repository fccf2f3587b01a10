//! What the agent serves: health over TCP, itself to the operator over a unix socket, and the node's API over HTTPS
//! ([`node_api`]).
//!
//! The first two only read the [`AgentView`](crate::api::view::AgentView), which never waits for the runtime, and
//! are bounded (see [`http`]): no client, however slow or many, costs the agent more than a few
//! connections.

pub mod healthz;
mod http;
pub mod local;
pub mod local_client;
pub mod node_api;
