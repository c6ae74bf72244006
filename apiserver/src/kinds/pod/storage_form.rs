//! What a persistent volume is made of and what a claim asks for, as Kubernetes prints them in errors.

use super::internal_form::Field;
use super::internal_form::Form::{Optional, Other, Pointer, Text};

const PERSISTENT_VOLUME_SOURCE: &[Field] = &[
    ("GCEPersistentDisk", "gcePersistentDisk", Other),
    ("AWSElasticBlockStore", "awsElasticBlockStore", Other),
    ("HostPath", "hostPath", Pointer("HostPathVolumeSource")),
    ("Glusterfs", "glusterfs", Other),
    ("NFS", "nfs", Other),
    ("RBD", "rbd", Other),
    ("Quobyte", "quobyte", Other),
    ("ISCSI", "iscsi", Other),
    ("FlexVolume", "flexVolume", Other),
    ("Cinder", "cinder", Other),
    ("CephFS", "cephfs", Other),
    ("FC", "fc", Other),
    ("Flocker", "flocker", Other),
    ("AzureFile", "azureFile", Other),
    ("VsphereVolume", "vsphereVolume", Other),
    ("AzureDisk", "azureDisk", Other),
    ("PhotonPersistentDisk", "photonPersistentDisk", Other),
    ("PortworxVolume", "portworxVolume", Other),
    ("ScaleIO", "scaleIO", Other),
    ("Local", "local", Pointer("LocalVolumeSource")),
    ("StorageOS", "storageos", Other),
    ("CSI", "csi", Other),
];

const PERSISTENT_VOLUME_CLAIM_SPEC: &[Field] = &[
    ("AccessModes", "accessModes", Optional),
    ("Selector", "selector", Optional),
    ("Resources", "resources", super::internal_form::Form::Inside("VolumeResourceRequirements")),
    ("VolumeName", "volumeName", Text),
    ("StorageClassName", "storageClassName", Optional),
    ("VolumeMode", "volumeMode", Optional),
    ("DataSource", "dataSource", Pointer("TypedLocalObjectReference")),
    ("DataSourceRef", "dataSourceRef", Pointer("TypedObjectReference")),
    ("VolumeAttributesClassName", "volumeAttributesClassName", Optional),
];

/// The fields of a type, in their order; none for an unknown one.
pub(super) fn fields_of(type_name: &str) -> &'static [Field] {
    match type_name {
        "PersistentVolumeSource" => PERSISTENT_VOLUME_SOURCE,
        "LocalVolumeSource" => &[("Path", "path", Text), ("FSType", "fsType", Optional)],
        "PersistentVolumeClaimSpec" => PERSISTENT_VOLUME_CLAIM_SPEC,
        "VolumeResourceRequirements" => &[("Limits", "limits", Optional), ("Requests", "requests", Optional)],
        "TypedLocalObjectReference" => {
            &[("APIGroup", "apiGroup", Optional), ("Kind", "kind", Text), ("Name", "name", Text)]
        }
        "TypedObjectReference" => &[
            ("APIGroup", "apiGroup", Optional),
            ("Kind", "kind", Text),
            ("Name", "name", Text),
            ("Namespace", "namespace", Optional),
        ],
        _ => &[],
    }
}
