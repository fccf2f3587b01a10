//! The command line: clap types, one file per subcommand.

pub mod config;
pub mod kubelet_flags;
