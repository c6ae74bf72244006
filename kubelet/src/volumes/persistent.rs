//! Persistent volumes that this node can mount: of type `local` and `hostPath`.

use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::PersistentVolume;

use super::host_path::{self, HostPathError, Rules};
use super::local_path;

/// Why a persistent volume cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum PersistentError {
    /// It is a device, which containers here do not get.
    #[error("block volumes are not supported by this node")]
    Block,
    /// It is to be mounted in a way that a directory of the node is not.
    #[error("mount options are not supported for volumes of this type: {0}")]
    MountOptions(String),
    /// It is somewhere else than on a node.
    #[error("no volume plugin matched")]
    Unsupported,
    /// The directory of a local volume is not there.
    #[error("path {0:?} does not exist")]
    Missing(String),
    /// The directory of a local volume is something else.
    #[error("path {0:?} is not a directory")]
    NotADirectory(String),
    /// The path.
    #[error(transparent)]
    HostPath(#[from] HostPathError),
    /// A directory of the node's own could not be made.
    #[error("local volume {name:?}: {source}")]
    Make {
        /// The volume.
        name: String,
        /// Why.
        source: std::io::Error,
    },
}

/// The directory of a volume, made if it is the node's to make. Blocking; idempotent.
pub fn set_up(volume: &PersistentVolume, rules: &Rules) -> Result<PathBuf, PersistentError> {
    let spec = volume.spec.clone().unwrap_or_default();
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(PersistentError::Block);
    }
    if let Some(options) = spec.mount_options.filter(|options| !options.is_empty()) {
        return Err(PersistentError::MountOptions(options.join(",")));
    }
    if let Some(source) = spec.host_path {
        let type_ = source.type_.as_deref().unwrap_or_default();
        // Source: Kubernetes makes the directory of a persistent volume of this type, and of no other.
        let type_ = if type_.is_empty() { "DirectoryOrCreate" } else { type_ };
        return Ok(host_path::set_up(&source.path, type_, rules)?);
    }
    let source = spec.local.ok_or(PersistentError::Unsupported)?;
    if let Some(name) = local_path::own_name(Path::new(&source.path), &rules.local_volumes) {
        return local_path::make(&rules.local_volumes, name, rules.runtime_owner_uid)
            .map_err(|error| PersistentError::Make { name: name.to_owned(), source: error });
    }
    let path = host_path::set_up(&source.path, "", rules)?;
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.is_dir() => Ok(path),
        Ok(_) => Err(PersistentError::NotADirectory(source.path)),
        Err(_) => Err(PersistentError::Missing(source.path)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn volume(spec: Value) -> PersistentVolume {
        serde_json::from_value(json!({"metadata": {"name": "v"}, "spec": spec})).unwrap()
    }

    #[test]
    fn only_directories_of_the_node_are_mounted() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let rules = Rules { local_volumes: root.join("volumes"), ..Rules::default() };
        std::fs::create_dir(&rules.local_volumes).unwrap();
        std::fs::create_dir(root.join("disk")).unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        let at = |name: &str| root.join(name).to_str().unwrap().to_owned();
        let seen = |spec: Value| set_up(&volume(spec), &rules).map_err(|error| error.to_string());
        assert_eq!(seen(json!({"local": {"path": at("disk")}})), Ok(root.join("disk")));
        assert_eq!(seen(json!({"local": {"path": at("volumes/pvc-1")}})), Ok(root.join("volumes/pvc-1")));
        assert_eq!(seen(json!({"hostPath": {"path": at("made")}})), Ok(root.join("made")));
        let missing = at("none");
        assert_eq!(
            seen(json!({"local": {"path": missing}})),
            Err(format!("path {missing:?} does not exist"))
        );
        let file = at("file");
        assert_eq!(seen(json!({"local": {"path": file}})), Err(format!("path {file:?} is not a directory")));
        let block = json!({"volumeMode": "Block", "local": {"path": "/dev/sda"}});
        assert_eq!(seen(block), Err("block volumes are not supported by this node".to_owned()));
        assert_eq!(
            seen(json!({"nfs": {"server": "s", "path": "/"}})),
            Err("no volume plugin matched".to_owned())
        );
        let options = json!({"mountOptions": ["ro"], "local": {"path": at("disk")}});
        assert!(seen(options).unwrap_err().starts_with("mount options"));
    }
}
