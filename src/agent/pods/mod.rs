//! Pods: what is wanted, a worker for each, and what the workers do.

pub mod admission;
pub mod desired;
pub mod env;
mod executor;
pub mod failures;
mod hooks;
pub mod mailbox;
pub mod paths;
mod prepare;
mod start;
mod stop;
mod terminator;
pub mod worker;
pub mod workers;
