//! What systemd makes of a service's files, and how its command line is changed in them.

pub mod dependencies;
pub mod flags;
#[cfg(test)]
mod tests;
pub mod unit;
pub(in crate::switch) mod words;
