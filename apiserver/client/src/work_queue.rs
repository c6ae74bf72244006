//! A queue of keys to work on: each key at most once, never two workers on one key.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::Lifecycle;
use crate::backoff::exponential;

/// A work queue with client-go's semantics: a key that is added while it waits is there once; a key that is added
/// while a worker has it is given out again after `done`. Clones share one queue.
///
/// # Guarantees
/// At most one worker has a given key. Keys come out in the order in which they became due. Holds at most one entry
/// per key, so it is bounded by the number of objects.
pub struct WorkQueue<T> {
    inner: Arc<Inner<T>>,
}

struct Inner<T> {
    state: Mutex<State<T>>,
    wake: Notify,
    base_delay: Duration,
    max_delay: Duration,
}

struct State<T> {
    ready: VecDeque<T>,
    /// Keys to work on: those in `ready`, and those added again while a worker has them.
    dirty: HashSet<T>,
    processing: HashSet<T>,
    waiting: HashMap<T, (Instant, u64)>,
    due: BTreeMap<(Instant, u64), T>,
    sequence: u64,
    failures: HashMap<T, u32>,
    shut_down: bool,
}

/// The first delay of a key that failed, as client-go's default.
const BASE_DELAY: Duration = Duration::from_millis(5);
/// The longest delay of a key that keeps failing. client-go's is 1000 s, too long for a cluster whose trouble is mostly
/// short.
const MAX_DELAY: Duration = Duration::from_secs(60);

impl<T> Clone for WorkQueue<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<T: Clone + Eq + Hash> Default for WorkQueue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Clone + Eq + Hash> WorkQueue<T> {
    /// An empty queue.
    pub fn new() -> Self {
        Self::with_delays(BASE_DELAY, MAX_DELAY)
    }

    /// An empty queue whose rate-limited keys wait `base` at first, then double that up to `max`.
    pub fn with_delays(base: Duration, max: Duration) -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            processing: HashSet::new(),
            waiting: HashMap::new(),
            due: BTreeMap::new(),
            sequence: 0,
            failures: HashMap::new(),
            shut_down: false,
        };
        let inner = Inner { state: Mutex::new(state), wake: Notify::new(), base_delay: base, max_delay: max };
        Self { inner: Arc::new(inner) }
    }

    /// Puts `key` into the queue, unless it is there.
    pub fn add(&self, key: T) {
        if self.lock().add(key) {
            self.inner.wake.notify_one();
        }
    }

    /// Puts `key` into the queue after `delay`. The earliest of several wishes counts.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        if self.lock().add_at(key, Instant::now() + delay) {
            self.inner.wake.notify_one();
        }
    }

    /// Puts `key` into the queue after a delay that doubles with every call, until [`Self::forget`].
    pub fn add_rate_limited(&self, key: T) {
        let delay = {
            let mut state = self.lock();
            let failures = state.failures.entry(key.clone()).or_default();
            let attempts = *failures;
            *failures = failures.saturating_add(1);
            exponential(self.inner.base_delay, self.inner.max_delay, attempts)
        };
        self.add_after(key, delay);
    }

    /// How often `key` was added rate-limited since it was last forgotten.
    pub fn failures(&self, key: &T) -> u32 {
        self.lock().failures.get(key).copied().unwrap_or_default()
    }

    /// Forgets the failures of `key`.
    pub fn forget(&self, key: &T) {
        self.lock().failures.remove(key);
    }

    /// The next key, when there is one; `None` after [`Self::shut_down`]. Every key must be given back with
    /// [`Self::done`].
    ///
    /// # Cancellation
    /// Nothing is lost: a key is taken only in the moment it is returned.
    pub async fn get(&self) -> Option<T> {
        loop {
            let wait_until = {
                let mut state = self.lock();
                if state.shut_down {
                    // Passes the end on to a getter that was about to wait.
                    self.inner.wake.notify_one();
                    return None;
                }
                state.promote_due(Instant::now());
                if let Some(key) = state.take() {
                    if !state.ready.is_empty() {
                        self.inner.wake.notify_one();
                    }
                    return Some(key);
                }
                state.due.first_key_value().map(|((at, _), _)| *at)
            };
            match wait_until {
                None => self.inner.wake.notified().await,
                Some(at) => {
                    let _ = tokio::time::timeout_at(at, self.inner.wake.notified()).await;
                }
            }
        }
    }

    /// Gives `key` back; if it was added meanwhile, it is given out again.
    pub fn done(&self, key: &T) {
        if self.lock().done(key) {
            self.inner.wake.notify_one();
        }
    }

    /// How many keys are ready to be worked on.
    pub fn len(&self) -> usize {
        self.lock().ready.len()
    }

    /// Whether no key is ready to be worked on.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the queue: every `get`, now and later, returns `None`, and additions are ignored.
    pub fn shut_down(&self) {
        self.lock().shut_down = true;
        // One permit is kept for a getter that is about to wait; each getter passes it on.
        self.inner.wake.notify_waiters();
        self.inner.wake.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone + Eq + Hash> State<T> {
    /// Whether the key became ready.
    fn add(&mut self, key: T) -> bool {
        if self.shut_down || !self.dirty.insert(key.clone()) || self.processing.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    /// Whether a getter has to look at its deadline again.
    fn add_at(&mut self, key: T, at: Instant) -> bool {
        if self.shut_down {
            return false;
        }
        if let Some(earlier) = self.waiting.get(&key).copied() {
            if earlier.0 <= at {
                return false;
            }
            self.due.remove(&earlier);
        }
        self.sequence += 1;
        let slot = (at, self.sequence);
        self.waiting.insert(key.clone(), slot);
        self.due.insert(slot, key);
        self.due.first_key_value().is_some_and(|(first, _)| *first == slot)
    }

    fn promote_due(&mut self, now: Instant) {
        while let Some(entry) = self.due.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let key = entry.remove();
            self.waiting.remove(&key);
            self.add(key);
        }
    }

    fn take(&mut self) -> Option<T> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.processing.insert(key.clone());
        Some(key)
    }

    /// Whether the key became ready again.
    fn done(&mut self, key: &T) -> bool {
        self.processing.remove(key);
        let again = self.dirty.contains(key) && !self.shut_down;
        if again {
            self.ready.push_back(key.clone());
        }
        again
    }
}

