//! The plan: a pure function from what is on the node and what is asked to the steps, what stands in their way, and
//! what every file becomes.

mod files;
mod order;
mod preflight;
#[cfg(test)]
mod standing_tests;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{
    containerd::{ConfigError, Release},
    facts::{Facts, RuntimeKind},
    lines::unified_diff,
    request::{Agent, DriverChoice, From, Request},
    secrets,
    steps::{Action, Step},
};

/// Where the state of changes is: a folder for each, the lock, and the mark of one that is not finished.
pub const STATE: &str = "/var/lib/nodectl/switch";
/// There while a change is under way and the agent must not start on half of it.
pub const MARK: &str = "/var/lib/nodectl/switch/unfinished";

/// The units of Docker and cri-dockerd, in the order in which they are stopped: a socket starts its service again.
pub const OLD_UNITS: [&str; 4] =
    ["cri-docker.socket", "cri-docker.service", "docker.socket", "docker.service"];
/// containerd's unit.
pub const CONTAINERD: &str = "containerd.service";
/// kubelet's unit.
pub const KUBELET: &str = "kubelet.service";
/// The unit of `nodectl run`.
pub const NODECTL: &str = "nodectl.service";

/// What is on a node as long as a change of it is not finished.
pub fn left_by_a_change() -> [PathBuf; 3] {
    [MARK.into(), order::guard(KUBELET), order::guard(NODECTL)]
}

/// Something that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What, naming the thing.
    pub message: String,
    /// What to do about it.
    pub hint: String,
    /// Whether `--force` goes on all the same.
    pub forceable: bool,
}

/// What a file becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileChange {
    /// Where.
    pub path: PathBuf,
    /// Its text before; `None` if it is not there.
    pub old: Option<String>,
    /// Its text afterwards; `None` if it goes.
    pub new: Option<String>,
    /// The access rights it gets if it is new.
    pub mode: u32,
    /// Whether there is a password in it, so that it is not shown.
    pub secret: bool,
    /// What it is changed for, in a sentence.
    pub why: String,
}

/// Stands for the text of a file with a password in it.
const NOT_SHOWN: &str = "(there is a password in this file)\n";

/// What is to be done.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The steps in their order; none if everything is as it is asked already.
    pub steps: Vec<Step>,
    /// The files that the steps change.
    pub files: Vec<FileChange>,
    /// What containerd has to make of its files, as `containerd config dump` prints it.
    expected: Vec<(String, String)>,
    /// The image of sandboxes, as far as it is known.
    sandbox_image: Option<String>,
    /// What stands in the way.
    pub refusals: Vec<Refusal>,
    /// What whoever asked should know before saying yes.
    pub warnings: Vec<String>,
    /// What is worth knowing and was left alone.
    pub notes: Vec<String>,
}

impl Plan {
    /// Whether anything is to be done.
    pub fn changes(&self) -> bool {
        !self.steps.is_empty()
    }

    /// What containerd has to make of its files, as `containerd config dump` prints it.
    pub fn expected(&self) -> &[(String, String)] {
        &self.expected
    }

    /// The differences of all files, as `diff -u` prints them. Passwords in URLs are left out.
    pub fn diff(&self) -> String {
        let differences = self.files.iter().map(|file| {
            let hidden = |text: &Option<String>| {
                let text = text.as_deref()?;
                Some(if file.secret { NOT_SHOWN.to_owned() } else { secrets::hide(text) })
            };
            let (old, new) = (hidden(&file.old), hidden(&file.new));
            unified_diff(&file.path.display().to_string(), old.as_deref(), new.as_deref())
        });
        differences.collect()
    }

    /// Gives each file its real path, where links do not lead elsewhere.
    ///
    /// # Errors
    /// Whatever `real` answers.
    pub fn resolve<E>(&mut self, real: impl Fn(&Path) -> Result<PathBuf, E>) -> Result<(), E> {
        for step in &mut self.steps {
            if let Action::WriteFile { path, .. } | Action::RemoveFile { path } = &mut step.action {
                *path = real(path)?;
            }
        }
        Ok(())
    }
}

