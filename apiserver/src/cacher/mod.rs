//! The watch cache: every object's bytes and the last events, per resource.
//!
//! Called by the registry and the HTTP layer for every read; fed by one watch of the store ([`feed::Feed`]).
//!
//! # Guarantees
//! - A watcher sees every change of its resource once and in order, or is told that it fell behind.
//! - A slow watcher keeps a cursor and nothing else: it never holds up the feed or the other watchers.
//! - Bytes are encoded once and shared.

pub mod entry;
pub mod feed;
pub mod ring;
pub mod selection;

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;
use wherry_storage::Revision;

use self::entry::{Entry, TypePrefix};
use self::ring::{Event, Ring};
use crate::registry::strategy::{Resource, Strategy};

/// Turns an object in the form in which it is stored into the form in which this resource serves it.
pub type FromStored = fn(&mut Value);

/// The objects and the last events of one resource.
pub struct Cacher {
    resource: Resource,
    strategy: Arc<dyn Strategy>,
    prefix: TypePrefix,
    from_stored: Option<FromStored>,
    state: RwLock<State>,
    changed: watch::Sender<u64>,
}

struct State {
    objects: BTreeMap<Arc<str>, Arc<Entry>>,
    ring: Ring,
    /// The revision of the last event of this resource.
    last: Revision,
}

/// A consistent view of the objects of one resource.
#[derive(Debug)]
pub struct Snapshot {
    /// The revision of the view, as far as this resource goes.
    pub revision: Revision,
    /// The objects, in key order.
    pub entries: Vec<Arc<Entry>>,
    /// The cursor of a watcher that has seen this view.
    pub cursor: u64,
}

/// The events asked for are no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("events before revision {oldest} are no longer kept")]
pub struct Expired {
    /// Events after this revision are kept.
    pub oldest: Revision,
}

impl Cacher {
    /// An empty cache of a resource.
    pub fn new(strategy: Arc<dyn Strategy>, from_stored: Option<FromStored>) -> Self {
        let resource = strategy.resource();
        Self {
            resource,
            prefix: TypePrefix::new(&resource),
            strategy,
            from_stored,
            state: RwLock::new(State { objects: BTreeMap::new(), ring: Ring::new(0), last: 0 }),
            changed: watch::channel(0).0,
        }
    }

    /// The resource.
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// The kind's strategy.
    pub fn strategy(&self) -> &dyn Strategy {
        &*self.strategy
    }

    /// How the resource's objects begin.
    pub fn prefix(&self) -> &TypePrefix {
        &self.prefix
    }

