//! Volumes of a pod.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    AzureDiskVolumeSource, ClusterTrustBundleProjection, DownwardAPIVolumeFile, EphemeralVolumeSource,
    FCVolumeSource, FlexVolumeSource, FlockerVolumeSource, HostPathVolumeSource, ISCSIVolumeSource,
    KeyToPath, NFSVolumeSource, PodCertificateProjection, ProjectedVolumeSource, QuobyteVolumeSource, Volume,
    VolumeProjection,
};
use serde_json::json;
use wherry_machinery::field::{Error, ErrorList, Path};
use wherry_machinery::names;

use super::env::{Holder, VOLUME_FIELDS, field_ref, resource_ref};
use super::spec::Context;
use super::{containers, resources};
use crate::kinds::fields::{
    dns_label, file_mode, invalid_each, label_selector, local_non_reserved_path, local_path, no_backsteps, s,
};
use crate::kinds::persistent_volume_claim;

/// What containers may ask of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VolumeKind {
    /// Backed by a claim, so it may be a block device.
    Claim,
    /// Made from an image, so it is read whole.
    Image,
    /// Any other.
    Plain,
}

/// The valid volumes of a pod by name.
pub(crate) type Volumes = BTreeMap<String, VolumeKind>;

/// All volumes; those without errors by name.
pub(crate) fn volumes(volumes: &[Volume], context: &Context<'_>, path: &Path) -> (Volumes, ErrorList) {
    let mut errors = ErrorList::new();
    let mut found = Volumes::new();
    let created_claims: BTreeSet<String> = volumes
        .iter()
        .filter(|volume| volume.ephemeral.is_some() && !context.pod_name.is_empty())
        .map(|volume| format!("{}-{}", context.pod_name, volume.name))
        .collect();
    for (i, volume) in volumes.iter().enumerate() {
        let path = path.index(i);
        let name_path = path.child("name");
        let mut here = source(volume, context, &path);
        if volume.name.is_empty() {
            here.push(Error::required(&name_path, ""));
        } else {
            here.extend(dns_label(&volume.name, &name_path));
        }
        if found.contains_key(&volume.name) {
            here.push(Error::duplicate(&name_path, volume.name.as_str()));
        }
        if here.is_empty() {
            found.insert(volume.name.clone(), kind(volume));
        }
        errors.extend(here);
        if let Some(claim) = &volume.persistent_volume_claim
            && created_claims.contains(&claim.claim_name)
        {
            errors.push(Error::invalid(
                &path.child("persistentVolumeClaim").child("claimName"),
                claim.claim_name.as_str(),
                "must not reference a PVC that gets created for an ephemeral volume",
            ));
        }
    }
    (found, errors)
}

fn kind(volume: &Volume) -> VolumeKind {
    if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() {
        VolumeKind::Claim
    } else if volume.image.is_some() {
        VolumeKind::Image
    } else {
        VolumeKind::Plain
    }
}

/// Checks the sources in Kubernetes' order; only the first may be there.
pub(crate) struct Sources<'a> {
    /// Where the sources stand.
    pub(crate) path: &'a Path,
    /// How many there are.
    pub(crate) count: usize,
    /// What is wrong.
    pub(crate) errors: ErrorList,
}

impl Sources<'_> {
    pub(crate) fn check<T>(
        &mut self,
        field: &str,
        source: Option<&T>,
        check: impl FnOnce(&T, &Path) -> ErrorList,
    ) {
        self.check_at(field, field, source, check);
    }

    /// `field` is what an error about a second source names, `own` what the source's own errors name.
    pub(crate) fn check_at<T>(
        &mut self,
        field: &str,
        own: &str,
        source: Option<&T>,
        check: impl FnOnce(&T, &Path) -> ErrorList,
    ) {
        let Some(source) = source else { return };
        if self.count > 0 {
            let error = Error::forbidden(&self.path.child(field), "may not specify more than 1 volume type");
            self.errors.push(error);
        } else {
            self.count += 1;
            self.errors.extend(check(source, &self.path.child(own)));
        }
    }
}

