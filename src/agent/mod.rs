//! The running agent.

pub mod sources;
