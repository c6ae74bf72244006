//! Pods that wait for a node. Pure: time is passed in.
//!
//! A pod is *active* (its turn comes by priority and time), *backing off* after a failed attempt, *unschedulable* until an
//! event may help it or five minutes have passed, *gated* until a plugin admits it, or *in flight* while it is being bound.
//! A pod that backs off although an event may help it comes early when nothing else is to be done; one that backs off after
//! an error does not (as kube-scheduler does with `SchedulerPopFromBackoffQ`).

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wherry_client::ObjectKey;
use wherry_client::backoff::exponential;

use crate::plugins::PrioritySort;
use crate::pod_info::PodInfo;

/// How long pods wait.
#[derive(Debug, Clone, Copy)]
pub struct Delays {
    /// After the first failed attempt; doubled with every further one.
    pub initial_backoff: Duration,
    /// At most.
    pub max_backoff: Duration,
    /// For an event that helps.
    pub max_unschedulable: Duration,
}

impl Default for Delays {
    /// kube-scheduler's defaults.
    fn default() -> Self {
        Self {
            initial_backoff: Duration::from_secs(1),
            max_backoff: Duration::from_secs(10),
            max_unschedulable: Duration::from_secs(5 * 60),
        }
    }
}

/// Why a pod waits for an event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rejection {
    /// The plugins that rejected nodes; empty if there were no nodes at all.
    pub plugins: BTreeSet<&'static str>,
}

/// The pods that this scheduler has to place, each once.
#[derive(Debug)]
pub struct Queue {
    delays: Delays,
    pods: HashMap<ObjectKey, Queued>,
    /// May hold entries of pods that are elsewhere by now: the pod's own place tells.
    active: BinaryHeap<(PrioritySort, ObjectKey)>,
    /// Those that an event may help.
    backing_off: Waiting,
    /// Those whose binding failed.
    failing: Waiting,
    /// By the time at which they are tried without an event.
    unschedulable: Waiting,
    sequence: u64,
}

/// Keys by the time at which they are due, and a number that tells those apart which are due at the same time.
type Waiting = BTreeMap<Due, ObjectKey>;
type Due = (Instant, u64);

#[derive(Debug)]
struct Queued {
    pod: Arc<PodInfo>,
    place: Place,
    attempts: u32,
    last_attempt: Option<Instant>,
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    Active(u64),
    BackingOff(Due),
    Failing(Due),
    Unschedulable(Due, Rejection),
    Gated,
    InFlight,
}

/// How many pods are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ready to be tried.
    pub active: usize,
    /// Tried a short while ago.
    pub backing_off: usize,
    /// Waiting for an event.
    pub unschedulable: usize,
    /// Not admitted.
    pub gated: usize,
    /// Being bound.
    pub in_flight: usize,
}

impl Queue {
    /// An empty queue.
    pub fn new(delays: Delays) -> Self {
        Self {
            delays,
            pods: HashMap::new(),
            active: BinaryHeap::new(),
            backing_off: Waiting::new(),
            failing: Waiting::new(),
            unschedulable: Waiting::new(),
            sequence: 0,
        }
    }

    /// A pod without a node has come or changed.
    pub fn set(&mut self, pod: Arc<PodInfo>, is_gated: bool, now: Instant) {
        let key = pod.key.clone();
        let Some(queued) = self.pods.get_mut(&key).filter(|queued| queued.pod.uid == pod.uid) else {
            self.remove(&key);
            let place = Place::Gated;
            self.pods.insert(key.clone(), Queued { pod, place, attempts: 0, last_attempt: None });
            if !is_gated {
                self.activate(&key);
            }
            return;
        };
        let is_different = is_different(&queued.pod, &pod);
        let has_other_priority = queued.pod.priority != pod.priority;
        queued.pod = pod;
        match &queued.place {
            Place::Gated if !is_gated => self.activate(&key),
            // What kept it from being scheduled may be what was changed.
            Place::Unschedulable(..) if is_different => self.retry(&key, now, Why::Helped),
            Place::Active(_) if has_other_priority => self.activate(&key),
            _ => {}
        }
    }

