//! A runtime in memory whose containers do what a script says.
//!
//! For tests of whatever drives a runtime. It keeps CRI's rules (the suite runs against it), gives out addresses of the
//! node's pod CIDR, and writes logs in CRI's format when a sandbox has a log directory.

mod clock;
mod images;
mod script;
mod state;
mod streams;
mod verbs;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::events::EventSender;
use crate::streaming::StreamingServer;
use crate::{ContainerState, Error, Result};

pub use clock::{Clock, ManualClock, SystemClock};
pub use script::{Behaviour, Exit, OnStop};

use state::State;

/// A scripted runtime. Clones share one state.
#[derive(Clone)]
pub struct FakeRuntime {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    events: EventSender,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    streaming: Mutex<Option<Arc<StreamingServer>>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Default for FakeRuntime {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

impl FakeRuntime {
    /// A runtime whose delays and timestamps follow `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                clock,
                events: EventSender::default(),
                tasks: TaskTracker::new(),
                shutdown: CancellationToken::new(),
                streaming: Mutex::default(),
            }),
        }
    }

    /// Containers of this image behave so from now on. Without a script a container runs until it is stopped.
    pub fn script(&self, image: &str, behaviour: Behaviour) {
        self.state().scripts.insert(image.to_owned(), behaviour);
    }

    /// Makes an image present, as if pulled.
    pub fn add_image(&self, image: &str) {
        let image = images::image(image);
        self.state().images.insert(image.id.clone(), image);
    }

    /// Pulling this image fails so from now on; `None` heals it.
    pub fn fail_pull(&self, image: &str, error: Option<Error>) {
        let mut state = self.state();
        match error {
            Some(error) => state.failing_pulls.insert(image.to_owned(), error),
            None => state.failing_pulls.remove(image),
        };
    }

    /// The next call of this verb (CRI's name, such as `StartContainer`) fails so. Several queue up.
    pub fn fail_next(&self, verb: &str, error: Error) {
        self.state().failures.entry(verb.to_owned()).or_default().push_back(error);
    }

    /// Ends a running container from outside, as the kernel might.
    pub fn exit_container(&self, container_id: &str, exit: &Exit) -> Result<()> {
        let mut state = self.state();
        match state.containers.get(container_id) {
            None => Err(Error::not_found("container", container_id)),
            Some(container) if container.status.state != ContainerState::Running => {
                Err(Error::FailedPrecondition(format!("container {container_id:?} is not running")))
            }
            Some(_) => {
                self.shared.finish(&mut state, container_id, exit);
                Ok(())
            }
        }
    }

    /// The sandbox loses its network and its containers die, as when a pause container is killed.
    pub fn break_sandbox(&self, pod_sandbox_id: &str) {
        self.shared.stop_sandbox(&mut self.state(), pod_sandbox_id);
    }

    /// Every reader of events loses its stream, as when the process behind a socket dies.
    pub fn break_events(&self) {
        std::mem::take(&mut self.state().events_broken).cancel();
    }

    /// Verbs called so far, in order, each as `Verb` or `Verb id`, for tests that count calls.
    pub fn calls(&self) -> Vec<String> {
        self.state().calls.iter().cloned().collect()
    }

    /// Forgets the calls seen so far.
    pub fn clear_calls(&self) {
        self.state().calls.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }
}

impl Shared {
    /// A poisoned lock is taken all the same: a test that panicked has failed already.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the call; answers the failure that was asked for.
    fn enter(&self, verb: &str, id: &str) -> Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        if state.calls.len() == state::KEPT_CALLS {
            state.calls.pop_front();
        }
        state.calls.push_back(if id.is_empty() { verb.to_owned() } else { format!("{verb} {id}") });
        match state.failures.get_mut(verb).and_then(VecDeque::pop_front) {
            Some(error) => Err(error),
            None => Ok(state),
        }
    }
}

/// What tests may put into a label or annotation map in one line.
pub fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}
