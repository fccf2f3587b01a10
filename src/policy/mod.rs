//! Decisions, and nothing but decisions: functions of a specification, an observation and a time. No task,
//! file, socket, clock or global is used here, so each rule is tested by a table.

pub mod admission;
pub mod allocatable;
pub mod backoff;
pub mod cgroup;
pub mod container_config;
pub mod container_gc;
pub mod dns;
pub mod downward;
pub mod env;
pub mod env_file;
pub mod expansion;
pub mod fingerprints;
pub mod fit;
pub mod given;
pub mod grace;
mod host_ports;
pub mod hosts;
pub mod keyring;
pub mod lifecycle;
pub mod log_rotation;
pub mod node;
pub mod node_affinity;
pub mod node_status;
pub mod pod_actions;
pub mod pod_cgroup;
pub mod pressure;
pub mod probe;
pub mod qos;
pub mod resources;
pub mod restart;
pub mod rotation;
pub mod runtime;
pub mod runtime_class;
pub mod security;
pub mod service_env;
pub mod status;
mod swap;
pub mod sysctls;
mod taints;
#[cfg(test)]
pub(crate) mod testing;
pub mod token;
pub mod userns;
pub mod volume_files;
pub mod volumes;
