//! The controllers, one folder each, each with a pure plan.
//!
//! Called by the binary with a client, a configuration and a lifecycle; calls only the API. Each controller is a
//! `plan.rs` (from what was observed to what is to be done, without I/O) and a `mod.rs` that watches, plans and carries
//! the plan out. All share one set of informers.
//!
//! Invariants: a controller may be killed at any await and started again; it acts on a key only after it has read the
//! object again; it never creates what its own informer has not shown it yet a second time.

mod availability;
mod config;
mod context;
mod deployment;
mod discovery;
mod disruption;
mod endpoint_slice;
mod endpoints;
mod ephemeral_volume;
mod error;
mod expectations;
mod garbage_collector;
mod local_path;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod ownership;
mod persistent_volume;
mod pod_gc;
mod pods;
mod replica_set;
mod root_ca;
mod selector;
mod service_account;
mod service_load_balancer;
mod service_ports;
mod storage_protection;
mod supervise;

use wherry_client::{Informers, Lifecycle};

pub use config::{Config, Controller};
use context::Context;
pub use error::Error;

/// Runs the controllers until the lifecycle ends, then drains them.
///
/// A controller that ends early is started again, later every time; the lifecycle's readiness has a part for each.
///
/// # Errors
/// None today: what goes wrong later is retried, and visible in the readiness.
pub async fn run(client: kube::Client, config: Config, lifecycle: Lifecycle) -> Result<(), Error> {
    let informers = Informers::new(client.clone(), &lifecycle);
    supervise::run_all(Context::new(client, informers.clone(), config), &lifecycle).await;
    informers.shut_down().await;
    Ok(())
}
