//! What every backend must do. Each backend's tests name a [`Subject`] and run all of it with [`conformance`].

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use tokio::task::JoinSet;

use crate::{
    Change, Error, Event, Expected, HistoryLimits, Key, KeyValue, Outcome, Prefix, Range, Revision, Store,
    VALUE_LIMIT_BYTES, WatchItem, WatchStream,
};

/// A backend under test, with a place of its own.
#[async_trait]
pub(crate) trait Subject: Send + Sync {
    /// Opens the store; after it was closed, with what it held.
    async fn open(&self, history: HistoryLimits) -> Arc<dyn Store>;
}

/// One test for each promise of the trait, for the subject that the expression makes.
macro_rules! conformance {
    ($subject:expr) => {
        $crate::suite::conformance!(@tests $subject;
            a_key_is_created_updated_and_deleted,
            a_write_that_is_not_as_expected_changes_nothing,
            a_range_is_ordered_and_bounded_by_its_prefix,
            values_are_kept_byte_for_byte_up_to_the_limit,
            concurrent_writers_get_one_revision_each_and_watchers_see_all_in_order,
            of_many_writers_that_expect_the_same_exactly_one_wins,
            a_watch_from_every_revision_gets_what_follows_once,
            a_watch_sees_its_prefix_only_and_is_told_of_progress,
            pages_at_one_revision_are_not_disturbed_by_writes,
            compacted_history_is_refused_and_the_rest_stays,
            the_future_is_refused,
            a_watcher_that_does_not_read_holds_nobody_up,
            a_closed_store_says_so,
            a_store_opened_again_has_everything_and_goes_on,
        );
    };
    (@tests $subject:expr; $($name:ident,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::suite::within_a_minute($crate::suite::$name(&$subject)).await;
            }
        )*
    };
}
pub(crate) use conformance;

/// A store that hangs fails.
pub(crate) async fn within_a_minute(test: impl Future<Output = ()>) {
    tokio::time::timeout(Duration::from_secs(60), test).await.expect("done within a minute");
}

pub(crate) fn key(name: &str) -> Key {
    Key::new("", "configmaps", Some("default"), name).unwrap()
}

fn other_key(name: &str) -> Key {
    Key::new("coordination.k8s.io", "leases", Some("default"), name).unwrap()
}

pub(crate) fn prefix() -> Prefix {
    Prefix::new("", "configmaps", None).unwrap()
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

pub(crate) async fn put(store: &dyn Store, key: &Key, expected: Expected, value: &str) -> Outcome {
    store.transact(key, expected, Change::Put(bytes(value))).await.unwrap()
}

pub(crate) fn committed(outcome: Outcome) -> Revision {
    match outcome {
        Outcome::Committed { revision } => revision,
        Outcome::Conflict { current } => panic!("conflict with {current:?}"),
    }
}

pub(crate) async fn create(store: &dyn Store, name: &str, value: &str) -> Revision {
    committed(put(store, &key(name), Expected::Absent, value).await)
}

async fn update(store: &dyn Store, name: &str, at: Revision, value: &str) -> Revision {
    committed(put(store, &key(name), Expected::At(at), value).await)
}

async fn delete(store: &dyn Store, name: &str, at: Revision) -> Revision {
    committed(store.transact(&key(name), Expected::At(at), Change::Delete).await.unwrap())
}

fn whole(revision: Option<Revision>) -> Range {
    Range { prefix: prefix(), after: None, limit: 0, revision }
}

async fn read(store: &dyn Store, revision: Option<Revision>) -> Vec<KeyValue> {
    store.range(whole(revision)).await.unwrap().items
}

/// The next events until the one with this revision has come.
pub(crate) async fn events_until(watch: &mut WatchStream, revision: Revision) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    while events.last().is_none_or(|event| event.revision < revision) {
        match watch.next().await.expect("a watch goes on").unwrap() {
            WatchItem::Events(more) => {
                assert!(!more.is_empty());
                events.extend(more);
            }
            WatchItem::Progress(at) => assert!(at < revision, "progress {at} before event {revision}"),
        }
    }
    events
}

