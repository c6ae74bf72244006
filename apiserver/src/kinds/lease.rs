//! Lease.

use serde_json::Value;
use wherry_machinery::field::{Error, ErrorList, Path};

use super::json::{is_absent, text};
use super::{fields, table};
use crate::registry::strategy::{RequestFacts, Resource, Scope, Strategy};

/// `leases`.
pub(crate) struct LeaseStrategy;

impl Strategy for LeaseStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "coordination.k8s.io",
            version: "v1",
            name: "leases",
            kind: "Lease",
            scope: Scope::Namespaced,
        }
    }

    fn default(&self, object: &mut Value) {
        super::json::default_value(object, "spec", Value::Object(serde_json::Map::new()));
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let path = Path::new("spec");
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let mut errors = ErrorList::new();
        if let Some(seconds) = spec.get("leaseDurationSeconds").and_then(Value::as_i64)
            && seconds <= 0
        {
            errors.push(Error::invalid(
                &path.child("leaseDurationSeconds"),
                seconds,
                "must be greater than 0",
            ));
        }
        if let Some(transitions) = spec.get("leaseTransitions").and_then(Value::as_i64) {
            errors.extend(fields::non_negative(transitions, &path.child("leaseTransitions")));
        }
        if let Some(strategy) = spec.get("strategy").and_then(Value::as_str) {
            let path = path.child("strategy");
            if strategy.contains('/') {
                errors.extend(fields::qualified_name(strategy, &path));
            } else if strategy != "OldestEmulationVersion" {
                errors.push(Error::not_supported(&path, strategy, &["OldestEmulationVersion"]));
            }
        }
        if !is_absent(spec.get("preferredHolder")) && text(spec, "/strategy").is_empty() {
            let detail = "may only be specified when `strategy` is defined";
            errors.push(Error::forbidden(&path.child("preferredHolder"), detail));
        }
        errors
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        let age = table::age(object, now_unix_seconds);
        Some(vec![table::name(object), text(object, "/spec/holderIdentity").into(), age])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{facts, messages};

    #[test]
    fn numbers_must_be_positive() {
        let lease = json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}});
        assert_eq!(
            messages(&LeaseStrategy.validate(&facts(), &lease)),
            [
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
            ]
        );
    }
}
