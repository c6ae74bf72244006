//! `subPath`: a path inside a volume, found without ever leaving it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::mount::MsFlags;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, open, openat2};
use rustix::io::Errno;

use super::mount_table::unmount_below;

/// Opens `sub_path` below `volume`, making directories that are missing, and answers the real path of what it is. A guest may
/// put a link there afterwards: who uses the path must follow none.
pub fn resolve(volume: &Path, sub_path: &str, owner: Option<u32>) -> io::Result<PathBuf> {
    let found = find(volume, sub_path, owner)?;
    let path = rustix::fs::readlinkat(CWD, link_to(&found), Vec::new())?;
    Ok(PathBuf::from(std::ffi::OsString::from_vec(path.into_bytes())))
}

/// Mounts exactly what `sub_path` is below `volume` at `target`, whatever becomes of the names afterwards. Needs root. What was
/// mounted there before is replaced.
pub fn mount(volume: &Path, sub_path: &str, owner: Option<u32>, target: &Path) -> io::Result<()> {
    let found = find(volume, sub_path, owner)?;
    let is_directory = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode)
        == rustix::fs::FileType::Directory;
    let parent = target.parent().ok_or(io::ErrorKind::InvalidInput)?;
    std::fs::DirBuilder::new().recursive(true).mode(0o750).create(parent)?;
    unmount_below(target)?;
    match std::fs::symlink_metadata(target) {
        Ok(present) if present.is_dir() == is_directory => {}
        Ok(present) if present.is_dir() => std::fs::remove_dir(target)?,
        Ok(_) => std::fs::remove_file(target)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if is_directory {
        std::fs::DirBuilder::new().recursive(true).mode(0o750).create(target)?;
    } else {
        std::fs::OpenOptions::new().create(true).append(true).open(target)?;
    }
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    Ok(nix::mount::mount(Some(link_to(&found).as_str()), target, None::<&str>, flags, None::<&str>)?)
}

/// The kernel's own name of an open file.
fn link_to(found: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", rustix::fd::AsRawFd::as_raw_fd(found))
}

/// Opens `sub_path` below `volume`, making directories that are missing.
///
/// Symbolic links are resolved as if the volume were the root of the file system, so that none leads out of it.
fn find(volume: &Path, sub_path: &str, owner: Option<u32>) -> io::Result<OwnedFd> {
    let refused = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, text.to_owned());
    if sub_path.starts_with('/') {
        return Err(refused("subPath must not be an absolute path"));
    }
    if sub_path.split('/').any(|part| part == "..") {
        return Err(refused("subPath must not contain '..'"));
    }
    let root = open(volume, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match openat2(&root, sub_path, flags, Mode::empty(), inside) {
        Ok(found) => Ok(found),
        Err(Errno::NOENT) => {
            let mut at = openat2(&root, ".", flags, Mode::empty(), inside)?;
            let mut walked = String::new();
            for part in sub_path.split('/').filter(|part| !part.is_empty() && *part != ".") {
                match mkdirat(&at, part, Mode::from_raw_mode(0o755)) {
                    Ok(()) => {
                        if let Some(uid) = owner {
                            let id = Some(rustix::fs::Uid::from_raw(uid));
                            let group = Some(rustix::fs::Gid::from_raw(uid));
                            rustix::fs::chownat(&at, part, id, group, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
                        }
                    }
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                walked.push('/');
                walked.push_str(part);
                at = openat2(&root, walked.as_str(), flags, Mode::empty(), inside)?;
            }
            Ok(at)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_never_lead_out_of_the_volume() {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        let volume = directory.path().join("volume");
        std::fs::create_dir_all(&outside).unwrap();
        std::fs::create_dir_all(volume.join("in")).unwrap();
        std::fs::write(outside.join("secret"), "x").unwrap();
        symlink("../outside", volume.join("out")).unwrap();
        symlink("/in", volume.join("absolute")).unwrap();
        let volume = volume.canonicalize().unwrap();

        assert_eq!(resolve(&volume, "in", None).unwrap(), volume.join("in"));
        assert_eq!(resolve(&volume, "absolute", None).unwrap(), volume.join("in"));
        assert_eq!(resolve(&volume, "a/b", None).unwrap(), volume.join("a/b"));
        assert!(volume.join("a/b").is_dir());
        let through_link = resolve(&volume, "out/secret", None);
        assert!(through_link.is_err() || through_link.unwrap().starts_with(&volume));
        assert!(resolve(&volume, "../outside", None).is_err());
        assert!(resolve(&volume, "/etc", None).is_err());
    }
}
