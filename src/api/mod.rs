//! The vocabulary that all parts share. It imports nothing else of ours.

pub mod cri;
