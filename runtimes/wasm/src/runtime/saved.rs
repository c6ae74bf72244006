//! What outlives the process: one small file per sandbox and container.
//!
//! Written when something is made and when it ends, each in one rename. Not synced: after a power failure no guest runs,
//! and the kubelet makes what is missing again. What is read at the start is over, because guests live in the process.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use wherry_runtimes::log::unix_nanos;
use wherry_runtimes::{ContainerState, ContainerStatus, PodSandboxState, PodSandboxStatus};

use super::state::{Container, Sandbox, State};

/// The largest file that is read back, in bytes. Annotations are at most 256 KiB.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Reason of a container whose end nobody saw. Source: the kubelet's own word for it.
const UNKNOWN: &str = "ContainerStatusUnknown";

pub(super) struct Saved {
    sandboxes: PathBuf,
    containers: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct SavedContainer {
    pod_sandbox_id: String,
    status: ContainerStatus,
}

impl Saved {
    pub(super) fn open(directory: &Path) -> std::io::Result<Self> {
        let saved = Self { sandboxes: directory.join("sandboxes"), containers: directory.join("containers") };
        std::fs::create_dir_all(&saved.sandboxes)?;
        std::fs::create_dir_all(&saved.containers)?;
        Ok(saved)
    }

    pub(super) fn put_sandbox(&self, status: &PodSandboxStatus) {
        write(&self.sandboxes, &status.id, status);
    }

    pub(super) fn put_container(&self, pod_sandbox_id: &str, status: &ContainerStatus) {
        let saved = SavedContainer { pod_sandbox_id: pod_sandbox_id.to_owned(), status: status.clone() };
        write(&self.containers, &status.id, &saved);
    }

    pub(super) fn remove_sandbox(&self, id: &str) {
        let _ = std::fs::remove_file(self.sandboxes.join(id));
    }

    pub(super) fn remove_container(&self, id: &str) {
        let _ = std::fs::remove_file(self.containers.join(id));
    }

    /// Everything from before, as it is now: sandboxes without network, containers at their end.
    pub(super) fn load_into(&self, state: &mut State) {
        for mut status in read_all::<PodSandboxStatus>(&self.sandboxes) {
            status.state = PodSandboxState::NotReady;
            status.network = None;
            let sandbox = Sandbox { status, containers: Default::default(), live: None };
            if let Err(error) = state.insert_sandbox(sandbox) {
                tracing::warn!("a saved sandbox is passed over: {error}");
            }
        }
        for SavedContainer { pod_sandbox_id, mut status } in read_all(&self.containers) {
            let Some(sandbox) = state.sandboxes.get_mut(&pod_sandbox_id) else {
                self.remove_container(&status.id);
                continue;
            };
            sandbox.containers.insert(status.id.clone());
            if status.state != ContainerState::Exited {
                status.state = ContainerState::Exited;
                status.exit_code = crate::guest::KILLED;
                status.reason = UNKNOWN.to_owned();
                status.message =
                    "The container could not be located when the runtime was restarted".to_owned();
                if status.started_at == 0 {
                    status.started_at = status.created_at;
                }
                status.finished_at = unix_nanos(std::time::SystemTime::now());
                self.put_container(&pod_sandbox_id, &status);
            }
            let id = status.id.clone();
            let container = Container { pod_sandbox_id, status, live: None, ended: watch::Sender::new(true) };
            state.containers.insert(id, container);
        }
    }
}

/// Losing a record is worth a warning, not the pod.
fn write<T: Serialize>(directory: &Path, id: &str, value: &T) {
    let written = || -> std::io::Result<()> {
        let bytes = serde_json::to_vec(value)?;
        let new = directory.join(format!("{id}.new"));
        std::fs::File::create(&new)?.write_all(&bytes)?;
        std::fs::rename(new, directory.join(id))
    };
    if let Err(error) = written() {
        tracing::warn!(id, "cannot save state: {error}");
    }
}

fn read_all<T: DeserializeOwned>(directory: &Path) -> Vec<T> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut all = Vec::new();
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let small = std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= MAX_FILE_BYTES);
        let complete = path.extension().is_none();
        let read = (small && complete).then(|| std::fs::read(&path).ok()).flatten();
        match read.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            Some(value) => all.push(value),
            None => {
                tracing::warn!(path = %path.display(), "saved state cannot be read and is removed");
                let _ = std::fs::remove_file(&path);
            }
        }
    }
    all
}
