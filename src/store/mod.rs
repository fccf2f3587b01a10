//! Files that survive a crash: the agent's checkpoints. See [`checkpoint`].

pub mod checkpoint;

pub use checkpoint::{Checkpoint, CheckpointDir, Loaded, Schema, SetAside, StoreError};
