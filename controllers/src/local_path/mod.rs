//! The provisioner of class `local-path`: a volume is a directory on the node of its claim's first pod.
//!
//! Here are the objects only. The kubelet of the node makes the directory when it is first mounted, and removes it, with what is
//! in it, when the object is being deleted and nobody uses it; a finalizer holds the object until then.

mod plan;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use wherry_client::volumes::{LOCAL_PATH_FINALIZER, class_of_claim};
use wherry_client::{
    Change, EventRecorder, EventType, Informer, Lifecycle, ObjectKey, WorkQueue, is_already_exists,
    is_conflict, is_not_found, object_ref, run_workers,
};

use crate::Context;
use crate::error::Error;
use plan::{Provision, Removal, node_of, plan_claim, plan_volume};

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Task {
    Claim(ObjectKey),
    Volume(String),
}

/// Runs the controller until the lifecycle ends.
pub(crate) async fn run(context: Context, lifecycle: &Lifecycle) -> Result<(), Error> {
    let provisioner = Arc::new(Provisioner {
        client: context.client.clone(),
        claims: context.informers.of(),
        volumes: context.informers.of(),
        classes: context.informers.of(),
        nodes: context.informers.of(),
        events: context.recorder("local-path-provisioner"),
    });
    let queue = WorkQueue::new();
    provisioner.subscribe(&queue);
    let synced = futures::join!(
        provisioner.claims.wait_synced(),
        provisioner.volumes.wait_synced(),
        provisioner.classes.wait_synced(),
        provisioner.nodes.wait_synced()
    );
    if synced != (true, true, true, true) {
        return Err(Error::NotSynced);
    }
    lifecycle.readiness.set_ready();
    run_workers(queue, context.config.workers, lifecycle, move |task| {
        let provisioner = provisioner.clone();
        async move {
            match task {
                Task::Claim(key) => provisioner.provision(&key).await,
                Task::Volume(name) => provisioner.remove(&name).await,
            }
        }
    })
    .await;
    Ok(())
}

struct Provisioner {
    client: kube::Client,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    classes: Informer<StorageClass>,
    nodes: Informer<Node>,
    events: EventRecorder,
}

impl Provisioner {
    fn subscribe(&self, queue: &WorkQueue<Task>) {
        let of_claims = queue.clone();
        self.claims.subscribe(move |change| {
            if !matches!(change, Change::Deleted(_)) {
                of_claims.add(Task::Claim(ObjectKey::of(&**change.object())));
            }
        });
        let of_volumes = queue.clone();
        self.volumes.subscribe(move |change| {
            if !matches!(change, Change::Deleted(_)) {
                of_volumes.add(Task::Volume(change.object().metadata.name.clone().unwrap_or_default()));
            }
        });
        let (of_nodes, volumes) = (queue.clone(), self.volumes.store().clone());
        self.nodes.subscribe(move |change| {
            if let Change::Deleted(node) = change {
                let name = node.metadata.name.as_deref().unwrap_or_default();
                for volume in volumes.list().iter().filter(|volume| node_of(volume) == name) {
                    of_nodes.add(Task::Volume(volume.metadata.name.clone().unwrap_or_default()));
                }
            }
        });
    }

    async fn provision(&self, key: &ObjectKey) -> Result<(), Error> {
        let Some(claim) = self.claims.store().get(&key.namespace, &key.name) else { return Ok(()) };
        let class_name = class_of_claim(&claim);
        let class = self.classes.store().get("", class_name);
        let selected =
            wherry_client::volumes::claim_annotation(&claim, wherry_client::volumes::SELECTED_NODE);
        let node = selected.and_then(|name| self.nodes.store().get("", name));
        let about = object_ref(&*claim);
        let volume = match plan_claim(&claim, class.as_deref(), |_| node.as_deref()) {
            Provision::Nothing => return Ok(()),
            Provision::Refuse(why) => {
                let message = format!("failed to provision volume with StorageClass {class_name:?}: {why}");
                self.events.event(&about, EventType::Warning, "ProvisioningFailed", message);
                return Ok(());
            }
            Provision::Make(volume) => volume,
        };
        let name = volume.metadata.name.clone().unwrap_or_default();
        if self.volumes.store().get("", &name).is_some() {
            return Ok(());
        }
        let message = format!("External provisioner is provisioning volume for claim \"{key}\"");
        self.events.event(&about, EventType::Normal, "Provisioning", message);
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        match api.create(&PostParams::default(), &volume).await {
            Err(error) if !is_already_exists(&error) => Err(Error::api("making a volume")(error)),
            _ => {
                let message = format!("Successfully provisioned volume {name}");
                self.events.event(&about, EventType::Normal, "ProvisioningSucceeded", message);
                Ok(())
            }
        }
    }

    async fn remove(&self, name: &str) -> Result<(), Error> {
        let Some(volume) = self.volumes.store().get("", name) else { return Ok(()) };
        let node = node_of(&volume);
        let is_cached = self.nodes.store().get("", node).is_some();
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        match plan_volume(&volume, is_cached) {
            Removal::Nothing => Ok(()),
            Removal::Delete => {
                let preconditions = Preconditions {
                    uid: volume.metadata.uid.clone(),
                    resource_version: volume.metadata.resource_version.clone(),
                };
                let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
                match api.delete(name, &params).await {
                    Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
                    outcome => outcome.map(drop).map_err(Error::api("deleting a volume")),
                }
            }
            Removal::LetGo => {
                let mut changed = (*volume).clone();
                if let Some(finalizers) = &mut changed.metadata.finalizers {
                    finalizers.retain(|finalizer| finalizer != LOCAL_PATH_FINALIZER);
                }
                let outcome = api.replace(name, &PostParams::default(), &changed).await;
                match outcome {
                    Err(error) if is_not_found(&error) => Ok(()),
                    outcome => outcome.map(drop).map_err(Error::api("letting a volume go")),
                }
            }
        }
    }
}
