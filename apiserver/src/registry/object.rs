//! Reading and writing the metadata of objects that are JSON trees.

use serde_json::{Map, Value};

/// A field of `metadata`, if it is text.
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object
        .get("metadata")
        .and_then(|metadata| metadata.get(field))
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The name.
pub fn name(object: &Value) -> &str {
    text(object, "name")
}

/// The namespace; empty if none.
pub fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

/// The `metadata`, made if it is not there.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    let slot = &mut object["metadata"];
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    match slot {
        Value::Object(map) => map,
        // Made an object just above.
        _ => unreachable!("metadata is an object"),
    }
}

/// Sets a field of `metadata`.
pub fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    metadata_mut(object).insert(field.to_owned(), value.into());
}

/// Removes a field of `metadata`.
pub fn unset(object: &mut Value, field: &str) {
    metadata_mut(object).remove(field);
}

/// Takes a field of `metadata` over from another object, absence included.
pub fn carry(object: &mut Value, from: &Value, field: &str) {
    match from.get("metadata").and_then(|metadata| metadata.get(field)) {
        Some(value) => set(object, field, value.clone()),
        None => unset(object, field),
    }
}

/// The `generation`; 0 if none.
pub fn generation(object: &Value) -> i64 {
    object["metadata"]["generation"].as_i64().unwrap_or_default()
}

/// The finalizers.
pub fn finalizers(object: &Value) -> Vec<String> {
    object["metadata"]["finalizers"]
        .as_array()
        .map(|list| list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        .unwrap_or_default()
}

/// Whether deletion has begun.
pub fn is_deleting(object: &Value) -> bool {
    !text(object, "deletionTimestamp").is_empty()
}

/// The `deletionGracePeriodSeconds`, if any.
pub fn deletion_grace(object: &Value) -> Option<i64> {
    object["metadata"]["deletionGracePeriodSeconds"].as_i64()
}

/// The object without what changes by itself: what two states are compared by to see whether a write changes anything.
pub fn without_version(object: &Value) -> Value {
    let mut copy = object.clone();
    unset(&mut copy, "resourceVersion");
    copy
}

/// Whether two states differ in anything that `generation` counts: all but metadata and status.
pub fn specification_differs(a: &Value, b: &Value) -> bool {
    let significant = |object: &Value| -> Map<String, Value> {
        let fields = object.as_object().cloned().unwrap_or_default();
        fields
            .into_iter()
            .filter(|(key, _)| !matches!(key.as_str(), "metadata" | "status" | "kind" | "apiVersion"))
            .collect()
    };
    significant(a) != significant(b)
}
