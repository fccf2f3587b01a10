//! nodectl: a Kubernetes node in one binary.

pub mod agent;
pub mod api;
