//! Pod.

mod annotations;
mod containers;
pub(crate) mod defaults;
pub(crate) mod diff;
mod env;
pub(crate) mod ephemeral_containers;
pub(crate) mod internal_form;
mod probes;
mod qos;
pub(crate) mod resize;
pub(crate) mod resources;
mod scheduling;
mod security;
mod spec;
mod status;
mod storage_form;
mod table;
pub(crate) mod template;
mod update;
mod volume_mounts;
pub(crate) mod volumes;
pub(crate) mod warnings;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodSpec;
use serde_json::{Value, json};
use wherry_machinery::field::{Error, ErrorList, Path};

pub(crate) use self::scheduling::{node_selector, tolerations};
use self::spec::Context;
use super::json::{carry_over, flag, integer, list, map_at, set, text, typed};
use crate::registry::strategy::{Deletion, Part, RequestFacts, Resource, Scope, Strategy};

/// `pods`.
pub(crate) struct PodStrategy;

impl Strategy for PodStrategy {
    fn resource(&self) -> Resource {
        Resource { group: "", version: "v1", name: "pods", kind: "Pod", scope: Scope::Namespaced }
    }

    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        defaults::default_pod(object);
    }

    fn prepare_for_create(&self, _facts: &RequestFacts, object: &mut Value) {
        let class = qos::class(object.get("spec").unwrap_or(&Value::Null));
        set(object, "status", json!({"phase": "Pending", "qosClass": class}));
        if !list(object, "/spec/schedulingGates").is_empty()
            && let Some(status) = map_at(object, "status")
        {
            let condition = json!([{
                "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }]);
            set(status, "conditions", condition);
        }
    }

    fn prepare_for_update(&self, _facts: &RequestFacts, part: Part, object: &mut Value, old: &Value) {
        match part {
            Part::Main => carry_over(object, "status", old),
            Part::Status => {
                carry_over(object, "spec", old);
                complete_status(object, old);
            }
        }
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let path = Path::new("spec");
        let spec: PodSpec = match typed(object, &path) {
            Ok(spec) => spec,
            Err(errors) => return errors,
        };
        let mut errors = validate_pod(&spec, object);
        if !spec.ephemeral_containers.as_deref().unwrap_or_default().is_empty() {
            errors.push(Error::forbidden(&path.child("ephemeralContainers"), "cannot be set on create"));
        }
        let is_gated = !spec.scheduling_gates.as_deref().unwrap_or_default().is_empty();
        if is_gated && !text(object, "/spec/nodeName").is_empty() {
            let detail = "cannot be set until all schedulingGates have been cleared";
            errors.push(Error::forbidden(&path.child("nodeName"), detail));
        }
        errors.extend(annotations::match_fields(&update::annotations_of(object), &spec, &path));
        errors
    }

    fn validate_update(&self, _facts: &RequestFacts, part: Part, object: &Value, old: &Value) -> ErrorList {
        if part == Part::Status {
            return status::validate(object, old);
        }
        let mut errors = match typed(object, &Path::new("spec")) {
            Ok(spec) => validate_pod(&spec, object),
            Err(errors) => return errors,
        };
        errors.extend(update::validate(object, old));
        errors
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        warnings::of_pod(object, old)
    }

    fn selectable_fields(&self, object: &Value) -> BTreeMap<&'static str, String> {
        let of = |field: &'static str| {
            let pointer = format!("/{}", field.replace('.', "/"));
            (field, text(object, &pointer).to_owned())
        };
        let mut fields: BTreeMap<_, _> = SELECTABLE.iter().copied().map(of).collect();
        fields.insert("spec.hostNetwork", flag(object, "/spec/hostNetwork").to_string());
        if let Some(first) = list(object, "/status/podIPs").first() {
            fields.insert("status.podIP", text(first, "/ip").to_owned());
        }
        fields
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        SELECTABLE
    }

    /// A pod that no node runs, and one that has ended, can go at once.
    fn deletion(&self, object: &Value, requested: Option<u64>) -> Deletion {
        let own = integer(object, "/spec/terminationGracePeriodSeconds");
        let wanted = requested.unwrap_or_else(|| u64::try_from(own).unwrap_or(1));
        let unscheduled = text(object, "/spec/nodeName").is_empty();
        let ended = matches!(text(object, "/status/phase"), "Failed" | "Succeeded");
        Deletion::Graceful { grace_period_seconds: if unscheduled || ended { 0 } else { wanted } }
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        Some(table::cells(object, now_unix_seconds))
    }
}

const SELECTABLE: &[&str] = &[
    "spec.hostNetwork",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.nominatedNodeName",
    "status.phase",
    "status.podIP",
];

