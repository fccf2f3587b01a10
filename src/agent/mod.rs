//! The running agent.

pub mod clock;
pub mod pleg;
