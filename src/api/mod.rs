//! The Kubernetes objects as nodectl uses them: parsing, defaulting and validation, all pure.
//!
//! Nothing here touches a file, a socket or the clock, and nothing outside this module is imported,
//! so that every other part of the program may use it.

pub mod defaults;
pub mod manifest;
pub mod uid_hash;
pub mod validation;
