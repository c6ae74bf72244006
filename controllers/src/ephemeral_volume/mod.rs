//! Makes the claims of pods' generic ephemeral volumes. Each is owned by its pod and goes with it.

mod plan;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Api, PostParams};
use wherry_client::retry::is_namespace_terminating;
use wherry_client::{
    Change, EventType, Informer, Lifecycle, ObjectKey, WorkQueue, is_already_exists, object_ref, run_workers,
};

use crate::error::Error;
use crate::{Context, pods};
use plan::{Step, plan_claims};

/// Runs the controller until the lifecycle ends.
pub(crate) async fn run(context: Context, lifecycle: &Lifecycle) -> Result<(), Error> {
    let all_pods: Informer<Pod> = context.informers.of();
    let claims: Informer<PersistentVolumeClaim> = context.informers.of();
    let events = context.recorder("ephemeral_volume");
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    let of_pods = queue.clone();
    all_pods.subscribe(move |change| {
        let pod = change.object();
        let has_any = pod.spec.as_ref().and_then(|spec| spec.volumes.as_ref());
        let has_any = has_any.is_some_and(|volumes| volumes.iter().any(|volume| volume.ephemeral.is_some()));
        if has_any && !matches!(change, Change::Deleted(_)) {
            of_pods.add(ObjectKey::of(&**pod));
        }
    });
    let of_claims = queue.clone();
    claims.subscribe(move |change| {
        // One that was deleted may be needed again.
        if let Change::Deleted(claim) = change
            && let Some(owner) = wherry_client::object_ref::controller_of(&**claim)
            && owner.kind == "Pod"
        {
            let namespace = claim.metadata.namespace.clone().unwrap_or_default();
            of_claims.add(ObjectKey::new(namespace, owner.name.clone()));
        }
    });
    if !(all_pods.wait_synced().await && claims.wait_synced().await) {
        return Err(Error::NotSynced);
    }
    lifecycle.readiness.set_ready();
    let client = context.client.clone();
    run_workers(queue, context.config.workers, lifecycle, move |key: ObjectKey| {
        let (client, all_pods, claims, events) =
            (client.clone(), all_pods.clone(), claims.clone(), events.clone());
        async move {
            let Some(pod) = all_pods.store().get(&key.namespace, &key.name) else {
                return Ok::<_, Error>(());
            };
            if !pods::is_active(&pod) {
                return Ok(());
            }
            let api: Api<PersistentVolumeClaim> = Api::namespaced(client, &key.namespace);
            for step in plan_claims(&pod, |name| claims.store().get(&key.namespace, name)) {
                match step {
                    Step::Make(claim) => match api.create(&PostParams::default(), &claim).await {
                        Err(error) if is_already_exists(&error) || is_namespace_terminating(&error) => {}
                        outcome => {
                            drop(outcome.map_err(Error::api("making the claim of an ephemeral volume"))?)
                        }
                    },
                    Step::Refuse(why) => {
                        events.event(&object_ref(&*pod), EventType::Warning, "FailedBinding", why);
                    }
                }
            }
            Ok(())
        }
    })
    .await;
    Ok(())
}
