//! Feature gates: which exist, what they default to, and what a configuration makes of them.

use std::collections::BTreeMap;

pub(super) use super::gates_table::GATES;

/// What is known of a feature gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateState {
    /// Known to Kubernetes 1.36.
    Known {
        /// Its value where nothing is configured.
        default: bool,
        /// Whether no other value is allowed.
        locked: bool,
    },
    /// Accepted for old configurations, without effect.
    Removed {
        /// Minor version of Kubernetes by which it was gone.
        minor: u8,
    },
}

/// Gates whose change nodectl acts on.
const ACTED_ON: &[&str] = &[
    "ContainerCheckpoint",
    "CustomCPUCFSQuotaPeriod",
    "EnvFiles",
    "HostnameOverride",
    "KubeletCrashLoopBackOffMax",
    "KubeletFineGrainedAuthz",
    "UserNamespacesSupport",
];

/// Whether nodectl acts on a change of the gate `name`.
pub(super) fn acts(name: &str) -> bool {
    ACTED_ON.contains(&name)
}

/// What is known of the gate `name`; `None` if no kubelet since 1.20 knew it.
pub fn lookup(name: &str) -> Option<GateState> {
    GATES.binary_search_by(|(known, _)| (*known).cmp(name)).ok().map(|at| GATES[at].1)
}

/// The gates in force: defaults of Kubernetes 1.36 with a configuration's over them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeatureGates(BTreeMap<String, bool>);

impl FeatureGates {
    /// The gates of a configuration over the defaults. Unknown and removed ones stay in the map and
    /// have no effect.
    pub fn new(configured: &BTreeMap<String, bool>) -> Self {
        Self(configured.clone())
    }

    /// Whether the gate `name` is on. One that is not configured has its default, an unknown or
    /// removed one is off, and a locked one is what it is locked to.
    pub fn enabled(&self, name: &str) -> bool {
        match lookup(name) {
            Some(GateState::Known { default, locked: true }) => default,
            Some(GateState::Known { default, locked: false }) => self.0.get(name).copied().unwrap_or(default),
            Some(GateState::Removed { .. }) | None => false,
        }
    }

    /// What was configured, by name.
    pub fn configured(&self) -> &BTreeMap<String, bool> {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_without_duplicates() {
        for pair in GATES.windows(2) {
            assert!(pair[0].0 < pair[1].0, "{} before {}", pair[0].0, pair[1].0);
        }
    }

    #[test]
    fn configured_gates_come_over_defaults_unless_locked() {
        let gates = FeatureGates::new(
            &[("EventedPLEG", true), ("NodeSwap", false), ("DynamicKubeletConfig", true)]
                .map(|(name, on)| (name.to_owned(), on))
                .into(),
        );
        assert!(gates.enabled("EventedPLEG"));
        assert!(gates.enabled("NodeSwap"), "locked on");
        assert!(!gates.enabled("DynamicKubeletConfig"), "removed");
        assert!(!gates.enabled("NoSuchGate"));
        assert!(gates.enabled("KubeletCrashLoopBackOffMax"));
    }
}
