//! What stands in the way of a change, and what should be known before it, as far as the facts tell it.

use std::path::Path;

use super::{CONTAINERD, Decided, KUBELET, NODECTL, OLD_UNITS, Plan, Refusal, STATE};
use crate::switch::{
    facts::{DockerFacts, KubeletFacts, RuntimeKind},
    request::{Agent, From, Images},
    world::normalized,
};

/// kubelet's first minor release that speaks CRI v1 (v1alpha2 before).
const SPEAKS_V1: u32 = 23;
/// kubelet's first minor release that speaks nothing but CRI v1.
const ONLY_V1: u32 = 26;
/// Bytes that stay free beside carried images.
const SLACK: u64 = 1 << 30;
/// Bytes for the journal, and to spare.
const JOURNAL: u64 = 4 << 20;
/// Static pods of a control plane.
const CONTROL_PLANE: [&str; 2] = ["kube-apiserver", "etcd"];

/// Looks whether a node on which nothing is to be changed is as it should be in what nobody changes.
pub(super) fn look_at_unchanged(decided: &Decided<'_>, plan: &mut Plan) {
    if decided.offline() {
        return;
    }
    let mut look = Look { decided, plan };
    look.tools();
    if decided.facts.init.name == "systemd" {
        look.containerd();
    }
}

/// Looks at everything.
pub(super) fn look(decided: &Decided<'_>, plan: &mut Plan) {
    let mut look = Look { decided, plan };
    look.problems();
    look.versions();
    look.source();
    look.journal();
    if decided.offline() {
        return;
    }
    look.tools();
    look.units();
    look.network();
    look.driver();
    if let Some(docker) = decided.facts.docker.as_ref().filter(|_| decided.from_docker) {
        look.docker(docker);
        look.images(docker);
    }
    look.control_plane();
}

struct Look<'a, 'b> {
    decided: &'a Decided<'a>,
    plan: &'b mut Plan,
}

impl Look<'_, '_> {
    fn refuse(&mut self, message: impl Into<String>, hint: impl Into<String>) {
        self.plan.refusals.push(Refusal { message: message.into(), hint: hint.into(), forceable: false });
    }

    fn unless_forced(&mut self, message: impl Into<String>, hint: &str) {
        let hint = format!("{hint}; --force goes on all the same");
        self.plan.refusals.push(Refusal { message: message.into(), hint, forceable: true });
    }

    fn warn(&mut self, warning: impl Into<String>) {
        self.plan.warnings.push(warning.into());
    }

    fn kubelet(&self) -> Option<&KubeletFacts> {
        self.decided.facts.kubelet.as_ref()
    }

    /// What could not be found out, as far as it does not stand in the way.
    fn problems(&mut self) {
        for problem in &self.decided.facts.problems {
            if !self.plan.warnings.contains(problem) {
                self.plan.warnings.push(problem.clone());
            }
        }
    }

    fn versions(&mut self) {
        if self.kubelet().is_some_and(|kubelet| kubelet.minor.is_none())
            && self.decided.request.agent == Agent::Kubelet
        {
            let hint = if self.decided.offline() { " (--kubelet-version says it)" } else { "" };
            self.warn(format!(
                "the kubelet's version could not be found out{hint}: it is told containerd's endpoint; before 1.24 it needs \
                 --container-runtime=remote too, and from 1.24 on it does not start with --network-plugin and other flags \
                 of dockershim"
            ));
        }
        let Some(release) = self.decided.facts.containerd.as_ref().and_then(|found| found.release) else {
            self.warn(
                "containerd's version could not be found out: its configuration is written as 1.6 reads it",
            );
            return;
        };
        let (Some(minor), Agent::Kubelet) =
            (self.kubelet().and_then(|kubelet| kubelet.minor), self.decided.request.agent)
        else {
            return;
        };
        if minor < SPEAKS_V1 && release.major >= 2 {
            self.refuse(
                format!("kubelet 1.{minor} speaks CRI v1alpha2 alone, which containerd 2 no longer has"),
                "use containerd 1.6 or 1.7, or bring the kubelet to 1.23 or later first",
            );
        }
        if minor >= ONLY_V1 && (release.major, release.minor) < (1, 6) {
            self.refuse(
                format!(
                    "kubelet 1.{minor} speaks CRI v1 alone, which containerd {}.{} does not have yet",
                    release.major, release.minor
                ),
                "bring containerd to 1.6 or later first",
            );
        }
    }

