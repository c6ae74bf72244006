//! The loop: objects change, the rules are computed, the backend carries them out.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use tokio::{sync::Notify, time::Instant};
use wherry_client::{Informer, Lifecycle, Selection, events::EventRecorder, informer::Informers};

use crate::{
    Backend, BackendError, Config, Error, ProxyMode, ebpf,
    health::{self, HealthChecks},
    iptables::Iptables,
    mode::{Capabilities, Choice, choose},
    nftables::Nftables,
    rules::{NodeInfo, Planner, Ruleset},
    userspace::Userspace,
};

/// After how long what could not be served is tried again: whoever holds a port may go away.
const RETRY_INTERVAL: Duration = Duration::from_secs(15);

/// After how long a refused rule change is tried again; doubled up to [`RETRY_INTERVAL`].
const FIRST_RETRY: Duration = Duration::from_millis(100);

/// Comparing takes at most one part in so many of the time: `iptables-save` takes seconds with ten thousand Services.
const VERIFY_SHARE: u32 = 50;

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

    let mut backend = open(&config, recorder.clone()).await?;
    let mut health = HealthChecks::new(&health::addresses(&config.node_port_addresses));
    let serving = Serving { backend: backend.as_mut(), health: &mut health, recorder: &recorder };
    keep_in_force(serving, &objects, &changed, &config, &lifecycle).await;
    health.close().await;
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
    if !config.is_loopback() {
        clean_up_others(mode, config).await;
    }
    match mode {
        ProxyMode::Userspace => Ok(Box::new(Userspace::new(recorder, config.node_port_addresses.clone()))),
        mode => kernel_backend(mode, config).map_err(|source| Error::Backend { mode, source }),
    }
}

/// A backend of the kernel.
///
/// # Errors
/// [`BackendError::Unavailable`]: the mode is none of the kernel's.
pub fn kernel_backend(mode: ProxyMode, config: &Config) -> Result<Box<dyn Backend>, BackendError> {
    match mode {
        ProxyMode::Ebpf => ebpf::backend(config),
        ProxyMode::Nftables => Ok(Box::new(Nftables::new(config))),
        ProxyMode::Iptables => Ok(Box::new(Iptables::new(config))),
        ProxyMode::Auto | ProxyMode::Userspace => {
            Err(BackendError::Unavailable { mode, reason: "it is not a kernel's backend".to_owned() })
        }
    }
}

/// Remove all rules of Services from the kernel, whatever mode made them.
///
/// # Errors
/// The kernel refuses.
pub async fn clean_up() -> Result<(), BackendError> {
    Nftables::clean_up().await?;
    Iptables::clean_up().await?;
    ebpf::clean_up_all()
}

/// Rules that a former run left in another mode would be in the way.
async fn clean_up_others(mode: ProxyMode, config: &Config) {
    if mode != ProxyMode::Ebpf {
        report(ebpf::clean_up_of(config));
    }
    let is_permitted = Nftables::probe().is_ok();
    if mode != ProxyMode::Nftables && mode != ProxyMode::Ebpf && is_permitted {
        report(Nftables::clean_up().await);
    }
    if mode != ProxyMode::Iptables && is_permitted {
        report(Iptables::clean_up().await);
    }
}

fn report(result: Result<(), BackendError>) {
    if let Err(error) = result {
        tracing::warn!(error = &error as &dyn std::error::Error, "rules of a former run may be left");
    }
}

/// What works here, as far as it matters for what was asked for: a mode that is better than another spares trying that.
async fn capabilities(config: &Config) -> Capabilities {
    let mut capabilities = Capabilities {
        is_loopback: config.is_loopback(),
        ebpf: Err("not tried".to_owned()),
        nftables: Err("not tried".to_owned()),
        iptables: Err("not tried".to_owned()),
    };
    if capabilities.is_loopback {
        return capabilities;
    }
    if matches!(config.mode, ProxyMode::Auto | ProxyMode::Ebpf) {
        capabilities.ebpf = ebpf::probe_for(config).await;
    }
    if matches!(config.mode, ProxyMode::Auto | ProxyMode::Nftables) {
        capabilities.nftables = Nftables::probe().map_err(|error| error.to_string());
    }
    if config.mode == ProxyMode::Iptables
        || (config.mode == ProxyMode::Auto && capabilities.nftables.is_err())
    {
        capabilities.iptables = Iptables::probe().await.map_err(|error| error.to_string());
    }
    capabilities
}

/// What carries the rules out.
struct Serving<'a> {
    backend: &'a mut dyn Backend,
    health: &'a mut HealthChecks,
    recorder: &'a EventRecorder,
}

async fn keep_in_force(
    serving: Serving<'_>,
    objects: &Objects,
    changed: &Notify,
    config: &Config,
    lifecycle: &Lifecycle,
) {
    let Serving { backend, health, recorder } = serving;
    let mut planner = Planner::default();
    let mut next_retry = FIRST_RETRY;
    let mut verify_at = Instant::now() + config.verify_interval;
    loop {
        let ruleset = Arc::new(objects.ruleset(&mut planner));
        let started = Instant::now();
        let unanswered =
            health.apply(&ruleset.health_checks, |check, words| health::report(recorder, check, words));
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
                (applied.unserved + unanswered > 0).then_some(RETRY_INTERVAL)
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
                    let started = Instant::now();
                    let verified = backend.verify().await;
                    let pause = (started.elapsed() * VERIFY_SHARE).max(config.verify_interval);
                    verify_at = Instant::now() + pause;
                    match verified {
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
