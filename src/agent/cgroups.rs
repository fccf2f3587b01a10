//! The node's cgroups above those of containers: `kubepods`, one for each class, one for each pod; and the
//! end of what is left of pods that are gone.
//!
//! The runtime makes the containers' groups below. What stands above is made here before the sandbox, with
//! its limits, so that nothing of a pod ever runs without them.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::Pod;
use tokio::{sync::watch, time::Instant};

use super::{events::EventRecorder, pods::admission::Admitted};
use crate::{
    api::{
        PodExt as _, PodUid,
        cgroup::{CgroupValues, Limit},
    },
    error::chain,
    host::cgroup::{CgroupError, CgroupMounts, Cgroups},
    policy::{
        cgroup::CgroupLayout,
        events::Words,
        pod_cgroup::{
            NodeCapacity, all_pods_values, best_effort_values, burstable_values, pod_values, widest_values,
        },
        qos::QosClass,
        resources::ResourceSettings,
    },
};

/// A cgroup stays busy for a moment after its last process has ended.
const BUSY_TRIES: u32 = 20;
const BUSY_WAIT: Duration = Duration::from_millis(25);
/// Time between two tries to reap a left-over cgroup: doubling up to the longest.
const REAP_FIRST: Duration = Duration::from_secs(1);
const REAP_LONGEST: Duration = Duration::from_secs(300);

/// What is known of the groups over the pods'.
#[derive(Default)]
struct Classes {
    /// Whether they are made.
    made: bool,
    /// The generation of [`Admitted`] that the Burstable class has the shares of.
    generation: Option<u64>,
    /// Whether a failure was told of.
    told: bool,
    /// Whether their being made was told of.
    announced: bool,
}

/// A left-over cgroup, and when it is tried again.
struct LeftOver {
    tries: u32,
    due: Instant,
}

/// See the module.
pub struct NodeCgroups {
    layout: CgroupLayout,
    cgroups: Arc<Cgroups>,
    settings: ResourceSettings,
    capacity: NodeCapacity,
    /// Cgroups of others that are held to what is reserved for them.
    reserved: Vec<(String, CgroupValues)>,
    classes: tokio::sync::Mutex<Classes>,
    left_over: Mutex<HashMap<String, LeftOver>>,
    /// The pod, by its UID as it stands in cgroups' names, whose left-over cgroup is being removed.
    reaping: watch::Sender<Option<PodUid>>,
    /// The node, where all pods together are held to what is for them.
    told: Option<(EventRecorder, Arc<str>)>,
}

/// Dropped, the pod that is being reaped may have its cgroup again.
struct Reaping<'a>(&'a watch::Sender<Option<PodUid>>);

impl Drop for Reaping<'_> {
    fn drop(&mut self) {
        self.0.send_replace(None);
    }
}

impl NodeCgroups {
    /// Nothing is made before the first pod comes, or [`NodeCgroups::keep`] is called.
    pub fn new(
        layout: CgroupLayout,
        cgroups: Cgroups,
        settings: ResourceSettings,
        capacity: NodeCapacity,
        reserved: Vec<(String, CgroupValues)>,
    ) -> Self {
        Self {
            layout,
            cgroups: Arc::new(cgroups),
            settings,
            capacity,
            reserved,
            classes: tokio::sync::Mutex::default(),
            left_over: Mutex::default(),
            reaping: watch::Sender::default(),
            told: None,
        }
    }

    /// Tells of this node that its pods are held to what is allocatable.
    #[must_use]
    pub fn tell(self, events: EventRecorder, node: &str) -> Self {
        Self { told: Some((events, node.into())), ..self }
    }

    fn tell_node(&self, words: impl FnOnce() -> Words) {
        if let Some((events, node)) = &self.told {
            events.node(node, words());
        }
    }

    /// The cgroup file systems.
    pub fn mounts(&self) -> &CgroupMounts {
        self.cgroups.mounts()
    }

    /// Where pods' cgroups are.
    pub fn layout(&self) -> &CgroupLayout {
        &self.layout
    }

    /// Has the pod's cgroup there with its values, and those above it.
    ///
    /// # Errors
    /// When one cannot be made or set.
    pub async fn set_up(&self, pod: &Pod, admitted: &Admitted) -> Result<(), CgroupError> {
        self.set_up_between(pod, pod, admitted).await
    }

    /// The same with room for what its containers have `before` they have what the pod says.
    ///
    /// # Errors
    /// When one cannot be made or set.
    pub async fn set_up_between(
        &self,
        pod: &Pod,
        before: &Pod,
        admitted: &Admitted,
    ) -> Result<(), CgroupError> {
        if !self.layout.per_qos {
            return Ok(());
        }
        self.update_classes(admitted).await?;
        // A pod that comes back while what it left is removed would find its cgroup, and then lose it.
        let uid = self.layout.uid_in_name(&pod.uid());
        self.reaping.subscribe().wait_for(|reaped| reaped.as_ref() != Some(&uid)).await.ok();
        let values = widest_values(pod, before, &self.settings);
        self.cgroups.apply(&self.layout.pod_parent(pod), &values).await
    }

