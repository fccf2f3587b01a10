//! The command line: one file per subcommand.

pub mod explain;
mod explain_text;
pub mod output;
pub mod pod_summary;
pub mod pods;

#[cfg(test)]
mod fixtures;
