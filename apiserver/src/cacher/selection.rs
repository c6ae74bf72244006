//! Which objects a list or watch is about.

use wherry_machinery::selector::{FieldSelector, Selector};

use super::entry::Entry;
use super::ring::{Event, EventType};
use crate::registry::strategy::Strategy;

/// A namespace (or all), a label selector and a field selector.
#[derive(Debug, Clone)]
pub struct Selection {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Only this name (from the path of a watch of one object).
    pub name: Option<String>,
    /// Only objects with these labels.
    pub labels: Selector,
    /// Only objects with these fields; `None` means any.
    pub fields: Option<FieldSelector>,
    /// Whether the label selector is something other than everything.
    pub has_labels: bool,
}

impl Selection {
    /// Every object of a namespace, or of all.
    pub fn all(namespace: Option<String>) -> Self {
        Self { namespace, name: None, labels: Selector::everything(), fields: None, has_labels: false }
    }

    /// Whether selectors leave objects out (then nobody knows how many remain).
    pub fn is_partial(&self) -> bool {
        self.has_labels
            || self.name.is_some()
            || self.fields.as_ref().is_some_and(|f| !f.requirements().is_empty())
    }

    /// Whether the object is meant.
    pub fn matches(&self, strategy: &dyn Strategy, entry: &Entry) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| namespace == entry.namespace())
            && self.name.as_deref().is_none_or(|name| name == entry.name())
            && self.fields.as_ref().is_none_or(|fields| matches_fields(fields, strategy, entry))
            && (!self.has_labels || self.labels.matches(entry.labels()))
    }

    /// What a watcher with this selection is told of a change: an object that stops matching is DELETED, one that starts is ADDED.
    pub fn sees(&self, strategy: &dyn Strategy, event: &Event) -> Option<EventType> {
        let now = event.object.as_ref().is_some_and(|entry| self.matches(strategy, entry));
        let before = event.previous.as_ref().is_some_and(|entry| self.matches(strategy, entry));
        match (before, now) {
            (false, true) => Some(EventType::Added),
            (true, true) => Some(EventType::Modified),
            (true, false) => Some(EventType::Deleted),
            (false, false) => None,
        }
    }
}

fn matches_fields(selector: &FieldSelector, strategy: &dyn Strategy, entry: &Entry) -> bool {
    selector.matches(|field| match field {
        "metadata.name" => Some(entry.name()),
        "metadata.namespace" => Some(entry.namespace()),
        other => Some(entry.fields(strategy).get(other).map_or("", String::as_str)),
    })
}