pub(crate) fn required(value: &str, path: &Path) -> ErrorList {
    if value.is_empty() { vec![Error::required(path, "")] } else { ErrorList::new() }
}

pub(crate) fn both(mut first: ErrorList, second: ErrorList) -> ErrorList {
    first.extend(second);
    first
}

fn source(volume: &Volume, context: &Context<'_>, path: &Path) -> ErrorList {
    let mut sources = Sources { path, count: 0, errors: ErrorList::new() };
    sources.check("emptyDir", volume.empty_dir.as_ref(), |source, path| {
        let negative =
            source.size_limit.as_ref().is_some_and(|limit| resources::parsed(&limit.0).is_negative());
        let detail = "SizeLimit field must be a valid resource quantity";
        negative.then(|| Error::forbidden(&path.child("sizeLimit"), detail)).into_iter().collect()
    });
    sources.check("hostPath", volume.host_path.as_ref(), host_path);
    sources.check("gitRepo", volume.git_repo.as_ref(), |source, path| {
        both(
            required(&source.repository, &path.child("repository")),
            local_path(s(&source.directory), &path.child("directory")),
        )
    });
    sources.check_at(
        "gcePersistentDisk",
        "persistentDisk",
        volume.gce_persistent_disk.as_ref(),
        |source, path| {
            both(required(&source.pd_name, &path.child("pdName")), partition(source.partition, path))
        },
    );
    sources.check("awsElasticBlockStore", volume.aws_elastic_block_store.as_ref(), |source, path| {
        both(required(&source.volume_id, &path.child("volumeID")), partition(source.partition, path))
    });
    sources.check("secret", volume.secret.as_ref(), |source, path| {
        let mut errors = required(s(&source.secret_name), &path.child("secretName"));
        errors.extend(file_mode(source.default_mode, &path.child("defaultMode")));
        errors.extend(keys(source.items.as_deref().unwrap_or_default(), path));
        errors
    });
    sources.check("nfs", volume.nfs.as_ref(), nfs);
    sources.check("iscsi", volume.iscsi.as_ref(), iscsi);
    if let Some(iscsi) = &volume.iscsi
        && iscsi.initiator_name.is_some()
        && volume.name.len() + 1 + iscsi.target_portal.len() > 64
    {
        let detail = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
        sources.errors.push(Error::invalid(&path.child("name"), volume.name.as_str(), detail));
    }
    sources.check("glusterfs", volume.glusterfs.as_ref(), |source, path| {
        both(
            required(&source.endpoints, &path.child("endpoints")),
            required(&source.path, &path.child("path")),
        )
    });
    sources.check("flocker", volume.flocker.as_ref(), flocker);
    sources.check("persistentVolumeClaim", volume.persistent_volume_claim.as_ref(), |source, path| {
        required(&source.claim_name, &path.child("claimName"))
    });
    sources.check("rbd", volume.rbd.as_ref(), |source, path| {
        let missing = source.monitors.is_empty().then(|| Error::required(&path.child("monitors"), ""));
        both(missing.into_iter().collect(), required(&source.image, &path.child("image")))
    });
    sources.check("cinder", volume.cinder.as_ref(), |source, path| {
        let mut errors = required(&source.volume_id, &path.child("volumeID"));
        if let Some(reference) = &source.secret_ref {
            errors.extend(required(&reference.name, &path.child("secretRef").child("name")));
        }
        errors
    });
    sources.check_at("cephFS", "cephfs", volume.cephfs.as_ref(), |source, path| {
        source.monitors.is_empty().then(|| Error::required(&path.child("monitors"), "")).into_iter().collect()
    });
    sources.check("quobyte", volume.quobyte.as_ref(), quobyte);
    sources.check_at("downwarAPI", "downwardAPI", volume.downward_api.as_ref(), |source, path| {
        let mut errors = file_mode(source.default_mode, &path.child("defaultMode"));
        for file in source.items.iter().flatten() {
            errors.extend(downward_file(file, path));
        }
        errors
    });
    sources.check("fc", volume.fc.as_ref(), fibre_channel);
    sources.check("flexVolume", volume.flex_volume.as_ref(), flex);
    sources.check("configMap", volume.config_map.as_ref(), |source, path| {
        let mut errors = required(&source.name, &path.child("name"));
        errors.extend(file_mode(source.default_mode, &path.child("defaultMode")));
        errors.extend(keys(source.items.as_deref().unwrap_or_default(), path));
        errors
    });
    sources.check("azureFile", volume.azure_file.as_ref(), |source, path| {
        both(
            required(&source.secret_name, &path.child("secretName")),
            required(&source.share_name, &path.child("shareName")),
        )
    });
    sources.check("vsphereVolume", volume.vsphere_volume.as_ref(), |source, path| {
        required(&source.volume_path, &path.child("volumePath"))
    });
    sources.check("photonPersistentDisk", volume.photon_persistent_disk.as_ref(), |source, path| {
        required(&source.pd_id, &path.child("pdID"))
    });
    sources.check("portworxVolume", volume.portworx_volume.as_ref(), |source, path| {
        required(&source.volume_id, &path.child("volumeID"))
    });
    sources.check("azureDisk", volume.azure_disk.as_ref(), azure_disk);
    sources.check("storageos", volume.storageos.as_ref(), |source, path| {
        let mut errors = match s(&source.volume_name) {
            "" => vec![Error::required(&path.child("volumeName"), "")],
            name => dns_label(name, &path.child("volumeName")),
        };
        let namespace = s(&source.volume_namespace);
        if !namespace.is_empty() {
            errors.extend(dns_label(namespace, &path.child("volumeNamespace")));
        }
        if let Some(reference) = &source.secret_ref {
            errors.extend(required(&reference.name, &path.child("secretRef").child("name")));
        }
        errors
    });
    sources.check("projected", volume.projected.as_ref(), projected);
    sources.check("scaleIO", volume.scale_io.as_ref(), |source, path| {
        let mut errors = required(&source.gateway, &path.child("gateway"));
        errors.extend(required(&source.system, &path.child("system")));
        errors.extend(required(s(&source.volume_name), &path.child("volumeName")));
        errors
    });
    sources.check("csi", volume.csi.as_ref(), |source, path| {
        let mut errors = csi_driver(&source.driver, &path.child("driver"));
        if let Some(reference) = &source.node_publish_secret_ref {
            errors.extend(required(&reference.name, &path.child("nodePublishSecretRef").child("name")));
        }
        errors
    });
    sources.check("ephemeral", volume.ephemeral.as_ref(), |source, own| {
        let mut errors = ephemeral(source, own);
        if !context.pod_name.is_empty() && !volume.name.is_empty() {
            let claim = format!("{}-{}", context.pod_name, volume.name);
            for problem in names::dns1123_subdomain(&claim) {
                let detail = format!("PVC name {claim:?}: {problem}");
                errors.push(Error::invalid(&path.child("name"), volume.name.as_str(), &detail));
            }
        }
        errors
    });
    sources.check("image", volume.image.as_ref(), |source, path| {
        let mut errors = ErrorList::new();
        if context.is_pod() {
            errors.extend(required(s(&source.reference), &path.child("reference")));
        }
        errors.extend(containers::pull_policy(s(&source.pull_policy), &path.child("pullPolicy")));
        errors
    });
    if sources.count == 0 {
        sources.errors.push(Error::required(path, "must specify a volume type"));
    }
    sources.errors
}

