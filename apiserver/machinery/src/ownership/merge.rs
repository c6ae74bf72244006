//! A live object with what somebody applies laid over it.
//!
//! Source: structured-merge-diff's `Merge`, whose order of list elements this keeps.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::element::PathElement;
use super::shape::{Identity, Parts, element_of, parts};
use crate::schema::Schema;

/// The live value with the applied one over it. Nothing is removed.
pub(super) fn merge(schema: Schema<'_>, live: &Value, applied: &Value) -> Value {
    merged(Some(schema), Some(live), Some(applied)).unwrap_or(Value::Null)
}

fn merged(schema: Option<Schema<'_>>, live: Option<&Value>, applied: Option<&Value>) -> Option<Value> {
    let (Some(schema), Some(one)) = (schema, applied.or(live)) else {
        return applied.or(live).cloned();
    };
    match parts(schema, one) {
        Parts::Leaf => applied.or(live).cloned(),
        Parts::Map => {
            let schema = schema.for_value(one);
            let (old, new) = (live.and_then(Value::as_object), applied.and_then(Value::as_object));
            if old.is_none_or(Map::is_empty) && new.is_none_or(Map::is_empty) {
                return applied.or(live).cloned();
            }
            let names: BTreeSet<&String> =
                old.into_iter().chain(new).flat_map(|fields| fields.keys()).collect();
            let mut out = Map::new();
            for name in names {
                let (old, new) =
                    (old.and_then(|fields| fields.get(name)), new.and_then(|fields| fields.get(name)));
                if let Some(value) = merged(schema.at_field(name), old, new) {
                    out.insert(name.clone(), value);
                }
            }
            Some(Value::Object(out))
        }
        Parts::List { items, identity } => {
            let (old, new) = (live.and_then(Value::as_array), applied.and_then(Value::as_array));
            if old.is_none_or(Vec::is_empty) && new.is_none_or(Vec::is_empty) {
                return applied.or(live).cloned();
            }
            let empty = Vec::new();
            Some(Value::Array(merged_list(items, identity, old.unwrap_or(&empty), new.unwrap_or(&empty))))
        }
    }
}

struct Indexed<'a> {
    steps: Vec<PathElement>,
    elements: Vec<&'a Value>,
    by_step: BTreeMap<PathElement, &'a Value>,
}

impl<'a> Indexed<'a> {
    fn new(items: Schema<'_>, identity: Identity<'_>, elements: &'a [Value]) -> Self {
        let mut indexed = Self { steps: Vec::new(), elements: Vec::new(), by_step: BTreeMap::new() };
        let mut twice = BTreeSet::new();
        for element in elements {
            let Ok(step) = element_of(items, identity, element) else { continue };
            if indexed.by_step.insert(step.clone(), element).is_some() {
                twice.insert(step.clone());
            }
            indexed.steps.push(step);
            indexed.elements.push(element);
        }
        // Of those that share a key none is the one.
        indexed.by_step.retain(|step, _| !twice.contains(step));
        indexed
    }
}

/// The order of what is applied, with what is live only at the places where it stood.
fn merged_list(items: Schema<'_>, identity: Identity<'_>, live: &[Value], applied: &[Value]) -> Vec<Value> {
    let (old, new) = (Indexed::new(items, identity, live), Indexed::new(items, identity, applied));
    let old_steps: BTreeSet<&PathElement> = old.steps.iter().collect();
    let new_steps: BTreeSet<&PathElement> = new.steps.iter().collect();
    let mut shared: VecDeque<&PathElement> =
        new.steps.iter().filter(|step| old_steps.contains(step)).collect();
    let mut next_shared = shared.pop_front();
    let mut done: BTreeSet<&PathElement> = BTreeSet::new();
    let mut out = Vec::with_capacity(live.len().max(applied.len()));
    let item = |old: Option<&Value>, new: Option<&Value>| merged(Some(items), old, new);
    let (mut l, mut r) = (0, 0);
    while l < old.steps.len() || r < new.steps.len() {
        if let (Some(left), Some(right)) = (old.steps.get(l), new.steps.get(r)) {
            if left == right {
                done.insert(right);
                out.extend(item(old.by_step.get(left).copied(), Some(new.elements[r])));
                (l, r) = (l + 1, r + 1);
                next_shared = shared.pop_front();
                continue;
            }
            if new_steps.contains(left) && next_shared.is_some_and(|next| next != left) {
                // Shared, and its turn comes later.
                l += 1;
                continue;
            }
        }
        if let Some(left) = old.steps.get(l) {
            if !new_steps.contains(left) {
                out.extend(item(Some(old.elements[l]), None));
                l += 1;
                continue;
            }
            if done.contains(left) {
                l += 1;
            }
        }
        if let Some(right) = new.steps.get(r) {
            done.insert(right);
            out.extend(item(old.by_step.get(right).copied(), Some(new.elements[r])));
            r += 1;
            if next_shared == Some(right) {
                next_shared = shared.pop_front();
            }
        }
    }
    out
}
