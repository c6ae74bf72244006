//! Reading and filling in parts of an object, with Go's idea of "unset": absent, null and the zero value are the same.

use serde::Deserialize;
use serde_json::Value;
use wherry_machinery::field::{Error, ErrorList, Path};

/// The text at a JSON pointer; empty if there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number at a JSON pointer; zero if there is none.
pub(crate) fn integer(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or_default()
}

/// The flag at a JSON pointer; false if there is none.
pub(crate) fn flag(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer).and_then(Value::as_bool).unwrap_or_default()
}

/// The list at a JSON pointer; empty if there is none.
pub(crate) fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// How many entries the map or list at a JSON pointer has.
pub(crate) fn count(object: &Value, pointer: &str) -> usize {
    match object.pointer(pointer) {
        Some(Value::Object(map)) => map.len(),
        Some(Value::Array(list)) => list.len(),
        _ => 0,
    }
}

/// Whether a value is absent or null.
pub(crate) fn is_absent(value: Option<&Value>) -> bool {
    value.is_none_or(Value::is_null)
}

/// Whether a value is absent, null, or Go's zero value of its type.
pub(crate) fn is_zero(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => true,
        Some(Value::Bool(true)) => false,
        Some(Value::Number(number)) => number.as_f64() == Some(0.0),
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Object(map)) => map.is_empty(),
    }
}

/// Set `field` of a map unless it has a value other than null.
pub(crate) fn default_value(object: &mut Value, field: &str, value: impl Into<Value>) {
    if let Some(map) = object.as_object_mut()
        && is_absent(map.get(field))
    {
        map.insert(field.to_owned(), value.into());
    }
}

/// Set `field` of a map unless it has a value other than its type's zero value.
pub(crate) fn default_zero(object: &mut Value, field: &str, value: impl Into<Value>) {
    if let Some(map) = object.as_object_mut()
        && is_zero(map.get(field))
    {
        map.insert(field.to_owned(), value.into());
    }
}

/// Set `field` of a map.
pub(crate) fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    if let Some(map) = object.as_object_mut() {
        map.insert(field.to_owned(), value.into());
    }
}

/// Remove `field` of a map.
pub(crate) fn remove(object: &mut Value, field: &str) {
    if let Some(map) = object.as_object_mut() {
        map.remove(field);
    }
}

/// Set `field` of a map to what another map has there, or remove it.
pub(crate) fn carry_over(object: &mut Value, field: &str, from: &Value) {
    match from.get(field) {
        Some(value) => set(object, field, value.clone()),
        None => remove(object, field),
    }
}

/// The map at `field`, made if it is not there.
pub(crate) fn map_at<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    let map = object.as_object_mut()?;
    let value = map.entry(field.to_owned()).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(serde_json::Map::new());
    }
    value.is_object().then_some(value)
}

/// Do something to each element of the list at `field`.
pub(crate) fn each(object: &mut Value, field: &str, mut change: impl FnMut(&mut Value)) {
    if let Some(list) = object.get_mut(field).and_then(Value::as_array_mut) {
        list.iter_mut().for_each(&mut change);
    }
}

/// Do something to the map at `field`, if there is one.
pub(crate) fn within(object: &mut Value, field: &str, change: impl FnOnce(&mut Value)) {
    if let Some(value) = object.get_mut(field).filter(|value| value.is_object()) {
        change(value);
    }
}

/// A typed view of a part of an object; an absent part is the type's zero value.
///
/// # Errors
/// The object was type-checked when it was decoded, so a mismatch is the server's fault.
pub(crate) fn typed<'a, T: Deserialize<'a> + Default>(
    object: &'a Value,
    path: &Path,
) -> Result<T, ErrorList> {
    let mut part = object;
    for step in path.as_str().split('.').filter(|step| !step.is_empty()) {
        match part.get(step) {
            None | Some(Value::Null) => return Ok(T::default()),
            Some(inner) => part = inner,
        }
    }
    T::deserialize(part).map_err(|error| vec![Error::internal(path, &error.to_string())])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn zero_values_are_replaced_by_defaults_and_others_kept() {
        let mut object = json!({"a": "", "b": 0, "c": null, "d": "x", "e": false});
        for field in ["a", "b", "c", "d", "missing"] {
            default_zero(&mut object, field, "default");
        }
        default_value(&mut object, "e", true);
        assert_eq!(
            object,
            json!({"a": "default", "b": "default", "c": "default", "d": "x", "e": false, "missing": "default"})
        );
    }
}