pub(crate) fn host_path(source: &HostPathVolumeSource, path: &Path) -> ErrorList {
    if source.path.is_empty() {
        return required("", &path.child("path"));
    }
    both(
        no_backsteps(&source.path, &path.child("path")),
        host_path_type(s(&source.type_), &path.child("type")),
    )
}

pub(crate) fn nfs(source: &NFSVolumeSource, path: &Path) -> ErrorList {
    let mut errors = required(&source.server, &path.child("server"));
    errors.extend(required(&source.path, &path.child("path")));
    if !source.path.starts_with('/') {
        errors.push(Error::invalid(&path.child("path"), source.path.as_str(), "must be an absolute path"));
    }
    errors
}

pub(crate) fn flocker(source: &FlockerVolumeSource, path: &Path) -> ErrorList {
    let (name, uuid) = (s(&source.dataset_name), s(&source.dataset_uuid));
    let mut errors = ErrorList::new();
    if name.is_empty() && uuid.is_empty() {
        errors.push(Error::required(path, "one of datasetName and datasetUUID is required"));
    }
    if !name.is_empty() && !uuid.is_empty() {
        let detail = "datasetName and datasetUUID can not be specified simultaneously";
        errors.push(Error::invalid(path, "resource", detail));
    }
    if name.contains('/') {
        errors.push(Error::invalid(&path.child("datasetName"), name, "must not contain '/'"));
    }
    errors
}

