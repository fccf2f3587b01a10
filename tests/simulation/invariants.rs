//! What must hold at every call, and what is known of the wishes by which it is judged. The oracle sees
//! everything: what the sources told the agent and what really happened in the runtime. It knows nothing of
//! how the agent decides.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use k8s_openapi::api::core::v1::{Container, Pod};
use nodectl::{
    api::{ContainerKind, PodExt as _, RestartPolicy, cri::ContainerConfig, pod::init_kind},
    policy::grace::pod_grace,
};

use crate::{
    health::Health,
    world::{Ctr, Is, Ms, State},
};

/// Every container is given at least so long between being asked to end and being killed, however late
/// the asking comes and however little its pod asks for.
const LEAST_GRACE: Ms = 2000;

#[derive(Default)]
pub(crate) struct Oracle {
    pub(crate) violations: Vec<String>,
    /// What each source last told; `None` until it has told anything to the present agent.
    sources: BTreeMap<String, Option<Vec<Arc<Pod>>>>,
    pods: HashMap<String, History>,
    pub(crate) health: Health,
}

#[derive(Default)]
struct History {
    /// The specification as last told.
    pod: Option<Arc<Pod>>,
    /// When the agent was last told that it is not wanted, with all sources delivered.
    unwanted: Option<Ms>,
    /// When the agent was first told so since it was last told otherwise.
    unwanted_since: Option<Ms>,
    /// Every such first time: an end once begun is gone through with.
    ends: Vec<Ms>,
    /// The versions of its containers, by the time they were told.
    versions: Vec<(Ms, HashMap<String, String>)>,
    /// Somebody other than the agent did something to it.
    disturbed: bool,
    /// The shortest grace period ever told.
    grace: Option<Ms>,
}

fn versions(pod: &Pod) -> HashMap<String, String> {
    let version = |c: &Container| {
        let env = c.env.iter().flatten().find(|env| env.name == "V");
        env.and_then(|env| env.value.clone()).unwrap_or_default()
    };
    pod.all_containers().into_iter().map(|(_, c)| (c.name.clone(), version(c))).collect()
}

/// A server's pod that is to go, and is there until the node has seen to it.
fn is_deleted(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

impl Oracle {
    pub(crate) fn violation(&mut self, now: Ms, text: impl Into<String>) {
        self.violations.push(format!("at {now} ms: {}", text.into()));
    }

    /// A new agent has been told nothing yet.
    pub(crate) fn new_agent(&mut self, sources: &[&str]) {
        self.sources = sources.iter().map(|source| ((*source).to_owned(), None)).collect();
        self.health.new_agent();
    }

    /// A source tells the agent what it wants.
    pub(crate) fn told(&mut self, now: Ms, source: &str, pods: &[Arc<Pod>]) {
        self.sources.insert(source.to_owned(), Some(pods.to_vec()));
        for pod in pods {
            let history = self.pods.entry(pod.uid().to_string()).or_default();
            let grace = u64::try_from(pod_grace(pod).as_millis()).unwrap();
            history.grace = Some(history.grace.map_or(grace, |old| old.min(grace)));
            if is_deleted(pod) {
                history.pod.get_or_insert_with(|| Arc::clone(pod));
                continue;
            }
            history.unwanted_since = None;
            let versions = versions(pod);
            if history.versions.last().is_none_or(|(_, last)| *last != versions) {
                history.versions.push((now, versions));
            }
            history.pod = Some(Arc::clone(pod));
        }
        if !self.sources.values().all(Option::is_some) {
            return;
        }
        let wanted: HashSet<String> = self.wanted().iter().map(|pod| pod.uid().to_string()).collect();
        for (uid, history) in &mut self.pods {
            if !wanted.contains(uid) {
                history.unwanted = Some(now);
                if history.unwanted_since.is_none() {
                    history.unwanted_since = Some(now);
                    history.ends.push(now);
                }
            }
        }
    }

    /// What the present agent was told to run.
    pub(crate) fn wanted(&self) -> Vec<Arc<Pod>> {
        let mut seen = HashSet::new();
        let all = self.sources.values().flatten().flatten().filter(|pod| !is_deleted(pod));
        all.filter(|pod| seen.insert(pod.uid())).cloned().collect()
    }

    pub(crate) fn disturbed(&mut self, uid: &str) {
        self.pods.entry(uid.to_owned()).or_default().disturbed = true;
    }

    pub(crate) fn is_disturbed(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|history| history.disturbed)
    }

    pub(crate) fn pod(&self, uid: &str) -> Option<&Pod> {
        self.pods.get(uid)?.pod.as_deref()
    }

    /// Whether the agent was told to let go of a pod after something of it was made.
    fn unwanted_after(&self, uid: &str, made: Ms) -> bool {
        self.pods.get(uid).is_none_or(|history| history.unwanted.is_some_and(|at| at >= made))
    }

    /// Whether the container's spec was another than what it was made from at any time since.
    fn changed(&self, container: &Ctr) -> bool {
        let Some(history) = self.pods.get(&container.uid) else { return false };
        let version = container.version();
        let before = history.versions.iter().rposition(|(at, _)| *at <= container.issued).unwrap_or(0);
        history.versions[before..].iter().any(|(_, all)| all.get(&container.name) != Some(&version))
    }
}

