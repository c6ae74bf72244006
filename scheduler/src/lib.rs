//! The scheduler: gives each pod a node.
//!
//! Started by the binary with a client; calls the API server through it and nothing else. Nodes and pods come in through
//! informers into the [`cache`] and the [`queue`]; [`cycle::cycle`] decides, purely, from a [`snapshot`] and a pod; the
//! binding goes out while the next pod is decided.
//!
//! Invariants: a decision counts in the cache before the next one is made; a pod is bound with its uid, once; a pod that
//! could not be scheduled is told why and is tried again when something changes that its rejecting plugins care for.
//!
//! Not done: preemption, pod affinity and anti-affinity, topology spread, limits of attachable volumes, dynamic resources.

mod bind;
pub mod cache;
pub mod cycle;
pub mod diagnosis;
pub mod framework;
pub mod host_ports;
pub mod plugins;
pub mod pod_info;
pub mod queue;
mod report;
pub mod resources;
mod scheduler;
pub mod selector;
pub mod snapshot;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
pub mod volumes;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Client;
use wherry_client::{Informers, Lifecycle, Selection};

use queue::Delays;
use scheduler::Scheduler;

/// The scheduler that a pod gets if it names none.
pub const DEFAULT_SCHEDULER_NAME: &str = "default-scheduler";

/// What can be set about the scheduler.
#[derive(Debug, Clone)]
pub struct Config {
    /// The names that pods give in `schedulerName`; each has the default plugins.
    pub scheduler_names: Vec<String>,
    /// How long pods wait that could not be scheduled.
    pub delays: Delays,
    /// How many bindings and reports may be under way at one time.
    pub max_in_flight: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            scheduler_names: vec![DEFAULT_SCHEDULER_NAME.to_owned()],
            delays: Delays::default(),
            max_in_flight: 128,
        }
    }
}

/// Why the scheduler could not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no pod that it could be responsible for.
    #[error("no scheduler name is configured")]
    NoSchedulerName,
}

/// Schedule pods until shutdown.
///
/// # Cancellation
/// A dropped call gives up the bindings that are under way; the API server has them or not.
///
/// # Errors
/// [`Error`] if the configuration makes no sense. What fails later is tried again.
pub async fn run(client: Client, config: Config, lifecycle: Lifecycle) -> Result<(), Error> {
    if config.scheduler_names.is_empty() {
        return Err(Error::NoSchedulerName);
    }
    let informers = Informers::new(client.clone(), &lifecycle);
    let scheduler = Scheduler::new(client, &config);
    let nodes = informers.of::<Node>();
    // Pods that have ended take nothing.
    let pods =
        informers.of_selected::<Pod>(Selection::fields("status.phase!=Succeeded,status.phase!=Failed"));
    let on_node = Arc::clone(&scheduler);
    nodes.subscribe(move |change| on_node.on_node(change));
    let on_pod = Arc::clone(&scheduler);
    pods.subscribe(move |change| on_pod.on_pod(change));
    let (claims, volumes) = (informers.of::<PersistentVolumeClaim>(), informers.of::<PersistentVolume>());
    let classes = informers.of::<StorageClass>();
    let on_volumes = Arc::clone(&scheduler);
    claims.subscribe(move |change| on_volumes.on_claim(change));
    let on_volumes = Arc::clone(&scheduler);
    volumes.subscribe(move |change| on_volumes.on_volume(change));
    let on_volumes = Arc::clone(&scheduler);
    classes.subscribe(move |change| on_volumes.on_class(change));
    let storage = claims.wait_synced().await && volumes.wait_synced().await && classes.wait_synced().await;
    if storage && nodes.wait_synced().await && pods.wait_synced().await {
        lifecycle.readiness.set_ready();
        scheduler.run(&lifecycle).await;
    }
    informers.shut_down().await;
    Ok(())
}