fn host_path_type(kind: &str, path: &Path) -> ErrorList {
    const TYPES: &[&str] = &[
        "",
        "BlockDevice",
        "CharDevice",
        "Directory",
        "DirectoryOrCreate",
        "File",
        "FileOrCreate",
        "Socket",
    ];
    if TYPES.contains(&kind) { ErrorList::new() } else { vec![Error::not_supported(path, kind, TYPES)] }
}

pub(crate) fn partition(partition: Option<i32>, path: &Path) -> ErrorList {
    match partition {
        Some(number) if !(0..=255).contains(&number) => {
            // The range in the words is Kubernetes' own.
            vec![Error::invalid(&path.child("partition"), number, &names::inclusive_range_error(1, 255))]
        }
        _ => ErrorList::new(),
    }
}

fn keys(items: &[KeyToPath], path: &Path) -> ErrorList {
    let path = path.child("items");
    items.iter().enumerate().flat_map(|(i, item)| key_to_path(item, &path.index(i))).collect()
}

fn key_to_path(item: &KeyToPath, path: &Path) -> ErrorList {
    let mut errors = required(&item.key, &path.child("key"));
    errors.extend(required(&item.path, &path.child("path")));
    errors.extend(local_non_reserved_path(&item.path, &path.child("path")));
    errors.extend(file_mode(item.mode, &path.child("mode")));
    errors
}

fn downward_file(file: &DownwardAPIVolumeFile, path: &Path) -> ErrorList {
    let mut errors = required(&file.path, &path.child("path"));
    errors.extend(local_non_reserved_path(&file.path, &path.child("path")));
    match (&file.field_ref, &file.resource_field_ref) {
        (Some(field), resource) => {
            errors.extend(field_ref(field, VOLUME_FIELDS, &path.child("fieldRef")));
            if resource.is_some() {
                let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                errors.push(Error::invalid(path, "resource", detail));
            }
        }
        (None, Some(resource)) => {
            errors.extend(resource_ref(resource, Holder::Volume, &path.child("resourceFieldRef")));
        }
        (None, None) => {
            errors.push(Error::required(path, "one of fieldRef and resourceFieldRef is required"))
        }
    }
    errors.extend(file_mode(file.mode, &path.child("mode")));
    errors
}

fn projected(source: &ProjectedVolumeSource, path: &Path) -> ErrorList {
    let mut errors = file_mode(source.default_mode, &path.child("defaultMode"));
    let mut taken = BTreeSet::new();
    for (i, projection) in source.sources.iter().flatten().enumerate() {
        let source_path = path.child("sources").index(i);
        errors.extend(project(projection, &mut taken, &source_path, path));
    }
    errors
}