pub(crate) async fn a_key_is_created_updated_and_deleted(subject: &dyn Subject) {
    let store = subject.open(HistoryLimits::default()).await;
    let start = store.revision().await.unwrap();
    assert!(start >= 1);
    assert_eq!(store.get(&key("a")).await.unwrap(), None);
    let created = create(&*store, "a", "1").await;
    assert!(created > start);
    let expected = KeyValue { key: key("a"), value: bytes("1"), mod_revision: created };
    assert_eq!(store.get(&key("a")).await.unwrap(), Some(expected));
    let updated = update(&*store, "a", created, "2").await;
    assert!(updated > created);
    assert_eq!(store.get(&key("a")).await.unwrap().unwrap().value, "2");
    let deleted = delete(&*store, "a", updated).await;
    assert!(deleted > updated);
    assert_eq!(store.get(&key("a")).await.unwrap(), None);
    assert!(store.revision().await.unwrap() >= deleted);
    let again = create(&*store, "a", "3").await;
    assert!(again > deleted, "a key that comes again has a new revision");
}

pub(crate) async fn a_write_that_is_not_as_expected_changes_nothing(subject: &dyn Subject) {
    let store = subject.open(HistoryLimits::default()).await;
    let old = create(&*store, "a", "1").await;
    let now = update(&*store, "a", old, "2").await;
    let current = Some(KeyValue { key: key("a"), value: bytes("2"), mod_revision: now });
    for (name, expected, change, found) in [
        ("a", Expected::Absent, Change::Put(bytes("x")), current.clone()),
        ("a", Expected::At(old), Change::Put(bytes("x")), current.clone()),
        ("a", Expected::At(old), Change::Delete, current.clone()),
        ("a", Expected::At(now + 100), Change::Delete, current.clone()),
        ("a", Expected::Absent, Change::Delete, current.clone()),
        ("b", Expected::At(now), Change::Put(bytes("x")), None),
        ("b", Expected::At(now), Change::Delete, None),
        ("b", Expected::Absent, Change::Delete, None),
    ] {
        let told = format!("{name} {expected:?} {change:?}");
        let outcome = store.transact(&key(name), expected, change).await.unwrap();
        assert_eq!(outcome, Outcome::Conflict { current: found }, "{told}");
    }
    assert_eq!(store.revision().await.unwrap(), now, "a conflict takes no revision");
    assert_eq!(read(&*store, None).await, current.as_slice());
}

pub(crate) async fn a_range_is_ordered_and_bounded_by_its_prefix(subject: &dyn Subject) {
    let store = subject.open(HistoryLimits::default()).await;
    for name in ["c", "a", "e", "b", "d"] {
        create(&*store, name, name).await;
    }
    let elsewhere = Key::new("", "configmaps", Some("default-2"), "a").unwrap();
    put(&*store, &elsewhere, Expected::Absent, "x").await;
    put(&*store, &other_key("a"), Expected::Absent, "x").await;
    let namespace = Prefix::new("", "configmaps", Some("default")).unwrap();
    for (prefix, after, limit, names, remaining) in [
        (&namespace, None, 0, vec!["a", "b", "c", "d", "e"], 0),
        (&namespace, None, 2, vec!["a", "b"], 3),
        (&namespace, Some("b"), 2, vec!["c", "d"], 1),
        (&namespace, Some("bb"), 9, vec!["c", "d", "e"], 0),
        (&namespace, Some("e"), 1, vec![], 0),
        // `default-2/` comes before `default/`, and `coordination.k8s.io/` before `core/`.
        (&prefix(), None, 0, vec!["a", "a", "b", "c", "d", "e"], 0),
        (&Prefix::all(), None, 4, vec!["a", "a", "a", "b"], 3),
        (&Prefix::new("", "pods", None).unwrap(), None, 0, vec![], 0),
    ] {
        let range = Range { prefix: prefix.clone(), after: after.map(key), limit, revision: None };
        let result = store.range(range).await.unwrap();
        let found: Vec<_> =
            result.items.iter().map(|item| item.key.as_str().rsplit('/').next().unwrap()).collect();
        assert_eq!((found, result.remaining), (names, remaining), "{prefix} {after:?} {limit}");
    }
}

pub(crate) async fn values_are_kept_byte_for_byte_up_to_the_limit(subject: &dyn Subject) {
    let store = subject.open(HistoryLimits::default()).await;
    let all_bytes: Vec<u8> = (0..=255).collect();
    let large = vec![7_u8; VALUE_LIMIT_BYTES - 1024];
    for (name, value) in [("empty", vec![]), ("all", all_bytes), ("large", large)] {
        let value = Bytes::from(value);
        store.transact(&key(name), Expected::Absent, Change::Put(value.clone())).await.unwrap();
        assert_eq!(store.get(&key(name)).await.unwrap().unwrap().value, value, "{name}");
    }
    let before = store.revision().await.unwrap();
    let value = Bytes::from(vec![0; VALUE_LIMIT_BYTES + 1]);
    let refused = store.transact(&key("more"), Expected::Absent, Change::Put(value)).await;
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    assert_eq!(store.revision().await.unwrap(), before);
}

