//! Types below `securityContext`, the pod's and a container's.

use crate::api::manifest::unsupported::{Table, Verdict};

use Verdict::Honoured;

/// `AppArmorProfile`.
pub static APP_ARMOR: Table =
    Table { kind: "AppArmorProfile", fields: &[("localhostProfile", Honoured), ("type", Honoured)] };

/// `Capabilities`.
pub static CAPABILITIES: Table =
    Table { kind: "Capabilities", fields: &[("add", Honoured), ("drop", Honoured)] };

/// `SELinuxOptions`.
pub static SE_LINUX: Table = Table {
    kind: "SELinuxOptions",
    fields: &[("level", Honoured), ("role", Honoured), ("type", Honoured), ("user", Honoured)],
};

/// `SeccompProfile`.
pub static SECCOMP: Table =
    Table { kind: "SeccompProfile", fields: &[("localhostProfile", Honoured), ("type", Honoured)] };

/// `Sysctl`.
pub static SYSCTL: Table = Table { kind: "Sysctl", fields: &[("name", Honoured), ("value", Honoured)] };