/// One source of a projected volume. Conflicts between sources are reported at the volume.
fn project(
    source: &VolumeProjection,
    taken: &mut BTreeSet<String>,
    path: &Path,
    volume_path: &Path,
) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut count = 0;
    let mut conflict = |file: &str, value: &str| {
        let is_new = file.is_empty() || taken.insert(file.to_owned());
        (!is_new).then(|| Error::invalid(volume_path, value, "conflicting duplicate paths"))
    };
    let secret = source.secret.as_ref().map(|part| ("secret", &part.name, part.items.as_deref()));
    let config_map = source.config_map.as_ref().map(|part| ("configMap", &part.name, part.items.as_deref()));
    for (field, name, items) in secret.into_iter().chain(config_map) {
        count += 1;
        let path = path.child(field);
        errors.extend(required(name, &path.child("name")));
        for (i, item) in items.unwrap_or_default().iter().enumerate() {
            errors.extend(key_to_path(item, &path.child("items").index(i)));
            errors.extend(conflict(&item.path, name));
        }
    }
    if let Some(downward) = &source.downward_api {
        count += 1;
        for file in downward.items.iter().flatten() {
            errors.extend(downward_file(file, &path.child("downwardAPI")));
            errors.extend(conflict(&file.path, &file.path));
        }
    }
    if let Some(token) = &source.service_account_token {
        count += 1;
        let seconds = token.expiration_seconds.unwrap_or_default();
        let seconds_path = path.child("serviceAccountToken").child("expirationSeconds");
        if seconds < 600 {
            errors.push(Error::invalid(
                &seconds_path,
                seconds,
                "may not specify a duration less than 10 minutes",
            ));
        }
        if seconds > 1 << 32 {
            errors.push(Error::invalid(
                &seconds_path,
                seconds,
                "may not specify a duration larger than 2^32 seconds",
            ));
        }
        if token.path.is_empty() {
            errors.push(Error::required(&volume_path.child("path"), ""));
        } else {
            errors.extend(local_non_reserved_path(&token.path, &volume_path.child("path")));
        }
    }
    if let Some(bundle) = &source.cluster_trust_bundle {
        count += 1;
        errors.extend(trust_bundle(bundle, &path.child("clusterTrustBundle")));
        errors.extend(conflict(&bundle.path, &bundle.path));
    }
    if let Some(certificate) = &source.pod_certificate {
        count += 1;
        errors.extend(pod_certificate(certificate, &path.child("podCertificate")));
        for file in
            [&certificate.credential_bundle_path, &certificate.key_path, &certificate.certificate_chain_path]
        {
            errors.extend(conflict(s(file), s(file)));
        }
    }
    if count > 1 {
        errors.push(Error::forbidden(path, "may not specify more than 1 volume type per source"));
    }
    errors
}

fn trust_bundle(bundle: &ClusterTrustBundleProjection, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    match (&bundle.name, &bundle.signer_name) {
        (Some(_), Some(_)) => {
            errors.push(Error::invalid(path, json!(bundle), "only one of name and signerName may be used"));
        }
        (Some(name), None) => {
            if name.is_empty() {
                errors.push(Error::required(&path.child("name"), "must be a valid object name"));
            }
            // Bundles of a signer carry it as prefix, its slash as a colon.
            let own = name.rsplit_once(':').map_or(name.as_str(), |(_, own)| own);
            for problem in names::dns1123_subdomain(own) {
                let detail = format!("not a valid clustertrustbundlename: {problem}");
                errors.push(Error::invalid(&path.child("name"), name.as_str(), &detail));
            }
            if let Some(selector) = &bundle.label_selector {
                let detail = "labelSelector must be unset if name is specified";
                errors.push(Error::invalid(&path.child("labelSelector"), json!(selector), detail));
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                errors.push(Error::required(&path.child("signerName"), "must be a valid signer name"));
            }
            errors.extend(signer_name(signer, &path.child("signerName")));
            errors.extend(label_selector(bundle.label_selector.as_ref(), &path.child("labelSelector")));
        }
        (None, None) => errors.push(Error::required(path, "either name or signerName must be specified")),
    }
    errors.extend(required(&bundle.path, &path.child("path")));
    errors.extend(local_non_reserved_path(&bundle.path, &path.child("path")));
    errors
}

