//! The state in memory, with enough history to answer for older revisions. Pure: both backends feed it with events.

use std::collections::{BTreeMap, VecDeque};
use std::iter::Peekable;
use std::ops::Bound;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::{Error, Event, Key, KeyValue, Prefix, Range, RangeResult, Revision};

/// How much history is kept for watchers and readers that come from an older revision. Whatever is over any of the limits is
/// compacted, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryLimits {
    /// For so long; Kubernetes compacts every five minutes.
    pub max_age: Duration,
    /// At most so many events.
    pub max_events: usize,
    /// At most so many bytes of keys, values and previous values.
    pub max_bytes: usize,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(5 * 60), max_events: 100_000, max_bytes: 64 << 20 }
    }
}

/// A key's present value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) value: Bytes,
    pub(crate) mod_revision: Revision,
}

/// What a watcher gets from one look at the history.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) events: Vec<Event>,
    /// Everything under the prefix up to this revision has been delivered once `events` are.
    pub(crate) position: Revision,
}

/// How much a watcher takes at one look, so that no lock is held for long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SliceLimits {
    pub(crate) events: usize,
    pub(crate) bytes: usize,
    pub(crate) scanned: usize,
}

/// All that was published between two moments: the age of a part of the history.
#[derive(Debug, Clone, Copy)]
struct Span {
    started: Instant,
    last_revision: Revision,
}

/// How fine the age of history is known; the unit of compaction by age.
const SPAN: Duration = Duration::from_secs(1);

/// The ordered map of what is, and the ring of what changed.
#[derive(Debug)]
pub(crate) struct State {
    revision: Revision,
    /// History at and before this revision is gone; the state *at* it can still be read.
    compacted: Revision,
    live: BTreeMap<Key, Stored>,
    history: VecDeque<Event>,
    history_bytes: usize,
    spans: VecDeque<Span>,
    limits: HistoryLimits,
}

impl State {
    /// A state that was read from elsewhere and has no history.
    pub(crate) fn new(live: BTreeMap<Key, Stored>, revision: Revision, limits: HistoryLimits) -> Self {
        Self {
            revision,
            compacted: revision,
            live,
            history: VecDeque::new(),
            history_bytes: 0,
            spans: VecDeque::new(),
            limits,
        }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    #[cfg(test)]
    fn compacted(&self) -> Revision {
        self.compacted
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Stored> {
        self.live.get(key)
    }

    /// The key as readers get it.
    pub(crate) fn key_value(&self, key: &Key) -> Option<KeyValue> {
        let Stored { value, mod_revision } = self.live.get(key)?.clone();
        Some(KeyValue { key: key.clone(), value, mod_revision })
    }

    /// Whether the state at this revision can still, and already, be read.
    pub(crate) fn check_readable(&self, revision: Revision) -> Result<(), Error> {
        if revision < self.compacted {
            return Err(Error::Compacted { requested: revision, oldest: self.compacted });
        }
        if revision > self.revision {
            return Err(Error::Future { requested: revision, current: self.revision });
        }
        Ok(())
    }

    pub(crate) fn range(&self, range: &Range) -> Result<RangeResult, Error> {
        let revision = range.revision.unwrap_or(self.revision);
        if range.revision.is_some() {
            self.check_readable(revision)?;
        }
        let undone = self.undone(revision, &range.prefix);
        let prefix = range.prefix.as_str();
        let start = match &range.after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
            _ => Bound::Included(prefix),
        };
        let live = self
            .live
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| range.prefix.contains(key))
            .map(|(key, stored)| (key, (&stored.value, stored.mod_revision)));
        let mut items = Vec::new();
        let remaining = if undone.is_empty() {
            take_page(live, range.limit, &mut items)
        } else {
            let before = undone.range::<str, _>((start, Bound::Unbounded)).map(|(key, was)| (key, *was));
            take_page(Overlaid { live: live.peekable(), over: before.peekable() }, range.limit, &mut items)
        };
        Ok(RangeResult { revision, items, remaining })
    }

