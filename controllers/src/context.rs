//! What every controller works with.

use std::sync::Arc;

use kube::Client;
use wherry_client::{EventRecorder, Informers};

use crate::Config;

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
}
