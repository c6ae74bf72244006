//! A value without some of its parts.
//!
//! Source: structured-merge-diff's `RemoveItems`.

use serde_json::{Map, Value};

use super::element::PathElement;
use super::set::FieldSet;
use super::shape::{Parts, element_of, parts};
use crate::schema::Schema;

/// The value without what is at the paths of the set. What has parts and loses all of them becomes null.
pub(super) fn remove(schema: Schema<'_>, value: &Value, paths: &FieldSet) -> Value {
    match (parts(schema, value), value) {
        (Parts::Map, Value::Object(fields)) if !fields.is_empty() => {
            let schema = schema.for_value(value);
            let mut left = Map::new();
            for (name, field) in fields {
                let step = PathElement::field(name);
                if paths.has_element(&step) {
                    continue;
                }
                let field = match (paths.below(&step), schema.at_field(name)) {
                    (Some(below), Some(schema)) => remove(schema, field, below),
                    _ => field.clone(),
                };
                left.insert(name.clone(), field);
            }
            if left.is_empty() { Value::Null } else { Value::Object(left) }
        }
        (Parts::List { items, identity }, Value::Array(elements)) if !elements.is_empty() => {
            let mut left = Vec::with_capacity(elements.len());
            for element in elements {
                let Ok(step) = element_of(items, identity, element) else {
                    left.push(element.clone());
                    continue;
                };
                if paths.has_element(&step) {
                    continue;
                }
                left.push(match paths.below(&step) {
                    Some(below) => remove(items, element, below),
                    None => element.clone(),
                });
            }
            if left.is_empty() { Value::Null } else { Value::Array(left) }
        }
        _ => value.clone(),
    }
}
