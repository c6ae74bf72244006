//! Giving a pod its node.

use k8s_openapi::api::core::v1::{Binding, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::Status;
use serde_json::json;
use wherry_client::volumes::{BOUND_BY_CONTROLLER, SELECTED_NODE, claim_annotation};
use wherry_client::{is_not_found, object_ref};

use crate::pod_info::PodInfo;
use crate::volumes::VolumePlan;

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
    /// The volume or claim could not be told of the decision.
    #[error("binding volumes: {source}")]
    Volumes {
        /// The API server's answer.
        source: kube::Error,
    },
    /// The volumes were not there in time.
    #[error("binding volumes: context deadline exceeded")]
    VolumesLate,
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

/// Volumes that were chosen get a reference to their claim, claims that need a new one the node on which it is to be.
pub(crate) async fn tell_volumes(client: &Client, plan: &VolumePlan, node: &str) -> Result<(), Failure> {
    let failed = |source| Failure::Volumes { source };
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    for (volume, claim) in &plan.bind {
        let mut chosen = (**volume).clone();
        let mut reference = object_ref(&**claim);
        reference.resource_version.clone_from(&claim.metadata.resource_version);
        chosen.spec.get_or_insert_default().claim_ref = Some(reference);
        let annotations = chosen.metadata.annotations.get_or_insert_default();
        annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        // With its version: somebody else may have taken it.
        volumes.replace(name, &PostParams::default(), &chosen).await.map_err(failed)?;
    }
    for claim in &plan.provision {
        if claim_annotation(claim, SELECTED_NODE) == Some(node) {
            continue;
        }
        let metadata = &claim.metadata;
        let api: Api<PersistentVolumeClaim> =
            Api::namespaced(client.clone(), metadata.namespace.as_deref().unwrap_or_default());
        let patch = json!({ "metadata": { "uid": metadata.uid, "annotations": { SELECTED_NODE: node } } });
        let name = metadata.name.as_deref().unwrap_or_default();
        api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map_err(failed)?;
    }
    Ok(())
}
