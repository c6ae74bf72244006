//! Volumes that are directories of this node, made for claims of class `local-path`.
//!
//! The provisioner names a directory below the one that this node tells of itself; here it is made when it is first mounted, and
//! removed with what is in it when the object is being deleted, its claim is gone and the policy is `Delete`. A finalizer holds
//! the object until then. How much such a volume takes is not limited.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::PersistentVolume;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use wherry_client::volumes::{
    LOCAL_PATH_FINALIZER, LOCAL_PATH_NODE, LOCAL_PATH_PROVISIONER, PROVISIONED_BY, VOLUME_PROTECTION,
    reclaim_policy, volume_annotation,
};
use wherry_client::{Informer, WorkQueue};
use wherry_runtimes::files::remove_tree;

use super::mount_table::unmount_below;
use crate::kubelet::Kubelet;

/// The node's directory of volumes, below the kubelet's own.
pub const DIRECTORY: &str = "local-volumes";
/// The pause after a removal that failed.
const RETRY: Duration = Duration::from_secs(5);

/// The name of the volume whose directory a path is, if it is directly below the node's directory of volumes.
pub fn own_name<'a>(path: &'a Path, volumes: &Path) -> Option<&'a str> {
    let name = path.file_name()?.to_str()?;
    (path.parent() == Some(volumes) && !matches!(name, "." | "..")).then_some(name)
}

/// Makes the node's directory of volumes. Only the runtime's user may pass it: what is below is writable for whoever can.
pub fn make_root(volumes: &Path, owner: Option<u32>) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(volumes)?;
    let mode = if owner.is_some() { 0o750 } else { 0o700 };
    lchown(volumes, None, owner)?;
    std::fs::set_permissions(volumes, std::fs::Permissions::from_mode(mode))
}

/// Makes a volume's directory, for guests to write to. Blocking; idempotent.
pub fn make(volumes: &Path, name: &str, owner: Option<u32>) -> io::Result<PathBuf> {
    let path = volumes.join(name);
    match std::fs::DirBuilder::new().mode(0o700).create(&path) {
        Ok(()) => {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))?;
            lchown(&path, owner, owner)?;
        }
        // Only root makes anything here, so it is the directory of before.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    Ok(path)
}

/// What is to be done with a volume of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// Nothing yet.
    Nothing,
    /// The directory of this name goes, then the object may.
    Data(String),
    /// The object may go; the data stays.
    Object,
}

/// Decides.
pub fn plan(volume: &PersistentVolume, node: &str, volumes: &Path) -> Removal {
    let metadata = &volume.metadata;
    let finalizers = metadata.finalizers.as_deref().unwrap_or_default();
    let holds = |finalizer: &str| finalizers.iter().any(|given| given == finalizer);
    let labels = metadata.labels.as_ref();
    let is_ours = labels.and_then(|labels| labels.get(LOCAL_PATH_NODE)).map(String::as_str) == Some(node)
        && volume_annotation(volume, PROVISIONED_BY) == Some(LOCAL_PATH_PROVISIONER);
    // While it is bound, its protection holds it.
    if !is_ours
        || metadata.deletion_timestamp.is_none()
        || !holds(LOCAL_PATH_FINALIZER)
        || holds(VOLUME_PROTECTION)
    {
        return Removal::Nothing;
    }
    let path = volume.spec.as_ref().and_then(|spec| spec.local.as_ref()).map(|local| Path::new(&local.path));
    match path.and_then(|path| own_name(path, volumes)) {
        Some(name) if reclaim_policy(volume) == "Delete" => Removal::Data(name.to_owned()),
        _ => Removal::Object,
    }
}

/// Removes the data of volumes that are being deleted; for ever. May be dropped at any moment.
pub(crate) async fn follow(kubelet: Arc<Kubelet>, volumes: Informer<PersistentVolume>) {
    let queue: WorkQueue<String> = WorkQueue::new();
    let changed = queue.clone();
    volumes.subscribe(move |change| {
        changed.add(change.object().metadata.name.clone().unwrap_or_default());
    });
    while let Some(name) = queue.get().await {
        if let Some(volume) = volumes.store().get("", &name)
            && let Err(error) = remove(&kubelet, &volume).await
        {
            tracing::warn!(%error, volume = name, "a volume cannot be removed");
            queue.add_after(name.clone(), RETRY);
        }
        queue.done(&name);
    }
}

