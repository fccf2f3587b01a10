//! Decisions, and nothing but decisions: functions of a specification, an observation and a time. No task,
//! file, socket, clock or global is used here, so each rule is tested by a table.

pub mod admission;
pub mod backoff;
pub mod cgroup;
pub mod container_config;
pub mod container_gc;
pub mod env;
pub mod expansion;
pub mod fingerprints;
pub mod grace;
pub mod lifecycle;
pub mod node;
pub mod pod_actions;
pub mod probe;
pub mod qos;
pub mod resources;
pub mod restart;
pub mod runtime;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;
