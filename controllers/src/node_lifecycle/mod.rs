//! Node lifecycle: silent nodes are marked and tainted, and pods leave nodes that they do not tolerate.

mod evict;
mod plan;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;
use wherry_client::{
    Change, EventRecorder, EventType, Informer, Lifecycle, Selection, WorkQueue, is_not_found, object_ref,
    run_workers,
};

use crate::endpoint_slice::BY_NODE;
use crate::error::Error;
use crate::{Context, pods};
use plan::{conditions_of_silent_node, ready_status, taints};

/// The namespace of the nodes' leases.
const LEASES: &str = "kube-node-lease";

/// Runs the controller until the lifecycle ends.
pub(crate) async fn run(context: Context, lifecycle: &Lifecycle) -> Result<(), Error> {
    let informers = &context.informers;
    let controller = Arc::new(NodeLifecycle {
        client: context.client.clone(),
        nodes: informers.of(),
        leases: informers.of_selected(Selection::fields(format!("metadata.namespace={LEASES}"))),
        pods: informers.of(),
        heartbeats: Arc::default(),
        grace_period: context.config.node_monitor_grace_period,
        queue: WorkQueue::new(),
        evictions: WorkQueue::new(),
        events: context.recorder("node-controller"),
    });
    controller.pods.add_index(BY_NODE, |pod| {
        Some(pods::node_name(pod)).filter(|node| !node.is_empty()).map(str::to_owned).into_iter().collect()
    });
    controller.subscribe();
    let synced = futures::join!(
        controller.nodes.wait_synced(),
        controller.leases.wait_synced(),
        controller.pods.wait_synced()
    );
    if synced != (true, true, true) {
        return Err(Error::NotSynced);
    }
    lifecycle.readiness.set_ready();
    let (nodes, evictor) = (controller.clone(), controller.clone());
    let monitor =
        run_workers(controller.queue.clone(), context.config.workers, lifecycle, move |node: String| {
            let controller = nodes.clone();
            async move { controller.sync(&node).await }
        });
    let evict = run_workers(controller.evictions.clone(), context.config.workers, lifecycle, move |key| {
        let controller = evictor.clone();
        async move { controller.evict_if_due(&key).await }
    });
    futures::join!(monitor, evict);
    Ok(())
}

struct NodeLifecycle {
    client: kube::Client,
    nodes: Informer<Node>,
    leases: Informer<Lease>,
    pods: Informer<Pod>,
    /// When each node was last heard of, by this process's clock: the nodes' own clocks do not matter.
    heartbeats: Arc<Mutex<HashMap<String, Instant>>>,
    grace_period: Duration,
    queue: WorkQueue<String>,
    evictions: WorkQueue<wherry_client::ObjectKey>,
    events: EventRecorder,
}

impl NodeLifecycle {
    fn subscribe(&self) {
        let (queue, heartbeats, grace) = (self.queue.clone(), self.heartbeats.clone(), self.grace_period);
        let heard_of = move |node: &str| {
            let is_new = {
                let mut heartbeats = heartbeats.lock().unwrap_or_else(PoisonError::into_inner);
                heartbeats.insert(node.to_owned(), Instant::now()).is_none()
            };
            // One timer per node: when it fires, it is set again for what is left.
            if is_new {
                queue.add_after(node.to_owned(), grace);
            }
        };
        let of_leases = heard_of.clone();
        self.leases.subscribe(move |change| {
            let renewed = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
            let has_changed = change.old().is_none_or(|old| renewed(old) != renewed(change.object()));
            if !matches!(change, Change::Deleted(_)) && has_changed {
                of_leases(change.object().metadata.name.as_deref().unwrap_or_default());
            }
        });
        let (queue, heartbeats) = (self.queue.clone(), self.heartbeats.clone());
        let (events, evictions, pods) =
            (self.events.clone(), self.evictions.clone(), self.pods.store().clone());
        self.nodes.subscribe(move |change| {
            let node = change.object();
            let name = node.metadata.name.clone().unwrap_or_default();
            match change {
                Change::Added(_) => {
                    heard_of(&name);
                    let message = format!("Node {name} event: Registered Node {name} in Controller");
                    events.event(&object_ref(&**node), EventType::Normal, "RegisteredNode", message);
                }
                Change::Updated { old, new } => {
                    if heartbeat(old) != heartbeat(new) {
                        heard_of(&name);
                    }
                }
                Change::Deleted(_) => {
                    heartbeats.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
                    let message = format!("Node {name} event: Removing Node {name} from Controller");
                    events.event(&object_ref(&**node), EventType::Normal, "RemovingNode", message);
                    return;
                }
            }
            let spec = |node: &Node| node.spec.as_ref().and_then(|spec| spec.taints.clone());
            if change.old().is_none_or(|old| spec(old) != spec(node)) {
                for pod in pods.indexed(BY_NODE, &name) {
                    evictions.add(wherry_client::ObjectKey::of(&*pod));
                }
            }
            queue.add(name);
        });
        let evictions = self.evictions.clone();
        self.pods.subscribe(move |change| {
            let pod = change.object();
            let relevant = |pod: &Pod| {
                (pods::node_name(pod).to_owned(), pod.spec.as_ref().map(|s| s.tolerations.clone()))
            };
            let is_relevant = change.old().is_none_or(|old| relevant(old) != relevant(pod));
            if !matches!(change, Change::Deleted(_)) && is_relevant && !pods::node_name(pod).is_empty() {
                evictions.add(wherry_client::ObjectKey::of(&**pod));
            }
        });
    }

