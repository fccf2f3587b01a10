//! The steps in their order, so that whatever happens between two of them, no pod runs twice and no agent starts on
//! half of a change.

use super::{CONTAINERD, Decided, FileChange, KUBELET, MARK, OLD_UNITS, Plan};
use crate::switch::{
    request::{Agent, Images},
    steps::{Action, Seen, Step},
    world::normalized,
};

/// Seconds that the runtime may take to be ready.
const RUNTIME: u64 = 120;
/// Seconds that the agent may take to be healthy and to have its static pods run.
const AGENT: u64 = 300;
/// Seconds that the API server may take to see the node ready.
const NODE: u64 = 300;
/// dockershim's state.
const DOCKERSHIM: &str = "/var/lib/dockershim";
/// cri-dockerd's, which has the same folders in it.
const CRI_DOCKERD: &str = "/var/lib/cri-dockerd";

/// Adds the steps, if there is anything to do.
pub(super) fn steps(decided: &Decided<'_>, plan: &mut Plan) {
    let mut order = Order { decided, steps: Vec::new() };
    if decided.offline() {
        for file in &plan.files {
            order.file(file);
        }
        if !plan.files.is_empty() {
            plan.notes.push(format!(
                "no unit is touched in a folder: enable {CONTAINERD} and disable Docker's units where it is booted"
            ));
        }
    } else if order.anything(plan) {
        order.before();
        order.stop(plan);
        order.edit(plan);
        order.start();
        order.afterwards();
    }
    plan.steps = order.steps;
}

/// `NAME:TAG` of the images that come along: with those of pods the sandboxes' own, which no pod may have today.
pub(super) fn images(decided: &Decided<'_>, sandbox: Option<&str>) -> Vec<String> {
    let Some(docker) = decided.facts.docker.as_ref().filter(|_| decided.from_docker) else {
        return Vec::new();
    };
    let used = |id: &str| {
        docker.containers.iter().any(|container| container.pod.is_some() && container.image_id == id)
    };
    let chosen = docker.images.iter().filter(|image| match decided.request.images {
        Images::All => true,
        Images::Running => used(&image.id),
        Images::None => false,
    });
    let mut chosen: Vec<String> = chosen.flat_map(|image| image.tags.iter().cloned()).collect();
    if let Some(sandbox) = sandbox.filter(|_| decided.request.images != Images::None).map(normalized) {
        let all = docker.images.iter().flat_map(|image| &image.tags);
        chosen.extend(all.filter(|tag| normalized(tag) == sandbox).cloned());
    }
    chosen.sort();
    chosen.dedup();
    chosen
}

struct Order<'a> {
    decided: &'a Decided<'a>,
    steps: Vec<Step>,
}

