//! What the kernel and the init system give: cgroups, mounts, `/proc`.

pub mod cgroup;
pub mod mounts;
