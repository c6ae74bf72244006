//! What every controller works with.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use kube::Client;
use wherry_client::{EventRecorder, Informers, Lifecycle, WorkQueue, run_workers};

use crate::Config;
use crate::error::Error;

/// The client, the shared informers and the settings. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) informers: Informers,
    pub(crate) config: Arc<Config>,
}

impl Context {
    pub(crate) fn new(client: Client, informers: Informers, config: Config) -> Self {
        Self { client, informers, config: Arc::new(config) }
    }

    /// A recorder of events that come from `component`.
    pub(crate) fn recorder(&self, component: &str) -> EventRecorder {
        EventRecorder::new(self.client.clone(), component, "")
    }

    /// Hands the keys of `queue` to `sync` until the lifecycle ends; the first one when `synced` says that the informers
    /// have read everything: to a controller that decides earlier, what it has not seen yet is not there.
    pub(crate) async fn work<K, F, Fut>(
        &self,
        queue: WorkQueue<K>,
        synced: impl Future<Output = bool>,
        lifecycle: &Lifecycle,
        sync: F,
    ) -> Result<(), Error>
    where
        K: Clone + Eq + Hash + Debug + Send + Sync + 'static,
        F: Fn(K) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<(), Error>> + Send + 'static,
    {
        if !synced.await {
            return Err(Error::NotSynced);
        }
        lifecycle.readiness.set_ready();
        run_workers(queue, self.config.workers, lifecycle, sync).await;
        Ok(())
    }
}
