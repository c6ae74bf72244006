//! ReplicaSet.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::ReplicaSetSpec;
use serde_json::{Value, json};
use wherry_machinery::field::{ErrorList, Path};

use super::fields::non_negative;
use super::json::{default_value, integer, is_absent, map_at, set, typed};
use super::{fields, table, workload};
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// `replicasets`.
pub(crate) struct ReplicaSetStrategy;

impl Strategy for ReplicaSetStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "apps",
            version: "v1",
            name: "replicasets",
            kind: "ReplicaSet",
            scope: Scope::Namespaced,
        }
    }

    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let Some(spec) = map_at(object, "spec") else { return };
        default_value(spec, "replicas", 1);
        workload::default_template(spec);
        if let Some(status) = map_at(object, "status") {
            default_value(status, "replicas", 0);
        }
    }

    fn prepare_for_create(&self, _facts: &RequestFacts, object: &mut Value) {
        set(object, "status", json!({"replicas": 0}));
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let path = Path::new("spec");
        let spec: ReplicaSetSpec = match typed(object, &path) {
            Ok(spec) => spec,
            Err(errors) => return errors,
        };
        let mut errors = non_negative(i64::from(spec.replicas.unwrap_or_default()), &path.child("replicas"));
        let seconds = i64::from(spec.min_ready_seconds.unwrap_or_default());
        errors.extend(non_negative(seconds, &path.child("minReadySeconds")));
        let selector = (!is_absent(object.pointer("/spec/selector"))).then_some(&spec.selector);
        let template = spec.template.unwrap_or_default();
        errors.extend(workload::selector_and_template(selector, &template, "ReplicaSet", &path));
        errors
    }

    fn validate_update(&self, facts: &RequestFacts, part: Part, object: &Value, old: &Value) -> ErrorList {
        if part == Part::Status {
            let counts = [
                "replicas",
                "fullyLabeledReplicas",
                "readyReplicas",
                "availableReplicas",
                "terminatingReplicas",
                "observedGeneration",
            ];
            return workload::status_counts(
                object,
                &counts,
                &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
            );
        }
        let mut errors = self.validate(facts, object);
        let selector = |object: &Value| object.pointer("/spec/selector").cloned();
        let path = Path::new("spec").child("selector");
        errors.extend(fields::immutable(selector(object).as_ref(), selector(old).as_ref(), &path));
        errors
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        workload::template_warnings(object, old)
    }

    fn selectable_fields(&self, object: &Value) -> BTreeMap<&'static str, String> {
        BTreeMap::from([("status.replicas", integer(object, "/status/replicas").to_string())])
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        let (containers, images) = workload::template_cells(object);
        let selector = table::selector_text(object.pointer("/spec/selector"));
        Some(vec![
            table::name(object),
            integer(object, "/spec/replicas").into(),
            integer(object, "/status/replicas").into(),
            integer(object, "/status/readyReplicas").into(),
            table::age(object, now_unix_seconds),
            containers,
            images,
            if selector.is_empty() { table::NONE.into() } else { selector.into() },
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::{facts, messages};

    #[test]
    fn a_replica_set_needs_a_selector_that_fits_its_template() {
        let mut object = json!({"metadata": {"name": "r"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {
            "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x"}]}}}});
        ReplicaSetStrategy.default(&mut object);
        assert!(ReplicaSetStrategy.validate(&facts(), &object).is_empty());
        object["spec"]["selector"] = json!({});
        assert_eq!(
            messages(&ReplicaSetStrategy.validate(&facts(), &object)),
            ["spec.selector: Invalid value: {}: empty selector is invalid for deployment"]
        );
    }

    #[test]
    fn status_numbers_are_bounded_by_the_replicas() {
        let object = json!({"status": {"replicas": 1, "fullyLabeledReplicas": 2}});
        let errors = ReplicaSetStrategy.validate_update(&facts(), Part::Status, &object, &json!({}));
        assert_eq!(
            messages(&errors),
            ["status.fullyLabeledReplicas: Invalid value: 2: cannot be greater than status.replicas"]
        );
    }
}
