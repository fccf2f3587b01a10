//! What of a pod's status is written to the API server, given what stands there: kubelet's `mergePodStatus`
//! (pkg/kubelet/status/status_manager.go), and the patch that makes the one into the other.
//!
//! Others write to the status too: the scheduler, controllers of readiness gates, whoever evicts. Theirs is left as it
//! is: the patch is a strategic one, which names our conditions alone and goes by their types, and no field that is
//! not ours. What has come to its end stays so, whoever asks again after a restart.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition, PodStatus};
use serde_json::{Map, Value, json};

use super::{
    condition,
    conditions::{OURS, ends_here},
    find, is_terminal, phase_of,
};
use crate::api::{PodExt as _, RestartPolicy};

/// The fields of a pod's status that are the node's, by their JSON names. All others are somebody else's.
const FIELDS: [&str; 14] = [
    "containerStatuses",
    "ephemeralContainerStatuses",
    "hostIP",
    "hostIPs",
    "initContainerStatuses",
    "message",
    "observedGeneration",
    "phase",
    "podIP",
    "podIPs",
    "qosClass",
    "reason",
    "startTime",
    "conditions",
];
/// Lists that a strategic patch merges, by this key of their entries, as far as they are not replaced whole.
const BY_KEY: [(&str, &str); 3] = [("conditions", "type"), ("podIPs", "ip"), ("hostIPs", "ip")];

/// Whether a condition is the node's to write.
pub fn is_ours(type_: &str) -> bool {
    OURS.contains(&type_)
}

/// The status that the server is to have: ours, with what may not be taken back of `there`, the server's own.
///
/// `may_run` says that something of the pod may still run: such a pod is not told to have ended, as others take its
/// place then.
pub fn merge_status(pod: &Pod, there: &PodStatus, ours: &PodStatus, may_run: bool) -> PodStatus {
    let mut merged = ours.clone();
    let ended = is_terminal(there);
    let ending = is_terminal(ours) && !ended;
    if (ended && phase_of(ours) != phase_of(there)) || (ending && may_run) {
        merged.phase.clone_from(&there.phase);
        merged.reason.clone_from(&there.reason);
        merged.message.clone_from(&there.message);
    }
    if there.start_time.is_some() {
        merged.start_time.clone_from(&there.start_time);
    }
    let finished = is_terminal(&merged).then(|| merged.phase.clone().unwrap_or_default());
    for ours in merged.conditions.iter_mut().flatten() {
        if let Some(phase) = &finished {
            unready(ours, phase);
        }
        // The time tells when it changed, which it did not.
        let same = condition(there, &ours.type_).filter(|there| there.status == ours.status);
        if let Some(since) = same.and_then(|there| there.last_transition_time.clone()) {
            ours.last_transition_time = Some(since);
        }
    }
    let policy = pod.restart_policy();
    stay_ended(policy, there.container_statuses.as_deref(), &mut merged.container_statuses);
    // An init container that ended well is not run again, whatever the policy; the others' order hangs on it.
    stay_ended(
        if policy == RestartPolicy::Always { RestartPolicy::OnFailure } else { policy },
        there.init_container_statuses.as_deref(),
        &mut merged.init_container_statuses,
    );
    merged
}

/// A pod that has ended is not ready, whatever is still known of its containers.
fn unready(condition: &mut PodCondition, phase: &str) {
    if condition.status == "True" && matches!(condition.type_.as_str(), "Ready" | "ContainersReady") {
        condition.status = "False".to_owned();
        condition.reason = Some(format!("Pod{}", if phase == "Succeeded" { "Completed" } else { phase }));
        condition.message = None;
    }
}

/// Keeps the ends of containers that are never started again. A container with a policy of its own is left out: a
/// sidecar or a rule may start it again.
fn stay_ended(
    policy: RestartPolicy,
    there: Option<&[ContainerStatus]>,
    ours: &mut Option<Vec<ContainerStatus>>,
) {
    for status in ours.iter_mut().flatten() {
        let Some(before) = find(there, &status.name) else { continue };
        let ended = |status: &ContainerStatus| status.state.as_ref().and_then(|s| s.terminated.clone());
        let Some(end) = ended(before).filter(|_| ended(status).is_none()) else { continue };
        let stays = match policy {
            RestartPolicy::Never => true,
            RestartPolicy::OnFailure => end.exit_code == 0,
            RestartPolicy::Always => false,
        };
        if stays && status.restart_count <= before.restart_count {
            *status = before.clone();
        }
    }
}

/// A status as JSON with the node's fields and conditions alone, and without what says nothing: Go writes empty
/// objects and lists where others leave them out.
pub fn our_part(status: &PodStatus) -> Value {
    let mut part = serde_json::to_value(status).unwrap_or_default();
    if let Some(fields) = part.as_object_mut() {
        fields.retain(|name, _| FIELDS.contains(&name.as_str()));
        if let Some(conditions) = fields.get_mut("conditions").and_then(Value::as_array_mut) {
            let of_ours = status.conditions.iter().flatten().filter(|c| is_ours(&c.type_) || ends_here(c));
            let names: Vec<&str> = of_ours.map(|c| c.type_.as_str()).collect();
            conditions.retain(|c| c["type"].as_str().is_some_and(|name| names.contains(&name)));
            conditions.sort_by(|a, b| a["type"].as_str().cmp(&b["type"].as_str()));
        }
    }
    tidy(&mut part);
    part
}

