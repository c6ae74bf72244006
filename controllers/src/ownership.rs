//! Adoption and release: which objects a controller manages, by controller reference and selector.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use kube::api::{Patch, PatchParams};
use serde::de::DeserializeOwned;
use serde_json::json;
use wherry_client::is_not_found;
use wherry_client::object_ref::controller_of;
use wherry_machinery::selector::Selector;

use crate::selector::matches;

/// What a controller does about an object that it might manage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// It is managed already.
    Owned,
    /// It belongs to nobody and matches.
    Adopt,
    /// It is managed, and does not match any more.
    Release,
    /// It is none of the controller's business.
    Ignore,
}

/// Decides about `object`, for an owner with this uid and selector.
pub(crate) fn claim<K: Resource>(
    object: &K,
    owner_uid: &str,
    owner_is_deleted: bool,
    selector: &Selector,
) -> Claim {
    let matches = matches(selector, object.meta().labels.as_ref());
    let is_deleted = object.meta().deletion_timestamp.is_some();
    match controller_of(object) {
        Some(controller) if controller.uid != owner_uid => Claim::Ignore,
        Some(_) if matches => Claim::Owned,
        Some(_) if owner_is_deleted => Claim::Ignore,
        Some(_) => Claim::Release,
        None if !matches || owner_is_deleted || is_deleted => Claim::Ignore,
        None => Claim::Adopt,
    }
}

/// Makes `owner` the controller of `object`; false when the object is gone.
pub(crate) async fn adopt<K>(
    api: &kube::Api<K>,
    object: &Arc<K>,
    owner: &OwnerReference,
) -> kube::Result<bool>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let patch = json!({ "metadata": { "uid": object.meta().uid, "ownerReferences": [owner] } });
    patch_metadata(api, object, patch).await
}

/// Takes `owner_uid` out of the owners of `object`; false when the object is gone.
pub(crate) async fn release<K>(api: &kube::Api<K>, object: &Arc<K>, owner_uid: &str) -> kube::Result<bool>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let patch = json!({ "metadata": {
        "uid": object.meta().uid,
        "ownerReferences": [{ "$patch": "delete", "uid": owner_uid }],
    } });
    patch_metadata(api, object, patch).await
}

async fn patch_metadata<K>(
    api: &kube::Api<K>,
    object: &Arc<K>,
    patch: serde_json::Value,
) -> kube::Result<bool>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    let name = object.meta().name.as_deref().unwrap_or_default();
    match api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
        Ok(_) => Ok(true),
        Err(error) if is_not_found(&error) => Ok(false),
        // Another object has taken the name.
        Err(kube::Error::Api(status)) if status.is_invalid() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    #[test]
    fn claims_follow_controller_reference_selector_and_deletion() {
        let selector = Selector::parse("app=web").expect("valid");
        let pod = |app: &str, controller: Option<&str>, is_deleted: bool| {
            let mut pod = Pod::default();
            pod.metadata.labels = Some([("app".to_owned(), app.to_owned())].into());
            pod.metadata.owner_references = controller.map(|uid| {
                vec![OwnerReference { uid: uid.into(), controller: Some(true), ..OwnerReference::default() }]
            });
            pod.metadata.deletion_timestamp =
                is_deleted.then_some(Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
            pod
        };
        for (app, controller, pod_deleted, owner_deleted, expected) in [
            ("web", Some("me"), false, false, Claim::Owned),
            ("web", Some("me"), true, true, Claim::Owned),
            ("api", Some("me"), false, false, Claim::Release),
            ("api", Some("me"), false, true, Claim::Ignore),
            ("web", Some("you"), false, false, Claim::Ignore),
            ("web", None, false, false, Claim::Adopt),
            ("web", None, true, false, Claim::Ignore),
            ("web", None, false, true, Claim::Ignore),
            ("api", None, false, false, Claim::Ignore),
        ] {
            let claimed = claim(&pod(app, controller, pod_deleted), "me", owner_deleted, &selector);
            assert_eq!(claimed, expected, "{app} {controller:?} {pod_deleted} {owner_deleted}");
        }
    }
}
