//! `subPath`: a path inside a volume, found without ever leaving it.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, open, openat2};
use rustix::io::Errno;

/// Opens `sub_path` below `volume`, making directories that are missing, and answers the real path of what it is.
///
/// Symbolic links are resolved as if the volume were the root of the file system, so that none leads out of it.
pub fn resolve(volume: &Path, sub_path: &str, owner: Option<u32>) -> io::Result<PathBuf> {
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
    let found = match openat2(&root, sub_path, flags, Mode::empty(), inside) {
        Ok(found) => found,
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
            at
        }
        Err(error) => return Err(error.into()),
    };
    let link = format!("/proc/self/fd/{}", rustix::fd::AsRawFd::as_raw_fd(&found));
    let path = rustix::fs::readlinkat(CWD, link, Vec::new())?;
    Ok(PathBuf::from(std::ffi::OsString::from(
        path.into_string().map_err(|_| refused("subPath is not valid UTF-8"))?,
    )))
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
