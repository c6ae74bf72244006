//! How a component is told to stop, and how it says that it is ready.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a supervisor gives to a component.
#[derive(Debug, Clone)]
pub struct Lifecycle {
    /// Cancelled when the component is to drain and return.
    pub shutdown: CancellationToken,
    /// Where the component says whether it is ready.
    pub readiness: Readiness,
}

/// The component's end of its readiness. A component may split it into named parts; it is ready when all parts are.
#[derive(Debug, Clone)]
pub struct Readiness {
    parts: Arc<watch::Sender<Parts>>,
    part: Arc<str>,
}

/// The supervisor's end of a component's readiness.
#[derive(Debug, Clone)]
pub struct ReadinessReport {
    parts: watch::Receiver<Parts>,
}

/// The state of each part, by name; the component itself is the part with the empty name. `None` is ready, otherwise
/// the reason why not.
type Parts = BTreeMap<Arc<str>, Option<String>>;

/// The reason of a part that has not said anything yet.
const STARTING: &str = "starting";

impl Lifecycle {
    /// A new component's lifecycle, and what its supervisor reads.
    pub fn new() -> (Self, ReadinessReport) {
        Self::with_shutdown(CancellationToken::new())
    }

    /// A new component's lifecycle that ends with `shutdown`.
    pub fn with_shutdown(shutdown: CancellationToken) -> (Self, ReadinessReport) {
        let (readiness, report) = Readiness::new();
        (Self { shutdown, readiness }, report)
    }

    /// The lifecycle of a part of this component: stopped with it or alone, and ready as a part of it.
    pub fn part(&self, name: &str) -> Self {
        Self { shutdown: self.shutdown.child_token(), readiness: self.readiness.part(name) }
    }
}

impl Readiness {
    /// Not ready, for the reason "starting".
    pub fn new() -> (Self, ReadinessReport) {
        let part: Arc<str> = Arc::from("");
        let (sender, receiver) = watch::channel(Parts::from([(part.clone(), Some(STARTING.to_owned()))]));
        (Self { parts: Arc::new(sender), part }, ReadinessReport { parts: receiver })
    }

    /// A named part, not ready until it says so.
    pub fn part(&self, name: &str) -> Self {
        let part =
            if self.part.is_empty() { Arc::from(name) } else { Arc::from(format!("{}/{name}", self.part)) };
        let readiness = Self { parts: self.parts.clone(), part };
        readiness.set_not_ready(STARTING);
        readiness
    }

    /// The part does its work.
    pub fn set_ready(&self) {
        self.set(None);
    }

    /// The part does not do its work, for this reason.
    pub fn set_not_ready(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    fn set(&self, state: Option<String>) {
        self.parts.send_if_modified(|parts| {
            if parts.get(&self.part) == Some(&state) {
                return false;
            }
            parts.insert(self.part.clone(), state);
            true
        });
    }
}

impl ReadinessReport {
    /// Whether every part is ready.
    pub fn is_ready(&self) -> bool {
        self.parts.borrow().values().all(Option::is_none)
    }

    /// Why the component is not ready, one line per part that is not; empty when it is ready.
    pub fn reasons(&self) -> Vec<String> {
        let describe = |(part, reason): (&Arc<str>, &Option<String>)| {
            let reason = reason.as_ref()?;
            Some(if part.is_empty() { reason.clone() } else { format!("{part}: {reason}") })
        };
        self.parts.borrow().iter().filter_map(describe).collect()
    }

    /// Waits until every part is ready; false when the component ended before.
    pub async fn wait_ready(&mut self) -> bool {
        self.parts.wait_for(|parts| parts.values().all(Option::is_none)).await.is_ok()
    }

    /// Waits until something changes; false when the component ended.
    pub async fn changed(&mut self) -> bool {
        self.parts.changed().await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_component_is_ready_when_all_its_parts_are() {
        let (lifecycle, mut report) = Lifecycle::new();
        assert_eq!(report.reasons(), ["starting"]);
        let gc = lifecycle.part("garbage-collector");
        lifecycle.readiness.set_ready();
        assert!(!report.is_ready());
        assert_eq!(report.reasons(), ["garbage-collector: starting"]);
        gc.readiness.set_ready();
        assert!(report.wait_ready().await);
        gc.readiness.set_not_ready("restarting");
        assert_eq!(report.reasons(), ["garbage-collector: restarting"]);
    }

    #[tokio::test]
    async fn waiting_ends_when_the_component_is_gone() {
        let (lifecycle, mut report) = Lifecycle::new();
        drop(lifecycle);
        assert!(!report.wait_ready().await);
    }

    #[test]
    fn a_part_stops_with_the_whole_but_not_the_other_way_round() {
        let (lifecycle, _report) = Lifecycle::new();
        let part = lifecycle.part("a");
        part.shutdown.cancel();
        assert!(!lifecycle.shutdown.is_cancelled());
        let other = lifecycle.part("b");
        lifecycle.shutdown.cancel();
        assert!(other.shutdown.is_cancelled());
    }
}
