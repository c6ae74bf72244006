//! Deployments: replica sets for each template, and the way from one to the next.

mod annotations;
mod conditions;
mod plan;
mod scaling;
mod strategy;
mod template;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;
use wherry_client::object_ref::{controller_of, controller_ref};
use wherry_client::retry::is_namespace_terminating;
use wherry_client::{
    Change, EventRecorder, EventType, Informer, Lifecycle, ObjectKey, WorkQueue, is_already_exists,
    is_not_found, object_ref,
};

use crate::error::Error;
use crate::ownership::{Claim, adopt, claim, release};
use crate::replica_set::{BY_CONTROLLER, index_by_controller};
use crate::{Context, pods, selector};
use plan::{Observed, Plan, Update, plan};

/// The size that a replica set is to have.
fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Runs the controller until the lifecycle ends.
pub(crate) async fn run(context: Context, lifecycle: &Lifecycle) -> Result<(), Error> {
    let controller = Arc::new(DeploymentController {
        client: context.client.clone(),
        deployments: context.informers.of(),
        replica_sets: context.informers.of(),
        pods: context.informers.of(),
        queue: WorkQueue::new(),
        events: context.recorder("deployment-controller"),
    });
    controller.subscribe();
    let (queue, watched) = (controller.queue.clone(), controller.clone());
    let synced = async move {
        watched.deployments.wait_synced().await
            && watched.replica_sets.wait_synced().await
            && watched.pods.wait_synced().await
    };
    let sync = move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    };
    context.work(queue, synced, lifecycle, sync).await
}

struct DeploymentController {
    client: kube::Client,
    deployments: Informer<Deployment>,
    replica_sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    queue: WorkQueue<ObjectKey>,
    events: EventRecorder,
}

impl DeploymentController {
    fn subscribe(&self) {
        index_by_controller(&self.pods);
        let queue = self.queue.clone();
        self.deployments.subscribe(move |change| queue.add(ObjectKey::of(&**change.object())));

        let (queue, deployments) = (self.queue.clone(), self.deployments.store().clone());
        self.replica_sets.subscribe(move |change| {
            let set = change.object();
            if let Some(former) = change.old().and_then(|old| owner_key(old)) {
                queue.add(former);
            }
            match owner_key(set) {
                Some(key) => queue.add(key),
                None if controller_of(&**set).is_none() && !matches!(change, Change::Deleted(_)) => {
                    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
                    for deployment in deployments.list_namespace(namespace) {
                        let Some(spec) = &deployment.spec else { continue };
                        let matches = selector::compile(&spec.selector, String::new)
                            .is_ok_and(|compiled| selector::matches(&compiled, set.metadata.labels.as_ref()));
                        if matches {
                            queue.add(ObjectKey::of(&*deployment));
                        }
                    }
                }
                None => {}
            }
        });

        // A deployment that recreates waits for the last pod of the old templates.
        let (queue, deployments) = (self.queue.clone(), self.deployments.store().clone());
        let replica_sets = self.replica_sets.store().clone();
        self.pods.subscribe(move |change| {
            let pod = change.object();
            let has_ended = matches!(change, Change::Deleted(_)) || pods::is_terminal(pod);
            let Some(owner) = controller_of(&**pod).filter(|owner| has_ended && owner.kind == "ReplicaSet")
            else {
                return;
            };
            let namespace = pods::namespace(pod);
            let key = replica_sets.get(namespace, &owner.name).and_then(|set| owner_key(&set));
            if let Some(key) = key
                && deployments
                    .get(namespace, &key.name)
                    .is_some_and(|found| !strategy::is_rolling_update(&found))
            {
                queue.add(key);
            }
        });
    }

    async fn sync(&self, key: &ObjectKey) -> Result<(), Error> {
        let Some(deployment) = self.deployments.store().get(&key.namespace, &key.name) else { return Ok(()) };
        let spec = deployment.spec.clone().unwrap_or_default();
        if spec.selector.match_labels.as_ref().is_none_or(|labels| labels.is_empty())
            && spec.selector.match_expressions.as_ref().is_none_or(|expressions| expressions.is_empty())
        {
            return self.refuse_empty_selector(&deployment).await;
        }
        let replica_sets = self.claim_replica_sets(&deployment).await?;
        let running_pods_of = match strategy::is_rolling_update(&deployment) {
            true => Vec::new(),
            false => self.running_pods_of(&replica_sets),
        };
        let now = Timestamp::now();
        let plan = plan(Observed { deployment: &deployment, replica_sets, running_pods_of, now });
        let again_after = plan.again_after;
        self.carry_out(&deployment, plan).await?;
        if let Some(delay) = again_after {
            self.queue.add_after(key.clone(), delay);
        }
        Ok(())
    }