    /// The bytes of memory that the pod's group is to be held to and is not yet, and those in use, where these are
    /// no fewer: to set that would fail, or with v2 end processes. Page cache that nobody uses does not count.
    pub async fn over_memory(&self, pod: &Pod) -> Option<(u64, u64)> {
        let Limit::Of(limit) = pod_values(pod, &self.settings).memory_bytes? else { return None };
        let (cgroups, path) = (Arc::clone(&self.cgroups), self.layout.pod_parent(pod));
        if path.is_empty() {
            return None;
        }
        let now = tokio::task::spawn_blocking(move || cgroups.mounts().memory(&path)).await.ok()?.ok()??;
        let used = u64::try_from(now.working_set).ok()?;
        let lower = now.limit.and_then(|now| u64::try_from(now).ok()).is_none_or(|now| limit < now);
        (lower && used >= limit).then_some((limit, used))
    }

    /// Brings the groups of all pods and of the classes to what the pods on the node make of them. Costs
    /// nothing while those are the same.
    async fn update_classes(&self, admitted: &Admitted) -> Result<(), CgroupError> {
        let mut classes = self.classes.lock().await;
        let path = |class| self.layout.class_path(class);
        if !classes.made {
            let all = all_pods_values(&self.capacity, &self.settings);
            self.cgroups.apply(&path(QosClass::Guaranteed), &all).await?;
            let least = best_effort_values(&self.settings);
            self.cgroups.apply(&path(QosClass::BestEffort), &least).await?;
            classes.made = true;
            if !std::mem::replace(&mut classes.announced, true) {
                let message = "Updated Node Allocatable limit across pods";
                self.tell_node(|| Words::normal("NodeAllocatableEnforced", message));
            }
            classes.generation = None;
        }
        let Some((generation, pods)) = admitted.changed_since(classes.generation) else {
            return Ok(());
        };
        let burstable = burstable_values(pods.iter().map(AsRef::as_ref), &self.settings);
        self.cgroups.apply(&path(QosClass::Burstable), &burstable).await?;
        classes.generation = Some(generation);
        Ok(())
    }

    /// Housekeeping: the classes follow the pods that came and went. With `anew` the groups are looked at
    /// also where nothing should have changed, and those of others that have limits.
    pub async fn keep(&self, admitted: &Admitted, anew: bool) {
        if !self.layout.per_qos {
            return;
        }
        if anew {
            let mut classes = self.classes.lock().await;
            classes.made = false;
        }
        let mut done = self.update_classes(admitted).await;
        if anew && done.is_ok() {
            for (cgroup, values) in &self.reserved {
                done = self.cgroups.apply(cgroup, values).await;
                if done.is_err() {
                    break;
                }
            }
        }
        let mut classes = self.classes.lock().await;
        match done {
            Ok(()) => classes.told = false,
            Err(error) if !classes.told => {
                classes.told = true;
                self.tell_node(|| {
                    let message = format!("Failed to update Node Allocatable Limits: {}", chain(&error));
                    Words::warning("FailedNodeAllocatableEnforcement", message)
                });
                tracing::error!("cannot set up the node's cgroups, trying again: {}", chain(&error));
            }
            Err(_) => {}
        }
    }

    /// Removes a pod's cgroup, in whichever class it was, once the runtime holds nothing of the pod. A group
    /// stays busy for a moment after its last process has ended. What is in it after that has nobody else to
    /// end it and is killed, as kubelet does: a runtime that dies while it starts a container leaves such.
    ///
    /// # Errors
    /// When it is still busy, or cannot be removed.
    pub async fn remove(&self, uid: &PodUid) -> Result<(), CgroupError> {
        if !self.layout.per_qos {
            return Ok(());
        }
        for cgroup in self.layout.pod_candidates(uid) {
            match self.remove_busy(&cgroup).await {
                Err(error) if error.is_busy() => {
                    let processes = self.processes(&cgroup).await;
                    self.kill(&cgroup, processes).await;
                    self.remove_busy(&cgroup).await?;
                }
                result => result?,
            }
        }
        Ok(())
    }

    /// Tries for half a second as long as the group is busy.
    async fn remove_busy(&self, cgroup: &str) -> Result<(), CgroupError> {
        let mut tries = 0;
        loop {
            match self.cgroups.remove(cgroup).await {
                Err(error) if error.is_busy() && tries < BUSY_TRIES => {
                    tries += 1;
                    tokio::time::sleep(BUSY_WAIT).await;
                }
                result => return result,
            }
        }
    }

