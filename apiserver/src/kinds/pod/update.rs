//! What may change in a pod. Source: `ValidatePodUpdate` of `k8s.io/kubernetes/pkg/apis/core/validation`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::names;

use super::scheduling;
use super::{annotations, diff, internal_form};
use crate::kinds::json::{carry_over, is_absent, list, map_at, remove, set, text, typed};

/// The list of what may change, as Kubernetes words it.
const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// The annotations of a pod.
pub(crate) fn annotations_of(pod: &Value) -> BTreeMap<String, String> {
    let map = pod.pointer("/metadata/annotations").and_then(Value::as_object);
    let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    map.into_iter().flatten().filter_map(text).collect()
}

/// Everything wrong with a change of a pod, beside what is wrong with the pod itself.
pub(crate) fn validate(pod: &Value, old: &Value) -> ErrorList {
    let path = Path::new("spec");
    let nothing = Value::Null;
    let (spec, old_spec) = (pod.get("spec").unwrap_or(&nothing), old.get("spec").unwrap_or(&nothing));
    let annotations_path = Path::new("metadata").child("annotations");
    let mut errors =
        annotations::validate_update(&annotations_of(pod), &annotations_of(old), &annotations_path);
    for field in ["containers", "initContainers"] {
        let pointer = format!("/{field}");
        let (new, old) = (list(spec, &pointer), list(old_spec, &pointer));
        let path = path.child(field);
        if new.len() != old.len() {
            errors.push(Error::forbidden(&path, "pod updates may not add or remove containers"));
            return errors;
        }
        for (i, container) in new.iter().enumerate() {
            let image = text(container, "/image");
            let path = path.index(i).child("image");
            if image.is_empty() {
                errors.push(Error::required(&path, ""));
            }
            if image.trim() != image {
                errors.push(Error::invalid(&path, image, "must not have leading or trailing whitespace"));
            }
        }
    }
    match active_deadline(spec, old_spec, &path.child("activeDeadlineSeconds")) {
        Ok(found) => errors.extend(found),
        Err(found) => {
            errors.extend(found);
            return errors;
        }
    }
    errors.extend(added_tolerations(spec, old_spec, &path.child("tolerations")));
    errors.extend(removed_gates(spec, old_spec, &path.child("schedulingGates")));
    if internal_form::equal("PodSpec", spec, old_spec) {
        return errors;
    }
    let mut fixed = with_old_values(spec, old_spec);
    if !list(old_spec, "/schedulingGates").is_empty() {
        errors.extend(gated(&mut fixed, old_spec, &path));
    }
    let (old_text, new_text) =
        (internal_form::print_lines("PodSpec", old_spec), internal_form::print_lines("PodSpec", &fixed));
    if old_text != new_text {
        let difference = diff::unified(&old_text, &new_text);
        let detail = format!("pod updates may not change fields other than {UPDATABLE}\n{difference}");
        errors.push(Error::forbidden(&path, &detail));
    }
    errors
}

/// The deadline may be set once and then shortened. `Err` ends the validation.
fn active_deadline(spec: &Value, old_spec: &Value, path: &Path) -> Result<ErrorList, ErrorList> {
    let seconds = |spec: &Value| spec.get("activeDeadlineSeconds").and_then(Value::as_i64);
    match (seconds(spec), seconds(old_spec)) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            Err(vec![Error::invalid(path, new, &names::inclusive_range_error(0, i64::from(i32::MAX)))])
        }
        (Some(new), Some(old)) if old < new => {
            Err(vec![Error::invalid(path, new, "must be less than or equal to previous value")])
        }
        (None, Some(_)) => Ok(vec![Error::invalid(
            path,
            Value::Null,
            "must not update from a positive integer to nil value",
        )]),
        _ => Ok(ErrorList::new()),
    }
}

fn added_tolerations(spec: &Value, old_spec: &Value, path: &Path) -> ErrorList {
    let without_seconds = |toleration: &Value| {
        let mut toleration = toleration.clone();
        remove(&mut toleration, "tolerationSeconds");
        internal_form::print("Toleration", &toleration)
    };
    let new: Vec<String> = list(spec, "/tolerations").iter().map(without_seconds).collect();
    if list(old_spec, "/tolerations").iter().any(|old| !new.contains(&without_seconds(old))) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        return vec![Error::forbidden(path, detail)];
    }
    match typed::<Vec<_>>(spec, &Path::new("tolerations")) {
        Ok(tolerations) => scheduling::tolerations(&tolerations, path),
        Err(errors) => errors,
    }
}

fn removed_gates(spec: &Value, old_spec: &Value, path: &Path) -> ErrorList {
    let names = |spec: &Value| -> Vec<String> {
        list(spec, "/schedulingGates").iter().map(|gate| text(gate, "/name").to_owned()).collect()
    };
    let old = names(old_spec);
    let is_new = |(_, name): &(usize, &String)| !old.contains(name);
    let error = |(i, name): (usize, &String)| {
        let detail = format!("only deletion is allowed, but found new scheduling gate '{name}'");
        Error::forbidden(&path.index(i).child("name"), &detail)
    };
    names(spec).iter().enumerate().filter(is_new).map(error).collect()
}

