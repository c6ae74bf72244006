//! Which finalizers an object is to have. Pure.

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::pods;

/// The finalizer of attribute classes that claims or volumes name.
pub(crate) const ATTRIBUTES_PROTECTION: &str = "kubernetes.io/vac-protection";

/// The finalizers as they are to be and whether one is removed; `None` if they are right.
pub(crate) fn plan_finalizer(
    metadata: &ObjectMeta,
    finalizer: &str,
    is_used: bool,
) -> Option<(Option<Vec<String>>, bool)> {
    let mut finalizers = metadata.finalizers.clone().unwrap_or_default();
    let has = finalizers.iter().any(|given| given == finalizer);
    match (metadata.deletion_timestamp.is_some(), has) {
        (true, true) if !is_used => {
            finalizers.retain(|given| given != finalizer);
            Some((Some(finalizers), true))
        }
        (false, false) => {
            finalizers.push(finalizer.to_owned());
            Some((Some(finalizers), false))
        }
        _ => None,
    }
}

/// Whether a pod needs its claims: as soon as it has a node, until it is gone. One without a node gets none while a claim of its
/// is being deleted.
pub(crate) fn holds_claim(pod: &Pod) -> bool {
    !pods::node_name(pod).is_empty()
}

/// The attribute classes that a claim or a volume names.
pub(crate) fn attributes_classes_of(
    claim: Option<&PersistentVolumeClaim>,
    volume: Option<&PersistentVolume>,
) -> Vec<String> {
    let wanted = claim.and_then(|claim| claim.spec.as_ref()?.volume_attributes_class_name.clone());
    let present = claim.and_then(|claim| claim.status.as_ref()?.current_volume_attributes_class_name.clone());
    let of_volume = volume.and_then(|volume| volume.spec.as_ref()?.volume_attributes_class_name.clone());
    [wanted, present, of_volume].into_iter().flatten().filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_protected_while_it_is_used() {
        let metadata = |deleted: bool, finalizers: &[&str]| -> ObjectMeta {
            let mut metadata = json!({"finalizers": finalizers});
            if deleted {
                metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
            }
            serde_json::from_value(metadata).unwrap()
        };
        let list = |names: &[&str]| Some(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        let table = [
            ("new", metadata(false, &["x"]), false, Some((list(&["x", "p"]), false))),
            ("protected", metadata(false, &["p"]), false, None),
            ("going, used", metadata(true, &["p"]), true, None),
            ("going, free", metadata(true, &["p", "x"]), false, Some((list(&["x"]), true))),
            ("going, held by another", metadata(true, &["x"]), false, None),
        ];
        for (told, metadata, is_used, expected) in table {
            assert_eq!(plan_finalizer(&metadata, "p", is_used), expected, "{told}");
        }
    }

    #[test]
    fn a_pod_without_a_node_holds_nothing() {
        let pod = |node: &str| -> Pod {
            serde_json::from_value(json!({"spec": {"nodeName": node, "containers": []}})).unwrap()
        };
        assert!(holds_claim(&pod("n1")));
        assert!(!holds_claim(&pod("")));
    }
}
