//! Addresses for Services of type LoadBalancer, from a range that the administrator names: each node serves them.

mod addresses;
mod plan;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use wherry_client::{
    Change, EventRecorder, Informer, Lifecycle, ObjectKey, WorkQueue, events::EventType, is_not_found,
    object_ref,
};

use crate::Context;
use crate::error::Error;
use addresses::Addresses;
use plan::{FINALIZER, Plan, ingress_addresses, plan, wants_load_balancer};

/// Runs the controller until the lifecycle ends.
pub(crate) async fn run(context: Context, lifecycle: &Lifecycle) -> Result<(), Error> {
    let controller = Arc::new(LoadBalancerController {
        client: context.client.clone(),
        services: context.informers.of(),
        recorder: context.recorder("service-controller"),
        range: context.config.load_balancer_cidr,
        addresses: Mutex::default(),
    });
    let queue: WorkQueue<ObjectKey> = WorkQueue::new();
    controller.subscribe(&queue);
    let watched = Arc::clone(&controller);
    let synced = async move { watched.services.wait_synced().await && watched.adopt() };
    context
        .work(queue, synced, lifecycle, move |key| {
            let controller = Arc::clone(&controller);
            async move { controller.sync(&key).await }
        })
        .await
}

struct LoadBalancerController {
    client: kube::Client,
    services: Informer<Service>,
    recorder: EventRecorder,
    range: Option<IpNet>,
    addresses: Mutex<Addresses>,
}

impl LoadBalancerController {
    fn subscribe(self: &Arc<Self>, queue: &WorkQueue<ObjectKey>) {
        let (queue, services) = (queue.clone(), self.services.store().clone());
        let controller = Arc::downgrade(self);
        self.services.subscribe(move |change| {
            queue.add(ObjectKey::of(&**change.object()));
            // An address that is given back may be what others wait for.
            if let Change::Deleted(service) = change {
                if let Some(controller) = controller.upgrade() {
                    controller.addresses().release(service.metadata.uid.as_deref().unwrap_or_default());
                }
                let waiting = services.list().into_iter().filter(|service| {
                    wants_load_balancer(service) && ingress_addresses(service).next().is_none()
                });
                for service in waiting {
                    queue.add(ObjectKey::of(&*service));
                }
            }
        });
    }

    /// Notes who has which address already, before anybody gets a new one. Always true.
    fn adopt(&self) -> bool {
        let mut services = self.services.store().list();
        services.retain(|service| wants_load_balancer(service));
        services.sort_by_key(|service| service.metadata.creation_timestamp.as_ref().map(|time| time.0));
        let mut addresses = self.addresses();
        for service in services {
            let uid = service.metadata.uid.as_deref().unwrap_or_default();
            for ip in ingress_addresses(&service) {
                addresses.adopt(uid, ip);
            }
        }
        true
    }

    fn addresses(&self) -> std::sync::MutexGuard<'_, Addresses> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn sync(&self, key: &ObjectKey) -> Result<(), Error> {
        let Some(service) = self.services.store().get(&key.namespace, &key.name) else { return Ok(()) };
        let planned = plan(&service, self.range, &mut self.addresses());
        let event = |kind, reason: &str, message: &str| {
            self.recorder.event(&object_ref(&*service), kind, reason, message);
        };
        match planned {
            Plan::Nothing => Ok(()),
            Plan::Pending(reason) => {
                event(
                    EventType::Warning,
                    "SyncLoadBalancerFailed",
                    &format!("Error syncing load balancer: {reason}"),
                );
                // An address that it had and has no right to any more is not left behind.
                if ingress_addresses(&service).next().is_some() {
                    self.write(&service, None, FinalizerChange::Keep).await?;
                }
                Ok(())
            }
            Plan::Assign(address) => {
                event(EventType::Normal, "EnsuringLoadBalancer", "Ensuring load balancer");
                self.write(&service, Some(address), FinalizerChange::Add).await?;
                event(EventType::Normal, "EnsuredLoadBalancer", "Ensured load balancer");
                Ok(())
            }
            Plan::CleanUp => {
                event(EventType::Normal, "DeletingLoadBalancer", "Deleting load balancer");
                self.write(&service, None, FinalizerChange::Remove).await?;
                event(EventType::Normal, "DeletedLoadBalancer", "Deleted load balancer");
                Ok(())
            }
        }
    }

    /// Status and finalizer in one write, so that no address is in use without the finalizer that gives it back.
    async fn write(
        &self,
        service: &Service,
        address: Option<IpAddr>,
        change: FinalizerChange,
    ) -> Result<(), Error> {
        let mut finalizers = service.metadata.finalizers.clone().unwrap_or_default();
        match change {
            FinalizerChange::Keep => {}
            FinalizerChange::Remove => finalizers.retain(|finalizer| finalizer != FINALIZER),
            FinalizerChange::Add if finalizers.iter().any(|finalizer| finalizer == FINALIZER) => {}
            FinalizerChange::Add => finalizers.push(FINALIZER.to_owned()),
        }
        let ingress = address.map(|ip| vec![json!({"ip": ip, "ipMode": "VIP"})]);
        let patch = json!({
            "metadata": {
                "resourceVersion": service.metadata.resource_version,
                "finalizers": finalizers,
            },
            "status": {"loadBalancer": {"ingress": ingress}},
        });
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        match api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(error) if is_not_found(&error) => Ok(()),
            outcome => outcome.map(drop).map_err(Error::api("writing a service's load balancer")),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum FinalizerChange {
    Add,
    Keep,
    Remove,
}
