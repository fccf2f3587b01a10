//! Which dead sandboxes and containers of a living pod may go: all but the newest and the one before it of
//! every container name, which hold the log that an operator asks for first (kubelet:
//! `MaxPerPodContainerCount` of 1, pkg/kubelet/kuberuntime/kuberuntime_gc.go).

use std::collections::{HashMap, HashSet};

use crate::api::{ContainerId, ContainerState, PodObservation, SandboxId, SandboxState};

/// How many containers of one name are kept: the present one and its predecessor.
const KEPT_PER_NAME: usize = 2;

/// What may be removed, containers before sandboxes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removable {
    /// Dead containers.
    pub containers: Vec<ContainerId>,
    /// Stopped sandboxes that hold no container that is kept.
    pub sandboxes: Vec<SandboxId>,
}

impl Removable {
    /// Whether there is nothing to remove.
    pub fn is_empty(&self) -> bool {
        self.containers.is_empty() && self.sandboxes.is_empty()
    }
}

/// Looks for what may go.
pub fn removable(observation: &PodObservation) -> Removable {
    let mut seen: HashMap<&str, usize> = HashMap::new();
    let mut kept: HashSet<&SandboxId> = HashSet::new();
    let mut found = Removable::default();
    for container in &observation.containers {
        let count = seen.entry(&container.name).or_default();
        *count += 1;
        let dead = matches!(container.state, ContainerState::Exited | ContainerState::Created);
        if dead && *count > KEPT_PER_NAME {
            found.containers.push(container.id.clone());
        } else {
            kept.insert(&container.sandbox_id);
        }
    }
    found.sandboxes = observation
        .sandboxes
        .iter()
        .skip(1)
        .filter(|sandbox| sandbox.state == SandboxState::NotReady && !kept.contains(&sandbox.id))
        .map(|sandbox| sandbox.id.clone())
        .collect();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::{container, exited, observed, sandbox};

    #[test]
    fn the_newest_and_its_predecessor_stay() {
        let at = |attempt: u32, state| {
            let mut c = exited("a", "s", 1, 1);
            c.id = format!("a{attempt}").into();
            c.attempt = attempt;
            c.created_at = jiff::Timestamp::from_second(attempt.into()).unwrap();
            c.state = state;
            c
        };
        let dead = ContainerState::Exited;
        let o = observed(
            vec![sandbox("s", 0)],
            vec![at(0, dead), at(1, dead), at(2, dead), at(3, ContainerState::Running), container("b", "s")],
        );
        assert_eq!(removable(&o).containers, ["a1".into(), "a0".into()]);
        // A live one is never garbage, however old.
        let o =
            observed(vec![sandbox("s", 0)], vec![at(0, ContainerState::Running), at(1, dead), at(2, dead)]);
        assert!(removable(&o).is_empty());
    }

    #[test]
    fn an_old_sandbox_goes_with_its_last_kept_container() {
        let mut old = sandbox("old", 0);
        old.state = SandboxState::NotReady;
        let o = observed(vec![old.clone(), sandbox("new", 1)], vec![exited("a", "old", 0, 1)]);
        assert!(removable(&o).is_empty());
        let o = observed(vec![old, sandbox("new", 1)], vec![container("a", "new")]);
        assert_eq!(removable(&o).sandboxes, ["old".into()]);
    }

    #[test]
    fn the_newest_sandbox_stays_even_when_it_is_dead() {
        let mut dead = sandbox("s", 0);
        dead.state = SandboxState::NotReady;
        assert!(removable(&observed(vec![dead], vec![])).is_empty());
    }
}
