//! What a persistent volume is made of. Source: `ValidatePersistentVolumeSpec` of `k8s.io/kubernetes/pkg/apis/core/validation`.

use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, ISCSIPersistentVolumeSource, PersistentVolumeSpec, SecretReference,
};
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::names;

use crate::kinds::fields::{invalid_each, no_backsteps, s};
use crate::kinds::pod::volumes::{
    Sources, azure_disk, both, csi_driver, fibre_channel, flex_fields, flocker, host_path, iscsi_name, nfs,
    partition, quobyte, required,
};

/// Exactly one source, and nothing wrong with it.
pub(super) fn check(
    spec: &PersistentVolumeSpec,
    volume_name: &str,
    has_affinity: bool,
    path: &Path,
) -> ErrorList {
    let mut sources = Sources { path, count: 0, errors: ErrorList::new() };
    sources.check("hostPath", spec.host_path.as_ref(), host_path);
    let gce = spec.gce_persistent_disk.as_ref();
    sources.check_at("gcePersistentDisk", "persistentDisk", gce, |source, path| {
        both(required(&source.pd_name, &path.child("pdName")), partition(source.partition, path))
    });
    sources.check("awsElasticBlockStore", spec.aws_elastic_block_store.as_ref(), |source, path| {
        both(required(&source.volume_id, &path.child("volumeID")), partition(source.partition, path))
    });
    sources.check("glusterfs", spec.glusterfs.as_ref(), |source, path| {
        let mut errors = required(&source.endpoints, &path.child("endpoints"));
        errors.extend(required(&source.path, &path.child("path")));
        let namespace_path = path.child("endpointsNamespace");
        match source.endpoints_namespace.as_deref() {
            Some("") => {
                let detail = "if the endpointnamespace is set, it must be a valid namespace name";
                errors.push(Error::invalid(&namespace_path, "", detail));
            }
            Some(name) => errors.extend(invalid_each(&namespace_path, name, names::dns1123_label(name))),
            None => {}
        }
        errors
    });
    sources.check("flocker", spec.flocker.as_ref(), flocker);
    sources.check("nfs", spec.nfs.as_ref(), nfs);
    sources.check("rbd", spec.rbd.as_ref(), |source, path| {
        both(some(&source.monitors, &path.child("monitors")), required(&source.image, &path.child("image")))
    });
    sources.check("quobyte", spec.quobyte.as_ref(), quobyte);
    sources.check_at("cephFS", "cephfs", spec.cephfs.as_ref(), |source, path| {
        some(&source.monitors, &path.child("monitors"))
    });
    sources.check("iscsi", spec.iscsi.as_ref(), iscsi);
    if let Some(iscsi) = &spec.iscsi
        && iscsi.initiator_name.is_some()
        && volume_name.len() + 1 + iscsi.target_portal.len() > 64
    {
        let detail = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
        sources.errors.push(Error::invalid(&path.child("name"), volume_name, detail));
    }
    sources.check("cinder", spec.cinder.as_ref(), |source, path| {
        both(
            required(&source.volume_id, &path.child("volumeID")),
            secret(source.secret_ref.as_ref(), &path.child("secretRef")),
        )
    });
    sources.check("fc", spec.fc.as_ref(), fibre_channel);
    sources.check("flexVolume", spec.flex_volume.as_ref(), |source, path| {
        flex_fields(&source.driver, source.options.as_ref(), path)
    });
    sources.check("azureFile", spec.azure_file.as_ref(), |source, path| {
        let mut errors = required(&source.secret_name, &path.child("secretName"));
        errors.extend(required(&source.share_name, &path.child("shareName")));
        if source.secret_namespace.as_deref() == Some("") {
            errors.push(Error::required(&path.child("secretNamespace"), ""));
        }
        errors
    });
    sources.check("vsphereVolume", spec.vsphere_volume.as_ref(), |source, path| {
        required(&source.volume_path, &path.child("volumePath"))
    });
    sources.check("photonPersistentDisk", spec.photon_persistent_disk.as_ref(), |source, path| {
        required(&source.pd_id, &path.child("pdID"))
    });
    sources.check("portworxVolume", spec.portworx_volume.as_ref(), |source, path| {
        required(&source.volume_id, &path.child("volumeID"))
    });
    sources.check("azureDisk", spec.azure_disk.as_ref(), azure_disk);
    sources.check("scaleIO", spec.scale_io.as_ref(), |source, path| {
        let mut errors = required(&source.gateway, &path.child("gateway"));
        errors.extend(required(&source.system, &path.child("system")));
        errors.extend(required(s(&source.volume_name), &path.child("volumeName")));
        errors
    });
    sources.check("local", spec.local.as_ref(), |source, own| {
        let mut errors = required(&source.path, &own.child("path"));
        if errors.is_empty() {
            errors = no_backsteps(&source.path, &own.child("path"));
        }
        if !has_affinity {
            errors.push(Error::required(&path.child("nodeAffinity"), "Local volume requires node affinity"));
        }
        errors
    });
    sources.check("storageos", spec.storageos.as_ref(), |source, path| {
        let label = |name: &str, path: &Path| invalid_each(path, name, names::dns1123_label(name));
        let mut errors = match s(&source.volume_name) {
            "" => vec![Error::required(&path.child("volumeName"), "")],
            name => label(name, &path.child("volumeName")),
        };
        if !s(&source.volume_namespace).is_empty() {
            errors.extend(label(s(&source.volume_namespace), &path.child("volumeNamespace")));
        }
        if let Some(reference) = &source.secret_ref {
            errors.extend(required(s(&reference.name), &path.child("secretRef").child("name")));
            errors.extend(required(s(&reference.namespace), &path.child("secretRef").child("namespace")));
        }
        errors
    });
    sources.check("csi", spec.csi.as_ref(), csi);
    if sources.count == 0 {
        sources.errors.push(Error::required(path, "must specify a volume type"));
    }
    sources.errors
}