/// Runs `workers` workers that hand each key of `queue` to `reconcile` until the lifecycle ends; then finishes what is
/// in hand and returns. A key that fails (or panics) comes again, later every time.
pub async fn run_workers<T, F, Fut, E>(
    queue: WorkQueue<T>,
    workers: usize,
    lifecycle: &Lifecycle,
    reconcile: F,
) where
    T: Clone + Eq + Hash + Debug + Send + Sync + 'static,
    F: Fn(T) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Display + Send + 'static,
{
    let mut tasks = JoinSet::new();
    for _ in 0..workers.max(1) {
        tasks.spawn(run_worker(queue.clone(), reconcile.clone()));
    }
    lifecycle.shutdown.cancelled().await;
    queue.shut_down();
    while tasks.join_next().await.is_some() {}
}

async fn run_worker<T, F, Fut, E>(queue: WorkQueue<T>, reconcile: F)
where
    T: Clone + Eq + Hash + Debug,
    F: Fn(T) -> Fut,
    Fut: Future<Output = Result<(), E>>,
    E: Display,
{
    while let Some(key) = queue.get().await {
        match AssertUnwindSafe(reconcile(key.clone())).catch_unwind().await {
            Ok(Ok(())) => queue.forget(&key),
            Ok(Err(error)) => {
                // The first failures are mostly lost races; what persists is worth a line.
                if queue.failures(&key) < 5 {
                    tracing::debug!(?key, %error, "work on key failed, will be tried again");
                } else {
                    tracing::warn!(?key, %error, "work on key keeps failing");
                }
                queue.add_rate_limited(key.clone());
            }
            Err(_) => {
                tracing::error!(?key, "work on key panicked, will be tried again");
                queue.add_rate_limited(key.clone());
            }
        }
        queue.done(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn ready<T: Clone + Eq + Hash>(queue: &WorkQueue<T>) -> Option<T> {
        queue.get().now_or_never().flatten()
    }

    #[tokio::test]
    async fn a_key_added_twice_comes_out_once() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!((ready(&queue), ready(&queue), ready(&queue)), (Some("a"), Some("b"), None));
    }

    #[tokio::test]
    async fn a_key_added_while_processed_comes_again_after_done_and_not_before() {
        let queue = WorkQueue::new();
        queue.add("a");
        assert_eq!(ready(&queue), Some("a"));
        queue.add("a");
        assert_eq!(ready(&queue), None);
        queue.done(&"a");
        assert_eq!(ready(&queue), Some("a"));
        queue.done(&"a");
        assert_eq!(ready(&queue), None);
    }

    #[tokio::test]
    async fn delayed_keys_come_when_due_and_the_earliest_wish_counts() {
        let ms = Duration::from_millis;
        let queue = WorkQueue::new();
        let begin = Instant::now();
        queue.add_after("late", ms(150));
        queue.add_after("a", ms(10_000));
        queue.add_after("a", ms(50));
        queue.add_after("a", ms(100));
        assert_eq!(queue.get().await, Some("a"));
        assert!(begin.elapsed() >= ms(50));
        queue.done(&"a");
        assert_eq!(queue.get().await, Some("late"));
        assert!(begin.elapsed() >= ms(150) && begin.elapsed() < ms(9_000));
        queue.done(&"late");
        assert!(tokio::time::timeout(ms(50), queue.get()).await.is_err(), "the later wishes are forgotten");
    }

    #[tokio::test]
    async fn a_waiting_getter_notices_an_earlier_deadline() {
        let queue = WorkQueue::new();
        queue.add_after("late", Duration::from_secs(600));
        let getter = async { queue.get().await };
        let adder = async {
            tokio::task::yield_now().await;
            queue.add_after("soon", Duration::from_millis(20));
        };
        let both = async { tokio::join!(getter, adder).0 };
        assert_eq!(tokio::time::timeout(Duration::from_secs(60), both).await, Ok(Some("soon")));
    }

    #[tokio::test]
    async fn failing_keys_wait_longer_each_time_until_forgotten() {
        let ms = Duration::from_millis;
        let queue = WorkQueue::with_delays(ms(20), ms(80));
        for expected in [20, 40, 80, 80] {
            let begin = Instant::now();
            queue.add_rate_limited("a");
            assert_eq!(queue.get().await, Some("a"));
            assert!(begin.elapsed() >= ms(expected), "{expected}");
            queue.done(&"a");
        }
        assert_eq!(queue.failures(&"a"), 4);
        queue.forget(&"a");
        assert_eq!(queue.failures(&"a"), 0);
    }

    #[tokio::test]
    async fn workers_retry_failures_and_panics_and_stop_when_told() {
        let queue = WorkQueue::new();
        let (lifecycle, _report) = Lifecycle::new();
        let attempts = Arc::new(AtomicUsize::new(0));
        queue.add("a");
        let stop = lifecycle.shutdown.clone();
        let counter = attempts.clone();
        let workers = run_workers(queue.clone(), 3, &lifecycle, move |_key| {
            let (counter, stop) = (counter.clone(), stop.clone());
            async move {
                match counter.fetch_add(1, Ordering::SeqCst) {
                    0 => Err("broken"),
                    1 => panic!("on purpose"),
                    _ => {
                        stop.cancel();
                        Ok(())
                    }
                }
            }
        });
        tokio::time::timeout(Duration::from_secs(30), workers).await.expect("the workers end");
        assert_eq!(attempts.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_two_workers_ever_have_the_same_key() {
        let queue = WorkQueue::new();
        let (lifecycle, _report) = Lifecycle::new();
        let busy: Arc<Vec<AtomicUsize>> = Arc::new((0..4).map(|_| AtomicUsize::new(0)).collect());
        let handled = Arc::new(AtomicUsize::new(0));
        let clashes = Arc::new(AtomicUsize::new(0));
        let adder = tokio::spawn({
            let (queue, shutdown) = (queue.clone(), lifecycle.shutdown.clone());
            async move {
                for round in 0..2000_usize {
                    queue.add(round % 4);
                    if round % 16 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                shutdown.cancel();
            }
        });
        let (counter, clash_counter) = (handled.clone(), clashes.clone());
        run_workers(queue, 8, &lifecycle, move |key: usize| {
            let (busy, counter, clashes) = (busy.clone(), counter.clone(), clash_counter.clone());
            async move {
                clashes.fetch_add(busy[key].fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
                tokio::task::yield_now().await;
                busy[key].fetch_sub(1, Ordering::SeqCst);
                counter.fetch_add(1, Ordering::SeqCst);
                Ok::<(), String>(())
            }
        })
        .await;
        adder.await.expect("valid");
        assert_eq!(clashes.load(Ordering::SeqCst), 0);
        assert!(handled.load(Ordering::SeqCst) >= 4);
    }
}
