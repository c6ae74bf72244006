//! PodTemplate.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::Value;
use wherry_machinery::field::{Error, ErrorList, Path};

use super::json::map_at;
use super::pod::{defaults, template, warnings};
use super::table;
use crate::registry::strategy::{RequestFacts, Resource, Scope, Strategy};

/// `podtemplates`.
pub(crate) struct PodTemplateStrategy;

impl Strategy for PodTemplateStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "",
            version: "v1",
            name: "podtemplates",
            kind: "PodTemplate",
            scope: Scope::Namespaced,
        }
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, object: &mut Value) {
        if let Some(template) = map_at(object, "template") {
            map_at(template, "metadata");
            defaults::default_template(template);
        }
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let path = Path::new("template");
        match serde_json::from_value::<PodTemplateSpec>(object["template"].clone()) {
            Ok(pods) => template::validate(&pods, &path),
            Err(error) => vec![Error::invalid(&path, Value::Null, &error.to_string())],
        }
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some_and(|old| old["template"] == object["template"]) {
            return Vec::new();
        }
        warnings::of_template(&object["template"], &Path::new("template"))
    }

    fn table_cells(&self, object: &Value, _now_unix_seconds: i64) -> Option<Vec<Value>> {
        let spec = object.pointer("/template/spec").unwrap_or(&Value::Null);
        let (names, images) = table::container_cells(spec);
        let labels = table::label_text(object.pointer("/template/metadata/labels"));
        Some(vec![table::name(object), names.into(), images.into(), labels.into()])
    }
}
