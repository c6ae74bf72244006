//! Compiled code on disk, one file per image content and engine configuration; and what is mapped at present.
//!
//! A file is used only when it belongs to this user, nobody else may write it or its directory, and its checksum fits
//! (checked once per process, when it is mapped). Anything else is compiled anew.

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest, Sha256};
use tokio::sync::OnceCell;

use super::program::{Linkers, Program, compile};
use super::{CodeError, Engines};

/// Compiles each content once, whoever asks and however many.
pub(crate) struct CodeCache {
    engines: Arc<Engines>,
    linkers: Linkers,
    directory: PathBuf,
    mapped: Mutex<HashMap<String, Arc<OnceCell<Arc<Program>>>>>,
}

impl CodeCache {
    /// A cache below `root`, which is made for this user alone.
    pub(crate) fn open(engines: Arc<Engines>, root: &Path) -> Result<Self, CodeError> {
        let linkers = Linkers::new(&engines)?;
        let directory = root.join(engines.compatibility());
        let failed = |error: std::io::Error| CodeError::Cache {
            action: "make",
            path: directory.display().to_string(),
            why: error.to_string(),
        };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(failed)?;
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
        // Code of other versions of the engine is of no use to anybody.
        for entry in std::fs::read_dir(root).map_err(failed)?.filter_map(Result::ok) {
            if entry.path() != directory {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        Ok(Self { engines, linkers, directory, mapped: Mutex::default() })
    }

    /// The program of a WebAssembly file: mapped, or compiled first. Callers for the same digest share the work.
    pub(crate) async fn program(
        self: &Arc<Self>,
        digest: &str,
        wasm: PathBuf,
    ) -> Result<Arc<Program>, CodeError> {
        let cell = {
            let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(mapped.entry(digest.to_owned()).or_default())
        };
        let (cache, key) = (Arc::clone(self), digest.to_owned());
        let program = cell
            .get_or_try_init(|| async move {
                let built = tokio::task::spawn_blocking(move || cache.build(&key, &wasm)).await;
                built
                    .map_err(|error| CodeError::Compile(format!("the compiler failed: {error}")))?
                    .map(Arc::new)
            })
            .await?;
        Ok(Arc::clone(program))
    }

    /// Lets go of code whose image is gone; containers that still run keep it mapped.
    pub(crate) fn keep_only(&self, digests: &[String]) {
        let mut mapped = self.mapped.lock().unwrap_or_else(PoisonError::into_inner);
        mapped.retain(|digest, _| digests.contains(digest));
        drop(mapped);
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return };
        for entry in entries.filter_map(Result::ok) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let hex = name.split('.').next().unwrap_or_default();
            if !digests.iter().any(|digest| digest.strip_prefix("sha256:") == Some(hex)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    fn build(&self, digest: &str, wasm: &Path) -> Result<Program, CodeError> {
        let name = digest.strip_prefix("sha256:").unwrap_or(digest);
        let file = self.directory.join(format!("{name}.cwasm"));
        let sum = self.directory.join(format!("{name}.sum"));
        if is_trusted(&file, &sum) {
            match Program::map(&self.engines, &self.linkers, &file) {
                Err(CodeError::Cache { why, .. }) => tracing::warn!("cached code is compiled again: {why}"),
                program => return program,
            }
        }
        let failed = |action: &'static str, path: &Path, error: std::io::Error| CodeError::Cache {
            action,
            path: path.display().to_string(),
            why: error.to_string(),
        };
        let bytes = std::fs::read(wasm).map_err(|error| failed("read", wasm, error))?;
        let code = compile(&self.engines.on_demand, &bytes)?;
        self.write(&sum, hex::encode(Sha256::digest(&code)).as_bytes())
            .and_then(|()| self.write(&file, &code))
            .map_err(|error| failed("write", &file, error))?;
        Program::map(&self.engines, &self.linkers, &file)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(&self.directory)?;
        file.write_all(bytes)?;
        file.persist(path)?;
        Ok(())
    }
}

/// Whether the code file is what this user wrote.
fn is_trusted(file: &Path, sum: &Path) -> bool {
    let ours = |path: &Path| {
        std::fs::symlink_metadata(path).is_ok_and(|metadata| {
            metadata.is_file()
                && metadata.uid() == rustix::process::geteuid().as_raw()
                && metadata.mode() & 0o022 == 0
        })
    };
    if !ours(file) || !ours(sum) {
        return false;
    }
    let (Ok(expected), Ok(mut opened)) = (std::fs::read(sum), std::fs::File::open(file)) else {
        return false;
    };
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match std::io::Read::read(&mut opened, &mut buffer) {
            Ok(0) => return hex::encode(hash.finalize()).as_bytes() == expected,
            Ok(n) => hash.update(&buffer[..n]),
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_that_others_could_have_written_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let (file, sum) = (dir.path().join("a.cwasm"), dir.path().join("a.sum"));
        let write = |content: &[u8], checksum_of: &[u8], mode: u32| {
            std::fs::write(&file, content).unwrap();
            std::fs::write(&sum, hex::encode(Sha256::digest(checksum_of))).unwrap();
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            std::fs::set_permissions(&sum, std::fs::Permissions::from_mode(0o600)).unwrap();
        };
        write(b"code", b"code", 0o600);
        assert!(is_trusted(&file, &sum));
        write(b"code", b"code", 0o622);
        assert!(!is_trusted(&file, &sum));
        write(b"torn", b"code", 0o600);
        assert!(!is_trusted(&file, &sum));
        write(b"code", b"code", 0o600);
        std::fs::rename(&file, dir.path().join("b")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("b"), &file).unwrap();
        assert!(!is_trusted(&file, &sum));
    }
}
