//! `metadata` of objects: reading it and judging it.
//!
//! The readers take the whole object and give what is there, or the empty value of the type.
//!
//! Source: `k8s.io/apimachinery/pkg/api/validation/objectmeta.go`, and the finalizer rule of the built-in kinds.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::field::{Error, ErrorList, Path, go_quote};
use crate::names;

/// All annotations of an object together, in bytes.
pub const TOTAL_ANNOTATION_SIZE_LIMIT_BYTES: usize = 256 * 1024;
/// The longest name of a field manager, in bytes.
pub const FIELD_MANAGER_MAX_BYTES: usize = 128;
/// What Kubernetes says of a change to a field that cannot change.
pub const FIELD_IMMUTABLE: &str = "field is immutable";

/// One of `metadata.ownerReferences`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnerReference {
    /// Group and version of the owner.
    pub api_version: String,
    /// The owner's kind.
    pub kind: String,
    /// The owner's name.
    pub name: String,
    /// The owner's uid.
    pub uid: String,
    /// Whether the owner is the managing controller; `None` if not said.
    pub controller: Option<bool>,
    /// Whether the owner waits for this object in a foreground deletion; `None` if not said.
    pub block_owner_deletion: Option<bool>,
}

fn meta<'a>(object: &'a Value, field: &str) -> Option<&'a Value> {
    object.get("metadata")?.get(field)
}

fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    meta(object, field).and_then(Value::as_str).unwrap_or_default()
}

/// A JSON object of texts; entries that are no texts are left out.
pub fn string_map(value: Option<&Value>) -> BTreeMap<String, String> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// A JSON list of texts; elements that are no texts are left out.
pub fn string_list(value: Option<&Value>) -> Vec<String> {
    let elements = value.and_then(Value::as_array).into_iter().flatten();
    elements.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// `metadata.name`.
pub fn name(object: &Value) -> &str {
    text(object, "name")
}

/// `metadata.generateName`.
pub fn generate_name(object: &Value) -> &str {
    text(object, "generateName")
}

/// `metadata.namespace`.
pub fn namespace(object: &Value) -> &str {
    text(object, "namespace")
}

/// `metadata.uid`.
pub fn uid(object: &Value) -> &str {
    text(object, "uid")
}

/// `metadata.resourceVersion`.
pub fn resource_version(object: &Value) -> &str {
    text(object, "resourceVersion")
}

/// `metadata.generation`.
pub fn generation(object: &Value) -> i64 {
    meta(object, "generation").and_then(Value::as_i64).unwrap_or_default()
}

/// `metadata.creationTimestamp`.
pub fn creation_timestamp(object: &Value) -> &str {
    text(object, "creationTimestamp")
}

/// `metadata.deletionTimestamp`; `None` if the object is not being deleted.
pub fn deletion_timestamp(object: &Value) -> Option<&str> {
    meta(object, "deletionTimestamp").and_then(Value::as_str)
}

/// `metadata.deletionGracePeriodSeconds`.
pub fn deletion_grace_period_seconds(object: &Value) -> Option<i64> {
    meta(object, "deletionGracePeriodSeconds").and_then(Value::as_i64)
}

/// `metadata.labels`.
pub fn labels(object: &Value) -> BTreeMap<String, String> {
    string_map(meta(object, "labels"))
}

/// One of `metadata.labels`.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    meta(object, "labels")?.get(key)?.as_str()
}

/// `metadata.annotations`.
pub fn annotations(object: &Value) -> BTreeMap<String, String> {
    string_map(meta(object, "annotations"))
}

/// One of `metadata.annotations`.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    meta(object, "annotations")?.get(key)?.as_str()
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> Vec<String> {
    string_list(meta(object, "finalizers"))
}

