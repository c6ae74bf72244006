//! Garbage: objects whose owners are gone are deleted, in the background, before their owners, or left as orphans.

mod graph;
mod mapper;
mod plan;
mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::PartialObjectMeta;
use serde_json::{Value, json};
use tokio::sync::Notify;
use wherry_client::{EventRecorder, EventType, Lifecycle, WorkQueue, is_conflict, is_not_found, run_workers};

use crate::Context;
use crate::error::Error;
use graph::{FOREGROUND, Graph, Identity, ORPHAN, View, Work};
use mapper::Mapper;
use plan::{Decision, OwnerState, decide};

/// How many objects are looked at at the same time, as in Kubernetes.
const WORKERS: usize = 20;
/// The longest time that a change of the served resources goes unnoticed.
const DISCOVERY_INTERVAL: Duration = Duration::from_secs(300);
/// The shortest time between two discoveries.
const DISCOVERY_PAUSE: Duration = Duration::from_secs(1);

/// Runs the controller until the lifecycle ends.
pub(crate) async fn run(context: Context, lifecycle: &Lifecycle) -> Result<(), Error> {
    let collector = Arc::new(GarbageCollector {
        client: context.client.clone(),
        graph: Arc::default(),
        mapper: Mapper::default(),
        queue: WorkQueue::new(),
        rediscover: Arc::default(),
        events: context.recorder("garbage-collector-controller"),
    });
    let mut watched = watch::Watched::new(context.informers.clone(), collector.clone());
    watched.discover().await?;
    watched.wait_synced().await?;
    lifecycle.readiness.set_ready();
    let worker = collector.clone();
    let work = run_workers(collector.queue.clone(), WORKERS, lifecycle, move |work: Work| {
        let collector = worker.clone();
        async move {
            match work {
                Work::Delete(uid) => collector.delete_if_unowned(&uid).await,
                Work::Orphan(uid) => collector.orphan_dependents(&uid).await,
            }
        }
    });
    let rediscover = async {
        loop {
            let _ = tokio::time::timeout(DISCOVERY_INTERVAL, collector.rediscover.notified()).await;
            tokio::time::sleep(DISCOVERY_PAUSE).await;
            if let Err(error) = watched.discover().await {
                tracing::debug!(error = %crate::error::Chain(&error), "discovery failed, will be tried again");
                collector.rediscover.notify_one();
            }
        }
    };
    tokio::select! {
        () = work => {}
        () = rediscover => {}
    }
    Ok(())
}

struct GarbageCollector {
    client: kube::Client,
    graph: Arc<Mutex<Graph>>,
    mapper: Mapper,
    queue: WorkQueue<Work>,
    /// Asks for a new look at what resources there are.
    rediscover: Arc<Notify>,
    events: EventRecorder,
}

type Metadata = PartialObjectMeta<DynamicObject>;

impl GarbageCollector {
    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enqueue(&self, work: Vec<Work>) {
        work.into_iter().for_each(|work| self.queue.add(work));
    }

    async fn delete_if_unowned(&self, uid: &str) -> Result<(), Error> {
        let Some(item) = self.graph().view(uid) else { return Ok(()) };
        if item.is_deleting && !item.is_deleting_dependents {
            return Ok(());
        }
        let latest = self.read(&item.identity).await?.filter(|latest| latest.uid.as_deref() == Some(uid));
        let Some(latest) = latest else {
            // What only its dependents have named does not exist. What was seen is the informer's to report; but it may
            // have gone before it was ever shown.
            let work = self.graph().remove(uid);
            self.enqueue(work);
            return Ok(());
        };
        if item.is_deleting_dependents {
            return self.finish_foreground(&item, &latest).await;
        }
        let mut owners = Vec::new();
        for owner in latest.owner_references.iter().flatten() {
            owners.push((owner.uid.clone(), self.state_of(&item.identity, owner).await?));
        }
        let finalizers = latest.finalizers.clone().unwrap_or_default();
        match decide(&item, &owners, &finalizers) {
            Decision::Keep => Ok(()),
            Decision::DropOwners(lost) => self.drop_owners(&item.identity, &latest, &lost).await,
            Decision::Delete { policy, unblock_owners } => {
                if unblock_owners {
                    self.unblock_owners(&item.identity, &latest).await?;
                }
                let preconditions = Preconditions {
                    uid: latest.uid.clone(),
                    // Not under new owners that this decision has not seen.
                    resource_version: (!unblock_owners).then(|| latest.resource_version.clone()).flatten(),
                };
                let params = DeleteParams {
                    propagation_policy: Some(policy),
                    preconditions: Some(preconditions),
                    ..DeleteParams::default()
                };
                let Some(api) = self.api(&item.identity)? else { return Ok(()) };
                match api.delete(&item.identity.name, &params).await {
                    Err(error) if is_not_found(&error) => Ok(()),
                    outcome => outcome.map(drop).map_err(Error::api("deleting an object without owners")),
                }
            }
        }
    }

