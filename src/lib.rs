//! nodectl: a Kubernetes node in one binary.
//!
//! The modules, and who may import whom (a test reads the `use` lines and keeps this so):
//! `main → cli → {agent, server, crictl, switch, doctor} → {policy, cri, host, kube, store} →
//! {config, api}`. `policy` is pure and imports `api` and `config` alone; the edges (`cri`, `host`,
//! `kube`, `store`) import no policy and not one another.

pub mod agent;
pub mod api;
pub mod cli;
pub mod config;
pub mod cri;
pub mod error;
mod files;
pub mod host;
pub mod kube;
pub mod logs;
pub mod policy;
mod rate;
pub mod server;
pub mod store;
pub mod switch;
pub mod telemetry;
mod tls;
