//! The Unix socket of an endpoint.

use std::fs::Permissions;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use crate::Error;

/// The path of `unix:///path` or of a plain absolute path.
pub(crate) fn path_of(endpoint: &str) -> Result<PathBuf, Error> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if !path.starts_with('/') {
        return Err(Error::Endpoint(endpoint.to_owned()));
    }
    Ok(PathBuf::from(path))
}

/// Listens at `path`, for the owner only. A socket that nobody answers is left over from a process that died, and is
/// removed; one that somebody answers is an error.
pub(crate) fn listen(path: &Path) -> Result<UnixListener, Error> {
    let failed = |source| Error::Listen { path: path.to_owned(), source };
    match std::fs::symlink_metadata(path) {
        Ok(there) if !there.file_type().is_socket() => return Err(Error::NotASocket(path.to_owned())),
        Ok(_) if BlockingStream::connect(path).is_ok() => return Err(Error::InUse(path.to_owned())),
        Ok(_) => std::fs::remove_file(path).map_err(failed)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    // Bound under another name and then renamed, so that nobody can connect before the mode is right.
    let hidden = path.with_extension(format!("new-{}", std::process::id()));
    let _ = std::fs::remove_file(&hidden);
    let listener = UnixListener::bind(&hidden).map_err(failed)?;
    std::fs::set_permissions(&hidden, Permissions::from_mode(0o600)).map_err(failed)?;
    std::fs::rename(&hidden, path).map_err(failed)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_unix_urls_or_absolute_paths() {
        assert_eq!(path_of("unix:///run/x.sock").unwrap(), Path::new("/run/x.sock"));
        assert_eq!(path_of("/run/x.sock").unwrap(), Path::new("/run/x.sock"));
        for bad in ["", "run/x.sock", "unix://run/x.sock", "tcp://127.0.0.1:1"] {
            assert!(matches!(path_of(bad), Err(Error::Endpoint(_))), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_socket_left_over_is_replaced_and_one_in_use_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        drop(listen(&path).unwrap());
        let listener = listen(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(listen(&path), Err(Error::InUse(_))));
        drop(listener);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        assert!(matches!(listen(&path), Err(Error::NotASocket(_))));
    }
}
