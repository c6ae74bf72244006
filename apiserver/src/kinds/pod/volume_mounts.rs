//! Where containers see volumes.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, VolumeMount};
use wherry_machinery::field::{Error, ErrorList, Path};

use super::volumes::{VolumeKind, Volumes};
use crate::kinds::fields::{local_path, no_backsteps, s};

/// The mounts of a container.
pub(crate) fn mounts(container: &Container, volumes: &Volumes, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut mount_paths = BTreeSet::new();
    let devices = container.volume_devices.as_deref().unwrap_or_default();
    for (i, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let item = path.index(i);
        let name = mount.name.as_str();
        let mount_path = mount.mount_path.as_str();
        if name.is_empty() {
            errors.push(Error::required(&item.child("name"), ""));
        }
        if !volumes.contains_key(name) {
            errors.push(Error::not_found(&item.child("name"), name));
        }
        if mount_path.is_empty() {
            errors.push(Error::required(&item.child("mountPath"), ""));
        }
        if !mount_paths.insert(mount_path) {
            errors.push(Error::invalid(&item.child("mountPath"), mount_path, "must be unique"));
        }
        if devices.iter().any(|device| device.name == name) {
            errors.push(Error::invalid(&item.child("name"), name, "must not already exist in volumeDevices"));
        }
        if devices.iter().any(|device| device.device_path == mount_path) {
            let detail = "must not already exist as a path in volumeDevices";
            errors.push(Error::invalid(&item.child("mountPath"), mount_path, detail));
        }
        let (sub_path, expression) = (s(&mount.sub_path), s(&mount.sub_path_expr));
        // Kubernetes reports these at the list, without an index.
        if !sub_path.is_empty() {
            errors.extend(local_path(sub_path, &path.child("subPath")));
        }
        if !expression.is_empty() {
            if !sub_path.is_empty() {
                let detail = "subPathExpr and subPath are mutually exclusive";
                errors.push(Error::invalid(&item.child("subPathExpr"), expression, detail));
            }
            errors.extend(local_path(expression, &path.child("subPathExpr")));
        }
        if let Some(mode) = mount.mount_propagation.as_deref() {
            errors.extend(propagation(mode, container, &path.child("mountPropagation")));
        }
        errors.extend(recursive_read_only(mount, &path.child("recursiveReadOnly")));
    }
    errors
}

fn propagation(mode: &str, container: &Container, path: &Path) -> ErrorList {
    const MODES: &[&str] = &["Bidirectional", "HostToContainer", "None"];
    let mut errors = ErrorList::new();
    if !MODES.contains(&mode) {
        errors.push(Error::not_supported(path, mode, MODES));
    }
    let privileged = container.security_context.as_ref().and_then(|context| context.privileged) == Some(true);
    if mode == "Bidirectional" && !privileged {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        errors.push(Error::forbidden(path, detail));
    }
    errors
}

fn recursive_read_only(mount: &VolumeMount, path: &Path) -> ErrorList {
    const MODES: &[&str] = &["Disabled", "Enabled", "IfPossible"];
    let mut errors = ErrorList::new();
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount.read_only != Some(true) {
                errors.push(Error::forbidden(path, "may only be specified when readOnly is true"));
            }
            if mount.mount_propagation.as_deref().is_some_and(|mode| mode != "None") {
                let detail = "may only be specified when mountPropagation is None or not specified";
                errors.push(Error::forbidden(path, detail));
            }
        }
        Some(other) => errors.push(Error::not_supported(path, other, MODES)),
    }
    errors
}

/// The block devices of a container.
pub(crate) fn devices(container: &Container, volumes: &Volumes, path: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let (mut names, mut paths) = (BTreeSet::new(), BTreeSet::new());
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    for (i, device) in container.volume_devices.iter().flatten().enumerate() {
        let path = path.index(i);
        let (name, device_path) = (device.name.as_str(), device.device_path.as_str());
        let (name_path, path_path) = (path.child("name"), path.child("devicePath"));
        if name.is_empty() {
            errors.push(Error::required(&name_path, ""));
        }
        if names.contains(name) {
            errors.push(Error::invalid(&name_path, name, "must be unique"));
        }
        match volumes.get(name) {
            Some(VolumeKind::Claim) => {}
            Some(_) => {
                let detail =
                    "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errors.push(Error::invalid(&name_path, name, detail));
            }
            None => errors.push(Error::not_found(&name_path, name)),
        }
        if device_path.is_empty() {
            errors.push(Error::required(&path_path, ""));
        }
        if paths.contains(device_path) {
            errors.push(Error::invalid(&path_path, device_path, "must be unique"));
        }
        if no_backsteps(device_path, &path_path).is_empty() {
            paths.insert(device_path);
        } else {
            errors.push(Error::invalid(&path_path, device_path, "can not contain backsteps ('..')"));
        }
        if mounts.iter().any(|mount| mount.name == name) {
            errors.push(Error::invalid(&name_path, name, "must not already exist in volumeMounts"));
        }
        if mounts.iter().any(|mount| mount.mount_path == device_path) {
            let detail = "must not already exist as a path in volumeMounts";
            errors.push(Error::invalid(&path_path, device_path, detail));
        }
        if !name.is_empty() {
            names.insert(name);
        }
    }
    errors
}
