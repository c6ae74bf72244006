//! The loop: objects change, the rules are computed, the backend carries them out.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use tokio::{sync::Notify, time::Instant};
use wherry_client::{Informer, Lifecycle, Selection, events::EventRecorder, informer::Informers};

use crate::{
    Backend, Config, Error, ProxyMode,
    mode::{Capabilities, Choice, choose},
    rules::{NodeInfo, Planner, Ruleset},
    userspace::Userspace,
};

/// After how long what could not be served is tried again: whoever holds a port may go away.
const RETRY_INTERVAL: Duration = Duration::from_secs(15);

/// After how long a refused rule change is tried again; doubled up to [`RETRY_INTERVAL`].
const FIRST_RETRY: Duration = Duration::from_millis(100);

/// The label of a node's zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Keep the rules in force until `lifecycle` ends.
///
/// # Errors
/// [`Error`]. A connection to the API that is lost is resumed, and a rule change that is refused is tried again: neither is an
/// error.
///
/// # Cancellation
/// On shutdown listeners close at once, and established connections through them. Rules in the kernel stay.
pub async fn run(client: kube::Client, config: Config, lifecycle: Lifecycle) -> Result<(), Error> {
    let informers = Informers::new(client.clone(), &lifecycle);
    let objects = Objects {
        services: informers.of::<Service>(),
        slices: informers.of::<EndpointSlice>(),
        node: informers.of_selected::<Node>(Selection::fields(format!("metadata.name={}", config.node_name))),
        node_name: config.node_name.clone(),
    };
    let recorder = EventRecorder::new(client, "wherry-proxy", &config.node_name);
    let changed = objects.changed();
    let synced = tokio::select! {
        () = lifecycle.shutdown.cancelled() => return Ok(()),
        synced = objects.wait_synced() => synced,
    };
    if !synced {
        return Err(Error::Watches);
    }

    let mut backend = open(&config, recorder).await?;
    keep_in_force(backend.as_mut(), &objects, &changed, &config, &lifecycle).await;
    backend.close().await;
    informers.shut_down().await;
    Ok(())
}

/// The backend that the configuration means on this machine.
async fn open(config: &Config, recorder: EventRecorder) -> Result<Box<dyn Backend>, Error> {
    let capabilities = capabilities(config).await;
    let Choice { mode, reason } =
        choose(config.mode, &capabilities).map_err(|reason| Error::Mode { reason })?;
    tracing::info!(%mode, reason, "Services are served");
    match mode {
        ProxyMode::Userspace => Ok(Box::new(Userspace::new(recorder, config.node_port_addresses.clone()))),
        mode => Err(Error::Mode { reason: format!("{mode} is not built in") }),
    }
}

async fn capabilities(config: &Config) -> Capabilities {
    let missing = || Err("not built in".to_owned());
    Capabilities {
        is_loopback: config.is_loopback(),
        ebpf: missing(),
        nftables: missing(),
        iptables: missing(),
    }
}

async fn keep_in_force(
    backend: &mut dyn Backend,
    objects: &Objects,
    changed: &Notify,
    config: &Config,
    lifecycle: &Lifecycle,
) {
    let mut planner = Planner::default();
    let mut next_retry = FIRST_RETRY;
    let mut verify_at = Instant::now() + config.verify_interval;
    loop {
        let ruleset = Arc::new(objects.ruleset(&mut planner));
        let started = Instant::now();
        let retry = match backend.apply(&ruleset).await {
            Ok(applied) => {
                if applied.changed > 0 {
                    let took_us = started.elapsed().as_micros();
                    tracing::debug!(
                        changed = applied.changed,
                        unserved = applied.unserved,
                        took_us,
                        "rules applied"
                    );
                }
                lifecycle.readiness.set_ready();
                next_retry = FIRST_RETRY;
                (applied.unserved > 0).then_some(RETRY_INTERVAL)
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the rules are not in force");
                let retry = next_retry;
                next_retry = (next_retry * 2).min(RETRY_INTERVAL);
                Some(retry)
            }
        };
        let retry_at = retry.map(|retry| Instant::now() + retry);
        loop {
            let retried = async {
                match retry_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = lifecycle.shutdown.cancelled() => return,
                () = changed.notified() => break,
                () = retried => break,
                () = tokio::time::sleep_until(verify_at) => {
                    verify_at = Instant::now() + config.verify_interval;
                    match backend.verify().await {
                        Ok(true) => {}
                        Ok(false) => {
                            tracing::warn!("somebody else changed the rules: they are made again");
                            break;
                        }
                        Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "cannot look at the rules"),
                    }
                }
            }
        }
    }
}

/// What the rules are computed from.
struct Objects {
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    node: Informer<Node>,
    node_name: String,
}

impl Objects {
    /// Notified when any of them may have changed.
    fn changed(&self) -> Arc<Notify> {
        let changed = Arc::new(Notify::new());
        let notify = Arc::clone(&changed);
        self.services.subscribe(move |_| notify.notify_one());
        let notify = Arc::clone(&changed);
        self.slices.subscribe(move |_| notify.notify_one());
        let notify = Arc::clone(&changed);
        // A node's heartbeat changes no rule.
        self.node.subscribe(move |change| {
            if change.old().and_then(|node| zone(node)) != zone(change.object()) {
                notify.notify_one();
            }
        });
        changed
    }

    async fn wait_synced(&self) -> bool {
        self.services.wait_synced().await && self.slices.wait_synced().await && self.node.wait_synced().await
    }

    fn ruleset(&self, planner: &mut Planner) -> Ruleset {
        let zone = self.node.store().get("", &self.node_name).and_then(|node| zone(&node).map(str::to_owned));
        let node = NodeInfo { name: self.node_name.clone(), zone };
        planner.plan(&self.services.store().list(), &self.slices.store().list(), &node)
    }
}

fn zone(node: &Node) -> Option<&str> {
    node.metadata.labels.as_ref()?.get(ZONE_LABEL).map(String::as_str)
}
