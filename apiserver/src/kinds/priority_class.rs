//! PriorityClass.

use serde_json::Value;
use wherry_machinery::field::{Error, ErrorList, Path};

use super::json::{default_value, flag, integer, text};
use super::table;
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// The highest value that is not reserved for the system.
const HIGHEST_USER_VALUE: i64 = 1_000_000_000;
/// The prefix of the names that are reserved for the system.
const SYSTEM_PREFIX: &str = "system-";
/// The classes of the system, with their values.
const SYSTEM_CLASSES: &[(&str, i64)] =
    &[("system-node-critical", 2_000_001_000), ("system-cluster-critical", 2_000_000_000)];

/// `priorityclasses`.
pub(crate) struct PriorityClassStrategy;

impl Strategy for PriorityClassStrategy {
    fn resource(&self) -> Resource {
        Resource {
            group: "scheduling.k8s.io",
            version: "v1",
            name: "priorityclasses",
            kind: "PriorityClass",
            scope: Scope::Cluster,
        }
    }

    // It is written once, and never counts.
    fn prepare_for_create(&self, _facts: &RequestFacts, object: &mut Value) {
        crate::registry::object::set(object, "generation", 1);
    }

    fn default(&self, object: &mut Value) {
        default_value(object, "preemptionPolicy", "PreemptLowerPriority");
        default_value(object, "value", 0);
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        const POLICIES: &[&str] = &["PreemptLowerPriority", "Never"];
        let mut errors = ErrorList::new();
        let name = text(object, "/metadata/name");
        let value = integer(object, "/value");
        if name.starts_with(SYSTEM_PREFIX) {
            if !is_system_class(name, value, flag(object, "/globalDefault")) {
                let path = Path::new("metadata").child("name");
                let detail = format!(
                    "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {name} is not a known system priority class"
                );
                errors.push(Error::forbidden(&path, &detail));
            }
        } else if value > HIGHEST_USER_VALUE {
            let detail = format!("maximum allowed value of a user defined priority is {HIGHEST_USER_VALUE}");
            errors.push(Error::forbidden(&Path::new("value"), &detail));
        }
        let policy = text(object, "/preemptionPolicy");
        let path = Path::new("preemptionPolicy");
        if policy.is_empty() {
            errors.push(Error::required(&path, ""));
        } else if !POLICIES.contains(&policy) {
            errors.push(Error::not_supported(&path, policy, POLICIES));
        }
        errors
    }

    fn validate_update(&self, _facts: &RequestFacts, _part: Part, object: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        if integer(object, "/value") != integer(old, "/value") {
            errors.push(Error::forbidden(&Path::new("value"), "may not be changed in an update."));
        }
        let policy = |object: &Value| object.get("preemptionPolicy").cloned();
        let path = Path::new("preemptionPolicy");
        errors.extend(super::fields::immutable(policy(object).as_ref(), policy(old).as_ref(), &path));
        errors
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        Some(vec![
            table::name(object),
            integer(object, "/value").into(),
            flag(object, "/globalDefault").into(),
            table::age(object, now_unix_seconds),
            text(object, "/preemptionPolicy").into(),
        ])
    }
}

fn is_system_class(name: &str, value: i64, global_default: bool) -> bool {
    SYSTEM_CLASSES.contains(&(name, value)) && !global_default
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{facts, messages};

    #[test]
    fn values_are_bounded_and_system_names_reserved() {
        let table = [
            (
                json!({"metadata": {"name": "pc"}, "value": 1_000_000_001}),
                vec!["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
            ),
            (
                json!({"metadata": {"name": "system-x"}, "value": 1}),
                vec![
                    "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-x is not a known system priority class",
                ],
            ),
            (
                json!({"metadata": {"name": "pc"}, "value": 1, "preemptionPolicy": "Odd"}),
                vec![
                    r#"preemptionPolicy: Unsupported value: "Odd": supported values: "PreemptLowerPriority", "Never""#,
                ],
            ),
            (json!({"metadata": {"name": "system-node-critical"}, "value": 2_000_001_000}), vec![]),
        ];
        for (mut class, expected) in table {
            PriorityClassStrategy.default(&mut class);
            assert_eq!(messages(&PriorityClassStrategy.validate(&facts(), &class)), expected);
        }
    }
}
