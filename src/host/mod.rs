//! What the kernel, the init system and the network plugins give: cgroups, mounts, `/proc`, service
//! notifications, the CNI configuration. Paths are arguments, so that all of it runs over a temporary folder.

pub mod atomic_dir;
pub mod beneath;
pub mod boot;
pub mod capacity;
pub mod cgroup;
pub mod cni;
pub mod creds;
pub mod disk_use;
pub mod identity;
pub mod instance;
pub mod log_file;
pub mod machine;
pub mod memory;
pub mod mounts;
pub mod net_dev;
pub mod oom;
pub mod ownership;
mod port_owner;
pub mod process;
pub mod read;
pub mod regular;
pub mod remove;
pub mod sd;
pub mod systemd;
mod systemd_private;
#[cfg(test)]
pub(crate) mod systemd_tests;
