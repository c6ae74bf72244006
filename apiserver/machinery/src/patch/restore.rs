//! The result of a strategic merge patch as an object of its type. Kubernetes takes another way here than for other
//! bodies, with other words for a value that does not fit.

use serde_json::Value;

use crate::decode::{Document, TypeError};
use crate::schema::{Scalar, Schema, Shape};

/// The object of this type, and the fields that it does not know.
///
/// # Errors
/// [`TypeError`] when a value does not fit its field, in the words of Kubernetes' converter.
pub fn restore(schema: Schema<'_>, value: &Value) -> Result<(Value, Vec<String>), TypeError> {
    check(schema, value)?;
    Document::from_value(value.clone()).object(schema)
}

/// What Go's reflection calls the value.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

fn check(schema: Schema<'_>, value: &Value) -> Result<(), TypeError> {
    if value.is_null() {
        return Ok(());
    }
    let schema = schema.for_value(value);
    let failure = |text: String| Err(TypeError(text));
    match (schema.shape(), value) {
        (Shape::Any | Shape::Either { .. }, _) => Ok(()),
        (Shape::Object { .. }, Value::Object(object)) => object
            .iter()
            .filter_map(|(name, value)| schema.field(name).map(|field| (field, value)))
            .try_for_each(|(field, value)| check(field.schema(), value)),
        (Shape::Object { .. }, other) => failure(format!("cannot restore struct from: {}", kind(other))),
        (Shape::Map { values, .. }, Value::Object(object)) => {
            object.values().try_for_each(|value| check(values, value))
        }
        (Shape::Map { .. }, other) => failure(format!("cannot restore map from {}", kind(other))),
        (Shape::List { items, .. }, Value::Array(elements)) => {
            elements.iter().try_for_each(|element| check(items, element))
        }
        (Shape::List { .. }, other) => failure(format!("cannot restore slice from {}", kind(other))),
        (Shape::Scalar(scalar), value) => check_scalar(scalar, value),
    }
}

fn check_scalar(scalar: Scalar, value: &Value) -> Result<(), TypeError> {
    let failure = |text: String| Err(TypeError(text));
    let name = match scalar {
        Scalar::String => "string",
        Scalar::Boolean => "bool",
        Scalar::Int32 => "int32",
        Scalar::Int64 => "int64",
        Scalar::Double => "float64",
        Scalar::Bytes => {
            return match value {
                Value::String(_) => Ok(()),
                other => failure(format!("cannot restore slice from {}", kind(other))),
            };
        }
        // Types with a decoder of their own, which has its own words.
        Scalar::Quantity | Scalar::IntOrString | Scalar::Time | Scalar::MicroTime | Scalar::Duration => {
            return Ok(());
        }
    };
    let is_number = matches!(scalar, Scalar::Int32 | Scalar::Int64 | Scalar::Double);
    match (scalar, value) {
        (Scalar::String, Value::String(_))
        | (Scalar::Boolean, Value::Bool(_))
        | (Scalar::Double, Value::Number(_)) => Ok(()),
        (Scalar::Int32 | Scalar::Int64, Value::Number(number)) if !number.is_f64() => Ok(()),
        // Go could convert numbers to each other and to text, and refuses to.
        (_, Value::Number(_)) if is_number || scalar == Scalar::String => {
            failure(format!("cannot convert {} to {name}", kind(value)))
        }
        _ => failure(format!("unrecognized type: {name}")),
    }
}