    /// The pod has a node, or is gone.
    pub fn remove(&mut self, key: &ObjectKey) {
        self.put(key, Place::Gated);
        self.pods.remove(key);
    }

    /// The pod whose turn it is. It is in flight until it is removed or comes back.
    pub fn pop(&mut self, now: Instant) -> Option<Arc<PodInfo>> {
        self.activate_due(now);
        let key =
            self.pop_active().or_else(|| self.backing_off.first_key_value().map(|(_, key)| key.clone()))?;
        self.put(&key, Place::InFlight);
        let queued = self.pods.get_mut(&key)?;
        queued.attempts = queued.attempts.saturating_add(1);
        queued.last_attempt = Some(now);
        Some(queued.pod.clone())
    }

    fn pop_active(&mut self) -> Option<ObjectKey> {
        while let Some((order, key)) = self.active.pop() {
            if self.pods.get(&key).is_some_and(|queued| queued.place == Place::Active(order.sequence)) {
                return Some(key);
            }
        }
        None
    }

    /// No node will do: the pod waits for an event.
    pub fn set_unschedulable(&mut self, pod: &PodInfo, rejection: Rejection, now: Instant) {
        if self.is_in_flight(pod) {
            let due = (now + self.delays.max_unschedulable, self.next_sequence());
            self.unschedulable.insert(due, pod.key.clone());
            self.put(&pod.key, Place::Unschedulable(due, rejection));
        }
    }

    /// The attempt failed for a reason outside of the cluster's state: again after a while.
    pub fn set_failed(&mut self, pod: &PodInfo, now: Instant) {
        if self.is_in_flight(pod) {
            self.retry(&pod.key, now, Why::Failed);
        }
    }

    /// Something has changed: pods that it may help are tried again.
    pub fn retry_if(&mut self, now: Instant, may_help: impl Fn(&PodInfo, &Rejection) -> bool) {
        let is_helped = |key: &&ObjectKey| match self.pods.get(*key) {
            Some(Queued { pod, place: Place::Unschedulable(_, rejection), .. }) => may_help(pod, rejection),
            _ => false,
        };
        let helped: Vec<_> = self.unschedulable.values().filter(is_helped).cloned().collect();
        for key in helped {
            self.retry(&key, now, Why::Helped);
        }
    }

    /// When `pop` may have a pod that it does not have now.
    pub fn next_due(&self) -> Option<Instant> {
        let first = |waiting: &Waiting| waiting.first_key_value().map(|((due, _), _)| *due);
        [&self.backing_off, &self.failing, &self.unschedulable].into_iter().filter_map(first).min()
    }

