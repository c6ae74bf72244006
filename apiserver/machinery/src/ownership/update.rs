//! How ownership moves when an object is written.
//!
//! Source: structured-merge-diff's `merge.Updater`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::check::field_set;
use super::compare::{Comparison, compare};
use super::element::{PathElement, path_text};
use super::managed::{Managed, Manager, Operation, Owned};
use super::merge::merge;
use super::remove::remove;
use super::set::FieldSet;
use crate::schema::Schema;

/// A field that somebody else owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Whose it is.
    pub manager: Manager,
    /// Of which version.
    pub api_version: String,
    /// The field.
    pub path: Vec<PathElement>,
}

impl Conflict {
    /// `conflict with "first" using v1 with subresource "status"`.
    pub fn message(&self, time: Option<&str>) -> String {
        let mut text = format!("conflict with {}", crate::field::go_quote(&self.manager.name));
        if !self.manager.subresource.is_empty() {
            text.push_str(&format!(
                " with subresource {}",
                crate::field::go_quote(&self.manager.subresource)
            ));
        }
        if self.manager.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
            if let Some(time) = time {
                text.push_str(&format!(" at {time}"));
            }
        }
        text
    }

    /// `.spec.replicas`.
    pub fn field(&self) -> String {
        path_text(&self.path)
    }
}

/// Who writes, and how.
#[derive(Debug, Clone)]
pub struct Writer<'a> {
    /// The manager.
    pub manager: Manager,
    /// The version that the object is written in.
    pub api_version: &'a str,
    /// Now, as in JSON; `None` leaves the time of what is taken open.
    pub now: Option<&'a str>,
    /// Fields that this way of writing leaves as they are: nobody comes to own them by it.
    pub reset: &'a FieldSet,
}

