//! What the files become.

use std::path::{Path, PathBuf};

use super::{Decided, FileChange, Plan, PlanError};
use crate::switch::{
    agent_unit,
    carry::{self, Carried},
    containerd::{self, ConfigFile, Edited, Wishes},
    kubelet::{self, KubeletWishes, config_yaml},
    request::Agent,
    secrets,
};

/// Where registries' `hosts.toml` files go unless containerd's configuration names a folder.
const CERTS_D: &str = "/etc/containerd/certs.d";
/// A configuration in which all is as containerd has it by default, in the form that 1.3 and all later releases read.
const EMPTY_CONFIG: &str = "version = 2\n";
/// crictl's configuration.
const CRICTL: &str = "/etc/crictl.yaml";

/// Adds all files that change.
pub(super) fn gather(decided: &Decided<'_>, plan: &mut Plan) -> Result<(), PlanError> {
    let mut files = Files { decided, plan };
    let carried = files.containerd()?;
    match decided.request.agent {
        Agent::Kubelet => files.kubelet(&carried)?,
        Agent::Nodectl => files.agent(&carried)?,
    }
    files.crictl();
    Ok(())
}

/// What containerd is wished to say.
fn wishes(decided: &Decided<'_>, carried: &Carried) -> Wishes {
    Wishes {
        pause_image: pause_image(decided, carried),
        systemd_cgroup: Some(decided.driver == "systemd"),
        registry_config_path: carried.needs_registry_config_path.then(|| CERTS_D.to_owned()),
        cni_bin_dir: carried.cni_bin_dir.clone(),
        cni_conf_dir: carried.cni_conf_dir.clone(),
        restrict_oom_score_adj: decided.facts.oom_score_restricted.then_some(true),
        runtimes: carried.runtimes.clone(),
        default_runtime: carried.default_runtime.clone(),
        upgrade: decided.release.major >= 2,
    }
}

/// The image of sandboxes: the one that is asked for, or that the kubelet is told, or that is in use. With another,
/// a node without a registry would not come back.
fn pause_image(decided: &Decided<'_>, carried: &Carried) -> Option<String> {
    let in_use = || {
        let docker = decided.facts.docker.as_ref()?;
        let sandbox = docker.containers.iter().find(|container| container.sandbox && container.running)?;
        // An image that lost its tag is named by its id.
        Some(sandbox.image.clone()).filter(|image| !image.starts_with("sha256:"))
    };
    let moved = || if decided.from_docker { carried.pause_image.clone().or_else(in_use) } else { None };
    decided.request.pause_image.clone().or_else(moved)
}

struct Files<'a, 'b> {
    decided: &'a Decided<'a>,
    plan: &'b mut Plan,
}

impl Files<'_, '_> {
    fn change(&mut self, path: &Path, new: String, mode: u32, why: &str) {
        let old = self.decided.facts.text(path).map(str::to_owned);
        if old.as_ref() != Some(&new) {
            self.plan.files.push(FileChange {
                path: path.to_path_buf(),
                old,
                new: Some(new),
                mode,
                secret: mode & 0o077 == 0,
                why: why.to_owned(),
            });
        }
    }

    fn note(&mut self, notes: impl IntoIterator<Item = String>) {
        for note in notes {
            let note = secrets::hide(&note);
            if !self.plan.notes.contains(&note) {
                self.plan.notes.push(note);
            }
        }
    }