/// Whether a container that ended with this code is not started again. An independent reading of the API.
fn stays_ended(pod: &Pod, container: &Container, kind: ContainerKind, code: i32) -> bool {
    match (kind, pod.restart_policy()) {
        (ContainerKind::Sidecar, _) => false,
        (ContainerKind::Init, RestartPolicy::Never) => true,
        (ContainerKind::Init, _) => code == 0,
        (ContainerKind::Regular, _) if container.restart_policy.is_some() => false,
        (ContainerKind::Regular, RestartPolicy::Always) => false,
        (ContainerKind::Regular, RestartPolicy::OnFailure) => code == 0,
        (ContainerKind::Regular, RestartPolicy::Never) => true,
        (ContainerKind::Ephemeral, _) => true,
    }
}

impl State {
    pub(crate) fn blame(&mut self, text: String) {
        let now = self.now();
        self.note(format!("!! {text}"));
        self.oracle.violation(now, text);
    }

    /// The newest container of a name.
    pub(crate) fn newest(&self, uid: &str, name: &str) -> Option<&Ctr> {
        self.containers
            .values()
            .filter(|c| c.uid == uid && c.name == name)
            .max_by_key(|c| (c.created, c.attempt))
    }

    /// Whether all that the pod is for is done, so that nothing of it runs any longer.
    pub(crate) fn is_done(&self, uid: &str) -> bool {
        let Some(pod) = self.oracle.pod(uid) else { return true };
        let ended = |container: &Container, kind| {
            self.newest(uid, &container.name)
                .is_some_and(|c| c.is == Is::Exited && stays_ended(pod, container, kind, c.exit_code))
        };
        let spec = pod.spec();
        spec.containers.iter().all(|c| ended(c, ContainerKind::Regular))
            || spec.init_containers.iter().flatten().any(|c| {
                init_kind(c) == ContainerKind::Init
                    && ended(c, ContainerKind::Init)
                    && self.newest(uid, &c.name).is_some_and(|c| c.exit_code != 0)
            })
    }

    /// Judges the wish to make a sandbox. Asking for one that is there already does no harm: its name is
    /// taken.
    pub(crate) fn check_sandbox_wanted(&mut self, uid: &str, attempt: u32) {
        let attempt_of = |s: &crate::world::Sandbox| s.config.metadata.as_ref().map_or(0, |m| m.attempt);
        if self.sandboxes.values().any(|s| s.uid == uid && s.ready && attempt_of(s) != attempt) {
            self.blame(format!("another sandbox of {uid} is asked for while one is ready"));
        }
        if !self.oracle.wanted().iter().any(|pod| *pod.uid().as_str() == *uid)
            && self
                .oracle
                .pods
                .get(uid)
                .and_then(|h| h.unwanted_since)
                .is_some_and(|at| at + 1000 < self.now())
        {
            self.blame(format!("a sandbox of {uid} is asked for long after it was let go"));
        }
    }

