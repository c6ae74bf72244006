//! Strategic merge patch: lists merge by the keys that the schema names, and directives say what a merge cannot.
//!
//! Directives: `$patch: replace` and `$patch: delete` in objects and in list elements, `$retainKeys`,
//! `$deleteFromPrimitiveList/<field>`, `$setElementOrder/<field>`.

use serde_json::{Map, Value};

use super::element_order::arrange;
use super::go_format;
use crate::schema::{PatchStrategy, Schema, Shape};
use crate::status::{Reason, Status};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// Why a strategic merge patch cannot be applied, in Kubernetes' words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StrategicPatchError {
    /// `$patch` has a value that is not known.
    #[error("unknown patch type: {directive} in map: {map}")]
    UnknownDirective {
        /// The value.
        directive: String,
        /// The object it stands in, as Go prints it.
        map: String,
    },
    /// An element of a merged list does not say which one it is.
    #[error("map: {map} does not contain declared merge key: {key}")]
    NoMergeKey {
        /// The element, as Go prints it.
        map: String,
        /// The merge key.
        key: String,
    },
    /// Elements of different types in lists that are to be merged.
    #[error("list element types are not identical: {0}")]
    MixedElements(String),
    /// Lists of lists cannot be merged.
    #[error("lists of lists are not supported")]
    ListOfLists,
    /// `$patch: merge` in a list element.
    #[error("merging lists cannot yet be specified in the patch")]
    MergeDirective,
    /// `$retainKeys` is no list, or does not list a field of the patch.
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    /// `$setElementOrder` is no list, or the list it orders is none.
    #[error("expected a []interface {{}}, but received a {0}")]
    NotAList(&'static str),
    /// `$setElementOrder` does not have the elements of the patch in their order.
    #[error("The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{order}\n")]
    Order {
        /// The patch's list, as Go prints it.
        patch: String,
        /// The order, as Go prints it.
        order: String,
    },
    /// A merged list of objects without merge key.
    #[error("cannot merge lists without merge key for {0}")]
    NoDeclaredMergeKey(String),
}

impl From<StrategicPatchError> for Status {
    fn from(error: StrategicPatchError) -> Self {
        match error {
            StrategicPatchError::RetainKeys => Status::bad_request(error.to_string()),
            StrategicPatchError::ListOfLists => super::unprocessable(),
            // Kubernetes lets these through as they are.
            error => Status::failure(Reason::Unknown, error.to_string()),
        }
    }
}

type Object = Map<String, Value>;

/// Merge a patch into an object of a type.
///
/// # Errors
/// [`StrategicPatchError`] when the patch does not say what it must.
pub fn strategic_merge_patch(
    schema: Schema<'_>,
    original: &Value,
    patch: &Value,
) -> Result<Value, StrategicPatchError> {
    let original = original.as_object().cloned().unwrap_or_default();
    let patch = patch.as_object().cloned().unwrap_or_default();
    merge_objects(Some(schema), original, patch).map(Value::Object)
}

/// What the schema says of the member `name` of an object.
fn member<'a>(schema: Option<Schema<'a>>, name: &str) -> (Option<Schema<'a>>, PatchStrategy) {
    let Some(schema) = schema else { return (None, PatchStrategy::default()) };
    match schema.shape() {
        Shape::Map { values, .. } => (Some(values), PatchStrategy::default()),
        Shape::Object { .. } => match schema.field(name) {
            Some(field) => (Some(field.schema()), field.patch().clone()),
            None => (None, PatchStrategy::default()),
        },
        // A schema of JSON Schema in a custom resource definition.
        Shape::Either { object, .. } => member(Some(object), name),
        _ => (None, PatchStrategy::default()),
    }
}

