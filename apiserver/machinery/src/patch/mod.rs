//! The three kinds of patches: JSON patch, merge patch and strategic merge patch.
//!
//! [`apply`] does everything between the bytes of a PATCH and the object that goes on to defaulting and validation, with
//! the refusals an API server gives. The functions [`json_patch`], [`merge_patch`] and [`strategic_merge_patch`] are the
//! merges alone.
//!
//! Source: `k8s.io/apiserver/pkg/endpoints/handlers/patch.go`, `k8s.io/apimachinery/pkg/util/strategicpatch`, RFC 6902,
//! RFC 7386.

mod element_order;
mod go_format;
mod json;
mod restore;
mod strategic;

use serde_json::{Map, Value};

pub use json::{JsonPatchError, json_patch};
pub use restore::restore;
pub use strategic::{StrategicPatchError, strategic_merge_patch};

use crate::decode::{Document, Limits, Raw, SyntaxError, decode_json};
use crate::field::{self, Path};
use crate::metadata;
use crate::schema::Schema;
use crate::status::{Reason, Status, StatusDetails};

/// Operations in a JSON patch; Kubernetes' own limit.
pub const MAX_JSON_PATCH_OPERATIONS: usize = 10_000;

/// The kind of a patch, by its media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchType {
    /// `application/json-patch+json`.
    Json,
    /// `application/merge-patch+json`.
    Merge,
    /// `application/strategic-merge-patch+json`.
    StrategicMerge,
}

/// An object after a patch.
#[derive(Debug, Clone, PartialEq)]
pub struct Patched {
    /// The object, of its type, with `apiVersion` and `kind`.
    pub object: Value,
    /// What strict decoding finds in the patch and in the result. Warnings, or with [`Patched::strict_error`] a refusal.
    pub strict: Vec<String>,
    /// The patch as refusals show it.
    shown: String,
}

impl Patched {
    /// The refusal of `fieldValidation=Strict`, if there is something to refuse.
    pub fn strict_error(&self) -> Option<Status> {
        if self.strict.is_empty() {
            return None;
        }
        Some(invalid(&self.shown, &format!("strict decoding error: {}", self.strict.join(", "))))
    }
}

/// Patch an object of a built-in kind.
///
/// # Errors
/// The refusal that kube-apiserver gives.
pub fn apply(
    schema: Schema<'_>,
    patch_type: PatchType,
    original: &Value,
    patch: &[u8],
    limits: &Limits,
) -> Result<Patched, Status> {
    let document = decode_json(patch, limits).map_err(|error| match error {
        SyntaxError::TooLarge { limit_bytes } => too_large(&format!("limit is {limit_bytes}")),
        error if patch_type == PatchType::StrategicMerge => Status::bad_request(error.to_string()),
        error => Status::bad_request(format!("error decoding patch: {error}")),
    })?;
    match patch_type {
        PatchType::Json => apply_json(schema, original, patch, &document),
        PatchType::Merge => {
            let mut object = original.clone();
            let strict = duplicates(document.root());
            merge_patch(&mut object, &patch_object(&document, "error decoding patch: ")?);
            finish(schema, original, object, patch, strict)
        }
        PatchType::StrategicMerge => apply_strategic(schema, original, &document),
    }
}

fn too_large(detail: &str) -> Status {
    Status::failure(Reason::RequestEntityTooLarge, format!("Request entity too large: {detail}"))
}

/// A refusal without a word of why, as Kubernetes gives it.
fn unprocessable() -> Status {
    Status::failure(Reason::Invalid, "the server rejected our request due to an error in our request")
        .with_details(StatusDetails::default())
}

/// The refusal of what a patch leads to.
fn invalid(shown_patch: &str, detail: &str) -> Status {
    Status::invalid("", "", "", &[field::Error::invalid(&Path::new("patch"), shown_patch, detail)])
}

