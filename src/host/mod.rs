//! What the kernel and the init system give.

pub mod sd;