/// `metadata.ownerReferences`.
pub fn owner_references(object: &Value) -> Vec<OwnerReference> {
    let references = meta(object, "ownerReferences").and_then(Value::as_array).into_iter().flatten();
    references
        .map(|reference| {
            let text =
                |field: &str| reference.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
            OwnerReference {
                api_version: text("apiVersion"),
                kind: text("kind"),
                name: text("name"),
                uid: text("uid"),
                controller: reference.get("controller").and_then(Value::as_bool),
                block_owner_deletion: reference.get("blockOwnerDeletion").and_then(Value::as_bool),
            }
        })
        .collect()
}

/// The owner that is the managing controller.
pub fn controller_of(object: &Value) -> Option<OwnerReference> {
    owner_references(object).into_iter().find(|reference| reference.controller == Some(true))
}

/// The `apiVersion` of an object.
pub fn api_version(object: &Value) -> &str {
    object.get("apiVersion").and_then(Value::as_str).unwrap_or_default()
}

/// The `kind` of an object.
pub fn kind(object: &Value) -> &str {
    object.get("kind").and_then(Value::as_str).unwrap_or_default()
}

/// Group and version of an `apiVersion`; the core group is empty.
///
/// # Errors
/// Kubernetes' words when the text has more than one `/`.
pub fn split_api_version(api_version: &str) -> Result<(&str, &str), String> {
    match api_version.split_once('/') {
        None => Ok(("", api_version)),
        Some((group, version)) if !version.contains('/') => Ok((group, version)),
        Some(_) => Err(format!("unexpected GroupVersion string: {api_version}")),
    }
}

/// Set `metadata.<field>`, making `metadata` if it is missing.
pub fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    let Some(object) = object.as_object_mut() else { return };
    let metadata = object.entry("metadata").or_insert_with(|| Value::Object(serde_json::Map::new()));
    if !metadata.is_object() {
        *metadata = Value::Object(serde_json::Map::new());
    }
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.insert(field.to_owned(), value.into());
    }
}

/// Remove `metadata.<field>` and give what it was.
pub fn remove(object: &mut Value, field: &str) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove(field)
}

/// Everything wrong with the metadata of a new object of a built-in kind. `name` and `generateName` are judged by
/// `name_fn`; `path` is that of the metadata.
pub fn validate_object_meta(
    object: &Value,
    namespaced: bool,
    name_fn: impl Fn(&str) -> Vec<String>,
    path: &Path,
) -> ErrorList {
    let mut errors = validate_custom_object_meta(object, namespaced, name_fn, path);
    let standard = ["kubernetes", "orphan", "foregroundDeletion"];
    for (index, finalizer) in finalizers(object).iter().enumerate() {
        if !finalizer.contains('/') && !standard.contains(&finalizer.as_str()) {
            errors.push(Error::invalid(
                &path.child("finalizers").index(index),
                finalizer.as_str(),
                "name is neither a standard finalizer name nor is it fully qualified",
            ));
        }
    }
    errors
}

/// Everything wrong with the metadata of a new object of a custom kind, whose finalizers may be named freely.
pub fn validate_custom_object_meta(
    object: &Value,
    namespaced: bool,
    name_fn: impl Fn(&str) -> Vec<String>,
    path: &Path,
) -> ErrorList {
    let mut errors = ErrorList::new();
    let generate_name = generate_name(object);
    if !generate_name.is_empty() {
        for message in name_fn(&names::mask_trailing_dash(generate_name)) {
            errors.push(Error::invalid(&path.child("generateName"), generate_name, &message));
        }
    }
    let name = name(object);
    if name.is_empty() {
        errors.push(Error::required(&path.child("name"), "name or generateName is required"));
    } else {
        for message in name_fn(name) {
            errors.push(Error::invalid(&path.child("name"), name, &message));
        }
    }
    let namespace = namespace(object);
    let namespace_path = path.child("namespace");
    if !namespaced {
        if !namespace.is_empty() {
            errors.push(Error::forbidden(&namespace_path, "not allowed on this type"));
        }
    } else if namespace.is_empty() {
        errors.push(Error::required(&namespace_path, ""));
    } else {
        for message in names::dns1123_label(namespace) {
            errors.push(Error::invalid(&namespace_path, namespace, &message));
        }
    }
    let generation = generation(object);
    if generation < 0 {
        errors.push(Error::invalid(
            &path.child("generation"),
            generation,
            "must be greater than or equal to 0",
        ));
    }
    errors.extend(validate_label_map(&labels(object), &path.child("labels")));
    errors.extend(validate_annotation_map(&annotations(object), &path.child("annotations")));
    errors.extend(validate_owner_references(&owner_references(object), &path.child("ownerReferences")));
    errors.extend(validate_finalizers(&finalizers(object), &path.child("finalizers")));
    errors.extend(validate_managed_fields(object, &path.child("managedFields")));
    errors
}