pub(crate) async fn concurrent_writers_get_one_revision_each_and_watchers_see_all_in_order(
    subject: &dyn Subject,
) {
    const WRITERS: usize = 64;
    const WRITES: usize = 12;
    let store = subject.open(HistoryLimits::default()).await;
    let start = store.revision().await.unwrap();
    let mut watches = Vec::new();
    for _ in 0..3 {
        watches.push(store.watch(&prefix(), start).await.unwrap());
    }
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(&store);
        writers.spawn(async move {
            let name = format!("writer-{writer:02}");
            let mut revisions = vec![create(&*store, &name, "0").await];
            for n in 1..WRITES {
                let at = revisions[n - 1];
                revisions.push(update(&*store, &name, at, &n.to_string()).await);
            }
            let got = store.get(&key(&name)).await.unwrap().unwrap();
            assert_eq!(got.mod_revision, revisions[WRITES - 1], "a writer reads its own write");
            (name, revisions)
        });
    }
    let mut answered: BTreeMap<Revision, (Key, String)> = BTreeMap::new();
    while let Some(done) = writers.join_next().await {
        let (name, revisions) = done.unwrap();
        for (n, revision) in revisions.into_iter().enumerate() {
            let other = answered.insert(revision, (key(&name), n.to_string()));
            assert!(other.is_none(), "revision {revision} was given twice");
        }
    }
    let last = *answered.keys().last().unwrap();
    assert_eq!(answered.len(), WRITERS * WRITES);
    for mut watch in watches {
        let seen: Vec<_> = events_until(&mut watch, last)
            .await
            .into_iter()
            .map(|event| {
                (event.revision, (event.key, String::from_utf8(event.value.unwrap().into()).unwrap()))
            })
            .collect();
        assert!(seen.iter().map(|(revision, _)| revision).eq(answered.keys()), "all, in order, once");
        assert!(seen.iter().map(|(_, change)| change).eq(answered.values()));
    }
}

pub(crate) async fn of_many_writers_that_expect_the_same_exactly_one_wins(subject: &dyn Subject) {
    let store = subject.open(HistoryLimits::default()).await;
    let mut at = None;
    for round in 0..5 {
        let expected = at.map_or(Expected::Absent, Expected::At);
        let mut writers = JoinSet::new();
        for writer in 0..16 {
            let store = Arc::clone(&store);
            writers.spawn(async move {
                let value = format!("{round}/{writer}");
                (put(&*store, &key("contended"), expected, &value).await, value)
            });
        }
        let outcomes = writers.join_all().await;
        let winners: Vec<_> = outcomes
            .iter()
            .filter_map(|(outcome, value)| match outcome {
                Outcome::Committed { revision } => Some((*revision, value.clone())),
                Outcome::Conflict { .. } => None,
            })
            .collect();
        let [(revision, value)] = &winners[..] else { panic!("{winners:?} won") };
        for (outcome, _) in &outcomes {
            if let Outcome::Conflict { current } = outcome {
                let current = current.as_ref().unwrap();
                assert_eq!((current.mod_revision, &current.value[..]), (*revision, value.as_bytes()));
            }
        }
        at = Some(*revision);
    }
}

pub(crate) async fn a_watch_from_every_revision_gets_what_follows_once(subject: &dyn Subject) {
    let store = subject.open(HistoryLimits::default()).await;
    let start = store.revision().await.unwrap();
    let mut expected: Vec<Event> = Vec::new();
    let mut present: BTreeMap<&str, (Bytes, Revision)> = BTreeMap::new();
    for step in 0..40 {
        let name = ["a", "b", "c", "d"][step * 7 % 4];
        let previous = present.get(name).cloned();
        let value = bytes(&step.to_string());
        let (revision, value) = match &previous {
            Some((_, at)) if step % 3 == 0 => (delete(&*store, name, *at).await, None),
            Some((_, at)) => (update(&*store, name, *at, &step.to_string()).await, Some(value)),
            None => (create(&*store, name, &step.to_string()).await, Some(value)),
        };
        match &value {
            Some(value) => present.insert(name, (value.clone(), revision)),
            None => present.remove(name),
        };
        expected.push(Event { revision, key: key(name), value, previous });
    }
    let last = expected.last().unwrap().revision;
    for after in start..last {
        let mut watch = store.watch(&prefix(), after).await.unwrap();
        let events = events_until(&mut watch, last).await;
        let following: Vec<_> = expected.iter().filter(|event| event.revision > after).cloned().collect();
        assert_eq!(events, following, "after {after}");
    }
    // One that is up to date gets what comes next, and nothing before it.
    let mut watch = store.watch(&prefix(), last).await.unwrap();
    let next = create(&*store, "next", "x").await;
    let events = events_until(&mut watch, next).await;
    assert_eq!(events.iter().map(|event| event.revision).collect::<Vec<_>>(), [next]);
    for event in &expected {
        let read: BTreeMap<_, _> = read(&*store, Some(event.revision))
            .await
            .into_iter()
            .map(|item| (item.key, item.value))
            .collect();
        assert_eq!(read.get(&event.key), event.value.as_ref(), "the state at {}", event.revision);
    }
}

