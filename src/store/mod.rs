//! Files that survive a crash: the agent's checkpoints ([`checkpoint`]), and its certificates with their keys
//! ([`pairs`]).

pub mod checkpoint;
pub mod pairs;

pub use checkpoint::{Checkpoint, CheckpointDir, Loaded, Schema, SetAside, StoreError};