/// What is wrong with a pod at any time of its life, metadata excepted.
fn validate_pod(spec: &PodSpec, object: &Value) -> ErrorList {
    let path = Path::new("spec");
    let annotations_path = Path::new("metadata").child("annotations");
    let mut errors = annotations::validate(&update::annotations_of(object), spec, &annotations_path);
    errors.extend(spec::validate(spec, &Context::pod(text(object, "/metadata/name")), &path));
    if spec.service_account_name.as_deref().unwrap_or_default().is_empty() {
        errors.extend(tokens_without_account(spec, &path));
    }
    for (i, container) in spec.containers.iter().enumerate() {
        errors.extend(containers::only_for_pod(container, &path.child("containers").index(i)));
    }
    for (i, container) in spec.init_containers.iter().flatten().enumerate() {
        errors.extend(containers::only_for_pod(container, &path.child("initContainers").index(i)));
    }
    errors
}

/// A pod without ServiceAccount has no tokens.
fn tokens_without_account(spec: &PodSpec, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        let sources = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        for (j, _) in sources.enumerate().filter(|(_, source)| source.service_account_token.is_some()) {
            let path = path.child("volumes").index(i).child("projected").child("sources").index(j);
            let detail = "must not be specified when serviceAccountName is not set";
            errors.push(Error::forbidden(&path.child("serviceAccountToken"), detail));
        }
    }
    errors
}

/// `podIP` is the first of `podIPs` and `hostIP` the first of `hostIPs`; a node may report either. The quality class stays.
fn complete_status(object: &mut Value, old: &Value) {
    let Some(status) = map_at(object, "status") else { return };
    for (one, many) in [("podIP", "podIPs"), ("hostIP", "hostIPs")] {
        let single = text(status, &format!("/{one}")).to_owned();
        let first = list(status, &format!("/{many}")).first().map(|entry| text(entry, "/ip").to_owned());
        match first {
            None if !single.is_empty() => set(status, many, json!([{"ip": single}])),
            Some(first) if single.is_empty() => set(status, one, first),
            Some(first) if first != single && one == "podIP" => set(status, many, json!([{"ip": single}])),
            _ => {}
        }
    }
    if text(status, "/qosClass").is_empty()
        && let Some(class) = old.pointer("/status/qosClass")
    {
        set(status, "qosClass", class.clone());
    }
}

/// Everything wrong with a change through `pods/ephemeralcontainers`.
pub(crate) fn validate_ephemeral_containers(object: &Value, old: &Value) -> ErrorList {
    through_subresource(object, old, ephemeral_containers::validate)
}

/// Everything wrong with a change through `pods/resize`.
pub(crate) fn validate_resize(object: &Value, old: &Value) -> ErrorList {
    through_subresource(object, old, resize::validate)
}

fn through_subresource(object: &Value, old: &Value, check: fn(&Value, &Value) -> ErrorList) -> ErrorList {
    let path = Path::new("metadata").child("annotations");
    let mut errors = match typed(object, &Path::new("spec")) {
        Ok(spec) => validate_pod(&spec, object),
        Err(errors) => return errors,
    };
    errors.extend(annotations::validate_update(
        &update::annotations_of(object),
        &update::annotations_of(old),
        &path,
    ));
    errors.extend(check(object, old));
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_that_run_nowhere_or_have_ended_go_at_once() {
        let table = [
            (
                json!({"spec": {"terminationGracePeriodSeconds": 30}}),
                None,
                Deletion::Graceful { grace_period_seconds: 0 },
            ),
            (
                json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}}),
                None,
                Deletion::Graceful { grace_period_seconds: 30 },
            ),
            (
                json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}}),
                Some(5),
                Deletion::Graceful { grace_period_seconds: 5 },
            ),
            (
                json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}}),
                Some(0),
                Deletion::Graceful { grace_period_seconds: 0 },
            ),
            (
                json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 30}, "status": {"phase": "Succeeded"}}),
                None,
                Deletion::Graceful { grace_period_seconds: 0 },
            ),
            (
                json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": -3}}),
                None,
                Deletion::Graceful { grace_period_seconds: 1 },
            ),
        ];
        for (pod, requested, expected) in table {
            assert_eq!(PodStrategy.deletion(&pod, requested), expected, "{pod} {requested:?}");
        }
    }

    #[test]
    fn a_new_pod_is_pending_with_its_class() {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "x"}]}, "status": {"phase": "Running"}});
        PodStrategy.default(&mut pod);
        PodStrategy.prepare_for_create(&crate::kinds::testing::facts(), &mut pod);
        assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
    }
}
