//! ReplicaSets: as many pods as wanted, of one template.

mod plan;
mod watch;

use std::sync::Arc;

use futures::{StreamExt, stream};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use wherry_client::object_ref::{controller_of, controller_ref};
use wherry_client::retry::is_namespace_terminating;
use wherry_client::{
    EventRecorder, EventType, Informer, Lifecycle, ObjectKey, WorkQueue, is_conflict, is_not_found,
    object_ref,
};

use crate::error::Error;
use crate::expectations::{EXPIRY, Expectations};
use crate::ownership::{Claim, adopt, claim, release};
use crate::{Context, pods, selector};
use plan::{Failure, Scale, is_same_status, new_pod, plan_scale, plan_status};

/// How many pods of one replica set are created or deleted at the same time, once the first ones went well.
const CONCURRENT_WRITES: usize = 16;

/// The index of pods by the uid of their controller; those without one are under [`orphans_in`] their namespace.
pub(crate) const BY_CONTROLLER: &str = "controller";
/// The index of replica sets by the uid of their controller.
const BY_OWNER: &str = "controller";

/// Where pods without a controller are filed.
pub(crate) fn orphans_in(namespace: &str) -> String {
    format!("/{namespace}")
}

/// Indexes pods by their controller.
pub(crate) fn index_by_controller(pods: &Informer<Pod>) {
    pods.add_index(BY_CONTROLLER, |pod| {
        vec![controller_of(pod).map_or_else(|| orphans_in(pods::namespace(pod)), |owner| owner.uid.clone())]
    });
}

/// Runs the controller until the lifecycle ends.
pub(crate) async fn run(context: Context, lifecycle: &Lifecycle) -> Result<(), Error> {
    let controller = Arc::new(ReplicaSetController::new(&context));
    controller.subscribe();
    let (queue, watched) = (controller.queue.clone(), controller.clone());
    let synced = async move { watched.replica_sets.wait_synced().await && watched.pods.wait_synced().await };
    let sync = move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    };
    context.work(queue, synced, lifecycle, sync).await
}

struct ReplicaSetController {
    client: kube::Client,
    replica_sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    queue: WorkQueue<ObjectKey>,
    expectations: Arc<Expectations>,
    events: EventRecorder,
}

impl ReplicaSetController {
    fn new(context: &Context) -> Self {
        let (replica_sets, pods) = (context.informers.of::<ReplicaSet>(), context.informers.of::<Pod>());
        index_by_controller(&pods);
        replica_sets.add_index(BY_OWNER, |replica_set| {
            controller_of(replica_set).map(|owner| owner.uid.clone()).into_iter().collect()
        });
        Self {
            client: context.client.clone(),
            replica_sets,
            pods,
            queue: WorkQueue::new(),
            expectations: Arc::default(),
            events: context.recorder("replicaset-controller"),
        }
    }

    async fn sync(&self, key: &ObjectKey) -> Result<(), Error> {
        let Some(replica_set) = self.replica_sets.store().get(&key.namespace, &key.name) else {
            self.expectations.forget(key);
            return Ok(());
        };
        // Before the pods are read: what is seen after this may only make the numbers newer.
        let may_scale = self.expectations.are_met(key);
        if !may_scale {
            // Mostly the next pod event comes sooner.
            self.queue.add_after(key.clone(), EXPIRY);
        }
        let claimed = self.claim_pods(&replica_set).await?;
        let active: Vec<_> = claimed.iter().filter(|pod| pods::is_active(pod)).cloned().collect();
        let terminating =
            claimed.iter().filter(|pod| pods::is_terminating(pod) && !pods::is_terminal(pod)).count();
        let failure = if may_scale && replica_set.metadata.deletion_timestamp.is_none() {
            self.scale(key, &replica_set, &active).await
        } else {
            None
        };
        let (status, next) =
            plan_status(&replica_set, &active, terminating, failure.as_ref(), Timestamp::now());
        if !is_same_status(&status, &replica_set.status.clone().unwrap_or_default()) {
            self.write_status(&replica_set, status).await?;
        }
        if let Some(next) = next {
            self.queue.add_after(key.clone(), next);
        }
        match failure {
            Some(failure) => {
                Err(Error::Replicas { object: format!("replicaset {key}"), message: failure.message })
            }
            None => Ok(()),
        }
    }

    /// The pods that are managed, after adoption and release.
    async fn claim_pods(&self, replica_set: &Arc<ReplicaSet>) -> Result<Vec<Arc<Pod>>, Error> {
        let object = || format!("replicaset {}", ObjectKey::of(&**replica_set));
        let spec = replica_set.spec.clone().unwrap_or_default();
        let selector = selector::compile(&spec.selector, object)?;
        let namespace = replica_set.metadata.namespace.as_deref().unwrap_or_default();
        let uid = replica_set.metadata.uid.as_deref().unwrap_or_default();
        let is_deleted = replica_set.metadata.deletion_timestamp.is_some();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let mut claimed = Vec::new();
        let mut may_adopt = None;
        let store = self.pods.store();
        let candidates = store.indexed(BY_CONTROLLER, uid);
        for pod in candidates.into_iter().chain(store.indexed(BY_CONTROLLER, &orphans_in(namespace))) {
            match claim(&*pod, uid, is_deleted, &selector) {
                Claim::Ignore => {}
                Claim::Owned => claimed.push(pod),
                Claim::Release => {
                    release(&api, &pod, uid).await.map_err(Error::api("releasing a pod"))?;
                }
                // Terminated orphans are nobody's replicas.
                Claim::Adopt if !pods::is_active(&pod) => {}
                Claim::Adopt => {
                    if may_adopt.is_none() {
                        may_adopt = Some(self.still_exists(replica_set).await?);
                    }
                    let owner = controller_ref(&**replica_set);
                    if may_adopt == Some(true)
                        && adopt(&api, &pod, &owner).await.map_err(Error::api("adopting a pod"))?
                    {
                        claimed.push(pod);
                    }
                }
            }
        }
        Ok(claimed)
    }

