//! A document as an object of a type, the way Go's decoder and encoder would leave it.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::TypeError;
use super::raw::Raw;
use super::scalar::{self, Mismatch};
use crate::field::go_quote;
use crate::schema::{Field, Presence, Schema, Shape};

/// Kubernetes reports no more than so many unknown and duplicate fields.
const MAX_STRICT_ERRORS: usize = 100;

/// Convert a document; the second part is what strict decoding finds, in the order of the document.
pub(super) fn convert(schema: Schema<'_>, raw: &Raw) -> Result<(Value, Vec<String>), TypeError> {
    let mut converter = Converter {
        first_error: None,
        owner: String::new(),
        path: Vec::new(),
        place: String::new(),
        strict: Vec::new(),
    };
    let value = converter.value(schema, raw)?;
    match converter.first_error {
        Some(error) => Err(error),
        None => Ok((value, converter.strict)),
    }
}

struct Converter {
    /// The first value that did not fit; Go goes on after it, and gives it at the end.
    first_error: Option<TypeError>,
    /// The Go struct that holds the field at hand.
    owner: String,
    /// The names of the fields on the way, without places in lists.
    path: Vec<String>,
    /// Where strict decoding is: `spec.containers[0]`.
    place: String,
    strict: Vec<String>,
}

impl Converter {
    fn mismatch(&mut self, found: &str, schema: Schema<'_>) {
        if self.first_error.is_some() {
            return;
        }
        let wanted = schema.go_type();
        let message = if self.owner.is_empty() && self.path.is_empty() {
            format!("json: cannot unmarshal {found} into Go value of type {wanted}")
        } else {
            format!(
                "json: cannot unmarshal {found} into Go struct field {}.{} of type {wanted}",
                self.owner,
                self.path.join(".")
            )
        };
        self.first_error = Some(TypeError(message));
    }

    fn find(&mut self, what: &str, name: &str) {
        let place = if self.place.is_empty() { name.to_owned() } else { format!("{}.{name}", self.place) };
        let text = format!("{what} field {}", go_quote(&place));
        if self.strict.len() < MAX_STRICT_ERRORS && !self.strict.contains(&text) {
            self.strict.push(text);
        }
    }

    /// Run `inside` one step deeper in the document.
    fn step<T>(&mut self, step: &str, inside: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.place.len();
        if !step.starts_with('[') && length > 0 {
            self.place.push('.');
        }
        self.place.push_str(step);
        let result = inside(self);
        self.place.truncate(length);
        result
    }

    fn value(&mut self, schema: Schema<'_>, raw: &Raw) -> Result<Value, TypeError> {
        match (schema.shape(), raw) {
            (Shape::Any, raw) => Ok(raw.clone().into_value()),
            (Shape::Scalar(kind), raw) => match scalar::convert(kind, raw) {
                Ok(value) => Ok(value),
                Err(Mismatch::Now(message)) => Err(TypeError(message)),
                Err(Mismatch::Later(message)) => {
                    self.first_error.get_or_insert(TypeError(message));
                    Ok(Value::Null)
                }
                Err(Mismatch::Kind { found }) => {
                    self.mismatch(&found, schema);
                    Ok(Value::Null)
                }
            },
            (Shape::Either { object, .. }, Raw::Object(_)) => self.value(object, raw),
            (Shape::Either { other, .. }, _) => self.value(other, raw),
            (_, Raw::Null) => Ok(zero_value(schema)),
            (Shape::Object { preserves_unknown, .. }, Raw::Object(entries)) => {
                self.object(schema, entries, preserves_unknown)
            }
            (Shape::Map { values, .. }, Raw::Object(entries)) => self.map(values, entries),
            (Shape::List { items, .. }, Raw::Array(elements)) => {
                let mut list = Vec::with_capacity(elements.len());
                for (index, element) in elements.iter().enumerate() {
                    list.push(self.step(&format!("[{index}]"), |this| this.value(items, element))?);
                }
                Ok(Value::Array(list))
            }
            (_, other) => {
                self.mismatch(other.kind_word(), schema);
                Ok(Value::Null)
            }
        }
    }

    fn map(&mut self, values: Schema<'_>, entries: &[(String, Raw)]) -> Result<Value, TypeError> {
        let mut seen = HashSet::with_capacity(entries.len());
        let mut map = Map::new();
        for (key, raw) in entries {
            if !seen.insert(key) {
                self.find("duplicate", key);
            }
            let value = self.step(key, |this| this.value(values, raw))?;
            map.insert(key.clone(), value);
        }
        Ok(Value::Object(map))
    }

