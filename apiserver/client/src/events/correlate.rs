//! Which write an occurrence asks for: a new event, a higher count of a known one, or none when there are too many.
//!
//! The rules and their numbers are client-go's `EventCorrelator`'s.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;

use k8s_openapi::jiff::Timestamp;

use super::{EventType, Occurrence};

/// How many known events, aggregates and sources are remembered, each.
const REMEMBERED: usize = 4096;
/// Similar events with more different messages than this, within [`SIMILAR_SECONDS`], are combined.
const SIMILAR_MESSAGES: usize = 10;
/// The period in which similar events are combined.
const SIMILAR_SECONDS: i64 = 600;
/// How many events about one object may come at once.
const BURST: f64 = 25.0;
/// How long an object waits for one more event after its burst.
const REFILL_SECONDS: f64 = 300.0;
/// What is put before the message of combined events.
const COMBINED: &str = "(combined from similar events): ";
/// Longer messages are cut.
const MESSAGE_BYTES: usize = 1024;

/// A write that an occurrence asks for.
#[derive(Debug, Clone)]
pub(super) enum Write {
    /// A new event.
    Create { name: String, message: String, occurrence: Occurrence },
    /// One more of a known event.
    Count {
        name: String,
        message: String,
        count: i32,
        first: Timestamp,
        at: Timestamp,
        occurrence: Occurrence,
    },
}

impl Write {
    pub(super) fn name(&self) -> &str {
        let (Self::Create { name, .. } | Self::Count { name, .. }) = self;
        name
    }

