//! What `nodectl switch-runtime` prints: a plan, what was done, and the changes that were made before.

use serde::Serialize;
use serde_json::{Value, json};

use super::args::Format;
use crate::{
    cli::output::{self, Table, printable},
    error::CommandError,
    switch::{
        facts::{Facts, PodFacts},
        journal::Outcome,
        plan::Plan,
        secrets,
        state::Entry,
        steps::{Action, Step},
    },
};

/// What came of a call, for programs.
#[derive(Debug, Clone, Default, Serialize)]
pub(super) struct Report {
    /// Whether anything on the node is not as it was; in a dry run, whether it would be.
    pub(super) changed: bool,
    /// `done`, `nothing-to-do`, `planned`, `refused`, `rolled-back`, `failed`.
    pub(super) outcome: &'static str,
    /// The steps.
    pub(super) steps: Vec<Value>,
    /// The folder with the journal and the files as they were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) backup_dir: Option<String>,
    /// The differences of all files, as `diff -u` prints them.
    pub(super) diff: String,
    /// What should be known.
    pub(super) warnings: Vec<String>,
    /// What was left alone.
    pub(super) notes: Vec<String>,
    /// What stands in the way.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) refusals: Vec<Value>,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

impl Report {
    /// Of a plan.
    pub(super) fn new(plan: &Plan) -> Self {
        let refusals = plan.refusals.iter();
        Self {
            changed: plan.changes(),
            outcome: if plan.changes() { "planned" } else { "nothing-to-do" },
            steps: plan.steps.iter().map(step).collect(),
            backup_dir: None,
            diff: plan.diff(),
            warnings: plan.warnings.clone(),
            notes: plan.notes.clone(),
            refusals: refusals
                .map(|refusal| json!({"message": refusal.message, "hint": refusal.hint, "forceable": refusal.forceable}))
                .collect(),
            error: None,
        }
    }

    pub(super) fn json(&self) -> Result<String, CommandError> {
        output::json(self)
    }
}

/// A step without the text of its file: the difference tells that.
pub(super) fn step(step: &Step) -> Value {
    let mut value = serde_json::to_value(step).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("text");
        fields.remove("lenient");
        fields.remove("seen");
    }
    value
}

/// A plan for people: the steps, what should be known, what stands in the way, and the differences.
pub(super) fn plan_text(facts: &Facts, plan: &Plan, with_diff: bool) -> String {
    let mut lines = vec![headline(facts, plan)];
    if plan.changes() {
        lines.extend([String::new(), "Steps:".to_owned()]);
        let steps = plan.steps.iter().enumerate();
        lines.extend(steps.map(|(number, step)| {
            format!("{:3}. {}{}", number + 1, printable(&step.why), object(&step.action))
        }));
    }
    for (title, said) in [("Warnings:", &plan.warnings), ("Notes:", &plan.notes)] {
        if !said.is_empty() {
            lines.extend([String::new(), title.to_owned()]);
            lines.extend(said.iter().map(|line| format!("  - {}", printable(line))));
        }
    }
    let mut text = lines.join("\n") + "\n";
    if with_diff && !plan.files.is_empty() {
        text += "\n";
        text += &plan.diff();
    }
    text
}

/// What a change has ahead of it, for people: the steps and the differences.
pub(super) fn ahead_text(ahead: &Plan, back: bool) -> String {
    let undo = if back { "undo: " } else { "" };
    let mut text = "Steps:\n".to_owned();
    for (number, step) in ahead.steps.iter().enumerate() {
        let line = format!("{:3}. {undo}{}{}\n", number + 1, printable(&step.why), object(&step.action));
        text.push_str(&line);
    }
    if !ahead.files.is_empty() {
        text.push('\n');
        text += &ahead.diff();
    }
    text
}

/// What a step is about, where its sentence does not say it.
fn object(action: &Action) -> String {
    match action {
        Action::WriteFile { path, .. } | Action::RemoveFile { path } => format!(": {}", path.display()),
        Action::CarryImages { images, .. } => format!(": {}", printable(&images.join(", "))),
        _ => String::new(),
    }
}

fn headline(facts: &Facts, plan: &Plan) -> String {
    let name = printable(&facts.node_name);
    let version = |version: Option<&String>| version.map(|text| format!(" {text}")).unwrap_or_default();
    let containerd = version(facts.containerd.as_ref().and_then(|found| found.version.as_ref()));
    if !plan.changes() {
        return format!(
            "The node {name} is as asked already: containerd{containerd}. There is nothing to do."
        );
    }
    let from = match facts.docker.as_ref().filter(|_| plan.steps.iter().any(|step| is_move(&step.action))) {
        Some(docker) => format!("from Docker{} to containerd{containerd}", version(docker.version.as_ref())),
        None => format!("on containerd{containerd}"),
    };
    format!("The node {name} {from}:")
}

fn is_move(action: &Action) -> bool {
    matches!(action, Action::StopDockerPods { .. })
}