    async fn sync(&self, name: &str) -> Result<(), Error> {
        let Some(node) = self.nodes.store().get("", name) else { return Ok(()) };
        let last_heard = {
            let heartbeats = self.heartbeats.lock().unwrap_or_else(PoisonError::into_inner);
            heartbeats.get(name).copied()
        };
        let silent_for = last_heard.map_or(Duration::ZERO, |at| at.elapsed());
        let mut node = (*node).clone();
        let was_ready = ready_status(&node) == "True";
        if silent_for >= self.grace_period {
            if let Some(conditions) = conditions_of_silent_node(&node, Timestamp::now()) {
                self.write_conditions(name, &conditions).await?;
                if was_ready {
                    self.note_lost(&node);
                }
                node.status.get_or_insert_default().conditions = Some(conditions);
            }
            self.queue.add_after(name.to_owned(), self.grace_period);
        } else {
            self.queue.add_after(name.to_owned(), self.grace_period - silent_for);
        }
        if ready_status(&node) != "True" {
            self.mark_pods_not_ready(name).await?;
        }
        if let Some(taints) = taints(&node, Timestamp::now()) {
            let patch = json!({
                "metadata": { "resourceVersion": self.resource_version(name, &node) },
                "spec": { "taints": taints },
            });
            self.patch(name, patch).await?;
        }
        Ok(())
    }

    /// The version that the taints are written against; none after this sync has written the status itself.
    fn resource_version(&self, name: &str, node: &Node) -> Option<String> {
        let shown = self.nodes.store().get("", name)?;
        let is_unchanged = shown.status.as_ref().map(|status| &status.conditions)
            == node.status.as_ref().map(|status| &status.conditions);
        shown.metadata.resource_version.clone().filter(|_| is_unchanged)
    }

    fn note_lost(&self, node: &Node) {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let message = format!("Node {name} status is now: NodeNotReady");
        self.events.event(&object_ref(node), EventType::Normal, "NodeNotReady", message);
    }

    async fn write_conditions(&self, name: &str, conditions: &[NodeCondition]) -> Result<(), Error> {
        let api: Api<Node> = Api::all(self.client.clone());
        let patch = Patch::Strategic(json!({ "status": { "conditions": conditions } }));
        match api.patch_status(name, &PatchParams::default(), &patch).await {
            Err(error) if is_not_found(&error) => Ok(()),
            outcome => outcome.map(drop).map_err(Error::api("marking a silent node")),
        }
    }

    async fn patch(&self, name: &str, patch: serde_json::Value) -> Result<(), Error> {
        let api: Api<Node> = Api::all(self.client.clone());
        // The whole list is replaced: a strategic patch would merge it by key alone.
        match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if is_not_found(&error) => Ok(()),
            outcome => outcome.map(drop).map_err(Error::api("tainting a node")),
        }
    }

    /// Services leave the pods of a lost node alone from now on.
    async fn mark_pods_not_ready(&self, node: &str) -> Result<(), Error> {
        for pod in self.pods.store().indexed(BY_NODE, node) {
            let Some(ready) = pods::condition(&pod, "Ready").filter(|ready| ready.status == "True") else {
                continue;
            };
            let mut ready = ready.clone();
            ready.status = "False".to_owned();
            ready.last_transition_time =
                Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::now()));
            let api: Api<Pod> = Api::namespaced(self.client.clone(), pods::namespace(&pod));
            let patch = Patch::Strategic(
                json!({ "metadata": { "uid": pod.metadata.uid }, "status": { "conditions": [ready] } }),
            );
            match api.patch_status(pods::name(&pod), &PatchParams::default(), &patch).await {
                Err(error) if is_not_found(&error) => continue,
                outcome => drop(outcome.map_err(Error::api("marking a pod of a lost node"))?),
            }
            self.events.event(&object_ref(&*pod), EventType::Warning, "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }
}

/// When the kubelet last wrote the Ready condition, by its own clock.
fn heartbeat(node: &Node) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "Ready")?.last_heartbeat_time.as_ref()
}