impl Order<'_> {
    fn step(&mut self, why: impl Into<String>, action: Action) {
        let lenient = matches!(action, Action::RemoveOldPods { .. } | Action::AnnotateNode { .. });
        self.steps.push(Step { why: why.into(), lenient, action });
    }

    /// Whether the node is not yet as it is asked to be.
    fn anything(&self, plan: &Plan) -> bool {
        let unit = |name: &str| self.decided.facts.unit(name);
        let containerd = unit(CONTAINERD);
        let asleep = containerd.exists() && !(containerd.runs() && containerd.is_enabled());
        let agents = self.decided.request.agent == Agent::Nodectl
            && (!unit(self.decided.new_agent()).is_enabled() || unit(KUBELET).is_enabled());
        !plan.files.is_empty() || asleep || self.decided.from_docker || agents
    }

    fn before(&mut self) {
        let Decided { facts, request, .. } = self.decided;
        if let (Some(kubeconfig), Some(drain)) = (&request.kubeconfig, &request.drain) {
            let (kubeconfig, node) = (kubeconfig.clone(), facts.node_name.clone());
            self.step(
                format!("cordon the node {node}"),
                Action::Cordon { kubeconfig: kubeconfig.clone(), node: node.clone() },
            );
            let action = Action::Drain {
                kubeconfig,
                node,
                timeout: drain.timeout.as_secs(),
                unmanaged: drain.unmanaged,
                delete_emptydir_data: drain.delete_emptydir_data,
            };
            self.step("move its pods elsewhere", action);
        }
        if let Some(kubeconfig) = self.seen_by_cluster() {
            let action =
                Action::NodeReadyWhenUndone { kubeconfig, node: facts.node_name.clone(), timeout: NODE };
            self.step("know when the node is Ready again, should it be taken back", action);
        }
        let kubelet = facts.kubelet.as_ref();
        if self.decided.agent_runs() {
            let action = Action::VerifyWhenUndone {
                unit: self.decided.old_agent.to_owned(),
                healthz: kubelet.and_then(|kubelet| kubelet.healthz.clone()),
                docker: facts
                    .docker
                    .as_ref()
                    .filter(|_| self.decided.from_docker)
                    .map(|docker| docker.socket.clone()),
                endpoint: (!self.decided.from_docker).then(|| self.decided.endpoint.clone()),
                static_pods: kubelet.map(|kubelet| kubelet.static_pods.clone()).unwrap_or_default(),
                timeout: AGENT,
            };
            self.step("know when all is as before, should it be taken back", action);
        }
    }

    /// Credentials, if the API server can be asked whether the node is well.
    fn seen_by_cluster(&self) -> Option<std::path::PathBuf> {
        self.decided.request.kubeconfig.clone().filter(|_| self.decided.agent_runs())
    }

    fn stop(&mut self, plan: &Plan) {
        let Decided { facts, .. } = self.decided;
        let agent = self.decided.old_agent;
        if facts.unit(agent).exists() {
            // First of all, so that it is the last to start should this be taken back, with the guard gone by then.
            self.step(format!("stop {agent}"), Action::StopUnit { unit: agent.to_owned() });
            self.step("let systemd see its unit as it was, should this be taken back", Action::ReloadUnits);
            self.step(
                format!("keep {agent} from starting on half of the change"),
                Action::WriteFile {
                    path: guard(agent),
                    text: format!(
                        "# nodectl switch-runtime is at work, or was cut short: see nodectl switch-runtime --help\n\
                         [Unit]\nConditionPathExists=!{MARK}\n"
                    ),
                    mode: 0o644,
                    seen: None,
                },
            );
            self.step(
                "mark the change as unfinished",
                Action::WriteFile {
                    path: MARK.into(),
                    text: "nodectl switch-runtime --resume goes on, --rollback puts everything back\n"
                        .to_owned(),
                    mode: 0o600,
                    seen: None,
                },
            );
            self.step("let systemd see that", Action::ReloadUnits);
        }
        if let Some(docker) = facts.docker.as_ref().filter(|_| self.decided.from_docker) {
            let images = images(self.decided, plan.sandbox_image.as_deref());
            if !images.is_empty() {
                if !facts.unit(CONTAINERD).runs() {
                    self.step(
                        "start containerd, to take images",
                        Action::RestartUnit { unit: CONTAINERD.to_owned() },
                    );
                }
                let containerd =
                    facts.containerd.as_ref().map(|found| found.socket.clone()).unwrap_or_default();
                self.step(
                    format!("carry {} images from Docker to containerd", images.len()),
                    Action::CarryImages { docker: docker.socket.clone(), containerd, images },
                );
            }
            self.step(
                "stop the pods in Docker",
                Action::StopDockerPods {
                    docker: docker.socket.clone(),
                    cri: self.decided.cri_dockerd.then(|| self.old_endpoint()),
                    cni_bin_dirs: facts.cni.bin_dirs.clone(),
                },
            );
        }
        let running: Vec<&str> = OLD_UNITS
            .into_iter()
            .filter(|unit| self.decided.from_docker && facts.unit(unit).runs())
            .collect();
        if !running.is_empty() {
            let units = running.iter().map(|unit| (*unit).to_owned()).collect();
            self.step(
                "know what of Docker runs, should this be taken back",
                Action::StartWhenUndone { units },
            );
        }
        for unit in running {
            self.step(format!("stop {unit}"), Action::StopUnit { unit: unit.to_owned() });
        }
    }

    fn old_endpoint(&self) -> String {
        let told = self.decided.facts.kubelet.as_ref().and_then(|kubelet| kubelet.endpoint.clone());
        told.unwrap_or_else(|| "unix:///run/cri-dockerd.sock".to_owned())
    }

    fn edit(&mut self, plan: &Plan) {
        let facts = self.decided.facts;
        // Taken back, it is started on the files that it had.
        self.step("stop containerd", Action::StopUnit { unit: CONTAINERD.to_owned() });
        self.step("let systemd see the units as they were, should this be taken back", Action::ReloadUnits);
        for file in &plan.files {
            self.file(file);
        }
        self.step("let systemd see the units as they are", Action::ReloadUnits);
        if let Some(containerd) = &facts.containerd {
            let action = Action::CheckContainerdConfig {
                config: containerd.config.clone(),
                expected: plan.expected.clone(),
            };
            self.step("read containerd's configuration back", action);
        }
    }

    fn file(&mut self, file: &FileChange) {
        let path = file.path.clone();
        let action = match &file.new {
            Some(text) => {
                let seen = Some(Seen::of(file.old.as_deref()));
                Action::WriteFile { path, text: text.clone(), mode: file.mode, seen }
            }
            None => Action::RemoveFile { path },
        };
        self.step(file.why.clone(), action);
    }

    fn start(&mut self) {
        let Decided { facts, request, .. } = self.decided;
        let endpoint = self.decided.endpoint.clone();
        let network = !facts.cni.configs.is_empty() && facts.cni.missing_plugins.is_empty();
        if !facts.unit(CONTAINERD).is_enabled() {
            self.step("start containerd with the node", Action::EnableUnit { unit: CONTAINERD.to_owned() });
        }
        self.step("start containerd", Action::RestartUnit { unit: CONTAINERD.to_owned() });
        self.step(
            "wait until containerd is ready",
            Action::VerifyRuntime { endpoint: endpoint.clone(), network, timeout: RUNTIME },
        );
        self.step(
            "clear containerd of pods, should this be taken back",
            Action::StopPodsWhenUndone { endpoint: endpoint.clone() },
        );
        self.step(
            "start and stop a sandbox",
            Action::TestSandbox {
                endpoint: endpoint.clone(),
                network,
                cgroup_driver: self.decided.driver.clone(),
            },
        );
        if facts.unit(self.decided.old_agent).exists() {
            self.step("let the agent start", Action::RemoveFile { path: MARK.into() });
        }
        let agent = self.decided.new_agent();
        if request.agent == Agent::Nodectl {
            if facts.unit(KUBELET).is_enabled() {
                self.step(
                    "do not start the kubelet with the node",
                    Action::DisableUnit { unit: KUBELET.to_owned() },
                );
            }
            self.step("start nodectl with the node", Action::EnableUnit { unit: agent.to_owned() });
        }
        if self.decided.agent_runs() || request.agent == Agent::Nodectl {
            self.step(format!("start {agent}"), Action::RestartUnit { unit: agent.to_owned() });
            let kubelet = facts.kubelet.as_ref();
            self.step(
                format!("wait until {agent} is healthy and the static pods run"),
                Action::VerifyAgent {
                    unit: agent.to_owned(),
                    healthz: kubelet.and_then(|kubelet| kubelet.healthz.clone()),
                    endpoint: endpoint.clone(),
                    static_pods: kubelet.map(|kubelet| kubelet.static_pods.clone()).unwrap_or_default(),
                    timeout: AGENT,
                },
            );
        }
        if let Some(kubeconfig) = self.seen_by_cluster() {
            let node = facts.node_name.clone();
            self.step(
                "name the runtime in the node's annotation for kubeadm",
                Action::AnnotateNode { kubeconfig: kubeconfig.clone(), node: node.clone(), endpoint },
            );
            self.step("wait until the node is Ready", Action::VerifyNode { kubeconfig, node, timeout: NODE });
        }
    }

    fn afterwards(&mut self) {
        let Decided { facts, request, .. } = self.decided;
        if let Some(docker) = facts.docker.as_ref().filter(|_| self.decided.from_docker) {
            self.step(
                "remove what the pods left with Docker",
                Action::RemoveOldPods {
                    docker: docker.socket.clone(),
                    stop_docker: !request.keep_docker,
                    dockershim: if self.decided.cri_dockerd { CRI_DOCKERD } else { DOCKERSHIM }.into(),
                },
            );
        }
        for unit in OLD_UNITS {
            let found = facts.unit(unit);
            let kept = request.keep_docker && !unit.starts_with("cri-docker");
            if !found.exists() || !self.decided.from_docker {
                continue;
            }
            if kept {
                if found.runs() {
                    self.step(format!("start {unit} again"), Action::RestartUnit { unit: unit.to_owned() });
                }
            } else if found.is_enabled() {
                self.step(
                    format!("do not start {unit} with the node"),
                    Action::DisableUnit { unit: unit.to_owned() },
                );
            }
        }
        if facts.unit(self.decided.old_agent).exists() {
            let agent = self.decided.old_agent;
            self.step(format!("take the guard of {agent} away"), Action::RemoveFile { path: guard(agent) });
            self.step("let systemd see that", Action::ReloadUnits);
        }
        if let (Some(kubeconfig), Some(_)) = (&request.kubeconfig, &request.drain) {
            let node = facts.node_name.clone();
            self.step(
                format!("uncordon the node {node}"),
                Action::Uncordon { kubeconfig: kubeconfig.clone(), node },
            );
        }
    }
}

/// The drop-in that keeps a unit from starting.
pub(super) fn guard(unit: &str) -> std::path::PathBuf {
    format!("/etc/systemd/system/{unit}.d/00-nodectl-switch.conf").into()
}
