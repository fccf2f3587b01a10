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
use tokio::time::Instant;

use super::pods::admission::Admitted;
use crate::{
    api::{PodUid, cgroup::CgroupValues},
    error::chain,
    host::cgroup::{CgroupError, Cgroups},
    policy::{
        cgroup::CgroupLayout,
        pod_cgroup::{NodeCapacity, all_pods_values, best_effort_values, burstable_values, pod_values},
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
        }
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
        if !self.layout.per_qos {
            return Ok(());
        }
        self.update_classes(admitted).await?;
        self.cgroups.apply(&self.layout.pod_parent(pod), &pod_values(pod, &self.settings)).await
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
                tracing::error!("cannot set up the node's cgroups, trying again: {}", chain(&error));
            }
            Err(_) => {}
        }
    }

    /// Removes a pod's cgroup, in whichever class it was. A group stays busy for a moment after its last
    /// process has ended.
    ///
    /// # Errors
    /// When it is still busy, or cannot be removed.
    pub async fn remove(&self, uid: &PodUid) -> Result<(), CgroupError> {
        if !self.layout.per_qos {
            return Ok(());
        }
        for cgroup in self.layout.pod_candidates(uid) {
            let mut tries = 0;
            loop {
                match self.cgroups.remove(&cgroup).await {
                    Err(error) if error.is_busy() && tries < BUSY_TRIES => {
                        tries += 1;
                        tokio::time::sleep(BUSY_WAIT).await;
                    }
                    result => break result?,
                }
            }
        }
        Ok(())
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