    fn containerd(&mut self) -> Result<Carried, PlanError> {
        let Decided { facts, request, release, .. } = self.decided;
        let Some(found) = &facts.containerd else { return Ok(Carried::default()) };
        let text = |path: &PathBuf| ConfigFile {
            path: path.clone(),
            text: facts.text(path).unwrap_or_default().to_owned(),
        };
        let mut originals: Vec<ConfigFile> = found.config_files.iter().map(text).collect();
        let is_empty =
            originals.first().is_none_or(|main| main.path != found.config || main.text.trim().is_empty());
        let mut kept_image = None;
        if request.reset_config || is_empty {
            // Whatever else begins anew: a node without a registry has this one and no other.
            kept_image = containerd::sandbox_image(&originals, *release);
            let text = match &found.default_config {
                Some(default) => default.clone(),
                // Nothing of a folder is run; what is not said has containerd's default there too.
                None if self.decided.offline() => EMPTY_CONFIG.to_owned(),
                None => {
                    return Err(PlanError::Missing(format!(
                        "{} is to begin anew, and `containerd config default` cannot be asked for something to begin with",
                        found.config.display()
                    )));
                }
            };
            originals = vec![ConfigFile { path: found.config.clone(), text }];
        }
        // What the configuration says of registries in place is known once it is edited, and goes to the same files
        // as what comes from Docker.
        let first = carry::carry(facts, request, *release, &[], CERTS_D);
        let mut wishes = wishes(self.decided, &first);
        wishes.pause_image = wishes.pause_image.or(kept_image);
        let edited = containerd::edit(&originals, &wishes, *release)?;
        let folder = edited.registry_config_path.clone().unwrap_or_else(|| CERTS_D.to_owned());
        let carried = carry::carry(facts, request, *release, &edited.registries, &folder);
        let Edited { changed, notes, expected, .. } = edited;
        self.plan.expected = expected;
        let now = |original: &ConfigFile| {
            changed.iter().find(|file| file.path == original.path).unwrap_or(original).clone()
        };
        let all: Vec<ConfigFile> = originals.iter().map(now).collect();
        let default =
            found.default_config.clone().map(|text| ConfigFile { path: found.config.clone(), text });
        self.plan.sandbox_image = containerd::sandbox_image(&all, *release)
            .or_else(|| containerd::sandbox_image(default.as_slice(), *release));
        for original in &originals {
            let new = changed.iter().find(|file| file.path == original.path).unwrap_or(original);
            self.change(&new.path, new.text.clone(), 0o644, "tell containerd to serve Kubernetes");
        }
        self.note(notes.into_iter().chain(carried.notes.iter().cloned()));
        self.plan.warnings.extend(carried.warnings.iter().map(|warning| secrets::hide(warning)));
        for (path, file) in &carried.files {
            self.change(path, file.text.clone(), file.mode, "carry Docker's settings over to containerd");
        }
        Ok(carried)
    }

    fn kubelet(&mut self, carried: &Carried) -> Result<(), PlanError> {
        let facts = self.decided.facts;
        if facts.kubelet.is_none() {
            return Ok(());
        }
        let edit = kubelet::edit(facts, &self.told(carried))
            .map_err(|error| PlanError::Kubelet(error.to_string()))?;
        for (path, text) in edit.files {
            self.change(&path, text, 0o644, "tell the kubelet to use containerd");
        }
        self.note(edit.notes);
        Ok(())
    }

    /// What the agent is to be told.
    fn told(&self, carried: &Carried) -> KubeletWishes {
        let moved = self.decided.from_docker;
        KubeletWishes {
            endpoint: self.decided.endpoint.clone(),
            pause_image: pause_image(self.decided, carried),
            cgroup_driver: Some(self.decided.driver.clone()),
            log_max_size: carried.log_max_size.clone().filter(|_| moved),
            log_max_files: carried.log_max_files.filter(|_| moved),
        }
    }

    fn agent(&mut self, carried: &Carried) -> Result<(), PlanError> {
        let Decided { facts, request, .. } = self.decided;
        let Some(kubelet) = &facts.kubelet else {
            return Err(PlanError::Missing("there is no kubelet whose place nodectl could take".to_owned()));
        };
        let unit = agent_unit::agent_unit(facts, &kubelet.unit, &self.told(carried), &request.program)
            .map_err(|error| PlanError::Kubelet(error.to_string()))?;
        self.change(&unit.path, unit.text, 0o644, "let nodectl run the pods");
        self.note(unit.notes);
        Ok(())
    }

    /// crictl's file is for people's convenience: one that cannot be changed is no reason to stay.
    fn crictl(&mut self) {
        let endpoint = self.decided.endpoint.as_str();
        let mut text = self.decided.facts.text(CRICTL).unwrap_or_default().to_owned();
        for key in ["runtime-endpoint", "image-endpoint"] {
            match config_yaml::set_text(&text, key, endpoint) {
                Ok(set) => text = set,
                Err(error) => return self.note([format!("{CRICTL} is left as it is: it {error}")]),
            }
        }
        self.change(Path::new(CRICTL), text, 0o644, "tell crictl where containerd is");
    }
}
