//! The ways to the other nodes' pods.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::Node;
use tokio::sync::Notify;
use wherry_client::{Informers, Lifecycle};

use super::netlink::{Kernel, Owner};
use super::own::pod_cidrs;
use super::plan::{Peer, differences, peer_network};
use super::range::NodeRange;
use super::{Error, RESYNC_INTERVAL};

/// The pause after a failure.
const RETRY_PAUSE: std::time::Duration = std::time::Duration::from_secs(2);

/// Which node this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeersConfig {
    /// Its name.
    pub node_name: String,
    /// Its address.
    pub node_ip: Ipv4Addr,
}

/// Keeps routes to the ranges of all other Nodes until `lifecycle` ends. The client must be allowed to list Nodes.
///
/// # Errors
/// [`Error::Watch`]. What the kernel refuses is tried again, and shows in the readiness.
///
/// # Cancellation
/// The routes stay: pods go on, and the next run takes them over.
pub async fn run_peers(client: kube::Client, config: PeersConfig, lifecycle: Lifecycle) -> Result<(), Error> {
    let informers = Informers::new(client, &lifecycle);
    let nodes = informers.of::<Node>();
    let changed = Arc::new(Notify::new());
    let notify = changed.clone();
    let known = Mutex::new(std::collections::BTreeMap::new());
    nodes.subscribe(move |change| {
        let (node, is_there) = (change.object(), !matches!(change, wherry_client::Change::Deleted(_)));
        let facts = is_there.then(|| (internal_ip(node), pod_cidrs(node)));
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        // Heartbeats change nothing.
        let old = match facts.clone() {
            Some(facts) => known.insert(node.metadata.name.clone(), facts),
            None => known.remove(&node.metadata.name),
        };
        if old != facts {
            notify.notify_one();
        }
    });
    let synced = tokio::select! {
        () = lifecycle.shutdown.cancelled() => return Ok(()),
        synced = nodes.wait_synced() => synced,
    };
    if !synced {
        return Err(Error::Watch);
    }
    loop {
        let pause = match sync(&config, &nodes.store().list()).await {
            Ok(()) => {
                lifecycle.readiness.set_ready();
                RESYNC_INTERVAL
            }
            Err(error) => {
                let reason = crate::error::chain(&error);
                tracing::warn!(error = %reason, "the ways to other nodes' pods are not complete; trying again");
                lifecycle.readiness.set_not_ready(reason);
                RETRY_PAUSE
            }
        };
        tokio::select! {
            () = lifecycle.shutdown.cancelled() => break,
            () = changed.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    informers.shut_down().await;
    Ok(())
}

async fn sync(config: &PeersConfig, nodes: &[Arc<Node>]) -> Result<(), Error> {
    let (own, peers) = read_nodes(config, nodes);
    let kernel = Kernel::open()?;
    let place = kernel.place(config.node_ip).await?;
    let wanted = peer_network(own.as_ref(), &place, &peers);
    let mut failed = None;
    for step in differences(&wanted, &kernel.observe(Owner::Peers).await?) {
        tracing::debug!(?step, "pod network");
        // One node that cannot be reached must not cut off the others.
        if let Err(error) = kernel.apply(Owner::Peers, &step).await {
            failed = Some(error);
        }
    }
    failed.map_or(Ok(()), Err)
}

/// This node's own range, and the other nodes.
fn read_nodes(config: &PeersConfig, nodes: &[Arc<Node>]) -> (Option<NodeRange>, Vec<Peer>) {
    let (mut own, mut peers) = (None, Vec::new());
    for node in nodes {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let range = match NodeRange::of_node(&pod_cidrs(node)) {
            Ok(Some(range)) => range,
            Ok(None) => continue,
            Err(error) => {
                tracing::warn!(node = name, %error, "no route to this node's pods");
                continue;
            }
        };
        if name == config.node_name {
            own = Some(range);
        } else if let Some(node_ip) = internal_ip(node) {
            peers.push(Peer { node_ip, range });
        }
    }
    (own, peers)
}

/// A node's first IPv4 address of type `InternalIP`.
fn internal_ip(node: &Node) -> Option<Ipv4Addr> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    let internal = addresses.iter().filter(|address| address.type_ == "InternalIP");
    internal.filter_map(|address| address.address.parse().ok()).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_without_range_or_address_are_left_out() {
        let node = |name: &str, cidr: &str, ip: &str| -> Arc<Node> {
            let text = serde_json::json!({
                "metadata": { "name": name },
                "spec": { "podCIDR": cidr },
                "status": { "addresses": [
                    { "type": "Hostname", "address": name },
                    { "type": "InternalIP", "address": ip },
                ] },
            });
            Arc::new(serde_json::from_value(text).unwrap())
        };
        let config = PeersConfig { node_name: "n1".to_owned(), node_ip: "192.0.2.1".parse().unwrap() };
        let nodes = [
            node("n1", "10.42.0.0/24", "192.0.2.1"),
            node("n2", "10.42.1.0/24", "192.0.2.2"),
            node("new", "", "192.0.2.3"),
            node("six", "10.42.3.0/24", "fd00::1"),
            node("odd", "10.42.4.0/30", "192.0.2.4"),
        ];
        let (own, peers) = read_nodes(&config, &nodes);
        assert_eq!(own.unwrap().all.to_string(), "10.42.0.0/24");
        let [peer] = peers.as_slice() else { panic!("{peers:?}") };
        assert_eq!(
            (peer.node_ip.to_string().as_str(), peer.range.all.to_string().as_str()),
            ("192.0.2.2", "10.42.1.0/24")
        );
    }
}
