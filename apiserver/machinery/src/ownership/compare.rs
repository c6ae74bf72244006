//! What changed between two values of a type.
//!
//! Source: structured-merge-diff's `Compare`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::element::PathElement;
use super::set::FieldSet;
use super::shape::{Parts, element_of, parts};
use crate::schema::Schema;

/// The paths that are new, different or gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// In the new value only.
    pub added: FieldSet,
    /// In both, with different values.
    pub modified: FieldSet,
    /// In the old value only.
    pub removed: FieldSet,
}

impl Comparison {
    /// Whether nothing changed.
    pub fn is_same(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// The same without these fields and what is below them.
    #[must_use]
    pub fn without(self, fields: &FieldSet) -> Self {
        if fields.is_empty() {
            return self;
        }
        Self {
            added: self.added.recursive_difference(fields),
            modified: self.modified.recursive_difference(fields),
            removed: self.removed.recursive_difference(fields),
        }
    }
}

/// Compare two values of a type.
pub fn compare(schema: Schema<'_>, old: &Value, new: &Value) -> Comparison {
    let mut comparison = Comparison::default();
    visit(Some(schema), Some(old), Some(new), &mut Vec::new(), &mut comparison);
    comparison
}

fn visit(
    schema: Option<Schema<'_>>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<PathElement>,
    found: &mut Comparison,
) {
    if let (Some(old), Some(new)) = (old, new)
        && old == new
    {
        return;
    }
    if !descend(schema, old, new, path, found) {
        leaf(old, new, path, found);
        return;
    }
    match (old, new) {
        (None, Some(_)) => found.added.insert(path),
        (Some(_), None) => found.removed.insert(path),
        _ => {}
    }
}

/// Compares the parts, if the values have parts; otherwise answers false.
fn descend(
    schema: Option<Schema<'_>>,
    old: Option<&Value>,
    new: Option<&Value>,
    path: &mut Vec<PathElement>,
    found: &mut Comparison,
) -> bool {
    let (Some(schema), Some(one)) = (schema, new.or(old)) else { return false };
    match parts(schema, one) {
        Parts::Map => {
            let schema = schema.for_value(one);
            let (old, new) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
            // Nothing on both sides is one thing: there are no parts to tell apart.
            if old.is_none_or(serde_json::Map::is_empty) && new.is_none_or(serde_json::Map::is_empty) {
                return false;
            }
            let names = old.into_iter().chain(new).flat_map(|fields| fields.keys());
            let names: std::collections::BTreeSet<&String> = names.collect();
            for name in names {
                let (old, new) =
                    (old.and_then(|fields| fields.get(name)), new.and_then(|fields| fields.get(name)));
                path.push(PathElement::field(name));
                visit(schema.at_field(name), old, new, path, found);
                path.pop();
            }
            true
        }
        Parts::List { items, identity } => {
            let (old, new) = (old.and_then(Value::as_array), new.and_then(Value::as_array));
            if old.is_none_or(Vec::is_empty) && new.is_none_or(Vec::is_empty) {
                return false;
            }
            let index = |elements: Option<&Vec<Value>>| -> BTreeMap<PathElement, Vec<usize>> {
                let mut index: BTreeMap<PathElement, Vec<usize>> = BTreeMap::new();
                for (at, element) in elements.into_iter().flatten().enumerate() {
                    if let Ok(step) = element_of(items, identity, element) {
                        index.entry(step).or_default().push(at);
                    }
                }
                index
            };
            let (old_index, new_index) = (index(old), index(new));
            let steps: std::collections::BTreeSet<&PathElement> =
                old_index.keys().chain(new_index.keys()).collect();
            for step in steps {
                let (old, new) = (places(&old_index, step, old), places(&new_index, step, new));
                path.push(step.clone());
                if old.len() > 1 || new.len() > 1 {
                    // Elements that share a key are one thing.
                    if old != new {
                        leaf_changed(!old.is_empty(), !new.is_empty(), path, found);
                    }
                } else {
                    visit(Some(items), old.first().copied(), new.first().copied(), path, found);
                }
                path.pop();
            }
            true
        }
        Parts::Leaf => false,
    }
}

fn places<'a>(
    index: &BTreeMap<PathElement, Vec<usize>>,
    step: &PathElement,
    elements: Option<&'a Vec<Value>>,
) -> Vec<&'a Value> {
    let at = index.get(step).into_iter().flatten();
    at.filter_map(|at| elements.and_then(|elements| elements.get(*at))).collect()
}

fn leaf(old: Option<&Value>, new: Option<&Value>, path: &[PathElement], found: &mut Comparison) {
    if old != new {
        leaf_changed(old.is_some(), new.is_some(), path, found);
    }
}

fn leaf_changed(was: bool, is: bool, path: &[PathElement], found: &mut Comparison) {
    match (was, is) {
        (false, _) => found.added.insert(path),
        (true, false) => found.removed.insert(path),
        (true, true) => found.modified.insert(path),
    }
}