/// The changes that were made.
pub(super) fn history(entries: &[Entry], format: Format) -> Result<String, CommandError> {
    if format == Format::Json {
        return output::json(&entries);
    }
    let mut table = Table::new(["NAME", "OUTCOME", "STEPS", "FILES AS THEY WERE"]);
    for entry in entries {
        table.push([
            entry.name.clone(),
            outcome(entry),
            if entry.damaged.is_some() { "-".to_owned() } else { format!("{}/{}", entry.done, entry.steps) },
            entry.backup_dir.display().to_string(),
        ]);
    }
    Ok(table.render())
}

fn outcome(entry: &Entry) -> String {
    match (entry.outcome, &entry.at_work) {
        (Some(Outcome::Done), _) => "done".to_owned(),
        (Some(Outcome::RolledBack), _) => "rolled back".to_owned(),
        (None, Some(process)) => format!("at work (process {process})"),
        (None, None) if entry.damaged.is_some() => "cannot be read".to_owned(),
        (None, None) => "not finished".to_owned(),
    }
}

/// Pods by their names, in their order.
fn pods<'a>(all: impl Iterator<Item = &'a PodFacts>) -> String {
    let mut names: Vec<String> = all.map(|pod| format!("{}/{}", pod.namespace, pod.name)).collect();
    names.sort();
    names.join(", ")
}

/// What was detected, for people.
pub(super) fn facts_text(facts: &Facts) -> String {
    let mut lines: Vec<(&str, String)> = Vec::new();
    let known = |text: Option<&String>| text.cloned().unwrap_or_else(|| "of unknown version".to_owned());
    lines.push(("Node", facts.node_name.clone()));
    if facts.root.is_none() {
        lines.push((
            "Init",
            format!("{} {}", facts.init.name, facts.init.version.clone().unwrap_or_default()),
        ));
        let cgroup =
            facts.cgroup_version.map_or_else(|| "unknown".to_owned(), |version| format!("v{version}"));
        lines.push(("Control groups", cgroup));
    }
    if let Some(kubelet) = &facts.kubelet {
        let runtime = serde_json::to_value(kubelet.runtime).unwrap_or_default();
        let endpoint =
            kubelet.endpoint.as_ref().map(|endpoint| format!(" at {endpoint}")).unwrap_or_default();
        lines.push((
            "Kubelet",
            format!(
                "{}, runtime {}{endpoint}, cgroup driver {}",
                known(kubelet.version.as_ref()),
                runtime.as_str().unwrap_or_default(),
                kubelet.cgroup_driver
            ),
        ));
        let arguments: Vec<&str> = kubelet.arguments.iter().map(|argument| argument.text.as_str()).collect();
        lines.push(("Kubelet's arguments", secrets::hide(&arguments.join(" "))));
        if !kubelet.static_pods.is_empty() {
            lines.push(("Static pods", kubelet.static_pods.join(", ")));
        }
    }
    if let Some(docker) = &facts.docker {
        let running = docker.containers.iter().filter(|container| container.running);
        let pods = running.clone().filter(|container| container.sandbox).count();
        let others = running.filter(|container| container.pod.is_none()).count();
        let state = if docker.answers {
            format!("{pods} pods, {others} other containers, {} images", docker.images.len())
        } else {
            "does not answer".to_owned()
        };
        let driver = docker.cgroup_driver.clone().unwrap_or_else(|| "unknown".to_owned());
        lines
            .push(("Docker", format!("{}, cgroup driver {driver}, {state}", known(docker.version.as_ref()))));
        if pods > 0 {
            let of_pods = docker.containers.iter().filter(|container| container.running && container.sandbox);
            lines.push(("Pods in Docker", self::pods(of_pods.filter_map(|sandbox| sandbox.pod.as_ref()))));
        }
    }
    if let Some(containerd) = &facts.containerd {
        let cri = if containerd.cri_answers {
            format!("serves CRI, {} pods", containerd.pods.len())
        } else {
            "does not serve CRI".to_owned()
        };
        let driver = containerd.cgroup_driver.as_deref().unwrap_or("unknown");
        let version = known(containerd.version.as_ref());
        lines.push(("containerd", format!("{version}, cgroup driver {driver}, {cri}")));
        if !containerd.pods.is_empty() {
            lines.push(("Pods in containerd", pods(containerd.pods.iter())));
        }
    }
    let configs = if facts.cni.configs.is_empty() { "none".to_owned() } else { facts.cni.configs.join(", ") };
    lines.push(("CNI configuration", format!("{configs} in {}", facts.cni.conf_dir.display())));
    for (name, unit) in facts.units.iter().filter(|(_, unit)| unit.exists()) {
        let words = [unit.active.as_str(), unit.enabled.as_str()];
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        lines.push((name, words.join(", ")));
    }
    for disk in &facts.disks {
        lines.push(("Free disk", format!("{} MiB at {}", disk.available >> 20, disk.path.display())));
    }
    for problem in &facts.problems {
        lines.push(("Problem", problem.clone()));
    }
    let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    lines.iter().map(|(name, text)| format!("{:width$}{}\n", format!("{name}:"), printable(text))).collect()
}
