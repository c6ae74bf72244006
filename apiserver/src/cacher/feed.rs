//! The one watch of the store that feeds the cache of every resource.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wherry_storage::{Key, Prefix, Range, Revision, Store, WatchItem};

use super::Cacher;
use super::entry::Entry;

/// Pause before a broken watch of the store is begun anew; doubles up to the second value.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(2));

/// Reads the store once, then follows it.
pub struct Feed {
    store: Arc<dyn Store>,
    /// By `<group>/<resource>` as it stands in keys.
    cachers: HashMap<String, Vec<Arc<Cacher>>>,
    applied: watch::Sender<Revision>,
}

/// The cache has not reached a revision in time.
#[derive(Debug, thiserror::Error)]
#[error("the cache is at revision {current}, not yet at {requested}")]
pub struct NotYet {
    /// What was waited for.
    pub requested: Revision,
    /// Where the cache is.
    pub current: Revision,
}

/// The two parts of a key: `<group>/<resource>`, and the rest.
fn split(key: &Key) -> Option<(&str, &str)> {
    let rest = key.as_str().strip_prefix("/registry/")?;
    let group_end = rest.find('/')?;
    let resource_end = group_end + 1 + rest[group_end + 1..].find('/')?;
    Some((&rest[..resource_end], &rest[resource_end + 1..]))
}

impl Feed {
    /// A feed of nothing yet. Each cacher stands under the group and resource by which its objects are stored.
    pub fn new(store: Arc<dyn Store>, cachers: HashMap<String, Vec<Arc<Cacher>>>) -> Self {
        Self { store, cachers, applied: watch::channel(0).0 }
    }

    /// The name under which [`Feed::new`] wants the cachers of a resource.
    pub fn stored_under(group: &str, resource: &str) -> String {
        format!("{}/{resource}", if group.is_empty() { "core" } else { group })
    }

    /// Reads everything.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn load(&self) -> Result<Revision, wherry_storage::Error> {
        let range = Range { prefix: Prefix::all(), after: None, limit: 0, revision: None };
        let read = self.store.range(range).await?;
        let mut objects: HashMap<&str, Vec<(&str, Bytes, Revision)>> = HashMap::new();
        for item in &read.items {
            if let Some((resource, key)) = split(&item.key) {
                objects.entry(resource).or_default().push((key, item.value.clone(), item.mod_revision));
            }
        }
        for (resource, cachers) in &self.cachers {
            let stored = objects.get(resource.as_str()).map_or(&[][..], Vec::as_slice);
            for cacher in cachers {
                let entries: BTreeMap<Arc<str>, Arc<Entry>> = stored
                    .iter()
                    .filter_map(|(key, bytes, revision)| entry(cacher, key, bytes, *revision))
                    .map(|entry| (Arc::clone(entry.key()), Arc::new(entry)))
                    .collect();
                cacher.reset(entries, read.revision);
            }
        }
        self.applied.send_replace(read.revision);
        Ok(read.revision)
    }

    /// Follows the store from a revision (that of [`Feed::load`]) until cancelled. A broken watch is begun anew; when history
    /// is gone by then, everything is read again and watchers have to start anew.
    pub async fn run(&self, mut after: Revision, shutdown: CancellationToken) {
        let mut pause = RETRY.0;
        loop {
            let followed = tokio::select! {
                () = shutdown.cancelled() => return,
                followed = self.follow(&mut after) => followed,
            };
            let compacted = match followed {
                Err(wherry_storage::Error::Closed) => return,
                Err(error @ wherry_storage::Error::Compacted { .. }) => {
                    tracing::warn!(%error, after, "the cache fell behind the store, reading everything again");
                    true
                }
                Err(error) => {
                    tracing::warn!(%error, after, "the watch of the store broke");
                    false
                }
                Ok(()) => false,
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(RETRY.1);
            if compacted {
                match self.load().await {
                    Ok(revision) => {
                        after = revision;
                        pause = RETRY.0;
                    }
                    Err(error) => tracing::warn!(%error, "the store could not be read"),
                }
            }
        }
    }

    async fn follow(&self, after: &mut Revision) -> Result<(), wherry_storage::Error> {
        let mut changes = self.store.watch(&Prefix::all(), *after).await?;
        while let Some(item) = changes.next().await {
            match item? {
                WatchItem::Progress(revision) => *after = revision.max(*after),
                WatchItem::Events(events) => {
                    if let Some(last) = events.last().map(|event| event.revision) {
                        self.apply(events, *after);
                        *after = last.max(*after);
                    }
                }
            }
            self.applied.send_replace(*after);
        }
        Ok(())
    }

    fn apply(&self, events: Vec<wherry_storage::Event>, after: Revision) {
        type Change = (Arc<str>, Option<Entry>, Revision);
        let mut by_cacher: Vec<(&Arc<Cacher>, Vec<Change>)> = Vec::new();
        // Events at or below the last revision seen are repetitions.
        for event in events.iter().filter(|event| event.revision > after) {
            let Some((resource, key)) = split(&event.key) else { continue };
            for cacher in self.cachers.get(resource).into_iter().flatten() {
                let object = event.value.as_ref().and_then(|bytes| entry(cacher, key, bytes, event.revision));
                let change = (Arc::from(key), object, event.revision);
                match by_cacher.iter_mut().find(|(known, _)| Arc::ptr_eq(known, cacher)) {
                    Some((_, changes)) => changes.push(change),
                    None => by_cacher.push((cacher, vec![change])),
                }
            }
        }
        for (cacher, changes) in by_cacher {
            cacher.apply(changes);
        }
    }

    /// The revision up to which every resource's cache is complete.
    pub fn applied(&self) -> Revision {
        *self.applied.borrow()
    }

    /// Waits until the caches have reached a revision.
    ///
    /// # Errors
    /// [`NotYet`] when they have not in time.
    pub async fn reach(&self, revision: Revision, patience: Duration) -> Result<(), NotYet> {
        if self.applied() >= revision {
            return Ok(());
        }
        let mut applied = self.applied.subscribe();
        let reached = tokio::time::timeout(patience, applied.wait_for(|current| *current >= revision)).await;
        match reached {
            Ok(Ok(_)) => Ok(()),
            _ => Err(NotYet { requested: revision, current: self.applied() }),
        }
    }
}

fn entry(cacher: &Cacher, key: &str, bytes: &Bytes, revision: Revision) -> Option<Entry> {
    match cacher.entry(key, bytes, revision) {
        Ok(entry) => Some(entry),
        Err(error) => {
            tracing::error!(%error, key, resource = cacher.resource().name, "a stored object cannot be read");
            None
        }
    }
}
