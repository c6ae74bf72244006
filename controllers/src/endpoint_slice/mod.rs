//! EndpointSlices: where a Service's requests may go.

mod plan;
mod tracker;

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, PostParams};
use wherry_client::retry::is_namespace_terminating;
use wherry_client::{Change, Informer, Lifecycle, ObjectKey, Selection, WorkQueue, is_not_found};

use crate::error::Error;
use crate::service_ports::{has_selector, queue_services, selects};
use crate::{Context, pods};
use plan::{MANAGED_BY, MANAGER, Observed, SERVICE_NAME, plan};
use tracker::Tracker;

/// The index of slices by the namespace and name of their service.
const BY_SERVICE: &str = "service";
/// The index of pods by their node.
pub(crate) const BY_NODE: &str = "node";

/// Runs the controller until the lifecycle ends.
pub(crate) async fn run(context: Context, lifecycle: &Lifecycle) -> Result<(), Error> {
    let informers = &context.informers;
    let controller = Arc::new(EndpointSliceController {
        client: context.client.clone(),
        services: informers.of(),
        pods: informers.of(),
        nodes: informers.of(),
        slices: informers.of_selected(Selection::labels(format!("{MANAGED_BY}={MANAGER}"))),
        queue: WorkQueue::new(),
        tracker: Arc::default(),
        max_endpoints: context.config.max_endpoints_per_slice,
    });
    controller.subscribe();
    let (queue, watched) = (controller.queue.clone(), controller.clone());
    let synced = async move {
        watched.services.wait_synced().await
            && watched.pods.wait_synced().await
            && watched.nodes.wait_synced().await
            && watched.slices.wait_synced().await
    };
    let sync = move |key| {
        let controller = controller.clone();
        async move { controller.sync(&key).await }
    };
    context.work(queue, synced, lifecycle, sync).await
}

struct EndpointSliceController {
    client: kube::Client,
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
    queue: WorkQueue<ObjectKey>,
    tracker: Arc<Tracker>,
    max_endpoints: usize,
}

impl EndpointSliceController {
    fn subscribe(&self) {
        self.slices.add_index(BY_SERVICE, |slice| {
            service_key(slice).map(|key| key.to_string()).into_iter().collect()
        });
        queue_services(&self.services, &self.pods, &self.queue);
        let (queue, tracker) = (self.queue.clone(), self.tracker.clone());
        self.slices.subscribe(move |change| {
            let slice = change.object();
            let Some(key) = service_key(slice) else { return };
            // What this controller wrote itself asks for nothing; what others changed is put right.
            let is_own = match change {
                Change::Deleted(_) => tracker.deleted(&key, slice),
                Change::Added(_) | Change::Updated { .. } => tracker.seen(&key, slice),
            };
            if !is_own {
                queue.add(key);
            }
        });
    }

    async fn sync(&self, key: &ObjectKey) -> Result<(), Error> {
        let service = self.services.store().get(&key.namespace, &key.name);
        // The slices of a service that is gone are the garbage collector's.
        let Some(service) = service.filter(|service| has_selector(service)) else {
            self.tracker.forget(key);
            return Ok(());
        };
        if service.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let slices = self.slices.store().indexed(BY_SERVICE, &key.to_string());
        if !self.tracker.is_up_to_date(key, &slices) {
            return Err(Error::StaleCache { object: format!("endpointslices of service {key}") });
        }
        let slices: Vec<_> =
            slices.into_iter().filter(|slice| slice.metadata.deletion_timestamp.is_none()).collect();
        let selected: Vec<_> = self
            .pods
            .store()
            .list_namespace(&key.namespace)
            .into_iter()
            .filter(|pod| selects(&service, pod))
            .collect();
        let nodes: HashMap<_, _> = selected
            .iter()
            .map(|pod| pods::node_name(pod))
            .filter_map(|name| Some((name.to_owned(), self.nodes.store().get("", name)?)))
            .collect();
        let max_endpoints = self.max_endpoints;
        let plan = plan(&Observed {
            service: &service,
            pods: &selected,
            nodes: &nodes,
            slices: &slices,
            max_endpoints,
        });
        self.carry_out(key, plan).await
    }

    async fn carry_out(&self, key: &ObjectKey, plan: plan::Plan) -> Result<(), Error> {
        let api: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &key.namespace);
        for slice in &plan.create {
            match api.create(&PostParams::default(), slice).await {
                Ok(created) => self.tracker.written(key, &created),
                Err(error) if is_namespace_terminating(&error) => return Ok(()),
                Err(error) => return Err(Error::api("creating an endpointslice")(error)),
            }
        }
        for slice in &plan.update {
            let name = slice.metadata.name.as_deref().unwrap_or_default();
            let updated = api.replace(name, &PostParams::default(), slice).await;
            self.tracker.written(key, &updated.map_err(Error::api("updating an endpointslice"))?);
        }
        for name in &plan.delete {
            match api.delete(name, &DeleteParams::default()).await {
                Err(error) if !is_not_found(&error) => {
                    return Err(Error::api("deleting an endpointslice")(error));
                }
                _ => self.tracker.deletion_begun(key, name),
            }
        }
        Ok(())
    }
}

/// The service that the slice is of.
fn service_key(slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(ObjectKey::new(slice.metadata.namespace.clone().unwrap_or_default(), name.clone()))
}