/// Everything wrong with a change of metadata.
pub fn validate_object_meta_update(object: &Value, old: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if deletion_timestamp(old).is_some() {
        let before = finalizers(old);
        let mut added: Vec<String> = finalizers(object).into_iter().filter(|f| !before.contains(f)).collect();
        added.sort_unstable();
        added.dedup();
        if !added.is_empty() {
            let quoted: Vec<String> = added.iter().map(|finalizer| go_quote(finalizer)).collect();
            errors.push(Error::forbidden(
                &path.child("finalizers"),
                &format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                    quoted.join(", ")
                ),
            ));
        }
    }
    if resource_version(object).is_empty() {
        errors.push(Error::invalid(&path.child("resourceVersion"), "", "must be specified for an update"));
    }
    if generation(object) < generation(old) {
        errors.push(Error::invalid(&path.child("generation"), generation(object), "must not be decremented"));
    }
    for field in ["name", "namespace", "uid"] {
        if text(object, field) != text(old, field) {
            errors.push(Error::invalid(&path.child(field), text(object, field), FIELD_IMMUTABLE));
        }
    }
    for field in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let value = |object: &Value| meta(object, field).cloned().unwrap_or(Value::Null);
        if value(object) != value(old) {
            errors.push(Error::invalid(&path.child(field), value(object), FIELD_IMMUTABLE));
        }
    }
    errors.extend(validate_label_map(&labels(object), &path.child("labels")));
    errors.extend(validate_annotation_map(&annotations(object), &path.child("annotations")));
    errors.extend(validate_owner_references(&owner_references(object), &path.child("ownerReferences")));
    errors.extend(validate_managed_fields(object, &path.child("managedFields")));
    errors
}

/// Everything wrong with labels in JSON (of an object or a template).
pub fn validate_labels(labels: &Value, path: &Path) -> ErrorList {
    validate_label_map(&string_map(Some(labels)), path)
}

/// Everything wrong with annotations in JSON (of an object or a template).
pub fn validate_annotations(annotations: &Value, path: &Path) -> ErrorList {
    validate_annotation_map(&string_map(Some(annotations)), path)
}

/// Everything wrong with labels.
pub fn validate_label_map(labels: &BTreeMap<String, String>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (key, value) in labels {
        for message in names::qualified_name(key) {
            errors.push(Error::invalid(path, key.as_str(), &message));
        }
        for message in names::label_value(value) {
            errors.push(Error::invalid(path, value.as_str(), &message));
        }
    }
    errors
}

/// Everything wrong with annotations.
pub fn validate_annotation_map(annotations: &BTreeMap<String, String>, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for key in annotations.keys() {
        for message in names::qualified_name(&key.to_lowercase()) {
            errors.push(Error::invalid(path, key.as_str(), &message));
        }
    }
    let size_bytes: usize = annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if size_bytes > TOTAL_ANNOTATION_SIZE_LIMIT_BYTES {
        errors.push(Error::too_long(path, TOTAL_ANNOTATION_SIZE_LIMIT_BYTES));
    }
    errors
}