    /// The keys under the prefix that changed after the revision, as they were at it.
    fn undone(&self, revision: Revision, prefix: &Prefix) -> BTreeMap<Key, Was<'_>> {
        let mut undone = BTreeMap::new();
        for event in self.history.range(self.first_after(revision)..) {
            if prefix.contains(&event.key) {
                undone
                    .entry(event.key.clone())
                    .or_insert_with(|| event.previous.as_ref().map(|(value, at)| (value, *at)));
            }
        }
        undone
    }

    fn first_after(&self, revision: Revision) -> usize {
        self.history.partition_point(|event| event.revision <= revision)
    }

    /// The changes under the prefix after `position`, whole revisions only.
    pub(crate) fn events_after(
        &self,
        position: Revision,
        prefix: &Prefix,
        limits: SliceLimits,
    ) -> Result<Slice, Error> {
        if position < self.compacted {
            return Err(Error::Compacted { requested: position, oldest: self.compacted });
        }
        let mut slice = Slice { events: Vec::new(), position };
        let mut bytes = 0;
        for (scanned, event) in self.history.range(self.first_after(position)..).enumerate() {
            let full =
                slice.events.len() >= limits.events || bytes >= limits.bytes || scanned >= limits.scanned;
            if full && event.revision != slice.position {
                return Ok(slice);
            }
            slice.position = event.revision;
            if prefix.contains(&event.key) {
                bytes += cost(event);
                slice.events.push(event.clone());
            }
        }
        slice.position = slice.position.max(self.revision);
        Ok(slice)
    }

    /// Take in committed changes, in revision order, and let go of history over the limits.
    pub(crate) fn publish(&mut self, events: Vec<Event>, revision: Revision, now: Instant) {
        for event in events {
            match &event.value {
                Some(value) => {
                    let stored = Stored { value: value.clone(), mod_revision: event.revision };
                    self.live.insert(event.key.clone(), stored);
                }
                None => {
                    self.live.remove(&event.key);
                }
            }
            if event.revision > self.compacted {
                self.history_bytes += cost(&event);
                self.history.push_back(event);
            }
        }
        self.revision = self.revision.max(revision);
        match self.spans.back_mut() {
            Some(span) if now.duration_since(span.started) < SPAN => span.last_revision = self.revision,
            _ => self.spans.push_back(Span { started: now, last_revision: self.revision }),
        }
        self.compact_over_limits(now);
    }

    fn compact_over_limits(&mut self, now: Instant) {
        let mut until = self.compacted;
        while let Some(span) = self.spans.front()
            && now.duration_since(span.started) > self.limits.max_age
        {
            until = until.max(span.last_revision);
            self.spans.pop_front();
        }
        let (mut count, mut bytes) = (self.history.len(), self.history_bytes);
        for event in &self.history {
            if count <= self.limits.max_events && bytes <= self.limits.max_bytes {
                break;
            }
            count -= 1;
            bytes -= cost(event);
            until = until.max(event.revision);
        }
        self.compact(until);
    }

    /// Forget history at and before this revision.
    pub(crate) fn compact(&mut self, revision: Revision) {
        if revision <= self.compacted {
            return;
        }
        self.compacted = revision;
        while let Some(event) = self.history.front()
            && event.revision <= revision
        {
            self.history_bytes -= cost(event);
            self.history.pop_front();
        }
        while self.spans.front().is_some_and(|span| span.last_revision <= revision) {
            self.spans.pop_front();
        }
        // A burst must not hold its memory for ever.
        if self.history.capacity() > 1024 && self.history.len() < self.history.capacity() / 4 {
            self.history.shrink_to(self.history.len() * 2);
        }
    }

    /// Every key with its mod revision, for comparison with another copy.
    pub(crate) fn mod_revisions_at(&self, revision: Revision) -> Result<BTreeMap<Key, Revision>, Error> {
        let all = Range { prefix: Prefix::all(), after: None, limit: 0, revision: Some(revision) };
        Ok(self.range(&all)?.items.into_iter().map(|item| (item.key, item.mod_revision)).collect())
    }
}

/// A key's value and mod revision at an older revision; `None` if it was not there.
type Was<'a> = Option<(&'a Bytes, Revision)>;

/// What an event adds to the memory. Values are shared with the state and with the key's next event, so this is an upper bound.
fn cost(event: &Event) -> usize {
    let previous = event.previous.as_ref().map_or(0, |(value, _)| value.len());
    size_of::<Event>() + event.key.as_str().len() + event.value.as_ref().map_or(0, Bytes::len) + previous
}

/// Collects at most `limit` entries (0: all) and counts those that are left.
fn take_page<'a>(
    mut entries: impl Iterator<Item = (&'a Key, (&'a Bytes, Revision))>,
    limit: usize,
    items: &mut Vec<KeyValue>,
) -> usize {
    let limit = if limit == 0 { usize::MAX } else { limit };
    for (key, (value, mod_revision)) in entries.by_ref().take(limit) {
        items.push(KeyValue { key: key.clone(), value: value.clone(), mod_revision });
    }
    entries.count()
}

/// The live entries with those of `over` in the place of theirs; both in key order.
struct Overlaid<L: Iterator, O: Iterator> {
    live: Peekable<L>,
    over: Peekable<O>,
}

impl<'a, L, O> Iterator for Overlaid<L, O>
where
    L: Iterator<Item = (&'a Key, (&'a Bytes, Revision))>,
    O: Iterator<Item = (&'a Key, Was<'a>)>,
{
    type Item = (&'a Key, (&'a Bytes, Revision));

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let over_is_next = match (self.live.peek(), self.over.peek()) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some((live, _)), Some((over, _))) => over <= live,
            };
            if !over_is_next {
                return self.live.next();
            }
            let (key, was) = self.over.next()?;
            self.live.next_if(|(live, _)| *live == key);
            if let Some(was) = was {
                return Some((key, was));
            }
        }
    }
}

#[cfg(test)]
mod tests;