    fn source(&mut self) {
        if self.decided.old_agent == NODECTL {
            if self.decided.request.agent == Agent::Kubelet {
                self.refuse(
                    "nodectl.service runs the pods of this node, not the kubelet",
                    "ask for --agent nodectl, or go back to the kubelet with nodectl switch-runtime rollback",
                );
            }
            // What a kubelet is told that does not run says nothing of where the pods are.
            return;
        }
        let runtime = self.kubelet().map(|kubelet| kubelet.runtime);
        match (runtime, self.decided.request.from) {
            (Some(RuntimeKind::Other), _) => {
                let endpoint =
                    self.kubelet().and_then(|kubelet| kubelet.endpoint.clone()).unwrap_or_default();
                self.refuse(
                    format!("the kubelet's runtime is {endpoint}, neither Docker nor containerd"),
                    "only Docker, cri-dockerd and containerd can be moved from",
                );
            }
            (Some(RuntimeKind::CriDockerd), Some(From::Docker)) => self.refuse(
                "--from docker is asked, and the kubelet uses cri-dockerd",
                "ask for --from cri-dockerd, or leave --from away",
            ),
            (Some(RuntimeKind::Docker), Some(From::CriDockerd)) => self.refuse(
                "--from cri-dockerd is asked, and the kubelet uses its own dockershim",
                "ask for --from docker, or leave --from away",
            ),
            (Some(RuntimeKind::Docker | RuntimeKind::CriDockerd), Some(From::Containerd)) => self.refuse(
                "--from containerd is asked, and the kubelet uses Docker",
                "leave --from away to move the node",
            ),
            (None, _) if self.decided.request.agent == Agent::Kubelet => self.refuse(
                "there is no kubelet on this node: no unit kubelet.service",
                "install the kubelet first, or ask for --agent nodectl",
            ),
            _ => {}
        }
    }

    /// There must be room for the journal, with the new text of each file, and for the copies of the old ones.
    fn journal(&mut self) {
        let length = |text: &Option<String>| text.as_ref().map_or(0, |text| text.len() as u64);
        let texts = self.plan.files.iter().map(|file| length(&file.old) + 2 * length(&file.new));
        let needed = texts.fold(JOURNAL, u64::saturating_add);
        let disk = self.decided.facts.disks.iter().find(|disk| Path::new(STATE).starts_with(&disk.path));
        if let Some(disk) = disk.filter(|disk| disk.available < needed) {
            let message = format!(
                "{STATE} has {} KiB left, and the journal and the files as they are need {} KiB",
                disk.available >> 10,
                needed >> 10
            );
            self.refuse(message, "make room there (df tells on which file system that is)");
        }
    }

    fn tools(&mut self) {
        for tool in ["containerd", "ctr"] {
            if self.decided.facts.tools.get(tool).is_none_or(Option::is_none) {
                self.refuse(
                    format!("the program {tool} is not found in PATH"),
                    "it comes with containerd: install it, or add its folder to PATH",
                );
            }
        }
    }

    fn units(&mut self) {
        let facts = self.decided.facts;
        if facts.init.name != "systemd" {
            let name = &facts.init.name;
            self.refuse(
                format!("process 1 is {name}, not systemd: there is nobody to stop and start services"),
                "use --root / to change the files alone, and restart the services by hand",
            );
            return;
        }
        self.containerd();
        if facts.unit(self.decided.old_agent).exists() && !self.decided.agent_runs() {
            let unit = self.decided.old_agent;
            match facts.unit(unit).active.as_str() {
                "inactive" => {
                    self.warn(format!("{unit} does not run, so it is not started afterwards and nothing of it is verified"));
                }
                state => self.unless_forced(
                    format!("{unit} is {state}: it does not run well before the change, so nobody could tell whether it does after it"),
                    &format!("see journalctl -u {unit}, and mend that first"),
                ),
            }
        }
    }

    fn containerd(&mut self) {
        let containerd = self.decided.facts.unit(CONTAINERD);
        if !containerd.exists() {
            self.refuse(
                "there is no unit containerd.service",
                "install containerd from a package, or with its containerd.service",
            );
        } else if containerd.is_masked() {
            self.refuse("containerd.service is masked", "systemctl unmask containerd.service");
        }
    }

    fn network(&mut self) {
        let cni = &self.decided.facts.cni;
        if cni.configs.is_empty() {
            let message = format!(
                "there is no CNI configuration in {}: containerd would be without a network for pods (kubenet and \
                 Docker's bridge end with dockershim)",
                cni.conf_dir.display()
            );
            self.unless_forced(message, "install the cluster's network add-on for CNI first");
        }
        if !cni.missing_plugins.is_empty() {
            let folders: Vec<String> =
                cni.bin_dirs.iter().map(|folder| folder.display().to_string()).collect();
            let message = format!(
                "the CNI configuration names plugins that are not in {}: {}",
                folders.join(", "),
                cni.missing_plugins.join(", ")
            );
            self.unless_forced(message, "install the CNI plugins");
        }
    }

    fn driver(&mut self) {
        let Some(kubelet) = self.kubelet().filter(|_| self.decided.old_agent == KUBELET) else { return };
        let (old, new) = (kubelet.cgroup_driver.clone(), self.decided.driver.clone());
        let in_cluster = kubelet.kubeconfig.is_some();
        if old == new || self.decided.request.drain.is_some() {
            return;
        }
        if in_cluster || !self.decided.from_docker {
            let message = format!(
                "the kubelet's cgroup driver would change from {old} to {new}, and pods that stay would be counted twice"
            );
            let hint = format!(
                "drain the node first (--drain --kubeconfig FILE), or keep it with --cgroup-driver {old}"
            );
            self.unless_forced(message, &hint);
        } else {
            self.plan.notes.push(format!("the cgroup driver changes from {old} to {new}, on both sides"));
        }
    }

