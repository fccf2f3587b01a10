//! `nodectl run`'s configuration.
//!
//! A KubeletConfiguration file, drop-ins over it and kubelet's flags over these become one
//! [`AgentConfig`] and a list of [`ConfigWarning`]s. Files are read into trees that know line and
//! column ([`node`]), checked against one table of keys ([`keys`]), merged, decoded into
//! [`KubeletConfiguration`], given kubelet's defaults, and validated. Nothing here knows clap or
//! prints; the only thing read besides the files is the machine's host name.

mod agent;
mod credential_providers;
mod defaults;
mod duration;
mod error;
mod flags;
mod flags_table;
mod flags_value;
mod gates;
mod gates_table;
mod keys;
mod keys_table;
mod load;
mod node;
mod resolve;
mod secret;
mod types;
mod types_nested;
mod unacted;
mod validate;
mod validate_maps;

#[cfg(test)]
mod tests;

pub use agent::{
    AgentConfig, Authorization, CgroupDriver, ClusterNode, ContainerGcSettings, ImagePulls, LogFormat,
    NodeApiConfig, OfflinePods, ReservedCgroup,
};
pub use credential_providers::CredentialProvider;
pub use defaults::{API_VERSION, KIND, apply as apply_defaults, defaulted};
pub use duration::{DurationError, GoDuration};
pub use error::{ConfigError, ConfigWarning, Origin, Problem, WarningKind};
pub use flags::{
    FlagSpec, FlagStatus, Syntax, Target, find as find_flag, flags, normalize as normalize_flag,
};
pub use gates::{FeatureGates, GateState, lookup as lookup_gate};
pub use keys::{KeyKind, KeySpec, Support, keys};
pub use load::{load, load_on, validate_file};
pub use secret::{HeaderMap, SecretUrl};
pub use types::*;

/// Largest configuration file that is read, bytes.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// Most drop-in files in a `--config-dir`.
pub const MAX_DROP_INS: usize = 256;