    async fn refuse_empty_selector(&self, deployment: &Arc<Deployment>) -> Result<(), Error> {
        let message = "This deployment is selecting all pods. A non-empty selector is required.";
        self.events.event(&object_ref(&**deployment), EventType::Warning, "SelectingAll", message);
        let status = deployment.status.clone().unwrap_or_default();
        if status.observed_generation < deployment.metadata.generation {
            let observed_generation = deployment.metadata.generation;
            self.write_status(deployment, DeploymentStatus { observed_generation, ..status }, None).await?;
        }
        Ok(())
    }

    /// The replica sets that are controlled, after adoption and release.
    async fn claim_replica_sets(&self, deployment: &Arc<Deployment>) -> Result<Vec<ReplicaSet>, Error> {
        let key = ObjectKey::of(&**deployment);
        let spec = deployment.spec.clone().unwrap_or_default();
        let selector = selector::compile(&spec.selector, || format!("deployment {key}"))?;
        let uid = deployment.metadata.uid.as_deref().unwrap_or_default();
        let is_deleted = deployment.metadata.deletion_timestamp.is_some();
        let api: Api<ReplicaSet> = Api::namespaced(self.client.clone(), &key.namespace);
        let mut claimed = Vec::new();
        let mut may_adopt = None;
        for set in self.replica_sets.store().list_namespace(&key.namespace) {
            match claim(&*set, uid, is_deleted, &selector) {
                Claim::Ignore => {}
                Claim::Owned => claimed.push((*set).clone()),
                Claim::Release => {
                    release(&api, &set, uid).await.map_err(Error::api("releasing a replica set"))?;
                }
                Claim::Adopt => {
                    if may_adopt.is_none() {
                        may_adopt = Some(self.still_exists(deployment).await?);
                    }
                    let owner = controller_ref(&**deployment);
                    if may_adopt == Some(true)
                        && adopt(&api, &set, &owner).await.map_err(Error::api("adopting a replica set"))?
                    {
                        claimed.push((*set).clone());
                    }
                }
            }
        }
        Ok(claimed)
    }

    async fn still_exists(&self, deployment: &Deployment) -> Result<bool, Error> {
        let name = deployment.metadata.name.as_deref().unwrap_or_default();
        let fresh =
            self.api(deployment).get_opt(name).await.map_err(Error::api("reading the deployment again"))?;
        Ok(fresh.is_some_and(|fresh| {
            fresh.metadata.uid == deployment.metadata.uid && fresh.metadata.deletion_timestamp.is_none()
        }))
    }

    fn running_pods_of(&self, replica_sets: &[ReplicaSet]) -> Vec<String> {
        let uids = replica_sets.iter().filter_map(|set| set.metadata.uid.as_ref());
        uids.flat_map(|uid| {
            let running = self.pods.store().indexed(BY_CONTROLLER, uid);
            running.into_iter().filter(|pod| !pods::is_terminal(pod)).map(|_| uid.clone())
        })
        .collect()
    }

