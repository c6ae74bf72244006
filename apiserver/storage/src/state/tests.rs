use super::*;

fn key(name: &str) -> Key {
    Key::new("", "configmaps", Some("default"), name).unwrap()
}

fn prefix() -> Prefix {
    Prefix::new("", "configmaps", None).unwrap()
}

fn empty(limits: HistoryLimits) -> State {
    State::new(BTreeMap::new(), 1, limits)
}

fn change(state: &mut State, name: &str, value: Option<&str>, now: Instant) {
    let revision = state.revision() + 1;
    let key = key(name);
    let previous = state.get(&key).map(|stored| (stored.value.clone(), stored.mod_revision));
    let value = value.map(|text| Bytes::copy_from_slice(text.as_bytes()));
    state.publish(vec![Event { revision, key, value, previous }], revision, now);
}

fn read(state: &State, revision: Option<Revision>, limit: usize, after: Option<&str>) -> String {
    let result = state.range(&Range { prefix: prefix(), after: after.map(key), limit, revision }).unwrap();
    let mut text = String::new();
    for item in &result.items {
        let name = item.key.as_str().rsplit('/').next().unwrap();
        text += &format!("{name}={}@{} ", String::from_utf8_lossy(&item.value), item.mod_revision);
    }
    text + &format!("+{}", result.remaining)
}

const ALL: SliceLimits = SliceLimits { events: 1000, bytes: 1 << 20, scanned: 1000 };

#[test]
fn an_older_revision_reads_as_it_was() {
    let now = Instant::now();
    let mut state = empty(HistoryLimits::default());
    for (name, value) in [
        ("b", Some("1")),
        ("d", Some("2")),
        ("b", Some("3")),
        ("a", Some("4")),
        ("d", None),
        ("c", Some("5")),
    ] {
        change(&mut state, name, value, now);
    }
    for (revision, limit, after, expected) in [
        (Some(1), 0, None, "+0"),
        (Some(2), 0, None, "b=1@2 +0"),
        (Some(3), 0, None, "b=1@2 d=2@3 +0"),
        (Some(4), 0, None, "b=3@4 d=2@3 +0"),
        (Some(5), 0, None, "a=4@5 b=3@4 d=2@3 +0"),
        (Some(6), 0, None, "a=4@5 b=3@4 +0"),
        (None, 0, None, "a=4@5 b=3@4 c=5@7 +0"),
        (Some(5), 1, None, "a=4@5 +2"),
        (Some(5), 1, Some("a"), "b=3@4 +1"),
        (Some(5), 1, Some("b"), "d=2@3 +0"),
        (Some(5), 1, Some("d"), "+0"),
        (None, 2, Some("0"), "a=4@5 b=3@4 +1"),
    ] {
        assert_eq!(read(&state, revision, limit, after), expected, "{revision:?} {limit} {after:?}");
    }
    assert!(matches!(state.check_readable(8), Err(Error::Future { requested: 8, current: 7 })));
}

#[test]
fn compaction_keeps_the_state_at_its_revision_and_nothing_older() {
    let now = Instant::now();
    let mut state = empty(HistoryLimits::default());
    for value in ["1", "2", "3"] {
        change(&mut state, "a", Some(value), now);
    }
    state.compact(3);
    assert_eq!(read(&state, Some(3), 0, None), "a=2@3 +0");
    assert!(matches!(state.check_readable(2), Err(Error::Compacted { requested: 2, oldest: 3 })));
    assert!(matches!(state.events_after(2, &prefix(), ALL), Err(Error::Compacted { .. })));
    assert_eq!(state.events_after(3, &prefix(), ALL).unwrap().events.len(), 1);
    state.compact(2);
    assert_eq!(state.compacted(), 3, "compaction never goes back");
}

#[test]
fn history_over_the_limits_goes_oldest_first() {
    let start = Instant::now();
    let second = Duration::from_secs(1);
    let by_count = HistoryLimits { max_events: 3, ..HistoryLimits::default() };
    let mut state = empty(by_count);
    for n in 0..5 {
        change(&mut state, "a", Some(&n.to_string()), start);
    }
    assert_eq!((state.compacted(), state.history.len()), (3, 3));

    let mut state = empty(HistoryLimits { max_bytes: 4096, ..HistoryLimits::default() });
    for _ in 0..50 {
        change(&mut state, "a", Some(&"x".repeat(500)), start);
    }
    assert!(state.history_bytes <= 4096 && !state.history.is_empty(), "{}", state.history_bytes);
    assert_eq!(state.history_bytes, state.history.iter().map(cost).sum::<usize>());

    let mut state = empty(HistoryLimits { max_age: 10 * second, ..HistoryLimits::default() });
    change(&mut state, "a", Some("old"), start);
    change(&mut state, "a", Some("young"), start + 8 * second);
    assert_eq!(state.compacted(), 1);
    change(&mut state, "a", Some("now"), start + 12 * second);
    assert_eq!(state.compacted(), 2, "only what is older than the limit is gone");
}

#[test]
fn a_slice_never_ends_within_a_revision() {
    let now = Instant::now();
    let mut state = empty(HistoryLimits::default());
    let event = |name: &str| Event { revision: 2, key: key(name), value: Some(Bytes::new()), previous: None };
    state.publish(vec![event("a"), event("b"), event("c")], 2, now);
    change(&mut state, "d", Some("x"), now);
    let slice = state.events_after(1, &prefix(), SliceLimits { events: 1, ..ALL }).unwrap();
    assert_eq!((slice.events.len(), slice.position), (3, 2));
    let slice = state.events_after(2, &prefix(), SliceLimits { events: 1, ..ALL }).unwrap();
    assert_eq!((slice.events.len(), slice.position), (1, 3));
    let elsewhere = Prefix::new("apps", "deployments", None).unwrap();
    let slice = state.events_after(1, &elsewhere, SliceLimits { scanned: 2, ..ALL }).unwrap();
    assert_eq!(
        (slice.events.len(), slice.position),
        (0, 2),
        "a long way through other keys is taken in steps"
    );
    let slice = state.events_after(9, &prefix(), ALL).unwrap();
    assert_eq!((slice.events.len(), slice.position), (0, 9), "a watcher may wait for what is yet to come");
}

#[test]
fn a_burst_does_not_hold_its_memory() {
    let now = Instant::now();
    let mut state = empty(HistoryLimits::default());
    for n in 0..20_000 {
        change(&mut state, "a", Some(&n.to_string()), now);
    }
    state.compact(state.revision());
    assert!(state.history.capacity() < 1024, "{}", state.history.capacity());
}
