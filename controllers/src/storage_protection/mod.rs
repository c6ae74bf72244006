//! Holds claims that pods use, volumes that are bound, and attribute classes that either names, until they are free.

mod plan;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::VolumeAttributesClass;
use kube::api::{Api, PostParams};
use wherry_client::{
    Change, Informer, Lifecycle, ObjectKey, WorkQueue, is_conflict, is_not_found, run_workers,
};

use crate::error::Error;
use crate::persistent_volume::{BY_CLAIM, claims_of, index_by_claim};
use crate::{Context, pods};
use plan::{ATTRIBUTES_PROTECTION, attributes_classes_of, holds_claim, plan_finalizer};
use wherry_client::volumes::{CLAIM_PROTECTION, VOLUME_PROTECTION, phase_of_volume};

/// Runs the controller of claims until the lifecycle ends.
pub(crate) async fn run_claims(context: Context, lifecycle: &Lifecycle) -> Result<(), Error> {
    let claims: Informer<PersistentVolumeClaim> = context.informers.of();
    let all_pods: Informer<Pod> = context.informers.of();
    index_by_claim(&all_pods);
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    let of_claims = queue.clone();
    claims.subscribe(move |change| of_claims.add(ObjectKey::of(&**change.object())));
    let of_pods = queue.clone();
    all_pods.subscribe(move |change| {
        let pod = change.object();
        let frees = matches!(change, Change::Deleted(_)) || pods::is_terminal(pod);
        if frees {
            for claim in claims_of(pod) {
                of_pods.add(ObjectKey::new(pods::namespace(pod), claim));
            }
        }
    });
    if !(claims.wait_synced().await && all_pods.wait_synced().await) {
        return Err(Error::NotSynced);
    }
    lifecycle.readiness.set_ready();
    let client = context.client.clone();
    run_workers(queue, context.config.workers, lifecycle, move |key: ObjectKey| {
        let (client, claims, all_pods) = (client.clone(), claims.clone(), all_pods.clone());
        async move {
            let Some(claim) = claims.store().get(&key.namespace, &key.name) else { return Ok(()) };
            let in_cache = all_pods.store().indexed(BY_CLAIM, &key.to_string());
            let mut is_used = in_cache.iter().any(|pod| holds_claim(pod));
            let api: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &key.namespace);
            if plan_finalizer(&claim.metadata, CLAIM_PROTECTION, is_used).is_some_and(|(_, removes)| removes)
            {
                // A pod that the cache does not show yet would lose its data.
                let pods: Api<Pod> = Api::namespaced(client, &key.namespace);
                let live =
                    pods.list(&kube::api::ListParams::default()).await.map_err(Error::api("listing pods"))?;
                is_used = live.items.iter().any(|pod| holds_claim(pod) && claims_of(pod).contains(&key.name));
            }
            let Some((finalizers, _)) = plan_finalizer(&claim.metadata, CLAIM_PROTECTION, is_used) else {
                return Ok(());
            };
            let mut changed = (*claim).clone();
            changed.metadata.finalizers = finalizers;
            written(api.replace(&key.name, &PostParams::default(), &changed).await.map(drop))
        }
    })
    .await;
    Ok(())
}

/// Runs the controller of volumes until the lifecycle ends.
pub(crate) async fn run_volumes(context: Context, lifecycle: &Lifecycle) -> Result<(), Error> {
    let volumes: Informer<PersistentVolume> = context.informers.of();
    let queue: WorkQueue<String> = WorkQueue::new();
    let of_volumes = queue.clone();
    volumes.subscribe(move |change| {
        of_volumes.add(change.object().metadata.name.clone().unwrap_or_default());
    });
    if !volumes.wait_synced().await {
        return Err(Error::NotSynced);
    }
    lifecycle.readiness.set_ready();
    let api: Api<PersistentVolume> = Api::all(context.client.clone());
    run_workers(queue, context.config.workers, lifecycle, move |name: String| {
        let (api, volumes) = (api.clone(), volumes.clone());
        async move {
            let Some(volume) = volumes.store().get("", &name) else { return Ok(()) };
            let is_used = phase_of_volume(&volume) == "Bound";
            let plan = plan_finalizer(&volume.metadata, VOLUME_PROTECTION, is_used);
            let Some((finalizers, _)) = plan else { return Ok(()) };
            let mut changed = (*volume).clone();
            changed.metadata.finalizers = finalizers;
            written(api.replace(&name, &PostParams::default(), &changed).await.map(drop))
        }
    })
    .await;
    Ok(())
}

/// Runs the controller of attribute classes until the lifecycle ends.
pub(crate) async fn run_attributes(context: Context, lifecycle: &Lifecycle) -> Result<(), Error> {
    let classes: Informer<VolumeAttributesClass> = context.informers.of();
    let claims: Informer<PersistentVolumeClaim> = context.informers.of();
    let volumes: Informer<PersistentVolume> = context.informers.of();
    let queue: WorkQueue<String> = WorkQueue::new();
    let of_classes = queue.clone();
    classes.subscribe(move |change| {
        of_classes.add(change.object().metadata.name.clone().unwrap_or_default());
    });
    let of_claims = queue.clone();
    claims.subscribe(move |change| {
        let named = change.old().into_iter().chain([change.object()]);
        named.flat_map(|claim| attributes_classes_of(Some(claim), None)).for_each(|name| of_claims.add(name));
    });
    let of_volumes = queue.clone();
    volumes.subscribe(move |change| {
        let named = change.old().into_iter().chain([change.object()]);
        named
            .flat_map(|volume| attributes_classes_of(None, Some(volume)))
            .for_each(|name| of_volumes.add(name));
    });
    let synced = futures::join!(classes.wait_synced(), claims.wait_synced(), volumes.wait_synced());
    if synced != (true, true, true) {
        return Err(Error::NotSynced);
    }
    lifecycle.readiness.set_ready();
    let api: Api<VolumeAttributesClass> = Api::all(context.client.clone());
    run_workers(queue, 1, lifecycle, move |name: String| {
        let (api, classes, claims, volumes) = (api.clone(), classes.clone(), claims.clone(), volumes.clone());
        async move {
            let Some(class) = classes.store().get("", &name) else { return Ok(()) };
            let by_claim =
                |claim: &Arc<PersistentVolumeClaim>| attributes_classes_of(Some(claim), None).contains(&name);
            let by_volume =
                |volume: &Arc<PersistentVolume>| attributes_classes_of(None, Some(volume)).contains(&name);
            let is_used =
                claims.store().list().iter().any(by_claim) || volumes.store().list().iter().any(by_volume);
            let plan = plan_finalizer(&class.metadata, ATTRIBUTES_PROTECTION, is_used);
            let Some((finalizers, _)) = plan else { return Ok(()) };
            let mut changed = (*class).clone();
            changed.metadata.finalizers = finalizers;
            written(api.replace(&name, &PostParams::default(), &changed).await.map(drop))
        }
    })
    .await;
    Ok(())
}

/// A conflict means that the object changed, which brings it here again.
fn written(outcome: kube::Result<()>) -> Result<(), Error> {
    match outcome {
        Err(error) if is_not_found(&error) || is_conflict(&error) => Ok(()),
        outcome => outcome.map_err(Error::api("changing the protection of an object")),
    }
}
