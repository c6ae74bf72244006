//! The runtime: sandboxes, containers and images behind CRI's verbs.

mod containers;
mod images;
mod port;
mod sandboxes;
mod saved;
mod state;
mod stats;
mod streams;
mod verbs;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use wherry_runtimes::events::EventSender;
use wherry_runtimes::files::remove_tree;
use wherry_runtimes::log::unix_nanos;
use wherry_runtimes::streaming::StreamingServer;
use wherry_runtimes::{ContainerEventResponse, ContainerEventType};

use crate::code::{CodeCache, Engines};
use crate::{Config, Error, ImageStore};
use saved::Saved;
use state::State;

/// Handlers that a RuntimeClass may name; the empty one is the default.
const HANDLERS: [&str; 2] = ["", "wasmtime"];

/// The WebAssembly runtime. Clones are the same runtime; when the last one is dropped, its guests are killed.
#[derive(Clone)]
pub struct WasmRuntime {
    inner: Arc<Inner>,
    /// Guests hold `inner` while they run, so its own end cannot be what ends them.
    _guests_end: Arc<DropGuard>,
}

struct Inner {
    config: Config,
    images: ImageStore,
    engines: Arc<Engines>,
    code: Arc<CodeCache>,
    saved: Saved,
    state: Mutex<State>,
    events: EventSender,
    /// Instances of HTTP guests at once: the pool's slots.
    slots: Arc<Semaphore>,
    guests: Guests,
    supervisors: TaskTracker,
    shutdown: CancellationToken,
    streaming: Mutex<Option<Arc<StreamingServer>>>,
    ids: AtomicU64,
}

/// Threads of their own for guests: however many compute, CRI's calls are answered.
struct Guests(Option<tokio::runtime::Runtime>);

impl Guests {
    fn start(threads: Option<usize>) -> std::io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.enable_all().thread_name("guest");
        if let Some(threads) = threads {
            builder.worker_threads(threads.max(1));
        }
        builder.build().map(|runtime| Self(Some(runtime)))
    }

    fn handle(&self) -> Option<&tokio::runtime::Handle> {
        self.0.as_ref().map(tokio::runtime::Runtime::handle)
    }
}

impl Drop for Guests {
    /// A runtime may not be waited for inside another one; guests are cancelled at their next epoch.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl WasmRuntime {
    /// Opens the directories, makes the engine, and reads what was known before: all of it NotReady or Exited now.
    ///
    /// *Errors*: a directory cannot be used, or the engine cannot be made on this machine.
    pub async fn start(config: Config) -> Result<Self, Error> {
        // Reading the state of 10,000 pods and making the engine are no work for an async thread.
        let opened = tokio::task::spawn_blocking(move || Self::open(config)).await;
        opened.map_err(|fault| Error::Engine(fault.to_string()))?
    }

    fn open(config: Config) -> Result<Self, Error> {
        let directory = |path: std::path::PathBuf| {
            let made = std::fs::create_dir_all(&path);
            made.map(|()| path.clone()).map_err(|source| Error::Directory { path, source })
        };
        let images = ImageStore::open(&Config::images_dir(&config.root_dir))?;
        let engine = |error: crate::code::CodeError| Error::Engine(error.to_string());
        let engines = Arc::new(Engines::new(config.max_http_instances).map_err(engine)?);
        let code_dir = directory(config.root_dir.join("code"))?;
        let code = Arc::new(CodeCache::open(Arc::clone(&engines), &code_dir).map_err(engine)?);
        let saved = Saved::open(&config.root_dir.join("state"))
            .map_err(|source| Error::Directory { path: config.root_dir.join("state"), source })?;
        // Files of containers of a former process, which are all over.
        let scratch = config.root_dir.join("scratch");
        if let Err(error) = remove_tree(&scratch) {
            tracing::warn!(path = %scratch.display(), "files of former containers cannot be removed: {error}");
        }
        let mut state = State::default();
        saved.load_into(&mut state);
        if let Some(range) = config.pod_cidr {
            state.addresses.set_range(range);
        }
        let slots = usize::try_from(engines.slots).unwrap_or(usize::MAX);
        let shutdown = CancellationToken::new();
        Ok(Self {
            _guests_end: Arc::new(shutdown.clone().drop_guard()),
            inner: Arc::new(Inner {
                images,
                code,
                saved,
                state: Mutex::new(state),
                events: EventSender::default(),
                slots: Arc::new(Semaphore::new(slots.min(Semaphore::MAX_PERMITS))),
                guests: Guests::start(config.guest_threads).map_err(Error::Threads)?,
                supervisors: TaskTracker::new(),
                shutdown,
                streaming: Mutex::default(),
                ids: AtomicU64::new(0),
                engines,
                config,
            }),
        })
    }

    /// The images of this runtime.
    pub fn images(&self) -> &ImageStore {
        &self.inner.images
    }

    /// Kills all guests and waits for their end. What was known is kept on disk.
    pub async fn stop(&self) {
        self.inner.shutdown.cancel();
        self.inner.supervisors.close();
        self.inner.supervisors.wait().await;
    }
}

impl Inner {
    /// Guests cannot poison what a panic of ours has not broken: every change under the lock is complete at each step.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> i64 {
        unix_nanos(SystemTime::now())
    }

    /// 64 hexadecimal digits, as containerd's ids; never the same again.
    fn new_id(&self, what: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(what);
        hash.update(self.ids.fetch_add(1, Ordering::Relaxed).to_le_bytes());
        hash.update(self.now().to_le_bytes());
        hash.update(std::process::id().to_le_bytes());
        hex::encode(hash.finalize())
    }

    /// Tells readers what happened, with the state as it is at this moment: call it under the lock.
    fn emit(&self, state: &State, pod_sandbox_id: &str, id: &str, kind: ContainerEventType) {
        if !self.events.has_readers() {
            return;
        }
        self.events.send(ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind,
            created_at: self.now(),
            pod_sandbox_status: state.sandboxes.get(pod_sandbox_id).map(|sandbox| sandbox.status.clone()),
            containers_statuses: state.statuses_of(pod_sandbox_id),
        });
    }
}