/// What no manager ever owns.
fn never_owned() -> FieldSet {
    FieldSet::of_fields(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
}

/// At most so many managers that update; the oldest become one. Source: `DefaultMaxUpdateManagers`.
const MAX_UPDATERS: usize = 10;

/// The name of what the oldest become.
const ANCIENT: &str = "ancient-changes";

/// The managers after a write that is no apply. Neither object has `metadata.managedFields`.
#[must_use]
pub fn updated(
    schema: Schema<'_>,
    live: &Value,
    new: &Value,
    managed: Managed,
    writer: &Writer<'_>,
) -> Managed {
    let comparison = compare(schema, live, new).without(writer.reset);
    let mut managed = managed;
    if !comparison.is_same() {
        yield_fields(&mut managed, &comparison, None);
        let taken = comparison.modified.union(&comparison.added);
        let taken = taken.difference(&never_owned());
        if !taken.is_empty() {
            let entry = managed.0.entry(writer.manager.clone()).or_insert_with(|| Owned {
                fields: FieldSet::default(),
                api_version: writer.api_version.to_owned(),
                time: None,
            });
            entry.fields = std::mem::take(&mut entry.fields).union(&taken);
            entry.time = writer.now.map(str::to_owned);
        }
    }
    cap(&mut managed);
    managed
}

/// The object and the managers after an apply. `live` is the object as it is, without `metadata.managedFields`.
///
/// # Errors
/// The fields that others own and that this would change, unless `force`.
pub fn applied(
    schema: Schema<'_>,
    live: &Value,
    config: &Value,
    managed: &Managed,
    writer: &Writer<'_>,
    force: bool,
) -> Result<(Value, Managed), Vec<Conflict>> {
    let mut managed = managed.clone();
    let merged = merge(schema, live, config);
    let last = managed.0.remove(&writer.manager);
    let fields = field_set(schema, config).recursive_difference(writer.reset);
    let time = last.as_ref().and_then(|last| last.time.clone());
    let owned = Owned { fields, api_version: writer.api_version.to_owned(), time };
    managed.0.insert(writer.manager.clone(), owned);
    let object = match &last {
        Some(last) if !last.fields.is_empty() => pruned(schema, &merged, &managed, &last.fields),
        _ => merged,
    };
    let comparison = compare(schema, live, &object).without(writer.reset);
    let conflicts = conflicts(&managed, &comparison, &writer.manager);
    if !conflicts.is_empty() && !force {
        return Err(conflicts);
    }
    yield_fields(&mut managed, &comparison, Some(&writer.manager));
    let never = never_owned();
    if let Some(owned) = managed.0.get_mut(&writer.manager) {
        owned.fields = owned.fields.difference(&never);
        if !comparison.is_same() {
            owned.time = writer.now.map(str::to_owned);
        }
    }
    managed.0.retain(|_, owned| !owned.fields.is_empty());
    Ok((object, managed))
}

fn conflicts(managed: &Managed, comparison: &Comparison, own: &Manager) -> Vec<Conflict> {
    let changed = comparison.modified.clone().union(&comparison.added);
    let others = managed.0.iter().filter(|(manager, _)| *manager != own);
    others
        .flat_map(|(manager, owned)| {
            owned.fields.intersection(&changed).paths().into_iter().map(|path| Conflict {
                manager: manager.clone(),
                api_version: owned.api_version.clone(),
                path,
            })
        })
        .collect()
}

/// Everybody but `own` loses what was changed or removed.
fn yield_fields(managed: &mut Managed, comparison: &Comparison, own: Option<&Manager>) {
    let lost = comparison.modified.clone().union(&comparison.added).union(&comparison.removed);
    for (manager, owned) in &mut managed.0 {
        if Some(manager) != own {
            owned.fields = owned.fields.difference(&lost);
        }
    }
    managed.0.retain(|_, owned| !owned.fields.is_empty());
}

/// Without what the manager applied the last time, does not any more, and nobody else owns.
fn pruned(schema: Schema<'_>, merged: &Value, managed: &Managed, last: &FieldSet) -> Value {
    let named = |set: &FieldSet| set.with_named_fields(Some(schema));
    let pruned = remove(schema, merged, &named(last));
    let merged_set = named(&field_set(schema, merged));
    // Back comes what anybody owns now ...
    let all_owned = managed.0.values().fold(FieldSet::default(), |all, owned| all.union(&owned.fields));
    let keep = named(&field_set(schema, &pruned)).union(&named(&all_owned));
    let pruned = remove(schema, merged, &merged_set.difference(&keep));
    // ... and what is gone with its parent alone.
    let pruned_set = named(&field_set(schema, &pruned));
    remove(schema, merged, &merged_set.difference(&pruned_set).intersection(&named(last)))
}

/// Merges the oldest of too many updaters.
fn cap(managed: &mut Managed) {
    let mut updaters: Vec<Manager> =
        managed.0.keys().filter(|manager| manager.operation == Operation::Update).cloned().collect();
    let mut count = updaters.len();
    if count <= MAX_UPDATERS {
        return;
    }
    updaters.sort_by_key(|manager| {
        (managed.0.get(manager).and_then(|owned| owned.time.clone()), manager.clone())
    });
    let mut first_of: BTreeMap<String, Manager> = BTreeMap::new();
    for manager in updaters {
        if count <= MAX_UPDATERS {
            return;
        }
        let Some(version) = managed.0.get(&manager).map(|owned| owned.api_version.clone()) else { continue };
        let Some(first) = first_of.get(&version) else {
            first_of.insert(version, manager);
            continue;
        };
        let bucket = Manager::new(ANCIENT, Operation::Update, &version, "");
        if !managed.0.contains_key(&bucket)
            && let Some(owned) = managed.0.remove(first)
        {
            managed.0.insert(bucket.clone(), owned);
        }
        if bucket == manager {
            continue;
        }
        if let Some(merged) = managed.0.remove(&manager)
            && let Some(bucket) = managed.0.get_mut(&bucket)
        {
            bucket.fields = std::mem::take(&mut bucket.fields).union(&merged.fields);
            bucket.time = merged.time;
            count -= 1;
        }
    }
}