    /// Whether the API server still has this replica set, not being deleted: a cache is not enough to adopt by.
    async fn still_exists(&self, replica_set: &ReplicaSet) -> Result<bool, Error> {
        let fresh = self
            .api(replica_set)
            .get_opt(replica_set.metadata.name.as_deref().unwrap_or_default())
            .await
            .map_err(Error::api("reading the replica set again"))?;
        Ok(fresh.is_some_and(|fresh| {
            fresh.metadata.uid == replica_set.metadata.uid && fresh.metadata.deletion_timestamp.is_none()
        }))
    }

    async fn scale(
        &self,
        key: &ObjectKey,
        replica_set: &Arc<ReplicaSet>,
        active: &[Arc<Pod>],
    ) -> Option<Failure> {
        match plan_scale(replica_set, active, &self.related_pods(replica_set), Timestamp::now()) {
            Scale::Nothing => None,
            Scale::Create(count) => self.create_pods(key, replica_set, count).await,
            Scale::Delete(surplus) => self.delete_pods(key, replica_set, surplus).await,
        }
    }

    /// The active pods of all replica sets of the same controller.
    fn related_pods(&self, replica_set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let siblings = match controller_of(replica_set) {
            Some(owner) => self.replica_sets.store().indexed(BY_OWNER, &owner.uid),
            None => vec![Arc::new(replica_set.clone())],
        };
        let uids = siblings.iter().filter_map(|sibling| sibling.metadata.uid.clone());
        uids.flat_map(|uid| self.pods.store().indexed(BY_CONTROLLER, &uid))
            .filter(|pod| pods::is_active(pod))
            .collect()
    }

    /// Creates pods in batches of 1, 2, 4, …: when the first is refused (quota, admission), the others are not tried.
    async fn create_pods(
        &self,
        key: &ObjectKey,
        replica_set: &Arc<ReplicaSet>,
        count: usize,
    ) -> Option<Failure> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let pod = new_pod(replica_set);
        let reference = object_ref(&**replica_set);
        self.expectations.expect_creations(key, count);
        let (mut left, mut batch) = (count, 1);
        let mut failure = None;
        while left > 0 && failure.is_none() {
            let now = batch.min(left);
            let outcomes: Vec<_> = stream::iter(0..now)
                .map(|_| async { api.create(&PostParams::default(), &pod).await })
                .buffer_unordered(CONCURRENT_WRITES)
                .collect()
                .await;
            left -= now;
            batch *= 2;
            for outcome in outcomes {
                match outcome {
                    Ok(created) => {
                        let message = format!("Created pod: {}", pods::name(&created));
                        self.events.event(&reference, EventType::Normal, "SuccessfulCreate", message);
                    }
                    Err(error) => {
                        self.expectations.creation_seen(key);
                        // Nothing can be created there any more, and this replica set is going too.
                        if !is_namespace_terminating(&error) {
                            let message = api_message(&error);
                            let told = format!("Error creating: {message}");
                            self.events.event(&reference, EventType::Warning, "FailedCreate", told);
                            failure = Some(Failure { reason: "FailedCreate", message });
                        }
                    }
                }
            }
        }
        (0..left).for_each(|_| self.expectations.creation_seen(key));
        failure
    }

    async fn delete_pods(
        &self,
        key: &ObjectKey,
        replica_set: &Arc<ReplicaSet>,
        surplus: Vec<Arc<Pod>>,
    ) -> Option<Failure> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &key.namespace);
        let reference = object_ref(&**replica_set);
        self.expectations.expect_deletions(key, surplus.iter().map(|pod| pods::uid(pod).to_owned()));
        let api = &api;
        let outcomes: Vec<_> = stream::iter(surplus)
            .map(|pod| async move {
                let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
                let params =
                    DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
                let outcome = api.delete(pods::name(&pod), &params).await;
                (pod, outcome)
            })
            .buffer_unordered(CONCURRENT_WRITES)
            .collect()
            .await;
        let mut failure = None;
        for (pod, outcome) in outcomes {
            match outcome {
                Ok(_) => {
                    let message = format!("Deleted pod: {}", pods::name(&pod));
                    self.events.event(&reference, EventType::Normal, "SuccessfulDelete", message);
                }
                Err(error) => {
                    self.expectations.deletion_seen(key, pods::uid(&pod));
                    if !(is_not_found(&error) || is_conflict(&error)) {
                        let message = api_message(&error);
                        let told = format!("Error deleting: {message}");
                        self.events.event(&reference, EventType::Warning, "FailedDelete", told);
                        failure = Some(Failure { reason: "FailedDelete", message });
                    }
                }
            }
        }
        failure
    }

    async fn write_status(
        &self,
        replica_set: &Arc<ReplicaSet>,
        status: k8s_openapi::api::apps::v1::ReplicaSetStatus,
    ) -> Result<(), Error> {
        let mut updated = (**replica_set).clone();
        updated.status = Some(status);
        let name = replica_set.metadata.name.as_deref().unwrap_or_default();
        match self.api(replica_set).replace_status(name, &PostParams::default(), &updated).await {
            Err(error) if is_not_found(&error) => Ok(()),
            outcome => outcome.map(drop).map_err(Error::api("writing the status of a replica set")),
        }
    }

    fn api(&self, replica_set: &ReplicaSet) -> Api<ReplicaSet> {
        Api::namespaced(self.client.clone(), replica_set.metadata.namespace.as_deref().unwrap_or_default())
    }
}

/// What the API server said, without the client's wrapping.
fn api_message(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}
