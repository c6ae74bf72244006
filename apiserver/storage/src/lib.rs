//! Revisioned, watchable keys and bytes.
//!
//! Called by the API server alone. Two backends behind [`Store`]: `embedded` (default) and `etcd`; one conformance suite
//! (`suite`) is run by both. A store knows nothing of Kubernetes objects: it keeps bytes under validated keys.
//!
//! Invariants:
//! - Every committed change has one revision; revisions grow and are never reused, also over a crash.
//! - A write is acknowledged, and seen by readers and watchers, only after it is durable.
//! - A watch delivers every change under its prefix after the given revision, once, in revision order.

pub mod embedded;
pub mod etcd;
mod key;
mod state;
#[cfg(test)]
mod suite;
mod view;

use std::pin::Pin;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;

pub use embedded::Embedded;
pub use etcd::Etcd;
pub use key::{Key, KeyError, Prefix};
pub use state::HistoryLimits;

/// The number of a committed change; an object's `resourceVersion`. The empty store is at revision 1, as etcd is.
pub type Revision = u64;

/// One stored key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Key,
    /// The bytes as they were put.
    pub value: Bytes,
    /// The revision of the last change.
    pub mod_revision: Revision,
}

/// A condition on the key's present state, checked in the same transaction as the change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The key must not exist.
    Absent,
    /// The key must be at this mod revision.
    At(Revision),
}

/// What to do to the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Put these bytes.
    Put(Bytes),
    /// Remove the key.
    Delete,
}

/// The answer to a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done and durable.
    Committed {
        /// The revision of this change.
        revision: Revision,
    },
    /// The condition did not hold; nothing changed.
    Conflict {
        /// The key as it is, if it is there.
        current: Option<KeyValue>,
    },
}

/// Which keys to read.
#[derive(Debug, Clone)]
pub struct Range {
    /// Only keys under this prefix.
    pub prefix: Prefix,
    /// Only keys after this one (for the next page).
    pub after: Option<Key>,
    /// At most so many; 0 means all.
    pub limit: usize,
    /// The state at this revision; `None` means now (linearizable).
    pub revision: Option<Revision>,
}

/// What was read, in key order.
#[derive(Debug, Clone)]
pub struct RangeResult {
    /// The revision that was read.
    pub revision: Revision,
    /// The keys.
    pub items: Vec<KeyValue>,
    /// How many keys follow under the same prefix.
    pub remaining: usize,
}

/// One change, as a watcher sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The revision of the change.
    pub revision: Revision,
    /// The key.
    pub key: Key,
    /// The new bytes; `None` if the key was deleted.
    pub value: Option<Bytes>,
    /// The bytes before, with their mod revision; `None` if the key was created.
    pub previous: Option<(Bytes, Revision)>,
}

/// What a watch yields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchItem {
    /// The changes of one or more consecutive revisions, in order, never empty.
    Events(Vec<Event>),
    /// All changes up to this revision have been delivered (sent when nothing else was for a while).
    Progress(Revision),
}

/// The changes under a prefix. It ends after an error.
pub type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchItem, Error>> + Send>>;

/// Why the store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The revision asked for has been compacted away; the watcher or reader must start anew.
    #[error("revision {requested} has been compacted, the oldest kept is {oldest}")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// The oldest revision that can still be read.
        oldest: Revision,
    },
    /// The revision asked for is not there yet.
    #[error("revision {requested} is in the future, the store is at {current}")]
    Future {
        /// What was asked for.
        requested: Revision,
        /// Where the store is.
        current: Revision,
    },
    /// The value is larger than the store takes.
    #[error("value of {size_bytes} bytes for {key} is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The key.
        key: Key,
        /// How large.
        size_bytes: usize,
        /// The limit.
        limit_bytes: usize,
    },
    /// Another process has the data directory open.
    #[error("the store at {path} is in use by another process")]
    InUse {
        /// The data file.
        path: std::path::PathBuf,
    },
    /// The disk or its file failed.
    #[error("the store's file failed while {action}")]
    Disk {
        /// What was being done.
        action: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A peer over the network failed. Whether a write took effect is unknown.
    #[error("etcd failed while {action}")]
    Etcd {
        /// What was being done.
        action: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
}

/// The file holds what it should not.
#[derive(Debug, thiserror::Error)]
#[error("the file is damaged: {0}")]
struct Damaged(String);

impl Error {
    fn disk(action: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Disk { action, source: source.into() }
    }

    fn damaged(what: String) -> Self {
        Self::disk("reading it", Damaged(what))
    }
}

/// The largest value that a store takes by default, as in etcd: 1.5 MiB.
pub const VALUE_LIMIT_BYTES: usize = 3 << 19;

impl Change {
    fn check_size(&self, key: &Key, limit_bytes: usize) -> Result<(), Error> {
        match self {
            Self::Put(value) if value.len() > limit_bytes => {
                Err(Error::TooLarge { key: key.clone(), size_bytes: value.len(), limit_bytes })
            }
            _ => Ok(()),
        }
    }
}

/// A revisioned, watchable map of keys to bytes.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The revision of the last committed change.
    async fn revision(&self) -> Result<Revision, Error>;

    /// The key as it is now (linearizable).
    async fn get(&self, key: &Key) -> Result<Option<KeyValue>, Error>;

    /// The keys under a prefix, in order.
    async fn range(&self, range: Range) -> Result<RangeResult, Error>;

    /// Change one key if it is as expected. Returns after the change is durable.
    ///
    /// # Cancellation
    /// A dropped call may still commit.
    async fn transact(&self, key: &Key, expected: Expected, change: Change) -> Result<Outcome, Error>;

    /// Every change under the prefix after revision `after`.
    async fn watch(&self, prefix: &Prefix, after: Revision) -> Result<WatchStream, Error>;

    /// Forget history at and before this revision; the present state stays.
    async fn compact(&self, revision: Revision) -> Result<(), Error>;

    /// Stop: finish what was accepted, refuse what is new.
    async fn close(&self);
}