    pub(crate) fn check_sandbox_made(&mut self, id: &str) {
        let uid = self.sandboxes[id].uid.clone();
        let ready = self.sandboxes.values().filter(|s| s.uid == uid && s.ready).count();
        if ready > 1 {
            self.blame(format!("{ready} sandboxes of {uid} are ready"));
        }
    }

    /// Judges the wish to make a container by what is there already.
    pub(crate) fn check_container_wanted(&mut self, uid: &str, sandbox: &str, config: &ContainerConfig) {
        let name = config.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default();
        let blame = {
            let Some(pod) = self.oracle.pod(uid) else { return };
            let all = pod.all_containers();
            let Some((kind, spec)) = all.iter().find(|(_, c)| c.name == name) else { return };
            let Some(last) = self.newest(uid, &name) else { return };
            let same = last.sandbox == sandbox && !self.oracle.changed(last);
            // A probe's failure counts as one of the container, whatever it exits with.
            let ailed =
                self.oracle.health.ever_failed(&last.id) && pod.restart_policy() != RestartPolicy::Never;
            let ended = last.is == Is::Exited && stays_ended(pod, spec, *kind, last.exit_code) && !ailed;
            (same && ended).then(|| format!("container {name} of {uid} is made again after its end"))
        };
        blame.into_iter().for_each(|text| self.blame(text));
    }

    pub(crate) fn check_container_made(&mut self, made: &Ctr) {
        let before = self
            .containers
            .values()
            .filter(|c| c.uid == made.uid && c.name == made.name)
            .map(|c| c.attempt)
            .max();
        let expected = before.map_or(0, |before| before + 1);
        if made.attempt != expected && !self.oracle.is_disturbed(&made.uid) {
            self.blame(format!(
                "container {} of {} is made with restart count {}, and {expected} is right",
                made.name, made.uid, made.attempt
            ));
        }
    }

    pub(crate) fn check_container_starts(&mut self, id: &str) {
        let mut blames = Vec::new();
        {
            let container = &self.containers[id];
            let (uid, name) = (&container.uid, &container.name);
            for other in self.containers.values().filter(|c| c.is == Is::Running && c.id != id) {
                if other.uid == *uid && other.name == *name {
                    blames.push(format!("a second container {name} of {uid} starts"));
                }
                // A server lets another pod have the name of one that it has forgotten, whatever a node has of it.
                if other.pod == container.pod && other.uid != *uid && !self.of_a_cluster {
                    blames.push(format!("{uid} starts while {} of the same name runs", other.uid));
                }
            }
            let passed = &self.sandboxes[&container.sandbox].passed;
            let all = self.oracle.pod(uid).map(nodectl::api::PodExt::all_containers).unwrap_or_default();
            for (kind, earlier) in all {
                if earlier.name == *name || kind == ContainerKind::Regular {
                    break;
                }
                if !passed.contains(&earlier.name) {
                    blames
                        .push(format!("container {name} of {uid} starts before {} is through", earlier.name));
                }
            }
        }
        blames.into_iter().for_each(|text| self.blame(text));
    }

    /// Judges the wish to stop a container.
    pub(crate) fn check_stop(&mut self, id: &str) {
        let Some(container) = self.containers.get(id).filter(|c| c.is == Is::Running) else { return };
        let replaced = |c: &Ctr| {
            let newest = self.sandboxes.values().filter(|s| s.uid == c.uid).max_by_key(|s| s.created);
            newest.is_none_or(|newest| newest.id != c.sandbox || !newest.ready)
        };
        let right = self.oracle.unwanted_after(&container.uid, container.issued)
            || self.oracle.changed(container)
            || replaced(container)
            || self.oracle.health.failed(id)
            || self.is_done(&container.uid);
        if !right {
            let text = format!("container {} of {} is stopped for no reason", container.name, container.uid);
            self.blame(text);
        }
    }