    fn object(
        &mut self,
        schema: Schema<'_>,
        entries: &[(String, Raw)],
        preserves_unknown: bool,
    ) -> Result<Value, TypeError> {
        let owner = schema.short_name().unwrap_or_default().to_owned();
        let outer = std::mem::replace(&mut self.owner, owner.clone());
        let mut seen = HashSet::new();
        let mut object = Map::new();
        for (key, raw) in entries {
            let Some(field) = schema.field(key) else {
                if preserves_unknown {
                    object.insert(key.clone(), raw.clone().into_value());
                } else {
                    self.find("unknown", key);
                }
                continue;
            };
            if !seen.insert(key) {
                self.find("duplicate", key);
            }
            if matches!(raw, Raw::Null) {
                object.remove(key);
                continue;
            }
            self.path.push(key.clone());
            let value = self.step(key, |this| this.value(field.schema(), raw))?;
            self.path.pop();
            self.owner.clone_from(&owner);
            object.insert(key.clone(), value);
        }
        complete(schema, &mut object);
        self.owner = outer;
        Ok(Value::Object(object))
    }
}

/// The value that Go has where a value of this type is null or missing.
pub fn zero_value(schema: Schema<'_>) -> Value {
    match schema.shape() {
        Shape::Scalar(kind) => scalar::zero(kind),
        Shape::Object { .. } => {
            let mut object = Map::new();
            complete(schema, &mut object);
            Value::Object(object)
        }
        _ => Value::Null,
    }
}

pub(super) fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(is_true) => !is_true,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(elements) => elements.is_empty(),
        Value::Object(object) => object.is_empty(),
    }
}

/// Leave out what Go leaves out, add what Go always writes. The fields that are there are complete already.
fn complete(schema: Schema<'_>, object: &mut Map<String, Value>) {
    for field in schema.fields() {
        let name = field.name();
        match field.presence() {
            Presence::Pointer => {
                let is_omitted = match object.get(name) {
                    Some(Value::Null) => true,
                    Some(value) => is_collection(field) && is_zero(value),
                    None => false,
                };
                if is_omitted {
                    object.remove(name);
                }
            }
            Presence::OmitZero => {
                if object.get(name).is_some_and(is_zero) {
                    object.remove(name);
                }
            }
            Presence::Always => {
                if object.get(name).is_none_or(Value::is_null) {
                    object.insert(name.to_owned(), zero_value(field.schema()));
                }
            }
            Presence::Null => {
                if !object.contains_key(name) {
                    object.insert(name.to_owned(), Value::Null);
                }
            }
        }
    }
}

fn is_collection(field: Field<'_>) -> bool {
    matches!(field.schema().shape(), Shape::List { .. } | Shape::Map { .. })
}

/// Bring an object of a type into the form in which Go would write it: nulls and omitted zeroes out, what is always there
/// in. Values are taken to be of the right type.
pub fn normalize(schema: Schema<'_>, value: &mut Value) {
    let schema = schema.for_value(value);
    match (schema.shape(), value) {
        (Shape::Object { .. }, Value::Object(object)) => {
            object.retain(|_, value| !value.is_null());
            for (name, value) in object.iter_mut() {
                if let Some(field) = schema.field(name) {
                    normalize(field.schema(), value);
                }
            }
            complete(schema, object);
        }
        (Shape::Map { values, .. }, Value::Object(object)) => {
            for value in object.values_mut() {
                if value.is_null() {
                    *value = zero_value(values);
                }
                normalize(values, value);
            }
        }
        (Shape::List { items, .. }, Value::Array(elements)) => {
            for element in elements {
                if element.is_null() {
                    *element = zero_value(items);
                }
                normalize(items, element);
            }
        }
        _ => {}
    }
}

/// Remove the fields that the type does not know, at every depth.
pub fn prune(schema: Schema<'_>, value: &mut Value) {
    let schema = schema.for_value(value);
    match (schema.shape(), value) {
        (Shape::Object { preserves_unknown, .. }, Value::Object(object)) => {
            object.retain(|name, value| match schema.field(name) {
                Some(field) => {
                    prune(field.schema(), value);
                    true
                }
                None => preserves_unknown,
            });
        }
        (Shape::Map { values, .. }, Value::Object(object)) => {
            for value in object.values_mut() {
                prune(values, value);
            }
        }
        (Shape::List { items, .. }, Value::Array(elements)) => {
            for element in elements {
                prune(items, element);
            }
        }
        _ => {}
    }
}