fn some(items: &[String], path: &Path) -> ErrorList {
    if items.is_empty() { vec![Error::required(path, "")] } else { ErrorList::new() }
}

fn secret(reference: Option<&SecretReference>, path: &Path) -> ErrorList {
    reference.map_or_else(ErrorList::new, |reference| {
        both(
            required(s(&reference.name), &path.child("name")),
            required(s(&reference.namespace), &path.child("namespace")),
        )
    })
}

fn iscsi(source: &ISCSIPersistentVolumeSource, path: &Path) -> ErrorList {
    let mut errors = required(&source.target_portal, &path.child("targetPortal"));
    if source.iqn.is_empty() {
        errors.push(Error::required(&path.child("iqn"), ""));
    } else {
        errors.extend(iscsi_name(&source.iqn, &path.child("iqn")));
    }
    if !(0..=255).contains(&source.lun) {
        errors.push(Error::invalid(&path.child("lun"), source.lun, &names::inclusive_range_error(0, 255)));
    }
    let authenticates = source.chap_auth_discovery == Some(true) || source.chap_auth_session == Some(true);
    if authenticates && source.secret_ref.is_none() {
        errors.push(Error::required(&path.child("secretRef"), ""));
    }
    if let Some(reference) = &source.secret_ref {
        errors.extend(required(s(&reference.name), &path.child("secretRef").child("name")));
    }
    if let Some(initiator) = &source.initiator_name {
        errors.extend(iscsi_name(initiator, &path.child("initiatorname")));
    }
    errors
}

fn csi(source: &CSIPersistentVolumeSource, path: &Path) -> ErrorList {
    let mut errors = csi_driver(&source.driver, &path.child("driver"));
    errors.extend(required(&source.volume_handle, &path.child("volumeHandle")));
    for (field, reference) in [
        ("controllerPublishSecretRef", &source.controller_publish_secret_ref),
        ("controllerExpandSecretRef", &source.controller_expand_secret_ref),
        ("nodePublishSecretRef", &source.node_publish_secret_ref),
        ("nodeExpandSecretRef", &source.node_expand_secret_ref),
    ] {
        errors.extend(secret(reference.as_ref(), &path.child(field)));
    }
    errors
}
