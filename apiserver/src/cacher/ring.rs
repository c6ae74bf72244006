//! The last events of a resource, each encoded once for all watchers.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use wherry_storage::Revision;

use super::entry::Entry;

/// At most so many events are kept per resource: minutes of a busy cluster, as kube-apiserver's watch cache.
const MAX_EVENTS: usize = 4096;
/// Events beyond this many bytes of objects make room, so that large objects do not fill the memory.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// But so many events are kept whatever their size.
const MIN_EVENTS: usize = 64;

/// What a watcher is told of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// New, or newly matching.
    Added,
    /// Changed.
    Modified,
    /// Gone, or no longer matching.
    Deleted,
}

impl EventType {
    /// The text of the event's `type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change of one object.
#[derive(Debug)]
pub struct Event {
    /// The revision of the change.
    pub revision: Revision,
    /// The object after the change; `None` if it was deleted.
    pub object: Option<Arc<Entry>>,
    /// The object before the change; `None` if it was created.
    pub previous: Option<Arc<Entry>>,
    lines: [OnceLock<Bytes>; 3],
    gone: OnceLock<Arc<Entry>>,
}

impl Event {
    /// A change.
    pub fn new(revision: Revision, object: Option<Arc<Entry>>, previous: Option<Arc<Entry>>) -> Self {
        Self { revision, object, previous, lines: Default::default(), gone: OnceLock::new() }
    }

    /// The object that an event of this type shows: for DELETED the last one, under the deletion's revision.
    pub fn shown(&self, event_type: EventType) -> Option<&Arc<Entry>> {
        match event_type {
            EventType::Added | EventType::Modified => self.object.as_ref(),
            EventType::Deleted => {
                let last = self.previous.as_ref()?;
                Some(self.gone.get_or_init(|| Arc::new(last.at_revision(self.revision))))
            }
        }
    }

    /// The event as a line of a JSON watch stream; encoded at the first call, shared afterwards.
    pub fn line(&self, event_type: EventType) -> Option<Bytes> {
        let shown = self.shown(event_type)?;
        Some(self.lines[event_type as usize].get_or_init(|| line(event_type, shown)).clone())
    }

    fn size(&self) -> usize {
        self.object.as_ref().or(self.previous.as_ref()).map_or(0, |entry| entry.json().len())
    }
}

/// An event of this type about an object, as a line of a JSON watch stream.
pub fn line(event_type: EventType, entry: &Entry) -> Bytes {
    let mut out = Vec::with_capacity(entry.json().len() + 34);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(event_type.as_str().as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(entry.json());
    out.extend_from_slice(b"}\n");
    Bytes::from(out)
}

/// The last events, in order. A reader keeps a cursor: the index of the next event it has not seen.
#[derive(Debug)]
pub struct Ring {
    events: VecDeque<Arc<Event>>,
    first: u64,
    floor: Revision,
    bytes: usize,
}

impl Ring {
    /// An empty ring: everything up to `floor` is in the past.
    pub fn new(floor: Revision) -> Self {
        Self { events: VecDeque::new(), first: 0, floor, bytes: 0 }
    }

    /// Adds the newest event, and lets go of the oldest.
    pub fn push(&mut self, event: Arc<Event>) {
        self.bytes += event.size();
        self.events.push_back(event);
        while self.events.len() > MAX_EVENTS || (self.bytes > MAX_BYTES && self.events.len() > MIN_EVENTS) {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some(oldest) = self.events.pop_front() {
            self.floor = oldest.revision;
            self.bytes -= oldest.size();
            self.first += 1;
        }
    }

    /// Forgets everything: readers behind have to start anew.
    pub fn reset(&mut self, floor: Revision) {
        self.first = self.end() + 1;
        self.events.clear();
        self.bytes = 0;
        self.floor = floor;
    }

    /// Every event after this revision is still here.
    pub fn floor(&self) -> Revision {
        self.floor
    }

    /// The cursor of a reader that has seen everything.
    pub fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// The cursor of a reader that has seen everything up to `revision`; `None` if events in between are gone.
    pub fn cursor_after(&self, revision: Revision) -> Option<u64> {
        if revision < self.floor {
            return None;
        }
        Some(self.first + self.events.partition_point(|event| event.revision <= revision) as u64)
    }

    /// At most `max` events from the cursor on; `None` if the reader fell off.
    pub fn read(&self, cursor: u64, max: usize) -> Option<Vec<Arc<Event>>> {
        let skip = usize::try_from(cursor.checked_sub(self.first)?).ok()?;
        Some(self.events.iter().skip(skip).take(max).map(Arc::clone).collect())
    }

    /// The events after a revision, newest first; `None` if some are gone.
    pub fn back_to(&self, revision: Revision) -> Option<impl Iterator<Item = &Arc<Event>>> {
        if revision < self.floor {
            return None;
        }
        Some(self.events.iter().rev().take_while(move |event| event.revision > revision))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_falls_off_is_told() {
        let mut ring = Ring::new(10);
        assert_eq!(ring.cursor_after(9), None);
        let start = ring.cursor_after(10).unwrap();
        for revision in 11..(11 + MAX_EVENTS as u64) {
            ring.push(Arc::new(Event::new(revision, None, None)));
        }
        assert_eq!(ring.read(start, 2).unwrap()[1].revision, 12);
        ring.push(Arc::new(Event::new(9999, None, None)));
        assert!(ring.read(start, 2).is_none());
        assert_eq!((ring.floor(), ring.cursor_after(11)), (11, Some(start + 1)));
        let end = ring.end();
        assert!(ring.read(end, 1).unwrap().is_empty());
        ring.reset(10_000);
        assert!(ring.read(end, 1).is_none());
    }
}
