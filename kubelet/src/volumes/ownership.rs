//! `fsGroup`: the group that a volume's files belong to.
//!
//! Source: Kubernetes' `pkg/volume/volume_linux.go` (`SetVolumeOwnership`).

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use k8s_openapi::api::core::v1::PodSecurityContext;

/// Directories deeper than this are not looked at: nobody makes them but to exhaust the stack.
const MAX_DEPTH: usize = 256;

/// When files are changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangePolicy {
    /// At every set-up.
    Always,
    /// When the volume's own directory has another group or mode.
    OnRootMismatch,
}

/// The group of a pod's volumes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FsGroup {
    /// Number of the group.
    pub gid: u32,
    /// When.
    pub policy: ChangePolicy,
}

impl FsGroup {
    /// Of a pod; `None` when it asks for none.
    pub fn of(security: Option<&PodSecurityContext>) -> Option<Self> {
        let security = security?;
        let policy = match security.fs_group_change_policy.as_deref() {
            Some("OnRootMismatch") => ChangePolicy::OnRootMismatch,
            _ => ChangePolicy::Always,
        };
        Some(Self { gid: u32::try_from(security.fs_group?).ok()?, policy })
    }
}

/// Whether pods write to a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// They do.
    ReadWrite,
    /// They only read.
    ReadOnly,
}

fn mode(is_directory: bool, access: Access) -> u32 {
    let files = if access == Access::ReadOnly { 0o440 } else { 0o660 };
    if is_directory { files | 0o110 | 0o2000 } else { files }
}

/// Gives everything in a volume to the group, readable (and writable) by it. Links are not followed; their own group is
/// changed. Blocking; idempotent.
pub fn apply(root: &Path, group: FsGroup, access: Access) -> io::Result<()> {
    if group.policy == ChangePolicy::OnRootMismatch {
        let metadata = fs::symlink_metadata(root)?;
        let wanted = mode(true, access);
        if metadata.gid() == group.gid && metadata.mode() & wanted == wanted {
            return Ok(());
        }
    }
    change(root, group.gid, access, 0)
}

/// The directory itself last: `OnRootMismatch` takes it for the sign that all is done.
fn change(path: &Path, gid: u32, access: Access, depth: usize) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        // Gone between the list and now.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    if metadata.is_dir() {
        if depth > MAX_DEPTH {
            return Err(io::Error::other("volume has too many levels of directories"));
        }
        for entry in fs::read_dir(path)? {
            change(&entry?.path(), gid, access, depth + 1)?;
        }
    }
    if metadata.gid() != gid {
        lchown(path, None, Some(gid))?;
    }
    let is_link = metadata.file_type().is_symlink();
    let wanted = metadata.mode() & 0o7777 | mode(metadata.is_dir(), access);
    if !is_link && metadata.mode() & 0o7777 != wanted {
        fs::set_permissions(path, fs::Permissions::from_mode(wanted))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_given_to_the_group_and_links_are_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (volume, outside) = (directory.path().join("v"), directory.path().join("outside"));
        fs::create_dir_all(volume.join("sub")).unwrap();
        fs::write(volume.join("sub/file"), "x").unwrap();
        fs::write(&outside, "x").unwrap();
        for path in [&volume.join("sub/file"), &outside] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        std::os::unix::fs::symlink(&outside, volume.join("link")).unwrap();
        // As an ordinary user only one's own group can be given.
        let is_root = rustix::process::geteuid().is_root();
        let gid = if is_root { 4711 } else { fs::metadata(&volume).unwrap().gid() };
        let group = FsGroup { gid, policy: ChangePolicy::OnRootMismatch };
        apply(&volume, group, Access::ReadWrite).unwrap();
        let seen = |path: &Path| {
            let metadata = fs::metadata(path).unwrap();
            (metadata.gid(), metadata.mode() & 0o7777)
        };
        assert_eq!(seen(&volume.join("sub/file")), (gid, 0o660));
        assert_eq!(seen(&volume).0, gid);
        assert_eq!(seen(&volume).1 & 0o2770, 0o2770);
        assert_eq!(seen(&outside).1, 0o600);
        if is_root {
            assert_eq!(seen(&outside).0, 0);
        }
        // Now the root matches: what was changed below stays as it is.
        fs::set_permissions(volume.join("sub/file"), fs::Permissions::from_mode(0o600)).unwrap();
        apply(&volume, group, Access::ReadWrite).unwrap();
        assert_eq!(seen(&volume.join("sub/file")).1, 0o600);
        apply(&volume, FsGroup { policy: ChangePolicy::Always, ..group }, Access::ReadOnly).unwrap();
        assert_eq!(seen(&volume.join("sub/file")).1, 0o640);
    }
}
