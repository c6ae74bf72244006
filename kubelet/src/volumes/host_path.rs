//! `hostPath` volumes: the type is checked, and made where the type says so.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

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
