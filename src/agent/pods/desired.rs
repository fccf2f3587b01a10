//! What is wanted, over all sources: the pods that the sync loop hands to the workers.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Pod;

use crate::{
    agent::sources::{PodSource, SourceSnapshot},
    api::{PodExt as _, PodUid},
};

/// What changed.
#[derive(Debug, Default, PartialEq)]
pub struct PodUpdates {
    /// Pods that are new or whose specification is another.
    pub set: Vec<Arc<Pod>>,
    /// Pods that were wanted and are no longer. Empty until every source has delivered.
    pub removed: Vec<PodUid>,
}

/// The pods wanted.
#[derive(Debug)]
pub struct DesiredPods {
    sources: BTreeMap<PodSource, Arc<SourceSnapshot>>,
    wanted: BTreeMap<PodUid, Arc<Pod>>,
    /// No longer wanted, but not told yet: a source has not delivered.
    dropped: BTreeSet<PodUid>,
}

impl DesiredPods {
    /// Nothing is known of the configured sources.
    pub fn new(configured: impl IntoIterator<Item = PodSource>) -> Self {
        let unknown = |source| (source, Arc::new(SourceSnapshot::unknown(source)));
        Self {
            sources: configured.into_iter().map(unknown).collect(),
            wanted: BTreeMap::new(),
            dropped: BTreeSet::new(),
        }
    }

    /// Takes sources' present states over the former ones, all in one: a pod that moves from one source to
    /// another is never seen in none. Of two sources that name one UID the first counts.
    pub fn apply(&mut self, present: impl IntoIterator<Item = Arc<SourceSnapshot>>) -> PodUpdates {
        self.sources.extend(present.into_iter().map(|snapshot| (snapshot.source, snapshot)));
        let mut wanted: BTreeMap<PodUid, Arc<Pod>> = BTreeMap::new();
        for pod in self.sources.values().flat_map(|snapshot| &snapshot.pods) {
            wanted.entry(pod.uid()).or_insert_with(|| Arc::clone(pod));
        }
        let set: Vec<_> = wanted
            .iter()
            .filter(|(uid, pod)| {
                self.dropped.remove(*uid) || self.wanted.get(*uid).is_none_or(|old| !Arc::ptr_eq(old, pod))
            })
            .map(|(_, pod)| Arc::clone(pod))
            .collect();
        self.dropped.extend(self.wanted.keys().filter(|uid| !wanted.contains_key(*uid)).cloned());
        self.wanted = wanted;
        let removed = if self.all_delivered() { std::mem::take(&mut self.dropped) } else { BTreeSet::new() };
        PodUpdates { set, removed: removed.into_iter().collect() }
    }

    /// Whether every configured source has been read once. Before, no pod may be removed.
    pub fn all_delivered(&self) -> bool {
        self.sources.values().all(|snapshot| snapshot.delivered)
    }

    /// Whether what runs and is not wanted may be removed: all sources were read, and none has a manifest
    /// that was unreadable ever since the agent started and may describe what runs.
    pub fn is_complete(&self) -> bool {
        self.all_delivered() && self.sources.values().all(|snapshot| !snapshot.incomplete)
    }

    /// Whether a pod is wanted, or was until a source that has yet to deliver let it go.
    pub fn knows(&self, uid: &PodUid) -> bool {
        self.wanted.contains_key(uid) || self.dropped.contains(uid)
    }

    /// The pods that it [knows](Self::knows).
    pub fn uids(&self) -> impl Iterator<Item = &PodUid> {
        self.wanted.keys().chain(&self.dropped)
    }

    /// The sources as last read.
    pub fn sources(&self) -> impl Iterator<Item = &Arc<SourceSnapshot>> {
        self.sources.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str) -> Arc<Pod> {
        let mut pod = Pod::default();
        pod.metadata.uid = Some(uid.into());
        Arc::new(pod)
    }

    fn snapshot(source: PodSource, pods: &[&Arc<Pod>]) -> Arc<SourceSnapshot> {
        Arc::new(SourceSnapshot {
            delivered: true,
            pods: pods.iter().map(|pod| Arc::clone(pod)).collect(),
            ..SourceSnapshot::unknown(source)
        })
    }

    #[test]
    fn additions_changes_and_removals_are_told_once() {
        let mut desired = DesiredPods::new([PodSource::File]);
        let (a, b) = (pod("a"), pod("b"));
        let told = desired.apply([snapshot(PodSource::File, &[&a, &b])]);
        assert_eq!((told.set.len(), told.removed.len()), (2, 0));
        assert_eq!(desired.apply([snapshot(PodSource::File, &[&a, &b])]), PodUpdates::default());
        let edited = pod("a");
        let told = desired.apply([snapshot(PodSource::File, &[&edited])]);
        assert!(Arc::ptr_eq(&told.set[0], &edited));
        assert_eq!(told.removed, ["b".into()]);
        assert!(!desired.knows(&"b".into()));
    }

    #[test]
    fn nothing_is_removed_before_all_have_delivered() {
        let mut desired = DesiredPods::new([PodSource::File, PodSource::Http]);
        let a = pod("a");
        desired.apply([snapshot(PodSource::File, &[&a])]);
        let told = desired.apply([snapshot(PodSource::File, &[])]);
        assert!(told.removed.is_empty() && desired.knows(&"a".into()) && !desired.is_complete());
        let told = desired.apply([snapshot(PodSource::Http, &[])]);
        assert_eq!(told.removed, ["a".into()]);
        assert!(desired.is_complete());
    }

    #[test]
    fn a_pod_that_comes_back_before_its_removal_was_told_is_told_as_set() {
        let mut desired = DesiredPods::new([PodSource::File, PodSource::Http]);
        let a = pod("a");
        desired.apply([snapshot(PodSource::File, &[&a])]);
        desired.apply([snapshot(PodSource::File, &[])]);
        assert_eq!(desired.apply([snapshot(PodSource::File, &[&a])]).set.len(), 1);
        assert_eq!(desired.apply([snapshot(PodSource::Http, &[])]), PodUpdates::default());
    }

    #[test]
    fn a_pod_that_moves_to_another_source_stays() {
        let mut desired = DesiredPods::new([PodSource::File, PodSource::Http]);
        let (here, there) = (pod("a"), pod("a"));
        desired.apply([snapshot(PodSource::File, &[&here]), snapshot(PodSource::Http, &[])]);
        let told = desired.apply([snapshot(PodSource::File, &[]), snapshot(PodSource::Http, &[&there])]);
        assert_eq!((told.set.len(), told.removed.len()), (1, 0));
    }

    #[test]
    fn an_unreadable_manifest_protects_what_runs() {
        let mut desired = DesiredPods::new([PodSource::File]);
        let mut partial = SourceSnapshot { delivered: true, ..SourceSnapshot::unknown(PodSource::File) };
        partial.incomplete = true;
        desired.apply([Arc::new(partial)]);
        assert!(desired.all_delivered() && !desired.is_complete());
    }
}
