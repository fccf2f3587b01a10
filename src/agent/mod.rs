//! The running agent.

pub mod board;
pub mod clock;
pub mod health;
pub mod housekeeping;
pub mod images;
pub mod logs;
pub mod pleg;
pub mod pods;
pub mod sources;
pub mod sync_loop;
pub mod volumes;