fn merge_objects(
    schema: Option<Schema<'_>>,
    mut original: Object,
    mut patch: Object,
) -> Result<Object, StrategicPatchError> {
    if let Some(directive) = patch.get(PATCH) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(PATCH);
                Ok(patch)
            }
            Some("delete") => Ok(Object::new()),
            _ => Err(unknown_directive(directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered(schema, &mut original, &mut patch)?;
    for (key, value) in patch {
        let (name, is_deletion) = match key.strip_prefix(DELETE_FROM) {
            Some(name) => (name.to_owned(), true),
            None => (key, false),
        };
        if value.is_null() {
            original.remove(&name);
            continue;
        }
        let (inner, strategy) = member(schema, &name);
        let merged = match (original.remove(&name), value) {
            (None, _) if is_deletion => continue,
            (None, value) => match without_instructions(value) {
                Some(value) => value,
                None => continue,
            },
            (Some(Value::Object(before)), Value::Object(change)) => {
                if strategy.replaces {
                    Value::Object(change)
                } else {
                    Value::Object(merge_objects(inner, before, change)?)
                }
            }
            (Some(Value::Array(before)), Value::Array(change)) => {
                if is_deletion {
                    Value::Array(before.into_iter().filter(|element| !change.contains(element)).collect())
                } else if strategy.merges {
                    Value::Array(merge_lists(inner, &strategy, before, change)?)
                } else {
                    Value::Array(change)
                }
            }
            (Some(before), _) if is_deletion => before,
            (Some(_), value) => match without_instructions(value) {
                Some(value) => value,
                None => continue,
            },
        };
        original.insert(name, merged);
    }
    Ok(original)
}

fn unknown_directive(directive: &Value, map: &Object) -> StrategicPatchError {
    StrategicPatchError::UnknownDirective {
        directive: go_format::value(directive),
        map: go_format::value(&Value::Object(map.clone())),
    }
}

fn no_merge_key(element: &Value, key: &str) -> StrategicPatchError {
    StrategicPatchError::NoMergeKey { map: go_format::value(element), key: key.to_owned() }
}

/// `$retainKeys`: everything that it does not list goes.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), StrategicPatchError> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let kept = directive.as_array().ok_or(StrategicPatchError::RetainKeys)?;
    let is_kept = |name: &str| kept.iter().any(|key| key.as_str() == Some(name));
    for (key, value) in &*patch {
        let is_directive = key.starts_with(DELETE_FROM) || key.starts_with(SET_ORDER);
        if !value.is_null() && !is_directive && !is_kept(key) {
            return Err(StrategicPatchError::RetainKeys);
        }
    }
    original.retain(|key, _| is_kept(key));
    Ok(())
}

fn list_of<'a>(object: &'a Object, name: &str) -> Result<Option<&'a Vec<Value>>, StrategicPatchError> {
    match object.get(name) {
        None => Ok(None),
        Some(Value::Array(elements)) => Ok(Some(elements)),
        Some(other) => Err(StrategicPatchError::NotAList(go_kind(other))),
    }
}

fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// `$setElementOrder` and the lists it orders; both are taken out of the patch.
fn merge_ordered(
    schema: Option<Schema<'_>>,
    original: &mut Object,
    patch: &mut Object,
) -> Result<(), StrategicPatchError> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(SET_ORDER)).cloned().collect();
    for directive in directives {
        let name = directive.strip_prefix(SET_ORDER).unwrap_or_default();
        let order = match patch.remove(&directive) {
            Some(Value::Array(order)) => order,
            Some(other) => return Err(StrategicPatchError::NotAList(go_kind(&other))),
            None => continue,
        };
        let before = list_of(original, name)?.cloned();
        let change = list_of(patch, name)?.cloned();
        let (inner, strategy) = member(schema, name);
        let key = strategy.merge_key.as_deref();
        if let Some(change) = &change {
            check_order(change, &order, key)?;
        }
        let server_order = before.clone().unwrap_or_default();
        let merged = match (before, change) {
            (None, None) => continue,
            (Some(before), None) => before,
            (None, Some(change)) => change.into_iter().filter_map(without_instructions).collect(),
            (Some(before), Some(change)) if strategy.merges => merge_lists(inner, &strategy, before, change)?,
            (Some(_), Some(change)) => change,
        };
        for element in &merged {
            if let Some(key) = key.filter(|key| element.get(*key).is_none()) {
                return Err(no_merge_key(element, key));
            }
        }
        original.insert(name.to_owned(), Value::Array(arrange(merged, &order, &server_order, key)));
        patch.remove(name);
    }
    Ok(())
}

/// The elements of the patch's list must stand in `$setElementOrder` in the same order; elements to delete need not.
fn check_order(change: &[Value], order: &[Value], key: Option<&str>) -> Result<(), StrategicPatchError> {
    let is_deletion = |element: &Value| element.get(PATCH).and_then(Value::as_str) == Some("delete");
    let is_same = |a: &Value, b: &Value| match key {
        Some(key) => a.get(key) == b.get(key),
        None => a == b,
    };
    let mut places = order.iter();
    for element in change.iter().filter(|element| !is_deletion(element)) {
        if !places.any(|place| is_same(place, element)) {
            return Err(StrategicPatchError::Order {
                patch: go_format::list(change),
                order: go_format::list(order),
            });
        }
    }
    Ok(())
}

