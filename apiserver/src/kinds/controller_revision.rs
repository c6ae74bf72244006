//! ControllerRevision.

use serde_json::Value;
use wherry_machinery::field::{Error, ErrorList, Path};

use super::fields::{immutable, non_negative};
use super::json::{integer, is_absent};
use super::table;
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// `controllerrevisions`.
pub(crate) struct ControllerRevisionStrategy;

impl Strategy for ControllerRevisionStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "apps",
            version: "v1",
            name: "controllerrevisions",
            kind: "ControllerRevision",
            scope: Scope::Namespaced,
        }
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        if is_absent(object.get("data")) {
            errors.push(Error::required(&Path::new("data"), "data is mandatory"));
        }
        errors.extend(non_negative(integer(object, "/revision"), &Path::new("revision")));
        errors
    }

    fn validate_update(&self, facts: &RequestFacts, _part: Part, object: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(facts, object);
        errors.extend(immutable(object.get("data"), old.get("data"), &Path::new("data")));
        errors
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
        let controller = owners.into_iter().flatten().find(|owner| owner["controller"] == true);
        let controller = controller.map_or_else(
            || table::NONE.to_owned(),
            |owner| {
                let kind = owner["kind"].as_str().unwrap_or_default().to_lowercase();
                let group = owner["apiVersion"].as_str().and_then(|version| version.split_once('/'));
                let group = group.map(|(group, _)| format!(".{group}")).unwrap_or_default();
                format!("{kind}{group}/{}", owner["name"].as_str().unwrap_or_default())
            },
        );
        Some(vec![
            table::name(object),
            controller.into(),
            integer(object, "/revision").into(),
            table::age(object, now_unix_seconds),
        ])
    }
}
