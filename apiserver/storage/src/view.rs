//! What readers and watchers see: the published state, and the wake-up when it moves on.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use futures::stream;
use tokio::sync::watch;

use crate::state::{SliceLimits, State};
use crate::{Error, Event, Prefix, Revision, WatchItem, WatchStream};

/// One look of a watcher: at most this much is copied, so that the lock is held for well under a millisecond.
const SLICE: SliceLimits = SliceLimits { events: 1_000, bytes: 4 << 20, scanned: 20_000 };

/// How long a watcher hears nothing before it is told how far it is.
pub(crate) const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// The published state of a store.
#[derive(Debug)]
pub(crate) struct View {
    state: RwLock<State>,
    signal: watch::Sender<Signal>,
}

/// What watchers wait for. They read the state themselves; nothing is queued for them.
#[derive(Debug, Clone, Copy)]
struct Signal {
    /// Grows with every publication.
    generation: u64,
    closed: bool,
}

impl View {
    pub(crate) fn new(state: State) -> Arc<Self> {
        let (signal, _) = watch::channel(Signal { generation: 0, closed: false });
        Arc::new(Self { state: RwLock::new(state), signal })
    }

    /// The state, for a short look.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, State> {
        // A panic while the state was locked leaves it as it was before or after one whole event: both can be read.
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
        self.signal.send_modify(|signal| signal.generation += 1);
        changed
    }

    /// Make committed events visible and wake the watchers.
    pub(crate) fn publish(&self, events: Vec<Event>, revision: Revision, now: Instant) {
        self.change(|state| state.publish(events, revision, now));
    }

    /// Forget history at and before the revision.
    pub(crate) fn compact(&self, revision: Revision) {
        self.change(|state| state.compact(revision));
    }

    /// Put another state in the place of this one. Watchers that have not seen all of it are told to start anew.
    pub(crate) fn replace(&self, state: State) {
        self.change(|present| *present = state);
    }

    /// End every watch after what has been published.
    pub(crate) fn close(&self) {
        self.signal.send_modify(|signal| signal.closed = true);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.signal.borrow().closed
    }

    /// The changes under the prefix after the revision.
    pub(crate) fn watch(self: &Arc<Self>, prefix: Prefix, after: Revision) -> WatchStream {
        let watcher = Watcher {
            view: Arc::clone(self),
            signal: self.signal.subscribe(),
            prefix,
            position: after,
            reported: after,
            last_item: tokio::time::Instant::now(),
        };
        Box::pin(stream::try_unfold(watcher, |mut watcher| async move {
            let item = watcher.next().await?;
            Ok(Some((item, watcher)))
        }))
    }
}

/// A cursor in the history. It holds no event, so a watcher that does not read costs nothing.
struct Watcher {
    view: Arc<View>,
    signal: watch::Receiver<Signal>,
    prefix: Prefix,
    /// Everything up to here was delivered.
    position: Revision,
    /// The position that the reader of the stream knows.
    reported: Revision,
    last_item: tokio::time::Instant,
}

impl Watcher {
    async fn next(&mut self) -> Result<WatchItem, Error> {
        loop {
            let closed = self.signal.borrow_and_update().closed;
            let before = self.position;
            let slice = self.view.read().events_after(before, &self.prefix, SLICE)?;
            self.position = slice.position;
            if !slice.events.is_empty() {
                return Ok(self.report(WatchItem::Events(slice.events)));
            }
            if self.position > before {
                // There may be more than one slice.
                tokio::task::consume_budget().await;
                continue;
            }
            if closed {
                return Err(Error::Closed);
            }
            if self.position == self.reported {
                self.signal.changed().await.map_err(|_| Error::Closed)?;
                continue;
            }
            let due = self.last_item + PROGRESS_INTERVAL;
            if tokio::time::Instant::now() >= due {
                return Ok(self.report(WatchItem::Progress(self.position)));
            }
            tokio::select! {
                changed = self.signal.changed() => changed.map_err(|_| Error::Closed)?,
                () = tokio::time::sleep_until(due) => {}
            }
        }
    }

    fn report(&mut self, item: WatchItem) -> WatchItem {
        self.reported = self.position;
        self.last_item = tokio::time::Instant::now();
        item
    }
}
