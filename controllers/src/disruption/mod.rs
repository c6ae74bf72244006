//! PodDisruptionBudgets: how many pods an eviction may take.

mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use wherry_client::object_ref::controller_of;
use wherry_client::{EventRecorder, EventType, Informer, Lifecycle, ObjectKey, WorkQueue, object_ref};

use crate::error::Error;
use crate::{Context, pods, selector};
use plan::Wanted;

/// Runs the controller until the lifecycle ends.
pub(crate) async fn run(context: Context, lifecycle: &Lifecycle) -> Result<(), Error> {
    let informers = &context.informers;
    let controller = Arc::new(DisruptionController {
        client: context.client.clone(),
        budgets: informers.of(),
        pods: informers.of(),
        deployments: informers.of(),
        replica_sets: informers.of(),
        stateful_sets: informers.of(),
        replication_controllers: informers.of(),
        queue: WorkQueue::new(),
        events: context.recorder("controllermanager"),
    });
    controller.subscribe();
    let (queue, watched) = (controller.queue.clone(), controller.clone());
    let synced = async move {
        watched.budgets.wait_synced().await
            && watched.pods.wait_synced().await
            && watched.deployments.wait_synced().await
            && watched.replica_sets.wait_synced().await
            && watched.stateful_sets.wait_synced().await
            && watched.replication_controllers.wait_synced().await
    };
    let sync = move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    };
    context.work(queue, synced, lifecycle, sync).await
}

struct DisruptionController {
    client: kube::Client,
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    deployments: Informer<Deployment>,
    replica_sets: Informer<ReplicaSet>,
    stateful_sets: Informer<StatefulSet>,
    replication_controllers: Informer<ReplicationController>,
    queue: WorkQueue<ObjectKey>,
    events: EventRecorder,
}

/// The pods of a budget: those that its selector matches; one without a selector has none.
fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let Some(wanted) = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref()) else { return false };
    selector::compile(wanted, String::new)
        .is_ok_and(|wanted| selector::matches(&wanted, pod.metadata.labels.as_ref()))
}

impl DisruptionController {
    fn subscribe(&self) {
        let queue = self.queue.clone();
        self.budgets.subscribe(move |change| queue.add(ObjectKey::of(&**change.object())));
        let (queue, budgets) = (self.queue.clone(), self.budgets.store().clone());
        self.pods.subscribe(move |change| {
            for budget in budgets.list_namespace(pods::namespace(change.object())) {
                let old = change.old().is_some_and(|old| selects(&budget, old));
                if old || selects(&budget, change.object()) {
                    queue.add(ObjectKey::of(&*budget));
                }
            }
        });
        // A change of scale changes what is expected; it is rare, and budgets are few.
        let (queue, budgets) = (self.queue.clone(), self.budgets.store().clone());
        let all_of = move |namespace: Option<&String>| {
            for budget in budgets.list_namespace(namespace.map(String::as_str).unwrap_or_default()) {
                queue.add(ObjectKey::of(&*budget));
            }
        };
        let all = all_of.clone();
        self.deployments.subscribe(move |change| {
            let scale = |deployment: &Deployment| deployment.spec.as_ref().and_then(|spec| spec.replicas);
            if change.old().map(|old| scale(old)) != Some(scale(change.object())) {
                all(change.object().metadata.namespace.as_ref());
            }
        });
        self.stateful_sets.subscribe(move |change| {
            let scale = |set: &StatefulSet| set.spec.as_ref().and_then(|spec| spec.replicas);
            if change.old().map(|old| scale(old)) != Some(scale(change.object())) {
                all_of(change.object().metadata.namespace.as_ref());
            }
        });
    }

    async fn sync(&self, key: &ObjectKey) -> Result<(), Error> {
        let Some(budget) = self.budgets.store().get(&key.namespace, &key.name) else { return Ok(()) };
        let found: Vec<_> = self
            .pods
            .store()
            .list_namespace(&key.namespace)
            .into_iter()
            .filter(|pod| selects(&budget, pod) && !pods::is_terminal(pod))
            .collect();
        if found.is_empty() {
            self.event(&budget, "NoPods", "No matching pods found");
        }
        let wanted = self.wanted(&key.namespace, &found);
        let (status, again) = plan::status(&budget, &found, wanted, Timestamp::now());
        if let Some(again) = again {
            self.queue.add_after(key.clone(), again);
        }
        if budget.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let mut new = (*budget).clone();
        new.status = Some(status);
        let api: Api<PodDisruptionBudget> = Api::namespaced(self.client.clone(), &key.namespace);
        // With its version: an eviction that came between has changed the status, and is not to be undone.
        api.replace_status(&key.name, &PostParams::default(), &new)
            .await
            .map(drop)
            .map_err(Error::api("updating the status of a disruption budget"))
    }

    /// How many pods the owners of these pods want. A pod without an owner counts as itself.
    fn wanted(&self, namespace: &str, found: &[Arc<Pod>]) -> Wanted {
        let mut owners: BTreeMap<String, i64> = BTreeMap::new();
        for pod in found {
            let Some(owner) = controller_of(&**pod) else {
                owners.insert(pods::uid(pod).to_owned(), 1);
                continue;
            };
            let (uid, replicas) = match owner.kind.as_str() {
                "ReplicaSet" => self.of_replica_set(namespace, &owner.name, &owner.uid),
                "StatefulSet" => {
                    let set = self.stateful_sets.store().get(namespace, &owner.name);
                    (owner.uid.clone(), set.and_then(|set| set.spec.as_ref()?.replicas))
                }
                "ReplicationController" => {
                    let found = self.replication_controllers.store().get(namespace, &owner.name);
                    (owner.uid.clone(), found.and_then(|found| found.spec.as_ref()?.replicas))
                }
                _ => (owner.uid.clone(), None),
            };
            match replicas {
                Some(replicas) => {
                    owners.insert(uid, i64::from(replicas));
                }
                // Of an owner that says no number, the pods that are there are what is wanted.
                None => *owners.entry(uid).or_default() += 1,
            }
        }
        Wanted { by_owners: owners.values().sum() }
    }

    fn of_replica_set(&self, namespace: &str, name: &str, uid: &str) -> (String, Option<i32>) {
        let Some(replica_set) = self.replica_sets.store().get(namespace, name) else {
            return (uid.to_owned(), None);
        };
        if let Some(owner) = controller_of(&*replica_set).filter(|owner| owner.kind == "Deployment")
            && let Some(deployment) = self.deployments.store().get(namespace, &owner.name)
        {
            return (owner.uid.clone(), deployment.spec.as_ref().and_then(|spec| spec.replicas));
        }
        (uid.to_owned(), replica_set.spec.as_ref().and_then(|spec| spec.replicas))
    }

    fn event(&self, budget: &PodDisruptionBudget, reason: &str, message: &str) {
        self.events.event(&object_ref(budget), EventType::Normal, reason, message);
    }
}
