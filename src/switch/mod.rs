//! Moving a node from one container runtime to another: what is on the node, what is to change, and the
//! changes themselves, each with its way back.
//!
//! Texts are edited as pure functions: what comes in and goes out are strings, and whoever calls them reads
//! and writes the files.

pub mod agent_unit;
pub mod carry;
pub mod containerd;
pub mod detect;
pub mod docker;
#[cfg(test)]
pub(crate) mod docker_tests;
pub mod facts;
mod file_steps;
pub mod files;
pub mod folder;
pub mod journal;
pub mod kubelet;
pub mod lines;
pub mod plan;
pub mod request;
pub mod rooted;
#[cfg(test)]
mod rooted_tests;
pub mod secrets;
pub mod state;
pub mod steps;
pub mod systemd;
mod toml;
pub mod transaction;
#[cfg(test)]
mod transaction_tests;
pub mod watch;
pub mod world;
