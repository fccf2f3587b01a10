//! The running agent.

pub mod clock;
pub mod images;
pub mod logs;
pub mod pleg;
pub mod pods;
pub mod volumes;
