//! Removes objects whose time is over: events, an hour after their last write.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;
use wherry_storage::{Change, Expected, Revision};

use super::{Kind, Registry};

/// How often is looked for objects whose time is over.
const INTERVAL: Duration = Duration::from_secs(60);
/// How many objects are removed before others may run, so that many ended at once do not hold up the store.
const BATCH: usize = 100;

/// When each object of a kind was last written, as far as this server knows.
#[derive(Debug, Default)]
struct Ages {
    /// By key: the revision of the last write and when it was seen, in seconds since the epoch.
    seen: HashMap<Arc<str>, (Revision, i64)>,
}

/// An object as the ages are told of it.
struct Sighting {
    key: Arc<str>,
    revision: Revision,
    /// When the object says it was written.
    written_unix_seconds: Option<i64>,
}

impl Ages {
    /// Notes what is there and forgets what is not; the keys whose time is over, with their revisions.
    ///
    /// An object that is seen for the first time is as old as it says, one that changed is new.
    fn overdue(
        &mut self,
        present: impl Iterator<Item = Sighting>,
        now_unix_seconds: i64,
        time_to_live: Duration,
    ) -> Vec<(Arc<str>, Revision)> {
        let limit = i64::try_from(time_to_live.as_secs()).unwrap_or(i64::MAX);
        let mut keys = HashSet::new();
        let mut overdue = Vec::new();
        for Sighting { key, revision, written_unix_seconds } in present {
            keys.insert(Arc::clone(&key));
            let written = match self.seen.get(&key) {
                Some((known, at)) if *known == revision => *at,
                Some(_) => now_unix_seconds,
                None => {
                    written_unix_seconds.map_or(now_unix_seconds, |written| written.min(now_unix_seconds))
                }
            };
            self.seen.insert(Arc::clone(&key), (revision, written));
            if now_unix_seconds.saturating_sub(written) >= limit {
                overdue.push((key, revision));
            }
        }
        self.seen.retain(|key, _| keys.contains(key));
        overdue
    }
}

/// The latest time that an event names as one at which it happened or was made.
fn written(object: &Value) -> Option<i64> {
    ["/metadata/creationTimestamp", "/lastTimestamp", "/eventTime", "/series/lastObservedTime"]
        .iter()
        .filter_map(|pointer| object.pointer(pointer)?.as_str())
        .filter_map(|text| wherry_machinery::time::parse(text).ok())
        .map(wherry_machinery::time::Timestamp::unix_seconds)
        .max()
}

/// Removes what is overdue, until the shutdown.
///
/// # Cancellation
/// Leaves objects for the next start.
pub async fn run(registry: Arc<Registry>, shutdown: CancellationToken) {
    let kinds: Vec<(Arc<Kind>, Duration)> = registry
        .kinds()
        .filter(|kind| kind.view.is_none())
        .filter_map(|kind| Some((Arc::clone(kind), kind.strategy.time_to_live()?)))
        .collect();
    let mut ages: Vec<Ages> = kinds.iter().map(|_| Ages::default()).collect();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        let now = i64::try_from(registry.environment().now().as_secs()).unwrap_or(i64::MAX);
        for ((kind, time_to_live), ages) in kinds.iter().zip(&mut ages) {
            let entries = kind.cacher.snapshot(None, 0).entries;
            let sightings = entries.iter().map(|entry| Sighting {
                key: Arc::clone(entry.key()),
                revision: entry.revision(),
                written_unix_seconds: written(&entry.value()),
            });
            let overdue: HashMap<Arc<str>, Revision> =
                ages.overdue(sightings, now, *time_to_live).into_iter().collect();
            for (i, entry) in entries.iter().filter(|entry| overdue.contains_key(entry.key())).enumerate() {
                if i % BATCH == BATCH - 1 {
                    tokio::task::yield_now().await;
                }
                if shutdown.is_cancelled() {
                    return;
                }
                registry.remove_overdue(kind, entry.namespace(), entry.name(), entry.revision()).await;
            }
        }
    }
}

impl Registry {
    /// Removes an object unless it was written in the meantime.
    async fn remove_overdue(&self, kind: &Kind, namespace: &str, name: &str, revision: Revision) {
        let Ok(key) = kind.key(namespace, name) else { return };
        if let Err(error) = self.store.transact(&key, Expected::At(revision), Change::Delete).await {
            tracing::warn!(%error, namespace, name, "an object whose time is over was not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn sighting(key: &str, revision: Revision, written: Option<i64>) -> Sighting {
        Sighting { key: key.into(), revision, written_unix_seconds: written }
    }

    #[test]
    fn an_object_goes_an_hour_after_its_last_write() {
        let mut ages = Ages::default();
        let at = |ages: &mut Ages, revision, now| {
            ages.overdue(std::iter::once(sighting("a", revision, Some(0))), now, HOUR).len()
        };
        assert_eq!(at(&mut ages, 1, 10), 0);
        assert_eq!(at(&mut ages, 1, 3599), 0);
        // Written again: its hour begins anew.
        assert_eq!(at(&mut ages, 2, 3600), 0);
        assert_eq!(at(&mut ages, 2, 7199), 0);
        assert_eq!(at(&mut ages, 2, 7200), 1);
    }

    #[test]
    fn a_time_in_the_future_does_not_keep_an_object_for_ever() {
        let mut ages = Ages::default();
        let at = |ages: &mut Ages, now| {
            ages.overdue(std::iter::once(sighting("a", 1, Some(1_000_000))), now, HOUR).len()
        };
        assert_eq!(at(&mut ages, 100), 0);
        assert_eq!(at(&mut ages, 3700), 1);
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut ages = Ages::default();
        ages.overdue(std::iter::once(sighting("a", 1, None)), 0, HOUR);
        ages.overdue(std::iter::empty(), 1, HOUR);
        assert!(ages.seen.is_empty());
    }

    #[test]
    fn an_event_was_written_when_it_last_happened() {
        let event = json!({"metadata": {"creationTimestamp": "2026-01-02T03:04:05Z"}, "lastTimestamp": "2026-01-02T03:04:15Z",
            "eventTime": null, "series": {"lastObservedTime": "2026-01-02T03:04:25.000000Z"}});
        assert_eq!(
            written(&event),
            wherry_machinery::time::parse("2026-01-02T03:04:25Z").ok().map(|time| time.unix_seconds())
        );
    }
}
