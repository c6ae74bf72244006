//! Mounts of a container as preopened directories of its guest.
//!
//! WASI has directories only. A mount of a single file (`/etc/hosts`, a termination log, a `subPath`) becomes a directory
//! of the container's own that holds a hard link to it, or a copy where a link is not possible; a copy that may be written
//! is copied back when the guest has ended.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use wasmtime_wasi::FsPerms;
use wherry_runtimes::{Error, Mount};

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
        let mut files: BTreeMap<String, Vec<(&Mount, String)>> = BTreeMap::new();
        for mount in mounts {
            if mount.image.is_some() {
                return Err(Error::Unimplemented(
                    "image volumes are not supported by this runtime".to_owned(),
                ));
            }
            let guest = clean(&mount.container_path).ok_or_else(|| {
                Error::InvalidArgument(format!("mount path {:?} is not absolute", mount.container_path))
            })?;
            let metadata = std::fs::metadata(&mount.host_path)
                .map_err(|error| Error::InvalidArgument(format!("mount {}: {error}", mount.host_path)))?;
            if metadata.is_dir() {
                prepared.directories.push(GuestMount {
                    host: PathBuf::from(&mount.host_path),
                    guest,
                    readonly: mount.readonly,
                });
            } else if metadata.is_file() {
                let (parent, name) = guest.rsplit_once('/').unwrap_or(("", &guest));
                let parent = if parent.is_empty() { "/" } else { parent };
                files.entry(parent.to_owned()).or_default().push((mount, name.to_owned()));
            }
            // Sockets and devices have no meaning in WASI; a guest does not see them.
        }
        for (number, (parent, files)) in files.into_iter().enumerate() {
            let directory = scratch.join(format!("files-{number}"));
            prepared.add_files(&directory, &parent, &files)?;
        }
        Ok(prepared)
    }

    fn add_files(&mut self, directory: &Path, parent: &str, files: &[(&Mount, String)]) -> Result<(), Error> {
        let failed = |error: std::io::Error| Error::Internal(format!("mount files at {parent}: {error}"));
        std::fs::create_dir_all(directory).map_err(failed)?;
        for (mount, name) in files {
            let (from, to) = (PathBuf::from(&mount.host_path), directory.join(name));
            // A read-only file is always copied: a link would let the guest write to the host's file, because other
            // files of the same directory may be writable.
            let linked = !mount.readonly && std::fs::hard_link(&from, &to).is_ok();
            if !linked {
                std::fs::copy(&from, &to).map_err(failed)?;
                if !mount.readonly {
                    self.copied.push((to, from));
                }
            }
        }
        self.directories.push(GuestMount {
            host: directory.to_owned(),
            guest: parent.to_owned(),
            readonly: files.iter().all(|(mount, _)| mount.readonly),
        });
        Ok(())
    }

    /// Brings what the guest wrote into copies to the host's files.
    pub(crate) fn copy_back(&self) {
        for (ours, theirs) in &self.copied {
            if let Err(error) = std::fs::copy(ours, theirs) {
                tracing::warn!(path = %theirs.display(), "cannot write a mounted file back: {error}");
            }
        }
    }
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
}