    /// Removes cgroups of pods that nobody knows. `look` is to search for them; without it those found
    /// before are tried again when it is their time. One that processes are still in has them killed, as
    /// kubelet does: their pod is gone, so nobody else will ever end them. That is done only in a second
    /// try, so that what is on its way to its end by itself may come there.
    pub async fn reap(&self, look: bool, known: impl Fn() -> HashSet<PodUid>) {
        if !self.layout.per_qos {
            return;
        }
        // As UIDs stand in cgroups' names.
        let known = || known().iter().map(|uid| self.layout.uid_in_name(uid)).collect::<HashSet<_>>();
        if look {
            let found = self.find_pods().await;
            let known = known();
            let mut left_over = self.left_over.lock().unwrap_or_else(PoisonError::into_inner);
            for (cgroup, uid) in &found {
                if !known.contains(uid) && !left_over.contains_key(cgroup) {
                    tracing::info!(cgroup, %uid, "removing the cgroup of a pod that is gone");
                    left_over.insert(cgroup.clone(), LeftOver { tries: 0, due: Instant::now() });
                }
            }
            left_over.retain(|cgroup, _| found.contains_key(cgroup));
        }
        for (cgroup, tries) in self.due() {
            let Some(uid) = cgroup.rsplit('/').next().and_then(|name| self.layout.is_pod(name)) else {
                continue;
            };
            // Told before it is asked whether the pod is wanted: one that is not known yet has to come by
            // here before it has its cgroup, and one that has come by is known.
            self.reaping.send_replace(Some(uid.clone()));
            let _reaping = Reaping(&self.reaping);
            if known().contains(&uid) {
                self.forget(&cgroup);
                continue;
            }
            if tries > 0 {
                // Those seen before it is known that the pod is not wanted: a pod that comes back has others.
                let processes = self.processes(&cgroup).await;
                if known().contains(&uid) {
                    self.forget(&cgroup);
                    continue;
                }
                self.kill(&cgroup, processes).await;
            }
            match self.cgroups.remove(&cgroup).await {
                Ok(()) => self.forget(&cgroup),
                Err(error) => self.later(&cgroup, tries, &error),
            }
        }
    }

    /// The pods' cgroups, with the UIDs in their names.
    async fn find_pods(&self) -> HashMap<String, PodUid> {
        let (cgroups, layout) = (Arc::clone(&self.cgroups), self.layout.clone());
        let found = tokio::task::spawn_blocking(move || {
            let mut found = HashMap::new();
            for class in [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort] {
                let parent = layout.class_path(class);
                match cgroups.mounts().children(&parent) {
                    Ok(names) => found.extend(names.into_iter().filter_map(|name| {
                        let uid = layout.is_pod(&name)?;
                        Some((format!("{parent}/{name}"), uid))
                    })),
                    Err(error) => tracing::warn!(cgroup = parent, "cannot list a cgroup: {error}"),
                }
            }
            found
        })
        .await;
        found.unwrap_or_default()
    }

    fn due(&self) -> Vec<(String, u32)> {
        let left_over = self.left_over.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        left_over
            .iter()
            .filter(|(_, one)| one.due <= now)
            .map(|(name, one)| (name.clone(), one.tries))
            .collect()
    }

    fn forget(&self, cgroup: &str) {
        self.left_over.lock().unwrap_or_else(PoisonError::into_inner).remove(cgroup);
    }

    fn later(&self, cgroup: &str, tries: u32, error: &CgroupError) {
        let wait = REAP_FIRST.saturating_mul(1 << tries.min(16)).min(REAP_LONGEST);
        if tries == 1 {
            tracing::warn!(
                cgroup,
                "cannot remove the cgroup of a pod that is gone, trying again: {}",
                chain(error)
            );
        }
        let next = LeftOver { tries: tries.saturating_add(1), due: Instant::now() + wait };
        self.left_over.lock().unwrap_or_else(PoisonError::into_inner).insert(cgroup.to_owned(), next);
    }

    async fn processes(&self, cgroup: &str) -> HashSet<i32> {
        let (cgroups, path) = (Arc::clone(&self.cgroups), cgroup.to_owned());
        let found = tokio::task::spawn_blocking(move || cgroups.mounts().processes(&path)).await;
        match found {
            Ok(Ok(found)) => found.into_iter().collect(),
            Ok(Err(error)) => {
                tracing::warn!(cgroup, "cannot list the processes of a cgroup: {error}");
                HashSet::new()
            }
            Err(_) => HashSet::new(),
        }
    }

