//! Pods: what is wanted, a worker for each, and what the workers do.

pub mod admission;
mod classes;
pub mod desired;
pub mod env;
mod executor;
pub mod failures;
mod hooks;
pub mod host_work;
mod hosts;
pub mod mailbox;
mod network;
pub mod pace;
pub mod paths;
mod prepare;
mod resize;
mod shown;
mod start;
pub mod starts;
mod stop;
mod terminator;
mod told;
pub mod userns;
pub mod worker;
pub mod workers;
