//! Mounts of a container as preopened directories of its guest.
//!
//! WASI has directories only. A mount of a single file (`/etc/hosts`, a termination log, a `subPath`) becomes a directory
//! of the container's own that holds a hard link to it, or a copy where a link is not possible; a copy that may be written
//! is copied back when the guest has ended.
//!
//! A guest may put a symbolic link where a mount of another container (or of its own next instance) begins, because both can
//! be in one volume. So a mount is a path without links: links are followed once, when the container is made, and only
//! those of root; every instance opens the path anew, and a link in it then is an error.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, linkat, openat2};
use rustix::io::Errno;
use wasmtime_wasi::FsPerms;
use wherry_runtimes::files::{Held, open_file, open_file_emptied};
use wherry_runtimes::{Error, Mount};

/// Most links followed. Source: Linux gives up (ELOOP) after 40.
const MAX_LINKS: usize = 40;

/// A directory that a guest gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GuestMount {
    pub(crate) host: PathBuf,
    pub(crate) guest: String,
    pub(crate) readonly: bool,
}

impl GuestMount {
    pub(crate) fn permissions(&self) -> FsPerms {
        if self.readonly { FsPerms::ReadOnly } else { FsPerms::ReadWrite }
    }

    /// The directory for one instance; fails when a link has come in its way.
    pub(crate) fn open(&self) -> io::Result<Held> {
        Held::directory(&self.host)
    }
}

/// All mounts of one container.
#[derive(Clone, Debug, Default)]
pub(crate) struct Mounts {
    pub(crate) directories: Vec<GuestMount>,
    /// From our copy to the host's file.
    copied: Vec<(PathBuf, PathBuf)>,
}

impl Mounts {
    /// Looks at what the mounts are, and makes what single files need below `scratch`. Blocking.
    pub(crate) fn prepare(mounts: &[Mount], scratch: &Path) -> Result<Self, Error> {
        let mut prepared = Self::default();
        let mut files: BTreeMap<String, Vec<SingleFile>> = BTreeMap::new();
        for mount in mounts {
            if mount.image.is_some() {
                return Err(Error::Unimplemented(
                    "image volumes are not supported by this runtime".to_owned(),
                ));
            }
            let guest = clean(&mount.container_path).ok_or_else(|| {
                Error::InvalidArgument(format!("mount path {:?} is not absolute", mount.container_path))
            })?;
            let (host, metadata) = without_links(Path::new(&mount.host_path))
                .and_then(|host| std::fs::symlink_metadata(&host).map(|metadata| (host, metadata)))
                .map_err(|error| Error::InvalidArgument(format!("mount {}: {error}", mount.host_path)))?;
            if metadata.is_dir() {
                prepared.directories.push(GuestMount { host, guest, readonly: mount.readonly });
            } else if metadata.is_file() {
                let (parent, name) = guest.rsplit_once('/').unwrap_or(("", &guest));
                let parent = if parent.is_empty() { "/" } else { parent };
                let file = SingleFile { host, name: name.to_owned(), readonly: mount.readonly };
                files.entry(parent.to_owned()).or_default().push(file);
            }
            // Sockets and devices have no meaning in WASI; a guest does not see them.
        }
        for (number, (parent, files)) in files.into_iter().enumerate() {
            let directory = scratch.join(format!("files-{number}"));
            prepared.add_files(&directory, &parent, &files)?;
        }
        Ok(prepared)
    }

    fn add_files(&mut self, directory: &Path, parent: &str, files: &[SingleFile]) -> Result<(), Error> {
        let failed = |error: io::Error| Error::Internal(format!("mount files at {parent}: {error}"));
        // For this user alone: copies of Secrets are in there.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let directory = directory.canonicalize().map_err(failed)?;
        for SingleFile { host, name, readonly } in files {
            let to = directory.join(name);
            // A read-only file is always copied: a link would let the guest write to the host's file, because other
            // files of the same directory may be writable.
            if *readonly || link(host, &to).is_err() {
                copy_new(host, &to).map_err(failed)?;
                if !readonly {
                    self.copied.push((to, host.clone()));
                }
            }
        }
        self.directories.push(GuestMount {
            host: directory,
            guest: parent.to_owned(),
            readonly: files.iter().all(|file| file.readonly),
        });
        Ok(())
    }

    /// Brings what the guest wrote into copies to the host's files.
    pub(crate) fn copy_back(&self) {
        for (ours, theirs) in &self.copied {
            // The guest may have put anything in the place of our copy.
            let copied =
                open_file(ours).and_then(|mut ours| io::copy(&mut ours, &mut open_file_emptied(theirs)?));
            if let Err(error) = copied {
                tracing::warn!(path = %theirs.display(), "cannot write a mounted file back: {error}");
            }
        }
    }
}

/// A mount of one file.
struct SingleFile {
    host: PathBuf,
    name: String,
    readonly: bool,
}

/// A hard link to exactly the file that the path leads to without links.
fn link(from: &Path, to: &Path) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let held = openat2(CWD, from, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?;
    let name = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&held));
    Ok(linkat(CWD, name, CWD, to, AtFlags::SYMLINK_FOLLOW)?)
}