    fn docker(&mut self, docker: &DockerFacts) {
        if !docker.answers {
            let why = docker.silence.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
            let hint = if self.decided.facts.unit("docker.service").runs() {
                "see systemctl status docker containerd: one of them hangs, or is about to start"
            } else {
                "systemctl start docker, or see journalctl -u docker"
            };
            self.refuse(
                format!(
                    "Docker does not answer at {}, and its pods have to be stopped through it{why}",
                    docker.socket.display()
                ),
                hint,
            );
            return;
        }
        let named = |names: Vec<&str>| names.join(", ");
        let running = docker.containers.iter().filter(|container| container.running);
        let others: Vec<&str> =
            running.clone().filter(|c| c.pod.is_none()).map(|c| c.name.as_str()).collect();
        if !others.is_empty() {
            let message = format!(
                "Docker runs containers that are not Kubernetes' and that will be stopped: {}",
                named(others)
            );
            self.unless_forced(message, "move them elsewhere, or keep Docker for them with --keep-docker");
        }
        let mut using: Vec<String> = running
            .filter(|container| container.mounts_docker_socket)
            .filter_map(|container| container.pod.as_ref())
            .map(|pod| format!("{}/{}", pod.namespace, pod.name))
            .collect();
        using.sort();
        using.dedup();
        if !using.is_empty() {
            let message = format!(
                "pods mount Docker's socket, which they will not find any more: {}",
                using.join(", ")
            );
            self.unless_forced(message, "change them to the CRI socket first");
        }
    }

    fn images(&mut self, docker: &DockerFacts) {
        let chosen = super::order::images(self.decided, self.plan.sandbox_image.as_deref());
        let used = |id: &str| {
            docker.containers.iter().any(|container| container.running && container.image_id == id)
        };
        let wanted = self.decided.request.images;
        if wanted == Images::None {
            return;
        }
        if let Some(image) = self.plan.sandbox_image.clone()
            && !chosen.iter().any(|tag| normalized(tag) == normalized(&image))
        {
            self.warn(format!(
                "the sandbox image {image} is not among Docker's images: containerd has to have it already, or to pull it"
            ));
        }
        let lost: Vec<&str> = docker
            .images
            .iter()
            .filter(|image| image.tags.is_empty() && (wanted == Images::All || used(&image.id)))
            .map(|image| image.digests.first().unwrap_or(&image.id).as_str())
            .collect();
        if !lost.is_empty() {
            self.warn(format!(
                "images without a tag do not come along, as `docker save` loses their names, and are pulled anew: {}",
                lost.join(", ")
            ));
        }
        let named = self.kubelet().map(|kubelet| kubelet.images_by_digest.join(", ")).unwrap_or_default();
        if !named.is_empty() {
            self.warn(format!(
                "static pods name images by digest, which `docker save` loses, also where the image has a tag; they are \
                 pulled anew: {named}"
            ));
        }
        let bytes: u64 = docker
            .images
            .iter()
            .filter(|image| image.tags.iter().any(|tag| chosen.contains(tag)))
            .map(|image| image.size)
            .fold(0, u64::saturating_add);
        // containerd keeps what it was given and what it has unpacked.
        let needed = bytes.saturating_mul(2).saturating_add(SLACK);
        let Some(folder) = self.decided.facts.containerd.as_ref().map(|found| found.data_root.clone()) else {
            return;
        };
        let disk = self
            .decided
            .facts
            .disks
            .iter()
            .find(|disk| folder.starts_with(&disk.path) || disk.path == folder);
        if bytes > 0
            && let Some(disk) = disk.filter(|disk| disk.available < needed)
        {
            let message = format!(
                "{} has {} MiB left, and the images that come along need {} MiB",
                folder.display(),
                disk.available >> 20,
                needed >> 20
            );
            self.refuse(message, "make room, or ask for --images running or --images none");
        }
    }

    fn control_plane(&mut self) {
        let pods: Vec<String> = self.kubelet().map(|kubelet| kubelet.static_pods.clone()).unwrap_or_default();
        let name = |pod: &String| pod.split_once('/').map_or(pod.clone(), |(_, name)| name.to_owned());
        let found: Vec<&str> = CONTROL_PLANE
            .into_iter()
            .filter(|part| pods.iter().any(|pod| name(pod).starts_with(part)))
            .collect();
        if !found.is_empty() && self.decided.from_docker {
            self.warn(format!(
                "this is a node of the control plane: its {} will be away for a minute or so; see that the other \
                 members are well, and change one node at a time",
                found.join(" and its ")
            ));
        }
        let left = OLD_UNITS.iter().any(|unit| self.decided.facts.unit(unit).runs());
        if left && self.decided.request.keep_docker {
            self.plan.notes.push("Docker is stopped for the change and started again behind it".to_owned());
        }
    }
}