pub(crate) async fn a_watch_sees_its_prefix_only_and_is_told_of_progress(subject: &dyn Subject) {
    let store = subject.open(HistoryLimits::default()).await;
    let start = store.revision().await.unwrap();
    let mut watch = store.watch(&prefix(), start).await.unwrap();
    let elsewhere = committed(put(&*store, &other_key("lease"), Expected::Absent, "x").await);
    match watch.next().await.unwrap().unwrap() {
        WatchItem::Progress(at) => assert_eq!(at, elsewhere),
        WatchItem::Events(events) => panic!("not its own: {events:?}"),
    }
    let mine = create(&*store, "a", "1").await;
    let events = events_until(&mut watch, mine).await;
    assert_eq!(events.len(), 1);
}

pub(crate) async fn pages_at_one_revision_are_not_disturbed_by_writes(subject: &dyn Subject) {
    const KEYS: usize = 200;
    let store = subject.open(HistoryLimits::default()).await;
    let mut revisions = Vec::new();
    for n in 0..KEYS {
        revisions.push(create(&*store, &format!("key-{n:04}"), "old").await);
    }
    let before = read(&*store, None).await;
    let writing = {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for (n, at) in revisions.into_iter().enumerate() {
                let name = format!("key-{n:04}");
                match n % 3 {
                    0 => delete(&*store, &name, at).await,
                    1 => update(&*store, &name, at, "new").await,
                    _ => create(&*store, &format!("{name}-more"), "new").await,
                };
            }
        })
    };
    let mut writing = Some(writing);
    let first = Range { prefix: prefix(), after: None, limit: 37, revision: None };
    // Whatever the first page sees, the others must agree with.
    let first = store.range(first).await.unwrap();
    let at = first.revision;
    let mut pages = first.items;
    let mut remaining = first.remaining;
    while remaining > 0 {
        let after = pages.last().map(|item| item.key.clone());
        let page =
            store.range(Range { prefix: prefix(), after, limit: 37, revision: Some(at) }).await.unwrap();
        assert_eq!(page.revision, at);
        assert_eq!(page.remaining, remaining - page.items.len(), "the rest is counted at the same revision");
        remaining = page.remaining;
        pages.extend(page.items);
        if pages.len() > KEYS / 2
            && let Some(writing) = writing.take()
        {
            writing.await.unwrap();
        }
    }
    if let Some(writing) = writing {
        writing.await.unwrap();
    }
    let names: HashSet<_> = pages.iter().map(|item| &item.key).collect();
    assert_eq!(names.len(), pages.len(), "no key twice");
    assert!(pages.iter().all(|item| item.mod_revision <= at), "nothing from after the revision");
    assert_eq!(pages, read(&*store, Some(at)).await);
    let created_before = before[0].mod_revision + KEYS as u64 - 1;
    if at == created_before {
        assert_eq!(pages, before);
    }
}