    /// How many pods are where.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for queued in self.pods.values() {
            match queued.place {
                Place::Active(_) => counts.active += 1,
                Place::BackingOff(_) | Place::Failing(_) => counts.backing_off += 1,
                Place::Unschedulable(..) => counts.unschedulable += 1,
                Place::Gated => counts.gated += 1,
                Place::InFlight => counts.in_flight += 1,
            }
        }
        counts
    }

    fn is_in_flight(&self, pod: &PodInfo) -> bool {
        let queued = self.pods.get(&pod.key);
        queued.is_some_and(|queued| queued.place == Place::InFlight && queued.pod.uid == pod.uid)
    }

    fn activate_due(&mut self, now: Instant) {
        for waiting in [Self::backing_off_mut, Self::failing_mut, Self::unschedulable_mut] {
            while let Some(key) = first_due(waiting(self), now) {
                self.activate(&key);
            }
        }
    }

    fn backing_off_mut(&mut self) -> &mut Waiting {
        &mut self.backing_off
    }

    fn failing_mut(&mut self) -> &mut Waiting {
        &mut self.failing
    }

    fn unschedulable_mut(&mut self) -> &mut Waiting {
        &mut self.unschedulable
    }

    /// Active, once the time after the last attempt is over.
    fn retry(&mut self, key: &ObjectKey, now: Instant, why: Why) {
        let Some(queued) = self.pods.get(key) else { return };
        let delays = &self.delays;
        let backoff =
            exponential(delays.initial_backoff, delays.max_backoff, queued.attempts.saturating_sub(1));
        let until = queued.last_attempt.map_or(now, |last| last + backoff);
        if until <= now {
            return self.activate(key);
        }
        let due = (until, self.next_sequence());
        let (waiting, place) = match why {
            Why::Helped => (&mut self.backing_off, Place::BackingOff(due)),
            Why::Failed => (&mut self.failing, Place::Failing(due)),
        };
        waiting.insert(due, key.clone());
        self.put(key, place);
    }

    fn activate(&mut self, key: &ObjectKey) {
        let sequence = self.next_sequence();
        self.put(key, Place::Active(sequence));
        if let Some(queued) = self.pods.get(key) {
            self.active.push((PrioritySort { priority: queued.pod.priority, sequence }, key.clone()));
        }
    }

    /// The pod leaves the place where it is for another.
    fn put(&mut self, key: &ObjectKey, place: Place) {
        let Some(queued) = self.pods.get_mut(key) else { return };
        match std::mem::replace(&mut queued.place, place) {
            Place::BackingOff(due) => self.backing_off.remove(&due),
            Place::Failing(due) => self.failing.remove(&due),
            Place::Unschedulable(due, _) => self.unschedulable.remove(&due),
            // Entries in the heap are passed over when their turn comes.
            Place::Active(_) | Place::Gated | Place::InFlight => None,
        };
    }

    fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }
}

/// Why a pod is tried again.
#[derive(Debug, Clone, Copy)]
enum Why {
    Helped,
    Failed,
}

fn first_due(waiting: &Waiting, now: Instant) -> Option<ObjectKey> {
    waiting.first_key_value().filter(|((due, _), _)| *due <= now).map(|(_, key)| key.clone())
}

