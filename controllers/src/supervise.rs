//! Keeps the controllers running.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio::task::JoinSet;
use tokio::time::Instant;
use wherry_client::Lifecycle;
use wherry_client::backoff::Backoff;

use crate::error::{Chain, Error};
use crate::{Context, Controller};
use crate::{
    deployment, disruption, endpoint_slice, endpoints, ephemeral_volume, garbage_collector, local_path,
    namespace, node_ipam, node_lifecycle, persistent_volume, pod_gc, replica_set, root_ca, service_account,
    service_load_balancer, storage_protection,
};

/// The first pause before a controller is started again.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A controller that ran this long had started well.
const STEADY: Duration = Duration::from_secs(60);

/// Runs every configured controller until the lifecycle ends.
pub(crate) async fn run_all(context: Context, lifecycle: &Lifecycle) {
    let mut controllers = JoinSet::new();
    for controller in context.config.controllers.clone() {
        controllers.spawn(keep_running(controller, context.clone(), lifecycle.part(controller.name())));
    }
    lifecycle.readiness.set_ready();
    lifecycle.shutdown.cancelled().await;
    while controllers.join_next().await.is_some() {}
}

async fn keep_running(controller: Controller, context: Context, lifecycle: Lifecycle) {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        let started = Instant::now();
        let outcome = AssertUnwindSafe(run_one(controller, context.clone(), &lifecycle)).catch_unwind().await;
        if lifecycle.shutdown.is_cancelled() {
            return;
        }
        let reason = match outcome {
            Ok(Ok(())) => "ended early".to_owned(),
            Ok(Err(error)) => Chain(&error).to_string(),
            Err(_) => "panicked".to_owned(),
        };
        if started.elapsed() > STEADY {
            backoff.reset();
        }
        let pause = backoff.next_delay();
        tracing::warn!(controller = controller.name(), reason, ?pause, "controller ended, starting it again");
        lifecycle.readiness.set_not_ready(format!("restarting: {reason}"));
        if lifecycle.shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

async fn run_one(controller: Controller, context: Context, lifecycle: &Lifecycle) -> Result<(), Error> {
    match controller {
        Controller::Deployment => deployment::run(context, lifecycle).await,
        Controller::ReplicaSet => replica_set::run(context, lifecycle).await,
        Controller::EndpointSlice => endpoint_slice::run(context, lifecycle).await,
        Controller::Endpoints => endpoints::run(context, lifecycle).await,
        Controller::Namespace => namespace::run(context, lifecycle).await,
        Controller::ServiceAccount => service_account::run(context, lifecycle).await,
        Controller::RootCa => root_ca::run(context, lifecycle).await,
        Controller::GarbageCollector => garbage_collector::run(context, lifecycle).await,
        Controller::NodeLifecycle => node_lifecycle::run(context, lifecycle).await,
        Controller::NodeIpam => node_ipam::run(context, lifecycle).await,
        Controller::PodGc => pod_gc::run(context, lifecycle).await,
        Controller::PersistentVolume => persistent_volume::run(context, lifecycle).await,
        Controller::ClaimProtection => storage_protection::run_claims(context, lifecycle).await,
        Controller::VolumeProtection => storage_protection::run_volumes(context, lifecycle).await,
        Controller::AttributesProtection => storage_protection::run_attributes(context, lifecycle).await,
        Controller::EphemeralVolume => ephemeral_volume::run(context, lifecycle).await,
        Controller::LocalPath => local_path::run(context, lifecycle).await,
        Controller::Disruption => disruption::run(context, lifecycle).await,
        Controller::ServiceLoadBalancer => service_load_balancer::run(context, lifecycle).await,
    }
}
