//! The node's own range: waited for, made usable, told to the runtimes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use tokio::sync::Notify;
use wherry_client::backoff::Backoff;

use super::netlink::{Kernel, Owner};
use super::plan::{differences, own_network};
use super::range::NodeRange;
use super::sysctl::{self, Outcome};
use super::{CniConfig, Error, RESYNC_INTERVAL};
use crate::kubelet::Kubelet;

/// The first and the longest pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);

/// The pod network of a node in routed mode.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoutedConfig {
    /// The range of the Services' addresses: packets there set out from this machine even where no route leads to it.
    pub service_cidr: Option<Ipv4Net>,
    /// Where containers' configuration is; without it containers have no network of ours.
    pub cni: Option<CniConfig>,
}

/// What is known of the node's part of the pod network.
#[derive(Debug)]
pub(crate) struct PodNetwork {
    state: Mutex<State>,
    /// The node's status is out of date.
    pub(crate) changed: Notify,
}

#[derive(Debug)]
struct State {
    /// What the runtimes are told; empty while it is not known.
    range: String,
    /// The node's whole range in routed mode, once it is known.
    node_range: Option<NodeRange>,
    /// Whether the network is usable, or why not; `None` where nothing had to be done for it.
    condition: Option<Result<(), String>>,
}

impl PodNetwork {
    /// `range` is known beforehand; in routed mode it comes from the Node.
    pub(crate) fn new(range: &str, is_routed: bool) -> Self {
        let condition = is_routed.then(|| Err("the node has no pod CIDR yet".to_owned()));
        Self {
            state: Mutex::new(State {
                range: if is_routed { String::new() } else { range.to_owned() },
                node_range: None,
                condition,
            }),
            changed: Notify::new(),
        }
    }

    /// The range that runtimes give addresses of; empty while it is not known.
    pub(crate) fn range(&self) -> String {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).range.clone()
    }

    /// Whether the network is usable, or why not; `None` where the kubelet has nothing to say about it.
    pub(crate) fn condition(&self) -> Option<Result<(), String>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).condition.clone()
    }

    /// What the node registers with: a range that was given beforehand, or the one that it had until its Node was deleted,
    /// so that its pods keep their addresses. Empty otherwise.
    pub(crate) fn range_to_register(&self) -> String {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match (&state.condition, &state.node_range) {
            (None, _) => state.range.clone(),
            (Some(_), range) => range.map(|range| range.all.to_string()).unwrap_or_default(),
        }
    }

    fn set_usable(&self, range: NodeRange) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.range = range.guests.to_string();
        state.node_range = Some(range);
        state.condition = Some(Ok(()));
    }

    fn set_unusable(&self, reason: String) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).condition = Some(Err(reason));
    }
}

/// Keeps the node's own range usable until the kubelet stops.
pub(crate) async fn bring_up(kubelet: Arc<Kubelet>, config: RoutedConfig) {
    let node_changed = Arc::new(Notify::new());
    let notify = node_changed.clone();
    let mut last: Option<Vec<String>> = None;
    let told = Mutex::new(Vec::new());
    kubelet.own_node.subscribe(move |change| {
        // Its status changes all the time.
        let cidrs = pod_cidrs(change.object());
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != cidrs {
            *told = cidrs;
            notify.notify_one();
        }
    });
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    loop {
        let node = kubelet.own_node.store().get("", &kubelet.config.node_name);
        let cidrs = node.as_deref().map(pod_cidrs).unwrap_or_default();
        let before = kubelet.network.condition();
        let pause = match set_up(&kubelet, &config, &cidrs).await {
            Ok(()) => {
                backoff.reset();
                RESYNC_INTERVAL
            }
            Err(error) => {
                let reason = crate::error::chain(&error);
                tracing::warn!(error = %reason, "the node's pod network is not usable; trying again");
                kubelet.network.set_unusable(reason);
                backoff.next_delay()
            }
        };
        if before != kubelet.network.condition() || last.as_ref() != Some(&cidrs) {
            kubelet.network.changed.notify_one();
        }
        last = Some(cidrs);
        tokio::select! {
            () = kubelet.shutdown.cancelled() => return,
            () = node_changed.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn set_up(kubelet: &Kubelet, config: &RoutedConfig, cidrs: &[String]) -> Result<(), Error> {
    let Some(range) = NodeRange::of_node(cidrs)? else {
        return Ok(());
    };
    let std::net::IpAddr::V4(node_ip) = kubelet.config.node_ip else {
        return Err(Error::Range {
            cidr: range.all.to_string(),
            reason: "the node's own address is not IPv4",
        });
    };
    let is_first = kubelet.network.range().is_empty();
    if sysctl::set_all()? == Outcome::NoBridgeFilter && is_first {
        tracing::warn!(
            "containers on this node may not reach each other through Services: the kernel does not filter bridged packets \
             (modprobe br_netfilter)"
        );
    }
    let kernel = Kernel::open()?;
    let wanted = own_network(&range, node_ip, config.service_cidr);
    for step in differences(&wanted, &kernel.observe(Owner::Node).await?) {
        tracing::debug!(?step, "pod network");
        kernel.apply(Owner::Node, &step).await?;
    }
    if let Some(cni) = &config.cni {
        set_up_containers(cni, &kernel, &range, node_ip, is_first).await?;
    }
    let guests = range.guests.to_string();
    let is_new = kubelet.network.range() != guests;
    kubelet.network.set_usable(range);
    if is_new {
        tracing::info!(containers = %range.containers, guests, "the node's range of pod addresses");
        for runtime in kubelet.runtimes.all() {
            // A runtime that is away is told when it is back.
            if let Err(error) = runtime.configure(&guests).await {
                tracing::warn!(%error, handler = %runtime.handler, "runtime cannot be told the pods' range");
            }
        }
    }
    Ok(())
}

async fn set_up_containers(
    cni: &CniConfig,
    kernel: &Kernel,
    range: &NodeRange,
    node_ip: std::net::Ipv4Addr,
    is_first: bool,
) -> Result<(), Error> {
    if let Some(file) = cni.others_file() {
        if is_first {
            tracing::warn!(
                file = %file.display(),
                "containers use the CNI configuration that is there already; it must leave {} to Wasm pods",
                range.guests
            );
        }
        return Ok(());
    }
    let link = kernel.place(node_ip).await?.link;
    cni.write(range.containers, kernel.mtu(&link).await?)?;
    Ok(())
}

/// The ranges that a Node has.
pub(super) fn pod_cidrs(node: &Node) -> Vec<String> {
    let Some(spec) = &node.spec else { return Vec::new() };
    match (&spec.pod_cidrs, &spec.pod_cidr) {
        (Some(all), _) if !all.is_empty() => all.clone(),
        (_, Some(one)) if !one.is_empty() => vec![one.clone()],
        _ => Vec::new(),
    }
}
