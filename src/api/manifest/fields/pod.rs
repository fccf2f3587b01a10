//! Types below `spec`.

use crate::api::manifest::unsupported::{Table, Verdict};

use Verdict::{Each, Honoured, NeedsApi, Refuse};

/// `Affinity`. That to other pods is for the scheduler.
pub static AFFINITY: Table = Table {
    kind: "Affinity",
    fields: &[
        ("nodeAffinity", Each(&NODE_AFFINITY)),
        ("podAffinity", Honoured),
        ("podAntiAffinity", Honoured),
    ],
};

/// `NodeAffinity`.
pub static NODE_AFFINITY: Table = Table {
    kind: "NodeAffinity",
    fields: &[
        ("preferredDuringSchedulingIgnoredDuringExecution", Honoured),
        ("requiredDuringSchedulingIgnoredDuringExecution", Each(&NODE_SELECTOR)),
    ],
};

/// `NodeSelector`.
pub static NODE_SELECTOR: Table =
    Table { kind: "NodeSelector", fields: &[("nodeSelectorTerms", Each(&NODE_SELECTOR_TERM))] };

/// `NodeSelectorTerm`.
pub static NODE_SELECTOR_TERM: Table = Table {
    kind: "NodeSelectorTerm",
    fields: &[
        ("matchExpressions", Each(&NODE_SELECTOR_REQUIREMENT)),
        ("matchFields", Each(&NODE_SELECTOR_REQUIREMENT)),
    ],
};

/// `NodeSelectorRequirement`.
pub static NODE_SELECTOR_REQUIREMENT: Table = Table {
    kind: "NodeSelectorRequirement",
    fields: &[("key", Honoured), ("operator", Honoured), ("values", Honoured)],
};

/// `PodDNSConfig`.
pub static DNS_CONFIG: Table = Table {
    kind: "PodDNSConfig",
    fields: &[("nameservers", Honoured), ("options", Each(&DNS_OPTION)), ("searches", Honoured)],
};

/// `PodDNSConfigOption`.
pub static DNS_OPTION: Table =
    Table { kind: "PodDNSConfigOption", fields: &[("name", Honoured), ("value", Honoured)] };

/// `HostAlias`.
pub static HOST_ALIAS: Table =
    Table { kind: "HostAlias", fields: &[("hostnames", Honoured), ("ip", Honoured)] };

/// `PodOS`.
pub static OS: Table = Table { kind: "PodOS", fields: &[("name", Honoured)] };

/// `PodReadinessGate`.
pub static READINESS_GATE: Table = Table {
    kind: "PodReadinessGate",
    fields: &[("conditionType", NeedsApi("conditions of other controllers come through an API server"))],
};

/// `PodSchedulingGate`.
pub static SCHEDULING_GATE: Table =
    Table { kind: "PodSchedulingGate", fields: &[("name", Refuse("a gated pod must not run"))] };
