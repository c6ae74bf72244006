//! Setting a pod's volumes up, keeping them up to date, taking them down.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod, Volume};
use k8s_openapi::jiff::Timestamp;
use wherry_runtimes::files::remove_tree;
use wherry_runtimes::{Mount, MountPropagation};

use super::atomic_writer::{chown, write};
use super::claims::ClaimedVolumes;
use super::host_path::{self, HostPathError, Rules};
use super::mount_table::unmount_below;
use super::ownership::{self, Access, FsGroup};
use super::payload::{PayloadError, PayloadInput, volume_payload};
use super::persistent::{self, PersistentError};
use super::{sub_path, tmpfs};
use crate::kubelet::path_part;
use crate::pod::expansion::expand_strict;

/// Why a volume is not there.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// Its files.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// Its path on the host.
    #[error(transparent)]
    HostPath(#[from] HostPathError),
    /// A persistent one.
    #[error(transparent)]
    Persistent(#[from] PersistentError),
    /// A volume made from an image.
    #[error("image volumes are not supported by this node")]
    Image,
    /// An emptyDir that is neither on disk nor in memory.
    #[error("unknown storage medium {0:?}")]
    Medium(String),
    /// An emptyDir in memory on a node that is not root's.
    #[error("emptyDir in memory needs a node that runs as root")]
    NotRoot,
    /// A kind of volume that this node does not have.
    #[error("no volume plugin matched")]
    Unsupported,
    /// The file system.
    #[error("{path}: {source}")]
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A volume that could not be set up.
#[derive(Debug)]
pub struct FailedVolume {
    /// Its name.
    pub name: String,
    /// Why.
    pub error: VolumeError,
}

/// Host directories of a pod's volumes by name.
pub type VolumePaths = BTreeMap<String, PathBuf>;

/// What volumes are made from, beside their files.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The pod's directory.
    pub pod_dir: &'a Path,
    /// The volumes that its claims are bound to.
    pub claimed: &'a ClaimedVolumes,
    /// What pods may have of the node's files.
    pub rules: &'a Rules,
}

/// Where an emptyDir is.
pub fn empty_dir_path(pod_dir: &Path, volume: &str) -> PathBuf {
    pod_dir.join("volumes/kubernetes.io~empty-dir").join(path_part(volume))
}

/// Sets all volumes of a pod up, or brings them up to date. Blocking; idempotent.
pub fn set_up(
    place: Place<'_>,
    input: PayloadInput<'_>,
    now: Timestamp,
) -> Result<VolumePaths, FailedVolume> {
    let volumes = input.pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    volumes
        .iter()
        .map(|volume| match set_up_one(place, input, volume, now) {
            Ok(path) => Ok((volume.name.clone(), path)),
            Err(error) => Err(FailedVolume { name: volume.name.clone(), error }),
        })
        .collect()
}

fn set_up_one(
    place: Place<'_>,
    input: PayloadInput<'_>,
    volume: &Volume,
    now: Timestamp,
) -> Result<PathBuf, VolumeError> {
    let Place { pod_dir, claimed, rules } = place;
    let owner = rules.runtime_owner_uid;
    if let Some(source) = &volume.host_path {
        return Ok(host_path::set_up(&source.path, source.type_.as_deref().unwrap_or_default(), rules)?);
    }
    if volume.image.is_some() {
        return Err(VolumeError::Image);
    }
    if volume.persistent_volume_claim.is_some() || volume.ephemeral.is_some() {
        let persistent = claimed.get(&volume.name).ok_or(VolumeError::Unsupported)?;
        return Ok(persistent::set_up(persistent, rules)?);
    }
    let medium = volume.empty_dir.as_ref().and_then(|source| source.medium.as_deref()).unwrap_or_default();
    if !matches!(medium, "" | "Memory") {
        return Err(VolumeError::Medium(medium.to_owned()));
    }
    let (plugin, writer) = if volume.empty_dir.is_some() {
        ("kubernetes.io~empty-dir", Writer::Guest)
    } else if volume.config_map.is_some() {
        ("kubernetes.io~configmap", Writer::Kubelet)
    } else if volume.secret.is_some() {
        ("kubernetes.io~secret", Writer::Kubelet)
    } else if volume.downward_api.is_some() {
        ("kubernetes.io~downward-api", Writer::Kubelet)
    } else if volume.projected.is_some() {
        ("kubernetes.io~projected", Writer::Kubelet)
    } else {
        return Err(VolumeError::Unsupported);
    };
    let path = pod_dir.join("volumes").join(plugin).join(path_part(&volume.name));
    let mut payload = volume_payload(input, volume)?;
    let security = input.pod.spec.as_ref().and_then(|s| s.security_context.as_ref());
    let group = FsGroup::of(security);
    if let (Some(_), Some(payload)) = (group, payload.as_mut()) {
        // Before they are written: files that have another mode than the payload's are written again.
        payload.values_mut().for_each(|file| file.mode |= 0o440);
    }
    let io = |source| VolumeError::Io { path: path.clone(), source };
    make_directory(pod_dir, &path, writer, owner).map_err(io)?;
    if medium == "Memory" {
        let size_bytes = tmpfs::size_bytes(input.pod, volume, &input.facts.allocatable);
        tmpfs::set_up(&path, size_bytes).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => VolumeError::NotRoot,
            _ => io(error),
        })?;
        chown(&path, owner).map_err(io)?;
    }
    if let Some(payload) = payload {
        write(&path, &payload, owner, now).map_err(io)?;
    }
    if let Some(group) = group {
        let access = if writer == Writer::Guest { Access::ReadWrite } else { Access::ReadOnly };
        ownership::apply(&path, group, access).map_err(io)?;
    }
    Ok(path)
}