/// Removes what says nothing. Answers whether nothing is left.
fn tidy(value: &mut Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => {
            fields.retain(|_, value| !tidy(value));
            fields.is_empty()
        }
        Value::Array(items) => {
            items.iter_mut().for_each(|item| {
                tidy(item);
            });
            items.is_empty()
        }
        _ => false,
    }
}

/// The fields, by their paths, that were sent and are not in the answer: the server does not know them, and asking
/// again is of no use. `sent` and `answer` are of [`our_part`].
pub fn dropped(sent: &Value, answer: &Value) -> Vec<String> {
    let mut found = Vec::new();
    missing(sent, answer, "", &mut found);
    found
}

fn missing(sent: &Value, answer: &Value, path: &str, found: &mut Vec<String>) {
    match (sent, answer) {
        (Value::Object(sent), Value::Object(answer)) => {
            for (name, value) in sent {
                let path = format!("{path}.{name}");
                match answer.get(name) {
                    Some(there) => missing(value, there, &path, found),
                    None => found.push(path),
                }
            }
        }
        (Value::Array(sent), Value::Array(answer)) if sent.len() == answer.len() => {
            for (sent, answer) in sent.iter().zip(answer) {
                missing(sent, answer, path, found);
            }
        }
        _ => {}
    }
}

/// Takes the fields of [`dropped`] out.
pub fn without(part: &mut Value, dropped: &std::collections::BTreeSet<String>) {
    fn cut(value: &mut Value, path: &str, dropped: &std::collections::BTreeSet<String>) {
        match value {
            Value::Object(fields) => {
                fields.retain(|name, _| !dropped.contains(&format!("{path}.{name}")));
                for (name, value) in fields {
                    cut(value, &format!("{path}.{name}"), dropped);
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| cut(item, path, dropped)),
            _ => {}
        }
    }
    if !dropped.is_empty() {
        cut(part, "", dropped);
        tidy(part);
    }
}

/// The strategic merge patch that makes `there` into `wanted`, both of [`our_part`]; `None` where there is nothing to
/// change.
pub fn status_patch(there: &Value, wanted: &Value) -> Option<Value> {
    let empty = Map::new();
    let (there, wanted) = (there.as_object().unwrap_or(&empty), wanted.as_object().unwrap_or(&empty));
    let mut patch = Map::new();
    for field in FIELDS {
        let (old, new) = (there.get(field), wanted.get(field));
        if old == new {
            continue;
        }
        let key = BY_KEY.iter().find(|(name, _)| *name == field).map(|(_, key)| *key);
        let change = match (key, new) {
            (Some(key), _) => by_key(key, list(old), list(new)),
            (None, Some(new)) => new.clone(),
            (None, None) => Value::Null,
        };
        patch.insert(field.to_owned(), change);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Whether all that a patch `rest` would change was in the patch `sent` too: what still differs after that was written
/// is what the server did not take, and not what somebody else has written meanwhile.
pub fn was_sent(rest: &Value, sent: &Value) -> bool {
    let fields = rest.as_object().into_iter().flatten();
    fields.into_iter().all(|(field, change)| {
        let Some(sent) = sent.get(field) else { return false };
        match BY_KEY.iter().find(|(name, _)| name == field) {
            Some((_, key)) => list(Some(change))
                .iter()
                .all(|entry| list(Some(sent)).iter().any(|other| other[key] == entry[key])),
            None => true,
        }
    })
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// A patch of a list by key: entries that are new or different, whole, and deletions of those that are gone.
fn by_key(key: &str, old: &[Value], new: &[Value]) -> Value {
    let entry = |list: &[Value], of: &Value| list.iter().find(|other| other[key] == of[key]).cloned();
    let mut changes: Vec<Value> = Vec::new();
    for new in new {
        match entry(old, new) {
            Some(old) if old == *new => {}
            // Entries are merged field by field: what it had and has no more is to be named.
            Some(Value::Object(old)) => {
                let mut new = new.clone();
                for name in old.keys().filter(|name| new.get(*name).is_none()).cloned().collect::<Vec<_>>() {
                    new[name] = Value::Null;
                }
                changes.push(new);
            }
            _ => changes.push(new.clone()),
        }
    }
    let gone = old.iter().filter(|old| entry(new, old).is_none());
    changes.extend(gone.map(|old| json!({ key: old[key], "$patch": "delete" })));
    // The first address is the pod's own: their order counts.
    if key == "ip" {
        let order: Vec<&Value> = new.iter().map(|new| &new[key]).collect();
        if !old.is_empty() && !order.is_empty() && old.iter().map(|o| &o[key]).collect::<Vec<_>>() != order {
            let mut replaced = new.to_vec();
            replaced.push(json!({ "$patch": "replace" }));
            return Value::Array(replaced);
        }
    }
    Value::Array(changes)
}
