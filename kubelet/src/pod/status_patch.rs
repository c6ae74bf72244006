//! The difference of two statuses as a strategic merge patch.

use serde_json::{Map, Value, json};

/// Fields of the status that the kubelet writes whole.
const OWN_FIELDS: [&str; 13] = [
    "phase",
    "reason",
    "message",
    "hostIP",
    "hostIPs",
    "podIP",
    "podIPs",
    "startTime",
    "qosClass",
    "observedGeneration",
    "initContainerStatuses",
    "containerStatuses",
    "ephemeralContainerStatuses",
];

/// Fields that are merged by key in a strategic merge patch, and are to be replaced.
const MERGED_LISTS: [&str; 2] = ["podIPs", "hostIPs"];

/// The patch that makes `old` into `new`, bound to the pod's uid; `None` when they say the same.
///
/// Conditions that `new` does not name (those of readiness gates) are left alone.
pub fn status_patch(uid: &str, old: &Value, new: &Value) -> Option<Value> {
    let mut patch = Map::new();
    for field in OWN_FIELDS {
        match (old.get(field), new.get(field)) {
            (before, Some(after)) if before != Some(after) => {
                let mut after = after.clone();
                if MERGED_LISTS.contains(&field)
                    && let Value::Array(items) = &mut after
                {
                    items.insert(0, json!({ "$patch": "replace" }));
                }
                patch.insert(field.to_owned(), after);
            }
            (Some(before), None) if !before.is_null() && field != "ephemeralContainerStatuses" => {
                patch.insert(field.to_owned(), Value::Null);
            }
            _ => {}
        }
    }
    let empty = Vec::new();
    let list = |value: &Value| value.get("conditions").and_then(Value::as_array).unwrap_or(&empty).clone();
    let before = list(old);
    let changed: Vec<Value> = list(new)
        .into_iter()
        .filter_map(|condition| {
            let known = before.iter().find(|c| c.get("type") == condition.get("type"));
            if known == Some(&condition) {
                return None;
            }
            let mut condition = condition;
            if let (Some(Value::Object(known)), Some(object)) = (known, condition.as_object_mut()) {
                for field in ["reason", "message"] {
                    if known.contains_key(field) && !object.contains_key(field) {
                        object.insert(field.to_owned(), Value::Null);
                    }
                }
            }
            Some(condition)
        })
        .collect();
    if !changed.is_empty() {
        patch.insert("conditions".to_owned(), Value::Array(changed));
    }
    (!patch.is_empty()).then(|| json!({ "metadata": { "uid": uid }, "status": patch }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_is_sent_and_what_is_gone_is_null() {
        let old = json!({
            "phase": "Pending", "reason": "X", "qosClass": "BestEffort",
            "conditions": [{"type": "Ready", "status": "False", "reason": "R"}, {"type": "my/gate", "status": "True"}],
        });
        let new = json!({
            "phase": "Running", "qosClass": "BestEffort", "podIPs": [{"ip": "127.64.0.2"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        });
        assert_eq!(
            status_patch("u", &old, &new).unwrap(),
            json!({"metadata": {"uid": "u"}, "status": {
                "phase": "Running", "reason": null,
                "podIPs": [{"$patch": "replace"}, {"ip": "127.64.0.2"}],
                "conditions": [{"type": "Ready", "status": "True", "reason": null}],
            }})
        );
        assert_eq!(status_patch("u", &new, &new), None);
    }
}
