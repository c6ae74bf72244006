//! Rotation of log files by size.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use wherry_runtimes::files::Held;
use wherry_runtimes::{Container, ContainerState};

use crate::kubelet::{Kubelet, path_part};
use crate::pod::labels;
use crate::runtimes::NodeRuntime;

/// Rotated files of a log, oldest first.
pub(super) fn rotated_files(path: &Path) -> Vec<PathBuf> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return Vec::new();
    };
    let prefix = format!("{name}.");
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(&prefix)))
        .map(|entry| entry.path())
        .collect();
    files.sort();
    files
}

/// Renames a log that has grown too large and removes the oldest ones; says whether the runtime has to open it again.
fn rotate(path: &Path, max_bytes: u64, max_files: usize, now: Timestamp) -> io::Result<bool> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else { return Ok(false) };
    // The runtime's user owns the directories: held, none of them can be exchanged for a link meanwhile.
    let held = match Held::directory(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        held => held?,
    };
    let path = &held.path().join(name);
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.len() > max_bytes => {}
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    }
    let mut old = rotated_files(path);
    // The current file and the one made of it now count too.
    while !old.is_empty() && old.len() + 2 > max_files.max(2) {
        fs::remove_file(old.remove(0))?;
    }
    let stamp = now.strftime("%Y%m%d-%H%M%S");
    let mut target = path.as_os_str().to_owned();
    target.push(format!(".{stamp}-{:09}", now.subsec_nanosecond()));
    fs::rename(path, target)?;
    Ok(true)
}

/// Rotates the logs of a runtime's running containers.
pub(crate) async fn rotate_all(kubelet: &Arc<Kubelet>, runtime: &NodeRuntime, containers: &[Container]) {
    for container in containers.iter().filter(|c| c.state == ContainerState::Running) {
        let label = |name| container.labels.get(name).map(String::as_str).unwrap_or_default();
        let path = kubelet
            .config
            .log_dir
            .join(path_part(&format!(
                "{}_{}_{}",
                label(labels::POD_NAMESPACE),
                label(labels::POD_NAME),
                label(labels::POD_UID)
            )))
            .join(path_part(label(labels::CONTAINER_NAME)))
            .join(format!("{}.log", container.metadata.attempt));
        match rotate(&path, kubelet.config.log_max_bytes, kubelet.config.log_max_files, kubelet.now()) {
            Ok(false) => {}
            Ok(true) => {
                if let Err(error) = runtime.service.reopen_container_log(&container.id).await {
                    tracing::warn!(%error, container = %container.id, "log was rotated but not opened again");
                }
            }
            Err(error) => tracing::warn!(%error, path = %path.display(), "log cannot be rotated"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_is_too_large_moves_away_and_the_oldest_go() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        for second in 0..6 {
            fs::write(&path, vec![b'x'; 20]).unwrap();
            assert!(rotate(&path, 10, 3, Timestamp::from_second(second).unwrap()).unwrap());
        }
        fs::write(&path, b"small").unwrap();
        assert!(!rotate(&path, 10, 3, Timestamp::from_second(9).unwrap()).unwrap());
        let names: Vec<String> = rotated_files(&path)
            .iter()
            .map(|p| p.file_name().unwrap().to_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["0.log.19700101-000004-000000000", "0.log.19700101-000005-000000000"]);
    }
}
