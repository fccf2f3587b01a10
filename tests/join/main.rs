//! The agent as a node of a cluster, against a real control plane: one program, so that tests share the control
//! plane, and what waits runs beside the rest and not after it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking and says why"
)]

#[path = "../support/mod.rs"]
mod support;

mod changes;
mod events;
mod identity;
mod node;
mod node_api;
mod objects;
mod offline;
mod pods;
mod pull;
mod rates;
mod resize;
mod stats;
mod streams;
