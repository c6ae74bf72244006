//! Sets of paths, and their form in `metadata.managedFields[].fieldsV1`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::element::PathElement;
use crate::schema::{Schema, Shape};

/// The deepest `fieldsV1` that is read.
const MAX_DEPTH: usize = 256;

/// A set of paths. The path of no elements, the whole object, is never in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    members: BTreeSet<PathElement>,
    /// Never an empty set.
    children: BTreeMap<PathElement, FieldSet>,
}

/// Not a `fieldsV1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed fieldsV1")]
pub struct Malformed;

impl FieldSet {
    /// A set of these paths of fields.
    pub fn of_fields(paths: &[&[&str]]) -> Self {
        let mut set = Self::default();
        for path in paths {
            let path: Vec<_> = path.iter().map(|name| PathElement::field(*name)).collect();
            set.insert(&path);
        }
        set
    }

    /// Whether there is no path in it.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    /// Adds a path.
    pub fn insert(&mut self, path: &[PathElement]) {
        match path {
            [] => {}
            [last] => {
                self.members.insert(last.clone());
            }
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    /// Whether the path is in it.
    pub fn has(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [last] => self.members.contains(last),
            [first, rest @ ..] => self.children.get(first).is_some_and(|child| child.has(rest)),
        }
    }

    /// Whether the path of this one element is in it.
    pub(super) fn has_element(&self, element: &PathElement) -> bool {
        self.members.contains(element)
    }

    /// What is in it below this element.
    pub(super) fn below(&self, element: &PathElement) -> Option<&Self> {
        self.children.get(element)
    }

    /// The paths of both.
    #[must_use]
    pub fn union(mut self, other: &Self) -> Self {
        self.members.extend(other.members.iter().cloned());
        for (element, child) in &other.children {
            let own = self.children.remove(element).unwrap_or_default();
            self.children.insert(element.clone(), own.union(child));
        }
        self
    }

    /// The paths that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let children = self.children.iter().filter_map(|(element, child)| {
            let both = child.intersection(other.children.get(element)?);
            (!both.is_empty()).then(|| (element.clone(), both))
        });
        Self {
            members: self.members.intersection(&other.members).cloned().collect(),
            children: children.collect(),
        }
    }

    /// The paths that are not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.without(other, false)
    }

    /// The paths that are neither in the other nor below one that is.
    #[must_use]
    pub fn recursive_difference(&self, other: &Self) -> Self {
        self.without(other, true)
    }

    fn without(&self, other: &Self, is_recursive: bool) -> Self {
        let children = self.children.iter().filter_map(|(element, child)| {
            if is_recursive && other.members.contains(element) {
                return None;
            }
            let left = match other.children.get(element) {
                Some(taken) => child.without(taken, is_recursive),
                None => child.clone(),
            };
            (!left.is_empty()).then(|| (element.clone(), left))
        });
        Self {
            members: self.members.difference(&other.members).cloned().collect(),
            children: children.collect(),
        }
    }

    /// The set with every field of an object type that has something below it as a member, too.
    #[must_use]
    pub fn with_named_fields(&self, schema: Option<Schema<'_>>) -> Self {
        let mut members = self.members.clone();
        let mut children = BTreeMap::new();
        for (element, child) in &self.children {
            let below = match element {
                PathElement::Field(name) => {
                    if schema.is_some_and(|schema| schema.field(name).is_some()) {
                        members.insert(element.clone());
                    }
                    schema.and_then(|schema| schema.at_field(name))
                }
                PathElement::Key(_) => schema.and_then(|schema| match schema.shape() {
                    Shape::List { items, .. } => Some(items),
                    _ => None,
                }),
                PathElement::Value(_) | PathElement::Index(_) => None,
            };
            children.insert(element.clone(), child.with_named_fields(below));
        }
        Self { members, children }
    }

    /// All paths, in order.
    pub fn paths(&self) -> Vec<Vec<PathElement>> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect(&self, prefix: &mut Vec<PathElement>, paths: &mut Vec<Vec<PathElement>>) {
        for element in &self.members {
            prefix.push(element.clone());
            paths.push(prefix.clone());
            prefix.pop();
        }
        for (element, child) in &self.children {
            prefix.push(element.clone());
            child.collect(prefix, paths);
            prefix.pop();
        }
    }

    /// As `fieldsV1`.
    pub fn to_fields_v1(&self) -> Value {
        Value::Object(self.to_map())
    }

    fn to_map(&self) -> Map<String, Value> {
        let mut map = Map::new();
        for element in &self.members {
            map.insert(element.to_key(), Value::Object(Map::new()));
        }
        for (element, child) in &self.children {
            let mut below = child.to_map();
            if self.members.contains(element) {
                below.insert(".".to_owned(), Value::Object(Map::new()));
            }
            map.insert(element.to_key(), Value::Object(below));
        }
        map
    }

    /// From `fieldsV1`.
    ///
    /// # Errors
    /// [`Malformed`] when it is not one, or too deep.
    pub fn from_fields_v1(fields: &Value) -> Result<Self, Malformed> {
        let Value::Object(map) = fields else { return Err(Malformed) };
        Self::from_map(map, MAX_DEPTH)
    }

    fn from_map(map: &Map<String, Value>, depth: usize) -> Result<Self, Malformed> {
        let depth = depth.checked_sub(1).ok_or(Malformed)?;
        let mut set = Self::default();
        for (key, below) in map {
            let Value::Object(below) = below else { return Err(Malformed) };
            if key == "." {
                continue;
            }
            let element = PathElement::from_key(key).ok_or(Malformed)?;
            if below.is_empty() || below.contains_key(".") {
                set.members.insert(element.clone());
            }
            let child = Self::from_map(below, depth)?;
            if !child.is_empty() {
                set.children.insert(element, child);
            }
        }
        Ok(set)
    }
}