/// A plan that cannot be made.
#[derive(Debug, Error)]
pub enum PlanError {
    /// containerd's configuration.
    #[error("containerd's configuration cannot be changed: {0}")]
    Containerd(#[from] ConfigError),
    /// kubelet's files.
    #[error("the kubelet's settings cannot be changed: {0}")]
    Kubelet(String),
    /// There is nothing to begin with.
    #[error("{0}")]
    Missing(String),
    /// What has to be known is not.
    #[error("{}", .0.join("; "))]
    Obstacles(Vec<String>),
}

/// What the parts of a plan decide together.
struct Decided<'a> {
    facts: &'a Facts,
    request: &'a Request,
    release: Release,
    /// `unix://…` of containerd.
    endpoint: String,
    /// The cgroup driver of both sides.
    driver: String,
    /// The unit that runs the pods today.
    old_agent: &'static str,
    /// Whether pods are Docker's today.
    from_docker: bool,
    /// Whether they are cri-dockerd's.
    cri_dockerd: bool,
}

impl Decided<'_> {
    /// Whether a folder is edited, not the running node.
    fn offline(&self) -> bool {
        self.facts.root.is_some()
    }

    /// The unit that runs the pods afterwards.
    fn new_agent(&self) -> &'static str {
        match self.request.agent {
            Agent::Kubelet => KUBELET,
            Agent::Nodectl => NODECTL,
        }
    }

    /// Whether the agent runs today, so that it has to afterwards, and can be asked whether it is well.
    fn agent_runs(&self) -> bool {
        self.facts.unit(self.old_agent).active == "active"
    }
}

/// Makes the plan.
///
/// # Errors
/// [`PlanError`]: a file that cannot be understood, or nothing that could be changed.
pub fn plan(facts: &Facts, request: &Request) -> Result<Plan, PlanError> {
    let Some(containerd) = &facts.containerd else {
        return Err(PlanError::Missing(
            "containerd is not installed on this node; install it (apt-get install containerd, or Docker's \
             containerd.io), and run this again"
                .to_owned(),
        ));
    };
    let nodectl_runs = facts.unit(NODECTL).runs() && !facts.unit(KUBELET).runs();
    let old_agent = if nodectl_runs { NODECTL } else { KUBELET };
    let told = facts.kubelet.as_ref().map_or(RuntimeKind::None, |kubelet| kubelet.runtime);
    // What the kubelet is told counts only as long as it is the one that runs the pods.
    let runtime = if nodectl_runs { RuntimeKind::Containerd } else { told };
    let old_pods = facts.docker.as_ref().is_some_and(|docker| {
        docker.containers.iter().any(|container| container.running && container.pod.is_some())
    });
    let from_docker = match request.from {
        Some(From::Containerd) => false,
        Some(From::Docker | From::CriDockerd) | None => {
            matches!(runtime, RuntimeKind::Docker | RuntimeKind::CriDockerd) || old_pods
        }
    };
    let decided = Decided {
        facts,
        request,
        release: containerd.release.unwrap_or(OLDEST),
        endpoint: format!("unix://{}", containerd.socket.display()),
        driver: driver(facts, request),
        from_docker,
        old_agent,
        cri_dockerd: runtime == RuntimeKind::CriDockerd,
    };
    let mut obstacles = facts.obstacles.containerd.clone();
    if !nodectl_runs {
        obstacles.extend(facts.obstacles.kubelet.iter().cloned());
    }
    if from_docker {
        obstacles.extend(facts.obstacles.docker.iter().cloned());
    }
    if !obstacles.is_empty() {
        return Err(PlanError::Obstacles(obstacles));
    }
    let mut plan = Plan::default();
    files::gather(&decided, &mut plan)?;
    order::steps(&decided, &mut plan);
    if plan.changes() {
        preflight::look(&decided, &mut plan);
    } else {
        preflight::look_at_unchanged(&decided, &mut plan);
    }
    Ok(plan)
}

/// Taken for containerd where its release cannot be found out: what is written for it is read by all later ones.
const OLDEST: Release = Release { major: 1, minor: 6 };

/// The cgroup driver of both sides.
fn driver(facts: &Facts, request: &Request) -> String {
    let systemd = match request.cgroup_driver {
        DriverChoice::Systemd => true,
        DriverChoice::Cgroupfs => false,
        // Nobody can say what a folder will be booted with; where there are units, it is systemd.
        DriverChoice::Auto if facts.root.is_some() => facts.unit(CONTAINERD).exists(),
        DriverChoice::Auto => facts.init.name == "systemd",
    };
    if systemd { "systemd" } else { "cgroupfs" }.to_owned()
}
