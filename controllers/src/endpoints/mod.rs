//! Endpoints: the older form of EndpointSlices, one object per Service.

mod plan;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use kube::api::{Api, DeleteParams, PostParams};
use wherry_client::retry::is_namespace_terminating;
use wherry_client::{Change, Informer, Lifecycle, ObjectKey, WorkQueue, is_already_exists, is_not_found};

use crate::Context;
use crate::error::Error;
use crate::service_ports::{has_selector, queue_services, selects};
use plan::{Plan, plan};

/// Runs the controller until the lifecycle ends.
pub(crate) async fn run(context: Context, lifecycle: &Lifecycle) -> Result<(), Error> {
    let informers = &context.informers;
    let controller = Arc::new(EndpointsController {
        client: context.client.clone(),
        services: informers.of(),
        pods: informers.of(),
        endpoints: informers.of(),
        queue: WorkQueue::new(),
    });
    queue_services(&controller.services, &controller.pods, &controller.queue);
    let (queue, services) = (controller.queue.clone(), controller.services.store().clone());
    controller.endpoints.subscribe(move |change| {
        let key = ObjectKey::of(&**change.object());
        let service = services.get(&key.namespace, &key.name);
        let orphaned = service.is_none() && matches!(change, Change::Added(_));
        let lost = service.is_some() && matches!(change, Change::Deleted(_));
        if orphaned || lost {
            queue.add(key);
        }
    });
    let (queue, watched) = (controller.queue.clone(), controller.clone());
    let synced = async move {
        watched.services.wait_synced().await
            && watched.pods.wait_synced().await
            && watched.endpoints.wait_synced().await
    };
    let sync = move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    };
    context.work(queue, synced, lifecycle, sync).await
}

struct EndpointsController {
    client: kube::Client,
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
    queue: WorkQueue<ObjectKey>,
}

impl EndpointsController {
    async fn sync(&self, key: &ObjectKey) -> Result<(), Error> {
        let api: Api<Endpoints> = Api::namespaced(self.client.clone(), &key.namespace);
        let existing = self.endpoints.store().get(&key.namespace, &key.name);
        let Some(service) = self.services.store().get(&key.namespace, &key.name) else {
            return self.delete_orphan(&api, key, existing.as_deref()).await;
        };
        if !has_selector(&service) || service.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let pods = self.pods.store().list_namespace(&key.namespace);
        let selected: Vec<_> = pods.into_iter().filter(|pod| selects(&service, pod)).collect();
        match plan(&service, &selected, existing.as_deref()) {
            Plan::Nothing => Ok(()),
            Plan::Create(endpoints) => match api.create(&PostParams::default(), &endpoints).await {
                Err(error) if is_already_exists(&error) => {
                    Err(Error::StaleCache { object: format!("endpoints {key}") })
                }
                Err(error) if is_namespace_terminating(&error) => Ok(()),
                outcome => outcome.map(drop).map_err(Error::api("creating endpoints")),
            },
            Plan::Update(endpoints) => {
                let written = api.replace(&key.name, &PostParams::default(), &endpoints).await;
                written.map(drop).map_err(Error::api("updating endpoints"))
            }
        }
    }

    /// Endpoints have no owner: they go with the service of their name. The API server's own are left alone.
    async fn delete_orphan(
        &self,
        api: &Api<Endpoints>,
        key: &ObjectKey,
        existing: Option<&Endpoints>,
    ) -> Result<(), Error> {
        let labels = existing.and_then(|endpoints| endpoints.metadata.labels.as_ref());
        let is_managed =
            labels.is_some_and(|labels| labels.contains_key("endpoints.kubernetes.io/managed-by"));
        // One that the informer has not shown yet comes here again when it does.
        if !is_managed {
            return Ok(());
        }
        match api.delete(&key.name, &DeleteParams::default()).await {
            Err(error) if !is_not_found(&error) => Err(Error::api("deleting endpoints")(error)),
            _ => Ok(()),
        }
    }
}
