//! What a claim and a volume say of each other. Pure.
//!
//! Called by the controllers that bind claims to volumes and by the scheduler, which must choose alike.
//!
//! Source: `k8s.io/component-helpers/storage/volume`.

mod matching;

use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use wherry_machinery::quantity::Quantity;

pub use matching::{Search, best_match, unsatisfied};

/// On a claim: the binding was completed; what is missing from now on is lost.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim or volume: the controller chose the other, the user did not.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a volume: who made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a claim: who is to make a volume.
pub const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// The same, as older provisioners read it.
pub const BETA_STORAGE_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// On a claim: the node on which its first pod is to run.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// How a class was named before `storageClassName`.
pub const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// The finalizer of claims that pods use.
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// The finalizer of volumes that are bound.
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
/// The provisioner of directories on nodes.
pub const LOCAL_PATH_PROVISIONER: &str = "wherry.dev/local-path";
/// The finalizer of its volumes: held until the node has removed the data.
pub const LOCAL_PATH_FINALIZER: &str = "wherry.dev/local-path";
/// On its volumes, a label: the node that has the data.
pub const LOCAL_PATH_NODE: &str = "wherry.dev/node";
/// On a node, an annotation: the directory below which it keeps such volumes.
pub const LOCAL_PATH_DIRECTORY: &str = "wherry.dev/local-path-directory";

/// The class that a claim asks for; empty if none.
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> &str {
    let annotated = claim.metadata.annotations.as_ref().and_then(|annotations| annotations.get(BETA_CLASS));
    let named = claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    annotated.or(named).map(String::as_str).unwrap_or_default()
}

/// The class that a volume belongs to; empty if none.
pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    let annotated = volume.metadata.annotations.as_ref().and_then(|annotations| annotations.get(BETA_CLASS));
    let named = volume.spec.as_ref().and_then(|spec| spec.storage_class_name.as_ref());
    annotated.or(named).map(String::as_str).unwrap_or_default()
}

/// Whether claims of the class wait for their first pod.
pub fn waits_for_consumer(class: Option<&StorageClass>) -> bool {
    class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"))
}

/// An annotation of a claim.
pub fn claim_annotation<'a>(claim: &'a PersistentVolumeClaim, key: &str) -> Option<&'a str> {
    claim.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// An annotation of a volume.
pub fn volume_annotation<'a>(volume: &'a PersistentVolume, key: &str) -> Option<&'a str> {
    volume.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

/// The name of the volume that a claim is for; empty if none yet.
pub fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default()
}

/// Whether both sides of the binding are settled.
pub fn is_fully_bound(claim: &PersistentVolumeClaim) -> bool {
    !volume_name(claim).is_empty() && claim_annotation(claim, BIND_COMPLETED).is_some()
}

/// How much a claim asks for.
pub fn requested(claim: &PersistentVolumeClaim) -> Quantity {
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    requests.and_then(|requests| requests.get("storage")?.0.parse().ok()).unwrap_or_default()
}

/// How much a volume has.
pub fn capacity(volume: &PersistentVolume) -> Quantity {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    capacity.and_then(|capacity| capacity.get("storage")?.0.parse().ok()).unwrap_or_default()
}

/// `Filesystem` or `Block`.
pub fn mode_of_claim(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("Filesystem")
}

/// `Filesystem` or `Block`.
pub fn mode_of_volume(volume: &PersistentVolume) -> &str {
    volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("Filesystem")
}

/// The claim that a volume is for.
pub fn claim_of(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// `Delete`, `Retain` or `Recycle`.
pub fn reclaim_policy(volume: &PersistentVolume) -> &str {
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or("Retain")
}

/// The phase of a volume.
pub fn phase_of_volume(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("Pending")
}

/// Whether a volume is for this claim: the names agree, and the uid if the volume has one.
pub fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim_of(volume).is_some_and(|reference| {
        reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && reference
                .uid
                .as_ref()
                .is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref())
    })
}

/// The name of the claim that is made for a pod's ephemeral volume.
pub fn ephemeral_claim_name(pod: &str, volume: &str) -> String {
    format!("{pod}-{volume}")
}