    /// An object that waits for its dependents: it may go when none blocks it any more.
    async fn finish_foreground(&self, item: &View, latest: &ObjectMeta) -> Result<(), Error> {
        let blocking: Vec<_> = item.dependents.iter().filter(|dependent| dependent.is_blocking).collect();
        if blocking.is_empty() {
            return self.remove_finalizer(&item.identity, latest, FOREGROUND).await;
        }
        let waiting = blocking.into_iter().filter(|dependent| !dependent.is_deleting_dependents);
        self.enqueue(waiting.map(|dependent| Work::Delete(dependent.identity.uid.clone())).collect());
        Ok(())
    }

    async fn orphan_dependents(&self, uid: &str) -> Result<(), Error> {
        let Some(owner) = self.graph().view(uid) else { return Ok(()) };
        for dependent in &owner.dependents {
            let identity = &dependent.identity;
            let Some(latest) = self.read(identity).await? else { continue };
            if latest.uid.as_ref() == Some(&identity.uid) {
                self.drop_owners(identity, &latest, &[uid.to_owned()]).await?;
            }
        }
        match self.read(&owner.identity).await? {
            Some(latest) if latest.uid.as_deref() == Some(uid) => {
                self.remove_finalizer(&owner.identity, &latest, ORPHAN).await
            }
            _ => Ok(()),
        }
    }

    /// What the owner is, by the API server itself: a cache is not enough to delete by.
    async fn state_of(&self, item: &Identity, owner: &OwnerReference) -> Result<OwnerState, Error> {
        let Some(mapped) = self.mapper.find(&owner.api_version, &owner.kind) else {
            self.rediscover.notify_one();
            let (api_version, kind) = (owner.api_version.clone(), owner.kind.clone());
            return Err(Error::UnknownKind { api_version, kind });
        };
        // What belongs to no namespace cannot be owned from within one: such a reference is never followed.
        if mapped.is_namespaced && item.namespace.is_empty() {
            self.report_invalid_owner(item, owner);
            return Ok(OwnerState::Solid);
        }
        let identity = Identity {
            api_version: owner.api_version.as_str().into(),
            kind: owner.kind.as_str().into(),
            namespace: if mapped.is_namespaced { item.namespace.clone() } else { String::new() },
            name: owner.name.clone(),
            uid: owner.uid.clone(),
        };
        let Some(latest) = self.read(&identity).await? else {
            let elsewhere = self
                .graph()
                .view(&owner.uid)
                .is_some_and(|known| known.identity.namespace != identity.namespace);
            if elsewhere {
                self.report_invalid_owner(item, owner);
            }
            return Ok(OwnerState::Dangling);
        };
        if latest.uid.as_ref() != Some(&owner.uid) {
            return Ok(OwnerState::Dangling);
        }
        let is_waiting = latest.deletion_timestamp.is_some()
            && latest.finalizers.iter().flatten().any(|finalizer| finalizer == FOREGROUND);
        Ok(if is_waiting { OwnerState::WaitingForDependents } else { OwnerState::Solid })
    }