pub(crate) async fn compacted_history_is_refused_and_the_rest_stays(subject: &dyn Subject) {
    let store = subject.open(HistoryLimits::default()).await;
    let mut revisions = vec![create(&*store, "a", "0").await];
    for n in 1..10 {
        revisions.push(update(&*store, "a", revisions[n - 1], &n.to_string()).await);
    }
    let mut slow = store.watch(&prefix(), revisions[0]).await.unwrap();
    // A watch that is up to date does not mind.
    let mut fast = store.watch(&prefix(), revisions[0]).await.unwrap();
    events_until(&mut fast, revisions[9]).await;
    store.compact(revisions[5]).await.unwrap();
    store.compact(revisions[5]).await.expect("to compact twice is to compact once");
    store.compact(revisions[2]).await.expect("what is compacted is compacted");

    for gone in [revisions[0], revisions[4]] {
        let read = store.range(whole(Some(gone))).await;
        assert!(matches!(read, Err(Error::Compacted { requested, .. }) if requested == gone), "{read:?}");
        let mut watch = match store.watch(&prefix(), gone).await {
            Ok(watch) => watch,
            Err(error) => {
                assert!(matches!(error, Error::Compacted { .. }), "{error:?}");
                continue;
            }
        };
        let first = watch.next().await.unwrap();
        assert!(matches!(first, Err(Error::Compacted { .. })), "{first:?}");
    }
    let slow = slow.next().await.unwrap();
    assert!(matches!(slow, Err(Error::Compacted { .. })), "{slow:?}");

    assert_eq!(read(&*store, Some(revisions[5])).await[0].value, "5");
    assert_eq!(read(&*store, None).await[0].value, "9");
    let mut watch = store.watch(&prefix(), revisions[5]).await.unwrap();
    assert_eq!(events_until(&mut watch, revisions[9]).await.len(), 4);
    let next = update(&*store, "a", revisions[9], "10").await;
    assert_eq!(events_until(&mut fast, next).await.len(), 1);
    let future = store.compact(next + 100).await;
    assert!(matches!(future, Err(Error::Future { .. })), "{future:?}");
}

pub(crate) async fn the_future_is_refused(subject: &dyn Subject) {
    let store = subject.open(HistoryLimits::default()).await;
    let now = create(&*store, "a", "1").await;
    let future = now + 1000;
    let read = store.range(whole(Some(future))).await;
    assert!(matches!(read, Err(Error::Future { requested, .. }) if requested == future), "{read:?}");
    let watch = store.watch(&prefix(), future).await.err();
    assert!(matches!(watch, Some(Error::Future { requested, .. }) if requested == future), "{watch:?}");
}

pub(crate) async fn a_watcher_that_does_not_read_holds_nobody_up(subject: &dyn Subject) {
    let store = subject.open(HistoryLimits { max_events: 50, ..HistoryLimits::default() }).await;
    let start = create(&*store, "a", "start").await;
    let mut stuck = store.watch(&prefix(), start).await.unwrap();
    let mut reading = store.watch(&prefix(), start).await.unwrap();
    let mut at = start;
    for n in 0..200 {
        at = update(&*store, "a", at, &n.to_string()).await;
        let events = events_until(&mut reading, at).await;
        assert_eq!(events.len(), 1, "the other watcher gets each change as it comes");
    }
    let first = stuck.next().await.unwrap();
    assert!(matches!(first, Err(Error::Compacted { .. })), "{first:?}");
    assert!(stuck.next().await.is_none(), "a watch ends after an error");
}

pub(crate) async fn a_closed_store_says_so(subject: &dyn Subject) {
    let store = subject.open(HistoryLimits::default()).await;
    let revision = create(&*store, "a", "1").await;
    let mut watch = store.watch(&prefix(), revision).await.unwrap();
    store.close().await;
    let write = store.transact(&key("b"), Expected::Absent, Change::Put(Bytes::new())).await;
    assert!(matches!(write, Err(Error::Closed)), "{write:?}");
    assert!(matches!(store.get(&key("a")).await, Err(Error::Closed)));
    assert!(matches!(store.range(whole(None)).await, Err(Error::Closed)));
    assert!(matches!(store.watch(&prefix(), revision).await.err(), Some(Error::Closed)));
    assert!(matches!(watch.next().await, Some(Err(Error::Closed))));
    assert!(watch.next().await.is_none());
    store.close().await;
}

pub(crate) async fn a_store_opened_again_has_everything_and_goes_on(subject: &dyn Subject) {
    let store = subject.open(HistoryLimits::default()).await;
    let mut last = 0;
    for n in 0..30 {
        last = create(&*store, &format!("key-{n:02}"), &n.to_string()).await;
    }
    let deleted = delete(&*store, "key-29", last).await;
    let before = read(&*store, None).await;
    assert_eq!(before.len(), 29);
    store.close().await;
    drop(store);
    let store = subject.open(HistoryLimits::default()).await;
    assert_eq!(read(&*store, None).await, before);
    assert!(store.revision().await.unwrap() >= deleted, "also when the last change was a deletion");
    let mut watch = store.watch(&prefix(), store.revision().await.unwrap()).await.unwrap();
    let next = create(&*store, "next", "x").await;
    assert!(next > deleted);
    assert_eq!(events_until(&mut watch, next).await.len(), 1);
}
