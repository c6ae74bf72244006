//! `pods/resize`: more or less CPU and memory for the containers of a pod that runs.

use serde_json::{Map, Value};
use wherry_machinery::field::{Error, ErrorList, Path};

use super::resources::parsed;
use super::{annotations, internal_form, qos, update};
use crate::kinds::json::{carry_over, each, list, map_at, set, text};

/// The resources that can be resized.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// Take nothing but the containers' resources and resize policies from what a client sent.
pub(crate) fn prepare(pod: &mut Value, old: &Value) {
    let Some(sent) = pod.get("spec").cloned() else { return };
    carry_over(pod, "spec", old);
    carry_over(pod, "status", old);
    let Some(spec) = map_at(pod, "spec") else { return };
    for field in ["containers", "initContainers"] {
        let sent = list(&sent, &format!("/{field}")).to_vec();
        each(spec, field, |container| {
            if let Some(wanted) = sent.iter().find(|wanted| text(wanted, "/name") == text(container, "/name"))
            {
                for part in ["resources", "resizePolicy"] {
                    carry_over(container, part, wanted);
                }
            }
        });
    }
}

/// Everything wrong with a resize, beside what is wrong with the pod itself.
pub(crate) fn validate(pod: &Value, old: &Value) -> ErrorList {
    let path = Path::new("spec");
    let whole = |detail: &str| vec![Error::forbidden(&Path::new(""), detail)];
    if update::annotations_of(old).contains_key(annotations::MIRROR) {
        return whole("static pods cannot be resized");
    }
    if text(old, "/spec/os/name") == "windows" {
        return whole("windows pods cannot be resized");
    }
    let nothing = Value::Null;
    let (spec, old_spec) = (pod.get("spec").unwrap_or(&nothing), old.get("spec").unwrap_or(&nothing));
    let mut errors = ErrorList::new();
    if qos::class(old_spec) != qos::class(spec) {
        let detail = "Pod QOS Class may not change as a result of resizing";
        errors.push(Error::invalid(&path, text(pod, "/status/qosClass"), detail));
    }
    for field in ["initContainers", "containers"] {
        let (new, old) = (list(spec, &format!("/{field}")), list(old_spec, &format!("/{field}")));
        for (i, (new, old)) in new.iter().zip(old).enumerate() {
            let is_sidecar = text(old, "/restartPolicy") == "Always";
            if field == "containers" || is_sidecar {
                errors.extend(removed(new, old, &path.child(field).index(i).child("resources")));
            }
            let detail = match (field, is_sidecar) {
                ("containers", _) => "only cpu and memory resources are mutable",
                (_, true) => "only cpu and memory resources for sidecar containers are mutable",
                (_, false) => "resources for non-sidecar init containers are immutable",
            };
            let compared =
                if field == "containers" || is_sidecar { with_old_amounts(new, old) } else { new.clone() };
            if !internal_form::equal("Container", &compared, old) {
                errors.push(Error::forbidden(&path, detail));
            }
        }
    }
    errors
}

fn amounts<'a>(container: &'a Value, field: &str) -> Option<&'a Map<String, Value>> {
    container.get("resources")?.get(field)?.as_object()
}

/// Requests and limits cannot be taken away, nor memory limits lowered in place.
fn removed(new: &Value, old: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for field in ["requests", "limits"] {
        let missing = |name: &String| amounts(new, field).is_none_or(|new| !new.contains_key(name));
        if amounts(old, field).is_some_and(|old| old.keys().any(missing)) {
            errors.push(Error::forbidden(&path.child(field), &format!("resource {field} cannot be removed")));
        }
    }
    errors
}

/// The new container with the old CPU and memory.
fn with_old_amounts(new: &Value, old: &Value) -> Value {
    let mut container = new.clone();
    let mut resources = Map::new();
    for field in ["limits", "requests"] {
        let Some(before) = amounts(old, field) else { continue };
        let mut after = amounts(new, field).cloned().unwrap_or_default();
        for name in RESIZABLE {
            match before.get(name) {
                Some(amount) => after.insert(name.to_owned(), amount.clone()),
                None => after.remove(name),
            };
        }
        for (name, amount) in &mut after {
            let same = before.get(name).filter(|old| same_amount(old, amount));
            if let Some(same) = same {
                *amount = same.clone();
            }
        }
        resources.insert(field.to_owned(), Value::Object(after));
    }
    set(&mut container, "resources", Value::Object(resources));
    container
}

fn same_amount(a: &Value, b: &Value) -> bool {
    parsed(a.as_str().unwrap_or_default()) == parsed(b.as_str().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::messages;

    fn pod(requests: Value) -> Value {
        json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": {
            "requests": requests, "limits": {"cpu": "200m", "memory": "64Mi"}}}]}})
    }

    #[test]
    fn only_amounts_of_cpu_and_memory_change() {
        let old = pod(json!({"cpu": "100m", "memory": "64Mi"}));
        let mut sent = pod(json!({"cpu": "150m", "memory": "64Mi"}));
        sent["spec"]["containers"][0]["image"] = "other".into();
        prepare(&mut sent, &old);
        assert_eq!(sent, pod(json!({"cpu": "150m", "memory": "64Mi"})));
        assert!(validate(&sent, &old).is_empty());
    }

    #[test]
    fn amounts_cannot_be_removed_nor_the_class_changed() {
        let old = pod(json!({"cpu": "100m", "memory": "64Mi"}));
        assert_eq!(
            messages(&validate(&pod(json!({"cpu": "100m"})), &old)),
            ["spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed"]
        );
        let guaranteed = pod(json!({"cpu": "200m", "memory": "64Mi"}));
        assert_eq!(
            messages(&validate(&guaranteed, &old)),
            [r#"spec: Invalid value: "": Pod QOS Class may not change as a result of resizing"#]
        );
    }
}
