//! Whether a value is of its type, and what it sets.
//!
//! Source: structured-merge-diff's `validate` and `toFieldSet`, whose words the errors are.

use serde_json::Value;

use super::element::{PathElement, path_text};
use super::set::FieldSet;
use super::shape::{Parts, element_of, parts};
use crate::schema::{Scalar, Schema, Shape};

/// What is wrong, each with its path, in Kubernetes' words.
pub type Faults = Vec<String>;

/// The paths that a value sets.
pub fn field_set(schema: Schema<'_>, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    collect(schema, value, &mut Vec::new(), &mut set);
    set
}

fn collect(schema: Schema<'_>, value: &Value, path: &mut Vec<PathElement>, set: &mut FieldSet) {
    match (parts(schema, value), value) {
        (Parts::Map, Value::Object(fields)) => {
            let schema = schema.for_value(value);
            for (name, field) in fields {
                path.push(PathElement::field(name));
                if let Some(below) = schema.at_field(name) {
                    collect(below, field, path, set);
                }
                let is_empty = field.is_null() || field.as_object().is_some_and(serde_json::Map::is_empty);
                if is_empty || schema.field(name).is_none() {
                    set.insert(path);
                }
                path.pop();
            }
        }
        (Parts::List { items, identity }, Value::Array(elements)) => {
            for element in elements {
                let Ok(step) = element_of(items, identity, element) else { continue };
                path.push(step);
                collect(items, element, path, set);
                set.insert(path);
                path.pop();
            }
        }
        (Parts::Map | Parts::List { .. }, _) => {}
        (Parts::Leaf, _) => set.insert(path),
    }
}

/// What is wrong with a value, by its type; nothing, mostly. `allows_duplicates` where an object that is stored already may
/// have what a new one may not.
pub fn check(schema: Schema<'_>, value: &Value, allows_duplicates: bool) -> Faults {
    let mut faults = Faults::new();
    visit(schema, value, allows_duplicates, &mut Vec::new(), &mut faults);
    faults
}

fn visit(
    schema: Schema<'_>,
    value: &Value,
    allows_duplicates: bool,
    path: &mut Vec<PathElement>,
    faults: &mut Faults,
) {
    if value.is_null() {
        return;
    }
    let schema = schema.for_value(value);
    let mut say = |path: &[PathElement], fault: &str| faults.push(format!("{}: {fault}", path_text(path)));
    match (schema.shape(), value) {
        (Shape::Object { preserves_unknown, .. }, Value::Object(fields)) => {
            for (name, field) in fields {
                path.push(PathElement::field(name));
                match schema.field(name) {
                    Some(known) => visit(known.schema(), field, allows_duplicates, path, faults),
                    None if preserves_unknown => {}
                    None => faults.push(format!("{}: field not declared in schema", path_text(path))),
                }
                path.pop();
            }
        }
        (Shape::Map { values, .. }, Value::Object(fields)) => {
            for (name, field) in fields {
                path.push(PathElement::field(name));
                visit(values, field, allows_duplicates, path, faults);
                path.pop();
            }
        }
        (Shape::Object { .. } | Shape::Map { .. }, other) => {
            say(path, &format!("expected map, got {}", go_value(other)));
        }
        (Shape::List { items, .. }, Value::Array(elements)) => {
            let mut seen = std::collections::BTreeSet::new();
            for (index, element) in elements.iter().enumerate() {
                let step = match parts(schema, value) {
                    Parts::List { items, identity } => match element_of(items, identity, element) {
                        Ok(step) => {
                            if !allows_duplicates && !seen.insert(step.clone()) {
                                faults.push(format!("{}: duplicate entries for key {step}", path_text(path)));
                            }
                            step
                        }
                        Err(fault) => {
                            faults.push(format!("{}: element {index}: {fault}", path_text(path)));
                            continue;
                        }
                    },
                    Parts::Leaf | Parts::Map => PathElement::Index(index),
                };
                path.push(step);
                visit(items, element, allows_duplicates, path, faults);
                path.pop();
            }
        }
        (Shape::List { .. }, other) => say(path, &format!("expected list, got {}", go_value(other))),
        (Shape::Scalar(scalar), value) => {
            if let Some(expected) = mismatch(scalar, value) {
                say(path, &format!("expected {expected}, got {}", go_value(value)));
            }
        }
        (Shape::Either { .. } | Shape::Any, _) => {}
    }
}

/// What a scalar should have been, if the value is none of its type.
fn mismatch(scalar: Scalar, value: &Value) -> Option<&'static str> {
    match scalar {
        Scalar::String | Scalar::Bytes | Scalar::Time | Scalar::MicroTime | Scalar::Duration => {
            (!value.is_string()).then_some("string")
        }
        Scalar::Boolean => (!value.is_boolean()).then_some("boolean"),
        Scalar::Int32 | Scalar::Int64 | Scalar::Double => {
            (!value.is_number()).then_some("numeric (int or float)")
        }
        // Untyped scalars to it.
        Scalar::Quantity | Scalar::IntOrString => (value.is_object() || value.is_array()).then_some("scalar"),
    }
}

/// A value as Go prints what was unexpected.
fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "boolean".to_owned(),
        Value::Number(number) if number.is_f64() => "float".to_owned(),
        Value::Number(_) => "int".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => format!("&{{{}}}", go_print(value)),
        Value::Object(_) => format!("&{{{}}}", go_print(value)),
    }
}

/// `%v`.
fn go_print(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(elements) => {
            let elements: Vec<_> = elements.iter().map(go_print).collect();
            format!("[{}]", elements.join(" "))
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            let fields: Vec<_> =
                fields.into_iter().map(|(name, value)| format!("{name}:{}", go_print(value))).collect();
            format!("map[{}]", fields.join(" "))
        }
        other => other.to_string(),
    }
}
