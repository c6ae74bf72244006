//! Node IPAM: every Node gets its own part of the cluster's pod range, as `spec.podCIDR` and `spec.podCIDRs`.
//!
//! A Node's range never changes (the API server sees to that); it is given back when the Node is deleted. What Nodes have
//! is read from them at every start, so nothing else has to be remembered. Source: Kubernetes' range allocator.

mod ranges;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use wherry_client::{
    Change, EventRecorder, EventType, Informer, Lifecycle, WorkQueue, is_not_found, object_ref, run_workers,
};

use crate::Context;
use crate::error::Error;
use ranges::Ranges;

/// Runs the controller until the lifecycle ends. Without a range to divide there is nothing to do.
pub(crate) async fn run(context: Context, lifecycle: &Lifecycle) -> Result<(), Error> {
    let Some(cluster) = context.config.cluster_cidr else {
        lifecycle.readiness.set_ready();
        lifecycle.shutdown.cancelled().await;
        return Ok(());
    };
    let ranges = Ranges::new(cluster, context.config.node_cidr_mask_size)?;
    let allocator = Arc::new(Allocator {
        client: context.client.clone(),
        nodes: context.informers.of(),
        ranges: Mutex::new(ranges),
        events: context.recorder("cidrAllocator"),
    });
    if !allocator.nodes.wait_synced().await {
        return Err(Error::NotSynced);
    }
    // All that is held is known before the first part is given out.
    for node in allocator.nodes.store().list() {
        allocator.take_note(&node);
    }
    let queue = WorkQueue::new();
    allocator.subscribe(&queue);
    lifecycle.readiness.set_ready();
    run_workers(queue, context.config.workers, lifecycle, move |node: String| {
        let allocator = allocator.clone();
        async move { allocator.assign(&node).await }
    })
    .await;
    Ok(())
}

struct Allocator {
    client: kube::Client,
    nodes: Informer<Node>,
    ranges: Mutex<Ranges>,
    events: EventRecorder,
}

impl Allocator {
    fn ranges(&self) -> MutexGuard<'_, Ranges> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn subscribe(self: &Arc<Self>, queue: &WorkQueue<String>) {
        let (allocator, queue) = (self.clone(), queue.clone());
        self.nodes.subscribe(move |change| {
            let node = change.object();
            let name = node.metadata.name.clone().unwrap_or_default();
            if matches!(change, Change::Deleted(_)) {
                allocator.ranges().release(&name);
                // Somebody may have waited for this.
                for waiting in allocator.nodes.store().list().iter().filter(|node| pod_cidrs(node).is_empty())
                {
                    queue.add(waiting.metadata.name.clone().unwrap_or_default());
                }
            } else if pod_cidrs(node).is_empty() {
                queue.add(name);
            } else if change.old().is_none_or(|old| pod_cidrs(old) != pod_cidrs(node)) {
                allocator.take_note(node);
            }
        });
    }

    /// Remembers what a node has.
    fn take_note(&self, node: &Node) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        for cidr in pod_cidrs(node) {
            // Ranges of the other family are somebody else's.
            let Ok(range) = cidr.parse::<Ipv4Net>() else { continue };
            if !self.ranges().occupy(range, name) {
                tracing::debug!(node = name, %range, "the node's range lies outside of the cluster's");
            }
        }
    }

    async fn assign(&self, name: &str) -> Result<(), Error> {
        let Some(node) = self.nodes.store().get("", name) else { return Ok(()) };
        if !pod_cidrs(&node).is_empty() {
            return Ok(());
        }
        let Some(range) = self.ranges().allocate(name) else {
            self.report(&node, "CIDRNotAvailable");
            return Err(Error::NoRangeLeft { node: name.to_owned() });
        };
        // The Node that was looked at, and no namesake made since.
        let patch = json!({
            "metadata": { "uid": node.metadata.uid },
            "spec": { "podCIDR": range, "podCIDRs": [range] },
        });
        let api: Api<Node> = Api::all(self.client.clone());
        match api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
            Ok(_) => {
                tracing::debug!(node = name, %range, "the node has a range of pod addresses");
                Ok(())
            }
            Err(error) if is_not_found(&error) => {
                // Deleted before the informer said so; it will, and that gives the part back.
                Ok(())
            }
            Err(error) => {
                // The part stays this node's: the answer may have been lost on its way, and the next try asks for the same.
                self.report(&node, "CIDRAssignmentFailed");
                Err(Error::api("giving a node its range")(error))
            }
        }
    }

    fn report(&self, node: &Node, status: &str) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let message = format!("Node {name} status is now: {status}");
        self.events.event(&object_ref(node), EventType::Normal, status, message);
    }
}

/// The ranges that a node has.
fn pod_cidrs(node: &Node) -> &[String] {
    let Some(spec) = &node.spec else { return &[] };
    match (&spec.pod_cidrs, &spec.pod_cidr) {
        (Some(all), _) if !all.is_empty() => all,
        (_, Some(one)) if !one.is_empty() => std::slice::from_ref(one),
        _ => &[],
    }
}
