//! The Service proxy: connections to a Service's address reach one of its endpoints.
//!
//! Called by the binary ([`run`]); calls the API through `wherry-client`. A pure function computes the [`rules::Ruleset`] from
//! Services and EndpointSlices; a backend carries it out. The backend of loopback mode is [`userspace`].
//!
//! Invariants:
//! - A change of endpoints never touches an established connection.
//! - A Service port without endpoints is not listened on: the kernel refuses at once.
//! - The rules in force are those of the newest objects seen; nothing is remembered from a former run.

pub mod rules;
pub mod userspace;

use std::{net::IpAddr, sync::Arc};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use tokio::sync::Notify;
use wherry_client::{Lifecycle, events::EventRecorder, informer::Informers};

/// What the proxy needs to know of its node.
#[derive(Debug, Clone)]
pub struct Config {
    /// The node's name: endpoints on it are local.
    pub node_name: String,
    /// The addresses on which node ports are served.
    pub node_port_addresses: Vec<IpAddr>,
}

/// Why the proxy stopped early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The watches ended before the proxy was told to stop.
    #[error("the watches of Services and EndpointSlices ended")]
    Watches,
}

/// Keep the rules in force until `lifecycle` ends.
///
/// # Errors
/// [`Error::Watches`]. A connection that is lost is resumed, and is no error.
///
/// # Cancellation
/// On shutdown listeners close at once, and established connections with them.
pub async fn run(client: kube::Client, config: Config, lifecycle: Lifecycle) -> Result<(), Error> {
    let informers = Informers::new(client.clone(), &lifecycle);
    let services = informers.of::<Service>();
    let slices = informers.of::<EndpointSlice>();
    let recorder = EventRecorder::new(client, "wherry-proxy", &config.node_name);

    let changed = Arc::new(Notify::new());
    let notify = Arc::clone(&changed);
    services.subscribe(move |_| notify.notify_one());
    let notify = Arc::clone(&changed);
    slices.subscribe(move |_| notify.notify_one());

    let synced = tokio::select! {
        () = lifecycle.shutdown.cancelled() => return Ok(()),
        synced = async { services.wait_synced().await && slices.wait_synced().await } => synced,
    };
    if !synced {
        return Err(Error::Watches);
    }

    let mut backend = userspace::Userspace::new(recorder);
    loop {
        let ruleset = rules::compute(&services.store().list(), &slices.store().list(), &config);
        let failed = backend.apply(ruleset).await;
        lifecycle.readiness.set_ready();
        // A port that could not be opened is tried again now and then: whoever holds it may go away.
        let again = async {
            if failed == 0 {
                std::future::pending::<()>().await;
            } else {
                tokio::time::sleep(userspace::RETRY_INTERVAL).await;
            }
        };
        tokio::select! {
            () = lifecycle.shutdown.cancelled() => break,
            () = changed.notified() => {}
            () = again => {}
        }
    }
    backend.close().await;
    informers.shut_down().await;
    Ok(())
}