    pub(crate) fn check_sandbox_stop(&mut self, id: &str) {
        let Some(sandbox) = self.sandboxes.get(id).filter(|sandbox| sandbox.ready) else { return };
        let newest = self.sandboxes.values().filter(|s| s.uid == sandbox.uid).max_by_key(|s| s.created);
        let right = self.oracle.unwanted_after(&sandbox.uid, sandbox.issued)
            || newest.is_some_and(|newest| newest.id != sandbox.id)
            || self.is_done(&sandbox.uid);
        if !right {
            let text = format!("sandbox {id} of {} is stopped for no reason", sandbox.uid);
            self.blame(text);
        }
    }

    pub(crate) fn check_sandbox_removal(&mut self, id: &str) {
        let Some(sandbox) = self.sandboxes.get(id) else { return };
        let newest = self.sandboxes.values().filter(|s| s.uid == sandbox.uid).max_by_key(|s| s.created);
        let garbage = !sandbox.ready && newest.is_some_and(|newest| newest.id != sandbox.id);
        if !garbage && !self.oracle.unwanted_after(&sandbox.uid, sandbox.issued) {
            let text = format!("sandbox {id} of {} is removed for no reason", sandbox.uid);
            self.blame(text);
        }
    }

    pub(crate) fn check_container_removal(&mut self, id: &str) {
        let Some(container) = self.containers.get(id) else { return };
        // Of each name one that does not run is kept, the newest, whether or not another runs beside it
        // (kubelet's `evictContainers` with its default `maxPerPodContainer` of 1).
        let garbage = container.is != Is::Running
            && self.containers.values().any(|c| {
                (&c.uid, &c.name) == (&container.uid, &container.name)
                    && c.is != Is::Running
                    && (c.attempt, c.created) > (container.attempt, container.created)
            });
        if !garbage && !self.oracle.unwanted_after(&container.uid, container.issued) {
            let text = format!("container {} of {} is removed for no reason", container.name, container.uid);
            self.blame(text);
        }
    }

    /// A running container is killed: only after its time.
    pub(crate) fn check_kill(&mut self, id: &str) {
        let now = self.now();
        let Some(container) = self.containers.get(id).filter(|c| c.is == Is::Running) else { return };
        // Nobody can know of a container whose start was never told, before it is seen running.
        if container.unheard {
            return;
        }
        let history = self.oracle.pods.get(&container.uid);
        let grace = history.and_then(|history| history.grace).unwrap_or(30_000);
        let mates = self.containers.values().filter(|c| c.uid == container.uid && c.started <= now);
        let ends = history.iter().flat_map(|history| history.ends.iter().copied());
        let begun = mates
            .flat_map(|mate| [mate.term, self.oracle.health.pre_stop(&mate.id)])
            .flatten()
            .filter(|at| *at >= container.started)
            // An end may come while the container is on its way: the pod's time is not begun anew for it.
            .chain(ends.filter(|at| *at >= container.issued))
            .min();
        let text = match (container.term, begun) {
            (None, _) => Some("killed without having been asked to end".to_owned()),
            (Some(term), _) if now < term + LEAST_GRACE => {
                Some(format!("killed {} ms after it was asked to end", now - term))
            }
            (_, Some(begun)) if now < begun + grace => {
                Some(format!("killed {} ms after the pod's end began, of {grace}", now - begun))
            }
            _ => None,
        };
        if let Some(text) = text {
            let text = format!("container {} of {} is {text}", container.name, container.uid);
            self.blame(text);
        }
    }
}
