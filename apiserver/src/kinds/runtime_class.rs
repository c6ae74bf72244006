//! RuntimeClass.

use k8s_openapi::api::node::v1::{Overhead, Scheduling};
use serde_json::Value;
use wherry_machinery::field::{Error, ErrorList, Path};

use super::fields::{dns_label, immutable, labels};
use super::json::{is_absent, text, typed, within};
use super::pod::{resources, tolerations};
use super::table;
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// `runtimeclasses`.
pub(crate) struct RuntimeClassStrategy;

impl Strategy for RuntimeClassStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "node.k8s.io",
            version: "v1",
            name: "runtimeclasses",
            kind: "RuntimeClass",
            scope: Scope::Cluster,
        }
    }

    fn default(&self, object: &mut Value) {
        within(object, "overhead", |overhead| within(overhead, "podFixed", resources::canonicalize_list));
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let mut errors = dns_label(text(object, "/handler"), &Path::new("handler"));
        let path = Path::new("overhead");
        match typed::<Overhead>(object, &path) {
            Ok(overhead) => {
                let fixed = overhead.pod_fixed.unwrap_or_default();
                errors.extend(resources::overhead(&fixed, &path.child("podFixed")));
            }
            Err(found) => errors.extend(found),
        }
        if !is_absent(object.get("scheduling")) {
            errors.extend(scheduling(object));
        }
        errors
    }

    fn validate_update(&self, facts: &RequestFacts, _part: Part, object: &Value, old: &Value) -> ErrorList {
        let mut errors = immutable(object.get("handler"), old.get("handler"), &Path::new("handler"));
        errors.extend(self.validate(facts, object));
        errors
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        let age = table::age(object, now_unix_seconds);
        Some(vec![table::name(object), text(object, "/handler").into(), age])
    }
}

fn scheduling(object: &Value) -> ErrorList {
    let path = Path::new("scheduling");
    let scheduling: Scheduling = match typed(object, &path) {
        Ok(scheduling) => scheduling,
        Err(errors) => return errors,
    };
    let selector = scheduling.node_selector.unwrap_or_default();
    let mut errors = labels(&selector, &path.child("nodeSelector"));
    let list = scheduling.tolerations.unwrap_or_default();
    let list_path = path.child("tolerations");
    errors.extend(tolerations(&list, &list_path));
    for (i, toleration) in list.iter().enumerate() {
        if list[..i].contains(toleration) {
            errors.push(Error::duplicate(&list_path.index(i), serde_json::json!(toleration)));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{facts, messages};

    #[test]
    fn the_handler_is_a_label_and_fixed() {
        let class = json!({"handler": "wasmtime"});
        assert!(RuntimeClassStrategy.validate(&facts(), &class).is_empty());
        let errors =
            RuntimeClassStrategy.validate_update(&facts(), Part::Main, &json!({"handler": "runc"}), &class);
        assert_eq!(messages(&errors), [r#"handler: Invalid value: "runc": field is immutable"#]);
    }
}