fn pod_certificate(certificate: &PodCertificateProjection, path: &Path) -> ErrorList {
    const KEY_TYPES: &[&str] = &["ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519", "RSA3072", "RSA4096"];
    let mut errors = signer_name(&certificate.signer_name, &path.child("signerName"));
    if !KEY_TYPES.contains(&certificate.key_type.as_str()) {
        errors.push(Error::not_supported(&path.child("keyType"), certificate.key_type.as_str(), KEY_TYPES));
    }
    let seconds = certificate.max_expiration_seconds.unwrap_or(86_400);
    if !(3600..=7_862_400).contains(&seconds) {
        let detail = "must be between 3600 (one hour) and 7862400 (91 days)";
        errors.push(Error::invalid(&path.child("maxExpirationSeconds"), seconds, detail));
    }
    let (bundle, key, chain) = (
        s(&certificate.credential_bundle_path),
        s(&certificate.key_path),
        s(&certificate.certificate_chain_path),
    );
    if bundle.is_empty() && key.is_empty() && chain.is_empty() {
        errors.push(Error::required(
            path,
            "specify at least one of credentialBundlePath, keyPath, and certificateChainPath",
        ));
    }
    for (field, file) in [("credentialBundlePath", bundle), ("keyPath", key), ("certificateChainPath", chain)]
    {
        if !file.is_empty() {
            errors.extend(local_non_reserved_path(file, &path.child(field)));
        }
    }
    errors
}

/// `domain/path`, both of limited length.
fn signer_name(name: &str, path: &Path) -> ErrorList {
    if name.is_empty() {
        return vec![Error::required(path, "")];
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let detail = r#"must be a fully qualified domain and path of the form "example.com/signer-name""#;
        return vec![Error::invalid(path, name, detail)];
    };
    let mut errors = invalid_each(path, domain, names::dns1123_subdomain(domain));
    if !domain.contains('.') {
        errors.push(Error::invalid(
            path,
            domain,
            "should be a domain with at least two segments separated by dots",
        ));
    }
    errors.extend(invalid_each(path, rest, names::dns1123_subdomain(rest)));
    errors
}

fn iscsi(source: &ISCSIVolumeSource, path: &Path) -> ErrorList {
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
    if let Some(initiator) = &source.initiator_name {
        errors.extend(iscsi_name(initiator, &path.child("initiatorname")));
    }
    errors
}

/// `iqn.yyyy-mm.domain:identifier`, `eui.` and 16 or `naa.` and 32 letters and digits.
pub(crate) fn iscsi_name(name: &str, path: &Path) -> ErrorList {
    let alphanumeric =
        |text: &str, length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_alphanumeric());
    let valid = if name.starts_with("iqn") {
        is_iqn(name)
    } else if let Some(rest) = name.strip_prefix("eui") {
        rest.get(1..).is_some_and(|rest| alphanumeric(rest, 16))
    } else if let Some(rest) = name.strip_prefix("naa") {
        rest.get(1..).is_some_and(|rest| alphanumeric(rest, 32))
    } else {
        return vec![Error::invalid(path, name, "must be valid format starting with iqn, eui, or naa")];
    };
    if valid { ErrorList::new() } else { vec![Error::invalid(path, name, "must be valid format")] }
}

