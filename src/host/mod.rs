//! What the kernel and the init system give.

pub mod cni;
pub mod instance;
mod port_owner;
pub mod sd;
