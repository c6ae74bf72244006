//! Which directory a claim gets, and when a volume goes. Pure.

use k8s_openapi::api::core::v1::{
    LocalVolumeSource, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PersistentVolume,
    PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use wherry_client::object_ref;
use wherry_client::volumes::{
    LOCAL_PATH_DIRECTORY, LOCAL_PATH_FINALIZER, LOCAL_PATH_NODE, LOCAL_PATH_PROVISIONER, PROVISIONED_BY,
    SELECTED_NODE, STORAGE_PROVISIONER, VOLUME_PROTECTION, claim_annotation, mode_of_claim, phase_of_volume,
    reclaim_policy, volume_annotation, volume_name,
};

/// The label by which a volume finds its node.
const HOST_NAME: &str = "kubernetes.io/hostname";

/// What is to be done for a claim.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Provision {
    /// Nothing: it is not ours, or has its volume.
    Nothing,
    /// It cannot have a directory; why.
    Refuse(String),
    /// This volume is to be made.
    Make(Box<PersistentVolume>),
}

/// Decides. `node` looks a node up by its name.
pub(crate) fn plan_claim<'a>(
    claim: &PersistentVolumeClaim,
    class: Option<&StorageClass>,
    node: impl FnOnce(&str) -> Option<&'a Node>,
) -> Provision {
    let is_ours = claim_annotation(claim, STORAGE_PROVISIONER) == Some(LOCAL_PATH_PROVISIONER)
        && volume_name(claim).is_empty()
        && claim.metadata.deletion_timestamp.is_none();
    let Some(class) = class.filter(|class| is_ours && class.provisioner == LOCAL_PATH_PROVISIONER) else {
        return Provision::Nothing;
    };
    let spec = claim.spec.clone().unwrap_or_default();
    let refuse = |why: &str| Provision::Refuse(why.to_owned());
    if spec.selector.is_some() {
        return refuse("claim.Spec.Selector is not supported");
    }
    let modes = spec.access_modes.clone().unwrap_or_default();
    if modes.iter().any(|mode| !matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod")) {
        return refuse("NodePath only supports ReadWriteOnce and ReadWriteOncePod (1.22+) access modes");
    }
    if mode_of_claim(claim) == "Block" {
        return refuse("block volume provisioning is not supported");
    }
    if spec.data_source.is_some() || spec.data_source_ref.is_some() {
        return refuse("a data source is not supported");
    }
    if class.mount_options.as_ref().is_some_and(|options| !options.is_empty()) {
        return refuse("mount options are not supported");
    }
    if class.parameters.as_ref().is_some_and(|parameters| !parameters.is_empty()) {
        return refuse("parameters are not supported");
    }
    let Some(node_name) = claim_annotation(claim, SELECTED_NODE) else {
        return refuse("configuration error, no node was specified");
    };
    let Some(node) = node(node_name) else { return refuse(&format!("node {node_name:?} not found")) };
    let annotations = node.metadata.annotations.as_ref();
    let Some(directory) = annotations.and_then(|annotations| annotations.get(LOCAL_PATH_DIRECTORY)) else {
        return refuse(&format!("node {node_name:?} has no directory for local volumes"));
    };
    let host_name = node.metadata.labels.as_ref().and_then(|labels| labels.get(HOST_NAME));
    let Some(host_name) = host_name else {
        return refuse(&format!("node {node_name:?} has no label {HOST_NAME}"));
    };
    if !wherry_machinery::names::label_value(node_name).is_empty() {
        return refuse(&format!("the name of node {node_name:?} is too long for a label"));
    }
    let name = format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default());
    let storage = spec.resources.as_ref().and_then(|r| r.requests.as_ref()?.get("storage")).cloned();
    let requirement = NodeSelectorRequirement {
        key: HOST_NAME.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![host_name.clone()]),
    };
    let term = NodeSelectorTerm { match_expressions: Some(vec![requirement]), ..NodeSelectorTerm::default() };
    let pair = |key: &str, value: &str| [(key.to_owned(), value.to_owned())].into();
    Provision::Make(Box::new(PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            annotations: Some(pair(PROVISIONED_BY, LOCAL_PATH_PROVISIONER)),
            labels: Some(pair(LOCAL_PATH_NODE, node_name)),
            finalizers: Some(vec![LOCAL_PATH_FINALIZER.to_owned()]),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: Some(modes),
            capacity: storage.map(|amount| [("storage".to_owned(), amount)].into()),
            claim_ref: Some(object_ref(claim)),
            local: Some(LocalVolumeSource {
                path: format!("{}/{name}", directory.trim_end_matches('/')),
                fs_type: None,
            }),
            node_affinity: Some(VolumeNodeAffinity {
                required: Some(NodeSelector { node_selector_terms: vec![term] }),
            }),
            persistent_volume_reclaim_policy: class.reclaim_policy.clone(),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: Some("Filesystem".to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        ..PersistentVolume::default()
    }))
}

/// What is to be done with a volume of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    /// Nothing, or it is the node's turn.
    Nothing,
    /// The object is to be deleted; the node removes the data and lets it go.
    Delete,
    /// Its node is gone, and the data with it: the object need not wait any longer.
    LetGo,
}

