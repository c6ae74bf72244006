//! The node's Lease: a heartbeat that costs little.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::PostParams;
use wherry_client::backoff::Backoff;

use crate::kubelet::Kubelet;

/// Namespace of the Leases of nodes. Source: Kubernetes.
const NAMESPACE: &str = "kube-node-lease";
/// Without a renewal for this long the node counts as gone, in seconds. Source: Kubernetes.
const DURATION_SECONDS: i32 = 40;

/// Renews the Lease until the kubelet stops.
pub(crate) async fn renew(kubelet: Arc<Kubelet>) {
    let api: Api<Lease> = Api::namespaced(kubelet.client.clone(), NAMESPACE);
    let interval = kubelet.config.lease_renew_interval;
    let mut backoff = Backoff::new(Duration::from_millis(100), interval.min(Duration::from_secs(7)));
    let mut held: Option<Lease> = None;
    loop {
        let pause = match renew_once(&kubelet, &api, held.take()).await {
            Ok(lease) => {
                held = Some(lease);
                backoff.reset();
                interval
            }
            Err(error) => {
                tracing::debug!(%error, "node lease cannot be renewed");
                backoff.next_delay()
            }
        };
        tokio::select! {
            () = kubelet.shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

async fn renew_once(kubelet: &Kubelet, api: &Api<Lease>, held: Option<Lease>) -> kube::Result<Lease> {
    let name = &kubelet.config.node_name;
    let now = MicroTime(kubelet.now());
    let known = match held {
        Some(lease) => Some(lease),
        None => api.get_opt(name).await?,
    };
    let owner = || {
        let node = kubelet.own_node.store().get("", name)?;
        Some(vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: name.clone(),
            uid: node.metadata.uid.clone()?,
            ..OwnerReference::default()
        }])
    };
    match known {
        Some(mut lease) => {
            if lease.metadata.owner_references.as_ref().is_none_or(Vec::is_empty) {
                lease.metadata.owner_references = owner();
            }
            let spec = lease.spec.get_or_insert_default();
            spec.holder_identity = Some(name.clone());
            spec.lease_duration_seconds = Some(DURATION_SECONDS);
            spec.renew_time = Some(now);
            api.replace(name, &PostParams::default(), &lease).await
        }
        None => {
            let lease = Lease {
                metadata: ObjectMeta {
                    name: Some(name.clone()),
                    namespace: Some(NAMESPACE.to_owned()),
                    owner_references: owner(),
                    ..ObjectMeta::default()
                },
                spec: Some(LeaseSpec {
                    holder_identity: Some(name.clone()),
                    lease_duration_seconds: Some(DURATION_SECONDS),
                    renew_time: Some(now),
                    ..LeaseSpec::default()
                }),
            };
            api.create(&PostParams::default(), &lease).await
        }
    }
}
