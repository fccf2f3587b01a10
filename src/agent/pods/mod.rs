//! Pods.

pub mod paths;
