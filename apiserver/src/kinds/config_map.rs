//! ConfigMap.

use serde_json::Value;
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::names;

use super::json::{count, flag};
use super::{fields, table};
use crate::registry::strategy::{Part, RequestFacts, Resource, Scope, Strategy};

/// Bytes of data a ConfigMap or a Secret may hold. Source: `MaxSecretSize` of core/v1.
pub(crate) const MAX_DATA_BYTES: usize = 1024 * 1024;

/// `configmaps`.
pub(crate) struct ConfigMapStrategy;

impl Strategy for ConfigMapStrategy {
    fn resource(&self) -> Resource {
        Resource { group: "", version: "v1", name: "configmaps", kind: "ConfigMap", scope: Scope::Namespaced }
    }

    fn validate(&self, _facts: &RequestFacts, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let mut total_bytes = 0;
        let binary = object.get("binaryData").and_then(Value::as_object);
        for (key, value) in object.get("data").and_then(Value::as_object).into_iter().flatten() {
            let path = Path::new("data").key(key);
            errors.extend(fields::invalid_each(&path, key, names::config_map_key(key)));
            if binary.is_some_and(|binary| binary.contains_key(key)) {
                errors.push(Error::invalid(&path, key.as_str(), "duplicate of key present in binaryData"));
            }
            total_bytes += value.as_str().map_or(0, str::len);
        }
        for (key, value) in binary.into_iter().flatten() {
            let path = Path::new("binaryData").key(key);
            errors.extend(fields::invalid_each(&path, key, names::config_map_key(key)));
            total_bytes += decoded_length(value);
        }
        if total_bytes > MAX_DATA_BYTES {
            errors.push(Error::too_long(&Path::new(""), MAX_DATA_BYTES));
        }
        errors
    }

    fn validate_update(&self, facts: &RequestFacts, _part: Part, object: &Value, old: &Value) -> ErrorList {
        let mut errors = immutable_data(object, old, &["data", "binaryData"]);
        errors.extend(self.validate(facts, object));
        errors
    }

    fn table_cells(&self, object: &Value, now_unix_seconds: i64) -> Option<Vec<Value>> {
        let entries = count(object, "/data") + count(object, "/binaryData");
        Some(vec![table::name(object), entries.into(), table::age(object, now_unix_seconds)])
    }
}

/// What `immutable: true` forbids, for a ConfigMap and a Secret.
pub(crate) fn immutable_data(object: &Value, old: &Value, data_fields: &[&str]) -> ErrorList {
    const TEXT: &str = "field is immutable when `immutable` is set";
    let mut errors = ErrorList::new();
    if !flag(old, "/immutable") {
        return errors;
    }
    if !flag(object, "/immutable") {
        errors.push(Error::forbidden(&Path::new("immutable"), TEXT));
    }
    for field in data_fields {
        let part = |object: &Value| {
            object.get(field).and_then(Value::as_object).filter(|map| !map.is_empty()).cloned()
        };
        if part(object) != part(old) {
            errors.push(Error::forbidden(&Path::new(field), TEXT));
        }
    }
    errors
}

/// How many bytes a base64 text stands for.
pub(crate) fn decoded_length(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    let padding = text.bytes().rev().take_while(|byte| *byte == b'=').count();
    (text.len() / 4 * 3).saturating_sub(padding)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::testing::{facts, messages};

    #[test]
    fn keys_are_checked_and_may_not_stand_in_both_maps() {
        let table = [
            (json!({"data": {"ok": "y"}}), vec![]),
            (
                json!({"data": {"ok": "y"}, "binaryData": {"ok": "AA=="}}),
                vec![r#"data[ok]: Invalid value: "ok": duplicate of key present in binaryData"#],
            ),
            (
                json!({"data": {"a b": "x"}}),
                vec![
                    r#"data[a b]: Invalid value: "a b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"#,
                ],
            ),
        ];
        for (object, expected) in table {
            assert_eq!(messages(&ConfigMapStrategy.validate(&facts(), &object)), expected);
        }
    }

    #[test]
    fn immutable_data_may_not_change_nor_become_mutable() {
        let old = json!({"immutable": true, "data": {"a": "b"}});
        let table = [
            (
                json!({"immutable": true, "data": {"a": "c"}}),
                vec!["data: Forbidden: field is immutable when `immutable` is set"],
            ),
            (
                json!({"immutable": false, "data": {"a": "b"}}),
                vec!["immutable: Forbidden: field is immutable when `immutable` is set"],
            ),
            (json!({"immutable": true, "data": {"a": "b"}, "metadata": {"labels": {"x": "y"}}}), vec![]),
        ];
        for (object, expected) in table {
            let errors = ConfigMapStrategy.validate_update(&facts(), Part::Main, &object, &old);
            assert_eq!(messages(&errors), expected);
        }
    }
}
