//! The verdicts on the fields of nested types: what stands below the rows of [`super::unsupported`].
//!
//! A type needs a table only where the row that leads to it is not refused as a whole. With
//! `Each(&TABLE)` the fields below are looked at one by one; with `Honoured` they are all honoured, and
//! the table is there for the documentation. `tests/drift/` finds all types of the API by itself,
//! checks that no field lacks a row, and writes `docs/pod-spec.md` from the rows and [`notes`].

mod container;
pub mod notes;
mod pod;
mod probe;
mod security;
mod volume;

pub use container::*;
pub use pod::*;
pub use probe::*;
pub use security::*;
pub use volume::*;

use super::unsupported::Table;

/// Every table of this module.
pub static TABLES: &[&Table] = &[
    &AFFINITY,
    &APP_ARMOR,
    &CAPABILITIES,
    &DNS_CONFIG,
    &DNS_OPTION,
    &DOWNWARD_API,
    &DOWNWARD_API_FILE,
    &DOWNWARD_API_PROJECTION,
    &EPHEMERAL_CONTAINER,
    &EXEC,
    &FIELD_REF,
    &FILE_KEY_REF,
    &GRPC,
    &HOST_ALIAS,
    &HOST_PATH,
    &HTTP_GET,
    &HTTP_HEADER,
    &IMAGE_VOLUME,
    &NODE_AFFINITY,
    &NODE_SELECTOR,
    &NODE_SELECTOR_REQUIREMENT,
    &NODE_SELECTOR_TERM,
    &OS,
    &PORT,
    &PROBE,
    &READINESS_GATE,
    &RESIZE_POLICY,
    &RESOURCE_FIELD_REF,
    &RESTART_RULE,
    &RESTART_RULE_CODES,
    &SCHEDULING_GATE,
    &SECCOMP,
    &SE_LINUX,
    &SLEEP,
    &SYSCTL,
    &TCP_SOCKET,
    &VOLUME_DEVICE,
];
