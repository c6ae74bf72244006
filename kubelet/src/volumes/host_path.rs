//! `hostPath` volumes: the type is checked, and made where the type says so.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Why a host path cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HostPathError {
    /// It is something else.
    #[error("hostPath type check failed: {path} is not a {wanted}")]
    WrongType {
        /// Path on the host.
        path: String,
        /// What was asked for.
        wanted: &'static str,
    },
    /// The type has no such name.
    #[error("{0:?} is an invalid volume type")]
    UnknownType(String),
    /// The cluster's own files.
    #[error("hostPath {0} leads to the cluster's own files")]
    Protected(String),
    /// A path with `..`.
    #[error("hostPath must not contain '..': {0:?}")]
    Escapes(String),
    /// The file system.
    #[error("hostPath {path}: {source}")]
    Io {
        /// Path on the host.
        path: String,
        /// Why.
        source: io::Error,
    },
}

/// What pods may have of the node's files.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Directories that no pod gets: the cluster's own. Without links in them.
    pub protected: Vec<PathBuf>,
    /// Below it are the volumes that this node made.
    pub local_volumes: PathBuf,
    /// What guests write to is given to this user; without one, guests run as the kubelet's own user.
    pub runtime_owner_uid: Option<u32>,
}

impl Rules {
    /// Whether a path without links leads to what is protected. What lies above it does too where the files' modes protect
    /// nothing, because guests are of the kubelet's own user.
    fn protects(&self, path: &Path) -> bool {
        self.protected.iter().any(|protected| {
            path.starts_with(protected) || (self.runtime_owner_uid.is_none() && protected.starts_with(path))
        })
    }
}

/// Checks (and for `*OrCreate` makes) a host path, and answers the path without links: a runtime follows none that it does not
/// trust.
///
/// # Errors
/// It is not what it should be, or the cluster's own.
pub fn set_up(path: &str, type_: &str, rules: &Rules) -> Result<PathBuf, HostPathError> {
    let refuse = || HostPathError::Protected(path.to_owned());
    // Before anything is made: what exists of the path tells where the rest would be.
    let mut existing = Path::new(path);
    while !existing.exists() {
        let Some(parent) = existing.parent() else { break };
        existing = parent;
    }
    if let (Ok(real), Ok(rest)) = (existing.canonicalize(), Path::new(path).strip_prefix(existing))
        && rules.protects(&real.join(rest))
    {
        return Err(refuse());
    }
    prepare(path, type_)?;
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path));
    if rules.protects(&real) { Err(refuse()) } else { Ok(real) }
}

/// Checks (and for `*OrCreate` makes) a host path.
pub fn prepare(path: &str, type_: &str) -> Result<(), HostPathError> {
    if path.split('/').any(|part| part == "..") {
        return Err(HostPathError::Escapes(path.to_owned()));
    }
    let io = |source| HostPathError::Io { path: path.to_owned(), source };
    let target = Path::new(path);
    let exists = target.exists();
    match type_ {
        "" => return Ok(()),
        "DirectoryOrCreate" if !exists => {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(target).map_err(io)?;
        }
        "FileOrCreate" if !exists => {
            fs::OpenOptions::new().create(true).append(true).mode(0o644).open(target).map_err(io)?;
        }
        _ => {}
    }
    let is = |check: fn(&fs::FileType) -> bool| fs::metadata(target).is_ok_and(|m| check(&m.file_type()));
    let (matches, wanted) = match type_ {
        "DirectoryOrCreate" | "Directory" => (is(fs::FileType::is_dir), "directory"),
        "FileOrCreate" | "File" => (is(fs::FileType::is_file), "file"),
        "Socket" => (is(FileTypeExt::is_socket), "socket file"),
        "CharDevice" => (is(FileTypeExt::is_char_device), "character device"),
        "BlockDevice" => (is(FileTypeExt::is_block_device), "block device"),
        other => return Err(HostPathError::UnknownType(other.to_owned())),
    };
    if matches { Ok(()) } else { Err(HostPathError::WrongType { path: path.to_owned(), wanted }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_s_own_files_are_no_volume() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("data/pki")).unwrap();
        std::fs::create_dir_all(root.join("other")).unwrap();
        std::os::unix::fs::symlink(root.join("data/pki"), root.join("link")).unwrap();
        let rules = |owner| Rules {
            protected: vec![root.join("data")],
            runtime_owner_uid: owner,
            ..Rules::default()
        };
        let seen = |name: &str, type_: &str, owner: Option<u32>| {
            set_up(root.join(name).to_str().unwrap(), type_, &rules(owner)).is_ok()
        };
        for owner in [None, Some(65532)] {
            for refused in ["data", "data/pki", "link", "data/new"] {
                assert!(!seen(refused, "DirectoryOrCreate", owner), "{refused}");
            }
            assert!(seen("other", "", owner));
            assert!(seen("made/deep", "DirectoryOrCreate", owner));
        }
        assert!(!root.join("data/new").exists());
        assert!(seen("", "", Some(65532)), "the files' modes protect what is below");
        assert!(!seen("", "", None));
    }

    #[test]
    fn types_are_checked_and_made_where_they_say_so() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        prepare(&path("d"), "DirectoryOrCreate").unwrap();
        prepare(&path("d"), "Directory").unwrap();
        prepare(&path("f"), "FileOrCreate").unwrap();
        prepare("/dev/null", "CharDevice").unwrap();
        prepare(&path("nothing"), "").unwrap();
        for (name, type_, text) in [
            ("f", "Directory", "is not a directory"),
            ("d", "File", "is not a file"),
            ("none", "Socket", "is not a socket file"),
        ] {
            assert!(prepare(&path(name), type_).unwrap_err().to_string().ends_with(text));
        }
        assert!(matches!(prepare("/a/../b", ""), Err(HostPathError::Escapes(_))));
    }
}