/// Decides.
pub(crate) fn plan_volume(volume: &PersistentVolume, node_exists: bool) -> Removal {
    if volume_annotation(volume, PROVISIONED_BY) != Some(LOCAL_PATH_PROVISIONER) {
        return Removal::Nothing;
    }
    let finalizers = volume.metadata.finalizers.as_deref().unwrap_or_default();
    let holds = |finalizer: &str| finalizers.iter().any(|given| given == finalizer);
    if volume.metadata.deletion_timestamp.is_some() {
        let may_go = holds(LOCAL_PATH_FINALIZER) && !holds(VOLUME_PROTECTION) && !node_exists;
        return if may_go { Removal::LetGo } else { Removal::Nothing };
    }
    let is_over = matches!(phase_of_volume(volume), "Released" | "Failed");
    if is_over && reclaim_policy(volume) == "Delete" { Removal::Delete } else { Removal::Nothing }
}

/// The node that has a volume's data.
pub(crate) fn node_of(volume: &PersistentVolume) -> &str {
    let labels = volume.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(LOCAL_PATH_NODE)).map(String::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(edit: impl Fn(&mut Value)) -> PersistentVolumeClaim {
        let mut claim = json!({"metadata": {"name": "c", "namespace": "n", "uid": "u", "annotations": {
                STORAGE_PROVISIONER: LOCAL_PATH_PROVISIONER, SELECTED_NODE: "n1"}},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        edit(&mut claim);
        serde_json::from_value(claim).unwrap()
    }

    fn plan(claim: &PersistentVolumeClaim) -> Provision {
        let class: StorageClass = serde_json::from_value(
            json!({"metadata": {"name": "local-path"}, "provisioner": LOCAL_PATH_PROVISIONER, "reclaimPolicy": "Delete"}),
        )
        .unwrap();
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "n1", "labels": {HOST_NAME: "host-1"},
            "annotations": {LOCAL_PATH_DIRECTORY: "/var/volumes"}}}))
            .unwrap();
        plan_claim(claim, Some(&class), |name| (name == "n1").then_some(&node))
    }

    #[test]
    fn a_claim_gets_a_directory_on_the_node_of_its_first_pod() {
        let Provision::Make(volume) = plan(&claim(|_| {})) else { panic!("a volume is made") };
        let volume = serde_json::to_value(&*volume).unwrap();
        assert_eq!(volume["metadata"]["name"], "pvc-u");
        assert_eq!(volume["metadata"]["finalizers"], json!([LOCAL_PATH_FINALIZER]));
        assert_eq!(volume["metadata"]["labels"][LOCAL_PATH_NODE], "n1");
        assert_eq!(volume["spec"]["local"]["path"], "/var/volumes/pvc-u");
        assert_eq!(volume["spec"]["claimRef"]["uid"], "u");
        assert_eq!(volume["spec"]["capacity"], json!({"storage": "1Gi"}));
        let term = &volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0];
        assert_eq!(*term, json!({"key": HOST_NAME, "operator": "In", "values": ["host-1"]}));
    }

    #[test]
    fn what_a_directory_cannot_be_is_refused() {
        type Change = fn(&mut Value);
        let table: [(&str, Change); 5] = [
            ("claim.Spec.Selector is not supported", |c| c["spec"]["selector"] = json!({})),
            ("NodePath only supports ReadWriteOnce and ReadWriteOncePod (1.22+) access modes", |c| {
                c["spec"]["accessModes"] = json!(["ReadWriteMany"]);
            }),
            ("block volume provisioning is not supported", |c| c["spec"]["volumeMode"] = "Block".into()),
            ("configuration error, no node was specified", |c| {
                c["metadata"]["annotations"] = json!({STORAGE_PROVISIONER: LOCAL_PATH_PROVISIONER});
            }),
            (r#"node "n2" not found"#, |c| c["metadata"]["annotations"][SELECTED_NODE] = "n2".into()),
        ];
        for (why, edit) in table {
            assert_eq!(plan(&claim(edit)), Provision::Refuse(why.to_owned()));
        }
        let bound = claim(|c| c["spec"]["volumeName"] = "v".into());
        assert_eq!(plan(&bound), Provision::Nothing);
        let other = claim(|c| c["metadata"]["annotations"][STORAGE_PROVISIONER] = "other".into());
        assert_eq!(plan(&other), Provision::Nothing);
    }

    #[test]
    fn a_volume_goes_when_its_claim_is_gone_and_waits_for_its_node() {
        let volume = |edit: fn(&mut Value)| -> PersistentVolume {
            let mut volume = json!({"metadata": {"annotations": {PROVISIONED_BY: LOCAL_PATH_PROVISIONER},
                    "finalizers": [LOCAL_PATH_FINALIZER]},
                "spec": {"persistentVolumeReclaimPolicy": "Delete"}, "status": {"phase": "Released"}});
            edit(&mut volume);
            serde_json::from_value(volume).unwrap()
        };
        let deleted: fn(&mut Value) = |v| v["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        type Change = fn(&mut Value);
        let table: [(&str, Change, bool, Removal); 7] = [
            ("released", |_| {}, true, Removal::Delete),
            ("bound", |v| v["status"]["phase"] = "Bound".into(), true, Removal::Nothing),
            (
                "retained",
                |v| v["spec"]["persistentVolumeReclaimPolicy"] = "Retain".into(),
                true,
                Removal::Nothing,
            ),
            (
                "another's",
                |v| v["metadata"]["annotations"][PROVISIONED_BY] = "x".into(),
                true,
                Removal::Nothing,
            ),
            ("the node has it", deleted, true, Removal::Nothing),
            ("the node is gone", deleted, false, Removal::LetGo),
            (
                "protected",
                |v| {
                    v["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
                    v["metadata"]["finalizers"] = json!([LOCAL_PATH_FINALIZER, VOLUME_PROTECTION]);
                },
                false,
                Removal::Nothing,
            ),
        ];
        for (told, edit, node_exists, expected) in table {
            assert_eq!(plan_volume(&volume(edit), node_exists), expected, "{told}");
        }
    }
}
