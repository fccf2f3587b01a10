//! Files that survive a crash: the agent's checkpoints ([`checkpoint`]), and its certificates with their keys
//! ([`pairs`]). What is secret is [sealed](sealed) first.

pub mod checkpoint;
pub mod pairs;
pub mod sealed;

pub use checkpoint::{Checkpoint, CheckpointDir, Loaded, Schema, SetAside, StoreError};