    /// The namespace that the event is written to.
    pub(super) fn namespace(&self) -> &str {
        let (Self::Create { occurrence, .. } | Self::Count { occurrence, .. }) = self;
        occurrence.object.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or("default")
    }
}

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Correlator {
    budgets: Remembered<ObjectId, Budget>,
    similar: Remembered<Similar, Messages>,
    known: Remembered<(Similar, String), Known>,
    sequence: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ObjectId {
    kind: String,
    namespace: String,
    name: String,
    uid: String,
    field_path: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Similar {
    object: ObjectId,
    event_type: EventType,
    reason: String,
}

#[derive(Debug)]
struct Budget {
    tokens: f64,
    at: Timestamp,
}

#[derive(Debug)]
struct Messages {
    distinct: HashSet<String>,
    last: Timestamp,
}

#[derive(Debug)]
struct Known {
    name: String,
    count: i32,
    first: Timestamp,
}

impl Correlator {
    pub(super) fn correlate(&mut self, mut occurrence: Occurrence) -> Option<Write> {
        truncate(&mut occurrence.message);
        let similar = similar(&occurrence);
        let message = self.combined_message(&similar, &occurrence);
        // Combined events share one entry, whatever their messages.
        let combined = message.is_some();
        let key = (similar.clone(), if combined { String::new() } else { occurrence.message.clone() });
        let message = message.unwrap_or_else(|| occurrence.message.clone());
        if !self.within_budget(&similar.object, occurrence.at) {
            return None;
        }
        if let Some(known) = self.known.get_mut(&key) {
            known.count = known.count.saturating_add(1);
            let (name, count, first, at) = (known.name.clone(), known.count, known.first, occurrence.at);
            return Some(Write::Count { name, message, count, first, at, occurrence });
        }
        // Two events of one object in one clock tick need different names.
        self.sequence = self.sequence.wrapping_add(1);
        let nanos = occurrence.at.as_nanosecond() + i128::from(self.sequence % 1000);
        let name = format!("{}.{nanos:x}", occurrence.object.name.as_deref().unwrap_or_default());
        self.known.insert(key, Known { name: name.clone(), count: 1, first: occurrence.at });
        Some(Write::Create { name, message, occurrence })
    }

    /// The message of the combined event, once there were too many different ones.
    fn combined_message(&mut self, similar: &Similar, occurrence: &Occurrence) -> Option<String> {
        let now = occurrence.at;
        let messages = match self.similar.get_mut(similar) {
            Some(messages) => messages,
            None => {
                self.similar.insert(similar.clone(), Messages { distinct: HashSet::new(), last: now });
                self.similar.get_mut(similar)?
            }
        };
        if now.as_second() - messages.last.as_second() > SIMILAR_SECONDS {
            messages.distinct.clear();
        }
        messages.last = now;
        if messages.distinct.len() < SIMILAR_MESSAGES {
            messages.distinct.insert(occurrence.message.clone());
        } else if !messages.distinct.contains(&occurrence.message) {
            return Some(format!("{COMBINED}{}", occurrence.message));
        }
        None
    }

    fn within_budget(&mut self, object: &ObjectId, now: Timestamp) -> bool {
        let Some(budget) = self.budgets.get_mut(object) else {
            self.budgets.insert(object.clone(), Budget { tokens: BURST - 1.0, at: now });
            return true;
        };
        let elapsed = now.duration_since(budget.at).as_secs_f64().max(0.0);
        budget.tokens = (budget.tokens + elapsed / REFILL_SECONDS).min(BURST);
        budget.at = now;
        if budget.tokens < 1.0 {
            return false;
        }
        budget.tokens -= 1.0;
        true
    }
}

fn similar(occurrence: &Occurrence) -> Similar {
    let object = &occurrence.object;
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    Similar {
        object: ObjectId {
            kind: text(&object.kind),
            namespace: text(&object.namespace),
            name: text(&object.name),
            uid: text(&object.uid),
            field_path: text(&object.field_path),
        },
        event_type: occurrence.event_type,
        reason: occurrence.reason.clone(),
    }
}

fn truncate(message: &mut String) {
    if message.len() > MESSAGE_BYTES {
        let end = (0..=MESSAGE_BYTES).rev().find(|&end| message.is_char_boundary(end)).unwrap_or_default();
        message.truncate(end);
    }
}

/// A map that forgets its oldest entries.
#[derive(Debug)]
struct Remembered<K, V> {
    entries: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Clone + Eq + Hash, V> Remembered<K, V> {
    fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    fn insert(&mut self, key: K, value: V) {
        if self.entries.insert(key.clone(), value).is_none() {
            self.order.push_back(key);
            if self.order.len() > REMEMBERED {
                self.order.pop_front().map(|oldest| self.entries.remove(&oldest));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ObjectReference;

    fn occurrence(message: &str, at_seconds: i64) -> Occurrence {
        Occurrence {
            object: ObjectReference {
                kind: Some("Pod".into()),
                name: Some("web".into()),
                namespace: Some("shop".into()),
                uid: Some("1".into()),
                ..ObjectReference::default()
            },
            event_type: EventType::Warning,
            reason: "BackOff".into(),
            message: message.into(),
            at: Timestamp::from_second(1_700_000_000 + at_seconds).expect("a time"),
        }
    }

    #[test]
    fn the_same_event_again_raises_the_count_and_keeps_the_first_time() {
        let mut correlator = Correlator::default();
        let Some(Write::Create { name: created, .. }) = correlator.correlate(occurrence("a", 0)) else {
            panic!("the first is created")
        };
        assert!(created.starts_with("web."), "{created}");
        let Some(Write::Count { name, count, first, .. }) = correlator.correlate(occurrence("a", 5)) else {
            panic!("the second is counted")
        };
        assert_eq!((name, count, first.as_second()), (created, 2, 1_700_000_000));
    }

    #[test]
    fn different_messages_at_the_same_instant_get_different_names() {
        let mut correlator = Correlator::default();
        let names: HashSet<_> = (0..5)
            .filter_map(|i| Some(correlator.correlate(occurrence(&i.to_string(), 0))?.name().to_owned()))
            .collect();
        assert_eq!(names.len(), 5);
    }

    #[test]
    fn many_different_messages_are_combined_into_one_event() {
        let mut correlator = Correlator::default();
        for i in 0..10 {
            assert!(matches!(
                correlator.correlate(occurrence(&i.to_string(), 0)),
                Some(Write::Create { .. })
            ));
        }
        let Some(Write::Create { message, .. }) = correlator.correlate(occurrence("10", 1)) else {
            panic!("the combined event is created once")
        };
        assert_eq!(message, "(combined from similar events): 10");
        let Some(Write::Count { message, count, .. }) = correlator.correlate(occurrence("11", 2)) else {
            panic!("the combined event is counted")
        };
        assert_eq!((message.as_str(), count), ("(combined from similar events): 11", 2));
    }

    #[test]
    fn an_object_that_is_too_loud_is_cut_off_and_heard_again_later() {
        let mut correlator = Correlator::default();
        let heard = (0..40).filter(|_| correlator.correlate(occurrence("a", 0)).is_some()).count();
        assert_eq!(heard, 25);
        assert!(correlator.correlate(occurrence("a", 301)).is_some());
        assert!(correlator.correlate(occurrence("a", 302)).is_none());
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let mut message = "ü".repeat(600) + "x";
        truncate(&mut message);
        assert_eq!(message.len(), 1024);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut map = Remembered::default();
        for i in 0..=REMEMBERED {
            map.insert(i, ());
        }
        assert_eq!((map.entries.len(), map.get_mut(&0).is_some()), (REMEMBERED, false));
    }
}
