//! From one status to the next as a strategic merge patch, and whether two say the same.
//!
//! The patch has only what differs, and never a list of others' things as a whole: what somebody else writes at the
//! same moment stays. A field that an old server does not know is dropped by it without an error.

use k8s_openapi::api::core::v1::NodeStatus;
use serde_json::{Map, Value, json};

use super::status::CONDITIONS;

/// Fields that are replaced as they are, or merged key by key where they are mappings.
const FIELDS: [&str; 7] =
    ["capacity", "allocatable", "nodeInfo", "daemonEndpoints", "features", "images", "runtimeHandlers"];

fn fields(status: &NodeStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// What makes the server's status the wanted one: a patch of the Node. Our conditions are always in it, as each tells
/// when it was last looked at.
pub fn status_patch(current: &NodeStatus, wanted: &NodeStatus) -> Value {
    let (current, wanted) = (fields(current), fields(wanted));
    let mut patch = Map::new();
    for name in FIELDS {
        if let Some(change) = change(current.get(name), wanted.get(name)) {
            patch.insert(name.to_owned(), change);
        }
    }
    let (old, new) = (current.get("addresses"), wanted.get("addresses"));
    if old != new {
        // They are merged by their types, of which several may be the same; so the list is replaced as kubelet does.
        let mut all = new.and_then(Value::as_array).cloned().unwrap_or_default();
        all.push(json!({"$patch": "replace"}));
        patch.insert("addresses".to_owned(), all.into());
    }
    let ours = |condition: &&Value| CONDITIONS.iter().any(|type_| condition["type"] == *type_);
    let conditions = wanted.get("conditions").and_then(Value::as_array);
    let conditions: Vec<Value> = conditions.into_iter().flatten().filter(ours).cloned().collect();
    patch.insert("conditions".to_owned(), conditions.into());
    json!({ "status": patch })
}

/// A merge patch from one value to the other; `None` where they are the same.
fn change(old: Option<&Value>, new: Option<&Value>) -> Option<Value> {
    match (old, new) {
        (old, new) if old == new => None,
        (_, None) => Some(Value::Null),
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null));
            let changed =
                new.iter().filter_map(|(key, value)| Some((key.clone(), change(old.get(key), Some(value))?)));
            Some(gone.chain(changed).collect::<Map<_, _>>().into())
        }
        (_, Some(new)) => Some(new.clone()),
    }
}

/// What a status says that is ours, without times: two that are equal in it need no patch between them.
pub fn content(status: &NodeStatus) -> NodeStatus {
    let mut content = NodeStatus {
        volumes_attached: None,
        volumes_in_use: None,
        config: None,
        phase: None,
        declared_features: None,
        ..status.clone()
    };
    if let Some(conditions) = &mut content.conditions {
        conditions.retain(|condition| CONDITIONS.contains(&condition.type_.as_str()));
        conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        for condition in conditions {
            condition.last_heartbeat_time = None;
            condition.last_transition_time = None;
        }
    }
    content
}
