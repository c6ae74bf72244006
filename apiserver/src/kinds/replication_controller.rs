//! ReplicationController.

use k8s_openapi::api::core::v1::ReplicationControllerSpec;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::selector::Selector;

use super::fields::non_negative;
use super::json::{default_value, integer, is_zero, map_at, typed};
use super::pod::template;
use super::{table, workload};
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// `replicationcontrollers`.
pub(crate) struct ReplicationControllerStrategy;

impl Strategy for ReplicationControllerStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "",
            version: "v1",
            name: "replicationcontrollers",
            kind: "ReplicationController",
            scope: Scope::Namespaced,
        }
    }

    fn has_status(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        let labels = object.pointer("/spec/template/metadata/labels").cloned();
        if let Some(spec) = map_at(object, "spec") {
            default_value(spec, "replicas", 1);
            if !spec["template"].is_null() {
                workload::default_template(spec);
            }
            if is_zero(spec.get("selector"))
                && let Some(labels) = labels.clone()
            {
                spec["selector"] = labels;
            }
        }
        if is_zero(object.pointer("/metadata/labels"))
            && let Some(labels) = labels
        {
            object["metadata"]["labels"] = labels;
        }
    }

    fn prepare_for_create(&self, _facts: &RequestFacts, object: &mut Value) {
        object["status"] = json!({"replicas": 0});
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let path = Path::new("spec");
        let spec: ReplicationControllerSpec = match typed(object, &path) {
            Ok(spec) => spec,
            Err(errors) => return errors,
        };
        let seconds = i64::from(spec.min_ready_seconds.unwrap_or_default());
        let mut errors = non_negative(seconds, &path.child("minReadySeconds"));
        let selector: BTreeMap<String, String> = spec.selector.unwrap_or_default();
        if selector.is_empty() {
            errors.push(Error::required(&path.child("selector"), ""));
        }
        errors.extend(non_negative(i64::from(spec.replicas.unwrap_or_default()), &path.child("replicas")));
        let template_path = path.child("template");
        match &spec.template {
            None => errors.push(Error::required(&template_path, "")),
            Some(pods) => {
                let parsed = Selector::from_label_selector(&json!({"matchLabels": selector}));
                let parsed = parsed.unwrap_or_else(|_| Selector::nothing());
                errors.extend(template::validate_selected(
                    pods,
                    &parsed,
                    "ReplicationController",
                    &template_path,
                ));
            }
        }
        errors
    }

    fn validate_update(&self, facts: &RequestFacts, part: Part, object: &Value, _old: &Value) -> ErrorList {
        if part == Part::Status {
            let counts = [
                "replicas",
                "fullyLabeledReplicas",
                "readyReplicas",
                "availableReplicas",
                "observedGeneration",
            ];
            return workload::status_counts(object, &counts, &counts[1..4]);
        }
        self.validate(facts, object)
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
        Some(vec![
            table::name(object),
            integer(object, "/spec/replicas").into(),
            integer(object, "/status/replicas").into(),
            integer(object, "/status/readyReplicas").into(),
            table::age(object, now_unix_seconds),
            containers,
            images,
            table::label_text(object.pointer("/spec/selector")).into(),
        ])
    }
}
