//! The agent by itself on a real containerd, without a cluster: one program, so that what is slow runs beside the
//! rest and not after it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking and says why"
)]

#[path = "../support/mod.rs"]
mod support;

mod churn;
mod cni;
mod ends;
mod faults;
mod node_api;
mod operator;
mod pods;
mod restart;
mod sources;
