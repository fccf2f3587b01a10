//! Kubernetes' strategic merge patch, as far as patches of a pod's status go.

use serde_json::Value;

/// A server that merges a strategic patch as Kubernetes does, as far as these patches go.
pub(crate) fn apply(there: &Value, patch: &Value) -> Value {
    let mut result = there.as_object().cloned().unwrap_or_default();
    for (name, change) in patch.as_object().unwrap() {
        let key = match name.as_str() {
            "conditions" => Some("type"),
            "podIPs" | "hostIPs" => Some("ip"),
            _ => None,
        };
        match (key.filter(|_| result.contains_key(name)), change) {
            (_, Value::Null) => {
                result.remove(name);
            }
            (None, change) => {
                result.insert(name.clone(), change.clone());
            }
            (Some(key), change) => {
                let changes = change.as_array().unwrap();
                let replaces = changes.iter().any(|c| c["$patch"] == "replace");
                let mut list = if replaces { vec![] } else { result[name].as_array().unwrap().clone() };
                for change in changes.iter().filter(|c| c["$patch"] != "replace") {
                    let place = list.iter().position(|old| old[key] == change[key]);
                    match (place, change["$patch"] == "delete") {
                        (Some(place), true) => {
                            list.remove(place);
                        }
                        (Some(place), false) => {
                            for (field, value) in change.as_object().unwrap() {
                                list[place][field] = value.clone();
                            }
                        }
                        (None, _) => list.push(change.clone()),
                    }
                }
                result.insert(name.clone(), Value::Array(list));
            }
        }
    }
    Value::Object(result)
}
