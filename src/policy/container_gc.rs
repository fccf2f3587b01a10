//! Which dead sandboxes and containers of a living pod may go: kubelet's rules
//! (pkg/kubelet/kuberuntime/kuberuntime_gc.go). Of a pod that is no longer wanted all goes, elsewhere.
//!
//! Of each container name some dead ones are kept, by default the newest, which hold the log that an operator
//! asks for first. Where the node as a whole may hold only so many, every container gives up evenly first, and
//! the oldest go after that. Unlike with kubelet, the newest record of a name stays in every case: without it
//! nobody could tell that the container has run, and it would run again.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use crate::{
    api::{ContainerId, ContainerState, ObservedContainer, PodObservation, PodUid, SandboxId, SandboxState},
    config::ContainerGcSettings,
};

/// What may be removed, containers before sandboxes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removable {
    /// Containers that do not run, the newest first. One in an unknown state may be alive and is stopped
    /// first.
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

/// Looks for what may go of one pod. `all` tells of all pods of the node, and is asked only where their
/// number counts.
pub fn removable(
    observation: &PodObservation,
    settings: &ContainerGcSettings,
    now: Timestamp,
    all: impl FnOnce() -> Vec<Arc<PodObservation>>,
) -> Removable {
    let mut excess: HashSet<&ContainerId> = HashSet::new();
    for unit in units(observation, settings.min_age, now) {
        excess.extend(unit.beyond(settings.max_per_container).map(|container| &container.id));
    }
    let all = settings.max_total.map(|most| (most, all()));
    if let Some((most, all)) = &all {
        excess.extend(
            over_total(all, settings, *most, now)
                .into_iter()
                .filter_map(|(uid, id)| (*uid == observation.uid).then_some(id)),
        );
    }
    let (gone, kept): (Vec<_>, Vec<_>) =
        observation.containers.iter().partition(|container| excess.contains(&container.id));
    let held: HashSet<&SandboxId> = kept.iter().map(|container| &container.sandbox_id).collect();
    let sandboxes = observation.sandboxes.iter().skip(1);
    Removable {
        containers: gone.iter().map(|container| container.id.clone()).collect(),
        sandboxes: sandboxes
            .filter(|sandbox| sandbox.state == SandboxState::NotReady && !held.contains(&sandbox.id))
            .map(|sandbox| sandbox.id.clone())
            .collect(),
    }
}

/// The dead containers of one name in one pod.
struct Unit<'a> {
    uid: &'a PodUid,
    /// Old enough to go, the newest first.
    dead: Vec<&'a ObservedContainer>,
    /// Whether the first of them is the newest record of its name.
    newest: bool,
}

impl<'a> Unit<'a> {
    /// Those over the number.
    fn beyond(&self, most: Option<u32>) -> impl Iterator<Item = &'a ObservedContainer> + use<'a> {
        let most = most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        self.dead.clone().into_iter().skip(most.max(usize::from(self.newest)))
    }
}

fn units<'a>(observation: &'a PodObservation, min_age: Duration, now: Timestamp) -> Vec<Unit<'a>> {
    let mut by_name: HashMap<&str, Vec<&ObservedContainer>> = HashMap::new();
    for container in &observation.containers {
        by_name.entry(&container.name).or_default().push(container);
    }
    let old_enough = |container: &ObservedContainer| {
        // A clock that was put back makes nothing older.
        Duration::try_from(now.duration_since(container.created_at)).is_ok_and(|age| age >= min_age)
    };
    let unit = |mut containers: Vec<&'a ObservedContainer>| {
        // Kubelet goes by the attempt first, which no clock can change.
        containers.sort_by_key(|container| std::cmp::Reverse((container.attempt, container.created_at)));
        let newest = containers.first().map(|container| &container.id);
        let dead: Vec<_> = containers
            .iter()
            .copied()
            .filter(|container| container.state != ContainerState::Running && old_enough(container))
            .collect();
        Unit { uid: &observation.uid, newest: dead.first().map(|dead| &dead.id) == newest, dead }
    };
    by_name.into_values().map(unit).filter(|unit| !unit.dead.is_empty()).collect()
}

