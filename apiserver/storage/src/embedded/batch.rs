//! Which of the waiting writes hold, and what they change. Pure.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use crate::state::State;
use crate::{Change, Event, Expected, Key, KeyValue, Outcome, Revision};

/// A write that waits to be decided.
#[derive(Debug, Clone)]
pub(super) struct Proposal {
    pub(super) key: Key,
    pub(super) expected: Expected,
    pub(super) change: Change,
}

/// Decided writes: to be made durable together, then published, then answered.
#[derive(Debug)]
pub(super) struct Batch {
    /// The changes, in revision order.
    pub(super) events: Vec<Event>,
    /// One answer for each proposal, in their order.
    pub(super) outcomes: Vec<Outcome>,
    /// The store's revision once this is published.
    pub(super) revision: Revision,
}

impl Batch {
    /// The last change of each key: what the file has to hold, in its order.
    pub(super) fn rows(&self) -> BTreeMap<&Key, &Event> {
        self.events.iter().map(|event| (&event.key, event)).collect()
    }
}

/// Decides the proposals one after another, each on top of those before it.
pub(super) fn decide<'a>(state: &State, proposals: impl IntoIterator<Item = &'a Proposal>) -> Batch {
    let mut batch = Batch { events: Vec::new(), outcomes: Vec::new(), revision: state.revision() };
    let mut changed: HashMap<&Key, Option<(Bytes, Revision)>> = HashMap::new();
    for Proposal { key, expected, change } in proposals {
        let current = match changed.get(key) {
            Some(current) => current.clone(),
            None => state.get(key).map(|stored| (stored.value.clone(), stored.mod_revision)),
        };
        let holds = match expected {
            // To delete what is not there is no change, and must not take a revision.
            Expected::Absent => current.is_none() && *change != Change::Delete,
            Expected::At(revision) => current.as_ref().is_some_and(|(_, at)| at == revision),
        };
        if !holds {
            let current =
                current.map(|(value, mod_revision)| KeyValue { key: key.clone(), value, mod_revision });
            batch.outcomes.push(Outcome::Conflict { current });
            continue;
        }
        batch.revision += 1;
        let revision = batch.revision;
        let value = match change {
            Change::Put(value) => Some(value.clone()),
            Change::Delete => None,
        };
        changed.insert(key, value.clone().map(|value| (value, revision)));
        batch.events.push(Event { revision, key: key.clone(), value, previous: current });
        batch.outcomes.push(Outcome::Committed { revision });
    }
    batch
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::HistoryLimits;

    fn key(name: &str) -> Key {
        Key::new("", "secrets", Some("default"), name).unwrap()
    }

    fn put(name: &str, expected: Expected, value: &'static str) -> Proposal {
        Proposal { key: key(name), expected, change: Change::Put(Bytes::from_static(value.as_bytes())) }
    }

    fn delete(name: &str, expected: Expected) -> Proposal {
        Proposal { key: key(name), expected, change: Change::Delete }
    }

    fn told(outcome: &Outcome) -> String {
        match outcome {
            Outcome::Committed { revision } => format!("committed {revision}"),
            Outcome::Conflict { current: None } => "conflict, absent".to_owned(),
            Outcome::Conflict { current: Some(current) } => {
                format!("conflict, {}@{}", String::from_utf8_lossy(&current.value), current.mod_revision)
            }
        }
    }

    #[test]
    fn each_proposal_is_decided_on_top_of_those_before_it() {
        let mut state = State::new(BTreeMap::new(), 1, HistoryLimits::default());
        let first = decide(&state, &[put("there", Expected::Absent, "old")]);
        state.publish(first.events, first.revision, Instant::now());

        let cases = [
            (put("new", Expected::Absent, "a"), "committed 3"),
            (put("new", Expected::Absent, "b"), "conflict, a@3"),
            (put("there", Expected::At(2), "newer"), "committed 4"),
            (put("there", Expected::At(2), "lost"), "conflict, newer@4"),
            (delete("there", Expected::At(4)), "committed 5"),
            (delete("there", Expected::At(4)), "conflict, absent"),
            (delete("there", Expected::Absent), "conflict, absent"),
            (put("there", Expected::Absent, "again"), "committed 6"),
            (put("never", Expected::At(1), "x"), "conflict, absent"),
        ];
        let batch = decide(&state, cases.iter().map(|(proposal, _)| proposal));
        for ((proposal, expected), outcome) in cases.iter().zip(&batch.outcomes) {
            assert_eq!(told(outcome), *expected, "{proposal:?}");
        }
        assert_eq!(batch.revision, 6);
        let seen: Vec<_> = batch
            .events
            .iter()
            .map(|event| (event.revision, event.previous.as_ref().map(|(_, at)| *at)))
            .collect();
        assert_eq!(seen, [(3, None), (4, Some(2)), (5, Some(4)), (6, None)]);
        let rows: Vec<_> = batch.rows().values().map(|event| event.revision).collect();
        assert_eq!(rows, [3, 6], "the file gets the last change of each key only");
    }
}
