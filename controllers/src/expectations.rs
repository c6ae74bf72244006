//! What a controller has done and its informer has not shown yet: until it has, nothing more is done for that key.
//!
//! Without this, a controller that is faster than its informer would create the same replicas again.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use wherry_client::ObjectKey;

/// After this time an expectation counts as met: a change was missed, and the store is the truth again.
pub(crate) const EXPIRY: Duration = Duration::from_secs(300);

/// Expected creations and deletions, by the key of the object that caused them.
#[derive(Debug, Default)]
pub(crate) struct Expectations {
    by_key: Mutex<HashMap<ObjectKey, Expected>>,
}

#[derive(Debug)]
struct Expected {
    /// How many objects are to appear.
    creations: usize,
    /// Which objects, by uid, are to begin to go.
    deletions: HashSet<String>,
    since: Instant,
}

impl Expectations {
    /// Whether everything that was expected for `key` has been seen.
    pub(crate) fn are_met(&self, key: &ObjectKey) -> bool {
        self.lock().get(key).is_none_or(|expected| {
            expected.creations == 0 && expected.deletions.is_empty() || expected.since.elapsed() > EXPIRY
        })
    }

    /// Expects `count` creations. Called before the first is begun.
    pub(crate) fn expect_creations(&self, key: &ObjectKey, count: usize) {
        self.expect(key, count, HashSet::new());
    }

    /// Expects these objects to go. Called before the first deletion is begun.
    pub(crate) fn expect_deletions(&self, key: &ObjectKey, uids: impl IntoIterator<Item = String>) {
        self.expect(key, 0, uids.into_iter().collect());
    }

    /// One creation was seen, or will not happen.
    pub(crate) fn creation_seen(&self, key: &ObjectKey) {
        if let Some(expected) = self.lock().get_mut(key) {
            expected.creations = expected.creations.saturating_sub(1);
        }
    }

    /// This object was seen to go, or will not.
    pub(crate) fn deletion_seen(&self, key: &ObjectKey, uid: &str) {
        if let Some(expected) = self.lock().get_mut(key) {
            expected.deletions.remove(uid);
        }
    }

    /// The object itself is gone.
    pub(crate) fn forget(&self, key: &ObjectKey) {
        self.lock().remove(key);
    }

    fn expect(&self, key: &ObjectKey, creations: usize, deletions: HashSet<String>) {
        self.lock().insert(key.clone(), Expected { creations, deletions, since: Instant::now() });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectKey, Expected>> {
        self.by_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expectations_are_met_when_every_creation_and_deletion_was_seen() {
        let expectations = Expectations::default();
        let key = ObjectKey::new("shop", "web");
        assert!(expectations.are_met(&key));
        expectations.expect_creations(&key, 2);
        assert!(!expectations.are_met(&key));
        expectations.creation_seen(&key);
        assert!(!expectations.are_met(&key));
        expectations.creation_seen(&key);
        expectations.creation_seen(&key);
        assert!(expectations.are_met(&key));
        expectations.expect_deletions(&key, ["a".to_owned(), "b".to_owned()]);
        expectations.deletion_seen(&key, "a");
        expectations.deletion_seen(&key, "a");
        assert!(!expectations.are_met(&key), "the same deletion seen twice is one");
        expectations.forget(&key);
        assert!(expectations.are_met(&key));
    }
}
