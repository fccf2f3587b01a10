//! The command line: clap's types and what each subcommand prints. Help, completions and manual pages all
//! come from here.

pub mod certs;
pub mod complete;
pub mod config;
pub mod cri;
pub mod explain;
mod explain_text;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod kubelet_flags;
pub mod output;
pub mod pod_summary;
pub mod pods;
pub mod root;
pub mod run;
pub mod switch;