async fn remove(kubelet: &Kubelet, volume: &PersistentVolume) -> Result<(), String> {
    let root = kubelet.volume_rules.local_volumes.clone();
    match plan(volume, &kubelet.config.node_name, &root) {
        Removal::Nothing => return Ok(()),
        Removal::Object => {}
        Removal::Data(name) => {
            let path = root.join(name);
            let removal = tokio::task::spawn_blocking(move || {
                unmount_below(&path)?;
                remove_tree(&path)
            });
            removal.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        }
    }
    let finalizers: Vec<&String> = volume
        .metadata
        .finalizers
        .iter()
        .flatten()
        .filter(|finalizer| *finalizer != LOCAL_PATH_FINALIZER)
        .collect();
    // With the version: others take their finalizers away at the same time.
    let patch = json!({"metadata": {
        "uid": volume.metadata.uid, "resourceVersion": volume.metadata.resource_version, "finalizers": finalizers,
    }});
    let api: Api<PersistentVolume> = Api::all(kubelet.client.clone());
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    match api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
        Err(error) if wherry_client::is_not_found(&error) => Ok(()),
        outcome => outcome.map(drop).map_err(|error| error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn only_a_name_directly_below_is_a_volume_of_ours() {
        let root = Path::new("/data/volumes");
        let table = [
            ("/data/volumes/pvc-1", Some("pvc-1")),
            ("/data/volumes", None),
            ("/data/volumes/a/b", None),
            ("/data/other/pvc-1", None),
            ("/data/volumes/..", None),
            ("/data/volumes/../volumes/x", None),
        ];
        for (path, expected) in table {
            assert_eq!(own_name(Path::new(path), root), expected, "{path}");
        }
    }

    #[test]
    fn data_goes_when_the_object_does_and_nothing_else_holds_it() {
        let volume = |edit: fn(&mut Value)| -> PersistentVolume {
            let mut volume = json!({
                "metadata": {
                    "name": "pvc-1", "labels": {LOCAL_PATH_NODE: "n1"}, "deletionTimestamp": "2026-01-01T00:00:00Z",
                    "annotations": {PROVISIONED_BY: LOCAL_PATH_PROVISIONER}, "finalizers": [LOCAL_PATH_FINALIZER],
                },
                "spec": {"local": {"path": "/v/pvc-1"}, "persistentVolumeReclaimPolicy": "Delete"},
            });
            edit(&mut volume);
            serde_json::from_value(volume).unwrap()
        };
        type Change = fn(&mut Value);
        let table: [(&str, Change, Removal); 7] = [
            ("deleted", |_| {}, Removal::Data("pvc-1".to_owned())),
            ("kept", |v| v["spec"]["persistentVolumeReclaimPolicy"] = "Retain".into(), Removal::Object),
            ("elsewhere", |v| v["spec"]["local"]["path"] = "/etc".into(), Removal::Object),
            ("not deleted", |v| v["metadata"]["deletionTimestamp"] = Value::Null, Removal::Nothing),
            ("of another node", |v| v["metadata"]["labels"][LOCAL_PATH_NODE] = "n2".into(), Removal::Nothing),
            ("of another provisioner", |v| v["metadata"]["annotations"] = Value::Null, Removal::Nothing),
            (
                "bound",
                |v| v["metadata"]["finalizers"] = json!([LOCAL_PATH_FINALIZER, VOLUME_PROTECTION]),
                Removal::Nothing,
            ),
        ];
        for (told, edit, expected) in table {
            assert_eq!(plan(&volume(edit), "n1", Path::new("/v")), expected, "{told}");
        }
    }

    #[test]
    fn a_directory_is_made_once_for_guests() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("volumes");
        make_root(&root, None).unwrap();
        let path = make(&root, "pvc-1", None).unwrap();
        std::fs::write(path.join("data"), "kept").unwrap();
        assert_eq!(make(&root, "pvc-1", None).unwrap(), path);
        assert_eq!(std::fs::read_to_string(path.join("data")).unwrap(), "kept");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o777);
    }
}