fn is_iqn(name: &str) -> bool {
    let Some((date, rest)) = name.strip_prefix("iqn.").and_then(|rest| rest.split_once('.')) else {
        return false;
    };
    let digits = |text: &str, length: usize| text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
    let dated = date.split_once('-').is_some_and(|(year, month)| digits(year, 4) && digits(month, 2));
    let (domain, identifier) = rest.split_once(':').unwrap_or((rest, ""));
    let forbidden = |c: char| matches!(c, ',' | ';' | '*' | '&' | '$' | '|') || c.is_whitespace();
    dated
        && !domain.is_empty()
        && domain.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
        && !identifier.is_empty()
        && !identifier.contains(forbidden)
}

pub(crate) fn quobyte(source: &QuobyteVolumeSource, path: &Path) -> ErrorList {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let mut errors = ErrorList::new();
    if source.registry.is_empty() {
        errors.push(Error::required(&path.child("registry"), PAIRS));
    } else if s(&source.tenant).len() >= 65 {
        let detail = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(Error::required(&path.child("tenant"), detail));
    } else {
        for pair in source.registry.split(',') {
            let is_pair =
                pair.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.starts_with('['));
            if !is_pair {
                errors.push(Error::invalid(&path.child("registry"), source.registry.as_str(), PAIRS));
            }
        }
    }
    errors.extend(required(&source.volume, &path.child("volume")));
    errors
}

pub(crate) fn fibre_channel(source: &FCVolumeSource, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let targets = source.target_wwns.as_deref().unwrap_or_default();
    let ids = source.wwids.as_deref().unwrap_or_default();
    let target_path = path.child("targetWWNs");
    if targets.is_empty() && ids.is_empty() {
        errors.push(Error::required(&target_path, "must specify either targetWWNs or wwids, but not both"));
    }
    if !targets.is_empty() && !ids.is_empty() {
        let detail = "targetWWNs and wwids can not be specified simultaneously";
        errors.push(Error::invalid(&target_path, json!(targets), detail));
    }
    if !targets.is_empty() {
        match source.lun {
            None => {
                errors.push(Error::required(&path.child("lun"), "lun is required if targetWWNs is specified"))
            }
            Some(lun) if !(0..=255).contains(&lun) => {
                errors.push(Error::invalid(&path.child("lun"), lun, &names::inclusive_range_error(0, 255)));
            }
            Some(_) => {}
        }
    }
    errors
}

fn flex(source: &FlexVolumeSource, path: &Path) -> ErrorList {
    flex_fields(&source.driver, source.options.as_ref(), path)
}

/// The driver and its options, which may not be called like Kubernetes' own.
pub(crate) fn flex_fields(
    driver: &str,
    options: Option<&BTreeMap<String, String>>,
    path: &Path,
) -> ErrorList {
    let mut errors = required(driver, &path.child("driver"));
    for key in options.into_iter().flat_map(|options| options.keys()) {
        let namespace = key.split_once('/').map_or(key.as_str(), |(namespace, _)| namespace);
        let normalized = format!(".{}", namespace.to_lowercase());
        if normalized.ends_with(".kubernetes.io") || normalized.ends_with(".k8s.io") {
            let detail = "kubernetes.io and k8s.io namespaces are reserved";
            errors.push(Error::invalid(&path.child("options").key(key), key.as_str(), detail));
        }
    }
    errors
}

pub(crate) fn azure_disk(source: &AzureDiskVolumeSource, path: &Path) -> ErrorList {
    const CACHING: &[&str] = &["None", "ReadOnly", "ReadWrite"];
    const KINDS: &[&str] = &["Dedicated", "Managed", "Shared"];
    const MANAGED: &[&str] =
        &["/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"];
    const BLOB: &[&str] = &["https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"];
    let mut errors = required(&source.disk_name, &path.child("diskName"));
    errors.extend(required(&source.disk_uri, &path.child("diskURI")));
    for (field, value, supported) in
        [("cachingMode", &source.caching_mode, CACHING), ("kind", &source.kind, KINDS)]
    {
        if let Some(value) = value
            && !supported.contains(&value.as_str())
        {
            errors.push(Error::not_supported(&path.child(field), value.as_str(), supported));
        }
    }
    let uri = source.disk_uri.as_str();
    match source.kind.as_deref() {
        Some("Managed") if !uri.starts_with("/subscriptions/") => {
            errors.push(Error::not_supported(&path.child("diskURI"), uri, MANAGED));
        }
        Some(kind) if kind != "Managed" && !uri.starts_with("https://") => {
            errors.push(Error::not_supported(&path.child("diskURI"), uri, BLOB));
        }
        _ => {}
    }
    errors
}