/// The new spec with the old values of everything that may change.
fn with_old_values(spec: &Value, old_spec: &Value) -> Value {
    let mut fixed = spec.clone();
    for field in ["containers", "initContainers"] {
        let old = list(old_spec, &format!("/{field}"));
        let containers = fixed.get_mut(field).and_then(Value::as_array_mut);
        for (container, old) in containers.into_iter().flatten().zip(old) {
            carry_over(container, "image", old);
        }
    }
    for field in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        carry_over(&mut fixed, field, old_spec);
    }
    let grace = |spec: &Value| spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    if grace(old_spec).is_some_and(|seconds| seconds < 0) && grace(&fixed) == Some(1) {
        carry_over(&mut fixed, "terminationGracePeriodSeconds", old_spec);
    }
    fixed
}

/// A pod that is not yet to be scheduled may be narrowed down to fewer nodes.
fn gated(fixed: &mut Value, old_spec: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let entries =
        |spec: &Value| spec.get("nodeSelector").and_then(Value::as_object).cloned().unwrap_or_default();
    let (new, old) = (entries(fixed), entries(old_spec));
    if old.iter().any(|(key, value)| new.get(key) != Some(value)) {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.push(Error::invalid(&path.child("nodeSelector"), Value::Object(new), detail));
    }
    carry_over(fixed, "nodeSelector", old_spec);

    let node_affinity = |spec: &Value| spec.pointer("/affinity/nodeAffinity").cloned().unwrap_or(Value::Null);
    let (new, old) = (node_affinity(fixed), node_affinity(old_spec));
    if internal_form::equal("NodeAffinity", &new, &old) && new.is_null() == old.is_null() {
        return errors;
    }
    errors.extend(narrowed_affinity(&new, &old, &path.child("affinity").child("nodeAffinity")));
    let had_affinity = !is_absent(old_spec.get("affinity"));
    if let Some(affinity) = map_at(fixed, "affinity") {
        if old.is_null() {
            remove(affinity, "nodeAffinity");
        } else {
            set(affinity, "nodeAffinity", old);
        }
        if !had_affinity && affinity.as_object().is_some_and(serde_json::Map::is_empty) {
            remove(fixed, "affinity");
        }
    }
    errors
}

fn narrowed_affinity(new: &Value, old: &Value, path: &Path) -> ErrorList {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    let terms = |affinity: &Value| list(affinity, &format!("/{REQUIRED}/nodeSelectorTerms")).to_vec();
    let (new, old) = (terms(new), terms(old));
    let path = path.child(REQUIRED).child("nodeSelectorTerms");
    if !old.is_empty() && old.len() != new.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return vec![Error::invalid(&path, json!(new), detail)];
    }
    let extends = |new: &Value, old: &Value| {
        ["/matchExpressions", "/matchFields"].iter().all(|part| list(new, part).starts_with(list(old, part)))
            && (internal_form::equal("NodeSelectorTerm", old, new)
                || !list(old, "/matchExpressions").is_empty()
                || !list(old, "/matchFields").is_empty())
    };
    let narrowed = old.iter().zip(&new).enumerate().filter(|(_, (old, new))| !extends(new, old));
    let error = |(i, (_, new)): (usize, (&Value, &Value))| {
        let detail = "only additions are allowed (no mutations or deletions)";
        Error::invalid(&path.index(i), new.clone(), detail)
    };
    narrowed.map(error).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::messages;

    fn pod(change: Value) -> Value {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "main", "image": "reg.example/app:1"}],
            "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}],
        }});
        for (key, value) in change.as_object().into_iter().flatten() {
            pod["spec"][key] = value.clone();
        }
        pod
    }

    #[test]
    fn image_deadline_and_further_tolerations_may_change() {
        let old = pod(json!({"activeDeadlineSeconds": 100}));
        let more = json!([
            {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}, {"key": "b", "operator": "Exists"}
        ]);
        let table = [
            (json!({"activeDeadlineSeconds": 100, "containers": [{"name": "main", "image": "new"}]}), vec![]),
            (json!({"activeDeadlineSeconds": 50}), vec![]),
            (json!({"activeDeadlineSeconds": 100, "tolerations": more}), vec![]),
            (
                json!({"activeDeadlineSeconds": 200}),
                vec![
                    "spec.activeDeadlineSeconds: Invalid value: 200: must be less than or equal to previous value",
                ],
            ),
            (
                json!({"activeDeadlineSeconds": 100, "tolerations": []}),
                vec![
                    "spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
                ],
            ),
            (
                json!({"activeDeadlineSeconds": 100, "containers": []}),
                vec!["spec.containers: Forbidden: pod updates may not add or remove containers"],
            ),
        ];
        for (change, expected) in table {
            assert_eq!(messages(&validate(&pod(change), &old)), expected);
        }
    }

    #[test]
    fn any_other_change_is_refused_with_the_difference() {
        let found = messages(&validate(&pod(json!({"hostname": "h"})), &pod(json!({}))));
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with(
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)\n@@ -"
        ));
        assert!(found[0].contains("\n- \"Hostname\": \"\",\n+ \"Hostname\": \"h\",\n"), "{}", found[0]);
    }

    #[test]
    fn a_gated_pod_may_be_narrowed() {
        let gates = json!([{"name": "a"}]);
        let old = pod(json!({"schedulingGates": gates}));
        let narrowed = pod(json!({"schedulingGates": gates, "nodeSelector": {"zone": "x"}}));
        assert!(validate(&narrowed, &old).is_empty());
        let more = pod(json!({"schedulingGates": [{"name": "a"}, {"name": "b"}]}));
        assert_eq!(
            messages(&validate(&more, &old)),
            [
                "spec.schedulingGates[1].name: Forbidden: only deletion is allowed, but found new scheduling gate 'b'"
            ]
        );
        assert!(!validate(&narrowed, &pod(json!({}))).is_empty());
    }
}