    /// Tells whoever looks at the object that its owner is in another namespace.
    fn report_invalid_owner(&self, item: &Identity, owner: &OwnerReference) {
        let OwnerReference { api_version, kind, name, uid, .. } = owner;
        let namespace = &item.namespace;
        let message = format!(
            "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}] does not exist in namespace \"{namespace}\""
        );
        let object = ObjectReference {
            api_version: Some(item.api_version.to_string()),
            kind: Some(item.kind.to_string()),
            namespace: Some(item.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            name: Some(item.name.clone()),
            uid: Some(item.uid.clone()),
            ..ObjectReference::default()
        };
        self.events.event(&object, EventType::Warning, "OwnerRefInvalidNamespace", message);
    }

    async fn drop_owners(
        &self,
        identity: &Identity,
        latest: &ObjectMeta,
        lost: &[String],
    ) -> Result<(), Error> {
        let owners = latest.owner_references.clone().unwrap_or_default();
        let kept: Vec<_> = owners.iter().filter(|owner| !lost.contains(&owner.uid)).collect();
        if kept.len() == owners.len() {
            return Ok(());
        }
        self.patch(identity, latest, json!({ "ownerReferences": kept })).await
    }

    async fn unblock_owners(&self, identity: &Identity, latest: &ObjectMeta) -> Result<(), Error> {
        let mut owners = latest.owner_references.clone().unwrap_or_default();
        owners.iter_mut().for_each(|owner| owner.block_owner_deletion = Some(false));
        self.patch(identity, latest, json!({ "ownerReferences": owners })).await
    }

    async fn remove_finalizer(
        &self,
        identity: &Identity,
        latest: &ObjectMeta,
        finalizer: &str,
    ) -> Result<(), Error> {
        let finalizers = latest.finalizers.clone().unwrap_or_default();
        let kept: Vec<_> = finalizers.iter().filter(|name| *name != finalizer).collect();
        if kept.len() == finalizers.len() {
            return Ok(());
        }
        self.patch(identity, latest, json!({ "finalizers": kept })).await
    }

    /// Changes metadata, if nobody else has changed the object since it was read.
    async fn patch(
        &self,
        identity: &Identity,
        latest: &ObjectMeta,
        mut metadata: Value,
    ) -> Result<(), Error> {
        metadata["uid"] = json!(latest.uid);
        metadata["resourceVersion"] = json!(latest.resource_version);
        let Some(api) = self.api(identity)? else { return Ok(()) };
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        match api.patch_metadata(&identity.name, &PatchParams::default(), &patch).await {
            Err(error) if is_not_found(&error) => Ok(()),
            // Read again, then tried again.
            Err(error) if is_conflict(&error) => Err(Error::StaleCache {
                object: format!("{} {}/{}", identity.kind, identity.namespace, identity.name),
            }),
            outcome => outcome.map(drop).map_err(Error::api("changing owners or finalizers")),
        }
    }

    async fn read(&self, identity: &Identity) -> Result<Option<ObjectMeta>, Error> {
        let Some(mapped) = self.mapper.find(&identity.api_version, &identity.kind) else {
            self.rediscover.notify_one();
            let (api_version, kind) = (identity.api_version.to_string(), identity.kind.to_string());
            return Err(Error::UnknownKind { api_version, kind });
        };
        // A named owner without a namespace of its own, or the other way round.
        if mapped.is_namespaced && identity.namespace.is_empty() {
            return Ok(None);
        }
        let api: Api<Metadata> = match mapped.is_namespaced {
            true => Api::namespaced_with(self.client.clone(), &identity.namespace, &mapped.resource),
            false => Api::all_with(self.client.clone(), &mapped.resource),
        };
        let found = api.get_opt(&identity.name).await.map_err(Error::api("reading an object's metadata"))?;
        Ok(found.map(|object| object.metadata))
    }

    /// The API of the identity's resource; none when its kind is namespaced and it has no namespace.
    fn api(&self, identity: &Identity) -> Result<Option<Api<DynamicObject>>, Error> {
        let Some(mapped) = self.mapper.find(&identity.api_version, &identity.kind) else {
            let (api_version, kind) = (identity.api_version.to_string(), identity.kind.to_string());
            return Err(Error::UnknownKind { api_version, kind });
        };
        Ok(match (mapped.is_namespaced, identity.namespace.is_empty()) {
            (true, true) => None,
            (true, false) => {
                Some(Api::namespaced_with(self.client.clone(), &identity.namespace, &mapped.resource))
            }
            (false, _) => Some(Api::all_with(self.client.clone(), &mapped.resource)),
        })
    }
}
