//! GET and LIST: which state of the cache answers.

use std::sync::Arc;

use serde_json::Value;
use wherry_machinery::status::Status;
use wherry_storage::{Prefix, Range, Revision};

use super::{FRESHNESS, Kind, Refusal, Registry, store_failed, too_large_version};
use crate::cacher::Snapshot;
use crate::cacher::entry::Entry;

/// Which state a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListVersion {
    /// The newest (consistent read).
    Latest,
    /// Whatever the cache has.
    Any,
    /// At least this.
    NotOlderThan(Revision),
    /// Exactly this.
    Exact(Revision),
}

impl Registry {
    /// Waits until the caches have seen everything that is committed.
    ///
    /// # Errors
    /// When the store fails or the caches do not get there in time.
    pub async fn refresh(&self) -> Result<Revision, Refusal> {
        let revision = self.store.revision().await.map_err(store_failed)?;
        self.reach(revision).await?;
        Ok(revision)
    }

    /// Waits until the caches have reached a revision.
    ///
    /// # Errors
    /// When they do not in time.
    pub async fn reach(&self, revision: Revision) -> Result<(), Refusal> {
        self.feed
            .reach(revision, FRESHNESS)
            .await
            .map_err(|not_yet| Box::new(too_large_version(not_yet.requested, not_yet.current)))
    }

    /// One object, from a cache that is fresh enough.
    ///
    /// # Errors
    /// Not found, or a cache that cannot be made fresh.
    pub async fn get(
        &self,
        kind: &Kind,
        namespace: &str,
        name: &str,
        version: ListVersion,
    ) -> Result<Arc<Entry>, Refusal> {
        match version {
            ListVersion::Latest => {
                self.refresh().await?;
            }
            ListVersion::Any => {}
            ListVersion::NotOlderThan(revision) | ListVersion::Exact(revision) => {
                self.reach(revision).await?
            }
        }
        self.cached(kind, namespace, name).ok_or_else(|| kind.not_found(name))
    }

    /// One object as the cache has it now.
    pub fn cached(&self, kind: &Kind, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        if kind.is_namespaced() {
            kind.cacher.get(&format!("{namespace}/{name}"))
        } else {
            kind.cacher.get(name)
        }
    }

    /// One object as a tree, by names, from a fresh cache: what admission reads.
    ///
    /// # Errors
    /// When the cache cannot be made fresh. An object that is not there is `None`.
    pub async fn lookup(
        &self,
        (group, version, resource): (&str, &str, &str),
        namespace: &str,
        name: &str,
    ) -> Result<Option<Value>, Refusal> {
        let Some(kind) = self.kind(group, version, resource) else { return Ok(None) };
        self.refresh().await?;
        Ok(self.cached(kind, namespace, name).map(|entry| entry.value()))
    }

    /// The objects of a kind in a namespace, or in all.
    ///
    /// # Errors
    /// Expired, when the state asked for is gone; or a cache that cannot be made fresh.
    pub async fn snapshot(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        version: ListVersion,
    ) -> Result<Snapshot, Refusal> {
        let exact = match version {
            ListVersion::Latest => {
                self.refresh().await?;
                None
            }
            ListVersion::Any => None,
            ListVersion::NotOlderThan(revision) => {
                self.reach(revision).await?;
                None
            }
            ListVersion::Exact(revision) => {
                self.reach(revision).await?;
                Some(revision)
            }
        };
        let Some(revision) = exact else {
            return Ok(kind.cacher.snapshot(namespace, self.feed.applied()));
        };
        let entries = match kind.cacher.snapshot_at(namespace, revision) {
            Ok(entries) => entries,
            Err(_) => self.stored_at(kind, namespace, revision).await?,
        };
        Ok(Snapshot { revision, entries, cursor: 0 })
    }

    /// The past that the cache no longer has, from the store's history.
    async fn stored_at(
        &self,
        kind: &Kind,
        namespace: Option<&str>,
        revision: Revision,
    ) -> Result<Vec<Arc<Entry>>, Refusal> {
        let (group, resource) = kind.stored_as();
        let all = Prefix::new(group, resource, None).map_err(|error| Box::new(Status::internal(error)))?;
        let prefix =
            Prefix::new(group, resource, namespace).map_err(|error| Box::new(Status::internal(error)))?;
        let range = Range { prefix, after: None, limit: 0, revision: Some(revision) };
        let read = self.store.range(range).await.map_err(store_failed)?;
        read.items
            .iter()
            .filter_map(|item| Some((item.key.as_str().strip_prefix(all.as_str())?, item)))
            .map(|(key, item)| {
                let entry = kind.cacher.entry(key, &item.value, item.mod_revision);
                entry.map(Arc::new).map_err(|error| Box::new(Status::internal(error)))
            })
            .collect()
    }
}
