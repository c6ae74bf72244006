//! The defaults that schemas state.

use serde_json::Value;

use crate::schema::{Presence, Schema, Shape};

/// Fill in the defaults that the schema states for fields that are absent, at every depth: `protocol: TCP` of a port. The
/// zeroes that stand for "always there" are [`super::normalize`]'s affair. Kinds have further defaults of their own.
pub fn apply_defaults(schema: Schema<'_>, value: &mut Value) {
    let schema = schema.for_value(value);
    match (schema.shape(), value) {
        (Shape::Object { .. }, Value::Object(object)) => {
            for field in schema.fields() {
                let is_absent = object.get(field.name()).is_none_or(Value::is_null);
                if !is_absent {
                    continue;
                }
                // Zeroes that stand in the schema because Go's struct has them.
                let is_zero = matches!(field.presence(), Presence::Always | Presence::OmitZero);
                let default =
                    field.default().filter(|default| !(is_zero && super::convert::is_zero(default)));
                if let Some(default) = default {
                    object.insert(field.name().to_owned(), default.clone());
                }
            }
            for (name, value) in object.iter_mut() {
                if let Some(field) = schema.field(name) {
                    apply_defaults(field.schema(), value);
                }
            }
        }
        (Shape::Map { values, .. }, Value::Object(object)) => {
            object.values_mut().for_each(|value| apply_defaults(values, value));
        }
        (Shape::List { items, .. }, Value::Array(elements)) => {
            elements.iter_mut().for_each(|element| apply_defaults(items, element));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::schema::Schemas;

    #[test]
    fn stated_defaults_are_filled_in_at_every_depth() {
        let schemas = Schemas::builtin().unwrap();
        let table = [
            (
                "Pod",
                json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}, {"containerPort": 53, "protocol": "UDP"}]}]}}),
                json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}]}]}}),
            ),
            (
                "Service",
                json!({"spec": {"ports": [{"port": 1}]}}),
                json!({"spec": {"ports": [{"port": 1, "protocol": "TCP"}]}}),
            ),
            ("ReplicationController", json!({"spec": {}}), json!({"spec": {"replicas": 1}})),
            ("ConfigMap", json!({"data": {"a": "b"}}), json!({"data": {"a": "b"}})),
        ];
        for (kind, mut object, want) in table {
            apply_defaults(schemas.root("", "v1", kind).unwrap(), &mut object);
            assert_eq!(object, want);
        }
    }
}
