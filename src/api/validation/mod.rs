//! What an API server would refuse of a pod, and kubelet of a static one.
//!
//! An API server validates what it stores; a manifest on a node's disk was validated by nobody.
//! Every rule here guards a field that the agent acts on, or that would fail later in a place
//! where its cause is hard to see (an invalid name as a folder, a mount of no volume). All problems
//! of a pod are listed at once, with paths as `kubectl` shows them.
//!
//! The pod must have its defaults ([`crate::api::defaults`]) and its static pod name already.

mod affinity;
mod containers;
mod downward;
pub mod names;
mod network;
mod probes;
mod resources;
mod security;
mod static_pod;
#[cfg(test)]
mod tests;
mod volumes;

use std::collections::HashSet;
use std::fmt::Display;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::manifest::FieldProblem;

/// The most bytes that all annotations of an object may have together.
const MAX_ANNOTATION_BYTES: usize = 256 << 10;

/// Checks a static pod: [`validate_pod`], and that it refers to nothing in an API server.
pub fn validate_static_pod(pod: &Pod) -> Vec<FieldProblem> {
    let mut problems = Problems(validate_pod(pod));
    static_pod::check(pod, &mut problems);
    problems.0
}

/// Checks a pod as an API server does on create. Empty when all is well.
pub fn validate_pod(pod: &Pod) -> Vec<FieldProblem> {
    let mut problems = Problems::default();
    check_metadata(pod, &mut problems);
    match &pod.spec {
        Some(spec) => check_spec(spec, &mut problems),
        None => problems.required("spec", ""),
    }
    problems.0
}

/// Gathers problems in the words of Kubernetes' own validation.
#[derive(Default)]
struct Problems(Vec<FieldProblem>);

impl Problems {
    fn add(&mut self, path: impl Into<String>, detail: String) {
        self.0.push(FieldProblem::new(path, detail));
    }

    fn required(&mut self, path: impl Into<String>, why: &str) {
        self.add(
            path,
            if why.is_empty() { "Required value".to_owned() } else { format!("Required value: {why}") },
        );
    }

    fn invalid(&mut self, path: impl Into<String>, value: impl Display, why: &str) {
        self.add(path, format!("Invalid value: {}: {why}", shown(&value.to_string())));
    }

    fn duplicate(&mut self, path: impl Into<String>, value: impl Display) {
        self.add(path, format!("Duplicate value: {}", shown(&value.to_string())));
    }

    fn forbidden(&mut self, path: impl Into<String>, why: &str) {
        self.add(path, format!("Forbidden: {why}"));
    }

    /// For an optional text: set to one of `allowed`, or not at all.
    fn one_of(&mut self, path: impl Into<String>, value: Option<&str>, allowed: &[&str]) {
        if let Some(value) = value.filter(|v| !allowed.contains(v)) {
            let list = allowed.iter().map(|a| format!("\"{a}\"")).collect::<Vec<_>>().join(", ");
            self.add(path, format!("Unsupported value: {}: supported values: {list}", shown(value)));
        }
    }

    fn name(&mut self, path: impl Into<String>, value: &str, check: fn(&str) -> Option<&'static str>) {
        if let Some(why) = check(value) {
            self.invalid(path, value, why);
        }
    }
}

/// A value in quotes, cut where it would drown the message.
fn shown(value: &str) -> String {
    const MOST: usize = 80;
    match value.char_indices().nth(MOST) {
        Some((end, _)) => format!("{:?}...", &value[..end]),
        None => format!("{value:?}"),
    }
}

fn check_metadata(pod: &Pod, problems: &mut Problems) {
    let meta = &pod.metadata;
    match meta.name.as_deref().unwrap_or_default() {
        "" => problems.required("metadata.name", "name is needed for the pod"),
        name => problems.name("metadata.name", name, names::dns1123_subdomain),
    }
    match meta.namespace.as_deref().unwrap_or_default() {
        "" => problems.required("metadata.namespace", ""),
        namespace => problems.name("metadata.namespace", namespace, names::dns1123_label),
    }
    if let Some(uid) = &meta.uid {
        problems.name("metadata.uid", uid, names::pod_uid);
    }
    for (key, value) in meta.labels.iter().flatten() {
        let path = format!("metadata.labels[{key}]");
        problems.name(path.clone(), key, names::qualified_name);
        problems.name(path, value, names::label_value);
    }
    let mut bytes = 0;
    for (key, value) in meta.annotations.iter().flatten() {
        // Upper case is allowed in the keys of annotations.
        problems.name(
            format!("metadata.annotations[{key}]"),
            &key.to_ascii_lowercase(),
            names::qualified_name,
        );
        bytes += key.len() + value.len();
    }
    if bytes > MAX_ANNOTATION_BYTES {
        problems.add(
            "metadata.annotations",
            format!("Too long: may not be more than {MAX_ANNOTATION_BYTES} bytes together, are {bytes}"),
        );
    }
}

