//! Giving a pod its node.

use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, PostParams};
use kube::core::Status;
use wherry_client::is_not_found;

use crate::pod_info::PodInfo;

/// Why a pod was not scheduled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// No node will do; expected, and told to the pod's owner.
    #[error("{message}")]
    Unschedulable {
        /// In Kubernetes' words.
        message: String,
    },
    /// The pod was deleted in the meantime.
    #[error("the pod is gone")]
    Gone,
    /// The API server refused the binding or could not be reached.
    #[error("binding rejected: {source}")]
    Rejected {
        /// Its answer.
        source: kube::Error,
    },
}

/// The plugin DefaultBinder: POST `pods/<name>/binding`. The pod's uid goes along, so that a pod that was made anew under the
/// same name is not bound by mistake.
pub(crate) async fn bind(client: &Client, pod: &PodInfo, node: &str) -> Result<(), Failure> {
    let binding = Binding {
        metadata: ObjectMeta {
            name: Some(pod.key.name.clone()),
            namespace: Some(pod.key.namespace.clone()),
            uid: Some(pod.uid.clone()),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.key.namespace);
    let answer: kube::Result<Status> =
        api.create_subresource("binding", &pod.key.name, &PostParams::default(), &binding).await;
    match answer {
        Ok(_) => Ok(()),
        Err(error) if is_not_found(&error) => Err(Failure::Gone),
        Err(source) => Err(Failure::Rejected { source }),
    }
}