/// Who writes into a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// The kubelet alone: nobody else can put a link where it writes as root.
    Kubelet,
    /// Guests, as the runtime's user.
    Guest,
}

/// Makes a directory below the pod's. The runtime's user (`owner`) may pass the pod's directory, which all others may not,
/// because Secrets are below; only what guests write to is given to it.
pub fn make_directory(pod_dir: &Path, path: &Path, writer: Writer, owner: Option<u32>) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)?;
    fs::set_permissions(pod_dir, fs::Permissions::from_mode(if owner.is_some() { 0o750 } else { 0o700 }))?;
    lchown(pod_dir, None, owner)?;
    for directory in path.ancestors().take_while(|directory| *directory != pod_dir) {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    }
    if writer == Writer::Guest {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
        chown(path, owner)?;
    }
    Ok(())
}

/// How a runtime gets a path inside a volume.
#[derive(Debug, Clone, Copy)]
pub enum SubPaths<'a> {
    /// By its path without links: the runtime follows none itself.
    ByPath,
    /// As a mount of its own, below this pod's directory: the runtime follows links, and a guest could put one there.
    Mounted(&'a Path),
}

/// A container's mounts. Blocking.
///
/// # Errors
/// The text of a `CreateContainerConfigError`.
pub fn container_mounts(
    pod: &Pod,
    container: &Container,
    paths: &VolumePaths,
    environment: &BTreeMap<String, String>,
    owner: Option<u32>,
    sub_paths: SubPaths<'_>,
) -> Result<Vec<Mount>, String> {
    let volumes = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
    if let Some(device) = container.volume_devices.iter().flatten().next() {
        return Err(format!("volume {:?}: block volumes are not supported by this node", device.name));
    }
    let mut mounts = Vec::new();
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let Some(path) = paths.get(&mount.name) else {
            return Err(format!(
                "cannot find volume {:?} to mount into container {:?}",
                mount.name, container.name
            ));
        };
        let sub_path = match (&mount.sub_path_expr, &mount.sub_path) {
            (Some(expression), _) if !expression.is_empty() => expand_strict(expression, environment)
                .map_err(|name| {
                    format!("missing value for {name:?} in subPathExpr of volume mount {:?}", mount.name)
                })?,
            (_, sub_path) => sub_path.clone().unwrap_or_default(),
        };
        let host_path = if sub_path.is_empty() {
            path.clone()
        } else {
            let prepared = match sub_paths {
                SubPaths::ByPath => sub_path::resolve(path, &sub_path, owner),
                SubPaths::Mounted(pod_dir) => {
                    let target = sub_path_mount(pod_dir, &mount.name, &container.name, index);
                    sub_path::mount(path, &sub_path, owner, &target).map(|()| target)
                }
            };
            prepared.map_err(|error| {
                format!("failed to prepare subPath for volumeMount {:?}: {error}", mount.name)
            })?
        };
        let is_of_files = volumes.iter().any(|v| {
            v.name == mount.name
                && (v.config_map.is_some()
                    || v.secret.is_some()
                    || v.downward_api.is_some()
                    || v.projected.is_some())
        });
        let is_claimed_read_only = volumes.iter().any(|v| {
            let claim = v.persistent_volume_claim.as_ref();
            v.name == mount.name && claim.is_some_and(|claim| claim.read_only == Some(true))
        });
        mounts.push(Mount {
            container_path: mount.mount_path.clone(),
            host_path: host_path.to_string_lossy().into_owned(),
            readonly: mount.read_only.unwrap_or(false) || is_of_files || is_claimed_read_only,
            propagation: match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => MountPropagation::HostToContainer,
                Some("Bidirectional") => MountPropagation::Bidirectional,
                _ => MountPropagation::Private,
            },
            // `IfPossible` is not, where the runtime says nothing of it: the mount is read-only all the same.
            recursive_read_only: mount.recursive_read_only.as_deref() == Some("Enabled"),
            ..Mount::default()
        });
    }
    Ok(mounts)
}

/// Where a path inside a volume is mounted for a container.
fn sub_path_mount(pod_dir: &Path, volume: &str, container: &str, index: usize) -> PathBuf {
    let directory = pod_dir.join("volume-subpaths").join(path_part(volume)).join(path_part(container));
    directory.join(index.to_string())
}

/// Unmounts what is mounted below a pod's directory and removes it. Blocking; idempotent.
pub fn tear_down(pod_dir: &Path) -> io::Result<()> {
    match pod_dir.canonicalize() {
        Ok(real) => unmount_below(&real)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    remove_tree(pod_dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn only_what_guests_write_to_is_given_to_the_runtime() {
        let directory = tempfile::tempdir().unwrap();
        let pod = directory.path().join("pods/uid");
        let is_root = rustix::process::geteuid().is_root();
        let owner = is_root.then_some(65532);
        let (secret, scratch) = (pod.join("volumes/secret/s"), pod.join("volumes/empty/e"));
        make_directory(&pod, &secret, Writer::Kubelet, owner).unwrap();
        make_directory(&pod, &scratch, Writer::Guest, owner).unwrap();
        let seen = |path: &Path| {
            let metadata = fs::metadata(path).unwrap();
            (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
        };
        if is_root {
            assert_eq!(seen(&pod), (0, 65532, 0o750));
            assert_eq!((seen(&secret).0, seen(&secret).2), (0, 0o755));
            assert_eq!(seen(&scratch), (65532, 65532, 0o777));
        } else {
            assert_eq!(seen(&pod).2, 0o700);
            assert_eq!(seen(&scratch).2, 0o777);
        }
        tear_down(&pod).unwrap();
        assert!(!pod.exists());
    }
}