fn validate_owner_references(references: &[OwnerReference], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut first_controller: Option<String> = None;
    for reference in references {
        let empty = |value: &str, field: &str, detail: &str| {
            value.is_empty().then(|| Error::invalid(&path.child(field), value, detail))
        };
        // A malformed apiVersion has no version, for Kubernetes.
        let version = split_api_version(&reference.api_version).map_or("", |(_, version)| version);
        if version.is_empty() {
            errors.push(Error::invalid(
                &path.child("apiVersion"),
                reference.api_version.as_str(),
                "version must not be empty",
            ));
        }
        errors.extend(empty(&reference.kind, "kind", "must not be empty"));
        errors.extend(empty(&reference.name, "name", "must not be empty"));
        errors.extend(empty(&reference.uid, "uid", "must not be empty"));
        if reference.api_version == "v1" && reference.kind == "Event" {
            errors.push(Error::invalid_rendered(
                path,
                &render_owner(reference),
                "/v1, Kind=Event is disallowed from being an owner",
            ));
        }
        if reference.controller == Some(true) {
            let this = format!("{}/{}", reference.kind, reference.name);
            match &first_controller {
                Some(first) => {
                    let rendered: Vec<String> = references.iter().map(render_owner).collect();
                    errors.push(Error::invalid_rendered(
                        path,
                        &format!("[{}]", rendered.join(",")),
                        &format!("Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"),
                    ));
                }
                None => first_controller = Some(this),
            }
        }
    }
    errors
}

/// An owner reference with the fields in the order in which Kubernetes prints them.
fn render_owner(reference: &OwnerReference) -> String {
    let quote = |text: &str| Value::from(text).to_string();
    let mut out = format!(
        "{{\"apiVersion\":{},\"kind\":{},\"name\":{},\"uid\":{}",
        quote(&reference.api_version),
        quote(&reference.kind),
        quote(&reference.name),
        quote(&reference.uid)
    );
    if let Some(controller) = reference.controller {
        out.push_str(&format!(",\"controller\":{controller}"));
    }
    if let Some(block) = reference.block_owner_deletion {
        out.push_str(&format!(",\"blockOwnerDeletion\":{block}"));
    }
    out.push('}');
    out
}

fn validate_finalizers(finalizers: &[String], path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for finalizer in finalizers {
        for message in names::qualified_name(finalizer) {
            errors.push(Error::invalid(path, finalizer.as_str(), &message));
        }
    }
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    if has("orphan") && has("foregroundDeletion") {
        errors.push(Error::invalid(
            path,
            finalizers.to_vec(),
            "finalizer orphan and foregroundDeletion cannot be both set",
        ));
    }
    errors
}

fn validate_managed_fields(object: &Value, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let entries = meta(object, "managedFields").and_then(Value::as_array).into_iter().flatten();
    for (index, entry) in entries.enumerate() {
        let path = path.index(index);
        let text = |field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default();
        if !matches!(text("operation"), "Apply" | "Update") {
            errors.push(Error::invalid(
                &path.child("operation"),
                text("operation"),
                "must be `Apply` or `Update`",
            ));
        }
        if !matches!(text("fieldsType"), "" | "FieldsV1") {
            errors.push(Error::invalid(&path.child("fieldsType"), text("fieldsType"), "must be `FieldsV1`"));
        }
        errors.extend(validate_field_manager(text("manager"), &path.child("manager")));
        if text("subresource").len() > 256 {
            errors.push(Error::too_long(&path.child("subresource"), 256));
        }
    }
    errors
}

/// Everything wrong with the name of a field manager; the empty name is right.
pub fn validate_field_manager(manager: &str, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if manager.len() > FIELD_MANAGER_MAX_BYTES {
        errors.push(Error::too_long(path, FIELD_MANAGER_MAX_BYTES));
    }
    for (at, c) in manager.char_indices().filter(|(_, c)| c.is_control()) {
        let detail = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        errors.push(Error::invalid(path, manager, &detail));
    }
    errors
}

#[cfg(test)]
#[path = "metadata_tests.rs"]
mod tests;
