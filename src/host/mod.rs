//! What the kernel, the init system and the network plugins give: cgroups, mounts, `/proc`, service
//! notifications, the CNI configuration. Paths are arguments, so that all of it runs over a temporary folder.

pub mod cgroup;
pub mod cni;
pub mod instance;
pub mod machine;
pub mod memory;
pub mod mounts;
pub mod oom;
mod port_owner;
pub mod remove;
pub mod sd;