    async fn kill(&self, cgroup: &str, processes: HashSet<i32>) {
        if processes.is_empty() {
            return;
        }
        tracing::warn!(cgroup, ?processes, "killing what is left in the cgroup of a pod that is gone");
        let (cgroups, path) = (Arc::clone(&self.cgroups), cgroup.to_owned());
        tokio::task::spawn_blocking(move || cgroups.mounts().kill(&path, &processes)).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{config::CgroupDriver, host::cgroup::CgroupMounts, policy::testing};

    struct Node {
        root: tempfile::TempDir,
        cgroups: Arc<NodeCgroups>,
    }

    impl Node {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let mountinfo = root.path().join("mountinfo");
            let point = root.path().join("pids");
            fs::create_dir(&point).unwrap();
            fs::write(&mountinfo, format!("1 0 0:1 / {} rw - cgroup cgroup rw,pids\n", point.display()))
                .unwrap();
            let layout = CgroupLayout { driver: CgroupDriver::Cgroupfs, root: "/".to_owned(), per_qos: true };
            let cgroups = Cgroups::with_files(CgroupMounts::find(&mountinfo).unwrap());
            let (settings, capacity) = (ResourceSettings::default(), NodeCapacity::default());
            let cgroups = Arc::new(NodeCgroups::new(layout, cgroups, settings, capacity, Vec::new()));
            Self { root, cgroups }
        }

        fn path(&self, cgroup: &str) -> std::path::PathBuf {
            self.root.path().join("pids").join(cgroup)
        }

        fn tries(&self) -> Option<u32> {
            self.cgroups.left_over.lock().unwrap().values().map(|one| one.tries).next()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_cgroup_that_stays_busy_is_tried_ever_more_seldom() {
        let node = Node::new();
        let busy = node.path("kubepods/burstable/podu1");
        fs::create_dir_all(&busy).unwrap();
        // Without a kernel behind, a file keeps the folder from going.
        fs::write(busy.join("cgroup.procs"), "").unwrap();
        node.cgroups.reap(true, HashSet::new).await;
        let (mut tries, mut last, mut waits) = (1, Instant::now(), Vec::new());
        assert_eq!(node.tries(), Some(tries));
        while waits.len() < 11 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            node.cgroups.reap(false, HashSet::new).await;
            if node.tries() == Some(tries + 1) {
                tries += 1;
                waits.push(last.elapsed().as_secs());
                last = Instant::now();
            }
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        // Looking for others does not begin it anew; once it can go it does.
        node.cgroups.reap(true, HashSet::new).await;
        assert_eq!(node.tries(), Some(tries));
        fs::remove_file(busy.join("cgroup.procs")).unwrap();
        tokio::time::sleep(REAP_LONGEST).await;
        node.cgroups.reap(false, HashSet::new).await;
        assert!(node.tries().is_none() && !busy.exists());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_comes_back_has_its_cgroup_after_the_reaping() {
        let node = Node::new();
        let left = node.path("kubepods/besteffort/podu1");
        let mut pod = testing::pod(&["a"]);
        pod.metadata.uid = Some("u1".to_owned());
        let (pod, admitted) = (Arc::new(pod), Arc::new(Admitted::default()));
        // The classes are made: what is left to do of a set-up is the pod's own.
        node.cgroups.set_up(&pod, &admitted).await.unwrap();
        let coming = Mutex::new(None);
        let asked = || {
            let reaped = node.cgroups.reaping.borrow().clone();
            if reaped.is_some() {
                assert_eq!(reaped, Some("u1".into()));
                // It comes right after it was asked for, ahead of the removal.
                let (cgroups, pod, admitted) =
                    (Arc::clone(&node.cgroups), Arc::clone(&pod), Arc::clone(&admitted));
                let mut set_up = Box::pin(async move { cgroups.set_up(&pod, &admitted).await.unwrap() });
                let waker = std::task::Waker::noop();
                let ready = set_up.as_mut().poll(&mut std::task::Context::from_waker(waker)).is_ready();
                assert!(!ready);
                *coming.lock().unwrap() = Some(tokio::spawn(set_up));
            }
            HashSet::new()
        };
        node.cgroups.reap(true, asked).await;
        let coming = coming.into_inner().unwrap().unwrap();
        coming.await.unwrap();
        assert!(left.is_dir(), "the pod's cgroup is there when its set-up is done");
        assert_eq!(*node.cgroups.reaping.borrow(), None);
        // One that is known keeps its own, and is held up by no other.
        node.cgroups.reap(true, || HashSet::from(["u1".into()])).await;
        assert!(left.is_dir() && node.tries().is_none());
        node.cgroups.reaping.send_replace(Some("u2".into()));
        node.cgroups.set_up(&pod, &admitted).await.unwrap();
        node.cgroups.reaping.send_replace(Some("u1".into()));
        let held = node.cgroups.set_up(&pod, &admitted);
        assert!(tokio::time::timeout(Duration::from_secs(60), held).await.is_err());
    }
}
