//! Pod garbage: pods of nodes that are gone, terminated pods beyond a number, deleted pods that were never bound.

mod plan;

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use wherry_client::{
    Change, Informer, Lifecycle, ObjectKey, WorkQueue, is_conflict, is_not_found, run_workers,
};

use crate::endpoint_slice::BY_NODE;
use crate::error::Error;
use crate::{Config, Context, pods};
use plan::{failed_status, is_unscheduled_terminating, missing_nodes, surplus_terminated};

/// How many pods are deleted at the same time.
const CONCURRENT_DELETIONS: usize = 16;
/// Pods terminate in crowds: they are counted once for all that end within this time.
const COUNT_DELAY: Duration = Duration::from_secs(5);

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Task {
    /// The pods of a node that may be gone.
    Node(String),
    /// A deleted pod that was never bound.
    Unscheduled(ObjectKey),
    /// The number of terminated pods.
    Terminated,
}

/// Runs the controller until the lifecycle ends.
pub(crate) async fn run(context: Context, lifecycle: &Lifecycle) -> Result<(), Error> {
    let collector = Arc::new(PodCollector {
        client: context.client.clone(),
        pods: context.informers.of(),
        nodes: context.informers.of(),
        config: context.config.clone(),
    });
    collector.pods.add_index(BY_NODE, |pod| {
        Some(pods::node_name(pod)).filter(|node| !node.is_empty()).map(str::to_owned).into_iter().collect()
    });
    if !(collector.pods.wait_synced().await && collector.nodes.wait_synced().await) {
        return Err(Error::NotSynced);
    }
    let queue = WorkQueue::new();
    collector.subscribe(&queue);
    let exists = |node: &str| collector.nodes.store().get("", node).is_some();
    for node in missing_nodes(&collector.pods.store().list(), exists) {
        queue.add_after(Task::Node(node), context.config.orphaned_pod_quarantine);
    }
    lifecycle.readiness.set_ready();
    run_workers(queue, 2, lifecycle, move |task| {
        let collector = collector.clone();
        async move { collector.collect(task).await }
    })
    .await;
    Ok(())
}

struct PodCollector {
    client: kube::Client,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    config: Arc<Config>,
}

impl PodCollector {
    fn subscribe(&self, queue: &WorkQueue<Task>) {
        let (of_nodes, quarantine) = (queue.clone(), self.config.orphaned_pod_quarantine);
        self.nodes.subscribe(move |change| {
            if let Change::Deleted(node) = change {
                of_nodes.add_after(Task::Node(node.metadata.name.clone().unwrap_or_default()), quarantine);
            }
        });
        let (of_pods, nodes) = (queue.clone(), self.nodes.store().clone());
        self.pods.subscribe(move |change| {
            let pod = change.object();
            if matches!(change, Change::Deleted(_)) {
                return;
            }
            if is_unscheduled_terminating(pod) {
                of_pods.add(Task::Unscheduled(ObjectKey::of(&**pod)));
            }
            if pods::is_terminal(pod) && !change.old().is_some_and(|old| pods::is_terminal(old)) {
                of_pods.add_after(Task::Terminated, COUNT_DELAY);
            }
            let node = pods::node_name(pod);
            let is_newly_bound = change.old().is_none_or(|old| pods::node_name(old) != node);
            if !node.is_empty() && is_newly_bound && nodes.get("", node).is_none() {
                of_pods.add_after(Task::Node(node.to_owned()), quarantine);
            }
        });
    }

    async fn collect(&self, task: Task) -> Result<(), Error> {
        match task {
            Task::Node(node) => {
                // The cache may be wrong; the pods' lives depend on it.
                let api: Api<Node> = Api::all(self.client.clone());
                if api.get_opt(&node).await.map_err(Error::api("looking for a node"))?.is_some() {
                    return Ok(());
                }
                self.delete_all(self.pods.store().indexed(BY_NODE, &node)).await
            }
            Task::Unscheduled(key) => {
                let pod = self.pods.store().get(&key.namespace, &key.name);
                self.delete_all(pod.filter(|pod| is_unscheduled_terminating(pod)).into_iter().collect()).await
            }
            Task::Terminated => {
                let surplus =
                    surplus_terminated(&self.pods.store().list(), self.config.terminated_pod_threshold);
                self.delete_all(surplus).await
            }
        }
    }

    async fn delete_all(&self, pods: Vec<Arc<Pod>>) -> Result<(), Error> {
        let outcomes: Vec<_> = stream::iter(pods)
            .map(|pod| async move { self.delete(&pod).await })
            .buffer_unordered(CONCURRENT_DELETIONS)
            .collect()
            .await;
        outcomes.into_iter().collect()
    }

    /// Marks the pod as failed, then deletes it without grace: nobody is there to be graceful.
    async fn delete(&self, pod: &Pod) -> Result<(), Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), pods::namespace(pod));
        let is_bound = !pods::node_name(pod).is_empty();
        if is_bound && let Some(patch) = failed_status(pod, Timestamp::now()) {
            match api.patch_status(pods::name(pod), &PatchParams::default(), &Patch::Strategic(patch)).await {
                Err(error) if is_not_found(&error) => return Ok(()),
                outcome => drop(outcome.map_err(Error::api("marking a lost pod as failed"))?),
            }
        }
        let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteParams::background()
        };
        match api.delete(pods::name(pod), &params).await {
            Err(error) if !(is_not_found(&error) || is_conflict(&error)) => {
                Err(Error::api("deleting a lost pod")(error))
            }
            _ => Ok(()),
        }
    }
}