    async fn carry_out(&self, deployment: &Arc<Deployment>, plan: Plan) -> Result<(), Error> {
        let api: Api<ReplicaSet> = Api::namespaced(
            self.client.clone(),
            deployment.metadata.namespace.as_deref().unwrap_or_default(),
        );
        if let Some(set) = &plan.create {
            self.create(deployment, &api, set).await?;
        }
        for update in &plan.update {
            self.update(deployment, &api, update).await?;
        }
        for set in &plan.delete {
            let preconditions = Preconditions { uid: set.metadata.uid.clone(), resource_version: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
            match api.delete(set.metadata.name.as_deref().unwrap_or_default(), &params).await {
                Err(error) if !is_not_found(&error) => {
                    return Err(Error::api("deleting an old replica set")(error));
                }
                _ => {}
            }
        }
        if plan.revision.is_some() || plan.status != normalized(deployment.status.clone().unwrap_or_default())
        {
            self.write_status(deployment, plan.status, plan.revision).await?;
        }
        Ok(())
    }

    async fn create(
        &self,
        deployment: &Arc<Deployment>,
        api: &Api<ReplicaSet>,
        set: &ReplicaSet,
    ) -> Result<(), Error> {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        match api.create(&PostParams::default(), set).await {
            Ok(_) => {
                if size(set) > 0 {
                    let message = format!("Scaled up replica set {name} from 0 to {}", size(set));
                    self.events.event(
                        &object_ref(&**deployment),
                        EventType::Normal,
                        "ScalingReplicaSet",
                        message,
                    );
                }
                Ok(())
            }
            Err(error) if is_already_exists(&error) => {
                self.resolve_collision(deployment, api, name, error).await
            }
            Err(error) if is_namespace_terminating(&error) => {
                Err(Error::api("creating a replica set in a namespace that is being deleted")(error))
            }
            Err(error) => {
                let said = match &error {
                    kube::Error::Api(status) => status.message.clone(),
                    error => error.to_string(),
                };
                let message = format!("Failed to create new replica set \"{name}\": {said}");
                let reference = object_ref(&**deployment);
                self.events.event(&reference, EventType::Warning, "ReplicaSetCreateError", message.clone());
                let status = plan::status_of_failed_creation(deployment, message, Timestamp::now());
                if Some(&status) != deployment.status.as_ref() {
                    self.write_status(deployment, status, None).await?;
                }
                Err(Error::api("creating a replica set")(error))
            }
        }
    }

    /// The name is taken: by the replica set that was to be made, seen too late, or by one of another template, which
    /// asks for another name.
    async fn resolve_collision(
        &self,
        deployment: &Arc<Deployment>,
        api: &Api<ReplicaSet>,
        name: &str,
        error: kube::Error,
    ) -> Result<(), Error> {
        let existing =
            api.get_opt(name).await.map_err(Error::api("reading the replica set of the same name"))?;
        let Some(existing) = existing else { return Err(Error::api("creating a replica set")(error)) };
        let is_own = controller_of(&existing).map(|owner| &owner.uid) == deployment.metadata.uid.as_ref();
        if !(is_own && template::is_of_template(deployment, &existing)) {
            let mut status = deployment.status.clone().unwrap_or_default();
            status.collision_count = Some(status.collision_count.unwrap_or_default().saturating_add(1));
            self.write_status(deployment, status, None).await?;
        }
        // Either way the next attempt sees more.
        Err(Error::StaleCache { object: format!("replicaset {}", ObjectKey::of(&existing)) })
    }

    async fn update(
        &self,
        deployment: &Arc<Deployment>,
        api: &Api<ReplicaSet>,
        update: &Update,
    ) -> Result<(), Error> {
        let set = &update.replica_set;
        let name = set.metadata.name.as_deref().unwrap_or_default();
        api.replace(name, &PostParams::default(), set).await.map_err(Error::api("updating a replica set"))?;
        if let Some(from) = update.scaled_from {
            let direction = if size(set) > from { "up" } else { "down" };
            let message = format!("Scaled {direction} replica set {name} from {from} to {}", size(set));
            self.events.event(&object_ref(&**deployment), EventType::Normal, "ScalingReplicaSet", message);
        }
        Ok(())
    }

    async fn write_status(
        &self,
        deployment: &Arc<Deployment>,
        status: DeploymentStatus,
        revision: Option<String>,
    ) -> Result<(), Error> {
        let mut updated = (**deployment).clone();
        updated.status = Some(status);
        if let Some(revision) = &revision {
            let annotations = updated.metadata.annotations.get_or_insert_default();
            annotations.insert(annotations::REVISION.to_owned(), revision.clone());
        }
        let name = deployment.metadata.name.as_deref().unwrap_or_default();
        let written = match self.api(deployment).replace_status(name, &PostParams::default(), &updated).await
        {
            Err(error) if is_not_found(&error) => return Ok(()),
            outcome => outcome.map_err(Error::api("writing the status of a deployment"))?,
        };
        // Kubernetes lets annotations pass with the status; where a server does not, they are written on their own.
        if let Some(revision) = revision
            && written.metadata.annotations.as_ref().and_then(|all| all.get(annotations::REVISION))
                != Some(&revision)
        {
            let patch = json!({ "metadata": { "annotations": { annotations::REVISION: revision } } });
            self.api(deployment)
                .patch(name, &PatchParams::default(), &Patch::Merge(patch))
                .await
                .map_err(Error::api("writing the revision of a deployment"))?;
        }
        Ok(())
    }

    fn api(&self, deployment: &Deployment) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), deployment.metadata.namespace.as_deref().unwrap_or_default())
    }
}

/// The status as the plan writes it: zeros and empty lists left out.
fn normalized(status: DeploymentStatus) -> DeploymentStatus {
    let nonzero = |count: Option<i32>| count.filter(|count| *count != 0);
    DeploymentStatus {
        available_replicas: nonzero(status.available_replicas),
        ready_replicas: nonzero(status.ready_replicas),
        replicas: nonzero(status.replicas),
        unavailable_replicas: nonzero(status.unavailable_replicas),
        updated_replicas: nonzero(status.updated_replicas),
        terminating_replicas: Some(status.terminating_replicas.unwrap_or_default()),
        conditions: status.conditions.filter(|conditions| !conditions.is_empty()),
        ..status
    }
}

/// The deployment that controls the replica set.
fn owner_key(set: &ReplicaSet) -> Option<ObjectKey> {
    let owner = controller_of(set)
        .filter(|owner| owner.kind == "Deployment" && owner.api_version.starts_with("apps/"))?;
    Some(ObjectKey::new(set.metadata.namespace.clone().unwrap_or_default(), owner.name.clone()))
}
