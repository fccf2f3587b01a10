//! Looking at a pod of the corpus: at its status, and inside its containers.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::Value;

use super::expect::{Entry, Look, Match};
use crate::support::{Node, Process, View};

/// Gathers what is not as it should be.
pub(crate) struct Looker<'a> {
    pub(crate) node: &'a Node,
    pub(crate) host: &'a Path,
    pub(crate) view: &'a View,
    pub(crate) processes: &'a BTreeMap<String, Process>,
    pub(crate) faults: Vec<String>,
}

impl Looker<'_> {
    /// Puts what is known of the pod at `@…@`.
    fn fill(&self, text: &str) -> String {
        let status = &self.view.0["status"];
        let known = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        text.replace("@host@", &self.host.display().to_string())
            .replace("@uid@", self.view.uid())
            .replace("@pod-ip@", &known(&status["podIP"]))
            .replace("@host-ip@", &known(&status["hostIP"]))
            .replace("@cgroup-root@", self.node.containerd.cgroup_root())
            .replace("@root-dir@", &self.node.root_dir().display().to_string())
    }

    fn check(&mut self, what: &str, wanted: &Match, found: Option<&str>) {
        if let Some(fault) = wanted.fault(found, &|text| self.fill(text)) {
            self.faults.push(format!("{what} {fault}"));
        }
    }

    fn check_json(&mut self, what: &str, wanted: &BTreeMap<String, Match>, value: &Value) {
        for (pointer, wanted) in wanted {
            let found = value.pointer(pointer).filter(|found| !found.is_null()).map(|found| match found {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            });
            self.check(&format!("{what} {pointer}"), wanted, found.as_deref());
        }
    }

    /// All that the entry wants to be seen.
    pub(crate) fn pod(&mut self, entry: &Entry) {
        self.check_json("the pod's", &entry.expect.pod, &self.view.0);
        if let Some(wanted) = &entry.expect.explain {
            let explained = self.node.explain(&entry.name).to_string();
            self.check("the explanation", wanted, Some(&explained));
        }
        for (path, wanted) in &entry.expect.node_files {
            let path = self.fill(path);
            self.check(&format!("the node's {path}"), wanted, content(Path::new(&path)).as_deref());
        }
        for (name, look) in &entry.expect.containers {
            self.container(name, look);
        }
    }

    fn container(&mut self, name: &str, look: &Look) {
        self.check_json(name, &look.state, self.view.container(name));
        if let Some(wanted) = &look.log {
            let log = self.log(name);
            self.check(&format!("{name}: log"), wanted, log.as_deref());
        }
        let Some(process) = self.processes.get(&self.view.id(name)).copied() else {
            if look.is_inside() {
                self.faults.push(format!("{name} does not run: {}", self.view.container(name)));
            }
            return;
        };
        // It may end while it is looked at; the next round finds out.
        if process.alive() {
            self.inside(name, look, process);
            if !process.alive() {
                self.faults.push(format!("{name} has ended while it was looked at"));
            }
        }
    }

    fn inside(&mut self, name: &str, look: &Look, process: Process) {
        let proc =
            |file: &str| fs::read(format!("/proc/{}/{file}", process.0)).ok().map(|bytes| lossy(&bytes));
        for (variable, wanted) in &look.env {
            let found = process.variable(variable);
            self.check(&format!("{name}: variable {variable}"), wanted, found.as_deref());
        }
        if let Some(wanted) = &look.args {
            let wanted: Vec<String> = wanted.iter().map(|text| self.fill(text)).collect();
            let found = process.arguments();
            if found != wanted {
                self.faults.push(format!("{name}: arguments are {found:?}, should be {wanted:?}"));
            }
        }
        if let Some(wanted) = &look.cwd {
            self.check(&format!("{name}: working folder"), wanted, process.working_dir().to_str());
        }
        if let Some(wanted) = &look.hostname {
            self.check(&format!("{name}: host name"), wanted, Some(&process.host_name()));
        }
        for (path, wanted) in &look.files {
            let path = self.fill(path);
            let found = content(&process.path(&path));
            self.check(&format!("{name}: {path}"), wanted, found.as_deref());
        }
        for (path, wanted) in &look.modes {
            let found = fs::symlink_metadata(process.path(path)).ok().map(|meta| {
                format!("{:04o} {}:{}", meta.permissions().mode() & 0o7777, meta.uid(), meta.gid())
            });
            self.check(&format!("{name}: mode of {path}"), wanted, found.as_deref());
        }
        let status = proc("status").unwrap_or_default();
        for (line, wanted) in &look.status {
            let found = status.lines().find_map(|l| l.strip_prefix(line.as_str())?.strip_prefix(':'));
            let words = found.map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "));
            self.check(&format!("{name}: status line {line}"), wanted, words.as_deref());
        }
        for (file, wanted) in &look.proc {
            self.check(&format!("{name}: /proc/PID/{file}"), wanted, proc(file).as_deref());
        }
        let mounts = proc("mountinfo").unwrap_or_default();
        for (place, wanted) in &look.mounts {
            let found = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some(place));
            self.check(&format!("{name}: mount on {place}"), wanted, found);
        }
        for (is_pod, settings) in [(false, &look.cgroup), (true, &look.pod_cgroup)] {
            for (files, wanted) in settings {
                let found = setting(process, files, is_pod);
                let whose = if is_pod { "the pod's cgroup" } else { "cgroup" };
                self.check(&format!("{name}: {whose} {files}"), wanted, found.as_deref());
            }
        }
        for (kind, whose) in &look.namespaces {
            let mine = process.namespace(kind);
            let host = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
            let ok = match whose.as_str() {
                "host" => mine == host,
                "own" => mine != host,
                other => self
                    .processes
                    .get(&self.view.id(other))
                    .is_some_and(|other| other.alive() && other.namespace(kind) == mine),
            };
            if !ok {
                self.faults.push(format!("{name}: namespace {kind} is not {whose}"));
            }
        }
    }

    /// What a container has written in its present or last life.
    fn log(&self, container: &str) -> Option<String> {
        let meta = &self.view.0["metadata"];
        let (space, name) = (meta["namespace"].as_str()?, meta["name"].as_str()?);
        let folder = self.node.pod_logs().join(format!("{space}_{name}_{}/{container}", self.view.uid()));
        let number = |path: &Path| path.file_stem()?.to_str()?.parse::<u64>().ok();
        let file = fs::read_dir(folder)
            .ok()?
            .filter_map(|entry| entry.ok().map(|e| e.path()))
            .max_by_key(|p| number(p))?;
        let text = fs::read_to_string(file).ok()?;
        Some(
            text.lines()
                .map(|line| line.splitn(4, ' ').nth(3).unwrap_or_default())
                .collect::<Vec<_>>()
                .join("\n"),
        )
    }
}

impl Look {
    /// Whether it wants to see a running process.
    fn is_inside(&self) -> bool {
        let maps =
            [&self.env, &self.files, &self.modes, &self.status, &self.proc, &self.mounts, &self.cgroup];
        maps.iter().any(|map| !map.is_empty())
            || !(self.pod_cgroup.is_empty() && self.namespaces.is_empty())
            || self.args.is_some()
            || self.cwd.is_some()
            || self.hostname.is_some()
    }
}

/// A file's text, or the names in a folder.
fn content(path: &Path) -> Option<String> {
    if path.is_dir() {
        let entries = fs::read_dir(path).ok()?;
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
        names.sort();
        return Some(names.join(" "));
    }
    fs::read(path).ok().map(|bytes| lossy(&bytes))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// `V1FILE|V2FILE` of a process's cgroup or of the one around it; the controller is the name's first part.
fn setting(process: Process, files: &str, of_pod: bool) -> Option<String> {
    files.split('|').find_map(|file| {
        let folder = process.cgroup(file.split('.').next()?);
        let folder = if of_pod { folder.parent()?.to_path_buf() } else { folder };
        fs::read_to_string(folder.join(file)).ok()
    })
}