/// Merge two lists whose strategy is to merge.
fn merge_lists(
    items: Option<Schema<'_>>,
    strategy: &PatchStrategy,
    before: Vec<Value>,
    change: Vec<Value>,
) -> Result<Vec<Value>, StrategicPatchError> {
    let items = items.and_then(|list| match list.shape() {
        Shape::List { items, .. } => Some(items),
        _ => None,
    });
    let Some(is_of_objects) = element_kind(&before, &change)? else { return Ok(before) };
    if !is_of_objects {
        let server_order = [before.as_slice(), change.as_slice()].concat();
        let mut merged: Vec<Value> = Vec::with_capacity(server_order.len());
        for element in &server_order {
            if !merged.contains(element) {
                merged.push(element.clone());
            }
        }
        return Ok(arrange(merged, &change, &before, None));
    }
    let key = strategy.merge_key.as_deref().ok_or_else(|| {
        StrategicPatchError::NoDeclaredMergeKey(
            items.and_then(Schema::short_name).unwrap_or("a list").to_owned(),
        )
    })?;
    let (mut merged, change) = special_elements(before, change, key)?;
    let server_order = merged.clone();
    for element in &change {
        let value = element.get(key).ok_or_else(|| no_merge_key(element, key))?;
        let Value::Object(fields) = element.clone() else { continue };
        match merged.iter_mut().find(|candidate| candidate.get(key) == Some(value)) {
            Some(found) => {
                let before = found.as_object().cloned().unwrap_or_default();
                *found = Value::Object(merge_objects(items, before, fields)?);
            }
            None => merged.push(Value::Object(fields)),
        }
    }
    for element in &merged {
        if element.get(key).is_none() {
            return Err(no_merge_key(element, key));
        }
    }
    Ok(arrange(merged, &change, &server_order, Some(key)))
}

/// Whether the elements are objects; `None` if there are none. All must be of one type.
fn element_kind(before: &[Value], change: &[Value]) -> Result<Option<bool>, StrategicPatchError> {
    let mut first: Option<&'static str> = None;
    for element in before.iter().chain(change) {
        let kind = go_kind(element);
        match first {
            None if element.is_array() => return Err(StrategicPatchError::ListOfLists),
            None => first = Some(kind),
            Some(first) if first != kind => {
                return Err(StrategicPatchError::MixedElements(format!(
                    "[{} {}]",
                    go_format::list(before),
                    go_format::list(change)
                )));
            }
            Some(_) => {}
        }
    }
    Ok(first.map(|kind| kind == "map[string]interface {}"))
}

/// Elements with `$patch`: deletions are carried out, and a replacement empties the list. What is left of the patch is
/// second.
fn special_elements(
    mut before: Vec<Value>,
    change: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), StrategicPatchError> {
    let mut plain = Vec::with_capacity(change.len());
    let mut is_replacement = false;
    for element in change {
        match element.get(PATCH) {
            None => plain.push(element),
            Some(directive) => match directive.as_str() {
                Some("delete") => {
                    let value = element.get(key).ok_or_else(|| no_merge_key(&element, key))?;
                    before.retain(|candidate| candidate.get(key) != Some(value));
                }
                Some("replace") => is_replacement = true,
                Some("merge") => return Err(StrategicPatchError::MergeDirective),
                _ => {
                    let map = element.as_object().cloned().unwrap_or_default();
                    return Err(unknown_directive(directive, &map));
                }
            },
        }
    }
    if is_replacement { Ok((plain, Vec::new())) } else { Ok((before, plain)) }
}

/// A value of the patch where the original has nothing to merge with: nulls in it mean nothing, and an object with `$patch`
/// is an instruction, not a value.
fn without_instructions(value: Value) -> Option<Value> {
    Some(match value {
        Value::Object(object) if object.contains_key(PATCH) => return None,
        Value::Object(object) => Value::Object(
            object
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .filter_map(|(key, value)| Some((key, without_instructions(value)?)))
                .collect(),
        ),
        Value::Array(elements) => {
            Value::Array(elements.into_iter().filter_map(without_instructions).collect())
        }
        value => value,
    })
}