fn apply_json(
    schema: Schema<'_>,
    original: &Value,
    patch: &[u8],
    document: &Document,
) -> Result<Patched, Status> {
    let mismatch = |found: &Raw, wanted: &str| {
        Status::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type {wanted}",
            found.kind_word()
        ))
    };
    let operations = match document.root() {
        Raw::Array(operations) => operations.as_slice(),
        Raw::Null => &[],
        other => return Err(mismatch(other, "[]handlers.jsonPatchOp")),
    };
    if operations.len() > MAX_JSON_PATCH_OPERATIONS {
        return Err(too_large(&format!(
            "The allowed maximum operations in a JSON patch is {MAX_JSON_PATCH_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let mut strict = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        let Raw::Object(entries) = operation else {
            return Err(mismatch(operation, "handlers.jsonPatchOp"));
        };
        for (at, (key, _)) in entries.iter().enumerate() {
            let is_known = matches!(key.as_str(), "op" | "path" | "from" | "value");
            let is_repeated = entries[..at].iter().any(|(earlier, _)| earlier == key);
            let what = match (is_known, is_repeated) {
                (false, _) => "unknown",
                (true, true) => "duplicate",
                (true, false) => continue,
            };
            strict.push(format!("json patch {what} field {}", field::go_quote(&format!("[{index}].{key}"))));
        }
    }
    let operations = document.clone().into_value();
    let object = json_patch(original.clone(), &operations).map_err(|_| unprocessable())?;
    finish(schema, original, object, patch, strict)
}

/// The result of a JSON or merge patch as an object of its type.
fn finish(
    schema: Schema<'_>,
    original: &Value,
    object: Value,
    patch: &[u8],
    mut strict: Vec<String>,
) -> Result<Patched, Status> {
    let shown = String::from_utf8_lossy(patch).into_owned();
    let document = Document::from_value(object);
    let meta = document.type_meta().map_err(|error| invalid(&shown, &error.to_string()))?;
    let (api_version, kind) = (metadata::api_version(original), metadata::kind(original));
    let is_other = |claimed: &str, own: &str| !claimed.is_empty() && claimed != own;
    if is_other(&meta.api_version, api_version) || is_other(&meta.kind, kind) {
        let detail = format!(
            "no kind {} is registered for version {} in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
            field::go_quote(&meta.kind),
            field::go_quote(&meta.api_version)
        );
        return Err(invalid(&shown, &detail));
    }
    let (mut object, found) = document.object(schema).map_err(|error| invalid(&shown, &error.to_string()))?;
    strict.extend(found.into_iter().filter(|text| !strict.contains(text)).collect::<Vec<_>>());
    claim(&mut object, original);
    Ok(Patched { object, strict, shown })
}

/// `apiVersion` and `kind` are those of the original.
fn claim(object: &mut Value, original: &Value) {
    if let Some(object) = object.as_object_mut() {
        for field in ["apiVersion", "kind"] {
            if let Some(value) = original.get(field) {
                object.insert(field.to_owned(), value.clone());
            }
        }
    }
}

fn apply_strategic(schema: Schema<'_>, original: &Value, document: &Document) -> Result<Patched, Status> {
    let mut strict = duplicates(document.root());
    let patch = patch_object(document, "")?;
    let shown = go_format::value(&patch);
    let merged = strategic_merge_patch(schema, original, &patch)?;
    let (mut object, found) =
        restore(schema, &merged).map_err(|error| invalid(&shown, &error.to_string()))?;
    strict.extend(found);
    claim(&mut object, original);
    Ok(Patched { object, strict, shown })
}

/// A patch that must be an object; `null` is an empty one.
fn patch_object(document: &Document, prefix: &str) -> Result<Value, Status> {
    match document.root() {
        Raw::Object(_) => Ok(document.clone().into_value()),
        Raw::Null => Ok(Value::Object(Map::new())),
        other => Err(Status::bad_request(format!(
            "{prefix}json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            other.kind_word()
        ))),
    }
}

/// The keys that stand twice in the same object of a patch.
fn duplicates(raw: &Raw) -> Vec<String> {
    fn walk(raw: &Raw, place: &str, found: &mut Vec<String>) {
        match raw {
            Raw::Object(entries) => {
                let mut seen = std::collections::HashSet::with_capacity(entries.len());
                for (key, value) in entries {
                    let inner = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
                    if !seen.insert(key) {
                        let text = format!("duplicate field {}", field::go_quote(&inner));
                        if found.len() < 100 && !found.contains(&text) {
                            found.push(text);
                        }
                    }
                    walk(value, &inner, found);
                }
            }
            Raw::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    walk(element, &format!("{place}[{index}]"), found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(raw, "", &mut found);
    found
}

/// Merge by RFC 7386: null removes, objects merge, everything else replaces.
pub fn merge_patch(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(target) = target.as_object_mut() else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(key);
        } else {
            merge_patch(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests;