pub(crate) fn csi_driver(name: &str, path: &Path) -> ErrorList {
    if name.is_empty() {
        return vec![Error::required(path, "")];
    }
    let mut errors = ErrorList::new();
    if name.len() > 63 {
        errors.push(Error::too_long(path, 63));
    }
    errors.extend(invalid_each(path, name, names::dns1123_subdomain(&name.to_lowercase())));
    errors
}

fn ephemeral(source: &EphemeralVolumeSource, path: &Path) -> ErrorList {
    let path = path.child("volumeClaimTemplate");
    match &source.volume_claim_template {
        None => vec![Error::required(&path, "")],
        Some(template) => persistent_volume_claim::validate_spec(&template.spec, &path.child("spec")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::testing::messages;

    fn check(value: serde_json::Value) -> Vec<String> {
        let list: Vec<Volume> = serde_json::from_value(value).unwrap();
        messages(&volumes(&list, &Context::pod("p"), &Path::new("spec").child("volumes")).1)
    }

    #[test]
    fn a_volume_needs_one_source_with_its_required_fields() {
        assert_eq!(
            check(json!([
                {"name": "a", "emptyDir": {}, "hostPath": {"path": "/"}},
                {"name": "b", "secret": {"secretName": ""}},
                {"name": "c", "configMap": {"name": "q", "items": [{"key": "k", "path": "../up"}]}},
                {"name": "d", "nfs": {"server": "", "path": "rel"}},
                {"name": "e", "hostPath": {"path": "", "type": "Odd"}},
            ])),
            [
                "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
                "spec.volumes[1].secret.secretName: Required value",
                "spec.volumes[2].configMap.items[0].path: Invalid value: \"../up\": must not contain '..'",
                "spec.volumes[3].nfs.server: Required value",
                "spec.volumes[3].nfs.path: Invalid value: \"rel\": must be an absolute path",
                "spec.volumes[4].hostPath.path: Required value",
            ]
        );
    }

    #[test]
    fn sources_of_a_projected_volume_may_not_write_the_same_file() {
        assert_eq!(
            check(json!([{"name": "p", "projected": {"sources": [
                {"secret": {"name": "s", "items": [{"key": "a", "path": "x"}]}},
                {"configMap": {"name": "c", "items": [{"key": "b", "path": "x"}]}},
                {"serviceAccountToken": {"path": "tok", "expirationSeconds": 10}},
            ]}}])),
            [
                r#"spec.volumes[0].projected: Invalid value: "c": conflicting duplicate paths"#,
                "spec.volumes[0].projected.sources[2].serviceAccountToken.expirationSeconds: Invalid value: 10: may not specify a duration less than 10 minutes",
            ]
        );
    }

    #[test]
    fn iscsi_names_have_three_forms() {
        let table = [
            ("iqn.2001-04.com.example:storage.kube.sys1.xyz", true),
            ("iqn.2001-04.com.example", false),
            ("eui.0123456789ABCDEF", true),
            ("eui.012", false),
            ("naa.0123456789ABCDEF0123456789ABCDEF", true),
            ("other", false),
        ];
        for (name, valid) in table {
            assert_eq!(iscsi_name(name, &Path::new("iqn")).is_empty(), valid, "{name}");
        }
    }
}