fn copy_new(from: &Path, to: &Path) -> io::Result<()> {
    let mut from = open_file(from)?;
    let permissions = from.metadata()?.permissions();
    let mut to = std::fs::OpenOptions::new().write(true).create_new(true).open(to)?;
    io::copy(&mut from, &mut to)?;
    to.set_permissions(permissions)
}

/// The path with the links in it followed, which must be root's: a guest's are those of this runtime's user.
fn without_links(path: &Path) -> io::Result<PathBuf> {
    match openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Ok(_) => return Ok(path.to_owned()),
        Err(Errno::LOOP) => {}
        Err(error) => return Err(error.into()),
    }
    let parts = |path: &Path| -> Vec<OsString> {
        path.components().rev().map(|part| part.as_os_str().to_owned()).collect()
    };
    let (mut real, mut rest, mut links) = (PathBuf::from("/"), parts(path), 0);
    while let Some(part) = rest.pop() {
        if part == OsStr::new("..") {
            real.pop();
            continue;
        }
        if matches!(Path::new(&part).components().next(), Some(Component::RootDir)) {
            real = PathBuf::from("/");
            continue;
        }
        let at = real.join(&part);
        let metadata = std::fs::symlink_metadata(&at)?;
        if !metadata.is_symlink() {
            real = at;
            continue;
        }
        links += 1;
        if metadata.uid() != 0 || links > MAX_LINKS {
            let text = format!("{} is a symbolic link that is not followed", at.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        rest.extend(parts(&std::fs::read_link(&at)?));
    }
    Ok(real)
}

/// An absolute path without doubled slashes, `.` and `..`.
fn clean(path: &str) -> Option<String> {
    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
        return None;
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    Some(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_given_as_they_are_and_files_in_a_directory_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let (volume, scratch) = (dir.path().join("volume"), dir.path().join("scratch"));
        std::fs::create_dir_all(&volume).unwrap();
        let (hosts, log) = (dir.path().join("hosts"), dir.path().join("log"));
        std::fs::write(&hosts, "127.0.0.1 localhost").unwrap();
        std::fs::write(&log, "").unwrap();
        let mount = |host: &Path, container: &str, readonly: bool| Mount {
            host_path: host.display().to_string(),
            container_path: container.to_owned(),
            readonly,
            ..Default::default()
        };
        let mounts = Mounts::prepare(
            &[
                mount(&volume, "/data/", true),
                mount(&hosts, "/etc/hosts", true),
                mount(&log, "/dev/termination-log", false),
            ],
            &scratch,
        )
        .unwrap();
        let seen: Vec<(&str, bool)> =
            mounts.directories.iter().map(|m| (m.guest.as_str(), m.readonly)).collect();
        assert_eq!(seen, [("/data", true), ("/dev", false), ("/etc", true)]);
        std::fs::write(mounts.directories[1].host.join("termination-log"), "why").unwrap();
        mounts.copy_back();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "why");
    }

    #[test]
    fn mounts_that_make_no_sense_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        for (host, container) in [("/nonexistent/x", "/x"), ("/tmp", "relative"), ("/tmp", "/a/../b")] {
            let mount = Mount {
                host_path: host.to_owned(),
                container_path: container.to_owned(),
                ..Default::default()
            };
            assert!(Mounts::prepare(&[mount], dir.path()).is_err(), "{host} {container}");
        }
    }

    #[test]
    fn a_link_in_the_place_of_a_mount_is_not_followed_by_later_instances() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (volume, secret) = (root.join("volume"), root.join("secret"));
        std::fs::create_dir_all(volume.join("part")).unwrap();
        std::fs::create_dir(&secret).unwrap();
        std::fs::write(secret.join("token"), "secret").unwrap();
        std::fs::write(volume.join("file"), "").unwrap();
        let mount = |host: PathBuf, container: &str| Mount {
            host_path: host.display().to_string(),
            container_path: container.to_owned(),
            ..Default::default()
        };
        let mounts = [mount(volume.join("part"), "/part")];
        let mounts = Mounts::prepare(&mounts, &root.join("scratch")).unwrap();
        mounts.directories[0].open().unwrap();
        std::fs::remove_dir(volume.join("part")).unwrap();
        std::os::unix::fs::symlink("../secret", volume.join("part")).unwrap();
        assert!(mounts.directories[0].open().is_err());

        // What the guest puts in the place of our copy is not read either.
        let copy = root.join("copy");
        std::os::unix::fs::symlink(secret.join("token"), &copy).unwrap();
        let mounts = Mounts { directories: Vec::new(), copied: vec![(copy, volume.join("file"))] };
        mounts.copy_back();
        assert_eq!(std::fs::read_to_string(volume.join("file")).unwrap(), "");
    }

    #[test]
    fn only_links_of_root_are_followed_when_a_container_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        let link = root.join("link");
        std::os::unix::fs::symlink("real/../real", &link).unwrap();
        if rustix::process::geteuid().is_root() {
            assert_eq!(without_links(&link).unwrap(), root.join("real"));
            std::os::unix::fs::lchown(&link, Some(65532), None).unwrap();
        }
        assert!(without_links(&link).is_err());
        std::os::unix::fs::symlink("loop", root.join("loop")).unwrap();
        assert!(without_links(&root.join("loop")).is_err());
        assert_eq!(without_links(&root.join("real")).unwrap(), root.join("real"));
    }
}
