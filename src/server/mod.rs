//! What the agent serves: health over TCP, and itself to the operator over a unix socket.
//!
//! Both only read the [`AgentView`](crate::api::view::AgentView), which never waits for the runtime, and
//! both are bounded (see [`http`]): no client, however slow or many, costs the agent more than a few
//! connections.

pub mod healthz;
mod http;
pub mod local;
pub mod local_client;