/// What goes of all pods for the node's number, once each container has given up what is over its own.
fn over_total<'a>(
    all: &'a [Arc<PodObservation>],
    settings: &ContainerGcSettings,
    most: u32,
    now: Timestamp,
) -> Vec<(&'a PodUid, &'a ContainerId)> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut units: Vec<Unit<'a>> = all.iter().flat_map(|pod| units(pod, settings.min_age, now)).collect();
    let mut gone = Vec::new();
    let mut shrink = |units: &mut [Unit<'a>], keep: Option<u32>| {
        for unit in units {
            let beyond: Vec<_> = unit.beyond(keep).collect();
            unit.dead.truncate(unit.dead.len() - beyond.len());
            gone.extend(beyond.into_iter().map(|container| (unit.uid, &container.id)));
        }
    };
    let count = |units: &[Unit<'_>]| units.iter().map(|unit| unit.dead.len()).sum::<usize>();
    shrink(&mut units, settings.max_per_container);
    if count(&units) <= most {
        return gone;
    }
    let even = (most / units.len().max(1)).max(1);
    shrink(&mut units, u32::try_from(even).ok());
    let excess = count(&units).saturating_sub(most);
    let mut rest: Vec<(&PodUid, &ObservedContainer)> = units
        .iter()
        .flat_map(|unit| unit.dead.iter().skip(usize::from(unit.newest)).map(|dead| (unit.uid, *dead)))
        .collect();
    rest.sort_by_key(|(_, container)| (container.attempt, container.created_at));
    gone.extend(rest.into_iter().take(excess).map(|(uid, container)| (uid, &container.id)));
    gone
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::testing::{container, exited, observed, sandbox};

    const DEFAULT: ContainerGcSettings =
        ContainerGcSettings { min_age: Duration::ZERO, max_per_container: Some(1), max_total: None };

    fn removable(observation: &PodObservation) -> Removable {
        super::removable(observation, &DEFAULT, now(), || panic!("not asked for all pods"))
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_000_000_000).unwrap()
    }

    /// A record of pod `uid`, made `attempt` seconds after the epoch.
    fn record(uid: &str, name: &str, attempt: u32, state: ContainerState) -> ObservedContainer {
        let mut c = container(name, "s");
        c.id = format!("{uid}-{name}{attempt}").into();
        c.attempt = attempt;
        c.created_at = Timestamp::from_second(attempt.into()).unwrap();
        c.state = state;
        c
    }

    fn pod_of(uid: &str, containers: Vec<ObservedContainer>) -> Arc<PodObservation> {
        let mut pod = observed(vec![sandbox("s", 0)], containers);
        pod.uid = uid.into();
        Arc::new(pod)
    }

    /// What goes of all pods together, sorted.
    fn swept(all: &[Arc<PodObservation>], settings: &ContainerGcSettings) -> Vec<String> {
        let gone =
            all.iter().flat_map(|pod| super::removable(pod, settings, now(), || all.to_vec()).containers);
        let mut names: Vec<String> = gone.map(|id| id.to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_number_of_each_container_is_configurable() {
        let dead = ContainerState::Exited;
        let all = [pod_of("p", (0..4).map(|attempt| record("p", "a", attempt, dead)).collect())];
        let with = |max| ContainerGcSettings { max_per_container: max, ..DEFAULT };
        assert_eq!(swept(&all, &with(Some(1))), ["p-a0", "p-a1", "p-a2"]);
        assert_eq!(swept(&all, &with(Some(3))), ["p-a0"]);
        assert_eq!(swept(&all, &with(None)), [""; 0]);
        // Without its last record it would run again.
        assert_eq!(swept(&all, &with(Some(0))), ["p-a0", "p-a1", "p-a2"]);
        let mut running = (*all[0]).clone();
        running.containers.push(record("p", "a", 4, ContainerState::Running));
        assert_eq!(swept(&[Arc::new(running)], &with(Some(0))), ["p-a0", "p-a1", "p-a2", "p-a3"]);
    }

    #[test]
    fn the_young_stay() {
        let all = [pod_of("p", (0..4).map(|at| record("p", "a", at, ContainerState::Exited)).collect())];
        let age = |age: i64| ContainerGcSettings {
            min_age: Duration::from_secs(u64::try_from(age).unwrap()),
            max_per_container: Some(0),
            ..DEFAULT
        };
        assert_eq!(swept(&all, &age(1_000_000_000 - 1)), ["p-a0", "p-a1"]);
        assert_eq!(swept(&all, &age(1_000_000_001)), [""; 0]);
    }

    #[test]
    fn what_the_runtime_lost_track_of_goes_too() {
        let all = [pod_of(
            "p",
            vec![record("p", "a", 0, ContainerState::Unknown), record("p", "a", 1, ContainerState::Exited)],
        )];
        assert_eq!(swept(&all, &DEFAULT), ["p-a0"]);
    }

    #[test]
    fn the_nodes_number_is_shared_evenly_and_then_takes_the_oldest() {
        let dead = ContainerState::Exited;
        let of = |uid: &str, from: u32, to: u32| {
            let mut all: Vec<_> = (from..to).map(|attempt| record(uid, "a", attempt, dead)).collect();
            all.push(record(uid, "a", to, ContainerState::Running));
            pod_of(uid, all)
        };
        let all = [of("p", 0, 6), of("q", 4, 6), of("r", 9, 10)];
        let with = |most| ContainerGcSettings { max_per_container: None, max_total: Some(most), ..DEFAULT };
        assert_eq!(swept(&all, &with(9)), [""; 0]);
        // Two each leaves five, which fits.
        assert_eq!(swept(&all, &with(8)), ["p-a0", "p-a1", "p-a2", "p-a3"]);
        // One each, of three that are left the lowest attempts.
        assert_eq!(swept(&all, &with(2)), ["p-a0", "p-a1", "p-a2", "p-a3", "p-a4", "p-a5", "q-a4"]);
        assert_eq!(swept(&all, &with(0)).len(), 9);
        let both = ContainerGcSettings { max_per_container: Some(1), ..with(3) };
        assert_eq!(swept(&all, &both), ["p-a0", "p-a1", "p-a2", "p-a3", "p-a4", "q-a4"]);
    }

    proptest! {
        #[test]
        fn whatever_is_configured_the_newest_and_the_running_stay(
            pods in proptest::collection::vec(proptest::collection::vec((0usize..2, 0usize..4), 0..8), 1..4),
            max_per_container in proptest::option::of(0u32..4),
            max_total in proptest::option::of(0u32..8),
        ) {
            let states =
                [ContainerState::Exited, ContainerState::Created, ContainerState::Running, ContainerState::Unknown];
            let all: Vec<Arc<PodObservation>> = pods
                .iter()
                .enumerate()
                .map(|(pod, records)| {
                    let uid = format!("u{pod}");
                    let records = records.iter().enumerate().map(|(attempt, (name, state))| {
                        record(&uid, ["a", "b"][*name], u32::try_from(attempt).unwrap(), states[*state])
                    });
                    pod_of(&uid, records.collect())
                })
                .collect();
            let gone = swept(&all, &ContainerGcSettings { min_age: Duration::ZERO, max_per_container, max_total });
            let (mut dead_left, mut newest_dead) = (0, 0);
            for pod in &all {
                for name in ["a", "b"] {
                    let mut records: Vec<_> = pod.containers.iter().filter(|c| &*c.name == name).collect();
                    records.sort_by_key(|c| c.attempt);
                    let left: Vec<_> =
                        records.iter().filter(|c| !gone.contains(&c.id.to_string())).collect();
                    prop_assert_eq!(left.last().map(|c| &c.id), records.last().map(|c| &c.id));
                    let running = |c: &&&&ObservedContainer| c.state == ContainerState::Running;
                    prop_assert_eq!(left.iter().filter(running).count(),
                        records.iter().filter(|c| c.state == ContainerState::Running).count());
                    let dead = left.iter().filter(|c| c.state != ContainerState::Running).count();
                    dead_left += dead;
                    let protected = usize::from(
                        records.last().is_some_and(|c| c.state != ContainerState::Running));
                    newest_dead += protected;
                    if let Some(max) = max_per_container {
                        prop_assert!(dead <= (max as usize).max(protected));
                    }
                }
            }
            if let Some(max) = max_total {
                prop_assert!(dead_left <= (max as usize).max(newest_dead), "{} {}", dead_left, newest_dead);
            }
        }
    }

    #[test]
    fn the_newest_dead_one_stays_beside_the_present() {
        let at = |attempt: u32, state| {
            let mut c = exited("a", "s", 1, 1);
            c.id = format!("a{attempt}").into();
            c.attempt = attempt;
            c.created_at = Timestamp::from_second(attempt.into()).unwrap();
            c.state = state;
            c
        };
        let dead = ContainerState::Exited;
        let o = observed(
            vec![sandbox("s", 0)],
            vec![at(0, dead), at(1, dead), at(2, dead), at(3, ContainerState::Running), container("b", "s")],
        );
        assert_eq!(removable(&o).containers, ["a1".into(), "a0".into()]);
        // A live one is never garbage, however old, nor counted.
        let o =
            observed(vec![sandbox("s", 0)], vec![at(0, ContainerState::Running), at(1, dead), at(2, dead)]);
        assert_eq!(removable(&o).containers, ["a1".into()]);
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
