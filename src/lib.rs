//! A Kubernetes node in one binary.

pub mod api;
pub mod cri;
