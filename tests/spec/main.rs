//! What a pod's specification says, looked at inside its containers on a real containerd: /proc, mounts,
//! environment and cgroups, not what the runtime was asked for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking and says why"
)]

#[path = "../support/mod.rs"]
mod support;

mod admission;
mod cgroups;
mod corpus;
mod env;
mod housekeeping;
mod network;
mod probes;
mod security;
mod stats;
mod userns;
mod vm;
mod volumes;
mod volumes_host;