    /// The entry of an object as it is stored.
    ///
    /// # Errors
    /// When the bytes are not the JSON of an object.
    pub fn entry(&self, key: &str, stored: &Bytes, revision: Revision) -> Result<Entry, entry::NotAnObject> {
        match self.from_stored {
            None => Entry::new(&self.prefix, key.into(), stored, revision),
            Some(convert) => {
                let mut object = serde_json::from_slice(stored)?;
                convert(&mut object);
                Entry::new(&self.prefix, key.into(), &self.prefix.stored(&object), revision)
            }
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces everything; watchers have to start anew.
    fn reset(&self, objects: BTreeMap<Arc<str>, Arc<Entry>>, revision: Revision) {
        let end = {
            let mut state = self.write();
            state.objects = objects;
            state.last = revision;
            state.ring.reset(revision);
            state.ring.end()
        };
        self.changed.send_replace(end);
    }

    /// Applies changes in the order in which they were committed.
    fn apply(&self, changes: Vec<(Arc<str>, Option<Entry>, Revision)>) {
        let end = {
            let mut state = self.write();
            for (key, object, revision) in changes {
                let object = object.map(Arc::new);
                let previous = match &object {
                    Some(entry) => state.objects.insert(Arc::clone(&key), Arc::clone(entry)),
                    None => state.objects.remove(&key),
                };
                state.last = revision;
                if object.is_some() || previous.is_some() {
                    state.ring.push(Arc::new(Event::new(revision, object, previous)));
                }
            }
            state.ring.end()
        };
        self.changed.send_replace(end);
    }

    /// One object as it is now.
    pub fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.read().objects.get(key).cloned()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.read().objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All objects of a namespace, or of all namespaces. `applied` is the revision up to which the feed had applied everything
    /// before this call.
    pub fn snapshot(&self, namespace: Option<&str>, applied: Revision) -> Snapshot {
        let state = self.read();
        let entries = match namespace {
            None => state.objects.values().cloned().collect(),
            Some(namespace) => state
                .objects
                .range::<str, _>(namespace_range(&format!("{namespace}/"), &format!("{namespace}0")))
                .map(|(_, entry)| Arc::clone(entry))
                .collect(),
        };
        Snapshot { revision: applied.max(state.last), entries, cursor: state.ring.end() }
    }

    /// All objects as they were at a revision.
    ///
    /// # Errors
    /// [`Expired`] when the events since then are no longer kept.
    pub fn snapshot_at(
        &self,
        namespace: Option<&str>,
        revision: Revision,
    ) -> Result<Vec<Arc<Entry>>, Expired> {
        let state = self.read();
        let oldest = state.ring.floor();
        let mut undone: HashMap<&str, Option<&Arc<Entry>>> = HashMap::new();
        for event in state.ring.back_to(revision).ok_or(Expired { oldest })? {
            if let Some(entry) = event.object.as_ref().or(event.previous.as_ref()) {
                undone.insert(entry.key(), event.previous.as_ref());
            }
        }
        let mut objects: BTreeMap<&str, &Arc<Entry>> =
            state.objects.iter().map(|(key, entry)| (&**key, entry)).collect();
        for (key, previous) in undone {
            match previous {
                Some(entry) => objects.insert(key, entry),
                None => objects.remove(key),
            };
        }
        let kept = objects.into_values().filter(|entry| namespace.is_none_or(|n| n == entry.namespace()));
        Ok(kept.cloned().collect())
    }

    /// A watcher that has seen everything up to `revision`.
    ///
    /// # Errors
    /// [`Expired`] when events after it are no longer kept.
    pub fn watch_after(self: &Arc<Self>, revision: Revision) -> Result<Watcher, Expired> {
        let changed = self.changed.subscribe();
        let state = self.read();
        let cursor = state.ring.cursor_after(revision).ok_or(Expired { oldest: state.ring.floor() })?;
        drop(state);
        Ok(Watcher { cacher: Arc::clone(self), changed, cursor, after: revision })
    }

    /// A watcher that has seen a snapshot.
    pub fn watch_from(self: &Arc<Self>, snapshot: &Snapshot) -> Watcher {
        Watcher {
            cacher: Arc::clone(self),
            changed: self.changed.subscribe(),
            cursor: snapshot.cursor,
            after: snapshot.revision,
        }
    }
}

/// `/` is followed by `0`: the keys between are those of the namespace.
fn namespace_range<'a>(from: &'a str, to: &'a str) -> (Bound<&'a str>, Bound<&'a str>) {
    (Bound::Included(from), Bound::Excluded(to))
}

/// A reader of a resource's events: a cursor.
pub struct Watcher {
    cacher: Arc<Cacher>,
    changed: watch::Receiver<u64>,
    cursor: u64,
    after: Revision,
}

impl Watcher {
    /// The resource's cache.
    pub fn cacher(&self) -> &Arc<Cacher> {
        &self.cacher
    }

    /// The next events, at most `max`; empty if there are none yet.
    ///
    /// # Errors
    /// [`Expired`] when the watcher fell behind.
    pub fn read(&mut self, max: usize) -> Result<Vec<Arc<Event>>, Expired> {
        self.changed.mark_unchanged();
        let state = self.cacher.read();
        let mut events = state.ring.read(self.cursor, max).ok_or(Expired { oldest: state.ring.floor() })?;
        drop(state);
        self.cursor += events.len() as u64;
        events.retain(|event| event.revision > self.after);
        Ok(events)
    }

    /// Waits until there may be something to read.
    ///
    /// # Cancellation
    /// Nothing is lost.
    pub async fn changed(&mut self) {
        if *self.changed.borrow_and_update() > self.cursor {
            return;
        }
        // The sender lives in the cacher that we hold: it cannot be gone.
        let _ = self.changed.changed().await;
    }
}

#[cfg(test)]
mod tests;