fn check_spec(spec: &PodSpec, problems: &mut Problems) {
    let policies = ["Always", "OnFailure", "Never"];
    problems.one_of("spec.restartPolicy", spec.restart_policy.as_deref(), &policies);
    problems.one_of(
        "spec.dnsPolicy",
        spec.dns_policy.as_deref(),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    if let Some(grace) = spec.termination_grace_period_seconds.filter(|g| *g < 0) {
        problems.invalid("spec.terminationGracePeriodSeconds", grace, "must be greater than or equal to 0");
    }
    if let Some(deadline) = spec.active_deadline_seconds
        && !(1..=i64::from(i32::MAX)).contains(&deadline)
    {
        problems.invalid("spec.activeDeadlineSeconds", deadline, "must be between 1 and 2147483647");
    }
    network::check(spec, problems);
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        problems.forbidden("spec.shareProcessNamespace", "may not be set together with hostPID");
    }
    check_host_users(spec, problems);
    security::check_pod(spec, problems);
    problems.one_of("spec.os.name", spec.os.as_ref().map(|os| os.name.as_str()), &["linux", "windows"]);
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        problems.forbidden("spec.os.name", "this node runs Linux");
    }
    check_tolerations(spec, problems);
    for (key, value) in spec.node_selector.iter().flatten() {
        problems.name(format!("spec.nodeSelector[{key}]"), key, names::qualified_name);
        problems.name(format!("spec.nodeSelector[{key}]"), value, names::label_value);
    }
    affinity::check(spec, problems);
    let volumes = volumes::check(spec, problems);
    containers::check(spec, &volumes, problems);
    resources::check_pod(spec, problems);
}

fn check_host_users(spec: &PodSpec, problems: &mut Problems) {
    if spec.host_users != Some(false) {
        return;
    }
    for (path, set) in [
        ("spec.hostNetwork", spec.host_network),
        ("spec.hostPID", spec.host_pid),
        ("spec.hostIPC", spec.host_ipc),
    ] {
        if set == Some(true) {
            problems.forbidden(path, "may not be set when hostUsers is false");
        }
    }
}

fn check_tolerations(spec: &PodSpec, problems: &mut Problems) {
    for (index, toleration) in spec.tolerations.iter().flatten().enumerate() {
        let path = format!("spec.tolerations[{index}]");
        let key = toleration.key.as_deref().unwrap_or_default();
        let operator = toleration.operator.as_deref().filter(|o| !o.is_empty());
        let value = toleration.value.as_deref().unwrap_or_default();
        let effect = toleration.effect.as_deref().filter(|e| !e.is_empty());
        if key.is_empty() && operator != Some("Exists") {
            problems.invalid(
                format!("{path}.operator"),
                operator.unwrap_or_default(),
                "must be Exists when key is empty",
            );
        } else if !key.is_empty() {
            problems.name(format!("{path}.key"), key, names::qualified_name);
        }
        problems.one_of(format!("{path}.operator"), operator, &["Equal", "Exists", "Lt", "Gt"]);
        if operator == Some("Exists") && !value.is_empty() {
            problems.invalid(format!("{path}.value"), value, "must be empty when operator is Exists");
        }
        problems.name(format!("{path}.value"), value, names::label_value);
        problems.one_of(format!("{path}.effect"), effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
        if toleration.toleration_seconds.is_some() && effect != Some("NoExecute") {
            problems.invalid(
                format!("{path}.effect"),
                effect.unwrap_or_default(),
                "must be NoExecute when tolerationSeconds is set",
            );
        }
    }
}

/// Names that may be used once, with the path of the first use.
#[derive(Default)]
struct Unique(HashSet<String>);

impl Unique {
    fn add(&mut self, path: String, value: &str, problems: &mut Problems) {
        if !value.is_empty() && !self.0.insert(value.to_owned()) {
            problems.duplicate(path, value);
        }
    }
}

/// The names of a pod's volumes.
type VolumeNames<'p> = HashSet<&'p str>;