/// Whether a plugin could judge the pod otherwise than before: not so if only its status, which we write ourselves, changed.
fn is_different(old: &PodInfo, new: &PodInfo) -> bool {
    old.pod.spec != new.pod.spec || old.pod.metadata.labels != new.pod.metadata.labels
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{pod, pod_with};
    use serde_json::json;

    const SECOND: Duration = Duration::from_secs(1);

    fn names(queue: &mut Queue, now: Instant) -> Vec<String> {
        std::iter::from_fn(|| queue.pop(now)).map(|pod| pod.key.name.clone()).collect()
    }

    fn with_priority(name: &str, priority: i32) -> Arc<PodInfo> {
        pod_with(name, json!({ "priority": priority }))
    }

    fn reject_next(queue: &mut Queue, rejection: Rejection, now: Instant) {
        let pod = queue.pop(now).unwrap();
        queue.set_unschedulable(&pod, rejection, now);
    }

    fn rejected_by(plugin: &'static str) -> Rejection {
        Rejection { plugins: [plugin].into() }
    }

    #[test]
    fn pods_come_by_priority_then_by_time() {
        let now = Instant::now();
        let mut queue = Queue::new(Delays::default());
        for (name, priority) in [("a", 0), ("b", 10), ("c", 0), ("d", 10), ("e", -1)] {
            queue.set(with_priority(name, priority), false, now);
        }
        queue.remove(&ObjectKey::new("default", "c"));
        assert_eq!(names(&mut queue, now), ["b", "d", "a", "e"]);
        assert_eq!(queue.counts(), Counts { in_flight: 4, ..Counts::default() });
    }

    #[test]
    fn a_pod_that_failed_backs_off_for_one_second_doubling_to_ten() {
        let mut now = Instant::now();
        let mut queue = Queue::new(Delays::default());
        let pod = pod("a", "1");
        queue.set(pod.clone(), false, now);
        for seconds in [1, 2, 4, 8, 10, 10] {
            assert!(queue.pop(now).is_some());
            queue.set_failed(&pod, now);
            assert_eq!(queue.next_due(), Some(now + seconds * SECOND));
            assert!(queue.pop(now + seconds * SECOND - SECOND / 10).is_none());
            now += seconds * SECOND;
        }
        assert!(queue.pop(now).is_some());
    }

    #[test]
    fn an_unschedulable_pod_waits_for_an_event_that_may_help_it() {
        let start = Instant::now();
        let mut queue = Queue::new(Delays::default());
        for name in ["cpu", "taint"] {
            queue.set(pod(name, "1"), false, start);
        }
        reject_next(&mut queue, rejected_by("NodeResourcesFit"), start);
        reject_next(&mut queue, rejected_by("TaintToleration"), start);
        assert!(queue.pop(start).is_none());
        queue.retry_if(start, |_, rejection| rejection.plugins.contains("NodeResourcesFit"));
        assert_eq!(queue.counts(), Counts { backing_off: 1, unschedulable: 1, ..Counts::default() });
        let now = start + SECOND;
        assert_eq!(names(&mut queue, now), ["cpu"]);
        let later = start + 20 * SECOND;
        queue.retry_if(later, |_, _| true);
        assert_eq!(names(&mut queue, later), ["taint"], "its backoff was over long ago");
    }

    #[test]
    fn a_pod_that_an_event_may_help_does_not_back_off_while_nothing_else_is_to_be_done() {
        let now = Instant::now();
        let mut queue = Queue::new(Delays::default());
        queue.set(pod("helped", "1"), false, now);
        reject_next(&mut queue, rejected_by("NodeResourcesFit"), now);
        queue.set(pod("fresh", "1"), false, now);
        queue.retry_if(now, |_, _| true);
        assert_eq!(names(&mut queue, now), ["fresh", "helped"]);
    }

    #[test]
    fn after_five_minutes_an_unschedulable_pod_is_tried_without_an_event() {
        let start = Instant::now();
        let mut queue = Queue::new(Delays::default());
        queue.set(pod("a", "1"), false, start);
        reject_next(&mut queue, Rejection::default(), start);
        let due = start + 300 * SECOND;
        assert_eq!(queue.next_due(), Some(due));
        assert!(queue.pop(due - SECOND).is_none());
        assert_eq!(names(&mut queue, due), ["a"]);
    }

    #[test]
    fn a_gated_pod_comes_when_its_gates_are_gone() {
        let now = Instant::now();
        let mut queue = Queue::new(Delays::default());
        queue.set(pod("a", "1"), true, now);
        assert!(queue.pop(now).is_none());
        assert_eq!(queue.next_due(), None);
        queue.retry_if(now, |_, _| true);
        assert!(queue.pop(now).is_none(), "events do not open gates");
        queue.set(pod("a", "1"), false, now);
        assert_eq!(names(&mut queue, now), ["a"]);
    }

    #[test]
    fn a_changed_spec_is_tried_again_and_a_changed_status_is_not() {
        let now = Instant::now();
        let mut queue = Queue::new(Delays::default());
        queue.set(pod("a", "1"), false, now);
        reject_next(&mut queue, rejected_by("NodeResourcesFit"), now);
        queue.set(pod("a", "1"), false, now);
        assert_eq!(queue.counts().unschedulable, 1);
        queue.set(pod("a", "500m"), false, now);
        assert_eq!(queue.counts().backing_off, 1);
    }

    #[test]
    fn a_pod_made_anew_under_the_same_name_is_another() {
        let now = Instant::now();
        let mut queue = Queue::new(Delays::default());
        let old = pod("a", "1");
        queue.set(old.clone(), false, now);
        queue.pop(now).unwrap();
        let mut new = (*pod("a", "1")).clone();
        new.uid = "another".to_owned();
        queue.set(Arc::new(new), false, now);
        queue.set_unschedulable(&old, Rejection::default(), now);
        assert_eq!(queue.counts(), Counts { active: 1, ..Counts::default() });
    }
}
